//! What comes while the ledger is rebuilt: Held at once, and after the rebuild by the spool itself, wherever a process ends in
//! between; and no copy that is about to be found whole is written over.

use std::fs;

use protocol::custody::Stage;
use spool::{Contact, Entry, Opened, Rebuild, Spool, SpoolError};

use crate::world::*;

/// A spool with a Held recording, of which the ledger is gone.
fn without_ledger(world: &World, camera: &Camera) -> Footage {
    let old = camera.footage(0, &[4000, 5000]);
    keep(&mut world.open(), camera, &old);
    fs::remove_dir_all(world.path("ledger")).unwrap();
    old
}

fn rebuild(world: &World) -> Rebuild {
    let mut options = world.options();
    options.fresh = [9; 16];
    let (trust, keys) = (world.trust.clone(), world.keys(1, false, &[]));
    match Spool::open_or_rebuild(options, trust, keys, NOW).unwrap() {
        Opened::Rebuilds(rebuild) => *rebuild,
        Opened::Ready(_, report) => panic!("it is good: {report}"),
    }
}

/// The interim spool with a recording that it holds, a receipt for it, and a contact.
fn take_new(world: &World, camera: &Camera, rebuild: &Rebuild) -> (Spool, Footage) {
    let mut interim = rebuild.interim().unwrap();
    let new = camera.footage(1, &[6000, 100]);
    keep(&mut interim, camera, &new);
    assert_eq!(stages(&interim, &new), all(Stage::Held, &new));
    let receipt = world.receipt("daejeon", &new, &[new.digest(1)], EPOCH);
    interim.receipt(&receipt, NOW).unwrap();
    let contact = Contact::Command {
        who: "operator".into(),
        what: "a word during the rebuild".into(),
    };
    interim.contact(contact, NOW).unwrap();
    interim.commit(NOW).unwrap();
    (interim, new)
}

fn everything_is_kept(world: &World, spool: &Spool, old: &Footage, new: &Footage) {
    assert_eq!(stages(spool, old), all(Stage::Held, old));
    let (held, archived) = (Some(Stage::Held), Some(Stage::Archived));
    assert_eq!(stages(spool, new), [archived, held, archived]);
    for f in [old, new] {
        for digest in f.digests() {
            assert_eq!(
                spool.read_copy(&digest).unwrap(),
                f.bytes_of(&digest).unwrap()
            );
        }
    }
    let mut noted = 0;
    spool
        .history(|_, entry| {
            noted += usize::from(
                matches!(entry, Entry::Note(text) if text.contains("a word during the rebuild")),
            );
        })
        .unwrap();
    assert!(noted >= 1, "the interim logbook's notes are gone");
    for name in ["interim", "interim.taken"] {
        assert!(!world.path(name).exists(), "{name}");
    }
    assert!(spool.alarms().is_empty(), "{:?}", spool.alarms());
}

#[test]
fn what_comes_during_a_rebuild_is_held_at_once_and_taken_over() {
    let world = World::new();
    let camera = world.camera("C1", 1);
    let old = without_ledger(&world, &camera);
    let rebuild = rebuild(&world);
    assert!(rebuild.why().contains("there is none"), "{}", rebuild.why());
    let (interim, new) = take_new(&world, &camera, &rebuild);
    let (spool, report) = rebuild.run(|| drop(interim)).unwrap();
    assert_eq!(report.taken_over, new.digests().len(), "{report}");
    assert_eq!(report.files, 6, "{report}");
    everything_is_kept(&world, &spool, &old, &new);
    drop(spool);
    // From files and logbook alone it is the same.
    let (spool, report) = world.start(10, true);
    assert_eq!((report.taken_over, report.orphans), (0, 0), "{report}");
    everything_is_kept(&world, &spool, &old, &new);
}

#[test]
fn a_process_that_ends_before_the_rebuild_does_loses_nothing() {
    let world = World::new();
    let camera = world.camera("C1", 1);
    let old = without_ledger(&world, &camera);
    let rebuild = rebuild(&world);
    let (interim, new) = take_new(&world, &camera, &rebuild);
    drop((interim, rebuild));
    let kept = world.dir.path().join("kept");
    copy_dir(&world.path("interim"), &kept);
    let (spool, report) = world.start(10, false);
    assert_eq!(report.taken_over, new.digests().len(), "{report}");
    everything_is_kept(&world, &spool, &old, &new);
    drop(spool);
    // One that ends after it took over and before the folder went finds it again, and that changes nothing.
    copy_dir(&kept, &world.path("interim"));
    fs::create_dir(world.path("interim.taken")).unwrap();
    let (spool, report) = world.start(11, false);
    assert_eq!((report.taken_over, report.missing), (0, 0), "{report}");
    everything_is_kept(&world, &spool, &old, &new);
}

#[test]
fn nothing_is_pulled_over_a_copy_that_may_be_whole() {
    let world = World::new();
    let camera = world.camera("C1", 1);
    let old = without_ledger(&world, &camera);
    let rebuild = rebuild(&world);
    let mut interim = rebuild.interim().unwrap();
    interim.admit(&camera.whole_manifest(&old), NOW).unwrap();
    let tasks = interim.next_pulls(&camera.id, 10, &none(), NOW).unwrap();
    assert_eq!(tasks, []);
    for digest in old.digests() {
        let begun = interim.begin(&digest);
        assert!(matches!(begun, Err(SpoolError::NotWanted(_))), "{begun:?}");
    }
    // What is missing here is pulled, though the rest is not.
    fs::remove_file(world.segment(&old.digest(1))).unwrap();
    pull_all(&mut interim, &old);
    interim.commit(NOW).unwrap();
    let (spool, report) = rebuild.run(|| drop(interim)).unwrap();
    assert_eq!((report.taken_over, report.missing), (1, 1), "{report}");
    assert_eq!(stages(&spool, &old), all(Stage::Held, &old));
}

#[test]
fn a_suspect_boot_takes_new_footage_while_it_reads_all_again() {
    let world = World::new();
    let camera = world.camera("C1", 1);
    let old = camera.footage(0, &[4000, 5000]);
    keep(&mut world.open(), &camera, &old);
    world.mark("spool.suspect");
    let rebuild = rebuild(&world);
    assert!(rebuild.why().contains("suspect"), "{}", rebuild.why());
    let (interim, new) = take_new(&world, &camera, &rebuild);
    let mark = world.dir.path().join("run/spool.suspect");
    assert!(mark.exists(), "the interim spool has taken the mark away");
    let (spool, report) = rebuild.run(|| drop(interim)).unwrap();
    assert!(report.suspect && !mark.exists());
    everything_is_kept(&world, &spool, &old, &new);
}

#[test]
fn what_cannot_be_taken_over_is_kept_aside() {
    let world = World::new();
    let camera = world.camera("C1", 1);
    let old = without_ledger(&world, &camera);
    let rebuild = rebuild(&world);
    let mut interim = rebuild.interim().unwrap();
    // To a spool that knows nothing, another header of a recording is as good as the first.
    let mut other = old.clone();
    other.header[0] ^= 1;
    other.segments[0][0] ^= 1;
    keep(&mut interim, &camera, &other);
    let (spool, report) = rebuild.run(|| drop(interim)).unwrap();
    assert!(!report.is_complete(), "{report}");
    assert_eq!(stages(&spool, &old), all(Stage::Held, &old));
    let codes = alarm_codes(&spool);
    assert_eq!(codes, ["header_changed", "interim_kept"].into());
    let place = world.path("interim.kept-1/segments");
    let copy = place.join(other.digest(0).to_string());
    assert_eq!(fs::read(copy).unwrap(), other.segments[0]);
}

#[test]
fn a_rebuild_whose_interim_spool_is_still_in_use_says_so() {
    let world = World::new();
    let camera = world.camera("C1", 1);
    let old = without_ledger(&world, &camera);
    let rebuild = rebuild(&world);
    let (interim, new) = take_new(&world, &camera, &rebuild);
    let refused = rebuild.run(|| {});
    assert!(
        matches!(refused, Err(SpoolError::InUse(_))),
        "{:?}",
        refused.err()
    );
    drop(interim);
    let (spool, _) = world.start(10, false);
    everything_is_kept(&world, &spool, &old, &new);
}
