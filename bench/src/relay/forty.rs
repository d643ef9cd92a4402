//! A large site: the same footage from 40 cameras as from 1. What the number of cameras costs.

use anyhow::Result;

use super::drive::{Drive, Outcome};
use super::{LARGE_SITE, Rig};
use crate::figures::{Figures, Target};
use crate::parties::Fleet;

/// Drives 1 camera, then 40.
pub(crate) fn measure(rig: &Rig<'_>, figures: &mut Figures) -> Result<()> {
    let one = drive(rig, "one", 1)?;
    let forty = drive(rig, "forty", LARGE_SITE)?;
    let (cpu_1, cpu_40) = (one.repeaterd.cpu_s_per_gib, forty.repeaterd.cpu_s_per_gib);
    figures.put("relay_rate_1", one.mib_s, "MiB/s", Target::None);
    figures.put("relay_rate_40", forty.mib_s, "MiB/s", Target::None);
    figures.put("repeaterd_cpu_1", cpu_1, "CPU-s/GiB", Target::None);
    figures.put("repeaterd_cpu_40", cpu_40, "CPU-s/GiB", Target::None);
    figures.put(
        "repeaterd_cpu_40_over_1",
        cpu_40 / cpu_1,
        "x",
        Target::AtMost(1.15),
    );
    figures.put(
        "repeaterd_peak_40",
        forty.repeaterd.peak_mib,
        "MiB",
        Target::AtMost(128.0),
    );
    figures.put(
        "archive_peak_40",
        forty.archive.peak_mib,
        "MiB",
        Target::None,
    );
    Ok(())
}

fn drive(rig: &Rig<'_>, phase: &str, cameras: u32) -> Result<Outcome> {
    let fleet = Fleet::seal(
        rig.yard,
        &rig.agency,
        phase,
        cameras,
        rig.bytes_each(cameras),
    )?;
    let mut drive = Drive::start(rig, &fleet, true, None)?;
    drive.until_all_in("released")?;
    let out = drive.outcome()?;
    drive.stop()?;
    Ok(out)
}
