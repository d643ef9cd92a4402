//! Writes the ledger anew beside itself while it is used, and takes the fresh one in its place. The engine's log holds
//! what rows were as well as what they are, and gives little of that room back: a fresh one holds the rows alone.
//!
//! Rows are copied in the order of their keys, some with each commit; of what a commit changes, what lies behind the copy is
//! changed in both. When all are there, both say the same: the fresh one is synced, the two exchange their names in one step
//! of the file system, and the folder is synced before anything else is. A power cut before or after that finds a whole
//! ledger under the name; what is left under the other is removed at the next start. Nobody waits for the old one's end: a
//! thread of its own closes it and removes its files.
//!
//! A fresh ledger that cannot be made is given up, and the old one goes on: this is about room, never about what is kept.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::files::sync_its_files;
use super::watch::Watched;
use super::{Ledger, share};
use crate::early_writeback::{self, WHOLE_FILE};
use crate::error::{AtPath, SpoolError, is_full};
use crate::folder::{Folder, Place};
use crate::limits;
use crate::rows::{Key, tag};

/// The name beside the ledger's own.
pub(crate) const NEXT: &str = "ledger.next";

/// A fresh ledger in the making.
pub(super) struct Fresh {
    pub(super) db: Watched,
    file: File,
    /// The engine has its files by this descriptor: a name would be another's after the exchange.
    dir: File,
    /// All rows up to this one are in it.
    pub(super) copied: Key,
    /// The sum over them.
    pub(super) sum: u128,
}

/// What the ledger knows of its renewals.
#[derive(Default)]
pub(super) struct Renewals {
    pub(super) fresh: Option<Fresh>,
    /// The open ledger's folder, where it was opened by it.
    dir: Option<File>,
    /// The old one being closed.
    closing: Option<JoinHandle<()>>,
    /// What came of the last one.
    pub(super) last: Size,
    /// Segments that had rows when it was last asked whether one is due.
    segments: u64,
    /// This file system cannot.
    never: bool,
}

/// From which size on the ledger is written anew.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Due {
    /// Bytes that are not worth it; 0: always.
    pub(crate) least_bytes: u64,
    /// Segments that have rows.
    pub(crate) segments: u64,
}

/// A ledger right after it was written anew, or where that was given up.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Size {
    pub(super) bytes: u64,
    /// Segments that had rows.
    pub(super) segments: u64,
}

impl Due {
    /// Whether a ledger of so many bytes is, where `last` is what came of the last renewal.
    pub(super) fn is(self, bytes: u64, last: Size) -> bool {
        let part = |whole: u64| whole / limits::RENEW_GAIN;
        let rows = self.segments.saturating_mul(limits::LEDGER_SEGMENT_BYTES);
        let mut fresh = rows.saturating_add(limits::LEDGER_ENGINE_BYTES);
        // Where rows are larger than they usually are, what the last one came to is the best there is, until there are fewer.
        if self.segments >= last.segments - part(last.segments) {
            fresh = fresh.max(last.bytes);
        }
        let worth = fresh.saturating_add(part(fresh));
        self.least_bytes == 0 || (bytes > self.least_bytes && bytes > worth)
    }
}

impl Ledger {
    /// Goes on with the fresh ledger, or begins one where it is due. Called with nothing staged.
    pub(crate) fn renew(&mut self, folder: &mut Folder, due: Due) -> Result<(), SpoolError> {
        if self.renewals.never || !self.staged.is_empty() || self.is_closing() {
            return Ok(());
        }
        let bytes = self.disk_bytes();
        self.renewals.segments = due.segments;
        if self.renewals.fresh.is_none() {
            let room = folder.free_on_disk() > 2 * bytes;
            if !room || !due.is(bytes, self.renewals.last) {
                return Ok(());
            }
            match begin(folder) {
                Ok(fresh) => self.renewals.fresh = Some(fresh),
                Err(e) => {
                    self.give_up(folder, &e);
                    return Ok(());
                }
            }
        }
        match self.copy() {
            Ok(false) => Ok(()),
            Ok(true) => self.finish(folder, bytes),
            Err(e) => {
                self.give_up(folder, &e);
                Ok(())
            }
        }
    }

    /// The fresh one has what a commit changed of the rows that were copied.
    pub(super) fn follow(&mut self, folder: &Folder, behind: sled::Batch, moved: u128) {
        let Some(fresh) = self.renewals.fresh.as_mut() else {
            return;
        };
        match fresh.db.db().apply_batch(behind) {
            Ok(()) => fresh.sum = fresh.sum.wrapping_add(moved),
            Err(e) => self.give_up(folder, &e.into()),
        }
    }

    fn is_closing(&mut self) -> bool {
        if self
            .renewals
            .closing
            .as_ref()
            .is_some_and(JoinHandle::is_finished)
        {
            self.renewals.join();
        }
        self.renewals.closing.is_some()
    }

    /// Copies some rows; true when all are there.
    fn copy(&mut self) -> Result<bool, SpoolError> {
        let Some(fresh) = self.renewals.fresh.as_mut() else {
            return Ok(false);
        };
        let db = self.db.as_ref().map(Watched::db).ok_or_else(closed)?;
        let mut batch = sled::Batch::default();
        let mut rows = 0;
        // The first key behind it: no key is empty.
        let mut from = fresh.copied.clone();
        from.push(0);
        for item in db.range(from..).take(limits::RENEW_ROWS) {
            let (k, v) = item?;
            if k.first() != Some(&tag::META) {
                fresh.sum = fresh.sum.wrapping_add(share(&k, &v));
            }
            batch.insert(&k, &v);
            fresh.copied = k.to_vec();
            rows += 1;
        }
        fresh.db.db().apply_batch(batch)?;
        // So that the one commit that ends this finds less of it left to write.
        early_writeback::start(&fresh.file, 0, WHOLE_FILE);
        Ok(rows < limits::RENEW_ROWS)
    }

    /// Makes it durable, and lets it take the ledger's place.
    fn finish(&mut self, folder: &mut Folder, bytes: u64) -> Result<(), SpoolError> {
        let Some(fresh) = self.renewals.fresh.take() else {
            return Ok(());
        };
        if fresh.sum != self.sum {
            let what = "the fresh ledger's rows are not the ledger's".to_owned();
            self.renewals.fresh = Some(fresh);
            self.give_up(folder, &SpoolError::Contradiction(what));
            return Ok(());
        }
        if let Err(e) = fresh.db.flush() {
            self.renewals.fresh = Some(fresh);
            self.give_up(folder, &e.into());
            return Ok(());
        }
        let path = folder.path(NEXT);
        fresh
            .file
            .sync_data()
            .map_err(|e| folder.suspect("ledger", e))?;
        sync_its_files(folder, &path)?;
        folder.sync_path(&path)?;
        if let Err(e) = renameat2(
            AT_FDCWD,
            &path,
            AT_FDCWD,
            &self.path,
            RenameFlags::RENAME_EXCHANGE,
        ) {
            self.renewals.never = matches!(e, Errno::EINVAL | Errno::ENOSYS | Errno::EPERM);
            self.renewals.fresh = Some(fresh);
            let source = std::io::Error::from(e);
            self.give_up(folder, &SpoolError::Io { path, source });
            return Ok(());
        }
        folder.changed(Place::Root);
        folder.sync_directories()?;
        let Fresh { db, file, dir, .. } = fresh;
        let old = (self.db.replace(db), self.renewals.dir.replace(dir));
        self.file = file;
        self.renewals.last = self.size();
        tracing::info!(
            before = bytes,
            after = self.renewals.last.bytes,
            "the ledger is written anew"
        );
        self.renewals.close(old, path);
        Ok(())
    }

    fn size(&self) -> Size {
        Size {
            bytes: self.disk_bytes(),
            segments: self.renewals.segments,
        }
    }

    /// The old one goes on.
    fn give_up(&mut self, folder: &Folder, error: &SpoolError) {
        if let SpoolError::Io { source, .. } = error
            && !is_full(source)
            && !self.renewals.never
        {
            // Whatever it was, a later try is not likely to fare better soon.
            self.renewals.last = self.size();
        }
        tracing::warn!("the ledger is not written anew, and goes on as it is: {error}");
        if let Some(Fresh { db, dir, .. }) = self.renewals.fresh.take() {
            self.renewals
                .close((Some(db), Some(dir)), folder.path(NEXT));
        }
    }
}

impl Renewals {
    fn close(&mut self, old: (Option<Watched>, Option<File>), path: PathBuf) {
        let closing = std::thread::Builder::new()
            .name("ledger-close".into())
            .spawn(move || {
                let (db, dir) = old;
                drop(db);
                drop(dir);
                let _ = fs::remove_dir_all(path); // what is left, the next start removes
            });
        self.closing = closing.ok();
    }

    fn join(&mut self) {
        let _ = self.closing.take().map(JoinHandle::join);
    }

    /// The ledger is closed.
    pub(super) fn end(&mut self) {
        drop(self.fresh.take());
        self.join();
    }
}

fn begin(folder: &Folder) -> Result<Fresh, SpoolError> {
    let path = folder.path(NEXT);
    remove(folder)?;
    fs::create_dir(&path).at(&path)?;
    let dir = File::open(&path).at(&path)?;
    let lasting = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    let (db, file) = Ledger::open_db(folder, &lasting)?;
    let (copied, sum) = (Key::new(), 0);
    Ok(Fresh {
        db,
        file,
        dir,
        copied,
        sum,
    })
}

/// Removes what a process left that did not come to the end of it.
pub(crate) fn remove(folder: &Folder) -> Result<(), SpoolError> {
    let path = folder.path(NEXT);
    match fs::remove_dir_all(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).at(&path),
        _ => Ok(()),
    }
}

fn closed() -> SpoolError {
    SpoolError::Contradiction("the ledger is closed".into())
}
