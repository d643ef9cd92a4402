//! `bench relay`: all parties on loopback, mutual TLS, everything durable; what they take against the parts
//! they are made of, and against rsync and rclone.
//!
//! Phases, each in a folder of its own that is removed after it: the parts; both hops at once; the archive kept
//! away and then back; one camera after another; 1 camera against 40; a disk that stands still; the peers.
//! Footage is sealed before the clock starts: sealing is the camera's work at capture, not the relay's.
//!
//! Rates are over bytes of footage, from the first byte pulled to the last segment Released, that is: its
//! receipt verified and recorded by its camera. CPU-seconds are of the same span.

mod drive;
mod first;
mod forty;
mod held;
mod hops;
mod peers;
mod stall;

pub(crate) use held::disk_bytes;
pub(crate) use peers::timed;
pub(crate) use stall::stand_still;

use anyhow::Result;

use crate::figures::Figures;
use crate::options::{Phase, Relay};
use crate::parties::Agency;
use crate::parts::{self, Parts};
use crate::process::Yard;

/// Cameras of a large site.
const LARGE_SITE: u32 = 40;

/// What every phase is given.
#[derive(Debug)]
struct Rig<'a> {
    yard: &'a Yard,
    agency: Agency,
    options: &'a Relay,
}

impl Rig<'_> {
    /// Bytes of footage of each of `cameras` cameras.
    fn bytes_each(&self, cameras: u32) -> u64 {
        (self.options.megabytes << 20) / u64::from(cameras)
    }
}

/// Measures all phases that are asked for.
pub(crate) fn measure(options: &Relay, figures: &mut Figures) -> Result<()> {
    let yard = Yard::make(&options.common)?;
    let parts = options
        .wants(Phase::Parts)
        .then(|| measure_parts(&yard, options, figures))
        .transpose()?;
    let agency = Agency::make(&yard, LARGE_SITE.max(options.cameras))?;
    let rig = Rig {
        yard: &yard,
        agency,
        options,
    };
    if options.wants(Phase::Hops) {
        hops::measure(&rig, parts.as_ref(), figures)?;
    }
    if options.wants(Phase::Forty) {
        forty::measure(&rig, figures)?;
    }
    if options.wants(Phase::First) {
        first::measure(&rig, figures)?;
    }
    if options.wants(Phase::Held) {
        held::measure(&rig, figures)?;
    }
    if options.wants(Phase::Stall) {
        stall::measure(&rig, figures)?;
    }
    if options.wants(Phase::Peers) {
        peers::measure(&rig, figures)?;
    }
    Ok(())
}

fn measure_parts(yard: &Yard, options: &Relay, figures: &mut Figures) -> Result<Parts> {
    let parts = parts::measure(yard, options.megabytes.min(1024), options.repeat)?;
    parts.tell(figures);
    Ok(parts)
}
