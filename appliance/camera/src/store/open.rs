//! What both programs do before they work on a store: locks, folders, whose it is, which key list counts.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use protocol::identity::Trust;
use protocol::ids::{Incarnation, Serial};
use protocol::keylist::{KeyList, KeyListError};
use protocol::limits as wire;
use tracing::{error, info, warn};

use super::StoreError;
use super::layout::{self, Layout};
use super::papers;
use super::record::Record;
use crate::disk::{self, at};
use crate::limits;

/// A lock on the store, held until dropped or until the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock(#[allow(dead_code, reason = "its drop unlocks")] File);

impl Lock {
    /// Takes a lock, waiting up to `wait`.
    pub(crate) fn take(path: &Path, wait: Duration) -> Result<Lock, StoreError> {
        const PAUSE: Duration = Duration::from_millis(5);
        let mut options = OpenOptions::new();
        let file = options
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(at("open", path))?;
        let tries = wait.as_millis() / PAUSE.as_millis() + 1;
        for _ in 0..tries {
            match file.try_lock() {
                Ok(()) => return Ok(Lock(file)),
                Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
                Err(TryLockError::Error(e)) => return Err(at("lock", path)(e).into()),
            }
        }
        Err(StoreError::Locked {
            path: path.to_owned(),
        })
    }
}

/// Makes the store's folders and says whose it is; `fresh` is the incarnation of a new one. For both programs.
///
/// # Errors
/// Any [`StoreError`] but `KeyList`.
pub(crate) fn initialise(
    layout: &Layout,
    serial: &Serial,
    fresh: Incarnation,
) -> Result<papers::CameraPaper, StoreError> {
    disk::make_folder(layout.root())?;
    let _lock = Lock::take(&layout.file("custody.lock"), limits::LOCK_WAIT)?;
    let paper = papers::camera(layout, serial, fresh)?;
    disk::make_folder(&layout.recordings())?;
    Ok(paper)
}

/// Leaves a copy of the agency's root in the store, for `status`.
///
/// # Errors
/// [`StoreError::Disk`].
pub(crate) fn pin_root(layout: &Layout, trust: &Path) -> Result<(), StoreError> {
    const LIMIT: usize = 64 * 1024;
    disk::make_folder(layout.root())?;
    let _lock = Lock::take(&layout.file("custody.lock"), limits::LOCK_WAIT)?;
    let path = layout.file("trust.pem");
    let root = disk::read_if_there(trust, LIMIT)?.unwrap_or_default();
    if disk::read_if_there(&path, LIMIT)?.as_ref() != Some(&root) {
        disk::replace(&path, &root)?;
    }
    Ok(())
}

/// The number after all that the record and the folders know. A recording that was erased is in the record before its
/// folder goes, so that its number stays taken even where `camera.cbor` never came to say so.
///
/// # Errors
/// [`StoreError::Disk`], [`StoreError::Locked`].
pub(crate) fn unused_number(layout: &Layout) -> Result<u64, StoreError> {
    let _lock = Lock::take(&layout.file("custody.lock"), limits::LOCK_WAIT)?;
    let mut next = 0;
    Record::open(&layout.file("erased.log"))?
        .read_on(&mut |entry| next = next.max(entry.number().saturating_add(1)))?;
    let folders = disk::list(&layout.recordings())?;
    let numbers = folders
        .iter()
        .filter_map(|(name, _)| layout::recording_number(name));
    Ok(numbers.fold(next, |next, n| next.max(n.saturating_add(1))))
}

/// The newest key list of the store's, the offered one and the one `known` to this process already, verified under the
/// pinned root; keeps what is newer. A store's list that is damaged, or older than the known one, is replaced by that.
///
/// # Errors
/// Any [`StoreError`]; of an older or forked offer only the log hears.
pub(crate) fn newest_keys(
    layout: &Layout,
    offered: Option<Bytes>,
    trust: &Trust,
    known: Option<&KeyList>,
) -> Result<KeyList, StoreError> {
    let path = layout.file("key-list.cose");
    let kept = disk::read_if_there(&path, wire::KEY_LIST_BYTES)?;
    let kept = match kept.map(|bytes| KeyList::verify(bytes.into(), trust.root_keys())) {
        Some(Ok(list)) => Some(list),
        Some(Err(error)) if offered.is_some() || known.is_some() => {
            error!(path = %path.display(), %error, "the store's key list cannot be used: taking the newest other");
            None
        }
        Some(Err(error)) => return Err(error.into()),
        None => None,
    };
    let kept = match (kept, known) {
        (Some(kept), Some(known)) if kept.number() >= known.number() => Some(kept),
        (_, Some(known)) => Some(keep_keys(layout, known.clone())?),
        (kept, None) => kept,
    };
    match (kept, offered) {
        (Some(kept), Some(offered)) => match kept.newer(offered, trust.root_keys()) {
            Ok(Some(newer)) => keep_keys(layout, newer),
            Ok(None) => Ok(kept),
            Err(KeyListError::Older { offered, known }) => {
                info!(
                    offered,
                    known, "the key list offered is older than the store's: kept the newer"
                );
                Ok(kept)
            }
            Err(error) => {
                warn!(%error, "a key list is refused");
                Ok(kept)
            }
        },
        (Some(kept), None) => Ok(kept),
        (None, Some(offered)) => keep_keys(layout, KeyList::verify(offered, trust.root_keys())?),
        (None, None) => Err(StoreError::Damaged {
            path,
            what: "there is no key list yet",
        }),
    }
}

fn keep_keys(layout: &Layout, list: KeyList) -> Result<KeyList, StoreError> {
    disk::replace_for_sure(
        &layout.file("key-list.cose"),
        list.bytes(),
        &layout.ballast(),
    )?;
    info!(number = list.number(), "key list taken");
    Ok(list)
}
