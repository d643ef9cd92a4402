//! Files of the agency's folder: secrets are made once, with mode 0600; everything else is replaced as a whole.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use protocol::suite::PublicKey;
use rcgen::KeyPair;

use super::AgencyError;

fn failed(path: &Path) -> impl Fn(std::io::Error) -> AgencyError {
    move |source| AgencyError::File {
        path: path.to_owned(),
        source,
    }
}

/// Makes a folder and those above it.
///
/// # Errors
/// [`AgencyError::File`].
pub fn make_folder(path: &Path) -> Result<(), AgencyError> {
    fs::create_dir_all(path).map_err(failed(path))
}

/// Reads a text file.
///
/// # Errors
/// [`AgencyError::File`].
pub fn read_text(path: &Path) -> Result<String, AgencyError> {
    fs::read_to_string(path).map_err(failed(path))
}

/// Reads a file.
///
/// # Errors
/// [`AgencyError::File`].
pub fn read(path: &Path) -> Result<Vec<u8>, AgencyError> {
    fs::read(path).map_err(failed(path))
}

/// Writes a private key: a new file, mode 0600. An existing one is an error, never overwritten.
///
/// # Errors
/// [`AgencyError::File`].
pub fn write_secret(path: &Path, key: &KeyPair) -> Result<(), AgencyError> {
    write_secret_bytes(path, key.serialize_pem().as_bytes())
}

/// The same for a secret of another kind.
///
/// # Errors
/// [`AgencyError::File`].
pub fn write_secret_bytes(path: &Path, secret: &[u8]) -> Result<(), AgencyError> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(failed(path))?;
    file.write_all(secret)
        .and_then(|()| file.sync_all())
        .map_err(failed(path))
}

/// Writes or replaces a public file as a whole.
///
/// # Errors
/// [`AgencyError::File`].
pub fn write_public(path: &Path, bytes: impl AsRef<[u8]>) -> Result<(), AgencyError> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    fs::write(&partial, bytes)
        .and_then(|()| fs::rename(&partial, path))
        .map_err(failed(path))
}

/// Writes a public key as hexadecimal SEC1.
///
/// # Errors
/// [`AgencyError::File`].
pub fn write_public_key(path: &Path, key: &KeyPair) -> Result<(), AgencyError> {
    write_public(path, to_hex(key.public_key_raw()) + "\n")
}

/// Reads a public key written by [`write_public_key`].
///
/// # Errors
/// [`AgencyError::File`], [`AgencyError::Content`].
pub fn read_public_key(path: &Path) -> Result<PublicKey, AgencyError> {
    let text = read_text(path)?;
    let bytes = from_hex(text.trim()).and_then(|b| PublicKey::from_sec1(&b).ok());
    bytes.ok_or_else(|| {
        AgencyError::content(
            path,
            "not a P-256 key as 130 hexadecimal digits (uncompressed SEC1)",
        )
    })
}

/// Bytes to hexadecimal.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Hexadecimal to bytes.
#[must_use]
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}
