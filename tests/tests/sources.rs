//! The sources of sightings against the real kernel, the real hostapd and real multicast, each test in a network
//! namespace of its own: what is told to the roster when cables, stations and announcements come and go.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "sources/dns.rs"]
mod dns;
#[path = "sources/place.rs"]
mod place;
#[path = "sources/port.rs"]
mod port;
#[path = "sources/running.rs"]
mod running;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::future::Future;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use dns::{Said, Speaker};
use link::tasks::current_thread;
use place::{Far, alone, has, ip, lacks, quick, set};
use repeater::discover::settings::{By, Dock, Hostapd, Kind, Settings};
use repeater::discover::{LinkState, Medium, Presence, Sighting, Source};
use running::{LONG, Running};
use tests::wait::eventually;

/// On a dock's cable nobody waits longer, an announcement or not.
const SOON: Duration = Duration::from_secs(3);

fn run(test: impl Future<Output = ()>) {
    current_thread(test).unwrap();
}

fn docks(pattern: &str) -> Settings {
    Settings {
        docks: vec![Dock {
            by: By::Name(pattern.into()),
            bay: None,
        }],
        ..Settings::default()
    }
}

fn index(name: &str) -> u32 {
    let text = std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).unwrap();
    text.trim().parse().unwrap()
}

/// The link-local address of an interface in this namespace.
fn link_local(name: &str) -> Ipv6Addr {
    let all = std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap();
    let line = all
        .lines()
        .find(|l| l.starts_with("fe80") && l.ends_with(name));
    let bits = line.unwrap().split(' ').next().unwrap();
    Ipv6Addr::from_bits(u128::from_str_radix(bits, 16).unwrap())
}

#[test]
fn who_is_docked_is_seen_by_the_cable_alone() {
    alone("who_is_docked_is_seen_by_the_cable_alone", || {
        quick();
        // No right is needed where the group may ping.
        set("ipv4/ping_group_range", "0 0");
        let camera = Far::new();
        camera.cable("bay1", "usb0");
        ip("link set bay1 up");
        run(docked(camera));
    });
}

async fn docked(camera: Far) {
    let folder = tempfile::tempdir().unwrap();
    let bay = Some("A1".parse().unwrap());
    let settings = Settings {
        docks: vec![Dock {
            by: By::Path("*/virtual/net/bay*".into()),
            bay,
        }],
        ..Settings::default()
    };
    let mut sources = Running::start(settings, folder.path(), BTreeSet::new());
    let medium = sources.link("bay1", LinkState::Down).await;
    assert_eq!(medium, Medium::Dock { bay }, "by its place in sysfs");
    for _ in 0..2 {
        camera.ip("link set usb0 up");
        sources.link("bay1", LinkState::Up).await;
        let ip: IpAddr = camera.within(|| link_local("usb0")).into();
        // The neighbour table has it before or after, as the kernel likes.
        let (seen, known) = (Cell::new(None), Cell::new(false));
        let seeing = sources.until("an answer to an echo, and whose address it is", |s| {
            match s {
                Sighting::Seen {
                    address, source, ..
                } if *source == Source::Neighbour => {
                    UdpSocket::bind("[::]:0")
                        .unwrap()
                        .send_to(b"hello", address)
                        .unwrap();
                    seen.set(Some(*address));
                }
                Sighting::Neighbour { link, ip: of, .. } if *of == ip => {
                    known.set(*link == index("bay1"));
                }
                _ => {}
            }
            seen.get().filter(|_| known.get())
        });
        let at = tokio::time::timeout(SOON, seeing).await;
        let at = at.expect("an echo is answered at once");
        assert_eq!((at.ip(), at.port()), (ip, 47800));
        let SocketAddr::V6(scoped) = at else { panic!() };
        assert_eq!(scoped.scope_id(), index("bay1"));
        camera.ip("link set usb0 down");
        sources.link("bay1", LinkState::Down).await;
    }
    sources.end().await;
}

#[test]
fn renamed_and_replaced_links_and_the_wan() {
    alone("renamed_and_replaced_links_and_the_wan", || {
        quick();
        let far = Far::new();
        far.cable("bay1", "usb0");
        far.cable("net0", "isp0");
        far.ip("link set isp0 up");
        far.ip("link set usb0 up");
        ip("address add 192.0.2.2/24 dev net0");
        ip("link set net0 up");
        ip("route add default via 192.0.2.1 dev net0");
        ip("link set bay1 up");
        run(async {
            let folder = tempfile::tempdir().unwrap();
            let settings = docks("bay*");
            let mut sources = Running::start(settings, folder.path(), BTreeSet::new());
            sources.link("bay1", LinkState::Up).await;
            ip("link set bay1 down");
            ip("link set bay1 name bay7");
            ip("link set bay7 up");
            sources.link("bay7", LinkState::Up).await;
            let is_wan = |s: &Sighting| matches!(s, Sighting::Link { link, .. } if link.name.as_str() == "net0");
            let rest = sources.rest(Duration::from_millis(500)).await;
            assert!(!rest.iter().any(is_wan), "the WAN is told of: {rest:#?}");
            // Without its default route it is one link of many; with it again it is not.
            ip("route del default");
            sources.link("net0", LinkState::Up).await;
            ip("route add default via 192.0.2.1 dev net0");
            sources.link("net0", LinkState::Removed).await;
            ip("link del bay7");
            sources.link("bay7", LinkState::Removed).await;
            sources.end().await;
        });
    });
}

#[test]
fn news_that_the_kernel_dropped_are_asked_for_again() {
    alone("news_that_the_kernel_dropped_are_asked_for_again", || {
        quick();
        let far = Far::new();
        for n in 1..=3 {
            far.cable(&format!("bay{n}"), &format!("usb{n}"));
            ip(&format!("link set bay{n} up"));
            far.ip(&format!("link set usb{n} up"));
        }
        far.cable("lan0", "lan1");
        ip("link set lan0 up");
        let folder = tempfile::tempdir().unwrap();
        let batch = folder.path().join("batch");
        let mut storm = String::new();
        for n in 0..4000 {
            let at = format!("10.9.{}.{}", n / 250, 1 + n % 250);
            for mac in ["02:00:00:00:00:01", "02:00:00:00:00:02"] {
                storm += &format!("neigh replace {at} lladdr {mac} dev lan0\n");
            }
        }
        std::fs::write(&batch, storm).unwrap();
        run(async {
            let settings = Settings {
                wan: vec!["lan0".into()],
                ..docks("bay*")
            };
            let mut sources = Running::start(settings, folder.path(), BTreeSet::new());
            sources.link("bay3", LinkState::Up).await;
            // While these run, nobody reads: the runtime's one thread waits for them.
            for _ in 0..3 {
                ip(&format!("-batch {}", batch.display()));
            }
            ip("link del bay2");
            ip("link set bay1 down");
            let mut left = BTreeSet::from(
                [("bay1", LinkState::Down), ("bay2", LinkState::Removed)]
                    .map(|(name, state)| format!("{name} {state:?}")),
            );
            while !left.is_empty() {
                let told = sources
                    .until("the rest of the links", |s| match s {
                        Sighting::Link { link, state, .. } => {
                            Some(format!("{} {state:?}", link.name))
                        }
                        _ => None,
                    })
                    .await;
                left.remove(&told);
            }
            let again = &sources.metrics.discovery_resyncs;
            assert!(again.with_label_values(&["interfaces"]).get() > 0);
            sources.end().await;
        });
    });
}

fn mdns() -> Settings {
    Settings {
        mdns: true,
        wan: vec!["wan*".into()],
        ..Settings::default()
    }
}

/// A station's VLAN and the WAN, each with somebody at its far end.
fn station() -> Far {
    quick();
    let far = Far::new();
    for (near, there, own) in [
        ("sta0", "air0", "10.7.0.1/24"),
        ("wan0", "isp0", "192.0.2.2/24"),
    ] {
        far.cable(near, there);
        ip(&format!("address add {own} dev {near}"));
        ip(&format!("link set {near} up"));
        far.ip(&format!("link set {there} up"));
    }
    far
}

fn speaker(far: &Far, name: &str) -> Speaker {
    far.within(|| {
        let index = nix_index(name);
        Speaker::new(index)
    })
}

/// An interface's number in this thread's namespace; sysfs is another's. It stands there once it has an address.
fn nix_index(name: &str) -> u32 {
    eventually("the interface has an address", LONG, || {
        let all = std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap();
        let line = all.lines().find(|l| l.ends_with(name))?;
        let number = line.split(' ').nth(1)?;
        u32::from_str_radix(number, 16).ok()
    })
}

fn camera(name: &str, news: u64) -> Said<'_> {
    const AT: [IpAddr; 1] = [IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9))];
    Said {
        name,
        addresses: &AT,
        port: 47800,
        news,
    }
}

#[test]
fn what_is_announced_on_a_link_is_seen_there_and_nowhere_else() {
    alone(
        "what_is_announced_on_a_link_is_seen_there_and_nowhere_else",
        || {
            let far = station();
            run(async {
                let folder = tempfile::tempdir().unwrap();
                let mut sources = Running::start(mdns(), folder.path(), BTreeSet::new());
                sources.link("sta0", LinkState::Up).await;
                let (air, isp) = (speaker(&far, "air0"), speaker(&far, "isp0"));
                let elsewhere: [IpAddr; 6] = [
                    "198.51.100.7",
                    "192.0.2.1",
                    "127.0.0.1",
                    "10.7.0.1",
                    "::1",
                    "2001:db8::1",
                ]
                .map(|ip| ip.parse().unwrap());
                let spoofed = Said {
                    name: "elsewhere",
                    addresses: &elsewhere,
                    port: 22,
                    news: 1,
                };
                // Multicast is joined a moment after the link is up.
                let saying = async {
                    let mut tick = tokio::time::interval(Duration::from_millis(200));
                    loop {
                        tick.tick().await;
                        isp.say(&camera("outside", 1), 120);
                        air.say(&spoofed, 120);
                        air.say(&camera("inside", 1), 120);
                    }
                };
                let seeing = async {
                    let (at, news) = sources.seen(Source::Announced).await;
                    let SocketAddr::V6(at) = at else {
                        panic!("{at}")
                    };
                    assert_eq!(
                        (at.port(), at.scope_id(), news),
                        (47800, index("sta0"), Some(1))
                    );
                    let rest = sources.rest(Duration::from_secs(2)).await;
                    let other = |s: &&Sighting| matches!(s, Sighting::Seen { .. });
                    assert_eq!(rest.iter().find(other), None);
                    at
                };
                let at = tokio::select! {
                    at = seeing => at,
                    () = saying => unreachable!(),
                };
                // The other one is never heard: nobody listens on the WAN.
                let reasons = ["announced_elsewhere", "announced_our_own"];
                assert!(reasons.iter().any(|reason| sources.dropped(reason) > 0));
                assert_eq!(sources.dropped("announced_on_other_link"), 0);
                air.say(&camera("inside", 2), 120);
                assert_eq!(sources.seen(Source::Announced).await, (at.into(), Some(2)));
                air.say(&camera("inside", 2), 0);
                assert_eq!(sources.gone(Source::Announced).await, at.into());
                sources.end().await;
            });
        },
    );
}

#[test]
fn a_flood_of_names_is_bounded_and_hides_no_camera() {
    alone("a_flood_of_names_is_bounded_and_hides_no_camera", || {
        let far = station();
        run(flood(far));
    });
}

async fn flood(far: Far) {
    let folder = tempfile::tempdir().unwrap();
    let air = speaker(&far, "air0");
    let known: SocketAddr = format!("[fe80::9%{}]:47800", index("sta0"))
        .parse()
        .unwrap();
    let mut sources = Running::start(mdns(), folder.path(), BTreeSet::from([known]));
    sources.link("sta0", LinkState::Up).await;
    let camera_says = async {
        loop {
            air.say(&camera("camera", 1), 120);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        seen = sources.seen(Source::Announced) => assert_eq!(seen.0, known),
        () = camera_says => unreachable!(),
    }
    let mut told = BTreeSet::new();
    for n in 0..10_000u32 {
        let name = format!("flood{n}");
        let ip = [IpAddr::V6(Ipv6Addr::new(
            0xfe80,
            0,
            0,
            0,
            0,
            0,
            1,
            n.to_le_bytes()[0].into(),
        ))];
        let said = Said {
            name: &name,
            addresses: &ip,
            port: 1024 + u16::try_from(n % 50_000).unwrap(),
            news: 1,
        };
        air.say(&said, 4500);
        if n % 20 == 0 {
            told.extend(names(&sources.rest(Duration::from_millis(1)).await, known));
        }
    }
    let more = sources.rest(Duration::from_secs(2)).await;
    told.extend(names(&more, known));
    assert!(!told.is_empty(), "the flood was not heard at all");
    assert!(told.len() < 1_000, "{} of the flood told", told.len());
    let dropped = sources.dropped("announced_too_fast") + sources.dropped("announced_too_many");
    assert!(dropped > 0, "nothing was dropped");
    // The camera was not hidden, and its news still come through.
    air.say(&camera("camera", 2), 120);
    let news = |s: &Sighting| match s {
        Sighting::Seen { address, news, .. } if *address == known => news.filter(|n| *n >= 2),
        Sighting::Gone { address, .. } => {
            assert_ne!(*address, known, "the flood has hidden the camera");
            None
        }
        _ => None,
    };
    let speaking = async {
        loop {
            air.say(&camera("camera", 3), 120);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::select! {
        _ = sources.until("the camera's news", news) => {}
        () = speaking => unreachable!(),
    }
    sources.end().await;
}

/// The addresses that were told; the known one is never taken back.
fn names(told: &[Sighting], known: SocketAddr) -> Vec<SocketAddr> {
    let mut all = Vec::new();
    for sighting in told {
        match sighting {
            Sighting::Seen { address, .. } => all.push(*address),
            Sighting::Gone { address, .. } => {
                assert_ne!(*address, known, "the flood has hidden the camera");
            }
            _ => {}
        }
    }
    all
}

#[test]
fn a_port_under_802_1x_tells_who_comes_and_a_pulled_cable_lets_them_come_back() {
    let name = "a_port_under_802_1x_tells_who_comes_and_a_pulled_cable_lets_them_come_back";
    for program in ["hostapd", "wpa_supplicant"] {
        if !has(program) {
            return lacks(name, &format!("the program {program}"));
        }
    }
    alone(name, || {
        quick();
        let camera = Far::new();
        camera.cable("bay1", "eth0");
        ip("link set bay1 up");
        camera.ip("link set eth0 up");
        run(guarded(camera));
    });
}

/// What hostapd says of a station that it has forgotten.
const LEFT: &str = "AP-STA-DISCONNECTED";

async fn guarded(camera: Far) {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("own");
    let settings = Settings {
        hostapds: vec![Hostapd {
            socket: port::socket(folder.path(), "bay1"),
            kind: Kind::Wired,
        }],
        ..Settings::default()
    };
    // hostapd comes later than we do.
    let mut sources = Running::start(settings, &own, BTreeSet::new());
    sources.link("bay1", LinkState::Up).await;
    let hostapd = port::hostapd(folder.path(), "bay1");
    let mut supplicant = port::supplicant(folder.path(), &camera, "eth0");
    let mac = sources.station(Presence::Associated).await;
    // hostapd says nothing of a pulled cable: the carrier does. Then hostapd, too, forgets the camera.
    for pulled in 1..=2 {
        drop(supplicant);
        assert_eq!(
            port::said(folder.path(), LEFT),
            pulled - 1,
            "hostapd knows it still"
        );
        camera.ip("link set eth0 down");
        assert_eq!(sources.station(Presence::Left).await, mac);
        let forgotten = async {
            while port::said(folder.path(), LEFT) < pulled {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let forgotten = tokio::time::timeout(LONG, forgotten).await;
        forgotten.expect("hostapd sends it away");
        camera.ip("link set eth0 up");
        supplicant = port::supplicant(folder.path(), &camera, "eth0");
        assert_eq!(sources.station(Presence::Associated).await, mac);
    }
    // Killed and restarted, hostapd knows nobody; then the camera comes anew.
    drop(hostapd);
    drop(supplicant);
    let _hostapd = port::hostapd(folder.path(), "bay1");
    assert_eq!(sources.station(Presence::Left).await, mac);
    let _supplicant = port::supplicant(folder.path(), &camera, "eth0");
    assert_eq!(sources.station(Presence::Associated).await, mac);
    sources.end().await;
    assert_eq!(
        std::fs::read_dir(&own).unwrap().count(),
        0,
        "our socket's file is gone"
    );
}
