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
    let scrubbed = spool.scrub_step(limits::SCRUB_BYTES, now)?;
    for digest in &scrubbed.damaged {
        error!(%digest, "a copy on this disk is damaged; it is pulled again where its camera still has it");
    }
    round.damaged = scrubbed.damaged.len();
    round.pass_started = scrubbed.pass_started;
    Ok(round)
}

/// Frees copies until the low watermark is reached or nothing more may go.
///
/// # Errors
/// What the spool says.
pub fn make_room(spool: &mut Spool, now: Time) -> Result<Round, SpoolError> {
    let mut round = Round::default();
    loop {
        let freed = spool.reclaim(now)?;
        round.segments += freed.segments;
        round.bytes += freed.bytes;
        if freed.segments == 0 {
            break;
        }
        info!(
            segments = freed.segments,
            bytes = freed.bytes,
            early = freed.early,
            "reclaimed"
        );
    }
    Ok(round)
}
