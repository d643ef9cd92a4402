//! Ninety-five days without an archive, as after the fire of 2025: certificates outlive it, a revocation list past its
//! date is used, with an alarm, and footage of the first day arrives like that of the last.

#![allow(clippy::unwrap_used, reason = "tests")]

use tests::footage::footage;
use tests::station::{DAY_MS, Plan, Station};
use tests::wait::until;

const MIB: usize = 1 << 20;
const DAYS: i64 = 95;

#[test]
fn footage_of_95_days_ago_arrives_and_no_certificate_has_ended() {
    // Everyone was certified, and the revocation list made, on the day that the archive burned.
    let station = Station::new(Plan {
        cameras: 2,
        days_ago: DAYS,
        ..Plan::default()
    });
    let mut site = station.site("site-a");
    site.gateway().kill();
    let mut cameras: Vec<_> = (1..=2).map(|n| station.camera(n)).collect();
    cameras[0].more = vec!["--clock-offset-ms".into(), (-DAYS * DAY_MS).to_string()];
    let mut sealed = cameras[0].seal(&footage(1, 5 * MIB), &[]).items();
    cameras[0].more.clear();
    sealed += cameras[1].seal(&footage(2, 5 * MIB), &[]).items();
    let addresses: Vec<_> = cameras
        .iter_mut()
        .map(tests::camera_party::Camera::serve)
        .collect();
    let mut repeater = station.repeater(&addresses, &[site.told()]);
    until("both days' footage is held", || {
        repeater.items("held") == sealed
    });
    repeater.wait_alarm("crl_stale");
    // It is power-cycled on the way; nothing of that depends on the date.
    repeater.daemon().kill();
    repeater.run();
    assert_eq!(repeater.items("held"), sealed);
    assert_eq!(
        cameras
            .iter()
            .map(tests::camera_party::Camera::held)
            .sum::<u64>(),
        4
    );

    site.run();
    station.wait_all_released(&cameras.iter().collect::<Vec<_>>(), &repeater);
    station.assert_footage_is_whole(&site);
    repeater.wait_alarm("crl_stale");
}

#[test]
fn a_list_past_its_date_still_keeps_the_revoked_out() {
    let station = Station::new(Plan {
        cameras: 2,
        days_ago: DAYS,
        ..Plan::default()
    });
    let site = station.site("site-a");
    let stolen = station.agency.path("cameras/BWC-0002/link.pem");
    station.agency.revoke(&stolen).unwrap();
    let mut cameras: Vec<_> = (1..=2).map(|n| station.camera(n)).collect();
    let kept = cameras[1].seal(&footage(2, MIB), &[]);
    station.recorded_elsewhere(&kept.recording);
    cameras[0].seal(&footage(1, MIB), &[]);
    let addresses: Vec<_> = cameras
        .iter_mut()
        .map(tests::camera_party::Camera::serve)
        .collect();
    let repeater = station.repeater(&addresses, &[site.told()]);
    cameras[0].wait_released();
    until("the revoked one was refused and counted", || {
        repeater.counted("repeater_refused_handshakes{reason=\"revoked\"}") > 0
    });
    assert_eq!(cameras[1].held(), 1);
    station.assert_footage_is_whole(&site);
}
