//! From connect to the first segment Held: one camera after another, each with one full segment, each met
//! by a repeater that has just started on an empty spool.
//!
//! The repeater measures the time itself; with one camera a run, the sum of its histogram is that camera's
//! time, exactly.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::Rig;
use super::drive::Drive;
use crate::figures::{Figures, Target, quantile};
use crate::parties::Fleet;

const CAMERAS: u32 = 9;
const SEGMENT_BYTES: u64 = 4 << 20;
/// The metric is written just after the segment became visible as Held.
const SETTLE: Duration = Duration::from_millis(100);

/// Meets each camera once.
pub(crate) fn measure(rig: &Rig<'_>, figures: &mut Figures) -> Result<()> {
    let mut times_ms = Vec::new();
    for n in 0..CAMERAS {
        times_ms.push(meet(rig, n)?);
    }
    let (p50, most) = (quantile(times_ms.clone(), 0.5), quantile(times_ms, 1.0));
    figures.put("first_held_p50", p50, "ms", Target::AtMost(200.0));
    figures.put("first_held_max", most, "ms", Target::None);
    Ok(())
}

fn meet(rig: &Rig<'_>, n: u32) -> Result<f64> {
    let fleet = Fleet::seal(
        rig.yard,
        &rig.agency,
        &format!("first-{n}"),
        1,
        SEGMENT_BYTES,
    )?;
    let mut drive = Drive::start(rig, &fleet, true, None)?;
    drive.until_all_in("released")?;
    std::thread::sleep(SETTLE);
    let count = drive.repeater.metric("repeater_first_held_seconds_count")?;
    ensure!(
        (count - 1.0).abs() < 0.5,
        "{count} cameras were met where there is one"
    );
    let ms = drive.repeater.metric("repeater_first_held_seconds_sum")? * 1000.0;
    drive.stop()?;
    Ok(ms)
}
