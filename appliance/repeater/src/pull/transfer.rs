//! One segment's way from the camera's stream to the storage thread: a straight line.
//!
//! Who asked for a segment reads it to the end or stops the stream: where the disk takes nothing for 5 s, the
//! stream is stopped and what came is kept as a prefix. So it is where the camera stalls, breaks off or breaks
//! the protocol, and where the session ends: to the last byte.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use link::clock::Clock;
use link::frame;
use link::quic::Peer;
use link::receiving::{self, Receiving};
use link::tasks::Tasks;
use protocol::codec;
use protocol::ids::Digest;
use protocol::message::{Code, Message, Pull};
use quinn::{RecvStream, VarInt};
use spool::PullTask;

use super::pace::Pace;
use super::permits::Permit;
use super::progress::Progress;
use crate::commit::{Pulled, Slot, Storage, StorageError};
use crate::limits;
use crate::metrics::Metrics;

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

impl Outcome {
    /// What the camera is told of a stream that is not read to its end.
    fn code(&self) -> Code {
        match self {
            Outcome::Judged(_) | Outcome::Denied(_) => Code::Done,
            Outcome::NotNow(_) => Code::Busy,
            Outcome::Broken(_) => Code::Timeout,
            Outcome::Fault(_) => Code::Protocol,
        }
    }
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
    /// The session's tasks: cancelled when it ends.
    pub tasks: Tasks,
    /// Time.
    pub clock: Clock,
    /// Figures.
    pub metrics: Metrics,
}

/// Pulls one segment or header from where its kept prefix ends.
pub async fn pull(means: Means, task: PullTask, _permit: Permit) -> (PullTask, Outcome) {
    let digest = task.digest;
    let outcome = match means.storage.begin(digest).await {
        Ok(slot) => {
            let (serial, hop) = (&task.recording.camera.serial, receiving::Hop::Camera);
            let told = Receiving::new(hop, digest, serial, slot.remaining());
            stream(&means, digest, told, slot).await
        }
        Err(e) => Outcome::NotNow(e),
    };
    (task, outcome)
}

async fn stream(means: &Means, digest: Digest, mut told: Receiving, slot: Slot) -> Outcome {
    let mut pace = Pace::new(means.clock.instant(), means.progress.own());
    let opened = patiently(means, &pace, means.peer.connection.open_bi()).await;
    let (mut send, mut recv) = match opened {
        Ok(Ok(streams)) => streams,
        Ok(Err(e)) => return Outcome::Broken(link::quic::explain(&e)),
        Err(outcome) => return outcome,
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
    let came = match answer(means, &mut pace, &mut recv, &slot).await {
        Ok(()) => bytes(means, &mut pace, &mut recv, (&slot, &mut told)).await,
        refused => refused,
    };
    match came {
        Ok(()) => match means.storage.finish(slot).await {
            Ok(pulled) => Outcome::Judged(pulled),
            Err(e) => Outcome::NotNow(e),
        },
        Err(outcome) => {
            let _ = recv.stop(VarInt::from_u32(outcome.code().number()));
            outcome
        }
    }
}

/// The frame before the bytes: exactly what remains must be announced.
async fn answer(
    means: &Means,
    pace: &mut Pace,
    recv: &mut RecvStream,
    slot: &Slot,
) -> Result<(), Outcome> {
    let frame = patiently(means, pace, frame::next_frame(recv)).await?;
    let frame = frame.map_err(|e| match e {
        frame::FrameError::Stream(e) => denied_or_broken(&e),
        other => Outcome::Broken(other.to_string()),
    })?;
    came(means, pace, 0);
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

async fn bytes(
    means: &Means,
    pace: &mut Pace,
    recv: &mut RecvStream,
    (slot, told): (&Slot, &mut Receiving),
) -> Result<(), Outcome> {
    let mut remaining = slot.remaining();
    while remaining > 0 {
        let most = usize::try_from(remaining)
            .unwrap_or(usize::MAX)
            .min(limits::CHUNK_BYTES);
        let mut chunk = BytesMut::zeroed(most);
        let mut filled = 0;
        while filled < most {
            match some(means, pace, recv, &mut chunk[filled..]).await {
                Ok(n) => {
                    told.came(n as u64);
                    filled += n;
                }
                Err(outcome) => {
                    // What came before a break belongs to the prefix, to the last byte.
                    chunk.truncate(filled);
                    if filled > 0 {
                        let _ = keep(means, slot, chunk.freeze()).await;
                    }
                    return Err(outcome);
                }
            }
        }
        remaining -= most as u64;
        keep(means, slot, chunk.freeze())
            .await
            .map_err(Outcome::NotNow)?;
    }
    match patiently(means, pace, recv.read(&mut [0; 1])).await? {
        Ok(Some(_)) => Err(Outcome::Fault("sends more bytes than it announced".into())),
        _ => Ok(()),
    }
}

/// The next bytes of the stream, at least one.
async fn some(
    means: &Means,
    pace: &mut Pace,
    recv: &mut RecvStream,
    into: &mut [u8],
) -> Result<usize, Outcome> {
    match patiently(means, pace, recv.read(into)).await? {
        Ok(Some(n)) => {
            came(means, pace, n as u64);
            Ok(n)
        }
        Ok(None) => Err(Outcome::Fault(
            "ends a stream before the bytes it announced".into(),
        )),
        Err(quinn::ReadError::Reset(code)) => Err(Outcome::Denied(code.into_inner())),
        Err(e) => Err(Outcome::Broken(e.to_string())),
    }
}

/// Counts bytes as they are read. The frame before them is a beginning of none.
fn came(means: &Means, pace: &mut Pace, bytes: u64) {
    let now = means.clock.instant();
    pace.came(bytes, now, means.progress.own());
    means.progress.pulled(bytes, now);
    means.metrics.pulled_bytes.inc_by(bytes);
}

/// Gives bytes to the storage thread. Until it takes them the camera cannot send: that is not its silence.
async fn keep(means: &Means, slot: &Slot, bytes: Bytes) -> Result<(), StorageError> {
    let began = means.clock.instant();
    let written = means.storage.write(slot, bytes).await;
    means.progress.waited(began, means.clock.instant());
    written
}

/// Waits as long as the session lives and the stream keeps its pace: a segment may rightly wait behind others, a
/// silent or stalling camera may not.
async fn patiently<T>(
    means: &Means,
    pace: &Pace,
    work: impl Future<Output = T>,
) -> Result<T, Outcome> {
    tokio::pin!(work);
    loop {
        let now = means.clock.instant();
        if let Some(why) = pace.stalled(now, means.progress.own()) {
            return Err(Outcome::Broken(why));
        }
        let last = means.progress.last(now).max(pace.asked());
        if now.saturating_duration_since(last) > limits::CAMERA_SILENCE {
            let limit = limits::CAMERA_SILENCE.as_secs();
            return Err(Outcome::Broken(format!("silent for {limit} s")));
        }
        tokio::select! {
            done = work.as_mut() => return Ok(done),
            () = means.tasks.cancelled() => {
                return Err(Outcome::Broken("the session ended".into()));
            }
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}
