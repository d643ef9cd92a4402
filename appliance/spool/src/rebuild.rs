//! The ledger derived anew from files, manifests, inventories and logbook, into a folder of its own that takes the
//! ledger's place when it is complete. Whatever the ledger says can be derived, but for: which sites answered
//! which offers (they are offered again), pauses after refusals (they are tried at once), resumed prefixes
//! (pulled from 0), and alarms (raised again while their cause lasts).
//!
//! A copy counts as whole where the logbook says that it was Held and its file has its length. Where the logbook
//! does not vouch (its end is torn, or the copy waited for its header), or the boot is suspect, the copy is read from
//! the disk and its digest decides; one that no barrier is known to have covered is synced first.

use std::collections::HashMap;
use std::fs;

use bytes::Bytes;
use protocol::custody::{Event, Stage};
use protocol::ids::{Digest, RecordingId, Time};
use protocol::receipt::Receipt;

use crate::books::step;
use crate::error::{AtPath, SpoolError};
use crate::folder::{Folder, Place};
use crate::ledger::{Ledger, Mark};
use crate::load::Loaded;
use crate::logbook::Entry;
use crate::mend::names_in;
use crate::rows::{self, tag};
use crate::spool::Spool;
use crate::start::{Opening, StartReport};

/// Staged rows after which the new ledger is written: bounds the memory of a rebuild.
const ROWS: usize = 65_536;

/// What the logbook last said of a segment.
#[derive(Clone, Copy)]
struct Said {
    stage: Stage,
    /// Whether its bytes came here since it was last Announced.
    held: bool,
}

/// Builds the ledger anew. `suspect`: no copy counts unless it is read again.
pub(crate) fn rebuild(
    opening: Opening,
    suspect: bool,
    report: &mut StartReport,
) -> Result<Spool, SpoolError> {
    let now = opening.now;
    let ledger = Ledger::create(&opening.folder, "ledger.new")?;
    let mut spool = opening.into_spool(ledger, Loaded::default());
    let manifests = spool.enter_all(report)?;
    spool.apply_newer_inventories()?;
    let (said, torn) = spool.read_whole_logbook()?;
    let changes = spool.judge_copies(&said, torn > 0, suspect, now)?;
    if torn > 0 {
        let aside = spool.folder.path("logbook.torn");
        fs::copy(spool.books.logbook.path(), &aside).at(&aside)?;
        report.lost.push(format!(
            "{torn} bytes at the logbook's end, kept in logbook.torn"
        ));
    }
    let end = spool.books.logbook.end();
    report.torn_bytes = spool.books.logbook.cut_after(end, &spool.folder)?;
    report.manifests_entered = manifests;
    spool.write_rows(0)?;
    let Spool {
        folder,
        books,
        trust,
        capacity_bytes,
        marks,
        ..
    } = spool;
    let (logbook, keys) = (books.logbook, books.keys);
    drop(books.ledger);
    let mut opening = Opening {
        folder,
        logbook,
        keys,
        trust,
        capacity_bytes,
        marks,
        now,
    };
    take_its_place(&mut opening.folder)?;
    let mut loaded = Loaded::default();
    let (ledger, _) = Ledger::open(&opening.folder, "ledger", |k, v| loaded.read(k, v))?;
    let mut spool = opening.into_spool(ledger, loaded);
    spool.books.changes = changes;
    Ok(spool)
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
            self.books.ledger.sync(&self.folder, mark)?;
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
                _ => report.lost.push(format!("manifest {name} is damaged")),
            }
        }
        order.sort();
        for (_, _, name) in &order {
            let Some(manifest) = self.read_manifest(&place.join(name))? else {
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
    /// a manifest names. Also how many bytes are left after its last whole entry.
    fn read_whole_logbook(&mut self) -> Result<(HashMap<Digest, Said>, u64), SpoolError> {
        let mut said: HashMap<Digest, Said> = HashMap::new();
        while let Some(read) = self.books.logbook.read(self.books.logbook.end())? {
            self.books.logbook.go_to(read.after);
            match read.entry {
                Entry::Note(_) => {}
                Entry::Receipt(bytes) => {
                    let Ok(receipt) = Receipt::verify(Bytes::from(bytes), &self.books.keys) else {
                        continue;
                    };
                    if let Some(digests) = self.gains(&receipt)? {
                        self.attach(&receipt, read.body_offset, &digests)?;
                    }
                    self.write_rows(ROWS)?;
                }
                Entry::Custody { changes, .. } => {
                    for (digest, stage) in changes {
                        if self.books.segment(&digest)?.is_some() {
                            let before = said.get(&digest).is_some_and(|s| s.held);
                            let held =
                                stage == Stage::Held || (before && stage != Stage::Announced);
                            said.insert(digest, Said { stage, held });
                        }
                    }
                }
            }
        }
        let path = self.books.logbook.path();
        let length = fs::metadata(path).at(path)?.len();
        Ok((said, length.saturating_sub(self.books.logbook.end().offset)))
    }

    /// Decides which copies are whole, headers first, and what stage follows; the changes against what the
    /// logbook last said are for its next entry.
    fn judge_copies(
        &mut self,
        said: &HashMap<Digest, Said>,
        torn: bool,
        suspect: bool,
        now: Time,
    ) -> Result<Vec<(Digest, Stage)>, SpoolError> {
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
            if self
                .folder
                .open_segment(&digest, row.length, false)?
                .is_some()
            {
                let vouched = before.is_some_and(|s| s.held);
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
                    self.copy_is_lost(&digest, &row, now)?;
                }
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
                changes.push((digest, row.stage()));
            }
            self.write_rows(ROWS)?;
        }
        Ok(changes)
    }
}
