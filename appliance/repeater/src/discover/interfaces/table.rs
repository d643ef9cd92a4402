//! What the kernel has told of links, addresses, neighbours and default routes, and what follows from it: which
//! links may be used, what they carry, and who is on them.
//!
//! Messages change the table; a dump names everything anew, and what it did not name is gone when it ends. So a
//! message that was lost (the kernel says when) costs one dump and nothing else. Every part is bounded: beyond the
//! bound nothing is taken in, and that is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::wire::{Dump, LinkNews, Message, Prefix, Route};
use crate::discover::settings::{Settings, matches};
use crate::discover::{Link, LinkIndex, Mac, Medium};
use crate::limits;

/// What the kernel told.
#[derive(Debug, Default)]
pub struct Table {
    links: Part<LinkIndex, LinkNews>,
    addresses: Part<(LinkIndex, IpAddr), Own>,
    routes: Part<Route, ()>,
    neighbours: Part<(LinkIndex, IpAddr), Mac>,
    behind: Part<(LinkIndex, Mac), ()>,
    /// Places in sysfs, with the name under which each was looked up.
    places: BTreeMap<LinkIndex, (Link, String)>,
    /// What was not taken in since this was last asked.
    passed_over: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Own {
    prefix: Prefix,
    tentative: bool,
}

/// A bounded part of the table; each entry knows the dump that named it last.
#[derive(Debug)]
struct Part<K, V> {
    entries: BTreeMap<K, (V, u64)>,
    dump: u64,
}

impl<K, V> Default for Part<K, V> {
    fn default() -> Self {
        Part {
            entries: BTreeMap::new(),
            dump: 0,
        }
    }
}

impl<K: Ord, V> Part<K, V> {
    /// Whether there was room.
    fn put(&mut self, key: K, value: V, most: usize) -> bool {
        let room = self.entries.len() < most || self.entries.contains_key(&key);
        if room {
            self.entries.insert(key, (value, self.dump));
        }
        room
    }

    fn remove(&mut self, key: &K) {
        self.entries.remove(key);
    }

    fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(value, _)| value)
    }

    fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, (value, _))| (key, value))
    }

    fn begin(&mut self) {
        self.dump += 1;
    }

    /// Whatever the dump did not name is gone.
    fn end(&mut self) {
        let dump = self.dump;
        self.entries.retain(|_, (_, named)| *named == dump);
    }
}

/// A link that may be used, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usable {
    /// Number and name.
    pub link: Link,
    /// What it carries cameras by.
    pub medium: Medium,
    /// Whether a peer is there.
    pub carrier: bool,
    /// How often its carrier was lost.
    pub losses: u32,
    /// The bridge that it is a port of.
    pub master: Option<LinkIndex>,
    /// Whether it is the loopback.
    pub loopback: bool,
    /// Our own addresses on it, each with its prefix.
    pub prefixes: Vec<Prefix>,
    /// Whether an echo can be sent from it: it has a link-local address that is no longer tentative.
    pub can_probe: bool,
    /// Of a bridge: the usable port behind which each address is.
    pub ports: BTreeMap<IpAddr, LinkIndex>,
}

impl Usable {
    /// Whether an address is one of our own there.
    #[must_use]
    pub fn is_own(&self, ip: IpAddr) -> bool {
        self.prefixes.iter().any(|p| p.own == ip)
    }

    /// Where an address of this link is: at a port of it, or on the link itself.
    #[must_use]
    pub fn port(&self, ip: IpAddr) -> LinkIndex {
        self.ports.get(&ip).copied().unwrap_or(self.link.index)
    }
}

/// The links that may be used, by number.
pub type Links = BTreeMap<LinkIndex, Usable>;

impl Table {
    /// Takes in one message.
    pub fn apply(&mut self, message: Message) {
        let taken = match message {
            Message::Link(news) => self.links.put(news.link.index, news, limits::KERNEL_LINKS),
            Message::LinkGone(index) => {
                self.remove(index);
                true
            }
            Message::Address {
                index,
                prefix,
                tentative,
                gone,
            } => {
                let key = (index, prefix.own);
                if gone {
                    self.addresses.remove(&key);
                }
                let own = Own { prefix, tentative };
                gone || self.addresses.put(key, own, limits::KERNEL_ADDRESSES)
            }
            Message::Neighbour {
                index,
                address,
                mac,
            } => {
                let key = (index, address);
                self.neighbours.remove(&key);
                mac.is_none_or(|mac| self.neighbours.put(key, mac, limits::KERNEL_NEIGHBOURS))
            }
            Message::Behind { port, mac, gone } => {
                self.behind.remove(&(port, mac));
                gone || self.behind.put((port, mac), (), limits::KERNEL_NEIGHBOURS)
            }
            Message::Route { route, gone } => {
                self.routes.remove(&route);
                gone || self.routes.put(route, (), limits::KERNEL_ROUTES)
            }
            Message::Done { .. } | Message::Refused { .. } | Message::Overrun => true,
        };
        self.passed_over += u64::from(!taken);
    }

    fn remove(&mut self, index: LinkIndex) {
        self.links.remove(&index);
        self.places.remove(&index);
        // The kernel says the rest one by one, or, of a link that goes with its namespace, not at all.
        self.addresses.entries.retain(|(i, _), _| *i != index);
        self.neighbours.entries.retain(|(i, _), _| *i != index);
        self.behind.entries.retain(|(i, _), _| *i != index);
    }

    /// A dump begins: all is going to be named.
    pub fn begin(&mut self, dump: Dump) {
        match dump {
            Dump::Links => self.links.begin(),
            Dump::Addresses => self.addresses.begin(),
            Dump::Routes => self.routes.begin(),
            Dump::Neighbours => self.neighbours.begin(),
            Dump::Bridges => self.behind.begin(),
        }
    }

    /// A dump has ended.
    pub fn end(&mut self, dump: Dump) {
        match dump {
            Dump::Links => {
                self.links.end();
                let links = &self.links.entries;
                self.places.retain(|index, _| links.contains_key(index));
            }
            Dump::Addresses => self.addresses.end(),
            Dump::Routes => self.routes.end(),
            Dump::Neighbours => self.neighbours.end(),
            Dump::Bridges => self.behind.end(),
        }
    }

    /// Whether there is such a link, one that may be used or another.
    #[must_use]
    pub fn has(&self, link: LinkIndex) -> bool {
        self.links.get(&link).is_some()
    }

    /// Links whose place in sysfs is not known under their present name.
    #[must_use]
    pub fn unplaced(&self) -> Vec<Link> {
        let placed = |link: &Link| {
            self.places
                .get(&link.index)
                .is_some_and(|(under, _)| under == link)
        };
        let all = self.links.iter().map(|(_, news)| news.link);
        all.filter(|link| !placed(link)).collect()
    }

    /// A link's place in sysfs; none where it has none.
    pub fn place(&mut self, link: Link, path: Option<String>) {
        let path = path.unwrap_or_default();
        self.places.insert(link.index, (link, path));
    }

    /// The links that may be used.
    #[must_use]
    pub fn usable(&self, settings: &Settings) -> Links {
        let routed: BTreeSet<LinkIndex> = self
            .routes
            .iter()
            .flat_map(|(route, ())| route.links.iter().copied())
            .collect();
        let usable = |(index, news): (&LinkIndex, &LinkNews)| {
            let name = news.link.name;
            let place = self.places.get(index).map_or("", |(_, path)| path.as_str());
            let named = |patterns: &[String]| patterns.iter().any(|p| matches(p, name.as_str()));
            // Nobody but a trial has its cameras on the machine itself: the loopback must be named.
            let may = settings.may_use(name.as_str(), place, routed.contains(index))
                && (!news.loopback || named(&settings.interfaces));
            may.then(|| {
                let medium = settings.medium(name.as_str(), place);
                (*index, self.describe(news, medium))
            })
        };
        let mut links: Links = self.links.iter().filter_map(usable).collect();
        for ((link, ip), mac) in self.neighbours.iter() {
            let port = self.port(*link, *mac);
            if port != *link
                && links.contains_key(&port)
                && let Some(bridge) = links.get_mut(link)
            {
                bridge.ports.insert(*ip, port);
            }
        }
        links
    }

    fn describe(&self, news: &LinkNews, medium: Medium) -> Usable {
        let index = news.link.index;
        let own: Vec<&Own> = (self.addresses.iter())
            .filter(|((i, _), _)| *i == index)
            .map(|(_, own)| own)
            .collect();
        let can_probe = own.iter().any(|o| {
            let local = matches!(o.prefix.own, IpAddr::V6(ip) if ip.is_unicast_link_local());
            local && !o.tentative
        });
        Usable {
            link: news.link,
            medium,
            carrier: news.carrier,
            losses: news.carrier_losses,
            master: news.master,
            loopback: news.loopback,
            prefixes: own.iter().map(|o| o.prefix).collect(),
            can_probe,
            ports: BTreeMap::new(),
        }
    }

    /// Who has an address on a link.
    #[must_use]
    pub fn mac(&self, link: LinkIndex, ip: IpAddr) -> Option<Mac> {
        self.neighbours.get(&(link, ip)).copied()
    }

    /// The port of a bridge behind which somebody is; the link itself where it is no bridge, or nobody knows.
    #[must_use]
    pub fn port(&self, link: LinkIndex, mac: Mac) -> LinkIndex {
        let port = |port: LinkIndex| self.links.get(&port)?.master.filter(|m| *m == link);
        let behind = self.behind.iter().map(|((port, mac), ())| (*port, *mac));
        let mut ports = behind.filter(|(p, m)| *m == mac && port(*p).is_some());
        ports.next().map_or(link, |(port, _)| port)
    }

    /// Everybody on links that may be used: on the link, and at the port of it where it is a bridge.
    #[must_use]
    pub fn neighbours(&self, links: &Links) -> BTreeMap<(LinkIndex, IpAddr), Mac> {
        let mut all = BTreeMap::new();
        for ((link, ip), mac) in self.neighbours.iter() {
            for link in [*link, self.port(*link, *mac)] {
                if links.contains_key(&link) {
                    all.insert((link, *ip), *mac);
                }
            }
        }
        all
    }

    /// How many messages there was no room for since this was last asked.
    pub fn passed_over(&mut self) -> u64 {
        std::mem::take(&mut self.passed_over)
    }
}

#[cfg(test)]
#[path = "table/tests.rs"]
pub(super) mod tests;
