//! Whether the hops' runtimes still run: each beats once a second on its own thread, and who looks sees how long ago.
//!
//! A runtime that is blocked, or whose thread is gone, beats no more, though the storage thread answers: footage would
//! neither come nor go, and nothing else on the page need say so.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use link::clock::Clock;
use link::tasks::Tasks;

/// How often a runtime beats.
const BEAT: Duration = Duration::from_secs(1);

/// One runtime's pulse. Clones are the same pulse.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<Mutex<Option<Instant>>>);

impl Pulse {
    /// Beats on the runtime that runs this, until `tasks` are cancelled.
    pub async fn beat(self, clock: Clock, tasks: Tasks) {
        while !tasks.is_cancelled() {
            self.set(clock.instant());
            tokio::select! {
                () = tokio::time::sleep(BEAT) => {}
                () = tasks.cancelled() => {}
            }
        }
    }

    fn set(&self, now: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// Whether it has beaten within `limit`.
    #[must_use]
    pub fn is_felt(&self, now: Instant, limit: Duration) -> bool {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|last| now.saturating_duration_since(last) <= limit)
    }
}

/// The hops' pulses.
#[derive(Clone, Debug, Default)]
pub struct Pulses {
    /// The camera hop's.
    pub pull: Pulse,
    /// The archive hop's.
    pub forward: Pulse,
}

impl Pulses {
    /// The hops whose runtimes do not run: not begun, blocked, or gone.
    #[must_use]
    pub fn missing(&self, now: Instant, limit: Duration) -> Vec<&'static str> {
        let hops = [("pull", &self.pull), ("forward", &self.forward)];
        let missing = hops.into_iter().filter(|(_, p)| !p.is_felt(now, limit));
        missing.map(|(name, _)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use link::tasks::current_thread;

    #[test]
    fn a_hop_that_has_not_begun_or_has_stopped_is_named() {
        let (pulses, now) = (Pulses::default(), Clock::system().instant());
        let limit = Duration::from_secs(60);
        assert_eq!(pulses.missing(now, limit), ["pull", "forward"]);
        pulses.pull.set(now);
        assert_eq!(pulses.missing(now + limit, limit), ["forward"]);
        pulses.forward.set(now + BEAT);
        assert!(pulses.missing(now + limit, limit).is_empty());
        assert_eq!(pulses.missing(now + limit + BEAT, limit), ["pull"]);
    }

    #[test]
    fn a_blocked_runtime_beats_no_more() {
        let (pulse, clock, tasks) = (Pulse::default(), Clock::system(), Tasks::new());
        let (felt, beating, stop) = (pulse.clone(), pulse, tasks.clone());
        let (blocked, freed) = std::sync::mpsc::sync_channel::<()>(0);
        let beats = clock.clone();
        let runtime = std::thread::spawn(move || {
            current_thread(async {
                tasks.spawn("pulse", beating.beat(beats, tasks.clone()));
                tokio::time::sleep(BEAT / 4).await;
                freed.recv().unwrap();
                freed.recv().unwrap();
                tasks.cancelled().await;
            })
        });
        blocked.send(()).unwrap();
        assert!(felt.is_felt(clock.instant(), BEAT));
        std::thread::sleep(BEAT * 2);
        assert!(!felt.is_felt(clock.instant(), BEAT + BEAT / 2));
        blocked.send(()).unwrap();
        std::thread::sleep(BEAT / 2);
        assert!(felt.is_felt(clock.instant(), BEAT));
        stop.cancel();
        runtime.join().unwrap().unwrap();
    }
}
