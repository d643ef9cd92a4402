//! One refusal a test, each made by the smallest change to a chain that verifies.
#![allow(clippy::unwrap_used, reason = "tests")]

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P384_SHA384, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};

use super::*;

const NOW: Time = Time(1_795_305_600_000); // 2026-11-22
const DAY_MS: u64 = 86_400_000;

fn at(time: Time) -> impl Fn(&mut CertificateParams) {
    move |p| p.not_after = date_time_ymd(1970, 1, 1) + std::time::Duration::from_millis(time.0)
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf_params(urn: &str, usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(&[0x17; 8]));
    params.subject_alt_names = vec![SanType::URI(urn.try_into().unwrap())];
    params.extended_key_usages = vec![usage];
    params.not_before = date_time_ymd(2026, 11, 21);
    params.not_after = date_time_ymd(2027, 12, 26);
    params
}

/// A root, an issuing CA under it, and what they sign.
struct Pki {
    root: Issuer<'static, KeyPair>,
    ca: Issuer<'static, KeyPair>,
    root_der: CertificateDer<'static>,
    ca_der: CertificateDer<'static>,
}

impl Pki {
    fn new() -> Self {
        let root_key = KeyPair::generate().unwrap();
        let root_der = ca_params("root")
            .self_signed(&root_key)
            .unwrap()
            .der()
            .clone();
        let root = Issuer::new(ca_params("root"), root_key);
        let ca_key = KeyPair::generate().unwrap();
        let ca_der = ca_params("ca")
            .signed_by(&ca_key, &root)
            .unwrap()
            .der()
            .clone();
        Pki {
            root,
            ca: Issuer::new(ca_params("ca"), ca_key),
            root_der,
            ca_der,
        }
    }
    fn chain(&self, params: &CertificateParams) -> Vec<CertificateDer<'static>> {
        let key = KeyPair::generate().unwrap();
        vec![
            params.signed_by(&key, &self.ca).unwrap().der().clone(),
            self.ca_der.clone(),
        ]
    }
    fn trust(&self) -> Trust {
        Trust::from_der(std::slice::from_ref(&self.root_der), &[]).unwrap()
    }
    fn trust_with(&self, crls: &[CertificateRevocationListDer<'static>]) -> Trust {
        Trust::from_der(std::slice::from_ref(&self.root_der), crls).unwrap()
    }
}

fn crl(
    issuer: &Issuer<'static, KeyPair>,
    revoked: &[&[u8]],
) -> CertificateRevocationListDer<'static> {
    crl_of_day(issuer, revoked, 1)
}

/// A list made on that day of November 2026, and good for a week.
fn crl_of_day(
    issuer: &Issuer<'static, KeyPair>,
    revoked: &[&[u8]],
    day: u8,
) -> CertificateRevocationListDer<'static> {
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2026, 11, day),
        next_update: date_time_ymd(2026, 11, day + 7),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked
            .iter()
            .map(|serial| RevokedCertParams {
                serial_number: SerialNumber::from_slice(serial),
                revocation_time: date_time_ymd(2026, 11, 1),
                reason_code: None,
                invalidity_date: None,
            })
            .collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(issuer).unwrap().der().clone()
}

fn repeater(pki: &Pki, change: impl Fn(&mut CertificateParams)) -> Vec<CertificateDer<'static>> {
    let mut params = leaf_params(
        "urn:bwc:repeater:gangnam:1",
        ExtendedKeyUsagePurpose::ClientAuth,
    );
    change(&mut params);
    pki.chain(&params)
}

fn check(chain: &[CertificateDer<'static>], trust: &Trust) -> Result<Verified, IdentityError> {
    verify_chain(
        chain,
        trust,
        When::At(NOW),
        Usage::Client,
        Revocation::Check,
    )
}

#[test]
fn a_good_chain_gives_its_identity() {
    let pki = Pki::new();
    let verified = check(&repeater(&pki, |_| {}), &pki.trust()).unwrap();
    assert_eq!(verified.identity, Identity::repeater("gangnam", 1).unwrap());
    assert_eq!(verified.serial_number, [0x17; 8]);
    assert_eq!(verified.not_before, Time(NOW.0 - DAY_MS));
    assert_eq!(verified.not_after, Time(NOW.0 + 399 * DAY_MS));
    verified.identity.require(Role::Repeater).unwrap();
    let error = verified.identity.require(Role::Archive).unwrap_err();
    assert_eq!(error.reason(), "wrong_role");
    assert_eq!(
        pki.trust().root_keys()[0].sec1(),
        pki.root.key().public_key_raw()
    );
}

#[test]
fn a_device_signs_evidence_and_dials_nobody() {
    let pki = Pki::new();
    let usage = ExtendedKeyUsagePurpose::Other(EVIDENCE_USAGE.to_vec());
    let chain = pki.chain(&leaf_params("urn:bwc:device:BWC-0001", usage));
    let verify = |usage| {
        verify_chain(
            &chain,
            &pki.trust(),
            When::Undated,
            usage,
            Revocation::Ignore,
        )
    };
    assert_eq!(
        verify(Usage::Evidence).unwrap().identity,
        Identity::device(&"BWC-0001".parse().unwrap())
    );
    assert_eq!(
        verify(Usage::Client).unwrap_err(),
        IdentityError::WrongUsage(Usage::Client)
    );
    assert_eq!(
        verify(Usage::Server).unwrap_err(),
        IdentityError::WrongUsage(Usage::Server)
    );
    let open = pki.chain(&{
        let mut params = leaf_params("urn:bwc:device:BWC-0001", ExtendedKeyUsagePurpose::Any);
        params.extended_key_usages.clear();
        params
    });
    let error = verify_chain(
        &open,
        &pki.trust(),
        When::Undated,
        Usage::Evidence,
        Revocation::Ignore,
    )
    .unwrap_err();
    assert_eq!(
        error,
        IdentityError::WrongUsage(Usage::Evidence),
        "an unstated usage is not any usage"
    );
}

#[test]
fn dates_count_for_sessions_and_not_for_evidence() {
    let pki = Pki::new();
    let expired = repeater(&pki, at(Time(NOW.0 - 1000)));
    assert_eq!(
        check(&expired, &pki.trust()).unwrap_err(),
        IdentityError::Expired {
            not_after: Time(NOW.0 - 1000)
        }
    );
    let early = repeater(&pki, |p| p.not_before = date_time_ymd(2026, 11, 23));
    assert_eq!(
        check(&early, &pki.trust()).unwrap_err(),
        IdentityError::NotYetValid {
            not_before: Time(NOW.0 + DAY_MS)
        }
    );
    for chain in [expired, early] {
        verify_chain(
            &chain,
            &pki.trust(),
            When::Undated,
            Usage::Client,
            Revocation::Check,
        )
        .unwrap();
    }
}

#[test]
fn another_agency_is_unknown() {
    let (pki, other) = (Pki::new(), Pki::new());
    assert_eq!(
        check(&repeater(&other, |_| {}), &pki.trust()).unwrap_err(),
        IdentityError::UnknownCa
    );
    let without_ca = &repeater(&pki, |_| {})[..1];
    assert_eq!(
        check(without_ca, &pki.trust()).unwrap_err(),
        IdentityError::UnknownCa
    );
    let self_signed = leaf_params(
        "urn:bwc:repeater:gangnam:1",
        ExtendedKeyUsagePurpose::ClientAuth,
    )
    .self_signed(&KeyPair::generate().unwrap())
    .unwrap();
    assert_eq!(
        check(&[self_signed.der().clone()], &pki.trust()).unwrap_err(),
        IdentityError::UnknownCa
    );
}

#[test]
fn revocation_ends_sessions_not_custody_and_outlives_its_date() {
    let pki = Pki::new();
    let chain = repeater(&pki, |_| {});
    let revoking = pki.trust_with(&[crl(&pki.ca, &[&[0x17; 8]]), crl(&pki.root, &[])]);
    assert_eq!(
        check(&chain, &revoking).unwrap_err(),
        IdentityError::Revoked
    );
    verify_chain(
        &chain,
        &revoking,
        When::Undated,
        Usage::Client,
        Revocation::Ignore,
    )
    .unwrap();
    let calm = pki.trust_with(&[crl(&pki.ca, &[&[0x18; 8]]), crl(&pki.root, &[])]);
    check(&chain, &calm).unwrap();
    assert!(calm.crl_is_stale(NOW) && !calm.crl_is_stale(Time(NOW.0 - 20 * DAY_MS)));
    let missing = pki.trust_with(&[crl(&pki.root, &[])]);
    assert_eq!(
        check(&chain, &missing).unwrap_err(),
        IdentityError::RevocationUnknown
    );
    let forged = pki.trust_with(&[crl(&Pki::new().ca, &[]), crl(&pki.root, &[])]);
    assert_eq!(
        check(&chain, &forged).unwrap_err(),
        IdentityError::RevocationUnknown
    );
}

#[test]
fn the_newest_list_of_an_issuer_counts() {
    let pki = Pki::new();
    let chain = repeater(&pki, |_| {});
    let (old, new) = (
        crl_of_day(&pki.ca, &[], 1),
        crl_of_day(&pki.ca, &[&[0x17; 8]], 20),
    );
    let root = crl_of_day(&pki.root, &[], 20);
    for lists in [[old.clone(), new.clone(), root.clone()], [new, old, root]] {
        let trust = pki.trust_with(&lists);
        assert_eq!(check(&chain, &trust).unwrap_err(), IdentityError::Revoked);
        assert!(!trust.crl_is_stale(NOW), "what is superseded is not due");
    }
}

#[test]
fn a_revoked_issuer_ends_all_it_issued() {
    let pki = Pki::new();
    let serial = EndEntityCert::try_from(&pki.ca_der)
        .unwrap()
        .serial()
        .to_vec();
    let trust = pki.trust_with(&[crl(&pki.ca, &[]), crl(&pki.root, &[&serial])]);
    assert_eq!(
        check(&repeater(&pki, |_| {}), &trust).unwrap_err(),
        IdentityError::Revoked
    );
}

#[test]
fn the_name_is_exactly_one_uri() {
    let pki = Pki::new();
    let uri = |u: &str| SanType::URI(u.try_into().unwrap());
    let dns = SanType::DnsName("repeater.example".try_into().unwrap());
    let ours = uri("urn:bwc:repeater:gangnam:1");
    let cases = [
        vec![],
        vec![ours.clone(), uri("urn:bwc:repeater:gangnam:2")],
        vec![ours.clone(), dns.clone()],
        vec![ours.clone(), SanType::IpAddress([10, 0, 0, 1].into())],
        vec![dns],
    ];
    for names in cases {
        let chain = repeater(&pki, |p| p.subject_alt_names.clone_from(&names));
        assert_eq!(
            check(&chain, &pki.trust()).unwrap_err(),
            IdentityError::NotOneUri,
            "{names:?}"
        );
    }
    let chain = repeater(&pki, |p| p.subject_alt_names = vec![uri("urn:bwc:chief:1")]);
    assert_eq!(check(&chain, &pki.trust()).unwrap_err().reason(), "san");
}

#[test]
fn identities_have_one_spelling() {
    for good in [
        "urn:bwc:repeater:s-1:0",
        "urn:bwc:archive:daegu",
        "urn:bwc:camera:9f3a",
        "urn:bwc:device:B.1_2-3",
    ] {
        assert_eq!(good.parse::<Identity>().unwrap().to_string(), good);
    }
    let long = format!("urn:bwc:archive:{}", "x".repeat(65));
    for bad in [
        "",
        "urn:bwc:",
        "urn:bwc:archive:",
        "urn:bwc:archive:a:b",
        "urn:bwc:repeater:s",
        "urn:bwc:repeater:s:01",
        "urn:bwc:repeater:s:-1",
        "urn:bwc:repeater:s:65536",
        "urn:bwc:repeater::1",
        "URN:bwc:archive:a",
        "urn:bwc:archive:a b",
        "urn:bwc:archive:../x",
        "urn:bwc:archive:ä",
        &long,
    ] {
        assert!(bad.parse::<Identity>().is_err(), "{bad}");
    }
}

#[test]
fn chains_are_bounded_and_whole() {
    let pki = Pki::new();
    let mut chain = repeater(&pki, |_| {});
    chain.resize(limits::CHAIN_CERTIFICATES, pki.ca_der.clone());
    check(&chain, &pki.trust()).unwrap();
    chain.push(pki.ca_der.clone());
    assert_eq!(
        check(&chain, &pki.trust()).unwrap_err().reason(),
        "chain_too_long"
    );
    assert_eq!(
        check(&[], &pki.trust()).unwrap_err().reason(),
        "chain_too_long"
    );
    let big = vec![CertificateDer::from(vec![0x30; limits::CHAIN_BYTES + 1])];
    assert_eq!(
        check(&big, &pki.trust()).unwrap_err().reason(),
        "chain_too_long"
    );
    let junk = vec![CertificateDer::from(vec![0x30, 3, 1, 2, 3])];
    assert_eq!(
        check(&junk, &pki.trust()).unwrap_err().reason(),
        "malformed"
    );
}

#[test]
fn only_p256_counts() {
    let pki = Pki::new();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let params = leaf_params(
        "urn:bwc:repeater:gangnam:1",
        ExtendedKeyUsagePurpose::ClientAuth,
    );
    let chain = [
        params.signed_by(&key, &pki.ca).unwrap().der().clone(),
        pki.ca_der.clone(),
    ];
    assert_eq!(
        check(&chain, &pki.trust()).unwrap_err(),
        IdentityError::Algorithm
    );
    let root_key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let root = ca_params("root")
        .self_signed(&root_key)
        .unwrap()
        .der()
        .clone();
    assert_eq!(
        Trust::from_der(&[root], &[]).unwrap_err(),
        IdentityError::Algorithm
    );
}

#[test]
fn an_issuer_is_no_leaf_and_a_leaf_no_issuer() {
    let pki = Pki::new();
    let chain = repeater(&pki, |p| {
        p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)
    });
    assert_eq!(
        check(&chain, &pki.trust()).unwrap_err().reason(),
        "malformed"
    );
    let params = leaf_params(
        "urn:bwc:repeater:gangnam:1",
        ExtendedKeyUsagePurpose::ClientAuth,
    );
    let middle_key = KeyPair::generate().unwrap();
    let middle = params
        .signed_by(&middle_key, &pki.ca)
        .unwrap()
        .der()
        .clone();
    let issuer = Issuer::new(params.clone(), middle_key);
    let leaf = params
        .signed_by(&KeyPair::generate().unwrap(), &issuer)
        .unwrap()
        .der()
        .clone();
    let error = check(&[leaf, middle, pki.ca_der.clone()], &pki.trust()).unwrap_err();
    assert_eq!(error, IdentityError::UnknownCa);
}

#[test]
fn a_claim_is_printable() {
    let pki = Pki::new();
    let chain = repeater(&pki, |_| {});
    assert_eq!(claimed_identity(&chain[0]), "urn:bwc:repeater:gangnam:1");
    assert_eq!(
        claimed_identity(&CertificateDer::from(vec![1, 2])),
        "no identity"
    );
    assert_eq!(printable("a\nb\u{1b}[0m"), "a?b?[0m");
}

#[test]
fn every_error_has_a_listed_reason() {
    let pki = Pki::new();
    let errors = [
        IdentityError::Malformed(""),
        IdentityError::ChainTooLong {
            certificates: 0,
            bytes: 0,
        },
        IdentityError::UnknownCa,
        IdentityError::Expired { not_after: NOW },
        IdentityError::NotYetValid { not_before: NOW },
        IdentityError::Revoked,
        IdentityError::RevocationUnknown,
        IdentityError::WrongUsage(Usage::Client),
        IdentityError::NotOneUri,
        IdentityError::Algorithm,
        check(&repeater(&pki, |_| {}), &pki.trust())
            .unwrap()
            .identity
            .require(Role::Camera)
            .unwrap_err(),
    ];
    let mut reasons: Vec<_> = errors.iter().map(IdentityError::reason).collect();
    let mut listed = IdentityError::REASONS.to_vec();
    reasons.sort_unstable();
    listed.sort_unstable();
    assert_eq!(reasons, listed);
}
