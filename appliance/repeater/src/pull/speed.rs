//! How fast a session pulls, for the estimate that people see: a mean over the last seconds in which it did. Pure.

use std::time::{Duration, Instant};

/// One sample takes so long at least.
const SAMPLE: Duration = Duration::from_secs(1);

/// A session's speed.
#[derive(Clone, Copy, Debug)]
pub struct Speed {
    since: Instant,
    bytes: u64,
    per_second: Option<u64>,
}

impl Speed {
    /// Of a session that begins now.
    #[must_use]
    pub fn new(now: Instant) -> Speed {
        Speed {
            since: now,
            bytes: 0,
            per_second: None,
        }
    }

    /// It has pulled so many bytes by now, and goes on or has nothing to pull.
    pub fn look(&mut self, bytes: u64, pulls: bool, now: Instant) {
        let took = now.saturating_duration_since(self.since);
        if pulls && took < SAMPLE {
            return;
        }
        let came = bytes.saturating_sub(self.bytes);
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
        let new = came.saturating_mul(1000) / ms;
        (self.since, self.bytes) = (now, bytes);
        self.per_second = match self.per_second {
            _ if !pulls => None,
            None => Some(new),
            Some(old) => Some(old / 4 * 3 + new / 4),
        };
    }

    /// In how many seconds so many bytes are pulled at that speed; none where nobody can tell.
    #[must_use]
    pub fn takes(&self, bytes: u64) -> Option<u64> {
        self.per_second
            .filter(|s| *s > 0)
            .map(|s| bytes.div_ceil(s))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_follows_the_speed_and_is_none_while_nothing_moves() {
        let began = link::clock::Clock::system().instant();
        let mut speed = Speed::new(began);
        assert_eq!(speed.takes(100), None);
        let mut bytes = 0;
        for second in 1..=20 {
            bytes += 1000;
            speed.look(bytes, true, began + Duration::from_secs(second));
        }
        assert_eq!(speed.takes(10_000), Some(10));
        for second in 21..=60 {
            bytes += 4000;
            speed.look(bytes, true, began + Duration::from_secs(second));
        }
        assert!((2..=3).contains(&speed.takes(10_000).unwrap_or(0)));
        speed.look(bytes, false, began + Duration::from_secs(61));
        assert_eq!(speed.takes(10_000), None);
    }
}
