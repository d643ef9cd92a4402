//! What follows a logbook of which entries are lost: a new incarnation that names the last head that is known. A tail
//! that was never acknowledged is no loss.

use std::fs;

use protocol::custody::Stage;
use spool::{Entry, LogbookHead, Spool};

use crate::world::*;

pub(crate) fn first_entry(spool: &Spool) -> String {
    let mut first = None;
    spool
        .history(|_, entry| _ = first.get_or_insert(entry))
        .unwrap();
    match first {
        Some(Entry::Note(text)) => text,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn names(head: LogbookHead) -> String {
    format!(
        "follows logbook {}, entry {}, chain hash {}: ",
        head.incarnation, head.entries, head.hash
    )
}

/// A spool with an archived and a held recording, and the heads of its logbook after each entry.
pub(crate) fn with_history(world: &World, camera: &Camera) -> (Vec<LogbookHead>, [Footage; 2]) {
    let mut spool = world.open();
    let footage = [camera.footage(0, &[1000, 2000]), camera.footage(1, &[3000])];
    keep(&mut spool, camera, &footage[0]);
    spool
        .receipt(&world.full_receipt("daejeon", &footage[0]), NOW)
        .unwrap();
    spool.commit(NOW).unwrap();
    keep(&mut spool, camera, &footage[1]);
    let mut heads = Vec::new();
    spool.history(|head, _| heads.push(head)).unwrap();
    (heads, footage)
}

#[test]
fn where_ledger_and_logbook_cannot_be_read_no_copy_goes_and_the_logbook_is_kept() {
    let world = World::new();
    let camera = world.camera("C1", 1);
    let (_, footage) = with_history(&world, &camera);
    // A disk that gives nothing back for a while: sled begins anew, and the logbook has no beginning.
    fs::remove_dir_all(world.path("ledger")).unwrap();
    fs::create_dir(world.path("ledger")).unwrap();
    let mut old = fs::read(world.path("logbook")).unwrap();
    old[..8].fill(0);
    fs::write(world.path("logbook"), &old).unwrap();
    let (spool, report) = world.start(9, false);
    assert_eq!(report.orphans, 0, "{report}");
    for f in &footage {
        assert_eq!(stages(&spool, f), all(Stage::Held, f));
        for digest in f.digests() {
            assert_eq!(
                spool.read_copy(&digest).unwrap(),
                f.bytes_of(&digest).unwrap()
            );
        }
    }
    let says = "follows a logbook of which no head is known";
    assert!(first_entry(&spool).starts_with(says));
    assert!(alarm_codes(&spool).contains("logbook_damaged"));
    assert_eq!(fs::read(world.path("logbook.damaged-1")).unwrap(), old);
}

#[test]
fn a_tail_that_was_never_acknowledged_is_no_loss() {
    for rebuild in [false, true] {
        let world = World::new();
        let camera = world.camera("C1", 1);
        let (heads, footage) = with_history(&world, &camera);
        let mut torn = fs::read(world.path("logbook")).unwrap();
        torn.extend([0, 0, 0, 90, 1, 2, 3]);
        fs::write(world.path("logbook"), torn).unwrap();
        let (spool, report) = world.start(9, rebuild);
        assert_eq!(report.rebuilt.is_some(), rebuild);
        assert_eq!((report.torn_bytes, report.lost), (7, vec![]));
        let (head, last) = (spool.logbook_head(), heads[heads.len() - 1]);
        assert_eq!(head.incarnation, last.incarnation);
        assert!(head.entries >= last.entries && spool.alarms().is_empty());
        assert_eq!(
            stages(&spool, &footage[0]),
            all(Stage::Archived, &footage[0])
        );
    }
}

/// What happens to logbook and ledger, and the entries of the head that the successor names.
struct Case {
    what: &'static str,
    damage: fn(Vec<u8>) -> Option<Vec<u8>>,
    without_ledger: bool,
    rebuild: bool,
    /// How many entries from the last one back; none: no head is known.
    named: Option<usize>,
    archived: bool,
}

fn shorten(mut logbook: Vec<u8>) -> Option<Vec<u8>> {
    logbook.pop();
    Some(logbook)
}
fn flip_in_last(mut logbook: Vec<u8>) -> Option<Vec<u8>> {
    let at = logbook.len() - 40;
    logbook[at] ^= 1;
    Some(logbook)
}
fn behead(mut logbook: Vec<u8>) -> Option<Vec<u8>> {
    logbook[0] ^= 1;
    Some(logbook)
}

#[rustfmt::skip]
const CASES: [Case; 7] = [
    Case { what: "short", damage: shorten, without_ledger: false, rebuild: false, named: Some(0), archived: true },
    Case { what: "short, recovered", damage: shorten, without_ledger: false, rebuild: true, named: Some(0), archived: true },
    Case { what: "flipped, recovered", damage: flip_in_last, without_ledger: false, rebuild: true, named: Some(0), archived: true },
    Case { what: "short, no ledger", damage: shorten, without_ledger: true, rebuild: false, named: Some(1), archived: true },
    Case { what: "no beginning", damage: behead, without_ledger: false, rebuild: false, named: Some(0), archived: false },
    Case { what: "gone, recovered", damage: |_| None, without_ledger: false, rebuild: true, named: Some(0), archived: false },
    Case { what: "gone, no ledger", damage: |_| None, without_ledger: true, rebuild: false, named: None, archived: false },
];

#[test]
fn lost_entries_are_followed_by_an_incarnation_that_names_the_last_known_head() {
    for case in CASES {
        let world = World::new();
        let camera = world.camera("C1", 1);
        let (heads, footage) = with_history(&world, &camera);
        let whole = fs::read(world.path("logbook")).unwrap();
        match (case.damage)(whole) {
            Some(bytes) => fs::write(world.path("logbook"), bytes).unwrap(),
            None => fs::remove_file(world.path("logbook")).unwrap(),
        }
        if case.without_ledger {
            fs::remove_dir_all(world.path("ledger")).unwrap();
        }
        let (spool, report) = world.start(9, case.rebuild);
        let what = case.what;
        let head = spool.logbook_head();
        assert_ne!(head.incarnation, heads[0].incarnation, "{what}");
        let first = first_entry(&spool);
        let named = case.named.map_or_else(
            || "follows a logbook of which no head is known: ".into(),
            |back| names(heads[heads.len() - 1 - back]),
        );
        assert!(first.starts_with(&named), "{what}: {first}, not {named}");
        assert!(
            report.logbook_begun.is_some() && !report.lost.is_empty(),
            "{what}"
        );
        assert_eq!(alarm_codes(&spool), ["logbook_damaged"].into(), "{what}");
        let kept = world.path("logbook.damaged-1").exists();
        assert_eq!(kept, !what.starts_with("gone"), "{what}");
        // No copy is given up for it; a receipt is where it could be read.
        let stage = if case.archived {
            Stage::Archived
        } else {
            Stage::Held
        };
        let unchanged = |spool: &Spool| {
            for (f, stage) in [(&footage[0], stage), (&footage[1], Stage::Held)] {
                assert_eq!(stages(spool, f), all(stage, f), "{what}");
            }
        };
        unchanged(&spool);
        drop(spool);
        // The successor is a whole logbook: it rebuilds what it carried, and is not followed by another.
        fs::remove_dir_all(world.path("ledger")).unwrap();
        let (spool, report) = world.start(10, false);
        assert_eq!(report.lost, Vec::<String>::new(), "{what}");
        assert_eq!(spool.logbook_head().incarnation, head.incarnation, "{what}");
        unchanged(&spool);
    }
}
