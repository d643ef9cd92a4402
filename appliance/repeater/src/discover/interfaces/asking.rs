//! In which order the kernel is asked for what it knows, and when it is asked again: a pure state.
//!
//! One question is open at a time, as the kernel demands of a socket. Where messages were lost, all is asked anew
//! once the open one is answered. An answer that changed while it was told is asked for again, a few times.

use std::time::{Duration, Instant};

use super::wire::{Dump, Message};

/// How often a torn answer is asked for again before it is taken as it is; the news that tore it come by themselves.
const TORN: u32 = 3;
/// An answer that takes longer never comes.
const ANSWER: Duration = Duration::from_secs(5);

/// What is asked.
#[derive(Debug, Default)]
pub struct Asking {
    sequence: u32,
    open: Option<Open>,
    /// Messages were lost: all is to be asked anew.
    again: bool,
    /// Whether all was answered once.
    complete: bool,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    dump: Dump,
    sequence: u32,
    asked: Instant,
    torn: u32,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// A question is to be sent.
    Ask(Dump, Vec<u8>),
    /// Nothing.
    Nothing,
}

/// What an answer's end means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All was named.
    Whole(Dump),
    /// Not all was: what was not named stays.
    Partly,
}

impl Asking {
    /// Asks for everything, at once or after what is open.
    pub fn restart(&mut self, now: Instant) -> Next {
        if self.open.is_some() {
            self.again = true;
            return Next::Nothing;
        }
        self.again = false;
        self.ask(Dump::Links, 0, now)
    }

    fn ask(&mut self, dump: Dump, torn: u32, now: Instant) -> Next {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        self.open = Some(Open {
            dump,
            sequence,
            asked: now,
            torn,
        });
        Next::Ask(dump, dump.question(sequence))
    }

    /// A message: where it ends the open question, how it ended, and what is to be asked next.
    pub fn hear(&mut self, message: &Message, now: Instant) -> Option<(Ended, Next)> {
        let open = self.open?;
        let (sequence, torn, refused) = match message {
            Message::Done { sequence, torn } => (*sequence, *torn, false),
            Message::Refused { sequence, .. } => (*sequence, false, true),
            _ => return None,
        };
        if sequence != open.sequence {
            return None;
        }
        self.open = None;
        if torn && open.torn < TORN {
            let next = self.ask(open.dump, open.torn + 1, now);
            return Some((Ended::Partly, next));
        }
        let ended = if torn || refused {
            Ended::Partly
        } else {
            Ended::Whole(open.dump)
        };
        let next = match open.dump.next() {
            _ if self.again => self.restart(now),
            Some(dump) => self.ask(dump, 0, now),
            None => {
                self.complete = true;
                Next::Nothing
            }
        };
        Some((ended, next))
    }

    /// Whether everything was answered once: before that nobody knows which link is the WAN.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// When the open question counts as never answered.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.open.map(|open| open.asked + ANSWER)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn now() -> Instant {
        link::clock::Clock::system().instant()
    }

    fn done(asking: &Asking, torn: bool) -> Message {
        let sequence = asking.sequence;
        Message::Done { sequence, torn }
    }

    #[test]
    fn everything_is_asked_once_and_in_order() {
        let (mut asking, now) = (Asking::default(), now());
        let Next::Ask(Dump::Links, _) = asking.restart(now) else {
            panic!()
        };
        for dump in [
            Dump::Addresses,
            Dump::Routes,
            Dump::Neighbours,
            Dump::Bridges,
        ] {
            assert!(!asking.is_complete());
            let (_, next) = asking.hear(&done(&asking, false), now).unwrap();
            assert!(matches!(next, Next::Ask(d, _) if d == dump), "{next:?}");
        }
        let last = asking.hear(&done(&asking, false), now);
        assert_eq!(last, Some((Ended::Whole(Dump::Bridges), Next::Nothing)));
        assert!(asking.is_complete() && asking.deadline().is_none());
    }

    #[test]
    fn what_was_lost_meanwhile_is_asked_for_after_the_open_question() {
        let (mut asking, now) = (Asking::default(), now());
        asking.restart(now);
        let stale = Message::Done {
            sequence: 99,
            torn: false,
        };
        assert_eq!(asking.hear(&stale, now), None, "of no question of ours");
        assert_eq!(asking.restart(now), Next::Nothing);
        let (_, next) = asking.hear(&done(&asking, false), now).unwrap();
        assert!(matches!(next, Next::Ask(Dump::Links, _)));
        // And only once.
        let (_, next) = asking.hear(&done(&asking, false), now).unwrap();
        assert!(matches!(next, Next::Ask(Dump::Addresses, _)));
    }

    #[test]
    fn a_torn_answer_is_asked_for_again_and_not_for_ever() {
        let (mut asking, now) = (Asking::default(), now());
        asking.restart(now);
        for _ in 0..TORN {
            let (ended, next) = asking.hear(&done(&asking, true), now).unwrap();
            assert_eq!(ended, Ended::Partly, "what it did not name may be there");
            assert!(matches!(next, Next::Ask(Dump::Links, _)));
        }
        let (ended, next) = asking.hear(&done(&asking, true), now).unwrap();
        assert_eq!(ended, Ended::Partly);
        assert!(matches!(next, Next::Ask(Dump::Addresses, _)));
    }

    #[test]
    fn a_refused_question_takes_nothing_away() {
        let (mut asking, now) = (Asking::default(), now());
        asking.restart(now);
        let refused = Message::Refused {
            sequence: asking.sequence,
            errno: 95,
        };
        let (ended, next) = asking.hear(&refused, now).unwrap();
        assert_eq!(ended, Ended::Partly);
        assert!(matches!(next, Next::Ask(Dump::Addresses, _)));
    }
}
