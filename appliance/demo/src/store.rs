//! What lies on a camera's disk, seen from outside: how many sealed segments, and what the manifests of one
//! recording name. The camera's own words come through `bodycam status`; this is the look that checks them.
//!
//! Reads beside a running camera, which may erase at any moment: what vanishes while it is read counts as gone.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use protocol::identity::Trust;
use protocol::ids::Digest;
use protocol::manifest::{End, Manifest};

/// What the manifests of one recording name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// The recording's full name.
    pub(crate) recording: String,
    /// Segments: place and digest, in the manifests' order.
    pub(crate) segments: Vec<(u64, Digest)>,
    /// Bytes of footage in them.
    pub(crate) footage: u64,
    /// How it ended, if it did.
    pub(crate) end: Option<End>,
}

/// Segments that a camera's disk still holds: the recording's number and the place in it.
pub(crate) fn segments_on_disk(store: &Path) -> Result<BTreeSet<(u64, u64)>> {
    let mut found = BTreeSet::new();
    for dir in recordings(store)? {
        let recording = number(&dir)
            .with_context(|| format!("{} is not a recording's folder", dir.display()))?;
        for path in files(&dir)? {
            if path.extension().is_some_and(|e| e == "seg") {
                let seq =
                    number(&path).with_context(|| format!("{} has no number", path.display()))?;
                found.insert((recording, seq));
            }
        }
    }
    Ok(found)
}

/// The number that a name begins with, up to its first dot.
fn number(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    name.split('.').next()?.parse().ok()
}

/// Folders of recordings that a camera's disk still holds.
pub(crate) fn recordings(store: &Path) -> Result<Vec<PathBuf>> {
    files(&store.join("recordings"))
}

/// The folder of recording `number`, if it is there.
pub(crate) fn recording(store: &Path, which: u64) -> Result<Option<PathBuf>> {
    let is = |p: &PathBuf| number(p) == Some(which);
    Ok(recordings(store)?.into_iter().find(is))
}

/// What the manifests in a recording's folder name; none where one is missing from the first to the last.
pub(crate) fn named(dir: &Path, trust: &Trust) -> Result<Option<Named>> {
    let mut manifests = Vec::new();
    for path in files(dir)? {
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default();
        if !name.starts_with("manifest-") || !name.ends_with(".cose") {
            continue;
        }
        match fs::read(&path) {
            Ok(bytes) => manifests.push(
                Manifest::verify(bytes.into(), trust)
                    .with_context(|| format!("{} does not verify", path.display()))?,
            ),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
        }
    }
    manifests.sort_by_key(|m| m.body().index);
    let follows = |pair: &[Manifest]| pair[1].body().previous == Some(pair[0].digest());
    let chained = manifests.iter().zip(0..).all(|(m, i)| m.body().index == i)
        && manifests.windows(2).all(follows);
    let Some(first) = manifests.first().filter(|_| chained) else {
        return Ok(None);
    };
    let mut all = Named {
        recording: first.recording().full(),
        segments: Vec::new(),
        footage: 0,
        end: None,
    };
    for body in manifests.iter().map(Manifest::body) {
        all.segments
            .extend(body.segments.iter().map(|s| (s.seq, s.digest)));
        all.footage += body
            .segments
            .iter()
            .map(|s| footage_of(u64::from(s.length)))
            .sum::<u64>();
        all.end = body.end.or(all.end);
    }
    Ok(Some(all))
}

/// Bytes of footage in a sealed segment of so many bytes: what COSE adds is fixed but for one length field.
fn footage_of(sealed: u64) -> u64 {
    const FIXED: u64 = 21 + 16; // tag, array, protected header, IV; the authentication tag
    let body = sealed.saturating_sub(FIXED);
    let head = match body {
        0..=8 => 1, // the field counts the authentication tag too: 16 to 23 bytes fit its shortest form
        9..=241 => 2,
        242..=65_522 => 3,
        _ => 5,
    };
    body.saturating_sub(head)
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Ok(entries) => Ok(entries.filter_map(Result::ok).map(|e| e.path()).collect()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e).with_context(|| format!("cannot read {}", dir.display())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use protocol::ids::{CameraId, Incarnation, RecordingId};
    use protocol::segment::{Place, seal};

    #[test]
    fn a_sealed_segment_tells_its_footage() {
        let camera = CameraId {
            serial: "S".parse().unwrap(),
            incarnation: Incarnation([1; 16]),
        };
        let recording = RecordingId { camera, number: 0 };
        let place = Place {
            recording: &recording,
            seq: 3,
            last: false,
        };
        for length in [
            0,
            1,
            7,
            8,
            238,
            239,
            240,
            300,
            65_518,
            65_519,
            65_520,
            70_000,
            4 << 20,
        ] {
            let sealed = seal(&[7; 32].into(), place, &vec![1; length]).unwrap();
            assert_eq!(
                footage_of(sealed.bytes.len() as u64),
                length as u64,
                "{length}"
            );
        }
    }

    #[test]
    fn a_store_that_is_not_there_holds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert!(segments_on_disk(dir.path()).unwrap().is_empty());
        fs::create_dir_all(dir.path().join("recordings/00000004")).unwrap();
        fs::write(dir.path().join("recordings/00000004/00000000.seg"), b"x").unwrap();
        fs::write(
            dir.path().join("recordings/00000004/00000001.end.seg"),
            b"x",
        )
        .unwrap();
        assert_eq!(
            segments_on_disk(dir.path()).unwrap(),
            BTreeSet::from([(4, 0), (4, 1)])
        );
        assert!(
            recording(dir.path(), 4).unwrap().is_some()
                && recording(dir.path(), 5).unwrap().is_none()
        );
    }
}
