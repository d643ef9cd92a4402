//! The ledger derived anew from files, manifests, inventories and logbook, into a folder of its own that takes the
//! ledger's place when it is complete. Whatever the ledger says can be derived, but for: which sites answered
//! which offers (they are offered again), pauses after refusals (they are tried at once), resumed prefixes
//! (pulled from 0), alarms (raised again while their cause lasts), and how far the scrub was (it begins anew).
//!
//! A copy counts as whole where the logbook says that it was Held and its file has its length. Where the logbook
//! does not vouch (its end is torn, entries of it are lost, or the copy waited for its header), or the boot is suspect,
//! the copy is read from the disk and its digest decides; one that no barrier is known to have covered is synced first.
//! The successor of a logbook of which entries are lost carries the receipts that can still be read, and the stages of
//! all, before it takes its place.

use std::collections::{BTreeMap, HashMap};
use std::fs;

use bytes::Bytes;
use protocol::custody::{Event, Stage};
use protocol::ids::{Digest, RecordingId};
use protocol::receipt::Receipt;

use crate::books::step;
use crate::error::{AtPath, SpoolError};
use crate::folder::{Folder, Place};
use crate::ledger::{Ledger, Mark};
use crate::limits;
use crate::load::Loaded;
use crate::logbook::{Entry, Logbook};
use crate::mend::names_in;
use crate::rows::{self, tag};
use crate::spool::Spool;
use crate::start::{Deferred, Opening, StartReport};
use crate::succession::{self, Broken};

/// Staged rows after which the new ledger is written: bounds the memory of a rebuild.
const ROWS: usize = 262_144;

/// What the logbook last said of a segment.
#[derive(Clone, Copy)]
struct Said {
    stage: Stage,
    /// Whether its bytes came here since it was last Announced.
    held: bool,
}

/// Builds the ledger anew. Where the boot is suspect, or the logbook torn or entries of it lost, no copy counts unless
/// it is read again.
pub(crate) fn rebuild(
    opening: Opening,
    broken: Option<&Broken>,
    report: &mut StartReport,
    alarms: &mut Deferred,
) -> Result<Spool, SpoolError> {
    let now = opening.now;
    let ledger = Ledger::create(&opening.folder, "ledger.new")?;
    let mut spool = opening.into_spool(ledger, Loaded::default());
    report.manifests_entered = spool.enter_all(report)?;
    spool.apply_newer_inventories(report)?;
    let (said, torn) = match broken {
        None => spool.read_whole_logbook()?,
        Some(broken) => (spool.carry_over(broken.old.as_ref())?, true),
    };
    let changes = spool.judge_copies(&said, torn, report)?;
    match broken {
        None => {
            let end = spool.books.logbook.end();
            report.torn_bytes = spool.books.logbook.cut_after(end, &spool.folder)?;
        }
        Some(broken) => {
            // The successor says all stages; whoever reads it alone knows as much as is known here.
            spool.books.changes = said_last(&said, &changes);
            spool.stage_changes(now)?;
            spool.books.logbook.sync(&spool.folder)?;
            let aside;
            (spool.books.logbook, aside) =
                succession::take_its_place(&mut spool.folder, &spool.books.logbook)?;
            report.begin_logbook(broken, aside, alarms);
        }
    }
    spool.write_rows(0)?;
    let mut spool = reopened(spool)?;
    if broken.is_none() {
        spool.books.changes = changes;
    }
    Ok(spool)
}

/// The spool over the new ledger, which has taken the old one's place.
fn reopened(spool: Spool) -> Result<Spool, SpoolError> {
    let now = spool.opened;
    let Spool {
        folder,
        books,
        hashing,
        trust,
        capacity_bytes,
        marks,
        ledger_bytes,
        signed,
        ..
    } = spool;
    let (logbook, keys) = (books.logbook, books.keys);
    drop(books.ledger);
    let mut opening = Opening {
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
    };
    take_its_place(&mut opening.folder)?;
    let mut loaded = Loaded::default();
    let (ledger, mark) = Ledger::open(&opening.folder, "ledger", &mut None, |k, v| {
        loaded.read(k, v)
    })?;
    // sled takes what it cannot read for what is not there; without rows every copy here would be nobody's.
    let (incarnation, end) = (opening.logbook.incarnation(), opening.logbook.end());
    if mark.is_none_or(|m| m.incarnation != incarnation || m.position != end) {
        let what = "the rebuilt ledger is not as it was written";
        return Err(SpoolError::Contradiction(what.into()));
    }
    Ok(opening.into_spool(ledger, loaded))
}

/// The stage of every segment: as the old logbook said last, and as the copies changed it.
fn said_last(said: &HashMap<Digest, Said>, changes: &[(Digest, Stage)]) -> Vec<(Digest, Stage)> {
    let mut all: BTreeMap<Digest, Stage> = said.iter().map(|(d, s)| (*d, s.stage)).collect();
    all.extend(changes.iter().copied());
    all.into_iter().collect()
}

fn take_its_place(folder: &mut Folder) -> Result<(), SpoolError> {
    let (new, place) = (folder.path("ledger.new"), folder.path("ledger"));
    if place.exists() {
        fs::remove_dir_all(&place).at(&place)?;
    }
    fs::rename(&new, &place).at(&place)?;
    folder.changed(Place::Root);
    folder.sync_directories()?;
    // What a process left that ended in the old ledger is no doubt of the new one.
    Ledger::forget_doubt(folder, "ledger")
}

/// Copies the logbook, as the disk has it, into a new file: after a failed sync no page of the old one is trusted.
pub(crate) fn renew_logbook(folder: &mut Folder) -> Result<(), SpoolError> {
    let (old, new) = (folder.path("logbook"), folder.path("logbook.new"));
    if old.exists() {
        folder.copy_from_disk(&old, &new)?;
        folder.sync_path(&new)?;
        fs::rename(&new, &old).at(&old)?;
        folder.changed(Place::Root);
        folder.sync_directories()?;
    }
    Ok(())
}

impl Spool {
    /// Writes staged rows to the ledger that nobody uses yet, if they are more than `above`.
    fn write_rows(&mut self, above: usize) -> Result<(), SpoolError> {
        if self.books.ledger.staged() > above || above == 0 {
            let mark = Mark {
                incarnation: self.books.logbook.incarnation(),
                position: self.books.logbook.end(),
            };
            self.books.ledger.sync_in_parts(&self.folder, mark)?;
        }
        self.books.changes.clear();
        Ok(())
    }

    /// Enters every manifest on the disk, by recording and index.
    fn enter_all(&mut self, report: &mut StartReport) -> Result<usize, SpoolError> {
        let place = self.folder.place(Place::Manifests);
        let mut order: Vec<(RecordingId, u32, String)> = Vec::new();
        for (name, _) in names_in(&place)? {
            match self.read_manifest(&place.join(&name))? {
                Some(m) if m.digest().to_string() == name => {
                    order.push((m.recording().clone(), m.body().index, name))
                }
                _ => report.manifest_is_damaged(&name),
            }
        }
        order.sort();
        for (_, _, name) in &order {
            // It was read a moment ago; a disk may fail in between.
            let Some(manifest) = self.read_manifest(&place.join(name))? else {
                report.manifest_is_damaged(name);
                continue;
            };
            let camera = self
                .books
                .names
                .intern_camera(&manifest.recording().camera, &mut self.books.ledger);
            self.enter(camera, &manifest)?;
            self.write_rows(ROWS)?;
        }
        Ok(order.len())
    }

    /// Reads the logbook from its beginning: attaches receipts, and gathers what it last said of each segment that
    /// a manifest names. Also whether bytes are left after its last whole entry.
    fn read_whole_logbook(&mut self) -> Result<(HashMap<Digest, Said>, bool), SpoolError> {
        let mut said: HashMap<Digest, Said> = HashMap::new();
        while let Some(read) = self.books.logbook.read(self.books.logbook.end())? {
            self.books.logbook.go_to(read.after);
            let at = read.body_offset;
            self.take_entry(read.entry, &mut said, |_, _| at)?;
            self.write_rows(ROWS)?;
        }
        let path = self.books.logbook.path();
        let length = fs::metadata(path).at(path)?.len();
        Ok((said, length > self.books.logbook.end().offset))
    }

    /// The same, without the rest, from an old logbook whose receipts that count here go to the new one.
    fn carry_over(&mut self, old: Option<&Logbook>) -> Result<HashMap<Digest, Said>, SpoolError> {
        let mut said: HashMap<Digest, Said> = HashMap::new();
        let now = self.opened;
        let mut at = old.map(Logbook::end);
        while let Some((old, from)) = old.zip(at) {
            let Some(read) = old.read(from)? else { break };
            at = Some(read.after);
            self.take_entry(read.entry, &mut said, |logbook, entry| {
                logbook.stage(entry, now)
            })?;
            if self.books.logbook.staged_bytes() > limits::LOGBOOK_ENTRY_BYTES {
                self.books.logbook.sync(&self.folder)?;
            }
            self.write_rows(ROWS)?;
        }
        Ok(said)
    }

    /// `place` says where in the logbook a receipt that counts lies.
    fn take_entry(
        &mut self,
        entry: Entry,
        said: &mut HashMap<Digest, Said>,
        place: impl FnOnce(&mut Logbook, &Entry) -> u64,
    ) -> Result<(), SpoolError> {
        match entry {
            Entry::Note(_) => {}
            Entry::Receipt(bytes) => {
                let bytes = Bytes::from(bytes);
                let Ok(receipt) = Receipt::verify(bytes.clone(), &self.books.keys) else {
                    return Ok(());
                };
                self.count_forgotten(&receipt)?;
                if let Some(digests) = self.gains(&receipt)? {
                    let entry = Entry::Receipt(bytes.into());
                    let offset = place(&mut self.books.logbook, &entry);
                    self.attach(&receipt, offset, &digests)?;
                }
            }
            Entry::Custody { changes, .. } => {
                for (digest, stage) in changes {
                    if self.books.segment(&digest)?.is_some() {
                        let before = said.get(&digest).is_some_and(|s| s.held);
                        let held = stage == Stage::Held || (before && stage != Stage::Announced);
                        said.insert(digest, Said { stage, held });
                    }
                }
            }
        }
        Ok(())
    }

    /// Decides which copies are whole, headers first, and what stage follows; the changes against what the
    /// logbook last said are for its next entry.
    fn judge_copies(
        &mut self,
        said: &HashMap<Digest, Said>,
        torn: bool,
        report: &mut StartReport,
    ) -> Result<Vec<(Digest, Stage)>, SpoolError> {
        let suspect = report.suspect;
        let mut order = Vec::new();
        for item in self.books.ledger.scan(&[tag::SEGMENTS], None) {
            let (key, _) = item?;
            order.extend(rows::digest_at_end(&key));
        }
        let mut changes = Vec::new();
        for digest in order {
            let Some(row) = self.books.segment(&digest)? else {
                continue;
            };
            let before = said.get(&digest).copied();
            let vouched = before.is_some_and(|s| s.held);
            let here = self
                .folder
                .open_segment(&digest, row.length, false)?
                .is_some();
            if here {
                let whole = if torn || suspect || !vouched {
                    // In a suspect boot a sync says nothing: there only what is read from the disk counts.
                    if !vouched && !suspect {
                        self.folder.sync_path(&self.folder.segment(&digest))?;
                        self.folder.changed(Place::Segments);
                    }
                    self.is_good_on_disk(&digest)?
                } else {
                    true
                };
                if whole {
                    self.bytes_are_whole(&digest)?;
                } else if vouched {
                    self.copy_is_lost(&digest, &row, self.opened)?;
                }
            } else if before.is_some_and(|s| s.stage == Stage::Held) {
                self.copy_is_lost(&digest, &row, self.opened)?;
            }
            let mut rec = self.books.recording_of(&row)?;
            let row = self.books.change(&digest, &mut rec, |row| {
                match (before.map(|s| s.stage), row.stage()) {
                    (Some(Stage::Released), Stage::Archived) => _ = step(row, Event::Released),
                    // What was Held stays so, also where its header was lost since and is pulled again.
                    (Some(Stage::Held), Stage::Announced) if row.is_whole() => {
                        step(row, Event::Committed);
                    }
                    (Some(Stage::Refused), Stage::Announced) if !row.is_whole() => {
                        step(row, Event::Refused);
                        row.tries = 1;
                    }
                    _ => {}
                }
            })?;
            self.books.save(&rec);
            if before.is_none_or(|s| s.stage != row.stage()) {
                let gone = before.is_some_and(|s| s.stage == Stage::Held)
                    && row.stage() == Stage::Announced;
                report.missing += usize::from(gone);
                changes.push((digest, row.stage()));
            }
            self.write_rows(ROWS)?;
        }
        Ok(changes)
    }
}
