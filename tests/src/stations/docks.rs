//! Docks: a cable goes in, comes out in the middle of a segment, goes in again; an interface gets its name late, and docks
//! are ports of a bridge.

use std::time::Duration;

use serde_json::Value;

use super::FOUND;
use crate::footage::footage;
use crate::station::place::{Bay, Place};
use crate::station::{Plan, Station};
use crate::wait::{LONG, eventually, throughout, until};

const MIB: u64 = 1 << 20;
const SEGMENT: u64 = 4 * MIB;
/// Handshakes, acknowledgements, manifests and the like, of a session and its successor.
pub(super) const TALK: u64 = MIB;

/// So many bytes with what the frames that carry them cost, generously.
pub(super) fn on_the_wire(bytes: u64) -> u64 {
    bytes * 108 / 100
}

pub(super) fn mib(n: u64) -> usize {
    usize::try_from(n * MIB).unwrap()
}

/// An officer docks; all that was filmed leaves the camera, arrives, and is erased there. Nobody typed an address.
///
/// Fails with `mdns = false` and without the section `dock`: nobody is found.
pub fn dock() {
    let station = Station::new(Plan::default());
    let place = Place::new(&station);
    let mut bay = place.bay(1);
    bay.camera.seal(&footage(1, mib(5)), &[]);
    bay.camera.seal(&footage(2, 100), &["--class", "urgent"]);
    bay.serve();
    let repeater = place.repeater(FOUND);
    assert_eq!(repeater.held(), 0);
    bay.plug();
    station.wait_all_released(&[&bay.camera], &repeater);
    station.assert_footage_is_whole(&place.site);
    assert_eq!(repeater.alarms(), Vec::<String>::new());
}

/// A camera that announces nothing, with no address but its link-local one, is found by its dock's carrier.
///
/// Fails without the section `dock`, and where nobody is asked for on a link that comes up.
pub fn dock_unannounced() {
    let station = Station::new(Plan::default());
    let place = Place::new(&station);
    let mut bay = place.bay(1);
    bay.space
        .ip(&["addr", "flush", "dev", &bay.wire.far.device]);
    bay.camera.seal(&footage(1, mib(2)), &[]);
    bay.serve_silently();
    let repeater = place.repeater(FOUND);
    bay.plug();
    station.wait_all_released(&[&bay.camera], &repeater);
    station.assert_footage_is_whole(&place.site);
}

/// The camera is taken out in the middle of a segment, twice, and docked again: it goes on where it was.
///
/// Fails where a pull begins at 0 again instead of after the prefix that is here.
pub fn undock_mid_segment() {
    let station = Station::new(Plan::default());
    let place = Place::new(&station);
    let mut bay = place.bay(1);
    bay.camera.seal(&footage(1, mib(12)), &[]);
    let sealed = bay.camera.status().bytes;
    bay.wire.rate(40);
    bay.serve();
    let repeater = place.repeater(FOUND);
    let sent = || bay.space.bytes(&bay.wire.far.device).0;
    // Within the first segment, and within the second.
    for tenths in [4, 13] {
        bay.plug();
        let most = on_the_wire(tenths * SEGMENT / 10);
        eventually("so much has left the camera", LONG, || {
            (sent() >= most).then_some(())
        });
        bay.pull();
        until("the repeater has given the session up", || {
            let status = repeater.status();
            let all = status["cameras"].as_array().unwrap();
            !all.is_empty() && all.iter().all(|c| c["state"] == "away")
        });
    }
    let at_break = repeater.counted("repeater_pulled_bytes_total");
    assert!((1..sealed).contains(&at_break), "{at_break} of {sealed}");
    bay.plug();
    station.wait_all_released(&[&bay.camera], &repeater);
    station.assert_footage_is_whole(&place.site);
    let pulled = repeater.counted("repeater_pulled_bytes_total");
    assert_eq!(pulled, sealed, "a byte that came was pulled again");
    // What was in the queue of 100 ms at 40 Mbit/s when the cable came out, and what then met no carrier.
    let lost = 2 * (MIB / 2 + link::limits::SEND_WINDOW / 8);
    let most = on_the_wire(sealed) + lost + TALK;
    assert!(sent() <= most, "{} bytes sent, at most {most}", sent());
}

/// The kernel names a port, and udev another a moment later: the port is a dock from then on, and only from then on.
///
/// Fails where an interface is judged by the name that it had when it appeared.
pub fn interface_renamed() {
    let station = Station::new(Plan::default());
    let place = Place::new(&station);
    let mut bay = place.bay(1);
    bay.camera.seal(&footage(1, mib(1)), &[]);
    bay.serve();
    let only_docks = format!("interfaces = [\"dk*\"]\n{FOUND}");
    let repeater = place.repeater(&only_docks);
    let named = bay.wire.near.device.replace("dk", "ud");
    let wanted = bay.wire.near.device.clone();
    bay.wire.near.set(false);
    bay.wire.near.rename(&named);
    bay.plug();
    throughout(
        "nobody is dialled on a port that is none",
        Duration::from_secs(4),
        || repeater.held() == 0,
    );
    bay.wire.near.set(false);
    bay.wire.near.rename(&wanted);
    bay.wire.near.set(true);
    station.wait_all_released(&[&bay.camera], &repeater);
    station.assert_footage_is_whole(&place.site);
}

/// Two docks are ports of a bridge, which alone has an address: who is at which is told by the port behind which its
/// hardware address is, and a cable that is pulled takes its own camera away and no other.
///
/// Fails where a bridge's port is asked for echoes itself, and where a neighbour's bridge is taken for its dock.
pub fn dock_bridged() {
    let station = Station::new(Plan {
        cameras: 2,
        ..Plan::default()
    });
    let place = Place::new(&station);
    place.space.ip(&["link", "add", "joined", "type", "bridge"]);
    place.space.ip(&["link", "set", "dev", "joined", "up"]);
    let mut bays = [place.bay(1), place.bay(2)];
    let mut found = "mdns = false\nwan = [\"wan*\"]\n".to_owned();
    for bay in &mut bays {
        let near = &bay.wire.near.device;
        for end in [&bay.wire.near, &bay.wire.far] {
            end.space.ip(&["addr", "flush", "dev", &end.device]);
        }
        place
            .space
            .ip(&["link", "set", "dev", near, "master", "joined"]);
        let n = bay.camera.n;
        found += &format!("[[discover.dock]]\ninterface = \"{near}\"\nbay = \"A{n}\"\n");
        bay.camera.seal(&footage(u64::from(n), mib(2)), &[]);
        bay.serve_silently();
    }
    let repeater = place.repeater(&found);
    bays.iter().for_each(Bay::plug);
    let bay_of = |n: usize| {
        let status = repeater.status();
        let all = status["cameras"].as_array().unwrap().clone();
        let of = |c: &&Value| c["serial"] == bays[n].camera.serial;
        let camera = all.iter().find(of)?;
        camera["path"]["bay"].as_str().map(str::to_owned)
    };
    let cameras = [&bays[0].camera, &bays[1].camera];
    station.wait_all_released(&cameras, &repeater);
    assert_eq!(bay_of(0).as_deref(), Some("A1"));
    assert_eq!(bay_of(1).as_deref(), Some("A2"));
    bays[0].pull();
    until("the first is away", || bay_of(0).is_none());
    assert_eq!(bay_of(1).as_deref(), Some("A2"), "so is the other");
    bays[0].camera.seal(&footage(3, mib(1)), &[]);
    bays[0].plug();
    station.wait_all_released(&cameras, &repeater);
    assert_eq!(bay_of(0).as_deref(), Some("A1"));
    station.assert_footage_is_whole(&place.site);
}
