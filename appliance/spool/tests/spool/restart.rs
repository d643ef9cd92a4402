//! What a restart finds: nothing that was not committed, all that was, and a ledger that can lag or be gone.

use std::fs;

use protocol::custody::Stage;
use protocol::ids::Range;
use spool::{Fault, Faults, SpoolError};

use crate::world::*;

#[test]
fn what_was_not_committed_was_never_told() {
    let world = World::new();
    let (mut spool, camera) = (world.open(), world.camera("C1", 1));
    let (kept, lost) = (camera.footage(0, &[1000]), camera.footage(1, &[1000]));
    keep(&mut spool, &camera, &kept);
    let before = picture(&mut spool, &[&camera], &[&kept, &lost]);
    spool
        .receipt(&world.full_receipt("daejeon", &kept), NOW)
        .unwrap();
    spool.admit(&camera.whole_manifest(&lost), NOW).unwrap();
    pull_all(&mut spool, &lost);
    drop(spool);
    let manifest = world
        .path("manifests")
        .join(camera.whole_manifest(&lost).digest().to_string());
    assert!(manifest.exists());
    fs::remove_file(manifest).unwrap();
    let (mut spool, report) = world.try_open().unwrap();
    assert_eq!(report.orphans, 2);
    assert_eq!(picture(&mut spool, &[&camera], &[&kept, &lost]), before);
}

#[test]
fn a_restart_changes_nothing() {
    let world = World::new();
    let camera = world.camera("C1", 1);
    let (mut spool, footage) = history(&world, &camera);
    let all: Vec<&Footage> = footage.iter().collect();
    let before = picture(&mut spool, &[&camera], &all);
    let (alarms, head) = (spool.alarms(), spool.logbook_head());
    drop(spool);
    let (mut spool, report) = world.try_open().unwrap();
    assert_eq!(picture(&mut spool, &[&camera], &all), before);
    assert_eq!((spool.alarms(), spool.logbook_head()), (alarms, head));
    assert_eq!(
        (
            report.rebuilt,
            report.entries_replayed,
            report.orphans,
            report.missing
        ),
        (None, 0, 0, 0)
    );
}

/// Some of everything, committed: the cases that a rebuild has to tell apart.
fn history(world: &World, camera: &Camera) -> (spool::Spool, Vec<Footage>) {
    let mut spool = world.open();
    let footage: Vec<Footage> = (0..6)
        .map(|n| Footage {
            k: 1 + (n == 5) as u8,
            ..camera.footage(n, &[1000, 2000])
        })
        .collect();
    footage[..5]
        .iter()
        .for_each(|f| keep(&mut spool, camera, f));
    spool
        .admit(&camera.whole_manifest(&footage[5]), NOW)
        .unwrap();
    spool
        .receipt(&world.full_receipt("daejeon", &footage[5]), NOW)
        .unwrap();
    for f in &footage[1..4] {
        spool
            .receipt(&world.full_receipt("daejeon", f), NOW)
            .unwrap();
    }
    spool
        .receipt(
            &world.receipt("gwangju", &footage[4], &[footage[4].digest(1)], EPOCH),
            NOW,
        )
        .unwrap();
    spool.commit(NOW).unwrap();
    spool
        .released(&camera.id, 2, &footage[2].digests(), NOW)
        .unwrap();
    spool
        .released(&camera.id, 3, &footage[3].digests()[..2], NOW)
        .unwrap();
    let manifests: Vec<_> = footage.iter().map(|f| camera.whole_manifest(f)).collect();
    let whole = [Range { from: 0, to: 1 }];
    let listed = footage
        .iter()
        .zip(&manifests)
        .filter(|(f, _)| f.number != 2);
    let listed =
        listed.map(|(f, m)| held(f, m, if f.number == 3 { &whole[..1] } else { &[] }, &[]));
    let inventory = camera.inventory(1, 6, listed.collect(), &[Range { from: 2, to: 2 }]);
    spool.inventory(&inventory, NOW).unwrap();
    spool.commit(NOW).unwrap();
    (spool, footage)
}

#[test]
fn a_rebuilt_ledger_is_the_ledger() {
    let world = World::new();
    let camera = world.camera("C1", 1);
    let (mut spool, footage) = history(&world, &camera);
    let all: Vec<&Footage> = footage.iter().collect();
    let before = picture(&mut spool, &[&camera], &all);
    drop(spool);
    let (mut spool, report) = world.recover();
    assert!(report.rebuilt.is_some() && report.lost.is_empty());
    assert_eq!(picture(&mut spool, &[&camera], &all), before);
    drop(spool);
    fs::remove_dir_all(world.path("ledger")).unwrap();
    let (mut spool, report) = world.try_open().unwrap();
    assert!(report.rebuilt.is_some());
    assert_eq!(picture(&mut spool, &[&camera], &all), before);
    drop(spool);
    let (mut spool, report) = world.try_open().unwrap();
    assert_eq!(report.rebuilt, None);
    assert_eq!(picture(&mut spool, &[&camera], &all), before);
}

#[test]
fn a_ledger_that_lags_is_brought_up_by_the_logbook() {
    let world = World::new();
    let camera = world.camera("C1", 1);
    for keep_first in [false, true] {
        let (mut spool, first) = (world.open(), camera.footage(100, &[50]));
        if keep_first {
            keep(&mut spool, &camera, &first);
        }
        drop(spool);
        let saved = world.dir.path().join("saved");
        let _ = fs::remove_dir_all(&saved);
        copy_dir(&world.path("ledger"), &saved);
        let (mut spool, footage) = history(&world, &camera);
        let all: Vec<&Footage> = footage.iter().chain([&first]).collect();
        let before = picture(&mut spool, &[&camera], &all);
        drop(spool);
        fs::remove_dir_all(world.path("ledger")).unwrap();
        copy_dir(&saved, &world.path("ledger"));
        let (mut spool, report) = world.try_open().unwrap();
        assert!(
            report.rebuilt.is_none()
                && report.entries_replayed > 5
                && report.manifests_entered == 6,
            "{report}"
        );
        assert_eq!(picture(&mut spool, &[&camera], &all), before);
        drop(spool);
        fs::remove_dir_all(world.path("")).unwrap();
    }
}

#[test]
fn a_process_that_dies_while_it_opens_the_ledger_does_not_do_so_again() {
    let world = World::new();
    let camera = world.camera("C1", 1);
    let (mut spool, footage) = history(&world, &camera);
    let all: Vec<&Footage> = footage.iter().collect();
    let before = picture(&mut spool, &[&camera], &all);
    drop(spool);
    world.mark("ledger.opening");
    let (mut spool, report) = world.try_open().unwrap();
    assert!(report.rebuilt.is_some());
    assert_eq!(picture(&mut spool, &[&camera], &all), before);
}

#[test]
fn a_process_that_died_in_the_old_ledger_is_no_doubt_of_the_rebuilt_one() {
    let world = World::new();
    let camera = world.camera("C1", 1);
    let (mut spool, footage) = history(&world, &camera);
    let all: Vec<&Footage> = footage.iter().collect();
    let before = picture(&mut spool, &[&camera], &all);
    drop(spool);
    for mark in ["spool.suspect", "ledger.opening"] {
        world.mark(mark);
    }
    let (mut spool, report) = world.try_open().expect("one start suffices");
    assert!(report.suspect && report.rebuilt.is_some());
    assert_eq!(picture(&mut spool, &[&camera], &all), before);
}

#[test]
fn a_failed_sync_of_the_logbook_makes_the_next_start_read_everything() {
    let mut world = World::new();
    let camera = world.camera("C1", 1);
    let (spool, footage) = history(&world, &camera);
    drop(spool);
    world.faults = Faults::of(&[Fault::LogbookSyncFails]);
    assert!(
        world.try_open().is_ok(),
        "nothing is written by a start that mends nothing"
    );
    let mut spool = world.open();
    spool
        .receipt(&world.full_receipt("daejeon", &footage[0]), NOW)
        .unwrap();
    assert!(matches!(spool.commit(NOW), Err(SpoolError::Suspect { .. })));
    assert!(
        spool
            .next_puts(&both(), &site("daejeon"), 9, &none(), NOW)
            .unwrap()
            .is_empty(),
        "nothing more is given out"
    );
    drop(spool);
    world.faults = Faults::none();
    let damaged = footage[0].digest(0);
    let mut bytes = fs::read(world.segment(&damaged)).unwrap();
    bytes[5] ^= 1;
    fs::write(world.segment(&damaged), bytes).unwrap();
    let (spool, report) = world.try_open().unwrap();
    assert!(report.suspect && report.rebuilt.is_some());
    assert_ne!(spool.stage(&damaged).unwrap(), Some(Stage::Held));
    assert!(spool.open_copy(&damaged).is_err());
    // The receipt was written, and the disk has it: it may count or not, but not halfway.
    assert!(
        [Some(Stage::Held), Some(Stage::Archived)]
            .contains(&spool.stage(&footage[0].digest(1)).unwrap())
    );
    drop(spool);
    assert!(!world.try_open().unwrap().1.suspect);
}

#[test]
fn a_segment_that_cannot_be_synced_is_pulled_again() {
    let mut world = World::new();
    let camera = world.camera("C1", 1);
    world.faults = Faults::of(&[Fault::SegmentSyncFails]);
    let (mut spool, footage) = (world.open(), camera.footage(0, &[1000]));
    spool.admit(&camera.whole_manifest(&footage), NOW).unwrap();
    pull_all(&mut spool, &footage);
    let committed = spool.commit(NOW).unwrap();
    assert_eq!((committed.held.len(), committed.again.len()), (0, 2));
    assert_eq!(alarm_codes(&spool), ["sync_failed"].into());
    assert_eq!(
        spool.next_pulls(&camera.id, 9, &none(), NOW).unwrap().len(),
        2
    );
    drop(spool);
    world.faults = Faults::none();
    let mut spool = world.open();
    pull_all(&mut spool, &footage);
    spool.commit(NOW).unwrap();
    assert_eq!(stages(&spool, &footage), all(Stage::Held, &footage));
    assert!(spool.alarms().is_empty());
}

#[test]
fn a_newer_key_list_in_the_configuration_counts_from_the_start_on() {
    let world = World::new();
    let camera = world.camera("C1", 1);
    let (spool, footage) = history(&world, &camera);
    assert_eq!(
        spool.stage(&footage[1].digest(0)).unwrap(),
        Some(Stage::Archived)
    );
    drop(spool);
    let (spool, _) = spool::Spool::open(
        world.options(),
        world.trust.clone(),
        world.keys(3, true, &[]),
        NOW,
    )
    .unwrap();
    assert_eq!(spool.key_list().number(), 3);
    assert_eq!(
        spool.stage(&footage[1].digest(0)).unwrap(),
        Some(Stage::Held)
    );
    assert_eq!(
        spool.stage(&footage[5].digest(0)).unwrap(),
        Some(Stage::Announced)
    );
}

#[test]
fn a_newer_format_and_a_second_process_touch_nothing() {
    let world = World::new();
    let spool = world.open();
    assert!(matches!(world.try_open(), Err(SpoolError::InUse(_))));
    drop(spool);
    fs::write(world.path("FORMAT"), "bwc-spool 9\n").unwrap();
    assert!(matches!(
        world.try_open(),
        Err(SpoolError::NewerFormat { .. })
    ));
}

#[test]
fn a_rebuild_asks_for_what_was_announced_after_the_inventory() {
    let world = World::new();
    let (mut spool, camera) = (world.open(), world.camera("C1", 1));
    let (old, young) = (camera.footage(0, &[1000]), camera.footage(1, &[1000]));
    keep(&mut spool, &camera, &old);
    let listed = held(&old, &camera.whole_manifest(&old), &[], &[]);
    let inventory = camera.inventory(1, 1, vec![listed], &[]);
    spool.inventory(&inventory, NOW).unwrap();
    spool.admit(&camera.whole_manifest(&young), NOW).unwrap();
    spool.commit(NOW).unwrap();
    let before = picture(&mut spool, &[&camera], &[&old, &young]);
    drop(spool);
    let (mut spool, _) = world.recover();
    assert_eq!(picture(&mut spool, &[&camera], &[&old, &young]), before);
    assert_eq!(spool.counts().unaccounted.segments, 0);
}

#[test]
fn what_a_rebuild_takes_back_stays_so_in_the_next() {
    let world = World::new();
    let (mut spool, camera) = (world.open(), world.camera("C1", 1));
    let footage = camera.footage(0, &[5000]);
    keep(&mut spool, &camera, &footage);
    drop(spool);
    let segment = footage.digest(0);
    fs::write(world.segment(&segment), vec![0; 5000]).unwrap();
    world.mark("spool.suspect");
    let (mut spool, report) = world.try_open().unwrap();
    assert!(report.suspect);
    assert_eq!(spool.stage(&segment).unwrap(), Some(Stage::Announced));
    // Pulled again, but not to its end: its file has its length, and not its bytes.
    let mut incoming = spool.begin(&segment).unwrap();
    incoming.write(&footage.segments[0][..4000]).unwrap();
    spool.suspend(incoming);
    spool.commit(NOW).unwrap();
    drop(spool);
    let (spool, _) = world.recover();
    assert_eq!(spool.stage(&segment).unwrap(), Some(Stage::Announced));
    assert!(spool.open_copy(&segment).is_err());
}

#[test]
fn a_rebuild_keeps_copies_whose_header_is_lost_or_to_come() {
    let world = World::new();
    let (mut spool, camera) = (world.open(), world.camera("C1", 1));
    let (waits, lost) = (camera.footage(0, &[1000]), camera.footage(1, &[1000]));
    spool.admit(&camera.whole_manifest(&waits), NOW).unwrap();
    pull(&mut spool, &waits, &waits.digest(0));
    keep(&mut spool, &camera, &lost);
    fs::write(world.segment(&lost.header_digest()), "x").unwrap();
    assert!(spool.copy_is_damaged(&lost.header_digest(), NOW).unwrap());
    spool.commit(NOW).unwrap();
    let before = picture(&mut spool, &[&camera], &[&waits, &lost]);
    for _ in 0..2 {
        drop(spool);
        let report;
        (spool, report) = world.recover();
        assert_eq!((report.orphans, report.missing), (0, 0));
        assert_eq!(picture(&mut spool, &[&camera], &[&waits, &lost]), before);
    }
    assert_eq!(spool.stage(&lost.digest(0)).unwrap(), Some(Stage::Held));
    pull_all(&mut spool, &waits);
    spool.commit(NOW).unwrap();
    assert_eq!(stages(&spool, &waits), all(Stage::Held, &waits));
}

#[test]
fn the_stored_key_list_is_never_newer_than_the_rows() {
    let mut world = World::new();
    let camera = world.camera("C1", 1);
    let (spool, footage) = history(&world, &camera);
    drop(spool);
    let before = fs::read(world.path("key-list")).unwrap();
    world.faults = Faults::of(&[Fault::LogbookSyncFails]);
    let mut spool = world.open();
    let void = world.keys(2, true, &[]);
    assert!(matches!(
        spool.set_key_list(&void, NOW),
        Err(SpoolError::Suspect { .. })
    ));
    assert_eq!(fs::read(world.path("key-list")).unwrap(), before);
    drop(spool);
    world.faults = Faults::none();
    let mut spool = world.open();
    spool.set_key_list(&void, NOW).unwrap();
    assert_eq!(fs::read(world.path("key-list")).unwrap(), *void.bytes());
    let back = spool.stage(&footage[1].digest(0)).unwrap();
    assert_eq!(back, Some(Stage::Held));
}

#[test]
fn a_copy_found_damaged_is_pulled_again_only_when_that_is_durable() {
    let world = World::new();
    let (mut spool, camera) = (world.open(), world.camera("C1", 1));
    let footage = camera.footage(0, &[5000]);
    keep(&mut spool, &camera, &footage);
    let segment = footage.digest(0);
    fs::write(world.segment(&segment), vec![0; 5000]).unwrap();
    assert!(spool.copy_is_damaged(&segment, NOW).unwrap());
    assert!(matches!(
        spool.begin(&segment),
        Err(SpoolError::NotWanted(_))
    ));
    assert!(
        spool
            .next_pulls(&camera.id, 9, &none(), NOW)
            .unwrap()
            .is_empty()
    );
    spool.commit(NOW).unwrap();
    let mut incoming = spool.begin(&segment).unwrap();
    incoming.write(&footage.segments[0][..4000]).unwrap();
    drop((incoming, spool));
    let spool = world.open();
    assert_eq!(spool.stage(&segment).unwrap(), Some(Stage::Announced));
    assert!(
        spool.open_copy(&segment).is_err(),
        "a part of it is no copy"
    );
}

/// Nothing was ever said to anybody: nothing is lost, and no alarm says so.
#[test]
fn a_first_start_that_is_killed_while_it_makes_the_ledger_has_lost_nothing() {
    let world = World::new();
    fs::create_dir_all(world.path("ledger")).unwrap();
    fs::write(world.path("ledger/conf"), [0; 3]).unwrap();
    let (spool, report) = world.try_open().unwrap();
    assert!(report.rebuilt.is_some(), "it is one that nobody can read");
    assert!(report.lost.is_empty(), "{:?}", report.lost);
    assert!(spool.alarms().is_empty(), "{:?}", alarm_codes(&spool));
    drop(spool);
    // With footage it is another matter: it was acknowledged.
    let (mut spool, camera) = (world.open(), world.camera("C1", 1));
    keep(&mut spool, &camera, &camera.footage(0, &[5000]));
    drop(spool);
    fs::remove_file(world.path("logbook")).unwrap();
    fs::remove_dir_all(world.path("ledger")).unwrap();
    let (_, report) = world.try_open().unwrap();
    assert!(!report.lost.is_empty());
}
