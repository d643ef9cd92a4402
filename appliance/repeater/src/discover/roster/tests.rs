//! The roster in virtual time: one test for each rule of its essay, and whatever else may happen in any order.

#![allow(clippy::unwrap_used, reason = "tests")]
use std::time::Duration;

use proptest::prelude::*;
use protocol::ids::{CameraId, Incarnation};

use super::*;
use crate::discover::Bay;

const DOCK: LinkIndex = 2;
const AIR: LinkIndex = 3;
const VLAN: LinkIndex = 4;

fn began() -> Instant {
    link::clock::Clock::system().instant()
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn roster() -> Roster {
    Roster::new(&Settings::default())
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn camera(n: u8) -> CameraId {
    CameraId {
        serial: format!("C{n}").parse().unwrap(),
        incarnation: Incarnation([n; 16]),
    }
}

fn mac(n: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, n])
}

fn seen(address: SocketAddr, link: LinkIndex, source: Source, news: Option<u64>) -> Sighting {
    let link = Some(link);
    Sighting::Seen {
        address,
        link,
        source,
        news,
    }
}

fn link(index: LinkIndex, state: LinkState) -> Sighting {
    let (name, medium) = match index {
        DOCK => ("eth1", Medium::Dock { bay: bay() }),
        AIR => ("wlan0", Medium::Wireless),
        _ => ("vlan7", Medium::Other),
    };
    let name = name.parse().unwrap();
    Sighting::Link {
        link: Link { index, name },
        state,
        medium,
    }
}

fn bay() -> Option<Bay> {
    Some("A1".parse().unwrap())
}

fn station(n: u8, presence: Presence, signal: i8) -> Sighting {
    Sighting::Station {
        link: AIR,
        mac: mac(n),
        presence,
        signal: Some(signal),
        inactive: Duration::ZERO,
    }
}

fn neighbour(n: u8, address: SocketAddr) -> Sighting {
    Sighting::Neighbour {
        link: AIR,
        mac: mac(n),
        ip: address.ip(),
    }
}

fn air(roster: &Roster, address: SocketAddr) -> (Option<i8>, bool) {
    match roster.reach(address) {
        Reach::Nearby { signal, good } => (signal, good),
        docked => panic!("{docked:?}"),
    }
}

/// A session at that address, from dial to greeting.
fn serve(roster: &mut Roster, address: SocketAddr, who: &CameraId, now: Instant) -> Seat {
    assert_eq!(roster.dials(now), [address]);
    roster.greeted(address, who, now)
}

#[test]
fn one_camera_on_two_paths_is_one_and_moves_to_the_wire() {
    let (mut r, now) = (roster(), began());
    let (wifi, wire) = (at("10.0.0.7:47800"), at("[fe80::7%2]:47800"));
    r.apply(link(AIR, LinkState::Up), now);
    r.apply(seen(wifi, AIR, Source::Announced, Some(1)), now);
    assert_eq!(serve(&mut r, wifi, &camera(1), now), Seat::After(vec![]));
    assert!(!r.standing(wifi).reach.is_docked());

    r.apply(link(DOCK, LinkState::Up), now);
    r.apply(seen(wire, DOCK, Source::Neighbour, None), now);
    assert_eq!(r.reach(wire), Reach::Docked { bay: bay() });
    assert_eq!(
        serve(&mut r, wire, &camera(1), now),
        Seat::After(vec![wifi])
    );
    assert_eq!(r.standing(wifi).leave, Some(Leave::Elsewhere));
    assert_eq!(r.standing(wire).leave, None);
    r.ended(wifi, Tried::Again(seconds(5)), now);
    let near = r.near(now);
    assert_eq!(near.len(), 1);
    assert_eq!((near[0].address, near[0].connected), (wire, true));
    // While the wire lives the air is not dialled, however long.
    r.lives(wire, now + seconds(60));
    assert_eq!(r.dials(now + seconds(60)), []);
    // Without the wire it is dialled at once.
    let later = now + seconds(61);
    r.apply(link(DOCK, LinkState::Down), later);
    assert_eq!(r.standing(wire).leave, Some(Leave::Gone));
    r.ended(wire, Tried::Again(seconds(5)), later);
    assert_eq!(r.dials(later), [wifi]);
}

#[test]
fn the_present_path_stays_among_equals_until_it_is_silent() {
    let (mut r, now) = (roster(), began());
    let (four, six) = (at("10.0.0.7:47800"), at("[fe80::7%4]:47800"));
    r.apply(seen(four, VLAN, Source::Announced, None), now);
    assert_eq!(serve(&mut r, four, &camera(1), now), Seat::After(vec![]));
    r.apply(seen(six, VLAN, Source::Announced, None), now);
    assert_eq!(serve(&mut r, six, &camera(1), now), Seat::Elsewhere);
    r.ended(six, Tried::Again(seconds(5)), now);
    r.lives(four, now + seconds(6));
    assert_eq!(r.dials(now + seconds(10)), [], "it lives");
    assert_eq!(r.dials(now + seconds(11)), [six], "it is silent");
    let seat = r.greeted(six, &camera(1), now + seconds(11));
    assert_eq!(seat, Seat::After(vec![four]));
}

#[test]
fn a_link_takes_its_paths_with_it_and_brings_them_back_at_once() {
    let (mut r, now) = (roster(), began());
    let here = at("10.0.0.7:47800");
    r.apply(link(DOCK, LinkState::Up), now);
    r.apply(seen(here, DOCK, Source::Announced, None), now);
    assert_eq!(r.dials(now), [here]);
    r.ended(here, Tried::Again(seconds(5)), now);
    r.apply(link(DOCK, LinkState::Down), now);
    assert_eq!(r.dials(now + seconds(9)), [], "nobody is there");
    assert_eq!(r.next_due(now + seconds(9)), None);
    assert_eq!(r.devices(), []);
    r.ended(here, Tried::Again(seconds(5)), now + seconds(9));
    r.apply(link(DOCK, LinkState::Up), now + seconds(10));
    assert_eq!(r.dials(now + seconds(10)), [here]);
    assert_eq!(r.pause(here), Duration::ZERO);
    r.ended(here, Tried::Again(seconds(5)), now + seconds(10));
    r.apply(link(DOCK, LinkState::Renamed), now + seconds(11));
    r.apply(link(DOCK, LinkState::Up), now + seconds(11));
    assert_eq!(r.dials(now + seconds(12)), [], "a name changes nothing");
    r.apply(link(DOCK, LinkState::Removed), now + seconds(13));
    assert_eq!(r.dials(now + seconds(99)), []);
}

#[test]
fn a_station_meets_its_address_by_its_mac_and_its_signal_has_hysteresis() {
    let (mut r, now) = (roster(), began());
    let here = at("10.0.0.7:47800");
    r.apply(link(AIR, LinkState::Up), now);
    r.apply(station(7, Presence::Associated, -70), now);
    r.apply(neighbour(7, here), now);
    r.apply(seen(here, AIR, Source::Announced, None), now);
    assert_eq!(air(&r, here), (Some(-70), false), "not yet good enough");
    for (signal, good) in [(-67, true), (-75, true), (-76, false), (-68, false)] {
        r.apply(station(7, Presence::Associated, signal), now);
        assert_eq!(air(&r, here), (Some(signal), good), "{signal}");
    }
    assert_eq!(r.dials(now), [here]);
    r.apply(station(7, Presence::Left, -90), now);
    assert_eq!(r.standing(here).leave, Some(Leave::Gone));
    r.ended(here, Tried::Again(seconds(5)), now);
    assert_eq!(r.dials(now + seconds(9)), [], "it left");
    r.apply(station(7, Presence::Associated, -60), now + seconds(9));
    assert_eq!(r.dials(now + seconds(9)), [here], "it is back");
}

#[test]
fn a_station_that_moved_to_another_bss_did_not_leave() {
    let (mut r, now) = (roster(), began());
    let here = at("10.0.0.7:47800");
    r.apply(neighbour(7, here), now);
    r.apply(seen(here, AIR, Source::Announced, None), now);
    let there = |presence| Sighting::Station {
        link: 9,
        mac: mac(7),
        presence,
        signal: Some(-50),
        inactive: Duration::ZERO,
    };
    r.apply(station(7, Presence::Associated, -70), now);
    r.apply(there(Presence::Associated), now);
    r.apply(station(7, Presence::Left, -70), now);
    assert_eq!(air(&r, here), (Some(-50), true));
    assert_eq!(r.dials(now), [here]);
}

#[test]
fn an_idle_nearby_camera_sleeps_until_its_news_its_association_or_a_better_signal() {
    let (mut r, now) = (roster(), began());
    let here = at("10.0.0.7:47800");
    r.apply(neighbour(7, here), now);
    r.apply(station(7, Presence::Associated, -74), now);
    r.apply(seen(here, AIR, Source::Announced, Some(1)), now);
    let mut at = now;
    let sleeps = |r: &mut Roster, at: Instant| {
        assert_eq!(r.dials(at), [here]);
        r.greeted(here, &camera(1), at);
        r.ended(here, Tried::Idle, at);
        assert_eq!(r.dials(at + seconds(60)), []);
        assert!(!r.near(at)[0].connected, "it is here, and sleeps");
        at + seconds(60)
    };
    at = sleeps(&mut r, at);
    r.apply(seen(here, AIR, Source::Announced, Some(1)), at);
    assert_eq!(r.dials(at), [], "that is no news");
    r.apply(seen(here, AIR, Source::Announced, Some(2)), at);
    at = sleeps(&mut r, at);
    r.apply(station(7, Presence::Left, -74), at);
    assert_eq!(r.near(at), [], "it left");
    r.apply(station(7, Presence::Associated, -74), at);
    at = sleeps(&mut r, at);
    r.apply(station(7, Presence::Associated, -60), at);
    at = sleeps(&mut r, at);
    // News that came as it was closed are not lost.
    at += limits::REST;
    assert_eq!(r.dials(at), [here]);
    r.apply(seen(here, AIR, Source::Announced, Some(3)), at);
    r.ended(here, Tried::Idle, at);
    assert_eq!(r.dials(at), [here]);
}

#[test]
fn flapping_is_damped_and_delays_no_first_dial() {
    let (mut r, now) = (roster(), began());
    let here = at("[fe80::7%2]:47800");
    let mut dials = 0;
    for tenth in 0..600 {
        let now = now + Duration::from_millis(100) * tenth;
        r.apply(link(DOCK, LinkState::Up), now);
        r.apply(seen(here, DOCK, Source::Neighbour, None), now);
        let dialled = r.dials(now);
        assert!(tenth > 0 || dialled == [here], "the first is at once");
        dials += dialled.len();
        r.apply(link(DOCK, LinkState::Down), now);
        dialled
            .iter()
            .for_each(|a| r.ended(*a, Tried::Again(Duration::ZERO), now));
    }
    assert!((3..=30).contains(&dials), "{dials} dials in a minute");
    // Once it stays, so is the dial.
    let later = now + seconds(90);
    r.apply(link(DOCK, LinkState::Up), later);
    r.apply(seen(here, DOCK, Source::Neighbour, None), later);
    assert_eq!(r.dials(later), [here]);
}

#[test]
fn who_is_refused_is_listed_and_tried_ever_more_rarely_and_blocks_nobody() {
    let (mut r, now) = (roster(), began());
    let rogue = at("10.0.0.66:47800");
    r.apply(link(VLAN, LinkState::Up), now);
    r.apply(seen(rogue, VLAN, Source::Announced, None), now);
    let mut dials = 0;
    for second in 0..3600 {
        let now = now + seconds(second);
        for address in r.dials(now) {
            dials += 1;
            r.ended(address, Tried::Refused("revoked"), now);
        }
    }
    assert!((5..=8).contains(&dials), "{dials} dials in an hour");
    let listed = &r.devices()[0];
    assert_eq!(
        (listed.refused, listed.link),
        (Some("revoked"), Some("vlan7".parse().unwrap()))
    );
    assert_eq!(r.near(now), []);
    let honest = at("10.0.0.7:47800");
    r.apply(seen(honest, VLAN, Source::Announced, None), now);
    assert_eq!(r.dials(now), [honest]);
}

#[test]
fn ten_thousand_invented_announcements_keep_nobody_out() {
    let (mut r, now) = (roster(), began());
    let (known, wired, fixed, late) = (
        at("10.0.0.7:47800"),
        at("[fe80::7%2]:47800"),
        at("192.0.2.9:47800"),
        at("10.0.0.8:47800"),
    );
    r.apply(seen(known, VLAN, Source::Announced, None), now);
    serve(&mut r, known, &camera(1), now);
    for n in 0..10_000_u32 {
        let [_, _, b, c] = n.to_be_bytes();
        let invented = SocketAddr::from(([10, 9, b, c], 47_800));
        r.apply(seen(invented, VLAN, Source::Announced, None), now);
        assert!(r.dials(now).len() <= limits::UNPROVEN_DIALS);
    }
    for port in 0..10_000 {
        let one_host = SocketAddr::from(([10, 8, 0, 1], port));
        r.apply(seen(one_host, VLAN, Source::Announced, None), now);
    }
    assert!(r.paths.len() <= limits::SIGHTINGS);
    let of_it = |a: &&SocketAddr| a.ip() == at("10.8.0.1:1").ip();
    assert!(r.paths.keys().filter(of_it).count() <= limits::ADDRESS_PORTS);
    r.apply(link(DOCK, LinkState::Up), now);
    r.apply(seen(wired, DOCK, Source::Neighbour, None), now);
    r.apply(seen(fixed, VLAN, Source::Static, None), now);
    let mut dialled = r.dials(now);
    dialled.sort();
    assert_eq!(dialled, [fixed, wired], "no announcement delays them");
    assert_eq!(r.near(now)[0].camera, camera(1));
    // One that is announced after them is tried as soon as any is.
    r.apply(seen(late, VLAN, Source::Announced, None), now + seconds(1));
    let other = |(a, p): &(&SocketAddr, &Path)| p.is_at_work() && a.ip() != known.ip();
    let one = *r.paths.iter().find(other).unwrap().0;
    r.ended(one, Tried::Again(seconds(5)), now + seconds(5));
    assert_eq!(r.dials(now + seconds(5)), [late]);
}

#[test]
fn a_guarded_port_that_loses_its_cable_loses_its_station_though_hostapd_says_nothing() {
    let (mut r, now) = (roster(), began());
    // The camera's address is on the bridge; its port is a dock's, and hostapd's.
    let here = at("10.0.0.7:47800");
    let authorised = |presence| Sighting::Station {
        link: DOCK,
        mac: mac(7),
        presence,
        signal: None,
        inactive: Duration::ZERO,
    };
    let on_bridge = Sighting::Neighbour {
        link: VLAN,
        mac: mac(7),
        ip: here.ip(),
    };
    r.apply(link(VLAN, LinkState::Up), now);
    r.apply(link(DOCK, LinkState::Up), now);
    r.apply(authorised(Presence::Associated), now);
    r.apply(on_bridge, now);
    r.apply(seen(here, VLAN, Source::Announced, None), now);
    assert_eq!(r.reach(here), Reach::Docked { bay: bay() });
    serve(&mut r, here, &camera(1), now);
    r.apply(link(DOCK, LinkState::Down), now);
    assert_eq!(r.standing(here).leave, Some(Leave::Gone));
    r.ended(here, Tried::Again(Duration::ZERO), now);
    assert_eq!(r.dials(now + seconds(9)), [], "nobody is there");
    r.apply(link(DOCK, LinkState::Up), now + seconds(10));
    assert_eq!(r.dials(now + seconds(10)), [], "not yet authorised");
    r.apply(authorised(Presence::Associated), now + seconds(11));
    assert_eq!(r.dials(now + seconds(11)), [here]);
}

/// Anything that can happen, on few enough of everything that it meets.
fn happenings() -> impl Strategy<Value = Vec<(u8, u8, u8, i8, u64)>> {
    proptest::collection::vec(
        (0..12_u8, 0..6_u8, 0..4_u8, -90..-40_i8, 0..8_000_u64),
        1..200,
    )
}

fn sight(kind: u8, which: u8, value: u8, signal: i8) -> Option<Sighting> {
    let links = [DOCK, AIR, VLAN];
    let index = links[usize::from(which) % 3];
    let address = SocketAddr::from(([10, 0, 0, which], 47_800));
    let sources = [
        Source::Announced,
        Source::Neighbour,
        Source::Station,
        Source::Static,
    ];
    let source = sources[usize::from(value)];
    let states = [
        LinkState::Up,
        LinkState::Down,
        LinkState::Removed,
        LinkState::Renamed,
    ];
    Some(match kind {
        0 | 1 => seen(address, index, source, Some(signal.unsigned_abs().into())),
        2 => Sighting::Gone { address, source },
        3 => link(index, states[usize::from(value)]),
        4 => station(which, Presence::Associated, signal),
        5 => station(which, Presence::Left, signal),
        6 => neighbour(which, address),
        _ => return None,
    })
}

proptest! {
    #[test]
    fn whatever_happens_each_camera_is_served_once_and_on_its_best_path(all in happenings()) {
        let (mut r, mut now) = (roster(), began());
        let mut dialling: Vec<SocketAddr> = Vec::new();
        let mut seated: Vec<SocketAddr> = Vec::new();
        for (kind, which, value, signal, ms) in all {
            now += Duration::from_millis(ms);
            let pick = usize::from(which);
            if let Some(sighting) = sight(kind, which, value, signal) {
                r.apply(sighting, now);
            } else if kind < 9 && !dialling.is_empty() {
                let address = dialling.swap_remove(pick % dialling.len());
                let docked = r.reach(address).is_docked();
                match r.greeted(address, &camera(value), now) {
                    Seat::Elsewhere => r.ended(address, Tried::Again(seconds(5)), now),
                    Seat::After(others) => {
                        for other in others {
                            prop_assert!(docked || !r.reach(other).is_docked()
                                || !r.paths[&other].is_lively(now));
                            prop_assert_eq!(r.standing(other).leave, Some(Leave::Elsewhere));
                            seated.retain(|a| *a != other);
                            r.ended(other, Tried::Again(seconds(5)), now);
                        }
                        seated.push(address);
                    }
                }
            } else if kind == 9 && !seated.is_empty() {
                r.ended(seated.swap_remove(pick % seated.len()), Tried::Idle, now);
            } else if kind == 10 && !dialling.is_empty() {
                r.ended(dialling.swap_remove(0), Tried::Refused("revoked"), now);
            } else {
                seated.iter().for_each(|a| r.lives(*a, now));
            }
            // What the shell does at once when it is told.
            let gone: Vec<_> = seated.extract_if(.., |a| r.standing(*a).leave.is_some()).collect();
            for gone in gone {
                r.ended(gone, Tried::Again(seconds(1)), now);
            }
            for address in r.dials(now) {
                prop_assert!(!dialling.contains(&address) && !seated.contains(&address));
                prop_assert!(r.is_seen(address));
                let down = |l: &LinkIndex| r.links.get(l).is_some_and(|l| !l.up);
                prop_assert!(!r.paths[&address].link.is_some_and(|l| down(&l)));
                dialling.push(address);
            }
            let near = r.near(now);
            let mut cameras: Vec<_> = near.iter().map(|n| n.camera.clone()).collect();
            cameras.dedup();
            prop_assert_eq!(cameras.len(), near.len());
            for n in near.iter().filter(|n| n.connected) {
                let sessions = seated.iter()
                    .filter(|a| r.paths[*a].camera.as_ref() == Some(&n.camera));
                prop_assert_eq!(sessions.count(), 1);
            }
            if let Some(due) = r.next_due(now) {
                prop_assert!(due > now);
            }
        }
    }
}
