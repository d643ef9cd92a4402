//! Tests of the ledger: what a sync keeps, what damage shows, and what follows from a process that ended within sled.

#![allow(clippy::unwrap_used, reason = "tests")]
use super::renew::Due;
use super::*;
use crate::faults::Faults;

fn folder(dir: &Path) -> Folder {
    Folder::open(&dir.join("spool"), &dir.join("run"), Faults::none()).unwrap()
}
fn mark() -> Mark {
    mark_at(1)
}
fn mark_at(entries: u64) -> Mark {
    let position = Position {
        offset: 5,
        entries,
        hash: Digest([3; 32]),
    };
    Mark {
        incarnation: Incarnation([1; 16]),
        position,
    }
}
fn keys(ledger: &Ledger, prefix: &[u8]) -> Vec<Key> {
    ledger.scan(prefix, None).map(|i| i.unwrap().0).collect()
}

#[test]
fn staged_changes_are_seen_and_kept_only_by_sync() {
    let dir = tempfile::tempdir().unwrap();
    let folder = folder(dir.path());
    let mut ledger = Ledger::create(&folder, "ledger").unwrap();
    for k in ["pa", "pc", "pd", "q"] {
        ledger.put(k.into(), &1u8);
    }
    ledger.sync(&folder, mark()).unwrap();
    ledger.put(b"pb".to_vec(), &2u8);
    ledger.put(b"pd".to_vec(), &3u8);
    ledger.delete(b"pc".to_vec());
    assert_eq!(keys(&ledger, b"p"), ["pa", "pb", "pd"].map(Vec::from));
    assert_eq!(ledger.get::<u8>(b"pd").unwrap(), Some(3));
    assert!(!ledger.has(b"pc").unwrap());
    drop(ledger);
    let (mut ledger, found) = Ledger::open(&folder, "ledger", &mut None, |_, _| Ok(())).unwrap();
    assert_eq!(found, Some(mark()));
    assert_eq!(keys(&ledger, b"p"), ["pa", "pc", "pd"].map(Vec::from));
    ledger.delete(b"pa".to_vec());
    ledger.sync(&folder, mark()).unwrap();
    drop(ledger);
    let (ledger, _) = Ledger::open(&folder, "ledger", &mut None, |_, _| Ok(())).unwrap();
    assert_eq!(keys(&ledger, b"p"), ["pc", "pd"].map(Vec::from));
}

#[test]
fn who_finds_that_a_process_ended_within_sled_rebuilds() {
    let dir = tempfile::tempdir().unwrap();
    let folder = folder(dir.path());
    let mut ledger = Ledger::create(&folder, "ledger").unwrap();
    ledger.sync(&folder, mark()).unwrap();
    drop(ledger);
    Doubt::of(&folder, "ledger").unwrap().begin().unwrap();
    let open = || Ledger::open(&folder, "ledger", &mut None, |_, _| Ok(()));
    assert!(matches!(open(), Err(SpoolError::Contradiction(_))));
    let (ledger, found) = open().unwrap();
    assert_eq!(found, Some(mark()), "it was found once");
    drop(ledger);
    assert!(open().is_ok(), "a close in good order leaves no mark");
}

#[test]
fn a_batch_that_met_a_full_disk_and_came_to_it_all_the_same_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let folder = folder(dir.path());
    let mut ledger = Ledger::create(&folder, "ledger").unwrap();
    ledger.put(b"pa".to_vec(), &1u8);
    ledger.sync(&folder, mark()).unwrap();
    ledger.put(b"pa".to_vec(), &2u8);
    ledger.put(b"pb".to_vec(), &3u8);
    let before = (ledger.sum, ledger.staged.clone());
    ledger.sync(&folder, mark_at(2)).unwrap();
    // Of which its caller was told that the disk is full.
    (ledger.sum, ledger.staged) = before;
    ledger.reopen(&folder).unwrap();
    ledger.sync(&folder, mark_at(2)).unwrap();
    drop(ledger);
    let (ledger, found) = Ledger::open(&folder, "ledger", &mut None, |_, _| Ok(())).unwrap();
    assert_eq!(found, Some(mark_at(2)));
    assert_eq!(keys(&ledger, b"p"), ["pa", "pb"].map(Vec::from));
}

#[test]
fn a_ledger_that_is_opened_again_and_has_no_rows_is_not_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let folder = folder(dir.path());
    let mut ledger = Ledger::create(&folder, "ledger").unwrap();
    ledger.put(b"pa".to_vec(), &1u8);
    ledger.sync(&folder, mark()).unwrap();
    // What sled cannot read is to it as if it were not there.
    let path = folder.path("ledger");
    for file in std::fs::read_dir(&path).unwrap() {
        let file = file.unwrap().path();
        if file.is_file() {
            std::fs::remove_file(file).unwrap();
        }
    }
    let opened = ledger.reopen(&folder);
    assert!(
        matches!(opened, Err(SpoolError::Contradiction(_))),
        "{opened:?}"
    );
}

/// Always, and as a daemon has it.
const ALWAYS: Due = Due {
    least_bytes: 0,
    segments: 0,
};

#[test]
fn a_ledger_is_written_anew_for_what_that_gives_back_and_nothing_else() {
    let many = |segments| Due {
        least_bytes: limits::LEDGER_BYTES,
        segments,
    };
    let fresh = |segments: u64| 4_500_000 + 494 * segments; // measured
    let none = renew::Size::default();
    for segments in [20_000, 32_768, 262_144] {
        let due = many(segments);
        let first = (0..=1024).find(|each| due.is(each * segments, none));
        let first = first.expect("before a live segment has a KiB");
        assert!((600..900).contains(&first), "{segments}: {first} B each");
        // As it comes from a renewal it is not due, after a start and as it grows.
        assert!(!due.is(fresh(segments), none));
        let size = |bytes, segments| renew::Size { bytes, segments };
        assert!(!due.is(fresh(segments), size(fresh(segments / 2), segments / 2)));
        // Rows may be larger than was measured: what the last one came to is not tried for again and again.
        let large = size(900 * segments, segments);
        assert!(!due.is(large.bytes + large.bytes / 9, large));
        assert!(due.is(large.bytes + large.bytes / 7, large));
        // Most segments are gone: their room comes back.
        assert!(many(segments / 2).is(large.bytes, large));
        assert!(!many(segments - segments / 9).is(large.bytes, large));
    }
    assert!(!many(0).is(limits::LEDGER_BYTES, none));
}

#[test]
fn a_ledger_that_is_written_anew_is_smaller_and_says_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let mut folder = folder(dir.path());
    let mut ledger = Ledger::create(&folder, "ledger").unwrap();
    let row = |n: u32| [b"p".as_slice(), &n.to_be_bytes()].concat();
    let mut entries = 0;
    let mut change = |ledger: &mut Ledger, n: u32, by: u32| {
        ledger.put(row(n), &[by; 20]);
        if n % 7 == 3 {
            ledger.delete(row(n));
        }
        entries += 1;
        mark_at(entries)
    };
    let many = 3 * u32::try_from(limits::RENEW_ROWS).unwrap();
    for round in 0..15 {
        for n in 0..many {
            change(&mut ledger, n, round);
        }
        ledger.sync(&folder, mark_at(u64::from(round))).unwrap();
    }
    let bytes = ledger.disk_bytes();
    let small = Due {
        least_bytes: 2 * bytes,
        segments: 1,
    };
    ledger.renew(&mut folder, small).unwrap();
    assert!(ledger.renewals.fresh.is_none(), "it is not worth it");
    // Rows behind the copy and before it change while it is made, and go, and come.
    let mut steps = 0;
    while ledger.renewals.last.bytes == 0 {
        ledger.renew(&mut folder, ALWAYS).unwrap();
        let n = steps * 977 % many;
        change(&mut ledger, n, 99);
        let mark = change(&mut ledger, many + steps, 99);
        ledger.sync(&folder, mark).unwrap();
        steps += 1;
        assert!(steps < 100, "{} of {bytes} bytes", ledger.disk_bytes());
    }
    assert!(steps > 2, "a little with each commit");
    let after = ledger.renewals.last.bytes;
    assert!(after < bytes, "{after} of {bytes} bytes");
    let (rows, sum) = (keys(&ledger, b"p"), ledger.sum);
    drop(ledger);
    assert!(
        !folder.path(renew::NEXT).exists(),
        "nothing is left of the old one"
    );
    let (ledger, found) = Ledger::open(&folder, "ledger", &mut None, |_, _| Ok(())).unwrap();
    assert_eq!((keys(&ledger, b"p"), ledger.sum), (rows, sum));
    assert_eq!(found.map(|m| m.position.entries), Some(entries));
}

#[test]
fn a_flipped_bit_leaves_the_rows_of_a_mark_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let folder = folder(dir.path());
    let mut ledger = Ledger::create(&folder, "ledger").unwrap();
    for i in 0..40u8 {
        ledger.put(vec![b'p', i], &[i; 64]);
        ledger.sync(&folder, mark_at(u64::from(i) + 1)).unwrap();
    }
    drop(ledger);
    let path = folder.path("ledger").join("db");
    let whole = fs::read(&path).unwrap();
    let used = whole.iter().rposition(|b| *b != 0).unwrap();
    let saved = folder.path("saved");
    copy_dir(&folder.path("ledger"), &saved);
    for i in 0..30 {
        fs::remove_dir_all(folder.path("ledger")).unwrap();
        copy_dir(&saved, &folder.path("ledger"));
        let mut bytes = whole.clone();
        bytes[used * i / 30] ^= 16;
        fs::write(&path, bytes).unwrap();
        let opened =
            std::panic::catch_unwind(|| Ledger::open(&folder, "ledger", &mut None, |_, _| Ok(())));
        if let Ok(Ok((ledger, found))) = opened {
            // sled may have gone back to an earlier commit, whole: the logbook brings it up from its mark.
            let rows = keys(&ledger, b"p").len() as u64;
            assert_eq!(found.map_or(0, |m| m.position.entries), rows, "flip {i}");
        }
        let _ = fs::remove_file(dir.path().join("run/ledger.opening"));
    }
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        if entry.path().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        } else {
            copy_dir(&entry.path(), &to.join(entry.file_name()));
        }
    }
}
