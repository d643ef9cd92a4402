//! A recording's way through the real program: offered, put, receipted, exported; resumed after any break.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{Recording, Repeater, World, footage, sha};
use link::tasks::current_thread;
use protocol::ids::Digest;
use protocol::message::{Message, Reason};
use protocol::receipt::Verdict;

const FSYNC: &str = "durability = \"fsync\"";

fn sorted(mut digests: Vec<Digest>) -> Vec<Digest> {
    digests.sort_unstable();
    digests
}

#[test]
fn a_recording_goes_in_and_comes_out_byte_for_byte() {
    let world = World::new();
    let gateway = world.start(FSYNC);
    let bytes = footage(10_000_000);
    let recording = world.record(0, &bytes, 4 << 20, 2);
    current_thread(async {
        let mut repeater = Repeater::dial(&world, gateway.address).await;
        let receipted = repeater.deliver(&recording).await;
        assert_eq!(sorted(receipted), sorted(recording.digests()));
    })
    .unwrap();
    assert_eq!(gateway.stop(), Some(0));
    for key in ["archive.key", "escrow.key"] {
        let out = world.dir.path().join("out.mp4");
        let done = world.export(&recording.id, key, &out);
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
        assert!(std::fs::read(&out).unwrap() == bytes);
    }
    let (code, report) = world.verify();
    assert_eq!(code, 0, "{report}");
    assert!(
        report.starts_with("recordings 1 whole 1 manifests 2 headers 1 segments 3 bytes"),
        "{report}"
    );
    let listed = world.archive(&["list", "--store", &world.store]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(
        listed.starts_with(&format!(
            "{} manifests 2 headers 1 segments 3",
            recording.id.full()
        )),
        "{listed}"
    );
}

#[test]
fn sizes_at_the_edges_survive() {
    let world = World::new();
    let gateway = world.start(FSYNC);
    let sizes = [0, 1, (4 << 20) - 1, 4 << 20, (4 << 20) + 1];
    let recordings: Vec<(Recording, Vec<u8>)> = sizes
        .iter()
        .zip(0..)
        .map(|(size, number)| {
            let bytes = footage(*size);
            (world.record(number, &bytes, 4 << 20, 8), bytes)
        })
        .collect();
    current_thread(async {
        let mut repeater = Repeater::dial(&world, gateway.address).await;
        for (recording, _) in &recordings {
            repeater.deliver(recording).await;
        }
    })
    .unwrap();
    for (recording, bytes) in &recordings {
        let out = world.dir.path().join("out");
        let done = world.export(&recording.id, "archive.key", &out);
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
        assert!(std::fs::read(&out).unwrap() == *bytes);
    }
}

#[test]
fn after_kill_nine_nothing_that_was_receipted_is_sent_again() {
    let world = World::new();
    let mut gateway = world.start(FSYNC);
    let recording = world.record(0, &footage(800_000), 100_000, 8);
    let manifest = &recording.manifests[0];
    let receipted = current_thread(async {
        let mut repeater = Repeater::dial(&world, gateway.address).await;
        repeater.offer(manifest).await;
        let want = repeater.want().await;
        for digest in &want.digests[..5] {
            repeater
                .put(manifest.digest(), *digest, &recording.bytes_of(*digest))
                .await;
        }
        let mut receipted = Vec::new();
        while receipted.len() < 4 {
            receipted.extend_from_slice(&repeater.receipt().await.body().segments);
        }
        receipted
    })
    .unwrap();
    gateway.child.kill().unwrap();
    gateway.child.wait().unwrap();
    let again = world.start(FSYNC);
    current_thread(async {
        let mut repeater = Repeater::dial(&world, again.address).await;
        repeater.offer(manifest).await;
        let want = repeater.want().await;
        assert_eq!(want.digests.len(), 4);
        assert!(!want.digests.iter().any(|d| receipted.contains(d)));
        let receipt = repeater.receipt().await;
        assert_eq!(sorted(receipt.body().segments.clone()), sorted(receipted));
        assert_eq!(receipt.body().epoch, repeater.hello.epoch);
        assert_eq!(
            repeater.deliver(&recording).await.len(),
            8,
            "four stored, and four anew"
        );
        // And in another session it is there without a byte.
        let mut other = Repeater::dial(&world, again.address).await;
        other.offer(manifest).await;
        assert_eq!(other.receipt().await.body().segments.len(), 8);
    })
    .unwrap();
}

#[test]
fn two_gateways_serve_one_store() {
    let world = World::new();
    let (one, two) = (world.start(FSYNC), world.start(FSYNC));
    let recording = world.record(0, &footage(300_000), 100_000, 8);
    current_thread(async {
        let mut a = Repeater::dial(&world, one.address).await;
        let mut b = Repeater::dial(&world, two.address).await;
        assert_eq!(a.hello.epoch, b.hello.epoch);
        // Both want it all; whoever comes second meets what is there already, and is receipted, too.
        a.offer(&recording.manifests[0]).await;
        b.offer(&recording.manifests[0]).await;
        for repeater in [&mut a, &mut b] {
            let want = repeater.want().await;
            assert_eq!(want.digests.len(), 4);
            for digest in want.digests {
                repeater
                    .put(want.manifest, digest, &recording.bytes_of(digest))
                    .await;
            }
        }
        for repeater in [&mut a, &mut b] {
            let mut receipted = Vec::new();
            while receipted.len() < 3 {
                receipted.extend_from_slice(&repeater.receipt().await.body().segments);
            }
            assert_eq!(sorted(receipted), sorted(recording.digests()));
        }
    })
    .unwrap();
    assert_eq!(world.verify().0, 0);
}

#[test]
fn damage_on_the_disk_is_found_when_it_is_offered_and_mended() {
    let world = World::new();
    let gateway = world.start(FSYNC);
    let recording = world.record(0, &footage(300_000), 100_000, 8);
    current_thread(async {
        Repeater::dial(&world, gateway.address)
            .await
            .deliver(&recording)
            .await;
        let path = world.object(&recording.id, "00000001-");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[500] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(world.verify().0, 65);
        let mut repeater = Repeater::dial(&world, gateway.address).await;
        repeater.offer(&recording.manifests[0]).await;
        let want = repeater.want().await;
        assert_eq!(want.digests, [recording.digests()[1]]);
        assert_eq!(repeater.receipt().await.body().segments.len(), 2);
        repeater
            .put(want.manifest, want.digests[0], &recording.segments[1])
            .await;
        assert_eq!(repeater.receipt().await.body().segments, want.digests);
    })
    .unwrap();
    assert!(world.log().contains("object_damaged"));
    assert_eq!(world.verify().0, 0);
}

#[test]
fn lawfully_deleted_footage_is_answered_expired_and_not_stored() {
    let world = World::new();
    let gateway = world.start(FSYNC);
    let recording = world.record(0, &footage(300_000), 100_000, 8);
    let folder = world
        .dir
        .path()
        .join("store/recordings")
        .join(recording.id.full());
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("expired"), b"").unwrap();
    current_thread(async {
        let mut repeater = Repeater::dial(&world, gateway.address).await;
        repeater.offer(&recording.manifests[0]).await;
        let receipt = repeater.receipt().await;
        assert_eq!(receipt.body().verdict, Verdict::Expired);
        assert_eq!(receipt.body().segments, recording.digests());
    })
    .unwrap();
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1);
}

#[test]
fn at_sigterm_what_is_on_its_way_is_receipted_first() {
    let world = World::new();
    let mut gateway = world.start(FSYNC);
    let recording = world.record(0, &footage(100_000), 100_000, 8);
    current_thread(async {
        let mut repeater = Repeater::dial(&world, gateway.address).await;
        repeater.offer(&recording.manifests[0]).await;
        let want = repeater.want().await;
        repeater
            .put(want.manifest, want.digests[0], &recording.header)
            .await;
        assert!(repeater.receipt().await.body().segments.is_empty());
        let put = Message::Put(protocol::message::Put {
            manifest: want.manifest,
            digest: want.digests[1],
        });
        let mut stream = repeater.peer.connection.open_uni().await.unwrap();
        link::frame::write_frame(&mut stream, &protocol::codec::encode_body(&put).unwrap())
            .await
            .unwrap();
        stream
            .write_all(&recording.segments[0][..50_000])
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        gateway.signal("-TERM");
        tokio::time::sleep(Duration::from_millis(200)).await;
        stream
            .write_all(&recording.segments[0][50_000..])
            .await
            .unwrap();
        stream.finish().unwrap();
        assert_eq!(
            repeater.receipt().await.body().segments,
            [sha(&recording.segments[0])]
        );
    })
    .unwrap();
    assert_eq!(gateway.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_full_disk_is_no_receipt() {
    let world = World::new();
    let gateway = world.start(FSYNC);
    let recording = world.record(0, &footage(100_000), 100_000, 8);
    let store = world.dir.path().join("store");
    // What stands in the way of the recording's folder fails every write below it.
    std::fs::create_dir_all(store.join("recordings")).unwrap();
    std::fs::write(store.join("recordings").join(common::SERIAL), b"").unwrap();
    current_thread(async {
        let mut repeater = Repeater::dial(&world, gateway.address).await;
        repeater.offer(&recording.manifests[0]).await;
        assert_eq!(repeater.refusal().await.reason, Reason::StoreFailed);
        std::fs::remove_file(store.join("recordings").join(common::SERIAL)).unwrap();
        repeater.deliver(&recording).await;
    })
    .unwrap();
    assert!(world.log().contains("store_failed") && world.log().contains("alarm ended"));
}
