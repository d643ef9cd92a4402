//! What the camera's tests share: a trial agency, the real `bodycam` as processes, and a repeater of the test's own
//! that says whatever the test wants.

#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "tests; each uses a part"
)]

mod repeater;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use bytes::Bytes;
use link::agency::{Agency, TrialOptions, trial};
use link::clock::Clock;
use link::credentials::{load_key, load_trust};
use link::random::Random;
use protocol::header;
use protocol::identity::Trust;
use protocol::ids::{Digest, RecordingId, SiteId, StoreEpoch};
use protocol::manifest::Manifest;
use protocol::receipt::{self, Receipt, Verdict};
use protocol::segment::{self, Place};
use protocol::suite::{AgreementKey, SigningKey, SymmetricKey, sha256};
use tempfile::TempDir;

#[allow(unused_imports, reason = "not every test dials")]
pub use repeater::{Repeater, dial, read_pull};

pub const FOOTAGE: usize = protocol::limits::SEGMENT_FOOTAGE_BYTES;

/// A trial agency of two sites, and one camera's store.
pub struct Trial {
    pub dir: TempDir,
    pub agency: Agency,
}

impl Trial {
    pub fn new() -> Trial {
        let dir = tempfile::tempdir().unwrap();
        let sites = ["nfs1", "nfs2"].map(|s| s.parse().unwrap()).to_vec();
        let options = TrialOptions {
            cameras: 2,
            sites,
            station: "station".into(),
        };
        let agency = trial(
            &dir.path().join("agency"),
            &options,
            &Clock::system(),
            &Random::system(),
        )
        .unwrap();
        Trial { dir, agency }
    }
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    pub fn store(&self) -> PathBuf {
        self.path("store")
    }
    pub fn recordings(&self) -> PathBuf {
        self.store().join("recordings")
    }
    pub fn trust(&self) -> Trust {
        load_trust(&self.agency.path("trust.pem"), None).unwrap()
    }
    /// `bodycam VERB` with this camera's store and papers.
    pub fn bodycam(&self, verb: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bodycam"));
        command.arg(verb).arg("--store").arg(self.store());
        if verb != "status" {
            command
                .arg("--credentials")
                .arg(self.agency.path("cameras/BWC-0001"));
            command.arg("--agency").arg(self.agency.path("."));
        }
        command
    }
    /// `bodycam seal -`.
    pub fn bodycam_stdin(&self) -> Command {
        let mut command = self.bodycam("seal");
        command.arg("-");
        command
    }
    pub fn footage(&self, name: &str, bytes: usize) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, footage(bytes)).unwrap();
        path
    }
    /// Seals inputs; panics unless it succeeds.
    pub fn seal(&self, options: &[&str], inputs: &[&Path]) -> String {
        let output = self
            .bodycam("seal")
            .args(options)
            .args(inputs)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    }
    pub fn status(&self) -> serde_json::Value {
        let output = self.bodycam("status").arg("--json").output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }
    /// Every segment file that is in the store.
    pub fn segment_files(&self) -> Vec<PathBuf> {
        let folders = std::fs::read_dir(self.recordings())
            .unwrap()
            .map(|e| e.unwrap().path());
        let files = folders
            .flat_map(|f| std::fs::read_dir(f).unwrap())
            .map(|e| e.unwrap().path());
        let mut found: Vec<_> = files
            .filter(|p| p.extension().is_some_and(|e| e == "seg"))
            .collect();
        found.sort();
        found
    }
    pub fn archive_key(&self) -> AgreementKey {
        AgreementKey::from_pkcs8(
            load_key(&self.agency.path("recipients/archive.key"))
                .unwrap()
                .secret_der(),
        )
        .unwrap()
    }
    pub fn receipt_key(&self, site: &str) -> SigningKey {
        let path = self.agency.path(&format!("archives/{site}/receipt.key"));
        SigningKey::from_pkcs8(load_key(&path).unwrap().secret_der()).unwrap()
    }
    /// A good P-256 key that no key list names.
    pub fn receipt_key_of_a_stranger(&self) -> SigningKey {
        let path = self.agency.path("archives/nfs1/key.pem");
        SigningKey::from_pkcs8(load_key(&path).unwrap().secret_der()).unwrap()
    }
    /// A receipt of `site` for these segments, and no manifest.
    pub fn receipt(
        &self,
        site: &str,
        recording: &RecordingId,
        header: Digest,
        segments: &[Digest],
    ) -> Bytes {
        receipt_by(
            &self.receipt_key(site),
            site,
            recording,
            header,
            segments,
            &[],
        )
    }
}

pub fn receipt_by(
    key: &SigningKey,
    site: &str,
    recording: &RecordingId,
    header: Digest,
    segments: &[Digest],
    manifests: &[Digest],
) -> Bytes {
    let body = receipt::Body {
        version: receipt::VERSION,
        site: site.parse().unwrap(),
        epoch: EPOCH,
        recording: recording.clone(),
        header,
        segments: segments.to_vec(),
        verdict: Verdict::Stored,
        signed: Clock::system().now(),
        manifests: manifests.to_vec(),
    };
    Receipt::sign(body, key).unwrap().bytes().clone()
}

pub const EPOCH: StoreEpoch = StoreEpoch([9; 16]);

pub fn site(name: &str) -> SiteId {
    name.parse().unwrap()
}

/// Footage that differs at every place.
pub fn footage(bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    Random::seeded(bytes as u64).fill(&mut out);
    out
}

pub fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A recording on disk, checked as an archive would.
pub struct Opened {
    pub id: RecordingId,
    pub key: SymmetricKey,
    pub manifests: Vec<Manifest>,
    pub footage: Vec<u8>,
    pub segments: u64,
    pub header: Digest,
    pub digests: Vec<Digest>,
}

/// Reads every recording of a store: verifies manifests, chain, digests and presence of all that they name, and
/// opens header and segments with the archive's key. Panics at the first thing that is not as it must be.
pub fn open_store(trial: &Trial) -> BTreeMap<u64, Opened> {
    let (trust, key) = (trial.trust(), trial.archive_key());
    let mut found = BTreeMap::new();
    if !trial.recordings().exists() {
        return found; // killed before it began
    }
    for entry in std::fs::read_dir(trial.recordings()).unwrap() {
        let folder = entry.unwrap().path();
        let number: u64 = folder
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        if let Some(opened) = open_recording(&folder, &trust, &key) {
            assert_eq!(opened.id.number, number);
            found.insert(number, opened);
        }
    }
    found
}

fn open_recording(folder: &Path, trust: &Trust, key: &AgreementKey) -> Option<Opened> {
    let mut manifests: Vec<Manifest> = Vec::new();
    while let Ok(bytes) =
        std::fs::read(folder.join(format!("manifest-{:08}.cose", manifests.len())))
    {
        let manifest = Manifest::verify(bytes.into(), trust).unwrap();
        assert_eq!(
            manifest.body().previous,
            manifests.last().map(Manifest::digest)
        );
        assert!(
            manifests.last().is_none_or(|m| m.body().end.is_none()),
            "nothing follows a final manifest"
        );
        manifests.push(manifest);
    }
    let first = manifests.first()?.body();
    let sealed = std::fs::read(folder.join("header.cose")).unwrap();
    assert_eq!(sha256(&sealed), first.header.digest);
    let content = header::open(&first.recording, &sealed, key).unwrap().key();
    let end = manifests.last().unwrap().body().end;
    let (mut footage, mut segments, mut digests) = (Vec::new(), 0, Vec::new());
    for entry in manifests.iter().flat_map(|m| &m.body().segments) {
        assert_eq!(entry.seq, segments);
        segments += 1;
        let stopped = end.is_some_and(|e| e.reason == protocol::manifest::EndReason::Stopped);
        let last = stopped && end.unwrap().segments == segments;
        let name = if last {
            format!("{:08}.end.seg", entry.seq)
        } else {
            format!("{:08}.seg", entry.seq)
        };
        let sealed = std::fs::read(folder.join(&name))
            .unwrap_or_else(|e| panic!("{name} is named but not there: {e}"));
        assert_eq!(
            (sealed.len() as u64, sha256(&sealed)),
            (u64::from(entry.length), entry.digest)
        );
        let place = Place {
            recording: &first.recording,
            seq: entry.seq,
            last,
        };
        footage.extend(segment::open(&content, place, &sealed).unwrap());
        digests.push(entry.digest);
    }
    assert!(end.is_none_or(|e| e.segments == segments));
    let (id, header) = (first.recording.clone(), first.header.digest);
    Some(Opened {
        id,
        key: content,
        manifests,
        footage,
        segments,
        header,
        digests,
    })
}

/// A running `bodycam serve`; killed when dropped.
pub struct Served {
    pub child: Child,
    pub address: SocketAddr,
}

impl Served {
    pub fn start(trial: &Trial, options: &[&str]) -> Served {
        let mut command = trial.bodycam("serve");
        command
            .args(["--listen", "127.0.0.1:0"])
            .args(options)
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line
            .trim()
            .strip_prefix("listening on ")
            .expect("it serves")
            .parse()
            .unwrap();
        Served { child, address }
    }
    pub fn terminate(mut self) -> i32 {
        nix::sys::signal::kill(pid(&self.child), nix::sys::signal::Signal::SIGTERM).unwrap();
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn pid(child: &Child) -> nix::unistd::Pid {
    nix::unistd::Pid::from_raw(child.id().try_into().unwrap())
}

pub fn pipe_in(mut command: Command, bytes: &[u8]) -> Child {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    child
}

/// Asserts that no digest occurs twice among what is given.
pub fn assert_distinct<T: Ord>(values: impl IntoIterator<Item = T>, what: &str) {
    let (mut seen, mut count) = (BTreeSet::new(), 0);
    for value in values {
        seen.insert(value);
        count += 1;
    }
    assert_eq!(seen.len(), count, "{what} occurs twice");
}
