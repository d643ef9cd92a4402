//! Who is certified: root and issuing CA, leaves for the four roles, revocation.
//!
//! Leaves live 400 days and are backdated by 24 hours, for clocks that are a day off; the CA and the root are
//! backdated further, so that a leaf never begins before its issuer. A leaf's use follows from its role, never
//! from what a request asks for. Link certificates of cameras name no serial and no station.
//!
//! Revocation lists are two: the CA's over leaves, the root's over CAs. Each is signed by its own issuer's key and
//! no other, so that a leaf is revoked while the root stays offline. `crl.pem` holds both, since a party that checks
//! revocation wants the list of every issuer of the path. Issuers are told apart by name, which holds the start of
//! their key's id: a list is found by its issuer's name.

use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::identity::{
    EVIDENCE_USAGE, Identity, Revocation, Role, Trust, Usage, Verified, When, serial_number,
    verify_chain,
};
use protocol::ids::{Serial, SiteId, Time};
use protocol::suite::PublicKey;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams,
    CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose as Purpose, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData, RevokedCertParams, SanType, SerialNumber,
    date_time_ymd,
};
use rustls_pki_types::CertificateDer;

use super::AgencyError;
use super::files::{self, make_folder, read_text, write_public, write_public_key, write_secret};
use crate::clock::Clock;
use crate::credentials::{load_chain, load_trust};
use crate::random::Random;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// How long a leaf is valid.
pub const LEAF_DAYS: u64 = 400;
/// How far back a leaf begins.
pub const BACKDATED_MS: u64 = 24 * HOUR_MS;
const ISSUER_BACKDATED_MS: u64 = 10 * DAY_MS;
const CA_DAYS: u64 = 10 * 365;
const ROOT_DAYS: u64 = 25 * 365;
/// When the next revocation list is due; a party past that date goes on with the list, and alarms.
const CRL_DAYS: u64 = 30;

/// An issuer's revocation list, as files of the folder.
struct List {
    /// What is revoked.
    revoked: &'static str,
    /// The signed list.
    signed: &'static str,
    cert: &'static str,
    key: &'static str,
    days: u64,
}

/// Over leaves.
const CA_LIST: List = List {
    revoked: "ca/revoked",
    signed: "ca/crl.pem",
    cert: "ca/ca.pem",
    key: "ca/ca.key",
    days: CRL_DAYS,
};
/// Over CAs. The signed list lies outside the root's folder, which is offline.
const ROOT_LIST: List = List {
    revoked: "root/revoked",
    signed: "root-crl.pem",
    cert: "root/root.pem",
    key: "root/root.key",
    days: CA_DAYS,
};

/// The certificate library's date: a macro, because its type belongs to a crate that is not ours to name.
macro_rules! date {
    ($time:expr) => {
        date_time_ymd(1970, 1, 1) + Duration::from_millis($time.0)
    };
}

/// An agency's folder.
#[derive(Clone, Debug)]
pub struct Agency {
    dir: PathBuf,
    pub(super) clock: Clock,
    random: Random,
}

impl Agency {
    /// Opens the folder of an agency.
    #[must_use]
    pub fn open(dir: &Path, clock: &Clock, random: &Random) -> Self {
        Agency {
            dir: dir.to_owned(),
            clock: clock.clone(),
            random: random.clone(),
        }
    }

    /// Makes a new agency: root, issuing CA, empty revocation lists. The folder must be new or empty.
    ///
    /// # Errors
    /// Any [`AgencyError`].
    pub fn create(dir: &Path, clock: &Clock, random: &Random) -> Result<Self, AgencyError> {
        let agency = Self::open(dir, clock, random);
        make_folder(dir)?;
        let source = |source| AgencyError::File {
            path: dir.to_owned(),
            source,
        };
        if std::fs::read_dir(dir).map_err(source)?.next().is_some() {
            return Err(AgencyError::Request(format!(
                "{}: not empty; name a new folder",
                dir.display()
            )));
        }
        for part in [
            "root",
            "ca",
            "repeaters",
            "archives",
            "cameras",
            "recipients",
        ] {
            make_folder(&dir.join(part))?;
        }
        let root_key = KeyPair::generate()?;
        let root_params = agency.issuer_params(&name("root", &root_key)?, ROOT_DAYS);
        let root = root_params.self_signed(&root_key)?;
        let ca_key = KeyPair::generate()?;
        let root_issuer = Issuer::new(root_params, &root_key);
        let ca = agency
            .issuer_params(&name("issuing CA", &ca_key)?, CA_DAYS)
            .signed_by(&ca_key, &root_issuer)?;
        write_secret(&agency.path("root/root.key"), &root_key)?;
        write_secret(&agency.path("ca/ca.key"), &ca_key)?;
        write_public(&agency.path("root/root.pem"), root.pem())?;
        write_public(&agency.path("ca/ca.pem"), ca.pem())?;
        write_public(&agency.path("trust.pem"), root.pem())?;
        write_public_key(&agency.path("root.pub"), &root_key)?;
        write_public(&agency.path("ca/revoked"), "")?;
        write_public(&agency.path("root/revoked"), "")?;
        agency.write_list(&ROOT_LIST)?;
        agency.write_crl()?;
        Ok(agency)
    }

    /// A path within the folder.
    #[must_use]
    pub fn path(&self, within: &str) -> PathBuf {
        self.dir.join(within)
    }

    /// The agency's root and revocation lists.
    ///
    /// # Errors
    /// [`AgencyError::Credential`].
    pub fn trust(&self) -> Result<Trust, AgencyError> {
        Ok(load_trust(
            &self.path("trust.pem"),
            Some(&self.path("crl.pem")),
        )?)
    }

    /// Certifies a key: the chain as PEM, leaf first.
    ///
    /// # Errors
    /// Any [`AgencyError`].
    pub fn issue(
        &self,
        identity: &Identity,
        key: &impl PublicKeyData,
    ) -> Result<String, AgencyError> {
        let ca_pem = read_text(&self.path("ca/ca.pem"))?;
        let leaf = self
            .leaf_params(identity)?
            .signed_by(key, &self.issuer("ca/ca.pem", "ca/ca.key")?)?;
        Ok(leaf.pem() + &ca_pem)
    }

    /// Certifies what a request (PKCS#10 PEM) asks for, if it names one identity of `role`: the chain as PEM.
    ///
    /// # Errors
    /// Any [`AgencyError`].
    pub fn sign_request(&self, request: &str, role: Role) -> Result<String, AgencyError> {
        let request = CertificateSigningRequestParams::from_pem(request)?;
        let identity = match request.params.subject_alt_names.as_slice() {
            [SanType::URI(urn)] => urn.as_str().parse::<Identity>()?,
            _ => {
                return Err(AgencyError::Request(
                    "the request must name exactly one URI and nothing else".into(),
                ));
            }
        };
        identity.require(role)?;
        let chain = self.issue(&identity, &request.public_key)?;
        // A key that is not P-256 shows here, before anyone relies on the certificate.
        let parsed = pem_chain(&chain)?;
        verify_chain(
            &parsed,
            &self.trust()?,
            When::Undated,
            usage(role),
            Revocation::Ignore,
        )?;
        Ok(chain)
    }

    /// Adds a repeater: its folder with chain and key.
    ///
    /// # Errors
    /// Any [`AgencyError`].
    pub fn add_repeater(&self, station: &str, n: u16) -> Result<PathBuf, AgencyError> {
        let identity = Identity::repeater(station, n)?;
        let folder = self.path("repeaters").join(format!("{station}-{n}"));
        self.certify(&identity, &folder, "chain.pem", "key.pem")?;
        Ok(folder)
    }

    /// Adds an archive site: its folder with chain, key and the key that signs its receipts. The key list must
    /// name that key before anyone believes it.
    ///
    /// # Errors
    /// Any [`AgencyError`].
    pub fn add_site(&self, site: &SiteId) -> Result<PathBuf, AgencyError> {
        let folder = self.path("archives").join(site.as_str());
        self.certify(&Identity::archive(site), &folder, "chain.pem", "key.pem")?;
        let receipt = KeyPair::generate()?;
        write_secret(&folder.join("receipt.key"), &receipt)?;
        write_public_key(&folder.join("receipt.pub"), &receipt)?;
        Ok(folder)
    }

    /// Adds a camera: its folder with the link's and the device's certificates and keys.
    ///
    /// # Errors
    /// Any [`AgencyError`].
    pub fn add_camera(&self, serial: &Serial) -> Result<PathBuf, AgencyError> {
        let folder = self.path("cameras").join(serial.as_str());
        let id: String = self
            .random
            .bytes::<16>()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        self.certify(&Identity::camera(&id)?, &folder, "link.pem", "link.key")?;
        self.certify(
            &Identity::device(serial),
            &folder,
            "device.pem",
            "device.key",
        )?;
        Ok(folder)
    }

    fn certify(
        &self,
        identity: &Identity,
        folder: &Path,
        chain: &str,
        secret: &str,
    ) -> Result<(), AgencyError> {
        make_folder(folder)?;
        let key = KeyPair::generate()?;
        write_secret(&folder.join(secret), &key)?;
        write_public(&folder.join(chain), self.issue(identity, &key)?)
    }

    /// Revokes the first certificate of a chain file, and writes the CA's list anew. Needs the CA's key.
    ///
    /// # Errors
    /// Any [`AgencyError`].
    pub fn revoke(&self, chain: &Path) -> Result<Identity, AgencyError> {
        let (_, verified) = self.verified(chain)?;
        let what = verified.identity.to_string();
        self.note(&CA_LIST, &verified.serial_number, &what)?;
        self.write_crl()?;
        Ok(verified.identity)
    }

    /// Revokes the CA that issued the first certificate of a chain file, and with it all that it issued; writes the
    /// root's list anew. Needs the root's key.
    ///
    /// # Errors
    /// Any [`AgencyError`].
    pub fn revoke_ca(&self, chain: &Path) -> Result<(), AgencyError> {
        let (parsed, _) = self.verified(chain)?;
        let [_, ca] = parsed.as_slice() else {
            let what = "give a chain of two: a certificate and the CA that issued it";
            return Err(AgencyError::content(chain, what));
        };
        self.note(&ROOT_LIST, &serial_number(ca)?, "issuing-CA")?;
        self.write_root_crl()
    }

    fn verified(
        &self,
        chain: &Path,
    ) -> Result<(Vec<CertificateDer<'static>>, Verified), AgencyError> {
        let parsed = load_chain(chain)?;
        let trust = load_trust(&self.path("trust.pem"), None)?;
        let verify = |u| verify_chain(&parsed, &trust, When::Undated, u, Revocation::Ignore);
        let verified = verify(Usage::Client)
            .or_else(|_| verify(Usage::Server))
            .or_else(|_| verify(Usage::Evidence))?;
        Ok((parsed, verified))
    }

    /// Notes a serial number as revoked, once.
    fn note(&self, list: &List, serial: &[u8], what: &str) -> Result<(), AgencyError> {
        let path = self.path(list.revoked);
        let serial: String = serial.iter().map(|b| format!("{b:02x}")).collect();
        let mut revoked = read_text(&path)?;
        if !revoked.lines().any(|line| line.starts_with(&serial)) {
            revoked += &format!("{serial} {} {what}\n", self.clock.now().0);
            write_public(&path, revoked)?;
        }
        Ok(())
    }

    /// Writes the CA's revocation list with today's date. Needs the CA's key.
    ///
    /// # Errors
    /// Any [`AgencyError`].
    pub fn write_crl(&self) -> Result<(), AgencyError> {
        self.write_list(&CA_LIST)?;
        self.join_crls()
    }

    /// Writes the root's revocation list, over CAs, with today's date. Needs the root's key.
    ///
    /// # Errors
    /// Any [`AgencyError`].
    pub fn write_root_crl(&self) -> Result<(), AgencyError> {
        self.write_list(&ROOT_LIST)?;
        self.join_crls()
    }

    /// What is handed out: both lists.
    fn join_crls(&self) -> Result<(), AgencyError> {
        let list = |list: &List| read_text(&self.path(list.signed));
        write_public(&self.path("crl.pem"), list(&CA_LIST)? + &list(&ROOT_LIST)?)
    }

    fn write_list(&self, list: &List) -> Result<(), AgencyError> {
        let path = self.path(list.revoked);
        let mut revoked = vec![];
        for line in read_text(&path)?.lines() {
            let mut words = line.split(' ');
            let serial = words.next().and_then(files::from_hex);
            let when = words.next().and_then(|ms| ms.parse().ok());
            match (serial, when) {
                (Some(serial), Some(ms)) => revoked.push(revoked_entry(&serial, Time(ms))),
                _ => {
                    return Err(AgencyError::content(
                        &path,
                        format!("`{line}`: use SERIAL MILLISECONDS IDENTITY"),
                    ));
                }
            }
        }
        let signed = self.crl(revoked, list.cert, list.key, list.days)?;
        write_public(&self.path(list.signed), signed)
    }

    fn crl(
        &self,
        revoked: Vec<RevokedCertParams>,
        cert: &str,
        key: &str,
        days: u64,
    ) -> Result<String, AgencyError> {
        let now = self.clock.now();
        let params = CertificateRevocationListParams {
            this_update: date!(now),
            next_update: date!(now.plus_ms(days * DAY_MS)),
            crl_number: SerialNumber::from(now.0), // rises with time
            issuing_distribution_point: None,
            revoked_certs: revoked,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(params.signed_by(&self.issuer(cert, key)?)?.pem()?)
    }

    pub(super) fn issuer(
        &self,
        cert: &str,
        key: &str,
    ) -> Result<Issuer<'static, KeyPair>, AgencyError> {
        let key = KeyPair::from_pem(&read_text(&self.path(key))?)?;
        Ok(Issuer::from_ca_cert_pem(
            &read_text(&self.path(cert))?,
            key,
        )?)
    }

    fn issuer_params(&self, name: &str, days: u64) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        self.date_params(&mut params, ISSUER_BACKDATED_MS, days);
        params
    }

    pub(super) fn leaf_params(
        &self,
        identity: &Identity,
    ) -> Result<CertificateParams, AgencyError> {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, identity.role().as_str());
        params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match identity.role() {
            // On a station's 802.1X the two have each other's part: hostapd is the server, the camera its client.
            Role::Repeater => vec![Purpose::ClientAuth, Purpose::ServerAuth],
            Role::Camera => vec![Purpose::ServerAuth, Purpose::ClientAuth],
            Role::Archive => vec![Purpose::ServerAuth],
            Role::Device => vec![Purpose::Other(EVIDENCE_USAGE.to_vec())],
        };
        params.use_authority_key_identifier_extension = true;
        self.date_params(&mut params, BACKDATED_MS, LEAF_DAYS);
        Ok(params)
    }

    fn date_params(&self, params: &mut CertificateParams, backdated_ms: u64, days: u64) {
        let now = self.clock.now();
        let mut serial = self.random.bytes::<16>();
        serial[0] = serial[0] & 0x7f | 0x40; // positive, and of one length
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.not_before = date!(Time(now.0.saturating_sub(backdated_ms)));
        params.not_after = date!(now.plus_ms(days * DAY_MS));
    }
}

/// An issuer's name: what it is, and the start of its key's id.
fn name(what: &str, key: &KeyPair) -> Result<String, AgencyError> {
    let public = PublicKey::from_sec1(key.public_key_raw())
        .map_err(|e| AgencyError::Request(format!("the key just made does not serve: {e}")))?;
    let id = public.id().to_string();
    Ok(format!("{what} {}", id.get(..8).unwrap_or(&id)))
}

fn usage(role: Role) -> Usage {
    match role {
        Role::Repeater => Usage::Client,
        Role::Archive | Role::Camera => Usage::Server,
        Role::Device => Usage::Evidence,
    }
}

fn pem_chain(pem: &str) -> Result<Vec<CertificateDer<'static>>, AgencyError> {
    use rustls_pki_types::pem::PemObject;
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| AgencyError::Request(format!("the certificate just made does not parse: {e}")))
}

fn revoked_entry(serial: &[u8], when: Time) -> RevokedCertParams {
    RevokedCertParams {
        serial_number: SerialNumber::from_slice(serial),
        revocation_time: date!(when),
        reason_code: None,
        invalidity_date: None,
    }
}
