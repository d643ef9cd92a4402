//! Mutual TLS 1.3 as every hop uses it: X25519MLKEM768 first, AES-GCM only, ECDSA P-256 only, no resumption,
//! no tickets, no early data, no host names.
//!
//! Each connection has its own [`PeerCheck`], which knows the peer's address: a refusal is one log line with
//! address, claimed identity and reason, and one count. What it verified is handed out after the handshake, so
//! that nothing is verified twice and no unverified identity can be taken for a verified one.
//!
//! The check does not judge names: SNI is `<role>.bwc.invalid`, the certificate's role and the agency's
//! signature decide. A server asks for a client certificate without naming issuers: a stranger learns the
//! link certificate and nothing else.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, OnceLock};

use protocol::identity::{
    IdentityError, Revocation, Role, Trust, Usage, Verified, When, claimed_identity, verify_chain,
};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tracing::warn;

use crate::clock::Clock;
use crate::credentials::Credentials;
use crate::refusals::Refusals;

/// The cryptography of every handshake.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = default_provider();
        provider.cipher_suites = vec![
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_AES_128_GCM_SHA256,
        ];
        provider.kx_groups = vec![
            kx_group::X25519MLKEM768,
            kx_group::X25519,
            kx_group::SECP256R1,
        ];
        let algorithms = provider.signature_verification_algorithms;
        let p256 = algorithms
            .mapping
            .iter()
            .find(|(scheme, _)| *scheme == SignatureScheme::ECDSA_NISTP256_SHA256);
        let p256 = p256.expect("the library verifies ECDSA P-256");
        // `all` serves certificate paths, which `protocol::identity` verifies itself.
        provider.signature_verification_algorithms = WebPkiSupportedAlgorithms {
            all: &p256.1[..1],
            mapping: std::slice::from_ref(p256),
        };
        Arc::new(provider)
    });
    Arc::clone(&PROVIDER)
}

/// Whether a peer's dates count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dates {
    /// Always.
    Enforced,
    /// Only while the own clock is set: a camera whose battery died must still be offloaded.
    WhenClockIsSet,
}

/// Judges one peer's certificate, once.
#[derive(Debug)]
pub struct PeerCheck {
    /// Where the peer is.
    pub peer: SocketAddr,
    /// What it must be.
    pub expected: Role,
    /// Under which roots and revocation lists.
    pub trust: Trust,
    /// At what time.
    pub clock: Clock,
    /// Whether dates count.
    pub dates: Dates,
    /// Where a refusal is counted.
    pub refusals: Refusals,
    /// What came of it.
    pub verdict: Verdict,
}

/// What came of a check: empty before it. Clones share one.
#[derive(Clone, Debug, Default)]
pub struct Verdict(Arc<OnceLock<Result<Verified, IdentityError>>>);

impl Verdict {
    /// The verified peer, or why it was refused, which then is logged and counted; none while nobody was judged.
    #[must_use]
    pub fn outcome(&self) -> Option<Result<Verified, IdentityError>> {
        self.0.get().cloned()
    }
}

impl PeerCheck {
    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        usage: Usage,
    ) -> Result<(), Error> {
        let chain: Vec<CertificateDer<'_>> = std::iter::once(leaf)
            .chain(rest)
            .map(|c| c.as_ref().into())
            .collect();
        let when = match self.dates {
            Dates::WhenClockIsSet if !self.clock.is_set() => When::Undated,
            _ => When::At(self.clock.now()),
        };
        let verified = verify_chain(&chain, &self.trust, when, usage, Revocation::Check)
            .and_then(|v| v.identity.require(self.expected).map(|()| v));
        match verified {
            Ok(verified) => {
                let _ = self.verdict.0.set(Ok(verified));
                Ok(())
            }
            Err(error) => {
                let _ = self.verdict.0.set(Err(error.clone()));
                self.refusals.add(error.reason());
                let (peer, expected, claims) = (self.peer, self.expected, claimed_identity(leaf));
                warn!(%peer, claims, reason = error.reason(), "refused a peer that should be a {expected}: its certificate is {error}");
                Err(Error::InvalidCertificate(alert(&error)))
            }
        }
    }
}

/// What the peer is told: the TLS alert that fits best.
fn alert(error: &IdentityError) -> CertificateError {
    match error {
        IdentityError::Malformed(_)
        | IdentityError::ChainTooLong { .. }
        | IdentityError::Algorithm => CertificateError::BadEncoding,
        IdentityError::UnknownCa => CertificateError::UnknownIssuer,
        IdentityError::Expired { .. } => CertificateError::Expired,
        IdentityError::NotYetValid { .. } => CertificateError::NotValidYet,
        IdentityError::Revoked => CertificateError::Revoked,
        IdentityError::RevocationUnknown => CertificateError::UnknownRevocationStatus,
        IdentityError::WrongUsage(_) => CertificateError::InvalidPurpose,
        IdentityError::WrongRole { .. } | IdentityError::NotOneUri | IdentityError::BadUrn(_) => {
            CertificateError::ApplicationVerificationFailure
        }
    }
}

/// The dialler's side.
///
/// # Errors
/// Where the library refuses the configuration.
pub fn client_config(
    own: &Credentials,
    alpn: &[u8],
    check: PeerCheck,
) -> Result<rustls::ClientConfig, Error> {
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(check))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&own.certified))));
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

/// The listener's side.
///
/// # Errors
/// Where the library refuses the configuration.
pub fn server_config(
    own: &Credentials,
    alpn: &[u8],
    check: PeerCheck,
) -> Result<rustls::ServerConfig, Error> {
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(check))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&own.certified))));
    config.alpn_protocols = vec![alpn.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

impl ServerCertVerifier for PeerCheck {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(leaf, rest, Usage::Server)
            .map(|()| ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            leaf,
            signed,
            &provider().signature_verification_algorithms,
        )
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

impl ClientCertVerifier for PeerCheck {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }
    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(leaf, rest, Usage::Client)
            .map(|()| ClientCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            leaf,
            signed,
            &provider().signature_verification_algorithms,
        )
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
