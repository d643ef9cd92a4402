//! What systemd makes of the units: that it takes every line of them, how much of the machine each is shown, and that the
//! daemon's sandbox leaves it what it needs. A unit that is shut off so well that it cannot work would pass the first two.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// In tenths.
const MOST_EXPOSED: u32 = 11;
const UNITS: [&str; 3] = [
    "repeaterd.service",
    "archive.service",
    "repeater-gate.service",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd")
}

fn unit(name: &str) -> String {
    fs::read_to_string(folder().join(name)).unwrap()
}

/// Whether systemd's tools are here; where they are not that is said loudly, and in CI it fails.
fn can(name: &str) -> bool {
    let there = Command::new("systemd-analyze").arg("--version").output();
    if there.is_ok() {
        return true;
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "{name} needs systemd-analyze"
    );
    eprintln!("SKIPPED: {name} needs systemd-analyze (package systemd)");
    false
}

/// Whether a unit's text is no more exposed than that, and what systemd says.
fn is_hidden(text: &str) -> (bool, String) {
    let at = tempfile::tempdir().unwrap();
    let path = at.path().join("some.service");
    fs::write(&path, text).unwrap();
    let done = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager"])
        .arg(format!("--threshold={MOST_EXPOSED}"))
        .arg(&path)
        .output()
        .unwrap();
    let said = [done.stdout, done.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains("Overall exposure level"), "{said}");
    (done.status.success(), said)
}

#[test]
fn each_unit_is_exposed_by_1_1_at_most() {
    if !can("each_unit_is_exposed_by_1_1_at_most") {
        return;
    }
    for name in UNITS {
        let text = unit(name);
        let (hidden, said) = is_hidden(&text);
        assert!(hidden, "{name}: {said}");
        // A list of addresses that lists all is none.
        assert!(!text.contains("IPAddressAllow=any"), "{name}");
        let less = text.replace("SystemCallFilter=@system-service\n", "");
        assert!(!is_hidden(&less).0, "{name} without its filter passes, too");
    }
}

/// A folder like an installed machine's, with the units, and programs of which only the names matter.
fn root() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let (units, machine) = (
        root.path().join("etc/systemd/system"),
        root.path().join("usr/lib/systemd"),
    );
    for folder in [
        &units.join("hostapd@.service.d"),
        &machine,
        &root.path().join("bin"),
    ] {
        fs::create_dir_all(folder).unwrap();
    }
    let own = ["/usr/lib/systemd/system", "/lib/systemd/system"];
    let own = own.into_iter().find(|p| Path::new(p).is_dir()).unwrap();
    let copied = Command::new("cp").args(["-a", own]).arg(&machine).status();
    assert!(copied.unwrap().success());
    for name in UNITS {
        fs::write(units.join(name), unit(name)).unwrap();
    }
    for name in ["dock-port@.service", "hostapd@.service.d/bwc-repeater.conf"] {
        fs::write(units.join(name), unit(&format!("hostapd/{name}"))).unwrap();
    }
    let hostapd = "[Service]\nType=forking\nPIDFile=/run/hostapd.%i.pid\nExecStart=/usr/sbin/hostapd -B /etc/hostapd/%i.conf\n";
    fs::write(units.join("hostapd@.service"), hostapd).unwrap();
    for program in [
        "usr/bin/repeaterd",
        "usr/bin/archive",
        "usr/sbin/hostapd",
        "usr/sbin/hostapd_cli",
        "usr/libexec/bwc-repeater/dock-port",
        "bin/rm",
    ] {
        let path = root.path().join(program);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    root
}

fn verified(root: &Path) -> (bool, String) {
    let done = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .arg(format!("--root={}", root.display()))
        .args(UNITS)
        .args(["hostapd@dock1.service", "dock-port@dock1.service"])
        .output()
        .unwrap();
    let said = [done.stdout, done.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (done.status.success() && said.is_empty(), said)
}

#[test]
fn systemd_takes_every_line_of_every_unit() {
    if !can("systemd_takes_every_line_of_every_unit") {
        return;
    }
    let root = root();
    let (clean, said) = verified(root.path());
    assert!(clean, "{said}");
    for name in UNITS {
        let path = root.path().join("etc/systemd/system").join(name);
        let wrong = unit(name).replace("RestrictRealtime=yes", "RestrictRealtime=perhaps");
        fs::write(&path, wrong).unwrap();
        let (clean, said) = verified(root.path());
        assert!(!clean && said.contains(name), "{name}: {said}");
        fs::write(&path, unit(name)).unwrap();
    }
}

#[test]
fn a_box_without_a_certificate_starts_no_daemon() {
    let config = unit("repeater.toml");
    for name in ["repeaterd.service", "repeater-gate.service"] {
        let text = unit(name);
        let [path] = values(&text, "ConditionPathExists")[..] else {
            panic!("{name}: one condition")
        };
        // What the shipped configuration names as its certificate, which a setup writes last.
        assert!(
            config.contains(&format!("chain = \"{path}\"")),
            "{name}: {path}"
        );
    }
}

/// The values of a key, over all its lines.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let of = |line: &'a str| line.strip_prefix(key)?.strip_prefix('=');
    let lines = text.lines().filter_map(of);
    lines.flat_map(str::split_whitespace).collect()
}

#[test]
fn the_sandbox_leaves_the_daemon_what_it_needs() {
    let text = unit("repeaterd.service");
    // Cameras and archive; links and neighbours; hostapd, the manager and the control socket.
    let families = values(&text, "RestrictAddressFamilies");
    assert_eq!(
        families,
        ["AF_INET", "AF_INET6", "AF_NETLINK", "AF_UNIX"],
        "each is used, and no other"
    );
    // The marks of a failed sync and the sockets to hostapd are where the configuration has them, outlive the daemon and
    // are made by tmpfiles.d for its user.
    assert_eq!(values(&text, "ReadWritePaths"), ["/run/repeater"]);
    let folders = unit("tmpfiles.d/bwc-repeater.conf");
    assert!(folders.contains("d /run/repeater 0750 repeater repeater -"));
    assert!(values(&text, "RuntimeDirectory").is_empty());
    let config = unit("repeater.toml");
    assert!(config.contains("dir = \"/var/lib/repeater/"));
    assert_eq!(values(&text, "StateDirectory"), ["repeater"]);
    // The credential has the name that the configuration asks for.
    let [credential] = values(&text, "LoadCredentialEncrypted")[..] else {
        panic!("one credential")
    };
    let name = credential.split(':').next().unwrap();
    assert!(config.contains(&format!("key = \"$CREDENTIALS_DIRECTORY/{name}\"")));
    // A beat is missed sooner than a slow sync ends the daemon.
    let watchdog: u64 = values(&text, "WatchdogSec")[0].parse().unwrap();
    assert!(watchdog > repeater::limits::LIVE_WITHIN.as_secs());
    // Cameras are sent to the daemon by hostapd, which lets its group in.
    for name in ["hostapd/station.conf", "hostapd/dock.conf"] {
        assert!(unit(name).contains("ctrl_interface_group=repeater"));
    }
}

#[test]
fn packages_are_not_made_without_a_maintainer() {
    for (name, email) in [
        ("", ""),
        ("Somebody", ""),
        ("", "a@b"),
        ("Somebody", "nowhere"),
        ("Some <body", "a@b"),
    ] {
        let out = tempfile::tempdir().unwrap();
        let done = Command::new(folder().join("build-debs"))
            .arg(out.path())
            .env("DEBFULLNAME", name)
            .env("DEBEMAIL", email)
            // It ends before it calls for a program that makes anything.
            .env("PATH", "/usr/bin:/bin")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(78), "{name} {email}: {said}");
        assert!(said.contains("DEBFULLNAME"), "{said}");
        assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0);
    }
    // The sources name nobody: an address that nobody reads would stand in every package.
    for package in ["repeater", "archive"] {
        let of = |path: &str| fs::read_to_string(folder().join(path)).unwrap();
        assert!(!of(&format!("../appliance/{package}/Cargo.toml")).contains("\nmaintainer ="));
        assert!(of(&format!("debian/{package}/changelog")).contains("-- @MAINTAINER@"));
    }
}
