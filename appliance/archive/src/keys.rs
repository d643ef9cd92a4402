//! The site's key that signs receipts, and the newest key list that this gateway knows.
//!
//! The key list's number only rises: an older one is refused, and so is a different one of the same number.
//! A newer one, from configuration or from a repeater's hello, is used at once and kept in the store, so
//! that every gateway of the site finds it.
//!
//! Nothing is signed with a key that the newest list does not name as this site's and active, nor for an
//! epoch that it declares void: such a receipt would not count, and a repeater must not believe it.

use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use protocol::ids::{Digest, RecordingId, SiteId, StoreEpoch, Time};
use protocol::keylist::{KeyList, KeyListError, RecipientRole, State};
use protocol::logbook::{Countersignature, LogbookError, SignedHead};
use protocol::receipt::{self, Receipt, ReceiptError, Verdict};
use protocol::suite::{PublicKey, SigningKey};

/// Why nothing may be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The newest key list does not let this key sign.
    #[error("key list {list} does not name receipt key {key} as an active key of site {site}")]
    KeyNotActive {
        /// Number of the list.
        list: u64,
        /// The key's id.
        key: String,
        /// This site.
        site: SiteId,
    },
    /// The store was declared lost.
    #[error("key list {list} declares this store's epoch {epoch} void")]
    EpochVoid {
        /// Number of the list.
        list: u64,
        /// The epoch.
        epoch: StoreEpoch,
    },
    /// The form or the suite.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// The same of a countersignature.
    #[error(transparent)]
    Countersignature(#[from] LogbookError),
}

/// What a receipt is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The recording.
    pub recording: RecordingId,
    /// Its header, which is stored.
    pub header: Digest,
    /// Its segments, which are stored.
    pub segments: Vec<Digest>,
    /// The manifest that names them, which is stored.
    pub manifest: Digest,
    /// Stored or expired.
    pub verdict: Verdict,
}

/// Who can open a header, under the key list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// An active archive key among them.
    Active,
    /// Only retired, revoked or escrow keys: whoever has them can still read it, so it is kept.
    InactiveOnly,
    /// Nobody whom the list names.
    Nobody,
}

/// The key list and the signing key of one gateway.
#[derive(Debug)]
pub struct Keys {
    site: SiteId,
    epoch: StoreEpoch,
    signing: SigningKey,
    roots: Vec<PublicKey>,
    list: RwLock<Arc<KeyList>>,
}

impl Keys {
    /// From what was loaded at start.
    #[must_use]
    pub fn new(
        site: SiteId,
        epoch: StoreEpoch,
        signing: SigningKey,
        roots: Vec<PublicKey>,
        list: KeyList,
    ) -> Keys {
        Keys {
            site,
            epoch,
            signing,
            roots,
            list: RwLock::new(Arc::new(list)),
        }
    }

    /// The newest key list.
    #[must_use]
    pub fn list(&self) -> Arc<KeyList> {
        Arc::clone(&self.list.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The site's store epoch.
    #[must_use]
    pub fn epoch(&self) -> StoreEpoch {
        self.epoch
    }

    /// Takes a key list if it is newer: the new one, or none where it is the one known.
    ///
    /// # Errors
    /// [`KeyListError`].
    pub fn offer(&self, offered: Bytes) -> Result<Option<Arc<KeyList>>, KeyListError> {
        let mut list = self.list.write().unwrap_or_else(PoisonError::into_inner);
        let newer = list.newer(offered, &self.roots)?.map(Arc::new);
        if let Some(newer) = &newer {
            *list = Arc::clone(newer);
        }
        Ok(newer)
    }

    /// Whether receipts may be signed now.
    ///
    /// # Errors
    /// [`SignError::KeyNotActive`] and [`SignError::EpochVoid`].
    pub fn may_sign(&self) -> Result<(), SignError> {
        let list = self.list();
        let id = self.signing.public().id();
        let active = list
            .receipt_key(id)
            .is_some_and(|(k, _)| k.site == self.site && k.state == State::Active);
        if !active {
            return Err(SignError::KeyNotActive {
                list: list.number(),
                key: id.to_string(),
                site: self.site.clone(),
            });
        }
        if list.is_void(&self.site, self.epoch) {
            return Err(SignError::EpochVoid {
                list: list.number(),
                epoch: self.epoch,
            });
        }
        Ok(())
    }

    /// Signs a receipt.
    ///
    /// # Errors
    /// [`SignError`].
    pub fn sign(&self, draft: Draft, now: Time) -> Result<Receipt, SignError> {
        self.may_sign()?;
        let body = receipt::Body {
            version: receipt::VERSION,
            site: self.site.clone(),
            epoch: self.epoch,
            recording: draft.recording,
            header: draft.header,
            segments: draft.segments,
            verdict: draft.verdict,
            signed: now,
            manifests: vec![draft.manifest],
        };
        Ok(Receipt::sign(body, &self.signing)?)
    }

    /// Countersigns the head of a repeater's logbook.
    ///
    /// # Errors
    /// [`SignError`].
    pub fn countersign(&self, head: &SignedHead, now: Time) -> Result<Countersignature, SignError> {
        self.may_sign()?;
        Ok(Countersignature::sign(
            head,
            self.site.clone(),
            &self.signing,
            now,
        )?)
    }

    /// Who can open a header with these recipients.
    #[must_use]
    pub fn readers(&self, recipients: &[protocol::ids::KeyId]) -> Readers {
        let list = self.list();
        let known: Vec<_> = recipients
            .iter()
            .filter_map(|id| list.recipient(*id))
            .collect();
        if known
            .iter()
            .any(|r| r.role == RecipientRole::Archive && r.state == State::Active)
        {
            Readers::Active
        } else if known.is_empty() {
            Readers::Nobody
        } else {
            Readers::InactiveOnly
        }
    }
}
