//! Sessions on the camera hop: what a repeater gets, and how little a hostile one can do.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use common::{FOOTAGE, Repeater, Served, Trial, dial, open_store, pipe_in, read_pull};
use link::frame;
use link::tasks::current_thread;
use protocol::ids::Digest;
use protocol::manifest::{EndReason, Manifest};
use protocol::message::{Code, Message, Pull, WantManifests};
use protocol::{codec, suite};

fn sealed(bytes: usize) -> (Trial, common::Opened) {
    let trial = Trial::new();
    let clip = trial.footage("clip", bytes);
    trial.seal(&[], &[&clip]);
    let opened = open_store(&trial).remove(&0).unwrap();
    (trial, opened)
}

fn code(code: Code) -> u64 {
    code.number().into()
}

#[test]
fn bytes_come_by_digest_from_any_offset() {
    let (trial, opened) = sealed(FOOTAGE + 5);
    let served = Served::start(&trial, &[]);
    current_thread(async {
        let mut repeater = Repeater::connect(&trial, &served, false, None).await;
        assert!(repeater.hello.free_bytes > 0 && repeater.hello.now.is_some());
        repeater.inventory().await;
        for digest in opened.digests.iter().chain([&opened.header]) {
            let whole = repeater.pull(*digest, 0).await.unwrap();
            assert_eq!(suite::sha256(&whole), *digest);
            for offset in [1, whole.len() / 2, whole.len() - 1, whole.len()] {
                assert_eq!(
                    repeater.pull(*digest, offset as u64).await.unwrap(),
                    whole[offset..]
                );
            }
            let beyond = repeater.pull(*digest, whole.len() as u64 + 1).await;
            assert_eq!(beyond, Err(code(Code::Protocol)));
            assert_eq!(
                repeater.pull(*digest, u64::MAX).await,
                Err(code(Code::Protocol))
            );
        }
        assert_eq!(
            repeater.pull(Digest([1; 32]), 0).await,
            Err(code(Code::NotHere))
        );
        // In parallel, as many as are allowed in flight.
        let (a, b) = tokio::join!(
            repeater.pull(opened.digests[0], 0),
            repeater.pull(opened.digests[1], 0)
        );
        assert_eq!(suite::sha256(&a.unwrap()), opened.digests[0]);
        assert_eq!(suite::sha256(&b.unwrap()), opened.digests[1]);
    })
    .unwrap();
    assert_eq!(served.terminate(), 0);
}

#[test]
fn a_recording_in_progress_is_announced_and_served_live() {
    let trial = Trial::new();
    let served = Served::start(&trial, &[]);
    let chunk = common::footage(9 * FOOTAGE + 1);
    current_thread(async {
        let mut repeater = Repeater::connect(&trial, &served, true, None).await;
        assert_eq!(repeater.inventory().await.next_recording(), 0);
        let mut child = pipe_in(trial.bodycam_stdin(), &chunk);
        let first = next_manifest(&mut repeater, &trial).await;
        assert_eq!(
            (
                first.body().index,
                first.body().end,
                first.body().segments.len()
            ),
            (0, None, 8)
        );
        let inventory = repeater.inventory_until(|i| i.next_recording() == 1).await;
        assert_eq!(inventory.held().next().unwrap().index, 0);
        let sealed = repeater
            .pull(first.body().segments[7].digest, 0)
            .await
            .unwrap();
        assert_eq!(sealed.len(), first.body().segments[7].length as usize);
        child.stdin.as_mut().unwrap().write_all(b"the end").unwrap();
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
        let last = next_manifest(&mut repeater, &trial).await;
        assert_eq!(last.body().end.unwrap().reason, EndReason::Stopped);
        assert_eq!(last.body().previous, Some(first.digest()));
        assert_eq!(
            last.body().clock_offset_ms.map(|ms| ms > 86_400_000),
            Some(true),
            "the repeater's clock is a hint"
        );
        assert!(
            repeater
                .pull(last.body().segments[1].digest, 0)
                .await
                .is_ok()
        );
    })
    .unwrap();
}

async fn next_manifest(repeater: &mut Repeater, trial: &Trial) -> Manifest {
    loop {
        if let Message::Manifest(bytes) = repeater.hear().await {
            return Manifest::verify(bytes, &trial.trust()).unwrap();
        }
    }
}

#[test]
fn what_a_dead_sealer_left_open_is_closed_while_serving_and_at_start() {
    let trial = Trial::new();
    let served = Served::start(&trial, &[]);
    let bytes = common::footage(10 * FOOTAGE);
    current_thread(async {
        let mut repeater = Repeater::connect(&trial, &served, true, None).await;
        let mut child = pipe_in(trial.bodycam_stdin(), &bytes);
        let first = next_manifest(&mut repeater, &trial).await;
        child.kill().unwrap();
        child.wait().unwrap();
        let last = next_manifest(&mut repeater, &trial).await;
        let end = last.body().end.unwrap();
        assert_eq!(
            (end.reason, last.body().previous),
            (EndReason::Interrupted, Some(first.digest()))
        );
        assert!(end.segments >= 8);
    })
    .unwrap();
    drop(served);
    let mut child = pipe_in(trial.bodycam_stdin(), &bytes);
    while !trial.recordings().join("00000001/00000002.seg").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let served = Served::start(&trial, &[]);
    current_thread(async {
        let mut repeater = Repeater::connect(&trial, &served, true, None).await;
        assert_eq!(repeater.inventory().await.held().count(), 2);
    })
    .unwrap();
    let store = open_store(&trial);
    let end = store[&1].manifests.last().unwrap().body().end.unwrap();
    assert_eq!(
        (end.reason, end.segments),
        (EndReason::Interrupted, store[&1].segments)
    );
    assert!(
        store[&1].segments >= 3,
        "what was sealed without a manifest is named: {}",
        store[&1].segments
    );
    assert_eq!(store[&1].footage, bytes[..store[&1].footage.len()]);
}

#[test]
fn one_session_is_served_at_a_time_and_docked_comes_before_nearby() {
    let (trial, opened) = sealed(4 * FOOTAGE);
    let served = Served::start(&trial, &[]);
    current_thread(async {
        // Most of the segment cannot leave the camera before it is read here: the pull cannot end by itself.
        let mut nearby = Repeater::connect_narrow(&trial, &served, 64 * 1024).await;
        nearby.inventory().await;
        let (mut send, mut recv) = nearby.peer.connection.open_bi().await.unwrap();
        let pull = codec::encode_body(&Message::Pull(Pull {
            digest: opened.digests[0],
            offset: 0,
        }))
        .unwrap();
        frame::write_frame(&mut send, &pull).await.unwrap();
        let begun = frame::read_frame(&mut recv).await.unwrap();
        assert!(matches!(codec::decode(&begun).unwrap(), Message::Bytes(_)));
        let docked = Repeater::connect(&trial, &served, true, None).await;
        assert!(docked.pull(opened.digests[1], 0).await.is_ok());
        assert_eq!(
            nearby.pull(opened.digests[1], 0).await,
            Err(code(Code::Busy))
        );
        assert_eq!(
            read_pull(&mut recv).await,
            Err(code(Code::Busy)),
            "the pull under way is pre-empted"
        );
        nearby.manifests(0, 1).await;
        drop(docked);
        let given_back = async {
            while let Err(refused) = nearby.pull(opened.digests[1], 0).await {
                assert_eq!(refused, code(Code::Busy));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        // Who is silent for five seconds loses the turn anyway.
        let within = Duration::from_secs(4);
        assert!(
            tokio::time::timeout(within, given_back).await.is_ok(),
            "who leaves gives the turn back"
        );
    })
    .unwrap();
}

#[test]
fn nonsense_costs_its_own_session_only() {
    let (trial, opened) = sealed(10);
    let served = Served::start(&trial, &[]);
    current_thread(async {
        let mut good =
            Repeater::connect_as(&trial, &served, true, None, "repeaters/station-1").await;
        good.inventory().await;
        let second = trial.agency.add_repeater("other", 2).unwrap();
        let folder = format!(
            "repeaters/{}",
            second.file_name().unwrap().to_str().unwrap()
        );

        let mut odd = Repeater::connect_as(&trial, &served, true, None, &folder).await;
        odd.inventory().await;
        odd.say(&Message::Unknown(777)).await;
        assert_eq!(odd.hear().await, Message::Unsupported(777));
        odd.say(&Message::WantManifests(WantManifests {
            number: u64::MAX,
            from_index: u32::MAX,
        }))
        .await;
        odd.control.send(&[0xff, 0xff]).await.unwrap();
        assert_eq!(odd.closed().await, code(Code::Protocol));

        let mut odd = Repeater::connect_as(&trial, &served, true, None, &folder).await;
        odd.say(&Message::Offer(Bytes::from_static(b"x"))).await;
        assert_eq!(odd.closed().await, code(Code::Protocol));

        let odd = Repeater::connect_as(&trial, &served, true, None, &folder).await;
        let (mut send, mut recv) = odd.peer.connection.open_bi().await.unwrap();
        send.write_all(&[0xff; 64]).await.unwrap();
        assert_eq!(
            read_pull(&mut recv).await,
            Err(code(Code::Protocol)),
            "a frame of 4 GiB"
        );
        let (mut send, mut recv) = odd.peer.connection.open_bi().await.unwrap();
        send.write_all(&[0]).await.unwrap();
        assert_eq!(
            read_pull(&mut recv).await,
            Err(code(Code::Timeout)),
            "a pull that never comes"
        );

        // Says nothing, opens nothing.
        let (_dialer, mute) = dial(&trial, served.address, &folder).await;
        let closed = tokio::time::timeout(Duration::from_secs(10), mute.connection.closed()).await;
        assert!(closed.is_ok(), "silence ends the session");

        // More sessions than one repeater may have: its oldest goes.
        let mut crowd = Vec::new();
        for _ in 0..4 {
            crowd.push(Repeater::connect_as(&trial, &served, true, None, &folder).await);
        }
        assert_eq!(crowd[0].closed().await, code(Code::Done));
        assert_eq!(
            good.manifests(0, 1).await[0].digest(),
            opened.manifests[0].digest(),
            "the good one is undisturbed"
        );
    })
    .unwrap();
}

#[test]
fn a_revoked_repeater_loses_its_session_and_gets_no_other() {
    let (trial, _) = sealed(10);
    let served = Served::start(&trial, &[]);
    current_thread(async {
        let mut repeater = Repeater::connect(&trial, &served, true, None).await;
        repeater.inventory().await;
        trial
            .agency
            .revoke(&trial.agency.path("repeaters/station-1/chain.pem"))
            .unwrap();
        trial.agency.write_crl().unwrap();
        assert_eq!(repeater.closed().await, code(Code::Identity));
        let (_dialer, peer) = dial(&trial, served.address, "repeaters/station-1").await;
        let closed = tokio::time::timeout(Duration::from_secs(10), peer.connection.closed()).await;
        assert!(closed.is_ok());
    })
    .unwrap();
}

#[test]
fn the_inventory_number_only_rises_and_is_the_same_until_something_is_new() {
    let (trial, _) = sealed(10);
    let number = |served: &Served| {
        let connected = async {
            Repeater::connect(&trial, served, false, None)
                .await
                .inventory()
                .await
                .number()
        };
        current_thread(connected).unwrap()
    };
    let served = Served::start(&trial, &[]);
    let first = number(&served);
    assert_eq!(number(&served), first);
    drop(served);
    let second = number(&Served::start(&trial, &[]));
    assert!(second > first);
    let clip = trial.footage("more", 3);
    trial.seal(&[], &[&clip]);
    assert!(number(&Served::start(&trial, &[])) > second);
    assert_eq!(trial.status()["inventory"].as_u64(), Some(second + 1));
}

#[test]
fn an_inventory_of_many_recordings_comes_in_pages() {
    let trial = Trial::new();
    let clip = trial.footage("clip", 1);
    let many = protocol::limits::INVENTORY_PAGE_RECORDINGS + 4;
    trial.seal(&[], &vec![clip.as_path(); many]);
    let served = Served::start(&trial, &[]);
    current_thread(async {
        let mut repeater = Repeater::connect(&trial, &served, true, None).await;
        let inventory = repeater.inventory().await;
        assert_eq!(
            (inventory.pages().len(), inventory.held().count()),
            (2, many)
        );
        assert_eq!(inventory.next_recording(), many as u64);
    })
    .unwrap();
}
