//! sled's files as they have to be before sled opens them. Nothing here knows what is in them.

use std::fs;
use std::path::Path;

use crate::error::{AtPath, SpoolError};
use crate::folder::{Folder, remove};

/// sled takes what it reads for durable, though a process that was killed may have left it in the page cache only: it makes
/// a snapshot that is durable of a log that is not, and after a power cut refuses the log that is shorter. And its
/// settings (`conf`), without which nothing opens, it never syncs.
pub(super) fn sync_its_files(folder: &Folder, path: &Path) -> Result<(), SpoolError> {
    let Ok(entries) = fs::read_dir(path) else {
        return Ok(());
    };
    for entry in entries {
        let entry = entry.at(path)?;
        if entry.file_type().at(path)?.is_file() {
            folder.sync_path(&entry.path())?;
        }
    }
    Ok(())
}

pub(super) fn remove_stale_snapshots(path: &Path) -> Result<(), SpoolError> {
    let Ok(entries) = fs::read_dir(path) else {
        return Ok(());
    };
    for entry in entries {
        let entry = entry.at(path)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            tracing::warn!(file = %entry.path().display(), "an unfinished snapshot of the ledger is removed");
            remove(&entry.path())?;
        }
    }
    Ok(())
}
