//! Cameras that lie, stall, flood or vanish, all at one repeater at once: each costs its own session only. The honest
//! camera beside them is emptied as if it were alone, and nothing of what they say is Held.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;

use bytes::Bytes;
use protocol::ids::{CameraId, Digest};
use protocol::message::{BytesFollow, Code, Message};
use serde_json::Value;
use tests::camera_double::{Answer, Script, honest};
use tests::footage::footage;
use tests::repeater_party::Repeater;
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

/// What the repeater says of each of the liars, in their order.
const LIES: [&str; 7] = [
    "bytes are not what is signed",
    "session ended: ends a stream before the bytes it announced",
    "session ended: sends more bytes than it announced",
    "session ended: announces ",
    "pull broken: silent for 10 s",
    "session ended: answers a pull with message ",
    "and does not give it",
];

/// One that ends the connection in the middle of each segment, and has the rest when it is asked again.
fn vanishing(station: &Station, n: u32) -> Script {
    double(station, n).answering(|recordings, digest, offset| {
        match honest(recordings, digest, offset) {
            Answer::Bytes(length, bytes)
                if recordings[0].header_digest() != digest && offset == 0 =>
            {
                Answer::Vanish(length, bytes.slice(..bytes.len() / 2))
            }
            other => other,
        }
    })
}

/// Everyone who lies in what they say, of a stranger among them.
fn talkers(station: &Station, stranger: &CameraId) -> Vec<Script> {
    let mut all = Vec::new();
    let foreign = page(station, inventory(stranger, 9, &[])).bytes().clone();
    let of_another = record(station, stranger, 0, &footage(50, MIB), MIB, &["site-a"]);
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
    all
}

/// What the repeater says of each of the talkers, in their order.
const TALES: [&str; 6] = [
    "session ended: ",
    "session ended: an inventory of another camera",
    "session ended: a manifest of another camera",
    "a manifest that does not verify: ",
    "session ended: inventory: ",
    "has no place in this session",
];

/// A flood of messages that nobody asked for.
fn flooding(station: &Station, n: u32) -> Script {
    let flood = double(station, n);
    let pages = flood.says[0].clone();
    Script {
        says: vec![pages; 3000],
        ..flood
    }
}

/// Waits until the repeater warns, or notes, so about a session or its camera.
fn wait_said(repeater: &Repeater<'_>, double: &Script, address: SocketAddr, what: &str) {
    let (at, serial) = (format!("address={address}"), double.camera.serial.as_str());
    let ended = what.starts_with("session ended") || what.starts_with("has no place");
    until(&format!("`{what}` of {serial}"), || {
        repeater.log().lines().any(|line| {
            let about = if ended {
                line.contains(" WARN ") && line.split_whitespace().any(|word| word == at)
            } else {
                line.contains(serial)
            };
            about && line.contains(what)
        })
    });
}

/// How many segments and headers of a camera are in custody, in these stages or beyond.
fn in_custody(status: &Value, camera: &CameraId) -> u64 {
    let incarnation = camera.incarnation.to_string();
    let lines = status["cameras"].as_array().unwrap().iter();
    let of_it = lines.filter(|line| line["incarnation"] == incarnation.as_str());
    of_it
        .map(|line| {
            let count = |stage: &str| line["segments"][stage].as_u64().unwrap();
            count("held") + count("archived") + count("released")
        })
        .sum()
}

/// Whether anything of a camera was believed.
fn is_known(status: &Value, camera: &CameraId) -> bool {
    let incarnation = camera.incarnation.to_string();
    let mut lines = status["cameras"].as_array().unwrap().iter();
    lines.any(|line| {
        let stages = line["segments"].as_object().unwrap();
        line["incarnation"] == incarnation.as_str()
            && (line["recordings"] != 0 || stages.values().any(|n| *n != 0))
    })
}

#[test]
fn each_costs_its_own_session_and_no_other() {
    let station = Station::new(Plan {
        cameras: 16,
        ..Plan::default()
    });
    let site = station.site("site-a");
    let mut camera = station.camera(1);
    let stranger = camera_id("BWC-0001");
    let (liars, talkers) = (liars(&station), talkers(&station, &stranger));
    let (flood, vanisher) = (flooding(&station, 15), vanishing(&station, 16));
    let doubles: Vec<&Script> = liars.iter().chain(&talkers).collect();
    let listening: Vec<_> = doubles
        .iter()
        .copied()
        .chain([&flood, &vanisher])
        .map(|s| s.clone().listen(&station))
        .collect();
    let mut addresses: Vec<_> = listening.iter().map(|l| l.address).collect();
    camera.seal(&footage(1, 9 * MIB), &[]);
    addresses.push(camera.serve());
    let repeater = station.repeater(&addresses, &[site.told()]);
    camera.wait_released();
    // Each is found out in its own lie.
    let lies = LIES.iter().chain(&TALES);
    for ((double, address), lie) in doubles.iter().zip(&addresses).zip(lies) {
        wait_said(&repeater, double, *address, lie);
    }
    let faults = repeater.counted("repeater_peer_faults_total{code=\"camera\"}");
    // A manifest that does not verify costs nothing but itself.
    let sessions = 4 + TALES.len() as u64 - 1;
    assert!(faults >= sessions, "{faults} faults counted");
    repeater.wait_alarm("camera_fault");
    until("the wrong bytes are refused", || {
        repeater.items("refused") >= 1
    });
    // Who only talks much, or comes and goes, loses nothing.
    for (n, honest) in [&flood, &vanisher].into_iter().enumerate() {
        until(&format!("honest double {n} is in custody"), || {
            in_custody(&repeater.status(), &honest.camera) == 4
        });
    }
    let again = |(_, offset): &(Digest, u64)| *offset > 0;
    assert!(
        vanisher.asked.lock().unwrap().iter().any(again),
        "what came before the end is kept"
    );
    assert_nothing_taken(&repeater.status(), &liars, &talkers, &stranger);
    station.assert_exports(&site);
    assert_eq!(site.verify()["problems"], serde_json::json!([]));

    // Still alive, and still serving: footage that is filmed now goes the whole way.
    camera.seal(&footage(99, MIB), &[]);
    camera.wait_released();
    station.assert_exports(&site);
    drop(listening);
}

fn assert_nothing_taken(status: &Value, liars: &[Script], talkers: &[Script], stranger: &CameraId) {
    // Segments of those who never gave a true byte are nowhere. (Who ends too early, or late, gave true ones.) The
    // header may be: that was no lie.
    for liar in [&liars[0], &liars[3], &liars[5], &liars[6]] {
        assert!(
            in_custody(status, &liar.camera) <= 1,
            "{}: {status}",
            liar.camera
        );
    }
    for camera in talkers.iter().map(|t| &t.camera).chain([stranger]) {
        assert!(!is_known(status, camera), "{camera}: {status}");
    }
    // Faults are alarms with the name that the camera proved.
    for double in [&liars[1], &liars[2], &liars[3], &liars[5]]
        .into_iter()
        .chain(&talkers[1..])
    {
        let serial = double.camera.serial.as_str();
        let mut alarms = status["alarms"].as_array().unwrap().iter();
        assert!(
            alarms.any(|a| a["code"] == "camera_fault" && a["where"] == serial),
            "no alarm of {serial}: {status}"
        );
    }
}
