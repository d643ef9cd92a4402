//! What a file of the agency says, in words: certificates, public keys, key lists. Verifies nothing but a key
//! list's signature, under the root beside it; an operator looks here before trusting a file.

use std::fmt::Write;
use std::path::Path;

use protocol::identity::{claimed_identity, claimed_validity};
use protocol::ids::Time;
use protocol::keylist::{KeyList, State};
use protocol::suite::PublicKey;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::AgencyError;
use super::files::{read, read_public_key};
use crate::credentials::load_trust;

/// Describes a file by its name's ending, as of `now`. A key list is verified under `trust`, the agency's root.
///
/// # Errors
/// Any [`AgencyError`].
pub(super) fn show(path: &Path, trust: Option<&Path>, now: Time) -> Result<String, AgencyError> {
    let beside = path.with_file_name("trust.pem");
    let trust = trust.unwrap_or(&beside);
    match path.extension().and_then(|e| e.to_str()) {
        Some("cose") => key_list(path, trust),
        Some("pub") => Ok(format!(
            "P-256 public key, id {}\n",
            read_public_key(path)?.id()
        )),
        Some("pem") => certificates(path, trust, now),
        _ => Err(AgencyError::content(
            path,
            "show reads .pem (certificates, revocation lists), .pub (keys) and .cose (key lists)",
        )),
    }
}

fn certificates(path: &Path, trust: &Path, now: Time) -> Result<String, AgencyError> {
    let mut text = String::new();
    for certificate in CertificateDer::pem_slice_iter(&read(path)?) {
        let certificate = certificate.map_err(|e| AgencyError::content(path, e.to_string()))?;
        let who = claimed_identity(&certificate);
        let until = match claimed_validity(&certificate) {
            None => "without readable dates".to_owned(),
            Some((from, _)) if now < from => format!("valid {}", days(now, from)),
            Some((_, until)) => format!("expires {}", days(now, until)),
        };
        line(&mut text, format_args!("certificate of {who}, {until}"));
    }
    if text.is_empty() {
        let lists = load_trust(trust, Some(path))?;
        let due = lists.crl_next_update().map(|due| days(now, due));
        let due = due.ok_or_else(|| {
            AgencyError::content(path, "holds no certificate and no revocation list")
        })?;
        line(
            &mut text,
            format_args!("revocation lists, the next is due {due}"),
        );
    }
    Ok(text)
}

/// When `then` is, seen from `now`.
fn days(now: Time, then: Time) -> String {
    const DAY_MS: u64 = 86_400_000;
    match then.0.checked_sub(now.0) {
        Some(ahead) => format!("in {} days", ahead / DAY_MS),
        None => format!("{} days ago", now.since_ms(then) / DAY_MS),
    }
}

fn key_list(path: &Path, trust: &Path) -> Result<String, AgencyError> {
    let roots = load_trust(trust, None)?;
    let list = KeyList::verify(read(path)?.into(), roots.root_keys())?;
    let body = list.body();
    let mut text = format!("key list {}, signed by the root\n", body.number);
    for key in &body.receipt_keys {
        line(
            &mut text,
            format_args!(
                "receipt key {} of {}: {}",
                id(&key.public_key),
                key.site,
                word(key.state)
            ),
        );
    }
    for to in &body.recipients {
        line(
            &mut text,
            format_args!(
                "recipient {} ({:?}): {}",
                id(&to.public_key),
                to.role,
                word(to.state)
            ),
        );
    }
    for void in &body.void_epochs {
        line(
            &mut text,
            format_args!("void: {} epoch {}", void.site, void.epoch),
        );
    }
    for site in &body.suspended {
        line(&mut text, format_args!("suspended: {site}"));
    }
    Ok(text)
}

fn line(text: &mut String, what: std::fmt::Arguments<'_>) {
    writeln!(text, "{what}").expect("a string grows");
}

fn id(key: &[u8]) -> String {
    PublicKey::from_sec1(key).map_or_else(|_| "?".into(), |k| k.id().to_string())
}

fn word(state: State) -> &'static str {
    match state {
        State::Active => "active",
        State::Retired => "retired",
        State::Revoked => "revoked",
    }
}
