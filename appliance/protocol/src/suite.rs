//! The cryptographic suite, and the only file of this crate that names the library behind it: P-256,
//! SHA-256, AES-256-GCM, HKDF-SHA-256, AES-256 key wrap (the suite that government buyers can have validated).
//!
//! This is the seam for a validated module: whoever needs one replaces this file's bodies and nothing
//! else. It makes no decisions: nonces and keys are given by the caller.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::encoding::{AsBigEndian, EcPrivateKeyBin};
use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrap};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    ParsedPublicKey, UnparsedPublicKey,
};
use aws_lc_rs::{agreement, digest, hkdf};
use zeroize::Zeroizing;

/// The one algorithm of certificates' signatures.
pub(crate) use webpki::aws_lc_rs::ECDSA_P256_SHA256;

use crate::ids::{Digest, KeyId};

/// Length of an uncompressed SEC1 P-256 public key: 0x04, x, y.
pub const PUBLIC_KEY_BYTES: usize = 65;
/// Length of the authentication tag that AES-256-GCM appends.
pub const TAG_BYTES: usize = 16;

/// The order of P-256's group.
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6,
    0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];
/// Half of it, rounded down. With s, also `ORDER - s` verifies; only the lower one is made and taken, else
/// anyone could give a signed object a second digest.
const HALF_ORDER: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xde,
    0x73, 0x7d, 0x56, 0xd3, 0x8b, 0xcf, 0x42, 0x79, 0xdc, 0xe5, 0x61, 0x7e, 0x31, 0x92, 0xa8,
];

/// A 256-bit symmetric key, wiped on drop.
pub type SymmetricKey = Zeroizing<[u8; 32]>;

/// What failed in the suite. Says no more than that: details would help an attacker only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SuiteError {
    /// A key's encoding is not P-256, or not a key at all.
    #[error("not a P-256 key of the expected encoding")]
    BadKey,
    /// The signature is not by this key over these bytes.
    #[error("signature does not verify")]
    BadSignature,
    /// Wrong key, nonce, associated data, or altered bytes.
    #[error("authenticated decryption failed")]
    BadCiphertext,
    /// The library refused an operation that cannot fail on good inputs.
    #[error("the cryptographic library failed")]
    Library,
}

/// SHA-256 of `bytes`.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new();
    hasher.update(bytes);
    hasher.finish()
}

/// SHA-256, a piece at a time. Cloning keeps the state of a prefix.
#[derive(Clone)]
pub struct Hasher(digest::Context);

impl Hasher {
    /// An empty hash.
    #[must_use]
    pub fn new() -> Self {
        Hasher(digest::Context::new(&digest::SHA256))
    }
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
    /// The digest of all bytes taken.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest::from_slice(self.0.finish().as_ref()).expect("SHA-256 gives 32 bytes")
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

/// A P-256 public key in uncompressed SEC1 form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; PUBLIC_KEY_BYTES]);

impl PublicKey {
    /// Parses uncompressed SEC1. The point is on the curve: nobody seals for, or signs for, a key that no one can
    /// hold.
    ///
    /// # Errors
    /// [`SuiteError::BadKey`] for any other length or form, and for a point that is not on the curve.
    pub fn from_sec1(bytes: &[u8]) -> Result<Self, SuiteError> {
        let key = <[u8; PUBLIC_KEY_BYTES]>::try_from(bytes).map_err(|_| SuiteError::BadKey)?;
        if key[0] != 4 {
            return Err(SuiteError::BadKey);
        }
        ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).map_err(|_| SuiteError::BadKey)?;
        Ok(PublicKey(key))
    }
    /// The 65 bytes.
    #[must_use]
    pub fn sec1(&self) -> &[u8; PUBLIC_KEY_BYTES] {
        &self.0
    }
    /// The name of this key.
    #[must_use]
    pub fn id(&self) -> KeyId {
        KeyId::from_slice(&sha256(&self.0).0[..16]).expect("16 of 32 bytes")
    }
    /// Verifies an ECDSA signature of 64 bytes (r, s), s being the lower of the two that fit.
    ///
    /// # Errors
    /// [`SuiteError::BadSignature`].
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SuiteError> {
        if signature
            .get(32..)
            .is_none_or(|s| s > HALF_ORDER.as_slice())
        {
            return Err(SuiteError::BadSignature);
        }
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.0)
            .verify(message, signature)
            .map_err(|_| SuiteError::BadSignature)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id())
    }
}

/// A P-256 signing key.
pub struct SigningKey(EcdsaKeyPair);

impl SigningKey {
    /// From PKCS#8 DER.
    ///
    /// # Errors
    /// [`SuiteError::BadKey`].
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, SuiteError> {
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der)
            .map(SigningKey)
            .map_err(|_| SuiteError::BadKey)
    }
    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey::from_sec1(self.0.public_key().as_ref())
            .expect("the library gives uncompressed SEC1")
    }
    /// Signs: 64 bytes, r then the lower s.
    ///
    /// # Errors
    /// [`SuiteError::Library`].
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SuiteError> {
        let signature = self
            .0
            .sign(&SystemRandom::new(), message)
            .map_err(|_| SuiteError::Library)?;
        let mut signature = signature.as_ref().to_vec();
        let s = signature.get_mut(32..).ok_or(SuiteError::Library)?;
        if *s > HALF_ORDER[..] {
            negate(s);
        }
        Ok(signature)
    }
}

/// `s` becomes `ORDER - s`, both 32 bytes big-endian.
fn negate(s: &mut [u8]) {
    let mut borrow = false;
    for (byte, order) in s.iter_mut().zip(ORDER).rev() {
        let (less, first) = order.overflowing_sub(*byte);
        let (less, second) = less.overflowing_sub(u8::from(borrow));
        (*byte, borrow) = (less, first || second);
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public().id())
    }
}

/// A P-256 key agreement key: an ephemeral one of a sender, or a recipient's.
pub struct AgreementKey(agreement::PrivateKey);

impl AgreementKey {
    /// From PKCS#8 DER (recipients).
    ///
    /// # Errors
    /// [`SuiteError::BadKey`].
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, SuiteError> {
        agreement::PrivateKey::from_private_key_der(&agreement::ECDH_P256, der)
            .map(AgreementKey)
            .map_err(|_| SuiteError::BadKey)
    }
    /// From 32 random bytes (ephemeral keys, vectors).
    ///
    /// # Errors
    /// [`SuiteError::BadKey`] if they are no scalar of the curve; draw again then.
    pub fn from_scalar(scalar: &[u8; 32]) -> Result<Self, SuiteError> {
        agreement::PrivateKey::from_private_key(&agreement::ECDH_P256, scalar)
            .map(AgreementKey)
            .map_err(|_| SuiteError::BadKey)
    }
    /// The public half.
    ///
    /// # Errors
    /// [`SuiteError::Library`].
    pub fn public(&self) -> Result<PublicKey, SuiteError> {
        let key = self
            .0
            .compute_public_key()
            .map_err(|_| SuiteError::Library)?;
        PublicKey::from_sec1(key.as_ref())
    }
    /// The private scalar, for writing vectors and keys.
    ///
    /// # Errors
    /// [`SuiteError::Library`].
    pub fn scalar(&self) -> Result<Zeroizing<Vec<u8>>, SuiteError> {
        let bin: EcPrivateKeyBin<'_> = self.0.as_be_bytes().map_err(|_| SuiteError::Library)?;
        Ok(Zeroizing::new(bin.as_ref().to_vec()))
    }
    /// ECDH with `peer`, then HKDF-SHA-256 without salt over `info`: a key-encryption key.
    ///
    /// # Errors
    /// [`SuiteError::BadKey`] if `peer` is no point of the curve.
    pub fn derive(&self, peer: &PublicKey, info: &[u8]) -> Result<SymmetricKey, SuiteError> {
        let peer = agreement::UnparsedPublicKey::new(&agreement::ECDH_P256, &peer.0);
        agreement::agree(&self.0, peer, SuiteError::BadKey, |secret| {
            let mut out = Zeroizing::new([0; 32]);
            hkdf::Salt::new(hkdf::HKDF_SHA256, &[])
                .extract(secret)
                .expand(&[info], hkdf::HKDF_SHA256)
                .and_then(|okm| okm.fill(out.as_mut()))
                .map_err(|_| SuiteError::Library)?;
            Ok(out)
        })
    }
}

impl fmt::Debug for AgreementKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgreementKey")
    }
}

/// Wraps a content key (RFC 3394): 40 bytes.
///
/// # Errors
/// [`SuiteError::Library`].
pub fn wrap_key(kek: &SymmetricKey, key: &SymmetricKey) -> Result<Vec<u8>, SuiteError> {
    let mut out = [0; 40];
    let kek = AesKek::new(&AES_256, kek.as_ref()).map_err(|_| SuiteError::Library)?;
    kek.wrap(key.as_ref(), &mut out)
        .map(|wrapped| wrapped.to_vec())
        .map_err(|_| SuiteError::Library)
}

/// Unwraps a content key (RFC 3394).
///
/// # Errors
/// [`SuiteError::BadCiphertext`] for the wrong key-encryption key or altered bytes.
pub fn unwrap_key(kek: &SymmetricKey, wrapped: &[u8]) -> Result<SymmetricKey, SuiteError> {
    let mut out = Zeroizing::new([0; 40]);
    let kek = AesKek::new(&AES_256, kek.as_ref()).map_err(|_| SuiteError::Library)?;
    let key = kek
        .unwrap(wrapped, out.as_mut())
        .map_err(|_| SuiteError::BadCiphertext)?;
    <[u8; 32]>::try_from(&*key)
        .map(Zeroizing::new)
        .map_err(|_| SuiteError::BadCiphertext)
}

fn gcm(key: &SymmetricKey) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_ref()).expect("a 256-bit key"))
}

/// AES-256-GCM: ciphertext and tag. The caller guarantees that no (key, nonce) pair occurs twice.
///
/// # Errors
/// [`SuiteError::Library`].
pub fn seal(
    key: &SymmetricKey,
    nonce: [u8; 12],
    aad: &[u8],
    plain: &[u8],
) -> Result<Vec<u8>, SuiteError> {
    let mut out = Vec::with_capacity(plain.len() + TAG_BYTES);
    out.extend_from_slice(plain);
    gcm(key)
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(aad),
            &mut out,
        )
        .map_err(|_| SuiteError::Library)?;
    Ok(out)
}

/// Opens what [`seal`] made.
///
/// # Errors
/// [`SuiteError::BadCiphertext`].
pub fn open(
    key: &SymmetricKey,
    nonce: [u8; 12],
    aad: &[u8],
    sealed: &[u8],
) -> Result<Vec<u8>, SuiteError> {
    let mut buffer = sealed.to_vec();
    let plain = gcm(key)
        .open_in_place(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(aad),
            &mut buffer,
        )
        .map_err(|_| SuiteError::BadCiphertext)?
        .len();
    buffer.truncate(plain);
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn one_statement_has_one_signature_of_each_signing() {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
            .map(SigningKey)
            .unwrap();
        for n in 0..64u8 {
            let signature = key.sign(&[n]).unwrap();
            key.public().verify(&[n], &signature).unwrap();
            let mut other = signature.clone();
            negate(&mut other[32..]);
            let library = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.public().0);
            library.verify(&[n], &other).unwrap();
            assert_eq!(
                key.public().verify(&[n], &other),
                Err(SuiteError::BadSignature)
            );
        }
    }
}
