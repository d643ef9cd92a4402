//! What the store holds of a recording, by the names of its objects: one listing, no bytes read. The reading
//! side (`export`, `list`, `verify`) and the gateway start here.
//!
//! The store is walked camera by camera, recording by recording, so memory is bounded by the largest
//! recording and not by the store. Names prove nothing: whoever needs bytes hashes them.

use std::collections::BTreeMap;

use futures_util::TryStreamExt;
use object_store::path::Path;
use protocol::ids::{CameraId, Digest, RecordingId, Serial};

use crate::layout::{self, Item};
use crate::vault::{Vault, VaultError};

/// An object by its name and length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The digest in its name.
    pub digest: Digest,
    /// Its length in bytes, as the store says.
    pub length: u64,
    /// Its key.
    pub path: Path,
}

/// What the store holds of one recording.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Manifests by index; more than one under an index is a conflict.
    pub manifests: BTreeMap<u32, Vec<Object>>,
    /// Headers; more than one is a conflict.
    pub headers: Vec<Object>,
    /// Segments by number; more than one under a number is a conflict.
    pub segments: BTreeMap<u64, Vec<Object>>,
    /// Whether the archive's owner has marked it as lawfully deleted.
    pub expired: bool,
    /// Keys that no gateway writes.
    pub strangers: Vec<String>,
}

impl Found {
    /// Whether nothing at all lies there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.manifests.is_empty()
            && self.headers.is_empty()
            && self.segments.is_empty()
            && !self.expired
    }
}

/// Lists one recording.
///
/// # Errors
/// [`VaultError`].
pub async fn recording(vault: &Vault, id: &RecordingId) -> Result<Found, VaultError> {
    let mut found = Found::default();
    let mut objects = vault.list(&layout::recording(id));
    while let Some(meta) = objects.try_next().await? {
        let (path, length) = (meta.location, meta.size);
        let object = |digest| Object {
            digest,
            length,
            path: path.clone(),
        };
        match layout::parse(&path).filter(|(of, _)| of == id) {
            Some((_, Item::Manifest { index, digest })) => found
                .manifests
                .entry(index)
                .or_default()
                .push(object(digest)),
            Some((_, Item::Header { digest })) => found.headers.push(object(digest)),
            Some((_, Item::Segment { seq, digest })) => {
                found.segments.entry(seq).or_default().push(object(digest))
            }
            Some((_, Item::Expired)) => found.expired = true,
            None => found.strangers.push(path.to_string()),
        }
    }
    Ok(found)
}

/// Every camera that the store knows, in order.
///
/// # Errors
/// [`VaultError`].
pub async fn cameras(vault: &Vault) -> Result<Vec<CameraId>, VaultError> {
    let mut cameras = Vec::new();
    for serial in vault.prefixes(&Path::from(layout::RECORDINGS)).await? {
        let Some(Ok(name)) = serial.filename().map(str::parse::<Serial>) else {
            continue;
        };
        for incarnation in vault.prefixes(&serial).await? {
            if let Some(incarnation) = layout::incarnation(&incarnation) {
                cameras.push(CameraId {
                    serial: name.clone(),
                    incarnation,
                });
            }
        }
    }
    cameras.sort_unstable();
    Ok(cameras)
}

/// Every recording of a camera, in order.
///
/// # Errors
/// [`VaultError`].
pub async fn recordings(vault: &Vault, camera: &CameraId) -> Result<Vec<RecordingId>, VaultError> {
    let prefixes = vault.prefixes(&layout::camera(camera)).await?;
    let numbers = prefixes.iter().filter_map(|p| p.filename()?.parse().ok());
    let mut recordings: Vec<RecordingId> = numbers
        .map(|number| RecordingId {
            camera: camera.clone(),
            number,
        })
        .collect();
    recordings.sort_unstable();
    Ok(recordings)
}
