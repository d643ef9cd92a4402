//! The store's small files: who it is, the newest inventory's number, the clock's hints. Each is CBOR behind 8 bytes
//! of its SHA-256, replaced as a whole and synced, and has one writer.
//!
//! A store whose `camera.cbor` is gone or damaged while recordings are there is refused: a new incarnation would
//! disown footage that nobody else has.

use std::path::Path;

use minicbor::{Decode, Encode};
use protocol::ids::{CameraId, Incarnation, Serial, Time};
use protocol::suite;
use tracing::warn;

use super::layout::Layout;
use super::{Store, StoreError};
use crate::disk::{self, DiskError};

/// Version of the store's format that this program writes and reads.
pub(crate) const FORMAT: u16 = 1;
const CHECK: usize = 8;
const LIMIT: usize = 4096;

/// `camera.cbor`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct CameraPaper {
    /// The store's format.
    #[n(1)]
    pub(crate) format: u16,
    /// The camera.
    #[n(2)]
    pub(crate) camera: CameraId,
    /// The number that the next recording gets.
    #[n(3)]
    pub(crate) next: u64,
}

/// `inventory.cbor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct InventoryPaper {
    /// Number of the newest inventory shown to anyone.
    #[n(1)]
    pub(crate) number: u64,
}

/// `clock.cbor`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct ClockPaper {
    /// What a repeater last said of this camera's clock, in milliseconds: positive where the camera is behind.
    #[n(1)]
    pub(crate) offset_ms: Option<i64>,
    /// The newest time that an archive has signed and this camera has seen.
    #[n(2)]
    pub(crate) signed: Option<Time>,
}

/// Reads a paper; none where there is none.
pub(crate) fn read<T: for<'b> Decode<'b, ()>>(path: &Path) -> Result<Option<T>, StoreError> {
    let Some(bytes) = disk::read_if_there(path, LIMIT)? else {
        return Ok(None);
    };
    let damaged = |what| StoreError::Damaged {
        path: path.to_owned(),
        what,
    };
    let Some((check, body)) = bytes.split_at_checked(CHECK) else {
        return Err(damaged("it is cut short"));
    };
    if suite::sha256(body).0[..CHECK] != *check {
        return Err(damaged("its checksum is wrong"));
    }
    minicbor::decode(body)
        .map(Some)
        .map_err(|_| damaged("its form is not known"))
}

/// Replaces a paper, durable on return.
pub(crate) fn write<T: Encode<()>>(path: &Path, value: &T) -> Result<(), DiskError> {
    disk::replace(path, &encode(value))
}

/// Replaces a paper in the store's folder, also when the disk is full; durable on return.
pub(crate) fn keep<T: Encode<()>>(layout: &Layout, name: &str, value: &T) -> Result<(), DiskError> {
    disk::replace_for_sure(&layout.file(name), &encode(value), &layout.ballast())
}

fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    let body = minicbor::to_vec(value).expect("encoding to memory cannot fail");
    [&suite::sha256(&body).0[..CHECK], &body].concat()
}

/// Reads `camera.cbor`, or initialises an empty store with `fresh` as its incarnation.
pub(crate) fn camera(
    layout: &Layout,
    serial: &Serial,
    fresh: Incarnation,
) -> Result<CameraPaper, StoreError> {
    let path = layout.file("camera.cbor");
    let paper = match read::<CameraPaper>(&path)? {
        Some(paper) => paper,
        None if layout.recordings().exists() && !disk::list(&layout.recordings())?.is_empty() => {
            return Err(StoreError::Damaged {
                path,
                what: "it is missing, but recordings are there",
            });
        }
        None => {
            let camera = CameraId {
                serial: serial.clone(),
                incarnation: fresh,
            };
            let paper = CameraPaper {
                format: FORMAT,
                camera,
                next: 0,
            };
            write(&path, &paper)?;
            paper
        }
    };
    if paper.format > FORMAT {
        return Err(StoreError::Newer {
            path,
            format: paper.format,
        });
    }
    if paper.camera.serial != *serial {
        let (store, credentials) = (paper.camera.serial, serial.clone());
        return Err(StoreError::Foreign {
            path,
            store,
            credentials,
        });
    }
    Ok(paper)
}

impl Store {
    /// Draws the next inventory's number, durable on return.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub(crate) fn next_inventory(&self) -> Result<u64, StoreError> {
        let path = self.layout.file("inventory.cbor");
        let number = read::<InventoryPaper>(&path)?.map_or(0, |p| p.number + 1);
        keep(&self.layout, "inventory.cbor", &InventoryPaper { number })?;
        Ok(number)
    }

    /// Keeps a repeater's word on the clock for the next manifest. A hint: a failure is only logged.
    pub(crate) fn keep_clock_offset(&self, own: Time, theirs: Time) {
        let path = self.layout.file("clock.cbor");
        let offset_ms = i64::try_from(i128::from(theirs.0) - i128::from(own.0)).ok();
        let kept = read::<ClockPaper>(&path).ok().flatten().unwrap_or_default();
        let near = |a: i64, b: i64| a.abs_diff(b) < 500;
        let same = kept
            .offset_ms
            .zip(offset_ms)
            .is_some_and(|(a, b)| near(a, b));
        if !same && let Err(error) = write(&path, &ClockPaper { offset_ms, ..kept }) {
            warn!(%error, "the repeater's clock offset is not kept");
        }
    }

    pub(super) fn keep_signed_time(&self, signed: Time) {
        let path = self.layout.file("clock.cbor");
        let kept = read::<ClockPaper>(&path).ok().flatten().unwrap_or_default();
        let new = ClockPaper {
            signed: Some(signed),
            ..kept
        };
        if kept.signed.is_none_or(|s| s < signed)
            && let Err(error) = write(&path, &new)
        {
            warn!(%error, "the newest signed time is not kept");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_store_is_one_cameras_and_never_begins_anew_over_recordings() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        let (serial, other) = ("A".parse().unwrap(), "B".parse().unwrap());
        let made = camera(&layout, &serial, Incarnation([1; 16])).unwrap();
        assert_eq!(
            camera(&layout, &serial, Incarnation([2; 16])).unwrap(),
            made
        );
        assert!(matches!(
            camera(&layout, &other, Incarnation([2; 16])),
            Err(StoreError::Foreign { .. })
        ));
        let path = layout.file("camera.cbor");
        write(
            &path,
            &CameraPaper {
                format: FORMAT + 1,
                ..made
            },
        )
        .unwrap();
        assert!(matches!(
            camera(&layout, &serial, Incarnation([2; 16])),
            Err(StoreError::Newer { .. })
        ));
        std::fs::create_dir_all(layout.recording(0)).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(
            camera(&layout, &serial, Incarnation([2; 16])),
            Err(StoreError::Damaged { .. })
        ));
    }

    #[test]
    fn any_flip_in_a_paper_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inventory.cbor");
        write(&path, &InventoryPaper { number: 9 }).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut bad = whole.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, bad).unwrap();
            assert!(read::<InventoryPaper>(&path).is_err());
        }
    }
}
