//! One control socket's stations: what is asked when, what is known, and what the roster is owed. A pure state.
//!
//! hostapd tells who comes and goes, but an event that finds our queue full is lost, and after some of them hostapd
//! tells us nothing any more, while it goes on answering. So events only make things fast: every few seconds we
//! attach again (twice is once) and read all stations, one by one. Who is not among them is gone. One question is
//! open at a time, since answers carry no number; who does not answer in time is met again on a new socket.
//!
//! hostapd learns nothing of a cable that is pulled from a port it guards, and would refuse nobody who is plugged in
//! there next. The carrier tells it, and then whoever was there is sent away ([`super::pulled`]).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::pulled::Pulled;
use super::wire::{Event, Heard, Listed, Station, hear, listed};
use crate::discover::{LinkIndex, Mac, Presence, Sighting};
use crate::limits;

/// One control socket.
#[derive(Debug, Default)]
pub struct Bss {
    stations: BTreeMap<Mac, Known>,
    told: BTreeMap<Mac, Said>,
    open: Option<(Question, Instant)>,
    attached: bool,
    /// When everything is to be read again; none: at once.
    due: Option<Instant>,
    walk: Option<Walk>,
    /// A cable that was pulled, until whoever was there has been sent away.
    pulled: Option<Pulled>,
    /// Since when hostapd has been silent.
    lost: Option<Instant>,
    joins: u64,
    measures: u64,
    /// Stations that there was no room for, or that could not be read.
    dropped: u64,
}

/// A station.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    /// Tells one association from the next.
    join: u64,
    /// Tells one measure from the next.
    measure: u64,
    signal: Option<i8>,
    inactive: Duration,
}

/// What was told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said {
    link: LinkIndex,
    join: u64,
    measure: u64,
}

/// All stations, being read.
#[derive(Debug, Default)]
struct Walk {
    after: Option<Mac>,
    named: BTreeSet<Mac>,
    steps: usize,
    restarts: u32,
}

/// A question to hostapd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Events, please.
    Attach,
    /// The first station.
    First,
    /// The station after this one.
    Next(Mac),
    /// Send this one away.
    SendAway(Mac),
    /// Send all away.
    SendAllAway,
}

impl Question {
    /// As it is sent.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Question::Attach => "ATTACH".into(),
            Question::First => "STA-FIRST".into(),
            Question::Next(mac) => format!("STA-NEXT {mac}"),
            Question::SendAway(mac) => format!("DEAUTHENTICATE {mac} tx=0"),
            Question::SendAllAway => "DEAUTHENTICATE ff:ff:ff:ff:ff:ff".into(),
        }
    }
}

/// The socket is of no use any more: hostapd ended, does not answer, or does not let us attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// It said so.
    #[error("hostapd ends")]
    Ends,
    /// It does not answer.
    #[error("hostapd does not answer")]
    Silent,
    /// It refuses events.
    #[error("hostapd refuses to tell events")]
    Refuses,
}

impl Bss {
    /// A new connection: everything is asked anew.
    pub fn connected(&mut self) {
        (self.open, self.attached, self.due, self.walk) = (None, false, None, None);
    }

    /// The connection is lost, or there is none: after a while, so are the stations.
    pub fn lost(&mut self, now: Instant) {
        self.connected();
        let since = *self.lost.get_or_insert(now);
        if now.saturating_duration_since(since) >= limits::HOSTAPD_GONE {
            self.stations.clear();
        }
    }

    /// Whether hostapd answers, and tells us events.
    #[must_use]
    pub fn is_met(&self) -> bool {
        self.attached
    }

    /// Whether hostapd has been silent for long.
    #[must_use]
    pub fn is_gone(&self, now: Instant) -> bool {
        let silent = self.lost.map(|at| now.saturating_duration_since(at));
        silent.is_some_and(|silent| silent >= limits::HOSTAPD_GONE)
    }

    /// What is to be asked now, if anything. It counts as asked.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn ask(&mut self, now: Instant) -> Result<Option<Question>, Broken> {
        if let Some((_, asked)) = self.open {
            if now.saturating_duration_since(asked) >= limits::HOSTAPD_ANSWER {
                return Err(Broken::Silent);
            }
            return Ok(None);
        }
        let question = self.choose(now);
        self.open = question.map(|question| (question, now));
        Ok(question)
    }

    fn choose(&mut self, now: Instant) -> Option<Question> {
        if self.walk.is_none() && self.due.is_none_or(|due| due <= now) {
            (self.attached, self.walk) = (false, Some(Walk::default()));
            self.due = Some(now + limits::HOSTAPD_POLL);
            self.pulled.iter_mut().for_each(Pulled::begin);
        }
        if !self.attached {
            return Some(Question::Attach);
        }
        if let Some(walk) = &self.walk {
            return Some(walk.after.map_or(Question::First, Question::Next));
        }
        self.pulled.as_ref().and_then(Pulled::send_away)
    }

    /// When [`Bss::ask`] is to be called again, at the latest.
    #[must_use]
    pub fn wake(&self) -> Option<Instant> {
        match self.open {
            Some((_, asked)) => Some(asked + limits::HOSTAPD_ANSWER),
            None => self.due,
        }
    }

    /// A datagram came.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn hear(&mut self, datagram: &[u8], now: Instant) -> Result<(), Broken> {
        match hear(datagram) {
            Heard::Nothing => Ok(()),
            Heard::Event(Event::Terminating) => Err(Broken::Ends),
            Heard::Event(event) => {
                self.event(event);
                Ok(())
            }
            Heard::Answer(answer) => self.answer(answer, now),
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Connected(mac) => {
                self.proved(mac);
                self.join(mac);
                // How well it is heard is not said with it.
                self.due = None;
            }
            Event::Disconnected(mac) => {
                self.stations.remove(&mac);
                if let Some(walk) = &mut self.walk {
                    walk.named.remove(&mac);
                }
            }
            Event::Proved(mac) => {
                self.proved(mac);
                self.due = None;
            }
            Event::Changed | Event::Terminating => self.due = None,
        }
    }

    /// A station has authenticated: it came after the cable was pulled, and may stay.
    fn proved(&mut self, mac: Mac) {
        self.pulled.iter_mut().for_each(|pulled| pulled.came(mac));
    }

    /// A station associates, maybe not for the first time.
    fn join(&mut self, mac: Mac) {
        if self.stations.len() >= limits::BSS_STATIONS && !self.stations.contains_key(&mac) {
            self.dropped += 1;
            return;
        }
        self.joins += 1;
        self.measures += 1;
        let known = Known {
            join: self.joins,
            measure: self.measures,
            signal: None,
            inactive: Duration::ZERO,
        };
        self.stations.insert(mac, known);
        if let Some(walk) = &mut self.walk {
            walk.named.insert(mac);
        }
    }

    fn answer(&mut self, answer: &[u8], now: Instant) -> Result<(), Broken> {
        // An answer to nothing is a late one, or nonsense.
        let Some((question, _)) = self.open.take() else {
            self.dropped += 1;
            return Ok(());
        };
        match question {
            Question::Attach if answer.trim_ascii_end() == b"OK" => {
                (self.attached, self.lost) = (true, None);
            }
            Question::Attach => return Err(Broken::Refuses),
            Question::SendAway(_) | Question::SendAllAway => {
                // FAIL: it is not there any more.
                self.pulled.iter_mut().for_each(|p| p.sent(question));
                self.pulled.take_if(|pulled| pulled.is_over());
            }
            Question::First | Question::Next(_) => self.step(listed(answer), now),
        }
        Ok(())
    }

    /// One step of reading all stations.
    fn step(&mut self, listed: Listed, now: Instant) {
        let Some(walk) = &mut self.walk else {
            return;
        };
        match listed {
            Listed::Station(station) => {
                // A list that goes in a circle would be read for ever.
                walk.steps += 1;
                if walk.steps > limits::BSS_STATIONS {
                    self.dropped += 1;
                    self.walk = None;
                    return;
                }
                walk.after = Some(station.mac);
                self.measured(&station, now);
            }
            Listed::Lost if walk.restarts < limits::BSS_RESTARTS => {
                let restarts = walk.restarts + 1;
                *walk = Walk {
                    restarts,
                    ..Walk::default()
                };
                self.pulled.iter_mut().for_each(Pulled::begin);
            }
            // Too lively to be read to its end: nobody is gone for that, and the next poll tries again.
            Listed::Lost => self.walk = None,
            Listed::End => {
                let named = self.walk.take().unwrap_or_default().named;
                self.stations.retain(|mac, _| named.contains(mac));
                let again = self.pulled.as_mut().and_then(|pulled| pulled.end(now));
                self.due = again.or(self.due);
                self.pulled.take_if(|pulled| pulled.is_over());
            }
        }
    }

    fn measured(&mut self, station: &Station, now: Instant) {
        let mac = station.mac;
        let is_here = |pulled: &mut Pulled| pulled.is_here(station, now);
        if !station.authorized || !self.pulled.as_mut().is_none_or(is_here) {
            // Not yet, or no more: what is not named is gone at the end.
            return;
        }
        if !self.stations.contains_key(&mac) {
            self.join(mac);
        }
        self.measures += 1;
        if let Some(known) = self.stations.get_mut(&mac) {
            known.measure = self.measures;
            known.signal = station.signal_dbm;
            known.inactive = station.inactive.unwrap_or_default();
        }
        if let Some(walk) = &mut self.walk {
            walk.named.insert(mac);
        }
    }

    /// The cable was pulled from the port that this hostapd guards: whoever was there is sent away.
    pub fn cable_pulled(&mut self, now: Instant) {
        self.stations.clear();
        self.pulled = Some(Pulled::at(now));
        // Also whom we do not know yet.
        (self.walk, self.due) = (None, None);
    }

    /// What the roster is owed next, of a socket whose interface has this number.
    #[must_use]
    pub fn owed(&self, link: LinkIndex) -> Option<Sighting> {
        let left = |mac: &Mac, said: &Said| {
            let known = self.stations.get(mac);
            known.is_none_or(|known| known.join != said.join)
        };
        if let Some((mac, said)) = self.told.iter().find(|(mac, said)| left(mac, said)) {
            return Some(Sighting::Station {
                link: said.link,
                mac: *mac,
                presence: Presence::Left,
                signal: None,
                inactive: Duration::ZERO,
            });
        }
        let now = |known: &Known| Said {
            link,
            join: known.join,
            measure: known.measure,
        };
        let mut all = self.stations.iter();
        let (mac, known) = all.find(|(mac, known)| self.told.get(mac) != Some(&now(known)))?;
        Some(Sighting::Station {
            link,
            mac: *mac,
            presence: Presence::Associated,
            signal: known.signal,
            inactive: known.inactive,
        })
    }

    /// It was told. Whether somebody is there who was not before.
    pub fn tell(&mut self, sighting: &Sighting) -> bool {
        let Sighting::Station {
            link,
            mac,
            presence,
            ..
        } = sighting
        else {
            return false;
        };
        let known = self.stations.get(mac);
        match (presence, known) {
            (Presence::Associated, Some(known)) => {
                let said = Said {
                    link: *link,
                    join: known.join,
                    measure: known.measure,
                };
                self.told.insert(*mac, said).is_none()
            }
            _ => {
                self.told.remove(mac);
                false
            }
        }
    }

    /// What was dropped since this was last asked.
    pub fn dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }
}

#[cfg(test)]
#[path = "bss/tests.rs"]
mod tests;
