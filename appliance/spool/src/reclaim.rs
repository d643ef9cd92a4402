//! Room: the gate for new footage, and reclaim. What is archived stays as long as there is room, so that a
//! centre that loses what it signed can be given it again; above the high watermark the longest archived goes
//! first, down to the low one.
//!
//! Order, for each part of at most [`limits::RECLAIM_FILES`]: the receipt is durable (a commit went before) ->
//! unlink -> directory sync -> row. A crash in between leaves a row without a file, which the next start mends.
//! If what is archived does not suffice, a segment with at least one receipt that its camera still lists may
//! go early; it becomes Announced again and is pulled last. Its header stays.

use protocol::custody::Event;
use protocol::ids::{CameraId, Digest, Time};
use protocol::pressure::{self, Gate};

use crate::books::step;
use crate::commit::keep_ballast;
use crate::error::SpoolError;
use crate::faults::Fault;
use crate::limits;
use crate::rows::{self, tag};
use crate::spool::Spool;

/// What a reclaim did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Files that went.
    pub segments: usize,
    /// Their bytes on the disk.
    pub bytes: u64,
    /// Those among them that went early.
    pub early: usize,
}

/// The room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// What segments, headers and manifests may take.
    pub capacity_bytes: u64,
    /// What they take, reserved space among it.
    pub used_bytes: u64,
    /// What logbook and ledger take besides.
    pub overhead_bytes: u64,
    /// What any program may still write to this file system.
    pub free_on_disk_bytes: u64,
}

impl Spool {
    /// The room.
    #[must_use]
    pub fn space(&self) -> Space {
        Space {
            capacity_bytes: self.capacity_bytes,
            used_bytes: self.used_bytes(),
            overhead_bytes: self.books.logbook.reserved() + self.books.ledger.disk_bytes(),
            free_on_disk_bytes: self.folder.free_on_disk(),
        }
    }

    /// Whether new footage is taken.
    #[must_use]
    pub fn gate(&self) -> Gate {
        if self.starved {
            Gate::Closed
        } else {
            self.gate_now()
        }
    }

    fn gate_now(&self) -> Gate {
        // A pull that found no room shuts the gate like the watermark: it opens again at the low one.
        let before = if self.refused_bytes > 0 && self.gate == Gate::Open {
            Gate::UrgentOnly
        } else {
            self.gate
        };
        pressure::gate(before, self.used_bytes(), self.marks)
    }

    /// The gate if `more_bytes` were taken.
    pub(crate) fn gate_after(&mut self, more_bytes: u64) -> Gate {
        self.gate = self.gate_now();
        let full = self.used_bytes() + more_bytes
            > self
                .marks
                .high_bytes
                .saturating_add(self.marks.urgent_bytes);
        if self.starved || full {
            Gate::Closed
        } else {
            self.gate
        }
    }

    /// Bytes that one camera's segments take here and that nobody else can have: of what is not archived. What is
    /// archived stays only as long as its room is not needed, so it counts towards nobody's share.
    ///
    /// # Errors
    /// None now; kept fallible like its likes.
    pub fn camera_bytes(&self, camera: &CameraId) -> Result<u64, SpoolError> {
        let totals = self
            .books
            .names
            .camera(camera)
            .and_then(|n| self.books.totals.cameras.get(&n));
        Ok(totals.map_or(0, |t| t.unarchived_bytes))
    }

    /// Makes room where it is needed: above the high watermark, or while pulling waits for the low one, or on a
    /// full disk. At most [`limits::RECLAIM_FILES`] files a call.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn reclaim(&mut self, now: Time) -> Result<Reclaimed, SpoolError> {
        self.look_at_the_disk(now)?;
        self.gate = self.gate_now();
        let refused_bytes = std::mem::take(&mut self.refused_bytes);
        let mut done = Reclaimed::default();
        if self.gate == Gate::Open && !self.starved {
            return Ok(done);
        }
        if self.folder.faults.has(Fault::ReclaimBeforeReceipt) {
            self.sync_files(now)?;
            self.move_books(now)?;
        } else {
            self.barrier(now)?;
        }
        self.done("reclaim 1");
        let excess = self.used_bytes().saturating_sub(self.marks.low_bytes);
        let excess = if self.starved {
            excess.max(self.capacity_bytes / 100)
        } else {
            excess
        };
        let archived = self.oldest(tag::RECLAIM, excess)?;
        let got: u64 = archived.iter().map(|(_, bytes)| bytes).sum();
        // Early only above the high watermark, never merely to reach the low one.
        let wanted = self.used_bytes() + refused_bytes;
        let over = wanted
            .saturating_sub(self.marks.high_bytes.saturating_sub(1))
            .saturating_sub(got);
        let early = if over > 0 && archived.len() < limits::RECLAIM_FILES {
            self.oldest(tag::EARLY, over)?
        } else {
            Vec::new()
        };
        done.early = early.len();
        let gone: Vec<(Digest, u64)> = archived.into_iter().chain(early).collect();
        if !self.folder.faults.has(Fault::ReclaimRowFirst) {
            self.unlink(&gone)?;
        }
        for (digest, bytes) in &gone {
            self.forget_copy(digest)?;
            done.segments += 1;
            done.bytes += bytes;
        }
        self.settle(now)?;
        self.done("reclaim 4");
        if self.folder.faults.has(Fault::ReclaimRowFirst) {
            self.unlink(&gone)?;
        }
        self.look_at_the_disk(now)?;
        self.gate = self.gate_now();
        Ok(done)
    }

    fn oldest(&self, queue: u8, bytes: u64) -> Result<Vec<(Digest, u64)>, SpoolError> {
        let mut found = Vec::new();
        let mut sum = 0;
        for item in self
            .books
            .ledger
            .scan(&[queue], None)
            .take(limits::RECLAIM_FILES)
        {
            if sum >= bytes {
                break;
            }
            let Some(digest) = rows::digest_at_end(&item?.0).filter(|d| !self.is_busy(d)) else {
                continue;
            };
            let Some(row) = self.books.segment(&digest)? else {
                continue;
            };
            sum += row.disk_bytes();
            found.push((digest, row.disk_bytes()));
        }
        Ok(found)
    }

    fn unlink(&mut self, gone: &[(Digest, u64)]) -> Result<(), SpoolError> {
        gone.iter()
            .try_for_each(|(digest, _)| self.folder.unlink_segment(digest))?;
        self.done("reclaim 2");
        self.folder.sync_directories()?;
        self.done("reclaim 3");
        Ok(())
    }

    fn forget_copy(&mut self, digest: &Digest) -> Result<(), SpoolError> {
        let Some(row) = self.books.segment(digest)? else {
            return Ok(());
        };
        let mut rec = self.books.recording_of(&row)?;
        self.partials.remove(digest);
        self.books.change(digest, &mut rec, |row| {
            if !protocol::custody::may_reclaim(row.stage()) {
                step(row, Event::ReclaimedEarly);
                row.last = true;
            }
            row.here = false;
            row.prefix = 0;
        })?;
        self.books.save(&rec);
        self.books.may_be_over(&rec);
        Ok(())
    }

    /// Whether the disk, that others fill too, has room again after it had none.
    fn look_at_the_disk(&mut self, now: Time) -> Result<(), SpoolError> {
        if !self.starved {
            return Ok(());
        }
        let enough = self.folder.free_on_disk() > 8 * limits::BALLAST_BYTES;
        if enough && self.books.logbook.reserve(self.books.totals.files + 1)? {
            self.starved = !keep_ballast(&self.folder, self.capacity_bytes)?;
            self.lower("disk_full", "spool");
        } else {
            let what = format!(
                "{} bytes are free on the disk, {} are in use here",
                self.folder.free_on_disk(),
                self.used_bytes()
            );
            self.raise("disk_full", "spool", &what, now);
        }
        Ok(())
    }
}
