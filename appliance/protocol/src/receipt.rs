//! A receipt: an archive site's signature that it stores these digests, header, segments and manifests,
//! durably. Only receipts let a camera erase. It is carried unchanged from the archive to the camera.
//!
//! A receipt counts while its key is not revoked and its store epoch not void, under the newest key list
//! that the reader knows. Receipts do not expire.

use std::collections::BTreeSet;

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::cose::{self, CoseError, from_cbor, to_cbor};
use crate::ids::{Digest, KeyId, RecordingId, SiteId, StoreEpoch, Time};
use crate::keylist::{KeyList, State};
use crate::limits;
use crate::manifest::Policy;
use crate::suite::{self, SigningKey};

/// Binds a signature to this kind of object.
pub const KIND: &str = "bwc/receipt/1";
/// The version of the format that this crate writes.
pub const VERSION: u16 = 1;

/// What a site says of the digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Verdict {
    /// Stored durably.
    #[n(0)]
    Stored,
    /// Lawfully deleted there after its time; releases like the other, and stores nothing.
    #[n(1)]
    Expired,
}

/// What a receipt says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Body {
    /// Format version.
    #[n(1)]
    pub version: u16,
    /// The site that signs.
    #[n(2)]
    pub site: SiteId,
    /// The incarnation of its store.
    #[n(3)]
    pub epoch: StoreEpoch,
    /// The recording.
    #[n(4)]
    pub recording: RecordingId,
    /// Digest of the recording's header, which is stored too.
    #[n(5)]
    pub header: Digest,
    /// Digests of the segments; may be empty for a recording's header alone.
    #[n(6)]
    pub segments: Vec<Digest>,
    /// Stored or expired.
    #[n(7)]
    pub verdict: Verdict,
    /// The site's time of signing.
    #[n(8)]
    pub signed: Time,
    /// Digests of manifests of the recording that are stored too. Without them the count of segments would be
    /// nobody's word: header and manifests go from the camera only when each manifest is named.
    #[n(9)]
    pub manifests: Vec<Digest>,
}

/// Why a receipt is refused.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    /// Signature or form.
    #[error(transparent)]
    Envelope(#[from] CoseError),
    /// Signed by a key that the key list does not name.
    #[error("signed by key {0}, which is not in the key list")]
    UnknownKey(KeyId),
    /// Signed by a revoked key.
    #[error("signed by key {0}, which is revoked")]
    RevokedKey(KeyId),
    /// The key belongs to another site than the receipt names.
    #[error("names site {named}, but its key is {owner}'s")]
    WrongSite {
        /// The site in the body.
        named: SiteId,
        /// The key's owner.
        owner: SiteId,
    },
    /// That store was lost.
    #[error("store epoch {epoch} of site {site} is void")]
    VoidEpoch {
        /// The site.
        site: SiteId,
        /// The epoch.
        epoch: StoreEpoch,
    },
    /// A newer format than this program knows.
    #[error("format version {0} is not known here; update this program")]
    Version(u16),
    /// More digests than a receipt may name.
    #[error("names more than 64 segments, or more than 64 manifests")]
    TooMany,
}

/// A receipt that verified under a key list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    body: Body,
    key: KeyId,
    bytes: Bytes,
    digest: Digest,
}

impl Receipt {
    /// Signs with a site's receipt key.
    ///
    /// # Errors
    /// [`ReceiptError::TooMany`], [`CoseError::TooLong`] where no verifier would take so many names, or what the
    /// suite answers.
    pub fn sign(body: Body, key: &SigningKey) -> Result<Receipt, ReceiptError> {
        check(&body)?;
        let bytes: Bytes = cose::sign_statement(KIND, to_cbor(&body), key)?.into();
        if bytes.len() > limits::RECEIPT_BYTES {
            return Err(CoseError::TooLong {
                length: bytes.len(),
                limit: limits::RECEIPT_BYTES,
            }
            .into());
        }
        let digest = suite::sha256(&bytes);
        Ok(Receipt {
            body,
            key: key.public().id(),
            bytes,
            digest,
        })
    }

    /// Verifies what a peer or a disk gave.
    ///
    /// # Errors
    /// Any [`ReceiptError`].
    pub fn verify(bytes: Bytes, keys: &KeyList) -> Result<Receipt, ReceiptError> {
        let mut owner = None;
        let (payload, key) = cose::open_statement(KIND, &bytes, limits::RECEIPT_BYTES, |kid| {
            let (entry, public) = keys.receipt_key(kid).ok_or(ReceiptError::UnknownKey(kid))?;
            if entry.state == State::Revoked {
                return Err(ReceiptError::RevokedKey(kid));
            }
            owner = Some(entry.site.clone());
            Ok(public)
        })?;
        cose::require_version(&payload, VERSION, ReceiptError::Version)?;
        let body: Body = from_cbor(&payload, "receipt")?;
        check(&body)?;
        let owner = owner.expect("the key was found");
        if owner != body.site {
            return Err(ReceiptError::WrongSite {
                named: body.site,
                owner,
            });
        }
        if keys.is_void(&body.site, body.epoch) {
            return Err(ReceiptError::VoidEpoch {
                site: body.site,
                epoch: body.epoch,
            });
        }
        let digest = suite::sha256(&bytes);
        Ok(Receipt {
            body,
            key,
            bytes,
            digest,
        })
    }

    /// Whether it still counts under a newer key list.
    #[must_use]
    pub fn counts(&self, keys: &KeyList) -> bool {
        let usable = |(k, _): (&crate::keylist::ReceiptKey, _)| {
            k.state != State::Revoked && k.site == self.body.site
        };
        keys.receipt_key(self.key).is_some_and(usable)
            && !keys.is_void(&self.body.site, self.body.epoch)
    }

    /// Whether it speaks for this segment of this recording under this header.
    #[must_use]
    pub fn covers(&self, recording: &RecordingId, header: Digest, segment: Digest) -> bool {
        self.body.recording == *recording
            && self.body.header == header
            && self.body.segments.contains(&segment)
    }

    /// Whether it speaks for this manifest of this recording under its header.
    #[must_use]
    pub fn covers_manifest(
        &self,
        recording: &RecordingId,
        header: Digest,
        manifest: Digest,
    ) -> bool {
        self.body.recording == *recording
            && self.body.header == header
            && self.body.manifests.contains(&manifest)
    }

    /// What it says.
    #[must_use]
    pub fn body(&self) -> &Body {
        &self.body
    }
    /// The signed bytes, as they travel and are kept.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
    /// SHA-256 of [`Receipt::bytes`].
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

fn check(body: &Body) -> Result<(), ReceiptError> {
    if body.version != VERSION {
        return Err(ReceiptError::Version(body.version));
    }
    if body.segments.len().max(body.manifests.len()) > limits::RECEIPT_SEGMENTS {
        return Err(ReceiptError::TooMany);
    }
    Ok(())
}

/// How many receipts a policy asks for now: its k, but at most the number of its sites that are not
/// suspended, and never fewer than one.
#[must_use]
pub fn needed(policy: &Policy, keys: &KeyList) -> usize {
    let left = policy
        .sites
        .iter()
        .filter(|s| !keys.is_suspended(s))
        .count();
    usize::from(policy.k).min(left).max(1)
}

/// Whether receipts from `sites` satisfy `policy`: enough different ones among those that count.
#[must_use]
pub fn satisfied(policy: &Policy, keys: &KeyList, sites: &BTreeSet<SiteId>) -> bool {
    let counting = sites.iter().filter(|s| policy.sites.contains(s)).count();
    counting >= needed(policy, keys)
}
