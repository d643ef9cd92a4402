//! Whose turn it is: the camera serves bytes to one session at a time.
//!
//! A docked session pre-empts a nearby one; otherwise the present one stays while it has taken a byte in the last five
//! seconds. Who lost the turn sees it in [`Turn`] and resets its streams with `busy`; hello, inventory and release
//! need no turn. Pure: `now` is an argument.

use std::time::{Duration, Instant};

use crate::limits::TURN_SILENCE;

/// A session's number in this process.
pub(crate) type SessionId = u64;

/// The session that is served bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Turn {
    holder: Option<Holder>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holder {
    session: SessionId,
    docked: bool,
    took: Instant,
}

impl Turn {
    /// Asks for the turn; whether the session has it now.
    pub(crate) fn ask(&mut self, session: SessionId, docked: bool, now: Instant) -> bool {
        let free = match self.holder {
            None => true,
            Some(h) if h.session == session => return true,
            Some(h) => (docked && !h.docked) || since(h.took, now) >= TURN_SILENCE,
        };
        if free {
            self.holder = Some(Holder {
                session,
                docked,
                took: now,
            });
        }
        free
    }

    /// Notes that the session took bytes; whether it still has the turn.
    pub(crate) fn took(&mut self, session: SessionId, now: Instant) -> bool {
        match &mut self.holder {
            Some(h) if h.session == session => {
                h.took = now;
                true
            }
            _ => false,
        }
    }

    /// Who has it.
    pub(crate) fn holder(&self) -> Option<SessionId> {
        self.holder.map(|h| h.session)
    }

    /// How long the session has taken nothing; none where it has no turn.
    pub(crate) fn silence(&self, session: SessionId, now: Instant) -> Option<Duration> {
        self.holder
            .filter(|h| h.session == session)
            .map(|h| since(h.took, now))
    }

    /// Gives the turn back.
    pub(crate) fn leave(&mut self, session: SessionId) {
        if self.holder.is_some_and(|h| h.session == session) {
            self.holder = None;
        }
    }
}

fn since(earlier: Instant, now: Instant) -> Duration {
    now.saturating_duration_since(earlier)
}

#[cfg(test)]
mod tests {
    use super::*;
    use link::clock::Clock;

    #[test]
    fn docked_pre_empts_nearby_and_silence_loses_the_turn() {
        let start = Clock::system().instant();
        let at = |s| start + Duration::from_secs(s);
        let mut turn = Turn::default();
        assert!(turn.ask(1, false, at(0)) && turn.ask(1, false, at(1)));
        assert!(!turn.ask(2, false, at(4)), "the present one stays");
        assert!(turn.took(1, at(4)));
        assert!(
            !turn.ask(2, false, at(8)),
            "it took a byte within five seconds"
        );
        assert!(turn.ask(2, false, at(9)), "it was silent for five seconds");
        assert!(!turn.took(1, at(9)));
        assert!(turn.ask(3, true, at(9)), "docked pre-empts nearby");
        assert!(
            !turn.ask(4, true, at(10)),
            "docked does not pre-empt docked"
        );
        assert!(!turn.ask(2, false, at(10)));
        assert_eq!(turn.silence(3, at(11)), Some(Duration::from_secs(2)));
        turn.leave(2);
        assert!(turn.took(3, at(11)));
        turn.leave(3);
        assert!(turn.ask(2, false, at(11)));
    }
}
