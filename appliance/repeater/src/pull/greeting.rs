//! The greeting of a camera session: hello both ways, and the proof that the camera behind this connection is the
//! one whose device key signs the footage (its signature over the TLS exporter, RFC 9266). The serial is
//! said here for the first time, inside the authenticated session.

use std::time::Duration;

use link::frame::{Control, ControlRecv, ControlSend};
use link::quic::Peer;
use minicbor::bytes::ByteVec;
use protocol::codec;
use protocol::cose;
use protocol::ids::{CameraId, Time};
use protocol::message::{CameraHello, Message, RepeaterHello, VERSIONS, common_version};
use protocol::schedule::{self, Need};
use spool::{ClockOffset, Meeting};
use tracing::debug;

use super::Hop;
use crate::ended::Ended;
use crate::trusted_time::TimeState;

/// How long a hello may take.
const HELLO: Duration = Duration::from_secs(5);
/// Program and version, told to peers.
pub const SOFTWARE: &str = concat!("repeaterd ", env!("CARGO_PKG_VERSION"));

/// A camera that has proved who it is.
#[derive(Debug)]
pub struct Greeted {
    /// Who it is.
    pub camera: CameraId,
    /// When it is expected to leave or be full, by what it says.
    pub deadline: Option<Time>,
    /// What it says of itself, for the contact's record; how it is reached is not in it yet.
    pub meeting: Meeting,
    /// Number of the key list that it was told.
    pub keys: u64,
    /// The control stream, to the camera.
    pub send: ControlSend,
    /// The control stream, from the camera.
    pub recv: ControlRecv,
}

/// Says hello, and whether the camera is docked on this path, and hears the camera's.
///
/// # Errors
/// How the session ends if that fails.
pub async fn greet(hop: &Hop, peer: &Peer, docked: bool) -> Result<Greeted, Ended> {
    let (mut send, mut recv) = Control::open(&peer.connection).await?.split();
    let keys = hop.storage.keys().borrow().clone();
    let hello = Message::RepeaterHello(RepeaterHello {
        versions: VERSIONS.to_vec(),
        software: SOFTWARE.into(),
        key_list: Some(ByteVec::from(keys.bytes().to_vec())),
        now: hop.seams.clock.now(),
        docked,
        now_error_ms: hop.time.look(&hop.seams.clock).error_ms(),
    });
    let hello = codec::encode_body(&hello).map_err(|e| Ended::Broken(e.to_string()))?;
    let asked = hop.seams.clock.now();
    send.send(&hello).await?;
    let frame = tokio::time::timeout(HELLO, recv.recv()).await;
    let frame = frame.map_err(|_| Ended::Slow("no hello within 5 s".into()))??;
    let frame = frame.ok_or(Ended::Left("the camera ended the session before its hello"))?;
    match codec::decode(&frame) {
        Ok(Message::CameraHello(hello)) => {
            let camera = prove(hop, peer, &hello)?;
            let need = Need {
                battery_percent: hello.battery_percent,
                charging: hello.charging,
                free_bytes: hello.free_bytes,
            };
            Ok(Greeted {
                camera,
                meeting: meeting(hop, &hello, asked),
                deadline: schedule::deadline(hop.seams.clock.now(), need),
                keys: keys.number(),
                send,
                recv,
            })
        }
        Ok(Message::Error(e)) => Err(Ended::Broken(format!("the camera says: {}", e.text))),
        Ok(other) => Err(Ended::Fault(format!(
            "message {} instead of a hello",
            other.number()
        ))),
        Err(e) => Err(e.into()),
    }
}

/// Its clock was read at some moment between the two hellos.
fn meeting(hop: &Hop, hello: &CameraHello, asked: Time) -> Meeting {
    let answered = hop.seams.clock.now();
    let own = hop.time.look(&hop.seams.clock);
    Meeting {
        clock: hello
            .now
            .map(|now| offset(now, (asked, answered), own.error_ms())),
        time_trusted: own.state == TimeState::Synchronised,
        battery_percent: hello.battery_percent,
        charging: hello.charging,
        free_bytes: Some(hello.free_bytes),
        firmware: Some(hello.firmware.clone()),
        ..Meeting::default()
    }
}

/// How far a clock that showed `now` is ahead of ours, given when it was asked and when it had answered, and by how much
/// ours may be off; where nobody knows, it is ahead of what ours shows.
fn offset(now: Time, (asked, answered): (Time, Time), own_ms: Option<u64>) -> ClockOffset {
    let way = answered.0.saturating_sub(asked.0);
    let ms = |t: u64| i64::try_from(t).unwrap_or(i64::MAX);
    ClockOffset {
        offset_ms: ms(now.0).saturating_sub(ms(asked.0.saturating_add(way / 2))),
        error_ms: (way / 2 + 1).saturating_add(own_ms.unwrap_or_default()),
    }
}

fn prove(hop: &Hop, peer: &Peer, hello: &CameraHello) -> Result<CameraId, Ended> {
    if common_version(&hello.versions).is_none() {
        return Err(Ended::Version(format!(
            "speaks versions {:?}, none of {VERSIONS:?}",
            hello.versions
        )));
    }
    let trust = hop.keyring.current().trust.clone();
    let proof = cose::open_proof(&hello.proof, &trust);
    let (signed, serial) =
        proof.map_err(|e| Ended::Identity(format!("cannot prove its device: {e}")))?;
    if signed != peer.exporter() {
        return Err(Ended::Identity(
            "its device proof is of another connection".into(),
        ));
    }
    debug!(%serial, software = %hello.software, free_bytes = hello.free_bytes, key_list = hello.key_list, "greeted");
    Ok(CameraId {
        serial,
        incarnation: hello.incarnation,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_off_by_the_middle_of_the_way_and_no_surer_than_half_of_it() {
        let asked = Time(1_000_000);
        let said = |now, answered| {
            let o = offset(Time(now), (asked, Time(answered)), None);
            (o.offset_ms, o.error_ms)
        };
        assert_eq!(said(1_000_020, 1_000_040), (0, 21));
        assert_eq!(said(1_090_020, 1_000_040), (90_000, 21));
        assert_eq!(said(0, 1_000_000), (-1_000_000, 1));
        assert_eq!(said(u64::MAX, 999_000).1, 1, "ours stepped back");
        let by_ours = offset(Time(1_000_020), (asked, Time(1_000_040)), Some(300));
        assert_eq!((by_ours.offset_ms, by_ours.error_ms), (0, 321));
    }
}
