//! What follows from what the kernel told, and what the roster is owed of it.

#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::super::told::{Now, Told};
use super::*;
use crate::discover::settings::{By, Dock};
use crate::discover::{LinkState, Sighting, Source};

fn settings() -> Settings {
    Settings {
        docks: vec![
            Dock {
                by: By::Name("dock*".into()),
                bay: None,
            },
            Dock {
                by: By::Path("*/1-1.2/*".into()),
                bay: Some("A2".parse().unwrap()),
            },
        ],
        ..Settings::default()
    }
}

fn link(index: LinkIndex, name: &str, carrier: bool, losses: u32) -> Message {
    Message::Link(LinkNews {
        link: Link {
            index,
            name: name.parse().unwrap(),
        },
        carrier,
        loopback: name == "lo",
        master: None,
        carrier_losses: losses,
    })
}

fn route(link: LinkIndex) -> Route {
    Route {
        v6: false,
        table: 254,
        metric: 0,
        links: vec![link],
    }
}

fn neighbour(index: LinkIndex, ip: &str, mac: u8) -> Message {
    Message::Neighbour {
        index,
        address: ip.parse().unwrap(),
        mac: Some(Mac([2, 0, 0, 0, 0, mac])),
    }
}

fn now(table: &Table, settings: &Settings) -> Now {
    let links = table.usable(settings);
    let neighbours = table.neighbours(&links);
    Now {
        links,
        neighbours,
        ..Now::default()
    }
}

/// Everything owed, told; links as `name state`.
fn tell(told: &mut Told, table: &Table) -> Vec<String> {
    let now = now(table, &settings());
    told.settle(&now);
    let mut all = Vec::new();
    while let Some(owed) = told.owed(&now) {
        told.tell(&owed, &now);
        all.push(match owed {
            Sighting::Link { link, state, .. } => format!("{} {state:?}", link.name),
            Sighting::Neighbour { mac, ip, .. } => format!("{ip} {mac}"),
            other => format!("{other:?}"),
        });
    }
    all
}

#[test]
fn the_wan_the_loopback_and_what_is_not_named_are_not_used() {
    let mut table = Table::default();
    for (index, name) in [(1, "lo"), (2, "wan0"), (3, "lan0"), (4, "dock1")] {
        table.apply(link(index, name, true, 0));
    }
    table.apply(Message::Route {
        route: route(2),
        gone: false,
    });
    let names = |settings: &Settings| -> Vec<String> {
        let links = table.usable(settings).into_values();
        links.map(|u| u.link.name.to_string()).collect()
    };
    assert_eq!(names(&settings()), ["lan0", "dock1"]);
    let named = |names: &[&str]| Settings {
        interfaces: names.iter().map(|n| (*n).to_owned()).collect(),
        ..settings()
    };
    assert_eq!(names(&named(&["lo"])), ["lo", "dock1"]);
    assert_eq!(names(&named(&["lan*"])), ["lan0", "dock1"]);
    let denied = Settings {
        wan: vec!["dock*".into()],
        ..settings()
    };
    assert_eq!(names(&denied), ["lan0"]);
}

#[test]
fn a_link_becomes_the_wan_and_another_dock_by_its_place() {
    let mut table = Table::default();
    let mut told = Told::default();
    table.apply(link(2, "enx1", true, 0));
    assert_eq!(table.unplaced().len(), 1);
    assert_eq!(tell(&mut told, &table), ["enx1 Up"]);
    let is = table.usable(&settings())[&2].link;
    table.place(is, Some("../devices/usb1/1-1.2/1-1.2:1.0/net/enx1".into()));
    assert!(table.unplaced().is_empty());
    let bay = Some("A2".parse().unwrap());
    assert_eq!(table.usable(&settings())[&2].medium, Medium::Dock { bay });
    assert_eq!(tell(&mut told, &table), ["enx1 Up"], "said again: a dock");
    // Renamed it has another place to be looked up.
    table.apply(link(2, "enx7", true, 0));
    assert_eq!(table.unplaced().len(), 1);
    let r = route(3);
    for (gone, owed) in [(false, vec!["lan0 Removed"]), (true, vec!["lan0 Up"])] {
        let mut table = Table::default();
        let mut told = Told::default();
        table.apply(link(3, "lan0", true, 0));
        if gone {
            table.apply(Message::Route {
                route: r.clone(),
                gone: false,
            });
        }
        tell(&mut told, &table);
        table.apply(Message::Route {
            route: r.clone(),
            gone,
        });
        assert_eq!(tell(&mut told, &table), owed);
    }
}

#[test]
fn a_cable_is_pulled_and_put_back_whether_or_not_somebody_looked() {
    let (mut table, mut told) = (Table::default(), Told::default());
    table.apply(link(4, "dock1", true, 0));
    table.apply(neighbour(4, "fe80::9", 9));
    let both = ["dock1 Up", "fe80::9 02:00:00:00:00:09"];
    assert_eq!(tell(&mut told, &table), both);
    assert_eq!(tell(&mut told, &table), Vec::<String>::new());
    table.apply(link(4, "dock1", false, 1));
    assert_eq!(tell(&mut told, &table)[0], "dock1 Down");
    table.apply(link(4, "dock1", true, 1));
    assert_eq!(tell(&mut told, &table)[0], "dock1 Up");
    // Nobody looked between off and on: the count of losses says it.
    table.apply(link(4, "dock1", true, 2));
    let again = ["dock1 Down", "dock1 Up", both[1]];
    assert_eq!(tell(&mut told, &table), again);
    table.apply(link(4, "dock7", true, 2));
    assert_eq!(tell(&mut told, &table), ["dock7 Renamed"]);
    table.apply(Message::LinkGone(4));
    assert_eq!(tell(&mut told, &table), ["dock7 Removed"]);
}

#[test]
fn who_answers_is_told_again_after_its_link_was_down_and_now_and_then() {
    let (mut table, mut told) = (Table::default(), Told::default());
    table.apply(link(4, "dock1", true, 0));
    let at = "[fe80::9%4]:47800".parse().unwrap();
    let owed = |table: &Table, told: &mut Told, here: bool| {
        let mut now = now(table, &settings());
        if here {
            now.answering.insert(at, (4, Source::Neighbour));
        }
        let mut all = Vec::new();
        while let Some(owed) = told.owed(&now) {
            told.tell(&owed, &now);
            all.push(match owed {
                Sighting::Link { state, .. } => format!("{state:?}"),
                Sighting::Seen { .. } => "Seen".into(),
                Sighting::Gone { .. } => "Gone".into(),
                other => format!("{other:?}"),
            });
        }
        all
    };
    assert_eq!(owed(&table, &mut told, true), ["Up", "Seen"]);
    assert!(owed(&table, &mut told, true).is_empty());
    told.remind();
    assert_eq!(owed(&table, &mut told, true), ["Seen"]);
    assert_eq!(owed(&table, &mut told, false), ["Gone"]);
    owed(&table, &mut told, true);
    // Off and on before anybody looked, and it answers already.
    table.apply(link(4, "dock1", true, 1));
    assert_eq!(owed(&table, &mut told, true), ["Down", "Up", "Seen"]);
}

#[test]
fn what_a_dump_does_not_name_is_gone_when_it_ends() {
    let (mut table, mut told) = (Table::default(), Told::default());
    for (index, name) in [(4, "dock1"), (5, "dock2")] {
        table.apply(link(index, name, true, 0));
    }
    table.apply(neighbour(4, "fe80::9", 9));
    tell(&mut told, &table);
    // The message that dock1 is gone was lost.
    table.begin(Dump::Links);
    table.apply(link(5, "dock2", true, 0));
    assert!(tell(&mut told, &table).is_empty(), "it may still be named");
    table.end(Dump::Links);
    assert_eq!(tell(&mut told, &table), ["dock1 Removed"]);
}

#[test]
fn who_is_behind_a_bridges_port_is_at_that_port() {
    let mut table = Table::default();
    table.apply(link(9, "br0", true, 0));
    let Message::Link(mut port) = link(4, "dock1", true, 0) else {
        panic!()
    };
    port.master = Some(9);
    table.apply(Message::Link(port));
    table.apply(neighbour(9, "fe80::9", 9));
    let mac = Mac([2, 0, 0, 0, 0, 9]);
    assert_eq!(table.port(9, mac), 9, "nobody knows yet");
    let behind = |gone| Message::Behind { port: 4, mac, gone };
    table.apply(behind(false));
    assert_eq!(table.port(9, mac), 4);
    let now = now(&table, &settings());
    let ip: IpAddr = "fe80::9".parse().unwrap();
    let both: Vec<_> = now.neighbours.into_keys().collect();
    assert_eq!(both, [(4, ip), (9, ip)]);
    assert_eq!((now.links[&9].port(ip), now.links[&4].port(ip)), (4, 4));
    table.apply(behind(true));
    assert_eq!(table.port(9, mac), 9);
    assert_eq!(table.usable(&settings())[&9].port(ip), 9);
}

#[test]
fn a_flood_of_neighbours_is_bounded_and_counted() {
    let mut table = Table::default();
    let most = u32::try_from(limits::KERNEL_NEIGHBOURS).unwrap();
    for n in 0..most + 100 {
        let ip = std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).to_string();
        table.apply(neighbour(4, &ip, 1));
    }
    assert_eq!(table.neighbours.entries.len(), limits::KERNEL_NEIGHBOURS);
    assert_eq!((table.passed_over(), table.passed_over()), (100, 0));
}

proptest! {
    /// Whatever happens to links, and however seldom somebody looks, the roster knows in the end what is so.
    #[test]
    fn what_was_told_is_what_is_so(
        events in proptest::collection::vec((0u32..4, 0u8..4, any::<bool>()), 0..60)
    ) {
        let (mut table, mut told) = (Table::default(), Told::default());
        let (mut up, mut losses) = (BTreeMap::new(), [0; 4]);
        for (index, what, look) in events {
            let at = usize::try_from(index).unwrap();
            match what {
                0 => {
                    losses[at] += 1;
                    table.apply(link(index, &format!("dock{index}"), false, losses[at]));
                }
                1 | 2 => table.apply(link(index, &format!("dock{index}"), true, losses[at])),
                _ => table.apply(Message::LinkGone(index)),
            }
            if !look {
                continue;
            }
            let now = now(&table, &settings());
            while let Some(owed) = told.owed(&now) {
                told.tell(&owed, &now);
                let Sighting::Link { link, state, .. } = owed else { unreachable!() };
                match state {
                    LinkState::Up => { up.insert(link.index, true); }
                    LinkState::Down => { up.insert(link.index, false); }
                    LinkState::Removed => { up.remove(&link.index); }
                    LinkState::Renamed => {}
                }
            }
            let is: BTreeMap<_, _> = now.links.iter().map(|(i, u)| (*i, u.carrier)).collect();
            prop_assert_eq!(&up, &is);
        }
    }
}
