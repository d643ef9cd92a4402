//! The store as custody needs it: a write that is durable when it returns, and a check that what is there is
//! what its digest says.
//!
//! Invariants:
//! - Writes are create-only. `AlreadyExists` is not durability: the bytes that are there are read back,
//!   hashed and, in a folder, synced with their directories before they count.
//! - Bytes under a digest's key that do not have that digest are damage, and the only thing that is ever
//!   written over; the caller alarms.
//! - What was written or checked by this process is remembered with its entity tag, so that a fresh
//!   receipt costs one look at length and tag, not a read; a tag that changed is read again.
//!
//! It does not decide who may write, and knows nothing of recordings. It does not list a whole store into
//! memory.

use std::collections::HashMap;
use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};
use protocol::ids::Digest;
use protocol::suite;

use crate::folder::Folder;

/// Entity tags remembered in each of two generations.
const REMEMBERED: usize = 32_768;

/// The store failed: which object, doing what, why. Always transient for the peer; the caller alarms.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} `{path}`: {source}")]
pub struct VaultError {
    doing: &'static str,
    path: String,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl VaultError {
    /// `source` happened while `doing` something with `path`.
    pub fn new<E>(doing: &'static str, path: &Path, source: E) -> VaultError
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        VaultError {
            doing,
            path: path.to_string(),
            source: source.into(),
        }
    }
}

/// What stands under a digest's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Copy {
    /// The right bytes, durable.
    Good,
    /// Nothing.
    Missing,
    /// Other bytes; says what is wrong with them.
    Damaged(String),
}

/// What a read found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// The object's bytes.
    Bytes(Bytes),
    /// Nothing.
    Missing,
    /// An object of so many bytes, more than the caller takes.
    TooLong(u64),
}

impl Read {
    /// The bytes, or in words why there are none.
    ///
    /// # Errors
    /// The rest of a sentence that begins with the object's name.
    pub fn bytes(self) -> Result<Bytes, String> {
        match self {
            Read::Bytes(bytes) => Ok(bytes),
            Read::Missing => Err("is missing".to_owned()),
            Read::TooLong(length) => Err(format!(
                "is altered: it has {length} bytes, more than any such object"
            )),
        }
    }
}

/// How a put ended; every way is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    /// Written now.
    New,
    /// The right bytes were there already.
    Already,
    /// Other bytes were there and were written over; says what was wrong with them.
    Mended(String),
}

/// A store of objects.
pub struct Vault {
    store: Arc<dyn ObjectStore>,
    folder: Option<Arc<Folder>>,
    checked: Mutex<Checked>,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vault({})", self.store)
    }
}

/// Objects whose bytes this process wrote or hashed, with their entity tags: two generations, the older of
/// which is forgotten when the newer is full.
#[derive(Default)]
struct Checked {
    newer: HashMap<Path, String>,
    older: HashMap<Path, String>,
}

impl Vault {
    /// Over any store; `folder` where the store is a folder on this machine.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, folder: Option<Folder>) -> Vault {
        Vault {
            store,
            folder: folder.map(Arc::new),
            checked: Mutex::default(),
        }
    }

    /// Writes `payload`, whose digest is `digest`, under `path`; durable when it returns.
    ///
    /// # Errors
    /// [`VaultError`]; nothing may be said of the object then.
    pub async fn put(
        &self,
        path: &Path,
        payload: Bytes,
        digest: Digest,
    ) -> Result<Put, VaultError> {
        match self.write(path, payload.clone(), PutMode::Create).await {
            Ok(()) => return Ok(Put::New),
            Err(object_store::Error::AlreadyExists { .. }) => {}
            Err(other) => return Err(VaultError::new("write", path, other)),
        }
        let length = u64::try_from(payload.len()).unwrap_or(u64::MAX);
        let what = match self.check(path, length, digest).await? {
            Copy::Good => return Ok(Put::Already),
            Copy::Missing => "it vanished while it was being checked".to_owned(),
            Copy::Damaged(what) => what,
        };
        self.write(path, payload, PutMode::Overwrite)
            .await
            .map_err(|e| VaultError::new("write over", path, e))?;
        Ok(Put::Mended(what))
    }

    /// Writes what has no digest in its key and is replaced by newer ones (inventories).
    ///
    /// # Errors
    /// [`VaultError`].
    pub async fn replace(&self, path: &Path, payload: Bytes) -> Result<(), VaultError> {
        self.write(path, payload, PutMode::Overwrite)
            .await
            .map_err(|e| VaultError::new("replace", path, e))
    }

    /// Writes only where nothing is yet: true if it was written.
    ///
    /// # Errors
    /// [`VaultError`].
    pub async fn create(&self, path: &Path, payload: Bytes) -> Result<bool, VaultError> {
        match self.write(path, payload, PutMode::Create).await {
            Ok(()) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(other) => Err(VaultError::new("create", path, other)),
        }
    }

    async fn write(
        &self,
        path: &Path,
        payload: Bytes,
        mode: PutMode,
    ) -> Result<(), object_store::Error> {
        self.checked().forget(path);
        self.in_folder(path, |folder, path| folder.prepare(path))
            .await?;
        let options = PutOptions {
            mode,
            ..PutOptions::default()
        };
        let done = self
            .store
            .put_opts(path, PutPayload::from(payload), options)
            .await?;
        self.checked().remember(path, done.e_tag);
        Ok(())
    }

    /// Makes durable what another gateway, or a process that died, has written.
    ///
    /// # Errors
    /// [`VaultError`].
    pub async fn settle(&self, path: &Path) -> Result<(), VaultError> {
        self.in_folder(path, |folder, path| folder.sync(path))
            .await
            .map_err(|e| VaultError::new("sync", path, e))
    }

    /// Checks what stands under `path`; [`Copy::Good`] also means durable.
    ///
    /// # Errors
    /// [`VaultError`] where the store cannot tell.
    pub async fn check(
        &self,
        path: &Path,
        length: u64,
        digest: Digest,
    ) -> Result<Copy, VaultError> {
        let meta = match self.store.head(path).await {
            Ok(meta) => meta,
            Err(object_store::Error::NotFound { .. }) => return Ok(Copy::Missing),
            Err(other) => return Err(VaultError::new("look at", path, other)),
        };
        if meta.size != length {
            self.checked().forget(path);
            return Ok(Copy::Damaged(format!(
                "it has {} bytes instead of {length}",
                meta.size
            )));
        }
        if meta.e_tag.is_some() && self.checked().tag(path) == meta.e_tag {
            return Ok(Copy::Good);
        }
        let limit = usize::try_from(length).unwrap_or(usize::MAX);
        let (read, tag) = self.fetch(path, limit).await?;
        let bytes = match read {
            Read::Bytes(bytes) => bytes,
            Read::Missing => return Ok(Copy::Missing),
            Read::TooLong(found) => {
                return Ok(Copy::Damaged(format!(
                    "it has {found} bytes instead of {length}"
                )));
            }
        };
        let found = suite::sha256(&bytes);
        if found != digest {
            return Ok(Copy::Damaged(format!("its bytes have digest {found}")));
        }
        self.settle(path).await?;
        self.checked().remember(path, tag);
        Ok(Copy::Good)
    }

    /// Reads an object of at most `limit` bytes.
    ///
    /// # Errors
    /// [`VaultError`].
    pub async fn read(&self, path: &Path, limit: usize) -> Result<Read, VaultError> {
        Ok(self.fetch(path, limit).await?.0)
    }

    async fn fetch(&self, path: &Path, limit: usize) -> Result<(Read, Option<String>), VaultError> {
        let failed = |e: object_store::Error| VaultError::new("read", path, e);
        let found = match self.store.get_opts(path, GetOptions::default()).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok((Read::Missing, None)),
            Err(other) => return Err(failed(other)),
        };
        let size = found.meta.size;
        if usize::try_from(size).map_or(true, |size| size > limit) {
            return Ok((Read::TooLong(size), None));
        }
        let tag = found.meta.e_tag.clone();
        Ok((Read::Bytes(found.bytes().await.map_err(failed)?), tag))
    }

    /// The objects under a prefix, in no particular order.
    pub fn list(&self, prefix: &Path) -> BoxStream<'static, Result<ObjectMeta, VaultError>> {
        let at = prefix.clone();
        self.store
            .list(Some(prefix))
            .map_err(move |e| VaultError::new("list", &at, e))
            .boxed()
    }

    /// The prefixes directly under a prefix.
    ///
    /// # Errors
    /// [`VaultError`].
    pub async fn prefixes(&self, prefix: &Path) -> Result<Vec<Path>, VaultError> {
        let listed = self.store.list_with_delimiter(Some(prefix)).await;
        match listed {
            Ok(listed) => Ok(listed.common_prefixes),
            Err(object_store::Error::NotFound { .. }) => Ok(Vec::new()),
            Err(other) => Err(VaultError::new("list", prefix, other)),
        }
    }

    async fn in_folder<F>(&self, path: &Path, work: F) -> Result<(), object_store::Error>
    where
        F: FnOnce(&Folder, &Path) -> std::io::Result<()> + Send + 'static,
    {
        let Some(folder) = self.folder.clone() else {
            return Ok(());
        };
        let path = path.clone();
        let done = tokio::task::spawn_blocking(move || work(&folder, &path)).await?;
        done.map_err(|source| object_store::Error::Generic {
            store: "folder",
            source: source.into(),
        })
    }

    fn checked(&self) -> MutexGuard<'_, Checked> {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Checked {
    fn remember(&mut self, path: &Path, tag: Option<String>) {
        let Some(tag) = tag else { return };
        if self.newer.len() >= REMEMBERED {
            self.older = mem::take(&mut self.newer);
        }
        self.newer.insert(path.clone(), tag);
    }

    fn forget(&mut self, path: &Path) {
        self.newer.remove(path);
        self.older.remove(path);
    }

    fn tag(&self, path: &Path) -> Option<String> {
        self.newer
            .get(path)
            .or_else(|| self.older.get(path))
            .cloned()
    }
}

#[cfg(test)]
mod tests;
