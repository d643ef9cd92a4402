//! What a person does with a spool while the daemon stands still.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Daemon, run, station};

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
