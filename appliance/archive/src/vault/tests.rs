//! The store under damage, in a real folder.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;

use link::tasks::current_thread;
use protocol::suite::sha256;
use tempfile::TempDir;

use super::*;
use crate::config::{Place, S3};
use crate::store;

const KEY: &str = "recordings/S/05/0/thing";

fn open(dir: &TempDir) -> Vault {
    store::open(
        &Place::Folder(dir.path().join("store")),
        &S3::default(),
        true,
    )
    .unwrap()
}

fn file(dir: &TempDir) -> PathBuf {
    dir.path().join("store").join(KEY)
}

fn run(test: impl AsyncFnOnce(&TempDir, Vault, Path, Bytes, Digest)) {
    let dir = tempfile::tempdir().unwrap();
    let vault = open(&dir);
    let bytes = Bytes::from_static(b"sealed");
    let digest = sha256(&bytes);
    current_thread(test(&dir, vault, Path::from(KEY), bytes, digest)).unwrap();
}

#[test]
fn what_is_put_is_there_and_a_second_put_is_already_there() {
    run(async |dir, vault, path, bytes, digest| {
        assert_eq!(vault.check(&path, 6, digest).await.unwrap(), Copy::Missing);
        assert_eq!(
            vault.put(&path, bytes.clone(), digest).await.unwrap(),
            Put::New
        );
        assert_eq!(vault.check(&path, 6, digest).await.unwrap(), Copy::Good);
        assert_eq!(
            open(dir).put(&path, bytes.clone(), digest).await.unwrap(),
            Put::Already
        );
        assert_eq!(vault.read(&path, 6).await.unwrap(), Read::Bytes(bytes));
        assert_eq!(vault.read(&path, 5).await.unwrap(), Read::TooLong(6));
    });
}

#[test]
fn already_exists_is_not_durability_other_bytes_are_written_over() {
    for damage in [&b"sealEd"[..], b"", b"seale", b"sealed and more"] {
        run(async |dir, vault, path, bytes, digest| {
            std::fs::create_dir_all(file(dir).parent().unwrap()).unwrap();
            std::fs::write(file(dir), damage).unwrap();
            assert!(matches!(
                vault.check(&path, 6, digest).await.unwrap(),
                Copy::Damaged(_)
            ));
            assert!(matches!(
                vault.put(&path, bytes.clone(), digest).await.unwrap(),
                Put::Mended(_)
            ));
            assert_eq!(std::fs::read(file(dir)).unwrap(), &bytes[..]);
            assert_eq!(vault.check(&path, 6, digest).await.unwrap(), Copy::Good);
        });
    }
}

#[test]
fn what_this_process_wrote_is_read_again_once_it_changed() {
    run(async |dir, vault, path, bytes, digest| {
        vault.put(&path, bytes, digest).await.unwrap();
        std::fs::write(file(dir), b"sealEd").unwrap();
        assert!(matches!(
            vault.check(&path, 6, digest).await.unwrap(),
            Copy::Damaged(_)
        ));
        std::fs::remove_file(file(dir)).unwrap();
        assert_eq!(vault.check(&path, 6, digest).await.unwrap(), Copy::Missing);
    });
}

#[test]
fn a_store_that_fails_is_an_error_and_never_good() {
    run(async |dir, vault, path, bytes, digest| {
        // A file stands where a directory must be.
        std::fs::write(dir.path().join("store/recordings"), b"").unwrap();
        let error = vault.put(&path, bytes, digest).await.unwrap_err();
        assert!(error.to_string().contains("cannot write"), "{error}");
    });
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut checked = Checked::default();
    for n in 0..3 * REMEMBERED {
        checked.remember(&Path::from(format!("{n}")), Some(String::new()));
    }
    assert!(checked.newer.len() + checked.older.len() <= 2 * REMEMBERED);
    assert!(
        checked
            .tag(&Path::from(format!("{}", 3 * REMEMBERED - 1)))
            .is_some()
    );
    assert!(checked.tag(&Path::from("0")).is_none());
}
