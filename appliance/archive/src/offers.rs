//! What one connection has offered: which objects are wanted, on their way, durable, and which receipts are
//! due. Pure: `now` is an argument, and the session does what is answered.
//!
//! Invariants:
//! - A put is taken only for what a `want` on this connection named, within its grant.
//! - A receipt never names a segment whose header is not durable; segments stored before their header wait
//!   for it. One header serves all manifests of its recording.
//! - What became durable within [`limits::RECEIPT_BATCH`] is one receipt per manifest, sent at once when the
//!   manifest lacks nothing more.
//! - Offers and wants are bounded; an offer beyond is put off. Urgent ones have a quota of their own beyond, and
//!   nothing else takes of it.
//! - The store is asked at each offer, and what it lost since a put became durable ([`slot`]) is wanted again and
//!   named by no receipt until it came again; a lost header holds up every offer of its recording.
//! - A grant is for what the peer has. One of which nothing came for [`limits::GRANT_LAPSES`] lapses where another
//!   offer needs it; so does the place of an offer of which nothing is on its way. Both may be offered again.

use std::collections::BTreeMap;
use std::mem;
use std::time::Instant;

use protocol::ids::{Digest, RecordingId};
use protocol::manifest::{Class, Manifest};
use protocol::message::Want;
use protocol::receipt::Verdict;

use crate::keys::Draft;
use crate::layout::Item;
use crate::limits;

mod slot;

pub use slot::Seen;
use slot::{Slot, State};

/// What a put brings, as its manifest names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The manifest that was offered.
    pub manifest: Digest,
    /// The recording.
    pub recording: RecordingId,
    /// Header or segment.
    pub item: Item,
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub length: u32,
    /// The class of its manifest.
    pub class: Class,
}

/// How an offer is answered at once; receipts follow by [`Offers::due`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Put these.
    Want(Want),
    /// Nothing is lacking; a receipt follows.
    Nothing,
    /// Too much is open on this connection.
    Busy,
}

#[derive(Debug)]
struct Offer {
    recording: RecordingId,
    header: Digest,
    class: Class,
    slots: BTreeMap<Digest, Slot>,
    granted: usize,
    /// When it was offered, or something of it last put.
    touched: Instant,
    /// Durable segments that no receipt of this offer names yet.
    ready: Vec<Digest>,
    /// Whether a receipt is owed although `ready` may be empty (the header came, or nothing was lacking).
    owed: bool,
    /// Since when something is ready or owed.
    since: Option<Instant>,
    /// Order of arrival, for the oldest to be forgotten first.
    number: u64,
}

impl Offer {
    fn is(&self, state: State) -> usize {
        self.slots.values().filter(|s| s.state == state).count()
    }
    fn lacks_nothing(&self) -> bool {
        self.slots.values().all(Slot::is_durable)
    }
    fn header_is_durable(&self) -> bool {
        self.slots.get(&self.header).is_some_and(Slot::is_durable)
    }
    fn is_urgent(&self) -> bool {
        self.class == Class::Urgent
    }
    /// Whether its grant may go to another.
    fn is_idle(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.touched) >= limits::GRANT_LAPSES
    }
    /// Whether it may be forgotten: nothing of it is on its way, or due, or waits for its header.
    fn is_spare(&self, now: Instant) -> bool {
        let lacks = self.granted > 0 || self.owed || !self.ready.is_empty();
        let waits = lacks && !self.is_idle(now);
        let held = self.due_at().is_some() || self.is(State::Arriving) > 0;
        !held && !waits
    }
    fn note(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }
}

/// All offers of one connection.
#[derive(Debug, Default)]
pub struct Offers {
    open: BTreeMap<Digest, Offer>,
    next: u64,
}

impl Offers {
    /// Takes an offer whose objects were looked up. Offered again, what is on its way stays on its way.
    pub fn offer(&mut self, manifest: &Manifest, seen: &Seen, now: Instant) -> Answer {
        let id = manifest.digest();
        self.hold_up(manifest, seen);
        let before = self.open.remove(&id);
        let class = manifest.body().class;
        if before.is_none() && !self.make_room(class, now) {
            return Answer::Busy;
        }
        let mut offer = self.fresh(manifest, seen, before, now);
        let missing: Vec<Digest> = offer
            .slots
            .iter()
            .filter(|(_, s)| s.state == State::Wanted)
            .map(|(digest, _)| *digest)
            .collect();
        let own = offer.is(State::Arriving);
        if !missing.is_empty() && self.free(class, own) == 0 {
            self.lapse(class, now);
        }
        offer.granted = missing.len().min(self.free(class, own));
        let has_segments = offer
            .slots
            .values()
            .any(|s| s.state == State::Stored && s.is_segment());
        if offer.header_is_durable() && (has_segments || missing.is_empty()) {
            offer.owed = true;
            offer.ready = durable_segments(&offer);
            offer.note(now);
        } else if has_segments {
            offer.ready = durable_segments(&offer);
        }
        let answer = match (missing.is_empty(), u32::try_from(offer.granted)) {
            (true, _) => Answer::Nothing,
            (false, Ok(0) | Err(_)) => Answer::Busy,
            (false, Ok(grant)) => Answer::Want(Want {
                manifest: id,
                digests: in_order(&offer, &missing),
                grant,
            }),
        };
        self.open.insert(id, offer);
        answer
    }

    fn fresh(
        &mut self,
        manifest: &Manifest,
        seen: &Seen,
        before: Option<Offer>,
        now: Instant,
    ) -> Offer {
        let body = manifest.body();
        let before = before.unwrap_or_else(|| Offer::empty(manifest, now));
        let digest = body.header.digest;
        let header = (digest, body.header.length, Item::Header { digest });
        let segments = body.segments.iter().map(|s| {
            let (seq, digest) = (s.seq, s.digest);
            (digest, s.length, Item::Segment { seq, digest })
        });
        let known = self.header_since(&body.recording, digest);
        let mut slots: BTreeMap<Digest, Slot> = std::iter::once(header)
            .chain(segments)
            .map(|(digest, length, item)| {
                let slot = match before.slots.get(&digest) {
                    Some(earlier) => {
                        let mut slot = *earlier;
                        slot.look(seen.of(digest));
                        slot
                    }
                    None => Slot::new(item, length, seen.of(digest)),
                };
                (digest, slot)
            })
            .collect();
        if let (Some(slot), Some(since)) = (slots.get_mut(&digest), known)
            && slot.state == State::Wanted
        {
            slot.came(since);
        }
        self.next += 1;
        let is_durable = |digest: &Digest| slots.get(digest).is_some_and(Slot::is_durable);
        let ready = before.ready.into_iter().filter(is_durable).collect();
        Offer {
            ready,
            slots,
            touched: now,
            number: self.next,
            ..before
        }
    }

    /// Holds up the offers of a recording whose header a lookup found gone since they had it.
    fn hold_up(&mut self, manifest: &Manifest, seen: &Seen) {
        let body = manifest.body();
        let header = body.header.digest;
        let (stored, at) = seen.of(header);
        let same = |o: &&mut Offer| o.recording == body.recording && o.header == header;
        self.open
            .values_mut()
            .filter(|o| !stored && same(o))
            .filter_map(|o| o.slots.get_mut(&header))
            .for_each(|slot| slot.lose(at, State::Lost));
    }

    /// Since when another manifest of this connection knows that header to be durable.
    fn header_since(&self, recording: &RecordingId, header: Digest) -> Option<Instant> {
        self.open
            .values()
            .filter(|o| o.recording == *recording && o.header == header)
            .filter_map(|o| o.slots.get(&header)?.durable_since())
            .max()
    }

    /// Makes a place for one more offer: the oldest that may be forgotten goes where there is none.
    fn make_room(&mut self, class: Class, now: Instant) -> bool {
        let urgent = self.open.values().filter(|o| o.is_urgent()).count();
        let all = limits::OFFERS + limits::OFFERS_URGENT;
        let free = self.open.len() < all
            && (class == Class::Urgent || self.open.len() - urgent < limits::OFFERS);
        if free {
            return true;
        }
        let oldest = self
            .open
            .iter()
            .filter(|(_, o)| o.class <= class && o.is_spare(now))
            .min_by_key(|(_, o)| o.number)
            .map(|(digest, _)| *digest);
        oldest.is_some_and(|digest| self.open.remove(&digest).is_some())
    }

    /// How much an offer may be granted of which so much is on its way.
    fn free(&self, class: Class, own: usize) -> usize {
        let all = self.outstanding(|_| true) + own;
        let free = (limits::WANTS + limits::WANTS_URGENT).saturating_sub(all);
        if class == Class::Urgent {
            return free;
        }
        let others = self.outstanding(|o| !o.is_urgent()) + own;
        free.min(limits::WANTS.saturating_sub(others))
    }

    /// Takes back grants that are not used, of offers that are no more urgent.
    fn lapse(&mut self, class: Class, now: Instant) {
        self.open
            .values_mut()
            .filter(|o| o.class <= class && o.is_idle(now))
            .for_each(|o| o.granted = 0);
    }

    fn outstanding(&self, which: impl Fn(&Offer) -> bool) -> usize {
        self.open
            .values()
            .filter(|o| which(o))
            .map(|o| o.granted + o.is(State::Arriving))
            .sum()
    }

    /// Takes a put: what it is to bring, none where no `want` of this connection allows it. A header that has
    /// become durable through another manifest, or is wanted again by one, may come again.
    pub fn take(&mut self, manifest: Digest, digest: Digest, now: Instant) -> Option<Expected> {
        let offer = self.open.get_mut(&manifest)?;
        let slot = offer.slots.get_mut(&digest)?;
        match slot.state {
            State::Wanted if offer.granted > 0 => {
                offer.granted -= 1;
                offer.touched = now;
                slot.state = State::Arriving;
            }
            State::Durable | State::Lost if digest == offer.header => {}
            _ => return None,
        }
        let (item, length) = (slot.item, slot.length);
        Some(Expected {
            manifest,
            recording: offer.recording.clone(),
            item,
            digest,
            length,
            class: offer.class,
        })
    }

    /// A put came to nothing: it may come again.
    pub fn failed(&mut self, expected: &Expected) {
        let Some(offer) = self.open.get_mut(&expected.manifest) else {
            return;
        };
        let Some(slot) = offer.slots.get_mut(&expected.digest) else {
            return;
        };
        if slot.state == State::Arriving {
            slot.state = State::Wanted;
            offer.granted += 1;
        }
    }

    /// What was put is durable.
    pub fn durable(&mut self, expected: &Expected, now: Instant) {
        if let Item::Header { .. } = expected.item {
            let same =
                |o: &&mut Offer| o.recording == expected.recording && o.header == expected.digest;
            self.open
                .values_mut()
                .filter(same)
                .for_each(|o| o.header_came(now));
            return;
        }
        let Some(offer) = self.open.get_mut(&expected.manifest) else {
            return;
        };
        let Some(slot) = offer.slots.get_mut(&expected.digest) else {
            return;
        };
        slot.came(now);
        offer.ready.push(expected.digest);
        offer.note(now);
    }

    /// Receipts to sign now.
    pub fn due(&mut self, now: Instant) -> Vec<Draft> {
        let mut drafts = Vec::new();
        for (manifest, offer) in &mut self.open {
            if offer.due_at().is_some_and(|at| at <= now) {
                drafts.push(Draft {
                    recording: offer.recording.clone(),
                    header: offer.header,
                    segments: mem::take(&mut offer.ready),
                    manifest: *manifest,
                    verdict: Verdict::Stored,
                });
                offer.owed = false;
                offer.since = None;
            }
        }
        drafts
    }

    /// When [`Offers::due`] will next have something.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.open.values().filter_map(Offer::due_at).min()
    }

    /// Whether anything is on its way or waits for its receipt.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.next_due().is_none() && self.open.values().all(|o| o.is(State::Arriving) == 0)
    }
}

impl Offer {
    fn empty(manifest: &Manifest, now: Instant) -> Offer {
        let body = manifest.body();
        Offer {
            recording: body.recording.clone(),
            header: body.header.digest,
            class: body.class,
            slots: BTreeMap::new(),
            granted: 0,
            touched: now,
            ready: Vec::new(),
            owed: false,
            since: None,
            number: 0,
        }
    }

    fn header_came(&mut self, now: Instant) {
        let Some(slot) = self.slots.get_mut(&self.header) else {
            return;
        };
        if slot.state == State::Wanted {
            self.granted = self.granted.saturating_sub(1);
        }
        slot.came(now);
        self.owed = true;
        self.note(now);
    }

    fn due_at(&self) -> Option<Instant> {
        let since = self
            .since
            .filter(|_| self.header_is_durable() && (self.owed || !self.ready.is_empty()))?;
        Some(if self.lacks_nothing() {
            since
        } else {
            since + limits::RECEIPT_BATCH
        })
    }
}

/// The header first, then segments by number: the order in which they should come.
fn in_order(offer: &Offer, digests: &[Digest]) -> Vec<Digest> {
    let mut ordered = digests.to_vec();
    ordered.sort_by_key(|digest| match offer.slots.get(digest).map(|s| s.item) {
        Some(Item::Segment { seq, .. }) => seq + 1,
        _ => 0,
    });
    ordered
}

fn durable_segments(offer: &Offer) -> Vec<Digest> {
    let is = |s: &Slot| s.is_segment() && s.is_durable();
    let slots = offer.slots.iter().filter(|(_, s)| is(s));
    in_order(offer, &slots.map(|(digest, _)| *digest).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests;
