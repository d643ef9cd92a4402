//! The chain of a recording's manifests, and closing one that a crash left open.
//!
//! A sealer that dies leaves a folder whose newest manifest has no final flag, or that has none at all. What is there
//! under its whole name was synced; so the next start names in a closing manifest every segment that no manifest
//! names yet, states the count, and says `interrupted`; or `stopped`, where the last segment carries the final flag,
//! which its name tells. A folder without a whole segment was never shown to anyone: it goes, and its number is used
//! again. The content key died with its process, so that nothing is ever added under it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::time::UNIX_EPOCH;

use link::clock::Clock;
use minicbor::{Decode, Encode};
use protocol::cose::DeviceSigner;
use protocol::identity::Trust;
use protocol::ids::{Digest, RecordingId, Time};
use protocol::limits as wire;
use protocol::manifest::{
    self, Class, End, EndReason, HeaderEntry, Manifest, ManifestError, Policy, SegmentEntry,
};
use protocol::suite::{self, Hasher};
use tracing::{error, info, warn};

use super::SealError;
use crate::disk::{self, DiskError, at};
use crate::limits;
use crate::store::StoreError;
use crate::store::layout::{self, Entry, Layout};
use crate::store::papers::{self, CameraPaper, ClockPaper};
use crate::store::recording;

/// `state.cbor`: what a closing manifest needs where no manifest stands yet.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct StatePaper {
    #[n(1)]
    class: Class,
    #[n(2)]
    policy: Policy,
    #[n(3)]
    began: Time,
}

/// What manifests say of the camera's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hints {
    clock_unset: bool,
    clock_offset_ms: Option<i64>,
}

impl Hints {
    /// By the clock, and what a repeater last said of it.
    pub(crate) fn read(layout: &Layout, clock: &Clock) -> Hints {
        let paper = papers::read::<ClockPaper>(&layout.file("clock.cbor"))
            .ok()
            .flatten()
            .unwrap_or_default();
        Hints {
            clock_unset: !clock.is_set(),
            clock_offset_ms: paper.offset_ms,
        }
    }
}

/// What the next manifest of a recording says besides its segments.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    id: RecordingId,
    header: HeaderEntry,
    policy: Policy,
    class: Class,
    index: u32,
    previous: Option<Digest>,
    sealed: u64,
}

impl Ledger {
    /// Of a recording without manifests.
    pub(crate) fn begin(
        id: RecordingId,
        header: HeaderEntry,
        policy: Policy,
        class: Class,
    ) -> Ledger {
        Ledger {
            id,
            header,
            policy,
            class,
            index: 0,
            previous: None,
            sealed: 0,
        }
    }

    /// Of a recording whose newest manifest is `last`; none where that one is final.
    fn after(last: &Manifest) -> Option<Ledger> {
        let body = last.body();
        let after = body.segments.last().map(|s| s.seq + 1);
        body.end.is_none().then(|| Ledger {
            id: body.recording.clone(),
            header: body.header,
            policy: body.policy.clone(),
            class: body.class,
            index: body.index + 1,
            previous: Some(last.digest()),
            sealed: after.unwrap_or_default(),
        })
    }

    /// The recording.
    pub(crate) fn id(&self) -> &RecordingId {
        &self.id
    }
    /// Segments named so far.
    pub(crate) fn sealed(&self) -> u64 {
        self.sealed
    }
    /// What a closing manifest would need.
    pub(crate) fn state(&self, began: Time) -> StatePaper {
        StatePaper {
            class: self.class,
            policy: self.policy.clone(),
            began,
        }
    }

    /// Signs the next manifest.
    pub(crate) fn manifest(
        &mut self,
        segments: Vec<SegmentEntry>,
        captured: (Time, Time),
        end: Option<EndReason>,
        hints: &Hints,
        signer: &DeviceSigner,
    ) -> Result<Manifest, ManifestError> {
        let sealed = segments.last().map_or(self.sealed, |s| s.seq + 1);
        let body = manifest::Body {
            version: manifest::VERSION,
            recording: self.id.clone(),
            index: self.index,
            previous: self.previous,
            header: self.header,
            segments,
            captured_from: captured.0,
            captured_to: captured.1,
            class: self.class,
            policy: self.policy.clone(),
            end: end.map(|reason| End {
                segments: sealed,
                reason,
            }),
            clock_unset: hints.clock_unset,
            clock_offset_ms: hints.clock_offset_ms,
        };
        let signed = Manifest::sign(body, signer)?;
        (self.index, self.previous, self.sealed) = (self.index + 1, Some(signed.digest()), sealed);
        Ok(signed)
    }
}

/// Closes every recording that an earlier sealer left open. The caller holds the seal lock.
///
/// # Errors
/// [`SealError::Store`], and what signing says.
pub(crate) fn close_interrupted(
    layout: &Layout,
    paper: &mut CameraPaper,
    signer: &DeviceSigner,
    trust: &Trust,
    clock: &Clock,
) -> Result<(), SealError> {
    let folders = disk::list(&layout.recordings())?;
    let newest = paper.next.saturating_sub(1);
    // A sealer closes what it finds before it begins anew: only the newest two numbers can be open.
    for number in folders
        .iter()
        .filter_map(|(n, _)| layout::recording_number(n))
        .filter(|n| *n >= newest)
    {
        close_one(layout, paper, number, signer, trust, clock)?;
    }
    Ok(())
}

fn close_one(
    layout: &Layout,
    paper: &mut CameraPaper,
    number: u64,
    signer: &DeviceSigner,
    trust: &Trust,
    clock: &Clock,
) -> Result<(), SealError> {
    let mut manifests = Vec::new();
    let mut segments = BTreeMap::new();
    for (name, _) in disk::list(&layout.recording(number))? {
        match layout::entry(&name) {
            Entry::Manifest(index) => manifests.push(index),
            Entry::Segment { seq, last } => drop(segments.insert(seq, last)),
            Entry::Other => disk::remove(&layout.recording(number).join(name))?,
            Entry::Header | Entry::State => {}
        }
    }
    let last = manifests
        .iter()
        .max()
        .map(|index| recording::read_manifest(layout, &paper.camera, number, *index, trust));
    let begun = match last.transpose()?.flatten() {
        Some(last) => Ledger::after(&last).map(|ledger| (ledger, last.body().captured_to)),
        None if !manifests.is_empty() => {
            error!(
                number,
                "the newest manifest is damaged: the recording stays as it is"
            );
            return Ok(());
        }
        None if segments.is_empty() => return Ok(discard(layout, number)?),
        None if !segments.contains_key(&0) => {
            error!(
                number,
                "segments are there, but neither the first nor a manifest: they stay as they are"
            );
            return Ok(());
        }
        None => Some(unmanifested(layout, paper, number)?),
    };
    if let Some((ledger, from)) = begun {
        write_closing(layout, ledger, from, &segments, signer, clock)?;
    }
    if number >= paper.next {
        paper.next = number + 1;
        papers::keep(layout, "camera.cbor", paper)?;
    }
    Ok(())
}

/// What is known of a recording before its first manifest.
fn unmanifested(
    layout: &Layout,
    paper: &CameraPaper,
    number: u64,
) -> Result<(Ledger, Time), StoreError> {
    let header = disk::read_if_there(&layout.header(number), wire::HEADER_BYTES)?;
    let state = papers::read::<StatePaper>(&layout.state(number))?;
    let (Some(header), Some(state)) = (header, state) else {
        let (path, what) = (
            layout.recording(number),
            "segments are there, but the header or state is not",
        );
        return Err(StoreError::Damaged { path, what });
    };
    let length = u32::try_from(header.len()).expect("bounded when read");
    let entry = HeaderEntry {
        digest: suite::sha256(&header),
        length,
    };
    let id = RecordingId {
        camera: paper.camera.clone(),
        number,
    };
    Ok((
        Ledger::begin(id, entry, state.policy, state.class),
        state.began,
    ))
}

fn write_closing(
    layout: &Layout,
    mut ledger: Ledger,
    from: Time,
    segments: &BTreeMap<u64, bool>,
    signer: &DeviceSigner,
    clock: &Clock,
) -> Result<(), SealError> {
    let number = ledger.id().number;
    let mut unnamed = Vec::new();
    let (mut to, mut stopped) = (from, false);
    for seq in ledger.sealed().. {
        let Some(last) = segments.get(&seq) else {
            break;
        };
        let (entry, written) = name_segment(layout, number, seq, *last)?;
        unnamed.push(entry);
        to = to.max(written);
        stopped = *last;
    }
    if segments
        .keys()
        .next_back()
        .is_some_and(|s| *s >= ledger.sealed() + unnamed.len() as u64)
    {
        error!(
            number,
            "a segment is missing before others: those after it cannot be named"
        );
    }
    disk::sync_folder(&layout.recording(number))?;
    let hints = Hints::read(layout, clock);
    let reason = if stopped {
        EndReason::Stopped
    } else {
        EndReason::Interrupted
    };
    let mut chunks = unnamed.chunks(wire::MANIFEST_SEGMENTS).peekable();
    loop {
        let chunk = chunks.next().unwrap_or_default().to_vec();
        let end = chunks.peek().is_none().then_some(reason);
        let manifest = ledger.manifest(chunk, (from, to), end, &hints, signer)?;
        let path = layout.manifest(number, manifest.body().index);
        disk::replace_for_sure(&path, manifest.bytes(), &layout.ballast())?;
        if end.is_some() {
            warn!(
                number,
                segments = ledger.sealed(),
                ?reason,
                "closed a recording that was left open"
            );
            return Ok(());
        }
    }
}

/// Syncs and hashes a segment that no manifest names: its entry, and when it was written.
fn name_segment(
    layout: &Layout,
    number: u64,
    seq: u64,
    last: bool,
) -> Result<(SegmentEntry, Time), DiskError> {
    let path = layout.segment(number, seq, last);
    let mut file = File::open(&path).map_err(at("open", &path))?;
    file.sync_all().map_err(at("sync", &path))?;
    let meta = file.metadata().map_err(at("look at", &path))?;
    let written = meta
        .modified()
        .ok()
        .and_then(|t| t.duration_since(UNIX_EPOCH).ok())
        .unwrap_or_default();
    let mut hasher = Hasher::new();
    let mut chunk = vec![0; limits::CHUNK_BYTES];
    let mut length = 0;
    loop {
        let n = file.read(&mut chunk).map_err(at("read", &path))?;
        if n == 0 {
            break;
        }
        hasher.update(&chunk[..n]);
        length += n;
    }
    let length = u32::try_from(length).unwrap_or(u32::MAX); // what is longer than a segment, signing refuses
    let entry = SegmentEntry {
        seq,
        length,
        digest: hasher.finish(),
    };
    Ok((
        entry,
        Time(u64::try_from(written.as_millis()).unwrap_or_default()),
    ))
}

/// Removes a recording that holds no whole segment and that nobody was told of; its number is used again. Only what
/// its beginning made goes: with a segment or a manifest in it, the folder stays, and that is an error.
pub(crate) fn discard(layout: &Layout, number: u64) -> Result<(), DiskError> {
    let folder = layout.recording(number);
    let names = disk::list(&folder)?;
    let footage = |e: Entry| matches!(e, Entry::Segment { .. } | Entry::Manifest(_));
    if names.iter().any(|(name, _)| footage(layout::entry(name))) {
        return Err(at("remove", &folder)(
            io::ErrorKind::DirectoryNotEmpty.into(),
        ));
    }
    for (name, _) in names {
        disk::remove(&folder.join(name))?;
    }
    fs::remove_dir(&folder).map_err(at("remove", &folder))?;
    info!(number, "removed a recording that had not begun");
    disk::sync_folder(&layout.recordings())
}
