//! A camera's papers, as `agency trial` lays them out: `link.pem` and `link.key` for sessions, `device.pem` and
//! `device.key` for what it signs; and from the agency `trust.pem`, `crl.pem` and `key-list.cose`.
//!
//! Loading proves what would otherwise be found out late: keys fit certificates, chains lead to the root, roles are
//! right. A private key that others may read is refused.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use link::credentials::{
    CredentialError, CredentialFiles, Credentials, Keyring, load_chain, load_key, load_trust,
};
use protocol::cose::{CoseError, DeviceSigner};
use protocol::identity::{Role, Trust};
use protocol::limits;
use protocol::suite::{SigningKey, SuiteError};

use tracing::{info, warn};

use crate::disk::{self, DiskError};
use crate::limits as own;

/// Why the papers do not serve.
#[derive(Debug, thiserror::Error)]
pub enum PaperError {
    /// A certificate, key or list file.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The device key.
    #[error("{}: {source}; use the P-256 key that the agency issued for this device", .path.display())]
    Key {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong.
        source: SuiteError,
    },
    /// The device certificate.
    #[error("{}: {source}; use the device certificate that the agency issued, with its issuer's", .path.display())]
    Device {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong.
        source: CoseError,
    },
    /// The key list cannot be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// What both sealing and serving need.
#[derive(Clone, Debug)]
pub struct Papers {
    /// The device's key and chain.
    pub signer: Arc<DeviceSigner>,
    /// The agency's root, with its revocation lists.
    pub trust: Trust,
    /// The agency's key list, unopened; none where the folder has none.
    pub key_list: Option<Bytes>,
}

impl Papers {
    /// Loads them from the camera's and the agency's folder.
    ///
    /// # Errors
    /// Any [`PaperError`].
    pub fn load(camera: &Path, agency: &Path) -> Result<Papers, PaperError> {
        let trust = load_trust(&agency.join("trust.pem"), Some(&agency.join("crl.pem")))?;
        let (chain, path) = (camera.join("device.pem"), camera.join("device.key"));
        let key = SigningKey::from_pkcs8(load_key(&path)?.secret_der());
        let key = key.map_err(|source| PaperError::Key { path, source })?;
        let signer = DeviceSigner::new(key, load_chain(&chain)?, &trust);
        let signer = signer.map_err(|source| PaperError::Device {
            path: chain,
            source,
        })?;
        let key_list = disk::read_if_there(&agency.join("key-list.cose"), limits::KEY_LIST_BYTES)?;
        Ok(Papers {
            signer: Arc::new(signer),
            trust,
            key_list: key_list.map(Bytes::from),
        })
    }
}

/// Loads the link's credentials.
///
/// # Errors
/// What [`Credentials::load`] says.
pub fn link(camera: &Path, agency: &Path) -> Result<Credentials, CredentialError> {
    Credentials::load(&files(camera, agency), Role::Camera)
}

/// Loads the link's credentials again whenever their files change; what does not load is logged, and the last good
/// ones stay. Never returns.
pub async fn follow(keyring: &Keyring, camera: &Path, agency: &Path) {
    let told = |loaded: Result<(), CredentialError>| match loaded {
        Ok(()) => info!("credentials taken anew"),
        Err(error) => warn!(%error, "changed credentials do not serve: the last good ones stay"),
    };
    let files = files(camera, agency);
    link::credentials::follow(keyring, &files, Role::Camera, own::CREDENTIALS_EVERY, told).await;
}

fn files(camera: &Path, agency: &Path) -> CredentialFiles {
    CredentialFiles {
        chain: camera.join("link.pem"),
        key: camera.join("link.key"),
        trust: agency.join("trust.pem"),
        crl: Some(agency.join("crl.pem")),
    }
}
