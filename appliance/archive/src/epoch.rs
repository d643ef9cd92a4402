//! The store's epoch: a random name made with the store, in every receipt. A site that lost what it signed
//! starts another store, and the agency declares the old epoch void; then no camera erases on its receipts.
//!
//! The object is made once, create-only, by whichever gateway comes first; all gateways of a site read the
//! same one. It also names the format and the site: a gateway meets neither a newer format nor another site's
//! store without stopping. A store that holds footage but no epoch lost it, and is not given a new one
//! silently.

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
        "the store's `epoch` object is not one that this program reads ({0}): a newer archive made it, or it is damaged"
    )]
    Foreign(String),
    /// Another site's store.
    #[error(
        "the store belongs to site {found}, not to {configured}: every site has a store of its own"
    )]
    OtherSite {
        /// Whose it is.
        found: String,
        /// Who asks.
        configured: SiteId,
    },
    /// Footage without an epoch.
    #[error(
        "the store holds footage but no `epoch` object; put the old one back, or start a new store and have the agency void the old epoch"
    )]
    Lost,
}

/// The store's epoch, made now if the store is empty.
///
/// # Errors
/// [`EpochError`].
pub async fn open_or_make(
    vault: &Vault,
    site: &SiteId,
    random: &Random,
) -> Result<StoreEpoch, EpochError> {
    let path = Path::from(layout::EPOCH);
    if let Some(epoch) = read(vault, &path, site).await? {
        return Ok(epoch);
    }
    if vault
        .list(&Path::from(layout::RECORDINGS))
        .try_next()
        .await?
        .is_some()
    {
        return Err(EpochError::Lost);
    }
    let epoch = StoreEpoch(random.bytes());
    let text = format!("{FORMAT}\n{site}\n{epoch}\n");
    if vault.create(&path, Bytes::from(text)).await? {
        return Ok(epoch);
    }
    // Another gateway was first. Its object counts once this machine has it durably, too.
    read(vault, &path, site).await?.ok_or(EpochError::Lost)
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
