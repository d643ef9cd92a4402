//! The real `repeaterd`, as a person or a service manager runs it: check, run, health page, status, stop.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::process::Command;
use std::time::Duration;

use common::{Daemon, REPEATERD, run, station};

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
