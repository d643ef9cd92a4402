//! What is kept on the camera: recordings, the record of receipts and erasures, and the steps between them.
//!
//! Two programs work on one store at once, the sealer and the server, and a [`Store`] is one program's view of it.
//! What they share are the files: recordings grow by whole, synced files that only the sealer makes; the record
//! (`erased.log`) is appended under `custody.lock` by whoever has read all of it. [`Store::refresh`] takes in
//! what the other one did.
//!
//! Invariants:
//! - What a manifest names was synced, file and folder, before the manifest was signed; the manifest is synced
//!   before it is shown to anyone ([`Store::refresh`] syncs the folder before it gives news).
//! - A segment goes only by [`custody`]: receipts durable in the record, then the erasure in the record, then unlink,
//!   then the folder's sync. What a crash left between record and unlink is finished by the next start.
//! - Every recording number below the next is held, released, or (damage) neither, which the inventory says.

pub(crate) mod custody;
pub(crate) mod layout;
pub(crate) mod open;
pub(crate) mod papers;
pub(crate) mod record;
pub(crate) mod recording;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use bytes::Bytes;
use protocol::identity::Trust;
use protocol::ids::{CameraId, Digest, Serial};
use protocol::keylist::{KeyList, KeyListError};
use protocol::manifest::Manifest;
use protocol::receipt::Receipt;
use tracing::{error, warn};

use crate::disk::{self, DiskError};
use crate::limits;
use layout::Layout;
pub(crate) use open::{Lock, initialise, newest_keys, pin_root, unused_number};
use record::{Entry, Record};
use recording::{Recording, Whereabouts};

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A step on a file failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A file of the store is not what it should be.
    #[error("{}: {what}; restore it, or have the footage taken off before the storage is initialised anew", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// Written by a newer program.
    #[error("{}: the store has format {format}, this program knows {}; nothing was touched, update it", .path.display(), papers::FORMAT)]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u16,
    },
    /// Another camera's store.
    #[error("{}: this is the store of camera {store}, but the credentials are those of {credentials}", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        store: Serial,
        /// Whose credentials were given.
        credentials: Serial,
    },
    /// Another process has it.
    #[error("{}: another process holds it; only one may", .path.display())]
    Locked {
        /// The lock's file.
        path: PathBuf,
    },
    /// No key list of the pinned root.
    #[error("no key list can be used: {0}")]
    KeyList(#[from] KeyListError),
}

impl StoreError {
    /// Whether it is the disk that is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, StoreError::Disk(e) if e.is_full())
    }
}

/// What happened since the last look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// New manifests: recording and index, durable.
    pub manifests: Vec<(u64, u32)>,
    /// Whether the inventory says something new besides those manifests: a recording began, ended, or was erased.
    pub inventory: bool,
}

/// A manifest as it is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Verified; its signed bytes.
    Here(Bytes),
    /// Missing or damaged, though later ones are here.
    Damaged,
    /// The recording has none of that index or above, or is not held.
    NotHere,
}

/// A recording that is gone, and on what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Digest of its header.
    pub header: Digest,
    /// How many segments it had.
    pub segments: u64,
    /// Digests of the receipts on which it was erased, in the order of the record.
    pub receipts: Vec<Digest>,
}

/// One program's view of the store.
#[derive(Debug)]
pub struct Store {
    layout: Layout,
    camera: CameraId,
    trust: Trust,
    keys: KeyList,
    record: Record,
    recordings: BTreeMap<u64, Recording>,
    gone: BTreeMap<u64, Gone>,
    erased_on: BTreeMap<u64, Vec<Digest>>,
    digests: HashMap<Digest, (u64, Option<u64>)>,
    numbered: u64,
    order: u64,
    erasures: u64,
    changed: bool,
}

impl Store {
    /// Opens the store of `camera`, verifies what is in it, and finishes erasures that a crash cut short.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub(crate) fn open(
        layout: &Layout,
        camera: &CameraId,
        trust: &Trust,
        offered: Option<Bytes>,
    ) -> Result<Store, StoreError> {
        let lock = Lock::take(&layout.file("custody.lock"), limits::LOCK_WAIT)?;
        let keys = newest_keys(layout, offered, trust, None)?;
        let mut store = Store {
            layout: layout.clone(),
            camera: camera.clone(),
            trust: trust.clone(),
            keys,
            record: Record::open(&layout.file("erased.log"))?,
            recordings: BTreeMap::new(),
            gone: BTreeMap::new(),
            erased_on: BTreeMap::new(),
            digests: HashMap::new(),
            numbered: 0,
            order: 0,
            erasures: 0,
            changed: false,
        };
        let names = disk::list(&layout.recordings())?;
        for number in names
            .iter()
            .filter_map(|(name, _)| layout::recording_number(name))
        {
            if let Some(recording) = Recording::load(layout, camera, number, trust)? {
                store.insert(number, recording);
            }
        }
        store.numbered = store.numbers_taken()?;
        store.read_record()?;
        drop(lock);
        store.report_damage();
        Ok(store)
    }

    fn insert(&mut self, number: u64, recording: Recording) {
        self.digests.insert(recording.header.digest, (number, None));
        let segments = recording
            .segments
            .iter()
            .map(|s| (s.entry.digest, (number, Some(s.entry.seq))));
        self.digests.extend(segments);
        self.recordings.insert(number, recording);
    }

    /// Takes in what the record says that was not read yet, and finishes the erasures in it.
    fn read_record(&mut self) -> Result<(), StoreError> {
        let mut entries = Vec::new();
        self.record.read_on(&mut |entry| entries.push(entry))?;
        for entry in entries {
            self.apply(entry)?;
        }
        Ok(())
    }

    fn report_damage(&self) {
        for (number, r) in &self.recordings {
            let missing = r.ranges(|s| s.bytes == Whereabouts::Missing);
            if !missing.is_empty() || !r.header_here {
                error!(
                    number,
                    ?missing,
                    header = r.header_here,
                    "footage is missing from this store without a receipt"
                );
            }
        }
        let lost: Vec<_> = self.lost();
        if !lost.is_empty() {
            error!(
                ?lost,
                "recordings are missing from this store without a receipt"
            );
        }
    }

    /// Numbers of recordings that are neither here nor released.
    #[must_use]
    pub fn lost(&self) -> Vec<protocol::ids::Range> {
        let known = |n: &u64| self.recordings.contains_key(n) || self.gone.contains_key(n);
        protocol::ids::ranges_of((0..self.next_number()).filter(|n| !known(n)))
    }

    /// Looks for what the other program did: new manifests, erasures, a newer key list.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub(crate) fn refresh(&mut self) -> Result<News, StoreError> {
        let mut news = News {
            inventory: std::mem::take(&mut self.changed),
            ..News::default()
        };
        self.find_manifests(&mut news)?;
        if self.record.has_grown()? {
            let _lock = Lock::take(&self.layout.file("custody.lock"), limits::LOCK_WAIT)?;
            self.catch_up()?;
            news.inventory |= std::mem::take(&mut self.changed);
        }
        Ok(news)
    }

    /// Reads the record and the key list to their ends. Under the custody lock.
    fn catch_up(&mut self) -> Result<(), StoreError> {
        let keys = newest_keys(&self.layout, None, &self.trust, Some(&self.keys))?;
        self.use_keys(keys);
        self.read_record()
    }

    fn use_keys(&mut self, keys: KeyList) {
        if keys.number() != self.keys.number() {
            self.keys = keys;
            self.recordings
                .values_mut()
                .for_each(|r| r.recount(&self.keys, &mut self.order));
            self.changed = true;
        }
    }

    /// Takes a key list from a peer if it is newer; durable on return.
    ///
    /// # Errors
    /// Any [`StoreError`]; a list that is refused is only logged.
    pub(crate) fn take_key_list(&mut self, offered: Bytes) -> Result<(), StoreError> {
        if offered == *self.keys.bytes() {
            return Ok(());
        }
        let _lock = Lock::take(&self.layout.file("custody.lock"), limits::LOCK_WAIT)?;
        let keys = newest_keys(&self.layout, Some(offered), &self.trust, Some(&self.keys))?;
        self.use_keys(keys);
        Ok(())
    }

    fn find_manifests(&mut self, news: &mut News) -> Result<(), StoreError> {
        let open: Vec<(u64, u32)> = self
            .recordings
            .iter()
            .filter(|(_, r)| r.end.is_none())
            .map(|(n, r)| (*n, r.index + 1))
            .collect();
        // Read before the manifest is looked for: the sealer takes a number after it has signed.
        let taken = match self.unannounced() {
            Some(number) => Some((number, self.numbers_taken()?)),
            None => None,
        };
        let next = (self.next_number(), 0);
        for (number, index) in open.into_iter().chain([next]) {
            self.find_from(number, index, news)?;
        }
        if let Some((number, taken)) = taken
            && self.next_number() == number
            && taken > number
        {
            // No manifest of it can be read, and the sealer went on after it.
            error!(number, "a recording's manifests are damaged");
            self.numbered = taken;
            self.changed = true;
        }
        while self
            .recordings
            .contains_key(&self.next_number().saturating_sub(1))
            && !news.manifests.is_empty()
        {
            let before = self.next_number();
            self.find_from(before, 0, news)?;
            if self.next_number() == before {
                break;
            }
        }
        Ok(())
    }

    fn find_from(
        &mut self,
        number: u64,
        mut index: u32,
        news: &mut News,
    ) -> Result<(), StoreError> {
        let mut found = false;
        while self.layout.manifest(number, index).exists() {
            let manifest =
                recording::read_manifest(&self.layout, &self.camera, number, index, &self.trust)?;
            let Some(manifest) = manifest else { break };
            if !found {
                // The sealer may not have synced the folders yet; nobody is told before they are.
                disk::sync_folder(&self.layout.recording(number))?;
                disk::sync_folder(&self.layout.recordings())?;
                found = true;
            }
            self.take_manifest(number, &manifest);
            news.manifests.push((number, index));
            news.inventory |= index == 0 || manifest.body().end.is_some();
            index += 1;
        }
        Ok(())
    }

    fn take_manifest(&mut self, number: u64, manifest: &Manifest) {
        let segments = manifest
            .body()
            .segments
            .iter()
            .map(|s| (s.digest, (number, Some(s.seq))));
        self.digests.extend(segments);
        match self.recordings.get_mut(&number) {
            Some(recording) => recording.take_manifest(manifest),
            None => self.insert(number, Recording::begin(manifest)),
        }
    }

    /// The number that the next recording will get.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        let after = |n: Option<&u64>| n.map_or(0, |n| n + 1);
        self.numbered
            .max(after(self.recordings.keys().next_back()))
            .max(after(self.gone.keys().next_back()))
    }

    /// The number after those that `camera.cbor` says are taken.
    fn numbers_taken(&self) -> Result<u64, StoreError> {
        let paper = papers::read::<papers::CameraPaper>(&self.layout.file("camera.cbor"))?;
        Ok(paper.map_or(0, |p| p.next))
    }

    /// The recording that has begun and has no manifest yet, if any: its sealer is at work, or died.
    #[must_use]
    pub(crate) fn unannounced(&self) -> Option<u64> {
        let next = self.next_number();
        self.layout.recording(next).exists().then_some(next)
    }

    /// Recordings that are not closed: their sealer is at work, or died.
    #[must_use]
    pub(crate) fn open_numbers(&self) -> Vec<u64> {
        self.recordings
            .iter()
            .filter(|(_, r)| r.end.is_none())
            .map(|(number, _)| *number)
            .collect()
    }

    /// The camera.
    #[must_use]
    pub fn camera(&self) -> &CameraId {
        &self.camera
    }
    /// The key list in use.
    #[must_use]
    pub fn keys(&self) -> &KeyList {
        &self.keys
    }
    /// Recordings held, by number.
    #[must_use]
    pub fn recordings(&self) -> &BTreeMap<u64, Recording> {
        &self.recordings
    }
    /// Recordings released, by number.
    #[must_use]
    pub fn gone(&self) -> &BTreeMap<u64, Gone> {
        &self.gone
    }
    /// How many erasures the record tells of.
    #[must_use]
    pub fn erasures(&self) -> u64 {
        self.erasures
    }

    /// Where the bytes of a digest are, and how many; none for what is not here.
    #[must_use]
    pub(crate) fn locate(&self, digest: Digest) -> Option<(PathBuf, u64)> {
        let (number, seq) = *self.digests.get(&digest)?;
        let recording = self.recordings.get(&number)?;
        let Some(seq) = seq else {
            let header = (
                self.layout.header(number),
                u64::from(recording.header.length),
            );
            return recording.header_here.then_some(header);
        };
        let segment = recording
            .segment(seq)
            .filter(|s| s.bytes == Whereabouts::Here)?;
        Some((
            self.layout.segment(number, seq, recording.is_last(seq)),
            u64::from(segment.entry.length),
        ))
    }

    /// The signed bytes of a manifest.
    ///
    /// # Errors
    /// [`StoreError::Disk`].
    pub(crate) fn manifest(&self, number: u64, index: u32) -> Result<Found, StoreError> {
        if self.recordings.get(&number).is_none_or(|r| index > r.index) {
            return Ok(Found::NotHere);
        }
        let manifest =
            recording::read_manifest(&self.layout, &self.camera, number, index, &self.trust)?;
        Ok(manifest.map_or(Found::Damaged, |m| Found::Here(m.bytes().clone())))
    }

    fn apply(&mut self, entry: Entry) -> Result<(), StoreError> {
        match entry {
            Entry::Receipt { number, bytes } => self.apply_receipt(number, Vec::from(bytes).into()),
            Entry::Erased {
                number,
                segments,
                receipts,
                header,
                ..
            } => self.apply_erased(number, header, &segments, &receipts)?,
            Entry::Released {
                number,
                header,
                segments,
                ..
            } => self.apply_released(number, header, segments)?,
        }
        Ok(())
    }

    fn apply_receipt(&mut self, number: u64, bytes: Bytes) {
        let Some(recording) = self.recordings.get_mut(&number) else {
            return;
        };
        match Receipt::verify(bytes, &self.keys) {
            Ok(receipt) => recording.count(receipt, &self.keys, &mut self.order),
            Err(error) => warn!(number, %error, "a receipt in the record no longer counts"),
        }
    }
}
