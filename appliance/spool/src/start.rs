//! Start-up: opens the folder, finds what the last process left, and mends it. In order:
//!
//! 1. the folder is locked and its format checked; a newer one is left alone, an older one is kept while the machine may
//!    still go back to the release before, and else becomes this release's; the file system is synced, since what a
//!    killed process wrote may be in the page cache only and must not be built on;
//! 2. if the boot is marked suspect (a sync failed), everything is read again from the disk: see `rebuild`;
//! 3. the stored key list counts, and a newer configured one from the end of the start on;
//! 4. the ledger is read through and compared with its sum; where it does not open, lacks rows, or died while
//!    opening, it is rebuilt from files and logbook; where entries of the logbook are lost, it gets a successor: see
//!    `succession`;
//! 5. manifests without rows are verified and entered, newer inventories applied, and logbook entries behind the
//!    ledger's mark replayed; a torn tail of the logbook is cut;
//! 6. rows and files are compared by existence and length, by this table; contents are the scrub's:
//!
//! | what is found | action |
//! |---|---|
//! | valid: row, file of its length | kept |
//! | partial: row, file, prefix below length | kept as far as the prefix counts |
//! | missing: row, no file, or one of another length | Held goes back to Announced, with an alarm; others lose the mark that bytes are here |
//! | orphan: file, no row that vouches for it | removed: nothing was ever said of it; after a rebuild that met a damaged manifest, kept under another name |
//! | junk: a name that is no digest | left alone, named in the log |
//!
//! 7. what was mended is made durable by a barrier, and only then the mark of a suspect boot goes;
//! 8. what came in the meantime, or while an earlier process rebuilt the ledger, is taken over: see `interim`.
//!
//! At each of these steps, by the name `start-up` and its number, the power is cut: see the crate's essay.

mod found;
mod report;

use std::collections::{HashMap, HashSet};
use std::fs;

use protocol::identity::Trust;
use protocol::ids::Time;
use protocol::keylist::KeyList;
use protocol::pressure::{Gate, Watermarks};

use crate::books::Books;
use crate::commit::keep_ballast;
use crate::countersigned::Countersigned;
use crate::error::{AtPath, SpoolError};
use crate::folder::{FORMAT, Folder, Place};
use crate::hashing::HashThread;
use crate::ledger::{Ledger, renew};
use crate::load::Loaded;
use crate::logbook::{Entry, Logbook, Position};
use crate::scrub::Cursor;
use crate::spool::{Group, Options, Spool};
use crate::succession::{self, Broken};
use found::{FoundLedger, find_ledger};
pub use report::StartReport;

/// What the opening of a spool works with before there is one.
pub(crate) struct Opening {
    pub(crate) folder: Folder,
    pub(crate) hashing: HashThread,
    pub(crate) logbook: Logbook,
    pub(crate) signed: Countersigned,
    pub(crate) keys: KeyList,
    pub(crate) trust: Trust,
    pub(crate) capacity_bytes: u64,
    pub(crate) marks: Watermarks,
    pub(crate) ledger_bytes: u64,
    pub(crate) now: Time,
}

impl Opening {
    /// The spool over a ledger and what was read of it.
    pub(crate) fn into_spool(self, ledger: Ledger, loaded: Loaded) -> Spool {
        let Opening {
            folder,
            hashing,
            logbook,
            signed,
            keys,
            trust,
            capacity_bytes,
            marks,
            ledger_bytes,
            now,
        } = self;
        let Loaded {
            names,
            totals,
            alarms,
            next_receipt,
            over,
            unlink,
            ..
        } = loaded;
        let group = Group {
            unlink,
            ..Group::default()
        };
        let scrub = ledger.scrub.map_or(Cursor::new(now), |kept| kept.kept(now));
        let books = Books {
            ledger,
            logbook,
            keys,
            names,
            totals,
            changes: Vec::new(),
            next_receipt,
            over,
        };
        Spool {
            folder,
            books,
            hashing,
            trust,
            alarms,
            capacity_bytes,
            marks,
            gate: Gate::Open,
            refused_bytes: 0,
            starved: false,
            group,
            busy: HashMap::new(),
            partials: HashMap::new(),
            lost: HashSet::new(),
            untold: Vec::new(),
            again: Vec::new(),
            unsettled: false,
            manifest_bytes: 0,
            started: false,
            ledger_bytes,
            scrub,
            signed,
            opened: now,
            beside: None,
        }
    }
}

/// A start that has looked at the ledger, and has not begun to mend.
pub(crate) struct Start {
    pub(crate) folder: Folder,
    found: FoundLedger,
    report: StartReport,
    alarms: Deferred,
    pub(crate) trust: Trust,
    /// The list under which the ledger was last judged.
    pub(crate) keys: KeyList,
    given: KeyList,
    pub(crate) capacity_bytes: u64,
    marks: Watermarks,
    pub(crate) fresh: [u8; 16],
    ledger_bytes: u64,
    pub(crate) now: Time,
}

impl Start {
    /// Steps 1 to 3, and the first half of 4: whether the ledger can be used as it is.
    pub(crate) fn begin(
        options: Options,
        trust: Trust,
        keys: KeyList,
        now: Time,
        mut rebuild: Option<String>,
    ) -> Result<Start, SpoolError> {
        let mut folder = Folder::open(&options.dir, &options.suspect_dir, options.faults)?;
        if options.raise_format
            && let Some(before) = folder.raise_format()?
        {
            tracing::info!("the spool is of format {FORMAT} from here on, and was of {before}");
        }
        folder.faults.done("start-up 1");
        renew::remove(&folder)?;
        let report = StartReport {
            suspect: folder.is_suspect(),
            ..StartReport::default()
        };
        let mut alarms = Vec::new();
        let given = keys;
        let keys = stored_key_list(&mut folder, &trust, &given, &mut alarms)?;
        if report.suspect {
            rebuild = Some("the boot is suspect: a sync failed".into());
            crate::rebuild::renew_logbook(&mut folder)?;
            folder.faults.done("start-up 2");
        }
        folder.faults.done("start-up 3");
        let found = find_ledger(&folder, rebuild)?;
        Ok(Start {
            folder,
            found,
            report,
            alarms,
            trust,
            keys,
            given,
            capacity_bytes: options.capacity_bytes,
            marks: options.marks,
            fresh: options.fresh,
            ledger_bytes: options.ledger_bytes,
            now,
        })
    }

    /// Why the ledger has to be derived anew, if it has to.
    pub(crate) fn rebuilds(&self) -> Option<&str> {
        match &self.found {
            FoundLedger::Good(..) => None,
            FoundLedger::Rebuild(why, _) => Some(why),
        }
    }

    /// The rest.
    pub(crate) fn end(self) -> Result<(Spool, StartReport), SpoolError> {
        let fresh = self.fresh;
        let (mut spool, mut report) = self.end_without_interim()?;
        spool.take_interim(fresh, &mut report)?;
        report.count(&spool);
        Ok((spool, report))
    }

    /// The rest but for step 8.
    pub(crate) fn end_without_interim(self) -> Result<(Spool, StartReport), SpoolError> {
        let Start {
            mut folder,
            found,
            mut report,
            mut alarms,
            given,
            fresh,
            now,
            ..
        } = self;
        let quick = matches!(found, FoundLedger::Good(..));
        let signed = Countersigned::of_a_start(&folder, &self.keys, &mut report, &mut alarms)?;
        let known = (found.last(), quick, &signed);
        let (logbook, broken) = succession::open(&mut folder, known, (fresh, now))?;
        let opening = Opening {
            hashing: HashThread::start().at(&folder.place(Place::Root))?,
            folder,
            logbook,
            signed,
            keys: self.keys,
            trust: self.trust,
            capacity_bytes: self.capacity_bytes,
            marks: self.marks,
            ledger_bytes: self.ledger_bytes,
            now,
        };
        let (mut spool, end, copies) =
            found.open(opening, broken.as_ref(), &mut report, &mut alarms)?;
        spool.folder.faults.done("start-up 4");
        spool.unlink_forgotten()?;
        // A rebuild has begun it already.
        match broken.filter(|_| quick) {
            None => spool.follow_logbook(end, &mut report)?,
            Some(broken) => spool.begin_logbook(&broken, &mut report, &mut alarms)?,
        }
        spool.folder.faults.done("start-up 5");
        // What was read of the rows holds where nothing has changed them since.
        let copies = copies.filter(|_| report.entries_replayed == 0);
        spool.cross_check(copies, &mut report)?;
        // What is free without one is for receipts and reclaim, not for pulls.
        spool.starved = !keep_ballast(&spool.folder, spool.capacity_bytes)?;
        spool.raise_all(alarms, now);
        spool.folder.faults.done("start-up 6");
        spool.settle_start(&given, &mut report, now)?;
        spool.folder.faults.done("start-up 7");
        spool.started = true;
        Ok((spool, report))
    }
}

impl Spool {
    /// Opens the spool, making what is missing and mending what the last process left.
    ///
    /// # Errors
    /// [`SpoolError::InUse`], [`SpoolError::NewerFormat`], and what the disk says.
    pub fn open(
        options: Options,
        trust: Trust,
        keys: KeyList,
        now: Time,
    ) -> Result<(Spool, StartReport), SpoolError> {
        Spool::open_with(options, trust, keys, now, None)
    }

    /// Opens the spool with a ledger that is rebuilt wholly from files and logbook.
    ///
    /// # Errors
    /// As [`Spool::open`].
    pub fn recover(
        options: Options,
        trust: Trust,
        keys: KeyList,
        now: Time,
    ) -> Result<(Spool, StartReport), SpoolError> {
        Spool::open_with(options, trust, keys, now, Some("by command".into()))
    }

    fn open_with(
        options: Options,
        trust: Trust,
        keys: KeyList,
        now: Time,
        rebuild: Option<String>,
    ) -> Result<(Spool, StartReport), SpoolError> {
        Start::begin(options, trust, keys, now, rebuild)?.end()
    }

    fn raise_all(&mut self, alarms: Deferred, now: Time) {
        for (code, subject, what) in alarms {
            self.raise(code, &subject, &what, now);
        }
    }

    /// Makes durable what the start mended, and only then takes a newer key list and the mark of a suspect boot away.
    fn settle_start(
        &mut self,
        given: &KeyList,
        report: &mut StartReport,
        now: Time,
    ) -> Result<(), SpoolError> {
        if let Some(why) = &report.rebuilt {
            self.group.notes.push(format!("ledger rebuilt: {why}"));
        }
        self.barrier(now)?;
        if given.number() > self.books.keys.number() {
            self.set_key_list(given, now)?;
        }
        // What was found is not news to anybody.
        self.untold.clear();
        if report.suspect {
            self.folder.clear_suspect()?;
        }
        Ok(())
    }

    /// Step 5: what the files and the logbook know beyond the ledger.
    fn follow_logbook(
        &mut self,
        from: Position,
        report: &mut StartReport,
    ) -> Result<(), SpoolError> {
        // What a rebuild found the logbook does not know yet; what follows here it knows, or files say it again.
        let found = std::mem::take(&mut self.books.changes);
        report.manifests_entered += self.enter_orphans()?;
        self.apply_newer_inventories(report)?;
        let (tail, end) = self.read_logbook(from)?;
        report.entries_replayed = end.entries - from.entries;
        report.torn_bytes += self.books.logbook.cut_after(end, &self.folder)?;
        self.replay(&tail)?;
        self.books.changes = found;
        Ok(())
    }

    /// The same where entries of the logbook are lost: the rows stand, but for receipts that nothing else had.
    fn begin_logbook(
        &mut self,
        broken: &Broken,
        report: &mut StartReport,
        alarms: &mut Deferred,
    ) -> Result<(), SpoolError> {
        report.manifests_entered += self.enter_orphans()?;
        self.apply_newer_inventories(report)?;
        self.carry_rows(broken.old.as_ref())?;
        let aside;
        (self.books.logbook, aside) =
            succession::take_its_place(&mut self.folder, &self.books.logbook)?;
        report.begin_logbook(broken, aside, alarms);
        let back = self.weigh_all()?;
        if back > 0 {
            report.lost.push(format!(
                "{back} segments went back: their receipts were in what is lost; sites are asked for them again"
            ));
        }
        Ok(())
    }

    fn read_logbook(&self, mut at: Position) -> Result<(Vec<(Entry, u64)>, Position), SpoolError> {
        let mut entries = Vec::new();
        while let Some(read) = self.books.logbook.read(at)? {
            at = read.after;
            entries.push((read.entry, read.body_offset));
        }
        Ok((entries, at))
    }
}

/// Alarms that wait until there is a spool to raise them.
pub(crate) type Deferred = Vec<(&'static str, String, String)>;

/// Step 3: the list under which the ledger was last judged; the given one where none is stored.
fn stored_key_list(
    folder: &mut Folder,
    trust: &Trust,
    given: &KeyList,
    alarms: &mut Deferred,
) -> Result<KeyList, SpoolError> {
    let path = folder.path("key-list");
    match fs::read(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        other => match KeyList::verify(other.at(&path)?.into(), trust.root_keys()) {
            Ok(stored) => return Ok(stored),
            Err(e) => alarms.push(("key_list_damaged", "key-list".into(), e.to_string())),
        },
    }
    folder.write_durably("key-list", given.bytes())?;
    Ok(given.clone())
}
