//! One object of an offer: where it is, and as of when that is known. Pure.
//!
//! Two sources tell: a put that became durable, and a lookup in the store. The newer one counts, so a lookup
//! that began before a put became durable takes nothing back, and one that began later does: the object was
//! lost or damaged in between, and nothing is signed for it until it is put again.

use std::time::Instant;

use protocol::ids::Digest;

use crate::layout::Item;

/// What a lookup saw of an offer's header and segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When it began.
    pub began: Instant,
    /// Since when the listing is known that it read; no later than it began. What is not listed was not there then.
    pub listed: Instant,
    /// These are stored, durably.
    pub stored: Vec<Digest>,
    /// These are listed, and gone or damaged.
    pub lost: Vec<Digest>,
}

impl Seen {
    /// Whether an object is stored, and as of when that is said.
    pub(super) fn of(&self, digest: Digest) -> (bool, Instant) {
        let stored = self.stored.contains(&digest);
        let looked_at = stored || self.lost.contains(&digest);
        (stored, if looked_at { self.began } else { self.listed })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Stored when it was offered: never wanted here.
    Stored,
    Wanted,
    Arriving,
    Durable,
    /// A header that another offer's lookup found gone: that offer wants it, and it counts for this one, too,
    /// when it has come. No grant of this offer stands for it.
    Lost,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) item: Item,
    pub(super) length: u32,
    pub(super) state: State,
    /// As of when the state is known.
    since: Instant,
}

impl Slot {
    /// What a first lookup says.
    pub(super) fn new(item: Item, length: u32, (stored, at): (bool, Instant)) -> Slot {
        let state = if stored { State::Stored } else { State::Wanted };
        Slot {
            item,
            length,
            state,
            since: at,
        }
    }

    pub(super) fn is_durable(&self) -> bool {
        matches!(self.state, State::Stored | State::Durable)
    }

    pub(super) fn is_segment(&self) -> bool {
        matches!(self.item, Item::Segment { .. })
    }

    /// Since when it is known to be durable, if it is.
    pub(super) fn durable_since(&self) -> Option<Instant> {
        self.is_durable().then_some(self.since)
    }

    /// It is durable, as of `at`.
    pub(super) fn came(&mut self, at: Instant) {
        if self.state != State::Stored {
            self.state = State::Durable;
        }
        self.since = self.since.max(at);
    }

    /// A further lookup of its own offer. What is on its way stays on its way.
    pub(super) fn look(&mut self, (stored, at): (bool, Instant)) {
        if self.state == State::Arriving {
            return;
        }
        if !stored {
            self.lose(at, State::Wanted);
        } else if !self.is_durable() && at >= self.since {
            self.state = State::Stored;
        }
        if self.state == State::Lost {
            self.state = State::Wanted;
        }
        self.since = self.since.max(at);
    }

    /// A lookup as of `at` did not find it: where it was durable before that, it becomes `gone`.
    pub(super) fn lose(&mut self, at: Instant, gone: State) {
        if self.is_durable() && at > self.since {
            self.state = gone;
            self.since = at;
        }
    }
}
