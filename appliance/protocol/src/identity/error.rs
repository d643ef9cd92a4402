//! Why a certificate or identity is refused: one error for the log, one stable word for counters.

use rustls_pki_types::UnixTime;

use super::{Identity, Role, Usage};
use crate::ids::Time;
use crate::limits;

/// Why a certificate or identity is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Does not parse.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// More certificates or bytes than a chain may have, or none.
    #[error(
        "{certificates} certificates of {bytes} bytes: a chain has 1 to {} of at most {} bytes in all",
        limits::CHAIN_CERTIFICATES,
        limits::CHAIN_BYTES
    )]
    ChainTooLong {
        /// How many came.
        certificates: usize,
        /// Their bytes.
        bytes: usize,
    },
    /// No path to a root of the agency.
    #[error("not issued under the agency's root")]
    UnknownCa,
    /// Past its date.
    #[error("expired at {} ms since 1970", .not_after.0)]
    Expired {
        /// End of validity.
        not_after: Time,
    },
    /// Before its date.
    #[error("not valid before {} ms since 1970", .not_before.0)]
    NotYetValid {
        /// Start of validity.
        not_before: Time,
    },
    /// On a revocation list.
    #[error("revoked")]
    Revoked,
    /// Lists are configured, but none of a certificate's issuer, or one that does not verify.
    #[error("no valid revocation list of its issuer: add that issuer's list to the CRL file")]
    RevocationUnknown,
    /// The extended key usage does not allow this use.
    #[error("its extended key usage does not allow {0:?}")]
    WrongUsage(Usage),
    /// Another role than expected.
    #[error("{found} where a {expected} is expected")]
    WrongRole {
        /// Who it is.
        found: Identity,
        /// What was expected.
        expected: Role,
    },
    /// Not exactly one URI, and nothing else, as subject alternative name.
    #[error("its subject alternative name is not exactly one URI")]
    NotOneUri,
    /// A URI that is not an identity.
    #[error("`{0}` is not an identity of this system")]
    BadUrn(String),
    /// A key or signature of another kind than P-256 with SHA-256.
    #[error("not ECDSA P-256 with SHA-256")]
    Algorithm,
}

impl IdentityError {
    /// Every word that [`IdentityError::reason`] gives.
    pub const REASONS: [&'static str; 11] = [
        "malformed",
        "chain_too_long",
        "unknown_ca",
        "expired",
        "not_yet_valid",
        "revoked",
        "revocation_unknown",
        "wrong_usage",
        "wrong_role",
        "san",
        "algorithm",
    ];

    /// One stable word, for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            IdentityError::Malformed(_) => "malformed",
            IdentityError::ChainTooLong { .. } => "chain_too_long",
            IdentityError::UnknownCa => "unknown_ca",
            IdentityError::Expired { .. } => "expired",
            IdentityError::NotYetValid { .. } => "not_yet_valid",
            IdentityError::Revoked => "revoked",
            IdentityError::RevocationUnknown => "revocation_unknown",
            IdentityError::WrongUsage(_) => "wrong_usage",
            IdentityError::WrongRole { .. } => "wrong_role",
            IdentityError::NotOneUri | IdentityError::BadUrn(_) => "san",
            IdentityError::Algorithm => "algorithm",
        }
    }
}

/// What webpki's refusal means here.
pub(super) fn refusal(error: &webpki::Error, usage: Usage) -> IdentityError {
    use webpki::Error as E;
    let ms = |t: &UnixTime| Time(t.as_secs().saturating_mul(1000));
    match error {
        E::CertExpired { not_after, .. } => IdentityError::Expired {
            not_after: ms(not_after),
        },
        E::CertNotValidYet { not_before, .. } => IdentityError::NotYetValid {
            not_before: ms(not_before),
        },
        E::CertRevoked => IdentityError::Revoked,
        E::UnknownRevocationStatus | E::InvalidCrlSignatureForPublicKey | E::IssuerNotCrlSigner => {
            IdentityError::RevocationUnknown
        }
        E::EmptyEkuExtension | E::RequiredEkuNotFoundContext(_) => IdentityError::WrongUsage(usage),
        E::UnsupportedSignatureAlgorithmContext(_)
        | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => IdentityError::Algorithm,
        E::UnknownIssuer | E::InvalidSignatureForPublicKey => IdentityError::UnknownCa,
        E::CaUsedAsEndEntity => IdentityError::Malformed("an issuer's certificate as leaf"),
        E::EndEntityUsedAsCa => IdentityError::UnknownCa,
        _ => IdentityError::Malformed("certificate path"),
    }
}
