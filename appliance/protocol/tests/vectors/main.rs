//! Every vector in `vectors/`, against this crate: what is to be accepted reads with the fields that stand
//! there and encodes to the same bytes; what is to be refused is refused, for that reason and no other.
//!
//! The vectors are files so that others can read them; `vectors/check.py` reads them without any code of
//! this project.
#![allow(clippy::unwrap_used, reason = "tests")]

mod heads;
mod judge;
mod keys;
mod show;

use std::path::{Path, PathBuf};

use keys::Keys;
use serde_json::Value;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

fn read(file: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

/// Kinds, each with the cases that it must at least have.
const KINDS: [(&str, usize); 15] = [
    ("certificate", 8),
    ("segment", 8),
    ("header", 10),
    ("manifest", 25),
    ("inventory-page", 8),
    ("inventory", 5),
    ("key-list", 8),
    ("receipt", 12),
    ("release", 8),
    ("device-proof", 5),
    ("recording", 7),
    ("logbook-head", 15),
    ("countersignature", 15),
    ("message", 30),
    ("frame", 5),
];

#[test]
fn every_vector_is_judged_as_it_says() {
    let keys = Keys(read(&folder().join("keys.json")));
    let mut wrong = Vec::new();
    for (kind, least) in KINDS {
        let file = read(&folder().join(format!("{kind}.json")));
        assert_eq!(file["kind"], kind);
        let cases = file["cases"].as_array().unwrap();
        assert!(cases.len() >= least, "{kind}: {} cases", cases.len());
        for case in cases {
            let found = judge::judge(kind, case, &keys);
            let expected = match case["expect"].as_str().unwrap() {
                "accept" => Ok(case["fields"].clone()),
                "refuse" => Err(case["reason"].as_str().unwrap().to_owned()),
                other => panic!("{kind}: {}: expects {other}", case["name"]),
            };
            if found != expected {
                wrong.push(format!(
                    "{kind}: {}: expected {expected:?}, found {found:?}",
                    case["name"]
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_file_of_vectors_is_left_out() {
    for file in std::fs::read_dir(folder()).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let kind = name.strip_suffix(".json");
        let known = |k: &str| k == "keys" || KINDS.iter().any(|(kind, _)| *kind == k);
        assert!(kind.is_none_or(known), "{name} is read by no test");
    }
}
