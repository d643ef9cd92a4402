//! The mark of a process that is in a part of sled in which sled may end it: opening (it panics on some corruptions) and closing
//! (it syncs its file, and panics where that fails). It lies beside that of a failed sync, for as long as the page cache lives; who
//! finds it rebuilds the ledger.
//!
//! It says nothing of what was synced before: a ledger without it is still compared with its sum.

use std::fs::{self, File};
use std::path::PathBuf;

use super::watch::Watched;
use crate::error::{AtPath, SpoolError};
use crate::folder::{Folder, remove};

/// The mark of one ledger.
#[derive(Debug)]
pub(super) struct Doubt(PathBuf);

impl Doubt {
    pub(super) fn of(folder: &Folder, name: &str) -> Result<Doubt, SpoolError> {
        Ok(Doubt(folder.of_this_boot(&format!("{name}.opening"))?))
    }

    /// Whether a process has left it; it is gone now.
    pub(super) fn was_left(&self) -> Result<bool, SpoolError> {
        let left = self.0.exists();
        remove(&self.0)?;
        Ok(left)
    }

    /// From here on sled may end the process.
    pub(super) fn begin(&self) -> Result<(), SpoolError> {
        File::create(&self.0).map(drop).at(&self.0)
    }

    /// sled has returned.
    pub(super) fn end(&self) -> Result<(), SpoolError> {
        remove(&self.0)
    }

    /// Closes a database; where sled panics, the mark stays.
    pub(super) fn close(&self, db: Watched) {
        if let Err(e) = self.begin() {
            tracing::warn!("the ledger is closed without a mark: {e}");
        }
        drop(db);
        let _ = fs::remove_file(&self.0); // a mark that stays costs a rebuild, nothing else
    }
}
