//! The folder by itself: its lock, its format, the mark of a failed sync, room for refused copies.
#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;
use protocol::suite::sha256;

fn folder(dir: &Path) -> Folder {
    Folder::open(&dir.join("spool"), &dir.join("run"), Faults::none()).unwrap()
}

#[test]
fn one_process_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let first = folder(dir.path());
    let second = Folder::open(&dir.path().join("spool"), dir.path(), Faults::none());
    assert!(matches!(second, Err(SpoolError::InUse(_))));
    drop(first);
    folder(dir.path());
}

#[test]
fn a_newer_format_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(folder(dir.path()));
    fs::write(dir.path().join("spool/FORMAT"), marked(FORMAT + 1)).unwrap();
    let refused = Folder::open(&dir.path().join("spool"), dir.path(), Faults::none());
    assert!(matches!(refused, Err(SpoolError::NewerFormat { .. })));
}

#[test]
fn a_new_spool_is_of_the_previous_format_until_it_is_raised() {
    let dir = tempfile::tempdir().unwrap();
    let (mut folder, path) = (folder(dir.path()), dir.path().join("spool/FORMAT"));
    assert_eq!(fs::read_to_string(&path).unwrap(), marked(PREVIOUS));
    let raised = (FORMAT > PREVIOUS).then_some(PREVIOUS);
    assert_eq!(folder.raise_format().unwrap(), raised);
    assert_eq!(fs::read_to_string(&path).unwrap(), marked(FORMAT));
    assert_eq!(folder.raise_format().unwrap(), None);
    assert_eq!((previous(1), previous(2), previous(3)), (1, 1, 2));
    // What it was before is nothing that it could go back to.
    for older in ["bwc-spool 0", "bwc-spool", "1", ""] {
        fs::write(&path, older).unwrap();
        assert!(folder.raise_format().is_err(), "{older}");
    }
}

#[test]
fn a_failed_sync_leaves_its_mark() {
    let dir = tempfile::tempdir().unwrap();
    let folder = folder(dir.path());
    assert!(!folder.is_suspect());
    let error = folder.suspect("logbook", io::Error::from_raw_os_error(libc::EIO));
    assert!(matches!(error, SpoolError::Suspect { .. }) && folder.is_suspect());
    folder.clear_suspect().unwrap();
    assert!(!folder.is_suspect());
}

#[test]
fn refused_copies_keep_to_their_room() {
    let dir = tempfile::tempdir().unwrap();
    let mut folder = folder(dir.path());
    for i in 0..5u8 {
        let digest = sha256(&[i]);
        fs::write(folder.segment(&digest), [i; 100]).unwrap();
        folder.set_aside(&digest, 250).unwrap();
    }
    let kept: u64 = fs::read_dir(folder.place(Place::Refused))
        .unwrap()
        .map(|e| e.unwrap().metadata().unwrap().len())
        .sum();
    assert_eq!(kept, 200);
}

#[test]
fn digests_are_read_whole() {
    let dir = tempfile::tempdir().unwrap();
    let folder = folder(dir.path());
    for n in [0, 1, 4095, 4096, limits::READ_BYTES, limits::READ_BYTES + 5] {
        let bytes = vec![7; n];
        let path = folder.path("x");
        fs::write(&path, &bytes).unwrap();
        assert_eq!(folder.digest_on_disk(&path).unwrap(), sha256(&bytes));
        assert_eq!(
            hash_prefix(&File::open(&path).unwrap(), n as u64)
                .unwrap()
                .finish(),
            sha256(&bytes)
        );
    }
}
