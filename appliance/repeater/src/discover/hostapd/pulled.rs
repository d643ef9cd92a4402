//! A cable that was pulled from a port which hostapd guards: whoever was there then is sent away, so that it can come
//! back and nobody else can take its place; who came since stays. A pure state.
//!
//! hostapd keeps a station for 5 s after it was told to deauthenticate it, and removes it then, though it may have
//! authenticated again meanwhile: it is shut out, and its supplicant learns nothing of it. Told to deauthenticate the
//! broadcast address, hostapd forgets all its stations at once, in every release since 2010. So that is asked where
//! nobody has come since; else those of before are named one by one, with `tx=0`, which releases from 2.11 on take
//! for forgetting at once, and older ones for no more than they did.
//!
//! Who came since is said by events; where those were lost, or hostapd was not met at that time, by the time for which
//! it says that a station's session has lasted. It counts whole seconds: of who can be either, it is asked again soon,
//! and after a while one was there before, since no camera is back that fast.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::bss::Question;
use super::wire::Station;
use crate::discover::Mac;
use crate::limits;

/// A cable that was pulled.
#[derive(Debug)]
pub struct Pulled {
    at: Instant,
    /// Who has authenticated since.
    came: BTreeSet<Mac>,
    /// Of those read: who was there before.
    before: BTreeSet<Mac>,
    /// Of those read: whether somebody came since.
    others: bool,
    /// Of those read: whether of somebody it cannot be told yet.
    unclear: bool,
    /// Whether all were read.
    read: bool,
}

impl Pulled {
    /// It was pulled just now.
    pub fn at(at: Instant) -> Pulled {
        Pulled {
            at,
            came: BTreeSet::new(),
            before: BTreeSet::new(),
            others: false,
            unclear: false,
            read: false,
        }
    }

    /// All stations are read, from the first one.
    pub fn begin(&mut self) {
        self.before.clear();
        (self.others, self.unclear, self.read) = (false, false, false);
    }

    /// A station has authenticated.
    pub fn came(&mut self, mac: Mac) {
        self.before.remove(&mac);
        if self.came.len() < limits::BSS_STATIONS {
            self.came.insert(mac);
        }
    }

    /// An authorised station was read: whether it is here.
    pub fn is_here(&mut self, station: &Station, now: Instant) -> bool {
        let came = self.came_since(station, now);
        match came {
            Some(true) => self.others = true,
            Some(false) => _ = self.before.insert(station.mac),
            None => self.unclear = true,
        }
        came == Some(true)
    }

    fn came_since(&self, station: &Station, now: Instant) -> Option<bool> {
        if self.came.contains(&station.mac) {
            return Some(true);
        }
        let since = now.saturating_duration_since(self.at);
        let session = station.session.unwrap_or(Duration::MAX);
        if session.as_secs() == since.as_secs() && since < limits::PULLED_UNCLEAR {
            return None;
        }
        Some(session.as_secs() < since.as_secs())
    }

    /// All were read. When they are to be read again, where that is soon.
    pub fn end(&mut self, now: Instant) -> Option<Instant> {
        self.read = true;
        self.unclear.then(|| now + limits::PULLED_AGAIN)
    }

    /// Who is to be sent away next.
    pub fn send_away(&self) -> Option<Question> {
        let first = self.before.first().filter(|_| self.read)?;
        let alone = !self.others && !self.unclear && self.came.is_empty();
        Some(match alone {
            true => Question::SendAllAway,
            false => Question::SendAway(*first),
        })
    }

    /// That was done.
    pub fn sent(&mut self, question: Question) {
        match question {
            Question::SendAway(mac) => _ = self.before.remove(&mac),
            _ => self.before.clear(),
        }
    }

    /// Whether everybody who was there has been sent away.
    pub fn is_over(&self) -> bool {
        self.read && self.before.is_empty() && !self.unclear
    }
}
