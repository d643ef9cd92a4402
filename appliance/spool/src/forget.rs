//! Forgetting what is over: a recording that its camera has erased on receipts, all of whose copies here have been
//! reclaimed. Its rows, its manifests and the rows of its receipts go, so that the ledger holds what lives and not all
//! that ever came. The logbook keeps it: receipts whole, and every stage.
//!
//! In order, so that a power cut between any two leaves nothing half: 1. with a commit its rows go, and each manifest gets
//! a row that says that its file is to go; 2. when that is durable the files are unlinked; 3. with the next commit their
//! directory is synced, and then those rows go. A start does 2 for the rows that it finds; a rebuild, which finds files
//! and no such rows, enters them, learns from logbook and inventory that they are over, and forgets them again.
//!
//! What is left is how much stood on which store of which site. Where that store turns out to be void, there is an alarm:
//! the footage was released, its camera has erased it, and nobody else here would say so.

use std::collections::BTreeMap;
use std::fs;

use minicbor::{Decode, Encode};
use protocol::custody::Stage;
use protocol::ids::{Digest, SiteId, StoreEpoch};
use protocol::keylist::KeyList;
use protocol::manifest::Manifest;
use protocol::receipt::Receipt;

use crate::books::{Books, Recording, due};
use crate::error::{AtPath, SpoolError};
use crate::folder::{Place, remove};
use crate::limits;
use crate::rows::{self, Key, ReceiptRow, RecordingRow, camera_has, tag};
use crate::spool::Spool;

/// What was forgotten that stood on one store of one site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Stood {
    #[n(0)]
    segments: u64,
    #[n(1)]
    bytes: u64,
}

fn stood_key(site: u16, epoch: StoreEpoch) -> Key {
    rows::key(tag::STOOD, &[&site.to_be_bytes(), &epoch.0])
}

impl Spool {
    /// Of the recordings that may be over, forgets those that are. Staged: the next commit makes it durable.
    pub(crate) fn forget_what_is_over(&mut self) -> Result<(), SpoolError> {
        while self.books.ledger.staged() < limits::FORGET_ROWS
            && let Some((camera, number)) = self.books.over.pop_first()
        {
            if let Some(rec) = self.books.recording(camera, number)?
                && self.is_over(&rec)?
            {
                self.forget(&rec)?;
            }
        }
        Ok(())
    }

    fn is_over(&self, rec: &Recording) -> Result<bool, SpoolError> {
        if !allows(&rec.row) {
            return Ok(false);
        }
        for digest in self.books.segments_of(rec.camera, rec.number)? {
            let here = self.books.segment(&digest)?.is_some_and(|row| row.here);
            if here || self.is_busy(&digest) {
                return Ok(false);
            }
        }
        for digest in self.books.manifests_of(rec.camera, rec.number)? {
            let row = self.books.manifest(&digest)?;
            if row.is_some_and(|m| !m.released || m.open > 0 || m.queue.is_some()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Step 1.
    fn forget(&mut self, rec: &Recording) -> Result<(), SpoolError> {
        // What stood on each receipt; nothing on those that name manifests alone.
        let mut left: BTreeMap<u32, Stood> = BTreeMap::new();
        for digest in self.books.segments_of(rec.camera, rec.number)? {
            if let Some(row) = self.books.segment(&digest)? {
                for (receipt, _) in &row.receipts {
                    let stood = left.entry(*receipt).or_default();
                    stood.segments += 1;
                    stood.bytes += u64::from(row.length);
                }
                self.partials.remove(&digest);
                self.books.forget_segment(&digest, &row, &rec.row);
            }
        }
        for digest in self.books.manifests_of(rec.camera, rec.number)? {
            if let Some(row) = self.books.manifest(&digest)? {
                for (receipt, _) in &row.receipts {
                    left.entry(*receipt).or_default();
                }
                self.books.ledger.delete(rows::of(tag::MANIFEST, &digest));
                self.books.ledger.delete(rows::manifest_of(&row, &digest));
                self.books.ledger.mark(rows::of(tag::UNLINK, &digest));
                self.group.unlink.push(digest);
            }
        }
        for (number, stood) in left {
            self.forget_receipt(number, stood)?;
        }
        let key = rows::recording(tag::RECORDING, rec.camera, rec.number);
        self.books.ledger.delete(key);
        self.books.totals.take_recording(rec.camera);
        Ok(())
    }

    fn forget_receipt(&mut self, number: u32, stood: Stood) -> Result<(), SpoolError> {
        let key = rows::numbered(tag::RECEIPT, number);
        let Some(row) = self.books.ledger.get::<ReceiptRow>(&key)? else {
            return Ok(());
        };
        let receipt = self
            .receipt_bytes(&row)?
            .and_then(|bytes| Receipt::verify(bytes, &self.books.keys).ok());
        if let Some(receipt) = receipt {
            self.it_stood_on(row.site, receipt.body().epoch, stood)?;
        }
        self.books
            .ledger
            .delete(due(row.camera, row.number, number));
        self.books
            .ledger
            .delete(rows::of(tag::RECEIPT_OF, &row.digest));
        self.books.ledger.delete(key);
        Ok(())
    }

    fn it_stood_on(&mut self, site: u16, epoch: StoreEpoch, more: Stood) -> Result<(), SpoolError> {
        let key = stood_key(site, epoch);
        let before: Stood = self.books.ledger.get(&key)?.unwrap_or_default();
        let after = Stood {
            segments: before.segments.saturating_add(more.segments),
            bytes: before.bytes.saturating_add(more.bytes),
        };
        self.books.ledger.put(key, &after);
        Ok(())
    }

    /// A receipt in the logbook of a recording that no manifest here names: a rebuild counts it.
    pub(crate) fn count_forgotten(&mut self, receipt: &Receipt) -> Result<(), SpoolError> {
        let body = receipt.body();
        let known = match self.books.names.camera(&body.recording.camera) {
            Some(camera) => self.books.recording(camera, body.recording.number)?,
            None => None,
        };
        if known.is_some() {
            return Ok(());
        }
        let site = self
            .books
            .names
            .intern_site(&body.site, &mut self.books.ledger)?;
        // Of their lengths the receipt says nothing.
        let stood = Stood {
            segments: body.segments.len() as u64,
            bytes: 0,
        };
        self.it_stood_on(site, body.epoch, stood)
    }

    /// Raises an alarm for each store that `keys` make void and on which something stood that is forgotten.
    pub(crate) fn tell_what_stood(&mut self, keys: &KeyList) -> Result<(), SpoolError> {
        let mut void: Vec<(Key, SiteId, StoreEpoch, Stood)> = Vec::new();
        for item in self.books.ledger.scan(&[tag::STOOD], None) {
            let (key, value) = item?;
            let stood: Stood = minicbor::decode(&value)
                .map_err(|e| SpoolError::Contradiction(format!("what stood on a store: {e}")))?;
            let site = key.get(1..3).and_then(|s| s.try_into().ok());
            let (Some(site), Some(epoch)) = (site.map(u16::from_be_bytes), key.last_chunk()) else {
                return Err(SpoolError::Contradiction("a key too short".into()));
            };
            let epoch = StoreEpoch(*epoch);
            for site in self.books.names.sites(std::iter::once(site))? {
                if keys.is_void(&site, epoch) {
                    void.push((key.clone(), site, epoch, stood));
                }
            }
        }
        for (key, site, epoch, stood) in void {
            let what = format!(
                "{} segments ({} bytes) that were released and reclaimed had receipts of store epoch {epoch}, which is void",
                stood.segments, stood.bytes
            );
            self.raise("released_void", site.as_str(), &what, self.opened);
            self.books.ledger.delete(key);
        }
        Ok(())
    }

    /// A manifest comes again that was forgotten since the last commit: its file is not to go any more. Whether it is as it
    /// came, and stays: until that commit the rows of before count, and they have it.
    pub(crate) fn take_back(&mut self, manifest: &Manifest) -> Result<bool, SpoolError> {
        let digest = manifest.digest();
        let Some(at) = self.group.unlink.iter().position(|d| *d == digest) else {
            return Ok(false);
        };
        self.group.unlink.swap_remove(at);
        let path = self.folder.manifest(&digest);
        if fs::read(&path).is_ok_and(|bytes| bytes == *manifest.bytes()) {
            self.books.ledger.delete(rows::of(tag::UNLINK, &digest));
            return Ok(true);
        }
        self.remove_manifest(&digest)?;
        Ok(false)
    }

    /// Step 2, for the manifests whose rows are durably gone.
    pub(crate) fn unlink_forgotten(&mut self) -> Result<(), SpoolError> {
        let gone = std::mem::take(&mut self.group.unlink);
        if gone.is_empty() {
            return Ok(());
        }
        self.done("forget 1");
        gone.iter()
            .try_for_each(|digest| self.remove_manifest(digest))?;
        self.done("forget 2");
        Ok(())
    }

    fn remove_manifest(&mut self, digest: &Digest) -> Result<(), SpoolError> {
        let path = self.folder.manifest(digest);
        match fs::metadata(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            other => {
                let taken = other.at(&path)?.len().next_multiple_of(4096);
                self.manifest_bytes = self.manifest_bytes.saturating_sub(taken);
                remove(&path)?;
            }
        }
        self.folder.changed(Place::Manifests);
        // Step 3: the next commit syncs the directory before its rows.
        self.books.ledger.delete(rows::of(tag::UNLINK, digest));
        Ok(())
    }
}

impl Books {
    /// Notes a recording that may have come to be over.
    pub(crate) fn may_be_over(&mut self, rec: &Recording) {
        if allows(&rec.row) {
            self.over.insert((rec.camera, rec.number));
        }
    }
}

/// Whether a recording's own row allows that it is over.
pub(crate) fn allows(row: &RecordingRow) -> bool {
    let all: u32 = row.stages.iter().sum();
    row.fate == camera_has::ERASED && row.stages[Stage::Released as usize] == all
}
