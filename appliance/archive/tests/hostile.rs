//! Repeaters and cameras that lie, flood, stall or err: each costs its own session or its own object, and no
//! receipt is signed for what is not stored.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{Gateway, Recording, Repeater, World, entry, footage, sha};
use link::tasks::current_thread;
use protocol::codec;
use protocol::cose::sign_evidence;
use protocol::ids::Digest;
use protocol::manifest::{self, Class, EndReason, Manifest, Policy};
use protocol::message::{Code, Message, Put, Reason, RepeaterHello};
use protocol::suite::PublicKey;
use quinn::ConnectionError;

const FSYNC: &str = "durability = \"fsync\"";
const SMALL: &str = "durability = \"fsync\"\n[grants]\nbytes_in_flight = 8400000\nbytes_in_flight_per_connection = 8400000\n";

fn start() -> (World, Gateway, Recording) {
    let world = World::new();
    let gateway = world.start(FSYNC);
    let recording = world.record(0, &footage(200_000), 100_000, 8);
    (world, gateway, recording)
}

fn names(world: &World, recording: &Recording) -> Vec<String> {
    let folder = world
        .dir
        .path()
        .join("store/recordings")
        .join(recording.id.full());
    let names = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap());
    names.collect()
}

/// The code with which the gateway closed the session.
async fn closed(repeater: &Repeater) -> u64 {
    closed_connection(&repeater.peer.connection, Duration::from_secs(10)).await
}

async fn closed_connection(connection: &quinn::Connection, wait: Duration) -> u64 {
    match tokio::time::timeout(wait, connection.closed())
        .await
        .expect("the session goes on")
    {
        ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
        other => panic!("{other}"),
    }
}

#[test]
fn bytes_that_are_not_what_the_digest_names_are_refused_and_not_stored() {
    let (world, gateway, recording) = start();
    let good = &recording.segments[0];
    let mut flipped = good.to_vec();
    flipped[77] ^= 0x80;
    let wrong = [
        &flipped[..],
        &good[..good.len() - 1],
        &[],
        &[&good[..], b"x"].concat(),
        &recording.segments[1],
    ];
    current_thread(async {
        let mut repeater = Repeater::dial(&world, gateway.address).await;
        repeater.offer(&recording.manifests[0]).await;
        let want = repeater.want().await;
        let digest = sha(good);
        for bytes in wrong {
            repeater.put(want.manifest, digest, bytes).await;
            let refused = repeater.refusal().await;
            assert_eq!(
                (refused.about, refused.reason),
                (digest, Reason::WrongDigest),
                "{}",
                bytes.len()
            );
        }
        assert_eq!(
            names(&world, &recording).len(),
            1,
            "only the manifest is stored"
        );
        // The right bytes are taken, on the same session.
        repeater.put(want.manifest, digest, good).await;
        repeater
            .put(want.manifest, sha(&recording.header), &recording.header)
            .await;
        let mut receipted = repeater.receipt().await.body().segments.clone();
        if receipted.is_empty() {
            receipted = repeater.receipt().await.body().segments.clone();
        }
        assert_eq!(receipted, [digest]);
    })
    .unwrap();
}

#[test]
fn a_swapped_header_is_caught_before_a_receipt() {
    let (world, gateway, recording) = start();
    let other = world.record(1, &footage(10), 10, 8);
    current_thread(async {
        let mut repeater = Repeater::dial(&world, gateway.address).await;
        repeater.offer(&recording.manifests[0]).await;
        let want = repeater.want().await;
        repeater
            .put(
                want.manifest,
                sha(&recording.segments[0]),
                &recording.segments[0],
            )
            .await;
        repeater
            .put(want.manifest, want.digests[0], &other.header)
            .await;
        assert_eq!(repeater.refusal().await.reason, Reason::WrongDigest);
        assert_eq!(
            repeater.recv_within(Duration::from_millis(300)).await,
            None,
            "no receipt without the header"
        );
    })
    .unwrap();
}

#[test]
fn segments_wait_for_their_header() {
    let (world, gateway, recording) = start();
    current_thread(async {
        let mut repeater = Repeater::dial(&world, gateway.address).await;
        repeater.offer(&recording.manifests[0]).await;
        let want = repeater.want().await;
        for segment in &recording.segments {
            repeater.put(want.manifest, sha(segment), segment).await;
        }
        assert_eq!(repeater.recv_within(Duration::from_millis(300)).await, None);
        repeater
            .put(want.manifest, sha(&recording.header), &recording.header)
            .await;
        assert_eq!(repeater.receipt().await.body().segments.len(), 2);
    })
    .unwrap();
}

#[test]
fn a_header_that_nobody_can_open_is_refused_and_one_for_escrow_alone_alarms() {
    let (world, gateway, _) = start();
    let stranger = world.record_with(1, b"x", 1, 8, EndReason::Stopped, &[stranger_key()]);
    let keys = world.key_list();
    let is_escrow = |k: &PublicKey| {
        keys.recipient(k.id()).unwrap().role == protocol::keylist::RecipientRole::Escrow
    };
    let escrow: Vec<PublicKey> = keys
        .active_recipients()
        .into_iter()
        .filter(is_escrow)
        .collect();
    let alone = world.record_with(2, b"x", 1, 8, EndReason::Stopped, &escrow);
    current_thread(async {
        let mut repeater = Repeater::dial(&world, gateway.address).await;
        repeater.offer(&stranger.manifests[0]).await;
        let want = repeater.want().await;
        repeater
            .put(want.manifest, sha(&stranger.header), &stranger.header)
            .await;
        let refused = repeater.refusal().await;
        assert_eq!(
            (refused.about, refused.reason),
            (sha(&stranger.header), Reason::UnknownRecipient)
        );
        repeater.deliver(&alone).await;
    })
    .unwrap();
    assert!(
        world.log().contains("recipient_unknown") && world.log().contains("recipient_inactive")
    );
    assert_eq!(names(&world, &stranger).len(), 1);
}

fn stranger_key() -> PublicKey {
    protocol::suite::AgreementKey::from_scalar(&[9; 32])
        .unwrap()
        .public()
        .unwrap()
}

#[test]
fn two_segments_with_one_number_are_both_kept_and_alarm() {
    let (world, gateway, recording) = start();
    // The same camera signs another segment 0 under another index 0.
    let mut twin = world.record(0, &footage(50_000), 100_000, 8);
    twin.header = recording.header.clone();
    twin.manifests.clear();
    let body = twin.body(vec![entry(&twin.segments[0], 0)], None);
    twin.manifests
        .push(Manifest::sign(body, &world.signer(common::SERIAL)).unwrap());
    current_thread(async {
        let mut repeater = Repeater::dial(&world, gateway.address).await;
        repeater.deliver(&recording).await;
        assert!(!world.log().contains("alarm"));
        repeater.deliver(&twin).await;
    })
    .unwrap();
    assert!(world.log().contains("code=\"conflict\""), "{}", world.log());
    assert_eq!(
        names(&world, &recording)
            .iter()
            .filter(|n| n.starts_with("00000000-"))
            .count(),
        2
    );
    let (code, report) = world.verify();
    assert_eq!(code, 65);
    assert!(
        report.contains("two different segments carry number 0"),
        "{report}"
    );
    let out = world.export(&recording.id, "archive.key", &world.dir.path().join("out"));
    assert_eq!(out.status.code(), Some(65));
}

#[test]
fn offers_that_do_not_verify_or_do_not_count_here_are_refused_by_reason() {
    let (world, gateway, recording) = start();
    let signer = world.signer(common::SERIAL);
    let mut elsewhere = recording.manifests[0].body().clone();
    elsewhere.policy = Policy {
        k: 1,
        sites: vec!["site-b".parse().unwrap()],
    };
    let elsewhere = Manifest::sign(elsewhere, &signer).unwrap();
    let mut forged = recording.manifests[0].bytes().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let another = recording.manifests[0].body().clone();
    let another = Manifest::sign(another, &world.signer("BWC-0002")).unwrap();
    // {1: 2, 2: "later"}: a manifest of format version 2.
    let later = [&[0xa2, 1, 2, 2, 0x65][..], b"later"].concat();
    let later = sign_evidence(manifest::KIND, later, &signer).unwrap();
    let cases = [
        (later, Reason::Version),
        (elsewhere.bytes().to_vec(), Reason::NotMySite),
        (forged, Reason::BadSignature),
        (another.bytes().to_vec(), Reason::BadSignature),
        (b"no manifest".to_vec(), Reason::Malformed),
    ];
    current_thread(async {
        let mut repeater = Repeater::dial(&world, gateway.address).await;
        for (bytes, reason) in cases {
            repeater.send(Message::Offer(bytes.clone().into())).await;
            let refused = repeater.refusal().await;
            assert_eq!(
                (refused.about, refused.reason),
                (sha(&bytes), reason),
                "{}",
                refused.text
            );
        }
    })
    .unwrap();
    assert!(!world.dir.path().join("store/recordings").exists());
}

#[test]
fn what_was_not_wanted_is_not_taken() {
    let (world, gateway, recording) = start();
    let digest = sha(&recording.segments[0]);
    current_thread(async {
        let mut repeater = Repeater::dial(&world, gateway.address).await;
        let id = recording.manifests[0].digest();
        repeater.put(id, digest, &recording.segments[0]).await;
        assert_eq!(repeater.refusal().await.reason, Reason::NotWanted);
        repeater.deliver(&recording).await;
        repeater.put(id, digest, &recording.segments[0]).await;
        assert_eq!(repeater.refusal().await.reason, Reason::NotWanted);
        repeater.put(id, Digest([0; 32]), b"x").await;
        assert_eq!(repeater.refusal().await.reason, Reason::NotWanted);
    })
    .unwrap();
}

#[test]
fn unknown_messages_are_answered_and_nonsense_ends_the_session_alone() {
    let (world, gateway, recording) = start();
    current_thread(async {
        let mut good = Repeater::dial(&world, gateway.address).await;
        good.send(Message::Unknown(99)).await;
        assert_eq!(good.recv().await, Message::Unsupported(99));
        let frames = [
            vec![0xff],
            codec::encode_body(&Message::Receipt(vec![1].into())).unwrap(),
            vec![0; 64 * 1024],
        ];
        for frame in frames {
            let mut bad = Repeater::dial(&world, gateway.address).await;
            bad.control.send(&frame).await.unwrap();
            assert_eq!(closed(&bad).await, 1);
        }
        let (_dialer, peer, mut control) = Repeater::connect(&world, gateway.address).await;
        let offer = codec::encode_body(&Message::Offer(vec![1].into())).unwrap();
        control.send(&offer).await.unwrap();
        assert_eq!(
            closed_connection(&peer.connection, Duration::from_secs(10)).await,
            1,
            "no hello"
        );
        let (_dialer, peer, mut control) = Repeater::connect(&world, gateway.address).await;
        let hello = RepeaterHello {
            versions: vec![77],
            software: String::new(),
            key_list: None,
            now: protocol::ids::Time(0),
            docked: false,
            now_error_ms: None,
        };
        control
            .send(&codec::encode_body(&Message::RepeaterHello(hello)).unwrap())
            .await
            .unwrap();
        assert_eq!(
            closed_connection(&peer.connection, Duration::from_secs(10)).await,
            3,
            "no common version"
        );
        good.deliver(&recording).await;
    })
    .unwrap();
}

#[test]
fn a_flood_of_offers_is_put_off_not_queued() {
    let (world, gateway, _) = start();
    let signer = world.signer(common::SERIAL);
    let base = world.record(3, &footage(10), 10, 8);
    let manifests: Vec<Manifest> = (0..600u32)
        .map(|n| {
            let mut body = base.manifests[0].body().clone();
            body.captured_to = protocol::ids::Time(1_900_000_000_000 + u64::from(n));
            Manifest::sign(body, &signer).unwrap()
        })
        .collect();
    current_thread(async {
        let mut repeater = Repeater::dial(&world, gateway.address).await;
        let (mut wants, mut busy) = (0, 0);
        for manifest in &manifests {
            repeater.offer(manifest).await;
        }
        while wants + busy < manifests.len() {
            match repeater.recv().await {
                Message::Want(_) => wants += 1,
                Message::Busy(_) => busy += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(wants <= 256 && busy >= 344, "{wants} {busy}");
    })
    .unwrap();
}

#[test]
fn who_has_as_many_sessions_as_one_may_is_turned_away_as_busy() {
    let (world, gateway, recording) = start();
    current_thread(async {
        let mut held = Vec::new();
        for _ in 0..archive::limits::SESSIONS_OF_ONE {
            held.push(Repeater::dial(&world, gateway.address).await);
        }
        let (_dialer, peer, _control) = Repeater::connect(&world, gateway.address).await;
        let code = closed_connection(&peer.connection, Duration::from_secs(10)).await;
        assert_eq!(code, u64::from(Code::Busy.number()));
        // Those that are held are served, and one that ends makes room.
        held[0].deliver(&recording).await;
        let left = held.remove(0);
        left.peer.close(Code::Done.number(), "");
        drop(left);
        tokio::time::sleep(Duration::from_millis(500)).await;
        let mut again = Repeater::dial(&world, gateway.address).await;
        again.offer(&recording.manifests[0]).await;
        assert_eq!(again.receipt().await.body().segments.len(), 2);
    })
    .unwrap();
}

/// A small recording of that class.
fn of_class(world: &World, number: u64, class: Class) -> Recording {
    let mut recording = world.record(number, &footage(100_000), 1 << 20, 8);
    let mut body = recording.manifests.remove(0).body().clone();
    body.class = class;
    recording
        .manifests
        .push(Manifest::sign(body, &world.signer(common::SERIAL)).unwrap());
    recording
}

/// Streams that announce a recording's segments and stand still: of 9 MiB, more than there is room for.
async fn stall(repeater: &mut Repeater, big: &Recording) -> Vec<quinn::SendStream> {
    repeater.offer(&big.manifests[0]).await;
    let want = repeater.want().await;
    let mut streams = Vec::new();
    for segment in &big.segments {
        let mut stream = repeater.peer.connection.open_uni().await.unwrap();
        let put = Message::Put(Put {
            manifest: want.manifest,
            digest: sha(segment),
        });
        link::frame::write_frame(&mut stream, &codec::encode_body(&put).unwrap())
            .await
            .unwrap();
        streams.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    streams
}

#[test]
fn streams_that_wait_for_room_keep_none_that_has_room_from_its_bytes() {
    let world = World::new();
    let gateway = world.start(FSYNC);
    let recording = world.record(0, &footage(32 << 20), 4 << 20, 8);
    current_thread(async {
        let mut repeater = Repeater::dial(&world, gateway.address).await;
        let streams = stall(&mut repeater, &recording).await;
        // The latest come whole before the first ones, for which there is room, have begun.
        let parts = streams.into_iter().zip(recording.segments.clone()).rev();
        let writes = parts.map(|(mut stream, bytes)| async move {
            let wrote = stream.write_all(&bytes).await;
            wrote.map(|()| stream.finish())
        });
        let manifest = recording.manifests[0].digest();
        let header = repeater.put(manifest, sha(&recording.header), &recording.header);
        let (wrote, ()) = tokio::join!(futures_util::future::join_all(writes), header);
        for each in wrote {
            each.expect("a stream was given back").unwrap();
        }
        let mut receipted = Vec::new();
        while receipted.len() < recording.segments.len() {
            receipted.extend(repeater.receipt().await.body().segments.clone());
        }
    })
    .unwrap();
}

#[test]
fn routine_footage_keeps_no_urgent_footage_of_its_own_connection_waiting() {
    let world = World::new();
    let gateway = world.start(SMALL);
    let big = world.record(0, &footage(9 << 20), 4 << 20, 8);
    let urgent = of_class(&world, 1, Class::Urgent);
    current_thread(async {
        let mut repeater = Repeater::dial(&world, gateway.address).await;
        let _streams = stall(&mut repeater, &big).await;
        let delivered = tokio::time::timeout(archive::limits::ROOM, repeater.deliver(&urgent));
        assert_eq!(delivered.await.unwrap(), urgent.digests());
    })
    .unwrap();
}

#[test]
fn pressure_puts_off_routine_but_never_urgent_footage() {
    let world = World::new();
    let gateway = world.start(SMALL);
    let big = world.record(0, &footage(9 << 20), 4 << 20, 8);
    let routine = of_class(&world, 1, Class::Routine);
    let urgent = of_class(&world, 2, Class::Urgent);
    current_thread(async {
        let mut stalled = Repeater::dial(&world, gateway.address).await;
        let _streams = stall(&mut stalled, &big).await;
        let mut other = Repeater::dial(&world, gateway.address).await;
        other.offer(&routine.manifests[0]).await;
        let mut first = other.recv().await;
        if let Message::Want(want) = &first {
            // Room for a few bytes may be left: then the put itself is put off.
            other
                .put(
                    want.manifest,
                    sha(&routine.segments[0]),
                    &routine.segments[0],
                )
                .await;
            first = other.recv().await;
        }
        assert!(
            matches!(&first, Message::Busy(b) if b.class == Class::Routine),
            "{first:?}"
        );
        other.deliver(&urgent).await;
        // The stalled one's third stream found no room either.
        assert!(matches!(stalled.recv().await, Message::Busy(_)));
        let code = closed_connection(&stalled.peer.connection, Duration::from_secs(45)).await;
        assert_eq!(code, 8, "a stream that stands still ends its session");
        other.deliver(&routine).await;
    })
    .unwrap();
}
