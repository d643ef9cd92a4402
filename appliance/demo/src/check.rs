//! After the run, with every party stopped: each recording is taken out of the store by a process that has only
//! store, pinned root and key, and compared with its original byte by byte; the store is read again as a whole.
//!
//! An interrupted recording must be a prefix of what it recorded, and what follows it must begin no later than
//! where it ends: so every byte of every original is found in some recording, or the check fails.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail, ensure};

use crate::footage::Original;
use crate::parties::{self, Agency, StorePlace, Verified};
use crate::process::{Launcher, lock};
use crate::seal::Piece;
use crate::signed::Segment;

/// Exports at one time.
const AT_ONCE: usize = 2;

/// What the checks need to know.
#[derive(Debug)]
pub(crate) struct Check<'a> {
    /// Starts programs.
    pub(crate) launcher: &'a Launcher,
    /// For trust and key.
    pub(crate) agency: &'a Agency,
    /// The archive's store.
    pub(crate) place: &'a StorePlace,
    /// What was recorded of what.
    pub(crate) originals: &'a [Original],
    /// Every recording.
    pub(crate) pieces: &'a [Piece],
    /// Where exports are written.
    pub(crate) exports: &'a Path,
    /// Whether exports stay there.
    pub(crate) keep: bool,
}

impl Check<'_> {
    /// Exports and compares every recording; bytes of footage of each, in the order of the pieces.
    pub(crate) fn footage(&self) -> Result<Vec<u64>> {
        let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
        let lengths = Mutex::new(vec![0; self.pieces.len()]);
        let work = || {
            while let Some((n, piece)) =
                claim(&next, self.pieces).filter(|_| lock(&failed).is_none())
            {
                match self.one(n, piece) {
                    Ok(length) => lock(&lengths)[n] = length,
                    Err(error) => drop(lock(&failed).get_or_insert(error)),
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(work);
            }
        });
        if let Some(error) = lock(&failed).take() {
            return Err(error);
        }
        let lengths = std::mem::take(&mut *lock(&lengths));
        self.covered(&lengths)?;
        Ok(lengths)
    }

    fn one(&self, n: usize, piece: &Piece) -> Result<u64> {
        let out = self.exports.join(format!("{n:04}"));
        self.launcher.run(&parties::export(
            self.agency,
            self.place,
            &piece.recording,
            &out,
        )?)?;
        let original = &self.originals[piece.original];
        let length = compare(&original.path, piece.from, &out)
            .with_context(|| format!("recording {}", piece.recording))?;
        let rest = original.bytes - piece.from;
        ensure!(
            piece.interrupted || length == rest,
            "recording {}: {length} bytes came out, {rest} were recorded from {}",
            piece.recording,
            original.path.display()
        );
        ensure!(
            length == piece.footage,
            "recording {}: {length} bytes came out, manifests named {}",
            piece.recording,
            piece.footage
        );
        if !self.keep {
            fs::remove_file(&out).with_context(|| format!("cannot remove {}", out.display()))?;
        }
        Ok(length)
    }

    /// Every byte of every original lies in a recording.
    fn covered(&self, lengths: &[u64]) -> Result<()> {
        for (place, original) in self.originals.iter().enumerate() {
            let of_it: Vec<(u64, u64)> = self
                .pieces
                .iter()
                .zip(lengths)
                .filter(|(p, _)| p.original == place)
                .map(|(p, l)| (p.from, *l))
                .collect();
            ensure!(
                !of_it.is_empty(),
                "{} was not recorded",
                original.path.display()
            );
            let mut reached = 0;
            for (from, length) in of_it {
                ensure!(
                    from <= reached,
                    "bytes {reached} to {from} of {} are in no recording",
                    original.path.display()
                );
                reached = reached.max(from + length);
            }
            ensure!(
                reached == original.bytes,
                "{}: recorded up to byte {reached} of {}",
                original.path.display(),
                original.bytes
            );
        }
        Ok(())
    }

    /// Reads every object of the store again; its segments.
    pub(crate) fn store(&self) -> Result<BTreeSet<Segment>> {
        let names = self.exports.join("segments");
        let said = self
            .launcher
            .run(&parties::verify(self.agency, self.place, &names)?)?
            .join("\n");
        let verified: Verified =
            serde_json::from_str(&said).context("`archive verify --json` is not understood")?;
        if !verified.problems.is_empty() {
            bail!(
                "the store is not good:\n  - {}",
                verified.problems.join("\n  - ")
            );
        }
        ensure!(
            verified.outstanding == 0,
            "{} objects that manifests name are not in the store",
            verified.outstanding
        );
        ensure!(
            verified.whole == verified.recordings,
            "{} of {} recordings are whole in the store",
            verified.whole,
            verified.recordings
        );
        let listed: BTreeSet<String> = parties::list(self.launcher, self.place)?
            .into_iter()
            .collect();
        let recorded: BTreeSet<String> = self.pieces.iter().map(|p| p.recording.clone()).collect();
        let differ: Vec<&String> = recorded.symmetric_difference(&listed).collect();
        ensure!(
            differ.is_empty(),
            "recorded and archived differ: {differ:?}"
        );
        let segments = read_names(&names)?;
        ensure!(
            segments.len() as u64 == verified.segments,
            "the store holds {} segments, of which {} were named",
            verified.segments,
            segments.len()
        );
        Ok(segments)
    }
}

/// The segments of a file that `archive verify` wrote.
fn read_names(path: &Path) -> Result<BTreeSet<Segment>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let read = |line| Segment::read(line).with_context(|| format!("`{line}` names no segment"));
    text.lines().map(read).collect()
}

fn claim<'a>(next: &AtomicUsize, pieces: &'a [Piece]) -> Option<(usize, &'a Piece)> {
    let n = next.fetch_add(1, Ordering::Relaxed);
    pieces.get(n).map(|piece| (n, piece))
}

/// Compares `out` with the original from byte `from` on; the length of `out`.
fn compare(original: &Path, from: u64, out: &Path) -> Result<u64> {
    let open =
        |path: &Path| File::open(path).with_context(|| format!("cannot read {}", path.display()));
    let (mut a, mut b) = (
        open(original)?,
        BufReader::with_capacity(1 << 20, open(out)?),
    );
    a.seek(SeekFrom::Start(from))?;
    let mut a = BufReader::with_capacity(1 << 20, a);
    let (mut expected, mut got, mut at) = (vec![0; 1 << 20], vec![0; 1 << 20], 0u64);
    loop {
        let n = b.read(&mut got)?;
        if n == 0 {
            return Ok(at);
        }
        let same = a.read_exact(&mut expected[..n]);
        ensure!(
            same.is_ok(),
            "more bytes came out than {} has",
            original.display()
        );
        if expected[..n] != got[..n] {
            let first = expected
                .iter()
                .zip(&got)
                .position(|(x, y)| x != y)
                .unwrap_or(0) as u64;
            bail!(
                "byte {} is not that of {}",
                from + at + first,
                original.display()
            );
        }
        at += n as u64;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_flipped_added_or_moved_byte_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let (original, out) = (dir.path().join("original"), dir.path().join("out"));
        let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
        fs::write(&original, &bytes).unwrap();
        fs::write(&out, &bytes).unwrap();
        assert_eq!(compare(&original, 0, &out).unwrap(), bytes.len() as u64);
        fs::write(&out, &bytes[5..2_000_000]).unwrap();
        assert_eq!(compare(&original, 5, &out).unwrap(), 1_999_995);
        assert!(compare(&original, 4, &out).is_err());
        fs::write(&out, [&bytes[..], b"x"].concat()).unwrap();
        assert!(compare(&original, 0, &out).is_err());
        let mut flipped = bytes;
        flipped[1_500_000] ^= 1;
        fs::write(&out, flipped).unwrap();
        assert!(
            compare(&original, 0, &out)
                .unwrap_err()
                .to_string()
                .contains("byte 1500000 ")
        );
    }
}
