//! The real program `agency`: the trial folder's layout and modes, requests, revocation, key lists, exit codes.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use link::credentials::{CredentialFiles, Credentials, load_chain, load_trust};
use protocol::identity::{Revocation, Role, Usage, When, verify_chain};
use protocol::keylist::{KeyList, State};

fn agency(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_agency"))
        .args(args)
        .output()
        .unwrap()
}

fn done(args: &[&str]) -> String {
    let output = agency(args);
    assert!(
        output.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn failed(args: &[&str], code: i32) -> String {
    let output = agency(args);
    assert_eq!(output.status.code(), Some(code), "{args:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn trial(dir: &Path) -> String {
    std::fs::create_dir_all(dir).unwrap();
    let folder = dir.join("trial").display().to_string();
    done(&[
        "trial",
        &folder,
        "--cameras",
        "2",
        "--sites",
        "east,west",
        "--station",
        "gangnam",
    ]);
    folder
}

fn list(folder: &str) -> KeyList {
    let trust = load_trust(&PathBuf::from(folder).join("trust.pem"), None).unwrap();
    let bytes = std::fs::read(PathBuf::from(folder).join("key-list.cose")).unwrap();
    KeyList::verify(bytes.into(), trust.root_keys()).unwrap()
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn a_trial_agency_has_every_file_and_only_keys_are_secret() {
    let dir = tempfile::tempdir().unwrap();
    let folder = trial(dir.path());
    let mut found = vec![];
    walk(Path::new(&folder), &mut found);
    let mut names: Vec<String> = found
        .iter()
        .map(|p| p.strip_prefix(&folder).unwrap().display().to_string())
        .collect();
    names.sort();
    let mut expected = vec![
        "root/root.pem",
        "root/root.key",
        "root/revoked",
        "root-crl.pem",
        "ca/ca.pem",
        "ca/ca.key",
        "ca/crl.pem",
        "ca/revoked",
        "trust.pem",
        "crl.pem",
        "root.pub",
        "key-list.cose",
        "repeaters/gangnam-1/chain.pem",
        "repeaters/gangnam-1/key.pem",
        "recipients/archive.pub",
        "recipients/archive.key",
        "recipients/escrow.pub",
        "recipients/escrow.key",
    ];
    let sites = ["chain.pem", "key.pem", "receipt.key", "receipt.pub"];
    let cameras = ["link.pem", "link.key", "device.pem", "device.key"];
    let per_party: Vec<String> = [("archives/east", sites), ("archives/west", sites)]
        .into_iter()
        .chain([("cameras/BWC-0001", cameras), ("cameras/BWC-0002", cameras)])
        .flat_map(|(party, files)| files.map(|f| format!("{party}/{f}")))
        .collect();
    expected.extend(per_party.iter().map(String::as_str));
    expected.sort_unstable();
    assert_eq!(names, expected);
    for path in found {
        let secret = std::fs::read(&path)
            .unwrap()
            .windows(11)
            .any(|w| w == b"PRIVATE KEY");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode == 0o600, secret, "{}: {mode:o}", path.display());
    }
    let body = list(&folder).body().clone();
    assert_eq!(
        (body.number, body.receipt_keys.len(), body.recipients.len()),
        (1, 2, 2)
    );
    assert!(failed(&["trial", &folder], 64).contains("not empty"));
}

#[test]
fn every_party_of_a_trial_can_load_its_credentials() {
    let dir = tempfile::tempdir().unwrap();
    let folder = PathBuf::from(trial(dir.path()));
    let parties = [
        (
            "repeaters/gangnam-1/chain.pem",
            "repeaters/gangnam-1/key.pem",
            Role::Repeater,
        ),
        (
            "archives/east/chain.pem",
            "archives/east/key.pem",
            Role::Archive,
        ),
        (
            "cameras/BWC-0002/link.pem",
            "cameras/BWC-0002/link.key",
            Role::Camera,
        ),
        (
            "cameras/BWC-0002/device.pem",
            "cameras/BWC-0002/device.key",
            Role::Device,
        ),
    ];
    for (chain, key, role) in parties {
        let files = CredentialFiles {
            chain: folder.join(chain),
            key: folder.join(key),
            trust: folder.join("trust.pem"),
            crl: Some(folder.join("crl.pem")),
        };
        let own = Credentials::load(&files, role).unwrap().own;
        let days = own.not_after.since_ms(own.not_before) / 86_400_000;
        assert_eq!(days, 401, "400 days, backdated by one");
    }
}

#[test]
fn a_repeater_makes_its_own_key_and_the_agency_signs_the_request() {
    let dir = tempfile::tempdir().unwrap();
    let folder = trial(dir.path());
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (key, csr, chain) = (path("own.key"), path("own.csr"), path("own.pem"));
    done(&[
        "csr",
        "--identity",
        "urn:bwc:repeater:gangnam:2",
        "--key",
        &key,
        "--out",
        &csr,
    ]);
    assert_eq!(
        std::fs::metadata(&key).unwrap().permissions().mode() & 0o777,
        0o600
    );
    failed(
        &[
            "sign", &folder, "--csr", &csr, "--role", "archive", "--out", &chain,
        ],
        65,
    );
    assert!(!Path::new(&chain).exists());
    done(&[
        "sign", &folder, "--csr", &csr, "--role", "repeater", "--out", &chain,
    ]);
    let files = CredentialFiles {
        chain: chain.clone().into(),
        key: key.into(),
        trust: Path::new(&folder).join("trust.pem"),
        crl: None,
    };
    let own = Credentials::load(&files, Role::Repeater).unwrap().own;
    assert_eq!(own.identity.to_string(), "urn:bwc:repeater:gangnam:2");
    assert!(done(&["show", &chain]).contains("urn:bwc:repeater:gangnam:2, expires in 399 days"));
    assert!(done(&["revoke", &folder, &chain]).contains("urn:bwc:repeater:gangnam:2"));
    done(&["revoke", &folder]);
    failed(
        &[
            "csr",
            "--identity",
            "urn:bwc:chief:1",
            "--key",
            "k",
            "--out",
            "o",
        ],
        64,
    );
    failed(&["show", &path("nothing.pem")], 66);
}

/// Whether a party still takes the repeater's chain, under the lists that are handed out.
fn is_taken(folder: &str) -> Result<(), String> {
    let path = |name: &str| PathBuf::from(folder).join(name);
    let trust = load_trust(&path("trust.pem"), Some(&path("crl.pem"))).unwrap();
    let chain = load_chain(&path("repeaters/gangnam-1/chain.pem")).unwrap();
    let judged = verify_chain(
        &chain,
        &trust,
        When::Undated,
        Usage::Client,
        Revocation::Check,
    );
    judged.map(|_| ()).map_err(|e| e.reason().to_owned())
}

#[test]
fn a_leaf_is_revoked_without_the_roots_key_and_a_ca_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let folder = trial(dir.path());
    let path = |name: &str| PathBuf::from(&folder).join(name);
    let (repeater, site) = (
        path("repeaters/gangnam-1/chain.pem").display().to_string(),
        path("archives/east/chain.pem").display().to_string(),
    );
    let (root, safe) = (path("root"), dir.path().join("safe"));
    std::fs::rename(&root, &safe).unwrap();
    done(&["revoke", &folder, &site]);
    done(&["revoke", &folder]);
    is_taken(&folder).unwrap();
    failed(&["revoke", &folder, &site, "--ca"], 66);
    is_taken(&folder).unwrap();
    done(&["revoke", &folder, &repeater]);
    assert_eq!(is_taken(&folder).unwrap_err(), "revoked");

    // Another agency's CA is not this root's to revoke.
    std::fs::rename(&safe, &root).unwrap();
    let other = trial(&dir.path().join("other"));
    failed(
        &[
            "revoke",
            &folder,
            &format!("{other}/repeaters/gangnam-1/chain.pem"),
            "--ca",
        ],
        65,
    );
    is_taken(&other).unwrap();
    done(&["revoke", &other, "--ca"]);
    is_taken(&other).unwrap();
    let chain = format!("{other}/archives/east/chain.pem");
    assert!(done(&["revoke", &other, &chain, "--ca"]).contains("all that it issued"));
    assert_eq!(is_taken(&other).unwrap_err(), "revoked");
    done(&["revoke", &other]);
    assert_eq!(is_taken(&other).unwrap_err(), "revoked");
}

#[test]
fn lists_of_two_agencies_side_by_side_do_not_hide_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (
        trial(&dir.path().join("one")),
        trial(&dir.path().join("two")),
    );
    let read =
        |folder: &str, name: &str| std::fs::read_to_string(Path::new(folder).join(name)).unwrap();
    for name in ["trust.pem", "crl.pem"] {
        let both = read(&one, name) + &read(&two, name);
        std::fs::write(Path::new(&one).join(name), &both).unwrap();
        std::fs::write(Path::new(&two).join(name), both).unwrap();
    }
    is_taken(&one).unwrap();
    is_taken(&two).unwrap();
}

#[test]
fn key_lists_rise_and_revocation_is_final() {
    let dir = tempfile::tempdir().unwrap();
    let folder = trial(dir.path());
    let first = list(&folder);
    let id = |n: usize| {
        let key = &first.body().receipt_keys[n].public_key;
        protocol::suite::PublicKey::from_sec1(key)
            .unwrap()
            .id()
            .to_string()
    };
    let epoch = format!("east={}", "0a".repeat(16));
    done(&[
        "key-list",
        &folder,
        "--retire",
        &id(1),
        "--revoke",
        &id(0),
        "--void",
        &epoch,
        "--suspend",
        "west",
    ]);
    let second = list(&folder);
    assert_eq!(second.number(), 2);
    assert_eq!(second.body().receipt_keys[0].state, State::Revoked);
    assert_eq!(second.body().receipt_keys[1].state, State::Retired);
    assert!(second.is_suspended(&"west".parse().unwrap()));
    assert_eq!(second.body().void_epochs.len(), 1);
    assert!(failed(&["key-list", &folder, "--retire", &id(0)], 64).contains("final"));
    let unknown = "00".repeat(16);
    assert!(failed(&["key-list", &folder, "--retire", &unknown], 64).contains("no key"));
    assert_eq!(list(&folder).number(), 2, "a refused change writes nothing");
    let added = format!("east={folder}/recipients/archive.pub");
    failed(&["key-list", &folder, "--add-receipt", &added], 65); // one key, two uses
    done(&["key-list", &folder, "--resume", "west"]);
    let shown = done(&["show", &format!("{folder}/key-list.cose")]);
    assert!(
        shown.starts_with("key list 3") && shown.contains("of east: revoked"),
        "{shown}"
    );
}

#[test]
fn a_disks_key_is_opened_by_the_escrow_holder_alone_into_a_secret_file() {
    const DISK: &str = "5b0c6a3e-1f0d-4e0b-9c56-2f6f3a8f7d11";
    let temp = tempfile::tempdir().unwrap();
    let folder = trial(temp.path());
    let path = |name: &str| temp.path().join(name).display().to_string();
    let key = |name: &str| format!("{folder}/recipients/{name}.key");
    let holders = list(&folder).active_escrow();
    let random = link::random::Random::system();
    let line = link::disk_key::seal(DISK, b"what opens it", &holders, &random).unwrap();
    let (sealed, out) = (path("disk-key.sealed"), path("disk-key.plain"));
    std::fs::write(&sealed, line + "\n").unwrap();
    let (archive, escrow) = (key("archive"), key("escrow"));
    let by = |who| ["disk-key", &sealed, "--key", who, "--out", &out];
    let said = failed(&by(&archive), 65);
    assert!(
        said.contains("disk-key.sealed") && said.contains("recipients"),
        "{said}"
    );
    assert!(!Path::new(&out).exists());
    let said = done(&by(&escrow));
    assert!(said.contains(DISK), "{said}");
    assert_eq!(std::fs::read(&out).unwrap(), b"what opens it");
    let mode = std::fs::metadata(&out).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Never over a file that is there.
    failed(&by(&escrow), 73);
    std::fs::write(&sealed, "nonsense").unwrap();
    let said = failed(&by(&escrow), 65);
    assert!(said.contains("bwc-disk-key 1 DISK SEALED"), "{said}");
}
