//! Faults that a test seeds, as a value given to the constructor: each leaves out or turns round one step on
//! which durability rests, so that the suites can show that they would notice. The programs pass none, and
//! nothing else (no environment, no flag, no feature) can set one.

use std::collections::BTreeSet;

use nix::sys::signal::{Signal, raise};

/// One seeded fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The ledger is flushed as sled does it, without our own fdatasync.
    NoLedgerSync,
    /// Tokens are handed out before the barrier.
    HeldBeforeBarrier,
    /// Directories are not synced.
    NoDirectorySync,
    /// The row is durable before the bytes it vouches for.
    RowBeforeBytes,
    /// Bytes go before the receipt that allows it is durable.
    ReclaimBeforeReceipt,
    /// The row goes before the bytes.
    ReclaimRowFirst,
    /// A snapshot that sled had not finished is left in place.
    KeepStaleSnapshot,
    /// What a process that was killed left in the page cache is taken for durable.
    NoSyncAtStart,
    /// The next fdatasync of a segment fails.
    SegmentSyncFails,
    /// The next sync of the logbook fails.
    LogbookSyncFails,
    /// Reserving space for a segment fails as on a full disk.
    NoSpace,
    /// The process is killed when it has done this step of the crate's essay.
    DiesAfter(&'static str),
}

/// The faults of one spool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(BTreeSet<Fault>);

impl Faults {
    /// None: what every program passes.
    #[must_use]
    pub fn none() -> Faults {
        Faults::default()
    }
    /// These.
    #[must_use]
    pub fn of(faults: &[Fault]) -> Faults {
        Faults(faults.iter().copied().collect())
    }
    /// Whether `fault` is seeded.
    #[must_use]
    pub fn has(&self, fault: Fault) -> bool {
        self.0.contains(&fault)
    }
    /// A step of the essay is done.
    pub(crate) fn done(&self, step: &'static str) {
        if self.has(Fault::DiesAfter(step)) {
            let _ = raise(Signal::SIGKILL); // it does not return
        }
    }
}
