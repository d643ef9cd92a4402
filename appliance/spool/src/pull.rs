//! Pulling: what to ask a camera for next, and the bytes as they come. The space of a whole segment is reserved
//! before it is asked for; chunks go to its file and into its hash, never together in memory.
//!
//! Invariants: nothing is pulled that is whole here, archived, or being pulled; a prefix counts after a restart
//! only as far as a barrier covered it, and within one process as far as it was written; a digest that fails
//! on a resumed segment blames nobody and is pulled once more from 0.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use protocol::custody::{Event, Stage};
use protocol::ids::{CameraId, Digest, RecordingId, Time};
use protocol::manifest::Class;
use protocol::pressure::{self, Gate};
use protocol::suite::Hasher;

use crate::books::{Recording, step};
use crate::early_writeback;
use crate::error::{AtPath, SpoolError, is_unreadable};
use crate::folder::hash_prefix;
use crate::hashing::Running;
use crate::limits;
use crate::rows::{self, tag};
use crate::spool::{Busy, Partial, Skip, Spool};

/// One thing to pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullTask {
    /// What to ask for.
    pub digest: Digest,
    /// Its length in bytes.
    pub length: u32,
    /// Its recording.
    pub recording: RecordingId,
    /// None: the header.
    pub seq: Option<u64>,
    /// The recording's class.
    pub class: Class,
    /// When its recording began.
    pub captured: Time,
    /// Bytes that are here already.
    pub prefix: u32,
    /// Whether a site has answered the offer of its manifest: what it did not sign for then, it wants.
    pub answered: bool,
    /// A header for which whole segments wait behind a shut gate: it passes.
    pub awaited: bool,
}

/// A segment that is being pulled.
pub struct Incoming {
    digest: Digest,
    length: u32,
    resumed: bool,
    offset: u32,
    hash: Running,
    file: File,
    path: PathBuf,
    _alive: Arc<()>,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Incoming({} {}/{})",
            self.digest, self.offset, self.length
        )
    }
}

impl Incoming {
    /// What is being pulled.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }
    /// Bytes that are here: where the camera goes on.
    #[must_use]
    pub fn offset(&self) -> u32 {
        self.offset
    }
    /// Bytes that are still to come.
    #[must_use]
    pub fn remaining(&self) -> u32 {
        self.length - self.offset
    }
    /// Takes the next bytes: into the file, and into the hash, for which they may be kept a while.
    ///
    /// # Errors
    /// [`SpoolError::TooMany`] beyond the announced length; [`SpoolError::Io`]; [`SpoolError::Hashing`].
    pub fn write_bytes(&mut self, bytes: Bytes) -> Result<(), SpoolError> {
        let count = u32::try_from(bytes.len())
            .ok()
            .filter(|n| *n <= self.remaining());
        let count = count.ok_or(SpoolError::TooMany(self.digest))?;
        self.file
            .write_all_at(&bytes, self.offset.into())
            .at(&self.path)?;
        early_writeback::start(&self.file, self.offset.into(), count.into());
        self.offset += count;
        self.hash.take(bytes)
    }
    /// As [`Incoming::write_bytes`], for bytes that are not the caller's to keep: they are copied.
    ///
    /// # Errors
    /// As there.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        self.write_bytes(Bytes::copy_from_slice(bytes))
    }
}

/// What became of a segment that was pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// All bytes are here and match; Held at the next commit.
    Verified,
    /// A resumed one did not match: dropped, to be pulled once more from 0.
    PullAgain,
    /// Pulled from 0 and wrong: set aside, to be tried again at that time.
    Refused {
        /// The next try.
        retry: Time,
    },
    /// Bytes are missing: kept as by [`Spool::suspend`].
    Incomplete,
}

/// A look through the queue of a camera.
struct Look<'a> {
    spool: &'a Spool,
    skip: &'a Skip,
    limit: usize,
    tasks: Vec<PullTask>,
    /// The manifest that was read last, and whether a site has answered its offer.
    answered_of: Option<(Digest, bool)>,
    /// The recording that was read last.
    recording_of: Option<Recording>,
}

impl Look<'_> {
    /// Takes what a key of the queue names, if it is to be pulled and, where asked so, `awaited`. False: it is enough.
    fn consider(
        &mut self,
        key: &[u8],
        camera: &CameraId,
        awaited: bool,
    ) -> Result<bool, SpoolError> {
        if self.tasks.len() >= self.limit {
            return Ok(false);
        }
        let Some(digest) = rows::digest_at_end(key) else {
            return Ok(true);
        };
        let (spool, books) = (self.spool, &self.spool.books);
        let taken = self.tasks.iter().any(|t| t.awaited && t.digest == digest);
        if taken
            || self.skip.contains(&digest)
            || spool.is_busy(&digest)
            || spool.is_beside(&digest)
        {
            return Ok(true);
        }
        let Some(row) = books.segment(&digest)? else {
            return Ok(true);
        };
        // Neighbours in the queue are mostly of one recording, and of one manifest.
        let known = (self.recording_of.take())
            .filter(|rec| (rec.camera, rec.number) == (row.camera, row.number));
        let rec = match known {
            Some(rec) => rec,
            None => books.recording_of(&row)?,
        };
        let rec = self.recording_of.insert(rec);
        if awaited && !books.waits_for_header(rec)? {
            return Ok(true);
        }
        let answered = match self.answered_of {
            Some((manifest, answered)) if manifest == row.manifest => answered,
            _ => {
                let manifest = books.manifest(&row.manifest)?;
                manifest.is_some_and(|m| !m.answered.is_empty())
            }
        };
        self.answered_of = Some((row.manifest, answered));
        self.tasks.push(PullTask {
            digest,
            length: row.length,
            recording: RecordingId {
                camera: camera.clone(),
                number: row.number,
            },
            seq: row.seq,
            class: rec.row.class,
            captured: rec.row.captured,
            prefix: (spool.partials.get(&digest)).map_or(row.prefix, |p| p.offset),
            answered,
            awaited,
        });
        Ok(true)
    }
}

impl Spool {
    /// What to pull from a camera next, in order: header before its segments, urgent first, then oldest; what
    /// was refused or reclaimed early last. What is being pulled is passed over, and what is in `skip`. While the
    /// gate is shut, headers for which whole segments wait come before all: those cannot leave without, and the
    /// gate might never open.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn next_pulls(
        &mut self,
        camera: &CameraId,
        limit: usize,
        skip: &Skip,
        now: Time,
    ) -> Result<Vec<PullTask>, SpoolError> {
        self.retry_refused_segments(now)?;
        let Some(number) = self.books.names.camera(camera) else {
            return Ok(Vec::new());
        };
        let queue = rows::key(tag::PULL, &[&number.to_be_bytes()]);
        let queue = || self.books.ledger.scan(&queue, None);
        let mut look = Look {
            spool: self,
            skip,
            limit,
            tasks: Vec::new(),
            answered_of: None,
            recording_of: None,
        };
        if self.gate() != Gate::Open {
            for item in queue().take(limits::SKIPPED_ROWS) {
                let (key, _) = item?;
                if rows::is_of_header(&key) && !look.consider(&key, camera, true)? {
                    break;
                }
            }
        }
        for item in queue().take(limits::SKIPPED_ROWS) {
            if !look.consider(&item?.0, camera, false)? {
                break;
            }
        }
        Ok(look.tasks)
    }

    fn retry_refused_segments(&mut self, now: Time) -> Result<(), SpoolError> {
        if self.books.totals.counts.stage(Stage::Refused).segments == 0 {
            return Ok(());
        }
        let mut due = Vec::new();
        for item in self.books.ledger.scan(&[tag::RETRY], None) {
            let (key, _) = item?;
            let at = key
                .get(1..9)
                .and_then(|t| t.try_into().ok())
                .map_or(0, u64::from_be_bytes);
            if at > now.0 || due.len() >= limits::COMMIT_CHANGES {
                break;
            }
            due.extend(rows::digest_at_end(&key));
        }
        for digest in due {
            let Some(row) = self.books.segment(&digest)? else {
                continue;
            };
            let mut rec = self.books.recording_of(&row)?;
            self.books.change(&digest, &mut rec, |row| {
                step(row, Event::Retried);
                row.last = true;
            })?;
            self.books.save(&rec);
        }
        Ok(())
    }

    /// Begins to pull: reserves the space, or goes on after the bytes that are here.
    ///
    /// # Errors
    /// [`SpoolError::NoSpace`] where the gate is shut or the disk is full, [`SpoolError::NotWanted`].
    pub fn begin(&mut self, digest: &Digest) -> Result<Incoming, SpoolError> {
        let wanted = self
            .books
            .segment(digest)?
            .filter(|r| r.stage() == Stage::Announced && !r.is_whole());
        let free = !self.is_busy(digest) && !self.is_beside(digest);
        let Some(row) = wanted.filter(|_| free) else {
            return Err(SpoolError::NotWanted(*digest));
        };
        let mut rec = self.books.recording_of(&row)?;
        let partial = self.partials.remove(digest);
        let prefix = partial.as_ref().map_or(row.prefix, |p| p.offset);
        let kept = if row.here && prefix > 0 {
            self.folder.open_segment(digest, row.length, true)?
        } else {
            None
        };
        let path = self.folder.segment(digest);
        let resumed = match (kept, partial) {
            (Some(file), Some(p)) => Some((file, p.offset, p.hasher)),
            (Some(file), None) => match hash_prefix(&file, prefix.into()) {
                Err(e) if is_unreadable(&e) => None,
                hasher => Some((file, prefix, hasher.at(&path)?)),
            },
            (None, _) => None,
        };
        let (file, offset, hasher) = match resumed {
            Some(resumed) => resumed,
            None => {
                if !row.here {
                    self.room_for(&row, &rec)?;
                }
                let file = self.reserve_segment(digest, row.length)?;
                self.books.change(digest, &mut rec, |row| {
                    row.here = true;
                    row.prefix = 0;
                })?;
                self.books.save(&rec);
                (file, 0, Hasher::new())
            }
        };
        let alive = self.now_busy(*digest);
        Ok(Incoming {
            digest: *digest,
            length: row.length,
            resumed: offset > 0,
            offset,
            hash: self.hashing.hash(hasher, row.length),
            file,
            path,
            _alive: alive,
        })
    }

    fn room_for(&mut self, row: &rows::SegmentRow, rec: &Recording) -> Result<(), SpoolError> {
        let need = pressure::reserve_bytes(row.length);
        let open = match self.gate_after(need) {
            Gate::Open => true,
            Gate::UrgentOnly if rec.row.class == Class::Urgent => true,
            _ if row.seq.is_some() || self.starved => false,
            _ => {
                self.used_bytes() + need <= self.capacity_bytes
                    && self.books.waits_for_header(rec)?
            }
        };
        let receipts_have_room = self.books.logbook.reserve(self.books.totals.files + 1)?;
        self.starved |= !receipts_have_room;
        if open && receipts_have_room {
            return Ok(());
        }
        // What was refused is room that reclaim has to make, also where the watermark itself was not reached.
        self.refused_bytes = self.refused_bytes.max(need);
        Err(SpoolError::NoSpace(need))
    }

    fn reserve_segment(&mut self, digest: &Digest, length: u32) -> Result<File, SpoolError> {
        let file = self.folder.create_segment(digest, length);
        if matches!(file, Err(SpoolError::NoSpace(_))) {
            self.starved = true;
        }
        file
    }

    /// Ends a pull: checks the digest.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn finish(&mut self, incoming: Incoming, now: Time) -> Result<Finished, SpoolError> {
        if incoming.remaining() > 0 {
            self.suspend(incoming);
            return Ok(Finished::Incomplete);
        }
        let Incoming {
            digest,
            length,
            resumed,
            hash,
            file,
            ..
        } = incoming;
        let hasher = hash.settled()?;
        self.busy.remove(&digest);
        // An interruption of the same pull that still waits for its commit says nothing any more.
        self.group.prefixes.retain(|(d, ..)| *d != digest);
        if hasher.finish() == digest {
            self.busy.insert(digest, Busy::Whole);
            self.group.bytes += u64::from(length);
            self.group.whole.push((digest, file));
            return Ok(Finished::Verified);
        }
        drop(file);
        let row = self
            .books
            .segment(&digest)?
            .ok_or(SpoolError::NotWanted(digest))?;
        let mut rec = self.books.recording_of(&row)?;
        if resumed {
            self.books.change(&digest, &mut rec, |row| row.prefix = 0)?;
            self.books.save(&rec);
            return Ok(Finished::PullAgain);
        }
        self.folder
            .set_aside(&digest, self.capacity_bytes / limits::REFUSED_SHARE)?;
        let pause = limits::REFUSED_FIRST_MS
            .saturating_mul(1 << row.tries.min(16))
            .min(limits::DAY_MS);
        let retry = now.plus_ms(pause);
        self.books.change(&digest, &mut rec, |row| {
            step(row, Event::Refused);
            row.here = false;
            row.prefix = 0;
            row.tries = row.tries.saturating_add(1);
            row.retry_at = retry;
            row.last = true;
        })?;
        self.books.save(&rec);
        let what = format!(
            "of recording {} does not match its digest, try {}",
            self.recording_id(&row)?,
            row.tries.saturating_add(1)
        );
        self.raise("segment_refused", &digest.to_string(), &what, now);
        Ok(Finished::Refused { retry })
    }

    /// Keeps what came of a pull that broke off.
    pub fn suspend(&mut self, incoming: Incoming) {
        let Incoming {
            digest,
            offset,
            hash,
            file,
            ..
        } = incoming;
        self.busy.remove(&digest);
        if offset == 0 {
            return;
        }
        // Without its hash the prefix is read again; a thread that ended ends the process with the next write.
        if self.partials.len() < limits::SUSPENDED
            && let Ok(hasher) = hash.settled()
        {
            self.partials.insert(digest, Partial { offset, hasher });
        }
        self.group.prefixes.retain(|(d, ..)| *d != digest);
        self.group.bytes += u64::from(offset);
        self.group.prefixes.push((digest, file, offset));
    }

    /// The recording of a row, by name.
    pub(crate) fn recording_id(&self, row: &rows::SegmentRow) -> Result<RecordingId, SpoolError> {
        Ok(RecordingId {
            camera: self.books.camera(row.camera)?.id,
            number: row.number,
        })
    }
}
