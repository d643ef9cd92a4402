//! What a process leaves that is killed at a moment too short to be hit: made by hand, as it would have made it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use spool::{Contact, Faults, Meeting};

use super::driver::open;
use super::plan::{NOW, Plan};

/// Leaves what a kill in the middle of sled's writing of a snapshot leaves.
///
/// # Panics
/// Where it cannot be written.
pub fn half_a_snapshot(ledger: &Path) {
    let entries = fs::read_dir(ledger).into_iter().flatten();
    let mut names: Vec<String> = entries
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("snap."))
        .collect();
    names.sort();
    let Some(newest) = names.pop() else { return };
    let whole = fs::read(ledger.join(&newest)).unwrap();
    let path = ledger.join(format!("{newest}.generating"));
    let mut file = fs::File::create(path).unwrap();
    file.write_all(&whole[..whole.len() / 2]).unwrap();
    file.sync_all().unwrap();
    fs::File::open(ledger).unwrap().sync_all().unwrap();
}

/// Leaves what a kill between the writing of a logbook's entry and its sync leaves: the entry, which memory has and the disk
/// has not. It is made on a copy of the spool, and says nothing but that a camera came. Whether it is there.
///
/// # Panics
/// Where it cannot be written.
#[must_use]
pub fn an_unsynced_entry(plan: &Plan, folder: &Path, dir: &Path) -> bool {
    let (logbook, apart) = (dir.join("logbook"), folder.join("apart"));
    let Ok(before) = fs::read(&logbook) else {
        return false;
    };
    copy(dir, &apart);
    let copied = || fs::read(apart.join("logbook")).unwrap();
    let mut spool = open(plan, folder, &apart, Faults::none());
    let opened = copied();
    let (camera, meeting) = (plan.cameras[0].clone(), Meeting::default());
    let note = Contact::CameraCame { camera, meeting };
    spool.contact(note, NOW).unwrap();
    spool.commit(NOW).unwrap();
    drop(spool);
    let after = copied();
    fs::remove_dir_all(&apart).unwrap();
    // A start that mended something has more to say, which is not durable either.
    if opened != before || !after.starts_with(&before) {
        return false;
    }
    let file = fs::OpenOptions::new().write(true).open(&logbook).unwrap();
    let more = &after[before.len()..];
    file.write_all_at(more, before.len() as u64).unwrap();
    true
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}
