//! The barrier, and the only maker of [`Durable`]. In order:
//!
//! 1. the bytes of whole segments and of interrupted prefixes, and the small files, are synced;
//! 2. small files get their names; directories whose names changed are synced;
//! 3. the books move: bytes become Held, receipts weigh, cameras' releases count;
//! 4. receipts, notes and the list of changes go to the logbook, which is synced;
//! 5. the rows go to the ledger, which is flushed and synced;
//! 6. only then tokens are made.
//!
//! A segment whose sync fails is set aside and pulled again: nothing was promised of it. Any other sync that
//! fails marks the boot suspect and ends the process. A full disk in step 4 or 5 loses nothing: the same
//! steps are done again by the next commit, and until then nothing new is given out.

use std::fs;
use std::io;

use protocol::custody::Stage;
use protocol::ids::{Digest, RecordingId, Time};

use crate::error::{AtPath, SpoolError, is_full};
use crate::faults::Fault;
use crate::folder::{Folder, Place, remove, reserve};
use crate::ledger::Mark;
use crate::ledger::renew::Due;
use crate::limits;
use crate::logbook::Entry;
use crate::spool::Spool;

/// The proof that a segment's stage is durable here. Only a commit makes it; only with it may a peer be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durable {
    digest: Digest,
    recording: RecordingId,
    seq: Option<u64>,
    length: u32,
    stage: Stage,
}

impl Durable {
    /// The segment or header.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }
    /// Its recording.
    #[must_use]
    pub fn recording(&self) -> &RecordingId {
        &self.recording
    }
    /// None: the header.
    #[must_use]
    pub fn seq(&self) -> Option<u64> {
        self.seq
    }
    /// Its length in bytes.
    #[must_use]
    pub fn length(&self) -> u32 {
        self.length
    }
    /// The stage that is durable.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.stage
    }
}

/// What a commit made durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Now Held.
    pub held: Vec<Durable>,
    /// Now Archived.
    pub archived: Vec<Durable>,
    /// Now Released.
    pub released: Vec<Durable>,
    /// Could not be synced: set aside, to be pulled again.
    pub again: Vec<Digest>,
}

/// What waits for a commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// Bytes written and not synced.
    pub bytes: u64,
    /// Files, receipts, releases, notes and rows, and what is durable and not yet told.
    pub changes: usize,
}

impl Spool {
    /// What waits for a commit.
    #[must_use]
    pub fn pending(&self) -> Pending {
        let g = &self.group;
        let told = g.whole.len()
            + g.prefixes.len()
            + g.files.len()
            + g.renames.len()
            + g.receipts.len()
            + g.released.len();
        Pending {
            bytes: g.bytes,
            changes: told + g.notes.len() + self.untold.len() + self.books.ledger.staged(),
        }
    }
    /// Whether so much waits that it is time, also while more comes.
    #[must_use]
    pub fn commit_is_due(&self) -> bool {
        let (p, g) = (self.pending(), &self.group);
        let files = g.whole.len() + g.prefixes.len() + g.files.len() + g.renames.len();
        files >= limits::COMMIT_FILES
            || p.bytes >= limits::COMMIT_BYTES
            || p.changes >= limits::COMMIT_CHANGES
    }

    /// Makes everything told so far durable. What a reclaim or a key list made durable in between is told here, too.
    ///
    /// # Errors
    /// [`SpoolError`]; see [`SpoolError::reaction`].
    pub fn commit(&mut self, now: Time) -> Result<Committed, SpoolError> {
        if self.folder.faults.has(Fault::HeldBeforeBarrier)
            || self.folder.faults.has(Fault::RowBeforeBytes)
        {
            return self.faulty_commit(now);
        }
        self.barrier(now)?;
        let committed = self.tokens()?;
        self.renew_ledger()?;
        self.forget_what_is_over()?;
        Ok(committed)
    }

    /// Goes on writing the ledger anew, where that is due: a little with each commit.
    fn renew_ledger(&mut self) -> Result<(), SpoolError> {
        let counts = &self.books.totals.counts;
        let segments = Stage::ALL.into_iter().map(|s| counts.stage(s).segments);
        let due = Due {
            least_bytes: self.ledger_bytes,
            segments: segments.sum(),
        };
        self.books.ledger.renew(&mut self.folder, due)
    }

    /// Steps 1 to 5: what became durable is told by the next commit.
    pub(crate) fn barrier(&mut self, now: Time) -> Result<(), SpoolError> {
        self.unsettled = true;
        self.sync_files(now)?;
        self.move_books(now)?;
        self.done("commit 3");
        self.settle(now)
    }

    /// A commit with a seeded fault; programs have none.
    fn faulty_commit(&mut self, now: Time) -> Result<Committed, SpoolError> {
        let whole: Vec<_> = self
            .group
            .whole
            .iter()
            .map(|(d, f)| f.try_clone().map(|f| (*d, f)))
            .collect::<io::Result<_>>()
            .at(&self.folder.path("segments"))?;
        let early = self.folder.faults.has(Fault::HeldBeforeBarrier);
        if early {
            self.settle(now)?; // of the group before: one commit late
        }
        self.move_books(now)?;
        if early {
            self.untold
                .extend(self.books.changes.iter().map(|(digest, _)| *digest));
            return self.tokens();
        }
        self.settle(now)?;
        whole.iter().for_each(|(_, file)| drop(file.sync_data()));
        self.tokens()
    }

    /// Steps 1 and 2.
    pub(crate) fn sync_files(&mut self, now: Time) -> Result<(), SpoolError> {
        let mut failed = Vec::new();
        let fault = self.folder.faults.has(Fault::SegmentSyncFails);
        let fails = |file: &fs::File| {
            if fault {
                Err(io::Error::from_raw_os_error(nix::libc::EIO))
            } else {
                file.sync_data()
            }
        };
        self.group
            .whole
            .retain(|(digest, file)| fails(file).map_err(|e| failed.push((*digest, e))).is_ok());
        self.group
            .prefixes
            .retain(|(digest, file, _)| fails(file).map_err(|e| failed.push((*digest, e))).is_ok());
        for (digest, error) in failed {
            self.drop_unsynced(&digest, &error, now)?;
        }
        let Spool { folder, group, .. } = self;
        for path in &group.files {
            folder.sync_path(path)?;
        }
        group.files.clear();
        self.done("commit 1");
        let Spool { folder, group, .. } = self;
        for (from, to) in &group.renames {
            if from.exists() {
                folder.sync_path(from)?;
                fs::rename(from, to).at(to)?;
            }
        }
        group.renames.clear();
        folder.sync_directories()?;
        self.done("commit 2");
        Ok(())
    }

    /// A step of the essay is done, by what is not the start.
    pub(crate) fn done(&self, step: &'static str) {
        if self.started {
            self.folder.faults.done(step);
        }
    }

    /// A file whose sync failed is lost, whatever the page cache shows.
    fn drop_unsynced(
        &mut self,
        digest: &Digest,
        error: &io::Error,
        now: Time,
    ) -> Result<(), SpoolError> {
        self.busy.remove(digest);
        self.partials.remove(digest);
        self.folder
            .set_aside(digest, self.capacity_bytes / limits::REFUSED_SHARE)?;
        if let Some(row) = self.books.segment(digest)? {
            let mut rec = self.books.recording_of(&row)?;
            self.books.change(digest, &mut rec, |row| {
                row.here = false;
                row.prefix = 0;
            })?;
            self.books.save(&rec);
        }
        self.again.push(*digest);
        self.raise(
            "sync_failed",
            &digest.to_string(),
            &format!("its file could not be synced: {error}"),
            now,
        );
        Ok(())
    }

    /// Steps 4 and 5: logbook, then ledger.
    pub(crate) fn settle(&mut self, now: Time) -> Result<(), SpoolError> {
        self.stage_notes(now);
        self.stage_changes(now)?;
        if let Err(e) = self.books.logbook.sync(&self.folder) {
            self.starved |= matches!(&e, SpoolError::Io { source, .. } if is_full(source));
            return Err(e);
        }
        self.done("commit 4");
        self.sync_ledger()?;
        self.done("commit 5");
        self.unlink_forgotten()?;
        // Room for the entries and receipts of what is now live; if there is none, nothing new is pulled.
        self.starved |= !self.books.logbook.reserve(self.books.totals.files)?;
        if let Some((from, to)) = self.group.follows.take() {
            fs::rename(&from, &to).at(&to)?;
            self.folder.changed(Place::Root);
            self.folder.sync_directories()?;
        }
        self.lost.clear();
        self.unsettled = false;
        Ok(())
    }

    /// Stages the custody changes as logbook entries.
    pub(crate) fn stage_changes(&mut self, now: Time) -> Result<(), SpoolError> {
        let changes = std::mem::take(&mut self.books.changes);
        for part in changes.chunks(limits::LOGBOOK_CHANGES) {
            let mut bytes = 0;
            for (digest, _) in part.iter().filter(|(_, s)| *s == Stage::Held) {
                bytes += self
                    .books
                    .segment(digest)?
                    .map_or(0, |r| u64::from(r.length));
            }
            self.books.logbook.stage(
                &Entry::Custody {
                    bytes,
                    changes: part.to_vec(),
                },
                now,
            );
        }
        self.untold
            .extend(changes.into_iter().map(|(digest, _)| digest));
        Ok(())
    }

    fn sync_ledger(&mut self) -> Result<(), SpoolError> {
        let mark = Mark {
            incarnation: self.books.logbook.incarnation(),
            position: self.books.logbook.end(),
        };
        self.books.ledger.scrub = Some(self.scrub);
        match self.books.ledger.sync(&self.folder, mark) {
            Err(SpoolError::Ledger(sled::Error::Io(e))) if is_full(&e) => {
                tracing::warn!("the disk is full: the ballast is given up for the ledger");
                self.starved = true;
                remove(&self.folder.path("ballast"))?;
                self.books.ledger.reopen(&self.folder)?;
                self.books.ledger.sync(&self.folder, mark)
            }
            other => other,
        }
    }

    /// Step 6.
    fn tokens(&mut self) -> Result<Committed, SpoolError> {
        let mut committed = Committed {
            again: std::mem::take(&mut self.again),
            ..Committed::default()
        };
        let mut told = std::collections::HashSet::new();
        for digest in std::mem::take(&mut self.untold).into_iter().rev() {
            let Some(row) = self.books.segment(&digest)?.filter(|_| told.insert(digest)) else {
                continue;
            };
            let list = match row.stage() {
                Stage::Held => &mut committed.held,
                Stage::Archived => &mut committed.archived,
                Stage::Released => &mut committed.released,
                Stage::Announced | Stage::Refused => continue,
            };
            let recording = RecordingId {
                camera: self.books.camera(row.camera)?.id,
                number: row.number,
            };
            list.push(Durable {
                digest,
                recording,
                seq: row.seq,
                length: row.length,
                stage: row.stage(),
            });
        }
        for list in [
            &mut committed.held,
            &mut committed.archived,
            &mut committed.released,
        ] {
            list.reverse();
        }
        Ok(committed)
    }
}

/// Keeps some room that the ledger may use when the disk is full; false where there is none to keep.
pub(crate) fn keep_ballast(folder: &Folder, capacity_bytes: u64) -> Result<bool, SpoolError> {
    let path = folder.path("ballast");
    if path.exists() {
        return Ok(true);
    }
    let file = fs::File::create(&path).at(&path)?;
    match reserve(
        &file,
        0,
        limits::BALLAST_BYTES.min(capacity_bytes / 64),
        false,
    ) {
        Err(e) if is_full(&e) => remove(&path).map(|()| false),
        other => other.map(|()| true).at(&path),
    }
}
