//! Strangers with certificates of another agency: a camera that would fill the spool, a repeater that would empty a
//! camera or learn who carries it.

use super::FOUND;
use super::docks::mib;
use crate::footage::{contains, footage};
use crate::repeater_party::Repeater;
use crate::station::air::{Air, Quality, Way};
use crate::station::place::Place;
use crate::station::{Plan, STATION, Station};
use crate::wait::{LONG, eventually, until};

/// Handshakes that a repeater refused.
fn refused(repeater: &Repeater<'_>) -> f64 {
    let page = repeater.page("/metrics");
    let lines = page.lines();
    let of = lines.filter(|l| l.starts_with("repeater_refused_handshakes{"));
    of.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// A camera that another agency certified docks, full of footage: the repeater takes nothing of it, writes nothing of it,
/// and serves the one beside it.
///
/// Fails where the repeater takes any chain; with the rogue certified by this agency it is emptied.
pub fn rogue_camera() {
    let (station, other) = (Station::new(Plan::default()), Station::new(Plan::default()));
    let place = Place::new(&station);
    let mut bay = place.bay(1);
    bay.camera.seal(&footage(1, mib(2)), &[]);
    bay.serve();
    let mut rogue = place.bay(1);
    rogue.camera = {
        let mut camera = other.camera(1);
        camera.space = Some(rogue.space.clone());
        camera.listen = rogue.camera.listen;
        camera
    };
    let sealed = rogue
        .camera
        .seal(&footage(2, mib(20)), &["--class", "urgent"]);
    rogue.serve();
    let repeater = place.repeater(FOUND);
    rogue.plug();
    eventually("the rogue is refused", LONG, || {
        (refused(&repeater) > 0.0).then_some(())
    });
    bay.plug();
    station.wait_all_released(&[&bay.camera], &repeater);
    station.assert_footage_is_whole(&place.site);
    let honest = station.recording_of(&bay.camera.serial).0;
    assert!(
        repeater.logbook_says(honest.split('/').nth(1).unwrap_or_default()) || repeater.held() > 0
    );
    assert_eq!(rogue.camera.held(), sealed.segments, "it was emptied");
    let status = repeater.status();
    assert_eq!(status["cameras"].as_array().unwrap().len(), 1, "{status}");
    assert!(
        status["spool"]["used_bytes"].as_u64().unwrap() < 8 << 20,
        "{status}"
    );
}

/// A repeater of another agency stands beside the camera and dials it: it is refused, and whoever listens learns no
/// serial, no station, no officer. Docked at home the camera still has everything.
///
/// Fails where a camera takes any repeater's chain; with the twin certified by this agency the camera is emptied.
pub fn evil_twin() {
    let (station, other) = (Station::new(Plan::default()), Station::new(Plan::default()));
    let (place, twins) = (Place::new(&station), Place::new(&other));
    let mut bay = place.bay(1);
    let sealed = bay
        .camera
        .seal(&footage(1, mib(2)), &["--officer", "officer-Kim"]);
    let air = Air::new("dk", &twins.space, &bay.space, Quality::default());
    twins.give_addresses(air.near(), air.far());
    air.record();
    bay.serve_on(&[air.far()]);
    let twin = twins.repeater(FOUND);
    air.plug();
    until("the twin has dialled and was told to go", || {
        twin.log().matches("cannot reach a camera").count()
            + twin.log().matches("session ended").count()
            >= 2
            && air.passed(Way::Out) > 2000
    });
    assert_eq!(twin.held(), 0, "the twin has footage");
    assert_eq!(bay.camera.held(), sealed.segments);
    let seen = air.recorded();
    assert!(contains(&seen, b"_bwc-offload"), "nothing was recorded");
    for secret in [bay.camera.serial.as_str(), "officer-Kim", STATION, "BWC-"] {
        assert!(
            !contains(&seen, secret.as_bytes()),
            "{secret} is in the air"
        );
    }
    let repeater = place.repeater(FOUND);
    bay.plug();
    station.wait_all_released(&[&bay.camera], &repeater);
    station.assert_footage_is_whole(&place.site);
}
