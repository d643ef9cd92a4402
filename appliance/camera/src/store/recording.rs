//! One recording as it lies on this camera: what its manifests name, which of it is here, and the receipts for it.
//!
//! [`Recording::permit`] is the whole of custody rule 5: the one function that says a segment may be erased, and
//! on which receipts. It asks again for every erasure, under the key list of that moment.

use std::collections::BTreeSet;

use bytes::Bytes;
use protocol::identity::Trust;
use protocol::ids::{CameraId, Digest, Range, RecordingId, Time, ranges_of};
use protocol::keylist::KeyList;
use protocol::limits;
use protocol::manifest::{Class, End, EndReason, HeaderEntry, Manifest, Policy, SegmentEntry};
use protocol::receipt::{self, Receipt};
use tracing::error;

use super::layout::{self, Entry, Layout};
use crate::disk::{self, DiskError};

/// Where a segment's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// In this store, of the right length.
    Here,
    /// Erased on receipts.
    Erased,
    /// Gone without permission: damage.
    Missing,
}

/// One segment.
#[derive(Clone, Debug)]
pub struct Segment {
    /// As its manifest names it.
    pub entry: SegmentEntry,
    /// Where its bytes are.
    pub bytes: Whereabouts,
    /// Position in the order in which segments came to have the receipts that the policy asks for.
    pub receipted: Option<u64>,
    /// Which of the recording's receipts name it.
    receipts: Vec<usize>,
}

/// One recording.
#[derive(Clone, Debug)]
pub struct Recording {
    /// Who and which.
    pub id: RecordingId,
    /// Its header.
    pub header: HeaderEntry,
    /// Whether the header's file is here, of the right length.
    pub header_here: bool,
    /// Whose receipts let it be erased.
    pub policy: Policy,
    /// Its class by the newest manifest.
    pub class: Class,
    /// The final flag, once it is finished.
    pub end: Option<End>,
    /// Digest of the newest manifest.
    pub manifest: Digest,
    /// Digests of all its manifests, by index.
    pub manifests: Vec<Digest>,
    /// Index of the newest manifest.
    pub index: u32,
    /// End of capture by the newest manifest.
    pub captured_to: Time,
    /// Ascending by number.
    pub segments: Vec<Segment>,
    receipts: Vec<Receipt>,
}

impl Recording {
    /// Reads and verifies a recording's folder; none where no manifest stands yet.
    pub(crate) fn load(
        layout: &Layout,
        camera: &CameraId,
        number: u64,
        trust: &Trust,
    ) -> Result<Option<Self>, DiskError> {
        let names = disk::list(&layout.recording(number))?;
        let mut recording: Option<Recording> = None;
        for (name, _) in &names {
            let Entry::Manifest(index) = layout::entry(name) else {
                continue;
            };
            let Some(manifest) = read_manifest(layout, camera, number, index, trust)? else {
                continue;
            };
            match &mut recording {
                Some(r) => r.take_manifest(&manifest),
                None => recording = Some(Recording::begin(&manifest)),
            }
        }
        if let Some(r) = &mut recording {
            r.look(&names);
        }
        Ok(recording)
    }

    /// A recording as its first manifest shows it, every byte taken to be here.
    pub(crate) fn begin(manifest: &Manifest) -> Recording {
        let body = manifest.body();
        let mut recording = Recording {
            id: body.recording.clone(),
            header: body.header,
            header_here: true,
            policy: body.policy.clone(),
            class: body.class,
            end: None,
            manifest: manifest.digest(),
            manifests: Vec::new(),
            index: body.index,
            captured_to: body.captured_to,
            segments: Vec::new(),
            receipts: Vec::new(),
        };
        recording.take_manifest(manifest);
        recording
    }

    /// Takes the next manifest; what it names is taken to be here.
    pub(crate) fn take_manifest(&mut self, manifest: &Manifest) {
        let body = manifest.body();
        let after = self.segments.last().map(|s| s.entry.seq);
        let new = body
            .segments
            .iter()
            .filter(|s| after.is_none_or(|last| s.seq > last));
        self.segments.extend(new.map(|entry| Segment {
            entry: *entry,
            bytes: Whereabouts::Here,
            receipted: None,
            receipts: Vec::new(),
        }));
        self.manifests.push(manifest.digest());
        (self.class, self.manifest, self.index) = (body.class, manifest.digest(), body.index);
        self.captured_to = body.captured_to;
        self.end = body.end.or(self.end);
    }

    /// Compares with what the folder holds.
    fn look(&mut self, names: &[(String, u64)]) {
        let mut found = BTreeSet::new();
        self.header_here = false;
        for (name, length) in names {
            match layout::entry(name) {
                Entry::Segment { seq, last } => drop(found.insert((seq, last, *length))),
                Entry::Header => self.header_here = *length == u64::from(self.header.length),
                _ => {}
            }
        }
        let last = |seq| self.is_last(seq);
        let here: Vec<bool> = self
            .segments
            .iter()
            .map(|s| found.contains(&(s.entry.seq, last(s.entry.seq), u64::from(s.entry.length))))
            .collect();
        for (segment, here) in self.segments.iter_mut().zip(here) {
            segment.bytes = if here {
                Whereabouts::Here
            } else {
                Whereabouts::Missing
            };
        }
    }

    /// Whether that segment carries the final flag.
    #[must_use]
    pub fn is_last(&self, seq: u64) -> bool {
        self.end
            .is_some_and(|e| e.reason == EndReason::Stopped && seq + 1 == e.segments)
    }

    /// The segment of that number.
    #[must_use]
    pub fn segment(&self, seq: u64) -> Option<&Segment> {
        self.position(seq).map(|i| &self.segments[i])
    }

    fn position(&self, seq: u64) -> Option<usize> {
        self.segments
            .binary_search_by_key(&seq, |s| s.entry.seq)
            .ok()
    }

    /// Whether a receipt permits more than those already here do: names a segment or manifest for which its site has
    /// not spoken in a receipt that still counts under `keys`. One of a store that burned says nothing any more.
    pub(crate) fn gains_by(&self, offered: &Receipt, keys: &KeyList) -> bool {
        let same = |r: &Receipt| r.body().site == offered.body().site && r.counts(keys);
        let says = |s: &&Segment| offered.covers(&self.id, self.header.digest, s.entry.digest);
        let known = |s: &Segment| s.receipts.iter().any(|i| same(&self.receipts[*i]));
        let site = &offered.body().site;
        let new_paper = |m: &&Digest| {
            let says = |r: &Receipt| r.covers_manifest(&self.id, self.header.digest, **m);
            says(offered) && !self.receipts.iter().any(|r| same(r) && says(r))
        };
        self.policy.sites.contains(site)
            && (self.segments.iter().filter(says).any(|s| !known(s))
                || self.manifests.iter().any(|m| new_paper(&m)))
    }

    /// Counts a receipt that verified; `order` goes to each segment that now has as many as the policy asks for.
    pub(crate) fn count(&mut self, taken: Receipt, keys: &KeyList, order: &mut u64) {
        let number = self.receipts.len();
        let named: BTreeSet<Digest> = taken.body().segments.iter().copied().collect();
        self.receipts.push(taken);
        for i in 0..self.segments.len() {
            if named.contains(&self.segments[i].entry.digest) {
                self.segments[i].receipts.push(number);
                self.judge(i, keys, order);
            }
        }
    }

    /// Judges every segment again, under a newer key list.
    pub(crate) fn recount(&mut self, keys: &KeyList, order: &mut u64) {
        (0..self.segments.len()).for_each(|i| self.judge(i, keys, order));
    }

    fn judge(&mut self, i: usize, keys: &KeyList, order: &mut u64) {
        let permitted = self.permit(&self.segments[i], keys).is_some();
        let receipted = &mut self.segments[i].receipted;
        match (permitted, *receipted) {
            (true, None) => {
                *receipted = Some(*order);
                *order += 1;
            }
            (false, Some(_)) => *receipted = None,
            _ => {}
        }
    }

    /// Custody rule 5: the digests of the receipts on which this segment may be erased; none where it may not. They
    /// count under the root-signed list `keys`, name this segment's and the header's digest, and come from
    /// as many sites of the policy as it asks for.
    #[must_use]
    pub fn permit(&self, segment: &Segment, keys: &KeyList) -> Option<Vec<Digest>> {
        let speaks = |r: &&Receipt| {
            r.counts(keys) && r.covers(&self.id, self.header.digest, segment.entry.digest)
        };
        let counting: Vec<&Receipt> = segment
            .receipts
            .iter()
            .map(|i| &self.receipts[*i])
            .filter(speaks)
            .collect();
        let sites = counting.iter().map(|r| r.body().site.clone()).collect();
        receipt::satisfied(&self.policy, keys, &sites)
            .then(|| counting.iter().map(|r| r.digest()).collect())
    }

    /// Whether a manifest has as many receipts as the policy asks for: header and manifests go only when all have.
    #[must_use]
    pub fn has_receipts(&self, manifest: Digest, keys: &KeyList) -> bool {
        let speaks = |r: &&Receipt| {
            r.counts(keys) && r.covers_manifest(&self.id, self.header.digest, manifest)
        };
        let sites = self
            .receipts
            .iter()
            .filter(speaks)
            .map(|r| r.body().site.clone())
            .collect();
        receipt::satisfied(&self.policy, keys, &sites)
    }

    /// Marks segments as erased; gives those whose files were still here.
    pub(crate) fn erase(&mut self, segments: &[Range]) -> Vec<u64> {
        let mut unlink = Vec::new();
        for segment in &mut self.segments {
            if segments.iter().any(|r| r.contains(segment.entry.seq)) {
                if segment.bytes == Whereabouts::Here {
                    unlink.push(segment.entry.seq);
                }
                segment.bytes = Whereabouts::Erased;
            }
        }
        unlink
    }

    /// Numbers of the segments that satisfy `which`, as ranges.
    #[must_use]
    pub fn ranges(&self, which: impl Fn(&Segment) -> bool) -> Vec<Range> {
        ranges_of(
            self.segments
                .iter()
                .filter(|s| which(s))
                .map(|s| s.entry.seq),
        )
    }

    /// Sealed bytes that are here, header included.
    #[must_use]
    pub fn bytes_here(&self) -> u64 {
        let here = self
            .segments
            .iter()
            .filter(|s| s.bytes == Whereabouts::Here);
        let header = if self.header_here {
            u64::from(self.header.length)
        } else {
            0
        };
        here.map(|s| u64::from(s.entry.length)).sum::<u64>() + header
    }

    /// Whether nothing of it is needed here any more: it is finished, every segment of it is erased, and every
    /// manifest, the final one with its count among them, has its receipts.
    #[must_use]
    pub fn is_done(&self, keys: &KeyList) -> bool {
        let whole = self
            .end
            .is_some_and(|e| e.segments == self.segments.len() as u64);
        whole
            && self.segments.iter().all(|s| s.bytes == Whereabouts::Erased)
            && self.manifests.iter().all(|m| self.has_receipts(*m, keys))
    }
}

/// Reads one manifest from the store and verifies it; none, loudly, for a damaged one.
pub(crate) fn read_manifest(
    layout: &Layout,
    camera: &CameraId,
    number: u64,
    index: u32,
    trust: &Trust,
) -> Result<Option<Manifest>, DiskError> {
    let path = layout.manifest(number, index);
    let Some(bytes) = disk::read_if_there(&path, limits::MANIFEST_BYTES)? else {
        return Ok(None);
    };
    let expected = |m: &Manifest| {
        let body = m.body();
        body.recording.camera == *camera && body.recording.number == number && body.index == index
    };
    match Manifest::verify(Bytes::from(bytes), trust) {
        Ok(manifest) if expected(&manifest) => Ok(Some(manifest)),
        Ok(_) => {
            error!(path = %path.display(), "a manifest is not the one that its name says: passed over");
            Ok(None)
        }
        Err(error) => {
            error!(path = %path.display(), %error, "a manifest is damaged: passed over");
            Ok(None)
        }
    }
}
