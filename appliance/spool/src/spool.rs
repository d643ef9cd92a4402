//! The spool itself: the one value that owns the folder and the books, and what is told but not yet durable.
//!
//! Its calls are in the modules named for the footage's way: `announce`, `pull`, `commit`, `forward`,
//! `release`, `reclaim`; `start` opens it, `scrub` and `status` look at it. Synchronous, single-owner: one
//! storage thread drives it.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use protocol::identity::Trust;
use protocol::ids::{Digest, Time};
use protocol::logbook::LogbookHead;
use protocol::pressure::{Gate, Watermarks};
use protocol::receipt::Receipt;
use protocol::suite::Hasher;

use crate::alarm::{Alarm, Alarms, SETTLED_BY_A_PERSON, Settled};
use crate::books::Books;
use crate::contact::Contact;
use crate::countersigned::Countersigned;
use crate::error::SpoolError;
use crate::faults::Faults;
use crate::folder::Folder;
use crate::hashing::HashThread;
use crate::limits;
use crate::logbook::Entry;

/// What a spool is opened with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder; made if missing.
    pub dir: PathBuf,
    /// Bytes that segments, headers and manifests may take there.
    pub capacity_bytes: u64,
    /// When pulling stops and reclaim begins.
    pub marks: Watermarks,
    /// A folder that lives as long as the page cache (`/run/repeater`), for the mark of a failed sync.
    pub suspect_dir: PathBuf,
    /// Random bytes, for the incarnation of a logbook that has to be begun.
    pub fresh: [u8; 16],
    /// A ledger that is no larger is not written anew; 0: it is all the time.
    pub ledger_bytes: u64,
    /// Whether the spool may become of this release's format. Not while its image is on trial: the release before, to which
    /// the station then goes back, leaves a newer format alone.
    pub raise_format: bool,
    /// Seeded faults; programs pass [`Faults::none`].
    pub faults: Faults,
}

impl Options {
    /// With the usual watermarks: stop at 90 % of the capacity, reclaim down to 80 %, 5 % for urgent footage.
    #[must_use]
    pub fn new(
        dir: PathBuf,
        capacity_bytes: u64,
        suspect_dir: PathBuf,
        fresh: [u8; 16],
    ) -> Options {
        let percent = |n: u64| capacity_bytes / 100 * n;
        let marks = Watermarks {
            high_bytes: percent(90),
            low_bytes: percent(80),
            urgent_bytes: percent(5),
        };
        Options {
            dir,
            capacity_bytes,
            marks,
            suspect_dir,
            fresh,
            ledger_bytes: limits::LEDGER_BYTES,
            raise_format: false,
            faults: Faults::none(),
        }
    }
}

/// What a look for work passes over, because it is in flight.
pub(crate) type Skip = HashSet<Digest>;

/// What was told since the last commit and waits for it.
#[derive(Debug, Default)]
pub(crate) struct Group {
    /// Whole segments: verified, unsynced.
    pub(crate) whole: Vec<(Digest, File)>,
    /// Prefixes of interrupted ones.
    pub(crate) prefixes: Vec<(Digest, File, u32)>,
    /// Small files written, to be synced.
    pub(crate) files: Vec<PathBuf>,
    /// Small files written beside their name: synced, then renamed.
    pub(crate) renames: Vec<(PathBuf, PathBuf)>,
    /// A synced key list that gets its name after the rows that were judged under it.
    pub(crate) follows: Option<(PathBuf, PathBuf)>,
    pub(crate) receipts: Vec<Receipt>,
    /// What cameras said is released: camera, recording, digests.
    pub(crate) released: Vec<(u32, u64, Vec<Digest>)>,
    pub(crate) notes: Vec<String>,
    /// Manifests of which the rows are gone, and the files to go.
    pub(crate) unlink: Vec<Digest>,
    pub(crate) bytes: u64,
}

/// A digest that must not be pulled now.
#[derive(Debug)]
pub(crate) enum Busy {
    /// Being pulled, while its `Incoming` lives.
    Incoming(Weak<()>),
    /// Verified, waiting for the commit.
    Whole,
}

/// An interrupted pull, as far as it is known without reading it again.
pub(crate) struct Partial {
    pub(crate) offset: u32,
    pub(crate) hasher: Hasher,
}

/// What is kept. See the crate's essay.
pub struct Spool {
    pub(crate) folder: Folder,
    pub(crate) books: Books,
    pub(crate) hashing: HashThread,
    pub(crate) trust: Trust,
    pub(crate) alarms: Alarms,
    pub(crate) capacity_bytes: u64,
    pub(crate) marks: Watermarks,
    pub(crate) gate: Gate,
    /// The largest pull that found no room since the last reclaim, in bytes.
    pub(crate) refused_bytes: u64,
    /// The disk itself was found full.
    pub(crate) starved: bool,
    pub(crate) group: Group,
    pub(crate) busy: HashMap<Digest, Busy>,
    pub(crate) partials: HashMap<Digest, Partial>,
    /// Copies given up since the last barrier. The durable rows still vouch for whatever file is there under that name:
    /// none may be made before they do no more.
    pub(crate) lost: HashSet<Digest>,
    /// Segments whose custody the group in the making changed: told once the barrier is passed.
    pub(crate) untold: Vec<Digest>,
    pub(crate) again: Vec<Digest>,
    /// A commit did not come through: nothing new is to be told or given out until one does.
    pub(crate) unsettled: bool,
    pub(crate) manifest_bytes: u64,
    /// The start is over.
    pub(crate) started: bool,
    /// See [`Options::ledger_bytes`].
    pub(crate) ledger_bytes: u64,
    pub(crate) scrub: crate::scrub::Cursor,
    /// What sites have seen of the logbook.
    pub(crate) signed: Countersigned,
    /// When it was opened: the time of what the start mends.
    pub(crate) opened: Time,
    /// The folder `segments` of the spool that is being rebuilt, where this is the interim one.
    pub(crate) beside: Option<PathBuf>,
}

impl std::fmt::Debug for Spool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Spool({:?}, gate {:?})", self.books.ledger, self.gate)
    }
}

impl Spool {
    /// Raises an alarm, with its logbook entry.
    pub(crate) fn raise(&mut self, code: &str, subject: &str, what: &str, now: Time) {
        if self
            .alarms
            .raise(code, subject, what.to_owned(), now, &mut self.books.ledger)
        {
            self.group
                .notes
                .push(format!("alarm {code} {subject}: {what}"));
        }
    }
    /// Lowers an alarm whose cause is gone.
    pub(crate) fn lower(&mut self, code: &str, subject: &str) {
        if self.alarms.lower(code, subject, &mut self.books.ledger) {
            self.group
                .notes
                .push(format!("alarm lowered {code} {subject}"));
        }
    }
    /// The alarms that are raised.
    #[must_use]
    pub fn alarms(&self) -> Vec<Alarm> {
        self.alarms.all()
    }
    /// A person settles an alarm that no event ends. Where it stood, who did it is staged for the logbook.
    ///
    /// # Errors
    /// [`SpoolError::Ledger`].
    pub fn settle_alarm(
        &mut self,
        code: &str,
        subject: &str,
        who: &str,
        now: Time,
    ) -> Result<Settled, SpoolError> {
        if !SETTLED_BY_A_PERSON.contains(&code) {
            return Ok(Settled::EndsByItself);
        }
        let stands = |a: &Alarm| a.code == code && a.subject == subject;
        if !self.alarms.all().iter().any(stands) {
            return Ok(Settled::NotRaised);
        }
        let command = Contact::Command {
            who: who.to_owned(),
            what: format!("clear {code} {subject}"),
        };
        self.contact(command, now)?;
        self.lower(code, subject);
        Ok(Settled::Cleared)
    }

    /// The head of the logbook as far as it is durable.
    #[must_use]
    pub fn logbook_head(&self) -> LogbookHead {
        self.books.logbook.head()
    }

    /// Whether `digest` is being pulled or waits for a commit.
    pub(crate) fn is_busy(&self, digest: &Digest) -> bool {
        if self.lost.contains(digest) {
            return true;
        }
        match self.busy.get(digest) {
            Some(Busy::Incoming(alive)) => alive.strong_count() > 0,
            Some(Busy::Whole) => true,
            None => false,
        }
    }

    pub(crate) fn now_busy(&mut self, digest: Digest) -> Arc<()> {
        // Those whose Incoming was dropped go when the table has doubled: few are ever in flight.
        if self.busy.len() >= 2 * limits::SUSPENDED {
            self.busy
                .retain(|_, b| !matches!(b, Busy::Incoming(alive) if alive.strong_count() == 0));
        }
        let alive = Arc::new(());
        self.busy
            .insert(digest, Busy::Incoming(Arc::downgrade(&alive)));
        alive
    }

    /// Bytes in use of the capacity.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.books.totals.used_bytes + self.manifest_bytes
    }

    /// Stages the notes as logbook entries.
    pub(crate) fn stage_notes(&mut self, now: Time) {
        for note in std::mem::take(&mut self.group.notes) {
            self.books.logbook.stage(&Entry::Note(note), now);
        }
    }
}
