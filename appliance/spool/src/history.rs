//! The logbook as others read it: every entry from the first to the last synced one, with the chain checked.
//! Changes nothing; memory for one entry.

use protocol::logbook::LogbookHead;

use crate::error::SpoolError;
use crate::logbook::{Entry, Logbook};
use crate::spool::Spool;

impl Spool {
    /// Gives each synced entry of the logbook with the head after it, and says the last head.
    ///
    /// # Errors
    /// [`SpoolError::Contradiction`] where the chain breaks before the end, [`SpoolError::Io`].
    pub fn history(
        &self,
        mut each: impl FnMut(LogbookHead, Entry),
    ) -> Result<LogbookHead, SpoolError> {
        let synced = self.books.logbook.head();
        let Some((logbook, mut at)) = Logbook::open(&self.folder, "logbook")? else {
            return Err(SpoolError::Contradiction("the logbook is gone".into()));
        };
        let head = |at: crate::logbook::Position| LogbookHead {
            incarnation: logbook.incarnation(),
            entries: at.entries,
            hash: at.hash,
        };
        while at.entries < synced.entries {
            let Some(read) = logbook.read(at)? else {
                let what = format!(
                    "the logbook's chain breaks after {} of {} entries",
                    at.entries, synced.entries
                );
                return Err(SpoolError::Contradiction(what));
            };
            at = read.after;
            each(head(at), read.entry);
        }
        if head(at) == synced {
            Ok(synced)
        } else {
            Err(SpoolError::Contradiction(
                "the logbook's file ends in another head than the one that was synced".into(),
            ))
        }
    }
}
