//! The secrets of a QUIC endpoint that outlive a restart: with them a restarted party answers packets of an old
//! connection with a stateless reset, and its peers notice at once instead of after their idle timeout.
//!
//! quinn drops packets whose connection id it does not recognise before it ever thinks of a reset, so the key
//! that marks connection ids is kept along with the reset key. One file is for one endpoint.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::{hkdf, hmac};
use quinn::EndpointConfig;
use quinn::crypto::HandshakeTokenKey;
use quinn_proto::HashedConnectionIdGenerator;

use crate::random::Random;

const BYTES: usize = 72;

/// Reset key, token key and connection id key of one endpoint.
#[derive(Clone)]
pub struct EndpointKeys([u8; BYTES]);

impl EndpointKeys {
    /// New keys, kept nowhere.
    #[must_use]
    pub fn fresh(random: &Random) -> Self {
        EndpointKeys(random.bytes())
    }

    /// The keys in the file `path`, which is made (mode 0600, synced) where there is none. A file of another
    /// length, as a crash may leave, is replaced: all that is lost is one quick reset.
    ///
    /// # Errors
    /// What the file system says, naming the file.
    pub fn load_or_make(path: &Path, random: &Random) -> io::Result<Self> {
        let named = |e: io::Error| {
            io::Error::new(e.kind(), format!("endpoint keys {}: {e}", path.display()))
        };
        match load(path) {
            Ok(Some(keys)) => return Ok(keys),
            Ok(None) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(named(e)),
        }
        let keys = Self::fresh(random);
        keys.store(path).map_err(named)?;
        Ok(keys)
    }

    fn store(&self, path: &Path) -> io::Result<()> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&partial)?;
        file.write_all(&self.0)?;
        file.sync_all()?;
        fs::rename(&partial, path)
    }

    pub(crate) fn endpoint_config(&self) -> EndpointConfig {
        let mut config =
            EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &self.0[..32])));
        let id_key = u64::from_le_bytes(self.0[64..].try_into().expect("8 of 72 bytes"));
        config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(id_key)));
        config
    }

    pub(crate) fn token_key(&self) -> Arc<dyn HandshakeTokenKey> {
        Arc::new(hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&self.0[32..64]))
    }
}

impl std::fmt::Debug for EndpointKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EndpointKeys")
    }
}

fn load(path: &Path) -> io::Result<Option<EndpointKeys>> {
    let mut bytes = vec![];
    File::open(path)?
        .take(BYTES as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes.try_into().ok().map(EndpointKeys))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_stay_and_a_torn_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("endpoint.keys");
        let random = Random::system();
        let first = EndpointKeys::load_or_make(&path, &random).unwrap();
        assert_eq!(
            EndpointKeys::load_or_make(&path, &random).unwrap().0,
            first.0
        );
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        fs::write(&path, b"torn").unwrap();
        let second = EndpointKeys::load_or_make(&path, &random).unwrap();
        assert_ne!(second.0, first.0);
        assert_eq!(
            EndpointKeys::load_or_make(&path, &random).unwrap().0,
            second.0
        );
        assert!(EndpointKeys::load_or_make(&dir.path().join("none/keys"), &random).is_err());
    }
}
