//! The archive kept away: cameras offload onto the disk, which may hold little beside their footage; then the
//! archive comes and all of it drains.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::Rig;
use super::drive::Drive;
use crate::figures::{Figures, Target};
use crate::parties::Fleet;
use crate::parts::bytes_f64;

/// The share of the disk counts with at least this held.
const LEAST_HELD_BYTES: u64 = 1 << 30;
/// `st_blocks` counts in these, whatever the file system's block is.
const BLOCK_BYTES: u64 = 512;

/// Fills the spool, looks at the disk, drains it.
pub(crate) fn measure(rig: &Rig<'_>, figures: &mut Figures) -> Result<()> {
    let cameras = rig.options.cameras;
    let each = rig
        .bytes_each(cameras)
        .max((LEAST_HELD_BYTES + LEAST_HELD_BYTES / 32) / u64::from(cameras));
    let fleet = Fleet::seal(rig.yard, &rig.agency, "held", cameras, each)?;
    let mut drive = Drive::start(rig, &fleet, false, None)?;
    let status = drive.until_all_in("held")?;
    let out = drive.outcome()?;
    figures.put("held_rate", out.mib_s, "MiB/s", Target::None);
    figures.put(
        "held_repeaterd_cpu",
        out.repeaterd.cpu_s_per_gib,
        "CPU-s/GiB",
        Target::None,
    );
    let held = status.spool.bytes("held");
    ensure!(held >= LEAST_HELD_BYTES, "only {held} bytes are held");
    let disk = disk_bytes(&drive.spool)?;
    figures.put("held_bytes", bytes_f64(held), "B", Target::None);
    figures.put(
        "disk_over_held",
        bytes_f64(disk) / bytes_f64(held),
        "x",
        Target::AtMost(1.01),
    );
    drive.bring_archive()?;
    drive.until_all_in("released")?;
    let out = drive.outcome()?;
    figures.put("drain_rate", out.mib_s, "MiB/s", Target::None);
    figures.put(
        "drain_repeaterd_peak",
        out.repeaterd.peak_mib,
        "MiB",
        Target::AtMost(128.0),
    );
    drive.stop()
}

/// Bytes that a folder takes on its disk: files and folders, holes not counted.
pub(crate) fn disk_bytes(folder: &Path) -> Result<u64> {
    let mut bytes = fs::metadata(folder)?.blocks() * BLOCK_BYTES;
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?
    {
        let entry = entry?;
        // What is renamed or removed meanwhile takes nothing under its old name.
        let Ok(meta) = entry.metadata() else { continue };
        bytes += if meta.is_dir() {
            disk_bytes(&entry.path())?
        } else {
            meta.blocks() * BLOCK_BYTES
        };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn blocks_are_counted_with_all_folders() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("a/b"), vec![7; 100_000]).unwrap();
        fs::File::open(dir.path().join("a/b"))
            .unwrap()
            .sync_all()
            .unwrap();
        let bytes = disk_bytes(dir.path()).unwrap();
        assert!((100_000..200_000).contains(&bytes), "{bytes}");
    }
}
