//! The test keys and certificates of `vectors/keys.json`: read once, given by name. Every private key in
//! there is public; a key is SHA-256 over `bwc test key: NAME`, so that anyone can make it again.

use protocol::identity::Trust;
use protocol::suite::{AgreementKey, PublicKey};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use serde_json::Value;

/// `keys.json`, parsed.
pub(crate) struct Keys(pub(crate) Value);

impl Keys {
    /// The trust in one root certificate, without revocation lists.
    pub(crate) fn trust(&self, root: &str) -> Trust {
        let root = CertificateDer::from(hex(&self.0["roots"][root]));
        Trust::from_der(&[root], &[]).unwrap()
    }
    /// The trust in the test root with revocation lists: `revocation` is a name in the file, or null.
    pub(crate) fn trust_revoking(&self, revocation: &Value) -> Trust {
        let lists = revocation
            .as_str()
            .map(|name| self.0["revocation-lists"][name].as_array().unwrap());
        let lists: Vec<_> = lists
            .into_iter()
            .flatten()
            .map(|l| CertificateRevocationListDer::from(hex(l)))
            .collect();
        let root = CertificateDer::from(hex(&self.0["roots"]["root"]));
        Trust::from_der(&[root], &lists).unwrap()
    }
    /// A public key.
    pub(crate) fn public(&self, name: &str) -> PublicKey {
        PublicKey::from_sec1(&hex(&self.0["keys"][name]["public"])).unwrap()
    }
    /// A recipient's key.
    pub(crate) fn agreement(&self, name: &str) -> AgreementKey {
        AgreementKey::from_pkcs8(&hex(&self.0["keys"][name]["pkcs8"])).unwrap()
    }
}

/// The bytes of a string of hexadecimal digits.
pub(crate) fn hex(value: &Value) -> Vec<u8> {
    let digits = value.as_str().unwrap().as_bytes();
    assert_eq!(digits.len() % 2, 0, "an odd number of digits");
    let digit = |c: u8| u8::try_from(char::from(c).to_digit(16).unwrap()).unwrap();
    digits
        .chunks(2)
        .map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
        .collect()
}

/// Bytes as a string of hexadecimal digits.
pub(crate) fn to_hex(bytes: &[u8]) -> Value {
    Value::String(bytes.iter().map(|b| format!("{b:02x}")).collect())
}
