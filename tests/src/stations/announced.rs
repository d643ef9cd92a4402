//! Announcements by somebody who has a plug at the station: elsewhere, twice, in another's name, and ten thousand.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use super::FOUND;
use super::docks::mib;
use crate::footage::footage;
use crate::station::announcement::{Announcement, Announcer};
use crate::station::netns::Namespace;
use crate::station::place::{Bay, Place, quick_addresses};
use crate::station::wire::Wire;
use crate::station::{Plan, Station};
use crate::wait::{LONG, eventually, now, until};

/// After this a name that was taken back is gone (RFC 6762, section 10.1).
const WITHDRAWN: Duration = Duration::from_millis(1300);
/// Peak memory of a repeater with 40 cameras, in KiB.
const MEMORY_KIB: u64 = 128 << 10;

/// Somebody with a plug at the station.
struct Stranger {
    announcer: Announcer,
    address: IpAddr,
    _wire: Wire,
    space: Namespace,
}

fn stranger(place: &Place<'_>) -> Stranger {
    let space = Namespace::new("stranger");
    quick_addresses(&space);
    let wire = place.dock(&place.space, &space);
    wire.plug();
    Stranger {
        announcer: Announcer::at(&wire.far),
        address: wire.far.ipv4(),
        _wire: wire,
        space,
    }
}

/// A socket that nobody has a reason to send to, and how many datagrams came all the same.
struct Trap(UdpSocket);

impl Trap {
    fn at(space: &Namespace, address: IpAddr) -> Trap {
        let open = || UdpSocket::bind((address, 0)).unwrap();
        let socket = space.within(open);
        socket.set_nonblocking(true).unwrap();
        Trap(socket)
    }

    fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    fn caught(&self) -> usize {
        let mut buffer = [0; 2048];
        std::iter::from_fn(|| self.0.recv(&mut buffer).ok()).count()
    }
}

fn announcement(name: &str, addresses: &[IpAddr], port: u16) -> Announcement {
    Announcement {
        name: name.to_owned(),
        addresses: addresses.to_vec(),
        port,
        ttl: 120,
    }
}

fn seal_and_serve(bay: &mut Bay<'_>) {
    bay.camera.seal(&footage(1, mib(2)), &[]);
    bay.serve();
}

/// Announcements point at the archive over the WAN, at another port's camera that is none, and at the repeater's own
/// loopback: nobody there hears a datagram, and the camera beside is served.
///
/// Fails where an announcement is believed beyond the link that it came on.
pub fn points_elsewhere() {
    let station = Station::new(Plan::default());
    let place = Place::new(&station);
    let mut bay = place.bay(1);
    seal_and_serve(&mut bay);
    let (at, other) = (stranger(&place), stranger(&place));
    let wan = place.wan.far.ipv4();
    let traps = [
        (wan, Trap::at(&place.centre, wan)),
        (
            "127.0.0.1".parse().unwrap(),
            Trap::at(&place.space, "127.0.0.1".parse().unwrap()),
        ),
        (
            "::1".parse().unwrap(),
            Trap::at(&place.space, "::1".parse().unwrap()),
        ),
        (other.address, Trap::at(&other.space, other.address)),
    ];
    // That one would be dialled is shown by one at the stranger's own address.
    let own = Trap::at(&at.space, at.address);
    let repeater = place.repeater(FOUND);
    let end = now() + Duration::from_secs(6);
    bay.plug();
    while now() < end {
        for (i, (address, trap)) in traps.iter().enumerate() {
            at.announcer
                .say(&announcement(&format!("far{i}"), &[*address], trap.port()));
        }
        at.announcer
            .say(&announcement("own", &[at.address], own.port()));
        std::thread::sleep(Duration::from_millis(300));
    }
    station.wait_all_released(&[&bay.camera], &repeater);
    assert!(own.caught() > 0, "no announcement was heard at all");
    for (address, trap) in &traps {
        assert_eq!(trap.caught(), 0, "datagrams came to {address}");
    }
}

/// Somebody on the camera's own link has fifty names for its address, and takes each back again and again, and its own
/// name too, while it is pulled from: it stays one camera with one session, and what came is not asked for again.
///
/// Fails where a withdrawal ends a session.
pub fn spoofed() {
    let station = Station::new(Plan::default());
    let place = Place::new(&station);
    let mut bay = place.bay(1);
    let space = Namespace::new("stranger");
    quick_addresses(&space);
    let (_switch, _trunk, [camera, plug]) = place.switched([&bay.space, &space]);
    bay.wire = camera;
    bay.wire.far.rate(20);
    bay.camera.seal(&footage(1, mib(16)), &[]);
    let sealed = bay.camera.status().bytes;
    bay.serve();
    plug.far.set(true);
    let liar = Announcer::at(&plug.far);
    let repeater = place.repeater(FOUND);
    bay.wire.far.set(true);
    let (address, port) = (bay.wire.far.ipv4(), bay.camera.address().port());
    let own = eventually("the camera has announced itself", LONG, || {
        let log = bay.camera.party.as_ref()?.log();
        let name = log.split("announced name=\"").nth(1)?;
        Some(name.split('"').next()?.to_owned())
    });
    let mut most = 0;
    until("the camera is released while it is lied about", || {
        let mut lie = announcement(&own, &[address], port);
        lie.ttl = 0;
        liar.say(&lie);
        for i in 0..50 {
            lie = announcement(&format!("copy{i}"), &[address], port);
            liar.say(&lie);
            lie.ttl = 0;
            liar.say(&lie);
        }
        let status = repeater.status();
        let cameras = status["cameras"].as_array().unwrap();
        most = most.max(cameras.iter().filter(|c| c["state"] != "away").count());
        // What was taken back is gone a second later, and nothing else names the address until then.
        std::thread::sleep(WITHDRAWN);
        let s = bay.camera.status();
        s.recordings.is_empty() && s.released == s.next_recording
    });
    assert_eq!(most, 1, "one camera was several");
    let log = repeater.log();
    assert!(
        !log.contains("its station left"),
        "a lie has ended a session"
    );
    station.assert_footage_is_whole(&place.site);
    let sessions = log.matches(" session camera=").count();
    assert!(
        (1..=2).contains(&sessions),
        "{sessions} sessions with one camera"
    );
    let pulled = repeater.counted("repeater_pulled_bytes_total");
    assert_eq!(pulled, sealed, "a byte that came was pulled again");
}

/// Ten thousand names are announced on one port; the camera at another one is found and emptied all the same, and the
/// repeater does not grow.
///
/// Fails where names of one link take the room of another's.
pub fn flood() {
    const NAMES: u32 = 10_000;
    let station = Station::new(Plan::default());
    let place = Place::new(&station);
    let mut bay = place.bay(1);
    seal_and_serve(&mut bay);
    let at = stranger(&place);
    let repeater = place.repeater(FOUND);
    let say = |from: u32, to: u32| {
        for i in from..to {
            at.announcer.say(&announcement(
                &format!("flood{i}"),
                &[at.address],
                1024 + (i % 50_000) as u16,
            ));
            if i % 50 == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    };
    say(0, NAMES / 2);
    bay.plug();
    say(NAMES / 2, NAMES);
    station.wait_all_released(&[&bay.camera], &repeater);
    station.assert_footage_is_whole(&place.site);
    let id = repeater.party.as_ref().unwrap().id();
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let high = status
        .lines()
        .find_map(|l| l.strip_prefix("VmHWM:"))
        .unwrap();
    let high: u64 = high.split_whitespace().next().unwrap().parse().unwrap();
    assert!(high < MEMORY_KIB, "the repeater took {high} KiB");
}
