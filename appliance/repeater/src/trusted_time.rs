//! Whether this machine's clock is known to be right. Custody asks no clock, so a repeater without trusted time dials
//! and pulls all the same, and says so: in its status, and in each contact's record.
//!
//! What is asked is systemd-timesyncd's mark, which it makes when it has synchronised. How far off the clock may be is
//! not known by it, and is not claimed; a machine that keeps time by another program counts as not known.

use std::path::Path;

use link::clock::Clock;
use serde::Serialize;

/// Made by systemd-timesyncd once it has synchronised since boot.
const MARK: &str = "/run/systemd/timesync/synchronized";

/// What is known of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeState {
    /// It was set by the network since boot.
    Synchronised,
    /// It shows a time that can be, and nobody vouches for it.
    Unknown,
    /// It shows a time before this program was made.
    Unset,
}

/// Looks.
#[must_use]
pub fn look(clock: &Clock) -> TimeState {
    judge(clock.is_set(), Path::new(MARK).exists())
}

fn judge(is_set: bool, marked: bool) -> TimeState {
    match (is_set, marked) {
        (false, _) => TimeState::Unset,
        (true, true) => TimeState::Synchronised,
        (true, false) => TimeState::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_trusted_only_where_somebody_vouches_for_it() {
        assert_eq!(judge(true, true), TimeState::Synchronised);
        assert_eq!(judge(true, false), TimeState::Unknown);
        assert_eq!(judge(false, true), TimeState::Unset);
    }
}
