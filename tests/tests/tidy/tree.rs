//! The tree as the rules see it: every text file that git would keep, with its path.
//!
//! It reads the folders themselves, not git, so it holds for an unpacked archive too. What is not text
//! (video, vectors in binary) no rule can read, and is left out; so is Cargo.lock, which cargo writes.

use std::fs;
use std::path::{Path, PathBuf};

/// A text file of the tree, its path relative to the root with forward slashes.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Fails once, with every breach.
pub(crate) fn report(found: impl IntoIterator<Item = String>) {
    let found: Vec<String> = found.into_iter().collect();
    assert!(
        found.is_empty(),
        "{} breaches:\n{}",
        found.len(),
        found.join("\n")
    );
}

pub(crate) fn text_files() -> Vec<Source> {
    let mut found = Vec::new();
    walk(&root(), &mut found);
    assert!(found.len() > 20, "the walk sees the tree");
    found
}

pub(crate) fn rust_files() -> Vec<Source> {
    text_files()
        .into_iter()
        .filter(|f| f.path.ends_with(".rs"))
        .collect()
}

/// What git would keep and is text: not `.git`, not cargo's folder, not logs, not video.
fn walk(dir: &Path, found: &mut Vec<Source>) {
    let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap()).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for e in entries {
        let (name, path) = (e.file_name(), e.path());
        if name == ".git"
            || name == "target"
            || name == "Cargo.lock"
            || path.extension().is_some_and(|x| x == "log")
        {
            continue;
        }
        if e.file_type().unwrap().is_dir() {
            walk(&path, found);
        } else if let Ok(text) = fs::read_to_string(&path) {
            let path = path
                .strip_prefix(root())
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            found.push(Source { path, text });
        }
    }
}
