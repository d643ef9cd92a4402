//! Who is on a link: echoes to all nodes (ICMPv6, ff02::1) and their answers. A pure schedule and a parser.
//!
//! A camera on a dock's cable has a link-local address and nothing that says which. So while a dock's link has
//! carrier it is asked, soon at first and then ever more seldom; who answers is seen at SPEC's default port. Once
//! somebody answered it is asked a few times more, since a switch's own address may answer before the camera does, and
//! then seldom: who does not answer several times is gone. Elsewhere nobody is asked but for a while after a station
//! came, ever more seldom: it, or the access point's own link, may take seconds to have an address that is nobody else's
//! (RFC 4862 section 5.4), and what it announces may be lost on the air.
//!
//! An answer counts if it carries this run's number and comes from a link-local address of a link that was asked.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::time::Instant;

use crate::discover::LinkIndex;
use crate::limits;

const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;
/// Type, code, checksum, identifier, sequence.
const HEADER: usize = 8;

/// Why a link is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It leads to docks.
    Dock,
    /// A station came.
    Station,
}

/// All links that are asked.
#[derive(Debug)]
pub struct Probes {
    number: u64,
    sequence: u16,
    links: BTreeMap<LinkIndex, Probe>,
}

#[derive(Debug)]
struct Probe {
    why: Why,
    /// Questions since it began, or since somebody answered.
    sent: u32,
    due: Option<Instant>,
    /// Who answered, and how many questions ago.
    answered: BTreeMap<Ipv6Addr, u32>,
}

impl Probe {
    fn new(why: Why, now: Instant) -> Self {
        Probe {
            why,
            sent: 0,
            due: Some(now),
            answered: BTreeMap::new(),
        }
    }

    /// A question is sent: when the next one is.
    fn send(&mut self, now: Instant) {
        let (first, longest) = limits::ECHO;
        let pause = first.saturating_mul(1 << self.sent.min(16));
        self.sent = self.sent.saturating_add(1);
        let settled = self.sent >= limits::ECHO_BURST;
        let pause = match self.why {
            Why::Station if self.sent >= limits::ECHO_STATION => None,
            Why::Station => Some(pause),
            Why::Dock if settled && !self.answered.is_empty() => Some(limits::ECHO_ANSWERED),
            Why::Dock => Some(pause.min(longest)),
        };
        self.due = pause.map(|pause| now + pause);
        if self.why == Why::Station && self.sent > limits::ECHO_BURST {
            // For one that was not heard yet: others may sleep by now.
            return;
        }
        self.answered.values_mut().for_each(|since| *since += 1);
        self.answered
            .retain(|_, since| *since <= limits::ECHO_MISSED);
    }
}

impl Probes {
    /// None yet; `number` tells this run's questions from others'.
    #[must_use]
    pub fn new(number: u64) -> Self {
        Probes {
            number,
            sequence: 0,
            links: BTreeMap::new(),
        }
    }

    /// These links lead to docks now. What is new is asked at once; what is no longer among them is forgotten.
    pub fn docks(&mut self, docks: impl Iterator<Item = LinkIndex>, now: Instant) {
        let docks: std::collections::BTreeSet<LinkIndex> = docks.take(limits::ECHO_LINKS).collect();
        self.links
            .retain(|link, probe| probe.why == Why::Station || docks.contains(link));
        for link in docks {
            let probe = self.links.entry(link);
            let probe = probe.or_insert_with(|| Probe::new(Why::Dock, now));
            probe.why = Why::Dock;
        }
    }

    /// Somebody came to a link (a port opened, a station associated, the cable was put back): it is asked at once,
    /// and soon again.
    pub fn hasten(&mut self, link: LinkIndex, why: Why, now: Instant) {
        if self.links.len() >= limits::ECHO_LINKS && !self.links.contains_key(&link) {
            return;
        }
        let probe = self.links.entry(link);
        let probe = probe.or_insert_with(|| Probe::new(why, now));
        (probe.sent, probe.due) = (0, Some(now));
    }

    /// A link lost its carrier: nobody is there.
    pub fn forget(&mut self, link: LinkIndex) {
        self.links.remove(&link);
    }

    /// Forgets the links that are no more.
    pub fn keep(&mut self, is_there: impl Fn(LinkIndex) -> bool) {
        self.links.retain(|link, _| is_there(*link));
    }

    /// The links to ask now, and what to send.
    pub fn due(&mut self, now: Instant) -> Vec<(LinkIndex, Vec<u8>)> {
        let mut due = Vec::new();
        for (link, probe) in &mut self.links {
            if probe.due.is_some_and(|at| at <= now) {
                probe.send(now);
                due.push((*link, self.sequence));
                self.sequence = self.sequence.wrapping_add(1);
            }
        }
        let number = self.number;
        due.into_iter()
            .map(|(link, sequence)| (link, request(number, sequence)))
            .collect()
    }

    /// When the next question is due.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.links.values().filter_map(|p| p.due).min()
    }

    /// Something came from somewhere. Whether it was an answer that counts.
    pub fn answer(&mut self, from: &SocketAddrV6, packet: &[u8]) -> bool {
        if !from.ip().is_unicast_link_local() || !is_reply(packet, self.number) {
            return false;
        }
        let Some(probe) = self.links.get_mut(&from.scope_id()) else {
            return false;
        };
        let room = probe.answered.len() < limits::ECHO_ANSWERS;
        if !room && !probe.answered.contains_key(from.ip()) {
            return false;
        }
        probe.answered.insert(*from.ip(), 0);
        true
    }

    /// Everybody who answers, by the link on which.
    pub fn found(&self) -> impl Iterator<Item = (LinkIndex, Ipv6Addr)> {
        self.links
            .iter()
            .flat_map(|(link, probe)| probe.answered.keys().map(|ip| (*link, *ip)))
    }
}

/// A question. The kernel sets the checksum, and on an unprivileged socket the identifier.
fn request(number: u64, sequence: u16) -> Vec<u8> {
    let mut bytes = vec![ECHO_REQUEST, 0, 0, 0, 0, 0];
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(number.to_be_bytes());
    bytes
}

/// Whether a packet answers somebody's echo: a raw socket hears all else that ICMPv6 carries, too.
#[must_use]
pub fn is_answer(packet: &[u8]) -> bool {
    packet.first() == Some(&ECHO_REPLY)
}

fn is_reply(packet: &[u8], number: u64) -> bool {
    is_answer(packet)
        && packet.get(1) == Some(&0)
        && packet.get(HEADER..) == Some(&number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn now() -> Instant {
        link::clock::Clock::system().instant()
    }

    fn from(ip: &str, link: LinkIndex) -> SocketAddrV6 {
        SocketAddrV6::new(ip.parse().unwrap(), 0, 0, link)
    }

    fn reply(number: u64) -> Vec<u8> {
        let mut packet = request(number, 7);
        packet[0] = ECHO_REPLY;
        packet
    }

    /// Milliseconds after the start at which a link is asked, for a while.
    fn asked(probes: &mut Probes, start: Instant, ms: u64) -> Vec<u64> {
        let mut times = Vec::new();
        while let Some(at) = probes.next() {
            if at > start + Duration::from_millis(ms) {
                break;
            }
            assert_eq!(probes.due(at).len(), 1);
            times.push(u64::try_from((at - start).as_millis()).unwrap());
        }
        times
    }

    #[test]
    fn a_dock_is_asked_soon_and_then_ever_more_seldom() {
        let (mut probes, start) = (Probes::new(1), now());
        probes.docks([3].into_iter(), start);
        assert_eq!(
            asked(&mut probes, start, 10_000),
            [0, 100, 300, 700, 1_500, 3_100, 6_300, 9_500]
        );
        // Said again it changes nothing; without carrier it is not asked.
        probes.docks([3].into_iter(), start);
        assert!(probes.next().unwrap() > start + Duration::from_secs(9));
        probes.docks([].into_iter(), start);
        assert_eq!(probes.next(), None);
    }

    #[test]
    fn who_answers_is_there_until_it_does_not_several_times() {
        let (mut probes, start) = (Probes::new(1), now());
        probes.docks([3].into_iter(), start);
        probes.due(start);
        assert!(probes.answer(&from("fe80::7", 3), &reply(1)));
        let found: Vec<_> = probes.found().collect();
        assert_eq!(found, [(3, "fe80::7".parse().unwrap())]);
        for _ in 0..limits::ECHO_MISSED {
            probes.due(probes.next().unwrap());
            assert_eq!(probes.found().count(), 1);
        }
        let next = probes.next().unwrap();
        assert!(next > start + limits::ECHO_ANSWERED, "asked seldom");
        probes.due(probes.next().unwrap());
        assert_eq!(probes.found().count(), 0);
    }

    #[test]
    fn a_station_that_comes_has_its_link_asked_for_most_of_a_minute() {
        let (mut probes, start) = (Probes::new(1), now());
        probes.hasten(5, Why::Station, start);
        probes.due(start);
        assert!(probes.answer(&from("fe80::7", 5), &reply(1)));
        let times = asked(&mut probes, start, 1_000_000);
        assert_eq!(
            times,
            [100, 300, 700, 1_500, 3_100, 6_300, 12_700, 25_500, 51_100]
        );
        assert_eq!(probes.found().count(), 1, "who sleeps by then stays");
        probes.hasten(5, Why::Station, start + Duration::from_secs(60));
        assert!(probes.next().is_some(), "the next one, too");
        probes.keep(|link| link != 5);
        assert_eq!(probes.next(), None, "there is no such link any more");
    }

    #[test]
    fn only_an_answer_to_our_question_on_a_link_that_was_asked_counts() {
        let (mut probes, start) = (Probes::new(1), now());
        probes.docks([3].into_iter(), start);
        assert!(!probes.answer(&from("fe80::7", 4), &reply(1)), "not asked");
        assert!(!probes.answer(&from("fe80::7", 3), &reply(2)), "not ours");
        assert!(!probes.answer(&from("2001:db8::7", 3), &reply(1)), "far");
        assert!(!probes.answer(&from("fe80::7", 3), &request(1, 7)), "asks");
        assert!(!probes.answer(&from("fe80::7", 3), &reply(1)[..12]));
        assert!(probes.answer(&from("fe80::7", 3), &reply(1)));
    }

    #[test]
    fn one_who_answers_as_many_takes_bounded_room_and_no_link_of_others() {
        let (mut probes, start) = (Probes::new(1), now());
        probes.docks([3, 4].into_iter(), start);
        for n in 0..10_000u128 {
            let ip = Ipv6Addr::from_bits((0xfe80 << 112) + n);
            probes.answer(&SocketAddrV6::new(ip, 0, 0, 3), &reply(1));
        }
        assert_eq!(probes.found().count(), limits::ECHO_ANSWERS);
        assert!(probes.answer(&from("fe80::7", 4), &reply(1)));
    }

    proptest! {
        #[test]
        fn no_packet_but_an_answer_counts(packet: Vec<u8>) {
            let mut probes = Probes::new(0x1234_5678_9abc_def0);
            probes.docks([3].into_iter(), now());
            prop_assert!(!probes.answer(&from("fe80::7", 3), &packet));
        }
    }
}
