//! A party's own certificate and key, and whom it trusts: loaded from PEM files, replaced while running.
//!
//! Loading proves what a handshake would otherwise find out late: the key is the certificate's, the chain leads
//! to the trusted root, the role is the expected one. A private key that others may read is refused. Every
//! error names the file, what is wrong and how to mend it.
//!
//! A [`Keyring`] holds the current credentials: each new handshake takes what is current, and running sessions
//! watch it to end when a new revocation list names their peer (`Peer::until_refused`).

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use protocol::cose::RepeaterSigner;
use protocol::identity::{
    IdentityError, Revocation, Role, Trust, Usage, Verified, When, verify_chain,
};
use protocol::suite::SigningKey;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;

use crate::{limits, service, tls};

/// Where a party's credentials lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialFiles {
    /// The party's certificate, then its issuer's (PEM).
    pub chain: PathBuf,
    /// Its private key (PKCS#8 PEM, mode 0600).
    pub key: PathBuf,
    /// The agency's root certificates (PEM).
    pub trust: PathBuf,
    /// Revocation lists, one of every issuer (PEM).
    pub crl: Option<PathBuf>,
}

/// A party's certificate, key and trust, proven to fit together.
#[derive(Clone)]
pub struct Credentials {
    /// Chain and key as TLS uses them.
    pub certified: Arc<CertifiedKey>,
    /// Whom it trusts.
    pub trust: Trust,
    /// What its own certificate says.
    pub own: Verified,
    /// With what a repeater signs the heads of its logbook; none in other roles, and where the key is no PKCS#8.
    pub signer: Option<Arc<RepeaterSigner>>,
}

/// A file that cannot serve, and how to mend it.
#[derive(Debug, thiserror::Error)]
#[error("{}: {what}; {mend}", .path.display())]
pub struct CredentialError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub what: String,
    /// How to mend it.
    pub mend: String,
}

impl CredentialError {
    fn new(path: &Path, what: impl fmt::Display, mend: &str) -> Self {
        CredentialError {
            path: path.to_owned(),
            what: what.to_string(),
            mend: mend.to_owned(),
        }
    }
}

impl Credentials {
    /// Loads and checks the files of a party of `role`. Dates are not checked: what is expired is refused by
    /// the peer, and an unset clock must not keep a party from starting.
    ///
    /// # Errors
    /// [`CredentialError`], naming the file.
    pub fn load(files: &CredentialFiles, role: Role) -> Result<Self, CredentialError> {
        let trust = load_trust(&files.trust, files.crl.as_deref())?;
        let chain = load_chain(&files.chain)?;
        let key = load_key(&files.key)?;
        Self::new(chain, key, trust, role).map_err(|e| match e {
            Misfit::Chain(e) => {
                CredentialError::new(&files.chain, e, "use the chain that the agency signed")
            }
            Misfit::Key(e) => CredentialError::new(
                &files.key,
                e,
                "use the P-256 key whose certificate is the first of the chain",
            ),
        })
    }

    /// The same from memory.
    ///
    /// # Errors
    /// [`Misfit`].
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        trust: Trust,
        role: Role,
    ) -> Result<Self, Misfit> {
        let usage = match role {
            Role::Repeater => Usage::Client,
            Role::Archive | Role::Camera => Usage::Server,
            Role::Device => Usage::Evidence,
        };
        let own = verify_chain(&chain, &trust, When::Undated, usage, Revocation::Ignore)
            .map_err(Misfit::Chain)?;
        own.identity.require(role).map_err(Misfit::Chain)?;
        let signer = own.identity.as_repeater().and_then(|repeater| {
            let key = SigningKey::from_pkcs8(key.secret_der()).ok()?;
            let chain = chain.clone();
            Some(Arc::new(RepeaterSigner {
                key,
                chain,
                repeater,
            }))
        });
        let certified =
            CertifiedKey::from_der(chain, key, &tls::provider()).map_err(Misfit::Key)?;
        Ok(Credentials {
            certified: Arc::new(certified),
            trust,
            own,
            signer,
        })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("own", &self.own)
            .finish_non_exhaustive()
    }
}

/// What does not fit together.
#[derive(Debug, thiserror::Error)]
pub enum Misfit {
    /// The chain is not one of this role under this trust.
    #[error("the certificate is refused: {0}")]
    Chain(IdentityError),
    /// The key is none, or not the certificate's.
    #[error("the private key does not serve: {0}")]
    Key(rustls::Error),
}

/// Loads root certificates and revocation lists.
///
/// # Errors
/// [`CredentialError`], naming the file.
pub fn load_trust(trust: &Path, crl: Option<&Path>) -> Result<Trust, CredentialError> {
    let roots = read(trust)?;
    Trust::from_pem(&roots, None).map_err(|e| {
        CredentialError::new(trust, e, "use the agency's root certificate (trust.pem)")
    })?;
    let Some(crl) = crl else {
        return Trust::from_pem(&roots, None)
            .map_err(|e| CredentialError::new(trust, e, "use the agency's root"));
    };
    let lists = read(crl)?;
    let mend = "use the agency's revocation lists (crl.pem), or leave the setting out";
    let loaded =
        Trust::from_pem(&roots, Some(&lists)).map_err(|e| CredentialError::new(crl, e, mend))?;
    if loaded.crl_next_update().is_none() {
        return Err(CredentialError::new(crl, "holds no revocation list", mend));
    }
    Ok(loaded)
}

/// Loads a certificate chain, leaf first.
///
/// # Errors
/// [`CredentialError`], naming the file.
pub fn load_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, CredentialError> {
    let mend = "it must hold CERTIFICATE blocks (PEM), the party's own first, then its issuer's";
    let chain = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| CredentialError::new(path, e, mend))?;
    if chain.is_empty() {
        return Err(CredentialError::new(path, "holds no certificate", mend));
    }
    Ok(chain)
}

/// Loads a private key, refusing one that others may read. A key that the service manager gives is let in to this program
/// by an access list, which shows as the group's right to read.
///
/// # Errors
/// [`CredentialError`], naming the file.
pub fn load_key(path: &Path) -> Result<PrivateKeyDer<'static>, CredentialError> {
    let given = service::credentials_folder().is_some_and(|folder| path.starts_with(folder));
    load_key_given(path, given)
}

fn load_key_given(path: &Path, given: bool) -> Result<PrivateKeyDer<'static>, CredentialError> {
    let pem = read(path)?;
    let mode = std::fs::metadata(path)
        .map_err(|e| unreadable(path, &e))?
        .permissions()
        .mode()
        & 0o777;
    if mode & if given { 0o037 } else { 0o077 } != 0 {
        let what = format!("a private key with mode {mode:04o}, which others may use");
        return Err(CredentialError::new(
            path,
            what,
            "run `chmod 600` on it, and renew it if others could read it",
        ));
    }
    PrivateKeyDer::from_pem_slice(&pem).map_err(|e| {
        CredentialError::new(
            path,
            e,
            "it must hold one PRIVATE KEY block (PKCS#8 PEM, ECDSA P-256)",
        )
    })
}

fn read(path: &Path) -> Result<Vec<u8>, CredentialError> {
    let mut bytes = vec![];
    let file = File::open(path).map_err(|e| unreadable(path, &e))?;
    let limit = limits::PEM_FILE_BYTES;
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| unreadable(path, &e))?;
    if bytes.len() as u64 > limit {
        return Err(CredentialError::new(
            path,
            format!("longer than {limit} bytes"),
            "this is not such a file",
        ));
    }
    Ok(bytes)
}

fn unreadable(path: &Path, error: &io::Error) -> CredentialError {
    if service::is_not_given(path) {
        let what = "no service manager gave a folder of credentials (CREDENTIALS_DIRECTORY)";
        let mend = "start it as its service; by hand, as root beside it, with CREDENTIALS_DIRECTORY=/run/credentials/UNIT";
        return CredentialError::new(path, what, mend);
    }
    CredentialError::new(
        path,
        format!("cannot be read: {error}"),
        "check the path, its owner and mode",
    )
}

/// The current credentials of a party, replaced as a whole. Clones share one.
#[derive(Clone, Debug)]
pub struct Keyring(watch::Sender<Arc<Credentials>>);

impl Keyring {
    /// Starts with these.
    #[must_use]
    pub fn new(credentials: Credentials) -> Self {
        Keyring(watch::Sender::new(Arc::new(credentials)))
    }
    /// What the next handshake uses.
    #[must_use]
    pub fn current(&self) -> Arc<Credentials> {
        Arc::clone(&self.0.borrow())
    }
    /// Replaces them for every later handshake, and wakes who watches.
    pub fn replace(&self, credentials: Credentials) {
        self.0.send_replace(Arc::new(credentials));
    }
    /// Follows replacements: sessions re-check their peer with it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Credentials>> {
        self.0.subscribe()
    }
}

/// Loads credentials again whenever their files change, looking every `every`. What does not load leaves the
/// last good ones in place and is told. Never returns.
pub async fn follow(
    keyring: &Keyring,
    files: &CredentialFiles,
    role: Role,
    every: Duration,
    told: impl Fn(Result<(), CredentialError>),
) {
    let mut known = stamps(files);
    loop {
        tokio::time::sleep(every).await;
        let now = stamps(files);
        if now == known {
            continue;
        }
        known = now;
        told(Credentials::load(files, role).map(|credentials| keyring.replace(credentials)));
    }
}

/// Length and time of each file: enough to see that one was replaced.
fn stamps(files: &CredentialFiles) -> [Option<(u64, Option<SystemTime>)>; 4] {
    let stamp = |path: &Path| {
        std::fs::metadata(path)
            .ok()
            .map(|m| (m.len(), m.modified().ok()))
    };
    let of = [
        Some(&files.chain),
        Some(&files.key),
        Some(&files.trust),
        files.crl.as_ref(),
    ];
    of.map(|path| path.and_then(|p| stamp(p)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_key_that_others_may_use_is_refused_and_one_that_the_manager_gives_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
        std::fs::write(&path, pem).unwrap();
        for (mode, alone, given) in [
            (0o400, true, true),
            (0o600, true, true),
            (0o440, false, true),
            (0o460, false, false),
            (0o450, false, false),
            (0o444, false, false),
            (0o644, false, false),
        ] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(load_key_given(&path, false).is_ok(), alone, "{mode:o}");
            assert_eq!(load_key_given(&path, true).is_ok(), given, "{mode:o}");
        }
    }

    #[test]
    fn a_credential_without_a_manager_is_named_with_its_mend() {
        let e = load_key(Path::new("$CREDENTIALS_DIRECTORY/key.pem")).unwrap_err();
        assert!(e.what.contains("no service manager") && e.mend.contains("/run/credentials/"));
    }
}
