//! The link breaks in the middle of a segment: at every tenth of one, on either hop, while nine other links break
//! elsewhere. What came is kept: to the byte on the camera hop, by whole segments on the archive hop, whose sessions do
//! not outlive the break.

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

/// So many bytes with what the datagrams that carry them cost, generously.
fn on_the_wire(bytes: u64) -> u64 {
    bytes * 105 / 100
}

/// Ten cameras, ten sites, a relay before each.
struct Scene<'a> {
    cameras: Vec<Camera<'a>>,
    sites: Vec<Site<'a>>,
    near: Vec<Relay>,
    far: Vec<Relay>,
    sealed_bytes: u64,
    segments: u64,
}

fn scene(station: &Station, segments: u64) -> Scene<'_> {
    let sites: Vec<Site<'_>> = SITES.iter().map(|name| station.site(name)).collect();
    let mut cameras: Vec<Camera<'_>> = (1..=10).map(|n| station.camera(n)).collect();
    for (camera, site) in cameras.iter().zip(SITES) {
        // The n-th camera's footage goes to the n-th site.
        let bytes = usize::try_from(segments * SEGMENT).unwrap();
        camera.seal(&footage(u64::from(camera.n), bytes), &["--site", site]);
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
        segments,
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
                (&1.into(), &self.segments.into()),
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

/// Cuts each relay at its tenth of a segment, after so many whole ones.
fn cut_at_tenths(relays: &[Relay], way: Way, whole: u64) {
    for (tenth, relay) in (1..).zip(relays) {
        relay.cut_after(way, on_the_wire(whole * SEGMENT) + tenth * SEGMENT / 10);
    }
}

#[test]
fn the_camera_hop_breaks_at_every_tenth_of_a_segment() {
    let station = Station::new(Plan {
        cameras: 10,
        sites: &SITES,
        ..Plan::default()
    });
    let scene = scene(&station, 2);
    cut_at_tenths(&scene.near, Way::Back, 0);
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
            on_the_wire(scene.sealed_bytes / 10) + IN_FLIGHT.min(relay.dropped(Way::Back)) + TALK;
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
    let mut scene = scene(&station, 4);
    cut_at_tenths(&scene.far, Way::Out, 2);
    let addresses: Vec<_> = scene.near.iter().map(Relay::address).collect();
    let repeater = station.repeater(&addresses, &scene.told());
    until("every archive hop is cut", || {
        scene.far.iter().all(Relay::is_cut)
    });
    // Cameras go on all the while.
    repeater.wait_held(10 * (scene.segments + 1));
    // Segments go one after the other.
    for (relay, site) in scene.far.iter().zip(&scene.sites) {
        relay.let_pass_until("what came is stored", Way::Out, || site.segments() >= 1);
    }
    let stored: Vec<u64> = scene.sites.iter().map(Site::segments).collect();
    assert!(
        stored.iter().all(|n| *n < scene.segments),
        "a site had it all before the break: {stored:?}"
    );
    // No session of before the break goes on after it: the other end does not know it any more.
    for site in &mut scene.sites {
        site.gateway().kill();
        site.run();
    }
    let before: Vec<u64> = scene.far.iter().map(|r| r.passed(Way::Out)).collect();
    scene.far.iter().for_each(Relay::mend);
    station.wait_all_released(&scene.cameras.iter().collect::<Vec<_>>(), &repeater);
    scene.assert_whole(&station);
    for ((relay, before), stored) in scene.far.iter().zip(before).zip(stored) {
        let again = relay.passed(Way::Out) - before;
        let most = on_the_wire(scene.sealed_bytes / 10 - stored * SEGMENT) + TALK;
        assert!(
            again <= most,
            "{again} bytes after the break, at most {most} expected: {stored} segments were stored"
        );
    }
}
