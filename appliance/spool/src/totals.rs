//! Running totals over the ledger's rows, kept in memory: what status, metrics, the watermarks and the shares of
//! cameras read without a scan. Filled by the scan at the start, then moved by every change of a row.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use protocol::custody::{Stage, is_outstanding};
use protocol::manifest::Class;

use crate::rows::SegmentRow;

/// Segments (headers among them) and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub segments: u64,
    /// Sealed bytes.
    pub bytes: u64,
}

impl Tally {
    fn add(&mut self, row: &SegmentRow) {
        self.segments += 1;
        self.bytes += u64::from(row.length);
    }
    fn take(&mut self, row: &SegmentRow) {
        self.segments = self.segments.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(u64::from(row.length));
    }
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Tally) -> Tally {
        Tally {
            segments: self.segments + other.segments,
            bytes: self.bytes + other.bytes,
        }
    }
}

/// What is in custody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// By stage (`Stage as usize`), then by class (`Class as usize`).
    pub stages: [[Tally; 3]; 5],
    /// Announced, and not archived.
    pub outstanding: Tally,
    /// Announced, and on no known holder. Must be 0.
    pub unaccounted: Tally,
    /// Released, reclaimed, and forgotten since the start: in no other count.
    pub forgotten: Tally,
    /// Recordings known.
    pub recordings: u64,
    /// Cameras known: storages, not serials.
    pub cameras: u64,
}

impl Counts {
    /// All classes of one stage.
    #[must_use]
    pub fn stage(&self, stage: Stage) -> Tally {
        self.stages[stage as usize]
            .into_iter()
            .fold(Tally::default(), Tally::plus)
    }
}

/// One camera's share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CameraTotals {
    pub(crate) outstanding: Tally,
    /// Bytes that its files take here, reserved ones among them.
    pub(crate) bytes_here: u64,
    /// Of those, bytes of what is not archived: they cannot be reclaimed for others.
    pub(crate) unarchived_bytes: u64,
    pub(crate) recordings: u64,
}

/// All totals.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) counts: Counts,
    pub(crate) cameras: HashMap<u32, CameraTotals>,
    /// Bytes that segments and headers take on the disk, reserved ones among them.
    pub(crate) used_bytes: u64,
    /// Files of segments and headers.
    pub(crate) files: u64,
    /// Whole segments that are not Held, by camera and recording: they wait for their header. None is 0.
    waiting: HashMap<(u32, u64), u64>,
}

impl Totals {
    /// Whole segments of a recording that wait for its header.
    pub(crate) fn waiting(&self, camera: u32, number: u64) -> u64 {
        self.waiting.get(&(camera, number)).copied().unwrap_or(0)
    }

    pub(crate) fn add(&mut self, row: &SegmentRow, class: Class) {
        let camera = self.cameras.entry(row.camera).or_default();
        self.counts.stages[row.stage() as usize][class as usize].add(row);
        if is_outstanding(row.stage()) {
            self.counts.outstanding.add(row);
            camera.outstanding.add(row);
            camera.unarchived_bytes += row.disk_bytes();
        }
        if row.is_unaccounted() {
            self.counts.unaccounted.add(row);
        }
        camera.bytes_here += row.disk_bytes();
        self.used_bytes += row.disk_bytes();
        self.files += u64::from(row.here);
        if row.waits_for_header() {
            *self.waiting.entry((row.camera, row.number)).or_default() += 1;
        }
    }

    pub(crate) fn take(&mut self, row: &SegmentRow, class: Class) {
        let camera = self.cameras.entry(row.camera).or_default();
        self.counts.stages[row.stage() as usize][class as usize].take(row);
        if is_outstanding(row.stage()) {
            self.counts.outstanding.take(row);
            camera.outstanding.take(row);
            camera.unarchived_bytes = camera.unarchived_bytes.saturating_sub(row.disk_bytes());
        }
        if row.is_unaccounted() {
            self.counts.unaccounted.take(row);
        }
        camera.bytes_here = camera.bytes_here.saturating_sub(row.disk_bytes());
        self.used_bytes = self.used_bytes.saturating_sub(row.disk_bytes());
        self.files = self.files.saturating_sub(u64::from(row.here));
        if row.waits_for_header()
            && let Entry::Occupied(mut waiting) = self.waiting.entry((row.camera, row.number))
        {
            *waiting.get_mut() -= 1;
            if *waiting.get() == 0 {
                waiting.remove();
            }
        }
    }

    /// A segment of a recording that is over.
    pub(crate) fn forget(&mut self, row: &SegmentRow, class: Class) {
        self.take(row, class);
        self.counts.forgotten.add(row);
    }

    pub(crate) fn take_recording(&mut self, camera: u32) {
        self.counts.recordings = self.counts.recordings.saturating_sub(1);
        let camera = self.cameras.entry(camera).or_default();
        camera.recordings = camera.recordings.saturating_sub(1);
    }

    /// Moves what was counted as routine to the class it is of.
    pub(crate) fn reclass(&mut self, tallies: &[Tally; 5], class: Class) {
        for (stage, tally) in self.counts.stages.iter_mut().zip(tallies) {
            let routine = &mut stage[Class::Routine as usize];
            routine.segments = routine.segments.saturating_sub(tally.segments);
            routine.bytes = routine.bytes.saturating_sub(tally.bytes);
            stage[class as usize] = stage[class as usize].plus(*tally);
        }
    }

    pub(crate) fn add_recording(&mut self, camera: u32) {
        self.counts.recordings += 1;
        self.cameras.entry(camera).or_default().recordings += 1;
    }
}
