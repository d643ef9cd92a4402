//! What each message says: one struct a message, keys as in SPEC.md's CDDL.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::ids::{Digest, Incarnation, SiteId, StoreEpoch, Time};
use crate::manifest::Class;

/// A repeater's hello, on both hops.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RepeaterHello {
    /// Message versions spoken.
    #[n(1)]
    pub versions: Vec<u16>,
    /// Program and version, for inquiry.
    #[n(2)]
    pub software: String,
    /// The newest key list known.
    #[n(3)]
    pub key_list: Option<ByteVec>,
    /// The repeater's clock.
    #[n(4)]
    pub now: Time,
    /// Whether the camera is docked on the path that this session uses.
    #[n(5)]
    pub docked: bool,
    /// By how many milliseconds `now` may be off, either way; none where nobody vouches for the repeater's clock.
    #[n(6)]
    pub now_error_ms: Option<u64>,
}

/// A camera's hello: who it is, proved by its device key over this connection's TLS exporter.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct CameraHello {
    /// Message versions spoken.
    #[n(1)]
    pub versions: Vec<u16>,
    /// Program and version, for inquiry.
    #[n(2)]
    pub software: String,
    /// COSE_Sign1 of kind [`super::PROOF_KIND`] by the device key over the 32 bytes of the TLS exporter (RFC 9266).
    #[n(3)]
    pub proof: ByteVec,
    /// The camera's storage.
    #[n(4)]
    pub incarnation: Incarnation,
    /// Number of the newest key list that the camera knows.
    #[n(5)]
    pub key_list: u64,
    /// The camera's clock, none while unset.
    #[n(6)]
    pub now: Option<Time>,
    /// Battery in percent.
    #[n(7)]
    pub battery_percent: Option<u8>,
    /// Whether it charges.
    #[n(8)]
    pub charging: Option<bool>,
    /// Free storage in bytes.
    #[n(9)]
    pub free_bytes: u64,
    /// Firmware version.
    #[n(10)]
    pub firmware: String,
}

/// An archive's hello.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ArchiveHello {
    /// Message versions spoken.
    #[n(1)]
    pub versions: Vec<u16>,
    /// Program and version; a change lets refused segments be offered again.
    #[n(2)]
    pub software: String,
    /// The newest key list known.
    #[n(3)]
    pub key_list: Option<ByteVec>,
    /// The site.
    #[n(4)]
    pub site: SiteId,
    /// The incarnation of its store.
    #[n(5)]
    pub epoch: StoreEpoch,
    /// The archive's clock.
    #[n(6)]
    pub now: Time,
}

/// Asks for the manifests of a recording.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct WantManifests {
    /// The recording's number on this camera.
    #[n(1)]
    pub number: u64,
    /// First index wanted.
    #[n(2)]
    pub from_index: u32,
}

/// Asks for bytes: first frame on a stream of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Pull {
    /// The segment or header.
    #[n(1)]
    pub digest: Digest,
    /// From this byte.
    #[n(2)]
    pub offset: u64,
}

/// Answers `pull`: so many raw bytes follow on the stream, then its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct BytesFollow {
    /// Bytes that follow: the object's length less the offset.
    #[n(1)]
    pub length: u64,
}

/// Brings receipts to the camera.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Release {
    /// Signed receipts, unchanged.
    #[n(1)]
    pub receipts: Vec<ByteVec>,
}

/// The camera's answer to `release`, one for each recording touched.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Released {
    /// The recording's number.
    #[n(1)]
    pub number: u64,
    /// Segments and manifests that now have the receipts which the policy asks for. Durable at the camera.
    #[n(2)]
    pub digests: Vec<Digest>,
    /// Receipts that were refused: their digests.
    #[n(3)]
    pub refused: Vec<Digest>,
}

/// The archive's answer to `offer`: what it lacks, and how much of it may be put now.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Want {
    /// Digest of the manifest offered.
    #[n(1)]
    pub manifest: Digest,
    /// Header and segments that the site lacks. What is not named is stored; its receipt follows.
    #[n(2)]
    pub digests: Vec<Digest>,
    /// How many of them may be put before the manifest is offered again.
    #[n(3)]
    pub grant: u32,
}

/// Announces raw bytes: first frame on a stream of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Put {
    /// The manifest that names it and was wanted on this connection.
    #[n(1)]
    pub manifest: Digest,
    /// The segment or header.
    #[n(2)]
    pub digest: Digest,
}

/// Not now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Busy {
    /// The manifest or segment meant.
    #[n(1)]
    pub about: Digest,
    /// This class and those below it are put off.
    #[n(2)]
    pub class: Class,
    /// Milliseconds after which to offer again.
    #[n(3)]
    pub retry_after_ms: u64,
}

/// Why an archive refuses. The repeater keeps what was refused, marks it, alarms, and tries again daily.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Reason {
    /// The bytes are not what the digest names: the sender re-reads its copy.
    #[n(0)]
    WrongDigest,
    /// A signature or chain does not verify.
    #[n(1)]
    BadSignature,
    /// No recipient of the header is in the key list.
    #[n(2)]
    UnknownRecipient,
    /// This site does not count in the manifest's policy.
    #[n(3)]
    NotMySite,
    /// The object contradicts SPEC.md.
    #[n(4)]
    Malformed,
    /// Put without having been wanted.
    #[n(5)]
    NotWanted,
    /// The store failed; offered again after a while.
    #[n(6)]
    StoreFailed,
    /// A format version that this side does not know: it must be updated.
    #[n(7)]
    Version,
}

/// An archive's refusal.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Refused {
    /// The manifest or segment refused.
    #[n(1)]
    pub about: Digest,
    /// Why.
    #[n(2)]
    pub reason: Reason,
    /// For the log.
    #[n(3)]
    pub text: String,
}

/// What an archive says of the head of a logbook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum HeadVerdict {
    /// It is countersigned.
    #[n(0)]
    Signed,
    /// It has fewer entries than were countersigned before, or is of an incarnation that another has followed.
    #[n(1)]
    Behind,
    /// It has as many entries as were countersigned before, and another hash.
    #[n(2)]
    Forked,
    /// It does not verify, or speaks for another repeater.
    #[n(3)]
    Refused,
    /// The site's store or key fails: sent again after a while.
    #[n(4)]
    Unavailable,
}

/// An archive's answer to the head of a logbook.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Countersigned {
    /// SHA-256 of the signed head.
    #[n(1)]
    pub about: Digest,
    /// What came of it.
    #[n(2)]
    pub verdict: HeadVerdict,
    /// [`crate::logbook::Countersignature`]: of this head where it is signed; where it is behind or forked, of the one
    /// that stands against it.
    #[n(3)]
    pub signature: Option<ByteVec>,
    /// For the log.
    #[n(4)]
    pub text: String,
}

/// Something that the peer sent cannot be answered; the session goes on.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Error {
    /// A [`super::Code`].
    #[n(1)]
    pub code: u32,
    /// For the log.
    #[n(2)]
    pub text: String,
}
