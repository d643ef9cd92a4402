//! Both hops at once: the figures that the others are compared to.

use anyhow::Result;

use super::Rig;
use super::drive::Drive;
use crate::figures::{Figures, Target};
use crate::parties::Fleet;
use crate::parts::Parts;

/// Drives `--cameras` cameras through both hops and sets them against the parts.
pub(crate) fn measure(rig: &Rig<'_>, parts: Option<&Parts>, figures: &mut Figures) -> Result<()> {
    let cameras = rig.options.cameras;
    let fleet = Fleet::seal(
        rig.yard,
        &rig.agency,
        "hops",
        cameras,
        rig.bytes_each(cameras),
    )?;
    let mut drive = Drive::start(rig, &fleet, true, None)?;
    drive.until_all_in("released")?;
    let out = drive.outcome()?;
    drive.stop()?;
    figures.put("relay_rate", out.mib_s, "MiB/s", Target::AtLeast(150.0));
    figures.put(
        "repeaterd_cpu",
        out.repeaterd.cpu_s_per_gib,
        "CPU-s/GiB",
        Target::AtMost(5.0),
    );
    figures.put(
        "cameras_cpu",
        out.cameras.cpu_s_per_gib,
        "CPU-s/GiB",
        Target::None,
    );
    figures.put(
        "archive_cpu",
        out.archive.cpu_s_per_gib,
        "CPU-s/GiB",
        Target::None,
    );
    figures.put(
        "repeaterd_peak",
        out.repeaterd.peak_mib,
        "MiB",
        Target::AtMost(128.0),
    );
    figures.put("camera_peak", out.cameras.peak_mib, "MiB", Target::None);
    figures.put("archive_peak", out.archive.peak_mib, "MiB", Target::None);
    let (rate, cpu) = (Target::AtLeast(0.75), Target::AtMost(1.15));
    match parts {
        Some(parts) => {
            let of_wall = out.mib_s / parts.implied_mib_s();
            figures.put("relay_rate_over_parts", of_wall, "x", rate);
            let over_parts = out.repeaterd.cpu_s_per_gib / parts.repeaterd();
            figures.put("repeaterd_cpu_over_parts", over_parts, "x", cpu);
        }
        None => {
            let why = "the parts were not measured in this run";
            figures.skip("relay_rate_over_parts", why, "x", rate);
            figures.skip("repeaterd_cpu_over_parts", why, "x", cpu);
        }
    }
    Ok(())
}
