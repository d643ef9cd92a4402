//! What the roster was told of links and neighbours, and what it is still owed: the difference to what is so now.
//!
//! The queue to the roster is bounded and may be full. So nothing is queued here: what could not be told is owed,
//! and is worked out anew from the table when there is room. An off and on of a link's carrier that nobody saw is
//! told by the kernel's own count of losses, as an end and a beginning.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::table::Links;
use crate::discover::{Link, LinkIndex, LinkState, Mac, Medium, Sighting, Source};

/// What is so now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// The links that may be used.
    pub links: Links,
    /// Who has an address there.
    pub neighbours: BTreeMap<(LinkIndex, IpAddr), Mac>,
    /// Who answers an echo, on which link, and how that is called.
    pub answering: BTreeMap<SocketAddr, (LinkIndex, Source)>,
}

/// What was told.
#[derive(Clone, Debug, Default)]
pub struct Told {
    links: BTreeMap<LinkIndex, Shown>,
    neighbours: BTreeMap<(LinkIndex, IpAddr), (Mac, u64)>,
    answering: BTreeMap<SocketAddr, (LinkIndex, Source, u64)>,
    /// Counts reminders: what was told in an earlier round is told again.
    round: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shown {
    link: Link,
    medium: Medium,
    carrier: bool,
    losses: u32,
}

impl Told {
    /// What is owed next, and which losses of carrier are told with it.
    ///
    /// Links come before who is on them, and what has ended before what began.
    #[must_use]
    pub fn owed(&self, now: &Now) -> Option<Sighting> {
        let gone = || self.link_gone(now);
        let changed = || now.links.keys().find_map(|index| self.link(*index, now));
        gone()
            .or_else(changed)
            .or_else(|| self.silent(now))
            .or_else(|| self.neighbour(now))
            .or_else(|| self.answering(now))
    }

    fn link_gone(&self, now: &Now) -> Option<Sighting> {
        let gone = self
            .links
            .iter()
            .find(|(index, _)| !now.links.contains_key(index));
        gone.map(|(_, shown)| shown.say(LinkState::Removed))
    }

    fn link(&self, index: LinkIndex, now: &Now) -> Option<Sighting> {
        let usable = now.links.get(&index)?;
        let is = Shown {
            link: usable.link,
            medium: usable.medium,
            carrier: usable.carrier,
            losses: usable.losses,
        };
        let up = |up| if up { LinkState::Up } else { LinkState::Down };
        let Some(was) = self.links.get(&index) else {
            return Some(is.say(up(is.carrier)));
        };
        // It came back before anybody was told that it had gone.
        if was.carrier && (!is.carrier || was.losses != is.losses) {
            return Some(is.say(LinkState::Down));
        }
        if was.carrier != is.carrier || was.medium != is.medium {
            return Some(is.say(up(is.carrier)));
        }
        (was.link.name != is.link.name).then(|| is.say(LinkState::Renamed))
    }

    fn silent(&self, now: &Now) -> Option<Sighting> {
        let says = |at: &SocketAddr| now.answering.get(at).map(|(_, source)| *source);
        let mut was = self.answering.iter();
        let (address, (_, source, _)) =
            was.find(|(at, (_, source, _))| says(at) != Some(*source))?;
        let (address, source) = (*address, *source);
        Some(Sighting::Gone { address, source })
    }

    fn neighbour(&self, now: &Now) -> Option<Sighting> {
        let mut all = now.neighbours.iter();
        let was = |key| self.neighbours.get(key).copied();
        let ((link, ip), mac) = all.find(|(key, mac)| was(*key) != Some((**mac, self.round)))?;
        Some(Sighting::Neighbour {
            link: *link,
            mac: *mac,
            ip: *ip,
        })
    }

    fn answering(&self, now: &Now) -> Option<Sighting> {
        let mut all = now.answering.iter();
        let was = |at| self.answering.get(at).copied();
        let (address, (link, source)) =
            all.find(|(at, (link, source))| was(*at) != Some((*link, *source, self.round)))?;
        let (link, source) = (*link, *source);
        Some(Sighting::Seen {
            address: *address,
            link: Some(link),
            source,
            news: None,
        })
    }

    /// It was told.
    pub fn tell(&mut self, sighting: &Sighting, now: &Now) {
        match sighting {
            Sighting::Link {
                link,
                state: LinkState::Removed,
                ..
            } => {
                self.links.remove(&link.index);
                // Its number may come again, for another link with others on it.
                self.nobody(link.index);
            }
            Sighting::Link {
                link,
                state,
                medium,
            } => {
                let losses = now.links.get(&link.index).map_or(0, |usable| usable.losses);
                let was = self.links.get(&link.index);
                let carrier = match state {
                    LinkState::Up => true,
                    LinkState::Renamed => was.is_some_and(|was| was.carrier),
                    LinkState::Down | LinkState::Removed => false,
                };
                let shown = Shown {
                    link: *link,
                    medium: *medium,
                    carrier,
                    losses,
                };
                self.links.insert(link.index, shown);
                if !carrier {
                    self.nobody(link.index);
                }
            }
            Sighting::Neighbour { link, mac, ip } => {
                self.neighbours.insert((*link, *ip), (*mac, self.round));
            }
            Sighting::Seen {
                address,
                link,
                source,
                ..
            } => {
                let is = (link.unwrap_or_default(), *source, self.round);
                self.answering.insert(*address, is);
            }
            Sighting::Gone { address, .. } => {
                self.answering.remove(address);
            }
            Sighting::Station { .. } => {}
        }
    }

    /// The roster takes it that nobody is on this link; whoever is, is told again.
    fn nobody(&mut self, link: LinkIndex) {
        self.neighbours.retain(|(l, _), _| *l != link);
        self.answering.retain(|_, (l, _, _)| *l != link);
    }

    /// Everybody who is there is told again, one after the other: the roster may have had no room for somebody.
    pub fn remind(&mut self) {
        self.round += 1;
    }

    /// Forgets neighbours that are no more, so that they are told if they come again.
    pub fn settle(&mut self, now: &Now) {
        let known: BTreeSet<_> = now.neighbours.keys().copied().collect();
        self.neighbours.retain(|key, _| known.contains(key));
    }
}

impl Shown {
    fn say(&self, state: LinkState) -> Sighting {
        Sighting::Link {
            link: self.link,
            state,
            medium: self.medium,
        }
    }
}
