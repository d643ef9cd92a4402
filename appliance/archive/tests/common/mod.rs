//! What the tests of the gateway share: a trial agency, the real program as a process, recordings made with
//! `protocol`, and a repeater's side of the archive hop that can be told to misbehave.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "tests, each of which uses a part"
)]

mod peers;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use bytes::Bytes;
use link::agency::{TrialOptions, trial};
use link::clock::Clock;
use link::credentials::{load_chain, load_key};
use link::random::Random;
use protocol::cose::DeviceSigner;
use protocol::header::{self, Private};
use protocol::identity::Trust;
use protocol::ids::{CameraId, Digest, Incarnation, RecordingId, Time};
use protocol::keylist::KeyList;
use protocol::manifest::{
    self, Class, End, EndReason, HeaderEntry, Manifest, Policy, SegmentEntry,
};
use protocol::segment::{self, Place};
use protocol::suite::{PublicKey, SigningKey};
use tempfile::TempDir;
use zeroize::Zeroizing;

pub use peers::{Gateway, Repeater};

/// The serial of the trial's first camera.
pub const SERIAL: &str = "BWC-0001";

/// A trial agency, and a folder store beside it.
pub struct World {
    pub dir: TempDir,
    pub store: String,
    /// Further arguments of the commands that read the store.
    pub store_args: Vec<String>,
    /// The environment of the program.
    pub env: Vec<(&'static str, String)>,
}

impl World {
    pub fn new() -> World {
        let dir = TempDir::new().unwrap();
        let options = TrialOptions {
            cameras: 2,
            sites: vec!["site-a".parse().unwrap()],
            station: "s1".into(),
        };
        trial(
            &dir.path().join("agency"),
            &options,
            &Clock::system(),
            &Random::system(),
        )
        .unwrap();
        let store = format!("file://{}", dir.path().join("store").display());
        World {
            dir,
            store,
            store_args: Vec::new(),
            env: Vec::new(),
        }
    }

    pub fn agency(&self) -> PathBuf {
        self.dir.path().join("agency")
    }

    pub fn trust(&self) -> Trust {
        Trust::from_pem(
            &std::fs::read(self.agency().join("trust.pem")).unwrap(),
            None,
        )
        .unwrap()
    }

    pub fn key_list(&self) -> KeyList {
        let bytes = std::fs::read(self.agency().join("key-list.cose")).unwrap();
        KeyList::verify(bytes.into(), self.trust().root_keys()).unwrap()
    }

    pub fn config(&self, more: &str) -> String {
        let (agency, store) = (self.agency(), &self.store);
        let site = agency.join("archives/site-a");
        format!(
            "site = \"site-a\"\nlisten = \"127.0.0.1:0\"\nstore = \"{store}\"\n{more}\n[credentials]\n\
             chain = \"{0}/chain.pem\"\nkey = \"{0}/key.pem\"\nreceipt_key = \"{0}/receipt.key\"\n\
             trust = \"{1}/trust.pem\"\ncrl = \"{1}/crl.pem\"\nkey_list = \"{1}/key-list.cose\"\n",
            site.display(),
            agency.display()
        )
    }

    pub fn write_config(&self, more: &str) -> PathBuf {
        let path = self.dir.path().join("archive.toml");
        std::fs::write(&path, self.config(more)).unwrap();
        path
    }

    /// Makes the store; one that is made already stays as it is.
    pub fn init(&self, more: &str) -> Output {
        let config = self.write_config(more);
        self.archive(&["init", "--config", config.to_str().unwrap()])
    }

    /// Starts the real program over a store that is made.
    pub fn start(&self, more: &str) -> Gateway {
        let made = self.init(more);
        assert!(made.status.success(), "{made:?}");
        let config = self.write_config(more);
        let mut child = Command::new(env!("CARGO_BIN_EXE_archive"))
            .args(["run", "--config"])
            .arg(config)
            .envs(self.env.iter().cloned())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(self.dir.path().join("archive.log")).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim().strip_prefix("listening on ");
        let log = || std::fs::read_to_string(self.dir.path().join("archive.log")).unwrap();
        let address = address
            .unwrap_or_else(|| panic!("{line}\n{}", log()))
            .parse()
            .unwrap();
        Gateway { child, address }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("archive.log")).unwrap()
    }

    /// Runs one of the program's other commands.
    pub fn archive(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_archive"));
        command
            .args(args)
            .envs(self.env.iter().cloned())
            .output()
            .unwrap()
    }

    pub fn export(&self, id: &RecordingId, key: &str, out: &Path) -> Output {
        let (agency, id) = (self.agency(), id.full());
        let key = agency.join("recipients").join(key);
        let trust = agency.join("trust.pem");
        let args = [
            "export",
            &id,
            "--store",
            &self.store,
            "--trust",
            trust.to_str().unwrap(),
            "--key",
        ];
        let rest = [key.to_str().unwrap(), "-o", out.to_str().unwrap()];
        self.archive(&[&args[..], &rest, &self.store_args()].concat())
    }

    fn store_args(&self) -> Vec<&str> {
        self.store_args.iter().map(String::as_str).collect()
    }

    pub fn verify(&self) -> (i32, String) {
        let trust = self.agency().join("trust.pem");
        let args = [
            "verify",
            "--store",
            &self.store,
            "--trust",
            trust.to_str().unwrap(),
        ];
        let out = self.archive(&[&args[..], &self.store_args()].concat());
        (
            out.status.code().unwrap(),
            String::from_utf8(out.stdout).unwrap(),
        )
    }

    /// Path of the object whose name begins with `part`.
    pub fn object(&self, id: &RecordingId, part: &str) -> PathBuf {
        let folder = self.dir.path().join("store/recordings").join(id.full());
        let names = std::fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().path());
        names
            .into_iter()
            .find(|p| p.file_name().unwrap().to_str().unwrap().starts_with(part))
            .unwrap()
    }

    pub fn signer(&self, serial: &str) -> DeviceSigner {
        let folder = self.agency().join("cameras").join(serial);
        let key = load_key(&folder.join("device.key")).unwrap();
        let chain = load_chain(&folder.join("device.pem")).unwrap();
        DeviceSigner::new(
            SigningKey::from_pkcs8(key.secret_der()).unwrap(),
            chain,
            &self.trust(),
        )
        .unwrap()
    }

    /// A recording of `footage`, cut into segments of `piece` bytes, `each` to a manifest.
    pub fn record(&self, number: u64, footage: &[u8], piece: usize, each: usize) -> Recording {
        self.record_with(
            number,
            footage,
            piece,
            each,
            EndReason::Stopped,
            &self.key_list().active_recipients(),
        )
    }

    pub fn record_with(
        &self,
        number: u64,
        footage: &[u8],
        piece: usize,
        each: usize,
        reason: EndReason,
        recipients: &[PublicKey],
    ) -> Recording {
        let camera = CameraId {
            serial: SERIAL.parse().unwrap(),
            incarnation: Incarnation([5; 16]),
        };
        let id = RecordingId { camera, number };
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
        let sealed = header::seal(&id, &private, recipients, &|out| random.fill(out)).unwrap();
        let mut pieces: Vec<&[u8]> = footage.chunks(piece).collect();
        if pieces.is_empty() {
            pieces.push(&[]);
        }
        let last = pieces.len() - 1;
        let seal = |(seq, plain): (usize, &&[u8])| {
            let last = seq == last && reason == EndReason::Stopped;
            segment::seal(
                &key,
                Place {
                    recording: &id,
                    seq: seq as u64,
                    last,
                },
                plain,
            )
            .unwrap()
            .bytes
        };
        let segments: Vec<Bytes> = pieces.iter().enumerate().map(seal).collect();
        let mut recording = Recording {
            id,
            header: sealed.bytes,
            segments,
            manifests: Vec::new(),
        };
        self.sign(&mut recording, each, reason);
        recording
    }

    fn sign(&self, recording: &mut Recording, each: usize, reason: EndReason) {
        let signer = self.signer(SERIAL);
        let entries: Vec<SegmentEntry> = recording
            .segments
            .iter()
            .zip(0..)
            .map(|(b, seq)| entry(b, seq))
            .collect();
        let count = entries.len() as u64;
        let groups: Vec<&[SegmentEntry]> = entries.chunks(each).collect();
        for (index, group) in groups.iter().enumerate() {
            let end = (index + 1 == groups.len()).then_some(End {
                segments: count,
                reason,
            });
            let body = recording.body(group.to_vec(), end);
            recording
                .manifests
                .push(Manifest::sign(body, &signer).unwrap());
        }
    }
}

pub fn entry(bytes: &Bytes, seq: u64) -> SegmentEntry {
    SegmentEntry {
        seq,
        length: bytes.len() as u32,
        digest: sha(bytes),
    }
}

pub fn sha(bytes: &[u8]) -> Digest {
    protocol::suite::sha256(bytes)
}

/// A sealed recording.
#[derive(Clone)]
pub struct Recording {
    pub id: RecordingId,
    pub header: Bytes,
    pub segments: Vec<Bytes>,
    pub manifests: Vec<Manifest>,
}

impl Recording {
    /// The body of a further manifest.
    pub fn body(&self, segments: Vec<SegmentEntry>, end: Option<End>) -> manifest::Body {
        manifest::Body {
            version: manifest::VERSION,
            recording: self.id.clone(),
            index: self.manifests.len() as u32,
            previous: self.manifests.last().map(Manifest::digest),
            header: HeaderEntry {
                digest: sha(&self.header),
                length: self.header.len() as u32,
            },
            segments,
            captured_from: Time(1_800_000_000_000),
            captured_to: Time(1_800_000_001_000),
            class: Class::Routine,
            policy: Policy {
                k: 1,
                sites: vec!["site-a".parse().unwrap()],
            },
            end,
            clock_unset: false,
            clock_offset_ms: None,
        }
    }

    pub fn bytes_of(&self, digest: Digest) -> Bytes {
        let all = std::iter::once(&self.header).chain(&self.segments);
        all.into_iter().find(|b| sha(b) == digest).unwrap().clone()
    }

    pub fn digests(&self) -> Vec<Digest> {
        self.segments.iter().map(|s| sha(s)).collect()
    }
}

/// Pseudo-random footage.
pub fn footage(length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}
