//! One object from its stream into the store: bounded, hashed as it comes, checked, durable.
//!
//! Nothing is stored whose length or digest is not what the manifest names; of a header also its form and
//! its recipients. Memory is taken from the connection's and the process's room before a byte is read, for
//! urgent footage from the connection's room for that, which nothing else takes of; where there is none within five seconds, the stream goes back to its sender, who keeps its copy. A stream that
//! stands still, or crawls, is a stalled peer's and ends its session.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use link::receiving::{self, Receiving};
use protocol::header;
use protocol::ids::Digest;
use protocol::manifest::Class;
use protocol::message::{Code, Reason};
use protocol::suite::Hasher;
use quinn::{ReadError, RecvStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::admit::Refusal;
use crate::alarms::Alarm;
use crate::gateway::Gateway;
use crate::keys::Readers;
use crate::layout::Item;
use crate::limits;
use crate::offers::Expected;

/// Bytes hashed at a time: short enough that other streams get their turn.
const PIECE_BYTES: usize = 256 << 10;
/// A segment that comes slower than this, after [`limits::PROGRESS`], is not coming.
const SLOWEST_BYTES_PER_SECOND: u32 = 64 << 10;
/// Room is counted in units of so many bytes.
pub const ROOM_UNIT_BYTES: u32 = 1024;

/// How a put ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is durable.
    Durable,
    /// It is refused.
    Refused(Refusal),
    /// No room: to be put again later.
    Busy,
    /// The sender gave it up.
    GivenUp,
    /// The sender stood still.
    Stalled,
}

/// Bytes that may be in memory, for one connection or for all.
pub type Room = Arc<Semaphore>;

/// Room for so many bytes.
#[must_use]
pub fn room(bytes: u64) -> Room {
    let units = usize::try_from(bytes / u64::from(ROOM_UNIT_BYTES)).unwrap_or(usize::MAX);
    Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS)))
}

/// Takes one object from `stream`.
pub async fn receive(
    gateway: &Gateway,
    own: &Room,
    expected: &Expected,
    mut stream: RecvStream,
) -> Outcome {
    let Some(_room) = reserve(gateway, own, expected).await else {
        let _ = stream.stop(Code::Busy.number().into());
        return Outcome::Busy;
    };
    let _counted = Counted::new(gateway, expected.length);
    let slowest = Duration::from_secs(u64::from(expected.length / SLOWEST_BYTES_PER_SECOND));
    let read = timeout(
        limits::PROGRESS + slowest,
        read_exactly(&mut stream, expected),
    )
    .await;
    let outcome = match read.unwrap_or(Err(Outcome::Stalled)) {
        Ok(bytes) => return keep(gateway, expected, bytes).await,
        Err(outcome) => outcome,
    };
    let code = match outcome {
        Outcome::Stalled => Code::Timeout,
        _ => Code::Refused,
    };
    let _ = stream.stop(code.number().into());
    outcome
}

async fn reserve(
    gateway: &Gateway,
    own: &Room,
    expected: &Expected,
) -> Option<(OwnedSemaphorePermit, Option<OwnedSemaphorePermit>)> {
    let units = expected.length.div_ceil(ROOM_UNIT_BYTES);
    let own = timeout(limits::ROOM, Arc::clone(own).acquire_many_owned(units))
        .await
        .ok()?
        .ok()?;
    let all = Arc::clone(&gateway.room);
    if expected.class == Class::Urgent {
        // Never refused for others' sake: beyond the process's room it is bounded by its connection's.
        return Some((own, all.try_acquire_many_owned(units).ok()));
    }
    let all = timeout(limits::ROOM, all.acquire_many_owned(units))
        .await
        .ok()?
        .ok()?;
    Some((own, Some(all)))
}

async fn read_exactly(
    stream: &mut RecvStream,
    expected: &Expected,
) -> Result<(Bytes, Digest), Outcome> {
    let length = usize::try_from(expected.length).unwrap_or(usize::MAX);
    let mut bytes = Vec::with_capacity(length);
    let mut hasher = Hasher::new();
    let (camera, hop) = (&expected.recording.camera.serial, receiving::Hop::Archive);
    let mut told = Receiving::new(hop, expected.digest, camera, expected.length.into());
    loop {
        // One byte more than is left shows a stream that is too long.
        let most = PIECE_BYTES.min(length - bytes.len() + 1);
        let chunk = match timeout(limits::PROGRESS, stream.read_chunk(most, true)).await {
            Err(_) => return Err(Outcome::Stalled),
            Ok(Err(ReadError::Reset(_) | ReadError::ConnectionLost(_))) => {
                return Err(Outcome::GivenUp);
            }
            Ok(Err(other)) => return Err(wrong(format!("the stream cannot be read: {other}"))),
            Ok(Ok(chunk)) => chunk,
        };
        let Some(chunk) = chunk else { break };
        if bytes.len() + chunk.bytes.len() > length {
            return Err(wrong(format!(
                "more than the {length} bytes that its manifest names"
            )));
        }
        told.came(chunk.bytes.len() as u64);
        hasher.update(&chunk.bytes);
        bytes.extend_from_slice(&chunk.bytes);
    }
    if bytes.len() < length {
        return Err(wrong(format!(
            "{} bytes instead of the {length} that its manifest names",
            bytes.len()
        )));
    }
    Ok((bytes.into(), hasher.finish()))
}

fn wrong(text: String) -> Outcome {
    Outcome::Refused(Refusal {
        reason: Reason::WrongDigest,
        text,
    })
}

async fn keep(gateway: &Gateway, expected: &Expected, (bytes, digest): (Bytes, Digest)) -> Outcome {
    if digest != expected.digest {
        return wrong(format!("its bytes have digest {digest}"));
    }
    if let Item::Header { .. } = expected.item
        && let Err(refusal) = check_header(gateway, expected, &bytes)
    {
        return Outcome::Refused(refusal);
    }
    let began = gateway.seams.clock.instant();
    let kept = gateway
        .in_time(gateway.keep(&expected.recording, expected.item, bytes, digest))
        .await;
    gateway.watch_store(&kept);
    match kept {
        Ok(()) => {
            let took = gateway
                .seams
                .clock
                .instant()
                .saturating_duration_since(began);
            gateway.metrics.commit_seconds.observe(took.as_secs_f64());
            Outcome::Durable
        }
        Err(error) => Outcome::Refused(Refusal::new(Reason::StoreFailed, &error)),
    }
}

fn check_header(gateway: &Gateway, expected: &Expected, bytes: &[u8]) -> Result<(), Refusal> {
    let subject = expected.recording.full();
    let recipients = header::recipients(bytes).map_err(|e| Refusal::new(Reason::Malformed, &e))?;
    let names = || {
        recipients
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    match gateway.keys.readers(&recipients) {
        Readers::Active => Ok(()),
        Readers::InactiveOnly => {
            let what = format!(
                "its header is sealed only to keys that are not an active archive key: {}",
                names()
            );
            gateway.alarm(Alarm::RecipientInactive, &subject, &what);
            Ok(())
        }
        Readers::Nobody => {
            let what = format!("no recipient of its header is in the key list: {}", names());
            gateway.alarm(Alarm::RecipientUnknown, &subject, &what);
            Err(Refusal::new(Reason::UnknownRecipient, &what))
        }
    }
}

/// Bytes in memory, counted while they are.
struct Counted<'a> {
    gateway: &'a Gateway,
    bytes: i64,
}

impl<'a> Counted<'a> {
    fn new(gateway: &'a Gateway, bytes: u32) -> Self {
        gateway.metrics.in_flight_bytes.add(bytes.into());
        Counted {
            gateway,
            bytes: bytes.into(),
        }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.gateway.metrics.in_flight_bytes.sub(self.bytes);
    }
}
