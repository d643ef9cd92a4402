//! The messages of both hops. A message is a CBOR array of its number and a map; unknown map keys are passed
//! over, an unknown number decodes to [`Message::Unknown`] and is answered `unsupported`.
//!
//! Camera hop (the repeater dials): `hello` both ways -> `inventory` pages -> `want_manifests` -> `manifest`… ->
//! `pull` on a stream of its own, answered by `bytes` and raw bytes -> `release` -> `released`.
//! Archive hop (the repeater dials): `hello` both ways -> `inventory` -> `offer` -> `want` or `receipt` or
//! `busy` or `refused` -> `put` on a stream of its own, followed by raw bytes -> `receipt`; beside that
//! `logbook-head` -> `countersignature`.
//!
//! Signed objects travel as byte strings, unopened: whoever needs one verifies it.

use bytes::Bytes;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Decoder, Encode, Encoder};

use crate::ids::Digest;
use crate::limits;

mod body;

pub use body::{
    ArchiveHello, Busy, BytesFollow, CameraHello, Countersigned, Error, HeadVerdict, Pull, Put,
    Reason, Refused, Release, Released, RepeaterHello, Want, WantManifests,
};

/// ALPN of the camera hop.
pub const CAMERA_HOP: &str = "bwc-offload/1";
/// ALPN of the archive hop.
pub const ARCHIVE_HOP: &str = "bwc-archive/1";
/// Versions of the messages that this crate speaks; the highest common one is used.
pub const VERSIONS: &[u16] = &[1];
/// Binds the device proof's signature to its kind.
pub const PROOF_KIND: &str = "bwc/hello/1";

/// The highest version that both sides speak.
#[must_use]
pub fn common_version(theirs: &[u16]) -> Option<u16> {
    VERSIONS
        .iter()
        .copied()
        .filter(|v| theirs.contains(v))
        .max()
}

/// The number of the message that brings a logbook's head: who answers `unsupported` about it takes none.
pub const LOGBOOK_HEAD: u16 = 35;

/// Message numbers reserved for what comes later; none of them is sent yet.
pub mod reserved {
    /// Time from an archive, signed.
    pub const TIME: u16 = 32;
    /// Contact record.
    pub const CONTACT: u16 = 33;
    /// Certificate renewal.
    pub const RENEW: u16 = 34;
    /// More permission to put.
    pub const CREDIT: u16 = 37;
    /// Nothing to do on this session.
    pub const IDLE: u16 = 38;
}

/// Application error codes that close a connection or reset a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Code {
    /// Nothing is wrong; the session is over.
    Done = 0,
    /// A message out of order or of no sense.
    Protocol = 1,
    /// The peer has the wrong role or serial.
    Identity = 2,
    /// No common version.
    Version = 3,
    /// A limit was exceeded.
    Limit = 4,
    /// Busy: another session has the bytes, or no room.
    Busy = 5,
    /// This program is stopping.
    Shutdown = 6,
    /// Nothing to pull.
    Idle = 7,
    /// The peer was silent too long.
    Timeout = 8,
    /// What was asked for is not here.
    NotHere = 9,
    /// Something failed on this side that is not the peer's fault.
    Internal = 10,
    /// Evidence was refused (signature, digest).
    Refused = 11,
}

impl Code {
    /// The code as QUIC carries it.
    #[must_use]
    pub fn number(self) -> u32 {
        self as u32
    }

    /// What a number means that came from a peer: an unknown one is taken as [`Code::Internal`].
    #[must_use]
    pub fn of(number: u64) -> Code {
        const ALL: [Code; 12] = [
            Code::Done,
            Code::Protocol,
            Code::Identity,
            Code::Version,
            Code::Limit,
            Code::Busy,
            Code::Shutdown,
            Code::Idle,
            Code::Timeout,
            Code::NotHere,
            Code::Internal,
            Code::Refused,
        ];
        let known = ALL.into_iter().find(|c| u64::from(c.number()) == number);
        known.unwrap_or(Code::Internal)
    }
}

/// A signed object, unopened.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Object {
    #[n(1)]
    bytes: ByteVec,
}

/// Any message of either hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Repeater to camera and archive, first.
    RepeaterHello(RepeaterHello),
    /// Camera to repeater, in answer.
    CameraHello(CameraHello),
    /// Archive to repeater, in answer.
    ArchiveHello(ArchiveHello),
    /// One signed inventory page: [`crate::inventory::Page`].
    Inventory(Bytes),
    /// Repeater to camera.
    WantManifests(WantManifests),
    /// One signed manifest: [`crate::manifest::Manifest`]. Camera to repeater, asked for or new.
    Manifest(Bytes),
    /// Repeater to camera, first on a data stream.
    Pull(Pull),
    /// Camera to repeater, in answer; raw bytes follow.
    Bytes(BytesFollow),
    /// Repeater to camera.
    Release(Release),
    /// Camera to repeater, in answer.
    Released(Released),
    /// One signed manifest. Repeater to archive.
    Offer(Bytes),
    /// Archive to repeater, in answer.
    Want(Want),
    /// Repeater to archive, first on a data stream; raw bytes follow.
    Put(Put),
    /// One signed receipt: [`crate::receipt::Receipt`]. Archive to repeater.
    Receipt(Bytes),
    /// Archive to repeater.
    Busy(Busy),
    /// Archive to repeater.
    Refused(Refused),
    /// The signed head of a repeater's logbook: [`crate::logbook::SignedHead`]. Repeater to archive.
    LogbookHead(Bytes),
    /// Archive to repeater, in answer.
    Countersignature(Countersigned),
    /// Either side: this number is not understood here.
    Unsupported(u16),
    /// Either side.
    Error(Error),
    /// A number that this program does not know: answer [`Message::Unsupported`].
    Unknown(u16),
}

/// A frame that is no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Not CBOR, or not a message's form.
    #[error("not a message: {0}")]
    Malformed(String),
    /// A list is longer than SPEC.md allows.
    #[error("a message exceeds a limit: {0}")]
    Limit(&'static str),
}

macro_rules! messages {
    ($($number:literal $variant:ident($body:ty)),* $(,)?) => {
        impl Message {
            /// The message's number.
            #[must_use]
            pub fn number(&self) -> u16 {
                match self {
                    $(Message::$variant(_) => $number,)*
                    Message::Unknown(n) => *n,
                }
            }

            /// Appends the CBOR item to `out`.
            pub(crate) fn encode_into(&self, out: &mut Vec<u8>) {
                let mut e = Encoder::new(out);
                e.array(2).and_then(|e| e.u16(self.number())).expect("encoding to memory cannot fail");
                match self {
                    $(Message::$variant(body) => <$body as Wire>::put(body, &mut e),)*
                    Message::Unknown(_) => {
                        e.map(0).expect("encoding to memory cannot fail");
                    }
                }
            }

            fn decode_body(number: u16, d: &mut Decoder<'_>) -> Result<Message, minicbor::decode::Error> {
                Ok(match number {
                    $($number => Message::$variant(<$body as Wire>::take(d)?),)*
                    other => {
                        d.skip()?;
                        Message::Unknown(other)
                    }
                })
            }
        }
    };
}

messages! {
    1 RepeaterHello(RepeaterHello),
    2 CameraHello(CameraHello),
    3 ArchiveHello(ArchiveHello),
    4 Inventory(Bytes),
    5 WantManifests(WantManifests),
    6 Manifest(Bytes),
    7 Pull(Pull),
    8 Bytes(BytesFollow),
    9 Release(Release),
    10 Released(Released),
    16 Offer(Bytes),
    17 Want(Want),
    18 Put(Put),
    19 Receipt(Bytes),
    20 Busy(Busy),
    21 Refused(Refused),
    35 LogbookHead(Bytes),
    36 Countersignature(Countersigned),
    62 Unsupported(u16),
    63 Error(Error),
}

/// How a body stands on the wire: a map, in which byte strings and numbers alone stand under key 1.
trait Wire: Sized {
    fn put(&self, e: &mut Encoder<&mut Vec<u8>>);
    fn take(d: &mut Decoder<'_>) -> Result<Self, minicbor::decode::Error>;
}

macro_rules! plain {
    ($($body:ty),*) => {$(
        impl Wire for $body {
            fn put(&self, e: &mut Encoder<&mut Vec<u8>>) {
                e.encode(self).expect("encoding to memory cannot fail");
            }
            fn take(d: &mut Decoder<'_>) -> Result<Self, minicbor::decode::Error> {
                d.decode()
            }
        }
    )*};
}
plain!(
    RepeaterHello,
    CameraHello,
    ArchiveHello,
    WantManifests,
    Pull,
    BytesFollow,
    Release,
    Released
);
plain!(Want, Put, Busy, Refused, Countersigned, Error);

impl Wire for Bytes {
    fn put(&self, e: &mut Encoder<&mut Vec<u8>>) {
        e.map(1)
            .and_then(|e| e.u8(1))
            .and_then(|e| e.bytes(self))
            .expect("encoding to memory cannot fail");
    }
    fn take(d: &mut Decoder<'_>) -> Result<Self, minicbor::decode::Error> {
        let object: Object = d.decode()?;
        Ok(Vec::from(object.bytes).into())
    }
}

/// The number of a message that was not understood.
#[derive(Encode, Decode)]
#[cbor(map)]
struct About {
    #[n(1)]
    number: u16,
}

impl Wire for u16 {
    fn put(&self, e: &mut Encoder<&mut Vec<u8>>) {
        e.encode(About { number: *self })
            .expect("encoding to memory cannot fail");
    }
    fn take(d: &mut Decoder<'_>) -> Result<Self, minicbor::decode::Error> {
        d.decode::<About>().map(|a| a.number)
    }
}

impl Message {
    /// Reads one message from a frame's body.
    pub(crate) fn decode(body: &[u8]) -> Result<Message, MessageError> {
        let malformed = |e: minicbor::decode::Error| MessageError::Malformed(e.to_string());
        let mut d = Decoder::new(body);
        if d.array().map_err(malformed)? != Some(2) {
            return Err(MessageError::Malformed("not an array of two".into()));
        }
        let number = d.u16().map_err(malformed)?;
        let message = Message::decode_body(number, &mut d).map_err(malformed)?;
        if d.position() != body.len() {
            return Err(MessageError::Malformed("bytes follow the message".into()));
        }
        message.within_limits()?;
        Ok(message)
    }

    fn within_limits(&self) -> Result<(), MessageError> {
        let short = |text: &str| text.len() <= 4 * limits::TEXT_CHARS;
        let fits = match self {
            Message::RepeaterHello(h) => h.versions.len() <= 16 && short(&h.software),
            Message::CameraHello(h) => {
                h.versions.len() <= 16 && short(&h.software) && short(&h.firmware)
            }
            Message::ArchiveHello(h) => h.versions.len() <= 16 && short(&h.software),
            Message::Release(r) => r.receipts.len() <= limits::RELEASE_RECEIPTS,
            Message::Released(r) => r.digests.len() + r.refused.len() <= limits::MESSAGE_DIGESTS,
            Message::Want(w) => w.digests.len() <= limits::MANIFEST_SEGMENTS + 1,
            Message::Refused(r) => short(&r.text),
            Message::Countersignature(c) => short(&c.text),
            Message::Error(e) => short(&e.text),
            _ => true,
        };
        if fits {
            Ok(())
        } else {
            Err(MessageError::Limit(
                "a list or text is longer than SPEC.md allows",
            ))
        }
    }

    /// An error message with its text cut to the limit.
    #[must_use]
    pub fn error(code: Code, text: &str) -> Message {
        Message::Error(Error {
            code: code.number(),
            text: text.chars().take(limits::TEXT_CHARS).collect(),
        })
    }

    /// An answer to the logbook's head `about`, with its text cut to the limit.
    #[must_use]
    pub fn countersignature(
        about: Digest,
        verdict: HeadVerdict,
        signature: Option<&Bytes>,
        text: &str,
    ) -> Message {
        Message::Countersignature(Countersigned {
            about,
            verdict,
            signature: signature.map(|s| s.to_vec().into()),
            text: text.chars().take(limits::TEXT_CHARS).collect(),
        })
    }

    /// A refusal with its text cut to the limit.
    #[must_use]
    pub fn refused(about: Digest, reason: Reason, text: &str) -> Message {
        Message::Refused(Refused {
            about,
            reason,
            text: text.chars().take(limits::TEXT_CHARS).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::codec;

    #[test]
    fn messages_read_back_and_unknown_ones_are_named() {
        let messages = [
            Message::Pull(Pull {
                digest: Digest([1; 32]),
                offset: 7,
            }),
            Message::Inventory(Bytes::from_static(b"page")),
            Message::Want(Want {
                manifest: Digest([2; 32]),
                digests: vec![Digest([3; 32])],
                grant: 1,
            }),
            Message::Unsupported(99),
            Message::error(Code::Busy, "later"),
            Message::Unknown(99),
        ];
        for m in messages {
            let frame = codec::encode(&m).unwrap();
            let length = codec::body_length(frame[..4].try_into().unwrap()).unwrap();
            assert_eq!(length, frame.len() - 4);
            assert_eq!(codec::decode(&frame[4..]).unwrap(), m);
        }
    }

    #[test]
    fn unknown_keys_are_passed_over_and_trailing_bytes_refused() {
        // [7, {1: digest, 2: 0, 99: "later"}]
        let mut e = Encoder::new(Vec::new());
        e.array(2).unwrap().u16(7).unwrap().map(3).unwrap();
        e.u8(1)
            .unwrap()
            .bytes(&[5; 32])
            .unwrap()
            .u8(2)
            .unwrap()
            .u8(0)
            .unwrap()
            .u8(99)
            .unwrap()
            .str("later")
            .unwrap();
        let mut body = e.into_writer();
        assert_eq!(
            codec::decode(&body).unwrap(),
            Message::Pull(Pull {
                digest: Digest([5; 32]),
                offset: 0
            })
        );
        body.push(0);
        assert!(codec::decode(&body).is_err());
        assert!(codec::decode(&[0x9f]).is_err());
        assert!(codec::body_length([0, 1, 0, 1]).is_err());
    }
}
