//! A spool that nobody uses, looked at: locked, and not mended. Its ledger is read from a copy in a folder of the
//! caller's, since opening it writes; where that copy does not open, files are compared with their names alone.
//!
//! Besides what [`Spool::verify_step`] does, the rows are compared with what they derive from: stages with the
//! logbook, queues with the records, receipts with the logbook's bytes. Nothing in the spool's folder changes.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use protocol::custody::Stage;
use protocol::identity::Trust;
use protocol::ids::{Digest, Incarnation, Time};
use protocol::keylist::KeyList;
use protocol::receipt::Receipt;

use crate::countersigned::{self, Countersigned};
use crate::error::{AtPath, SpoolError};
use crate::folder::{Folder, Place};
use crate::hashing::HashThread;
use crate::interim::INTERIM;
use crate::ledger::{Ledger, Mark};
use crate::load::Loaded;
use crate::logbook::{Entry, Logbook};
use crate::rows::{self, ManifestRow, ReceiptRow, SegmentRow, tag};
use crate::spool::{Options, Spool};
use crate::start::Opening;
use crate::verify::{ASK_CAMERA, CHECK_DISK, Problem, RECOVER, Stages, VerifyFrom, VerifyStep};

const START: &str = "start the daemon: it mends what it can, and says so";
const SUSPECT: &str =
    "a sync failed since the machine started: what is read here may not be what the disk holds";
const NOT_TAKEN_OVER: &str =
    "it holds what came while the ledger was rebuilt, and is not taken over yet";
const NEXT_SIGNATURE: &str =
    "the running daemon keeps the next countersignature anew; check the disk (smartctl, dmesg)";
const INTERRUPTED: &str =
    "it was never whole, or it is damaged: `repeaterd recover` finds out which";

/// Queues, all of whose keys derive from segments and manifests.
const QUEUES: [u8; 7] = [
    tag::PULL,
    tag::PUT,
    tag::OFFER,
    tag::RECLAIM,
    tag::EARLY,
    tag::UNACCOUNTED,
    tag::RETRY,
];

/// A spool that is looked at.
#[derive(Debug)]
pub struct Look {
    spool: Spool,
    /// Whether the rows can be relied on.
    rows: bool,
    /// Names in `segments` and `manifests`, where they cannot.
    names: [Vec<Digest>; 2],
    /// What became Held behind the ledger's mark: the next start enters it.
    behind: Vec<Digest>,
    stages: Stages,
    /// The logbook says that a site countersigned.
    noted: bool,
    problems: Vec<Problem>,
    total_bytes: u64,
}

/// Opens the copy of a ledger that [`Look::open`] made, to find out whether a process survives it.
///
/// # Errors
/// [`SpoolError`] where it does not open.
pub fn try_ledger(scratch: &Path) -> Result<(), SpoolError> {
    let folder = Folder::open(scratch, scratch, crate::Faults::none())?;
    Ledger::open(&folder, "ledger", &mut None, |_, _| Ok(())).map(drop)
}

impl Look {
    /// Locks the spool and reads its ledger from a copy in `scratch`, an empty folder. `tried` is called when the copy
    /// is made: another process may try it first.
    ///
    /// # Errors
    /// [`SpoolError::InUse`], [`SpoolError::NewerFormat`], and what the disk says.
    pub fn open(
        options: &Options,
        trust: Trust,
        keys: KeyList,
        scratch: &Path,
        tried: impl FnOnce(&Path),
        now: Time,
    ) -> Result<Look, SpoolError> {
        let folder = Folder::look(&options.dir, &options.suspect_dir)?;
        let mut problems = Vec::new();
        let interim = folder.path(INTERIM);
        if folder.is_suspect() {
            problems.push(Problem::of(&options.dir, SUSPECT, START));
        }
        if interim.exists() {
            problems.push(Problem::of(&interim, NOT_TAKEN_OVER, START));
        }
        let keys = find_keys(&folder, &trust, keys, &mut problems);
        let copied = folder.path("ledger").is_dir();
        if copied {
            copy_all(&folder.path("ledger"), &scratch.join("ledger"))?;
            tried(scratch);
        }
        let mut room = Folder::open(scratch, scratch, options.faults.clone())?;
        let (own, known) = find_ledger(&folder, copied.then_some(&room), &mut problems);
        let (logbook, behind) = find_logbook(&folder, &mut room, known, &mut problems)?;
        // One that a sync never reached, beside a logbook that says much, has lost all it had.
        let lost = own.is_some() && known.is_none() && logbook.end().entries > 0;
        if lost {
            let what = "it knows nothing of what the logbook says";
            problems.push(Problem::of(&folder.path("ledger"), what, RECOVER));
        }
        let own = own.filter(|_| !lost);
        let rows = own.is_some();
        let (ledger, loaded) = match own {
            Some(own) => own,
            None => (Ledger::create(&room, "none")?, Loaded::default()),
        };
        let names = [Place::Segments, Place::Manifests].map(|p| digests_in(&folder.place(p)));
        let length = |d: &Digest| fs::metadata(folder.segment(d)).map_or(0, |m| m.len());
        let total_bytes = names[0].iter().map(length).sum();
        let signed = Countersigned::read(&folder, &keys)?;
        let path = folder.path(countersigned::NAME);
        let damage = signed.damage();
        problems.extend(damage.map(|why| Problem::of(&path, why, NEXT_SIGNATURE)));
        let opening = Opening {
            hashing: HashThread::start().at(&options.dir)?,
            folder,
            logbook,
            signed,
            keys,
            trust,
            capacity_bytes: options.capacity_bytes,
            marks: options.marks,
            ledger_bytes: options.ledger_bytes,
            now,
        };
        Ok(Look {
            spool: opening.into_spool(ledger, loaded),
            rows,
            names,
            behind,
            stages: HashMap::new(),
            noted: false,
            problems,
            total_bytes,
        })
    }

    /// Bytes of all copies, whole or not.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// As [`Spool::verify_step`], and the rows at last.
    ///
    /// # Errors
    /// [`SpoolError`] where a row cannot be read.
    pub fn step(&mut self, from: VerifyFrom, budget_bytes: u64) -> Result<VerifyStep, SpoolError> {
        let mut step = match from {
            VerifyFrom::Copies(from) if !self.rows => self.copies_by_name(from, budget_bytes),
            VerifyFrom::Copies(_) => {
                let mut step = self.spool.verify_step(from, budget_bytes)?;
                for digest in std::mem::take(&mut self.behind) {
                    self.copy_by_name(&digest, CHECK_DISK, &mut step);
                }
                step
            }
            VerifyFrom::Manifests(from) if !self.rows => self.manifests_by_name(from, budget_bytes),
            VerifyFrom::Logbook(at) => {
                let Look {
                    spool,
                    stages,
                    noted,
                    ..
                } = self;
                let mut each = |entry| match entry {
                    Entry::Custody { changes, .. } => stages.extend(changes),
                    Entry::Note(text) => *noted |= countersigned::is_note(&text),
                    Entry::Receipt(_) => {}
                };
                let mut step = spool.verify_logbook(at, budget_bytes, &mut each)?;
                if step.next.is_none() && *noted && spool.signed.is_missing() {
                    let what = "it is gone, and the logbook says that archives countersigned";
                    let path = spool.folder.path(countersigned::NAME);
                    step.problems.push(Problem::of(&path, what, NEXT_SIGNATURE));
                }
                if step.next.is_none() && self.rows && step.problems.is_empty() {
                    step.next = Some(VerifyFrom::Rows);
                }
                step
            }
            VerifyFrom::Rows => self.verify_rows()?,
            other => self.spool.verify_step(other, budget_bytes)?,
        };
        step.problems.append(&mut self.problems);
        Ok(step)
    }

    fn copies_by_name(&self, from: Digest, budget_bytes: u64) -> VerifyStep {
        let mut step = VerifyStep::before(VerifyFrom::Manifests(Digest([0; 32])));
        for digest in self.names[0].iter().filter(|d| **d >= from) {
            if step.is_full(budget_bytes) {
                step.next = Some(VerifyFrom::Copies(*digest));
                break;
            }
            self.copy_by_name(digest, INTERRUPTED, &mut step);
        }
        step
    }

    fn copy_by_name(&self, digest: &Digest, mend: &'static str, step: &mut VerifyStep) {
        let path = self.spool.folder.segment(digest);
        let length = fs::metadata(&path).map_or(0, |m| m.len());
        step.count(length);
        match self
            .spool
            .copy_is_wrong(digest, u32::try_from(length).unwrap_or(u32::MAX))
        {
            None => {
                step.good.copies += 1;
                step.good.bytes += length;
            }
            Some(what) => step.problems.push(Problem::of(&path, what, mend)),
        }
    }

    fn manifests_by_name(&self, from: Digest, budget_bytes: u64) -> VerifyStep {
        let mut step = VerifyStep::before(VerifyFrom::Logbook(None));
        for digest in self.names[1].iter().filter(|d| **d >= from) {
            if step.is_full(budget_bytes) {
                step.next = Some(VerifyFrom::Manifests(*digest));
                break;
            }
            let path = self.spool.folder.manifest(digest);
            let read = self.spool.read_manifest(&path);
            step.count(fs::metadata(&path).map_or(0, |m| m.len()));
            if matches!(read, Ok(Some(m)) if m.digest() == *digest) {
                step.good.manifests += 1;
            } else {
                let what = "it is no manifest that verifies under this digest";
                step.problems.push(Problem::of(&path, what, ASK_CAMERA));
            }
        }
        step
    }

    /// The rows against the logbook and against each other.
    fn verify_rows(&self) -> Result<VerifyStep, SpoolError> {
        let mut step = VerifyStep::default();
        let (books, mut derived) = (&self.spool.books, 0);
        let path: PathBuf = self.spool.folder.path("ledger");
        let wrong = |what: String| Problem::of(&path, what, RECOVER);
        for item in books.ledger.scan(&[tag::SEGMENT], None) {
            let (key, value) = item?;
            let row: SegmentRow = decode(&value)?;
            let Some(digest) = rows::digest_at_end(&key) else {
                continue;
            };
            let rec = books.recording_of(&row)?;
            let queues = rows::segment_queues(&digest, &row, &rec.row);
            derived += queues.len();
            let said = self.stages.get(&digest).copied();
            if said != Some(row.stage()) {
                let said = said.map_or("nothing".to_owned(), |s| s.to_string());
                let what = format!(
                    "the row of {digest} says {}, the logbook {said}",
                    row.stage()
                );
                step.problems.push(Problem {
                    recording: Some(self.spool.recording_id(&row)?),
                    ..wrong(what)
                });
            } else if !self.all_there(&queues)? {
                step.problems
                    .push(wrong(format!("{digest} stands in a queue too few")));
            } else {
                step.good.rows += 1;
            }
        }
        for item in books.ledger.scan(&[tag::MANIFEST], None) {
            let (key, value) = item?;
            let row: ManifestRow = decode(&value)?;
            let Some(digest) = rows::digest_at_end(&key) else {
                continue;
            };
            let Some(rec) = books.recording(row.camera, row.number)? else {
                step.problems
                    .push(wrong(format!("manifest {digest} has no recording")));
                continue;
            };
            let queues = rows::manifest_queues(&digest, &row, &rec.row);
            derived += queues.len();
            if self.all_there(&queues)? {
                step.good.rows += 1;
            } else {
                step.problems.push(wrong(format!(
                    "manifest {digest} stands in a queue too few"
                )));
            }
        }
        let mut stand = 0;
        for queue in QUEUES {
            stand += books.ledger.scan(&[queue], None).count();
        }
        if stand != derived {
            step.problems.push(wrong(format!(
                "{stand} keys of queues, of which {derived} derive from rows"
            )));
        }
        self.verify_receipts(&mut step)?;
        Ok(step)
    }

    fn verify_receipts(&self, step: &mut VerifyStep) -> Result<(), SpoolError> {
        let books = &self.spool.books;
        for item in books.ledger.scan(&[tag::RECEIPT], None) {
            let row: ReceiptRow = decode(&item?.1)?;
            let bytes = self.spool.receipt_bytes(&row)?;
            if bytes.is_some_and(|b| Receipt::verify(b, &books.keys).is_ok()) {
                step.good.rows += 1;
            } else {
                let what = format!(
                    "receipt {} is not at its place, or does not verify",
                    row.digest
                );
                let path = self.spool.folder.path("logbook");
                step.problems.push(Problem::of(&path, what, RECOVER));
            }
        }
        Ok(())
    }

    fn all_there(&self, keys: &[rows::Key]) -> Result<bool, SpoolError> {
        for key in keys {
            if !self.spool.books.ledger.has(key)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The key list under which the rows were judged; the given one where none can be read.
fn find_keys(
    folder: &Folder,
    trust: &Trust,
    given: KeyList,
    problems: &mut Vec<Problem>,
) -> KeyList {
    let path = folder.path("key-list");
    let stored = fs::read(&path).ok();
    match stored.map(|b| KeyList::verify(b.into(), trust.root_keys())) {
        Some(Ok(stored)) => stored,
        _ => {
            problems.push(Problem::of(&path, "it is no key list that verifies", START));
            given
        }
    }
}

/// The ledger of the copy, if it opens, and how far it says that the logbook went.
fn find_ledger(
    folder: &Folder,
    room: Option<&Folder>,
    problems: &mut Vec<Problem>,
) -> (Option<(Ledger, Loaded)>, Option<Mark>) {
    let (mut loaded, mut known) = (Loaded::default(), None);
    let opened = room.map(|r| Ledger::open(r, "ledger", &mut known, |k, v| loaded.read(k, v)));
    let what = match opened {
        Some(Ok((ledger, _))) => return (Some((ledger, loaded)), known),
        Some(Err(e)) => e.to_string(),
        None => "there is none".to_owned(),
    };
    problems.push(Problem::of(&folder.path("ledger"), what, RECOVER));
    (None, known)
}

/// The logbook, at the place up to which it is to be read, and what became Held behind that.
fn find_logbook(
    folder: &Folder,
    room: &mut Folder,
    known: Option<Mark>,
    problems: &mut Vec<Problem>,
) -> Result<(Logbook, Vec<Digest>), SpoolError> {
    let Some((mut logbook, _)) = Logbook::open(folder, "logbook")? else {
        // That it is gone is said when its turn comes.
        let empty = Logbook::create(room, "logbook", Incarnation([0; 16]))?;
        return Ok((empty, Vec::new()));
    };
    match known {
        Some(mark) if mark.incarnation == logbook.incarnation() => {
            logbook.go_to(mark.position);
            let (entries, behind) = held_behind(&logbook)?;
            if entries > 0 {
                let what = format!("it lags the logbook by {entries} entries");
                problems.push(Problem::of(&folder.path("ledger"), what, START));
            }
            return Ok((logbook, behind));
        }
        Some(_) => {
            let what = "it is not the one that the ledger knows";
            problems.push(Problem::of(&folder.path("logbook"), what, RECOVER));
        }
        None => problems.extend(go_to_the_end(&mut logbook)?),
    }
    Ok((logbook, Vec::new()))
}

fn digests_in(place: &Path) -> Vec<Digest> {
    let listed = fs::read_dir(place).into_iter().flatten();
    let name = |e: fs::DirEntry| Digest::from_hex(&e.file_name().to_string_lossy());
    let mut names: Vec<Digest> = listed.flatten().filter_map(name).collect();
    names.sort_unstable();
    names
}

/// How many entries are behind the mark, and what they say is Held at last.
fn held_behind(logbook: &Logbook) -> Result<(u64, Vec<Digest>), SpoolError> {
    let (mut at, mut said) = (logbook.end(), Stages::new());
    while let Some(read) = logbook.read(at)? {
        at = read.after;
        if let Entry::Custody { changes, .. } = read.entry {
            said.extend(changes);
        }
    }
    let held = said.into_iter().filter(|(_, stage)| *stage == Stage::Held);
    let entries = at.entries - logbook.end().entries;
    Ok((entries, held.map(|(digest, _)| digest).collect()))
}

/// Where no mark says how far it went: as far as its chain holds.
fn go_to_the_end(logbook: &mut Logbook) -> Result<Option<Problem>, SpoolError> {
    while let Some(read) = logbook.read(logbook.end())? {
        logbook.go_to(read.after);
    }
    let (path, end) = (logbook.path(), logbook.end());
    let behind = fs::metadata(path)
        .at(path)?
        .len()
        .saturating_sub(end.offset);
    let what = format!("{behind} bytes behind entry {} are no entry", end.entries);
    Ok((behind > 0).then(|| Problem::of(path, what, RECOVER)))
}

fn decode<R: for<'b> minicbor::Decode<'b, ()>>(value: &[u8]) -> Result<R, SpoolError> {
    minicbor::decode(value).map_err(|e| SpoolError::Contradiction(format!("a row: {e}")))
}

fn copy_all(from: &Path, to: &Path) -> Result<(), SpoolError> {
    fs::create_dir_all(to).at(to)?;
    for entry in fs::read_dir(from).at(from)? {
        let path = entry.at(from)?.path();
        let Some(name) = path.file_name() else {
            continue;
        };
        if path.is_dir() {
            copy_all(&path, &to.join(name))?;
        } else {
            fs::copy(&path, to.join(name)).at(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
