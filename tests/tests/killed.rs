//! A party is killed without a word in the middle of a segment, and started again: nothing is lost, and next to nothing
//! is sent twice.

#![allow(clippy::unwrap_used, reason = "tests")]

use tests::archive_party::Site;
use tests::camera_party::{Camera, Sealed};
use tests::footage::footage;
use tests::relay::{Relay, Way};
use tests::repeater_party::Repeater;
use tests::station::{Plan, Station};
use tests::wait::until;

const MIB: u64 = 1 << 20;
const SEGMENT: u64 = 4 * MIB;
const SEGMENTS: u64 = 8;
/// Read from streams and not yet in the spool when a session ends: a piece of each segment in flight.
const IN_HAND: u64 = MIB;
/// Handshakes, acknowledgements, manifests and the like.
const TALK: u64 = MIB;

/// A station whose hops can be cut.
struct Scene<'a> {
    camera: Camera<'a>,
    site: Site<'a>,
    repeater: Repeater<'a>,
    camera_hop: Relay,
    archive_hop: Relay,
    sealed: Sealed,
    /// Bytes on the camera: the segments and the header.
    sealed_bytes: u64,
}

impl<'a> Scene<'a> {
    /// The transfer stands still in the middle of a segment of the hop that `cut` cuts.
    fn frozen(station: &'a Station, cut: impl FnOnce(&Relay, &Relay)) -> Scene<'a> {
        let site = station.site("site-a");
        let mut camera = station.camera(1);
        let sealed = camera.seal(
            &footage(9, usize::try_from(SEGMENTS * SEGMENT).unwrap()),
            &[],
        );
        let sealed_bytes = camera.status().bytes;
        let (camera_hop, archive_hop) = (Relay::to(camera.serve()), Relay::to(site.address()));
        cut(&camera_hop, &archive_hop);
        let repeater = station.repeater(
            &[camera_hop.address()],
            &[("site-a", archive_hop.address())],
        );
        until("a hop is cut within a segment", || {
            camera_hop.is_cut() || archive_hop.is_cut()
        });
        Scene {
            camera,
            site,
            repeater,
            camera_hop,
            archive_hop,
            sealed,
            sealed_bytes,
        }
    }

    /// Waits until so many segments are durable in the repeater, kills it, and gives the bytes that must not be
    /// pulled again. (The header, pulled first, is small.)
    fn kill_repeater(&mut self, segments: u64) -> u64 {
        self.camera_hop
            .let_pass_until("segments are held", Way::Back, || {
                self.repeater.held() > segments
            });
        let held = self.repeater.held() - 1;
        assert!(held < SEGMENTS, "nothing is left to be pulled");
        self.repeater.daemon().kill();
        held * SEGMENT
    }

    /// The repeater that runs now has not pulled again what one before it had held.
    fn assert_pulled_but(&self, held_bytes: u64) {
        let pulled = self.repeater.counted("repeater_pulled_bytes_total");
        let most = self.sealed_bytes - held_bytes + IN_HAND;
        assert!(
            pulled <= most,
            "{pulled} bytes pulled, at most {most} expected: {held_bytes} were held"
        );
    }

    fn goes_on(&self, station: &Station) {
        self.camera_hop.mend();
        self.archive_hop.mend();
        station.wait_all_released(&[&self.camera], &self.repeater);
        station.assert_footage_is_whole(&self.site);
        assert_eq!(self.sealed.segments, SEGMENTS);
    }
}

#[test]
fn the_camera_is_killed() {
    let station = Station::new(Plan::default());
    let mut scene = Scene::frozen(&station, |camera, _| camera.cut_after(Way::Back, 9 * MIB));
    scene.camera.server().kill();
    scene.camera_hop.mend();
    scene.camera.serve();
    scene.goes_on(&station);
    scene.assert_pulled_but(0);
    assert!(scene.repeater.counted("repeater_pulled_bytes_total") >= scene.sealed_bytes);
}

#[test]
fn the_repeater_is_killed() {
    let station = Station::new(Plan::default());
    // Four segments come at once: within the fifth at the earliest the first are whole.
    let mut scene = Scene::frozen(&station, |camera, _| camera.cut_after(Way::Back, 21 * MIB));
    let held = scene.kill_repeater(3);
    scene.camera_hop.mend();
    scene.repeater.run();
    scene.goes_on(&station);
    scene.assert_pulled_but(held);
}

#[test]
fn the_archive_is_killed() {
    let station = Station::new(Plan::default());
    let mut scene = Scene::frozen(&station, |_, archive| {
        archive.cut_after(Way::Out, 19 * MIB);
    });
    // Segments go one after the other.
    scene
        .archive_hop
        .let_pass_until("what came is stored", Way::Out, || {
            scene.site.segments() >= 3
        });
    let stored = scene.site.segments();
    assert!(stored < SEGMENTS, "nothing is left to be put");
    scene.site.gateway().kill();
    scene.site.run();
    let before = scene.archive_hop.passed(Way::Out);
    scene.archive_hop.mend();
    scene.goes_on(&station);
    let again = scene.archive_hop.passed(Way::Out) - before;
    let most = (scene.sealed_bytes - stored * SEGMENT) * 105 / 100 + TALK;
    assert!(
        again <= most,
        "{again} bytes put after the kill, at most {most} expected: {stored} segments were stored"
    );
}

#[test]
fn every_party_is_killed_at_once_again_and_again() {
    let station = Station::new(Plan::default());
    let mut scene = Scene::frozen(&station, |camera, _| camera.cut_after(Way::Back, 3 * MIB));
    let mut held = 0;
    for (segments, more) in [(0, 24), (3, 28)] {
        held = scene.kill_repeater(segments);
        scene.camera.server().kill();
        scene.site.gateway().kill();
        scene.camera_hop.mend_until(Way::Back, more * MIB);
        scene.site.run();
        scene.camera.serve();
        scene.repeater.run();
        until("the camera hop is cut again", || scene.camera_hop.is_cut());
    }
    scene.goes_on(&station);
    scene.assert_pulled_but(held);
}
