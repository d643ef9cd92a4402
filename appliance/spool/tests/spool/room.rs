//! Room: watermarks, reclaim in its order, early reclaim, and a disk that is full.

use protocol::custody::Stage;
use protocol::ids::Range;
use protocol::pressure::Gate;
use spool::{Fault, Faults, Reaction};

use crate::world::*;

/// Room for about ten segments of 100 KiB: reclaim above 9, down to 8.
fn small() -> World {
    let mut world = World::new();
    world.capacity = 1 << 20;
    world
}

#[test]
fn pulling_stops_and_resumes_and_nothing_is_dropped() {
    let world = small();
    let (mut spool, camera) = (world.open(), world.camera("C1", 1));
    let footage = camera.footage(0, &(0..20).map(|i| 100_000 + i).collect::<Vec<_>>());
    spool.admit(&camera.whole_manifest(&footage), NOW).unwrap();
    let mut rounds = 0;
    while spool.counts().outstanding.segments > 0 {
        rounds += 1;
        assert!(rounds < 20, "it gets on");
        for task in spool.next_pulls(&camera.id, 99, &none(), NOW).unwrap() {
            match spool.begin(&task.digest) {
                Ok(mut incoming) => {
                    incoming
                        .write(footage.bytes_of(&task.digest).unwrap())
                        .unwrap();
                    spool.finish(incoming, NOW).unwrap();
                }
                Err(e) => {
                    assert_eq!(e.reaction(), Reaction::NoSpace);
                    break;
                }
            }
        }
        assert!(spool.space().used_bytes <= world.capacity);
        spool.commit(NOW).unwrap();
        let puts = spool
            .next_puts(&both(), &site("daejeon"), 99, &none(), NOW)
            .unwrap();
        let digests: Vec<_> = puts
            .iter()
            .filter(|t| t.seq.is_some())
            .map(|t| t.digest)
            .collect();
        spool
            .receipt(&world.receipt("daejeon", &footage, &digests, EPOCH), NOW)
            .unwrap();
        spool.reclaim(NOW).unwrap();
    }
    assert!(rounds > 1, "it did not fit at once");
    assert_eq!(stages(&spool, &footage), all(Stage::Archived, &footage));
    assert!(spool.alarms().is_empty());
}

#[test]
fn what_is_archived_takes_nothing_of_its_cameras_share() {
    let world = small();
    let (mut spool, camera) = (world.open(), world.camera("C1", 1));
    let (old, new) = (camera.footage(0, &[100_000]), camera.footage(1, &[50_000]));
    keep(&mut spool, &camera, &old);
    let one = spool.camera_bytes(&camera.id).unwrap();
    assert!(one >= 100_000, "{one}");
    keep(&mut spool, &camera, &new);
    let both = spool.camera_bytes(&camera.id).unwrap();
    assert!(both >= one + 50_000, "{both}");
    spool
        .receipt(&world.full_receipt("daejeon", &old), NOW)
        .unwrap();
    spool.commit(NOW).unwrap();
    assert!(
        spool.open_copy(&old.digest(0)).is_ok(),
        "its copy is still here"
    );
    assert_eq!(spool.camera_bytes(&camera.id).unwrap(), both - one);
    drop(spool);
    let spool = world.open();
    assert_eq!(spool.camera_bytes(&camera.id).unwrap(), both - one);
    let status = &spool.cameras().unwrap()[0];
    assert_eq!(status.bytes_here, both, "status tells all of it");
}

#[test]
fn the_longest_archived_goes_first_and_only_when_room_is_needed() {
    let world = small();
    let (mut spool, camera) = (world.open(), world.camera("C1", 1));
    let footage: Vec<Footage> = (0..8).map(|n| camera.footage(n, &[100_000])).collect();
    for f in &footage {
        keep(&mut spool, &camera, f);
    }
    for f in [&footage[3], &footage[1], &footage[6]] {
        spool
            .receipt(&world.full_receipt("daejeon", f), NOW)
            .unwrap();
        spool.commit(NOW).unwrap();
    }
    assert_eq!(
        spool.reclaim(NOW).unwrap().segments,
        0,
        "a centre that loses it can be given it again"
    );
    keep(&mut spool, &camera, &camera.footage(8, &[100_000]));
    assert_eq!(spool.gate(), Gate::UrgentOnly);
    let done = spool.reclaim(NOW).unwrap();
    assert!(
        (1..=4).contains(&done.segments) && done.early == 0,
        "{done:?}"
    );
    assert!(spool.open_copy(&footage[3].digest(0)).is_err());
    assert!(spool.open_copy(&footage[6].digest(0)).is_ok());
    assert_eq!(spool.gate(), Gate::Open);
    drop(spool);
    let (spool, report) = world.try_open().unwrap();
    assert_eq!((report.missing, report.orphans), (0, 0));
    assert_eq!(
        stages(&spool, &footage[3]),
        all(Stage::Archived, &footage[3])
    );
}

#[test]
fn with_one_receipt_of_two_nothing_goes_that_its_camera_no_longer_lists() {
    let world = small();
    let (mut spool, camera) = (world.open(), world.camera("C1", 1));
    let all: Vec<Footage> = (0..9)
        .map(|n| Footage {
            k: 2,
            ..camera.footage(n, &[100_000])
        })
        .collect();
    all.iter().for_each(|f| keep(&mut spool, &camera, f));
    let listed = all[1..]
        .iter()
        .map(|f| held(f, &camera.whole_manifest(f), &[], &[]))
        .collect();
    spool
        .inventory(
            &camera.inventory(1, 9, listed, &[Range { from: 0, to: 0 }]),
            NOW,
        )
        .unwrap();
    spool
        .receipt(&world.full_receipt("daejeon", &all[0]), NOW)
        .unwrap();
    spool.commit(NOW).unwrap();
    assert_eq!(spool.gate(), Gate::UrgentOnly, "room is asked for");
    assert_eq!(spool.reclaim(NOW).unwrap().segments, 0);
    assert_eq!(
        spool.stage(&all[0].digest(0)).unwrap(),
        Some(Stage::Held),
        "the only whole copy that is known"
    );
}

#[test]
fn one_receipt_of_two_lets_go_what_the_camera_lists() {
    let world = small();
    let (mut spool, camera) = (world.open(), world.camera("C1", 1));
    let footage = Footage {
        k: 2,
        ..camera.footage(0, &[100_000; 1])
    };
    let rest: Vec<Footage> = (1..9)
        .map(|n| Footage {
            k: 2,
            ..camera.footage(n, &[100_000])
        })
        .collect();
    keep(&mut spool, &camera, &footage);
    rest.iter().for_each(|f| keep(&mut spool, &camera, f));
    assert_eq!(
        spool.reclaim(NOW).unwrap().segments,
        0,
        "nothing is receipted"
    );
    spool
        .receipt(&world.full_receipt("daejeon", &footage), NOW)
        .unwrap();
    spool.commit(NOW).unwrap();
    let done = spool.reclaim(NOW).unwrap();
    assert!(done.early >= 1 && done.early == done.segments, "{done:?}");
    assert_eq!(
        spool.stage(&footage.digest(0)).unwrap(),
        Some(Stage::Announced)
    );
    spool
        .admit(&camera.whole_manifest(&camera.footage(9, &[1])), NOW)
        .unwrap();
    assert_eq!(
        spool
            .next_pulls(&camera.id, 9, &none(), NOW)
            .unwrap()
            .last()
            .unwrap()
            .recording
            .number,
        0,
        "pulled last"
    );
    assert_eq!(spool.counts().unaccounted.segments, 0);
}

#[test]
fn a_full_disk_stops_pulling_and_receipts_go_on() {
    let mut world = World::new();
    let camera = world.camera("C1", 1);
    let footage = camera.footage(0, &[1000]);
    keep(&mut world.open(), &camera, &footage);
    world.faults = Faults::of(&[Fault::NoSpace]);
    let mut spool = world.open();
    spool
        .admit(&camera.whole_manifest(&camera.footage(1, &[1000])), NOW)
        .unwrap();
    let task = spool
        .next_pulls(&camera.id, 1, &none(), NOW)
        .unwrap()
        .remove(0);
    assert_eq!(
        spool.begin(&task.digest).unwrap_err().reaction(),
        Reaction::NoSpace
    );
    assert_eq!(spool.gate(), Gate::Closed);
    assert!(!world.segment(&task.digest).exists());
    spool
        .receipt(&world.full_receipt("daejeon", &footage), NOW)
        .unwrap();
    spool.commit(NOW).unwrap();
    assert_eq!(stages(&spool, &footage), all(Stage::Archived, &footage));
    spool.reclaim(NOW).unwrap();
    assert_eq!(spool.gate(), Gate::Open, "this disk has room again");
}

#[test]
fn what_a_reclaim_made_durable_is_told_by_the_next_commit() {
    let world = small();
    let (mut spool, camera) = (world.open(), world.camera("C1", 1));
    let footage = camera.footage(0, &[100_000; 1]);
    let rest: Vec<Footage> = (1..9).map(|n| camera.footage(n, &[100_000])).collect();
    rest.iter().for_each(|f| keep(&mut spool, &camera, f));
    spool
        .receipt(&world.full_receipt("daejeon", &rest[0]), NOW)
        .unwrap();
    spool.admit(&camera.whole_manifest(&footage), NOW).unwrap();
    pull_all(&mut spool, &footage);
    assert_eq!(spool.reclaim(NOW).unwrap().segments, 2);
    assert!(spool.pending().changes > 0);
    let committed = spool.commit(NOW).unwrap();
    assert_eq!((committed.held.len(), committed.archived.len()), (2, 2));
}

#[test]
fn refused_copies_take_one_percent_and_nobodys_share() {
    let mut world = World::new();
    world.capacity = 16 << 20;
    let (mut spool, camera) = (world.open(), world.camera("C1", 1));
    let footage = camera.footage(0, &(0..30).map(|i| 60_000 + i).collect::<Vec<_>>());
    spool.admit(&camera.whole_manifest(&footage), NOW).unwrap();
    for digest in footage.digests() {
        let mut incoming = spool.begin(&digest).unwrap();
        let other = vec![9; incoming.remaining() as usize];
        incoming.write(&other).unwrap();
        let finished = spool.finish(incoming, NOW).unwrap();
        assert!(matches!(finished, spool::Finished::Refused { .. }));
        let kept = std::fs::read_dir(world.path("refused")).unwrap();
        let kept: u64 = kept.map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!(kept <= world.capacity / 100, "{kept}");
        assert_eq!(spool.camera_bytes(&camera.id).unwrap(), 0);
    }
    spool.commit(NOW).unwrap();
    assert_eq!(
        std::fs::read_dir(world.path("segments")).unwrap().count(),
        0
    );
    assert!(spool.space().used_bytes <= 2 * 4096, "its manifest");
    assert_eq!(alarm_codes(&spool), ["segment_refused"].into());
    keep(&mut spool, &camera, &camera.footage(1, &[60_000]));
}

#[test]
fn a_camera_that_never_ends_a_pull_takes_a_quarter_and_no_more() {
    let world = small();
    let mut spool = world.open();
    let (hostile, other) = (world.camera("C1", 1), world.camera("C2", 1));
    let lengths: Vec<usize> = (0..20).map(|i| 50_000 + i).collect();
    let footage = hostile.footage(0, &lengths);
    spool.admit(&hostile.whole_manifest(&footage), NOW).unwrap();
    let mut begun = Vec::new();
    for digest in footage.digests() {
        // As the repeater asks before each pull while others wait.
        let bytes = spool.camera_bytes(&hostile.id).unwrap();
        if protocol::pressure::may_hold(bytes, world.capacity, true) {
            begun.push(spool.begin(&digest).unwrap());
        }
    }
    let most = world.capacity / 4 + (50_020_u64).next_multiple_of(4096);
    assert!(spool.camera_bytes(&hostile.id).unwrap() <= most);
    assert!(begun.len() < 10, "what is begun counts: its room is taken");
    keep(&mut spool, &other, &other.footage(0, &[100_000, 100_001]));
    assert_eq!(spool.gate(), Gate::Open);
}

/// Its pull failed once, its segments came meanwhile, and are above the high watermark: nothing could leave, ever.
#[test]
fn a_header_for_which_segments_wait_passes_the_gate_and_before_all() {
    let world = small();
    let (mut spool, camera) = (world.open(), world.camera("C1", 1));
    let older = camera.footage(0, &[100_000, 100_001]);
    let footage = camera.footage(1, &(0..9).map(|i| 103_000 + i).collect::<Vec<_>>());
    for footage in [&older, &footage] {
        spool.admit(&camera.whole_manifest(footage), NOW).unwrap();
    }
    for seq in 0..9 {
        pull(&mut spool, &footage, &footage.digest(seq));
    }
    spool.commit(NOW).unwrap();
    assert_eq!(stages(&spool, &footage), all(Stage::Announced, &footage));
    assert_eq!(spool.gate(), Gate::UrgentOnly);
    let refused = spool.begin(&older.header_digest()).unwrap_err();
    assert_eq!(
        refused.reaction(),
        Reaction::NoSpace,
        "nothing waits for it"
    );
    let tasks = spool.next_pulls(&camera.id, 2, &none(), NOW).unwrap();
    let asked: Vec<_> = tasks.iter().map(|t| (t.digest, t.awaited)).collect();
    let expected = [
        (footage.header_digest(), true),
        (older.header_digest(), false),
    ];
    assert_eq!(asked, expected);
    pull(&mut spool, &footage, &footage.header_digest());
    spool.commit(NOW).unwrap();
    assert_eq!(stages(&spool, &footage), all(Stage::Held, &footage));
    assert_eq!(spool.gate(), Gate::UrgentOnly);
    let tasks = spool.next_pulls(&camera.id, 9, &none(), NOW).unwrap();
    assert!(tasks.iter().all(|t| !t.awaited), "{tasks:?}");
}
