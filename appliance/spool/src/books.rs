//! The books: the ledger's records, their queues, the running totals and the list of custody changes, moved
//! together. Whoever changes a segment's row does it here, so that no queue and no total can be forgotten.
//!
//! Invariants: a queue's key is there if and only if [`crate::rows::segment_queues`] derives it from the row; a
//! stage moves only by [`protocol::custody::next`]; a receipt is due at its camera while an archived segment
//! carries it; every move is on the list that the next logbook entry
//! carries. It writes nothing durably: see `commit`.

use std::collections::{BTreeSet, HashSet};

use protocol::custody::{self, Event, Stage};
use protocol::ids::{Digest, SiteId, Time};
use protocol::keylist::KeyList;
use protocol::receipt;

use crate::error::SpoolError;
use crate::ledger::Ledger;
use crate::logbook::Logbook;
use crate::names::{Names, Queue};
use crate::rows::{self, CameraRow, Key, ManifestRow, ReceiptRow, RecordingRow, SegmentRow, tag};
use crate::totals::Totals;

/// A recording's row with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recording {
    pub(crate) camera: u32,
    pub(crate) number: u64,
    pub(crate) row: RecordingRow,
}

/// The books.
#[derive(Debug)]
pub(crate) struct Books {
    pub(crate) ledger: Ledger,
    pub(crate) logbook: Logbook,
    pub(crate) keys: KeyList,
    pub(crate) names: Names,
    pub(crate) totals: Totals,
    /// Stages reached since the last logbook entry, in order.
    pub(crate) changes: Vec<(Digest, Stage)>,
    /// The number that the next receipt gets.
    pub(crate) next_receipt: u32,
    /// Recordings that may be over: camera and number.
    pub(crate) over: BTreeSet<(u32, u64)>,
}

/// Applies `event` to a row; false, and nothing changed, where it cannot happen in that stage.
pub(crate) fn step(row: &mut SegmentRow, event: Event) -> bool {
    let next = custody::next(row.stage(), event);
    if let Some(stage) = next {
        row.set_stage(stage);
    }
    next.is_some()
}

impl Books {
    /// A camera's row.
    pub(crate) fn camera(&self, number: u32) -> Result<CameraRow, SpoolError> {
        let row = self.ledger.get(&rows::numbered(tag::CAMERA, number))?;
        row.ok_or_else(|| SpoolError::Contradiction(format!("camera number {number} is unknown")))
    }
    /// A recording.
    pub(crate) fn recording(
        &self,
        camera: u32,
        number: u64,
    ) -> Result<Option<Recording>, SpoolError> {
        let row = self
            .ledger
            .get(&rows::recording(tag::RECORDING, camera, number))?;
        Ok(row.map(|row| Recording {
            camera,
            number,
            row,
        }))
    }
    /// The recording of a segment.
    pub(crate) fn recording_of(&self, row: &SegmentRow) -> Result<Recording, SpoolError> {
        let found = self.recording(row.camera, row.number)?;
        found.ok_or_else(|| SpoolError::Contradiction("a segment without its recording".into()))
    }
    /// Stages a recording's row.
    pub(crate) fn save(&mut self, rec: &Recording) {
        self.ledger.put(
            rows::recording(tag::RECORDING, rec.camera, rec.number),
            &rec.row,
        );
    }
    /// A segment's or header's row.
    pub(crate) fn segment(&self, digest: &Digest) -> Result<Option<SegmentRow>, SpoolError> {
        match self
            .ledger
            .get::<SegmentRow>(&rows::of(tag::SEGMENT, digest))?
        {
            Some(row) if !row.is_sound() => {
                Err(SpoolError::Contradiction(format!("the row of {digest}")))
            }
            other => Ok(other),
        }
    }
    /// The header and segments of a recording, in order.
    pub(crate) fn segments_of(&self, camera: u32, number: u64) -> Result<Vec<Digest>, SpoolError> {
        self.digests(&rows::recording(tag::SEGMENTS, camera, number))
    }
    /// The manifests of a recording, in order.
    pub(crate) fn manifests_of(&self, camera: u32, number: u64) -> Result<Vec<Digest>, SpoolError> {
        self.digests(&rows::recording(tag::MANIFESTS, camera, number))
    }
    fn digests(&self, prefix: &[u8]) -> Result<Vec<Digest>, SpoolError> {
        let digest = |item: Result<(Key, Vec<u8>), SpoolError>| {
            rows::digest_at_end(&item?.0)
                .ok_or_else(|| SpoolError::Contradiction("a key too short".into()))
        };
        self.ledger.scan(prefix, None).map(digest).collect()
    }

    /// Changes a row and all that hangs on it. The caller saves `rec` when it is done with it.
    pub(crate) fn change(
        &mut self,
        digest: &Digest,
        rec: &mut Recording,
        change: impl FnOnce(&mut SegmentRow),
    ) -> Result<SegmentRow, SpoolError> {
        let old = self
            .segment(digest)?
            .ok_or_else(|| SpoolError::Contradiction(format!("{digest} has no row")))?;
        let mut new = old.clone();
        change(&mut new);
        if new != old {
            rec.row.stages[old.stage() as usize] =
                rec.row.stages[old.stage() as usize].saturating_sub(1);
            rec.row.stages[new.stage() as usize] += 1;
            self.apply(digest, Some((&old, &rec.row)), &mut new, &rec.row)?;
        }
        Ok(new)
    }

    /// Adds a segment or header just announced.
    pub(crate) fn insert(
        &mut self,
        digest: &Digest,
        rec: &mut Recording,
        mut row: SegmentRow,
    ) -> Result<(), SpoolError> {
        rec.row.stages[row.stage() as usize] += 1;
        rec.row.bytes += u64::from(row.length);
        self.ledger.mark(rows::segment_of(&row, digest));
        self.apply(digest, None, &mut row, &rec.row)
    }

    /// Puts everything of a recording where its changed class, policy or time of capture now puts it.
    pub(crate) fn requeue(
        &mut self,
        before: &RecordingRow,
        rec: &Recording,
    ) -> Result<(), SpoolError> {
        for digest in self.segments_of(rec.camera, rec.number)? {
            let old = self
                .segment(&digest)?
                .ok_or_else(|| SpoolError::Contradiction(format!("{digest} has no row")))?;
            let mut new = old.clone();
            self.apply(&digest, Some((&old, before)), &mut new, &rec.row)?;
        }
        for digest in self.manifests_of(rec.camera, rec.number)? {
            if let Some(old) = self.manifest(&digest)? {
                self.apply_manifest(&digest, Some((&old, before)), old.clone(), &rec.row)?;
            }
        }
        Ok(())
    }

    fn apply(
        &mut self,
        digest: &Digest,
        old: Option<(&SegmentRow, &RecordingRow)>,
        new: &mut SegmentRow,
        rec: &RecordingRow,
    ) -> Result<(), SpoolError> {
        new.queue = None;
        if new.stage() == Stage::Held && new.is_whole() {
            let have = new.receipts.iter().map(|r| r.1).collect();
            new.queue = Some(self.names.intern_pattern(
                &rec.policy,
                have,
                new.refused_by.clone(),
                false,
                &mut self.ledger,
            )?);
        }
        let before = old.map_or_else(Vec::new, |(row, rec)| {
            rows::segment_queues(digest, row, rec)
        });
        self.move_queues(&before, &rows::segment_queues(digest, new, rec));
        if let Some((row, rec)) = old {
            self.totals.take(row, rec.class);
        }
        self.totals.add(new, rec.class);
        let was = old.map(|(row, _)| row.stage());
        self.move_due(&carried(old.map(|(row, _)| row)), &carried(Some(new)))?;
        if was != Some(new.stage()) {
            self.changes.push((*digest, new.stage()));
            let open = |stage| i64::from(custody::is_outstanding(stage));
            let moved = open(new.stage()) - was.map_or(0, open);
            if moved != 0 {
                self.move_open(&new.manifest, moved, rec)?;
            }
        }
        self.ledger.put(rows::of(tag::SEGMENT, digest), new);
        Ok(())
    }

    /// Takes a segment of a recording that is over out of the books.
    pub(crate) fn forget_segment(&mut self, digest: &Digest, row: &SegmentRow, rec: &RecordingRow) {
        self.move_queues(&rows::segment_queues(digest, row, rec), &[]);
        self.totals.forget(row, rec.class);
        self.ledger.delete(rows::of(tag::SEGMENT, digest));
        self.ledger.delete(rows::segment_of(row, digest));
    }

    fn move_queues(&mut self, before: &[Key], after: &[Key]) {
        for (keys, others, joins) in [(before, after, false), (after, before, true)] {
            for key in keys.iter().filter(|k| !others.contains(k)) {
                if joins {
                    self.ledger.mark(key.clone());
                } else {
                    self.ledger.delete(key.clone());
                }
                self.count_queue(key, joins);
            }
        }
    }

    /// Counts a key of a pattern's queue; others are not counted.
    pub(crate) fn count_queue(&mut self, key: &[u8], joins: bool) {
        let queue = match key.first() {
            Some(&tag::PUT) => Queue::Puts,
            Some(&tag::OFFER) => Queue::Offers,
            _ => return,
        };
        if let Some(pattern) = rows::number_at_start(key) {
            self.names.waits(pattern, queue, joins);
        }
    }

    /// A manifest's row.
    pub(crate) fn manifest(&self, digest: &Digest) -> Result<Option<ManifestRow>, SpoolError> {
        self.ledger.get(&rows::of(tag::MANIFEST, digest))
    }

    /// Changes a manifest's row and its queue.
    pub(crate) fn change_manifest(
        &mut self,
        digest: &Digest,
        rec: &RecordingRow,
        change: impl FnOnce(&mut ManifestRow),
    ) -> Result<(), SpoolError> {
        let Some(old) = self.manifest(digest)? else {
            return Ok(());
        };
        let mut new = old.clone();
        change(&mut new);
        if new == old {
            return Ok(());
        }
        self.apply_manifest(digest, Some((&old, rec)), new, rec)
    }

    /// Adds a manifest.
    pub(crate) fn insert_manifest(
        &mut self,
        digest: &Digest,
        row: ManifestRow,
        rec: &RecordingRow,
    ) -> Result<(), SpoolError> {
        self.ledger.mark(rows::manifest_of(&row, digest));
        self.apply_manifest(digest, None, row, rec)
    }

    fn apply_manifest(
        &mut self,
        digest: &Digest,
        old: Option<(&ManifestRow, &RecordingRow)>,
        mut new: ManifestRow,
        rec: &RecordingRow,
    ) -> Result<(), SpoolError> {
        let done = new.open == 0;
        let receipted = self.names.sites(new.receipts.iter().map(|r| r.1))?;
        // An answer puts off the next offer; only receipts that name the manifest end them.
        new.queue = if done && receipt::satisfied(&rec.policy, &self.keys, &receipted) {
            None
        } else {
            let mut have: Vec<u16> = new
                .receipts
                .iter()
                .map(|r| r.1)
                .chain(new.answered.iter().copied())
                .collect();
            have.sort_unstable();
            have.dedup();
            let refused = new.refused_by.clone();
            Some(
                self.names
                    .intern_pattern(&rec.policy, have, refused, done, &mut self.ledger)?,
            )
        };
        let before = old.map_or_else(Vec::new, |(row, rec)| {
            rows::manifest_queues(digest, row, rec)
        });
        self.move_queues(&before, &rows::manifest_queues(digest, &new, rec));
        self.move_due(&old.map_or_else(Vec::new, |(row, _)| row.due()), &new.due())?;
        self.ledger.put(rows::of(tag::MANIFEST, digest), &new);
        Ok(())
    }

    fn move_open(
        &mut self,
        manifest: &Digest,
        moved: i64,
        rec: &RecordingRow,
    ) -> Result<(), SpoolError> {
        self.change_manifest(manifest, rec, |row| {
            let moved = i64::from(row.open).saturating_add(moved);
            row.open = u32::try_from(moved.max(0)).unwrap_or(u32::MAX);
        })
    }

    /// Whether segments of a recording may be Held: its header is, or is archived.
    pub(crate) fn header_is_kept(&self, rec: &Recording) -> Result<bool, SpoolError> {
        let header = self.segment(&rec.row.header.digest)?;
        Ok(header
            .is_some_and(|h| matches!(h.stage(), Stage::Held | Stage::Archived | Stage::Released)))
    }

    /// Whether whole segments of a recording wait for its header: none of them is Held, and so none can leave.
    pub(crate) fn waits_for_header(&self, rec: &Recording) -> Result<bool, SpoolError> {
        Ok(self.totals.waiting(rec.camera, rec.number) > 0 && !self.header_is_kept(rec)?)
    }

    /// The sites of a segment's receipts.
    pub(crate) fn sites_of(&self, row: &SegmentRow) -> Result<BTreeSet<SiteId>, SpoolError> {
        self.names.sites(row.receipts.iter().map(|r| r.1))
    }

    /// Sets a segment's stage by what its receipts now weigh, and makes them due at the camera where they
    /// came to suffice. True where too few were left of an archived one.
    pub(crate) fn weigh(
        &mut self,
        digest: &Digest,
        rec: &mut Recording,
    ) -> Result<bool, SpoolError> {
        let Some(row) = self.segment(digest)? else {
            return Ok(false);
        };
        let enough = receipt::satisfied(&rec.row.policy, &self.keys, &self.sites_of(&row)?);
        let archived = matches!(row.stage(), Stage::Archived | Stage::Released);
        if enough == archived {
            return Ok(false);
        }
        let entries = self.logbook.end().entries;
        let event = match (enough, row.is_whole()) {
            (true, _) => Event::Receipted,
            (false, true) => Event::ReceiptsVoidBytesHere,
            (false, false) => Event::ReceiptsVoidBytesGone,
        };
        self.change(digest, rec, |row| {
            step(row, event);
            row.archived_at = entries;
            row.retry_at = Time(0);
        })?;
        Ok(!enough)
    }

    /// Takes receipts that do not count from a segment.
    pub(crate) fn change_receipts(
        &mut self,
        digest: &Digest,
        rec: &mut Recording,
        void: &HashSet<u32>,
    ) -> Result<(), SpoolError> {
        self.change(digest, rec, |row| {
            row.receipts.retain(|(number, _)| !void.contains(number))
        })?;
        Ok(())
    }

    /// Keeps the count of archived segments and of manifests that carry each receipt, and with it what a camera is due.
    fn move_due(&mut self, before: &[u32], after: &[u32]) -> Result<(), SpoolError> {
        for (numbers, others, joins) in [(before, after, false), (after, before, true)] {
            for number in numbers.iter().filter(|n| !others.contains(n)) {
                let key = rows::numbered(tag::RECEIPT, *number);
                let Some(mut row) = self.ledger.get::<ReceiptRow>(&key)? else {
                    continue;
                };
                row.due = if joins {
                    row.due + 1
                } else {
                    row.due.saturating_sub(1)
                };
                match row.due {
                    0 => self.ledger.delete(due(row.camera, row.number, *number)),
                    _ => self.ledger.mark(due(row.camera, row.number, *number)),
                }
                self.ledger.put(key, &row);
            }
        }
        Ok(())
    }
}

/// Receipts that a camera is due for a segment's sake.
fn carried(row: Option<&SegmentRow>) -> Vec<u32> {
    let archived = row.filter(|r| r.stage() == Stage::Archived);
    archived.map_or_else(Vec::new, |r| {
        r.receipts.iter().map(|(number, _)| *number).collect()
    })
}

/// The key that says that a camera is due a receipt.
pub(crate) fn due(camera: u32, number: u64, receipt: u32) -> Key {
    rows::key(
        tag::DUE,
        &[
            &camera.to_be_bytes(),
            &number.to_be_bytes(),
            &receipt.to_be_bytes(),
        ],
    )
}
