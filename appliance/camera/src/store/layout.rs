//! Names in the store's folder, and nothing else.
//!
//! ```text
//! camera.cbor                    who this storage is and the next recording's number; written by the sealer alone
//! inventory.cbor                 number of the newest inventory shown; written by the server alone
//! clock.cbor                     a repeater's offer of the time, newest signed time; a hint, written by the server
//! key-list.cose, trust.pem       newest key list; the root that this store was last opened with
//! erased.log                     the record: receipts, and what was erased on them; append-only
//! seal.lock, serve.lock          one sealer, one server
//! custody.lock                   held for each step that reads or writes the record
//! ballast                        room given up when the disk is full: to close a recording, to show an inventory
//! recordings/<number>/header.cose
//! recordings/<number>/state.cbor           what a closing manifest needs after a crash; no secret
//! recordings/<number>/manifest-<index>.cose
//! recordings/<number>/<seq>.seg            sealed segment; the last one of a stopped recording is <seq>.end.seg
//! ```
//! The last segment's name says that it carries the final flag: after a crash nobody could ask its key.

use std::path::{Path, PathBuf};

/// Paths in one store.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The store at `root`.
    #[must_use]
    pub fn new(root: &Path) -> Layout {
        Layout {
            root: root.to_owned(),
        }
    }
    /// The store's folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// A file directly in the store's folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
    /// Room given up when the disk is full.
    pub(crate) fn ballast(&self) -> PathBuf {
        self.file("ballast")
    }
    /// The folder of all recordings.
    pub(crate) fn recordings(&self) -> PathBuf {
        self.root.join("recordings")
    }
    /// One recording's folder.
    pub(crate) fn recording(&self, number: u64) -> PathBuf {
        self.recordings().join(format!("{number:08}"))
    }
    /// A recording's header.
    pub(crate) fn header(&self, number: u64) -> PathBuf {
        self.recording(number).join(HEADER)
    }
    /// What a closing manifest needs.
    pub(crate) fn state(&self, number: u64) -> PathBuf {
        self.recording(number).join(STATE)
    }
    /// One manifest.
    pub(crate) fn manifest(&self, number: u64, index: u32) -> PathBuf {
        self.recording(number)
            .join(format!("manifest-{index:08}.cose"))
    }
    /// One segment; `last` where it carries the final flag.
    pub(crate) fn segment(&self, number: u64, seq: u64, last: bool) -> PathBuf {
        let end = if last { ".end" } else { "" };
        self.recording(number).join(format!("{seq:08}{end}.seg"))
    }
}

/// Name of a recording's header.
pub(crate) const HEADER: &str = "header.cose";
/// Name of a recording's state.
pub(crate) const STATE: &str = "state.cbor";

/// What a name in a recording's folder says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Header,
    State,
    Manifest(u32),
    Segment {
        seq: u64,
        last: bool,
    },
    /// Not whole when its writer ended, or none of ours.
    Other,
}

/// Reads a name in a recording's folder.
pub(crate) fn entry(name: &str) -> Entry {
    let manifest = |n: &str| {
        n.strip_prefix("manifest-")?
            .strip_suffix(".cose")?
            .parse()
            .ok()
    };
    let segment = |n: &str| {
        let stem = n.strip_suffix(".seg")?;
        let (seq, last) = stem
            .strip_suffix(".end")
            .map_or((stem, false), |s| (s, true));
        Some(Entry::Segment {
            seq: seq.parse().ok()?,
            last,
        })
    };
    match name {
        HEADER => Entry::Header,
        STATE => Entry::State,
        _ => manifest(name)
            .map(Entry::Manifest)
            .or_else(|| segment(name))
            .unwrap_or(Entry::Other),
    }
}

/// The number of a recording's folder; none for anything else.
pub(crate) fn recording_number(name: &str) -> Option<u64> {
    let number = name.parse().ok()?;
    (format!("{number:08}") == name).then_some(number)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn names_read_back() {
        let layout = Layout::new(Path::new("s"));
        let name = |p: PathBuf| p.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(
            entry(&name(layout.segment(1, 7, false))),
            Entry::Segment {
                seq: 7,
                last: false
            }
        );
        assert_eq!(
            entry(&name(layout.segment(1, 7, true))),
            Entry::Segment { seq: 7, last: true }
        );
        assert_eq!(entry(&name(layout.manifest(1, 3))), Entry::Manifest(3));
        assert_eq!(entry(&name(layout.header(1))), Entry::Header);
        assert_eq!(entry("00000007.seg.tmp"), Entry::Other);
        assert_eq!(
            recording_number(&name(layout.recording(123_456_789))),
            Some(123_456_789)
        );
        assert_eq!(recording_number("1"), None);
    }
}
