//! One segment that a camera gives wrongly, or lists and does not have, does not keep the rest of that camera's footage
//! waiting: it is put off, the rest is Held, and an alarm says that something stays on the camera. So does one
//! when whoever answers at an address cannot prove which camera it is.

#![allow(clippy::unwrap_used, reason = "tests")]

use bytes::Bytes;
use protocol::ids::Digest;
use protocol::message::Code;
use tests::camera_double::{Answer, Script, honest};
use tests::footage::footage;
use tests::repeater_party::Repeater;
use tests::sealed::{Recording, camera_id, record};
use tests::station::{Plan, Station};
use tests::wait::until;

/// A camera with two recordings of one segment each, that answers about the first one's segment with `lie`.
fn double(station: &Station, lie: fn(u64, Bytes) -> Answer) -> Script {
    let camera = camera_id("BWC-0001");
    let make = |n: u64| {
        record(
            station,
            &camera,
            n,
            &footage(n, 99_999),
            1 << 20,
            &["site-a"],
        )
    };
    let recordings = vec![make(0), make(1)];
    Script::new(station, camera, recordings).answering(
        move |recordings: &[Recording], digest: Digest, offset| match honest(
            recordings, digest, offset,
        ) {
            Answer::Bytes(length, bytes)
                if recordings[0].bytes_of(&digest).is_some()
                    && digest != recordings[0].header_digest() =>
            {
                lie(length, bytes)
            }
            other => other,
        },
    )
}

/// Both headers and the second recording's segment.
fn wait_for_the_rest(repeater: &Repeater<'_>) {
    until("all but one item is held or archived", || {
        repeater.items("held") + repeater.items("archived") >= 3
    });
}

fn station() -> Station {
    Station::new(Plan {
        cameras: 1,
        ..Plan::default()
    })
}

#[test]
fn a_stream_that_ends_too_early_blocks_nothing_else() {
    let station = station();
    let script = double(&station, |length, bytes| {
        Answer::Bytes(length, bytes.slice(..bytes.len() / 2))
    });
    let listening = script.listen(&station);
    let site = station.site("site-a");
    let repeater = station.repeater(&[listening.address], &[site.told()]);
    wait_for_the_rest(&repeater);
}

#[test]
fn a_segment_that_is_listed_and_not_there_alarms_and_blocks_nothing_else() {
    let station = station();
    let script = double(&station, |_, _| Answer::Reset(Code::NotHere.number()));
    let listening = script.listen(&station);
    let site = station.site("site-a");
    let repeater = station.repeater(&[listening.address], &[site.told()]);
    wait_for_the_rest(&repeater);
    repeater.wait_alarm("camera_fault");
}

#[test]
fn who_cannot_prove_its_device_alarms_by_its_address() {
    let station = station();
    let script = Script {
        proves: false,
        ..double(&station, Answer::Bytes)
    };
    let listening = script.listen(&station);
    let site = station.site("site-a");
    let repeater = station.repeater(&[listening.address], &[site.told()]);
    repeater.wait_alarm("camera_fault");
    let alarms = repeater.status()["alarms"].to_string();
    assert!(alarms.contains(&listening.address.to_string()), "{alarms}");
}
