//! The originals: the sample video looped to unequal lengths, or the files of a folder, spread over cameras.
//!
//! A looped original is whole copies of the sample, each followed by an MP4 `free` box that names recording and
//! copy: still a video that plays, and no two recordings hold the same bytes, so that a mix-up cannot pass.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// 12 seconds of H.264; how it was made stands beside it.
const SAMPLE: &[u8] = include_bytes!("../footage/sample.mp4");

/// Shares of a camera's footage among its recordings; cameras take turns.
const SHARES: [&[u64]; 2] = [&[3, 2, 1], &[2, 1]];

/// One file that becomes a recording.
#[derive(Clone, Debug)]
pub(crate) struct Original {
    /// Where it lies in plain.
    pub(crate) path: PathBuf,
    /// Its length in bytes.
    pub(crate) bytes: u64,
    /// The camera that records it, from 0.
    pub(crate) camera: usize,
}

/// Writes sample originals of about `bytes` in all into `dir`.
pub(crate) fn sample(dir: &Path, cameras: usize, bytes: u64) -> Result<Vec<Original>> {
    let mut originals = Vec::new();
    let copies = (bytes / cameras as u64 / SAMPLE.len() as u64).max(1);
    for camera in 0..cameras {
        let shares = SHARES[camera % SHARES.len()];
        let shares = if copies < shares.iter().sum() {
            &[1][..]
        } else {
            shares
        };
        for (nth, share) in shares.iter().enumerate() {
            let path = dir.join(format!("camera-{:02}-{}.mp4", camera + 1, nth + 1));
            let copies = (copies * share / shares.iter().sum::<u64>()).max(1);
            let bytes = write_looped(&path, copies)
                .with_context(|| format!("cannot write {}", path.display()))?;
            originals.push(Original {
                path,
                bytes,
                camera,
            });
        }
    }
    Ok(originals)
}

/// Takes every file of `dir`, the largest first to the camera that has least.
pub(crate) fn folder(dir: &Path, cameras: usize) -> Result<Vec<Original>> {
    let mut originals = Vec::new();
    for entry in
        fs::read_dir(dir).with_context(|| format!("cannot read the folder {}", dir.display()))?
    {
        let path = entry
            .with_context(|| format!("cannot read the folder {}", dir.display()))?
            .path();
        let meta =
            fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if meta.is_file() {
            File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
            originals.push(Original {
                path: fs::canonicalize(&path)?,
                bytes: meta.len(),
                camera: 0,
            });
        }
    }
    ensure!(
        !originals.is_empty(),
        "{} holds no file: put at least one recording there",
        dir.display()
    );
    originals.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.path.cmp(&b.path)));
    let mut loads = vec![(0u64, 0usize); cameras];
    for original in &mut originals {
        let least = (0..cameras)
            .min_by_key(|c| loads[*c])
            .expect("at least one camera");
        loads[least] = (loads[least].0 + original.bytes, loads[least].1 + 1);
        original.camera = least;
    }
    Ok(originals)
}

fn write_looped(path: &Path, copies: u64) -> std::io::Result<u64> {
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut bytes = 0;
    for copy in 0..copies {
        let note = format!("{name}, copy {copy} of {copies}");
        let length = u32::try_from(8 + note.len()).expect("a note is short");
        out.write_all(SAMPLE)?;
        out.write_all(&length.to_be_bytes())?;
        out.write_all(b"free")?;
        out.write_all(note.as_bytes())?;
        bytes += SAMPLE.len() as u64 + u64::from(length);
    }
    out.flush()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn sample_recordings_are_unequal_and_about_what_was_asked() {
        let dir = tempfile::tempdir().unwrap();
        let originals = sample(dir.path(), 2, 100_000_000).unwrap();
        let all: u64 = originals.iter().map(|o| o.bytes).sum();
        assert!((70_000_000..=100_100_000).contains(&all), "{all}");
        assert_eq!(originals.len(), 5);
        let first: Vec<u64> = originals
            .iter()
            .filter(|o| o.camera == 0)
            .map(|o| o.bytes)
            .collect();
        assert!(first[0] > first[1] && first[1] > first[2], "{first:?}");
        for o in &originals {
            assert_eq!(fs::metadata(&o.path).unwrap().len(), o.bytes);
        }
    }

    #[test]
    fn a_folder_is_spread_by_size_and_may_hold_less_than_a_file_a_camera() {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in [("a", 10), ("b", 6), ("c", 5), ("empty", 0)] {
            fs::write(dir.path().join(name), vec![1; bytes]).unwrap();
        }
        fs::create_dir(dir.path().join("folder")).unwrap();
        let spread: Vec<_> = folder(dir.path(), 2)
            .unwrap()
            .iter()
            .map(|o| (o.bytes, o.camera))
            .collect();
        assert_eq!(spread, [(10, 0), (6, 1), (5, 1), (0, 0)]);
        assert_eq!(folder(dir.path(), 9).unwrap().len(), 4);
        assert!(folder(&dir.path().join("folder"), 1).is_err());
    }
}
