//! The agency makes an enrolment file, and a box takes it only where its agency signed it for that very repeater.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use link::agency::{Agency, TrialOptions, trial};
use link::clock::Clock;
use link::credentials::{load_chain, load_key};
use link::enrolment::{Enrolment, EnrolmentError, FILE_BYTES, Papers, Plan, parse_fingerprint};
use link::random::Random;
use protocol::suite::SigningKey;

fn agency(at: &Path) -> Agency {
    let options = TrialOptions {
        cameras: 1,
        ..TrialOptions::default()
    };
    trial(at, &options, &Clock::system(), &Random::system()).unwrap()
}

fn plan(station: &str) -> Plan {
    Plan {
        station: station.into(),
        number: 1,
        archive: vec![link::enrolment::Archive {
            site: "site-a".into(),
            addresses: vec!["192.0.2.10:47801".parse().unwrap()],
        }],
        ..Plan::default()
    }
}

fn refused(bytes: &[u8], agency: &Agency) -> String {
    let known = agency.fingerprints().unwrap();
    Enrolment::open(bytes, &known).unwrap_err().to_string()
}

#[test]
fn a_box_that_was_told_of_the_agency_takes_its_file_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let ours = agency(&folder.path().join("ours"));
    let theirs = agency(&folder.path().join("theirs"));
    // The root is offline.
    std::fs::remove_dir_all(ours.path("root")).unwrap();
    let file = ours.enrol(plan("seoul-017")).unwrap();
    let known = ours.fingerprints().unwrap();
    let read = Enrolment::open(&file, &known).unwrap();
    assert_eq!(
        read.identity().unwrap().to_string(),
        "urn:bwc:repeater:seoul-017:1"
    );
    assert_eq!(read.papers.key_list().unwrap().number(), 1);

    let printed: Vec<String> = known[0]
        .to_string()
        .as_bytes()
        .chunks(4)
        .map(|c| String::from_utf8_lossy(c).to_uppercase())
        .collect();
    assert_eq!(parse_fingerprint(&printed.join("-")), Some(known[0]));
    // Nobody told the box of an agency: what the file claims is named, and not believed.
    let unknown = Enrolment::open(&file, &[]).unwrap_err();
    assert!(
        matches!(unknown, EnrolmentError::Root(_))
            && unknown.to_string().contains(&known[0].to_string())
    );
    assert!(refused(&file, &theirs).contains(&known[0].to_string()));

    // One bit anywhere.
    for at in (0..file.len()).step_by(97) {
        let mut altered = file.clone();
        altered[at] ^= 1;
        assert!(Enrolment::open(&altered, &known).is_err(), "byte {at}");
    }
    assert!(refused(&vec![0; FILE_BYTES + 1], &ours).contains("at most 65536"));
}

#[test]
fn neither_a_cameras_nor_a_repeaters_certificate_nor_another_stations_signs_one() {
    let folder = tempfile::tempdir().unwrap();
    let ours = agency(&folder.path().join("ours"));
    let text = |name: &str| std::fs::read_to_string(ours.path(name)).unwrap();
    let papers = Papers {
        trust: text("trust.pem"),
        crl: text("crl.pem"),
        key_list: std::fs::read(ours.path("key-list.cose"))
            .unwrap()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect(),
    };
    let wanted = Enrolment::new(plan("trial"), papers, Clock::system().now()).unwrap();
    let root = load_chain(&ours.path("trust.pem")).unwrap();
    for (chain, key) in [
        ("cameras/BWC-0001/device.pem", "cameras/BWC-0001/device.key"),
        ("cameras/BWC-0001/link.pem", "cameras/BWC-0001/link.key"),
        ("repeaters/trial-1/chain.pem", "repeaters/trial-1/key.pem"),
    ] {
        let key = SigningKey::from_pkcs8(load_key(&ours.path(key)).unwrap().secret_der()).unwrap();
        let mut signer = load_chain(&ours.path(chain)).unwrap();
        signer.extend(root.clone());
        let forged = wanted.sign(&signer, &key).unwrap();
        assert!(
            refused(&forged, &ours).starts_with("the enrolment file is refused"),
            "{chain}"
        );
    }

    // A CA that the root has revoked makes none that counts.
    let file = ours.enrol(plan("trial")).unwrap();
    ours.revoke_ca(&ours.path("repeaters/trial-1/chain.pem"))
        .unwrap();
    assert!(
        Enrolment::open(&file, &ours.fingerprints().unwrap()).is_ok(),
        "made before"
    );
    let after = ours.enrol(plan("trial")).unwrap();
    assert!(refused(&after, &ours).contains("revoked"));
}

#[test]
fn a_plan_that_cannot_be_used_makes_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let ours = agency(&folder.path().join("ours"));
    let mut wrong = plan("seoul-017");
    wrong.archive.clear();
    assert!(
        ours.enrol(wrong)
            .unwrap_err()
            .to_string()
            .contains("archive")
    );
}
