//! An enrolment file: all that a new box needs to become a station's repeater, in one file of at most 64 KiB that an
//! installer carries: who it is, the archive's sites, the uplink, the air, the docks, and whom to trust.
//!
//! It is TOML ([`Plan`] and [`Papers`]) in a COSE_Sign1 of kind `bwc/enrolment/1`, signed by the agency:
//! - The issuing CA certifies a key that lives for one command, for the very repeater that the file is for and with the
//!   usage that signs evidence. No other certificate has both: a camera's device has that usage and another role, a
//!   repeater's own has that role and other usages. So neither a stolen camera nor a stolen box can make such a file, and
//!   the root stays offline, as it must for two thousand stations.
//! - The chain in the header ends with the agency's root, and that root is believed only where the box was told its
//!   fingerprint (SHA-256 of the certificate) by somebody else than the file: by the image's command line, which is part
//!   of what the firmware checks, by the root it belongs to already, or by the installer, who has it on paper. A file that
//!   names its own judge proves nothing, and is refused with the fingerprint that it claims.
//! - Nothing of the content is read before the signature was verified, and revocation lists in it count for its signer.
//!
//! It holds no secret: the private key is made on the box and stays there. Whoever reads it learns a station's addresses.
//!
//! Not done here: what a box does with it (`repeater::setup`), and files.

mod plan;

use protocol::cose::{CoseError, open_chained, sign_chained};
use protocol::identity::{
    Identity, IdentityError, Revocation, Role, Trust, Usage, Verified, When, verify_chain,
};
use protocol::ids::{Digest, Time};
use protocol::keylist::{KeyList, KeyListError};
use protocol::suite::{PublicKey, SigningKey, sha256};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

pub use plan::{Archive, Dock, Plan, Port, Uplink, Wifi};

use crate::agency::files::from_hex;

/// An enrolment file is at most so long.
pub const FILE_BYTES: usize = 64 << 10;
const KIND: &str = "bwc/enrolment/1";
const FORMAT: u16 = 1;

/// What an enrolment file says, verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    format: u16,
    /// When the agency made it: of two the later one counts.
    pub made_ms: u64,
    /// Whom to trust.
    pub papers: Papers,
    /// What the station is like.
    pub plan: Plan,
}

/// What the agency hands out to everybody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Papers {
    /// Its root certificates (PEM).
    pub trust: String,
    /// Its revocation lists (PEM).
    pub crl: String,
    /// Its key list, in hexadecimal.
    pub key_list: String,
}

/// Why an enrolment is refused.
#[derive(Debug, thiserror::Error)]
pub enum EnrolmentError {
    /// Not signed, not by the agency, or altered.
    #[error("the enrolment file is refused: {0}")]
    Signature(#[from] CoseError),
    /// Signed under a root that nobody vouches for here.
    #[error("the enrolment file is refused: {0}")]
    Root(String),
    /// Signed by the agency, and yet not to be used.
    #[error("the enrolment file cannot be used: {0}")]
    Content(String),
}

impl From<IdentityError> for EnrolmentError {
    fn from(e: IdentityError) -> Self {
        EnrolmentError::Signature(e.into())
    }
}

fn content(what: &(impl ToString + ?Sized)) -> EnrolmentError {
    EnrolmentError::Content(what.to_string())
}

/// The fingerprint of a root certificate: what a box is told, and what an installer has on paper.
#[must_use]
pub fn fingerprint(root: &CertificateDer<'_>) -> Digest {
    sha256(root)
}

/// The fingerprints of all certificates of a PEM file.
///
/// # Errors
/// [`EnrolmentError::Content`].
pub fn fingerprints(pem: &str) -> Result<Vec<Digest>, EnrolmentError> {
    let roots = roots(pem)?;
    Ok(roots.iter().map(fingerprint).collect())
}

/// Reads a fingerprint as people write it: hexadecimal, in groups with colons, dashes or spaces between them, or in one.
#[must_use]
pub fn parse_fingerprint(text: &str) -> Option<Digest> {
    let digits: String = text.chars().filter(|c| !":- ".contains(*c)).collect();
    Digest::from_hex(&digits)
}

fn roots(pem: &str) -> Result<Vec<CertificateDer<'static>>, EnrolmentError> {
    let roots = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    match roots {
        Ok(roots) if !roots.is_empty() => Ok(roots),
        Ok(_) => Err(content("papers.trust holds no certificate")),
        Err(e) => Err(content(&format!("papers.trust: {e}"))),
    }
}

impl Papers {
    /// Roots and revocation lists.
    ///
    /// # Errors
    /// [`EnrolmentError::Content`].
    pub fn trust(&self) -> Result<Trust, EnrolmentError> {
        let (roots, lists) = (self.trust.as_bytes(), self.crl.as_bytes());
        let trust = Trust::from_pem(roots, Some(lists)).map_err(|e| content(&e))?;
        match trust.crl_next_update() {
            Some(_) => Ok(trust),
            None => Err(content("papers.crl holds no revocation list")),
        }
    }

    /// The key list, verified under the roots.
    ///
    /// # Errors
    /// [`EnrolmentError::Content`].
    pub fn key_list(&self) -> Result<KeyList, EnrolmentError> {
        let bytes = from_hex(&self.key_list).ok_or_else(|| content("papers.key_list: no hex"))?;
        let said = |e: KeyListError| content(&format!("papers.key_list: {e}"));
        KeyList::verify(bytes.into(), self.trust()?.root_keys()).map_err(said)
    }
}

impl Enrolment {
    /// A new one, checked.
    ///
    /// # Errors
    /// [`EnrolmentError::Content`].
    pub fn new(plan: Plan, papers: Papers, now: Time) -> Result<Self, EnrolmentError> {
        let enrolment = Enrolment {
            format: FORMAT,
            made_ms: now.0,
            papers,
            plan,
        };
        enrolment.check()?;
        Ok(enrolment)
    }

    fn check(&self) -> Result<(), EnrolmentError> {
        if self.format != FORMAT {
            let found = self.format;
            return Err(content(&format!(
                "its format is {found}, and this release reads {FORMAT}: use a release that is as new as the file"
            )));
        }
        self.plan.check().map_err(EnrolmentError::Content)?;
        self.papers.key_list().map(|_| ())
    }

    /// Whom the box is to be.
    ///
    /// # Errors
    /// [`EnrolmentError::Content`].
    pub fn identity(&self) -> Result<Identity, EnrolmentError> {
        self.plan.identity().map_err(EnrolmentError::Content)
    }

    /// Signs it. `chain` begins with a certificate of `key` that names this repeater and has the usage of evidence, and
    /// ends with the root.
    ///
    /// # Errors
    /// [`EnrolmentError`]; also where the file would be too long.
    pub fn sign(
        &self,
        chain: &[CertificateDer<'_>],
        key: &SigningKey,
    ) -> Result<Vec<u8>, EnrolmentError> {
        let text = toml::to_string(self).map_err(|e| content(&e))?;
        let bytes = sign_chained(KIND, text.into_bytes(), chain, key)?;
        if bytes.len() > FILE_BYTES {
            let length = bytes.len();
            return Err(content(&format!(
                "it would have {length} bytes, and {FILE_BYTES} are taken"
            )));
        }
        Ok(bytes)
    }

    /// Opens one. Its root is believed where it is among `known`, the fingerprints that this box was told.
    ///
    /// # Errors
    /// [`EnrolmentError`].
    pub fn open(bytes: &[u8], known: &[Digest]) -> Result<Self, EnrolmentError> {
        let verify = |chain: &[CertificateDer<'static>]| verify_signer(chain, known);
        let (text, chain) = open_chained(KIND, bytes, FILE_BYTES, verify)?;
        let text = String::from_utf8(text).map_err(|e| content(&e))?;
        let read: Enrolment = toml::from_str(&text).map_err(|e| content(e.message()))?;
        read.check()?;
        if !chain
            .last()
            .is_some_and(|root| roots(&read.papers.trust).is_ok_and(|all| all.contains(root)))
        {
            return Err(content(
                "the root that signed it is not among those it brings",
            ));
        }
        let signer = judge(&chain, &read.papers.trust()?, Revocation::Check)?.identity;
        if read.identity()? != signer {
            return Err(content(&format!(
                "it was signed for {signer}, not for whom it names"
            )));
        }
        Ok(read)
    }
}

fn judge(
    chain: &[CertificateDer<'static>],
    trust: &Trust,
    revocation: Revocation,
) -> Result<Verified, EnrolmentError> {
    let verified = verify_chain(chain, trust, When::Undated, Usage::Evidence, revocation)?;
    verified.identity.require(Role::Repeater)?;
    Ok(verified)
}

type Chain = Vec<CertificateDer<'static>>;

fn verify_signer(
    chain: &[CertificateDer<'static>],
    known: &[Digest],
) -> Result<(Chain, PublicKey), EnrolmentError> {
    let root = chain.last().ok_or(CoseError::Malformed("an empty chain"))?;
    let claimed = fingerprint(root);
    if known.is_empty() {
        return Err(EnrolmentError::Root(format!(
            "this box was told of no agency; where the fingerprint on the agency's paper is {claimed}, give it with --agency"
        )));
    }
    if !known.contains(&claimed) {
        let known: Vec<String> = known.iter().map(Digest::to_string).collect();
        return Err(EnrolmentError::Root(format!(
            "it is of an agency with the fingerprint {claimed}, and this box was told of {}",
            known.join(" and ")
        )));
    }
    let trust = Trust::from_der(std::slice::from_ref(root), &[])?;
    let verified = judge(chain, &trust, Revocation::Ignore)?;
    Ok((chain.to_vec(), verified.public_key))
}
