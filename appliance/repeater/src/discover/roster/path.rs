//! One path: an address, who says so, who was proved to be there, and when it is dialled.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use protocol::ids::CameraId;

use super::super::{Bay, LinkIndex, Source};
use crate::limits;

/// How whoever is at an address is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// By a dock's cable.
    Docked {
        /// The bay, where it is known.
        bay: Option<Bay>,
    },
    /// By the air, or nobody knows.
    Nearby {
        /// How well it is heard, in dBm.
        signal: Option<i8>,
        /// Whether that is enough for routine footage.
        good: bool,
    },
}

impl Reach {
    /// Whether it is docked.
    #[must_use]
    pub fn is_docked(&self) -> bool {
        matches!(self, Reach::Docked { .. })
    }

    /// Whether routine footage is pulled.
    #[must_use]
    pub fn takes_routine(&self) -> bool {
        match self {
            Reach::Docked { .. } => true,
            Reach::Nearby { good, .. } => *good,
        }
    }
}

/// Why a session ends though nothing is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// Its link has no carrier, or its station left.
    Gone,
    /// Its camera is served on a better path.
    Elsewhere,
}

/// What a session has to know of its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How the camera is reached.
    pub reach: Reach,
    /// Whether the session is to end.
    pub leave: Option<Leave>,
}

/// Where a camera is served, when its session has proved whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seat {
    /// On another path.
    Elsewhere,
    /// Here, once the sessions at those addresses have ended: they were told to.
    After(Vec<SocketAddr>),
}

/// What a path does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It is dialled then.
    Due(Instant),
    /// It is being dialled, or greeted.
    Dialling,
    /// A session stands.
    Session {
        /// Its last sign of life.
        last: Instant,
    },
}

/// One address.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) sources: BTreeSet<Source>,
    pub(super) link: Option<LinkIndex>,
    pub(super) news: Option<u64>,
    /// Who has proved to be here.
    pub(super) camera: Option<CameraId>,
    pub(super) state: State,
    /// When it was seen first, or again after it was gone.
    pub(super) seen: Instant,
    /// Whether it was ever dialled.
    pub(super) tried: bool,
    /// Its link is down, or its station gone: what is at work here ends.
    pub(super) cut: bool,
    /// Its camera is served better elsewhere: the session here ends.
    pub(super) yields: bool,
    /// It had nothing to give: its news wake it.
    pub(super) asleep: bool,
    /// When something came that would have woken it, had it not been at work.
    pub(super) woken: Option<Instant>,
    /// Why whoever is here was refused last.
    pub(super) refused: Option<&'static str>,
    /// How often in a row.
    pub(super) strikes: u32,
    /// The pause before the last dial.
    pub(super) pause: Duration,
    pub(super) wakes: Wakes,
}

impl Path {
    pub(super) fn new(
        source: Source,
        link: Option<LinkIndex>,
        news: Option<u64>,
        now: Instant,
    ) -> Path {
        let mut wakes = Wakes::new(now);
        Path {
            sources: BTreeSet::from([source]),
            link,
            news,
            camera: None,
            state: State::Due(wakes.take(now)),
            seen: now,
            tried: false,
            cut: false,
            yields: false,
            asleep: false,
            woken: None,
            refused: None,
            strikes: 0,
            pause: Duration::ZERO,
            wakes,
        }
    }

    /// Whether it is being dialled or served.
    pub(super) fn is_at_work(&self) -> bool {
        !matches!(self.state, State::Due(_))
    }

    /// When it is dialled.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.state {
            State::Due(at) => Some(at),
            State::Dialling | State::Session { .. } => None,
        }
    }

    /// Whether nothing but announcements speaks for it.
    pub(super) fn is_unproven(&self) -> bool {
        self.camera.is_none() && self.sources.iter().all(|s| *s == Source::Announced)
    }

    /// Whether a session stands here that was alive lately.
    pub(super) fn is_lively(&self, now: Instant) -> bool {
        match self.state {
            State::Session { last } => {
                !self.yields && now.saturating_duration_since(last) < limits::PATH_SILENCE
            }
            State::Due(_) | State::Dialling => false,
        }
    }

    /// Something is new here: it is dialled at once, unless that happens all the time.
    pub(super) fn wake(&mut self, now: Instant) {
        if self.sources.is_empty() {
            return; // nobody speaks for it: whoever does will wake it
        }
        match self.state {
            State::Due(at) => {
                let soon = self.wakes.take(now);
                if soon <= now {
                    self.pause = Duration::ZERO;
                }
                // What is due already may have waited for the link that comes and goes.
                self.state = State::Due(if at > now { at.min(soon) } else { soon });
                self.asleep = false;
            }
            State::Dialling | State::Session { .. } => self.woken = Some(now),
        }
    }

    /// What is at work here has ended: when it is dialled again.
    pub(super) fn again(&mut self, at: Instant, now: Instant) {
        let woken = self.woken.take();
        let lately = |w: Instant| now.saturating_duration_since(w) < limits::PATH_SILENCE;
        self.state = State::Due(match woken.is_some_and(lately) {
            true => at.min(self.wakes.take(now)),
            false => at,
        });
    }

    /// Whoever is here was refused once more: for how long it is left alone. A static address is a person's word.
    pub(super) fn strike(&mut self) -> Duration {
        let (first, longest) = match self.sources.contains(&Source::Static) {
            true => limits::REDIAL,
            false => limits::REFUSED,
        };
        let pause = (first * 2u32.pow(self.strikes.min(10))).min(longest);
        self.strikes = self.strikes.saturating_add(1);
        pause
    }

    /// For how long a nearby camera that has nothing is left asleep. One that tells no news is asked more often.
    pub(super) fn rest(&self) -> Duration {
        match self.news {
            Some(_) => limits::REST,
            None => limits::REST_WITHOUT_NEWS,
        }
    }

    /// What it is worth where room is short.
    pub(super) fn worth(&self) -> u8 {
        match self.sources.last() {
            _ if self.is_at_work() => u8::MAX,
            None => 0,
            Some(source) => worth(*source, self.tried, self.camera.is_some()),
        }
    }
}

/// What an address is worth where room is short: by who speaks for it, whether it was dialled in vain, and whether a
/// camera was proved to be there.
pub(super) fn worth(source: Source, tried: bool, proved: bool) -> u8 {
    match (source, proved) {
        (Source::Static, _) => 6,
        (_, true) => 5,
        (Source::Station | Source::Neighbour, false) => 4 - u8::from(tried),
        (Source::Announced, false) => 2 - u8::from(tried),
    }
}

/// How often a path may be woken: a few times at once, and then now and then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wakes {
    left: u32,
    /// When the next one is given back.
    next: Instant,
}

impl Wakes {
    fn new(now: Instant) -> Wakes {
        Wakes {
            left: limits::WAKES.0,
            next: now + limits::WAKES.1,
        }
    }

    /// When it may be woken: now, or when the next is given back.
    pub(super) fn take(&mut self, now: Instant) -> Instant {
        let (most, every) = limits::WAKES;
        while self.left < most && self.next <= now {
            self.left += 1;
            self.next += every;
        }
        if self.left == most {
            self.next = now + every;
        }
        if self.left > 0 {
            self.left -= 1;
            return now;
        }
        self.next
    }
}
