//! Clocks are wrong: a camera whose battery died wakes up in 1970, others are nearly a day off. Footage comes in all the
//! same, says what is known of its time, and nothing is judged or erased by a wall clock.

#![allow(clippy::unwrap_used, reason = "tests")]

use protocol::manifest::Manifest;
use tests::footage::footage;
use tests::station::{DAY_MS, Plan, Station};

const MIB: usize = 1 << 20;

/// Manifests in a site's store.
fn manifests(station: &Station, store: &std::path::Path, serial: &str) -> Vec<Manifest> {
    let mut found = Vec::new();
    let mut folders = vec![store.join("recordings").join(serial)];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().path())
        {
            if path.is_dir() {
                folders.push(path);
            } else if path
                .file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("manifest-")
            {
                found.push(
                    Manifest::verify(std::fs::read(path).unwrap().into(), &station.trust())
                        .unwrap(),
                );
            }
        }
    }
    found
}

#[test]
fn cameras_in_1970_and_a_day_off_are_offloaded() {
    let station = Station::new(Plan {
        cameras: 3,
        ..Plan::default()
    });
    let site = station.site("site-a");
    let now = i64::try_from(link::clock::Clock::system().now().0).unwrap();
    // Certificates begin a day before they are issued, for clocks that are behind.
    let offsets = [-now, -DAY_MS + 3_600_000, DAY_MS];
    let mut cameras: Vec<_> = (1..=3).map(|n| station.camera(n)).collect();
    let mut addresses = Vec::new();
    for (camera, offset) in cameras.iter_mut().zip(offsets) {
        camera.more = vec!["--clock-offset-ms".into(), offset.to_string()];
        camera.seal(&footage(u64::from(camera.n), 5 * MIB), &[]);
        addresses.push(camera.serve());
    }
    let repeater = station.repeater(&addresses, &[site.told()]);
    station.wait_all_released(&cameras.iter().collect::<Vec<_>>(), &repeater);
    station.assert_footage_is_whole(&site);
    for (camera, offset) in cameras.iter().zip(offsets) {
        let all = manifests(&station, &site.store(), &camera.serial);
        assert!(!all.is_empty());
        for manifest in all {
            let body = manifest.body();
            assert_eq!(body.clock_unset, offset == -now, "{}", camera.serial);
            let shift = i64::try_from(body.captured_to.0).unwrap() - now - offset;
            assert!(
                (0..600_000).contains(&shift),
                "{}: captured {shift} ms beside its clock",
                camera.serial
            );
        }
    }
    // A repeater's offer of the time is recorded in the next manifest, never believed.
    let second = cameras[1].seal(&footage(77, 100), &[]);
    station.wait_all_released(&cameras.iter().collect::<Vec<_>>(), &repeater);
    let number: u64 = second
        .recording
        .rsplit('/')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let all = manifests(&station, &site.store(), &cameras[1].serial);
    let last = all.iter().find(|m| m.recording().number == number).unwrap();
    let noted = last.body().clock_offset_ms.expect("an offset is noted");
    assert!(
        (noted - (DAY_MS - 3_600_000)).abs() < 600_000,
        "noted {noted} ms"
    );
}
