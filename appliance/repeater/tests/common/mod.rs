//! A trial station on a folder of its own, its `repeaterd`, and footage that its spool holds.
#![allow(dead_code, reason = "each file uses its part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use link::agency::{TrialOptions, trial};
use link::clock::Clock;
use link::credentials::{load_chain, load_key};
use link::random::Random;
use protocol::cose::DeviceSigner;
use protocol::identity::Trust;
use protocol::ids::{CameraId, Digest, Incarnation, RecordingId};
use protocol::keylist::KeyList;
use protocol::manifest::{self, Class, HeaderEntry, Manifest, Policy, SegmentEntry};
use protocol::suite::{SigningKey, sha256};
use spool::{Finished, Options, Spool};

pub(crate) const REPEATERD: &str = env!("CARGO_BIN_EXE_repeaterd");

pub(crate) struct Station {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) config: PathBuf,
}

pub(crate) fn station(more: &str) -> Station {
    let folder = tempfile::tempdir().unwrap();
    let options = TrialOptions {
        cameras: 1,
        sites: vec!["nfs1".parse().unwrap()],
        station: "trial".into(),
    };
    let agency = folder.path().join("agency");
    trial(&agency, &options, &Clock::system(), &Random::system()).unwrap();
    let config = folder.path().join("repeater.toml");
    let text = format!(
        r#"
[identity]
chain = "agency/repeaters/trial-1/chain.pem"
key = "agency/repeaters/trial-1/key.pem"
trust = "agency/trust.pem"
crl = "agency/crl.pem"
key_list = "agency/key-list.cose"
[spool]
dir = "spool"
suspect_dir = "run"
capacity_bytes = 1000000000
[[archive]]
site = "nfs1"
addresses = ["127.0.0.1:9"]
[listen]
http = "127.0.0.1:0"
{more}"#
    );
    std::fs::write(&config, text).unwrap();
    Station { folder, config }
}

pub(crate) fn run(arguments: &[&str], config: &Path) -> Output {
    Command::new(REPEATERD)
        .args(arguments)
        .arg(config)
        .output()
        .unwrap()
}

pub(crate) struct Daemon {
    pub(crate) child: Child,
    pub(crate) address: String,
}

impl Daemon {
    pub(crate) fn start(config: &Path) -> Daemon {
        let mut child = Command::new(REPEATERD)
            .args(["run", "--config"])
            .arg(config)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line
            .trim()
            .strip_prefix("ready: metrics on ")
            .expect("the ready line")
            .to_owned();
        Daemon { child, address }
    }

    pub(crate) fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    pub(crate) fn terminate(&self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Station {
    pub(crate) fn spool(&self, name: &str) -> PathBuf {
        self.folder.path().join("spool").join(name)
    }
    pub(crate) fn segment(&self, digest: &Digest) -> PathBuf {
        self.spool("segments").join(digest.to_string())
    }

    /// Fills the spool with a recording of a header and two segments, held.
    pub(crate) fn fill(&self) -> Vec<Digest> {
        let agency = self.folder.path().join("agency");
        let roots = std::fs::read(agency.join("trust.pem")).unwrap();
        let trust = Trust::from_pem(&roots, None).unwrap();
        let list = std::fs::read(agency.join("key-list.cose")).unwrap();
        let keys = KeyList::verify(list.into(), trust.root_keys()).unwrap();
        let now = Clock::system().now();
        let run = self.folder.path().join("run");
        let options = Options::new(self.spool(""), 1_000_000_000, run, [1; 16]);
        let (mut spool, _) = Spool::open(options, trust.clone(), keys, now).unwrap();

        let serial = link::agency::trial::serial(1);
        let own = agency.join("cameras").join(serial.as_str());
        let key = load_key(&own.join("device.key")).unwrap();
        let key = SigningKey::from_pkcs8(key.secret_der()).unwrap();
        let chain = load_chain(&own.join("device.pem")).unwrap();
        let signer = DeviceSigner::new(key, chain, &trust).unwrap();
        let bytes = [vec![1; 100], vec![2; 300_000], vec![3; 5000]];
        let length = |b: &[u8]| u32::try_from(b.len()).unwrap();
        let segments = bytes[1..].iter().zip(0..).map(|(b, seq)| SegmentEntry {
            seq,
            length: length(b),
            digest: sha256(b),
        });
        let body = manifest::Body {
            version: manifest::VERSION,
            recording: RecordingId {
                camera: CameraId {
                    serial,
                    incarnation: Incarnation([5; 16]),
                },
                number: 7,
            },
            index: 0,
            previous: None,
            header: HeaderEntry {
                digest: sha256(&bytes[0]),
                length: length(&bytes[0]),
            },
            segments: segments.collect(),
            captured_from: now,
            captured_to: now,
            class: Class::Routine,
            policy: Policy {
                k: 1,
                sites: vec!["nfs1".parse().unwrap()],
            },
            end: None,
            clock_unset: false,
            clock_offset_ms: None,
        };
        spool
            .admit(&Manifest::sign(body, &signer).unwrap(), now)
            .unwrap();
        for b in &bytes {
            let mut incoming = spool.begin(&sha256(b)).unwrap();
            incoming.write(b).unwrap();
            assert_eq!(spool.finish(incoming, now).unwrap(), Finished::Verified);
        }
        assert_eq!(spool.commit(now).unwrap().held.len(), 3);
        bytes.iter().map(|b| sha256(b)).collect()
    }
}
