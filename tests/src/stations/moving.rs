//! An officer who moves: from the yard's Wi-Fi to a dock, from one station to another, and far away behind a bad link.

use std::time::Duration;

use super::FOUND;
use super::docks::{TALK, mib, on_the_wire};
use crate::footage::footage;
use crate::station::air::{Air, Quality, Way};
use crate::station::place::Place;
use crate::station::{Plan, Station};
use crate::wait::{LONG, eventually, until};

/// A header is smaller.
const HEADER: u64 = 4096;
/// The other station's name.
const SECOND: &str = "station-8";

/// The session moves from the air to the dock's cable while a recording goes over, and no byte goes twice.
///
/// Fails where the wired path is not preferred: the air carries the rest; and where a move begins its segments anew.
pub fn wifi_to_dock() {
    let station = Station::new(Plan::default());
    let place = Place::new(&station);
    let mut bay = place.bay(1);
    bay.camera.seal(&footage(1, mib(12)), &[]);
    let sealed = bay.camera.status().bytes;
    let quality = Quality {
        delay: Duration::from_millis(5),
        mbit: 16,
        ..Quality::default()
    };
    let air = Air::new("ap", &place.space, &bay.space, quality);
    place.give_addresses(air.near(), air.far());
    bay.serve_on(&[air.far()]);
    let repeater = place.repeater(FOUND);
    air.plug();
    until("a third has gone over the air", || {
        air.passed(Way::Back) > on_the_wire(sealed / 3)
    });
    let before = air.passed(Way::Back);
    bay.plug();
    station.wait_all_released(&[&bay.camera], &repeater);
    station.assert_footage_is_whole(&place.site);
    let pulled = repeater.counted("repeater_pulled_bytes_total");
    assert_eq!(pulled, sealed, "a byte that came was pulled again");
    let (over_cable, over_air) = (
        bay.space.bytes(&bay.wire.far.device).0,
        air.passed(Way::Back) - before,
    );
    assert!(
        over_cable > sealed / 3 && over_air < sealed / 4,
        "{over_cable} bytes over the cable, {over_air} more over the air, of {sealed}"
    );
}

/// Half of a recording is left at one station, which forwards it; the officer walks to another one, which pulls the rest.
/// The second pulls nothing and sends nothing that the archive has, but for the header, without which nothing is Held;
/// and that though the camera keeps all of it, and gives it faster than the archive answers.
///
/// Fails where what sites have signed for does not wait for their word: over a quick cable all of it is pulled again.
pub fn two_stations() {
    let station = Station::new(Plan::default());
    station.agency.add_repeater(SECOND, 1).unwrap();
    let place = Place::new(&station);
    let mut bay = place.bay(1);
    bay.camera.seal(&footage(1, mib(16)), &[]);
    let sealed = bay.camera.status().bytes;
    bay.wire.rate(40);
    bay.serve_keeping(&[]);
    let first = place.repeater(FOUND);
    bay.plug();
    until("two segments are archived", || {
        let gone = ["archived", "released"];
        gone.iter().map(|s| first.items(s)).sum::<u64>() >= 3
    });
    bay.pull();
    eventually("the first station has forwarded what it has", LONG, || {
        let s = &first.status()["spool"]["segments"];
        (s["held"] == 0).then_some(())
    });
    let there = first.counted("repeater_pulled_bytes_total");
    assert!(there < sealed, "nothing is left for the second station");
    let (space, road) = place.another();
    let second = place.repeater_in(&space, "second", &format!("{SECOND}-1"), FOUND);
    let dock = place.dock(&space, &bay.space);
    bay.serve_keeping(&[&dock.far]);
    let to_archive = || space.bytes(&road.near.device).0;
    let before = to_archive();
    dock.plug();
    until("the camera has receipts for all of it", || {
        let recordings = bay.camera.status().recordings;
        recordings.iter().all(|r| r.receipted == r.segments)
            && second.status()["spool"]["outstanding"] == 0
    });
    station.assert_footage_is_whole(&place.site);
    let here = second.counted("repeater_pulled_bytes_total");
    // Parts of segments that the first station has begun and cannot end; and the header, which both have.
    let begun = there
        - first.status()["spool"]["bytes"]["archived"]
            .as_u64()
            .unwrap()
        - first.status()["spool"]["bytes"]["released"]
            .as_u64()
            .unwrap();
    assert!(
        here <= sealed - there + begun + HEADER,
        "{here} bytes pulled here, {there} there, {begun} of them in segments not ended, of {sealed}"
    );
    let sent = to_archive() - before;
    let most = on_the_wire(here) + TALK;
    assert!(
        sent <= most,
        "{sent} bytes sent to the archive for {here} pulled"
    );
}

/// One frame of ten is lost, each way, over 20 Mbit/s and 50 ms: nothing is lost, and nothing is pulled twice.
///
/// Fails where a slow pull is given up and begun again at 0.
pub fn loss() {
    let station = Station::new(Plan::default());
    let place = Place::new(&station);
    let mut bay = place.bay(1);
    bay.camera.seal(&footage(1, mib(1)), &[]);
    bay.camera
        .seal(&footage(2, 300_000), &["--class", "urgent"]);
    let sealed = bay.camera.status().bytes;
    let quality = Quality {
        delay: Duration::from_millis(25),
        loss: 100,
        mbit: 20,
        ..Quality::default()
    };
    let air = Air::new("ap", &place.space, &bay.space, quality);
    place.give_addresses(air.near(), air.far());
    bay.serve_on(&[air.far()]);
    let repeater = place.repeater(FOUND);
    air.plug();
    station.wait_all_released(&[&bay.camera], &repeater);
    station.assert_footage_is_whole(&place.site);
    let pulled = repeater.counted("repeater_pulled_bytes_total");
    assert_eq!(pulled, sealed, "a byte that came was pulled again");
    assert!(air.lost(Way::Back) > 0 && air.lost(Way::Out) > 0);
    // What was lost was sent again, and little else.
    let (passed, lost) = (air.passed(Way::Back), air.lost(Way::Back));
    let most = on_the_wire(sealed) + 2 * lost + TALK;
    assert!(
        passed + lost <= most,
        "{passed} + {lost} lost, at most {most}"
    );
}
