//! A support bundle tells what support needs, and no secret that lies in any of its sources.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{Daemon, REPEATERD, Station, station};

/// Planted in every source.
const SECRET: &str = "hunter2-Hong-Gil-dong";

fn bundle(station: &Station, more: &[&str]) -> (PathBuf, Output) {
    let out = station.folder.path().join("support.txt");
    let path = format!(
        "{}:/usr/bin:/bin",
        station.folder.path().join("bin").display()
    );
    let done = Command::new(REPEATERD)
        .arg("support-bundle")
        .args([
            "--hostapd",
            "hostapd",
            "--out",
            "support.txt",
            "--config",
            "repeater.toml",
        ])
        .args(more)
        .current_dir(station.folder.path())
        .env("PATH", path)
        .output()
        .unwrap();
    (out, done)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// A journal, and hostapd's configuration, with secrets in them.
fn plant(station: &Station) {
    let at = |name: &str| station.folder.path().join(name);
    std::fs::create_dir_all(at("bin")).unwrap();
    std::fs::create_dir_all(at("hostapd")).unwrap();
    let journal = format!(
        "#!/bin/sh\necho asked: \"$@\"\necho 'x password={SECRET}'\necho '-----BEGIN PRIVATE KEY-----'\necho {SECRET}\n\
         echo '-----END PRIVATE KEY-----'\necho the end of the journal\n"
    );
    std::fs::write(at("bin/journalctl"), journal).unwrap();
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(at("bin/journalctl"), executable).unwrap();
    let hostapd = format!("ssid=BWC-STATION\nwpa_passphrase={SECRET}\n# {SECRET}\n");
    std::fs::write(at("hostapd/wlan0.conf"), hostapd).unwrap();
    let config = read(&station.config);
    std::fs::write(&station.config, format!("# {SECRET}\n{config}")).unwrap();
}

/// What must be nowhere: what was planted, any line of a private key, and footage.
fn assert_redacted(station: &Station, text: &str) {
    assert!(!text.contains(SECRET), "{text}");
    let agency = station.folder.path().join("agency");
    for key in ["repeaters/trial-1/key.pem", "ca/ca.key", "root/root.key"] {
        for line in read(&agency.join(key))
            .lines()
            .filter(|l| !l.starts_with('-'))
        {
            assert!(!text.contains(line), "{key}");
        }
    }
    let footage = [vec![2u8; 16], vec![3; 16]];
    let bytes = text.as_bytes();
    assert!(
        footage
            .iter()
            .all(|f| !bytes.windows(16).any(|w| w == f.as_slice()))
    );
}

/// A page that answers every question with a secret.
fn page() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut asked, mut piece) = (Vec::new(), [0; 4096]);
            while !asked.ends_with(b"\r\n\r\n") {
                let n = stream.read(&mut piece).unwrap();
                asked.extend_from_slice(&piece[..n]);
            }
            let said =
                format!("HTTP/1.0 200 OK\r\n\r\n{{\"told\": 1,\n\"Secret\": \"{SECRET}\"}}\n");
            let _ = stream.write_all(said.as_bytes());
        }
    });
    address
}

#[test]
fn a_bundle_tells_all_parts_and_no_secret_of_any_source() {
    let station = station("");
    station.fill();
    plant(&station);
    let address = page().to_string();
    let (out, done) = bundle(&station, &["--address", &address]);
    assert!(done.status.success(), "{done:?}");
    let text = read(&out);
    assert_redacted(&station, &text);
    for told in [
        "=== system\nrepeaterd 0.1.0",
        "=== configuration",
        "addresses = [\"127.0.0.1:9\"]",
        "ssid=BWC-STATION",
        "wpa_passphrase=(withheld)",
        "=== doctor\nok    config",
        "\"told\": 1",
        "\"Secret\":(withheld)",
        "=== metrics",
        "lo: ",
        "spool/segments: 3 files, 305100 bytes",
        "\"copies\": 3",
        "\"complete\": true",
        "--unit=repeaterd",
        "the end of the journal",
    ] {
        assert!(text.contains(told), "{told} in: {text}");
    }
    assert!(!text.contains("hostapd@"), "hostapd's lines name who came");
    assert_eq!(out.metadata().unwrap().permissions().mode() & 0o777, 0o600);

    // None that is there is written over.
    let (_, again) = bundle(&station, &[]);
    assert_eq!(again.status.code(), Some(73));
    assert_eq!(read(&out), text);
}

#[test]
fn without_a_daemon_or_a_configuration_there_is_a_bundle_all_the_same() {
    let station = station("");
    plant(&station);
    let (out, done) = bundle(&station, &[]);
    assert!(done.status.success(), "{done:?}");
    let text = read(&out);
    assert_redacted(&station, &text);
    assert!(
        text.contains("=== status\nnot to be had: 127.0.0.1:0"),
        "{text}"
    );
    assert!(text.contains("BAD   daemon"), "{text}");

    // A configuration that cannot be used is not quoted.
    std::fs::remove_file(&out).unwrap();
    let config = read(&station.config);
    std::fs::write(&station.config, format!("{config}\n[\"{SECRET}\n")).unwrap();
    let (_, done) = bundle(&station, &[]);
    assert!(done.status.success(), "{done:?}");
    let text = read(&out);
    assert_redacted(&station, &text);
    assert!(text.contains("why is told at the station only"), "{text}");
    std::fs::remove_file(&out).unwrap();
    std::fs::write(
        &station.config,
        config.replace(
            "capacity_bytes = 1000000000",
            &format!("pin = \"{SECRET}\""),
        ),
    )
    .unwrap();
    let (_, done) = bundle(&station, &[]);
    assert!(done.status.success(), "{done:?}");
    assert_redacted(&station, &read(&out));
}

#[test]
fn a_running_daemon_is_asked() {
    let station = station("");
    station.fill();
    plant(&station);
    let daemon = Daemon::start(&station.config);
    let (out, done) = bundle(&station, &["--address", &daemon.address]);
    assert!(done.status.success(), "{done:?}");
    let text = read(&out);
    assert_redacted(&station, &text);
    for told in [
        "\"repeater\": \"urn:bwc:repeater:trial:1\"",
        "repeater_segments{stage=\"held\"} 3",
        "\"online\": true",
        "ok    daemon",
    ] {
        assert!(text.contains(told), "{told} in: {text}");
    }
}
