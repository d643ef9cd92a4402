//! How fast one stream must move. A camera may be slow, and a segment may rightly wait behind others; but one byte
//! now and then is a stall, whatever else the session says, and a stalled stream gives its permit back.
//!
//! Before its first byte a stream may wait a while; after it, a floor of bytes has to come in each window. Time
//! that this program's own storage took counts for nobody. Pure: `now` is an argument.

use std::time::{Duration, Instant};

use crate::limits;

/// One stream's pace.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    asked: Instant,
    /// When this window began, and how long all pulls of the session had waited for our own storage by then.
    since: (Instant, Duration),
    /// Bytes in this window.
    bytes: u64,
    begun: bool,
}

impl Pace {
    /// A stream that is asked now; `own` is how long the session waited for our own storage so far.
    #[must_use]
    pub fn new(now: Instant, own: Duration) -> Pace {
        Pace {
            asked: now,
            since: (now, own),
            bytes: 0,
            begun: false,
        }
    }

    /// When it was asked.
    #[must_use]
    pub fn asked(&self) -> Instant {
        self.asked
    }

    /// So many bytes came.
    pub fn came(&mut self, bytes: u64, now: Instant, own: Duration) {
        self.bytes += bytes;
        if !self.begun || self.bytes >= limits::PULL_FLOOR.0 {
            self.begun = true;
            self.bytes = 0;
            self.since = (now, own);
        }
    }

    /// Why the stream is given up, if it is.
    #[must_use]
    pub fn stalled(&self, now: Instant, own: Duration) -> Option<String> {
        let (since, own_before) = self.since;
        let waited = now
            .saturating_duration_since(since)
            .saturating_sub(own.saturating_sub(own_before));
        let (floor, window) = limits::PULL_FLOOR;
        if !self.begun && waited > limits::FIRST_BYTE {
            let limit = limits::FIRST_BYTE.as_secs();
            return Some(format!("no byte within {limit} s"));
        }
        (self.begun && waited > window).then(|| {
            format!(
                "{} bytes in {} s, fewer than {floor}",
                self.bytes,
                window.as_secs()
            )
        })
    }
}

/// How fast one camera may be asked for segments: so many bytes a second, whole segments at a time. Nothing is asked
/// until what was asked before has had its time; nothing that was asked is read more slowly.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    bytes_per_second: Option<u64>,
    next: Option<Instant>,
}

impl Rate {
    /// At most so many bytes a second; none: as fast as it goes.
    #[must_use]
    pub fn new(bytes_per_second: Option<u64>) -> Rate {
        Rate {
            bytes_per_second,
            next: None,
        }
    }

    /// Whether the next one may be asked.
    #[must_use]
    pub fn may_ask(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| next <= now)
    }

    /// Until when nothing may be asked.
    #[must_use]
    pub fn waits_until(&self) -> Option<Instant> {
        self.next
    }

    /// So many bytes are asked.
    pub fn asked(&mut self, bytes: u64, now: Instant) {
        let Some(rate) = self.bytes_per_second else {
            return;
        };
        let takes = bytes.saturating_mul(1000) / rate.max(1);
        let begins = self.next.map_or(now, |next| next.max(now));
        self.next = Some(begins + Duration::from_millis(takes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_camera_is_asked_no_faster_than_its_rate() {
        let began = link::clock::Clock::system().instant();
        let (mut free, mut rate) = (Rate::new(None), Rate::new(Some(1 << 20)));
        let mut asked = [0, 0];
        for tenth in 0..600 {
            let now = began + Duration::from_millis(100) * tenth;
            for (rate, asked) in [&mut free, &mut rate].into_iter().zip(&mut asked) {
                if rate.may_ask(now) {
                    rate.asked(4 << 20, now);
                    *asked += 1;
                }
            }
        }
        assert_eq!(asked, [600, 15], "4 MiB at 1 MiB/s, for a minute");
    }

    const NONE: Duration = Duration::ZERO;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_byte_now_and_then_is_a_stall_and_a_slow_stream_is_not() {
        let began = link::clock::Clock::system().instant();
        let mut trickle = Pace::new(began, NONE);
        trickle.came(1, began, NONE);
        trickle.came(1, began + seconds(9), NONE);
        assert_eq!(trickle.stalled(began + seconds(9), NONE), None);
        assert!(trickle.stalled(began + seconds(11), NONE).is_some());

        let mut slow = Pace::new(began, NONE);
        for second in 0..600 {
            slow.came(2048, began + seconds(second), NONE);
            assert_eq!(slow.stalled(began + seconds(second), NONE), None);
        }
    }

    #[test]
    fn the_first_byte_has_longer_and_our_own_storage_counts_for_nobody() {
        let began = link::clock::Clock::system().instant();
        let mut pace = Pace::new(began, seconds(7));
        assert_eq!(pace.stalled(began + seconds(29), seconds(7)), None);
        assert!(pace.stalled(began + seconds(31), seconds(7)).is_some());
        assert_eq!(pace.stalled(began + seconds(31), seconds(9)), None);
        pace.came(1, began + seconds(31), seconds(9));
        assert_eq!(pace.stalled(began + seconds(45), seconds(13)), None);
        assert!(pace.stalled(began + seconds(46), seconds(13)).is_some());
    }
}
