//! A sealed segment: COSE_Encrypt0, AES-256-GCM, at most 4 MiB of footage. The unit of transfer,
//! verification and custody, immutable once sealed; its digest is its name.
//!
//! The associated data binds it to its place: recording, sequence number, and whether it is the last.
//! The nonce is the sequence number as a 96-bit big-endian integer; the content key is of one recording and
//! never outlives the process that drew it, so that no (key, nonce) pair occurs twice.

use bytes::Bytes;
use coset::iana::Algorithm;
use coset::{
    CoseEncrypt0, CoseEncrypt0Builder, HeaderBuilder, RegisteredLabelWithPrivate,
    TaggedCborSerializable,
};
use minicbor::Encode;

use crate::cose::to_cbor;
use crate::ids::{Digest, RecordingId};
use crate::limits;
use crate::suite::{self, SuiteError, SymmetricKey};

/// Why a segment cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// More footage than one segment takes.
    #[error("{0} bytes of footage in one segment, at most {max} are taken", max = limits::SEGMENT_FOOTAGE_BYTES)]
    TooLong(usize),
    /// Not a COSE_Encrypt0 of the form that SPEC.md gives.
    #[error("not a sealed segment: {0}")]
    Malformed(&'static str),
    /// Altered, or another key, recording, number or final flag.
    #[error("does not open as segment {seq} of {recording}: {source}")]
    Unopened {
        /// The place that was asked for.
        recording: Box<RecordingId>,
        /// The place that was asked for.
        seq: u64,
        /// What the suite said.
        source: SuiteError,
    },
}

/// A segment's place in its recording: the associated data.
#[derive(Debug, Clone, Copy, Encode)]
#[cbor(array)]
pub struct Place<'a> {
    /// The recording.
    #[n(0)]
    pub recording: &'a RecordingId,
    /// Counts from 0 without gaps.
    #[n(1)]
    pub seq: u64,
    /// Whether the recording was stopped after this segment. An interrupted recording has no final one.
    #[n(2)]
    pub last: bool,
}

/// A sealed segment: the bytes that travel and lie on disks, and their digest.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// The whole COSE_Encrypt0.
    pub bytes: Bytes,
    /// SHA-256 of `bytes`.
    pub digest: Digest,
}

fn nonce(seq: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&seq.to_be_bytes());
    nonce
}

/// Seals footage. The caller seals each `seq` once per `key`.
///
/// # Errors
/// [`SegmentError::TooLong`], or what the suite answers.
pub fn seal(key: &SymmetricKey, place: Place<'_>, footage: &[u8]) -> Result<Sealed, SegmentError> {
    if footage.len() > limits::SEGMENT_FOOTAGE_BYTES {
        return Err(SegmentError::TooLong(footage.len()));
    }
    let unopened = |source| SegmentError::Unopened {
        recording: Box::new(place.recording.clone()),
        seq: place.seq,
        source,
    };
    let iv = nonce(place.seq);
    let envelope = CoseEncrypt0Builder::new()
        .protected(HeaderBuilder::new().algorithm(Algorithm::A256GCM).build())
        .unprotected(HeaderBuilder::new().iv(iv.to_vec()).build())
        .try_create_ciphertext(footage, &to_cbor(&place), |plain, aad| {
            suite::seal(key, iv, aad, plain)
        })
        .map_err(unopened)?
        .build();
    let bytes: Bytes = envelope
        .to_tagged_vec()
        .map_err(|_| SegmentError::Malformed("cannot be encoded"))?
        .into();
    let digest = suite::sha256(&bytes);
    Ok(Sealed { bytes, digest })
}

/// Opens a sealed segment at its place.
///
/// # Errors
/// Any [`SegmentError`].
pub fn open(key: &SymmetricKey, place: Place<'_>, sealed: &[u8]) -> Result<Vec<u8>, SegmentError> {
    if sealed.len() > limits::SEGMENT_BYTES {
        return Err(SegmentError::TooLong(sealed.len()));
    }
    let envelope = CoseEncrypt0::from_tagged_slice(sealed)
        .map_err(|_| SegmentError::Malformed("not a tagged COSE_Encrypt0"))?;
    let a256gcm = RegisteredLabelWithPrivate::Assigned(Algorithm::A256GCM);
    if envelope.protected.header.alg != Some(a256gcm) || !envelope.protected.header.crit.is_empty()
    {
        return Err(SegmentError::Malformed("the algorithm is not A256GCM"));
    }
    let iv = nonce(place.seq);
    if envelope.unprotected.iv != iv {
        return Err(SegmentError::Malformed("the IV is not the sequence number"));
    }
    envelope
        .decrypt_ciphertext(
            &to_cbor(&place),
            || SuiteError::BadCiphertext,
            |cipher, aad| suite::open(key, iv, aad, cipher),
        )
        .map_err(|source| SegmentError::Unopened {
            recording: Box::new(place.recording.clone()),
            seq: place.seq,
            source,
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::ids::{CameraId, Incarnation};
    use zeroize::Zeroizing;

    fn recording(number: u64) -> RecordingId {
        let camera = CameraId {
            serial: "S".parse().unwrap(),
            incarnation: Incarnation([1; 16]),
        };
        RecordingId { camera, number }
    }

    #[test]
    fn opens_only_at_its_place() {
        let (key, r, other) = (Zeroizing::new([3; 32]), recording(0), recording(1));
        let at = |recording, seq, last| Place {
            recording,
            seq,
            last,
        };
        let sealed = seal(&key, at(&r, 5, true), b"footage").unwrap();
        assert_eq!(
            open(&key, at(&r, 5, true), &sealed.bytes).unwrap(),
            b"footage"
        );
        for wrong in [at(&r, 6, true), at(&r, 5, false), at(&other, 5, true)] {
            assert!(open(&key, wrong, &sealed.bytes).is_err());
        }
        assert!(open(&Zeroizing::new([4; 32]), at(&r, 5, true), &sealed.bytes).is_err());
    }

    #[test]
    fn the_longest_segment_fits_its_limit_and_any_flip_is_caught() {
        let (key, r) = (Zeroizing::new([3; 32]), recording(0));
        let place = Place {
            recording: &r,
            seq: u64::MAX,
            last: false,
        };
        let footage = vec![7; limits::SEGMENT_FOOTAGE_BYTES];
        let sealed = seal(&key, place, &footage).unwrap();
        assert!(sealed.bytes.len() <= limits::SEGMENT_BYTES);
        assert!(seal(&key, place, &[&footage[..], b"x"].concat()).is_err());
        let small = seal(&key, place, b"abc").unwrap();
        for bit in 0..small.bytes.len() * 8 {
            let mut bad = small.bytes.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&key, place, &bad).is_err(), "bit {bit}");
        }
    }
}
