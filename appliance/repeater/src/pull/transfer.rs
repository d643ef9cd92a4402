//! One segment's way from the camera's stream to the storage thread: a straight line.
//!
//! Who asked for a segment reads it to the end or stops the stream: where the disk takes nothing for 5 s, the
//! stream is stopped and what came is kept as a prefix.

use std::time::Duration;

use bytes::BytesMut;
use link::clock::Clock;
use link::frame;
use link::quic::Peer;
use protocol::codec;
use protocol::ids::Digest;
use protocol::message::{Code, Message, Pull};
use quinn::{RecvStream, VarInt};
use spool::PullTask;

use super::permits::Permit;
use super::progress::Progress;
use crate::commit::{Pulled, Slot, Storage, StorageError};
use crate::limits;
use crate::metrics::Metrics;
use crate::trace::Transfer;

/// How a pull ended.
#[derive(Debug)]
pub enum Outcome {
    /// The spool has judged it.
    Judged(Pulled),
    /// The spool had no room for it, or does not want it any more.
    NotNow(StorageError),
    /// The camera does not have it, or serves another session.
    Denied(u64),
    /// The connection or the stream broke; what came is kept.
    Broken(String),
    /// The camera broke the protocol.
    Fault(String),
}

/// What a pull needs of its session.
#[derive(Clone, Debug)]
pub struct Means {
    /// The connection.
    pub peer: Peer,
    /// The storage thread.
    pub storage: Storage,
    /// The session's last sign of life.
    pub progress: Progress,
    /// Time.
    pub clock: Clock,
    /// Figures.
    pub metrics: Metrics,
}

/// Pulls one segment or header from where its kept prefix ends.
pub async fn pull(means: Means, task: PullTask, _permit: Permit) -> (Digest, Outcome) {
    let digest = task.digest;
    let outcome = match means.storage.begin(digest).await {
        Ok(slot) => {
            let mut trace = Transfer::pull(digest, &task.recording.camera.serial, slot.remaining());
            let outcome = stream(&means, digest, slot).await;
            trace.ok = matches!(outcome, Outcome::Judged(_));
            outcome
        }
        Err(e) => Outcome::NotNow(e),
    };
    (digest, outcome)
}

async fn stream(means: &Means, digest: Digest, slot: Slot) -> Outcome {
    let opened = means.peer.connection.open_bi().await;
    let (mut send, mut recv) = match opened {
        Ok(streams) => streams,
        Err(e) => return Outcome::Broken(link::quic::explain(&e)),
    };
    let ask = Message::Pull(Pull {
        digest,
        offset: slot.offset(),
    });
    let ask = codec::encode_body(&ask).expect("a pull fits a frame");
    if let Err(e) = frame::write_frame(&mut send, &ask).await {
        return Outcome::Broken(e.to_string());
    }
    let _ = send.finish();
    match answer(means, &mut recv, &slot).await {
        Ok(()) => {}
        Err(outcome) => return outcome,
    }
    match bytes(means, &mut recv, &slot).await {
        Ok(()) => match means.storage.finish(slot).await {
            Ok(pulled) => Outcome::Judged(pulled),
            Err(e) => Outcome::NotNow(e),
        },
        Err(outcome) => {
            let _ = recv.stop(VarInt::from_u32(Code::Busy.number()));
            outcome
        }
    }
}

/// The frame before the bytes: exactly what remains must be announced.
async fn answer(means: &Means, recv: &mut RecvStream, slot: &Slot) -> Result<(), Outcome> {
    let frame = patiently(means, frame::next_frame(recv)).await?;
    let frame = frame.map_err(|e| match e {
        frame::FrameError::Stream(e) => denied_or_broken(&e),
        other => Outcome::Broken(other.to_string()),
    })?;
    match codec::decode(&frame) {
        Ok(Message::Bytes(b)) if b.length == slot.remaining() => Ok(()),
        Ok(Message::Bytes(b)) => Err(Outcome::Fault(format!(
            "announces {} bytes where {} remain",
            b.length,
            slot.remaining()
        ))),
        Ok(other) => Err(Outcome::Fault(format!(
            "answers a pull with message {}",
            other.number()
        ))),
        Err(e) => Err(Outcome::Fault(e.to_string())),
    }
}

fn denied_or_broken(error: &std::io::Error) -> Outcome {
    match error
        .get_ref()
        .and_then(|e| e.downcast_ref::<quinn::ReadError>())
    {
        Some(quinn::ReadError::Reset(code)) => Outcome::Denied(code.into_inner()),
        _ => Outcome::Broken(error.to_string()),
    }
}

async fn bytes(means: &Means, recv: &mut RecvStream, slot: &Slot) -> Result<(), Outcome> {
    let mut remaining = slot.remaining();
    while remaining > 0 {
        let most = usize::try_from(remaining)
            .unwrap_or(usize::MAX)
            .min(limits::CHUNK_BYTES);
        let mut chunk = BytesMut::zeroed(most);
        let mut filled = 0;
        while filled < most {
            let read = patiently(means, recv.read(&mut chunk[filled..])).await?;
            match read {
                Ok(Some(n)) => filled += n,
                Ok(None) => {
                    return Err(Outcome::Fault(
                        "ends a stream before the bytes it announced".into(),
                    ));
                }
                Err(quinn::ReadError::Reset(code)) => {
                    keep(means, slot, chunk, filled).await;
                    return Err(Outcome::Denied(code.into_inner()));
                }
                Err(e) => {
                    keep(means, slot, chunk, filled).await;
                    return Err(Outcome::Broken(e.to_string()));
                }
            }
        }
        remaining -= most as u64;
        means.metrics.pulled_bytes.inc_by(most as u64);
        means.progress.pulled(most as u64);
        means
            .storage
            .write(slot, chunk.freeze())
            .await
            .map_err(Outcome::NotNow)?;
    }
    match patiently(means, recv.read(&mut [0; 1])).await? {
        Ok(Some(_)) => Err(Outcome::Fault("sends more bytes than it announced".into())),
        _ => Ok(()),
    }
}

/// What came before a break belongs to the prefix, to the last byte.
async fn keep(means: &Means, slot: &Slot, mut chunk: BytesMut, filled: usize) {
    chunk.truncate(filled);
    means.metrics.pulled_bytes.inc_by(filled as u64);
    let _ = means.storage.write(slot, chunk.freeze()).await;
}

/// Waits as long as the session lives: a segment may rightly wait behind others, a silent camera may not.
async fn patiently<T>(means: &Means, work: impl Future<Output = T>) -> Result<T, Outcome> {
    tokio::pin!(work);
    loop {
        match tokio::time::timeout(Duration::from_secs(1), work.as_mut()).await {
            Ok(done) => {
                means.progress.alive(means.clock.instant());
                return Ok(done);
            }
            Err(_) if means.progress.silent_for(means.clock.instant()) > limits::CAMERA_SILENCE => {
                return Err(Outcome::Broken(format!(
                    "silent for {} s",
                    limits::CAMERA_SILENCE.as_secs()
                )));
            }
            Err(_) => {}
        }
    }
}
