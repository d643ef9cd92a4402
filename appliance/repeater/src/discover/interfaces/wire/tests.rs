//! Messages as the kernel writes them, and ones that it never would.

#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

/// One message: header, body, attributes.
pub(in crate::discover::interfaces) fn message(
    kind: u16,
    sequence: u32,
    body: &[u8],
    attributes: &[(u16, &[u8])],
) -> Vec<u8> {
    let mut all = body.to_vec();
    for (kind, value) in attributes {
        let length = u16::try_from(value.len() + 4).unwrap();
        all.extend(length.to_ne_bytes());
        all.extend(kind.to_ne_bytes());
        all.extend(*value);
        all.resize(all.len().next_multiple_of(4), 0);
    }
    let length = u32::try_from(all.len() + NLMSG_HEADER).unwrap();
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(0u16.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0u32.to_ne_bytes());
    bytes.extend(all);
    bytes
}

fn link_body(index: u32, flags: i32) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body.extend([0; 4]);
    body
}

const UP: i32 = libc::IFF_UP | libc::IFF_LOWER_UP;

fn link_message(flags: i32, operstate: u8) -> Vec<u8> {
    let attributes: [(u16, &[u8]); 4] = [
        (libc::IFLA_IFNAME, b"dock1\0"),
        (libc::IFLA_OPERSTATE, &[operstate]),
        (libc::IFLA_MASTER, &9u32.to_ne_bytes()),
        (libc::IFLA_CARRIER_DOWN_COUNT, &3u32.to_ne_bytes()),
    ];
    message(libc::RTM_NEWLINK, 0, &link_body(4, flags), &attributes)
}

fn only(bytes: &[u8]) -> Option<Message> {
    let mut all = messages(bytes);
    let first = all.next();
    assert_eq!(all.next(), None);
    first
}

fn carrier(bytes: &[u8]) -> bool {
    match only(bytes) {
        Some(Message::Link(news)) => news.carrier,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_link_is_read_with_its_carrier() {
    let news = LinkNews {
        link: Link {
            index: 4,
            name: "dock1".parse().unwrap(),
        },
        carrier: true,
        loopback: false,
        master: Some(9),
        carrier_losses: 3,
    };
    assert_eq!(only(&link_message(UP, 6)), Some(Message::Link(news)));
    assert!(carrier(&link_message(UP, 0)), "unknown, as of USB");
    assert!(carrier(&link_message(UP, 5)), "dormant: not yet authorised");
    assert!(!carrier(&link_message(libc::IFF_UP, 2)), "no cable");
    assert!(!carrier(&link_message(libc::IFF_LOWER_UP, 6)), "shut down");
    assert!(!carrier(&link_message(UP, 3)), "what it stands on is down");
    let gone = message(libc::RTM_DELLINK, 0, &link_body(4, 0), &[]);
    assert_eq!(only(&gone), Some(Message::LinkGone(4)));
    // A port that leaves its bridge is no link that goes.
    let mut left = gone;
    left[NLMSG_HEADER] = u8::try_from(libc::AF_BRIDGE).unwrap();
    assert_eq!(only(&left), None);
}

#[test]
fn an_address_is_read_with_its_prefix_and_trial() {
    let mut body = vec![10, 64, 0x80, 0];
    body.extend(4u32.to_ne_bytes());
    let ip: Ipv6Addr = "fe80::1".parse().unwrap();
    let octets = ip.octets();
    let say = |flags: u32, kind| {
        let flags = flags.to_ne_bytes();
        let attributes: [(u16, &[u8]); 2] =
            [(libc::IFA_ADDRESS, &octets), (libc::IFA_FLAGS, &flags)];
        only(&message(kind, 0, &body, &attributes)).unwrap()
    };
    let prefix = Prefix {
        own: ip.into(),
        bits: 64,
    };
    for (flags, kind, tentative, gone) in [
        (0, libc::RTM_NEWADDR, false, false),
        (libc::IFA_F_TENTATIVE, libc::RTM_NEWADDR, true, false),
        (
            libc::IFA_F_TENTATIVE | libc::IFA_F_OPTIMISTIC,
            libc::RTM_NEWADDR,
            false,
            false,
        ),
        (0, libc::RTM_DELADDR, false, true),
    ] {
        let index = 4;
        let is = Message::Address {
            index,
            prefix,
            tentative,
            gone,
        };
        assert_eq!(say(flags, kind), is);
    }
}

#[test]
fn a_neighbour_counts_while_somebody_is_known_to_have_the_address() {
    let say = |family: i32, state: u16, kind| {
        let mut body = vec![u8::try_from(family).unwrap(), 0, 0, 0];
        body.extend(4u32.to_ne_bytes());
        body.extend(state.to_ne_bytes());
        body.extend([0, 0]);
        let mac: &[u8] = &[2, 0, 0, 0, 0, 7];
        let ip = [10, 7, 0, 9];
        let attributes: [(u16, &[u8]); 2] = [(NDA_DST, &ip), (NDA_LLADDR, mac)];
        let from = if family == libc::AF_BRIDGE { 1 } else { 0 };
        only(&message(kind, 0, &body, &attributes[from..]))
    };
    let known = |mac| {
        Some(Message::Neighbour {
            index: 4,
            address: "10.7.0.9".parse().unwrap(),
            mac,
        })
    };
    let mac = Mac([2, 0, 0, 0, 0, 7]);
    for state in [libc::NUD_REACHABLE, libc::NUD_STALE, libc::NUD_PERMANENT] {
        let said = say(libc::AF_INET, state, libc::RTM_NEWNEIGH);
        assert_eq!(said, known(Some(mac)));
    }
    for state in [libc::NUD_INCOMPLETE, libc::NUD_FAILED, libc::NUD_NOARP] {
        let said = say(libc::AF_INET, state, libc::RTM_NEWNEIGH);
        assert_eq!(said, known(None));
    }
    let gone = say(libc::AF_INET, libc::NUD_STALE, libc::RTM_DELNEIGH);
    assert_eq!(gone, known(None));
    for (kind, gone) in [(libc::RTM_NEWNEIGH, false), (libc::RTM_DELNEIGH, true)] {
        let said = say(libc::AF_BRIDGE, libc::NUD_REACHABLE, kind);
        assert_eq!(said, Some(Message::Behind { port: 4, mac, gone }));
    }
    let own = say(libc::AF_BRIDGE, libc::NUD_PERMANENT, libc::RTM_NEWNEIGH);
    assert_eq!(own, None, "the port's own address");
}

#[test]
fn only_default_routes_are_read_with_all_their_links() {
    let say = |bits: u8, kind: u8, attributes: &[(u16, &[u8])]| {
        let body = [2, bits, 0, 0, 254, 0, 0, kind, 0, 0, 0, 0];
        only(&message(libc::RTM_NEWROUTE, 0, &body, attributes))
    };
    let oif: (u16, &[u8]) = (libc::RTA_OIF, &5u32.to_ne_bytes());
    let metric: (u16, &[u8]) = (libc::RTA_PRIORITY, &100u32.to_ne_bytes());
    let route = |links: &[u32], metric| {
        let route = Route {
            v6: false,
            table: 254,
            metric,
            links: links.to_vec(),
        };
        Some(Message::Route { route, gone: false })
    };
    assert_eq!(say(0, 1, &[oif, metric]), route(&[5], 100));
    assert_eq!(say(24, 1, &[oif]), None, "a link's own prefix");
    assert_eq!(say(0, 7, &[oif]), None, "unreachable");
    assert_eq!(say(0, 1, &[]), None);
    let mut hops = Vec::new();
    for index in [5u32, 6] {
        hops.extend(8u16.to_ne_bytes());
        hops.extend([0, 0]);
        hops.extend(index.to_ne_bytes());
    }
    let several = say(0, 1, &[(libc::RTA_MULTIPATH, &hops)]);
    assert_eq!(several, route(&[5, 6], 0));
}

#[test]
fn what_ends_or_refuses_a_question_names_it() {
    let done = message(3, 7, &[0; 4], &[]);
    let torn = {
        let mut bytes = done.clone();
        bytes[6] = 0x10;
        bytes
    };
    let refused = message(2, 7, &(-95i32).to_ne_bytes(), &[]);
    let sequence = 7;
    assert_eq!(
        only(&done),
        Some(Message::Done {
            sequence,
            torn: false
        })
    );
    assert_eq!(
        only(&torn),
        Some(Message::Done {
            sequence,
            torn: true
        })
    );
    let errno = 95;
    assert_eq!(only(&refused), Some(Message::Refused { sequence, errno }));
    assert_eq!(only(&message(2, 7, &[0; 4], &[])), None, "no error");
}

#[test]
fn several_messages_come_in_one_datagram() {
    let two = [link_message(UP, 6), link_message(libc::IFF_UP, 2)].concat();
    assert_eq!(messages(&two).count(), 2);
    // What claims to be longer than it is ends it.
    let cut = &two[..two.len() - 4];
    assert_eq!(messages(cut).count(), 1);
}

#[test]
fn prefixes_hold_what_is_in_them() {
    let prefix = |own: &str, bits| Prefix {
        own: own.parse().unwrap(),
        bits,
    };
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    assert!(prefix("10.7.0.1", 24).contains(ip("10.7.0.255")));
    assert!(!prefix("10.7.0.1", 24).contains(ip("10.7.1.1")));
    assert!(prefix("10.7.0.1", 32).contains(ip("10.7.0.1")));
    assert!(!prefix("10.7.0.1", 32).contains(ip("10.7.0.2")));
    assert!(prefix("10.7.0.1", 0).contains(ip("192.0.2.1")));
    assert!(prefix("fd07::1", 64).contains(ip("fd07::2")));
    assert!(!prefix("fd07::1", 64).contains(ip("fd08::2")));
    assert!(!prefix("10.7.0.1", 0).contains(ip("fd07::2")));
    assert!(prefix("10.7.0.1", 255).contains(ip("10.7.0.1")));
}

proptest! {
    #[test]
    fn no_bytes_are_too_strange(bytes: Vec<u8>) {
        messages(&bytes).for_each(drop);
    }

    #[test]
    fn nor_are_true_messages_with_some_bytes_changed(
        changes in proptest::collection::vec((0usize..200, any::<u8>()), 1..8)
    ) {
        let mut bytes = [link_message(UP, 6), message(3, 1, &[0; 4], &[])].concat();
        for (at, byte) in changes {
            let length = bytes.len();
            bytes[at % length] = byte;
        }
        messages(&bytes).for_each(drop);
    }
}
