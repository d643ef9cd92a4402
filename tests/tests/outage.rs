//! The archive is away. Cameras keep offloading and may be taken out again; no footage is erased anywhere. When the
//! archive is back, the spool drains.

#![allow(clippy::unwrap_used, reason = "tests")]

use tests::footage::footage;
use tests::station::{Plan, Station};
use tests::wait::until;

const MIB: usize = 1 << 20;

#[test]
fn cameras_offload_without_an_archive_and_the_spool_drains_when_it_is_back() {
    let station = Station::new(Plan {
        cameras: 3,
        ..Plan::default()
    });
    let mut site = station.site("site-a");
    let mut cameras: Vec<_> = (1..=3).map(|n| station.camera(n)).collect();
    // One recording arrives before the outage.
    cameras[0].seal(&footage(1, MIB), &[]);
    let addresses: Vec<_> = cameras
        .iter_mut()
        .map(tests::camera_party::Camera::serve)
        .collect();
    let mut repeater = station.repeater(&addresses, &[site.told()]);
    station.wait_all_released(&cameras.iter().collect::<Vec<_>>(), &repeater);

    site.gateway().kill();
    let sealed: u64 = cameras
        .iter()
        .map(|c| c.seal(&footage(u64::from(c.n) + 10, 9 * MIB), &[]).items())
        .sum();
    until("all is held", || repeater.items("held") == sealed);
    // Officers take two cameras out, and the repeater restarts, all within the outage.
    cameras[0].server().stop();
    cameras[1].server().stop();
    assert_eq!(repeater.daemon().stop(), Some(0));
    repeater.run();
    assert_eq!(repeater.items("held"), sealed);
    assert_eq!(
        cameras
            .iter()
            .map(tests::camera_party::Camera::held)
            .sum::<u64>(),
        9,
        "nothing has a receipt"
    );

    site.run();
    until("the spool has drained", || {
        repeater.status()["spool"]["outstanding"] == 0
    });
    // The cameras come back only now; their receipts wait for them.
    assert_eq!(cameras[0].held(), 3);
    cameras[0].serve();
    cameras[1].serve();
    station.wait_all_released(&cameras.iter().collect::<Vec<_>>(), &repeater);
    station.assert_footage_is_whole(&site);
}

#[test]
fn what_a_camera_says_it_holds_reaches_the_site_though_it_left_and_the_repeater_restarted() {
    let station = Station::new(Plan::default());
    let mut site = station.site("site-a");
    site.gateway().kill();
    let mut camera = station.camera(1);
    let sealed = camera.seal(&footage(1, MIB), &[]);
    let mut repeater = station.repeater(&[camera.serve()], &[site.told()]);
    repeater.wait_held(sealed.items());
    camera.server().stop();
    assert_eq!(repeater.daemon().stop(), Some(0));
    repeater.run();
    site.run();
    let of_camera = site.store().join("inventories").join("BWC-0001");
    until("the site has its inventory", || {
        let incarnations = std::fs::read_dir(&of_camera).into_iter().flatten();
        incarnations
            .filter_map(Result::ok)
            .any(|i| i.path().join("0000.cose").exists())
    });
}

#[test]
fn one_of_two_sites_is_away_and_two_receipts_are_asked_for() {
    let station = Station::new(Plan {
        sites: &["site-a", "site-b"],
        ..Plan::default()
    });
    let (one, mut two) = (station.site("site-a"), station.site("site-b"));
    two.gateway().kill();
    let mut camera = station.camera(1);
    let sealed = camera.seal(&footage(5, 5 * MIB), &["--k", "2"]);
    let repeater = station.repeater(&[camera.serve()], &[one.told(), two.told()]);
    until("the first site has it all", || {
        one.segments() == sealed.segments
    });
    until("its receipt has come", || {
        repeater.counted("repeater_receipts_total{site=\"site-a\"}") >= 1
    });
    assert_eq!(
        repeater.items("archived"),
        0,
        "one receipt of two is not enough"
    );
    assert_eq!(camera.held(), sealed.segments);
    two.run();
    station.wait_all_released(&[&camera], &repeater);
    station.assert_footage_is_whole(&one);
    station.assert_footage_is_whole(&two);
}
