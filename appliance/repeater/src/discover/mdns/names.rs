//! The names that are announced, where they are, and what the roster is owed: a pure state with bounds.
//!
//! Whoever is on a link can announce as many names as it likes, and take back anybody's. So each link has room of its
//! own, and a rate at which new names come in; a name that is known costs nothing of either. Where a link's room is
//! full, a new name takes the place of the oldest one that has had its chance to be dialled and whose address proved
//! to be nobody's; a camera that has proved itself keeps its place. What is not taken in is counted.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::near::{Elsewhere, judge};
use crate::discover::interfaces::table::Links;
use crate::discover::{LinkIndex, Sighting, Source};
use crate::limits;

/// One announcement, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Its name.
    pub name: String,
    /// Its port.
    pub port: u16,
    /// Its addresses, each with the link on which it was announced.
    pub addresses: Vec<(IpAddr, LinkIndex)>,
    /// Its counter of news.
    pub news: Option<u64>,
}

/// Why one was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// None of its addresses may be dialled.
    Elsewhere(Elsewhere),
    /// Its link brings new names faster than they are taken in.
    Rate,
    /// Its link's room, or all of it, is taken by others.
    Room,
}

impl Dropped {
    /// As it is counted.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Dropped::Elsewhere(Elsewhere::OtherLink) => "announced_on_other_link",
            Dropped::Elsewhere(Elsewhere::NotThere) => "announced_elsewhere",
            Dropped::Elsewhere(Elsewhere::Own) => "announced_our_own",
            Dropped::Rate => "announced_too_fast",
            Dropped::Room => "announced_too_many",
        }
    }
}

/// All names.
#[derive(Debug, Default)]
pub struct Names {
    names: HashMap<String, Name>,
    rates: BTreeMap<LinkIndex, Rate>,
    told: BTreeMap<SocketAddr, (LinkIndex, Option<u64>, u64)>,
    /// Counts reminders: what was told in an earlier round is told again.
    round: u64,
    /// Counts changes, so that of two names at one address the later one's news hold.
    changes: u64,
    /// The present browse: what an earlier one found and this one does not find again runs out.
    browse: u64,
}

#[derive(Debug)]
struct Name {
    announced: Announcement,
    /// The link that its place counts for.
    link: LinkIndex,
    since: Instant,
    change: u64,
    browse: u64,
}

/// New names that may still come in on a link.
#[derive(Clone, Copy, Debug)]
struct Rate {
    left: u32,
    at: Instant,
}

impl Rate {
    fn take(&mut self, now: Instant) -> bool {
        let (burst, every) = limits::MDNS_RATE;
        let passed = now.saturating_duration_since(self.at);
        let more = passed.as_millis() / every.as_millis().max(1);
        let more = u32::try_from(more).unwrap_or(burst).min(burst);
        if more > 0 {
            self.left = self.left.saturating_add(more).min(burst);
            self.at = now;
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

impl Names {
    /// A new browse begins, with nothing found; what was found before runs out if it is not found again.
    pub fn begin(&mut self) {
        self.browse += 1;
        self.rates.clear();
    }

    /// What earlier browses found, and this one did not, is gone.
    pub fn run_out(&mut self) {
        let browse = self.browse;
        self.names.retain(|_, name| name.browse == browse);
    }

    /// A name is announced. How many of its addresses were passed over.
    ///
    /// # Errors
    /// Why it was not taken in.
    pub fn resolved(
        &mut self,
        mut announced: Announcement,
        links: &Links,
        is_camera: &dyn Fn(&SocketAddr) -> bool,
        now: Instant,
    ) -> Result<usize, Dropped> {
        let link = place(&announced, links).map_err(Dropped::Elsewhere)?;
        let port = announced.port;
        let elsewhere = |(ip, on): &&(IpAddr, LinkIndex)| judge(*ip, port, *on, links).is_err();
        let passed_over = announced.addresses.iter().filter(elsewhere).count();
        announced
            .addresses
            .retain(|(ip, on)| judge(*ip, port, *on, links).is_ok());
        // Those that need no router first.
        announced.addresses.sort_by_key(|(ip, link)| {
            let local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
            (!local, *link, *ip)
        });
        announced.addresses.truncate(limits::MDNS_ADDRESSES);
        self.changes += 1;
        let (change, browse) = (self.changes, self.browse);
        if let Some(name) = self.names.get_mut(&announced.name) {
            name.change = change;
            name.browse = browse;
            name.announced = announced;
            return Ok(passed_over);
        }
        let (burst, _) = limits::MDNS_RATE;
        let fresh = Rate {
            left: burst,
            at: now,
        };
        if !self.rates.entry(link).or_insert(fresh).take(now) {
            return Err(Dropped::Rate);
        }
        self.make_room(link, links, is_camera, now)?;
        let name = Name {
            link,
            since: now,
            change,
            browse,
            announced,
        };
        self.names.insert(name.announced.name.clone(), name);
        Ok(passed_over)
    }

    fn make_room(
        &mut self,
        link: LinkIndex,
        links: &Links,
        is_camera: &dyn Fn(&SocketAddr) -> bool,
        now: Instant,
    ) -> Result<(), Dropped> {
        let on_link = self.names.values().filter(|n| n.link == link).count();
        if on_link < limits::MDNS_NAMES_OF_LINK && self.names.len() < limits::MDNS_NAMES {
            return Ok(());
        }
        let tried = |n: &Name| now.saturating_duration_since(n.since) >= limits::MDNS_TRIED;
        let unproven = |n: &Name| !n.dialled(links).any(|(at, _)| is_camera(&at));
        let of_link = self.names.values().filter(|n| n.link == link);
        let idle = of_link.filter(|n| tried(n) && unproven(n));
        let oldest = idle.min_by_key(|n| n.since);
        let oldest = oldest.map(|n| n.announced.name.clone());
        let oldest = oldest.ok_or(Dropped::Room)?;
        self.names.remove(&oldest);
        Ok(())
    }

    /// A name was withdrawn, or ran out.
    pub fn removed(&mut self, name: &str) {
        self.names.remove(name);
    }

    /// How many names are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// What is so now: each address once, with its link and the latest news.
    #[must_use]
    pub fn now(&self, links: &Links) -> BTreeMap<SocketAddr, (LinkIndex, Option<u64>)> {
        let mut latest: BTreeMap<SocketAddr, (u64, LinkIndex, Option<u64>)> = BTreeMap::new();
        for name in self.names.values() {
            for (at, link) in name.dialled(links) {
                let this = (name.change, link, name.announced.news);
                let held = latest.entry(at).or_insert(this);
                if held.0 < this.0 {
                    *held = this;
                }
            }
        }
        let all = latest.into_iter();
        all.map(|(at, (_, link, news))| (at, (link, news)))
            .collect()
    }

    /// What the roster is owed next, of what is so now.
    #[must_use]
    pub fn owed(&self, now: &BTreeMap<SocketAddr, (LinkIndex, Option<u64>)>) -> Option<Sighting> {
        let source = Source::Announced;
        let gone = self.told.keys().find(|at| !now.contains_key(at));
        if let Some(address) = gone {
            let address = *address;
            return Some(Sighting::Gone { address, source });
        }
        let was = |at| self.told.get(at).copied();
        let fresh = now
            .iter()
            .find(|(at, (link, news))| was(*at) != Some((*link, *news, self.round)));
        fresh.map(|(address, (link, news))| Sighting::Seen {
            address: *address,
            link: Some(*link),
            source,
            news: *news,
        })
    }

    /// Everybody is told again, one after the other: the roster may have had no room for somebody.
    pub fn remind(&mut self) {
        self.round += 1;
    }

    /// It was told.
    pub fn tell(&mut self, sighting: &Sighting) {
        match sighting {
            Sighting::Seen {
                address,
                link: Some(link),
                news,
                ..
            } => {
                self.told.insert(*address, (*link, *news, self.round));
            }
            Sighting::Gone { address, .. } => {
                self.told.remove(address);
            }
            _ => {}
        }
    }
}

impl Name {
    /// Its addresses that may be dialled, and on which link.
    fn dialled<'a>(
        &'a self,
        links: &'a Links,
    ) -> impl Iterator<Item = (SocketAddr, LinkIndex)> + 'a {
        let port = self.announced.port;
        let all = self.announced.addresses.iter();
        all.filter_map(move |(ip, on)| {
            let at = judge(*ip, port, *on, links).ok()?;
            // Behind a bridge's port that may be a dock's.
            let link = links.get(on).map_or(*on, |usable| usable.port(*ip));
            Some((at, link))
        })
    }
}

/// The link that a name's place counts for: that of the first address that may be dialled.
fn place(announced: &Announcement, links: &Links) -> Result<LinkIndex, Elsewhere> {
    let mut why = Elsewhere::NotThere;
    for (ip, link) in &announced.addresses {
        match judge(*ip, announced.port, *link, links) {
            Ok(_) => return Ok(*link),
            Err(e) => why = e,
        }
    }
    Err(why)
}

/// The counter of news, as TXT key `n` has it.
#[must_use]
pub fn news(value: &str) -> Option<u64> {
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| value.parse().ok()).flatten()
}

/// How long what an earlier browse found is kept while a new one looks.
pub const RUN_OUT: Duration = Duration::from_secs(120);

#[cfg(test)]
#[path = "names/tests.rs"]
mod tests;
