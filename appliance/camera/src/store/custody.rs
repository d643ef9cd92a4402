//! Receipts in, footage out: the only file that erases footage.
//!
//! Procedure, under `custody.lock`:
//! 1. take in what the other program wrote into the record (key list included);
//! 2. verify each receipt under the key list; append those that permit more than is permitted already; sync the record;
//! 3. where erasing is asked for, ask [`Recording::permit`] for each segment; append what is erased and on which
//!    receipts; sync the record;
//! 4. unlink the segments, sync their folder;
//! 5. of a finished recording without segments, whose manifests all have their receipts, append that it is released,
//!    sync the record, unlink header, state and manifests, remove the folder, sync the folder above.
//!
//! A crash after 3 or 5 leaves files that the record says are gone: whoever reads the record next finishes. A crash
//! before leaves them as they were. A repeater can bring receipts; it cannot make one, so that it cannot erase.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use protocol::ids::{Digest, Range, Time, ranges_of};
use protocol::limits as wire;
use protocol::receipt::Receipt;
use protocol::suite;
use tracing::{error, info, warn};

use super::record::Entry;
use super::recording::{Recording, Segment, Whereabouts};
use super::{Gone, Lock, Store, StoreError, layout};
use crate::{disk, limits};

/// What became of the receipts for one recording: the answer `released`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Segments and manifests that now have the receipts which the policy asks for.
    pub receipted: Vec<Digest>,
    /// Digests of receipts that were refused.
    pub refused: Vec<Digest>,
}

impl Store {
    /// Takes receipts: verified, durable in the record on return, and what they permit by recording. `erase` erases
    /// at once what is permitted in the recordings touched.
    ///
    /// # Errors
    /// Any [`StoreError`]; a receipt that is refused is no error.
    pub(crate) fn take_receipts(
        &mut self,
        offered: Vec<Bytes>,
        erase: bool,
        now: Time,
    ) -> Result<BTreeMap<u64, Taken>, StoreError> {
        let _lock = Lock::take(&self.layout.file("custody.lock"), limits::LOCK_WAIT)?;
        self.catch_up()?;
        let mut taken: BTreeMap<u64, Taken> = BTreeMap::new();
        let mut refused = Vec::new();
        let mut verified = Vec::new();
        for bytes in offered.into_iter().take(wire::RELEASE_RECEIPTS) {
            let digest = suite::sha256(&bytes);
            match Receipt::verify(bytes, &self.keys) {
                Ok(receipt) if self.is_ours(&receipt) => verified.push(receipt),
                Ok(_) => {
                    warn!(receipt = %digest, "a receipt is refused: of a recording that is not here, or of another header");
                    refused.push(digest);
                }
                Err(error) => {
                    warn!(receipt = %digest, %error, "a receipt is refused");
                    refused.push(digest);
                }
            }
        }
        self.keep(&verified)?;
        if let Some(newest) = verified.iter().map(|r| r.body().signed).max() {
            self.keep_signed_time(newest);
        }
        for receipt in &verified {
            let number = receipt.body().recording.number;
            taken
                .entry(number)
                .or_default()
                .receipted
                .extend(self.permitted(receipt));
        }
        if erase {
            for number in taken.keys() {
                self.erase_in(*number, now)?;
            }
        }
        if !refused.is_empty() {
            let about = taken.keys().next().copied().unwrap_or_default();
            taken.entry(about).or_default().refused = refused;
        }
        Ok(taken)
    }

    /// Whether a receipt speaks of a recording of this store, under its header.
    fn is_ours(&self, receipt: &Receipt) -> bool {
        let body = receipt.body();
        let number = body.recording.number;
        let held = self.recordings.get(&number).map(|r| r.header.digest);
        let header = held.or_else(|| self.gone.get(&number).map(|g| g.header));
        body.recording.camera == self.camera && header == Some(body.header)
    }

    /// Appends the receipts that permit more than is permitted already, and counts them.
    fn keep(&mut self, verified: &[Receipt]) -> Result<(), StoreError> {
        let mut entries = Vec::new();
        let mut useful: Vec<&Receipt> = Vec::new();
        for receipt in verified {
            let number = receipt.body().recording.number;
            let gains = self
                .recordings
                .get(&number)
                .is_some_and(|r| r.gains_by(receipt, &self.keys));
            if gains && !useful.iter().any(|u| u.digest() == receipt.digest()) {
                entries.push(Entry::Receipt {
                    number,
                    bytes: receipt.bytes().to_vec().into(),
                });
                useful.push(receipt);
            }
        }
        self.record.append(&entries)?;
        for receipt in useful {
            let number = receipt.body().recording.number;
            let recording = self
                .recordings
                .get_mut(&number)
                .expect("a receipt gains in a recording that is here");
            recording.count(receipt.clone(), &self.keys, &mut self.order);
            self.changed = true;
        }
        Ok(())
    }

    /// Of what a receipt names, the segments and manifests that have all the receipts they need.
    fn permitted(&self, receipt: &Receipt) -> Vec<Digest> {
        let number = receipt.body().recording.number;
        let Some(recording) = self.recordings.get(&number) else {
            // Released as a whole: every segment and manifest had its receipts.
            return receipt
                .body()
                .segments
                .iter()
                .chain(&receipt.body().manifests)
                .copied()
                .collect();
        };
        let has = |digest: &&Digest| {
            let seq = self
                .digests
                .get(digest)
                .filter(|(n, _)| *n == number)
                .and_then(|(_, seq)| *seq);
            seq.and_then(|s| recording.segment(s))
                .is_some_and(|s| s.receipted.is_some())
        };
        let paper = |m: &&Digest| {
            recording.manifests.contains(m) && recording.has_receipts(**m, &self.keys)
        };
        let segments = receipt.body().segments.iter().filter(has);
        segments
            .chain(receipt.body().manifests.iter().filter(paper))
            .copied()
            .collect()
    }

    /// Erases every segment that its receipts permit to erase.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub(crate) fn erase_receipted(&mut self, now: Time) -> Result<(), StoreError> {
        let _lock = Lock::take(&self.layout.file("custody.lock"), limits::LOCK_WAIT)?;
        self.catch_up()?;
        let numbers: Vec<u64> = self.recordings.keys().copied().collect();
        numbers
            .into_iter()
            .try_for_each(|number| self.erase_in(number, now))
    }

    /// Erases the longest-receipted segments until `bytes` are free; gives how many bytes went.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub(crate) fn make_room(&mut self, bytes: u64, now: Time) -> Result<u64, StoreError> {
        let mut news = super::News::default();
        self.find_manifests(&mut news)?;
        let _lock = Lock::take(&self.layout.file("custody.lock"), limits::LOCK_WAIT)?;
        self.catch_up()?;
        let receipted = self.recordings.iter().flat_map(|(number, r)| {
            let here = r.segments.iter().filter(|s| s.bytes == Whereabouts::Here);
            here.filter_map(|s| {
                s.receipted
                    .map(|order| (order, *number, s.entry.seq, s.entry.length))
            })
        });
        let mut receipted: Vec<_> = receipted.collect();
        receipted.sort_unstable();
        let mut chosen: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        let mut freed = 0;
        for (_, number, seq, length) in receipted {
            if freed >= bytes {
                break;
            }
            chosen.entry(number).or_default().insert(seq);
            freed += u64::from(length);
        }
        let before: u64 = self.recordings.values().map(Recording::bytes_here).sum();
        for (number, seqs) in chosen {
            self.erase(number, &|s| seqs.contains(&s.entry.seq), now)?;
        }
        Ok(before
            - self
                .recordings
                .values()
                .map(Recording::bytes_here)
                .sum::<u64>())
    }

    fn erase_in(&mut self, number: u64, now: Time) -> Result<(), StoreError> {
        self.erase(number, &|_| true, now)
    }

    /// Steps 3 to 5 for the segments of one recording that `chosen` names and [`Recording::permit`] permits.
    fn erase(
        &mut self,
        number: u64,
        chosen: &dyn Fn(&Segment) -> bool,
        now: Time,
    ) -> Result<(), StoreError> {
        let Some(recording) = self.recordings.get(&number) else {
            return Ok(());
        };
        let header = recording.header.digest;
        let mut seqs = Vec::new();
        let mut receipts: Vec<Digest> = Vec::new();
        for segment in recording
            .segments
            .iter()
            .filter(|s| s.bytes == Whereabouts::Here && chosen(s))
        {
            let Some(permit) = recording.permit(segment, &self.keys) else {
                continue;
            };
            seqs.push(segment.entry.seq);
            receipts.extend(permit);
        }
        let mut seen = BTreeSet::new();
        receipts.retain(|r| seen.insert(*r));
        let segments = ranges_of(seqs.iter().copied());
        let after = recording
            .ranges(|s| s.bytes == Whereabouts::Erased || seqs.binary_search(&s.entry.seq).is_ok());
        if segments.is_empty() {
            return self.release_if_emptied(number, now);
        }
        if after.len() > wire::INVENTORY_RANGES {
            return Ok(()); // more holes than an inventory could tell of: when they close
        }
        let erased = Entry::Erased {
            number,
            segments: segments.clone(),
            receipts: receipts.clone(),
            at: now,
            header,
        };
        self.record.append(&[erased])?;
        self.apply_erased(number, header, &segments, &receipts)?;
        self.release_if_emptied(number, now)
    }

    /// Releases recordings that were finished after their last segment was erased, or whose release a crash cut short.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub(crate) fn release_emptied(&mut self, now: Time) -> Result<(), StoreError> {
        let emptied = self
            .recordings
            .iter()
            .filter(|(_, r)| r.is_done(&self.keys));
        let emptied: Vec<u64> = emptied.map(|(number, _)| *number).collect();
        if emptied.is_empty() {
            return Ok(());
        }
        let _lock = Lock::take(&self.layout.file("custody.lock"), limits::LOCK_WAIT)?;
        self.catch_up()?;
        emptied
            .into_iter()
            .try_for_each(|number| self.release_if_emptied(number, now))
    }

    fn release_if_emptied(&mut self, number: u64, now: Time) -> Result<(), StoreError> {
        let Some(recording) = self
            .recordings
            .get(&number)
            .filter(|r| r.is_done(&self.keys))
        else {
            return Ok(());
        };
        let (header, manifest) = (recording.header.digest, recording.manifest);
        let segments = recording.segments.len() as u64;
        self.record.append(&[Entry::Released {
            number,
            header,
            manifest,
            segments,
            at: now,
        }])?;
        self.apply_released(number, header, segments)?;
        info!(number, segments, "recording released: erased on receipts");
        Ok(())
    }

    /// Whether what is here under a number is what the entry of that header speaks of, or nothing is here. An entry
    /// about other footage is none about this: numbers could only be used twice by a mistake, which must not erase.
    fn speaks_of(&self, number: u64, header: Digest) -> Result<bool, StoreError> {
        let held = match self.recordings.get(&number) {
            Some(recording) => Some(recording.header.digest),
            None => disk::read_if_there(&self.layout.header(number), wire::HEADER_BYTES)?
                .map(|bytes| suite::sha256(&bytes)),
        };
        let same = held.is_none_or(|held| held == header);
        if !same {
            error!(
                number,
                "the record tells of another recording with this number: nothing is erased by it"
            );
        }
        Ok(same)
    }

    /// Makes true what the record says: unlinks what is still here.
    pub(super) fn apply_erased(
        &mut self,
        number: u64,
        header: Digest,
        segments: &[Range],
        receipts: &[Digest],
    ) -> Result<(), StoreError> {
        if !self.speaks_of(number, header)? {
            return Ok(());
        }
        let on = self.erased_on.entry(number).or_default();
        on.extend(
            receipts
                .iter()
                .filter(|r| !on.contains(r))
                .copied()
                .collect::<Vec<_>>(),
        );
        self.erasures += 1;
        let Some(recording) = self.recordings.get_mut(&number) else {
            return Ok(());
        };
        let unlink = recording.erase(segments);
        let recording = &self.recordings[&number];
        for seq in &unlink {
            disk::remove(&self.layout.segment(number, *seq, recording.is_last(*seq)))?;
        }
        if !unlink.is_empty() {
            disk::sync_folder(&self.layout.recording(number))?;
            self.changed = true;
        }
        Ok(())
    }

    /// Makes true what the record says: removes what is left of a released recording.
    pub(super) fn apply_released(
        &mut self,
        number: u64,
        header: Digest,
        segments: u64,
    ) -> Result<(), StoreError> {
        if !self.speaks_of(number, header)? {
            return Ok(());
        }
        let receipts = self.erased_on.remove(&number).unwrap_or_default();
        self.gone.insert(
            number,
            Gone {
                header,
                segments,
                receipts,
            },
        );
        if let Some(recording) = self.recordings.remove(&number) {
            self.digests.remove(&recording.header.digest);
            for segment in &recording.segments {
                self.digests.remove(&segment.entry.digest);
            }
            self.changed = true;
        }
        let folder = self.layout.recording(number);
        if folder.exists() {
            let names = disk::list(&folder)?;
            let segment = |n: &str| matches!(layout::entry(n), layout::Entry::Segment { .. });
            if names.iter().any(|(name, _)| segment(name)) {
                error!(
                    number,
                    "segments that no receipt names are left of a released recording: they stay"
                );
                return Ok(());
            }
            for (name, _) in names {
                disk::remove(&folder.join(name))?;
            }
            std::fs::remove_dir(&folder).map_err(disk::at("remove", &folder))?;
            disk::sync_folder(&self.layout.recordings())?;
        }
        Ok(())
    }
}
