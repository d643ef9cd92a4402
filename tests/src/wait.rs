//! Waiting for what a party says about itself. A look is cheap and repeated; the deadline is far beyond what is
//! normal, since it only bounds how long a failing test takes. What was awaited is in the failure.

use std::time::{Duration, Instant};

use link::clock::Clock;

/// Far beyond what anything here takes.
pub const LONG: Duration = Duration::from_secs(60);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// The time, for measuring.
#[must_use]
pub fn now() -> Instant {
    Clock::system().instant()
}

/// Looks until there is something.
///
/// # Panics
/// After `within`, saying what was awaited.
pub fn eventually<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let until = now() + within;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(now() < until, "not within {within:?}: {what}");
        std::thread::sleep(PAUSE);
    }
}

/// Looks until it holds, for [`LONG`] at most.
///
/// # Panics
/// After that, saying what was awaited.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    eventually(what, LONG, || holds().then_some(()));
}

/// Looks again and again during `time`: it holds all along. For what must *not* happen, where there is no event to
/// wait for; `time` is several times what the forbidden thing would take.
///
/// # Panics
/// As soon as it does not.
pub fn throughout(what: &str, time: Duration, mut holds: impl FnMut() -> bool) {
    let end = now() + time;
    while now() < end {
        assert!(holds(), "does not hold: {what}");
        std::thread::sleep(PAUSE);
    }
}
