//! What is kept in memory of a ledger, gathered row by row while it is read through at the start: names, totals,
//! alarms, and how much waits in each queue. Rows come in the order of their keys: segments before the
//! recordings that say their class, patterns before the queues that name them.

use std::collections::{BTreeSet, HashMap};

use protocol::ids::{Digest, SiteId};
use protocol::manifest::Class;

use crate::alarm::Alarms;
use crate::error::SpoolError;
use crate::forget;
use crate::names::{Names, Queue};
use crate::rows::{self, CameraRow, Pattern, RecordingRow, SegmentRow, tag};
use crate::totals::{Tally, Totals};

/// What was read so far.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) names: Names,
    pub(crate) totals: Totals,
    pub(crate) alarms: Alarms,
    pub(crate) next_receipt: u32,
    /// Recordings that may be over.
    pub(crate) over: BTreeSet<(u32, u64)>,
    /// Copies that rows say are here, with their lengths: the start compares them with the files.
    pub(crate) copies: Vec<(Digest, u32)>,
    /// Manifests whose files are to go.
    pub(crate) unlink: Vec<Digest>,
    /// Segments by recording and stage, counted as routine until the recording says otherwise.
    by_recording: HashMap<(u32, u64), Gathered>,
}

/// Of one recording.
#[derive(Debug, Default)]
struct Gathered {
    tallies: [Tally; 5],
    /// Whether a copy is here.
    here: bool,
}

impl Loaded {
    /// Takes one row.
    pub(crate) fn read(&mut self, key: &[u8], value: &[u8]) -> Result<(), SpoolError> {
        let number = rows::number_at_start(key).unwrap_or(0);
        match key.first() {
            Some(&tag::ALARM) => self.alarms.read(key, value)?,
            Some(&tag::CAMERA) => self
                .names
                .read_camera(number, decode::<CameraRow>(value)?.id),
            Some(&tag::SITE) => self.names.read_site(number, decode::<SiteId>(value)?)?,
            Some(&tag::PATTERN) => self.names.read_pattern(number, decode::<Pattern>(value)?)?,
            Some(&tag::RECEIPT) => {
                self.next_receipt = self.next_receipt.max(number.saturating_add(1))
            }
            Some(&tag::UNLINK) => self.unlink.extend(rows::digest_at_end(key)),
            Some(&tag::PUT) => self.names.waits(number, Queue::Puts, true),
            Some(&tag::OFFER) => self.names.waits(number, Queue::Offers, true),
            Some(&tag::SEGMENT) => {
                let row: SegmentRow = decode(value)?;
                if !row.is_sound() {
                    return Err(SpoolError::Contradiction("a segment's row".into()));
                }
                self.totals.add(&row, Class::Routine);
                if row.here {
                    let digest = rows::digest_at_end(key).map(|d| (d, row.length));
                    self.copies.extend(digest);
                }
                let gathered = self
                    .by_recording
                    .entry((row.camera, row.number))
                    .or_default();
                gathered.here |= row.here;
                let tally = &mut gathered.tallies[row.stage() as usize];
                *tally = tally.plus(Tally {
                    segments: 1,
                    bytes: row.length.into(),
                });
            }
            Some(&tag::RECORDING) => {
                let row: RecordingRow = decode(value)?;
                self.totals.add_recording(number);
                let recording = key
                    .last_chunk()
                    .map(|n| u64::from_be_bytes(*n))
                    .unwrap_or(0);
                let gathered = self
                    .by_recording
                    .remove(&(number, recording))
                    .unwrap_or_default();
                self.totals.reclass(&gathered.tallies, row.class);
                if forget::allows(&row) && !gathered.here {
                    self.over.insert((number, recording));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn decode<R: for<'b> minicbor::Decode<'b, ()>>(value: &[u8]) -> Result<R, SpoolError> {
    minicbor::decode(value)
        .map_err(|e| SpoolError::Contradiction(format!("a row does not parse: {e}")))
}
