//! What is recorded before any power is cut: footage, manifests and keys, as files that driver and checker both read.
//!
//! Everything is made once, since signatures differ each time. Lengths are those at which something turns: a byte, a
//! sector, a page, and pieces that need several writes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use link::credentials::{CredentialFiles, Credentials, load_chain, load_key};
use link::random::Random;
use protocol::cose::DeviceSigner;
use protocol::identity::{Role, Trust};
use protocol::ids::{CameraId, Digest, Range, StoreEpoch, Time};
use protocol::inventory::{self, Held, Inventory, Page, Released};
use protocol::keylist::KeyList;
use protocol::logbook::{Countersignature, LogbookHead, SignedHead};
use protocol::manifest::{Class, Manifest};
use protocol::receipt::{Receipt, Verdict};
use protocol::suite::{SigningKey, sha256};

use crate::chance;
use crate::sealed;
use crate::station::{Plan as Agency, STATION, Station};

/// The two sites of the agency.
pub const SITES: [&str; 2] = ["site-a", "site-b"];
/// When everything happens: no decision of the spool hangs on it here.
pub const NOW: Time = Time(1_790_000_200_000);
/// Bytes of footage that the spool takes: less than there is, so that it has to reclaim.
pub const CAPACITY_BYTES: u64 = 320 << 10;

const CAMERAS: u32 = 3;
const RECORDINGS: u64 = 7;
const LENGTHS: [usize; 7] = [1, 300, 511, 4096, 9_000, 20_000, 40_000];

/// A recording.
#[derive(Clone, Debug)]
pub struct Recording {
    /// Its manifest, which names all of it.
    pub manifest: Manifest,
    /// Header and segments by digest.
    pub parts: BTreeMap<Digest, Bytes>,
}

/// All that was made.
#[derive(Debug)]
pub struct Plan {
    /// The agency's roots.
    pub trust: Trust,
    /// Its key list.
    pub keys: KeyList,
    /// The cameras.
    pub cameras: Vec<CameraId>,
    /// What they recorded.
    pub recordings: Vec<Recording>,
    folder: PathBuf,
}

/// Makes a plan in the folder of a new station, and gives the station that keeps it.
#[must_use]
pub fn make(seed: u64) -> Station {
    let station = Station::new(Agency {
        cameras: CAMERAS,
        sites: &SITES,
        days_ago: 0,
    });
    let random = Random::seeded(seed);
    for n in 1..=CAMERAS {
        let camera = sealed::camera_id(&format!("BWC-{n:04}"));
        for number in 0..RECORDINGS {
            make_recording(&station, &camera, number, &random);
        }
    }
    fs::write(station.path("key-list"), station.key_list().bytes()).unwrap();
    let plan = Plan::load(&station.path(""));
    for (recording, site) in plan.recordings.iter().flat_map(|r| SITES.map(|s| (r, s))) {
        let receipt = plan.receipt(site, recording, None);
        fs::write(plan.receipt_path(site, recording), receipt.bytes()).unwrap();
    }
    station
}

fn make_recording(station: &Station, camera: &CameraId, number: u64, random: &Random) {
    let below = |n| chance::below(random, n);
    let piece = LENGTHS[below(LENGTHS.len())];
    let count = if piece > 20_000 {
        1 + below(2)
    } else {
        1 + below(6)
    };
    let mut footage = vec![0; piece * count - below(piece)];
    random.fill(&mut footage);
    let made = sealed::record(station, camera, number, &footage, piece, &SITES);
    let mut body = made.manifest.body().clone();
    body.policy.k = if below(3) == 0 { 2 } else { 1 };
    if below(4) == 0 {
        body.class = Class::Urgent;
    }
    let signer = sealed::signer(station, camera.serial.as_str());
    let manifest = Manifest::sign(body, &signer).unwrap();
    let folder = station
        .path("plan")
        .join(format!("{}-{number}", camera.serial));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("manifest"), manifest.bytes()).unwrap();
    for part in made.segments.iter().chain([&made.header]) {
        fs::write(folder.join(sha256(part).to_string()), part).unwrap();
    }
}

impl Plan {
    /// Reads it from the station's folder.
    ///
    /// # Panics
    /// Where it is not there.
    #[must_use]
    pub fn load(folder: &Path) -> Plan {
        let read = |path: PathBuf| Bytes::from(fs::read(path).unwrap());
        let trust = Trust::from_pem(&read(folder.join("agency/trust.pem")), None).unwrap();
        let keys = KeyList::verify(read(folder.join("key-list")), trust.root_keys()).unwrap();
        let mut folders: Vec<_> = fs::read_dir(folder.join("plan"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        folders.sort();
        let recording = |at: PathBuf| {
            let manifest = Manifest::verify(read(at.join("manifest")), &trust).unwrap();
            let header = manifest.body().header.digest;
            let segments = manifest.body().segments.iter().map(|s| s.digest);
            let parts = segments
                .chain([header])
                .map(|d| (d, read(at.join(d.to_string()))))
                .collect();
            Recording { manifest, parts }
        };
        let recordings: Vec<_> = folders.into_iter().map(recording).collect();
        let mut cameras: Vec<_> = recordings.iter().map(|r| r.camera().clone()).collect();
        cameras.dedup();
        Plan {
            trust,
            keys,
            cameras,
            recordings,
            folder: folder.to_owned(),
        }
    }

    /// The bytes of a header or segment.
    #[must_use]
    pub fn bytes_of(&self, digest: &Digest) -> Option<&Bytes> {
        self.recordings.iter().find_map(|r| r.parts.get(digest))
    }
    /// The recording of a header or segment.
    #[must_use]
    pub fn recording_of(&self, digest: &Digest) -> Option<&Recording> {
        self.recordings
            .iter()
            .find(|r| r.parts.contains_key(digest))
    }

    /// What a site signs for a recording: all of it, or one segment.
    ///
    /// # Panics
    /// Where the site's key is not there.
    #[must_use]
    pub fn receipt(&self, site: &str, recording: &Recording, only: Option<Digest>) -> Receipt {
        let path = self
            .folder
            .join("agency/archives")
            .join(site)
            .join("receipt.key");
        let key = SigningKey::from_pkcs8(load_key(&path).unwrap().secret_der()).unwrap();
        let mut body = sealed::receipt_body(site, StoreEpoch([1; 16]), &recording.manifest);
        body.verdict = Verdict::Stored;
        if let Some(digest) = only {
            body.segments = vec![digest];
            body.manifests = Vec::new();
        }
        Receipt::sign(body, &key).unwrap()
    }

    /// What a site says of the head of the repeater's logbook.
    ///
    /// # Panics
    /// Where a key is not there.
    #[must_use]
    pub fn countersign(&self, site: &str, head: LogbookHead) -> Countersignature {
        let agency = self.folder.join("agency");
        let own = agency.join("repeaters").join(format!("{STATION}-1"));
        let files = CredentialFiles {
            chain: own.join("chain.pem"),
            key: own.join("key.pem"),
            trust: agency.join("trust.pem"),
            crl: None,
        };
        let own = Credentials::load(&files, Role::Repeater).unwrap();
        let head = SignedHead::sign(head, &own.signer.unwrap(), NOW).unwrap();
        let key = load_key(&agency.join("archives").join(site).join("receipt.key")).unwrap();
        let key = SigningKey::from_pkcs8(key.secret_der()).unwrap();
        Countersignature::sign(&head, site.parse().unwrap(), &key, NOW).unwrap()
    }

    /// The receipt for all of a recording, as it was signed once.
    ///
    /// # Panics
    /// Where it is not there.
    #[must_use]
    pub fn whole_receipt(&self, site: &str, recording: &Recording) -> Receipt {
        let bytes = fs::read(self.receipt_path(site, recording)).unwrap();
        Receipt::verify(bytes.into(), &self.keys).unwrap()
    }

    fn receipt_path(&self, site: &str, recording: &Recording) -> PathBuf {
        let receipts = self.folder.join("receipts");
        fs::create_dir_all(&receipts).unwrap();
        receipts.join(format!("{site}-{}", recording.header()))
    }

    /// Inventory `number` of a camera that has erased the recordings `erased`.
    ///
    /// # Panics
    /// Where the camera's key is not there.
    #[must_use]
    pub fn inventory(&self, camera: &CameraId, number: u64, erased: &[u64]) -> Inventory {
        let all = self.recordings.iter().filter(|r| r.camera() == camera);
        let (mut held, mut released) = (Vec::new(), Vec::new());
        for r in all {
            let n = r.manifest.recording().number;
            if erased.contains(&n) {
                released.push(Released {
                    range: Range { from: n, to: n },
                    receipts: Digest([0; 32]),
                });
            } else {
                held.push(Held {
                    number: n,
                    manifest: r.manifest.digest(),
                    index: 0,
                    bytes: r.parts.values().map(|b| b.len() as u64).sum(),
                    receipted: Vec::new(),
                    erased: Vec::new(),
                });
            }
        }
        let body = inventory::Body {
            version: inventory::VERSION,
            camera: camera.clone(),
            number,
            page: 0,
            pages: 1,
            next_recording: RECORDINGS,
            held,
            released,
            overwritten: Vec::new(),
            made: NOW,
        };
        let folder = self
            .folder
            .join("agency/cameras")
            .join(camera.serial.as_str());
        let key = load_key(&folder.join("device.key")).unwrap();
        let signer = DeviceSigner::new(
            SigningKey::from_pkcs8(key.secret_der()).unwrap(),
            load_chain(&folder.join("device.pem")).unwrap(),
            &self.trust,
        );
        let page = Page::sign(body, &signer.unwrap()).unwrap();
        Inventory::assemble(vec![page]).unwrap()
    }
}

impl Recording {
    /// Its camera.
    #[must_use]
    pub fn camera(&self) -> &CameraId {
        &self.manifest.recording().camera
    }
    /// Its header's digest.
    #[must_use]
    pub fn header(&self) -> Digest {
        self.manifest.body().header.digest
    }
}
