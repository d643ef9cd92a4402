//! What can go wrong with what is kept. Every error names its subject, and [`SpoolError::reaction`] says
//! what follows from it: stop the program, stop pulling, or refuse that one call.

use std::io;
use std::path::{Path, PathBuf};

use protocol::ids::Digest;

/// What the caller does about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// Exit the process: nothing that this spool says counts any more. The next start mends it.
    Stop,
    /// Stop pulling, and reclaim.
    NoSpace,
    /// Only this call failed, and it changed nothing.
    Caller,
}

/// An error of the spool.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// A sync failed: what the page cache shows is no longer what the disk holds. The boot is marked suspect.
    #[error(
        "{what} could not be synced: {source}; this start is marked suspect, exit and start again"
    )]
    Suspect {
        /// What was to be synced.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file operation failed.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The ledger failed.
    #[error("the ledger failed: {0}")]
    Ledger(#[from] sled::Error),
    /// A row or a logbook entry that does not parse, or records that contradict each other.
    #[error("the ledger contradicts itself: {0}; the next start rebuilds it")]
    Contradiction(String),
    /// Written by a newer release.
    #[error("{path} has format {found}, this release knows {known}: install the release that wrote it. Nothing was touched", path = .path.display())]
    NewerFormat {
        /// The FORMAT file.
        path: PathBuf,
        /// What it says.
        found: String,
        /// What this release reads.
        known: u32,
    },
    /// Another process has the folder.
    #[error("{path} is in use by another process", path = .0.display())]
    InUse(PathBuf),
    /// The thread that hashes what is written has ended.
    #[error("the thread that hashes footage has ended: exit and start again")]
    Hashing,
    /// No room for new footage.
    #[error("no room for {0} more bytes")]
    NoSpace(u64),
    /// The segment is not wanted now.
    #[error("{0} is not to be pulled: unknown, here already, archived, or being pulled")]
    NotWanted(Digest),
    /// More bytes than were announced.
    #[error("{0}: more bytes than its manifest names")]
    TooMany(Digest),
    /// There is no whole copy of it here.
    #[error("no whole copy of {0} is here")]
    NoCopy(Digest),
    /// A key list older than the one known.
    #[error("key list {offered} is older than {known}, which is known here")]
    OlderKeyList {
        /// Offered.
        offered: u64,
        /// Known.
        known: u64,
    },
}

impl SpoolError {
    /// What follows from it.
    #[must_use]
    pub fn reaction(&self) -> Reaction {
        match self {
            SpoolError::NoSpace(_) => Reaction::NoSpace,
            SpoolError::Io { source, .. } if is_full(source) => Reaction::NoSpace,
            SpoolError::NotWanted(_)
            | SpoolError::TooMany(_)
            | SpoolError::NoCopy(_)
            | SpoolError::OlderKeyList { .. } => Reaction::Caller,
            _ => Reaction::Stop,
        }
    }
}

/// Whether the disk or a quota is full.
pub(crate) fn is_full(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Whether a file cannot be read for its own sake (a bad block, a foreign owner), and others can.
pub(crate) fn is_unreadable(e: &io::Error) -> bool {
    use nix::libc::{EBADMSG, EIO, EUCLEAN};
    e.kind() == io::ErrorKind::PermissionDenied
        || matches!(e.raw_os_error(), Some(EIO | EUCLEAN | EBADMSG))
}

/// Names the file of an error.
pub(crate) trait AtPath<T> {
    /// The same result, its error with the path.
    fn at(self, path: &Path) -> Result<T, SpoolError>;
}

impl<T> AtPath<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T, SpoolError> {
        self.map_err(|source| SpoolError::Io {
            path: path.to_owned(),
            source,
        })
    }
}
