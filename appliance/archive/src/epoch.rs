//! The store's epoch: a random name made with the store, in every receipt. A site that lost what it signed
//! starts another store, and the agency declares the old epoch void; then no camera erases on its receipts.
//!
//! The object is made once, create-only, by the owner's `archive init`; all gateways of a site read the same
//! one. A gateway never makes it: where a disk is not mounted, what it finds is an empty folder, and receipts
//! of a new store would go out for what the real one lacks. It also names the format and the site: a gateway
//! meets neither a newer format nor another site's store without stopping. A store that holds footage but no
//! epoch lost it, and is not given a new one silently.

use bytes::Bytes;
use futures_util::TryStreamExt;
use link::random::Random;
use object_store::path::Path;
use protocol::ids::{SiteId, StoreEpoch};

use crate::layout;
use crate::vault::{Read, Vault, VaultError};

const FORMAT: &str = "bwc-archive-store 1";
const LENGTH_MAX: usize = 256;

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EpochError {
    /// The store failed.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The object is not of this form.
    #[error(
        "its `epoch` object is not one that this program reads ({0}): a newer archive made it, or it is damaged"
    )]
    Foreign(String),
    /// Another site's store.
    #[error("it belongs to site {found}, not to {configured}: every site has a store of its own")]
    OtherSite {
        /// Whose it is.
        found: String,
        /// Who asks.
        configured: SiteId,
    },
    /// Nothing that says that this is a store.
    #[error(
        "there is no `epoch` object: it is not mounted, or it was never made; mount it, or make a new store with `archive init --config FILE`"
    )]
    NotMade,
    /// Footage without an epoch.
    #[error(
        "it holds footage but no `epoch` object; put the old one back, or start a new store and have the agency void the old epoch"
    )]
    Lost,
}

/// The store's epoch.
///
/// # Errors
/// [`EpochError`].
pub async fn open(vault: &Vault, site: &SiteId) -> Result<StoreEpoch, EpochError> {
    let path = Path::from(layout::EPOCH);
    match read(vault, &path, site).await? {
        Some(epoch) => Ok(epoch),
        None if holds_footage(vault).await? => Err(EpochError::Lost),
        None => Err(EpochError::NotMade),
    }
}

/// Makes the store; gives its epoch, and whether it was made now.
///
/// # Errors
/// [`EpochError`].
pub async fn make(
    vault: &Vault,
    site: &SiteId,
    random: &Random,
) -> Result<(StoreEpoch, bool), EpochError> {
    let path = Path::from(layout::EPOCH);
    match open(vault, site).await {
        Err(EpochError::NotMade) => {}
        made => return made.map(|epoch| (epoch, false)),
    }
    let epoch = StoreEpoch(random.bytes());
    let text = format!("{FORMAT}\n{site}\n{epoch}\n");
    if vault.create(&path, Bytes::from(text)).await? {
        return Ok((epoch, true));
    }
    // Somebody else was first. That object counts once this machine has it durably, too.
    let first = read(vault, &path, site).await?.ok_or(EpochError::Lost)?;
    Ok((first, false))
}

async fn holds_footage(vault: &Vault) -> Result<bool, VaultError> {
    let mut objects = vault.list(&Path::from(layout::RECORDINGS));
    Ok(objects.try_next().await?.is_some())
}

async fn read(vault: &Vault, path: &Path, site: &SiteId) -> Result<Option<StoreEpoch>, EpochError> {
    let bytes = match vault.read(path, LENGTH_MAX).await? {
        Read::Bytes(bytes) => bytes,
        Read::Missing => return Ok(None),
        Read::TooLong(length) => return Err(EpochError::Foreign(format!("{length} bytes"))),
    };
    let text =
        std::str::from_utf8(&bytes).map_err(|_| EpochError::Foreign("not text".to_owned()))?;
    let mut lines = text.lines();
    let (format, owner, epoch) = (lines.next(), lines.next(), lines.next());
    if format != Some(FORMAT) {
        return Err(EpochError::Foreign(format.unwrap_or_default().to_owned()));
    }
    if owner != Some(site.as_str()) {
        return Err(EpochError::OtherSite {
            found: owner.unwrap_or_default().to_owned(),
            configured: site.clone(),
        });
    }
    let epoch = epoch
        .and_then(StoreEpoch::from_hex)
        .ok_or(EpochError::Foreign("no epoch".to_owned()))?;
    vault.settle(path).await?;
    Ok(Some(epoch))
}
