//! The scrub: reads every whole copy again, a little at a time, in the order of digests, so that damage is found
//! while the camera or another site still has the footage.

use protocol::ids::{Digest, Time};

use crate::error::SpoolError;
use crate::rows::{self, SegmentRow, tag};
use crate::spool::Spool;

/// Where the scrub is.
#[derive(Debug)]
pub(crate) struct Cursor {
    next: Digest,
    started: Time,
}

impl Cursor {
    pub(crate) fn new(now: Time) -> Cursor {
        Cursor {
            next: Digest([0; 32]),
            started: now,
        }
    }
    /// When this pass began; at first, when the spool was opened.
    pub(crate) fn started(&self) -> Time {
        self.started
    }
}

/// What one step found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scrubbed {
    /// Copies read.
    pub checked: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Those that were wrong or gone: set aside, and pulled again.
    pub damaged: Vec<Digest>,
    /// Whether the pass over all copies is complete; the next step begins another.
    pub wrapped: bool,
    /// When the pass began: no copy is unchecked for longer than since the pass before.
    pub pass_started: Time,
}

impl Spool {
    /// Reads copies until `budget_bytes` are read. Damage is staged as by [`Spool::copy_is_damaged`].
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn scrub_step(&mut self, budget_bytes: u64, now: Time) -> Result<Scrubbed, SpoolError> {
        let pass_started = self.scrub.started;
        let mut out = Scrubbed {
            checked: 0,
            bytes: 0,
            damaged: Vec::new(),
            wrapped: true,
            pass_started,
        };
        let mut due = Vec::new();
        let from = rows::of(tag::SEGMENT, &self.scrub.next);
        for item in self.books.ledger.scan(&[tag::SEGMENT], Some(&from)) {
            let (key, value) = item?;
            let Some(digest) = rows::digest_at_end(&key) else {
                continue;
            };
            if out.bytes >= budget_bytes {
                self.scrub.next = digest;
                out.wrapped = false;
                break;
            }
            let row: SegmentRow = minicbor::decode(&value)
                .map_err(|e| SpoolError::Contradiction(format!("a segment: {e}")))?;
            if row.is_whole() {
                out.bytes += u64::from(row.length);
                due.push(digest);
            }
        }
        for digest in due {
            out.checked += 1;
            if self.copy_is_damaged(&digest, now)? {
                out.damaged.push(digest);
            }
        }
        if out.wrapped {
            self.scrub = Cursor::new(now);
        }
        Ok(out)
    }
}
