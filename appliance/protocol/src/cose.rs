//! COSE_Sign1 with ES256 (RFC 9052), the envelope of everything that is signed, in two kinds: *evidence*, which
//! carries its signer's certificate chain (x5chain, RFC 9360, in the protected header): a camera's device, or a
//! repeater; and *statements*, which name a key of the key list or the root (kid, protected).
//!
//! What is signed is bound to its kind by the external additional data (`bwc/manifest/1` and so on), so
//! that a manifest's signature never verifies as a receipt's. Opening verifies: nothing here returns a
//! payload whose signature was not checked. One statement has one encoding (nothing unprotected, shortest
//! lengths, the lower s of the signature), so that only its signer can give it another digest.

use ciborium::Value;
use coset::iana::{Algorithm, EnumI64, HeaderParameter};
use coset::{CoseSign1, CoseSign1Builder, Header, HeaderBuilder, Label, TaggedCborSerializable};
use rustls_pki_types::CertificateDer;

use crate::identity::{
    Identity, IdentityError, Revocation, Role, Trust, Usage, When, verify_chain,
};
use crate::ids::{KeyId, RepeaterId, Serial};
use crate::limits;
use crate::message::PROOF_KIND;
use crate::suite::{PublicKey, SigningKey, SuiteError};

/// Why an envelope is refused.
#[derive(Debug, thiserror::Error)]
pub enum CoseError {
    /// Longer than its kind may be.
    #[error("{length} bytes, at most {limit} are taken")]
    TooLong {
        /// What came.
        length: usize,
        /// What is taken.
        limit: usize,
    },
    /// Not a COSE_Sign1 of the form that SPEC.md gives.
    #[error("not a signed object of the specified form: {0}")]
    Malformed(&'static str),
    /// The signature is not by that key over these bytes.
    #[error("the signature does not verify")]
    BadSignature,
    /// The certificate chain is refused.
    #[error("the signer's certificate is refused: {0}")]
    Signer(#[from] IdentityError),
    /// The library failed while signing.
    #[error(transparent)]
    Suite(#[from] SuiteError),
}

/// The key and chain with which a camera signs evidence.
#[derive(Debug)]
pub struct DeviceSigner {
    /// The device key.
    pub key: SigningKey,
    /// Its certificate, then intermediates, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The serial that the certificate states.
    pub serial: Serial,
}

impl DeviceSigner {
    /// Takes a key and its chain; the serial is read from the certificate.
    ///
    /// # Errors
    /// [`CoseError::Signer`] if the chain does not verify as a device's under `trust`, and
    /// [`CoseError::Malformed`] if the key is not the certificate's.
    pub fn new(
        key: SigningKey,
        chain: Vec<CertificateDer<'static>>,
        trust: &Trust,
    ) -> Result<Self, CoseError> {
        let signer = (Usage::Evidence, Role::Device);
        let (own, public) = verify_signer(&chain, trust, signer, Revocation::Ignore)?;
        if public != key.public() {
            return Err(CoseError::Malformed(
                "the device key is not the one its certificate names",
            ));
        }
        let serial = serial_of(&own)?;
        Ok(DeviceSigner { key, chain, serial })
    }
}

/// The key and chain with which a repeater signs the heads of its logbook: those of its link.
#[derive(Debug)]
pub struct RepeaterSigner {
    /// The link's key.
    pub key: SigningKey,
    /// Its certificate, then intermediates, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The repeater that the certificate states.
    pub repeater: RepeaterId,
}

/// Signs `payload` as evidence of kind `kind`.
///
/// # Errors
/// [`CoseError::Suite`].
pub fn sign_evidence(
    kind: &str,
    payload: Vec<u8>,
    signer: &DeviceSigner,
) -> Result<Vec<u8>, CoseError> {
    sign_chained(kind, payload, &signer.chain, &signer.key)
}

/// Signs `payload` as evidence of kind `kind` by a repeater.
///
/// # Errors
/// [`CoseError::Suite`].
pub fn sign_by_repeater(
    kind: &str,
    payload: Vec<u8>,
    signer: &RepeaterSigner,
) -> Result<Vec<u8>, CoseError> {
    sign_chained(kind, payload, &signer.chain, &signer.key)
}

/// Signs `payload` with the key of the chain's first certificate; the chain travels in the protected header.
///
/// # Errors
/// [`CoseError::Suite`].
pub fn sign_chained(
    kind: &str,
    payload: Vec<u8>,
    chain: &[CertificateDer<'_>],
    key: &SigningKey,
) -> Result<Vec<u8>, CoseError> {
    let certs = chain.iter().map(|c| Value::Bytes(c.to_vec()));
    let x5chain = match chain {
        [one] => Value::Bytes(one.to_vec()),
        _ => Value::Array(certs.collect()),
    };
    let protected = HeaderBuilder::new()
        .algorithm(Algorithm::ES256)
        .value(HeaderParameter::X5Chain.to_i64(), x5chain)
        .build();
    sign(kind, payload, protected, key)
}

/// Opens evidence: the payload, and the serial of the device that signed it. Certificates are judged by
/// chain and role at their own time of issue, never by today's date, and without revocation lists:
/// revocation ends sessions, not custody.
///
/// # Errors
/// Any [`CoseError`].
pub fn open_evidence(
    kind: &str,
    bytes: &[u8],
    limit: usize,
    trust: &Trust,
) -> Result<(Vec<u8>, Serial), CoseError> {
    let signer = (Usage::Evidence, Role::Device);
    let (payload, by) = open_by_chain(kind, bytes, limit, trust, signer, Revocation::Ignore)?;
    Ok((payload, serial_of(&by)?))
}

/// Opens what a repeater signed with its link's key: the payload, and which repeater. Judged as evidence is.
///
/// # Errors
/// Any [`CoseError`].
pub fn open_by_repeater(
    kind: &str,
    bytes: &[u8],
    limit: usize,
    trust: &Trust,
) -> Result<(Vec<u8>, RepeaterId), CoseError> {
    let signer = (Usage::Client, Role::Repeater);
    let (payload, by) = open_by_chain(kind, bytes, limit, trust, signer, Revocation::Ignore)?;
    let by = by
        .as_repeater()
        .ok_or(CoseError::Malformed("the certificate's repeater"))?;
    Ok((payload, by))
}

/// Opens the device proof of a camera's hello: what it signs, which the caller compares with its own end of the
/// connection, and the serial. A proof opens a session, and revocation ends sessions: unlike evidence, a
/// revoked device's is refused.
///
/// # Errors
/// Any [`CoseError`].
pub fn open_proof(bytes: &[u8], trust: &Trust) -> Result<(Vec<u8>, Serial), CoseError> {
    let (limit, signer) = (limits::PROOF_BYTES, (Usage::Evidence, Role::Device));
    let (payload, by) = open_by_chain(PROOF_KIND, bytes, limit, trust, signer, Revocation::Check)?;
    Ok((payload, serial_of(&by)?))
}

fn open_by_chain(
    kind: &str,
    bytes: &[u8],
    limit: usize,
    trust: &Trust,
    signer: (Usage, Role),
    revocation: Revocation,
) -> Result<(Vec<u8>, Identity), CoseError> {
    open_chained(kind, bytes, limit, |chain| {
        verify_signer(chain, trust, signer, revocation)
    })
}

/// Opens what [`sign_chained`] made: the payload, and what `verify` makes of the chain besides its key.
///
/// # Errors
/// What `verify` answers for a chain that is not believed, or any [`CoseError`].
pub fn open_chained<T, E: From<CoseError>>(
    kind: &str,
    bytes: &[u8],
    limit: usize,
    verify: impl FnOnce(&[CertificateDer<'static>]) -> Result<(T, PublicKey), E>,
) -> Result<(Vec<u8>, T), E> {
    let envelope = parse(bytes, limit)?;
    let (signer, public) = verify(&chain_of(&envelope)?)?;
    let payload = verified_payload(kind, envelope, &public)?;
    Ok((payload, signer))
}

fn chain_of(envelope: &CoseSign1) -> Result<Vec<CertificateDer<'static>>, CoseError> {
    let label = Label::Int(HeaderParameter::X5Chain.to_i64());
    let mut rest = envelope.protected.header.rest.iter();
    match rest.find(|(l, _)| *l == label).map(|(_, v)| v) {
        Some(Value::Bytes(one)) => Ok(vec![CertificateDer::from(one.clone())]),
        Some(Value::Array(many)) if many.len() <= limits::CHAIN_CERTIFICATES => many
            .iter()
            .map(|v| v.as_bytes().map(|b| CertificateDer::from(b.clone())))
            .collect::<Option<_>>()
            .ok_or(CoseError::Malformed(
                "x5chain holds something that is not a certificate",
            )),
        _ => Err(CoseError::Malformed(
            "no x5chain in the protected header, or one too long",
        )),
    }
}

fn verify_signer(
    chain: &[CertificateDer<'static>],
    trust: &Trust,
    (usage, role): (Usage, Role),
    revocation: Revocation,
) -> Result<(Identity, PublicKey), CoseError> {
    let verified = verify_chain(chain, trust, When::Undated, usage, revocation)?;
    verified.identity.require(role)?;
    Ok((verified.identity, verified.public_key))
}

fn serial_of(device: &Identity) -> Result<Serial, CoseError> {
    let serial = device.name().parse();
    serial.map_err(|_| CoseError::Malformed("the certificate's serial"))
}

/// Signs `payload` as a statement of kind `kind`, naming the key.
///
/// # Errors
/// [`CoseError::Suite`].
pub fn sign_statement(
    kind: &str,
    payload: Vec<u8>,
    key: &SigningKey,
) -> Result<Vec<u8>, CoseError> {
    let protected = HeaderBuilder::new()
        .algorithm(Algorithm::ES256)
        .key_id(key.public().id().as_bytes().to_vec())
        .build();
    sign(kind, payload, protected, key)
}

/// Opens a statement under the key that `find` gives for its key id.
///
/// # Errors
/// What `find` answers for a key that may not be used, or any [`CoseError`].
pub fn open_statement<E: From<CoseError>>(
    kind: &str,
    bytes: &[u8],
    limit: usize,
    find: impl FnOnce(KeyId) -> Result<PublicKey, E>,
) -> Result<(Vec<u8>, KeyId), E> {
    let envelope = parse(bytes, limit)?;
    let kid = KeyId::from_slice(&envelope.protected.header.key_id).ok_or(CoseError::Malformed(
        "no key id of 16 bytes in the protected header",
    ))?;
    let public = find(kid)?;
    Ok((verified_payload(kind, envelope, &public)?, kid))
}

fn sign(
    kind: &str,
    payload: Vec<u8>,
    protected: Header,
    key: &SigningKey,
) -> Result<Vec<u8>, CoseError> {
    CoseSign1Builder::new()
        .protected(protected)
        .payload(payload)
        .try_create_signature(kind.as_bytes(), |to_sign| key.sign(to_sign))?
        .build()
        .to_tagged_vec()
        .map_err(|_| CoseError::Malformed("cannot be encoded"))
}

fn parse(bytes: &[u8], limit: usize) -> Result<CoseSign1, CoseError> {
    if bytes.len() > limit {
        return Err(CoseError::TooLong {
            length: bytes.len(),
            limit,
        });
    }
    let envelope = CoseSign1::from_tagged_slice(bytes)
        .map_err(|_| CoseError::Malformed("not a tagged COSE_Sign1"))?;
    let es256 = coset::RegisteredLabelWithPrivate::Assigned(Algorithm::ES256);
    if envelope.protected.header.alg != Some(es256) || !envelope.protected.header.crit.is_empty() {
        return Err(CoseError::Malformed(
            "the algorithm is not ES256, or something critical is not understood",
        ));
    }
    // An object's digest names its bytes. Whatever can be changed without breaking the signature would
    // let anyone on the way give one statement many digests.
    if !envelope.unprotected.is_empty() || envelope.payload.is_none() {
        return Err(CoseError::Malformed(
            "an unprotected header, which nobody signed, or no payload",
        ));
    }
    if envelope.clone().to_tagged_vec().ok().as_deref() != Some(bytes) {
        return Err(CoseError::Malformed(
            "its envelope is not in the one encoding that is allowed",
        ));
    }
    Ok(envelope)
}

fn verified_payload(
    kind: &str,
    envelope: CoseSign1,
    key: &PublicKey,
) -> Result<Vec<u8>, CoseError> {
    envelope
        .verify_signature(kind.as_bytes(), |signature, signed| {
            key.verify(signed, signature)
        })
        .map_err(|_| CoseError::BadSignature)?;
    envelope.payload.ok_or(CoseError::Malformed("no payload"))
}

/// Encodes a payload with minicbor; encoding to memory cannot fail.
#[must_use]
pub fn to_cbor<T: minicbor::Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("encoding to memory cannot fail")
}

/// Requires that a payload is of format version `known`. The version is key 1 of its map and is read before anything
/// else of it: what a later version holds besides cannot be read here, and is not judged.
///
/// # Errors
/// [`CoseError::Malformed`] for what states no version, and what `other` answers for another one.
pub fn require_version<E: From<CoseError>>(
    payload: &[u8],
    known: u16,
    other: impl FnOnce(u16) -> E,
) -> Result<(), E> {
    match stated_version(payload) {
        Ok(version) if version == known => Ok(()),
        Ok(version) => Err(other(version)),
        Err(_) => Err(CoseError::Malformed("a payload that states no format version").into()),
    }
}

fn stated_version(payload: &[u8]) -> Result<u16, minicbor::decode::Error> {
    let mut d = minicbor::Decoder::new(payload);
    for _ in 0..d.map()?.unwrap_or(u64::MAX) {
        if d.int()? == minicbor::data::Int::from(1u8) {
            return d.u16();
        }
        d.skip()?;
    }
    Err(minicbor::decode::Error::message("no key 1"))
}

/// Decodes a whole payload: nothing may follow.
///
/// # Errors
/// [`CoseError::Malformed`].
pub fn from_cbor<'b, T: minicbor::Decode<'b, ()>>(
    bytes: &'b [u8],
    what: &'static str,
) -> Result<T, CoseError> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let value = decoder.decode().map_err(|_| CoseError::Malformed(what))?;
    if decoder.position() != bytes.len() {
        return Err(CoseError::Malformed("bytes follow the payload"));
    }
    Ok(value)
}
