//! Names, one by one and by the ten thousand.

#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::super::near::tests::links;
use super::*;

fn start() -> Instant {
    link::clock::Clock::system().instant()
}

fn two() -> Links {
    links(&[
        (2, "sta0", &["10.7.0.1/16", "fe80::1/64"]),
        (3, "dock1", &["fe80::2/64"]),
    ])
}

fn nobody(_: &SocketAddr) -> bool {
    false
}

fn said(name: &str, ip: &str, on: LinkIndex) -> Announcement {
    Announcement {
        name: name.into(),
        port: 47800,
        addresses: vec![(ip.parse().unwrap(), on)],
        news: Some(1),
    }
}

/// Everything owed, told.
fn tell(names: &mut Names, links: &Links) -> Vec<Sighting> {
    let now = names.now(links);
    let mut all = Vec::new();
    while let Some(owed) = names.owed(&now) {
        names.tell(&owed);
        all.push(owed);
    }
    all
}

fn seen(at: &str, on: LinkIndex, news: u64) -> Sighting {
    Sighting::Seen {
        address: at.parse().unwrap(),
        link: Some(on),
        source: Source::Announced,
        news: Some(news),
    }
}

fn gone(at: &str) -> Sighting {
    Sighting::Gone {
        address: at.parse().unwrap(),
        source: Source::Announced,
    }
}

#[test]
fn an_address_is_told_once_with_its_news_and_gone_when_no_name_has_it() {
    let (mut names, links, now) = (Names::default(), two(), start());
    let camera = said("a", "fe80::9", 2);
    names
        .resolved(camera.clone(), &links, &nobody, now)
        .unwrap();
    assert_eq!(tell(&mut names, &links), [seen("[fe80::9%2]:47800", 2, 1)]);
    names
        .resolved(camera.clone(), &links, &nobody, now)
        .unwrap();
    assert_eq!(tell(&mut names, &links), [], "nothing is new");
    let more = Announcement {
        news: Some(2),
        ..camera
    };
    names.resolved(more, &links, &nobody, now).unwrap();
    assert_eq!(tell(&mut names, &links), [seen("[fe80::9%2]:47800", 2, 2)]);
    // The name rotates: the address stays while one has it.
    names
        .resolved(said("b", "fe80::9", 2), &links, &nobody, now)
        .unwrap();
    names.removed("a");
    assert_eq!(tell(&mut names, &links), [seen("[fe80::9%2]:47800", 2, 1)]);
    names.removed("b");
    assert_eq!(tell(&mut names, &links), [gone("[fe80::9%2]:47800")]);
}

#[test]
fn everybody_is_told_again_now_and_then_and_at_a_bridges_port() {
    let (mut names, mut links, now) = (Names::default(), two(), start());
    let camera = said("a", "fe80::9", 2);
    names.resolved(camera, &links, &nobody, now).unwrap();
    assert_eq!(tell(&mut names, &links), [seen("[fe80::9%2]:47800", 2, 1)]);
    names.remind();
    assert_eq!(tell(&mut names, &links), [seen("[fe80::9%2]:47800", 2, 1)]);
    assert_eq!(tell(&mut names, &links), []);
    let bridge = links.get_mut(&2).unwrap();
    bridge.ports.insert("fe80::9".parse().unwrap(), 3);
    assert_eq!(tell(&mut names, &links), [seen("[fe80::9%2]:47800", 3, 1)]);
}

#[test]
fn a_link_that_may_not_be_used_any_more_takes_its_names_along() {
    let (mut names, mut links, now) = (Names::default(), two(), start());
    for (name, on) in [("a", 2), ("b", 3)] {
        names
            .resolved(said(name, "fe80::9", on), &links, &nobody, now)
            .unwrap();
    }
    assert_eq!(tell(&mut names, &links).len(), 2);
    links.remove(&2);
    assert_eq!(tell(&mut names, &links), [gone("[fe80::9%2]:47800")]);
}

#[test]
fn what_points_elsewhere_takes_no_room() {
    let (mut names, links, now) = (Names::default(), two(), start());
    for (ip, on, why) in [
        ("8.8.8.8", 2, "announced_elsewhere"),
        ("127.0.0.1", 2, "announced_elsewhere"),
        ("fe80::9", 7, "announced_on_other_link"),
        ("10.7.0.1", 2, "announced_our_own"),
    ] {
        let dropped = names.resolved(said(ip, ip, on), &links, &nobody, now);
        assert_eq!(dropped.unwrap_err().reason(), why, "{ip}");
    }
    assert!(names.is_empty());
    // Of several addresses those count that are there.
    let mut both = said("both", "fe80::9", 2);
    both.addresses.push(("8.8.8.8".parse().unwrap(), 2));
    assert_eq!(names.resolved(both, &links, &nobody, now), Ok(1));
    assert_eq!(tell(&mut names, &links), [seen("[fe80::9%2]:47800", 2, 1)]);
}

#[test]
fn ten_thousand_names_cost_bounded_room_and_displace_nobody_who_is_known() {
    let (mut names, links, mut now) = (Names::default(), two(), start());
    let camera: SocketAddr = "[fe80::9%2]:47800".parse().unwrap();
    let is_camera = |at: &SocketAddr| *at == camera;
    names
        .resolved(said("camera", "fe80::9", 2), &links, &is_camera, now)
        .unwrap();
    tell(&mut names, &links);
    let mut dropped = 0;
    for n in 0..10_000u32 {
        let ip = format!("10.7.{}.{}", 1 + n / 250, 2 + n % 250);
        let flood = said(&format!("flood {n}"), &ip, 2);
        dropped += u32::from(names.resolved(flood, &links, &is_camera, now).is_err());
        now += Duration::from_millis(10);
    }
    assert!(names.len() <= limits::MDNS_NAMES_OF_LINK);
    assert!(dropped > 8_000, "{dropped} of 10,000 dropped");
    assert!(
        !tell(&mut names, &links).contains(&gone("[fe80::9%2]:47800")),
        "the camera keeps its place"
    );
    // Another link has room and a rate of its own, and who is known is heard.
    let other = said("dock", "fe80::8", 3);
    names.resolved(other, &links, &is_camera, now).unwrap();
    let news = Announcement {
        news: Some(7),
        ..said("camera", "fe80::9", 2)
    };
    names.resolved(news, &links, &is_camera, now).unwrap();
    let told = tell(&mut names, &links);
    assert!(told.contains(&seen("[fe80::9%2]:47800", 2, 7)));
    assert!(told.contains(&seen("[fe80::8%3]:47800", 3, 1)));
    // And a camera that comes after the flood finds a place.
    now += limits::MDNS_TRIED;
    let late = said("late", "fe80::7", 2);
    names.resolved(late, &links, &is_camera, now).unwrap();
}

#[test]
fn all_links_together_are_bounded() {
    let all: Vec<(LinkIndex, String)> = (2..60).map(|n| (n, format!("dock{n}"))).collect();
    let own: [&str; 1] = ["10.0.0.1/8"];
    let named: Vec<_> = all
        .iter()
        .map(|(n, t)| (*n, t.as_str(), &own[..]))
        .collect();
    let (links, now) = (links(&named), start());
    let mut names = Names::default();
    for on in 2..60 {
        for n in 0..60 {
            let ip = format!("10.1.{on}.{}", n + 1);
            let _ = names.resolved(said(&ip, &ip, on), &links, &nobody, now);
        }
    }
    assert_eq!(names.len(), limits::MDNS_NAMES);
}

#[test]
fn what_a_new_browse_does_not_find_again_runs_out() {
    let (mut names, links, now) = (Names::default(), two(), start());
    for (name, ip) in [("a", "fe80::a"), ("b", "fe80::b")] {
        names
            .resolved(said(name, ip, 2), &links, &nobody, now)
            .unwrap();
    }
    tell(&mut names, &links);
    names.begin();
    names
        .resolved(said("a", "fe80::a", 2), &links, &nobody, now)
        .unwrap();
    assert_eq!(tell(&mut names, &links), [], "they have their time");
    names.run_out();
    assert_eq!(tell(&mut names, &links), [gone("[fe80::b%2]:47800")]);
}

#[test]
fn the_counter_of_news_is_decimal() {
    assert_eq!(news("0"), Some(0));
    assert_eq!(news("18446744073709551615"), Some(u64::MAX));
    for bad in ["", "-1", "+1", " 1", "1.5", "0x1", "18446744073709551616"] {
        assert_eq!(news(bad), None, "{bad}");
    }
}

proptest! {
    /// Whatever is announced and withdrawn, what was told in the end is what may be dialled, and rooms hold.
    #[test]
    fn what_was_told_is_what_is_so(
        events in proptest::collection::vec((0u8..40, 0u8..6, 0u32..5, any::<bool>()), 0..200)
    ) {
        let (mut names, links, mut now) = (Names::default(), two(), start());
        let mut held = std::collections::BTreeSet::new();
        for (name, ip, on, withdrawn) in events {
            now += Duration::from_secs(1);
            let (name, ip) = (format!("n{name}"), format!("10.7.{ip}.{ip}"));
            if withdrawn {
                names.removed(&name);
            } else {
                let _ = names.resolved(said(&name, &ip, on), &links, &nobody, now);
            }
            for sighting in tell(&mut names, &links) {
                match sighting {
                    Sighting::Seen { address, .. } => held.insert(address),
                    Sighting::Gone { address, .. } => held.remove(&address),
                    _ => unreachable!(),
                };
            }
            let is: std::collections::BTreeSet<_> = names.now(&links).into_keys().collect();
            prop_assert_eq!(&held, &is);
            prop_assert!(names.len() <= limits::MDNS_NAMES_OF_LINK);
        }
    }
}
