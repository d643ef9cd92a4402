//! Looking: counts, cameras, recordings, and what is on no known holder. Changes nothing.

use protocol::ids::{CameraId, Digest, RecordingId, Time};
use protocol::manifest::Class;

use crate::contact::Meeting;
use crate::error::SpoolError;
use crate::rows::{self, RecordingRow, tag};
use crate::spool::Spool;
use crate::totals::{Counts, Tally};

/// A camera as known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CameraStatus {
    /// The camera's storage.
    pub id: CameraId,
    /// The number of its newest inventory.
    pub inventory: Option<u64>,
    /// The number that its next recording gets.
    pub next_recording: u64,
    /// Recordings known.
    pub recordings: u64,
    /// Announced, and not archived.
    pub outstanding: Tally,
    /// Bytes that its segments take here.
    pub bytes_here: u64,
    /// When it last came.
    pub last_contact: Option<Time>,
    /// What was learnt of it then.
    pub meeting: Option<Meeting>,
}

/// A recording as known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordingStatus {
    /// The recording.
    pub id: RecordingId,
    /// Its class.
    pub class: Class,
    /// When it began.
    pub captured: Time,
    /// Its header and segments by stage (`Stage as usize`).
    pub stages: [u64; 5],
    /// Their sealed bytes.
    pub bytes: u64,
    /// The final count of segments.
    pub end: Option<u64>,
}

impl Spool {
    /// What is in custody.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let cameras = self.books.names.cameras().count() as u64;
        Counts {
            cameras,
            ..self.books.totals.counts
        }
    }

    /// What is announced and on no known holder, up to `limit`.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn unaccounted(
        &self,
        limit: usize,
    ) -> Result<Vec<(RecordingId, Option<u64>, Digest)>, SpoolError> {
        let mut found = Vec::new();
        for item in self
            .books
            .ledger
            .scan(&[tag::UNACCOUNTED], None)
            .take(limit)
        {
            let Some(digest) = rows::digest_at_end(&item?.0) else {
                continue;
            };
            if let Some(row) = self.books.segment(&digest)? {
                found.push((self.recording_id(&row)?, row.seq, digest));
            }
        }
        Ok(found)
    }

    /// Every camera, in the order of their ids.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn cameras(&self) -> Result<Vec<CameraStatus>, SpoolError> {
        let mut all = Vec::new();
        for (id, number) in self.books.names.cameras() {
            let row = self.books.camera(number)?;
            let totals = self
                .books
                .totals
                .cameras
                .get(&number)
                .copied()
                .unwrap_or_default();
            all.push(CameraStatus {
                id: id.clone(),
                inventory: row.inventory,
                next_recording: row.next_recording,
                recordings: totals.recordings,
                outstanding: totals.outstanding,
                bytes_here: totals.bytes_here,
                last_contact: row.last_contact,
                meeting: row.meeting,
            });
        }
        all.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(all)
    }

    /// The recordings of a camera, in the order of their numbers.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn recordings(&self, camera: &CameraId) -> Result<Vec<RecordingStatus>, SpoolError> {
        let Some(number) = self.books.names.camera(camera) else {
            return Ok(Vec::new());
        };
        let prefix = rows::key(tag::RECORDING, &[&number.to_be_bytes()]);
        let status = |item: Result<(rows::Key, Vec<u8>), SpoolError>| {
            let (key, value) = item?;
            let row: RecordingRow = minicbor::decode(&value)
                .map_err(|e| SpoolError::Contradiction(format!("a recording: {e}")))?;
            let number = key.last_chunk().map_or(0, |n| u64::from_be_bytes(*n));
            Ok(RecordingStatus {
                id: RecordingId {
                    camera: camera.clone(),
                    number,
                },
                class: row.class,
                captured: row.captured,
                stages: row.stages.map(u64::from),
                bytes: row.bytes,
                end: row.end,
            })
        };
        self.books.ledger.scan(&prefix, None).map(status).collect()
    }
}
