//! An archive that was away comes back to more than it grants at one time: everything drains, in grants that follow each
//! other, and neither side ever waits for what the other holds back.

#![allow(clippy::unwrap_used, reason = "tests")]

use tests::camera_double::Script;
use tests::footage::footage;
use tests::sealed::{Recording, camera_id, record};
use tests::station::{Plan, Station};
use tests::wait::until;

/// Long recordings, of nearly a full manifest each, and short ones.
const LONG: u64 = 8;
const SHORT: u64 = 240;
const SEGMENTS: usize = 60;
const PIECE: usize = 1 << 10;

#[test]
fn a_backlog_beyond_what_an_archive_grants_at_once_drains() {
    let station = Station::new(Plan::default());
    let mut site = station.site("site-a");
    site.gateway().kill();
    let camera = camera_id("BWC-0001");
    let recordings: Vec<Recording> = (0..LONG + SHORT)
        .map(|n| {
            let segments = if n < LONG { SEGMENTS } else { 1 };
            let footage = footage(n, segments * PIECE);
            record(&station, &camera, n, &footage, PIECE, &["site-a"])
        })
        .collect();
    let items: usize = recordings.iter().map(|r| r.segments.len() + 1).sum();
    let items = u64::try_from(items).unwrap();
    let double = Script::new(&station, camera, recordings).listen(&station);
    let repeater = station.repeater(&[double.address], &[site.told()]);
    repeater.wait_held(items);
    assert_eq!(repeater.items("archived"), 0);
    // Back: what waits is three times what one connection is granted.
    site.run();
    until("the backlog is archived", || {
        repeater.items("held") == 0
            && repeater.items("archived") + repeater.items("released") == items
    });
    let report = site.verify();
    assert_eq!(report["problems"], serde_json::json!([]), "{report}");
    assert_eq!(report["recordings"], LONG + SHORT, "{report}");
}
