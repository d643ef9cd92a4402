//! The real `repeaterd`, as a person or a service manager runs it: check, run, health page, status, stop.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use link::agency::{TrialOptions, trial};
use link::clock::Clock;
use link::random::Random;

const REPEATERD: &str = env!("CARGO_BIN_EXE_repeaterd");

struct Station {
    folder: tempfile::TempDir,
    config: PathBuf,
}

fn station(more: &str) -> Station {
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

fn run(arguments: &[&str], config: &Path) -> Output {
    Command::new(REPEATERD)
        .args(arguments)
        .arg(config)
        .output()
        .unwrap()
}

struct Daemon {
    child: Child,
    address: String,
}

impl Daemon {
    fn start(config: &Path) -> Daemon {
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

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn terminate(&self) {
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

#[test]
fn check_says_who_and_names_what_is_wrong() {
    let good = station("");
    let output = run(&["check"], &good.config);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("urn:bwc:repeater:trial:1"));

    let bad = station("colour = \"blue\"\n");
    let output = run(&["check"], &bad.config);
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8_lossy(&output.stderr);
    for part in ["colour", "repeater.toml", "help"] {
        assert!(said.contains(part), "{part} in: {said}");
    }

    let text = std::fs::read_to_string(&good.config).unwrap();
    std::fs::write(
        &good.config,
        text.replace("agency/trust.pem", "agency/nowhere.pem"),
    )
    .unwrap();
    let output = run(&["check"], &good.config);
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("nowhere.pem"));
}

#[test]
fn it_is_ready_without_an_archive_shows_itself_and_stops_when_asked() {
    let station = station("");
    let mut daemon = Daemon::start(&station.config);
    for path in ["/livez", "/readyz"] {
        // The hops begin while the page is up already.
        let mut said = daemon.get(path);
        for _ in 0..100 {
            if said.starts_with("HTTP/1.0 200") {
                break;
            }
            assert!(said.contains("does not run"), "{path}: {said}");
            std::thread::sleep(Duration::from_millis(50));
            said = daemon.get(path);
        }
        assert!(said.starts_with("HTTP/1.0 200"), "{path}: {said}");
    }
    let metrics = daemon.get("/metrics");
    for name in [
        "repeater_segments{stage=\"held\"}",
        "repeater_alarm{code=\"no_archive\"}",
        "repeater_scrub_oldest_unchecked_seconds 0",
        "process_resident",
    ] {
        assert!(metrics.contains(name), "{name} in {metrics}");
    }
    let shown = Command::new(REPEATERD)
        .args(["status", "--json", "--address", &daemon.address, "--config"])
        .arg(&station.config)
        .output()
        .unwrap();
    let status: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(status["repeater"], "urn:bwc:repeater:trial:1");
    assert_eq!(status["spool"]["unaccounted"], 0);
    assert!(status["spool"]["oldest_unchecked_seconds"].is_null());

    // A second daemon on the same spool does not start, and does no harm.
    let second = run(&["run", "--config"], &station.config);
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("spool"));

    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    daemon.terminate();
    let mut child = std::mem::replace(&mut daemon.child, Command::new("true").spawn().unwrap());
    std::thread::spawn(move || sender.send(child.wait().unwrap()));
    let status = receiver
        .recv_timeout(Duration::from_secs(5))
        .expect("stops within 5 s");
    assert!(status.success(), "{status}");
    assert!(station.folder.path().join("spool").is_dir());
}
