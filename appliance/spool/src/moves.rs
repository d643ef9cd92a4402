//! How the books move in a commit, after the bytes are synced and before the logbook is: prefixes count, bytes
//! become Held, receipts weigh, cameras' releases count. Start-up and rebuild move them by the same functions.
//!
//! Nothing here is durable or told: see `commit`.

use protocol::custody::{Event, Stage};
use protocol::ids::{Digest, Time};
use protocol::receipt::Receipt;

use crate::books::{Recording, step};
use crate::error::SpoolError;
use crate::logbook::Entry;
use crate::rows::{self, ReceiptRow, SegmentRow, tag};
use crate::spool::Spool;

impl Spool {
    /// Step 3.
    pub(crate) fn move_books(&mut self, now: Time) -> Result<(), SpoolError> {
        let whole = std::mem::take(&mut self.group.whole);
        for (digest, offset) in std::mem::take(&mut self.group.prefixes)
            .into_iter()
            .map(|(d, _, o)| (d, o))
        {
            let Some(row) = self.books.segment(&digest)? else {
                continue;
            };
            let mut rec = self.books.recording_of(&row)?;
            self.books.change(&digest, &mut rec, |row| {
                if row.here && !row.is_whole() {
                    row.prefix = offset;
                }
            })?;
            self.books.save(&rec);
        }
        for (digest, _) in whole {
            self.busy.remove(&digest);
            self.bytes_are_whole(&digest)?;
        }
        for receipt in std::mem::take(&mut self.group.receipts) {
            self.book_receipt(&receipt, now)?;
        }
        for (camera, number, digests) in std::mem::take(&mut self.group.released) {
            self.book_released(camera, number, &digests)?;
        }
        let unaccounted = self.books.totals.counts.unaccounted;
        if unaccounted.segments > 0 {
            let what = format!(
                "{} segments of {} bytes",
                unaccounted.segments, unaccounted.bytes
            );
            self.raise("unaccounted", "spool", &what, now);
        } else {
            self.lower("unaccounted", "spool");
        }
        self.group.bytes = 0;
        Ok(())
    }

    /// All bytes of a segment are synced: it becomes Held where its header is, and with a header those that
    /// waited for it.
    pub(crate) fn bytes_are_whole(&mut self, digest: &Digest) -> Result<(), SpoolError> {
        let Some(row) = self.books.segment(digest)? else {
            return Ok(());
        };
        let mut rec = self.books.recording_of(&row)?;
        let header = self.books.header_is_kept(&rec)? || row.seq.is_none();
        let commit = |row: &mut SegmentRow| {
            row.here = true;
            row.prefix = row.length;
            row.last = false;
            if header {
                step(row, Event::Committed);
            }
        };
        self.books.change(digest, &mut rec, commit)?;
        self.lower("segment_refused", &digest.to_string());
        self.lower("sync_failed", &digest.to_string());
        self.lower("copy_damaged", &digest.to_string());
        if row.seq.is_none() {
            self.header_came(&mut rec)?;
        }
        self.books.save(&rec);
        Ok(())
    }

    /// Lets what waited for its header become Held. How many waited is known: most often none, and of a recording of many
    /// hours the first few.
    pub(crate) fn header_came(&mut self, rec: &mut Recording) -> Result<(), SpoolError> {
        let (camera, number) = (rec.camera, rec.number);
        if self.books.totals.waiting(camera, number) == 0 || !self.books.header_is_kept(rec)? {
            return Ok(());
        }
        for digest in self.books.segments_of(camera, number)? {
            self.books.change(&digest, rec, |row| {
                if row.waits_for_header() {
                    step(row, Event::Committed);
                }
            })?;
            if self.books.totals.waiting(camera, number) == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Books a receipt on all that it names of what is known here.
    pub(crate) fn book_receipt(&mut self, receipt: &Receipt, now: Time) -> Result<(), SpoolError> {
        let offset = self.books.logbook.end();
        let Some(digests) = self.gains(receipt)? else {
            return Ok(());
        };
        let staged = self
            .books
            .logbook
            .stage(&Entry::Receipt(receipt.bytes().to_vec()), now);
        debug_assert!(
            staged > offset.offset,
            "the entry lies behind what was there"
        );
        self.attach(receipt, staged, &digests)
    }

    /// What a receipt adds to: its header, segments and manifests known here that have none of its site. None where nothing.
    pub(crate) fn gains(&mut self, receipt: &Receipt) -> Result<Option<Vec<Digest>>, SpoolError> {
        let body = receipt.body();
        let Some(camera) = self.books.names.camera(&body.recording.camera) else {
            return Ok(None);
        };
        let Some(rec) = self.books.recording(camera, body.recording.number)? else {
            return Ok(None);
        };
        if rec.row.header.digest != body.header {
            return Ok(None);
        }
        let site = self
            .books
            .names
            .intern_site(&body.site, &mut self.books.ledger)?;
        let mut digests = Vec::new();
        for digest in std::iter::once(&body.header).chain(&body.segments) {
            let row = self
                .books
                .segment(digest)?
                .filter(|r| (r.camera, r.number) == (camera, body.recording.number));
            if row.is_some_and(|r| r.receipts.iter().all(|(_, s)| *s != site))
                && !digests.contains(digest)
            {
                digests.push(*digest);
            }
        }
        for digest in &body.manifests {
            let row = self
                .books
                .manifest(digest)?
                .filter(|r| (r.camera, r.number) == (camera, body.recording.number));
            if row.is_some_and(|r| r.receipts.iter().all(|(_, s)| *s != site))
                && !digests.contains(digest)
            {
                digests.push(*digest);
            }
        }
        Ok((!digests.is_empty()).then_some(digests))
    }

    /// Makes the row of a receipt that lies at `offset` of the logbook, and weighs what it names.
    pub(crate) fn attach(
        &mut self,
        receipt: &Receipt,
        offset: u64,
        digests: &[Digest],
    ) -> Result<(), SpoolError> {
        let body = receipt.body();
        let Some(camera) = self.books.names.camera(&body.recording.camera) else {
            return Ok(());
        };
        let Some(mut rec) = self.books.recording(camera, body.recording.number)? else {
            return Ok(());
        };
        let site = self
            .books
            .names
            .intern_site(&body.site, &mut self.books.ledger)?;
        let number = self.books.next_receipt;
        self.books.next_receipt = number
            .checked_add(1)
            .ok_or_else(|| SpoolError::Contradiction("receipts are numbered out".into()))?;
        let length = u32::try_from(receipt.bytes().len()).expect("receipts are bounded");
        let row = ReceiptRow {
            offset,
            length,
            digest: receipt.digest(),
            site,
            camera,
            number: rec.number,
            due: 0,
        };
        self.books
            .ledger
            .put(rows::numbered(tag::RECEIPT, number), &row);
        self.books
            .ledger
            .put(rows::of(tag::RECEIPT_OF, &receipt.digest()), &number);
        for digest in digests {
            if body.manifests.contains(digest) {
                self.books
                    .change_manifest(digest, &rec.row, |row| row.receipts.push((number, site)))?;
                continue;
            }
            self.books
                .change(digest, &mut rec, |row| row.receipts.push((number, site)))?;
            self.books.weigh(digest, &mut rec)?;
            if *digest == rec.row.header.digest {
                self.header_came(&mut rec)?;
            }
        }
        self.books.save(&rec);
        Ok(())
    }

    fn book_released(
        &mut self,
        camera: u32,
        number: u64,
        digests: &[Digest],
    ) -> Result<(), SpoolError> {
        let Some(mut rec) = self.books.recording(camera, number)? else {
            return Ok(());
        };
        // Receipts that release a segment name its header too.
        let header = rec.row.header.digest;
        for digest in digests.iter().chain([&header]) {
            let known = self
                .books
                .segment(digest)?
                .is_some_and(|r| (r.camera, r.number) == (camera, number));
            if known {
                self.books.change(digest, &mut rec, |row| {
                    if row.stage() == Stage::Archived {
                        step(row, Event::Released);
                    }
                })?;
            } else if self
                .books
                .manifest(digest)?
                .is_some_and(|r| (r.camera, r.number) == (camera, number))
            {
                self.books
                    .change_manifest(digest, &rec.row, |row| row.released = true)?;
            }
        }
        self.books.save(&rec);
        Ok(())
    }
}
