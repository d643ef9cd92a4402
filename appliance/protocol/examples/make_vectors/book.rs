//! One file of vectors in the making. Every case is judged by this crate as it is written down: what is to
//! be accepted gets the fields that were read, what is to be refused must be refused for the reason given.

use std::path::Path;

use serde_json::{Value, json};

use crate::judge::judge;
use crate::keys::{Keys, to_hex};

/// The cases of one kind.
pub(crate) struct Book<'k> {
    kind: &'static str,
    about: &'static str,
    keys: &'k Keys,
    cases: Vec<Value>,
}

impl<'k> Book<'k> {
    /// An empty file.
    pub(crate) fn new(kind: &'static str, about: &'static str, keys: &'k Keys) -> Self {
        Book {
            kind,
            about,
            keys,
            cases: vec![],
        }
    }

    /// Adds a case that is to be accepted.
    pub(crate) fn accept(&mut self, name: &str, mut case: Value) {
        case["name"] = json!(name);
        let fields = judge(self.kind, &case, self.keys);
        case["expect"] = json!("accept");
        case["fields"] = fields.unwrap_or_else(|e| panic!("{}: {name}: {e}", self.kind));
        self.cases.push(case);
    }

    /// Adds a case that is to be refused.
    pub(crate) fn refuse(&mut self, name: &str, reason: &str, mut case: Value) {
        case["name"] = json!(name);
        let found = judge(self.kind, &case, self.keys);
        assert_eq!(found, Err(reason.to_owned()), "{}: {name}", self.kind);
        case["expect"] = json!("refuse");
        case["reason"] = json!(reason);
        self.cases.push(case);
    }

    /// Writes the file; a case that it has already, by name, stays as it is.
    pub(crate) fn write(mut self, folder: &Path) {
        let before = read(folder, self.kind).unwrap_or_default();
        let before = before["cases"].as_array().cloned().unwrap_or_default();
        let mut added = 0;
        for case in &mut self.cases {
            match before.iter().find(|b| b["name"] == case["name"]) {
                Some(kept) => *case = kept.clone(),
                None => added += 1,
            }
        }
        let count = self.cases.len();
        let file = json!({"kind": self.kind, "about": self.about, "cases": self.cases});
        write(folder, self.kind, &file);
        println!("{}: {count} cases, {added} of them new", self.kind);
    }
}

/// A file that was written before.
pub(crate) fn read(folder: &Path, name: &str) -> Option<Value> {
    let text = std::fs::read(folder.join(format!("{name}.json"))).ok()?;
    Some(serde_json::from_slice(&text).unwrap())
}

/// Writes one file of JSON.
pub(crate) fn write(folder: &Path, name: &str, value: &Value) {
    let text = serde_json::to_string_pretty(value).unwrap() + "\n";
    std::fs::write(folder.join(format!("{name}.json")), text).unwrap();
}

/// A case of nothing but bytes.
pub(crate) fn raw(bytes: &[u8]) -> Value {
    json!({ "bytes": to_hex(bytes) })
}

/// A case of bytes and what is known beside them.
pub(crate) fn given(bytes: &[u8], given: &Value) -> Value {
    json!({"bytes": to_hex(bytes), "given": given})
}

/// The bytes with one bit of one byte flipped; from the end where `at` is negative.
pub(crate) fn flip(bytes: &[u8], at: isize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let length = isize::try_from(bytes.len()).unwrap();
    let at = if at < 0 { length + at } else { at };
    bytes[usize::try_from(at).unwrap()] ^= 1;
    bytes
}
