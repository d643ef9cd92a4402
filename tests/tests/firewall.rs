//! The firewall's rules as they are shipped, in a station of network namespaces: two cameras on cables, two on a bridge,
//! and the uplink. Each way that is shut is seen to be open without the rules, on a station that forwards.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use tests::station::netns::{Namespace, missing};
use tests::station::wire::{End, Wire};

/// What comes at all comes at once.
const WAIT: Duration = Duration::from_millis(300);
const MDNS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);

fn rules() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd/nftables/bwc-repeater.nft");
    path.display().to_string()
}

struct Place {
    station: Namespace,
    cameras: [Wire; 2],
    bridged: [Wire; 2],
    uplink: Wire,
}

impl Place {
    fn new() -> Place {
        let station = Namespace::new("station");
        let far = |what: &str, near: &str| Wire::new(near, &station, &Namespace::new(what));
        let mut place = Place {
            cameras: [far("cam", "dock"), far("cam", "dock")],
            bridged: [far("cam", "port"), far("cam", "port")],
            uplink: far("isp", "u"),
            station,
        };
        place.uplink.near.rename("wan0");
        place.station.set("ipv4/ip_forward", "1");
        let subnets = [&place.cameras[0], &place.cameras[1], &place.uplink];
        for (wire, subnet) in subnets.into_iter().zip(1..) {
            wire.near.address(&format!("10.0.{subnet}.1/24"));
            wire.far.address(&format!("10.0.{subnet}.2/24"));
            wire.plug();
            let via = format!("10.0.{subnet}.1");
            let route = ["route", "add", "default", "via", &via];
            wire.far.space.ip(&route);
        }
        let bridge = ["link", "add", "br0", "type", "bridge"];
        place.station.ip(&bridge);
        place.station.ip(&["link", "set", "br0", "up"]);
        for (wire, host) in place.bridged.iter().zip(1..) {
            let join = ["link", "set", &wire.near.device, "master", "br0"];
            place.station.ip(&join);
            wire.far.address(&format!("10.0.9.{host}/24"));
            wire.plug();
        }
        place
    }

    fn at_station(&self, wire: &Wire) -> End {
        End {
            space: self.station.clone(),
            device: wire.near.device.clone(),
        }
    }
}

/// Whether a datagram from one end comes to a port of the other, and its answer back.
fn reaches(from: &End, to: &End, port: u16) -> bool {
    let at = SocketAddr::new(to.ipv4(), port);
    let listener = to.space.within(|| UdpSocket::bind(at).unwrap());
    listener.set_read_timeout(Some(WAIT)).unwrap();
    let any = (Ipv4Addr::UNSPECIFIED, 0);
    let sender = from.space.within(|| UdpSocket::bind(any).unwrap());
    sender.set_read_timeout(Some(WAIT)).unwrap();
    // A packet that may not even leave is an error here.
    if sender.send_to(b"hello", at).is_err() {
        return false;
    }
    let mut buffer = [0; 16];
    let Ok((_, back)) = listener.recv_from(&mut buffer) else {
        return false;
    };
    listener.send_to(b"you too", back).is_ok() && sender.recv(&mut buffer).is_ok()
}

/// Whether what a camera announces to its link is heard at the station.
fn announces(place: &Place, wire: &Wire) -> bool {
    let IpAddr::V4(own) = place.at_station(wire).ipv4() else {
        panic!("IPv4")
    };
    let listener = place.station.within(|| {
        let socket = UdpSocket::bind((MDNS, 5353)).unwrap();
        socket.join_multicast_v4(&MDNS, &own).unwrap();
        socket
    });
    listener.set_read_timeout(Some(WAIT)).unwrap();
    let sender = wire.far.space.within(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 5353)).unwrap();
        socket.send_to(b"I am", (MDNS, 5353)).map(|_| socket)
    });
    sender.is_ok() && listener.recv(&mut [0; 16]).is_ok()
}

#[test]
fn cameras_reach_nothing_but_the_repeater_and_nobody_reaches_it_from_the_uplink() {
    if let Some(what) = missing() {
        assert!(std::env::var_os("CI").is_none(), "this needs {what}");
        eprintln!("SKIPPED: this needs {what}");
        return;
    }
    let place = Place::new();
    let [a, b] = &place.cameras;
    let [c, d] = &place.bridged;
    let (isp, wan) = (&place.uplink.far, place.at_station(&place.uplink));
    let (own_a, own_b) = (place.at_station(a), place.at_station(b));
    let shut = [
        ("a camera to the station", &a.far, &own_a, 9470),
        ("a camera to another link of it", &a.far, &own_b, 47800),
        ("a camera to its uplink", &a.far, &wan, 22),
        ("a camera to a camera", &a.far, &b.far, 47800),
        ("a camera to a camera of its bridge", &c.far, &d.far, 47800),
        ("a camera through the uplink", &b.far, isp, 47801),
        ("the uplink to the station", isp, &wan, 47801),
        ("the uplink to a camera's link", isp, &own_a, 47801),
        ("the uplink through to a camera", isp, &a.far, 47800),
        ("the station to what the uplink is not for", &wan, isp, 25),
    ];
    let open = [
        ("the station to a camera", &own_a, &a.far, 47800),
        ("the station to a camera's own port", &own_b, &b.far, 40_000),
        ("the station to the archive", &wan, isp, 47801),
        ("the station to a time server", &wan, isp, 123),
    ];
    for (what, from, to, port) in shut.iter().chain(&open) {
        assert!(reaches(from, to, *port), "{what}, without rules");
    }
    place.station.run(&["nft", "-c", "-f", &rules()]);
    // Loaded anew they are the same.
    (0..2).for_each(|_| drop(place.station.run(&["nft", "-f", &rules()])));
    for (what, from, to, port) in &open {
        assert!(reaches(from, to, *port), "{what}");
    }
    assert!(announces(&place, a), "a camera announces itself");
    for (what, from, to, port) in &shut {
        assert!(!reaches(from, to, *port), "{what}");
    }
    // A link that nobody thought of is a camera's.
    let new = Wire::new("new", &place.station, &Namespace::new("new"));
    new.near.address("10.0.8.1/24");
    new.far.address("10.0.8.2/24");
    new.plug();
    let own = place.at_station(&new);
    assert!(!reaches(&new.far, &own, 9470) && reaches(&own, &new.far, 47800));
}
