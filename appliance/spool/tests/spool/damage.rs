//! Damage: what was done x where. Each is noticed and named, and footage is pulled again, or nothing changes.

use std::fs;

use protocol::custody::Stage;
use protocol::ids::Time;
use spool::{Spool, SpoolError};

use crate::world::*;

fn flip(path: &std::path::Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x20;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_flipped_bit_in_a_copy_is_found_and_pulled_again() {
    let world = World::new();
    let (mut spool, camera) = (world.open(), world.camera("C1", 1));
    let footage = camera.footage(0, &[1000, 100_000]);
    keep(&mut spool, &camera, &footage);
    let clean = spool.scrub_step(1 << 30, NOW).unwrap();
    assert!(clean.wrapped && clean.damaged.is_empty() && clean.checked == 3);
    flip(&world.segment(&footage.digest(1)), 77_777);
    let mut damaged = Vec::new();
    for _ in 0..4 {
        damaged.extend(spool.scrub_step(1, NOW).unwrap().damaged);
    }
    assert_eq!(damaged, [footage.digest(1)]);
    assert_eq!(
        spool.stage(&footage.digest(1)).unwrap(),
        Some(Stage::Announced)
    );
    assert!(matches!(
        spool.open_copy(&footage.digest(1)),
        Err(SpoolError::NoCopy(_))
    ));
    assert_eq!(alarm_codes(&spool), ["copy_damaged"].into());
    spool.commit(NOW).unwrap();
    pull_all(&mut spool, &footage);
    spool.commit(NOW).unwrap();
    assert_eq!(stages(&spool, &footage), all(Stage::Held, &footage));
    assert!(spool.alarms().is_empty());
    assert!(!spool.copy_is_damaged(&footage.digest(1), NOW).unwrap());
}

#[test]
fn the_age_of_the_oldest_unchecked_byte_outlives_a_restart() {
    let world = World::new();
    let (mut spool, camera) = (world.open(), world.camera("C1", 1));
    assert_eq!(spool.unchecked_since(), None, "nothing is kept");
    let footage = camera.footage(0, &[1000, 1000]);
    keep(&mut spool, &camera, &footage);
    let at = |n: u64| Time(NOW.0 + n * 1000);
    assert_eq!(spool.unchecked_since(), Some(at(0)));
    assert!(!spool.scrub_step(1, at(5)).unwrap().wrapped);
    assert!(spool.scrub_step(1 << 30, at(7)).unwrap().wrapped);
    assert_eq!(
        spool.unchecked_since(),
        Some(at(0)),
        "read at any time since"
    );
    // The second pass begins at 7 and ends at 20; the third is in the middle.
    assert!(spool.scrub_step(1 << 30, at(20)).unwrap().wrapped);
    assert_eq!(spool.unchecked_since(), Some(at(7)));
    let read = spool.scrub_step(1, at(25)).unwrap();
    assert_eq!((read.checked, read.pass_started), (1, at(20)));
    keep(&mut spool, &camera, &camera.footage(1, &[10]));
    drop(spool);
    let (trust, keys) = (world.trust.clone(), world.keys(1, false, &[]));
    let (mut spool, _) = Spool::open(world.options(), trust, keys, at(26)).unwrap();
    assert_eq!(spool.unchecked_since(), Some(at(7)));
    let read = spool.scrub_step(1 << 30, at(30)).unwrap();
    assert!(
        read.checked < 5 && read.pass_started == at(20),
        "it went on: {read:?}"
    );
    assert_eq!(spool.unchecked_since(), Some(at(20)));
}

#[test]
fn copies_that_are_gone_or_short_are_noticed_at_the_start() {
    for cut in [None, Some(0), Some(999)] {
        let world = World::new();
        let (mut spool, camera) = (world.open(), world.camera("C1", 1));
        let footage = camera.footage(0, &[1000]);
        keep(&mut spool, &camera, &footage);
        drop(spool);
        let path = world.segment(&footage.digest(0));
        match cut {
            None => fs::remove_file(&path).unwrap(),
            Some(n) => fs::write(&path, &footage.segments[0][..n]).unwrap(),
        }
        let (mut spool, report) = world.try_open().unwrap();
        assert_eq!(
            (report.missing, alarm_codes(&spool)),
            (1, ["copy_damaged"].into())
        );
        assert_eq!(
            spool.next_pulls(&camera.id, 9, &none(), NOW).unwrap()[0].digest,
            footage.digest(0)
        );
        pull_all(&mut spool, &footage);
        spool.commit(NOW).unwrap();
        assert_eq!(stages(&spool, &footage), all(Stage::Held, &footage));
    }
}

#[test]
fn what_does_not_belong_is_no_segment() {
    let world = World::new();
    drop(world.open());
    fs::write(world.path("segments/README"), "x").unwrap();
    fs::write(world.path("segments").join("ab".repeat(32)), "x").unwrap();
    fs::write(world.path("manifests").join("cd".repeat(32)), "x").unwrap();
    fs::write(world.path("inventories/C1~00"), "x").unwrap();
    let (spool, report) = world.try_open().unwrap();
    assert_eq!((report.orphans, report.segments), (1, 0));
    assert_eq!(spool.counts(), spool::Counts::default());
    assert!(world.path("segments/README").exists());
}

#[test]
fn a_damaged_or_missing_manifest_is_asked_for_again() {
    for gone in [true, false] {
        let world = World::new();
        let (mut spool, camera) = (world.open(), world.camera("C1", 1));
        let footage = camera.footage(0, &[1000]);
        let manifest = camera.whole_manifest(&footage);
        keep(&mut spool, &camera, &footage);
        drop(spool);
        let path = world.path("manifests").join(manifest.digest().to_string());
        if gone {
            fs::remove_file(path).unwrap();
        } else {
            flip(&path, 100);
        }
        let mut spool = world.open();
        assert!(
            spool
                .next_offers(&both(), &site("daejeon"), 9, &none(), NOW)
                .unwrap()
                .is_empty()
        );
        assert_eq!(alarm_codes(&spool), ["manifest_missing"].into());
        let listed = camera.inventory(1, 1, vec![held(&footage, &manifest, &[], &[])], &[]);
        assert_eq!(spool.inventory(&listed, NOW).unwrap().want.len(), 1);
        spool.admit(&manifest, NOW).unwrap();
        assert!(spool.alarms().is_empty());
        assert_eq!(
            spool
                .next_offers(&both(), &site("daejeon"), 9, &none(), NOW)
                .unwrap()
                .len(),
            1
        );
        assert_eq!(
            stages(&spool, &footage),
            all(Stage::Held, &footage),
            "the copies are as good as before"
        );
    }
}

#[test]
fn a_flipped_bit_in_the_ledger_loses_nothing() {
    let world = World::new();
    let (mut spool, camera) = (world.open(), world.camera("C1", 1));
    let footage: Vec<Footage> = (0..12).map(|n| camera.footage(n, &[500, 600])).collect();
    let all_of: Vec<&Footage> = footage.iter().collect();
    for f in &footage {
        keep(&mut spool, &camera, f);
        if f.number % 2 == 0 {
            spool
                .receipt(&world.full_receipt("daejeon", f), NOW)
                .unwrap();
        }
    }
    spool.commit(NOW).unwrap();
    let before = picture(&mut spool, &[&camera], &all_of);
    drop(spool);
    let saved = world.dir.path().join("saved");
    copy_dir(&world.path(""), &saved);
    let used = fs::read(saved.join("ledger/db"))
        .unwrap()
        .iter()
        .rposition(|b| *b != 0)
        .unwrap();
    for i in 0..24 {
        fs::remove_dir_all(world.path("")).unwrap();
        copy_dir(&saved, &world.path(""));
        flip(&world.path("ledger/db"), used * i / 24);
        // sled may panic on what it reads; the next start then rebuilds.
        let first = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.try_open()));
        let (mut spool, _) = match first {
            Ok(opened) => opened.unwrap(),
            Err(_) => world.try_open().unwrap(),
        };
        assert_eq!(picture(&mut spool, &[&camera], &all_of), before, "flip {i}");
    }
}

#[test]
fn a_torn_logbook_is_cut_and_a_shortened_one_is_an_alarm() {
    let world = World::new();
    let (mut spool, camera) = (world.open(), world.camera("C1", 1));
    let (footage, held_only) = (camera.footage(0, &[1000]), camera.footage(1, &[1000]));
    keep(&mut spool, &camera, &footage);
    keep(&mut spool, &camera, &held_only);
    let receipt = world.full_receipt("daejeon", &footage);
    spool.receipt(&receipt, NOW).unwrap();
    spool.commit(NOW).unwrap();
    let entries = spool.logbook_head().entries;
    drop(spool);
    let whole = fs::read(world.path("logbook")).unwrap();
    let mut torn = whole.clone();
    torn.extend([0, 0, 0, 90, 1, 2, 3]);
    fs::write(world.path("logbook"), torn).unwrap();
    let (spool, report) = world.try_open().unwrap();
    assert_eq!(
        (report.torn_bytes, spool.logbook_head().entries),
        (7, entries)
    );
    drop(spool);
    let inside = whole
        .windows(receipt.bytes().len())
        .position(|w| w == &receipt.bytes()[..])
        .unwrap();
    fs::write(world.path("logbook"), &whole[..inside + 9]).unwrap();
    let mut spool = world.open();
    assert_eq!(alarm_codes(&spool), ["logbook_damaged"].into());
    assert_eq!(
        stages(&spool, &footage),
        all(Stage::Held, &footage),
        "its receipt was in what is lost"
    );
    assert_eq!(stages(&spool, &held_only), all(Stage::Held, &held_only));
    spool
        .receipt(&world.full_receipt("daejeon", &footage), NOW)
        .unwrap();
    spool.commit(NOW).unwrap();
    assert_eq!(spool.receipts_due(&camera.id, 9, &none()).unwrap().len(), 1);
}

#[test]
fn without_ledger_and_logbook_the_digests_decide() {
    let world = World::new();
    let (mut spool, camera) = (world.open(), world.camera("C1", 1));
    let footage = camera.footage(0, &[1000, 2000]);
    keep(&mut spool, &camera, &footage);
    drop(spool);
    fs::remove_dir_all(world.path("ledger")).unwrap();
    fs::write(
        world.path("logbook"),
        &fs::read(world.path("logbook")).unwrap()[..60],
    )
    .unwrap();
    flip(&world.segment(&footage.digest(1)), 3);
    let (spool, report) = world.try_open().unwrap();
    assert!(
        report.rebuilt.is_some() && !report.lost.is_empty(),
        "{report}"
    );
    assert_eq!(
        stages(&spool, &footage),
        [Some(Stage::Held), Some(Stage::Held), Some(Stage::Announced)]
    );
}

#[test]
fn a_damaged_key_list_is_replaced_by_the_configured_one() {
    let world = World::new();
    drop(world.open());
    flip(&world.path("key-list"), 40);
    assert_eq!(alarm_codes(&world.open()), ["key_list_damaged"].into());
}

#[test]
fn a_receipt_that_the_logbook_lost_is_an_alarm_and_asked_for_again() {
    let world = World::new();
    let (mut spool, camera) = (world.open(), world.camera("C1", 1));
    let footage = camera.footage(0, &[1000]);
    keep(&mut spool, &camera, &footage);
    let receipt = world.full_receipt("daejeon", &footage);
    spool.receipt(&receipt, NOW).unwrap();
    spool.commit(NOW).unwrap();
    drop(spool);
    let logbook = fs::read(world.path("logbook")).unwrap();
    let length = receipt.bytes().len();
    let mut places = logbook.windows(length);
    let at = places.position(|w| w == receipt.bytes().as_ref()).unwrap();
    flip(&world.path("logbook"), at + length / 2);
    let mut spool = world.open();
    let due = |spool: &mut spool::Spool| spool.receipts_due(&camera.id, 9, &none()).unwrap();
    assert!(due(&mut spool).is_empty());
    assert_eq!(alarm_codes(&spool), ["logbook_damaged"].into());
    spool.commit(NOW).unwrap();
    assert_eq!(stages(&spool, &footage), all(Stage::Held, &footage));
    let daejeon = site("daejeon");
    let puts = spool.next_puts(&both(), &daejeon, 9, &none(), NOW).unwrap();
    assert_eq!(puts.len(), 2, "the site says that it has them, and signs");
    spool.receipt(&receipt, NOW).unwrap();
    spool.commit(NOW).unwrap();
    assert_eq!(due(&mut spool)[0].bytes, *receipt.bytes());
}
