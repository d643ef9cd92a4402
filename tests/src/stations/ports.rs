//! Ports under 802.1X, with real hostapd and wpa_supplicant: nothing before, everything after; the cable out and in
//! again; hostapd gone and back; and hostapd's word for who is near, where the link is the air.

use std::time::Duration;

use super::FOUND;
use super::docks::mib;
use crate::footage::footage;
use crate::station::air::{Air, Quality};
use crate::station::place::{Bay, Place};
use crate::station::port::{Port, Supplicant};
use crate::station::radio::Radio;
use crate::station::wire::End;
use crate::station::{Plan, STATION, Station};
use crate::wait::{LONG, eventually, throughout, until};

fn identity() -> String {
    format!("{STATION}-1")
}

fn repeaters_urn() -> String {
    format!("urn:bwc:repeater:{STATION}:1")
}

/// Lines that tell the repeater of a hostapd.
fn watched(port: &Port<'_>, end: &End, kind: &str) -> String {
    let socket = port.sockets().join(&end.device);
    let socket = socket.display();
    format!("[[discover.hostapd]]\nsocket = \"{socket}\"\nkind = \"{kind}\"\n")
}

fn supplicant(station: &Station, bay: &Bay<'_>, end: &End) -> Supplicant {
    Supplicant::start(station, end, &bay.camera.serial, &repeaters_urn())
}

/// Nothing comes through the port before the camera has shown its certificate. Then the cable is pulled and put back,
/// twice: hostapd hears nothing of it, and yet the camera is let in again and emptied each time.
///
/// Fails where a lost carrier does not deauthenticate the station, and where the port is open from the start.
pub fn cable_pulled() {
    let station = Station::new(Plan::default());
    let place = Place::new(&station);
    let mut bay = place.bay(1);
    bay.camera.seal(&footage(1, mib(2)), &[]);
    let end = bay.wire.near.clone();
    let mut port = Port::new(&station, &end, &identity());
    port.run();
    bay.serve();
    let repeater = place.repeater(&(FOUND.to_owned() + &watched(&port, &end, "wired")));
    bay.plug();
    throughout(
        "nothing comes through a shut port",
        Duration::from_secs(4),
        || repeater.held() == 0,
    );
    let mut asks = supplicant(&station, &bay, &bay.wire.far);
    asks.wait_connected();
    station.wait_all_released(&[&bay.camera], &repeater);
    for times in 1..=2 {
        bay.pull();
        eventually("the port is shut behind the camera", LONG, || {
            (!port.open().contains(&bay.wire.far.mac())).then_some(())
        });
        bay.camera.seal(&footage(1 + times, mib(1)), &[]);
        drop(asks);
        bay.plug();
        asks = supplicant(&station, &bay, &bay.wire.far);
        asks.wait_connected();
        station.wait_all_released(&[&bay.camera], &repeater);
    }
    station.assert_footage_is_whole(&place.site);
}

/// hostapd is killed and started again while a camera is docked: the repeater hears of the next one all the same, and
/// the present one's footage goes on.
///
/// Fails where the client of the control socket does not attach again: then a pulled cable deauthenticates nobody.
pub fn hostapd_restarted() {
    let station = Station::new(Plan::default());
    let place = Place::new(&station);
    let mut bay = place.bay(1);
    bay.camera.seal(&footage(1, mib(1)), &[]);
    let end = bay.wire.near.clone();
    let mut port = Port::new(&station, &end, &identity());
    port.run();
    bay.serve();
    let repeater = place.repeater(&(FOUND.to_owned() + &watched(&port, &end, "wired")));
    bay.plug();
    let asks = supplicant(&station, &bay, &bay.wire.far);
    station.wait_all_released(&[&bay.camera], &repeater);
    port.hostapd.as_mut().expect("it runs").kill();
    bay.camera.seal(&footage(2, mib(1)), &[]);
    station.wait_all_released(&[&bay.camera], &repeater);
    drop(asks);
    bay.pull();
    port.run();
    for times in 3..=4 {
        bay.camera.seal(&footage(times, mib(1)), &[]);
        bay.plug();
        let asks = supplicant(&station, &bay, &bay.wire.far);
        asks.wait_connected();
        station.wait_all_released(&[&bay.camera], &repeater);
        drop(asks);
        bay.pull();
        eventually("the port is shut behind the camera", LONG, || {
            (!port.open().contains(&bay.wire.far.mac())).then_some(())
        });
    }
    station.assert_footage_is_whole(&place.site);
}

/// A camera associates in the yard, walks out of reach, and comes back: it is near, away, near, and what it filmed
/// meanwhile goes over at once.
///
/// Fails where a station that hostapd lost is never dialled again.
pub fn near_far_near() {
    let station = Station::new(Plan::default());
    let place = Place::new(&station);
    let mut bay = place.bay(1);
    bay.camera.seal(&footage(1, mib(2)), &["--class", "urgent"]);
    let quality = Quality {
        delay: Duration::from_millis(3),
        mbit: 30,
        ..Quality::default()
    };
    let air = Air::new("ap", &place.space, &bay.space, quality);
    place.give_addresses(air.near(), air.far());
    let mut port = Port::new(&station, air.near(), &identity());
    air.near().set(true);
    port.run();
    bay.serve_on(&[air.far()]);
    let told = FOUND.to_owned() + &watched(&port, air.near(), "wireless");
    let repeater = place.repeater(&told);
    air.plug();
    let mut asks = supplicant(&station, &bay, air.far());
    asks.wait_connected();
    station.wait_all_released(&[&bay.camera], &repeater);
    for times in 1..=2 {
        air.far().set(false);
        port.lose(&air.far().mac());
        eventually("the camera is away", LONG, || {
            let status = repeater.status();
            (status["cameras"][0]["state"] == "away").then_some(())
        });
        bay.camera
            .seal(&footage(1 + times, mib(1)), &["--class", "urgent"]);
        drop(asks);
        air.far().set(true);
        asks = supplicant(&station, &bay, air.far());
        asks.wait_connected();
        station.wait_all_released(&[&bay.camera], &repeater);
    }
    station.assert_footage_is_whole(&place.site);
}

/// A camera at the edge of the yard is heard badly: its urgent footage comes, and what can wait waits until it is heard
/// well; and again when it walks away.
///
/// Fails where routine footage is pulled whatever hostapd says of the signal.
pub fn signal() {
    const URGENT: u64 = 2;
    let station = Station::new(Plan::default());
    let place = Place::new(&station);
    let mut bay = place.bay(1);
    bay.camera.seal(&footage(1, mib(2)), &[]);
    bay.camera.seal(&footage(2, mib(1)), &["--class", "urgent"]);
    let quality = Quality {
        delay: Duration::from_millis(3),
        mbit: 30,
        ..Quality::default()
    };
    let air = Air::new("ap", &place.space, &bay.space, quality);
    place.give_addresses(air.near(), air.far());
    let port = Port::new(&station, &bay.wire.near, &identity());
    let radio = Radio::new(&port.sockets(), &air.near().device, air.far().mac(), -80);
    bay.serve_on(&[air.far()]);
    let repeater = place.repeater(&(FOUND.to_owned() + &watched(&port, air.near(), "wireless")));
    air.plug();
    let takes_routine = || repeater.status()["cameras"][0]["path"]["takes_routine"].as_bool();
    until("the urgent one is here", || repeater.held() >= URGENT);
    until("it is heard badly", || takes_routine() == Some(false));
    throughout("what can wait waits", Duration::from_secs(5), || {
        repeater.held() == URGENT
    });
    radio.hear(-60);
    station.wait_all_released(&[&bay.camera], &repeater);
    let pulled = || repeater.counted("repeater_pulled_bytes_total");
    let before = pulled();
    radio.hear(-76);
    until("it is heard badly again", || takes_routine() == Some(false));
    bay.camera.seal(&footage(3, mib(1)), &[]);
    throughout("what can wait waits again", Duration::from_secs(5), || {
        pulled() == before
    });
    radio.hear(-60);
    station.wait_all_released(&[&bay.camera], &repeater);
    station.assert_footage_is_whole(&place.site);
}
