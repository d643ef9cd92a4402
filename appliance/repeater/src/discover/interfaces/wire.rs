//! The kernel's route messages (rtnetlink), read and asked for: links, addresses, neighbours, default routes.
//!
//! What comes is the kernel's own, yet every length is checked before it is used: a message that does not hold
//! what it claims is passed over, one whose length cannot be walked over ends its datagram. Numbers are in the
//! machine's byte order, as the kernel writes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::libc;

use crate::discover::{Link, LinkIndex, LinkName, Mac};

/// Interfaces of one default route that are taken (a route may have several next hops).
const HOPS: usize = 16;

const NLMSG_HEADER: usize = 16;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NEXTHOP_HEADER: usize = 8;
/// In none of these states does a neighbour entry say who has an address.
const UNRESOLVED: u16 = libc::NUD_INCOMPLETE | libc::NUD_FAILED | libc::NUD_NOARP;

/// Multicast groups of what is followed.
#[allow(clippy::cast_sign_loss, reason = "bits")]
pub(super) const GROUPS: u32 = (libc::RTMGRP_LINK
    | libc::RTMGRP_NEIGH
    | libc::RTMGRP_IPV4_IFADDR
    | libc::RTMGRP_IPV6_IFADDR
    | libc::RTMGRP_IPV4_ROUTE
    | libc::RTMGRP_IPV6_ROUTE) as u32;

/// A link as the kernel tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkNews {
    /// Number and present name.
    pub link: Link,
    /// Whether a cable or radio peer is there.
    pub carrier: bool,
    /// Whether it is the loopback.
    pub loopback: bool,
    /// The bridge or bond that it is a port of.
    pub master: Option<LinkIndex>,
    /// How often its carrier was lost since it exists: an off and on between two messages shows here alone.
    pub carrier_losses: u32,
}

/// A prefix that is on a link, with our own address in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    /// Our address.
    pub own: IpAddr,
    /// Bits of the prefix.
    pub bits: u8,
}

impl Prefix {
    /// Whether an address is in it.
    #[must_use]
    pub fn contains(&self, other: IpAddr) -> bool {
        let bits = u32::from(self.bits);
        match (self.own, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let mask = u32::MAX.checked_shl(32 - bits.min(32)).unwrap_or(0);
                (a.to_bits() ^ b.to_bits()) & mask == 0
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let mask = u128::MAX.checked_shl(128 - bits.min(128)).unwrap_or(0);
                (a.to_bits() ^ b.to_bits()) & mask == 0
            }
            _ => false,
        }
    }
}

/// A default route: two may lead over one link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Whether it is of IPv6.
    pub v6: bool,
    /// Its table.
    pub table: u32,
    /// Its metric.
    pub metric: u32,
    /// The links it leads over.
    pub links: Vec<LinkIndex>,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A link is there, or changed.
    Link(LinkNews),
    /// A link is gone.
    LinkGone(LinkIndex),
    /// A link has an address, or had (`gone`); while `tentative` nothing can be sent from it.
    Address {
        /// The link.
        index: LinkIndex,
        /// Address and prefix.
        prefix: Prefix,
        /// Whether duplicate address detection still runs.
        tentative: bool,
        /// Whether it was taken away.
        gone: bool,
    },
    /// Behind this port of a bridge is somebody, or was (`gone`).
    Behind {
        /// The port.
        port: LinkIndex,
        /// Who.
        mac: Mac,
        /// Whether it is not known any more.
        gone: bool,
    },
    /// Somebody on a link has an address; none: nobody, any more.
    Neighbour {
        /// The link.
        index: LinkIndex,
        /// The address.
        address: IpAddr,
        /// Who has it.
        mac: Option<Mac>,
    },
    /// A default route is there, or was (`gone`).
    Route {
        /// Which.
        route: Route,
        /// Whether it was taken away.
        gone: bool,
    },
    /// The end of what was asked for; `torn` where it changed while it was told, and is to be asked for again.
    Done {
        /// The number of the question.
        sequence: u32,
        /// Whether it is to be asked again.
        torn: bool,
    },
    /// A question was refused.
    Refused {
        /// The number of the question.
        sequence: u32,
        /// Why, as an error number.
        errno: i32,
    },
    /// The kernel dropped messages.
    Overrun,
}

/// What can be asked for, in the order in which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dump {
    /// All links.
    Links,
    /// All addresses.
    Addresses,
    /// All routes.
    Routes,
    /// All neighbours.
    Neighbours,
    /// Everybody behind the ports of bridges.
    Bridges,
}

impl Dump {
    /// The next thing to ask for.
    #[must_use]
    pub fn next(self) -> Option<Dump> {
        match self {
            Dump::Links => Some(Dump::Addresses),
            Dump::Addresses => Some(Dump::Routes),
            Dump::Routes => Some(Dump::Neighbours),
            Dump::Neighbours => Some(Dump::Bridges),
            Dump::Bridges => None,
        }
    }

    /// The question, as it is sent.
    #[must_use]
    pub fn question(self, sequence: u32) -> Vec<u8> {
        // The header of each family of messages; zeros are "all".
        let (kind, body) = match self {
            Dump::Links => (libc::RTM_GETLINK, 16),
            Dump::Addresses => (libc::RTM_GETADDR, 8),
            Dump::Routes => (libc::RTM_GETROUTE, 12),
            Dump::Neighbours | Dump::Bridges => (libc::RTM_GETNEIGH, 12),
        };
        let family = match self {
            Dump::Bridges => u8::try_from(libc::AF_BRIDGE).unwrap_or_default(),
            _ => 0,
        };
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
        let length = NLMSG_HEADER + body;
        let mut bytes = Vec::with_capacity(length);
        bytes.extend(u32::try_from(length).unwrap_or_default().to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(u16::try_from(flags).unwrap_or_default().to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.push(family);
        bytes.resize(length, 0);
        bytes
    }
}

/// The messages of one datagram that say something to us.
pub fn messages(datagram: &[u8]) -> impl Iterator<Item = Message> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(rest, 0)?).ok()?;
        if length < NLMSG_HEADER || length > rest.len() {
            rest = &[];
            return None;
        }
        let (this, after) = rest.split_at(length);
        rest = after.get(aligned(length) - length..).unwrap_or(&[]);
        Some(message(this))
    })
    .flatten()
}

/// One message with its header.
fn message(bytes: &[u8]) -> Option<Message> {
    let (kind, flags) = (u16_at(bytes, 4)?, u16_at(bytes, 6)?);
    let (sequence, body) = (u32_at(bytes, 8)?, bytes.get(NLMSG_HEADER..)?);
    let torn = flags & NLM_F_DUMP_INTR != 0;
    match i32::from(kind) {
        libc::NLMSG_DONE => return Some(Message::Done { sequence, torn }),
        libc::NLMSG_OVERRUN => return Some(Message::Overrun),
        libc::NLMSG_ERROR => {
            let errno = i32::from_ne_bytes(body.get(..4)?.try_into().ok()?);
            let errno = errno.checked_neg().unwrap_or(libc::EIO);
            return (errno != 0).then_some(Message::Refused { sequence, errno });
        }
        _ => {}
    }
    match kind {
        libc::RTM_NEWLINK => link(body).map(Message::Link),
        // Of the bridge's family it says that a port left the bridge, and the link stays.
        libc::RTM_DELLINK if body.first() == Some(&0) => u32_at(body, 4).map(Message::LinkGone),
        libc::RTM_NEWADDR => address(body, false),
        libc::RTM_DELADDR => address(body, true),
        libc::RTM_NEWNEIGH => neighbour(body, false),
        libc::RTM_DELNEIGH => neighbour(body, true),
        libc::RTM_NEWROUTE => route(body, false),
        libc::RTM_DELROUTE => route(body, true),
        _ => None,
    }
}

fn link(body: &[u8]) -> Option<LinkNews> {
    // A bridge's ports are told once more in its own family, with less.
    if *body.first()? != 0 {
        return None;
    }
    let (index, flags) = (u32_at(body, 4)?, u32_at(body, 8)?);
    let (mut name, mut master, mut losses) = (None, None, 0);
    let mut down = false;
    for (kind, value) in attributes(body.get(16..)?) {
        match kind {
            libc::IFLA_IFNAME => name = text(value),
            libc::IFLA_MASTER => master = u32_at(value, 0).filter(|m| *m != 0),
            libc::IFLA_CARRIER_DOWN_COUNT => losses = u32_at(value, 0)?,
            // 1 not present, 2 down, 3 lower layer down. 0 is unknown: USB cameras say no more.
            libc::IFLA_OPERSTATE => down = (1..=3).contains(value.first()?),
            _ => {}
        }
    }
    let has = |flag: i32| flags & flag.cast_unsigned() != 0;
    let name = name?;
    Some(LinkNews {
        link: Link { index, name },
        carrier: has(libc::IFF_UP) && has(libc::IFF_LOWER_UP) && !down,
        loopback: has(libc::IFF_LOOPBACK),
        master,
        carrier_losses: losses,
    })
}

fn address(body: &[u8], gone: bool) -> Option<Message> {
    let (bits, index) = (*body.get(1)?, u32_at(body, 4)?);
    let mut flags = u32::from(*body.get(2)?);
    let (mut own, mut peer) = (None, None);
    for (kind, value) in attributes(body.get(8..)?) {
        match kind {
            libc::IFA_LOCAL => own = ip(value),
            libc::IFA_ADDRESS => peer = ip(value),
            libc::IFA_FLAGS => flags = u32_at(value, 0)?,
            _ => {}
        }
    }
    // An optimistic address may be used while it is still being tried.
    let tentative = flags & libc::IFA_F_TENTATIVE != 0 && flags & libc::IFA_F_OPTIMISTIC == 0;
    let own = own.or(peer)?;
    let prefix = Prefix { own, bits };
    Some(Message::Address {
        index,
        prefix,
        tentative,
        gone,
    })
}

fn neighbour(body: &[u8], gone: bool) -> Option<Message> {
    let (index, state) = (u32_at(body, 4)?, u16_at(body, 8)?);
    let (mut address, mut mac) = (None, None);
    for (kind, value) in attributes(body.get(12..)?) {
        match kind {
            NDA_DST => address = ip(value),
            NDA_LLADDR => mac = value.try_into().ok().map(Mac),
            _ => {}
        }
    }
    if i32::from(*body.first()?) == libc::AF_BRIDGE {
        // The bridge's own addresses stand there too, as permanent.
        let (port, mac) = (index, mac.filter(|_| state & libc::NUD_PERMANENT == 0)?);
        return Some(Message::Behind { port, mac, gone });
    }
    let mac = mac.filter(|_| !gone && state & UNRESOLVED == 0);
    let address = address.filter(|a: &IpAddr| !a.is_multicast())?;
    Some(Message::Neighbour {
        index,
        address,
        mac,
    })
}

fn route(body: &[u8], gone: bool) -> Option<Message> {
    let family = i32::from(*body.first()?);
    let (bits, kind) = (*body.get(1)?, *body.get(7)?);
    let ours = family == libc::AF_INET || family == libc::AF_INET6;
    if !ours || bits != 0 || kind != libc::RTN_UNICAST {
        return None;
    }
    let mut route = Route {
        v6: family == libc::AF_INET6,
        table: u32::from(*body.get(4)?),
        metric: 0,
        links: Vec::new(),
    };
    for (kind, value) in attributes(body.get(12..)?) {
        match kind {
            libc::RTA_OIF => route.links.extend(u32_at(value, 0)),
            libc::RTA_TABLE => route.table = u32_at(value, 0)?,
            libc::RTA_PRIORITY => route.metric = u32_at(value, 0)?,
            libc::RTA_MULTIPATH => route.links.extend(hops(value).take(HOPS)),
            _ => {}
        }
    }
    (!route.links.is_empty()).then_some(Message::Route { route, gone })
}

/// The links of a route with several next hops.
fn hops(mut rest: &[u8]) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let index = u32_at(rest, 4)?;
        if length < NEXTHOP_HEADER {
            return None;
        }
        rest = rest.get(aligned(length)..).unwrap_or(&[]);
        Some(index)
    })
}

/// Type and value of each attribute.
fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (length, kind) = (usize::from(u16_at(rest, 0)?), u16_at(rest, 2)?);
        let value = rest.get(4..length)?;
        rest = rest.get(aligned(length)..).unwrap_or(&[]);
        // The two upper bits say how the value is built.
        Some((kind & 0x3fff, value))
    })
}

fn text(value: &[u8]) -> Option<LinkName> {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    let name = std::str::from_utf8(value.get(..end)?).ok()?;
    name.parse().ok()
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(value) {
        return Some(Ipv4Addr::from(four).into());
    }
    let sixteen = <[u8; 16]>::try_from(value).ok()?;
    Some(Ipv6Addr::from(sixteen).into())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let two = bytes.get(at..at + 2)?.try_into().ok()?;
    Some(u16::from_ne_bytes(two))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_ne_bytes(four))
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
#[path = "wire/tests.rs"]
pub(super) mod tests;
