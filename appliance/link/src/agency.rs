//! The agency: root, issuing CA, certificates, revocation and key lists, in one folder. Program `agency`.
//!
//! `agency trial DIR` makes everything that a test or demonstration needs by one command. A real agency keeps
//! `root/` offline and uses `csr`, `sign`, `enrol`, `revoke` and `key-list`: whoever holds a private key makes it where it
//! stays, and only the request travels. Only `key-list` and `revoke --ca` need the root's key.
//!
//! The folder:
//! ```text
//! root/{root.pem,root.key,revoked}  ca/{ca.pem,ca.key,crl.pem,revoked}
//! trust.pem  crl.pem  root-crl.pem  root.pub  key-list.cose
//! repeaters/<station>-<n>/{chain.pem,key.pem}
//! archives/<site>/{chain.pem,key.pem,receipt.key,receipt.pub}
//! cameras/<serial>/{link.pem,link.key,device.pem,device.key}
//! recipients/{archive,escrow}.{pub,key}
//! ```
//! `.pub` is an uncompressed SEC1 key in hexadecimal, `.key` PKCS#8 PEM, `.pem` certificates, leaf first.
//! Private keys are files of mode 0600 that are never overwritten.
//!
//! Reading order: [`files`], [`request`] (who asks), [`issue`] (who is certified), [`mod@trial`] (what a trial agency consists of),
//! [`key_list`] (what receipts and headers are worth), `enrol` (a new
//! box), `show`, `command`.

pub mod files;
pub mod issue;
pub mod key_list;
pub mod request;
pub mod trial;

mod command;
mod enrol;
mod show;

pub use command::main;
pub use issue::Agency;
pub use trial::{TrialOptions, trial};

use std::path::{Path, PathBuf};

use protocol::identity::IdentityError;
use protocol::keylist::KeyListError;

use crate::credentials::CredentialError;

/// Why the agency did not do it.
#[derive(Debug, thiserror::Error)]
pub enum AgencyError {
    /// A file or folder.
    #[error("{}: {source}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A certificate or key file that does not serve.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// A file that is not what it should be.
    #[error("{}: {what}", .path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong, and what it should be.
        what: String,
    },
    /// A name or role.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The certificate library.
    #[error("cannot make the certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The key list.
    #[error("key list: {0}")]
    KeyList(#[from] KeyListError),
    /// What a station is to be like.
    #[error("{}", explained(.0))]
    Plan(crate::config::ConfigError),
    /// An enrolment file.
    #[error(transparent)]
    Enrolment(#[from] crate::enrolment::EnrolmentError),
    /// A disk's key.
    #[error("{}: {source}", .path.display())]
    DiskKey {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: crate::disk_key::DiskKeyError,
    },
    /// A request that contradicts itself or the folder.
    #[error("{0}")]
    Request(String),
}

/// A configuration's error with its mend.
fn explained(e: &crate::config::ConfigError) -> String {
    match miette::Diagnostic::help(e) {
        Some(help) => format!("{e}; {help}"),
        None => e.to_string(),
    }
}

impl AgencyError {
    fn content(path: &Path, what: impl Into<String>) -> Self {
        AgencyError::Content {
            path: path.to_owned(),
            what: what.into(),
        }
    }
}
