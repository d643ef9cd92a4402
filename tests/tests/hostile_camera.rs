//! Cameras that lie, stall, flood or vanish, all at one repeater at once: each costs its own session only. The honest
//! camera beside them is emptied as if it were alone, and nothing of what they say is Held.

#![allow(clippy::unwrap_used, reason = "tests")]

use bytes::Bytes;
use protocol::ids::Digest;
use protocol::message::{BytesFollow, Code, Message};
use tests::camera_double::{Answer, Script, honest};
use tests::footage::footage;
use tests::sealed::{Recording, camera_id, inventory, page, record};
use tests::station::{Plan, Station};
use tests::wait::until;

const MIB: usize = 1 << 20;

/// A double with one recording of three segments.
fn double(station: &Station, n: u32) -> Script {
    let camera = camera_id(&format!("BWC-{n:04}"));
    let recording = record(
        station,
        &camera,
        0,
        &footage(u64::from(n), 3 * MIB),
        MIB,
        &["site-a"],
    );
    Script::new(station, camera, vec![recording])
}

/// Answers about segments with `lie`, about the header with the truth.
fn lying(
    lie: fn(u64, Bytes) -> Answer,
) -> impl Fn(&[Recording], Digest, u64) -> Answer + Send + Sync + 'static {
    move |recordings, digest, offset| match honest(recordings, digest, offset) {
        Answer::Bytes(length, bytes) if recordings[0].header_digest() != digest => {
            lie(length, bytes)
        }
        other => other,
    }
}

/// Everyone who lies about bytes.
fn liars(station: &Station) -> Vec<Script> {
    let zeros = |length, bytes: Bytes| Answer::Bytes(length, vec![0; bytes.len()].into());
    vec![
        double(station, 2).answering(lying(zeros)),
        double(station, 3).answering(lying(|length, bytes| {
            Answer::Bytes(length, bytes.slice(..bytes.len() / 2))
        })),
        double(station, 4).answering(lying(|length, bytes| {
            Answer::Bytes(length, [bytes.clone(), bytes].concat().into())
        })),
        double(station, 5).answering(lying(|_, bytes| Answer::Bytes(u64::MAX, bytes))),
        double(station, 6).answering(lying(|length, bytes| {
            Answer::Stall(length, bytes.slice(..1000))
        })),
        double(station, 7).answering(lying(|_, _| Answer::Wrong(Message::Unsupported(7)))),
        double(station, 8).answering(lying(|_, _| Answer::Reset(Code::NotHere.number()))),
    ]
}

/// Everyone who lies in what they say.
fn talkers(station: &Station) -> Vec<Script> {
    let mut all = Vec::new();
    let stranger = camera_id("BWC-0001");
    let foreign = page(station, inventory(&stranger, 9, &[])).bytes().clone();
    let of_another = record(station, &stranger, 0, &footage(50, MIB), MIB, &["site-a"]);
    let unsigned = |bytes: &Bytes| {
        let mut bytes = bytes.to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        Bytes::from(bytes)
    };
    let flipped = unsigned(of_another.manifest.bytes());
    all.push(Script {
        proves: false,
        ..double(station, 9)
    });
    let lies = [
        vec![Message::Inventory(foreign)],
        vec![Message::Manifest(of_another.manifest.bytes().clone())],
        vec![Message::Manifest(flipped)],
        vec![Message::Inventory(Bytes::from_static(b"nonsense"))],
        vec![Message::Bytes(BytesFollow { length: 1 }); 3],
    ];
    for (n, says) in (10..).zip(lies) {
        all.push(Script {
            says,
            ..double(station, n)
        });
    }
    // A flood of messages that nobody asked for.
    let flood = double(station, 15);
    let pages = flood.says[0].clone();
    all.push(Script {
        says: vec![pages; 3000],
        ..flood
    });
    all
}

#[test]
fn each_costs_its_own_session_and_no_other() {
    let station = Station::new(Plan {
        cameras: 15,
        ..Plan::default()
    });
    let site = station.site("site-a");
    let mut camera = station.camera(1);
    let (liars, talkers) = (liars(&station), talkers(&station));
    let listening: Vec<_> = liars
        .iter()
        .chain(&talkers)
        .map(|s| s.clone().listen(&station))
        .collect();
    let mut addresses: Vec<_> = listening.iter().map(|l| l.address).collect();
    camera.seal(&footage(1, 9 * MIB), &[]);
    addresses.push(camera.serve());
    let repeater = station.repeater(&addresses, &[site.told()]);
    camera.wait_released();
    for liar in &liars {
        until(&format!("{} was asked", liar.camera), || {
            !liar.asked.lock().unwrap().is_empty()
        });
    }
    repeater.wait_alarm("camera_fault");
    until("the wrong bytes are refused", || {
        repeater.items("refused") >= 1
    });
    // Segments of those who never gave a true byte are nowhere. (Who ends too early, or late, gave true ones.)
    let s = repeater.status();
    for liar in [&liars[0], &liars[3], &liars[5], &liars[6]] {
        let lines = s["cameras"].as_array().unwrap();
        let line = lines
            .iter()
            .find(|c| c["serial"] == liar.camera.serial.as_str())
            .unwrap();
        let count = |stage: &str| line["segments"][stage].as_u64().unwrap();
        // Its header may be: that was no lie.
        assert!(
            count("held") + count("archived") + count("released") <= 1,
            "{line}"
        );
    }
    station.assert_exports(&site);
    assert_eq!(site.verify()["problems"], serde_json::json!([]));

    // Still alive, and still serving: footage that is filmed now goes the whole way.
    camera.seal(&footage(99, MIB), &[]);
    camera.wait_released();
    station.assert_exports(&site);
    drop(listening);
}
