//! The footage's way through the spool, and every way back: what cameras announce, pulls, receipts, releases,
//! key lists, inventories that overrule, and cameras that contradict themselves.

use std::collections::BTreeSet;

use protocol::custody::Stage;
use protocol::ids::{Digest, StoreEpoch, Time};
use protocol::message::Reason;
use spool::{Admission, Finished, KeyListChange, OfferTask, ReceiptOutcome, Spool, SpoolError};

use crate::world::*;

/// A spool that holds one recording of three segments.
fn holding(world: &World) -> (Spool, Camera, Footage, Digest) {
    let (mut spool, camera) = (world.open(), world.camera("C1", 1));
    let footage = camera.footage(0, &[5000, 1, 4096]);
    keep(&mut spool, &camera, &footage);
    let manifest = camera.whole_manifest(&footage).digest();
    (spool, camera, footage, manifest)
}
fn puts(spool: &mut Spool, name: &str) -> Vec<Digest> {
    let tasks = spool.next_puts(&both(), &site(name), 9, &none(), NOW);
    tasks.unwrap().iter().map(|t| t.digest).collect()
}
fn offers(spool: &mut Spool, name: &str) -> Vec<OfferTask> {
    spool
        .next_offers(&both(), &site(name), 9, &none(), NOW)
        .unwrap()
}

#[test]
fn what_is_announced_is_offered_and_pulled_in_order() {
    let world = World::new();
    let (mut spool, camera) = (world.open(), world.camera("C1", 1));
    let footage = camera.footage(0, &[5000, 1, 4096]);
    let manifest = camera.whole_manifest(&footage);
    assert_eq!(spool.admit(&manifest, NOW).unwrap(), Admission::New);
    assert_eq!(spool.admit(&manifest, NOW).unwrap(), Admission::Known);
    let offered = offers(&mut spool, "daejeon");
    assert_eq!(offered.len(), 1);
    assert_eq!(
        (&offered[0].bytes, &offered[0].digests),
        (manifest.bytes(), &footage.digests())
    );
    assert!(
        offers(&mut spool, "gwangju").is_empty(),
        "one receipt is asked for"
    );
    spool
        .offer_answered(&site("daejeon"), &manifest.digest())
        .unwrap();
    assert!(offers(&mut spool, "daejeon").is_empty());
    let tasks = spool.next_pulls(&camera.id, 9, &none(), NOW).unwrap();
    let order: Vec<Digest> = tasks.iter().map(|t| t.digest).collect();
    assert_eq!(order, footage.digests(), "the header first, then by number");
    pull_all(&mut spool, &footage);
    assert_eq!(stages(&spool, &footage), all(Stage::Announced, &footage));
    assert!(
        puts(&mut spool, "daejeon").is_empty(),
        "nothing is given on before the barrier"
    );
    let committed = spool.commit(NOW).unwrap();
    assert_eq!(committed.held.len(), 4);
    assert_eq!(puts(&mut spool, "daejeon"), footage.digests());
    assert_eq!(
        spool.read_copy(&footage.digest(0)).unwrap(),
        footage.segments[0]
    );
}

#[test]
fn receipts_archive_and_are_carried_until_the_camera_has_them() {
    let world = World::new();
    let (mut spool, camera, footage, manifest) = holding(&world);
    let digests = footage.digests();
    let receipt = world.receipt_with("daejeon", &footage, &digests[1..], &[manifest], EPOCH);
    assert_eq!(
        spool.receipt(&receipt, NOW).unwrap(),
        ReceiptOutcome::Staged
    );
    assert_eq!(spool.receipt(&receipt, NOW).unwrap(), ReceiptOutcome::Known);
    let due = |spool: &mut Spool| spool.receipts_due(&camera.id, 9, &none()).unwrap();
    assert!(due(&mut spool).is_empty(), "not before the barrier");
    assert_eq!(spool.commit(NOW).unwrap().archived.len(), 4);
    assert!(puts(&mut spool, "daejeon").is_empty());
    assert!(offers(&mut spool, "daejeon").is_empty() && offers(&mut spool, "gwangju").is_empty());
    let first = due(&mut spool);
    assert_eq!(
        (first.len(), first[0].number, &first[0].bytes),
        (1, 0, receipt.bytes())
    );
    for told in [&digests[1..3], &digests[3..]] {
        spool.released(&camera.id, 0, told, NOW).unwrap();
        spool.commit(NOW).unwrap();
        assert_eq!(
            due(&mut spool),
            first,
            "a segment or the manifest still lacks it"
        );
    }
    spool.released(&camera.id, 0, &[manifest], NOW).unwrap();
    spool.commit(NOW).unwrap();
    assert!(due(&mut spool).is_empty());
    assert_eq!(stages(&spool, &footage), all(Stage::Released, &footage));
    let counts = spool.counts();
    assert_eq!(
        (counts.outstanding.segments, counts.unaccounted.segments),
        (0, 0)
    );
    assert_eq!(counts.stage(Stage::Released).segments, 4);
    assert!(spool.alarms().is_empty());
}

#[test]
fn a_segment_waits_for_its_header() {
    let world = World::new();
    let (mut spool, camera) = (world.open(), world.camera("C1", 1));
    let footage = camera.footage(0, &[5000]);
    spool.admit(&camera.whole_manifest(&footage), NOW).unwrap();
    pull(&mut spool, &footage, &footage.digest(0));
    assert!(spool.commit(NOW).unwrap().held.is_empty());
    assert_eq!(
        spool.next_pulls(&camera.id, 9, &none(), NOW).unwrap().len(),
        1,
        "the header alone is left"
    );
    drop(spool);
    let mut spool = world.open();
    pull(&mut spool, &footage, &footage.header_digest());
    assert_eq!(spool.commit(NOW).unwrap().held.len(), 2);
}

#[test]
fn what_breaks_off_goes_on_where_it_was() {
    let world = World::new();
    let (mut spool, camera) = (world.open(), world.camera("C1", 1));
    let footage = camera.footage(0, &[100_000]);
    keep(&mut spool, &camera, &camera.footage(1, &[1]));
    spool.admit(&camera.whole_manifest(&footage), NOW).unwrap();
    let digest = footage.digest(0);
    let mut incoming = spool.begin(&digest).unwrap();
    assert!(
        matches!(spool.begin(&digest), Err(SpoolError::NotWanted(_))),
        "it is being pulled"
    );
    incoming.write(&footage.segments[0][..40_000]).unwrap();
    spool.suspend(incoming);
    let again = spool.begin(&digest).unwrap();
    assert_eq!(
        (again.offset(), again.remaining()),
        (40_000, 60_000),
        "in one process, what was written counts"
    );
    spool.suspend(again);
    spool.commit(NOW).unwrap();
    drop(spool);
    let mut spool = world.open();
    assert_eq!(
        spool.next_pulls(&camera.id, 9, &none(), NOW).unwrap()[1].prefix,
        40_000
    );
    assert_eq!(pull(&mut spool, &footage, &digest), Finished::Verified);
    let header = footage.header_digest();
    pull(&mut spool, &footage, &header);
    spool.commit(NOW).unwrap();
    assert_eq!(stages(&spool, &footage), all(Stage::Held, &footage));
}

#[test]
fn a_wrong_digest_blames_nobody_once_and_then_the_camera() {
    let world = World::new();
    let (mut spool, camera) = (world.open(), world.camera("C1", 1));
    let footage = camera.footage(0, &[1000]);
    spool.admit(&camera.whole_manifest(&footage), NOW).unwrap();
    let digest = footage.digest(0);
    let mut incoming = spool.begin(&digest).unwrap();
    incoming.write(&[0; 500]).unwrap();
    assert!(matches!(
        incoming.write(&[0; 501]),
        Err(SpoolError::TooMany(_))
    ));
    assert_eq!(spool.finish(incoming, NOW).unwrap(), Finished::Incomplete);
    assert_eq!(pull(&mut spool, &footage, &digest), Finished::PullAgain);
    let mut incoming = spool.begin(&digest).unwrap();
    assert_eq!(incoming.offset(), 0);
    incoming.write(&[0; 1000]).unwrap();
    let minute = NOW.plus_ms(60_000);
    assert_eq!(
        spool.finish(incoming, NOW).unwrap(),
        Finished::Refused { retry: minute }
    );
    assert_eq!(spool.stage(&digest).unwrap(), Some(Stage::Refused));
    assert_eq!(alarm_codes(&spool), ["segment_refused"].into());
    spool.commit(NOW).unwrap();
    assert_eq!(
        spool.next_pulls(&camera.id, 9, &none(), NOW).unwrap().len(),
        1,
        "only the header"
    );
    let later = camera.footage(1, &[1]);
    spool.admit(&camera.whole_manifest(&later), NOW).unwrap();
    let order = spool.next_pulls(&camera.id, 9, &none(), minute).unwrap();
    assert_eq!(
        order.last().unwrap().digest,
        digest,
        "behind all other work"
    );
    let mut incoming = spool.begin(&digest).unwrap();
    incoming.write(&[0; 1000]).unwrap();
    assert_eq!(
        spool.finish(incoming, minute).unwrap(),
        Finished::Refused {
            retry: minute.plus_ms(120_000)
        }
    );
    spool
        .next_pulls(&camera.id, 9, &none(), minute.plus_ms(120_000))
        .unwrap();
    pull(&mut spool, &footage, &digest);
    pull(&mut spool, &footage, &footage.header_digest());
    spool.commit(NOW).unwrap();
    assert_eq!(stages(&spool, &footage), all(Stage::Held, &footage));
    assert!(spool.alarms().is_empty());
}

#[test]
fn as_many_sites_as_the_policy_asks_for() {
    let world = World::new();
    let (mut spool, camera) = (world.open(), world.camera("C1", 1));
    let footage = Footage {
        k: 2,
        ..camera.footage(0, &[1000])
    };
    keep(&mut spool, &camera, &footage);
    let one: BTreeSet<_> = [site("gwangju")].into();
    assert_eq!(
        spool
            .next_puts(&one, &site("gwangju"), 9, &none(), NOW)
            .unwrap()
            .len(),
        2
    );
    spool
        .receipt(&world.full_receipt("gwangju", &footage), NOW)
        .unwrap();
    spool.commit(NOW).unwrap();
    assert_eq!(stages(&spool, &footage), all(Stage::Held, &footage));
    assert!(
        spool
            .next_puts(&both(), &site("gwangju"), 9, &none(), NOW)
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        spool
            .next_puts(&both(), &site("daejeon"), 9, &none(), NOW)
            .unwrap()
            .len(),
        2
    );
    spool
        .receipt(&world.full_receipt("daejeon", &footage), NOW)
        .unwrap();
    spool.commit(NOW).unwrap();
    assert_eq!(stages(&spool, &footage), all(Stage::Archived, &footage));
    assert_eq!(
        spool.receipts_due(&camera.id, 9, &none()).unwrap().len(),
        2,
        "the camera needs both"
    );
}

#[test]
fn receipts_count_only_for_what_they_name() {
    let world = World::new();
    let (mut spool, camera) = (world.open(), world.camera("C1", 1));
    let (footage, other) = (camera.footage(0, &[1000, 1000]), camera.footage(1, &[1000]));
    keep(&mut spool, &camera, &footage);
    keep(&mut spool, &camera, &other);
    let swapped = Footage {
        header: vec![1, 2, 3],
        ..footage.clone()
    };
    assert_eq!(
        spool
            .receipt(&world.full_receipt("daejeon", &swapped), NOW)
            .unwrap(),
        ReceiptOutcome::Foreign
    );
    let unknown = camera.footage(7, &[1000]);
    assert_eq!(
        spool
            .receipt(&world.full_receipt("daejeon", &unknown), NOW)
            .unwrap(),
        ReceiptOutcome::Foreign
    );
    // It names the other recording's segment, too: that one gains nothing by it.
    let greedy = world.receipt(
        "daejeon",
        &footage,
        &[footage.digest(0), other.digest(0)],
        EPOCH,
    );
    assert_eq!(spool.receipt(&greedy, NOW).unwrap(), ReceiptOutcome::Staged);
    spool.commit(NOW).unwrap();
    assert_eq!(
        stages(&spool, &footage),
        [
            Some(Stage::Archived),
            Some(Stage::Archived),
            Some(Stage::Held)
        ]
    );
    assert_eq!(stages(&spool, &other), all(Stage::Held, &other));
}

#[test]
fn what_a_site_has_already_is_not_pulled() {
    let world = World::new();
    let (mut spool, camera) = (world.open(), world.camera("C1", 1));
    let footage = camera.footage(0, &[1000, 1000]);
    spool.admit(&camera.whole_manifest(&footage), NOW).unwrap();
    spool
        .receipt(
            &world.receipt("daejeon", &footage, &[footage.digest(1)], EPOCH),
            NOW,
        )
        .unwrap();
    spool.commit(NOW).unwrap();
    let tasks = spool.next_pulls(&camera.id, 9, &none(), NOW).unwrap();
    assert_eq!(
        tasks.iter().map(|t| t.digest).collect::<Vec<_>>(),
        [footage.digest(0)]
    );
    assert!(matches!(
        spool.begin(&footage.digest(1)),
        Err(SpoolError::NotWanted(_))
    ));
    pull(&mut spool, &footage, &footage.digest(0));
    assert_eq!(
        spool.commit(NOW).unwrap().held.len(),
        1,
        "an archived header is a kept one"
    );
}

#[test]
fn a_void_epoch_takes_back_what_stood_on_it() {
    let world = World::new();
    let (mut spool, camera) = (world.open(), world.camera("C1", 1));
    let (here, gone) = (camera.footage(0, &[1000]), camera.footage(1, &[1000]));
    keep(&mut spool, &camera, &here);
    spool.admit(&camera.whole_manifest(&gone), NOW).unwrap();
    for footage in [&here, &gone] {
        spool
            .receipt(&world.full_receipt("daejeon", footage), NOW)
            .unwrap();
    }
    spool.commit(NOW).unwrap();
    spool.released(&camera.id, 0, &here.digests(), NOW).unwrap();
    assert_eq!(
        spool.set_key_list(&world.keys(1, false, &[]), NOW).unwrap(),
        KeyListChange::Same
    );
    assert_eq!(
        spool.set_key_list(&world.keys(2, true, &[]), NOW).unwrap(),
        KeyListChange::Newer { back: 4 }
    );
    assert_eq!(stages(&spool, &here), all(Stage::Held, &here));
    assert_eq!(stages(&spool, &gone), all(Stage::Announced, &gone));
    assert!(
        spool
            .receipts_due(&camera.id, 9, &none())
            .unwrap()
            .is_empty()
    );
    assert!(matches!(
        spool.set_key_list(&world.keys(1, false, &[]), NOW),
        Err(SpoolError::OlderKeyList {
            offered: 1,
            known: 2
        })
    ));
    assert_eq!(
        spool
            .receipt(&world.full_receipt("daejeon", &here), NOW)
            .unwrap(),
        ReceiptOutcome::Foreign
    );
    drop(spool);
    let mut spool = world.open();
    assert_eq!(
        spool.key_list().number(),
        2,
        "the stored one is newer than the configured"
    );
    assert_eq!(
        spool
            .next_puts(&both(), &site("daejeon"), 9, &none(), NOW)
            .unwrap()
            .len(),
        2
    );
    spool
        .receipt(
            &world.receipt("daejeon", &here, &here.digests()[1..], StoreEpoch([2; 16])),
            NOW,
        )
        .unwrap();
    spool.commit(NOW).unwrap();
    assert_eq!(stages(&spool, &here), all(Stage::Archived, &here));
}

#[test]
fn a_suspended_site_is_waited_for_by_nobody() {
    let world = World::new();
    let (mut spool, camera) = (world.open(), world.camera("C1", 1));
    let footage = Footage {
        k: 2,
        ..camera.footage(0, &[1000])
    };
    keep(&mut spool, &camera, &footage);
    spool
        .receipt(&world.full_receipt("gwangju", &footage), NOW)
        .unwrap();
    spool.commit(NOW).unwrap();
    assert_eq!(stages(&spool, &footage), all(Stage::Held, &footage));
    spool
        .set_key_list(&world.keys(2, false, &["daejeon"]), NOW)
        .unwrap();
    assert_eq!(stages(&spool, &footage), all(Stage::Archived, &footage));
}

#[test]
fn a_sites_refusal_is_no_stage() {
    let world = World::new();
    let (mut spool, _, footage, manifest) = holding(&world);
    let (here, segment) = (site("daejeon"), footage.digest(0));
    let refuse = |spool: &mut Spool, digest: &Digest| {
        let reason = Reason::UnknownRecipient;
        spool
            .site_refused(&here, digest, reason, "no such key", NOW)
            .unwrap();
        spool.commit(NOW).unwrap();
    };
    refuse(&mut spool, &segment);
    assert_eq!(spool.stage(&segment).unwrap(), Some(Stage::Held));
    assert_eq!(alarm_codes(&spool), ["site_refused"].into());
    assert_eq!(puts(&mut spool, "daejeon").len(), 3);
    assert_eq!(
        puts(&mut spool, "gwangju"),
        [segment],
        "another site may take it"
    );
    let tomorrow = Time(NOW.0 + 86_400_000);
    let tasks = spool
        .next_puts(&both(), &here, 9, &none(), tomorrow)
        .unwrap();
    assert_eq!(tasks.len(), 4);
    refuse(&mut spool, &segment);
    spool.retry_refused(Some(&here)).unwrap();
    assert_eq!(puts(&mut spool, "daejeon").len(), 4);
    assert!(spool.alarms().is_empty());
    refuse(&mut spool, &manifest);
    assert!(offers(&mut spool, "daejeon").is_empty());
    assert_eq!(offers(&mut spool, "gwangju").len(), 1);
}
