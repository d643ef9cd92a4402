//! Opens the store that a URL names: a folder, or an S3-compatible bucket.
//!
//! A folder is opened with syncing on, always: `durability` says what the owner vouches for, never what
//! this program may leave out. A folder must exist; only `archive init` makes one.

use std::sync::Arc;

use object_store::local::LocalFileSystem;

use crate::config::{Place, S3};
use crate::folder::Folder;
use crate::s3;
use crate::vault::Vault;

/// A store that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the store {store}: {why}")]
pub struct OpenError {
    store: String,
    why: String,
}

/// Opens a store; `make` a missing folder, or refuse it.
///
/// # Errors
/// [`OpenError`].
pub fn open(place: &Place, settings: &S3, make: bool) -> Result<Vault, OpenError> {
    match place {
        Place::Folder(path) => {
            let refused = |why: String| OpenError {
                store: place.to_string(),
                why,
            };
            if !make && !path.is_dir() {
                return Err(refused("there is no such folder".to_owned()));
            }
            let folder = Folder::open(path).map_err(|e| refused(e.to_string()))?;
            let files = LocalFileSystem::new_with_prefix(folder.root())
                .map_err(|e| refused(e.to_string()))?;
            Ok(Vault::new(Arc::new(files.with_fsync(true)), Some(folder)))
        }
        Place::S3 { bucket, prefix } => {
            let opened = s3::open(bucket, prefix, settings);
            let refused = |why| OpenError {
                store: place.to_string(),
                why,
            };
            Ok(Vault::new(opened.map_err(refused)?, None))
        }
    }
}
