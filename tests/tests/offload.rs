//! Officers come back and dock: every recording leaves the cameras, arrives in the archive as it was filmed, and is
//! erased only then.

#![allow(clippy::unwrap_used, reason = "tests")]

use tests::footage::footage;
use tests::station::{Plan, Station};

const MIB: usize = 1 << 20;

#[test]
fn four_cameras_are_emptied_and_the_footage_is_what_was_filmed() {
    let station = Station::new(Plan {
        cameras: 4,
        ..Plan::default()
    });
    let site = station.site("site-a");
    let mut cameras: Vec<_> = (1..=4).map(|n| station.camera(n)).collect();
    // Every length at which segments are cut differently, and each class.
    let lengths = [0, 1, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 9 * MIB];
    let classes = ["routine", "flagged", "urgent"];
    for (i, length) in lengths.into_iter().enumerate() {
        let camera = &cameras[i % 4];
        let sealed = camera.seal(
            &footage(i as u64, length),
            &["--class", classes[i % 3], "--officer", "Kim"],
        );
        assert_eq!(sealed.segments, length.div_ceil(4 * MIB).max(1) as u64);
    }
    let addresses: Vec<_> = cameras
        .iter_mut()
        .map(tests::camera_party::Camera::serve)
        .collect();
    let repeater = station.repeater(&addresses, &[site.told()]);
    station.wait_all_released(&cameras.iter().collect::<Vec<_>>(), &repeater);
    station.assert_footage_is_whole(&site);
    for camera in &cameras {
        assert!(
            camera.segment_files().is_empty(),
            "{} still has segments",
            camera.serial
        );
        assert!(
            camera.status().erase_records > 0,
            "{} keeps no record of what it erased",
            camera.serial
        );
    }
    assert_eq!(repeater.metric("repeater_first_held_seconds_count"), 4.0);
    assert_eq!(repeater.alarms(), Vec::<String>::new());
}

#[test]
fn a_recording_in_progress_is_offloaded_live() {
    let station = Station::new(Plan::default());
    let site = station.site("site-a");
    let mut camera = station.camera(1);
    camera.seal(&footage(1, MIB), &[]);
    let repeater = station.repeater(&[camera.serve()], &[site.told()]);
    station.wait_all_released(&[&camera], &repeater);
    // The session stands; what is filmed now is announced in it.
    camera.seal(&footage(2, 5 * MIB), &["--class", "urgent"]);
    camera.seal(&footage(3, 100), &[]);
    station.wait_all_released(&[&camera], &repeater);
    station.assert_footage_is_whole(&site);
}
