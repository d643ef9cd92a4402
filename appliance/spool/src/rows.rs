//! The ledger's rows and keys. One key space, a tag byte for each kind of row, so that one batch changes all
//! kinds at once; numbers in keys are big-endian, so that a scan reads in the order of work.
//!
//! Two kinds of rows: *records* (cameras, recordings, manifests, segments, receipts) and *queues*, which are
//! keys without a value, derived from the records by [`segment_queues`] and [`manifest_queues`] and by nothing
//! else. Cameras and sites are numbered here, to keep keys short; the numbers mean nothing outside.

use minicbor::{Decode, Encode};
use protocol::custody::Stage;
use protocol::ids::{CameraId, Digest, Time};
use protocol::manifest::{Class, HeaderEntry, Policy};
use protocol::schedule;

use crate::contact::Meeting;

/// A key of the ledger.
pub(crate) type Key = Vec<u8>;

/// The kinds of rows.
pub(crate) mod tag {
    /// Where the logbook stood, and the sum over all rows.
    pub(crate) const META: u8 = b'm';
    /// Camera number -> [`super::CameraRow`].
    pub(crate) const CAMERA: u8 = b'c';
    /// Site number -> name.
    pub(crate) const SITE: u8 = b's';
    /// Pattern number -> [`super::Pattern`].
    pub(crate) const PATTERN: u8 = b'P';
    /// Camera, recording number -> [`super::RecordingRow`].
    pub(crate) const RECORDING: u8 = b'r';
    /// Digest -> [`super::ManifestRow`].
    pub(crate) const MANIFEST: u8 = b'M';
    /// Camera, number, index, digest: the manifests of a recording.
    pub(crate) const MANIFESTS: u8 = b'N';
    /// Digest -> [`super::SegmentRow`].
    pub(crate) const SEGMENT: u8 = b'S';
    /// Camera, number, seq + 1 (0 is the header), digest: the segments of a recording.
    pub(crate) const SEGMENTS: u8 = b'T';
    /// Receipt number -> [`super::ReceiptRow`].
    pub(crate) const RECEIPT: u8 = b'e';
    /// Digest of a receipt -> its number.
    pub(crate) const RECEIPT_OF: u8 = b'E';
    /// Code, subject -> an alarm.
    pub(crate) const ALARM: u8 = b'A';
    /// To pull, per camera.
    pub(crate) const PULL: u8 = b'p';
    /// To put, per pattern.
    pub(crate) const PUT: u8 = b'u';
    /// To offer, per pattern.
    pub(crate) const OFFER: u8 = b'o';
    /// Receipts that a camera is due.
    pub(crate) const DUE: u8 = b'd';
    /// Bytes that may be reclaimed, longest archived first.
    pub(crate) const RECLAIM: u8 = b'g';
    /// Bytes that may be reclaimed early, above the high watermark.
    pub(crate) const EARLY: u8 = b'h';
    /// On no known holder.
    pub(crate) const UNACCOUNTED: u8 = b'z';
    /// Refused segments by the time of their next try.
    pub(crate) const RETRY: u8 = b'x';
    /// Digest of a manifest that is forgotten and whose file is to go.
    pub(crate) const UNLINK: u8 = b'f';
    /// Site, store epoch -> how much stood on it that is forgotten.
    pub(crate) const STOOD: u8 = b'F';
    /// Archives' refusals by the time of the next try.
    pub(crate) const SITE_RETRY: u8 = b'y';
}

/// What the camera's newest inventory says of a segment.
pub(crate) mod camera_has {
    /// It holds it, or said nothing yet.
    pub(crate) const IT: u8 = 0;
    /// It has erased it, on receipts.
    pub(crate) const ERASED: u8 = 1;
    /// It has overwritten it, and said so.
    pub(crate) const OVERWRITTEN: u8 = 2;
}

/// A camera's storage.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct CameraRow {
    #[n(0)]
    pub(crate) id: CameraId,
    /// The number of its newest inventory.
    #[n(1)]
    pub(crate) inventory: Option<u64>,
    #[n(2)]
    pub(crate) next_recording: u64,
    #[n(3)]
    pub(crate) last_contact: Option<Time>,
    /// What was learnt of it then; rows of earlier releases have none.
    #[n(4)]
    pub(crate) meeting: Option<Meeting>,
}

/// A recording, as its manifests so far have it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct RecordingRow {
    #[n(0)]
    pub(crate) header: HeaderEntry,
    /// Policy, class of the manifest with the highest index.
    #[n(1)]
    pub(crate) policy: Policy,
    #[n(2)]
    pub(crate) class: Class,
    /// The earliest time of capture that a manifest names.
    #[n(3)]
    pub(crate) captured: Time,
    /// The highest index.
    #[n(4)]
    pub(crate) top: u32,
    /// Every index below this is here.
    #[n(5)]
    pub(crate) next_missing: u32,
    /// The final count.
    #[n(6)]
    pub(crate) end: Option<u64>,
    /// Segments and header by stage.
    #[n(7)]
    pub(crate) stages: [u32; 5],
    /// Bytes of segments and header.
    #[n(8)]
    pub(crate) bytes: u64,
    /// The whole recording's fate in the newest inventory, as [`camera_has`].
    #[n(9)]
    pub(crate) fate: u8,
}

/// A manifest.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct ManifestRow {
    #[n(0)]
    pub(crate) camera: u32,
    #[n(1)]
    pub(crate) number: u64,
    #[n(2)]
    pub(crate) index: u32,
    /// Segments (and the header) announced by it that are not archived.
    #[n(3)]
    pub(crate) open: u32,
    /// Sites that answered its offer.
    #[n(4)]
    pub(crate) answered: Vec<u16>,
    /// Sites that refused it.
    #[n(5)]
    pub(crate) refused_by: Vec<u16>,
    /// The pattern in whose queue it waits.
    #[n(6)]
    pub(crate) queue: Option<u32>,
    /// Receipts that name it and count: their number and site.
    #[n(7)]
    pub(crate) receipts: Vec<(u32, u16)>,
    /// The camera said that it has those receipts.
    #[n(8)]
    pub(crate) released: bool,
}

impl ManifestRow {
    /// Receipts that its camera is due for its sake.
    pub(crate) fn due(&self) -> Vec<u32> {
        if self.released {
            Vec::new()
        } else {
            self.receipts.iter().map(|(number, _)| *number).collect()
        }
    }
}

/// A segment or header.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct SegmentRow {
    #[n(0)]
    pub(crate) camera: u32,
    #[n(1)]
    pub(crate) number: u64,
    /// None: the header.
    #[n(2)]
    pub(crate) seq: Option<u64>,
    #[n(3)]
    pub(crate) length: u32,
    /// The manifest that announced it.
    #[n(4)]
    pub(crate) manifest: Digest,
    #[n(5)]
    stage: u8,
    /// A file is there, with room for all of it.
    #[n(6)]
    pub(crate) here: bool,
    /// Bytes from the start that a barrier covered.
    #[n(7)]
    pub(crate) prefix: u32,
    /// Receipts that count: their number and site.
    #[n(8)]
    pub(crate) receipts: Vec<(u32, u16)>,
    /// Entries in the logbook when it became Archived.
    #[n(9)]
    pub(crate) archived_at: u64,
    /// One of [`camera_has`].
    #[n(10)]
    pub(crate) camera_has: u8,
    /// How often its bytes were refused.
    #[n(11)]
    pub(crate) tries: u8,
    /// When a refused one is due again.
    #[n(12)]
    pub(crate) retry_at: Time,
    /// Pulled behind all other work.
    #[n(13)]
    pub(crate) last: bool,
    /// Sites that refused it.
    #[n(14)]
    pub(crate) refused_by: Vec<u16>,
    /// The pattern in whose queue it waits.
    #[n(15)]
    pub(crate) queue: Option<u32>,
}

impl SegmentRow {
    /// A segment just announced.
    pub(crate) fn announced(
        camera: u32,
        number: u64,
        seq: Option<u64>,
        length: u32,
        manifest: Digest,
    ) -> SegmentRow {
        SegmentRow {
            camera,
            number,
            seq,
            length,
            manifest,
            stage: Stage::Announced as u8,
            here: false,
            prefix: 0,
            receipts: Vec::new(),
            archived_at: 0,
            camera_has: camera_has::IT,
            tries: 0,
            retry_at: Time(0),
            last: false,
            refused_by: Vec::new(),
            queue: None,
        }
    }
    /// Its stage.
    pub(crate) fn stage(&self) -> Stage {
        // A number that is none is caught when rows are read: see `Ledger::get_segment`.
        Stage::from_number(self.stage).unwrap_or(Stage::Announced)
    }
    /// Whether the stage's number is one.
    pub(crate) fn is_sound(&self) -> bool {
        Stage::from_number(self.stage).is_some() && self.prefix <= self.length
    }
    pub(crate) fn set_stage(&mut self, stage: Stage) {
        self.stage = stage as u8;
    }
    /// Whether all its bytes are durably on this disk.
    pub(crate) fn is_whole(&self) -> bool {
        self.here && self.prefix == self.length
    }
    /// Whether it would be Held if its recording's header were kept: that alone holds up what is whole.
    pub(crate) fn waits_for_header(&self) -> bool {
        self.stage() == Stage::Announced && self.is_whole()
    }
    /// Its place in the recording: 0 is the header.
    pub(crate) fn place(&self) -> u64 {
        self.seq.map_or(0, |s| s + 1)
    }
    /// Whether it is announced and on no known holder.
    pub(crate) fn is_unaccounted(&self) -> bool {
        let receipted = matches!(self.stage(), Stage::Archived | Stage::Released);
        !self.is_whole() && !receipted && self.camera_has == camera_has::ERASED
    }
    /// Bytes that its file takes.
    pub(crate) fn disk_bytes(&self) -> u64 {
        if self.here {
            u64::from(self.length).next_multiple_of(4096)
        } else {
            0
        }
    }
}

/// A receipt that lies in the logbook.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct ReceiptRow {
    #[n(0)]
    pub(crate) offset: u64,
    #[n(1)]
    pub(crate) length: u32,
    #[n(2)]
    pub(crate) digest: Digest,
    #[n(3)]
    pub(crate) site: u16,
    #[n(4)]
    pub(crate) camera: u32,
    #[n(5)]
    pub(crate) number: u64,
    /// Archived segments that carry it: while there are any, the camera is due it.
    #[n(6)]
    pub(crate) due: u32,
}

/// All that decides to which sites something goes: what shares a pattern waits in one queue, so that the next
/// thing for a site is found without passing over what is not for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Pattern {
    #[n(0)]
    pub(crate) k: u8,
    /// The policy's sites, in its order.
    #[n(1)]
    pub(crate) sites: Vec<u16>,
    /// Sites that have it: receipts, or answers to an offer. Ascending.
    #[n(2)]
    pub(crate) have: Vec<u16>,
    /// Sites that refused it. Ascending.
    #[n(3)]
    pub(crate) refused_by: Vec<u16>,
    /// A manifest of which everything is archived.
    #[n(4)]
    pub(crate) done: bool,
}

/// Joins a tag and parts.
pub(crate) fn key(tag: u8, parts: &[&[u8]]) -> Key {
    let mut key = vec![tag];
    parts.iter().for_each(|p| key.extend_from_slice(p));
    key
}
/// A row of one digest.
pub(crate) fn of(tag: u8, digest: &Digest) -> Key {
    key(tag, &[&digest.0])
}
/// A row of one number.
pub(crate) fn numbered(tag: u8, n: u32) -> Key {
    key(tag, &[&n.to_be_bytes()])
}
/// A row, or the beginning of the rows, of one recording.
pub(crate) fn recording(tag: u8, camera: u32, number: u64) -> Key {
    key(tag, &[&camera.to_be_bytes(), &number.to_be_bytes()])
}
/// The row that says that a manifest is of a recording.
pub(crate) fn manifest_of(row: &ManifestRow, digest: &Digest) -> Key {
    key(
        tag::MANIFESTS,
        &[
            &row.camera.to_be_bytes(),
            &row.number.to_be_bytes(),
            &row.index.to_be_bytes(),
            &digest.0,
        ],
    )
}
/// The row that says that a segment is of a recording.
pub(crate) fn segment_of(row: &SegmentRow, digest: &Digest) -> Key {
    key(
        tag::SEGMENTS,
        &[
            &row.camera.to_be_bytes(),
            &row.number.to_be_bytes(),
            &row.place().to_be_bytes(),
            &digest.0,
        ],
    )
}
/// The digest at the end of a queue's key.
pub(crate) fn digest_at_end(key: &[u8]) -> Option<Digest> {
    key.last_chunk().map(|d| Digest(*d))
}
/// Whether a key of the pulls' queue is a header's: its place is 0.
pub(crate) fn is_of_header(key: &[u8]) -> bool {
    let place = key.len().checked_sub(40).and_then(|from| key.get(from..));
    place.is_some_and(|place| place.starts_with(&[0; 8]))
}
/// The number right after the tag.
pub(crate) fn number_at_start(key: &[u8]) -> Option<u32> {
    key.get(1..5)?.try_into().ok().map(u32::from_be_bytes)
}

/// The queues in which a segment stands: all of them, from nothing but its row and its recording's.
pub(crate) fn segment_queues(digest: &Digest, row: &SegmentRow, rec: &RecordingRow) -> Vec<Key> {
    let mut keys = Vec::with_capacity(2);
    let camera = row.camera.to_be_bytes();
    let rank = schedule::rank(rec.class);
    let order = |rank: u8| {
        key(
            rank,
            &[
                &rec.captured.0.to_be_bytes(),
                &camera,
                &row.number.to_be_bytes(),
                &row.place().to_be_bytes(),
                &digest.0,
            ],
        )
    };
    let stage = row.stage();
    if stage == Stage::Announced && !row.is_whole() && row.camera_has == camera_has::IT {
        // Behind every class: what was refused before, or was reclaimed early.
        keys.push(key(
            tag::PULL,
            &[&camera, &order(if row.last { 3 } else { rank })],
        ));
    }
    if let Some(queue) = row.queue {
        keys.push(key(tag::PUT, &[&queue.to_be_bytes(), &order(rank)]));
    }
    if row.here && protocol::custody::may_reclaim(stage) {
        keys.push(key(
            tag::RECLAIM,
            &[&row.archived_at.to_be_bytes(), &digest.0],
        ));
    }
    // A header is small, and what of its recording is Held stands on it: it stays.
    if let (Stage::Held, Some((first, _)), camera_has::IT, Some(_)) =
        (stage, row.receipts.first(), row.camera_has, row.seq)
    {
        keys.push(key(tag::EARLY, &[&first.to_be_bytes(), &digest.0]));
    }
    if row.is_unaccounted() {
        keys.push(of(tag::UNACCOUNTED, digest));
    }
    if stage == Stage::Refused {
        keys.push(key(tag::RETRY, &[&row.retry_at.0.to_be_bytes(), &digest.0]));
    }
    keys
}

/// The queue in which a manifest stands.
pub(crate) fn manifest_queues(digest: &Digest, row: &ManifestRow, rec: &RecordingRow) -> Vec<Key> {
    let order = |queue: u32| {
        let numbers = [
            &row.camera.to_be_bytes()[..],
            &row.number.to_be_bytes(),
            &row.index.to_be_bytes(),
        ]
        .concat();
        let rank = [schedule::rank(rec.class)];
        key(
            tag::OFFER,
            &[
                &queue.to_be_bytes(),
                &rank,
                &rec.captured.0.to_be_bytes(),
                &numbers,
                &digest.0,
            ],
        )
    };
    row.queue.map(order).into_iter().collect()
}
