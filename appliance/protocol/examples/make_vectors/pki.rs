//! The test keys and certificates. A key's scalar is SHA-256 over `bwc test key: NAME`; certificates are valid
//! from 2020 to 2120, so that the vectors do not expire.

use protocol::cose::DeviceSigner;
use protocol::identity::EVIDENCE_USAGE;
use protocol::suite::{AgreementKey, SigningKey, sha256};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde_json::{Map, Value, json};

use crate::keys::{Keys, hex, to_hex};

const NAMES: [&str; 16] = [
    "root",
    "ca",
    "other-root",
    "device",
    "device-2",
    "device-direct",
    "link",
    "repeater",
    "seoul",
    "seoul-old",
    "daegu",
    "busan-stolen",
    "stranger",
    "archive",
    "archive-old",
    "escrow",
];

/// What stands in a PKCS#8 P-256 key before the scalar, and between scalar and public key.
const PKCS8_HEAD: &[u8] = &[
    0x30, 0x81, 0x87, 2, 1, 0, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 3, 1, 7, 4, 0x6d, 0x30, 0x6b, 2, 1, 1, 4, 0x20,
];
const PKCS8_MIDDLE: &[u8] = &[0xa1, 0x44, 3, 0x42, 0];

fn key(name: &str) -> Value {
    let scalar = sha256(format!("bwc test key: {name}").as_bytes()).0;
    let public = AgreementKey::from_scalar(&scalar)
        .unwrap()
        .public()
        .unwrap();
    let pkcs8 = [PKCS8_HEAD, &scalar, PKCS8_MIDDLE, public.sec1().as_slice()].concat();
    json!({
        "id": to_hex(public.id().as_bytes()), "scalar": to_hex(&scalar),
        "public": to_hex(public.sec1()), "pkcs8": to_hex(&pkcs8),
    })
}

fn pair(keys: &Map<String, Value>, name: &str) -> KeyPair {
    let der = hex(&keys[name]["pkcs8"]);
    KeyPair::try_from(&PrivatePkcs8KeyDer::from(der)).unwrap()
}

fn params(name: &str) -> CertificateParams {
    let mut p = CertificateParams::default();
    p.distinguished_name.push(DnType::CommonName, name);
    let serial = sha256(name.as_bytes());
    p.serial_number = Some(SerialNumber::from_slice(&[&[1], &serial.0[..8]].concat()));
    p.not_before = date_time_ymd(2020, 1, 1);
    p.not_after = date_time_ymd(2120, 1, 1);
    p
}

fn authority(name: &str) -> CertificateParams {
    let mut p = params(name);
    p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    p.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    p
}

fn leaf(uris: &[&str], usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut p = params(&format!("{uris:?} {usage:?}"));
    p.distinguished_name = rcgen::DistinguishedName::new();
    p.subject_alt_names = uris
        .iter()
        .map(|u| SanType::URI((*u).try_into().unwrap()))
        .collect();
    p.extended_key_usages = vec![usage];
    p.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    p
}

/// An issuer's revocation list, good until 2120.
fn revocation_list(issuer: &Issuer<'_, KeyPair>, revoked: &[&CertificateParams]) -> Value {
    let revoked = revoked.iter().map(|p| RevokedCertParams {
        serial_number: p.serial_number.clone().unwrap(),
        revocation_time: date_time_ymd(2026, 11, 1),
        reason_code: None,
        invalidity_date: None,
    });
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2026, 11, 1),
        next_update: date_time_ymd(2120, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    to_hex(list.signed_by(issuer).unwrap().der())
}

/// Makes keys, roots, chains and revocation lists: the contents of `keys.json`.
pub(crate) fn make() -> Keys {
    let keys: Map<String, Value> = NAMES.iter().map(|n| ((*n).to_owned(), key(n))).collect();
    let root = authority("bwc test root");
    let root_der = root.self_signed(&pair(&keys, "root")).unwrap();
    let root = Issuer::new(root, pair(&keys, "root"));
    let other = authority("bwc other test root");
    let other_der = other.self_signed(&pair(&keys, "other-root")).unwrap();
    let other = Issuer::new(other, pair(&keys, "other-root"));
    let ca = authority("bwc test ca");
    let ca_der = ca.signed_by(&pair(&keys, "ca"), &root).unwrap();
    let ca = Issuer::new(ca, pair(&keys, "ca"));
    let chain = |key: &str, params: &CertificateParams| {
        let leaf = params.signed_by(&pair(&keys, key), &ca).unwrap();
        json!([to_hex(leaf.der()), to_hex(ca_der.der())])
    };
    let direct = |key: &str, params: &CertificateParams, issuer: &Issuer<'_, KeyPair>| {
        json!([to_hex(
            params.signed_by(&pair(&keys, key), issuer).unwrap().der()
        )])
    };
    use ExtendedKeyUsagePurpose as Usage;
    let evidence = Usage::Other(EVIDENCE_USAGE.to_vec());
    let device_usage = evidence.clone();
    let device = "urn:bwc:device:TEST-0001";
    let mut named = leaf(&[device], evidence.clone());
    let dns = SanType::DnsName("camera.example".try_into().unwrap());
    named.subject_alt_names.push(dns);
    let chains = json!({
        "device": chain("device", &leaf(&[device], evidence.clone())),
        "device-2": chain("device-2", &leaf(&["urn:bwc:device:TEST-0002"], evidence.clone())),
        "device-direct": direct("device-direct", &leaf(&[device], evidence.clone()), &root),
        "device-of-other-root": direct("device", &leaf(&[device], evidence.clone()), &other),
        "device-for-servers": chain("device", &leaf(&[device], Usage::ServerAuth)),
        "device-with-two-names": chain("device", &leaf(&[device, "urn:bwc:device:TEST-0002"], evidence.clone())),
        "device-with-a-host-name": chain("device", &named),
        "link-as-evidence": chain("link", &leaf(&["urn:bwc:camera:3f6c1d2e9a"], evidence)),
        "link": chain("link", &leaf(&["urn:bwc:camera:3f6c1d2e9a"], Usage::ServerAuth)),
        "repeater": chain("repeater", &leaf(&["urn:bwc:repeater:gangnam:1"], Usage::ClientAuth)),
        "archive": chain("seoul", &leaf(&["urn:bwc:archive:seoul"], Usage::ServerAuth)),
    });
    let device_2 = leaf(&["urn:bwc:device:TEST-0002"], device_usage);
    let lists = json!({
        "device-2-revoked": [revocation_list(&root, &[]), revocation_list(&ca, &[&device_2])],
        "of-the-root-alone": [revocation_list(&root, &[])],
    });
    Keys(json!({
        "about": "TEST KEYS. They are public: never use one outside of tests.",
        "keys": keys,
        "roots": {"root": to_hex(root_der.der()), "other-root": to_hex(other_der.der())},
        "chains": chains,
        "revocation-lists": lists,
    }))
}

impl Keys {
    /// A signing key.
    pub(crate) fn signing(&self, name: &str) -> SigningKey {
        SigningKey::from_pkcs8(&hex(&self.0["keys"][name]["pkcs8"])).unwrap()
    }
    /// A certificate chain, leaf first.
    pub(crate) fn chain(&self, name: &str) -> Vec<CertificateDer<'static>> {
        let chain = self.0["chains"][name].as_array().unwrap();
        chain.iter().map(|c| CertificateDer::from(hex(c))).collect()
    }
    /// A signer by key and chain, whether they fit or not: for what must be refused.
    pub(crate) fn signer(&self, key: &str, chain: &str) -> DeviceSigner {
        let (key, chain) = (self.signing(key), self.chain(chain));
        DeviceSigner {
            key,
            chain,
            serial: "unused".parse().unwrap(),
        }
    }
}
