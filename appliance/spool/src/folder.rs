//! The spool's folder: where each thing lies, and the few ways in which files are made, synced, read again and
//! removed. One process has it at a time.
//!
//! Invariants: the name of a file in `segments`, `manifests` and `refused` begins with the digest of what it
//! holds; directories with changed names are remembered until [`Folder::sync_directories`] has synced them; a
//! sync that fails marks the boot suspect and is never tried again.
//!
//! It decides nothing about custody.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, Flock, FlockArg, fallocate};
use nix::libc;
use protocol::ids::{CameraId, Digest};
use protocol::suite::Hasher;

use crate::error::{AtPath, SpoolError, is_unreadable};
use crate::faults::{Fault, Faults};
use crate::limits;

/// The version of everything on disk that this release writes once its image is blessed, and the newest that it reads. The image's
/// suite tries the rule with a release of which this number is the next one (`os-image/suite/next-release`).
pub(crate) const FORMAT: u32 = 1;
/// What it writes into a new spool before: the format of the release before, which the station may go back to.
pub(crate) const PREVIOUS: u32 = previous(FORMAT);
/// The oldest that it reads. A station may take two releases in a row, or miss one: the format that it has is then older than
/// the previous one.
const OLDEST: u32 = 1;
const MARKER: &str = "spool.suspect";

/// The folders below the spool's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// The spool's own folder.
    Root,
    /// Segments and headers.
    Segments,
    /// Manifests.
    Manifests,
    /// The newest inventory of each camera.
    Inventories,
    /// Copies set aside.
    Refused,
}

/// The folder, locked for this process.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
    suspect_dir: PathBuf,
    pub(crate) faults: Faults,
    unsynced: BTreeSet<Place>,
    lock: Flock<File>,
}

impl Folder {
    /// Opens the folder, making what is missing, unless a newer release wrote it.
    pub(crate) fn open(
        root: &Path,
        suspect_dir: &Path,
        faults: Faults,
    ) -> Result<Folder, SpoolError> {
        check_format(root)?;
        fs::create_dir_all(root).at(root)?;
        let lock_path = root.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .at(&lock_path)?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|_| SpoolError::InUse(root.to_owned()))?;
        let unsynced = BTreeSet::new();
        let mut folder = Folder {
            root: root.to_owned(),
            suspect_dir: suspect_dir.to_owned(),
            faults,
            unsynced,
            lock,
        };
        // What a process that was killed wrote may be in the page cache only: it counts once the disk has it.
        if !folder.faults.has(Fault::NoSyncAtStart) {
            nix::unistd::syncfs(&*folder.lock).map_err(|e| folder.suspect("start", e.into()))?;
        }
        for place in [
            Place::Segments,
            Place::Manifests,
            Place::Inventories,
            Place::Refused,
        ] {
            let path = folder.place(place);
            if !path.is_dir() {
                fs::create_dir(&path).at(&path)?;
                folder.unsynced.insert(Place::Root);
            }
        }
        let format = folder.path("FORMAT");
        if !format.exists() {
            folder.write_durably("FORMAT", marked(PREVIOUS).as_bytes())?;
        }
        folder.sync_directories()?;
        Ok(folder)
    }

    /// Takes the spool from an older format to this release's, once; the number it had. From here on a release of before
    /// leaves it alone, so that it is for who knows that this one stays.
    pub(crate) fn raise_format(&mut self) -> Result<Option<u32>, SpoolError> {
        let found = check_format(&self.root)?.unwrap_or(PREVIOUS);
        if found == FORMAT {
            return Ok(None);
        }
        self.write_durably("FORMAT", marked(FORMAT).as_bytes())?;
        Ok(Some(found))
    }

    /// Locks a folder that is there, and makes nothing.
    pub(crate) fn look(root: &Path, suspect_dir: &Path) -> Result<Folder, SpoolError> {
        check_format(root)?;
        let lock_path = root.join("lock");
        let lock = File::open(&lock_path).at(&lock_path)?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|_| SpoolError::InUse(root.to_owned()))?;
        Ok(Folder {
            root: root.to_owned(),
            suspect_dir: suspect_dir.to_owned(),
            faults: Faults::none(),
            unsynced: BTreeSet::new(),
            lock,
        })
    }

    /// Where the marks lie that live as long as the boot.
    pub(crate) fn suspect_dir(&self) -> &Path {
        &self.suspect_dir
    }

    /// A path directly below the spool's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
    /// The path of a folder.
    pub(crate) fn place(&self, place: Place) -> PathBuf {
        match place {
            Place::Root => self.root.clone(),
            Place::Segments => self.root.join("segments"),
            Place::Manifests => self.root.join("manifests"),
            Place::Inventories => self.root.join("inventories"),
            Place::Refused => self.root.join("refused"),
        }
    }
    /// The file of a segment or header.
    pub(crate) fn segment(&self, digest: &Digest) -> PathBuf {
        self.root.join("segments").join(digest.to_string())
    }
    /// The file of a manifest.
    pub(crate) fn manifest(&self, digest: &Digest) -> PathBuf {
        self.root.join("manifests").join(digest.to_string())
    }
    /// The file of a camera's newest inventory.
    pub(crate) fn inventory(&self, camera: &CameraId) -> PathBuf {
        self.root
            .join("inventories")
            .join(format!("{}~{}", camera.serial, camera.incarnation))
    }

    /// Remembers that a directory's names changed.
    pub(crate) fn changed(&mut self, place: Place) {
        self.unsynced.insert(place);
    }

    /// Syncs every directory whose names changed.
    pub(crate) fn sync_directories(&mut self) -> Result<(), SpoolError> {
        for place in std::mem::take(&mut self.unsynced) {
            if !self.faults.has(Fault::NoDirectorySync) {
                self.sync_path(&self.place(place))?;
            }
        }
        Ok(())
    }

    /// Syncs a file or directory by its path.
    pub(crate) fn sync_path(&self, path: &Path) -> Result<(), SpoolError> {
        let file = File::open(path).at(path)?;
        file.sync_all()
            .map_err(|source| self.suspect(&path.display().to_string(), source))
    }

    /// The error of a failed sync; marks the boot suspect first.
    pub(crate) fn suspect(&self, what: &str, source: io::Error) -> SpoolError {
        let marker = self.suspect_dir.join(MARKER);
        let text = format!("{what}: {source}\n");
        let write = |path: &Path| {
            File::create(path)
                .and_then(|mut f| f.write_all(text.as_bytes()).and_then(|()| f.sync_all()))
        };
        if let Err(e) = fs::create_dir_all(&self.suspect_dir).and_then(|()| write(&marker)) {
            tracing::error!(marker = %marker.display(), "the suspect marker cannot be written ({e}); trying the spool's own folder");
            if let Err(e) = write(&self.path(MARKER)) {
                tracing::error!("nor there ({e}): restart the machine before this program");
            }
        }
        SpoolError::Suspect {
            what: what.to_owned(),
            source,
        }
    }

    /// Where a mark lies that outlives the process, and not the boot.
    pub(crate) fn of_this_boot(&self, name: &str) -> Result<PathBuf, SpoolError> {
        fs::create_dir_all(&self.suspect_dir).at(&self.suspect_dir)?;
        Ok(self.suspect_dir.join(name))
    }

    /// Whether an earlier process marked this boot suspect.
    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect_dir.join(MARKER).exists() || self.path(MARKER).exists()
    }

    /// Takes the mark away, after everything was read again.
    pub(crate) fn clear_suspect(&self) -> Result<(), SpoolError> {
        remove(&self.suspect_dir.join(MARKER))?;
        remove(&self.path(MARKER))
    }

    /// Writes a small file beside its name, and syncs it.
    pub(crate) fn write_beside(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, SpoolError> {
        let tmp = self.path(&format!("{name}.tmp"));
        fs::write(&tmp, bytes).at(&tmp)?;
        self.sync_path(&tmp)?;
        Ok(tmp)
    }

    /// Writes a small file beside its name, syncs it, renames it, and syncs the directory.
    pub(crate) fn write_durably(&mut self, name: &str, bytes: &[u8]) -> Result<(), SpoolError> {
        let (tmp, path) = (self.write_beside(name, bytes)?, self.path(name));
        fs::rename(&tmp, &path).at(&path)?;
        self.changed(Place::Root);
        self.sync_directories()
    }

    /// A new file of a segment, its whole length reserved on the disk. An older one of that name goes.
    pub(crate) fn create_segment(
        &mut self,
        digest: &Digest,
        length: u32,
    ) -> Result<File, SpoolError> {
        let path = self.segment(digest);
        remove(&path)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .at(&path)?;
        self.changed(Place::Segments);
        let reserved = reserve(&file, 0, u64::from(length), false);
        let reserved = if self.faults.has(Fault::NoSpace) {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            reserved
        };
        if let Err(e) = reserved {
            remove(&path)?;
            let no_space = crate::error::is_full(&e);
            return if no_space {
                Err(SpoolError::NoSpace(u64::from(length)))
            } else {
                Err(e).at(&path)
            };
        }
        Ok(file)
    }

    /// Opens a segment's file for reading and writing; none where it is missing, unreadable, or of another length.
    pub(crate) fn open_segment(
        &self,
        digest: &Digest,
        length: u32,
        write: bool,
    ) -> Result<Option<File>, SpoolError> {
        let path = self.segment(digest);
        match OpenOptions::new().read(true).write(write).open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound || is_unreadable(&e) => Ok(None),
            Err(e) => Err(e).at(&path),
            Ok(file) => {
                let found = file.metadata().at(&path)?.len();
                Ok((found == u64::from(length)).then_some(file))
            }
        }
    }

    /// Removes a segment's file; gone already is well.
    pub(crate) fn unlink_segment(&mut self, digest: &Digest) -> Result<(), SpoolError> {
        remove(&self.segment(digest))?;
        self.changed(Place::Segments);
        Ok(())
    }

    /// Moves a copy that is not what its name says to `refused`, where the oldest go first beyond `room_bytes`.
    pub(crate) fn set_aside(&mut self, digest: &Digest, room_bytes: u64) -> Result<(), SpoolError> {
        let from = self.segment(digest);
        let place = self.place(Place::Refused);
        let mut kept = Vec::new();
        for entry in fs::read_dir(&place).at(&place)? {
            let entry = entry.at(&place)?;
            let meta = entry.metadata().at(&entry.path())?;
            kept.push((meta.modified().at(&entry.path())?, meta.len(), entry.path()));
        }
        kept.sort();
        let length = fs::metadata(&from).map_or(0, |m| m.len());
        let mut bytes: u64 = kept.iter().map(|k| k.1).sum::<u64>().saturating_add(length);
        for (_, length, path) in &kept {
            if bytes <= room_bytes {
                break;
            }
            remove(path)?;
            bytes -= length;
        }
        if bytes > room_bytes {
            remove(&from)?;
        } else {
            // Only the latest copy of one digest is kept.
            match fs::rename(&from, place.join(digest.to_string())) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e).at(&from),
                _ => {}
            }
        }
        self.changed(Place::Segments);
        self.changed(Place::Refused);
        Ok(())
    }

    /// SHA-256 of a whole file, read from the disk and not from memory where the file system can do that.
    pub(crate) fn digest_on_disk(&self, path: &Path) -> Result<Digest, SpoolError> {
        let direct = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(path);
        match direct.and_then(hash_reader) {
            Ok(digest) => Ok(digest),
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                File::open(path).and_then(hash_reader).at(path)
            }
            Err(e) => Err(e).at(path),
        }
    }

    /// Copies a file as the disk has it, and not as memory does, where the file system can tell.
    pub(crate) fn copy_from_disk(&self, from: &Path, to: &Path) -> Result<(), SpoolError> {
        let direct = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(from);
        let copy = |file: File| {
            let mut out = File::create(to)?;
            read_aligned(file, |bytes| out.write_all(bytes))
        };
        match direct.and_then(copy) {
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                File::open(from).and_then(copy).at(from)
            }
            other => other.at(from),
        }
    }

    /// Bytes that any program may still write to this file system.
    pub(crate) fn free_on_disk(&self) -> u64 {
        nix::sys::statvfs::statvfs(&self.root).map_or(0, |s| {
            s.blocks_available().saturating_mul(s.fragment_size())
        })
    }
}

/// Reserves blocks for a range; `keep_size` leaves the file's length as it is.
pub(crate) fn reserve(file: &File, offset: u64, length: u64, keep_size: bool) -> io::Result<()> {
    let flags = if keep_size {
        FallocateFlags::FALLOC_FL_KEEP_SIZE
    } else {
        FallocateFlags::empty()
    };
    let to = |n: u64| i64::try_from(n).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    match fallocate(file, flags, to(offset)?, to(length)?) {
        // A file system without fallocate: the length is set, and a full disk is met while writing.
        Err(nix::errno::Errno::EOPNOTSUPP) if keep_size => Ok(()),
        Err(nix::errno::Errno::EOPNOTSUPP) => file.set_len(offset + length),
        Err(e) => Err(e.into()),
        Ok(()) => Ok(()),
    }
}

/// Removes a file; gone already is well.
pub(crate) fn remove(path: &Path) -> Result<(), SpoolError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).at(path),
        _ => Ok(()),
    }
}

/// Takes the first `length` bytes of `file` into a hash.
pub(crate) fn hash_prefix(file: &File, length: u64) -> io::Result<Hasher> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; limits::READ_BYTES];
    let mut at = 0;
    while at < length {
        let want = usize::try_from(length - at)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        file.read_exact_at(&mut buffer[..want], at)?;
        hasher.update(&buffer[..want]);
        at += want as u64;
    }
    Ok(hasher)
}

fn hash_reader(file: File) -> io::Result<Digest> {
    let mut hasher = Hasher::new();
    read_aligned(file, |bytes| {
        hasher.update(bytes);
        Ok(())
    })?;
    Ok(hasher.finish())
}

/// Reads a file to its end through a buffer that direct reads accept.
fn read_aligned(mut file: File, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    const ALIGN: usize = 4096;
    let mut buffer = vec![0; limits::READ_BYTES + ALIGN];
    let start = buffer.as_ptr().align_offset(ALIGN).min(ALIGN);
    let aligned = &mut buffer[start..start + limits::READ_BYTES];
    loop {
        match file.read(aligned) {
            Ok(0) => return Ok(()),
            Ok(n) => take(&aligned[..n])?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

const fn previous(format: u32) -> u32 {
    if format > 1 { format - 1 } else { format }
}

fn marked(format: u32) -> String {
    format!("bwc-spool {format}\n")
}

/// The spool's format, if it says one.
fn check_format(root: &Path) -> Result<Option<u32>, SpoolError> {
    let path = root.join("FORMAT");
    let text = match fs::read_to_string(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.at(&path)?,
    };
    match text
        .trim()
        .strip_prefix("bwc-spool ")
        .and_then(|n| n.parse::<u32>().ok())
    {
        Some(n) if (OLDEST..=FORMAT).contains(&n) => Ok(Some(n)),
        _ => Err(SpoolError::NewerFormat {
            path,
            found: text.trim().chars().take(80).collect(),
            known: FORMAT,
        }),
    }
}

#[cfg(test)]
mod tests;
