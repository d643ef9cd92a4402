//! A manifest: what a camera says, signed, that it recorded. It names the header and up to 64 segments by
//! digest. A recording in progress grows by further manifests; one without segments changes the class.
//!
//! A manifest stands by itself: signature, role, digests. A predecessor that has not arrived is normal;
//! chain and count are verified by whoever has the whole recording.

use bytes::Bytes;
use minicbor::{Decode, Decoder, Encode, decode};

use crate::cose::{self, CoseError, DeviceSigner, from_cbor, to_cbor};
use crate::identity::Trust;
use crate::ids::{Digest, RecordingId, SiteId, Time};
use crate::limits;
use crate::suite;

/// Binds a signature to this kind of object.
pub const KIND: &str = "bwc/manifest/1";
/// The version of the format that this crate writes.
pub const VERSION: u16 = 1;

/// How soon footage must arrive. The order is the order of service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Class {
    /// At least 94 % of footage.
    #[default]
    #[n(0)]
    Routine,
    /// Marked by the officer.
    #[n(1)]
    Flagged,
    /// Needed now; counted against the camera's daily quota.
    #[n(2)]
    Urgent,
}

impl Class {
    /// The name used in status, metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Class::Routine => "routine",
            Class::Flagged => "flagged",
            Class::Urgent => "urgent",
        }
    }
}

/// The header as a manifest names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct HeaderEntry {
    /// Digest of the sealed header.
    #[n(0)]
    pub digest: Digest,
    /// Its length in bytes.
    #[n(1)]
    pub length: u32,
}

/// A segment as a manifest names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct SegmentEntry {
    /// Counts from 0 without gaps within the recording.
    #[n(0)]
    pub seq: u64,
    /// Length of the sealed segment in bytes.
    #[n(1)]
    pub length: u32,
    /// Digest of the sealed segment.
    #[n(2)]
    pub digest: Digest,
}

/// Whose receipts let the camera erase: any `k` of `sites`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Policy {
    /// How many different sites must have signed; at least 1.
    #[n(1)]
    pub k: u8,
    /// The sites that count, in order of preference.
    #[n(2)]
    pub sites: Vec<SiteId>,
}

/// Why a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode)]
#[cbor(index_only)]
pub enum EndReason {
    /// It was stopped; its last segment carries the final flag.
    #[n(0)]
    Stopped,
    /// Power or process was lost; no segment carries the final flag.
    #[n(1)]
    Interrupted,
}

/// By hand: what minicbor derives takes an optional member with an unknown variant inside for an absent one, and a
/// manifest that ends its recording for an unknown reason would be one that does not end it.
impl<'b, C> Decode<'b, C> for EndReason {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        match d.u32()? {
            0 => Ok(EndReason::Stopped),
            1 => Ok(EndReason::Interrupted),
            _ => Err(decode::Error::message("an unknown reason of an end")),
        }
    }
}

/// The final flag of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct End {
    /// How many segments the whole recording has.
    #[n(0)]
    pub segments: u64,
    /// Why it ended.
    #[n(1)]
    pub reason: EndReason,
}

/// What a manifest says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Body {
    /// Format version.
    #[n(1)]
    pub version: u16,
    /// The recording.
    #[n(2)]
    pub recording: RecordingId,
    /// Counts from 0 within the recording.
    #[n(3)]
    pub index: u32,
    /// Digest of the manifest before this one, none for index 0.
    #[n(4)]
    pub previous: Option<Digest>,
    /// The recording's header, the same in every manifest.
    #[n(5)]
    pub header: HeaderEntry,
    /// Segments that this manifest adds: ascending, consecutive.
    #[n(6)]
    pub segments: Vec<SegmentEntry>,
    /// When the first segment's capture began, by the camera's clock.
    #[n(7)]
    pub captured_from: Time,
    /// When the last segment's capture ended.
    #[n(8)]
    pub captured_to: Time,
    /// The class from now on; the manifest of the highest index counts.
    #[n(9)]
    pub class: Class,
    /// Whose receipts let the camera erase; the same in every manifest.
    #[n(10)]
    pub policy: Policy,
    /// Set by the manifest after which no segments follow.
    #[n(11)]
    pub end: Option<End>,
    /// Whether the camera's clock was unset when it signed.
    #[n(12)]
    pub clock_unset: bool,
    /// What a repeater last said of the camera's clock: offset in milliseconds.
    #[n(13)]
    pub clock_offset_ms: Option<i64>,
}

/// Why a manifest is refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Signature, certificate or form.
    #[error(transparent)]
    Envelope(#[from] CoseError),
    /// Signed by a device other than the one it speaks for.
    #[error("speaks for camera {claimed}, but was signed by {signer}")]
    WrongCamera {
        /// The serial in the body.
        claimed: String,
        /// The serial in the certificate.
        signer: String,
    },
    /// A newer format than this program knows.
    #[error("format version {0} is not known here; update this program")]
    Version(u16),
    /// A field contradicts SPEC.md.
    #[error("{0}")]
    Invalid(&'static str),
}

/// A manifest whose signature, signer and form were verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    body: Body,
    bytes: Bytes,
    digest: Digest,
}

impl Manifest {
    /// Signs `body`, after the same checks as [`Manifest::verify`] makes.
    ///
    /// # Errors
    /// [`ManifestError::Invalid`] for a body that no verifier would take.
    pub fn sign(body: Body, signer: &DeviceSigner) -> Result<Manifest, ManifestError> {
        check(&body)?;
        let bytes: Bytes = cose::sign_evidence(KIND, to_cbor(&body), signer)?.into();
        if bytes.len() > limits::MANIFEST_BYTES {
            return Err(CoseError::TooLong {
                length: bytes.len(),
                limit: limits::MANIFEST_BYTES,
            }
            .into());
        }
        let digest = suite::sha256(&bytes);
        Ok(Manifest {
            body,
            bytes,
            digest,
        })
    }

    /// Verifies what a peer or a disk gave.
    ///
    /// # Errors
    /// Any [`ManifestError`].
    pub fn verify(bytes: Bytes, trust: &Trust) -> Result<Manifest, ManifestError> {
        let (payload, signer) = cose::open_evidence(KIND, &bytes, limits::MANIFEST_BYTES, trust)?;
        cose::require_version(&payload, VERSION, ManifestError::Version)?;
        let body: Body = from_cbor(&payload, "manifest")?;
        check(&body)?;
        if body.recording.camera.serial != signer {
            let claimed = body.recording.camera.serial.to_string();
            return Err(ManifestError::WrongCamera {
                claimed,
                signer: signer.to_string(),
            });
        }
        let digest = suite::sha256(&bytes);
        Ok(Manifest {
            body,
            bytes,
            digest,
        })
    }

    /// What it says.
    #[must_use]
    pub fn body(&self) -> &Body {
        &self.body
    }
    /// The signed bytes, as they travel and are kept.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
    /// SHA-256 of [`Manifest::bytes`].
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }
    /// The recording it belongs to.
    #[must_use]
    pub fn recording(&self) -> &RecordingId {
        &self.body.recording
    }
}

fn check(body: &Body) -> Result<(), ManifestError> {
    let invalid = |what| Err(ManifestError::Invalid(what));
    if body.version != VERSION {
        return Err(ManifestError::Version(body.version));
    }
    if body.segments.len() > limits::MANIFEST_SEGMENTS {
        return invalid("names more than 64 segments");
    }
    if body
        .segments
        .windows(2)
        .any(|w| w[0].seq.checked_add(1) != Some(w[1].seq))
    {
        return invalid("its segments are not consecutive");
    }
    if body
        .segments
        .iter()
        .any(|s| s.seq >= limits::RECORDING_SEGMENTS)
    {
        return invalid("a segment's number is beyond what one recording may hold");
    }
    let length = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
    if body
        .segments
        .iter()
        .any(|s| s.length == 0 || length(s.length) > limits::SEGMENT_BYTES)
    {
        return invalid("a segment is empty or longer than 4 MiB of footage and its seal");
    }
    if body.header.length == 0 || length(body.header.length) > limits::HEADER_BYTES {
        return invalid("its header is empty or longer than 16 KiB");
    }
    let mut digests: Vec<Digest> = body.segments.iter().map(|s| s.digest).collect();
    digests.push(body.header.digest);
    digests.sort_unstable();
    if digests.windows(2).any(|w| w[0] == w[1]) {
        return invalid("names one digest twice");
    }
    if (body.index == 0) != body.previous.is_none() {
        return invalid("only manifest 0 has no predecessor");
    }
    let after = body.segments.last().map_or(0, |s| s.seq + 1);
    if body
        .end
        .is_some_and(|end| end.segments < after || end.segments > limits::RECORDING_SEGMENTS)
    {
        return invalid("its final count is below a segment that it names, or beyond the limit");
    }
    let mut sites = body.policy.sites.clone();
    sites.sort_unstable();
    sites.dedup();
    let many = sites.len() != body.policy.sites.len() || sites.len() > limits::POLICY_SITES;
    if many || body.policy.k == 0 || usize::from(body.policy.k) > sites.len() {
        return invalid(
            "its receipt policy names a site twice, too many sites, or asks for more receipts than sites",
        );
    }
    Ok(())
}
