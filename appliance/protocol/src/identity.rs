//! Who speaks: the identity that a certificate states, and whether to believe it.
//!
//! An identity is exactly one URI in the certificate's subject alternative name and nothing beside it:
//! `urn:bwc:repeater:<station>:<n>`, `urn:bwc:archive:<site>`, `urn:bwc:camera:<random id>` (the link) or
//! `urn:bwc:device:<serial>` (the key that signs manifests and inventories). No DNS name is accepted: a peer
//! is who the agency says, not where it answers.
//!
//! [`verify_chain`] is the one way to an [`Identity`]: form and bounds, path to the agency's root (webpki),
//! extended key usage, revocation lists where the caller asks for them, and validity at the time that the
//! caller names. The caller then says which role it expects with [`Identity::require`].
//!
//! Invariants:
//! - ECDSA P-256 with SHA-256 only, in every certificate of the path and in the leaf's key.
//! - A revocation list past its date is still used: an outage must not end all sessions. [`Trust::crl_is_stale`]
//!   lets the shell raise an alarm.
//! - Where revocation lists are given at all, every issuer of the path needs one: a list that is missing would
//!   otherwise silently revoke nothing.
//!
//! Not done here: reading files or clocks, and what a refusal means for a session (`link::tls`).

mod der;
mod error;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, KeyUsage, OwnedCertRevocationList, RevocationOptionsBuilder,
    anchor_from_trusted_cert,
};

use crate::ids::{RepeaterId, Serial, SiteId, Time};
use crate::limits;
use crate::suite::ECDSA_P256_SHA256;
use crate::suite::PublicKey;

pub use error::IdentityError;

/// The extended key usage of a device certificate: signs evidence (manifests, inventories), nothing else.
/// 1.3.6.1.4.1.59999.1.1, as components.
pub const EVIDENCE_USAGE: [u64; 9] = [1, 3, 6, 1, 4, 1, 59_999, 1, 1];
const EVIDENCE_USAGE_DER: &[u8] = &[0x2b, 6, 1, 4, 1, 0x83, 0xd4, 0x5f, 1, 1];
const SERVER_USAGE_DER: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
const CLIENT_USAGE_DER: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];
/// Everything of a P-256 SubjectPublicKeyInfo before the 65 bytes of the point.
const P256_SPKI_PREFIX: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 3, 1, 7, 3, 0x42, 0,
];

/// What a party is. A key has one role for life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Dials cameras and archive sites.
    Repeater,
    /// A site of the data centre.
    Archive,
    /// A camera's link: random, so that a dialler learns no serial.
    Camera,
    /// A camera's signing device: names the serial.
    Device,
}

impl Role {
    /// The word in the URN and in the server name `<role>.bwc.invalid`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Repeater => "repeater",
            Role::Archive => "archive",
            Role::Camera => "camera",
            Role::Device => "device",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A role and a name, as one URN. Its name is bounded and plain: safe in logs, paths and metrics.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    role: Role,
    name: Arc<str>,
}

impl Identity {
    /// The repeater numbered `n` of `station`.
    ///
    /// # Errors
    /// [`IdentityError::BadUrn`] where `station` is not a name.
    pub fn repeater(station: &str, n: u16) -> Result<Self, IdentityError> {
        format!("urn:bwc:repeater:{station}:{n}").parse()
    }
    /// An archive site.
    #[must_use]
    pub fn archive(site: &SiteId) -> Self {
        Identity {
            role: Role::Archive,
            name: site.as_str().into(),
        }
    }
    /// A camera's link, by a random id.
    ///
    /// # Errors
    /// [`IdentityError::BadUrn`] where `id` is not a name.
    pub fn camera(id: &str) -> Result<Self, IdentityError> {
        format!("urn:bwc:camera:{id}").parse()
    }
    /// A camera's signing device.
    #[must_use]
    pub fn device(serial: &Serial) -> Self {
        Identity {
            role: Role::Device,
            name: serial.as_str().into(),
        }
    }
    /// What it is.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }
    /// Its name without the role; of a repeater `<station>:<n>`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Which repeater it is, if it is one.
    #[must_use]
    pub fn as_repeater(&self) -> Option<RepeaterId> {
        let (station, n) = self.name.split_once(':')?;
        Some(RepeaterId {
            station: station.parse().ok()?,
            n: n.parse().ok()?,
        })
        .filter(|_| self.role == Role::Repeater)
    }
    /// Demands a role.
    ///
    /// # Errors
    /// [`IdentityError::WrongRole`].
    pub fn require(&self, role: Role) -> Result<(), IdentityError> {
        if self.role == role {
            Ok(())
        } else {
            Err(IdentityError::WrongRole {
                found: self.clone(),
                expected: role,
            })
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "urn:bwc:{}:{}", self.role, self.name)
    }
}

impl FromStr for Identity {
    type Err = IdentityError;
    fn from_str(urn: &str) -> Result<Self, IdentityError> {
        parse_urn(urn).ok_or_else(|| IdentityError::BadUrn(printable(urn)))
    }
}

fn parse_urn(urn: &str) -> Option<Identity> {
    let (role, name) = urn.strip_prefix("urn:bwc:")?.split_once(':')?;
    let (role, plain) = match role {
        "repeater" => {
            let (station, n) = name.split_once(':')?;
            // One spelling only, so that two certificates cannot name one repeater differently.
            if n.parse::<u16>().ok()?.to_string() != n {
                return None;
            }
            (Role::Repeater, station)
        }
        "archive" => (Role::Archive, name),
        "camera" => (Role::Camera, name),
        "device" => (Role::Device, name),
        _ => return None,
    };
    plain.parse::<Serial>().ok()?; // the rule for names is one rule
    Some(Identity {
        role,
        name: name.into(),
    })
}

/// What a peer sent, cut and with everything unprintable replaced: for log lines.
fn printable(text: &str) -> String {
    text.chars()
        .take(2 * limits::NAME_CHARS)
        .map(|c| if c.is_ascii_graphic() { c } else { '?' })
        .collect()
}

/// The agency's roots, and what they have revoked. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Trust(Arc<TrustInner>);

#[derive(Debug)]
struct TrustInner {
    anchors: Vec<TrustAnchor<'static>>,
    keys: Vec<PublicKey>,
    crls: Vec<CertRevocationList<'static>>,
    crl_next_update: Option<Time>,
}

impl Trust {
    /// Roots and, optionally, revocation lists, as PEM (any number of each, at least one root). Of several lists of one
    /// issuer the newest counts.
    ///
    /// # Errors
    /// [`IdentityError::Malformed`] for PEM or DER that does not parse, [`IdentityError::Algorithm`] for a root
    /// that is not P-256.
    pub fn from_pem(roots: &[u8], crls: Option<&[u8]>) -> Result<Self, IdentityError> {
        let bad = |_| IdentityError::Malformed("PEM");
        let roots = CertificateDer::pem_slice_iter(roots)
            .collect::<Result<Vec<_>, _>>()
            .map_err(bad)?;
        let crls = CertificateRevocationListDer::pem_slice_iter(crls.unwrap_or_default())
            .collect::<Result<Vec<_>, _>>()
            .map_err(bad)?;
        Self::from_der(&roots, &crls)
    }

    /// The same from DER.
    ///
    /// # Errors
    /// As [`Trust::from_pem`].
    pub fn from_der(
        roots: &[CertificateDer<'_>],
        crls: &[CertificateRevocationListDer<'_>],
    ) -> Result<Self, IdentityError> {
        if roots.is_empty() {
            return Err(IdentityError::Malformed("no root certificate"));
        }
        let mut inner = TrustInner {
            anchors: vec![],
            keys: vec![],
            crls: vec![],
            crl_next_update: None,
        };
        for root in roots {
            let anchor = anchor_from_trusted_cert(root)
                .map_err(|_| IdentityError::Malformed("root certificate"))?;
            inner.anchors.push(anchor.to_owned());
            let leaf = EndEntityCert::try_from(root)
                .map_err(|_| IdentityError::Malformed("root certificate"))?;
            inner.keys.push(p256_key(&leaf)?);
        }
        for (crl, fields) in newest_lists(crls)? {
            let next = fields.next_update;
            inner.crl_next_update = Some(inner.crl_next_update.map_or(next, |t| t.min(next)));
            let owned = OwnedCertRevocationList::from_der(crl);
            inner.crls.push(owned.map_err(|_| BAD_LIST)?.into());
        }
        Ok(Trust(Arc::new(inner)))
    }

    /// The roots' public keys: what key lists are verified under.
    #[must_use]
    pub fn root_keys(&self) -> &[PublicKey] {
        &self.0.keys
    }
    /// When the first of the revocation lists is due to be replaced; `None` without lists.
    #[must_use]
    pub fn crl_next_update(&self) -> Option<Time> {
        self.0.crl_next_update
    }
    /// Whether a revocation list is past its date at `now`. It is used all the same; raise an alarm.
    #[must_use]
    pub fn crl_is_stale(&self, now: Time) -> bool {
        self.0.crl_next_update.is_some_and(|next| next < now)
    }
}

const BAD_LIST: IdentityError = IdentityError::Malformed("revocation list");

/// The newest list of each issuer, of several made in one second the last: webpki takes the first that bears the
/// issuer's name, and an older one knows less.
fn newest_lists<'a>(
    crls: &'a [CertificateRevocationListDer<'_>],
) -> Result<Vec<(&'a [u8], der::ListFields<'a>)>, IdentityError> {
    let mut newest: Vec<(&[u8], der::ListFields<'_>)> = vec![];
    for crl in crls {
        let fields = der::list_fields(crl).ok_or(BAD_LIST)?;
        match newest.iter_mut().find(|(_, f)| f.issuer == fields.issuer) {
            Some(known) if known.1.this_update > fields.this_update => {}
            Some(known) => *known = (crl, fields),
            None => newest.push((crl, fields)),
        }
    }
    Ok(newest)
}

/// The time at which certificates must be valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At this time.
    At(Time),
    /// At the time of issue: for evidence, and for a camera whose clock is unset.
    Undated,
}

/// What the leaf's key must be allowed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Answer a dialler (cameras, archive sites).
    Server,
    /// Dial (repeaters).
    Client,
    /// Sign manifests and inventories (devices).
    Evidence,
}

impl Usage {
    fn oid(self) -> &'static [u8] {
        match self {
            Usage::Server => SERVER_USAGE_DER,
            Usage::Client => CLIENT_USAGE_DER,
            Usage::Evidence => EVIDENCE_USAGE_DER,
        }
    }
}

/// Whether revocation lists count. Revocation ends sessions, not custody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// For sessions.
    Check,
    /// For evidence.
    Ignore,
}

/// A leaf that verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Who.
    pub identity: Identity,
    /// The leaf's key.
    pub public_key: PublicKey,
    /// The certificate's serial number, as in revocation lists (big-endian).
    pub serial_number: Vec<u8>,
    /// Start of validity.
    pub not_before: Time,
    /// End of validity.
    pub not_after: Time,
}

/// Verifies a chain (leaf first, the root may be left out) and gives the leaf's identity. Which role that
/// is, the caller demands with [`Identity::require`].
///
/// # Errors
/// Any [`IdentityError`] but `WrongRole`.
pub fn verify_chain(
    chain: &[CertificateDer<'_>],
    trust: &Trust,
    when: When,
    usage: Usage,
    revocation: Revocation,
) -> Result<Verified, IdentityError> {
    let bytes = chain.iter().map(|c| c.len()).sum();
    if chain.is_empty() || chain.len() > limits::CHAIN_CERTIFICATES || bytes > limits::CHAIN_BYTES {
        return Err(IdentityError::ChainTooLong {
            certificates: chain.len(),
            bytes,
        });
    }
    let malformed = || IdentityError::Malformed("certificate");
    let leaf = EndEntityCert::try_from(&chain[0]).map_err(|_| malformed())?;
    let fields = der::fields(&chain[0]).ok_or_else(malformed)?;
    let time = match when {
        When::At(time) => time,
        When::Undated => issue_time(chain).ok_or_else(malformed)?,
    };
    verify_path(&leaf, &chain[1..], trust, time, usage, revocation)?;
    if !fields.usages.contains(&usage.oid()) {
        return Err(IdentityError::WrongUsage(usage));
    }
    Ok(Verified {
        identity: sole_uri(&fields)?.parse()?,
        public_key: p256_key(&leaf)?,
        serial_number: leaf.serial().to_vec(),
        not_before: fields.not_before,
        not_after: fields.not_after,
    })
}

/// The serial number of a certificate, as in revocation lists (big-endian).
///
/// # Errors
/// [`IdentityError::Malformed`].
pub fn serial_number(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, IdentityError> {
    let parsed = EndEntityCert::try_from(certificate);
    let parsed = parsed.map_err(|_| IdentityError::Malformed("certificate"))?;
    Ok(parsed.serial().to_vec())
}

/// What an unverified certificate claims to be: for the log line that says why it is refused.
#[must_use]
pub fn claimed_identity(certificate: &CertificateDer<'_>) -> String {
    match der::fields(certificate).as_ref().map(sole_uri) {
        Some(Ok(uri)) => printable(uri),
        _ => "no identity".into(),
    }
}

/// From when to when an unverified certificate claims to be valid: for an operator's eyes.
#[must_use]
pub fn claimed_validity(certificate: &CertificateDer<'_>) -> Option<(Time, Time)> {
    der::fields(certificate).map(|f| (f.not_before, f.not_after))
}

/// When the whole chain had been issued: the latest start of validity in it, which is the leaf's own save
/// where the leaf was backdated behind its issuer.
fn issue_time(chain: &[CertificateDer<'_>]) -> Option<Time> {
    chain
        .iter()
        .map(|c| der::fields(c).map(|f| f.not_before))
        .try_fold(Time(0), |latest, t| Some(latest.max(t?)))
}

fn verify_path(
    leaf: &EndEntityCert<'_>,
    intermediates: &[CertificateDer<'_>],
    trust: &Trust,
    time: Time,
    usage: Usage,
    revocation: Revocation,
) -> Result<(), IdentityError> {
    let crls: Vec<&CertRevocationList<'_>> = match revocation {
        Revocation::Check => trust.0.crls.iter().collect(),
        Revocation::Ignore => vec![],
    };
    // Checked down the whole chain, an unknown status is refused, a list past its date is used: webpki's defaults.
    let revocation = RevocationOptionsBuilder::new(&crls)
        .ok()
        .map(RevocationOptionsBuilder::build);
    let time = UnixTime::since_unix_epoch(std::time::Duration::from_millis(time.0));
    // Issuers may leave the usage open; the leaf must state it, which `verify_chain` checks.
    let eku = KeyUsage::required_if_present(usage.oid());
    leaf.verify_for_usage(
        &[ECDSA_P256_SHA256],
        &trust.0.anchors,
        intermediates,
        time,
        eku,
        revocation,
        None,
    )
    .map(|_| ())
    .map_err(|e| error::refusal(&e, usage))
}

fn sole_uri<'a>(fields: &der::Fields<'a>) -> Result<&'a str, IdentityError> {
    match fields.names.as_slice() {
        [(der::URI, uri)] => std::str::from_utf8(uri).map_err(|_| IdentityError::NotOneUri),
        _ => Err(IdentityError::NotOneUri),
    }
}

fn p256_key(leaf: &EndEntityCert<'_>) -> Result<PublicKey, IdentityError> {
    let spki = leaf.subject_public_key_info();
    spki.strip_prefix(P256_SPKI_PREFIX)
        .and_then(|point| PublicKey::from_sec1(point).ok())
        .ok_or(IdentityError::Algorithm)
}

#[cfg(test)]
mod tests;
