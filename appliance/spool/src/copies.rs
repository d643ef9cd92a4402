//! The copies here: opened for sending, read again when somebody doubts them, and given up when they are wrong.
//! Archived and Released stand on receipts, not on a copy; a Held segment whose copy is lost is pulled again, once a
//! barrier has made that durable: until then a start would take an unfinished file for the copy.

use std::fs::{self, File};

use protocol::custody::{Event, Stage};
use protocol::ids::{Digest, Time};

use crate::books::step;
use crate::error::{AtPath, SpoolError, is_unreadable};
use crate::limits;
use crate::rows::SegmentRow;
use crate::spool::Spool;

impl Spool {
    /// The copy of a whole segment or header, for reading.
    ///
    /// # Errors
    /// [`SpoolError::NoCopy`] where there is none of the right length.
    pub fn open_copy(&self, digest: &Digest) -> Result<File, SpoolError> {
        let row = self
            .books
            .segment(digest)?
            .filter(SegmentRow::is_whole)
            .ok_or(SpoolError::NoCopy(*digest))?;
        self.folder
            .open_segment(digest, row.length, false)?
            .ok_or(SpoolError::NoCopy(*digest))
    }

    /// Somebody says that the copy here is wrong: reads it again from the disk. True where it was; then it is
    /// set aside and pulled again.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn copy_is_damaged(&mut self, digest: &Digest, now: Time) -> Result<bool, SpoolError> {
        let Some(row) = self.books.segment(digest)?.filter(SegmentRow::is_whole) else {
            return Ok(false);
        };
        let file = self.folder.open_segment(digest, row.length, false)?;
        let good = match file {
            None => false,
            Some(_) => self.is_good_on_disk(digest)?,
        };
        if !good {
            self.copy_is_lost(digest, &row, now)?;
        }
        Ok(!good)
    }

    /// Whether a copy has its digest, read from the disk. What cannot be read is no good copy: were that an error, each
    /// start would meet it again.
    pub(crate) fn is_good_on_disk(&self, digest: &Digest) -> Result<bool, SpoolError> {
        match self.folder.digest_on_disk(&self.folder.segment(digest)) {
            Ok(found) => Ok(found == *digest),
            Err(SpoolError::Io { path, source }) if is_unreadable(&source) => {
                tracing::error!(file = %path.display(), "a copy cannot be read: {source}");
                Ok(false)
            }
            Err(e) => Err(e),
        }
    }

    /// Books a copy that is gone or wrong.
    pub(crate) fn copy_is_lost(
        &mut self,
        digest: &Digest,
        row: &SegmentRow,
        now: Time,
    ) -> Result<(), SpoolError> {
        self.folder
            .set_aside(digest, self.capacity_bytes / limits::REFUSED_SHARE)?;
        let mut rec = self.books.recording_of(row)?;
        self.books.change(digest, &mut rec, |row| {
            step(row, Event::Damaged);
            row.here = false;
            row.prefix = 0;
        })?;
        self.books.save(&rec);
        self.lost.insert(*digest);
        let what = format!(
            "the copy of a segment of recording {} does not match its digest or is gone",
            self.recording_id(row)?
        );
        self.raise("copy_damaged", &digest.to_string(), &what, now);
        Ok(())
    }

    /// The stage of a segment or header; none for one that is unknown here.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn stage(&self, digest: &Digest) -> Result<Option<Stage>, SpoolError> {
        Ok(self.books.segment(digest)?.map(|r| r.stage()))
    }

    /// Reads a whole file of the folder `segments`; for tests and checks of other crates.
    ///
    /// # Errors
    /// As [`Spool::open_copy`].
    pub fn read_copy(&self, digest: &Digest) -> Result<Vec<u8>, SpoolError> {
        self.open_copy(digest)?;
        let path = self.folder.segment(digest);
        fs::read(&path).at(&path)
    }
}
