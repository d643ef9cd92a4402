//! What a person does with a spool while the daemon stands still.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, SystemTime};

use common::{Daemon, Station, run, station};
use link::clock::Clock;
use serde_json::Value;

/// Every file below a folder: when it was written, and its bytes.
fn picture(folder: &Path) -> BTreeMap<PathBuf, (SystemTime, Vec<u8>)> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(picture(&path));
        } else if path.is_file() {
            let written = path.metadata().unwrap().modified().unwrap();
            all.insert(path.clone(), (written, std::fs::read(&path).unwrap()));
        }
    }
    all
}

fn verify(station: &Station) -> (Option<i32>, Value, Output) {
    let output = run(&["verify", "--json", "--config"], &station.config);
    let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code(), report, output)
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 4;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn verify_reads_everything_changes_nothing_and_keeps_its_rate() {
    let station = station("");
    station.fill();
    // A tail that was never acknowledged is not wrong.
    let mut logbook = std::fs::read(station.spool("logbook")).unwrap();
    logbook.extend([0, 0, 0, 90, 1, 2, 3]);
    std::fs::write(station.spool("logbook"), logbook).unwrap();
    let before = picture(station.folder.path());
    let (code, report, output) = verify(&station);
    assert_eq!(code, Some(0), "{output:?}");
    let good = &report["good"];
    assert_eq!(
        (&good["copies"], &good["bytes"]),
        (&3.into(), &305_100.into())
    );
    assert_eq!(good["manifests"], 1);
    assert!(
        good["logbook_entries"].as_u64() > Some(0) && good["ledger_rows"] == 4,
        "{good}"
    );
    assert!(report["online"] == false && report["problems"].as_array().unwrap().is_empty());
    assert!(
        picture(station.folder.path()) == before,
        "something was written"
    );

    let clock = Clock::system();
    let began = clock.instant();
    let output = run(&["verify", "--rate", "1", "--config"], &station.config);
    assert!(String::from_utf8_lossy(&output.stdout).contains("nothing is wrong"));
    let took = clock.instant() - began;
    assert!(took >= Duration::from_millis(290), "{took:?}");
}

#[test]
fn verify_names_what_is_wrong_whose_it_is_and_what_to_do() {
    let station = station("");
    let digests = station.fill();
    let only = |folder: &str| {
        let mut found = std::fs::read_dir(station.spool(folder)).unwrap();
        found.next().unwrap().unwrap().path()
    };
    let ledger = station.spool("ledger").join("db");
    let bytes = std::fs::read(&ledger).unwrap();
    let used = bytes.iter().rposition(|b| *b != 0).unwrap();
    let logbook = station.spool("logbook");
    let cases = [
        (
            station.segment(&digests[1]),
            77,
            "do not match its digest",
            "smartctl",
            true,
        ),
        (
            only("manifests"),
            100,
            "no manifest that verifies",
            "asks the camera",
            true,
        ),
        (
            logbook.clone(),
            50,
            "chain breaks after 0",
            "repeaterd recover",
            false,
        ),
        (
            logbook.clone(),
            10,
            "not the one that the ledger knows",
            "repeaterd recover",
            false,
        ),
        (logbook, 3, "lost its beginning", "repeaterd recover", false),
        (
            station.spool("key-list"),
            40,
            "no key list",
            "start the daemon",
            false,
        ),
        (ledger, used - 40, "", "the daemon", false),
    ];
    for (path, at, what, mend, of_recording) in cases {
        let whole = std::fs::read(&path).unwrap();
        flip(&path, at);
        let (code, report, output) = verify(&station);
        assert_eq!(code, Some(1), "{}: {output:?}", path.display());
        let under = |p: &Value| path.starts_with(p["path"].as_str().unwrap());
        let problems = report["problems"].as_array().unwrap();
        let found = problems
            .iter()
            .find(|p| under(p))
            .unwrap_or_else(|| panic!("{report}"));
        let text = |key: &str| found[key].as_str().unwrap_or_default();
        assert!(
            text("what").contains(what) && text("mend").contains(mend),
            "{found}"
        );
        assert_eq!(text("recording").ends_with("/7"), of_recording, "{found}");
        assert!(
            report["good"]["copies"].as_u64() >= Some(2),
            "the rest is read"
        );
        std::fs::write(&path, whole).unwrap();
    }
    assert_eq!(verify(&station).0, Some(0));
    std::fs::remove_file(station.segment(&digests[0])).unwrap();
    let output = run(&["verify", "--config"], &station.config);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1));
    let name = digests[0].to_string();
    assert!(
        said.contains(&name) && said.contains("1 problems"),
        "{said}"
    );
}

#[test]
fn a_running_daemon_verifies_and_books_what_is_damaged() {
    let station = station("");
    let digests = station.fill();
    let daemon = Daemon::start(&station.config);
    let (code, report, output) = verify(&station);
    assert_eq!(code, Some(0), "{output:?}");
    assert!(
        report["online"] == true && report["good"]["copies"] == 3,
        "{report}"
    );
    assert!(report["good"]["logbook_entries"].as_u64() > Some(0));
    flip(&station.segment(&digests[2]), 9);
    let (code, report, output) = verify(&station);
    // The daemon's own scrub may have come first.
    let scrubbed = daemon.get("/status").contains("copy_damaged");
    assert!(code == Some(1) || scrubbed, "{output:?} {report}");
    assert!(scrubbed, "it is booked");
    assert!(!station.segment(&digests[2]).exists(), "and set aside");
}

#[test]
fn recover_rebuilds_the_ledger_and_says_what_is_lost() {
    let station = station("");
    let nothing = run(&["recover", "--config"], &station.config);
    assert_eq!(
        nothing.status.code(),
        Some(70),
        "there is no spool to recover"
    );
    assert!(!station.spool("").exists(), "and none is made");
    let digests = station.fill();
    std::fs::remove_dir_all(station.spool("ledger")).unwrap();
    let output = run(&["recover", "--config"], &station.config);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for part in [
        "3 segments known, 3 whole copies",
        "manifests entered: 1",
        "nothing is lost",
    ] {
        assert!(said.contains(part), "{part} in: {said}");
    }

    // A copy that is gone and a manifest that is damaged are named.
    std::fs::remove_file(station.segment(&digests[1])).unwrap();
    let output = run(&["recover", "--config"], &station.config);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("LOST 1 copies") && !said.contains("nothing is lost"),
        "{said}"
    );
    let manifest = std::fs::read_dir(station.spool("manifests")).unwrap();
    let manifest = manifest.map(|e| e.unwrap().path()).next().unwrap();
    std::fs::write(&manifest, "x").unwrap();
    let output = run(&["recover", "--config"], &station.config);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let name = manifest.file_name().unwrap().to_str().unwrap();
    assert!(said.contains(&format!("LOST manifest {name}")), "{said}");
    let kept = station.segment(&digests[2]).with_extension("kept");
    assert!(
        kept.exists() && said.contains("2 copies, which are kept"),
        "{said}"
    );
}

#[test]
fn recover_leaves_a_running_daemon_alone() {
    let station = station("");
    station.fill();
    let daemon = Daemon::start(&station.config);
    let before = std::fs::read(station.spool("logbook")).unwrap();
    let output = run(&["recover", "--config"], &station.config);
    assert_eq!(output.status.code(), Some(69));
    assert!(String::from_utf8_lossy(&output.stderr).contains("in use"));
    assert!(
        std::fs::read(station.spool("logbook"))
            .unwrap()
            .starts_with(&before)
    );
    assert!(daemon.get("/livez").starts_with("HTTP/1.0"));
}
