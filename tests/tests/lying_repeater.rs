//! A stolen repeater, with its certificate and key, at an officer's camera: whatever it says, the camera erases nothing,
//! believes no time and no key list, and goes on serving the honest one.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use bytes::Bytes;
use link::agency::key_list::{Change, change};
use link::frame::{read_frame, write_frame};
use protocol::codec;
use protocol::ids::{Digest, StoreEpoch};
use protocol::manifest::Manifest;
use protocol::message::{BytesFollow, Code, Message, Pull, WantManifests};
use tests::camera_party::Camera;
use tests::double::{Visitor, block_on, repeater_hello};
use tests::footage::footage;
use tests::sealed::{receipt_body, receipt_key, signed};
use tests::station::{Plan, Station};
use tests::wait::LONG;

const MIB: usize = 1 << 20;

fn manifest(station: &Station, camera: &Camera<'_>) -> Manifest {
    let path = camera
        .store()
        .join("recordings/00000000/manifest-00000000.cose");
    Manifest::verify(std::fs::read(path).unwrap().into(), &station.trust()).unwrap()
}

#[test]
fn its_own_key_list_and_receipts_erase_nothing() {
    let station = Station::new(Plan::default());
    let elsewhere = Station::new(Plan::default());
    // The thief's list is newer than ours, names the thief's key for our site, and is signed by the thief's root.
    change(
        &elsewhere.agency,
        &[Change::Suspend("site-a".parse().unwrap())],
    )
    .unwrap();
    change(
        &elsewhere.agency,
        &[Change::Resume("site-a".parse().unwrap())],
    )
    .unwrap();
    let old = station.key_list();
    change(
        &station.agency,
        &[Change::VoidEpoch {
            site: "site-a".parse().unwrap(),
            epoch: StoreEpoch([8; 16]),
        }],
    )
    .unwrap();
    let mut camera = station.camera(1);
    camera.seal(&footage(1, 5 * MIB), &[]);
    let address = camera.serve();
    let (files, manifest) = (camera.segment_files(), manifest(&station, &camera));
    let forged = signed(
        receipt_body("site-a", StoreEpoch([1; 16]), &manifest),
        &receipt_key(&elsewhere, "site-a"),
    );
    let void = signed(
        receipt_body("site-a", StoreEpoch([8; 16]), &manifest),
        &receipt_key(&station, "site-a"),
    );
    block_on(async {
        let thief = elsewhere.key_list().bytes().clone();
        for (list, receipt) in [
            (Some(thief), &forged),
            (Some(old.bytes().clone()), &void),
            (Some(Bytes::from_static(b"list")), &forged),
            (None, &forged),
        ] {
            let mut visitor = Visitor::dial_with(&station, address, list).await;
            assert_eq!(visitor.hello.key_list, 2);
            let released: Vec<Digest> = visitor
                .release(std::slice::from_ref(receipt))
                .await
                .into_iter()
                .flat_map(|a| a.digests)
                .collect();
            assert_eq!(released, Vec::<Digest>::new());
        }
    });
    assert_eq!(camera.segment_files(), files);
    assert_eq!(
        camera.status().key_list,
        2,
        "a list that only rises did not fall"
    );
}

/// Nonsense on the control stream, or on a stream of its own; each ends its session.
async fn misbehave(station: &Station, camera: std::net::SocketAddr) {
    let said: [&[u8]; 4] = [
        b"nonsense",
        &codec::encode_body(&repeater_hello(None, true)).unwrap(),
        &codec::encode_body(&Message::Bytes(BytesFollow { length: 3 })).unwrap(),
        &[0x82, 0x01],
    ];
    for message in said {
        let mut visitor = Visitor::dial(station, camera).await;
        let _ = visitor.talk.control.send(message).await;
        let closed = tokio::time::timeout(
            Duration::from_secs(10),
            visitor.talk.peer.connection.closed(),
        )
        .await;
        assert!(
            closed.is_ok(),
            "the camera ends a session that says {message:?}"
        );
    }
    // A frame longer than any may be, announced by its first four bytes.
    let visitor = Visitor::dial(station, camera).await;
    let (mut send, mut recv) = visitor.talk.peer.connection.open_bi().await.unwrap();
    send.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(10), recv.read(&mut [0; 1]))
        .await
        .unwrap();
    assert!(answer.is_err(), "the stream is reset");
    // Asking for what is not there, and from beyond the end.
    let nothing = visitor.pull(Digest([0; 32]), 0).await;
    assert_eq!(nothing, Err(Code::NotHere.number().into()));
    let unknown = codec::encode_body(&Message::Unknown(99)).unwrap();
    let mut visitor = Visitor::dial(station, camera).await;
    visitor.talk.control.send(&unknown).await.unwrap();
    loop {
        match visitor.talk.hear().await {
            Some(Message::Unsupported(99)) => break,
            Some(_) => {}
            None => panic!("an unknown message is answered, not punished"),
        }
    }
}

#[test]
fn nonsense_ends_its_own_session_and_the_camera_serves_on() {
    let station = Station::new(Plan::default());
    let site = station.site("site-a");
    let mut camera = station.camera(1);
    camera.seal(&footage(1, 5 * MIB), &[]);
    let address = camera.serve();
    let manifest = manifest(&station, &camera);
    block_on(misbehave(&station, address));
    block_on(async {
        let visitor = Visitor::dial(&station, address).await;
        let segment = manifest.body().segments[0];
        let beyond = visitor
            .pull(segment.digest, u64::from(segment.length) + 1)
            .await;
        assert_eq!(beyond, Err(Code::Protocol.number().into()));
        let whole = visitor.pull(segment.digest, 0).await.unwrap();
        assert_eq!(protocol::suite::sha256(&whole), segment.digest);
    });
    assert!(camera.server().runs());
    let repeater = station.repeater(&[address], &[site.told()]);
    station.wait_all_released(&[&camera], &repeater);
    station.assert_footage_is_whole(&site);
}

#[test]
fn one_that_pulls_and_never_reads_keeps_the_camera_from_nobody() {
    let station = Station::new(Plan::default());
    let site = station.site("site-a");
    let mut camera = station.camera(1);
    camera.seal(&footage(1, 9 * MIB), &[]);
    let address = camera.serve();
    let manifest = manifest(&station, &camera);
    // It asks for everything, many times over, and for all manifests, and reads nothing of the answers.
    let (stop, stopped) = std::sync::mpsc::sync_channel::<()>(1);
    let (begin, begun) = std::sync::mpsc::sync_channel::<()>(1);
    std::thread::scope(|scope| {
        let (station, manifest) = (&station, &manifest);
        let thief = scope.spawn(move || {
            block_on(async {
                let mut visitor = Visitor::dial_narrow(station, address, 64 << 10).await;
                let mut streams = Vec::new();
                for segment in &manifest.body().segments {
                    let (mut send, mut recv) =
                        visitor.talk.peer.connection.open_bi().await.unwrap();
                    let pull = codec::encode_body(&Message::Pull(Pull {
                        digest: segment.digest,
                        offset: 0,
                    }))
                    .unwrap();
                    write_frame(&mut send, &pull).await.unwrap();
                    if streams.is_empty() {
                        // It has the turn: the camera answers, and gets rid of no more than the window, which the
                        // answer to any other would fill as well.
                        let answer = read_frame(&mut recv).await.unwrap();
                        assert!(matches!(codec::decode(&answer), Ok(Message::Bytes(_))));
                    }
                    streams.push((send, recv));
                }
                begin.send(()).unwrap();
                for _ in 0..1000 {
                    visitor
                        .talk
                        .say(&Message::WantManifests(WantManifests {
                            number: 0,
                            from_index: 0,
                        }))
                        .await;
                }
                while stopped.try_recv().is_err() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
        });
        begun.recv_timeout(LONG).unwrap();
        let repeater = station.repeater(&[address], &[site.told()]);
        station.wait_all_released(&[&camera], &repeater);
        stop.send(()).unwrap();
        thief.join().unwrap();
    });
    station.assert_footage_is_whole(&site);
}
