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
const SEGMENTS: u64 = 5;
/// What may be under way on a hop when it is cut: the largest window.
const IN_FLIGHT: u64 = 8 * MIB;

/// A station whose hops can be cut.
struct Scene<'a> {
    camera: Camera<'a>,
    site: Site<'a>,
    repeater: Repeater<'a>,
    camera_hop: Relay,
    archive_hop: Relay,
    sealed: Sealed,
}

impl<'a> Scene<'a> {
    /// The transfer stands still in the middle of a segment of the hop that `cut` cuts.
    fn frozen(station: &'a Station, cut: impl FnOnce(&Relay, &Relay)) -> Scene<'a> {
        let site = station.site("site-a");
        let mut camera = station.camera(1);
        let sealed = camera.seal(
            &footage(9, usize::try_from(SEGMENTS * 4 * MIB).unwrap()),
            &[],
        );
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
        }
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
    let pulled = scene.repeater.counted("repeater_pulled_bytes_total");
    assert!(
        pulled <= SEGMENTS * 4 * MIB + IN_FLIGHT,
        "{pulled} bytes pulled"
    );
}

#[test]
fn the_repeater_is_killed() {
    let station = Station::new(Plan::default());
    let mut scene = Scene::frozen(&station, |camera, _| camera.cut_after(Way::Back, 13 * MIB));
    scene.repeater.daemon().kill();
    scene.camera_hop.mend();
    scene.repeater.run();
    scene.goes_on(&station);
    // What was Held when it died was durable, and is not pulled again.
    let back = scene.camera_hop.passed(Way::Back);
    assert!(
        back <= SEGMENTS * 4 * MIB * 11 / 10 + 13 * MIB,
        "{back} bytes came from the camera"
    );
}

#[test]
fn the_archive_is_killed() {
    let station = Station::new(Plan::default());
    let mut scene = Scene::frozen(&station, |_, archive| archive.cut_after(Way::Out, 9 * MIB));
    scene.site.gateway().kill();
    scene.archive_hop.mend();
    scene.site.run();
    scene.goes_on(&station);
}

#[test]
fn every_party_is_killed_at_once_again_and_again() {
    let station = Station::new(Plan::default());
    let mut scene = Scene::frozen(&station, |camera, _| camera.cut_after(Way::Back, 3 * MIB));
    for more in [7, 11] {
        scene.repeater.daemon().kill();
        scene.camera.server().kill();
        scene.site.gateway().kill();
        scene.camera_hop.mend_until(Way::Back, more * MIB);
        scene.site.run();
        scene.camera.serve();
        scene.repeater.run();
        until("the camera hop is cut again", || scene.camera_hop.is_cut());
    }
    scene.goes_on(&station);
}
