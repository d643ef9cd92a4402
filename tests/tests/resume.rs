//! The link breaks in the middle of a segment: at every tenth of one, on either hop, while nine other links break
//! elsewhere. What came is kept to the byte: nothing but what was under way is sent again on the camera hop, and at most
//! that and one segment on the archive hop.

#![allow(clippy::unwrap_used, reason = "tests")]

use tests::archive_party::Site;
use tests::camera_party::Camera;
use tests::footage::footage;
use tests::relay::{Relay, Way};
use tests::station::{Plan, Station};
use tests::wait::{LONG, eventually, until};

const MIB: u64 = 1 << 20;
const SEGMENT: u64 = 4 * MIB;
const SITES: [&str; 10] = ["s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9"];
/// Sent and not acknowledged, at most, on one connection.
const IN_FLIGHT: u64 = link::limits::SEND_WINDOW;
/// Handshakes, acknowledgements, manifests and the like, of one session and its successor.
const TALK: u64 = MIB;

/// Ten cameras, ten sites, a relay before each.
struct Scene<'a> {
    cameras: Vec<Camera<'a>>,
    sites: Vec<Site<'a>>,
    near: Vec<Relay>,
    far: Vec<Relay>,
    sealed_bytes: u64,
}

fn scene(station: &Station) -> Scene<'_> {
    let sites: Vec<Site<'_>> = SITES.iter().map(|name| station.site(name)).collect();
    let mut cameras: Vec<Camera<'_>> = (1..=10).map(|n| station.camera(n)).collect();
    for (camera, site) in cameras.iter().zip(SITES) {
        // The n-th camera's footage goes to the n-th site.
        camera.seal(&footage(u64::from(camera.n), 8 << 20), &["--site", site]);
    }
    let near = cameras.iter_mut().map(|c| Relay::to(c.serve())).collect();
    let far = sites.iter().map(|s| Relay::to(s.address())).collect();
    let sealed_bytes = cameras.iter().map(|c| c.status().bytes).sum();
    Scene {
        cameras,
        sites,
        near,
        far,
        sealed_bytes,
    }
}

impl Scene<'_> {
    fn told(&self) -> Vec<(&str, std::net::SocketAddr)> {
        SITES
            .into_iter()
            .zip(&self.far)
            .map(|(name, relay)| (name, relay.address()))
            .collect()
    }

    fn assert_whole(&self, station: &Station) {
        // Each site holds one camera's recording.
        for (camera, site) in self.cameras.iter().zip(&self.sites) {
            let report = site.verify();
            assert_eq!(
                (&report["whole"], &report["segments"]),
                (&1.into(), &2.into()),
                "{}: {report}",
                site.name
            );
            let recording = station.recording_of(&camera.serial);
            assert!(
                site.export(&recording.0, "escrow.key").unwrap() == recording.1,
                "{}",
                camera.serial
            );
        }
    }
}

/// Cuts each relay at its tenth of a segment, so many bytes after what passed it already.
fn cut_at_tenths(relays: &[Relay], way: Way) {
    for (tenth, relay) in (1..).zip(relays) {
        relay.cut_after(way, relay.passed(way) + tenth * SEGMENT / 10);
    }
}

#[test]
fn the_camera_hop_breaks_at_every_tenth_of_a_segment() {
    let station = Station::new(Plan {
        cameras: 10,
        sites: &SITES,
        ..Plan::default()
    });
    let scene = scene(&station);
    cut_at_tenths(&scene.near, Way::Back);
    let addresses: Vec<_> = scene.near.iter().map(Relay::address).collect();
    let repeater = station.repeater(&addresses, &scene.told());
    until("every camera hop is cut", || {
        scene.near.iter().all(Relay::is_cut)
    });
    eventually("the repeater has given up every session", LONG, || {
        let status = repeater.status();
        let away = status["cameras"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|c| c["state"] == "away")
            .count();
        (away == scene.cameras.len()).then_some(())
    });
    let at_break = repeater.counted("repeater_pulled_bytes_total");
    assert!(at_break > 0);
    scene.near.iter().for_each(Relay::mend);
    station.wait_all_released(&scene.cameras.iter().collect::<Vec<_>>(), &repeater);
    scene.assert_whole(&station);
    let pulled = repeater.counted("repeater_pulled_bytes_total");
    assert_eq!(
        pulled, scene.sealed_bytes,
        "a byte that came was pulled again, or one is missing"
    );
    for relay in &scene.near {
        let sent = relay.passed(Way::Back) + relay.dropped(Way::Back);
        let most =
            scene.sealed_bytes / 10 * 105 / 100 + IN_FLIGHT.min(relay.dropped(Way::Back)) + TALK;
        assert!(sent <= most, "{sent} bytes sent, at most {most} expected");
    }
}

#[test]
fn the_archive_hop_breaks_at_every_tenth_of_a_segment() {
    let station = Station::new(Plan {
        cameras: 10,
        sites: &SITES,
        ..Plan::default()
    });
    let scene = scene(&station);
    cut_at_tenths(&scene.far, Way::Out);
    let addresses: Vec<_> = scene.near.iter().map(Relay::address).collect();
    let repeater = station.repeater(&addresses, &scene.told());
    until("every archive hop is cut", || {
        scene.far.iter().all(Relay::is_cut)
    });
    eventually(
        "the repeater has noticed that every site is silent",
        LONG,
        || {
            let status = repeater.status();
            let gone = status["archives"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|a| a["state"] != "up")
                .count();
            (gone == SITES.len()).then_some(())
        },
    );
    // Cameras go on all the while.
    repeater.wait_held(30);
    scene.far.iter().for_each(Relay::mend);
    station.wait_all_released(&scene.cameras.iter().collect::<Vec<_>>(), &repeater);
    scene.assert_whole(&station);
    for relay in &scene.far {
        let (passed, most) = (
            relay.passed(Way::Out),
            scene.sealed_bytes / 10 * 105 / 100 + SEGMENT + IN_FLIGHT + TALK,
        );
        assert!(
            passed <= most,
            "{passed} bytes passed, at most {most} expected"
        );
    }
}
