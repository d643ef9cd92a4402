//! The spool's disk stands still for 10 s while 40 cameras offload: memory must stay bounded, and all must
//! arrive afterwards.
//!
//! The spool is on a file system of its own in a loop-mounted image, which is frozen and thawed: every write,
//! sync and creation on it waits, as on a disk that does not answer. That takes root, and programs that a
//! machine may lack; without them the figure is named as skipped, which is a missed target. Freezing is done
//! by a process of its own that thaws even where the bench is killed meanwhile.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::drive::Drive;
use super::{LARGE_SITE, Rig};
use crate::figures::{Figures, Target};
use crate::parties::Fleet;
use crate::process::Yard;

const STALL_SECONDS: u64 = 10;
/// Room for metadata beside twice the footage.
const SPARE_BYTES: u64 = 1 << 30;

/// Freezes the spool's disk when a quarter of the footage has come.
pub(crate) fn measure(rig: &Rig<'_>, figures: &mut Figures) -> Result<()> {
    let target = Target::AtMost(128.0);
    let bytes = 2 * (rig.options.megabytes << 20) + SPARE_BYTES;
    let disk = match Disk::mount(rig.yard, bytes) {
        Ok(disk) => disk,
        Err(e) => {
            let why = format!("no disk of its own to freeze: {e:#}");
            figures.skip("repeaterd_peak_stalled", &why, "MiB", target);
            return Ok(());
        }
    };
    let each = rig.bytes_each(LARGE_SITE);
    let fleet = Fleet::seal(rig.yard, &rig.agency, "stall", LARGE_SITE, each)?;
    let mut drive = Drive::start(rig, &fleet, true, Some(disk.mount.join("spool")))?;
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
        OsString::from(&disk.mount),
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

/// A file system of its own in an image file. Dropped: unmounted.
#[derive(Debug)]
struct Disk {
    image: PathBuf,
    mount: PathBuf,
    mounted: bool,
}

impl Disk {
    fn mount(yard: &Yard, bytes: u64) -> Result<Disk> {
        let (image, mount) = (yard.path().join("disk.img"), yard.folder("disk")?);
        File::create(&image)?.set_len(bytes)?;
        command(
            "mkfs.ext4",
            &["-q".as_ref(), "-F".as_ref(), image.as_os_str()],
        )?;
        let loopback = [
            "-o".as_ref(),
            "loop".as_ref(),
            image.as_os_str(),
            mount.as_os_str(),
        ];
        command("mount", &loopback)?;
        Ok(Disk {
            image,
            mount,
            mounted: true,
        })
    }
    fn unmount(mut self) -> Result<()> {
        command("umount", &[self.mount.as_os_str()])?;
        self.mounted = false;
        Ok(std::fs::remove_file(&self.image)?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            // After an error: a frozen file system is thawed first, then left; neither can be helped further.
            let _ = command("fsfreeze", &["-u".as_ref(), self.mount.as_os_str()]);
            let _ = command("umount", &["-l".as_ref(), self.mount.as_os_str()]);
        }
    }
}

fn command(program: &str, args: &[&std::ffi::OsStr]) -> Result<()> {
    let out = Command::new(program)
        .args(args)
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    let said = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "{program}: {}", said.trim());
    Ok(())
}
