//! What the store loses or alters at rest, between two offers on one connection and before a first one: it is
//! wanted again, and no receipt names it before it has been put again.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::Path;
use std::time::Duration;

use common::{Gateway, Recording, Repeater, World, footage, sha};
use link::tasks::current_thread;
use protocol::ids::Digest;

const FSYNC: &str = "durability = \"fsync\"";
/// Longer than a receipt waits for others of its batch.
const QUIET: Duration = Duration::from_millis(300);

/// Two manifests of two segments each.
fn start() -> (World, Gateway, Recording) {
    let world = World::new();
    let gateway = world.start(FSYNC);
    let recording = world.record(0, &footage(400_000), 100_000, 2);
    (world, gateway, recording)
}

fn delete(path: &Path) {
    std::fs::remove_file(path).unwrap();
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[50] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

fn sorted(digests: &[Digest]) -> Vec<Digest> {
    let mut digests = digests.to_vec();
    digests.sort_unstable();
    digests
}

/// Offers a manifest again of which just `lost` is not stored, waits, puts it, and gives what is receipted then.
async fn mend(repeater: &mut Repeater, recording: &Recording, lost: Digest) -> Vec<Digest> {
    let manifest = &recording.manifests[0];
    repeater.offer(manifest).await;
    let want = repeater.want().await;
    assert_eq!(want.digests, [lost]);
    assert_eq!(repeater.recv_within(QUIET).await, None, "nothing is signed");
    repeater
        .put(want.manifest, lost, &recording.bytes_of(lost))
        .await;
    repeater.receipt().await.body().segments.clone()
}

#[test]
fn a_segment_lost_between_two_offers_on_one_connection_is_wanted_again() {
    for damage in [delete, flip] {
        let (world, gateway, recording) = start();
        current_thread(async {
            let mut repeater = Repeater::dial(&world, gateway.address).await;
            repeater.deliver(&recording).await;
            damage(&world.object(&recording.id, "00000001-"));
            let lost = recording.digests()[1];
            assert_eq!(mend(&mut repeater, &recording, lost).await, [lost]);
            assert_eq!(world.verify().0, 0);
            // And all of it is receipted on the next offer.
            repeater.offer(&recording.manifests[0]).await;
            assert_eq!(repeater.receipt().await.body().segments.len(), 2);
        })
        .unwrap();
    }
}

#[test]
fn a_header_lost_between_two_offers_on_one_connection_holds_up_its_recording() {
    for damage in [delete, flip] {
        let (world, gateway, recording) = start();
        current_thread(async {
            let mut repeater = Repeater::dial(&world, gateway.address).await;
            let (first, second) = (&recording.manifests[0], &recording.manifests[1]);
            let mut alone = recording.clone();
            alone.manifests.truncate(1);
            repeater.deliver(&alone).await;
            repeater.offer(second).await;
            let open = repeater.want().await;
            assert_eq!(
                open.digests,
                recording.digests()[2..],
                "the header is there"
            );
            damage(&world.object(&recording.id, "header-"));
            repeater.offer(first).await;
            let want = repeater.want().await;
            assert_eq!(want.digests, [sha(&recording.header)]);
            // The other offer's grants stand, and its receipt waits.
            for digest in &open.digests {
                repeater
                    .put(open.manifest, *digest, &recording.bytes_of(*digest))
                    .await;
            }
            assert_eq!(repeater.recv_within(QUIET).await, None, "nothing is signed");
            repeater
                .put(want.manifest, want.digests[0], &recording.header)
                .await;
            let receipts = [repeater.receipt().await, repeater.receipt().await];
            let of_second = receipts
                .iter()
                .find(|r| r.body().manifests.contains(&open.manifest))
                .unwrap();
            assert_eq!(sorted(&of_second.body().segments), sorted(&open.digests));
        })
        .unwrap();
        assert_eq!(world.verify().0, 0);
    }
}

#[test]
fn a_header_altered_or_swapped_at_rest_before_an_offer_is_wanted_again() {
    type Damage = fn(&Path, &[u8]);
    let alter: [Damage; 2] = [
        |path, _| flip(path),
        |path, other| {
            std::fs::write(path, other).unwrap();
        },
    ];
    for damage in alter {
        let (world, gateway, recording) = start();
        let other = world.record(1, &footage(10), 10, 8);
        assert_eq!(other.header.len(), recording.header.len());
        let restarted = current_thread(async {
            let mut repeater = Repeater::dial(&world, gateway.address).await;
            repeater.deliver(&recording).await;
            drop(gateway);
            damage(&world.object(&recording.id, "header-"), &other.header);
            // Altered while no gateway ran: this one has never seen the bytes.
            let gateway = world.start(FSYNC);
            let mut repeater = Repeater::dial(&world, gateway.address).await;
            let header = sha(&recording.header);
            let named = mend(&mut repeater, &recording, header).await;
            assert_eq!(named, recording.digests()[..2]);
            gateway
        })
        .unwrap();
        assert!(world.log().contains("object_damaged"));
        assert_eq!(world.verify().0, 0);
        drop(restarted);
    }
}
