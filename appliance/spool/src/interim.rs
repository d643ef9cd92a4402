//! Footage that comes while the ledger is rebuilt. A rebuild reads every manifest and the whole logbook, and on a suspect boot
//! every byte: with a terabyte here that takes hours, in which cameras fill. So what comes meanwhile goes to a spool of its
//! own, in the folder `interim`, as to a station that is new: [`Rebuild`] is the start that waits, [`Rebuild::interim`] the spool beside it.
//! When the rebuild is done the caller closes that spool, and [`Rebuild::run`], or whichever start comes next, takes over what is in it.
//!
//! Invariants: the interim spool makes its own promises by its own barriers, and its folder goes only when this spool keeps
//! each of them; nothing is pulled into it of which the other has a file, since that may be the copy that is about to be found
//! whole; what cannot be taken over is kept aside, with an alarm.
//!
//! **Take over**, at the end of each start that finds such a folder; each step may be done again from its beginning:
//! 1. manifests are admitted, and the files of whole copies get a second name in `segments`, as if they had been pulled
//!    just now: a commit makes them Held here (`take-over 1`);
//! 2. receipts, inventories and the notes of its logbook are told here, and committed (`take-over 2`);
//! 3. the folder gets the name `interim.taken`, which is synced (`take-over 3`), and goes.
//!
//! What is only half there is pulled again, and what a camera said it had released it says again.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use protocol::custody::{Event, Stage};
use protocol::identity::Trust;
use protocol::ids::{Digest, Time};
use protocol::keylist::KeyList;
use protocol::manifest::Manifest;
use protocol::receipt::Receipt;

use crate::alarm::SETTLED_BY_A_PERSON;
use crate::books::step;
use crate::error::{AtPath, SpoolError, is_unreadable};
use crate::folder::{Folder, Place, remove};
use crate::logbook::{Entry, Logbook};
use crate::mend::names_in;
use crate::rows::{ReceiptRow, SegmentRow, tag};
use crate::spool::{Options, Spool};
use crate::start::{Start, StartReport};

pub(crate) const INTERIM: &str = "interim";
const TAKEN: &str = "interim.taken";
/// The share of the capacity that an interim spool may take, as a divisor, and of what is free on the disk.
const SHARE: u64 = 4;
const FREE_SHARE: u64 = 2;
/// Bytes of notes after which a commit is made.
const NOTES_BYTES: usize = 256 << 10;

/// A spool as a start finds it.
pub enum Opened {
    /// Open.
    Ready(Box<Spool>, StartReport),
    /// Its ledger has to be derived anew first.
    Rebuilds(Box<Rebuild>),
}

/// A start that waits for its rebuild. The folder is locked.
pub struct Rebuild {
    start: Start,
    options: Options,
}

impl std::fmt::Debug for Rebuild {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rebuild({})", self.why())
    }
}

impl Spool {
    /// As [`Spool::open`], for a caller that does not want to wait for a rebuild.
    ///
    /// # Errors
    /// As [`Spool::open`].
    pub fn open_or_rebuild(
        options: Options,
        trust: Trust,
        keys: KeyList,
        now: Time,
    ) -> Result<Opened, SpoolError> {
        let beside = interim_options(&options);
        let start = Start::begin(options, trust, keys, now, None)?;
        Ok(if start.rebuilds().is_some() {
            let options = beside;
            Opened::Rebuilds(Box::new(Rebuild { start, options }))
        } else {
            let (spool, report) = start.end()?;
            Opened::Ready(Box::new(spool), report)
        })
    }
}

impl Rebuild {
    /// Why it is needed.
    #[must_use]
    pub fn why(&self) -> &str {
        self.start.rebuilds().unwrap_or_default()
    }

    /// The spool for what comes meanwhile. It has to be closed before [`Rebuild::run`] comes to its end: that takes it over, or
    /// fails with [`SpoolError::InUse`] where it cannot.
    ///
    /// # Errors
    /// As [`Spool::open`].
    pub fn interim(&self) -> Result<Spool, SpoolError> {
        let folder = &self.start.folder;
        let free = folder.free_on_disk() / FREE_SHARE;
        let options = sized(self.options.clone(), free.min(self.options.capacity_bytes));
        let (trust, keys) = (self.start.trust.clone(), self.start.keys.clone());
        let (mut spool, _) = Spool::open(options, trust, keys, self.start.now)?;
        spool.beside = Some(folder.place(Place::Segments));
        spool.raise("ledger_rebuilding", "ledger", self.why(), self.start.now);
        Ok(spool)
    }

    /// Rebuilds, and what else a start does; `closed` waits until the interim spool is closed, where there is one.
    ///
    /// # Errors
    /// As [`Spool::open`].
    pub fn run(self, closed: impl FnOnce()) -> Result<(Spool, StartReport), SpoolError> {
        let fresh = self.start.fresh;
        let (mut spool, mut report) = self.start.end_without_interim()?;
        closed();
        spool.take_interim(fresh, &mut report)?;
        report.count(&spool);
        Ok((spool, report))
    }
}

/// The interim spool of a spool of `options`, which has logbook and marks of its own.
fn interim_options(options: &Options) -> Options {
    let own = Options {
        dir: options.dir.join(INTERIM),
        suspect_dir: options.suspect_dir.join(INTERIM),
        fresh: options.fresh.map(|byte| !byte),
        ..options.clone()
    };
    sized(own, options.capacity_bytes / SHARE)
}

/// The same with another capacity, and the usual marks.
fn sized(options: Options, capacity_bytes: u64) -> Options {
    let usual = Options::new(
        options.dir.clone(),
        capacity_bytes,
        options.suspect_dir.clone(),
        options.fresh,
    );
    Options {
        capacity_bytes,
        marks: usual.marks,
        ..options
    }
}

impl Spool {
    /// Whether the other spool has a file of that name, whatever is in it.
    pub(crate) fn is_beside(&self, digest: &Digest) -> bool {
        let place = self.beside.as_ref();
        place.is_some_and(|place| place.join(digest.to_string()).exists())
    }

    /// Takes over what an interim spool holds, if there is one. See the essay.
    pub(crate) fn take_interim(
        &mut self,
        fresh: [u8; 16],
        report: &mut StartReport,
    ) -> Result<(), SpoolError> {
        let taken = self.folder.path(TAKEN);
        if taken.exists() {
            fs::remove_dir_all(&taken).at(&taken)?;
        }
        let path = self.folder.path(INTERIM);
        if !path.exists() {
            return Ok(());
        }
        let options = interim_options(&Options {
            dir: self.folder.place(Place::Root),
            capacity_bytes: self.capacity_bytes,
            marks: self.marks,
            suspect_dir: self.folder.suspect_dir().to_owned(),
            fresh,
            ledger_bytes: self.ledger_bytes,
            raise_format: false,
            faults: self.folder.faults.clone(),
        });
        let (trust, keys) = (self.trust.clone(), self.books.keys.clone());
        let mut interim = match Spool::open(options, trust, keys, self.opened) {
            Ok((interim, _)) => interim,
            Err(
                e @ (SpoolError::Suspect { .. }
                | SpoolError::NewerFormat { .. }
                | SpoolError::InUse(_)),
            ) => return Err(e),
            Err(e) => return self.keep_aside(&path, &format!("it does not open: {e}"), report),
        };
        let orphans = self.take_copies(&interim, report)?;
        self.folder.faults.done("take-over 1");
        self.take_words(&mut interim)?;
        self.folder.faults.done("take-over 2");
        drop(interim);
        if orphans > 0 {
            let what = format!("{orphans} copies in it are of manifests that are not taken here");
            return self.keep_aside(&path, &what, report);
        }
        fs::rename(&path, &taken).at(&taken)?;
        self.folder.changed(Place::Root);
        self.folder.sync_directories()?;
        self.folder.faults.done("take-over 3");
        fs::remove_dir_all(&taken).at(&taken)
    }

    /// Step 1; how many whole copies nothing here asks for.
    fn take_copies(
        &mut self,
        interim: &Spool,
        report: &mut StartReport,
    ) -> Result<usize, SpoolError> {
        for manifest in interim.manifests_in_order()? {
            self.admit(&manifest, self.opened)?;
            self.commit_if_due()?;
        }
        let mut orphans = 0;
        for (digest, length) in interim.copies(SegmentRow::is_whole)? {
            match self.books.segment(&digest)? {
                None => orphans += 1,
                Some(row) if row.is_whole() || protocol::custody::may_reclaim(row.stage()) => {}
                Some(row) => {
                    self.take_copy(&interim.folder, &digest, &row)?;
                    self.group.bytes += u64::from(length);
                    report.taken_over += 1;
                    self.commit_if_due()?;
                }
            }
        }
        self.barrier(self.opened)?;
        Ok(orphans)
    }

    /// A second name for a file that was verified when it was pulled: the next commit syncs it and books it as whole.
    fn take_copy(
        &mut self,
        from: &Folder,
        digest: &Digest,
        row: &SegmentRow,
    ) -> Result<(), SpoolError> {
        let (old, new) = (from.segment(digest), self.folder.segment(digest));
        remove(&new)?;
        fs::hard_link(&old, &new).at(&new)?;
        self.folder.changed(Place::Segments);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).open(&new).at(&new)?;
        self.partials.remove(digest);
        let mut rec = self.books.recording_of(row)?;
        self.books.change(digest, &mut rec, |row| {
            if row.stage() == Stage::Refused {
                step(row, Event::Retried);
            }
            row.here = true;
            row.prefix = 0;
        })?;
        self.books.save(&rec);
        self.group.whole.push((*digest, file));
        Ok(())
    }

    /// Step 2.
    fn take_words(&mut self, interim: &mut Spool) -> Result<(), SpoolError> {
        for receipt in interim.receipts()? {
            self.receipt(&receipt, self.opened)?;
            self.commit_if_due()?;
        }
        let place = interim.folder.place(Place::Inventories);
        for (name, _) in names_in(&place)? {
            if let Some(inventory) = interim.read_inventory(&place.join(name))? {
                self.inventory(&inventory, self.opened)?;
            }
        }
        let alarms = interim.alarms();
        for a in alarms {
            if SETTLED_BY_A_PERSON.contains(&a.code) {
                self.raise(a.code, &a.subject, &a.what, a.since);
            }
        }
        self.take_notes(interim)?;
        self.barrier(self.opened)
    }

    /// What its logbook notes of contacts, alarms and commands is evidence, too.
    fn take_notes(&mut self, interim: &Spool) -> Result<(), SpoolError> {
        let Some((logbook, mut at)) = Logbook::open(&interim.folder, "logbook")? else {
            return Ok(());
        };
        let (incarnation, mut bytes) = (logbook.incarnation(), 0);
        while let Some(read) = logbook.read(at)? {
            if let Entry::Note(text) = read.entry {
                let note = format!(
                    "from logbook {incarnation}, entry {}, at {} ms: {text}",
                    at.entries, read.time.0
                );
                bytes += note.len();
                self.group.notes.push(note);
            }
            if bytes > NOTES_BYTES {
                self.barrier(self.opened)?;
                bytes = 0;
            }
            at = read.after;
        }
        Ok(())
    }

    fn commit_if_due(&mut self) -> Result<(), SpoolError> {
        if self.commit_is_due() {
            self.barrier(self.opened)?;
        }
        Ok(())
    }

    /// What cannot be taken over stays for a person.
    fn keep_aside(
        &mut self,
        path: &Path,
        what: &str,
        report: &mut StartReport,
    ) -> Result<(), SpoolError> {
        let aside = free_name(&self.folder);
        fs::rename(path, &aside).at(&aside)?;
        self.folder.changed(Place::Root);
        let what = format!("{what}; kept as {}", aside.display());
        report
            .lost
            .push(format!("what came during a rebuild: {what}"));
        self.raise("interim_kept", "interim", &what, self.opened);
        self.barrier(self.opened)
    }

    /// Its manifests, by recording and index.
    fn manifests_in_order(&self) -> Result<Vec<Manifest>, SpoolError> {
        let place = self.folder.place(Place::Manifests);
        let mut all = Vec::new();
        for (name, _) in names_in(&place)? {
            all.extend(self.read_manifest(&place.join(name))?);
        }
        all.sort_by(|a, b| {
            let order = |m: &Manifest| (m.recording().clone(), m.body().index);
            order(a).cmp(&order(b))
        });
        Ok(all)
    }

    fn receipts(&self) -> Result<Vec<Receipt>, SpoolError> {
        let mut all = Vec::new();
        for item in self.books.ledger.scan(&[tag::RECEIPT], None) {
            let row: ReceiptRow = minicbor::decode(&item?.1)
                .map_err(|e| SpoolError::Contradiction(format!("a receipt: {e}")))?;
            let length = usize::try_from(row.length).unwrap_or(usize::MAX);
            let bytes = match self.books.logbook.bytes_at(row.offset, length) {
                Err(SpoolError::Io { source, .. }) if is_unreadable(&source) => continue,
                other => Bytes::from(other?),
            };
            all.extend(Receipt::verify(bytes, &self.books.keys).ok());
        }
        Ok(all)
    }
}

/// A name under which nothing is kept yet.
fn free_name(folder: &Folder) -> PathBuf {
    let names = (1u32..).map(|n| folder.path(&format!("interim.kept-{n}")));
    let mut free = names.into_iter().filter(|p| !p.exists());
    free.next().unwrap_or_else(|| folder.path("interim.kept"))
}
