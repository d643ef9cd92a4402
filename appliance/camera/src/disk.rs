//! Durable files: the few steps on which every promise of the store rests.
//!
//! A name in the store means a whole file: bytes are written under a temporary name, synced, then renamed, and the
//! folder is synced before anyone is told. A failed sync is never retried and never believed: the file is
//! unlinked (the page cache would show it as whole) and the error goes up.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};

/// Suffix of what is not whole yet; removed at the next start.
pub(crate) const TEMPORARY: &str = "tmp";

/// A failed step on a file.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}: {source}", .path.display())]
pub struct DiskError {
    /// The step.
    pub what: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl DiskError {
    /// Whether the disk or a quota is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(
            self.source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }
}

/// Names the step and the file of an error.
pub(crate) fn at<'a>(
    what: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> DiskError + 'a {
    move |source| DiskError {
        what,
        path: path.to_owned(),
        source,
    }
}

/// Writes a new file under its name and syncs it, not the folder: see [`sync_folder`].
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    let temporary = temporary(path);
    let written = write_synced(&temporary, bytes)
        .and_then(|()| fs::rename(&temporary, path).map_err(at("rename", path)));
    if written.is_err() {
        let _ = fs::remove_file(&temporary); // best effort: the start removes what is left
    }
    written
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path).map_err(at("create", path))?;
    reserve(&file, 0, bytes.len() as u64, FallocateFlags::empty())
        .map_err(at("reserve room for", path))?;
    file.write_all(bytes).map_err(at("write", path))?;
    file.sync_data().map_err(at("sync", path))
}

/// Reserves room; file systems that cannot are left to fail when they write.
pub(crate) fn reserve(
    file: &File,
    from: u64,
    length: u64,
    flags: FallocateFlags,
) -> io::Result<()> {
    use nix::errno::Errno;
    let (Ok(from), Ok(length)) = (i64::try_from(from), i64::try_from(length)) else {
        return Err(io::ErrorKind::FileTooLarge.into());
    };
    if length == 0 {
        return Ok(());
    }
    match fallocate(file, flags, from, length) {
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(()),
        other => other.map_err(Into::into),
    }
}

/// The temporary name beside `path`.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(TEMPORARY);
    name.into()
}

/// Replaces a file so that either the old or the new is there after a power cut: durable on return.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    write_whole(path, bytes)?;
    sync_folder(folder_of(path))
}

/// The same for what must go on when the disk is full: gives up the ballast and tries once more.
pub(crate) fn replace_for_sure(path: &Path, bytes: &[u8], ballast: &Path) -> Result<(), DiskError> {
    match replace(path, bytes) {
        Err(error) if error.is_full() => {
            remove(ballast)?;
            replace(path, bytes)
        }
        other => other,
    }
}

/// The folder that a name is in; of a name alone, the one that this process is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(path: &Path) -> Result<(), DiskError> {
    File::open(path)
        .and_then(|f| f.sync_all())
        .map_err(at("sync", path))
}

/// Makes a folder, and its name durable; its being there already is fine.
pub(crate) fn make_folder(path: &Path) -> Result<(), DiskError> {
    match fs::create_dir(path) {
        Ok(()) => sync_folder(folder_of(path)),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(at("make", path)(e)),
    }
}

/// Makes a folder that must not be there yet, and its name durable.
pub(crate) fn make_new_folder(path: &Path) -> Result<(), DiskError> {
    fs::create_dir(path).map_err(at("make", path))?;
    sync_folder(folder_of(path))
}

/// Reads a file of at most `limit` bytes; none where there is none.
pub(crate) fn read_if_there(path: &Path, limit: usize) -> Result<Option<Vec<u8>>, DiskError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(at("open", path)(e)),
    };
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(at("read", path))?;
    if bytes.len() > limit {
        return Err(at("read", path)(io::Error::other(format!(
            "it is longer than {limit} bytes"
        ))));
    }
    Ok(Some(bytes))
}

/// Unlinks a file; its being gone already is fine.
pub(crate) fn remove(path: &Path) -> Result<(), DiskError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(at("unlink", path)(e)),
        _ => Ok(()),
    }
}

/// The entries of a folder: name and length in bytes. Names that are not UTF-8 are none of ours.
pub(crate) fn list(path: &Path) -> Result<Vec<(String, u64)>, DiskError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(at("list", path))? {
        let entry = entry.map_err(at("list", path))?;
        let length = match entry.metadata() {
            Ok(meta) => meta.len(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue, // erased meanwhile
            Err(e) => return Err(at("look at", path)(e)),
        };
        if let Ok(name) = entry.file_name().into_string() {
            found.push((name, length));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_folder_without_a_path_is_made_where_the_process_is() {
        for (path, folder) in [("camera", "."), ("a/camera", "a"), ("/camera", "/")] {
            assert_eq!(folder_of(Path::new(path)), Path::new(folder));
        }
        sync_folder(folder_of(Path::new("camera"))).unwrap();
    }

    #[test]
    fn a_name_means_a_whole_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write_whole(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(read_if_there(&path, 3).unwrap().unwrap(), b"two");
        assert!(read_if_there(&path, 2).is_err());
        assert_eq!(list(folder.path()).unwrap(), [("a".to_owned(), 3)]);
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(read_if_there(&path, 3).unwrap().is_none());
    }

    #[test]
    fn a_write_that_fails_leaves_no_name() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("no").join("a");
        assert!(write_whole(&missing, b"x").is_err());
        assert!(list(folder.path()).unwrap().is_empty());
    }
}
