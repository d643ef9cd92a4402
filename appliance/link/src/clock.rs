//! The clock's seam: the only place that reads a clock. Decisions take `now` as an argument; the shell asks here.
//!
//! [`Clock::now`] is the wall clock, which may be wrong, unset or stepped, so nothing is erased, expired or
//! ordered by it. [`Clock::instant`] is monotonic and is tokio's, so that a paused runtime owns it: deadlines
//! and rates use it. Clones share one clock: a step is seen by all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use protocol::ids::Time;

use crate::limits;

/// A clock. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    base: Base,
    shift_ms: AtomicI64,
}

#[derive(Debug)]
enum Base {
    System,
    Started { at: Time, origin: Instant },
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::offset(0)
    }
    /// The machine's clock, `ms` milliseconds ahead (negative: behind).
    #[must_use]
    pub fn offset(ms: i64) -> Self {
        Clock(Arc::new(Inner {
            base: Base::System,
            shift_ms: AtomicI64::new(ms),
        }))
    }
    /// A clock that shows `at` now and moves with the monotonic clock, which a simulation owns.
    #[must_use]
    pub fn starting_at(at: Time) -> Self {
        let base = Base::Started {
            at,
            origin: monotonic(),
        };
        Clock(Arc::new(Inner {
            base,
            shift_ms: AtomicI64::new(0),
        }))
    }
    /// The wall clock.
    #[must_use]
    pub fn now(&self) -> Time {
        let shift = self.0.shift_ms.load(Ordering::Relaxed);
        Time(self.base_ms().saturating_add_signed(shift))
    }
    /// The monotonic clock: for deadlines and rates.
    #[must_use]
    #[allow(
        clippy::unused_self,
        reason = "callers hold a clock, so that nobody reads one in passing"
    )]
    pub fn instant(&self) -> Instant {
        monotonic()
    }
    /// Whether the wall clock shows a time at which this program can have run.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.now() >= limits::CLOCK_FLOOR
    }
    /// Steps this clock, and all its clones, to show `time` now. The machine's own clock stays.
    pub fn step_to(&self, time: Time) {
        let target = i64::try_from(time.0).unwrap_or(i64::MAX);
        let base = i64::try_from(self.base_ms()).unwrap_or(i64::MAX);
        self.0
            .shift_ms
            .store(target.saturating_sub(base), Ordering::Relaxed);
    }

    fn base_ms(&self) -> u64 {
        let elapsed = match &self.0.base {
            Base::System => wall().duration_since(UNIX_EPOCH).unwrap_or_default(),
            Base::Started { origin, .. } => monotonic().saturating_duration_since(*origin),
        };
        let start = match &self.0.base {
            Base::System => 0,
            Base::Started { at, .. } => at.0,
        };
        start.saturating_add(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the one place that reads the wall clock"
)]
fn wall() -> SystemTime {
    SystemTime::now()
}

fn monotonic() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_shows_what_it_was_set_to() {
        let day_behind = Clock::offset(-86_400_000);
        assert!(Clock::system().now().since_ms(day_behind.now()) >= 86_399_000);
        let unset = Clock::starting_at(Time(0));
        assert!(!unset.is_set() && unset.now().0 < 60_000);
        let clone = unset.clone();
        unset.step_to(Time(1_800_000_000_000));
        assert!(clone.is_set() && clone.now().since_ms(Time(1_800_000_000_000)) < 60_000);
        clone.step_to(Time(5));
        assert!(unset.now().0 < 60_000);
    }
}
