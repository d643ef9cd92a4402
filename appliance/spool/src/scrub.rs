//! The scrub: reads every whole copy again, a little at a time, in the order of digests, so that damage is found
//! while the camera or another site still has the footage.
//!
//! Where it is lies beside the ledger's mark and is written with every commit, so that it costs none of its own: a
//! restart goes on a little before the place that was reached. A ledger that is rebuilt begins the scrub anew.

use minicbor::{Decode, Encode};
use protocol::ids::{Digest, Time};

use crate::error::SpoolError;
use crate::rows::{self, SegmentRow, tag};
use crate::spool::Spool;

/// Where the scrub is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Cursor {
    #[n(0)]
    next: Digest,
    #[n(1)]
    started: Time,
    /// When the pass before began.
    #[n(2)]
    before: Option<Time>,
}

impl Cursor {
    pub(crate) fn new(now: Time) -> Cursor {
        Cursor {
            next: Digest([0; 32]),
            started: now,
            before: None,
        }
    }
    /// The one that was kept, at a start; a clock that has gone back since has read nothing in the future.
    pub(crate) fn kept(self, now: Time) -> Cursor {
        Cursor {
            started: self.started.min(now),
            before: self.before.map(|t| t.min(now)),
            ..self
        }
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
    /// When the pass began.
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
            self.scrub = Cursor {
                before: Some(pass_started),
                ..Cursor::new(now)
            };
        }
        Ok(out)
    }

    /// Since when some byte here may not have been read: the beginning of the pass before this one, or of the first;
    /// none while there is no copy. What came later was compared with its digest as it came.
    #[must_use]
    pub fn unchecked_since(&self) -> Option<Time> {
        let since = self.scrub.before.unwrap_or(self.scrub.started);
        (self.books.totals.files > 0).then_some(since)
    }
}
