//! `repeaterd disk-key`: the second key of this box's disk, sealed for the holders of the agency's escrow keys ([`link::disk_key`]
//! says why there is one). The image's script `disk-key` makes the key and keeps what is said here in the disk's header:
//! - without `--disk`, the ids of the holders, in one line: what is kept is made anew where they changed;
//! - with it, the key is read from standard input, and the header's token comes out (JSON, as LUKS2 keeps it).
//!
//! The key list is the newest of the two that a box has: the configuration's, and the spool's, which the archive renews.
//! Both are verified under the box's root.

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use link::credentials::load_trust;
use link::disk_key::{self, KEY_BYTES};
use link::random::Random;
use protocol::keylist::KeyList;
use protocol::suite::PublicKey;

use crate::config::Config;
use crate::run::key_list;

/// The token's type: what the image's scripts look for.
const TOKEN: &str = "repeater-disk-key";

/// What is asked.
#[derive(Debug, clap::Args)]
pub(crate) struct Asked {
    /// Configuration file of this box.
    #[arg(long, default_value = "/etc/repeater/repeater.toml")]
    config: std::path::PathBuf,
    /// The UUID of the disk's header, and the key's slot.
    #[arg(long, requires = "slot")]
    disk: Option<String>,
    /// The slot of the header that the key opens.
    #[arg(long, requires = "disk")]
    slot: Option<u8>,
}

impl Asked {
    /// The box's configuration.
    pub(crate) fn config(&self) -> &Path {
        &self.config
    }
}

/// Says for whom, or seals.
///
/// # Errors
/// Where the key list cannot be read, or names no holder while a key is to be sealed.
pub(crate) fn disk_key(asked: &Asked, config: &Config) -> anyhow::Result<ExitCode> {
    let holders = newest_list(config)?.active_escrow();
    match asked.disk.as_deref().zip(asked.slot) {
        None => println!("{}", ids(&holders)),
        Some((disk, slot)) => {
            let mut key = Vec::new();
            let most = u64::try_from(KEY_BYTES)? + 1;
            std::io::stdin().take(most).read_to_end(&mut key)?;
            println!("{}", token(disk, slot, &key, &holders)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn token(disk: &str, slot: u8, key: &[u8], holders: &[PublicKey]) -> anyhow::Result<String> {
    ensure!(
        !holders.is_empty(),
        "the key list names no active escrow key: nobody could open the disk of a dead board; the agency adds one (agency key-list --add-escrow)"
    );
    let sealed = disk_key::seal(disk, key, holders, &Random::system())?;
    let token = serde_json::json!({
        "type": TOKEN, "keyslots": [slot.to_string()], "holders": ids(holders), "sealed": sealed,
    });
    Ok(token.to_string())
}

fn ids(holders: &[PublicKey]) -> String {
    let ids: Vec<String> = holders.iter().map(|h| h.id().to_string()).collect();
    ids.join(" ")
}

fn newest_list(config: &Config) -> anyhow::Result<KeyList> {
    let trust = load_trust(&config.credentials.trust, config.credentials.crl.as_deref())?;
    let own = key_list(&config.key_list, &trust)?;
    let path = config.spool_dir.join("key-list");
    match std::fs::read(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(own),
        Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
        // One that is damaged is the daemon's to mend; the box's own serves.
        Ok(bytes) => Ok(own
            .newer(bytes.into(), trust.root_keys())
            .ok()
            .flatten()
            .unwrap_or(own)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use protocol::suite::AgreementKey;

    #[test]
    fn a_token_has_all_that_opens_the_disk_and_needs_a_holder() {
        let disk = "5b0c6a3e-1f0d-4e0b-9c56-2f6f3a8f7d11";
        let holder = AgreementKey::from_scalar(&[7; 32]).unwrap();
        let holders = [holder.public().unwrap()];
        let told: serde_json::Value =
            serde_json::from_str(&token(disk, 1, b"a key", &holders).unwrap()).unwrap();
        assert_eq!(
            (&told["type"], &told["keyslots"][0]),
            (&TOKEN.into(), &"1".into())
        );
        assert_eq!(told["holders"], holders[0].id().to_string());
        let (named, key) = disk_key::open(told["sealed"].as_str().unwrap(), &holder).unwrap();
        assert_eq!((named.as_str(), key.as_slice()), (disk, &b"a key"[..]));
        let refused = token(disk, 1, b"a key", &[]).unwrap_err().to_string();
        assert!(refused.contains("--add-escrow"), "{refused}");
    }
}
