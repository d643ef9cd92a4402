//! A small agency for the tests: a root, a camera's device key, two archive sites, footage made of numbers.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use protocol::cose::DeviceSigner;
use protocol::custody::Stage;
use protocol::identity::Trust;
use protocol::ids::{CameraId, Digest, Incarnation, Range, SiteId, StoreEpoch, Time};
use protocol::inventory::{self, Held, Inventory, Page, Released};
use protocol::keylist::{self, KeyList, ReceiptKey, State, VoidEpoch};
use protocol::manifest::{self, Class, HeaderEntry, Manifest, Policy, SegmentEntry};
use protocol::receipt::{self, Receipt, Verdict};
use protocol::suite::{SigningKey, sha256};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use spool::{Faults, Finished, Options, Spool, SpoolError, StartReport};

pub(crate) const NOW: Time = Time(1_795_305_600_000);
pub(crate) const EPOCH: StoreEpoch = StoreEpoch([1; 16]);

/// The agency and the disk.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) trust: Trust,
    root: SigningKey,
    pub(crate) ca: Issuer<'static, KeyPair>,
    ca_der: rustls_pki_types::CertificateDer<'static>,
    pub(crate) sites: BTreeMap<SiteId, SigningKey>,
    pub(crate) capacity: u64,
    pub(crate) faults: Faults,
    /// Whether the ledger is written anew all the time.
    pub(crate) renews: bool,
}

/// A camera that signs.
pub(crate) struct Camera {
    pub(crate) id: CameraId,
    signer: DeviceSigner,
    /// Signatures differ each time: one manifest is signed once.
    signed: RefCell<HashMap<String, Manifest>>,
}

/// A recording with its bytes.
#[derive(Clone)]
pub(crate) struct Footage {
    pub(crate) camera: CameraId,
    pub(crate) number: u64,
    pub(crate) header: Vec<u8>,
    pub(crate) segments: Vec<Vec<u8>>,
    pub(crate) class: Class,
    pub(crate) k: u8,
}

impl Footage {
    pub(crate) fn header_digest(&self) -> Digest {
        sha256(&self.header)
    }
    pub(crate) fn digest(&self, seq: usize) -> Digest {
        sha256(&self.segments[seq])
    }
    pub(crate) fn digests(&self) -> Vec<Digest> {
        std::iter::once(self.header_digest())
            .chain(self.segments.iter().map(|s| sha256(s)))
            .collect()
    }
    pub(crate) fn bytes_of(&self, digest: &Digest) -> Option<&[u8]> {
        std::iter::once(&self.header)
            .chain(&self.segments)
            .find(|b| sha256(b) == *digest)
            .map(Vec::as_slice)
    }
}

pub(crate) fn site(name: &str) -> SiteId {
    name.parse().unwrap()
}
pub(crate) fn both() -> BTreeSet<SiteId> {
    [site("daejeon"), site("gwangju")].into()
}
pub(crate) fn none() -> HashSet<Digest> {
    HashSet::new()
}

fn signing_key(pair: &KeyPair) -> SigningKey {
    SigningKey::from_pkcs8(&pair.serialize_der()).unwrap()
}

impl World {
    pub(crate) fn new() -> World {
        World::on(tempfile::tempdir().unwrap())
    }
    /// In memory, where the machine has a file system for that: for what asks the rules and not the disk.
    pub(crate) fn in_memory() -> World {
        let dir = tempfile::tempdir_in("/dev/shm");
        World {
            renews: true,
            ..World::on(dir.or_else(|_| tempfile::tempdir()).unwrap())
        }
    }
    fn on(dir: tempfile::TempDir) -> World {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pair = KeyPair::generate().unwrap();
        let root = signing_key(&pair);
        let ca_der = params.self_signed(&pair).unwrap().der().clone();
        let trust = Trust::from_der(std::slice::from_ref(&ca_der), &[]).unwrap();
        let sites = both()
            .into_iter()
            .map(|s| (s, signing_key(&KeyPair::generate().unwrap())))
            .collect();
        let ca = Issuer::new(params, pair);
        World {
            dir,
            trust,
            root,
            ca,
            ca_der,
            sites,
            capacity: 1 << 30,
            faults: Faults::none(),
            renews: false,
        }
    }

    pub(crate) fn camera(&self, serial: &str, incarnation: u8) -> Camera {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(
            format!("urn:bwc:device:{serial}")
                .as_str()
                .try_into()
                .unwrap(),
        )];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(vec![
            1, 3, 6, 1, 4, 1, 59999, 1, 1,
        ])];
        let pair = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&pair, &self.ca).unwrap().der().clone();
        let _ = &self.ca_der;
        let signer = DeviceSigner::new(signing_key(&pair), vec![leaf], &self.trust).unwrap();
        Camera {
            id: CameraId {
                serial: serial.parse().unwrap(),
                incarnation: Incarnation([incarnation; 16]),
            },
            signer,
            signed: RefCell::default(),
        }
    }

    /// Key list `number`; `void` ends both sites' epochs, `suspended` are gone.
    pub(crate) fn keys(&self, number: u64, void: bool, suspended: &[&str]) -> KeyList {
        let epochs: &[StoreEpoch] = if void { &[EPOCH] } else { &[] };
        self.key_list(number, epochs, suspended)
    }
    /// Key list `number`; both sites' `void` epochs are over.
    pub(crate) fn key_list(&self, number: u64, void: &[StoreEpoch], suspended: &[&str]) -> KeyList {
        let key = |(site, key): (&SiteId, &SigningKey)| ReceiptKey {
            site: site.clone(),
            public_key: key.public().sec1().to_vec(),
            state: State::Active,
        };
        let voided = |site: SiteId| {
            void.iter().map(move |epoch| VoidEpoch {
                site: site.clone(),
                epoch: *epoch,
            })
        };
        let body = keylist::Body {
            version: keylist::VERSION,
            number,
            receipt_keys: self.sites.iter().map(key).collect(),
            recipients: Vec::new(),
            void_epochs: self.sites.keys().cloned().flat_map(voided).collect(),
            suspended: suspended.iter().map(|s| site(s)).collect(),
        };
        KeyList::sign(body, &self.root).unwrap()
    }

    pub(crate) fn options(&self) -> Options {
        let mut options = Options::new(
            self.path(""),
            self.capacity,
            self.dir.path().join("run"),
            [7; 16],
        );
        options.faults = self.faults.clone();
        if self.renews {
            options.ledger_bytes = 0;
        }
        options
    }
    pub(crate) fn try_open(&self) -> Result<(Spool, StartReport), SpoolError> {
        Spool::open(
            self.options(),
            self.trust.clone(),
            self.keys(1, false, &[]),
            NOW,
        )
    }
    pub(crate) fn open(&self) -> Spool {
        self.try_open().unwrap().0
    }
    pub(crate) fn recover(&self) -> (Spool, StartReport) {
        Spool::recover(
            self.options(),
            self.trust.clone(),
            self.keys(1, false, &[]),
            NOW,
        )
        .unwrap()
    }
    /// The same with random bytes of its own, as every process has.
    pub(crate) fn start(&self, fresh: u8, rebuild: bool) -> (Spool, StartReport) {
        let mut options = self.options();
        options.fresh = [fresh; 16];
        let open = if rebuild { Spool::recover } else { Spool::open };
        open(options, self.trust.clone(), self.keys(1, false, &[]), NOW).unwrap()
    }
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("spool").join(name)
    }
    /// Leaves a mark where those lie that last as long as the boot.
    pub(crate) fn mark(&self, name: &str) {
        let run = self.dir.path().join("run");
        fs::create_dir_all(&run).unwrap();
        fs::write(run.join(name), "").unwrap();
    }
    pub(crate) fn segment(&self, digest: &Digest) -> PathBuf {
        self.path("segments").join(digest.to_string())
    }

    pub(crate) fn receipt(
        &self,
        name: &str,
        footage: &Footage,
        segments: &[Digest],
        epoch: StoreEpoch,
    ) -> Receipt {
        self.receipt_with(name, footage, segments, &[], epoch)
    }
    pub(crate) fn receipt_with(
        &self,
        name: &str,
        footage: &Footage,
        segments: &[Digest],
        manifests: &[Digest],
        epoch: StoreEpoch,
    ) -> Receipt {
        let body = receipt::Body {
            version: receipt::VERSION,
            site: site(name),
            epoch,
            recording: protocol::ids::RecordingId {
                camera: footage.camera.clone(),
                number: footage.number,
            },
            header: footage.header_digest(),
            segments: segments.to_vec(),
            verdict: Verdict::Stored,
            signed: NOW,
            manifests: manifests.to_vec(),
        };
        Receipt::sign(body, &self.sites[&site(name)]).unwrap()
    }
    /// A receipt for the header and every segment.
    pub(crate) fn full_receipt(&self, name: &str, footage: &Footage) -> Receipt {
        self.receipt(name, footage, &footage.digests()[1..], EPOCH)
    }
}

impl Camera {
    /// A recording of `lengths`, whose bytes are its own.
    pub(crate) fn footage(&self, number: u64, lengths: &[usize]) -> Footage {
        footage_of(&self.id, number, lengths)
    }

    /// The manifest of index `index` that names the segments `range`.
    pub(crate) fn manifest(
        &self,
        footage: &Footage,
        index: u32,
        range: std::ops::Range<usize>,
    ) -> Manifest {
        let entry = |seq: usize| SegmentEntry {
            seq: seq as u64,
            length: u32::try_from(footage.segments[seq].len()).unwrap(),
            digest: footage.digest(seq),
        };
        let body = manifest::Body {
            version: manifest::VERSION,
            recording: protocol::ids::RecordingId {
                camera: self.id.clone(),
                number: footage.number,
            },
            index,
            previous: (index > 0).then_some(Digest([9; 32])),
            header: HeaderEntry {
                digest: footage.header_digest(),
                length: u32::try_from(footage.header.len()).unwrap(),
            },
            segments: range.map(entry).collect(),
            captured_from: Time(1000 + footage.number),
            captured_to: Time(2000 + footage.number),
            class: footage.class,
            policy: Policy {
                k: footage.k,
                sites: both().into_iter().collect(),
            },
            end: None,
            clock_unset: false,
            clock_offset_ms: None,
        };
        let signed = || Manifest::sign(body.clone(), &self.signer).unwrap();
        self.signed
            .borrow_mut()
            .entry(format!("{body:?}"))
            .or_insert_with(signed)
            .clone()
    }
    pub(crate) fn whole_manifest(&self, footage: &Footage) -> Manifest {
        self.manifest(footage, 0, 0..footage.segments.len())
    }

    /// An inventory that holds `held` and has released the numbers of `released`.
    pub(crate) fn inventory(
        &self,
        number: u64,
        next: u64,
        held: Vec<Held>,
        released: &[Range],
    ) -> Inventory {
        let body = inventory::Body {
            version: inventory::VERSION,
            camera: self.id.clone(),
            number,
            page: 0,
            pages: 1,
            next_recording: next,
            held,
            released: released
                .iter()
                .map(|range| Released {
                    range: *range,
                    receipts: Digest([0; 32]),
                })
                .collect(),
            overwritten: Vec::new(),
            made: NOW,
        };
        Inventory::assemble(vec![Page::sign(body, &self.signer).unwrap()]).unwrap()
    }
}

/// A recording of `lengths`, whose bytes are its own.
pub(crate) fn footage_of(camera: &CameraId, number: u64, lengths: &[usize]) -> Footage {
    let fill = |seq: usize, length: usize| {
        let seed = sha256(format!("{camera}/{number}/{seq}").as_bytes());
        seed.0
            .iter()
            .copied()
            .cycle()
            .take(length)
            .collect::<Vec<u8>>()
    };
    let segments = lengths
        .iter()
        .zip(1..)
        .map(|(length, seq)| fill(seq, *length))
        .collect();
    Footage {
        camera: camera.clone(),
        number,
        header: fill(0, 100),
        segments,
        class: Class::Routine,
        k: 1,
    }
}

pub(crate) fn held(
    footage: &Footage,
    manifest: &Manifest,
    receipted: &[Range],
    erased: &[Range],
) -> Held {
    let bytes = footage.segments.iter().map(|s| s.len() as u64).sum();
    Held {
        number: footage.number,
        manifest: manifest.digest(),
        index: manifest.body().index,
        bytes,
        receipted: receipted.to_vec(),
        erased: erased.to_vec(),
    }
}

/// Pulls one digest whole; the commit is the caller's.
pub(crate) fn pull(spool: &mut Spool, footage: &Footage, digest: &Digest) -> Finished {
    let mut incoming = spool.begin(digest).unwrap();
    let bytes = footage.bytes_of(digest).unwrap();
    for chunk in bytes[incoming.offset() as usize..].chunks(3000) {
        incoming.write(chunk).unwrap();
    }
    spool.finish(incoming, NOW).unwrap()
}

/// Announces a recording and pulls and commits all of it, in the spool's order.
pub(crate) fn keep(spool: &mut Spool, camera: &Camera, footage: &Footage) {
    spool.admit(&camera.whole_manifest(footage), NOW).unwrap();
    pull_all(spool, footage);
    spool.commit(NOW).unwrap();
}
pub(crate) fn pull_all(spool: &mut Spool, footage: &Footage) {
    loop {
        let tasks = spool.next_pulls(&footage.camera, 4, &none(), NOW).unwrap();
        let mine: Vec<_> = tasks
            .iter()
            .filter(|t| t.recording.number == footage.number)
            .collect();
        if mine.is_empty() {
            return;
        }
        for task in mine {
            assert_eq!(pull(spool, footage, &task.digest), Finished::Verified);
        }
    }
}

pub(crate) fn stages(spool: &Spool, footage: &Footage) -> Vec<Option<Stage>> {
    footage
        .digests()
        .iter()
        .map(|d| spool.stage(d).unwrap())
        .collect()
}
pub(crate) fn all(stage: Stage, footage: &Footage) -> Vec<Option<Stage>> {
    vec![Some(stage); footage.digests().len()]
}
pub(crate) fn alarm_codes(spool: &Spool) -> BTreeSet<&'static str> {
    spool.alarms().iter().map(|a| a.code).collect()
}

/// All that a peer or a person could see: two spools with one picture are the same.
pub(crate) fn picture(spool: &mut Spool, cameras: &[&Camera], footage: &[&Footage]) -> String {
    let mut out = format!("{:?}\n{:?}\n", spool.counts(), spool.space().used_bytes);
    for f in footage {
        out += &format!("{}: {:?}\n", f.number, stages(spool, f));
    }
    for c in cameras {
        let pulls: Vec<_> = spool
            .next_pulls(&c.id, 1000, &none(), NOW)
            .unwrap()
            .into_iter()
            .map(|t| (t.digest, t.class, t.captured))
            .collect();
        let due: BTreeSet<_> = spool
            .receipts_due(&c.id, 1000, &none())
            .unwrap()
            .into_iter()
            .map(|d| d.digest)
            .collect();
        out += &format!(
            "{pulls:?}\n{due:?}\n{:?}\n{:?}\n",
            spool.recordings(&c.id).unwrap(),
            spool.camera_bytes(&c.id).unwrap()
        );
    }
    for s in both() {
        let puts: Vec<_> = spool
            .next_puts(&both(), &s, 1000, &none(), NOW)
            .unwrap()
            .into_iter()
            .map(|t| (t.digest, t.manifest))
            .collect();
        out += &format!("{s}: {puts:?}\n");
    }
    out + &format!("{:?}", spool.unaccounted(100).unwrap())
}

pub(crate) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}
