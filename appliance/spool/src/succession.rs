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
//! | it lacks a head that an archive countersigned, or an archive refused it | a new one, which names the mark, or else the last entry that can be read |
//!
//! Each new one also names what archives countersigned: site, logbook, entry, hash, time, and how many entries that is
//! beyond what can be read (see `countersigned`), or that nothing is known of it. Of what follows here only that cannot
//! have been made up on this machine.
//!
//! The new one carries the receipts that can still be read and the stages of all segments, so that a ledger can be
//! rebuilt from it as from the old one. It is complete, as `logbook.new`, before it takes the old one's name: a process
//! that is killed in between finds the old one again.

use std::fs;
use std::path::PathBuf;

use protocol::ids::{Incarnation, Time};
use protocol::logbook::LogbookHead;
use protocol::suite::sha256;

use crate::countersigned::{Countersigned, Kept};
use crate::error::{AtPath, SpoolError};
use crate::folder::{Folder, Place};
use crate::ledger::Mark;
use crate::limits;
use crate::logbook::{Entry, Logbook, Position};
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
    /// Entries of it that an archive countersigned, and that cannot be read.
    pub(crate) beyond: u64,
}

/// The logbook of a start: the one that is there, or, where that is incomplete, its successor, which
/// [`take_its_place`] names. Known are how far it went, whether the ledger's mark vouches for what is before it, and what
/// archives countersigned.
pub(crate) fn open(
    folder: &mut Folder,
    (last, quick, signed): (Last, bool, &Countersigned),
    (fresh, now): ([u8; 16], Time),
) -> Result<(Logbook, Option<Broken>), SpoolError> {
    const GONE: &str = "it is missing or has lost its beginning";
    let old = Logbook::open(folder, "logbook")?.map(|(logbook, _)| logbook);
    let (head, why) = match (&old, last) {
        (None, Last::Nothing) if signed.all().is_empty() => {
            return Ok((
                Logbook::create(folder, "logbook", Incarnation(fresh))?,
                None,
            ));
        }
        (None, Last::Head(mark)) => (Some(head_of(mark)), GONE.into()),
        (None, Last::Nothing | Last::Unknown) => (None, GONE.into()),
        (Some(logbook), last) => match lost(logbook, last, quick, signed)? {
            None => return Ok((old.expect("it was matched"), None)),
            Some((head, why)) => (Some(head), why),
        },
    };
    let mut what = match head {
        Some(h) => format!(
            "follows logbook {}, entry {}, chain hash {}: {why}",
            h.incarnation, h.entries, h.hash
        ),
        None => format!("follows a logbook of which no head is known: {why}"),
    };
    let (seen, beyond) = seen_by_archives(old.as_ref(), signed)?;
    what += &seen;
    let mut new = Logbook::create(folder, NEW, Incarnation(fresh))?;
    new.stage(&Entry::Note(what.clone()), now);
    new.sync(folder)?;
    Ok((new, Some(Broken { old, what, beyond })))
}

/// The last head that is known of a logbook, and what of it is lost; none where nothing is. `quick`: the ledger's
/// mark vouches for what is before it.
fn lost(
    logbook: &Logbook,
    last: Last,
    quick: bool,
    signed: &Countersigned,
) -> Result<Option<(LogbookHead, String)>, SpoolError> {
    let mark = match last {
        Last::Head(mark) if mark.incarnation != logbook.incarnation() => {
            let why = format!("its place is taken by logbook {}", logbook.incarnation());
            return Ok(Some((head_of(mark), why)));
        }
        Last::Head(mark) => Some(mark),
        Last::Nothing | Last::Unknown => None,
    };
    let refused = signed.against(logbook.incarnation());
    let refused = refused.map(|kept| format!("an archive refused it: {kept}"));
    if let Some(mark) = mark.filter(|_| quick) {
        let why = match logbook.passes(mark.position)? {
            false => Some("it ends or breaks before that".into()),
            true if refused.is_some() => refused,
            true => missing_head(logbook, mark.position, signed)?,
        };
        return Ok(why.map(|why| (head_of(mark), why)));
    }
    let (mut at, mut reached, mut other) = (logbook.end(), false, None);
    loop {
        reached |= mark.is_some_and(|m| m.position == at);
        match logbook.read(at)? {
            Some(read) => at = read.after,
            None => break,
        }
        let seen = signed.contradicts(logbook.incarnation(), &at);
        other = seen
            .map(|kept| format!("another entry stands where {kept}"))
            .or(other);
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
    let why = match (complete, refused.or(other)) {
        (false, _) => Some(format!("only {} entries of it can be read", at.entries)),
        (true, Some(why)) => Some(why),
        (true, None) => missing_head(logbook, at, signed)?,
    };
    Ok(why.map(|why| (mark.map_or(read, head_of), why)))
}

/// A head that an archive countersigned, and that no entry from that place on reaches; in words.
pub(crate) fn missing_head(
    logbook: &Logbook,
    mut at: Position,
    signed: &Countersigned,
) -> Result<Option<String>, SpoolError> {
    let of = signed.of(logbook.incarnation());
    let mut further: Vec<&Kept> = of.filter(|k| k.head().entries > at.entries).collect();
    further.sort_by_key(|kept| kept.head().entries);
    for kept in further {
        while at.entries < kept.head().entries {
            match logbook.read(at)? {
                Some(read) => at = read.after,
                None => {
                    let what = format!("it has {} entries, and {kept}", at.entries);
                    return Ok(Some(what));
                }
            }
        }
        if at.hash != kept.head().hash {
            return Ok(Some(format!("another entry stands where {kept}")));
        }
    }
    Ok(None)
}

/// What the first entry of a successor says of countersigned heads, and how many entries the furthest of them is beyond
/// what can be read.
fn seen_by_archives(
    old: Option<&Logbook>,
    signed: &Countersigned,
) -> Result<(String, u64), SpoolError> {
    if let Some(why) = signed.damage() {
        return Ok((format!("; {why}"), 0));
    }
    if signed.all().is_empty() {
        return Ok(("; no head is known that an archive countersigned".into(), 0));
    }
    let (mut end, mut others) = (old.map(Logbook::end), Vec::new());
    while let (Some(logbook), Some(at)) = (old, end) {
        let Some(read) = logbook.read(at)? else { break };
        end = Some(read.after);
        others.extend(
            signed
                .contradicts(logbook.incarnation(), &read.after)
                .map(Kept::head),
        );
    }
    let (mut says, mut most) = (String::new(), 0);
    for kept in signed.all() {
        let head = kept.head();
        let readable = match old {
            Some(logbook) if logbook.incarnation() != head.incarnation => None,
            _ => Some(end.map_or(0, |end| end.entries)),
        };
        says += &format!("; {kept}, ");
        says += &match readable {
            None => "which is another logbook than the one that was found".to_owned(),
            Some(_) if others.contains(&head) => "which is no part of what can be read".to_owned(),
            Some(readable) if readable < head.entries => {
                let beyond = head.entries - readable;
                most = most.max(beyond);
                format!("{beyond} entries beyond what can be read")
            }
            Some(_) => "all of which can be read".to_owned(),
        };
    }
    Ok((says, most))
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
