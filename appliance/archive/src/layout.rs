//! The names of objects in the store, and their reading back. Pure.
//!
//! | object | key |
//! |---|---|
//! | the store's epoch | `epoch` |
//! | newest key lists | `key-lists/<number>-<digest>.cose` |
//! | what was countersigned of a repeater's logbooks | `logbooks/<station>/<n>` |
//! | a camera's newest inventory | `inventories/<serial>/<incarnation>/<page>.cose` |
//! | a manifest | `recordings/<serial>/<incarnation>/<number>/manifest-<index>-<digest>.cose` |
//! | a recording's header | `recordings/<serial>/<incarnation>/<number>/header-<digest>` |
//! | a segment | `recordings/<serial>/<incarnation>/<number>/<seq>-<digest>.seg` |
//! | lawfully deleted footage | `recordings/<serial>/<incarnation>/<number>/expired` |
//!
//! Invariants: whatever evidence a camera made has the SHA-256 of its bytes in its key, so two different
//! objects never meet under one key; and a key reads back to exactly the name that wrote it, so a file
//! put into the folder by somebody else is never taken for footage.

use object_store::path::Path;
use protocol::ids::{CameraId, Digest, Incarnation, RecordingId, RepeaterId};

/// The object that holds the store's epoch.
pub const EPOCH: &str = "epoch";
/// Everything that is footage lies under this prefix.
pub const RECORDINGS: &str = "recordings";
/// Key lists as repeaters and configuration brought them.
pub const KEY_LISTS: &str = "key-lists";
/// The newest inventory of each camera.
pub const INVENTORIES: &str = "inventories";

/// What was countersigned of each repeater's logbooks.
pub const LOGBOOKS: &str = "logbooks";

/// What a key within a recording's prefix names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// A manifest.
    Manifest {
        /// Its index in the recording.
        index: u32,
        /// SHA-256 of its bytes.
        digest: Digest,
    },
    /// A recording's header.
    Header {
        /// SHA-256 of its bytes.
        digest: Digest,
    },
    /// A segment.
    Segment {
        /// Its number in the recording.
        seq: u64,
        /// SHA-256 of its bytes.
        digest: Digest,
    },
    /// The tombstone of lawfully deleted footage, made by the archive's owner.
    Expired,
}

/// The prefix of one camera's recordings.
#[must_use]
pub fn camera(camera: &CameraId) -> Path {
    Path::from(format!(
        "{RECORDINGS}/{}/{}",
        camera.serial, camera.incarnation
    ))
}

/// The prefix of one recording.
#[must_use]
pub fn recording(recording: &RecordingId) -> Path {
    Path::from(format!("{RECORDINGS}/{}", recording.full()))
}

/// The key of `item` of `recording`.
#[must_use]
pub fn key(recording: &RecordingId, item: Item) -> Path {
    let name = match item {
        Item::Manifest { index, digest } => format!("manifest-{index:010}-{digest}.cose"),
        Item::Header { digest } => format!("header-{digest}"),
        Item::Segment { seq, digest } => format!("{seq:08}-{digest}.seg"),
        Item::Expired => "expired".to_owned(),
    };
    Path::from(format!("{RECORDINGS}/{}/{name}", recording.full()))
}

/// What the last part of a key within a recording's prefix names; none for a stranger.
#[must_use]
pub fn item(name: &str) -> Option<Item> {
    if name == "expired" {
        return Some(Item::Expired);
    }
    let item = if let Some(rest) = name.strip_prefix("manifest-") {
        let (index, digest) = rest.strip_suffix(".cose")?.split_once('-')?;
        Item::Manifest {
            index: index.parse().ok()?,
            digest: Digest::from_hex(digest)?,
        }
    } else if let Some(digest) = name.strip_prefix("header-") {
        Item::Header {
            digest: Digest::from_hex(digest)?,
        }
    } else {
        let (seq, digest) = name.strip_suffix(".seg")?.split_once('-')?;
        Item::Segment {
            seq: seq.parse().ok()?,
            digest: Digest::from_hex(digest)?,
        }
    };
    Some(item)
}

/// The recording and item of a whole key; none where the key is not exactly one that [`key`] writes.
#[must_use]
pub fn parse(path: &Path) -> Option<(RecordingId, Item)> {
    let rest = path.as_ref().strip_prefix(RECORDINGS)?.strip_prefix('/')?;
    let (id, name) = rest.rsplit_once('/')?;
    let (id, item): (RecordingId, Item) = (id.parse().ok()?, item(name)?);
    (key(&id, item) == *path).then_some((id, item))
}

/// The key of one page of a camera's newest inventory.
#[must_use]
pub fn inventory(camera: &CameraId, page: u32) -> Path {
    Path::from(format!(
        "{INVENTORIES}/{}/{}/{page:04}.cose",
        camera.serial, camera.incarnation
    ))
}

/// The prefix of all inventories under one serial.
#[must_use]
pub fn inventories_of(camera: &CameraId) -> Path {
    Path::from(format!("{INVENTORIES}/{}", camera.serial))
}

/// The key of what was countersigned of a repeater's logbooks.
#[must_use]
pub fn logbook(repeater: &RepeaterId) -> Path {
    Path::from(format!("{LOGBOOKS}/{}/{}", repeater.station, repeater.n))
}

/// The key of a key list.
#[must_use]
pub fn key_list(number: u64, digest: Digest) -> Path {
    Path::from(format!("{KEY_LISTS}/{number:020}-{digest}.cose"))
}

/// The incarnation that a path's last part names.
#[must_use]
pub fn incarnation(path: &Path) -> Option<Incarnation> {
    path.filename().and_then(Incarnation::from_hex)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn id() -> RecordingId {
        let camera = CameraId {
            serial: "BWC-1.a".parse().unwrap(),
            incarnation: Incarnation([0xab; 16]),
        };
        RecordingId { camera, number: 12 }
    }

    #[test]
    fn every_key_reads_back() {
        let digest = Digest([7; 32]);
        let items = [
            Item::Manifest { index: 0, digest },
            Item::Manifest {
                index: u32::MAX,
                digest,
            },
            Item::Header { digest },
            Item::Segment { seq: 0, digest },
            Item::Segment {
                seq: 4_194_303,
                digest,
            },
            Item::Expired,
        ];
        for item in items {
            assert_eq!(parse(&key(&id(), item)), Some((id(), item)));
        }
    }

    #[test]
    fn strangers_are_not_taken_for_footage() {
        let good = key(
            &id(),
            Item::Segment {
                seq: 3,
                digest: Digest([7; 32]),
            },
        )
        .to_string();
        let strangers = [
            good.replace("00000003", "3"),
            good.replace(".seg", ".seg.part"),
            good.replace("0707", "0A0A"),
            good.replace("recordings/", "elsewhere/"),
            good.replace("/12/", "/012/"),
            good.replace("/12/", "/12/12/"),
            good.to_uppercase(),
        ];
        for stranger in strangers {
            assert_eq!(parse(&Path::from(stranger.as_str())), None, "{stranger}");
        }
    }
}
