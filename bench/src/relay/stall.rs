//! The spool's disk stands still for 10 s while 40 cameras offload: memory must stay bounded, and all must
//! arrive afterwards.
//!
//! The spool is on a file system of its own in a loop-mounted image, which is frozen and thawed: every write,
//! sync and creation on it waits, as on a disk that does not answer. That takes root, and programs that a
//! machine may lack; without them the figure is named as skipped, which is a missed target. Freezing is done
//! by a process of its own that thaws even where the bench is killed meanwhile.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::drive::Drive;
use super::{LARGE_SITE, Rig};
use crate::disk::{Disk, command};
use crate::figures::{Figures, Target};
use crate::parties::Fleet;

const STALL_SECONDS: u64 = 10;
/// More files than there are.
const INODES: u64 = 1 << 16;
/// Room for metadata beside twice the footage.
const SPARE_BYTES: u64 = 1 << 30;

/// Freezes the spool's disk when a quarter of the footage has come.
pub(crate) fn measure(rig: &Rig<'_>, figures: &mut Figures) -> Result<()> {
    let target = Target::AtMost(128.0);
    let bytes = 2 * (rig.options.megabytes << 20) + SPARE_BYTES;
    let disk = match Disk::mount(rig.yard, bytes, INODES) {
        Ok(disk) => disk,
        Err(e) => {
            let why = format!("no disk of its own to freeze: {e:#}");
            figures.skip("repeaterd_peak_stalled", &why, "MiB", target);
            return Ok(());
        }
    };
    let each = rig.bytes_each(LARGE_SITE);
    let fleet = Fleet::seal(rig.yard, &rig.agency, "stall", LARGE_SITE, each)?;
    let mut drive = Drive::start(rig, &fleet, true, Some(disk.path().join("spool")))?;
    let quarter = fleet.segments / 4;
    let taken = |s: &crate::parties::Status| {
        ["held", "archived", "released"]
            .iter()
            .map(|stage| s.spool.segments(stage))
            .sum::<u64>()
    };
    let status = drive.until("a quarter has come", |s| taken(s) >= quarter)?;
    ensure!(
        taken(&status) < fleet.segments,
        "all came before the disk could be stalled: use more --megabytes"
    );
    let args = [
        OsString::from(disk.path()),
        STALL_SECONDS.to_string().into(),
    ];
    rig.yard.run("stall", "part:stall", &args)?;
    let stalled = drive.outcome()?.repeaterd.peak_mib;
    drive.until_all_in("released")?;
    let peak = drive.outcome()?.repeaterd.peak_mib;
    drive.stop()?;
    figures.put(
        "repeaterd_peak_at_the_stalls_end",
        stalled,
        "MiB",
        Target::None,
    );
    figures.put("repeaterd_peak_stalled", peak, "MiB", target);
    disk.unmount()
}

/// The hidden part: freezes the file system at `mount`, waits, thaws.
pub(crate) fn stand_still(mount: &Path, time: Duration) -> Result<()> {
    command("fsfreeze", &["-f".as_ref(), mount.as_os_str()])?;
    std::thread::sleep(time);
    command("fsfreeze", &["-u".as_ref(), mount.as_os_str()])
}
