//! Footage as a camera seals it, in memory, with the parts laid open, so that a scenario can tell a lie in exactly
//! one of them.

use bytes::Bytes;
use link::credentials::{load_chain, load_key};
use link::random::Random;
use protocol::cose::DeviceSigner;
use protocol::header::{self, Private};
use protocol::ids::{CameraId, Digest, Incarnation, RecordingId, Time};
use protocol::inventory::{self, Held, Page};
use protocol::manifest::{
    self, Class, End, EndReason, HeaderEntry, Manifest, Policy, SegmentEntry,
};
use protocol::receipt::{self, Receipt, Verdict};
use protocol::segment::{self, Place};
use protocol::suite::{SigningKey, sha256};
use zeroize::Zeroizing;

use crate::station::Station;

/// A sealed recording.
#[derive(Clone, Debug)]
pub struct Recording {
    /// Its name.
    pub id: RecordingId,
    /// Its header, sealed.
    pub header: Bytes,
    /// Its segments, sealed.
    pub segments: Vec<Bytes>,
    /// Its manifests: one, of all segments.
    pub manifest: Manifest,
}

impl Recording {
    /// The header's digest.
    #[must_use]
    pub fn header_digest(&self) -> Digest {
        sha256(&self.header)
    }
    /// The segments' digests.
    #[must_use]
    pub fn digests(&self) -> Vec<Digest> {
        self.segments.iter().map(|s| sha256(s)).collect()
    }
    /// What a digest names.
    #[must_use]
    pub fn bytes_of(&self, digest: &Digest) -> Option<Bytes> {
        std::iter::once(&self.header)
            .chain(&self.segments)
            .find(|b| sha256(b) == *digest)
            .cloned()
    }
}

/// The device key of a camera of the trial agency.
#[must_use]
pub fn signer(station: &Station, serial: &str) -> DeviceSigner {
    let folder = station.agency.path("cameras").join(serial);
    let key = load_key(&folder.join("device.key")).unwrap();
    let chain = load_chain(&folder.join("device.pem")).unwrap();
    DeviceSigner::new(
        SigningKey::from_pkcs8(key.secret_der()).unwrap(),
        chain,
        &station.trust(),
    )
    .unwrap()
}

/// A site's receipt key.
#[must_use]
pub fn receipt_key(station: &Station, site: &str) -> SigningKey {
    let path = station
        .agency
        .path("archives")
        .join(site)
        .join("receipt.key");
    SigningKey::from_pkcs8(load_key(&path).unwrap().secret_der()).unwrap()
}

/// Seals footage in segments of `piece` bytes as recording `number` of the camera's `incarnation`; `k` of `sites` count.
#[must_use]
pub fn record(
    station: &Station,
    camera: &CameraId,
    number: u64,
    footage: &[u8],
    piece: usize,
    sites: &[&str],
) -> Recording {
    let id = RecordingId {
        camera: camera.clone(),
        number,
    };
    let random = Random::system();
    let key = Zeroizing::new(random.bytes());
    let private = Private {
        content_key: *key,
        media_type: None,
        officer: None,
        case: None,
        position: None,
        muted: None,
    };
    let recipients = station.key_list().active_recipients();
    let sealed = header::seal(&id, &private, &recipients, &|out| random.fill(out)).unwrap();
    let pieces: Vec<&[u8]> = footage.chunks(piece).collect();
    let seal = |(seq, plain): (usize, &&[u8])| {
        let place = Place {
            recording: &id,
            seq: seq as u64,
            last: seq + 1 == pieces.len(),
        };
        segment::seal(&key, place, plain).unwrap().bytes
    };
    let segments: Vec<Bytes> = pieces.iter().enumerate().map(seal).collect();
    let body = manifest_body(&id, &sealed.bytes, &segments, sites);
    let manifest = Manifest::sign(body, &signer(station, camera.serial.as_str())).unwrap();
    Recording {
        id,
        header: sealed.bytes,
        segments,
        manifest,
    }
}

/// What the only manifest of a recording says.
#[must_use]
pub fn manifest_body(
    id: &RecordingId,
    header: &Bytes,
    segments: &[Bytes],
    sites: &[&str],
) -> manifest::Body {
    let entry = |(seq, b): (usize, &Bytes)| SegmentEntry {
        seq: seq as u64,
        length: length(b),
        digest: sha256(b),
    };
    manifest::Body {
        version: manifest::VERSION,
        recording: id.clone(),
        index: 0,
        previous: None,
        header: HeaderEntry {
            digest: sha256(header),
            length: length(header),
        },
        segments: segments.iter().enumerate().map(entry).collect(),
        captured_from: Time(1_790_000_000_000),
        captured_to: Time(1_790_000_060_000),
        class: Class::Routine,
        policy: Policy {
            k: 1,
            sites: sites.iter().map(|s| s.parse().unwrap()).collect(),
        },
        end: Some(End {
            segments: segments.len() as u64,
            reason: EndReason::Stopped,
        }),
        clock_unset: false,
        clock_offset_ms: None,
    }
}

fn length(bytes: &Bytes) -> u32 {
    u32::try_from(bytes.len()).unwrap()
}

/// A camera's storage with a fresh incarnation.
#[must_use]
pub fn camera_id(serial: &str) -> CameraId {
    CameraId {
        serial: serial.parse().unwrap(),
        incarnation: Incarnation(Random::system().bytes()),
    }
}

/// The one page of an inventory that holds these recordings, numbered from 0, and nothing else.
#[must_use]
pub fn inventory(camera: &CameraId, number: u64, recordings: &[Recording]) -> inventory::Body {
    let held = |r: &Recording| Held {
        number: r.id.number,
        manifest: r.manifest.digest(),
        index: 0,
        bytes: r
            .segments
            .iter()
            .chain([&r.header])
            .map(|b| b.len() as u64)
            .sum(),
        receipted: Vec::new(),
        erased: Vec::new(),
    };
    inventory::Body {
        version: inventory::VERSION,
        camera: camera.clone(),
        number,
        page: 0,
        pages: 1,
        next_recording: recordings.len() as u64,
        held: recordings.iter().map(held).collect(),
        released: Vec::new(),
        overwritten: Vec::new(),
        made: Time(1_790_000_000_000),
    }
}

/// That page, signed.
#[must_use]
pub fn page(station: &Station, body: inventory::Body) -> Page {
    let signer = signer(station, body.camera.serial.as_str());
    Page::sign(body, &signer).unwrap()
}

/// What a receipt for a manifest says.
#[must_use]
pub fn receipt_body(
    site: &str,
    epoch: protocol::ids::StoreEpoch,
    manifest: &Manifest,
) -> receipt::Body {
    receipt::Body {
        version: receipt::VERSION,
        site: site.parse().unwrap(),
        epoch,
        recording: manifest.recording().clone(),
        header: manifest.body().header.digest,
        segments: manifest.body().segments.iter().map(|s| s.digest).collect(),
        verdict: Verdict::Stored,
        signed: Time(1_790_000_100_000),
        manifests: vec![manifest.digest()],
    }
}

/// That receipt, signed.
#[must_use]
pub fn signed(body: receipt::Body, key: &SigningKey) -> Bytes {
    Receipt::sign(body, key).unwrap().bytes().clone()
}
