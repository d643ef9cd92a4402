//! The recording header: COSE_Encrypt with one ECDH-ES + A256KW recipient for the archive and one for
//! escrow (RFC 9053, section 6.4). It holds the recording's content key and private metadata. The repeater
//! holds neither recipient's key; it keeps and forwards the header like a segment, and first.
//!
//! What can be seen without a key, and is checked by [`recipients`]: its form, and the key ids of those
//! who can open it.

use bytes::Bytes;
use ciborium::Value;
use coset::iana::{Algorithm, EnumI64, HeaderAlgorithmParameter};
use coset::{
    AsCborValue, CborSerializable, CoseEncrypt, CoseEncryptBuilder, CoseKdfContextBuilder, CoseKey,
    CoseKeyBuilder, CoseRecipient, CoseRecipientBuilder, HeaderBuilder, KeyType, Label,
    ProtectedHeader, RegisteredLabelWithPrivate, SuppPubInfo, TaggedCborSerializable, iana,
};
use minicbor::{Decode, Encode};
use zeroize::{Zeroize, Zeroizing};

use crate::cose::{from_cbor, to_cbor};
use crate::ids::{Digest, KeyId, RecordingId};
use crate::limits;
use crate::suite::{self, AgreementKey, PublicKey, SuiteError, SymmetricKey};

/// Why a header cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// Longer than [`limits::HEADER_BYTES`].
    #[error("{0} bytes of recording header, at most {max} are taken", max = limits::HEADER_BYTES)]
    TooLong(usize),
    /// Not a COSE_Encrypt of the form that SPEC.md gives.
    #[error("not a recording header: {0}")]
    Malformed(&'static str),
    /// None of its recipients is this key.
    #[error("key {0} is not among the header's recipients")]
    NotARecipient(KeyId),
    /// Altered, another recording's, or the wrong key.
    #[error("does not open: {0}")]
    Unopened(#[from] SuiteError),
}

/// What only the archive and escrow may read.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Private {
    /// The recording's content key: AES-256.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub content_key: [u8; 32],
    /// Media type of the footage, such as `video/mp4`.
    #[n(2)]
    pub media_type: Option<String>,
    /// Who carried the camera.
    #[n(3)]
    pub officer: Option<String>,
    /// Case or incident.
    #[n(4)]
    pub case: Option<String>,
    /// Where the recording began: latitude and longitude in 1e-7 degrees.
    #[n(5)]
    pub position: Option<(i32, i32)>,
    /// Whether the sound was muted at the start.
    #[n(6)]
    pub muted: Option<bool>,
}

impl Drop for Private {
    fn drop(&mut self) {
        self.content_key.zeroize();
    }
}

impl std::fmt::Debug for Private {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Private(..)")
    }
}

impl Private {
    /// The content key, for [`crate::segment`].
    #[must_use]
    pub fn key(&self) -> SymmetricKey {
        Zeroizing::new(self.content_key)
    }
}

/// A sealed header: the bytes that travel, and their digest.
#[derive(Debug, Clone)]
pub struct SealedHeader {
    /// The whole COSE_Encrypt.
    pub bytes: Bytes,
    /// SHA-256 of `bytes`.
    pub digest: Digest,
}

/// Seals `private` for `recipients`. `random` fills a slice with fresh random bytes.
///
/// # Errors
/// [`HeaderError::TooLong`] where the metadata is too long, [`HeaderError::Malformed`] for no recipient or more
/// than 8, or what the suite answers.
pub fn seal(
    recording: &RecordingId,
    private: &Private,
    recipients: &[PublicKey],
    random: &dyn Fn(&mut [u8]),
) -> Result<SealedHeader, HeaderError> {
    let plain = Zeroizing::new(to_cbor(private));
    let bytes = seal_bytes(&plain, &to_cbor(recording), recipients, random)?;
    let digest = suite::sha256(&bytes);
    Ok(SealedHeader { bytes, digest })
}

/// Seals `plain` for `recipients` in a header's envelope. It opens only with the same `context`, which is not in it: what
/// it is, and of what.
///
/// # Errors
/// As [`seal`].
pub fn seal_bytes(
    plain: &[u8],
    context: &[u8],
    recipients: &[PublicKey],
    random: &dyn Fn(&mut [u8]),
) -> Result<Bytes, HeaderError> {
    if recipients.is_empty() || recipients.len() > limits::HEADER_RECIPIENTS {
        return Err(HeaderError::Malformed("no recipients, or too many"));
    }
    let mut key = Zeroizing::new([0; 32]);
    let mut iv = [0; 12];
    random(key.as_mut());
    random(&mut iv);
    let mut builder = CoseEncryptBuilder::new()
        .protected(HeaderBuilder::new().algorithm(Algorithm::A256GCM).build())
        .unprotected(HeaderBuilder::new().iv(iv.to_vec()).build())
        .try_create_ciphertext(plain, context, |plain, aad| {
            suite::seal(&key, iv, aad, plain)
        })?;
    for recipient in recipients {
        builder = builder.add_recipient(wrap_for(recipient, &key, random)?);
    }
    let bytes: Bytes = builder
        .build()
        .to_tagged_vec()
        .map_err(|_| HeaderError::Malformed("cannot be encoded"))?
        .into();
    if bytes.len() > limits::HEADER_BYTES {
        return Err(HeaderError::TooLong(bytes.len()));
    }
    Ok(bytes)
}

fn wrap_for(
    recipient: &PublicKey,
    key: &SymmetricKey,
    random: &dyn Fn(&mut [u8]),
) -> Result<CoseRecipient, HeaderError> {
    let ephemeral = loop {
        let mut scalar = Zeroizing::new([0; 32]);
        random(scalar.as_mut());
        if let Ok(key) = AgreementKey::from_scalar(&scalar) {
            break key;
        }
    };
    let protected = HeaderBuilder::new()
        .algorithm(Algorithm::ECDH_ES_A256KW)
        .build();
    let context = kdf_context(ProtectedHeader {
        original_data: None,
        header: protected.clone(),
    })?;
    let kek = ephemeral.derive(recipient, &context)?;
    let public = ephemeral.public()?;
    let (x, y) = public.sec1()[1..].split_at(32);
    let cose_key =
        CoseKeyBuilder::new_ec2_pub_key(iana::EllipticCurve::P_256, x.to_vec(), y.to_vec()).build();
    let cose_key = cose_key
        .to_cbor_value()
        .map_err(|_| HeaderError::Malformed("ephemeral key"))?;
    let unprotected = HeaderBuilder::new()
        .key_id(recipient.id().as_bytes().to_vec())
        .value(HeaderAlgorithmParameter::EphemeralKey.to_i64(), cose_key)
        .build();
    Ok(CoseRecipientBuilder::new()
        .protected(protected)
        .unprotected(unprotected)
        .ciphertext(suite::wrap_key(&kek, key)?)
        .build())
}

/// COSE_KDF_Context (RFC 9053, section 5.2) for A256KW with absent party information.
fn kdf_context(protected: ProtectedHeader) -> Result<Vec<u8>, HeaderError> {
    CoseKdfContextBuilder::new()
        .algorithm(Algorithm::A256KW)
        .supp_pub_info(SuppPubInfo {
            key_data_length: 256,
            protected,
            other: None,
        })
        .build()
        .to_vec()
        .map_err(|_| HeaderError::Malformed("key derivation context"))
}

/// The key ids of those who can open `bytes`; checks all of the form that shows without a key.
///
/// # Errors
/// [`HeaderError::TooLong`] and [`HeaderError::Malformed`].
pub fn recipients(bytes: &[u8]) -> Result<Vec<KeyId>, HeaderError> {
    let named = |r: &CoseRecipient| {
        sender_key(r)?;
        KeyId::from_slice(&r.unprotected.key_id)
            .ok_or(HeaderError::Malformed("a recipient without key id"))
    };
    parse(bytes)?.recipients.iter().map(named).collect()
}

fn parse(bytes: &[u8]) -> Result<CoseEncrypt, HeaderError> {
    if bytes.len() > limits::HEADER_BYTES {
        return Err(HeaderError::TooLong(bytes.len()));
    }
    let envelope = CoseEncrypt::from_tagged_slice(bytes)
        .map_err(|_| HeaderError::Malformed("not a tagged COSE_Encrypt"))?;
    let a256gcm = RegisteredLabelWithPrivate::Assigned(Algorithm::A256GCM);
    if envelope.protected.header.alg != Some(a256gcm) || !envelope.protected.header.crit.is_empty()
    {
        return Err(HeaderError::Malformed("the algorithm is not A256GCM"));
    }
    if envelope.recipients.is_empty() || envelope.recipients.len() > limits::HEADER_RECIPIENTS {
        return Err(HeaderError::Malformed("no recipients, or too many"));
    }
    if envelope.unprotected.iv.len() != 12 || envelope.ciphertext.is_none() {
        return Err(HeaderError::Malformed(
            "the IV is not 96 bits, or there is no ciphertext",
        ));
    }
    Ok(envelope)
}

/// Opens a header with a recipient's key (archive or escrow).
///
/// # Errors
/// Any [`HeaderError`].
pub fn open(
    recording: &RecordingId,
    bytes: &[u8],
    key: &AgreementKey,
) -> Result<Private, HeaderError> {
    let plain = open_bytes(bytes, &to_cbor(recording), key)?;
    from_cbor(&plain, "its content").map_err(|_| HeaderError::Malformed("its content"))
}

/// Opens what [`seal_bytes`] made, with a recipient's key and the same context.
///
/// # Errors
/// Any [`HeaderError`].
pub fn open_bytes(
    bytes: &[u8],
    context: &[u8],
    key: &AgreementKey,
) -> Result<Zeroizing<Vec<u8>>, HeaderError> {
    let envelope = parse(bytes)?;
    let id = key.public()?.id();
    let mine = envelope
        .recipients
        .iter()
        .find(|r| r.unprotected.key_id == id.as_bytes());
    let content = unwrap_by(mine.ok_or(HeaderError::NotARecipient(id))?, key)?;
    let iv: [u8; 12] = envelope
        .unprotected
        .iv
        .as_slice()
        .try_into()
        .map_err(|_| HeaderError::Malformed("the IV is not 96 bits"))?;
    let plain = envelope.decrypt_ciphertext(
        context,
        || SuiteError::BadCiphertext,
        |cipher, aad| suite::open(&content, iv, aad, cipher),
    )?;
    Ok(Zeroizing::new(plain))
}

fn unwrap_by(recipient: &CoseRecipient, key: &AgreementKey) -> Result<SymmetricKey, HeaderError> {
    let (ephemeral, wrapped) = sender_key(recipient)?;
    let kek = key.derive(&ephemeral, &kdf_context(recipient.protected.clone())?)?;
    Ok(suite::unwrap_key(&kek, wrapped)?)
}

/// The sender's ephemeral key, and the content key wrapped.
fn sender_key(recipient: &CoseRecipient) -> Result<(PublicKey, &[u8]), HeaderError> {
    let header = &recipient.protected.header;
    if header.alg
        != Some(RegisteredLabelWithPrivate::Assigned(
            Algorithm::ECDH_ES_A256KW,
        ))
    {
        return Err(HeaderError::Malformed(
            "a recipient's algorithm is not ECDH-ES+A256KW",
        ));
    }
    let label = Label::Int(HeaderAlgorithmParameter::EphemeralKey.to_i64());
    let ephemeral = recipient.unprotected.rest.iter().find(|(l, _)| *l == label);
    let (_, value) =
        ephemeral.ok_or(HeaderError::Malformed("a recipient without ephemeral key"))?;
    let wrapped = recipient.ciphertext.as_deref().filter(|w| w.len() == 40);
    let wrapped = wrapped.ok_or(HeaderError::Malformed(
        "a recipient without a wrapped key of 40 bytes",
    ))?;
    Ok((ec2(value)?, wrapped))
}

fn ec2(value: &Value) -> Result<PublicKey, HeaderError> {
    let key = CoseKey::from_cbor_value(value.clone())
        .map_err(|_| HeaderError::Malformed("ephemeral key"))?;
    let coordinate = |which: iana::Ec2KeyParameter| {
        let found = key
            .params
            .iter()
            .find(|(l, _)| *l == Label::Int(which.to_i64()));
        found
            .and_then(|(_, v)| v.as_bytes())
            .filter(|b| b.len() == 32)
    };
    let (x, y) = (
        coordinate(iana::Ec2KeyParameter::X),
        coordinate(iana::Ec2KeyParameter::Y),
    );
    let curve = Label::Int(iana::Ec2KeyParameter::Crv.to_i64());
    let p256 = Value::from(iana::EllipticCurve::P_256.to_i64());
    let on_p256 = key.kty == KeyType::Assigned(iana::KeyType::EC2)
        && key.params.iter().any(|(l, v)| *l == curve && *v == p256);
    let (Some(x), Some(y), true) = (x, y, on_p256) else {
        return Err(HeaderError::Malformed(
            "the ephemeral key is not an uncompressed P-256 point",
        ));
    };
    PublicKey::from_sec1(&[&[4], x.as_slice(), y.as_slice()].concat())
        .map_err(|_| HeaderError::Malformed("the ephemeral key is not a point of P-256"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::ids::{CameraId, Incarnation};
    use std::cell::Cell;

    fn counting() -> impl Fn(&mut [u8]) {
        let next = Cell::new(1u8);
        move |out| {
            out.iter_mut().for_each(|b| {
                *b = next.get();
                next.set(next.get().wrapping_mul(31).wrapping_add(7));
            })
        }
    }

    #[test]
    fn each_recipient_opens_it_and_nobody_else() {
        let keys = [[1; 32], [2; 32], [3; 32]].map(|s| AgreementKey::from_scalar(&s).unwrap());
        let public = keys.each_ref().map(|k| k.public().unwrap());
        let camera = CameraId {
            serial: "S".parse().unwrap(),
            incarnation: Incarnation([1; 16]),
        };
        let id = RecordingId { camera, number: 9 };
        let private = Private {
            content_key: [9; 32],
            media_type: Some("video/mp4".into()),
            officer: Some("Kim".into()),
            case: None,
            position: Some((375_665_000, 1_269_780_000)),
            muted: Some(false),
        };
        let sealed = seal(&id, &private, &public[..2], &counting()).unwrap();
        assert_eq!(
            recipients(&sealed.bytes).unwrap(),
            [public[0].id(), public[1].id()]
        );
        for key in &keys[..2] {
            assert_eq!(open(&id, &sealed.bytes, key).unwrap(), private);
        }
        assert!(matches!(
            open(&id, &sealed.bytes, &keys[2]),
            Err(HeaderError::NotARecipient(_))
        ));
        let other = RecordingId { number: 10, ..id };
        assert!(open(&other, &sealed.bytes, &keys[0]).is_err());
    }
}
