//! The spool is smaller than what the cameras hold, and the archive is away: pulling stops, urgent footage still comes,
//! nothing is dropped, and everything goes on when there is room again.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use tests::footage::footage;
use tests::repeater_party::Repeater;
use tests::station::{Plan, Station};
use tests::wait::{throughout, until};

const MIB: usize = 1 << 20;
/// The smallest spool that may be configured, of which routine footage may take 19 MiB and urgent 12 MiB more.
const SPOOL: &str =
    "capacity_bytes = 67108864\nhigh_percent = 30\nlow_percent = 15\nurgent_percent = 20";

#[test]
fn a_full_spool_stops_pulling_and_drops_nothing() {
    let station = Station::new(Plan {
        cameras: 2,
        ..Plan::default()
    });
    let mut site = station.site("site-a");
    site.gateway().kill();
    let (mut routine, mut urgent) = (station.camera(1), station.camera(2));
    let sealed = routine.seal(&footage(1, 40 * MIB), &[]);
    let addresses = [routine.serve(), urgent.serve()];
    let repeater = Repeater::start(&station, &addresses, &[site.told()], SPOOL);
    until("the gate is no longer open", || {
        repeater.status()["spool"]["gate"] != "open"
    });
    let stopped = |repeater: &Repeater<'_>| {
        let s = repeater.status();
        let announced = s["spool"]["segments"]["announced"].as_u64().unwrap();
        let used = s["spool"]["used_bytes"].as_u64().unwrap();
        announced > 0 && announced < sealed.segments && used < 36 * MIB as u64
    };
    until("pulls in flight have ended", || {
        repeater.status()["cameras"]
            .as_array()
            .unwrap()
            .iter()
            .all(|c| c["state"] == "idle")
    });
    let pulled = repeater.counted("repeater_pulled_bytes_total");
    throughout(
        "nothing routine is pulled while the gate is closed",
        Duration::from_secs(2),
        || stopped(&repeater) && repeater.counted("repeater_pulled_bytes_total") == pulled,
    );
    // Urgent footage has its reserve.
    urgent.seal(&footage(2, 3 * MIB), &["--class", "urgent"]);
    until("the urgent recording is held", || {
        repeater.counted("repeater_pulled_bytes_total") > pulled + 3 * MIB as u64
    });
    assert_eq!(
        routine.held(),
        sealed.segments,
        "nothing may be erased without a receipt"
    );
    // The archive is back: what is archived is reclaimed, and the rest follows.
    site.run();
    station.wait_all_released(&[&routine, &urgent], &repeater);
    station.assert_footage_is_whole(&site);
    assert!(repeater.counted("repeater_reclaimed_bytes_total") > 0);
    until("the gate is open again", || {
        repeater.status()["spool"]["gate"] == "open"
    });
}
