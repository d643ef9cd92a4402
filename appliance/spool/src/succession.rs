//! Where one logbook ends and another begins. A logbook of which acknowledged entries are lost is not gone on with:
//! a new incarnation follows it, whose first entry names the last head that is known, so that whoever holds that
//! head can tell what is missing. The old file is kept beside it as `logbook.damaged`.
//!
//! | what is found | what follows |
//! |---|---|
//! | the chain reaches the ledger's mark | the same incarnation; a torn tail behind the mark was never acknowledged |
//! | it breaks before the mark, or is another's | a new one, which names the mark |
//! | it breaks, and no mark can be read | a new one, which names the last entry that can be read |
//! | no file, or no beginning, though there are footage or rows | a new one, which names the mark, if there is one |
//!
//! The new one carries the receipts that can still be read and the stages of all segments, so that a ledger can be
//! rebuilt from it as from the old one. It is complete, as `logbook.new`, before it takes the old one's name: a process
//! that is killed in between finds the old one again. How far a countersigned head goes is not known here yet.

use std::fs;
use std::path::PathBuf;

use protocol::ids::{Incarnation, Time};
use protocol::suite::sha256;

use crate::error::{AtPath, SpoolError};
use crate::folder::{Folder, Place};
use crate::ledger::Mark;
use crate::limits;
use crate::logbook::{Entry, Logbook, LogbookHead};
use crate::rows::{self, ReceiptRow, SegmentRow, tag};
use crate::spool::Spool;

const NEW: &str = "logbook.new";

/// What the ledger knows of how far the logbook went.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Last {
    /// It cannot be asked.
    Unknown,
    /// Nothing was ever acknowledged.
    Nothing,
    /// So far.
    Head(Mark),
}

/// A logbook of which entries are lost.
pub(crate) struct Broken {
    /// What can still be read of it; none where its beginning is gone.
    pub(crate) old: Option<Logbook>,
    /// What its successor's first entry says.
    pub(crate) what: String,
}

/// The logbook of a start: the one that is there, or, where that is incomplete, its successor, which
/// [`take_its_place`] names.
pub(crate) fn open(
    folder: &mut Folder,
    last: Last,
    quick: bool,
    (fresh, now): ([u8; 16], Time),
) -> Result<(Logbook, Option<Broken>), SpoolError> {
    let old = Logbook::open(folder, "logbook")?.map(|(logbook, _)| logbook);
    let (head, why) = match (&old, last) {
        (None, Last::Nothing) => {
            return Ok((
                Logbook::create(folder, "logbook", Incarnation(fresh))?,
                None,
            ));
        }
        (None, Last::Head(mark)) => (
            Some(head_of(mark)),
            "it is missing or has lost its beginning".into(),
        ),
        (None, Last::Unknown) => (None, "it is missing or has lost its beginning".into()),
        (Some(logbook), last) => match lost(logbook, last, quick)? {
            None => return Ok((old.expect("it was matched"), None)),
            Some((head, why)) => (Some(head), why),
        },
    };
    let what = match head {
        Some(h) => format!(
            "follows logbook {}, entry {}, chain hash {}: {why}",
            h.incarnation, h.entries, h.hash
        ),
        None => format!("follows a logbook of which no head is known: {why}"),
    };
    let mut new = Logbook::create(folder, NEW, Incarnation(fresh))?;
    new.stage(&Entry::Note(what.clone()), now);
    new.sync(folder)?;
    Ok((new, Some(Broken { old, what })))
}

/// The last head that is known of a logbook, and what of it is lost; none where nothing is. `quick`: the ledger's
/// mark vouches for what is before it.
fn lost(
    logbook: &Logbook,
    last: Last,
    quick: bool,
) -> Result<Option<(LogbookHead, String)>, SpoolError> {
    let mark = match last {
        Last::Head(mark) if mark.incarnation != logbook.incarnation() => {
            let why = format!("its place is taken by logbook {}", logbook.incarnation());
            return Ok(Some((head_of(mark), why)));
        }
        Last::Head(mark) => Some(mark),
        Last::Nothing | Last::Unknown => None,
    };
    if let Some(mark) = mark.filter(|_| quick) {
        let reaches = logbook.passes(mark.position)?;
        return Ok((!reaches).then(|| (head_of(mark), "it ends or breaks before that".into())));
    }
    let (mut at, mut reached) = (logbook.end(), false);
    loop {
        reached |= mark.is_some_and(|m| m.position == at);
        match logbook.read(at)? {
            Some(read) => at = read.after,
            None => break,
        }
    }
    let broken_off = fs::metadata(logbook.path()).at(logbook.path())?.len() > at.offset;
    let complete = match last {
        Last::Head(_) => reached,
        Last::Nothing => true,
        Last::Unknown => !broken_off,
    };
    let read = LogbookHead {
        incarnation: logbook.incarnation(),
        entries: at.entries,
        hash: at.hash,
    };
    let why = format!("only {} entries of it can be read", at.entries);
    Ok((!complete).then(|| (mark.map_or(read, head_of), why)))
}

fn head_of(mark: Mark) -> LogbookHead {
    LogbookHead {
        incarnation: mark.incarnation,
        entries: mark.position.entries,
        hash: mark.position.hash,
    }
}

/// Gives the new logbook, synced, its name, and says where the old one is kept.
pub(crate) fn take_its_place(
    folder: &mut Folder,
    new: &Logbook,
) -> Result<(Logbook, Option<PathBuf>), SpoolError> {
    let (place, end) = (folder.path("logbook"), new.end());
    let mut aside = None;
    if place.exists() {
        let names = (1u32..).map(|n| folder.path(&format!("logbook.damaged-{n}")));
        let free = names
            .into_iter()
            .find(|p| !p.exists())
            .unwrap_or_else(|| folder.path("logbook.damaged"));
        // A second name first, so that there is a logbook at every moment.
        fs::hard_link(&place, &free).at(&free)?;
        aside = Some(free);
    }
    fs::rename(folder.path(NEW), &place).at(&place)?;
    folder.changed(Place::Root);
    folder.sync_directories()?;
    let Some((mut logbook, _)) = Logbook::open(folder, "logbook")? else {
        return Err(SpoolError::Contradiction("the logbook is gone".into()));
    };
    logbook.cut_after(end, folder)?;
    Ok((logbook, aside))
}

impl Spool {
    /// Puts into the new logbook what the rows know: the receipts that the old one still has, and all stages.
    pub(crate) fn carry_rows(&mut self, old: Option<&Logbook>) -> Result<(), SpoolError> {
        let now = self.opened;
        let mut receipts = Vec::new();
        for item in self.books.ledger.scan(&[tag::RECEIPT], None) {
            let (key, value) = item?;
            let row: ReceiptRow = minicbor::decode(&value)
                .map_err(|e| SpoolError::Contradiction(format!("a receipt: {e}")))?;
            receipts.push((key, row));
        }
        for (key, mut row) in receipts {
            let length = usize::try_from(row.length).unwrap_or(usize::MAX);
            let bytes = old
                .map(|o| o.bytes_in_file(row.offset, length))
                .transpose()?;
            row.offset = match bytes.flatten().filter(|b| sha256(b) == row.digest) {
                Some(bytes) => self.books.logbook.stage(&Entry::Receipt(bytes), now),
                // No receipt lies there: it counts no more.
                None => 0,
            };
            self.books.ledger.put(key, &row);
            if self.books.logbook.staged_bytes() > limits::LOGBOOK_ENTRY_BYTES {
                self.books.logbook.sync(&self.folder)?;
            }
        }
        let mut stages = Vec::new();
        for item in self.books.ledger.scan(&[tag::SEGMENT], None) {
            let (key, value) = item?;
            let row: SegmentRow = minicbor::decode(&value)
                .map_err(|e| SpoolError::Contradiction(format!("a segment: {e}")))?;
            stages.extend(rows::digest_at_end(&key).map(|d| (d, row.stage())));
        }
        self.books.changes = stages;
        self.stage_changes(now)?;
        self.books.logbook.sync(&self.folder)
    }
}
