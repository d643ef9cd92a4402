//! The power is cut with everything Held and footage on its way, on an ext4 of the bench's own: how long the next start
//! takes, beside that of a spool that holds nothing, and whether all that was said to be Held still is.
//!
//! The cut is the file system's own (`xfs_io -c shutdown`): what was not synced by then is gone. What survives cuts at any
//! other moment is the power-cut suite's matter; this is about time.

use anyhow::{Context, Result, ensure};
use protocol::custody::Stage;
use serde::{Deserialize, Serialize};

use super::store::Bench;
use super::{Job, Started, ask};
use crate::disk::{Disk, cut_power};
use crate::figures::{Figures, Target};
use crate::options::Spool;
use crate::process::Yard;

/// Room for each small file's block, its part of folders, ledger and logbook, and of the file system's own.
const EACH: u64 = 24 << 10;
/// Room beyond that.
const SPARE: u64 = 2 << 30;
/// A start after a cut takes so much longer than an empty spool's, at most, in seconds.
const LONGER_S: f64 = 3.0;

/// What was said before the cut.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Said {
    held: u64,
}

/// Takes everything, cuts the power, and starts again.
pub(super) fn measure(
    options: &Spool,
    yard: &Yard,
    job: &Job,
    figures: &mut Figures,
) -> Result<()> {
    let (target, name) = (Target::AtMost(LONGER_S), "spool_start_after_cut_over_empty");
    let count = u64::from(job.segments);
    let bytes = count * (u64::from(options.bytes_each()) + EACH) + SPARE;
    let mut disk = match Disk::mount(yard, bytes, 2 * count + (1 << 16)) {
        Ok(disk) => disk,
        Err(e) => {
            figures.skip(
                name,
                &format!("no disk of its own to cut: {e:#}"),
                "s",
                target,
            );
            return Ok(());
        }
    };
    let at = |folder: &str, disk: &Disk| Job {
        dir: disk.path().join(folder),
        ..job.clone()
    };
    // An empty one that was in use before, too.
    ask::<Started>(yard, "spool-start", &at("empty", &disk))?;
    let said: Said = ask(yard, "spool-cut", &at("store", &disk))?;
    let began = yard.clock.instant();
    disk.remount().context("after the cut")?;
    let mount_s = yard.clock.instant().duration_since(began).as_secs_f64();
    let empty: Started = ask(yard, "spool-start", &at("empty", &disk))?;
    let after: Started = ask(yard, "spool-start", &at("store", &disk))?;
    ensure!(
        after.held >= said.held,
        "{} segments were Held before the cut, {} are after it",
        said.held,
        after.held
    );
    disk.unmount()?;
    figures.put("spool_mount_after_cut", mount_s, "s", Target::None);
    figures.put("spool_start_empty", empty.ready_s, "s", Target::None);
    figures.put("spool_start_after_cut", after.ready_s, "s", Target::None);
    let peak = Target::AtMost(128.0);
    figures.put("spool_start_after_cut_peak", after.peak_mib, "MiB", peak);
    figures.put(name, after.ready_s - empty.ready_s, "s", target);
    Ok(())
}

/// The hidden part: takes everything, the last of it in no commit, and has the power cut.
pub(crate) fn take_and_cut(job: &str) -> Result<()> {
    let job: Job = serde_json::from_str(job)?;
    let bench = Bench::take_all(&job)?;
    let held = bench.segments(Stage::Held);
    let most = u64::from(job.segments);
    ensure!(
        held > most / 2 && held < most + u64::from(job.cameras),
        "{held} of {most} segments are Held"
    );
    let mount = job.dir.parent().context("the store has no folder")?;
    cut_power(mount)?;
    println!("{}", serde_json::to_string(&Said { held })?);
    // Nothing is closed: that would be told to a disk that is not there.
    std::process::exit(0)
}
