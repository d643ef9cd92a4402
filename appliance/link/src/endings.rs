//! Why connections end, in words that say whose doing it was: TLS alerts become what a log reader needs.

use quinn::ConnectionError;

use crate::refusals;

/// TLS alerts that say what a log reader needs (RFC 8446).
const ALERTS: [(u8, &str, &str); 9] = [
    (42, refusals::HANDSHAKE, "the certificate is malformed"),
    (
        43,
        refusals::HANDSHAKE,
        "the certificate is not for this use",
    ),
    (44, refusals::HANDSHAKE, "the certificate is revoked"),
    (
        45,
        refusals::HANDSHAKE,
        "the certificate is expired or not yet valid",
    ),
    (
        48,
        refusals::HANDSHAKE,
        "the certificate is not issued under a trusted root",
    ),
    (
        49,
        refusals::HANDSHAKE,
        "the certificate is of another role",
    ),
    (70, refusals::HANDSHAKE, "no common TLS version"),
    (116, refusals::NO_CERTIFICATE, "no certificate was sent"),
    (
        120,
        refusals::WRONG_PROTOCOL,
        "no common protocol name (ALPN)",
    ),
];

fn tls_alert(code: quinn::TransportErrorCode) -> Option<&'static (u8, &'static str, &'static str)> {
    let code = u64::from(code);
    ALERTS
        .iter()
        .find(|(alert, ..)| code == 0x100 + u64::from(*alert))
}

/// The word under which a failed handshake is counted.
pub(crate) fn reason(error: &ConnectionError) -> &'static str {
    let code = match error {
        ConnectionError::TransportError(e) => Some(e.code),
        ConnectionError::ConnectionClosed(e) => Some(e.error_code),
        _ => None,
    };
    code.and_then(tls_alert)
        .map_or(refusals::HANDSHAKE, |(_, reason, _)| reason)
}

/// What ended a connection, in words that say whose doing it was.
#[must_use]
pub fn explain(error: &ConnectionError) -> String {
    match error {
        ConnectionError::TransportError(e) => match tls_alert(e.code) {
            Some((.., text)) => format!("refused here: {text}"),
            None => error.to_string(),
        },
        ConnectionError::ConnectionClosed(e) => match tls_alert(e.error_code) {
            Some((.., text)) => format!("the peer refused us: {text}"),
            None => error.to_string(),
        },
        ConnectionError::Reset => "the peer restarted".into(),
        ConnectionError::TimedOut => "the peer fell silent".into(),
        ConnectionError::LocallyClosed => "closed here".into(),
        _ => error.to_string(),
    }
}
