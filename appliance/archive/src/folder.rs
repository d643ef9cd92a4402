//! What a folder store needs beside `object_store`: directories that are durable before anything is said of
//! what lies in them, and the sync of an object that somebody else wrote.
//!
//! `object_store` syncs a new file and its directory, and the parents that it made itself. It does not
//! sync parents that another task, or a process that died, has just made; so [`Folder::prepare`] makes and
//! syncs the whole line of directories first, and remembers it. And it answers `AlreadyExists` without ever
//! syncing what is there; so [`Folder::sync`] does.
//!
//! All functions block: callers run them on the blocking pool.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Mutex, PoisonError};

use object_store::path::Path;

/// Directories remembered as durable; forgotten all at once above this.
const REMEMBERED: usize = 65_536;

/// A folder that is a store.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    durable: Mutex<HashSet<PathBuf>>,
}

impl Folder {
    /// Takes a folder, making it (and its missing parents) durable.
    ///
    /// # Errors
    /// What the operating system answers.
    pub fn open(root: &FilePath) -> io::Result<Folder> {
        fs::create_dir_all(root)?;
        let root = root.canonicalize()?;
        for directory in root.ancestors() {
            sync_directory(directory)?;
        }
        Ok(Folder {
            root,
            durable: Mutex::default(),
        })
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &FilePath {
        &self.root
    }

    /// Makes the directories of `key` and makes them durable, once.
    ///
    /// # Errors
    /// What the operating system answers.
    pub fn prepare(&self, key: &Path) -> io::Result<()> {
        let file = self.file(key);
        let directory = file.parent().unwrap_or(&self.root);
        if self.remembered().contains(directory) {
            return Ok(());
        }
        fs::create_dir_all(directory)?;
        self.sync_line(directory)?;
        let mut durable = self.remembered();
        if durable.len() >= REMEMBERED {
            durable.clear();
        }
        durable.insert(directory.to_owned());
        Ok(())
    }

    /// Syncs the object of `key`, its directory, and all directories above it within the store.
    ///
    /// # Errors
    /// What the operating system answers.
    pub fn sync(&self, key: &Path) -> io::Result<()> {
        let file = self.file(key);
        File::open(&file)?.sync_all()?;
        self.sync_line(file.parent().unwrap_or(&self.root))
    }

    fn file(&self, key: &Path) -> PathBuf {
        self.root.join(key.as_ref())
    }

    fn sync_line(&self, directory: &FilePath) -> io::Result<()> {
        for directory in directory
            .ancestors()
            .take_while(|d| d.starts_with(&self.root))
        {
            sync_directory(directory)?;
        }
        Ok(())
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A directory that may not be opened (one above the store that belongs to somebody else) is not this
/// program's to sync.
fn sync_directory(directory: &FilePath) -> io::Result<()> {
    match File::open(directory) {
        Ok(opened) => opened.sync_all(),
        Err(denied) if denied.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        Err(other) => Err(other),
    }
}
