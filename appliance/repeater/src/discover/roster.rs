//! The roster: who is docked and who is near, as a function of sightings and `now`. It merges what the sources say of
//! addresses, links and stations into paths, joins paths to cameras where a session has proved who is there, and says
//! which address is dialled when. No IO, no clock; one owner calls it.
//!
//! - A path is an address. It is *docked* on a dock's link, or behind a port that hostapd guards; on the air it is
//!   *nearby*, as well heard as hostapd says; of anything else nothing is known but that it is near.
//! - A camera is served on one path: the wired one before any other, else the one that it is served on, while that
//!   brings something. Its other paths are not dialled meanwhile.
//! - A link that goes down takes its paths with it at once; what comes back is dialled at once, but for what comes and
//!   goes all the time ([`limits::WAKES`]).
//! - A nearby camera that had nothing to give is left asleep until its news change, it associates anew, or
//!   [`limits::REST`] is over.
//! - Announcements prove nothing: so many as can be invented take room and dials only from each other. Who is refused
//!   is listed, and tried again ever more rarely.

mod dials;
mod path;
mod view;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::settings::{Settings, Signal};
use super::{Link, LinkIndex, LinkName, LinkState, Mac, Medium, Presence, Sighting, Source};
use crate::limits;
use path::Path;

pub use dials::Tried;
pub use path::{Leave, Reach, Seat, Standing};
pub use view::{Device, Near};

/// Who is docked and who is near.
#[derive(Debug)]
pub struct Roster {
    signal: Signal,
    fixed_docked: bool,
    links: BTreeMap<LinkIndex, Known>,
    paths: BTreeMap<SocketAddr, Path>,
    stations: HashMap<Mac, Station>,
    /// Whose an address on a link is.
    neighbours: BTreeMap<(LinkIndex, IpAddr), Mac>,
}

/// A link.
#[derive(Clone, Copy, Debug)]
struct Known {
    name: LinkName,
    up: bool,
    medium: Medium,
}

/// A station of a hostapd.
#[derive(Clone, Copy, Debug)]
struct Station {
    link: LinkIndex,
    present: bool,
    signal: Option<i8>,
    /// Whether it is heard well enough for routine footage.
    good: bool,
    heard: Instant,
}

impl Roster {
    /// An empty one.
    #[must_use]
    pub fn new(settings: &Settings) -> Roster {
        Roster {
            signal: settings.signal,
            fixed_docked: settings.fixed_docked,
            links: BTreeMap::new(),
            paths: BTreeMap::new(),
            stations: HashMap::new(),
            neighbours: BTreeMap::new(),
        }
    }

    /// A source says something.
    pub fn apply(&mut self, sighting: Sighting, now: Instant) {
        match sighting {
            Sighting::Seen {
                address,
                link,
                source,
                news,
            } => self.seen(address, (link, source, news), now),
            Sighting::Gone { address, source } => self.gone(address, source),
            Sighting::Link {
                link,
                state,
                medium,
            } => self.link(link, state, medium, now),
            Sighting::Station {
                link,
                mac,
                presence,
                signal,
                inactive: _,
            } => self.station(link, mac, presence, signal, now),
            Sighting::Neighbour { link, mac, ip } => self.neighbour(link, mac, ip, now),
        }
    }

    fn seen(
        &mut self,
        address: SocketAddr,
        (link, source, news): (Option<LinkIndex>, Source, Option<u64>),
        now: Instant,
    ) {
        let link = link.or(scope(address));
        if let Some(path) = self.paths.get_mut(&address) {
            let came = path.sources.is_empty();
            path.sources.insert(source);
            path.link = link.or(path.link);
            let stirred = news.is_some() && path.news != news;
            path.news = news.or(path.news);
            if came {
                path.seen = now;
                // Somebody else may have the address by now.
                let at_work = path.is_at_work();
                path.camera = path.camera.take().filter(|_| at_work);
            }
            if came || (stirred && (path.asleep || path.is_at_work())) {
                path.wake(now);
            }
            return;
        }
        if self.make_room(address, source) {
            let path = Path::new(source, link, news, now);
            self.paths.insert(address, path);
        }
    }

    fn gone(&mut self, address: SocketAddr, source: Source) {
        if let Some(path) = self.paths.get_mut(&address) {
            path.sources.remove(&source);
        }
    }

    fn link(&mut self, link: Link, state: LinkState, medium: Medium, now: Instant) {
        let up = match state {
            LinkState::Up => true,
            LinkState::Down => false,
            LinkState::Renamed => match self.links.get(&link.index) {
                Some(known) => known.up,
                None => return,
            },
            LinkState::Removed => return self.lost(link.index, true),
        };
        let name = link.name;
        let known = Known { name, up, medium };
        if !self.links.contains_key(&link.index) && self.links.len() >= limits::LINKS {
            return;
        }
        let before = self.links.insert(link.index, known);
        if !up {
            self.lost(link.index, false);
        } else if !before.is_some_and(|l| l.up) {
            let on_it = |p: &&mut Path| p.link == Some(link.index);
            self.paths
                .values_mut()
                .filter(on_it)
                .for_each(|p| p.wake(now));
        }
    }

    /// Nobody is on that link any more. What is seen by its cable or its stations has to be seen anew; announcements
    /// say themselves when they end.
    fn lost(&mut self, link: LinkIndex, removed: bool) {
        if removed {
            self.links.remove(&link);
        }
        let on_it = |(mac, s): (&Mac, &Station)| (s.link == link && s.present).then_some(*mac);
        let left: Vec<Mac> = self.stations.iter().filter_map(on_it).collect();
        for mac in left {
            self.station_left(mac);
        }
        self.neighbours.retain(|(l, _), _| *l != link);
        for path in self.paths.values_mut().filter(|p| p.link == Some(link)) {
            path.sources.remove(&Source::Neighbour);
            path.sources.remove(&Source::Station);
            if removed {
                path.sources.remove(&Source::Announced);
            }
            path.cut = path.is_at_work();
            if !path.cut {
                path.camera = None;
            }
        }
    }

    fn station(
        &mut self,
        link: LinkIndex,
        mac: Mac,
        presence: Presence,
        signal: Option<i8>,
        now: Instant,
    ) {
        let before = self.stations.get(&mac).copied();
        let present = presence == Presence::Associated;
        if !present && before.is_some_and(|b| b.link != link) {
            return; // it has moved to another BSS meanwhile
        }
        if before.is_none() && self.stations.len() >= limits::STATIONS {
            let stalest = |(_, s): &(&Mac, &Station)| (s.present, s.heard);
            let stalest = self.stations.iter().min_by_key(stalest).map(|(m, _)| *m);
            stalest.map(|m| self.stations.remove(&m));
        }
        let was_there = before.is_some_and(|b| b.present);
        let least = match was_there && before.is_some_and(|b| b.good) {
            true => self.signal.leave,
            false => self.signal.enter,
        };
        let signal = signal.or(before.filter(|_| was_there).and_then(|b| b.signal));
        let station = Station {
            link,
            present,
            signal,
            good: signal.is_none_or(|dbm| dbm >= least),
            heard: now,
        };
        self.stations.insert(mac, station);
        let better = station.good && !before.is_some_and(|b| b.good);
        if present == was_there && !(present && better) {
            return;
        }
        match present {
            true => self.of_mac(mac).for_each(|p| p.wake(now)),
            false => self.station_left(mac),
        }
    }

    /// A station is not there any more: hostapd says so, or its port lost its cable, of which hostapd knows nothing.
    fn station_left(&mut self, mac: Mac) {
        if let Some(station) = self.stations.get_mut(&mac) {
            station.present = false;
        }
        self.of_mac(mac).for_each(|p| p.cut = p.is_at_work());
    }

    /// The paths to a station.
    fn of_mac(&mut self, mac: Mac) -> impl Iterator<Item = &mut Path> {
        let neighbours = &self.neighbours;
        let paths = self.paths.iter_mut();
        let its = move |a: &SocketAddr, p: &Path| mac_of(neighbours, *a, p.link) == Some(mac);
        paths.filter_map(move |(a, p)| its(a, p).then_some(p))
    }

    fn neighbour(&mut self, link: LinkIndex, mac: Mac, ip: IpAddr, now: Instant) {
        let key = (link, ip);
        if !self.neighbours.contains_key(&key) && self.neighbours.len() >= limits::NEIGHBOURS {
            let of_nobody = |m: &Mac| !self.stations.get(m).is_some_and(|s| s.present);
            let stale = self.neighbours.iter().find(|(_, m)| of_nobody(m));
            let Some(stale) = stale.map(|(k, _)| *k) else {
                return;
            };
            self.neighbours.remove(&stale);
        }
        if self.neighbours.insert(key, mac) == Some(mac) {
            return;
        }
        // Only now its association is known to be that address's.
        if self.stations.get(&mac).is_some_and(|s| s.present) {
            let here = |(a, _): &(&SocketAddr, &mut Path)| a.ip() == ip;
            for (_, path) in self.paths.iter_mut().filter(here) {
                path.wake(now);
            }
        }
    }

    /// How whoever is at this address is reached.
    #[must_use]
    pub fn reach(&self, address: SocketAddr) -> Reach {
        let path = self.paths.get(&address);
        let link = path.and_then(|p| p.link).or(scope(address));
        if let Some(bay) = self.bay(link) {
            return Reach::Docked { bay };
        }
        if let Some(station) = self.station_at(address, link).filter(|s| s.present) {
            return match self.bay(Some(station.link)) {
                Some(bay) => Reach::Docked { bay },
                None => Reach::Nearby {
                    signal: station.signal,
                    good: station.good,
                },
            };
        }
        let fixed = path.is_some_and(|p| p.sources.contains(&Source::Static));
        let on_air = link
            .and_then(|l| self.links.get(&l))
            .is_some_and(|l| l.medium == Medium::Wireless);
        match fixed && self.fixed_docked && !on_air {
            true => Reach::Docked { bay: None },
            false => Reach::Nearby {
                signal: None,
                good: true,
            },
        }
    }

    /// The bay of a dock's link, where the link is one.
    fn bay(&self, link: Option<LinkIndex>) -> Option<Option<super::Bay>> {
        match self.links.get(&link?)?.medium {
            Medium::Dock { bay } => Some(bay),
            Medium::Wireless | Medium::Other => None,
        }
    }

    fn station_at(&self, address: SocketAddr, link: Option<LinkIndex>) -> Option<&Station> {
        self.stations.get(&mac_of(&self.neighbours, address, link)?)
    }

    /// Whether an address is to be dialled at all.
    fn is_wanted(&self, address: SocketAddr, path: &Path) -> bool {
        let down = |l: LinkIndex| self.links.get(&l).is_some_and(|l| !l.up);
        let left = || {
            self.station_at(address, path.link)
                .is_some_and(|s| !s.present)
        };
        !path.sources.is_empty() && !path.link.is_some_and(down) && !left()
    }

    /// Whether a newly seen address has room; one that is worth less goes for it, and of announcements that nobody
    /// answered yet the oldest. However many ports one host announces, it has room for a few.
    fn make_room(&mut self, address: SocketAddr, source: Source) -> bool {
        let announced = source == Source::Announced;
        let same = |a: &SocketAddr| a.ip() == address.ip();
        let ports = self.paths.keys().filter(|a| same(a)).count();
        let crowded = announced && ports >= limits::ADDRESS_PORTS;
        if !crowded && self.paths.len() < limits::SIGHTINGS {
            return true;
        }
        let cheapest = (self.paths.iter())
            .filter(|(a, _)| !crowded || same(a))
            .map(|(a, p)| (p.worth(), p.seen, *a))
            .min();
        let worth = path::worth(source, false, false);
        match cheapest {
            Some((its, _, a)) if its < worth || (announced && its == worth) => {
                self.paths.remove(&a).is_some()
            }
            _ => false,
        }
    }
}

/// The link that a link-local address names.
fn scope(address: SocketAddr) -> Option<LinkIndex> {
    match address {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => Some(v6.scope_id()),
        _ => None,
    }
}

/// Whose an address is, on its link or, where that is not known, on any.
fn mac_of(
    neighbours: &BTreeMap<(LinkIndex, IpAddr), Mac>,
    address: SocketAddr,
    link: Option<LinkIndex>,
) -> Option<Mac> {
    let ip = address.ip();
    match link.or(scope(address)) {
        Some(link) => neighbours.get(&(link, ip)).copied(),
        None => (neighbours.iter().find(|((_, i), _)| *i == ip)).map(|(_, m)| *m),
    }
}

#[cfg(test)]
mod tests;
