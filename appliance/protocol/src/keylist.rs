//! The key list: which keys may sign receipts, who may open headers, which store epochs are void and which
//! sites are suspended. Signed by the agency's offline root; cameras pin the root alone.
//!
//! Its number only rises: [`KeyList::newer`] is how every party takes one, and refuses an older.
//! An active or a retired key's receipts verify; a revoked one's do not.

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::cose::{self, CoseError, from_cbor, to_cbor};
use crate::ids::{KeyId, SiteId, StoreEpoch};
use crate::limits;
use crate::suite::{PublicKey, SigningKey};

/// Binds a signature to this kind of object.
pub const KIND: &str = "bwc/key-list/1";
/// The version of the format that this crate writes.
pub const VERSION: u16 = 1;

/// A key's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum State {
    /// In use.
    #[n(0)]
    Active,
    /// No longer used for new signatures or headers; what it made stays good.
    #[n(1)]
    Retired,
    /// Nothing that it signs counts.
    #[n(2)]
    Revoked,
}

/// A key that signs receipts for a site.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ReceiptKey {
    /// The site.
    #[n(1)]
    pub site: SiteId,
    /// P-256, uncompressed SEC1.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub public_key: Vec<u8>,
    /// Its state.
    #[n(3)]
    pub state: State,
}

/// Who a header recipient is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum RecipientRole {
    /// The data centre.
    #[n(0)]
    Archive,
    /// The escrow holder.
    #[n(1)]
    Escrow,
}

/// A key to which headers are sealed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Recipient {
    /// Whose it is.
    #[n(1)]
    pub role: RecipientRole,
    /// P-256, uncompressed SEC1.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub public_key: Vec<u8>,
    /// Its state.
    #[n(3)]
    pub state: State,
}

/// A site's store epoch whose receipts no longer count: that store was lost.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct VoidEpoch {
    /// The site.
    #[n(0)]
    pub site: SiteId,
    /// The epoch.
    #[n(1)]
    pub epoch: StoreEpoch,
}

/// What a key list says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Body {
    /// Format version.
    #[n(1)]
    pub version: u16,
    /// Only rises.
    #[n(2)]
    pub number: u64,
    /// Keys that sign receipts.
    #[n(3)]
    pub receipt_keys: Vec<ReceiptKey>,
    /// Keys to which headers are sealed.
    #[n(4)]
    pub recipients: Vec<Recipient>,
    /// Store epochs whose receipts do not count.
    #[n(5)]
    pub void_epochs: Vec<VoidEpoch>,
    /// Sites that are gone: a policy asks for at most as many receipts as sites are left.
    #[n(6)]
    pub suspended: Vec<SiteId>,
}

/// Why a key list is refused.
#[derive(Debug, thiserror::Error)]
pub enum KeyListError {
    /// Signature or form.
    #[error(transparent)]
    Envelope(#[from] CoseError),
    /// Not signed by the pinned root.
    #[error("signed by key {0}, which is not the agency's root that is pinned here")]
    NotTheRoot(KeyId),
    /// A newer format than this program knows.
    #[error("format version {0} is not known here; update this program")]
    Version(u16),
    /// A field contradicts SPEC.md.
    #[error("{0}")]
    Invalid(&'static str),
    /// Older than the one already known: a roll-back.
    #[error("key list {offered} is older than {known}, which is already known here")]
    Older {
        /// The number offered.
        offered: u64,
        /// The number known.
        known: u64,
    },
    /// The same number with other contents: the root signed two.
    #[error("two different key lists carry number {0}: the agency's root signed both")]
    Forked(u64),
}

/// A key list whose signature and form were verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyList {
    body: Body,
    bytes: Bytes,
}

impl KeyList {
    /// Signs a key list with the root's key.
    ///
    /// # Errors
    /// [`KeyListError::Invalid`] for a body that no verifier would take.
    pub fn sign(body: Body, root: &SigningKey) -> Result<KeyList, KeyListError> {
        check(&body)?;
        let bytes: Bytes = cose::sign_statement(KIND, to_cbor(&body), root)?.into();
        if bytes.len() > limits::KEY_LIST_BYTES {
            return Err(KeyListError::Invalid(
                "longer than 32 KiB, which nobody takes: drop void epochs and revoked keys that no footage names any more",
            ));
        }
        Ok(KeyList { body, bytes })
    }

    /// Verifies what a peer or a disk gave under the pinned roots.
    ///
    /// # Errors
    /// Any [`KeyListError`] but [`KeyListError::Older`] and [`KeyListError::Forked`].
    pub fn verify(bytes: Bytes, roots: &[PublicKey]) -> Result<KeyList, KeyListError> {
        let (payload, _) = cose::open_statement(KIND, &bytes, limits::KEY_LIST_BYTES, |kid| {
            roots
                .iter()
                .find(|r| r.id() == kid)
                .copied()
                .ok_or(KeyListError::NotTheRoot(kid))
        })?;
        cose::require_version(&payload, VERSION, KeyListError::Version)?;
        let body: Body = from_cbor(&payload, "key list")?;
        check(&body)?;
        Ok(KeyList { body, bytes })
    }

    /// Verifies `offered` and says whether it replaces this one: none where it is the same.
    ///
    /// # Errors
    /// [`KeyListError::Older`] and [`KeyListError::Forked`] besides those of [`KeyList::verify`].
    pub fn newer(
        &self,
        offered: Bytes,
        roots: &[PublicKey],
    ) -> Result<Option<KeyList>, KeyListError> {
        let offered = KeyList::verify(offered, roots)?;
        match offered.number().cmp(&self.number()) {
            std::cmp::Ordering::Greater => Ok(Some(offered)),
            std::cmp::Ordering::Equal if offered.body == self.body => Ok(None),
            std::cmp::Ordering::Equal => Err(KeyListError::Forked(self.number())),
            std::cmp::Ordering::Less => Err(KeyListError::Older {
                offered: offered.number(),
                known: self.number(),
            }),
        }
    }

    /// What it says.
    #[must_use]
    pub fn body(&self) -> &Body {
        &self.body
    }
    /// The signed bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
    /// Its number, which only rises.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.body.number
    }
    /// The receipt key of that id.
    #[must_use]
    pub fn receipt_key(&self, id: KeyId) -> Option<(&ReceiptKey, PublicKey)> {
        self.body.receipt_keys.iter().find_map(|k| {
            let public = PublicKey::from_sec1(&k.public_key).ok()?;
            (public.id() == id).then_some((k, public))
        })
    }
    /// The recipient of that id.
    #[must_use]
    pub fn recipient(&self, id: KeyId) -> Option<&Recipient> {
        let is = |r: &&Recipient| PublicKey::from_sec1(&r.public_key).is_ok_and(|k| k.id() == id);
        self.body.recipients.iter().find(is)
    }
    /// The keys to which a new header is sealed: every active recipient.
    #[must_use]
    pub fn active_recipients(&self) -> Vec<PublicKey> {
        self.active(|_| true)
    }
    /// The active keys of escrow holders: to them the key of a station's disk is sealed.
    #[must_use]
    pub fn active_escrow(&self) -> Vec<PublicKey> {
        self.active(|r| r.role == RecipientRole::Escrow)
    }
    fn active(&self, wanted: impl Fn(&Recipient) -> bool) -> Vec<PublicKey> {
        let active = self
            .body
            .recipients
            .iter()
            .filter(|r| r.state == State::Active && wanted(r));
        active
            .filter_map(|r| PublicKey::from_sec1(&r.public_key).ok())
            .collect()
    }
    /// Whether receipts of this epoch no longer count.
    #[must_use]
    pub fn is_void(&self, site: &SiteId, epoch: StoreEpoch) -> bool {
        self.body
            .void_epochs
            .iter()
            .any(|v| v.site == *site && v.epoch == epoch)
    }
    /// Whether a site is suspended.
    #[must_use]
    pub fn is_suspended(&self, site: &SiteId) -> bool {
        self.body.suspended.contains(site)
    }
}

fn check(body: &Body) -> Result<(), KeyListError> {
    if body.version != VERSION {
        return Err(KeyListError::Version(body.version));
    }
    let lengths = [
        body.receipt_keys.len(),
        body.recipients.len(),
        body.void_epochs.len(),
        body.suspended.len(),
    ];
    if lengths.iter().any(|l| *l > limits::KEY_LIST_ENTRIES) {
        return Err(KeyListError::Invalid("more than 128 entries of one kind"));
    }
    let active = body.recipients.iter().filter(|r| r.state == State::Active);
    if active.count() > limits::HEADER_RECIPIENTS {
        return Err(KeyListError::Invalid(
            "more than 8 active recipients: a header holds no more; retire some",
        ));
    }
    let keys = body
        .receipt_keys
        .iter()
        .map(|k| &k.public_key)
        .chain(body.recipients.iter().map(|r| &r.public_key));
    let mut ids = Vec::new();
    for key in keys {
        let key = PublicKey::from_sec1(key).map_err(|_| {
            KeyListError::Invalid("a key that is not an uncompressed point of P-256")
        })?;
        ids.push(key.id());
    }
    ids.sort_unstable();
    if ids.windows(2).any(|w| w[0] == w[1]) {
        return Err(KeyListError::Invalid("names one key twice"));
    }
    Ok(())
}
