//! What cameras announce: inventories that overrule, footage that nobody holds, contradictions, changes of class.

use protocol::custody::Stage;
use protocol::ids::Range;
use protocol::manifest::Class;
use spool::{Admission, Spool};

use crate::world::*;

#[test]
fn the_newest_inventory_overrules() {
    let world = World::new();
    let (mut spool, camera) = (world.open(), world.camera("C1", 1));
    let footage = camera.footage(0, &[1000, 1000]);
    let manifest = camera.whole_manifest(&footage);
    let lists = |number, receipted: &[Range]| {
        let held = held(&footage, &manifest, receipted, &[]);
        camera.inventory(number, 1, vec![held], &[])
    };
    let outcome = spool.inventory(&lists(1, &[]), NOW).unwrap();
    let want = &outcome.want[0];
    assert_eq!((want.number, want.from_index, outcome.fresh), (0, 0, true));
    keep(&mut spool, &camera, &footage);
    assert!(
        spool
            .inventory(&lists(1, &[]), NOW)
            .unwrap()
            .want
            .is_empty()
    );
    let receipt = world.full_receipt("daejeon", &footage);
    spool.receipt(&receipt, NOW).unwrap();
    spool
        .released(&camera.id, 0, &footage.digests(), NOW)
        .unwrap();
    spool.commit(NOW).unwrap();
    let due = |spool: &mut Spool| spool.receipts_due(&camera.id, 9, &none()).unwrap().len();
    assert_eq!(due(&mut spool), 0);
    let stage = |spool: &Spool, seq| spool.stage(&footage.digest(seq)).unwrap();
    spool
        .inventory(&lists(2, &[Range { from: 0, to: 0 }]), NOW)
        .unwrap();
    assert_eq!(stage(&spool, 0), Some(Stage::Released));
    assert_eq!(
        stage(&spool, 1),
        Some(Stage::Archived),
        "listed without its receipt"
    );
    assert_eq!(due(&mut spool), 1);
    spool
        .inventory(&lists(3, &[Range { from: 0, to: 1 }]), NOW)
        .unwrap();
    assert_eq!(stage(&spool, 1), Some(Stage::Released));
    assert!(spool.alarms().is_empty());
}

#[test]
fn a_camera_that_goes_back_in_time_is_an_alarm() {
    let world = World::new();
    let (mut spool, camera) = (world.open(), world.camera("C1", 1));
    let empty = |camera: &Camera, number, next| {
        let gone = [Range { from: 0, to: 2 }];
        camera.inventory(number, next, Vec::new(), if next > 0 { &gone } else { &[] })
    };
    spool.inventory(&empty(&camera, 2, 3), NOW).unwrap();
    assert!(!spool.inventory(&empty(&camera, 1, 3), NOW).unwrap().fresh);
    assert_eq!(alarm_codes(&spool), ["inventory_lower"].into());
    spool.inventory(&empty(&camera, 3, 0), NOW).unwrap();
    assert!(alarm_codes(&spool).contains("recordings_missing"));
    assert!(!alarm_codes(&spool).contains("camera_incarnation"));
    let wiped = world.camera("C1", 2);
    spool.inventory(&empty(&wiped, 1, 0), NOW).unwrap();
    assert!(alarm_codes(&spool).contains("camera_incarnation"));
}

#[test]
fn a_stored_inventory_is_read_page_by_page_when_it_is_durable() {
    let world = World::new();
    let (mut spool, camera) = (world.open(), world.camera("C1", 1));
    let gone = [Range { from: 0, to: 2 }];
    let [four, five] = [4, 5].map(|number| camera.inventory(number, 3, Vec::new(), &gone));
    assert_eq!(spool.inventory_numbers().unwrap(), []);
    assert!(spool.open_inventory(&camera.id).unwrap().is_none());
    spool.inventory(&four, NOW).unwrap();
    assert!(
        spool.open_inventory(&camera.id).unwrap().is_none(),
        "its barrier is to come"
    );
    spool.commit(NOW).unwrap();
    let (number, mut old) = spool.open_inventory(&camera.id).unwrap().unwrap();
    assert_eq!(number, 4);
    // A newer one takes the name, not the file that is being read.
    spool.inventory(&five, NOW).unwrap();
    assert!(
        spool.open_inventory(&camera.id).unwrap().is_none(),
        "the file is still the old one's"
    );
    spool.commit(NOW).unwrap();
    let page = old.next_page().unwrap();
    assert_eq!(page.as_ref(), Some(four.pages()[0].bytes()));
    assert_eq!(old.next_page().unwrap(), None);
    drop(spool);
    let spool = world.open();
    let known = spool.inventory_numbers().unwrap();
    assert_eq!(known, [(camera.id.clone(), 5)], "after a restart too");
    let (number, mut new) = spool.open_inventory(&camera.id).unwrap().unwrap();
    assert_eq!(number, 5);
    assert_eq!(
        new.next_page().unwrap().as_ref(),
        Some(five.pages()[0].bytes())
    );
    // A length that no page has is not allocated for.
    let file = std::fs::read_dir(world.path("inventories")).unwrap().next();
    let file = file.unwrap().unwrap();
    std::fs::write(file.path(), u32::MAX.to_be_bytes()).unwrap();
    let (_, mut damaged) = spool.open_inventory(&camera.id).unwrap().unwrap();
    assert!(damaged.next_page().is_err());
}

#[test]
fn what_nobody_is_known_to_hold_is_an_alarm() {
    let world = World::new();
    let (mut spool, camera) = (world.open(), world.camera("C1", 1));
    let footage = camera.footage(0, &[1000, 1000]);
    let manifest = camera.whole_manifest(&footage);
    spool.admit(&manifest, NOW).unwrap();
    pull(&mut spool, &footage, &footage.header_digest());
    let erased = [Range { from: 1, to: 1 }];
    spool
        .inventory(
            &camera.inventory(1, 1, vec![held(&footage, &manifest, &erased, &erased)], &[]),
            NOW,
        )
        .unwrap();
    spool.commit(NOW).unwrap();
    let tasks = spool.next_pulls(&camera.id, 9, &none(), NOW).unwrap();
    assert_eq!(
        tasks.iter().map(|t| t.digest).collect::<Vec<_>>(),
        [footage.digest(0)]
    );
    assert_eq!(
        spool
            .unaccounted(9)
            .unwrap()
            .iter()
            .map(|u| u.2)
            .collect::<Vec<_>>(),
        [footage.digest(1)]
    );
    assert_eq!(alarm_codes(&spool), ["unaccounted"].into());
    spool
        .receipt(
            &world.receipt("daejeon", &footage, &[footage.digest(1)], EPOCH),
            NOW,
        )
        .unwrap();
    spool.commit(NOW).unwrap();
    assert_eq!(
        (spool.counts().unaccounted.segments, spool.alarms().len()),
        (0, 0)
    );
}

#[test]
fn cameras_that_contradict_themselves() {
    let world = World::new();
    let mut spool = world.open();
    let (camera, thief) = (world.camera("C1", 1), world.camera("C2", 1));
    let footage = camera.footage(0, &[1000, 1001]);
    spool
        .admit(&camera.manifest(&footage, 0, 0..1), NOW)
        .unwrap();
    let stolen = Footage {
        segments: footage.segments.clone(),
        ..thief.footage(0, &[])
    };
    assert!(matches!(
        spool.admit(&thief.whole_manifest(&stolen), NOW).unwrap(),
        Admission::Refused(_)
    ));
    let swapped = Footage {
        header: vec![3; 50],
        ..footage.clone()
    };
    assert!(matches!(
        spool
            .admit(&camera.manifest(&swapped, 1, 1..2), NOW)
            .unwrap(),
        Admission::Refused(_)
    ));
    assert_eq!(
        spool
            .admit(&camera.manifest(&footage, 0, 0..2), NOW)
            .unwrap(),
        Admission::Conflict
    );
    let twice = Footage {
        segments: vec![vec![5; 9]],
        ..footage.clone()
    };
    assert_eq!(
        spool.admit(&camera.manifest(&twice, 4, 0..1), NOW).unwrap(),
        Admission::Conflict
    );
    assert_eq!(
        alarm_codes(&spool),
        ["digest_owned", "header_changed", "manifest_conflict"].into()
    );
    let wanted = spool.next_pulls(&camera.id, 9, &none(), NOW).unwrap();
    assert_eq!(wanted.len(), 4, "the header, and every segment of both");
    let want = spool
        .inventory(
            &camera.inventory(
                1,
                1,
                vec![held(
                    &footage,
                    &camera.manifest(&footage, 4, 1..1),
                    &[],
                    &[],
                )],
                &[],
            ),
            NOW,
        )
        .unwrap()
        .want;
    assert_eq!(want[0].from_index, 1, "1 to 3 have not come");
}

#[test]
fn a_class_moves_everything_of_its_recording() {
    let world = World::new();
    let (mut spool, camera) = (world.open(), world.camera("C1", 1));
    let (old, new) = (camera.footage(0, &[10]), camera.footage(1, &[11]));
    for footage in [&old, &new] {
        spool.admit(&camera.whole_manifest(footage), NOW).unwrap();
    }
    let first = |spool: &mut spool::Spool| {
        spool.next_pulls(&camera.id, 1, &none(), NOW).unwrap()[0].clone()
    };
    assert_eq!(first(&mut spool).recording.number, 0);
    let urgent = Footage {
        class: Class::Urgent,
        ..new.clone()
    };
    spool
        .admit(&camera.manifest(&urgent, 1, 0..0), NOW)
        .unwrap();
    assert_eq!(
        (first(&mut spool).recording.number, first(&mut spool).class),
        (1, Class::Urgent)
    );
    assert_eq!(spool.counts().stages[0][Class::Urgent as usize].segments, 2);
    pull_all(&mut spool, &old);
    pull_all(&mut spool, &new);
    spool.commit(NOW).unwrap();
    assert_eq!(
        spool
            .next_puts(&both(), &site("daejeon"), 1, &none(), NOW)
            .unwrap()[0]
            .recording
            .number,
        1
    );
}

#[test]
fn a_later_manifest_costs_its_own_rows_alone() {
    let world = World::new();
    let (mut spool, camera) = (world.open(), world.camera("C1", 1));
    let footage = camera.footage(1, &[10; 130]);
    let first = camera.manifest(&footage, 0, 0..64);
    spool.admit(&first, NOW).unwrap();
    let rows = spool.pending().changes;
    for (index, range) in [(1, 64..128), (2, 128..130)] {
        spool.commit(NOW).unwrap();
        let segments = range.len();
        let manifest = camera.manifest(&footage, index, range);
        spool.admit(&manifest, NOW).unwrap();
        let now = spool.pending().changes;
        let its_own = rows * segments / 64 + 8;
        assert!(
            now <= its_own,
            "manifest {index}: {now} rows, {its_own} are its own"
        );
    }
}
