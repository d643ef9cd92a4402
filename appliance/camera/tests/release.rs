//! Custody on the camera, over the real hop: footage goes on an archive's signature and on nothing else.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use bytes::Bytes;
use common::{
    EPOCH, FOOTAGE, Opened, Repeater, Served, Trial, footage, open_store, receipt_by, site,
};
use link::agency::key_list::{Change, change};
use link::clock::Clock;
use link::tasks::current_thread;
use protocol::ids::{Digest, Range, RecordingId, StoreEpoch};
use protocol::inventory::Fate;
use protocol::keylist::State;
use protocol::receipt::{self, Receipt, Verdict};
use protocol::suite::sha256;

/// A trial with one recording of three segments, and what it consists of.
fn sealed(options: &[&str]) -> (Trial, Opened) {
    let trial = Trial::new();
    let clip = trial.footage("clip", 2 * FOOTAGE + 7);
    trial.seal(options, &[&clip]);
    let opened = open_store(&trial).remove(&0).unwrap();
    (trial, opened)
}

fn receipts(trial: &Trial, sites: &[&str], opened: &Opened, segments: &[Digest]) -> Vec<Bytes> {
    sites
        .iter()
        .map(|s| trial.receipt(s, &opened.id, opened.header, segments))
        .collect()
}

/// The same, naming every manifest too.
fn whole_receipts(
    trial: &Trial,
    sites: &[&str],
    opened: &Opened,
    segments: &[Digest],
) -> Vec<Bytes> {
    let manifests: Vec<Digest> = opened
        .manifests
        .iter()
        .map(protocol::manifest::Manifest::digest)
        .collect();
    let by = |s: &&str| {
        receipt_by(
            &trial.receipt_key(s),
            s,
            &opened.id,
            opened.header,
            segments,
            &manifests,
        )
    };
    sites.iter().map(by).collect()
}

#[test]
fn segments_go_on_receipts_and_the_recording_with_its_last_one() {
    let (trial, opened) = sealed(&["--k", "2"]);
    let served = Served::start(&trial, &["--erase", "now"]);
    current_thread(async {
        let mut repeater = Repeater::connect(&trial, &served, true, None).await;
        let inventory = repeater.inventory().await;
        assert_eq!((inventory.number(), inventory.next_recording()), (0, 1));
        assert_eq!(repeater.camera, opened.id.camera);
        let manifests = repeater.manifests(0, 1).await;
        assert_eq!(manifests[0].body().segments.len(), 3);

        erase_its_segments(&trial, &mut repeater, &opened).await;
        release_its_papers(&trial, &mut repeater, &opened).await;

        let again = repeater
            .release(receipts(&trial, &["nfs2"], &opened, &opened.digests[2..]))
            .await;
        assert_eq!(
            again[0].digests,
            opened.digests[2..],
            "an answer that was lost is given again"
        );
    })
    .unwrap();
    assert_eq!(served.terminate(), 0);
    let status = trial.status();
    assert_eq!(
        (status["released"].as_u64(), status["lost"].as_u64()),
        (Some(1), Some(0))
    );
    let clip = trial.footage("clip2", 5);
    assert!(
        trial.seal(&[], &[&clip]).contains("/1 segments 1"),
        "a released number is never used again"
    );
}

async fn erase_its_segments(trial: &Trial, repeater: &mut Repeater, opened: &Opened) {
    let answer = repeater
        .release(receipts(trial, &["nfs1"], opened, &opened.digests))
        .await;
    assert_eq!(
        (answer.len(), answer[0].digests.len()),
        (1, 0),
        "one of two sites is not enough"
    );
    assert_eq!(trial.segment_files().len(), 3);

    let answer = repeater
        .release(receipts(trial, &["nfs2"], opened, &opened.digests[..2]))
        .await;
    assert_eq!(answer[0].digests, opened.digests[..2]);
    assert_eq!(
        trial.segment_files().len(),
        1,
        "erased by the time it says so"
    );
    let inventory = repeater
        .inventory_until(|i| i.held().any(|h| !h.erased.is_empty()))
        .await;
    let held = inventory.held().next().unwrap();
    assert_eq!(held.erased, [Range { from: 0, to: 1 }]);
    assert!(inventory.number() > 0);
    assert_eq!(
        repeater.pull(opened.digests[0], 0).await,
        Err(9),
        "erased is not here"
    );
    assert!(
        repeater.pull(opened.header, 0).await.is_ok(),
        "the header stays until the last segment goes"
    );

    let answer = repeater
        .release(receipts(trial, &["nfs2"], opened, &opened.digests[2..]))
        .await;
    assert_eq!(answer[0].digests, opened.digests[2..]);
    assert_eq!(trial.segment_files().len(), 0);
    let inventory = repeater
        .inventory_until(|i| i.held().any(|h| h.erased == [Range { from: 0, to: 2 }]))
        .await;
    assert_eq!(
        inventory.fate(0),
        Some(Fate::Held),
        "its manifests, with the count, have no receipts yet"
    );
    assert!(
        trial
            .recordings()
            .join("00000000/manifest-00000000.cose")
            .exists()
    );
}

async fn release_its_papers(trial: &Trial, repeater: &mut Repeater, opened: &Opened) {
    let papers = whole_receipts(trial, &["nfs1", "nfs2"], opened, &[]);
    assert!(
        repeater.release(papers[..1].to_vec()).await[0]
            .digests
            .is_empty()
    );
    assert!(trial.recordings().join("00000000/header.cose").exists());
    let answer = repeater.release(papers[1..].to_vec()).await;
    assert_eq!(answer[0].digests, [opened.manifests[0].digest()]);
    let inventory = repeater
        .inventory_until(|i| i.held().next().is_none())
        .await;
    assert_eq!(inventory.fate(0), Some(Fate::Released));
    assert!(!trial.recordings().join("00000000").exists());
    let released = inventory.released().next().unwrap();
    let on: Vec<u8> = receipts_kept(trial)[..3]
        .iter()
        .flat_map(|r| sha256(r).0)
        .collect();
    assert_eq!(
        released.receipts,
        sha256(&on),
        "the hash of the receipts in the record"
    );
}

/// The receipts in the record, in order.
fn receipts_kept(trial: &Trial) -> Vec<Vec<u8>> {
    let log = std::fs::read(trial.store().join("erased.log")).unwrap();
    let (mut rest, mut found) = (&log[..], Vec::new());
    while !rest.is_empty() {
        let length = u32::from_be_bytes(rest[4..8].try_into().unwrap()) as usize;
        let mut body = minicbor::Decoder::new(&rest[16..16 + length]);
        body.array().unwrap();
        if body.u32().unwrap() == 1 {
            body.array().unwrap();
            body.u64().unwrap();
            found.push(body.bytes().unwrap().to_vec());
        }
        rest = &rest[16 + length..];
    }
    found
}

#[test]
fn forged_or_foreign_receipts_erase_nothing() {
    let (trial, opened) = sealed(&[]);
    let served = Served::start(&trial, &["--erase", "now"]);
    let all = &opened.digests;
    let other = RecordingId {
        number: 7,
        ..opened.id.clone()
    };
    let mut flipped = trial
        .receipt("nfs1", &opened.id, opened.header, all)
        .to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    let cases = [
        (
            "by an unknown key",
            receipt_by(
                &trial.receipt_key_of_a_stranger(),
                "nfs1",
                &opened.id,
                opened.header,
                all,
                &[],
            ),
        ),
        (
            "by another site's key",
            receipt_by(
                &trial.receipt_key("nfs2"),
                "nfs1",
                &opened.id,
                opened.header,
                all,
                &[],
            ),
        ),
        ("with a flipped bit", flipped.into()),
        (
            "of another recording",
            trial.receipt("nfs1", &other, opened.header, all),
        ),
        (
            "without the header's digest",
            trial.receipt("nfs1", &opened.id, Digest([0; 32]), all),
        ),
        ("that is garbage", Bytes::from_static(b"receipt")),
        ("of a manifest's bytes", opened.manifests[0].bytes().clone()),
    ];
    current_thread(async {
        let mut repeater = Repeater::connect(&trial, &served, true, None).await;
        repeater.inventory().await;
        for (what, receipt) in cases {
            let answer = repeater.release(vec![receipt.clone()]).await;
            assert_eq!(
                answer.iter().map(|a| a.digests.len()).sum::<usize>(),
                0,
                "a receipt {what}"
            );
            assert_eq!(answer[0].refused, [sha256(&receipt)], "a receipt {what}");
            assert_eq!(trial.segment_files().len(), 3, "a receipt {what} erased");
        }
        let foreign = trial.receipt("nfs1", &opened.id, opened.header, &[Digest([5; 32])]);
        assert!(repeater.release(vec![foreign]).await[0].digests.is_empty());
        assert_eq!(trial.segment_files().len(), 3);
    })
    .unwrap();
}

#[test]
fn receipts_of_a_void_epoch_or_a_revoked_key_erase_nothing() {
    let (trial, opened) = sealed(&[]);
    let all = &opened.digests;
    let good = trial.receipt("nfs1", &opened.id, opened.header, all);
    let served = Served::start(&trial, &["--erase", "now"]);
    // The agency voids the epoch; the repeater brings the list in its hello.
    let void = Change::VoidEpoch {
        site: site("nfs1"),
        epoch: EPOCH,
    };
    let list = change(&trial.agency, &[void]).unwrap().bytes().clone();
    let revoke = Change::SetState {
        key: trial.receipt_key("nfs2").public().id(),
        state: State::Revoked,
    };
    let newer = change(&trial.agency, &[revoke]).unwrap().bytes().clone();
    current_thread(async {
        let mut repeater = Repeater::connect(&trial, &served, true, Some(newer)).await;
        repeater.inventory().await;
        let answer = repeater
            .release(vec![
                good,
                trial.receipt("nfs2", &opened.id, opened.header, all),
            ])
            .await;
        assert_eq!(
            (answer[0].digests.len(), answer[0].refused.len()),
            (0, 2),
            "void epoch, revoked key"
        );
        // An older list, brought later, does not bring the revoked key back, not even where the store's is damaged.
        std::fs::write(trial.store().join("key-list.cose"), "damaged").unwrap();
        let mut other = Repeater::connect(&trial, &served, true, Some(list)).await;
        assert_eq!(other.hello.key_list, 3);
        assert!(
            other
                .release(vec![trial.receipt("nfs2", &opened.id, opened.header, all)])
                .await[0]
                .digests
                .is_empty()
        );
    })
    .unwrap();
    assert_eq!(trial.segment_files().len(), 3);
}

#[test]
fn receipts_that_become_void_before_erasing_permit_nothing_any_more() {
    let (trial, opened) = sealed(&[]);
    let served = Served::start(&trial, &[]);
    current_thread(async {
        let mut repeater = Repeater::connect(&trial, &served, true, None).await;
        let answer = repeater
            .release(receipts(&trial, &["nfs1"], &opened, &opened.digests))
            .await;
        assert_eq!(answer[0].digests.len(), 3);
        assert_eq!(
            trial.segment_files().len(),
            3,
            "a receipt permits, it does not order"
        );
        let void = Change::VoidEpoch {
            site: site("nfs1"),
            epoch: EPOCH,
        };
        let list = change(&trial.agency, &[void]).unwrap().bytes().clone();
        let mut other = Repeater::connect(&trial, &served, true, Some(list)).await;
        let inventory = other
            .inventory_until(|i| i.held().all(|h| h.receipted.is_empty()))
            .await;
        assert_eq!(inventory.held().count(), 1);
    })
    .unwrap();
    drop(served);
    let clip = trial.footage("more", 3 * FOOTAGE);
    let quota = (4 * FOOTAGE).to_string();
    let refused = trial
        .bodycam("seal")
        .args(["--quota-bytes", &quota])
        .arg(&clip)
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(73));
    assert_eq!(open_store(&trial)[&0].footage, footage(2 * FOOTAGE + 7));
    drop(Served::start(&trial, &["--erase", "now"]));
    assert_eq!(open_store(&trial)[&0].segments, 3);
}

#[test]
fn a_sites_new_receipt_counts_once_its_old_one_is_void_without_a_restart() {
    let (trial, opened) = sealed(&[]);
    let served = Served::start(&trial, &[]);
    let void = Change::VoidEpoch {
        site: site("nfs1"),
        epoch: EPOCH,
    };
    let list = change(&trial.agency, &[void]).unwrap().bytes().clone();
    let old = whole_receipts(&trial, &["nfs1"], &opened, &opened.digests);
    let body = receipt::Body {
        version: receipt::VERSION,
        site: site("nfs1"),
        epoch: StoreEpoch([10; 16]),
        recording: opened.id.clone(),
        header: opened.header,
        segments: opened.digests.clone(),
        verdict: Verdict::Stored,
        signed: Clock::system().now(),
        manifests: vec![opened.manifests[0].digest()],
    };
    let new = Receipt::sign(body, &trial.receipt_key("nfs1")).unwrap();
    current_thread(async {
        let mut repeater = Repeater::connect(&trial, &served, true, None).await;
        assert_eq!(repeater.release(old).await[0].digests.len(), 4);
        let mut other = Repeater::connect(&trial, &served, true, Some(list)).await;
        other
            .inventory_until(|i| i.held().all(|h| h.receipted.is_empty()))
            .await;
        let answer = other.release(vec![new.bytes().clone()]).await;
        assert_eq!(answer[0].digests.len(), 4, "segments and manifest");
    })
    .unwrap();
    assert_eq!(receipts_kept(&trial).len(), 2);
    drop(served);
    drop(Served::start(&trial, &["--erase", "now"]));
    assert_eq!(trial.status()["released"].as_u64(), Some(1));
}

#[test]
fn room_is_made_by_erasing_the_longest_receipted_first() {
    let (trial, opened) = sealed(&[]);
    let served = Served::start(&trial, &["--erase", "when-needed"]);
    current_thread(async {
        let mut repeater = Repeater::connect(&trial, &served, true, None).await;
        for segment in [1, 0, 2] {
            let one = receipts(
                &trial,
                &["nfs1"],
                &opened,
                &opened.digests[segment..=segment],
            );
            assert_eq!(repeater.release(one).await[0].digests.len(), 1);
        }
        assert_eq!(trial.segment_files().len(), 3);
        // Room for one more segment is lacking: the one that had its receipt first goes, while a server looks on.
        let clip = trial.footage("more", 100_000);
        let quota = (2 * FOOTAGE + 150_000).to_string();
        trial.seal(&["--quota-bytes", &quota], &[&clip]);
        let folder = trial.recordings().join("00000000");
        let here = |n: &str| folder.join(n).exists();
        assert!(!here("00000001.seg") && here("00000000.seg") && here("00000002.end.seg"));
        let inventory = repeater
            .inventory_until(|i| i.held().any(|h| h.erased == [Range { from: 1, to: 1 }]))
            .await;
        assert_eq!(inventory.fate(0), Some(Fate::Held));
    })
    .unwrap();
    drop(served);
    assert_eq!(trial.status()["recordings"][0]["erased"].as_u64(), Some(1));
}

#[test]
fn an_erasure_cut_short_by_a_crash_is_finished_and_never_begun_by_one() {
    let (trial, opened) = sealed(&[]);
    let keep: Vec<(std::path::PathBuf, Vec<u8>)> =
        std::fs::read_dir(trial.recordings().join("00000000"))
            .unwrap()
            .map(|e| e.unwrap().path())
            .map(|p| (p.clone(), std::fs::read(p).unwrap()))
            .collect();
    let served = Served::start(&trial, &["--erase", "now"]);
    current_thread(async {
        let mut repeater = Repeater::connect(&trial, &served, true, None).await;
        repeater
            .release(whole_receipts(&trial, &["nfs1"], &opened, &opened.digests))
            .await;
    })
    .unwrap();
    drop(served);
    let log = std::fs::read(trial.store().join("erased.log")).unwrap();
    // Power went at every place of the record: the files are as before the erasure, the record is cut.
    for cut in [
        0,
        1,
        log.len() / 3,
        log.len() / 2,
        log.len() - 100,
        log.len() - 1,
        log.len(),
    ] {
        std::fs::create_dir_all(trial.recordings().join("00000000")).unwrap();
        keep.iter()
            .for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
        std::fs::write(trial.store().join("erased.log"), &log[..cut]).unwrap();
        let status = trial.status();
        let here = trial.segment_files().len();
        let permitted = status["recordings"][0]["receipted"].as_u64().unwrap_or(3);
        assert!(
            here == 3 || permitted == 3,
            "cut at {cut}: {here} files, {status}"
        );
        assert_eq!(status["lost"].as_u64(), Some(0), "cut at {cut}");
        drop(Served::start(&trial, &["--erase", "now"]));
        let expected = if permitted == 3 { 0 } else { 3 };
        assert_eq!(trial.segment_files().len(), expected, "cut at {cut}");
    }
}
