//! What a start says that it found and did, in numbers and in words.

use std::path::PathBuf;

use super::Deferred;
use crate::spool::Spool;
use crate::succession::Broken;

/// What a start found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartReport {
    /// Why the ledger was rebuilt, if it was.
    pub rebuilt: Option<String>,
    /// Whether an earlier process had marked this boot suspect.
    pub suspect: bool,
    /// Segments and headers known.
    pub segments: u64,
    /// Whole copies here.
    pub files: u64,
    /// Manifests without rows that were entered.
    pub manifests_entered: usize,
    /// Logbook entries replayed.
    pub entries_replayed: u64,
    /// Bytes of a torn tail that were cut from the logbook: never acknowledged.
    pub torn_bytes: u64,
    /// What the first entry of a new logbook says, where entries of the old one are lost.
    pub logbook_begun: Option<String>,
    /// Of the logbook that it follows, entries that an archive has countersigned and that cannot be read here.
    pub countersigned_beyond: u64,
    /// Copies that were missing or of the wrong length.
    pub missing: usize,
    /// Files that nothing vouched for, removed.
    pub orphans: usize,
    /// Manifests that a rebuild could not read: what they named is not known.
    pub manifests_damaged: usize,
    /// Copies taken over that came while an earlier process rebuilt the ledger: see [`crate::Rebuild`].
    pub taken_over: usize,
    /// What could not be restored, in words.
    pub lost: Vec<String>,
}

impl std::fmt::Display for StartReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "spool: {} segments known, {} files",
            self.segments, self.files
        )?;
        if self.suspect {
            write!(f, ", suspect boot: everything read again")?;
        }
        if let Some(why) = &self.rebuilt {
            write!(f, ", ledger rebuilt ({why})")?;
        }
        self.numbers()
            .iter()
            .filter(|(_, n)| *n > 0)
            .try_for_each(|(what, n)| write!(f, ", {n} {what}"))?;
        if let Some(what) = &self.logbook_begun {
            write!(f, ", a new logbook {what}")?;
        }
        self.lost.iter().try_for_each(|l| write!(f, ", {l}"))
    }
}

impl StartReport {
    /// What was done, counted.
    #[must_use]
    pub fn numbers(&self) -> [(&'static str, u64); 6] {
        [
            ("manifests entered", self.manifests_entered as u64),
            ("logbook entries replayed", self.entries_replayed),
            ("torn bytes cut", self.torn_bytes),
            ("copies missing", self.missing as u64),
            ("orphans removed", self.orphans as u64),
            ("copies taken over", self.taken_over as u64),
        ]
    }

    /// Whether everything that was ever acknowledged is still known, and every copy that was Held is here.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.lost.is_empty() && self.missing == 0
    }

    pub(crate) fn count(&mut self, spool: &Spool) {
        let totals = &spool.books.totals;
        let stages = totals.counts.stages.iter().flatten();
        self.segments = stages.map(|t| t.segments).sum();
        self.files = totals.files;
    }

    /// A manifest of that name cannot be read: the copies that it may name are not to go.
    pub(crate) fn manifest_is_damaged(&mut self, name: &str) {
        self.manifests_damaged += 1;
        self.lost.push(format!(
            "manifest {name} is damaged: its camera is asked for it again"
        ));
    }

    /// Says that the logbook has a successor.
    pub(crate) fn begin_logbook(
        &mut self,
        broken: &Broken,
        aside: Option<PathBuf>,
        alarms: &mut Deferred,
    ) {
        let kept = match aside {
            Some(path) => format!("{}; kept as {}", broken.what, path.display()),
            None => broken.what.clone(),
        };
        self.logbook_begun = Some(broken.what.clone());
        self.countersigned_beyond = broken.beyond;
        self.lost
            .push(format!("entries of the logbook: the new one {kept}"));
        alarms.push(("logbook_damaged", "logbook".into(), kept));
    }
}
