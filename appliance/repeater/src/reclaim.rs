//! Reclaim and scrub: what the storage thread does when nobody asks anything of it. Room is made only when the
//! high watermark asks for it, longest-archived first (`spool` decides, by the custody table); and every byte
//! kept is re-read at a low rate, so that damage is found while the camera still has its copy.

use protocol::ids::Time;
use spool::{Spool, SpoolError};
use tracing::{error, info};

use crate::limits;

/// What one round did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Round {
    /// Segments whose copy was freed.
    pub segments: usize,
    /// Bytes freed.
    pub bytes: u64,
    /// Copies found damaged.
    pub damaged: usize,
    /// When the scrub's present pass began.
    pub pass_started: Time,
}

/// Makes room while the watermark asks for it, then re-reads a little.
///
/// # Errors
/// What the spool says.
pub fn round(spool: &mut Spool, now: Time) -> Result<Round, SpoolError> {
    let mut round = make_room(spool, now)?;
    // While room is made this comes often: the scrub keeps its rate.
    let budget = if round.segments > 0 {
        0
    } else {
        limits::SCRUB_BYTES
    };
    let scrubbed = spool.scrub_step(budget, now)?;
    for digest in &scrubbed.damaged {
        error!(%digest, "a copy on this disk is damaged; it is pulled again where its camera still has it");
    }
    round.damaged = scrubbed.damaged.len();
    round.pass_started = scrubbed.pass_started;
    Ok(round)
}

/// Frees some copies where room is asked for. Whoever freed any comes again soon: a terabyte is not freed in one go,
/// during which nobody's bytes would be taken.
///
/// # Errors
/// What the spool says.
pub fn make_room(spool: &mut Spool, now: Time) -> Result<Round, SpoolError> {
    let freed = spool.reclaim(now)?;
    if freed.segments > 0 {
        info!(
            segments = freed.segments,
            bytes = freed.bytes,
            early = freed.early,
            "reclaimed"
        );
    }
    Ok(Round {
        segments: freed.segments,
        bytes: freed.bytes,
        ..Round::default()
    })
}
