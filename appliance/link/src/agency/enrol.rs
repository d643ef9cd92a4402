//! The enrolment file of a station's box: see [`crate::enrolment`] for what it is and why it is signed like this.
//!
//! The CA certifies a key for it that is forgotten at once: for that repeater, and for nothing but to sign. The root's key
//! is not needed.

use protocol::identity::{EVIDENCE_USAGE, Revocation, Trust, Usage, When, verify_chain};
use protocol::ids::Digest;
use protocol::suite::SigningKey;
use rcgen::ExtendedKeyUsagePurpose as Purpose;
use rustls_pki_types::CertificateDer;

use super::files::{read, read_text, to_hex};
use super::request::OwnKey;
use super::{Agency, AgencyError};
use crate::credentials::load_chain;
use crate::enrolment::{Enrolment, Papers, Plan, fingerprints};

impl Agency {
    /// Makes the enrolment file of a station's box.
    ///
    /// # Errors
    /// Any [`AgencyError`].
    pub fn enrol(&self, plan: Plan) -> Result<Vec<u8>, AgencyError> {
        let papers = Papers {
            trust: read_text(&self.path("trust.pem"))?,
            crl: read_text(&self.path("crl.pem"))?,
            key_list: to_hex(&read(&self.path("key-list.cose"))?),
        };
        let enrolment = Enrolment::new(plan, papers, self.clock.now())?;
        let key = OwnKey::generate()?;
        let mut params = self.leaf_params(&enrolment.identity()?)?;
        params.extended_key_usages = vec![Purpose::Other(EVIDENCE_USAGE.to_vec())];
        let leaf = params.signed_by(key.pair(), &self.issuer("ca/ca.pem", "ca/ca.key")?)?;
        let mut chain = vec![leaf.der().clone()];
        chain.extend(load_chain(&self.path("ca/ca.pem"))?);
        chain.push(self.root_of(&chain)?);
        let signer = SigningKey::from_pkcs8(key.der().secret_der())
            .map_err(|e| AgencyError::Request(format!("the key just made does not serve: {e}")))?;
        Ok(enrolment.sign(&chain, &signer)?)
    }

    /// The root under which a chain is good; the others are older or newer ones.
    fn root_of(
        &self,
        chain: &[CertificateDer<'static>],
    ) -> Result<CertificateDer<'static>, AgencyError> {
        let path = self.path("trust.pem");
        let issued = |root: &CertificateDer<'_>| {
            let trust = Trust::from_der(std::slice::from_ref(root), &[])?;
            verify_chain(
                chain,
                &trust,
                When::Undated,
                Usage::Evidence,
                Revocation::Ignore,
            )
        };
        let mut roots = load_chain(&path)?.into_iter();
        roots
            .find(|root| issued(root).is_ok())
            .ok_or_else(|| AgencyError::content(&path, "holds no root that issued the CA"))
    }

    /// The fingerprints of the agency's roots, by which a box knows its enrolment file.
    ///
    /// # Errors
    /// Any [`AgencyError`].
    pub fn fingerprints(&self) -> Result<Vec<Digest>, AgencyError> {
        Ok(fingerprints(&read_text(&self.path("trust.pem"))?)?)
    }
}
