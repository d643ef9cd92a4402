//! The side of whoever is certified: a private key that is made where it stays, and the request that travels.

use protocol::identity::Identity;
use rcgen::{CertificateParams, CertificateSigningRequestParams, DnType, KeyPair, SanType};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

use super::AgencyError;

/// A party's own private key.
pub struct OwnKey(KeyPair);

impl std::fmt::Debug for OwnKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OwnKey")
    }
}

impl OwnKey {
    /// A new one (P-256).
    ///
    /// # Errors
    /// [`AgencyError::Certificate`].
    pub fn generate() -> Result<OwnKey, AgencyError> {
        Ok(OwnKey(KeyPair::generate()?))
    }

    /// One that was made before.
    ///
    /// # Errors
    /// [`AgencyError::Certificate`].
    pub fn from_der(key: &PrivateKeyDer<'_>) -> Result<OwnKey, AgencyError> {
        Ok(OwnKey(KeyPair::try_from(key.secret_der())?))
    }

    /// The same as it is stored.
    ///
    /// # Errors
    /// [`AgencyError::Request`].
    pub fn from_pem(pem: &[u8]) -> Result<OwnKey, AgencyError> {
        let key = PrivateKeyDer::from_pem_slice(pem)
            .map_err(|e| AgencyError::Request(format!("no private key (PKCS#8 PEM): {e}")))?;
        OwnKey::from_der(&key)
    }

    /// As it is stored (PKCS#8 PEM): for a file of mode 0600, or for who seals it.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// For the library of certificates.
    #[must_use]
    pub fn pair(&self) -> &KeyPair {
        &self.0
    }

    /// The same for TLS.
    #[must_use]
    pub fn der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.0.serialize_der().into())
    }

    /// A signing request (PKCS#10 PEM) for an identity.
    ///
    /// # Errors
    /// [`AgencyError::Certificate`].
    pub fn request(&self, identity: &Identity) -> Result<String, AgencyError> {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, identity.role().as_str());
        params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into()?)];
        Ok(params.serialize_request(&self.0)?.pem()?)
    }

    /// Whether a request is this key's, for that identity.
    #[must_use]
    pub fn asked(&self, request: &str, identity: &Identity) -> bool {
        let Ok(request) = CertificateSigningRequestParams::from_pem(request) else {
            return false;
        };
        let names = request.params.subject_alt_names.as_slice();
        let named = matches!(names, [SanType::URI(urn)] if urn.as_str() == identity.to_string());
        named && rcgen::PublicKeyData::der_bytes(&request.public_key) == self.0.public_key_raw()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_request_is_known_by_its_key_and_its_identity() {
        let (one, other) = (OwnKey::generate().unwrap(), OwnKey::generate().unwrap());
        let (me, she) = (
            Identity::repeater("a", 1).unwrap(),
            Identity::repeater("a", 2).unwrap(),
        );
        let request = one.request(&me).unwrap();
        assert!(one.asked(&request, &me));
        assert!(!one.asked(&request, &she) && !other.asked(&request, &me));
        let again = OwnKey::from_pem(one.pem().as_bytes()).unwrap();
        assert!(again.asked(&request, &me) && !again.asked("nothing", &me));
    }
}
