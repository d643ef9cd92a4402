//! What is over is forgotten: released, erased by its camera, and reclaimed. The ledger holds what lives.

use protocol::custody::Stage;
use protocol::ids::Range;
use spool::Spool;

use crate::world::*;

/// Room for about ten segments of 100 KiB; recordings of one.
fn world() -> World {
    let mut world = World::new();
    world.capacity = 1 << 20;
    world.renews = true;
    world
}

/// Has a recording archived, and its camera say that it has erased it and all before it.
fn end(world: &World, spool: &mut Spool, camera: &Camera, footage: &Footage) {
    let manifest = camera.whole_manifest(footage).digest();
    let digests = footage.digests();
    let receipt = world.receipt_with("daejeon", footage, &digests[1..], &[manifest], EPOCH);
    spool.receipt(&receipt, NOW).unwrap();
    spool.commit(NOW).unwrap();
    let over = Range {
        from: 0,
        to: footage.number,
    };
    let inventory = camera.inventory(footage.number + 1, footage.number + 1, vec![], &[over]);
    spool.inventory(&inventory, NOW).unwrap();
    spool.commit(NOW).unwrap();
}

/// One recording through the spool, and room made for the next.
fn through(world: &World, spool: &mut Spool, camera: &Camera, footage: &Footage) {
    keep(spool, camera, footage);
    end(world, spool, camera, footage);
    spool.reclaim(NOW).unwrap();
    spool.commit(NOW).unwrap();
}

/// A hundred recordings through a spool that has room for about thirty.
fn a_hundred(world: &World, camera: &Camera) -> (Spool, Vec<Footage>) {
    let mut spool = world.open();
    let footage: Vec<Footage> = (0..100).map(|n| camera.footage(n, &[25_000])).collect();
    for f in &footage {
        through(world, &mut spool, camera, f);
    }
    (spool, footage)
}

fn manifests(world: &World) -> usize {
    std::fs::read_dir(world.path("manifests")).unwrap().count()
}

#[test]
fn what_is_over_is_forgotten_and_what_is_here_is_not() {
    let world = world();
    let camera = world.camera("C1", 1);
    let (mut spool, footage) = a_hundred(&world, &camera);
    let known = |spool: &Spool| stages(spool, &footage[0])[0].is_some();
    assert!(!known(&spool), "the first is over");
    assert_eq!(
        stages(&spool, &footage[99]),
        all(Stage::Released, &footage[99])
    );
    assert!(spool.open_copy(&footage[99].digest(0)).is_ok());
    let counts = spool.counts();
    assert!(counts.recordings <= 40, "{counts:?}");
    assert_eq!(counts.recordings + counts.forgotten.segments / 2, 100);
    assert_eq!(counts.unaccounted.segments, 0);
    spool.commit(NOW).unwrap();
    assert_eq!(manifests(&world) as u64, counts.recordings);
    // Also after a start, and in a ledger derived anew from what is left.
    let recordings = counts.recordings;
    drop(spool);
    let (spool, report) = world.try_open().unwrap();
    assert!(
        report.is_complete() && report.orphans == 0 && !known(&spool),
        "{report}"
    );
    assert_eq!(spool.counts().recordings, recordings);
    drop(spool);
    let (spool, report) = world.recover();
    assert!(report.is_complete(), "{report}");
    assert_eq!(
        (spool.counts().recordings, known(&spool)),
        (recordings, false)
    );
    assert!(alarm_codes(&spool).is_empty());
}

#[test]
fn what_was_forgotten_may_come_again() {
    let world = world();
    let camera = world.camera("C1", 1);
    let (mut spool, footage) = a_hundred(&world, &camera);
    // A camera restored from a copy has it still.
    keep(&mut spool, &camera, &footage[0]);
    assert_eq!(stages(&spool, &footage[0]), all(Stage::Held, &footage[0]));
    let manifest = camera.whole_manifest(&footage[0]).digest();
    let again = world.receipt_with(
        "daejeon",
        &footage[0],
        &[footage[0].digest(0)],
        &[manifest],
        EPOCH,
    );
    spool.receipt(&again, NOW).unwrap();
    spool.commit(NOW).unwrap();
    let due = spool.receipts_due(&camera.id, 9, &none()).unwrap();
    assert_eq!(due.len(), 1);
}

#[test]
fn a_store_that_turns_out_void_is_an_alarm_also_for_what_is_forgotten() {
    let world = world();
    let camera = world.camera("C1", 1);
    let (mut spool, _) = a_hundred(&world, &camera);
    spool.set_key_list(&world.keys(2, true, &[]), NOW).unwrap();
    assert!(alarm_codes(&spool).contains("released_void"));
    drop(spool);
    // A rebuilt ledger has it from the logbook's receipts.
    let other = self::world();
    let camera = other.camera("C1", 1);
    drop(a_hundred(&other, &camera));
    let (mut spool, _) = other.recover();
    spool.set_key_list(&other.keys(2, true, &[]), NOW).unwrap();
    assert!(alarm_codes(&spool).contains("released_void"));
}

#[test]
fn a_process_that_ends_while_it_forgets_leaves_nothing_half() {
    let world = world();
    let camera = world.camera("C1", 1);
    let (mut spool, _) = a_hundred(&world, &camera);
    spool.commit(NOW).unwrap();
    let (before, mut n) = (spool.counts().forgotten, 100);
    while spool.counts().forgotten == before {
        through(&world, &mut spool, &camera, &camera.footage(n, &[25_000]));
        n += 1;
    }
    // The rows are staged to go, and the files are there until that is durable.
    let files = std::fs::read_dir(world.path("manifests")).unwrap();
    let kept: Vec<_> = files.map(|f| f.unwrap().path()).collect();
    let kept: Vec<_> = kept
        .into_iter()
        .map(|f| (std::fs::read(&f).unwrap(), f))
        .collect();
    spool.commit(NOW).unwrap();
    let gone: Vec<_> = kept.into_iter().filter(|(_, f)| !f.exists()).collect();
    assert!(!gone.is_empty());
    // As after a power cut: the rows went, the files did not.
    let recordings = spool.counts().recordings;
    drop(spool);
    for (bytes, file) in &gone {
        std::fs::write(file, bytes).unwrap();
    }
    let (spool, report) = world.try_open().unwrap();
    assert_eq!(report.manifests_entered, 0, "{report}");
    assert!(gone.iter().all(|(_, file)| !file.exists()));
    let counts = spool.counts();
    assert_eq!(
        (counts.recordings, counts.unaccounted.segments),
        (recordings, 0)
    );
}

#[test]
fn what_comes_again_in_the_moment_in_which_it_is_forgotten_keeps_its_manifest() {
    let world = world();
    let camera = world.camera("C1", 1);
    let (mut spool, footage) = a_hundred(&world, &camera);
    spool.commit(NOW).unwrap();
    let known = |spool: &Spool, f: &Footage| stages(spool, f)[0].is_some();
    let mut last = footage.iter().position(|f| known(&spool, f)).unwrap() as u64;
    let mut n = 100;
    while known(&spool, &camera.footage(last, &[25_000])) {
        through(&world, &mut spool, &camera, &camera.footage(n, &[25_000]));
        n += 1;
    }
    while !known(&spool, &camera.footage(last + 1, &[25_000])) {
        last += 1;
    }
    // Its rows are staged to go, and its file goes when that is durable.
    let again = camera.footage(last, &[25_000]);
    let manifest = camera.whole_manifest(&again);
    let used = spool.space().used_bytes;
    spool.admit(&manifest, NOW).unwrap();
    assert_eq!(spool.space().used_bytes, used);
    spool.commit(NOW).unwrap();
    assert!(spool.offer(&manifest.digest()).unwrap().is_some());
    drop(spool);
    let (mut spool, report) = world.try_open().unwrap();
    assert!(report.is_complete(), "{report}");
    keep(&mut spool, &camera, &again);
    assert_eq!(stages(&spool, &again), all(Stage::Held, &again));
}
