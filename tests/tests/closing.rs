//! The code with which a connection is closed says why, both ways: the repeater names what it found wrong, and does
//! what SPEC's section 17 asks of who is told one.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use link::quic::Hop;
use protocol::ids::{Digest, Incarnation, StoreEpoch, Time};
use protocol::message::{ArchiveHello, CameraHello, Code, Message, VERSIONS, Want};
use quinn::ConnectionError;
use tests::double::{Listening, camera_keyring, site_keyring};
use tests::repeater_party::Repeater;
use tests::station::{Plan, Station};
use tests::wait::until;

/// A peer that closes every session with this code, and how many it closed.
struct Closing {
    listening: Listening,
    dials: Arc<AtomicUsize>,
}

impl Closing {
    fn with(station: &Station, hop: Hop, code: Code) -> Closing {
        let keyring = match hop {
            Hop::Camera => camera_keyring(station, "BWC-0001"),
            Hop::Archive => site_keyring(station, "site-a"),
        };
        let dials = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&dials);
        let listening = Listening::start(hop, keyring, move |talk| {
            count.fetch_add(1, Ordering::Relaxed);
            async move { talk.peer.close(code.number(), "as the scenario wants") }
        });
        Closing { listening, dials }
    }

    fn dials(&self) -> usize {
        self.dials.load(Ordering::Relaxed)
    }
}

fn is_alarmed(repeater: &Repeater<'_>, subject: &str) -> bool {
    let alarms = repeater.status()["alarms"].as_array().unwrap().clone();
    alarms.iter().any(|a| a["where"] == subject)
}

#[test]
fn what_a_peer_says_decides_when_it_is_dialled_again_and_whether_it_alarms() {
    let station = Station::new(Plan::default());
    let camera = |code| Closing::with(&station, Hop::Camera, code);
    let codes = [Code::Version, Code::Identity, Code::Busy, Code::Shutdown];
    let cameras = codes.map(camera);
    let site = Closing::with(&station, Hop::Archive, Code::Version);
    let addresses: Vec<_> = cameras.iter().map(|c| c.listening.address).collect();
    let repeater = station.repeater(&addresses, &[("site-a", site.listening.address)]);
    repeater.wait_alarm("site_fault");
    repeater.wait_alarm("camera_fault");
    // Within the longest pause: who says version or identity is left alone, who stops is looked for.
    std::thread::sleep(Duration::from_millis(3_800));
    let [version, identity, busy, shutdown] = cameras.each_ref().map(Closing::dials);
    assert!(version <= 2 && identity <= 2, "{version}, {identity}");
    assert!((2..=3).contains(&busy), "busy comes back after 2 s: {busy}");
    assert!(shutdown >= 4, "soon, with backoff: {shutdown}");
    assert!(site.dials() <= 2, "{}", site.dials());
    for (code, address) in codes.iter().zip(&addresses) {
        let settles = matches!(code, Code::Version | Code::Identity);
        assert_eq!(
            is_alarmed(&repeater, &address.to_string()),
            settles,
            "{code:?}"
        );
    }
    assert!(is_alarmed(&repeater, "site-a"));
}

/// A peer that says this and nothing more, and the code that it is told.
fn says(
    station: &Station,
    hop: Hop,
    message: Option<Message>,
) -> (Listening, Arc<Mutex<Option<u64>>>) {
    let keyring = match hop {
        Hop::Camera => camera_keyring(station, "BWC-0001"),
        Hop::Archive => site_keyring(station, "site-a"),
    };
    let told = Arc::new(Mutex::new(None));
    let tell = Arc::clone(&told);
    let listening = Listening::start(hop, keyring, move |mut talk| {
        let (message, tell) = (message.clone(), Arc::clone(&tell));
        async move {
            talk.hear().await;
            if let Some(message) = message {
                talk.say(&message).await;
            }
            if let ConnectionError::ApplicationClosed(close) = talk.peer.connection.closed().await {
                tell.lock()
                    .unwrap()
                    .get_or_insert(close.error_code.into_inner());
            }
        }
    });
    (listening, told)
}

fn camera_hello(versions: &[u16]) -> Message {
    Message::CameraHello(CameraHello {
        versions: versions.to_vec(),
        software: "double".into(),
        proof: b"no proof".to_vec().into(),
        incarnation: Incarnation([1; 16]),
        key_list: 0,
        now: None,
        battery_percent: None,
        charging: None,
        free_bytes: 0,
        firmware: "double".into(),
    })
}

fn site_hello(versions: &[u16], site: &str) -> Message {
    Message::ArchiveHello(ArchiveHello {
        versions: versions.to_vec(),
        software: "double".into(),
        key_list: None,
        site: site.parse().unwrap(),
        epoch: StoreEpoch([5; 16]),
        now: Time(1_790_000_000_000),
    })
}

#[test]
fn a_peer_is_told_by_a_code_what_was_wrong_with_it() {
    let station = Station::new(Plan::default());
    let long = Message::Want(Want {
        manifest: Digest([0; 32]),
        digests: vec![Digest([1; 32]); 66],
        grant: 1,
    });
    let (camera, site) = (Hop::Camera, Hop::Archive);
    let cases = [
        (camera, Some(camera_hello(&[99])), Code::Version),
        (camera, Some(camera_hello(VERSIONS)), Code::Identity),
        (camera, Some(long.clone()), Code::Limit),
        (camera, Some(Message::Unsupported(1)), Code::Protocol),
        (camera, None, Code::Timeout),
        (site, Some(site_hello(&[99], "site-a")), Code::Version),
        (site, Some(site_hello(VERSIONS, "site-b")), Code::Identity),
        (site, Some(long), Code::Limit),
        (site, None, Code::Timeout),
    ];
    let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
    for (hop, message, code) in cases {
        let (peer, told) = says(&station, hop, message);
        let (cameras, site) = match hop {
            Hop::Camera => (vec![peer.address], ("site-a", nobody)),
            Hop::Archive => (vec![], ("site-a", peer.address)),
        };
        let _repeater = station.repeater(&cameras, &[site]);
        until(&format!("{code:?} on the {hop:?} hop"), || {
            told.lock().unwrap().is_some()
        });
        assert_eq!(*told.lock().unwrap(), Some(code.number().into()), "{hop:?}");
    }
}
