//! A search for what must not be found: plain footage, and words about the officer, in whatever the repeater and
//! the archive keep. Every byte offset of every file is looked at, for all needles in one pass.
//!
//! Needles are 32 bytes drawn from the originals at random places, only where they hold many different bytes: a
//! run of zeros would be found in any reserved block. It proves that these bytes are not there, not that
//! nothing could be told from sizes and times.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use link::random::Random;

use crate::footage::Original;

/// Bytes of one needle of footage.
const NEEDLE: usize = 32;
/// Needles drawn from each original.
const DRAWN: usize = 16;
/// Different values that a needle holds at least.
const VARIED: usize = 16;
/// Bytes read at once.
const WINDOW: usize = 1 << 20;

/// What to look for, and what to call it when it is found.
#[derive(Clone, Debug)]
pub(crate) struct Needle {
    /// The bytes, at least two.
    pub(crate) bytes: Vec<u8>,
    /// In words.
    pub(crate) name: String,
}

/// What a search looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Searched {
    /// Files.
    pub(crate) files: u64,
    /// Bytes.
    pub(crate) bytes: u64,
}

/// Draws needles from an original; fewer where it has few varied places, none where it is shorter than one.
pub(crate) fn draw(original: &Original, random: &Random) -> Result<Vec<Needle>> {
    let mut needles = Vec::new();
    let Some(places) = (original.bytes + 1)
        .checked_sub(NEEDLE as u64)
        .filter(|n| *n > 0)
    else {
        return Ok(needles);
    };
    let reading = || format!("cannot read {}", original.path.display());
    let mut file = File::open(&original.path).with_context(reading)?;
    for _ in 0..DRAWN * 4 {
        let at = random.u64() % places;
        let mut bytes = vec![0; NEEDLE];
        file.seek(SeekFrom::Start(at)).with_context(reading)?;
        file.read_exact(&mut bytes).with_context(reading)?;
        let mut values = bytes.clone();
        values.sort_unstable();
        values.dedup();
        if values.len() >= VARIED && needles.len() < DRAWN {
            needles.push(Needle {
                bytes,
                name: format!("footage of {} at byte {at}", original.path.display()),
            });
        }
    }
    Ok(needles)
}

/// Looks through every file under `places`; the findings are sentences.
pub(crate) fn search(places: &[PathBuf], needles: &[Needle]) -> Result<(Searched, Vec<String>)> {
    let index = Index::new(needles);
    let (mut searched, mut found) = (Searched::default(), Vec::new());
    let mut open: Vec<PathBuf> = places.iter().filter(|p| p.exists()).cloned().collect();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let entries =
                fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))?;
            open.extend(entries.filter_map(Result::ok).map(|e| e.path()));
        } else if path.is_file() {
            searched.files += 1;
            searched.bytes += index
                .file(&path, &mut found)
                .with_context(|| format!("cannot read {}", path.display()))?;
        }
    }
    Ok((searched, found))
}

/// Needles by their first two bytes.
struct Index<'a> {
    by_start: Vec<Vec<&'a Needle>>,
    longest: usize,
}

impl<'a> Index<'a> {
    fn new(needles: &'a [Needle]) -> Index<'a> {
        let mut by_start = vec![Vec::new(); 1 << 16];
        for needle in needles.iter().filter(|n| n.bytes.len() >= 2) {
            by_start[start(&needle.bytes)].push(needle);
        }
        Index {
            by_start,
            longest: needles.iter().map(|n| n.bytes.len()).max().unwrap_or(0),
        }
    }

    fn file(&self, path: &Path, found: &mut Vec<String>) -> std::io::Result<u64> {
        let mut file = File::open(path)?;
        let (mut window, mut kept, mut seen) = (vec![0; WINDOW + self.longest], 0, 0);
        loop {
            let n = file.read(&mut window[kept..])?;
            if n == 0 {
                return Ok(seen);
            }
            seen += n as u64;
            let filled = kept + n;
            self.window(&window[..filled], path, found);
            // A needle may lie across two windows: what is shorter than one is looked at again.
            let keep = filled.min(self.longest.saturating_sub(1));
            window.copy_within(filled - keep..filled, 0);
            kept = keep;
        }
    }

    fn window(&self, window: &[u8], path: &Path, found: &mut Vec<String>) {
        for at in 0..window.len().saturating_sub(1) {
            for needle in &self.by_start[start(&window[at..])] {
                if window[at..].starts_with(&needle.bytes) {
                    found.push(format!(
                        "{} stands in plain in {}",
                        needle.name,
                        path.display()
                    ));
                }
            }
        }
    }
}

fn start(bytes: &[u8]) -> usize {
    usize::from(bytes[0]) << 8 | usize::from(bytes[1])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_needle_is_found_wherever_it_lies_also_across_windows() {
        let dir = tempfile::tempdir().unwrap();
        let needle = Needle {
            bytes: (0..32).collect(),
            name: "it".to_owned(),
        };
        for at in [
            0,
            1,
            WINDOW - 1,
            WINDOW,
            WINDOW + 16,
            WINDOW + 31,
            2 * WINDOW - 7,
        ] {
            let mut bytes = vec![0xaa; 2 * WINDOW + 100];
            bytes[at..at + 32].copy_from_slice(&needle.bytes);
            fs::create_dir_all(dir.path().join("a/b")).unwrap();
            fs::write(dir.path().join("a/b/file"), &bytes).unwrap();
            let (searched, found) =
                search(&[dir.path().join("a")], std::slice::from_ref(&needle)).unwrap();
            assert_eq!(
                searched,
                Searched {
                    files: 1,
                    bytes: bytes.len() as u64
                }
            );
            assert!(!found.is_empty(), "at {at}");
            fs::write(dir.path().join("a/b/file"), vec![0xaa; 2 * WINDOW]).unwrap();
            assert!(
                search(&[dir.path().join("a")], std::slice::from_ref(&needle))
                    .unwrap()
                    .1
                    .is_empty()
            );
        }
    }

    #[test]
    fn needles_come_from_varied_places_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let random = Random::seeded(1);
        for (bytes, expected) in [
            (vec![0; 4096], 0),
            ((0..=255).collect(), DRAWN),
            (vec![1; 5], 0),
            (vec![], 0),
        ] {
            fs::write(&path, &bytes).unwrap();
            let original = Original {
                path: path.clone(),
                bytes: bytes.len() as u64,
                camera: 0,
            };
            assert_eq!(draw(&original, &random).unwrap().len(), expected);
        }
    }
}
