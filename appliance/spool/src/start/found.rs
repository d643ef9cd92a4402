//! Step 4 of a start: the ledger as it is found, read through and compared with its sum, or why it has to be derived
//! anew; and the spool over the one or the other.

use protocol::ids::Digest;

use super::{Deferred, Opening, StartReport};
use crate::error::{SpoolError, is_full};
use crate::folder::{Folder, Place, remove};
use crate::ledger::{Ledger, Mark};
use crate::load::Loaded;
use crate::logbook::Position;
use crate::mend::{Files, is_empty};
use crate::spool::Spool;
use crate::succession::{Broken, Last};

type OpenedLedger = Result<(Ledger, Option<Mark>), SpoolError>;

/// The ledger as it was found. The mark is none where there was no ledger.
pub(super) enum FoundLedger {
    Good(Box<(Ledger, Loaded)>, Option<Mark>, Files),
    Rebuild(String, Last),
}

impl FoundLedger {
    pub(super) fn last(&self) -> Last {
        match self {
            FoundLedger::Good(_, Some(mark), _) => Last::Head(*mark),
            FoundLedger::Good(_, None, _) => Last::Nothing,
            FoundLedger::Rebuild(_, last) => *last,
        }
    }
}

/// Copies that rows say are here, with their lengths, where all rows were read; and the files.
pub(super) type Copies = Option<(Vec<(Digest, u32)>, Files)>;

impl FoundLedger {
    /// The spool over it, or over what is derived anew; and how far along the logbook its rows are.
    pub(super) fn open(
        self,
        opening: Opening,
        broken: Option<&Broken>,
        report: &mut StartReport,
        alarms: &mut Deferred,
    ) -> Result<(Spool, Position, Copies), SpoolError> {
        match self {
            FoundLedger::Good(read, mark, files) => {
                let (ledger, mut loaded) = *read;
                let copies = Some((std::mem::take(&mut loaded.copies), files));
                let end = mark.map_or(opening.logbook.end(), |m| m.position);
                Ok((opening.into_spool(ledger, loaded), end, copies))
            }
            FoundLedger::Rebuild(why, _) => {
                tracing::warn!("the ledger is rebuilt: {why}");
                let spool = crate::rebuild::rebuild(opening, broken, report, alarms)?;
                report.rebuilt = Some(why);
                let end = spool.books.logbook.end();
                Ok((spool, end, None))
            }
        }
    }
}

/// Step 4.
pub(super) fn find_ledger(
    folder: &Folder,
    rebuild: Option<String>,
) -> Result<FoundLedger, SpoolError> {
    let (mut known, used) = (None, folder.path("ledger").exists());
    // Looked up where no row tells: a good ledger's start lists no files for it.
    let begun = || {
        let empty = |place: &Place| is_empty(&folder.place(*place));
        let footage = ![Place::Segments, Place::Manifests].iter().all(empty);
        footage || folder.path("logbook").exists()
    };
    // A first start that was killed in the middle of making the ledger leaves one that nobody can read, and nothing else.
    let last = |known: Option<Mark>| match known {
        Some(mark) => Last::Head(mark),
        None if begun() => Last::Unknown,
        None => Last::Nothing,
    };
    if let Some(why) = rebuild {
        if used {
            // Whatever else is wrong with it, it may know how far the logbook went.
            drop(open_and_read(folder, &mut known)?);
        }
        return Ok(FoundLedger::Rebuild(why, last(known)));
    }
    if !used {
        if begun() {
            return Ok(FoundLedger::Rebuild("there is none".into(), Last::Unknown));
        }
        let ledger = Ledger::create(folder, "ledger")?;
        return Ok(FoundLedger::Good(
            Box::new((ledger, Loaded::default())),
            None,
            Files::of(folder)?,
        ));
    }
    let files = Files::of(folder)?;
    let (opened, loaded) = open_and_read(folder, &mut known)?;
    match opened {
        Ok((ledger, Some(mark))) => {
            let read = Box::new((ledger, loaded));
            Ok(FoundLedger::Good(read, Some(mark), files))
        }
        Ok((ledger, None)) => {
            drop(ledger);
            // Or sled could not read it, and took it for an empty one.
            let why = "it was never committed to";
            Ok(FoundLedger::Rebuild(why.into(), last(None)))
        }
        Err(e @ (SpoolError::Contradiction(_) | SpoolError::Ledger(_) | SpoolError::Io { .. })) => {
            Ok(FoundLedger::Rebuild(e.to_string(), last(known)))
        }
        Err(e) => Err(e),
    }
}

/// Opens the ledger and reads it through. The engine writes when it opens: on a full disk it is given the ballast.
fn open_and_read(
    folder: &Folder,
    known: &mut Option<Mark>,
) -> Result<(OpenedLedger, Loaded), SpoolError> {
    let mut open = || {
        let mut loaded = Loaded::default();
        let opened = Ledger::open(folder, "ledger", known, |k, v| loaded.read(k, v));
        (opened, loaded)
    };
    let (opened, loaded) = open();
    match &opened {
        Err(SpoolError::Ledger(sled::Error::Io(e))) if is_full(e) => {
            tracing::warn!("the disk is full: the ballast is given up to open the ledger");
            remove(&folder.path("ballast"))?;
            Ok(open())
        }
        _ => Ok((opened, loaded)),
    }
}
