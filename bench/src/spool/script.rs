//! What the cameras of this bench have to offer, made before anything is timed: for each camera one recording
//! with its header, its signed manifests and an inventory. Contents are random bytes that differ in their
//! first eight, since the store never opens what it keeps.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};
use bytes::Bytes;
use link::credentials::{load_chain, load_key, load_trust};
use link::random::Random;
use protocol::cose::DeviceSigner;
use protocol::identity::Trust;
use protocol::ids::{CameraId, Digest, Incarnation, Range, RecordingId, Serial, SiteId, Time};
use protocol::inventory::{self, Held, Inventory, Page, Released};
use protocol::keylist::KeyList;
use protocol::limits::MANIFEST_SEGMENTS;
use protocol::manifest::{
    self, Class, End, EndReason, HeaderEntry, Manifest, Policy, SegmentEntry,
};
use protocol::suite::{SigningKey, sha256};

use super::Job;

const HEADER_BYTES: usize = 512;
/// Where a segment's own number stands.
const NUMBER_BYTES: usize = 8;

/// What all parties of the agency know.
pub(super) struct Papers {
    /// The root.
    pub(super) trust: Trust,
    /// Receipt keys and recipients.
    pub(super) keys: KeyList,
    /// The archive's site.
    pub(super) site: SiteId,
    /// The key that it signs receipts with.
    pub(super) receipt_key: SigningKey,
}

impl Papers {
    /// Loads them from the agency's folder.
    pub(super) fn load(agency: &Path) -> Result<Papers> {
        let trust = load_trust(&agency.join("trust.pem"), None)?;
        let list = std::fs::read(agency.join("key-list.cose"))?;
        let keys = KeyList::verify(list.into(), trust.root_keys())?;
        let receipt_key = keys
            .body()
            .receipt_keys
            .first()
            .context("a key list without receipt keys")?;
        let site = receipt_key.site.clone();
        let own = agency
            .join("archives")
            .join(site.as_str())
            .join("receipt.key");
        let receipt_key = SigningKey::from_pkcs8(load_key(&own)?.secret_der())?;
        Ok(Papers {
            trust,
            keys,
            site,
            receipt_key,
        })
    }
}

/// What a digest stands for.
#[derive(Clone, Debug)]
enum Content {
    Header(Bytes),
    Segment(u64),
}

/// One camera's recording.
pub(super) struct Offer {
    /// The camera.
    pub(super) camera: CameraId,
    /// Its inventory.
    pub(super) inventory: Inventory,
    /// The one after it has erased it.
    pub(super) erased: Inventory,
    /// Its manifests, in order.
    pub(super) manifests: Vec<Manifest>,
}

/// Everything that the cameras have.
pub(super) struct Script {
    /// Each camera's.
    pub(super) offers: Vec<Offer>,
    contents: HashMap<Digest, Content>,
    base: Bytes,
}

impl Script {
    /// Makes it: signs and hashes all.
    pub(super) fn make(job: &Job, papers: &Papers, round: u64, now: Time) -> Result<Script> {
        let random = Random::system();
        let mut base = vec![0; usize::try_from(job.segment_bytes)?];
        random.fill(&mut base);
        let mut script = Script {
            offers: Vec::new(),
            contents: HashMap::new(),
            base: base.into(),
        };
        let first = round * u64::from(job.segments);
        let mut made = first;
        for n in 0..job.cameras {
            let until = first + u64::from(job.segments) * u64::from(n + 1) / u64::from(job.cameras);
            let offer = script.offer(job, papers, (n + 1, round), made..until, &random, now)?;
            script.offers.push(offer);
            made = until;
        }
        Ok(script)
    }

    /// The bytes of a digest, in pieces of `piece` bytes: its first one differs from the others', which are one memory.
    pub(super) fn pieces(&self, digest: &Digest, piece: usize) -> Result<Vec<Bytes>> {
        match self
            .contents
            .get(digest)
            .context("the store asks for a digest that nobody announced")?
        {
            Content::Header(bytes) => Ok(vec![bytes.clone()]),
            Content::Segment(number) => {
                let cut = |at: usize| self.base.slice(at..self.base.len().min(at + piece));
                let first = numbered(&cut(0), *number);
                let others = (piece..self.base.len()).step_by(piece).map(cut);
                Ok(std::iter::once(first).chain(others).collect())
            }
        }
    }

    fn offer(
        &mut self,
        job: &Job,
        papers: &Papers,
        (number, round): (u32, u64),
        segments: std::ops::Range<u64>,
        random: &Random,
        now: Time,
    ) -> Result<Offer> {
        let serial: Serial = link::agency::trial::serial(number);
        let own = job.agency.join("cameras").join(serial.as_str());
        let key = SigningKey::from_pkcs8(load_key(&own.join("device.key"))?.secret_der())?;
        let signer = DeviceSigner::new(key, load_chain(&own.join("device.pem"))?, &papers.trust)?;
        let camera = CameraId {
            serial,
            incarnation: Incarnation([7; 16]),
        };
        let header = Bytes::from(random.bytes::<HEADER_BYTES>().to_vec());
        let header_entry = HeaderEntry {
            digest: sha256(&header),
            length: u32::try_from(HEADER_BYTES)?,
        };
        self.contents
            .insert(header_entry.digest, Content::Header(header));
        let entries: Vec<SegmentEntry> = segments
            .enumerate()
            .map(|(seq, content)| self.entry(seq as u64, content))
            .collect();
        let recording = RecordingId {
            camera: camera.clone(),
            number: round,
        };
        let total = entries.len() as u64;
        let manifests = manifests(
            &recording,
            header_entry,
            &entries,
            &papers.site,
            &signer,
            now,
        )?;
        let bytes = total * u64::from(job.segment_bytes);
        let newest = manifests
            .last()
            .context("a camera without segments: use fewer cameras")?;
        let held = Held {
            number: round,
            manifest: newest.digest(),
            index: newest.body().index,
            bytes,
            receipted: vec![],
            erased: vec![],
        };
        Ok(Offer {
            inventory: inventory(&camera, 2 * round + 1, Some(held), round, &signer, now)?,
            erased: inventory(&camera, 2 * round + 2, None, round + 1, &signer, now)?,
            camera,
            manifests,
        })
    }

    fn entry(&mut self, seq: u64, number: u64) -> SegmentEntry {
        let digest = sha256(&numbered(&self.base, number));
        self.contents.insert(digest, Content::Segment(number));
        let length = u32::try_from(self.base.len()).expect("the option is a u32");
        SegmentEntry {
            seq,
            length,
            digest,
        }
    }
}

/// The bytes with their number at their beginning.
fn numbered(bytes: &[u8], number: u64) -> Bytes {
    let mut bytes = bytes.to_vec();
    bytes[..NUMBER_BYTES].copy_from_slice(&number.to_be_bytes());
    bytes.into()
}

/// One recording's manifests.
fn manifests(
    recording: &RecordingId,
    header: HeaderEntry,
    entries: &[SegmentEntry],
    site: &SiteId,
    signer: &DeviceSigner,
    now: Time,
) -> Result<Vec<Manifest>> {
    let total = entries.len() as u64;
    let mut manifests: Vec<Manifest> = Vec::new();
    for chunk in entries.chunks(MANIFEST_SEGMENTS) {
        let is_last = chunk.last().is_some_and(|s| s.seq + 1 == total);
        let body = manifest::Body {
            version: manifest::VERSION,
            recording: recording.clone(),
            index: u32::try_from(manifests.len())?,
            previous: manifests.last().map(Manifest::digest),
            header,
            segments: chunk.to_vec(),
            captured_from: now,
            captured_to: now,
            class: Class::Routine,
            policy: Policy {
                k: 1,
                sites: vec![site.clone()],
            },
            end: is_last.then_some(End {
                segments: total,
                reason: EndReason::Stopped,
            }),
            clock_unset: false,
            clock_offset_ms: None,
        };
        manifests.push(Manifest::sign(body, signer)?);
    }
    Ok(manifests)
}

/// The camera's inventory when it holds `held`, if anything, and has erased the recordings below `erased`.
fn inventory(
    camera: &CameraId,
    number: u64,
    held: Option<Held>,
    erased: u64,
    signer: &DeviceSigner,
    now: Time,
) -> Result<Inventory> {
    let released = erased.checked_sub(1).map(|to| Released {
        range: Range { from: 0, to },
        receipts: Digest([0; 32]),
    });
    let body = inventory::Body {
        version: inventory::VERSION,
        camera: camera.clone(),
        number,
        page: 0,
        pages: 1,
        next_recording: erased + u64::from(held.is_some()),
        held: held.into_iter().collect(),
        released: released.into_iter().collect(),
        overwritten: vec![],
        made: now,
    };
    Ok(Inventory::assemble(vec![Page::sign(body, signer)?])?)
}
