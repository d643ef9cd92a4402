//! Release: the archive's receipts are brought back to the camera, unchanged. A receipt permits, it does not order;
//! the camera's `released` says, durably, for which segments it now has as many as its policy asks for.

use std::collections::HashSet;

use minicbor::bytes::ByteVec;
use protocol::ids::{CameraId, Digest};
use protocol::limits::RELEASE_RECEIPTS;
use protocol::message::{Message, Release, Released};
use spool::DueReceipt;
use tracing::{debug, warn};

use crate::commit::{Storage, StorageError};

/// Receipts of one `release` message, all of one camera, within a frame.
const MOST_BYTES: usize = 48 * 1024;

/// What is due to a camera and was not sent on this session: a message, and the receipts in it.
///
/// # Errors
/// What the storage thread says.
pub async fn due(
    storage: &Storage,
    camera: &CameraId,
    sent: &HashSet<Digest>,
) -> Result<Option<(Message, Vec<Digest>)>, StorageError> {
    let (camera, skip) = (camera.clone(), sent.clone());
    let due = storage
        .ask(move |spool, _| spool.receipts_due(&camera, RELEASE_RECEIPTS, &skip))
        .await?;
    let mut bytes = 0;
    let fits = |r: &DueReceipt| {
        bytes += r.bytes.len();
        bytes <= MOST_BYTES
    };
    let due: Vec<DueReceipt> = due.into_iter().take_while(fits).collect();
    if due.is_empty() {
        return Ok(None);
    }
    let digests = due.iter().map(|r| r.digest).collect();
    let receipts = due
        .into_iter()
        .map(|r| ByteVec::from(r.bytes.to_vec()))
        .collect();
    Ok(Some((Message::Release(Release { receipts }), digests)))
}

/// The camera's answer: durable before it counts.
///
/// # Errors
/// What the storage thread says.
pub async fn released(
    storage: &Storage,
    camera: &CameraId,
    answer: Released,
) -> Result<(), StorageError> {
    if !answer.refused.is_empty() {
        warn!(%camera, recording = answer.number, receipts = answer.refused.len(), "the camera refuses receipts");
    }
    if answer.digests.is_empty() {
        return Ok(());
    }
    let camera = camera.clone();
    debug!(%camera, recording = answer.number, segments = answer.digests.len(), "released");
    storage
        .tell(move |spool, now| spool.released(&camera, answer.number, &answer.digests, now))
        .await
}
