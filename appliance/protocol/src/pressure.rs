//! When to stop pulling, and how much memory a session may have: pure functions over bytes. Backpressure is
//! a pull not asked or a put not granted, never an unread stream.

use crate::limits;

/// Watermarks of the spool, in bytes used of its capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// Pulling stops above this.
    pub high_bytes: u64,
    /// Reclaim goes down to this, and pulling resumes below it.
    pub low_bytes: u64,
    /// Of the room above `high_bytes`, what only urgent recordings may use.
    pub urgent_bytes: u64,
}

/// Whether the spool takes new footage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    /// All classes are pulled.
    #[default]
    Open,
    /// Only urgent footage is pulled, and headers for which whole segments wait.
    UrgentOnly,
    /// Nothing is pulled but such headers.
    Closed,
}

/// The gate after `used_bytes` (with what in-flight pulls have reserved): closes above the high watermark and
/// opens again at or below the low one.
#[must_use]
pub fn gate(before: Gate, used_bytes: u64, marks: Watermarks) -> Gate {
    let full = marks.high_bytes.saturating_add(marks.urgent_bytes);
    match before {
        _ if used_bytes >= full => Gate::Closed,
        _ if used_bytes >= marks.high_bytes => Gate::UrgentOnly,
        Gate::Open => Gate::Open,
        _ if used_bytes <= marks.low_bytes => Gate::Open,
        _ => Gate::UrgentOnly,
    }
}

/// Whether one camera may hold more of the spool: a quarter while others wait, else all of it.
#[must_use]
pub fn may_hold(camera_bytes: u64, capacity_bytes: u64, others_wait: bool) -> bool {
    !others_wait || camera_bytes < capacity_bytes / 4
}

/// Bytes of all QUIC receive windows of one hop together. What is buffered takes up to half as much again.
pub const WINDOW_BUDGET_BYTES: u64 = 24 << 20;

/// The least and the most that one session's receive window has.
pub const WINDOW_BYTES: (u64, u64) = (256 << 10, 8 << 20);

/// The receive window of each of `sessions`, from one shared budget.
#[must_use]
pub fn window(budget_bytes: u64, sessions: usize) -> u64 {
    let sessions = u64::try_from(sessions.max(1)).unwrap_or(u64::MAX);
    (budget_bytes / sessions).clamp(WINDOW_BYTES.0, WINDOW_BYTES.1)
}

/// Streams that a peer may have open: the segments in flight and four for control.
#[must_use]
pub fn streams(segments_in_flight: u32) -> u32 {
    segments_in_flight.saturating_add(4)
}

/// Bytes that are reserved on disk before a pull is asked: a whole segment.
#[must_use]
pub fn reserve_bytes(length: u32) -> u64 {
    u64::from(length)
        .min(limits::SEGMENT_BYTES as u64)
        .next_multiple_of(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_has_hysteresis_and_urgent_has_its_reserve() {
        let m = Watermarks {
            high_bytes: 80,
            low_bytes: 60,
            urgent_bytes: 10,
        };
        let steps = [
            (0, Gate::Open),
            (79, Gate::Open),
            (80, Gate::UrgentOnly),
            (70, Gate::UrgentOnly),
            (90, Gate::Closed),
            (85, Gate::UrgentOnly),
            (61, Gate::UrgentOnly),
            (60, Gate::Open),
        ];
        let mut g = Gate::Open;
        for (used, expected) in steps {
            g = gate(g, used, m);
            assert_eq!(g, expected, "at {used}");
        }
    }

    #[test]
    fn windows_share_one_budget() {
        assert_eq!(window(WINDOW_BUDGET_BYTES, 1), 8 << 20);
        assert_eq!(window(WINDOW_BUDGET_BYTES, 12), 2 << 20);
        assert_eq!(window(WINDOW_BUDGET_BYTES, 10_000), 256 << 10);
        assert_eq!(window(48 << 20, 0), 8 << 20);
        assert_eq!(window(48 << 20, 12), 4 << 20);
        assert_eq!(window(48 << 20, 40), (48 << 20) / 40);
        assert_eq!(window(48 << 20, 1000), 256 << 10);
        assert!(may_hold(30, 100, false) && !may_hold(25, 100, true));
    }
}
