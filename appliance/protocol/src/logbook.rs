//! How far a repeater's logbook goes: its head, signed by the repeater, and the archive site's countersignature of it.
//! Whoever has a countersignature can tell later that entries of the logbook are missing, or are not those that stood
//! there: nothing in the repeater's hands could say so, for whoever alters its logbook alters its memory, too.
//!
//! A head is judged by evidence's rules (chain and role, never today's date), a countersignature by a receipt's (the
//! key list). [`step`] is what a site decides by: heads of one incarnation only go on, and an incarnation that another
//! has followed is over. Nothing of custody hangs on any of this.

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::cose::{self, CoseError, RepeaterSigner, from_cbor, to_cbor};
use crate::identity::Trust;
use crate::ids::{Digest, Incarnation, KeyId, RepeaterId, SiteId, Time};
use crate::keylist::{KeyList, State};
use crate::limits;
use crate::suite::{self, SigningKey};

/// Binds a repeater's signature to this kind of object.
pub const HEAD_KIND: &str = "bwc/logbook-head/1";
/// Binds a site's signature to this kind of object.
pub const COUNTERSIGNATURE_KIND: &str = "bwc/countersignature/1";
/// The version of both formats that this crate writes.
pub const VERSION: u16 = 1;

/// How far a logbook goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct LogbookHead {
    /// The logbook's incarnation.
    #[n(0)]
    pub incarnation: Incarnation,
    /// Entries so far.
    #[n(1)]
    pub entries: u64,
    /// The chain hash over all of them.
    #[n(2)]
    pub hash: Digest,
}

/// What a repeater says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct HeadBody {
    /// Format version.
    #[n(1)]
    pub version: u16,
    /// Whose logbook it is.
    #[n(2)]
    pub repeater: RepeaterId,
    /// How far it goes, durably.
    #[n(3)]
    pub head: LogbookHead,
    /// The repeater's time of signing.
    #[n(4)]
    pub signed: Time,
}

/// What a site says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Body {
    /// Format version.
    #[n(1)]
    pub version: u16,
    /// The site that signs.
    #[n(2)]
    pub site: SiteId,
    /// Whose logbook it is.
    #[n(3)]
    pub repeater: RepeaterId,
    /// How far it went.
    #[n(4)]
    pub head: LogbookHead,
    /// When, by the repeater.
    #[n(5)]
    pub told: Time,
    /// The site's time of signing.
    #[n(6)]
    pub signed: Time,
}

/// Why a head or a countersignature is refused.
#[derive(Debug, thiserror::Error)]
pub enum LogbookError {
    /// Signature or form.
    #[error(transparent)]
    Envelope(#[from] CoseError),
    /// A head that speaks for another repeater than its signer.
    #[error("speaks for repeater {named}, but {signer} signed it")]
    WrongRepeater {
        /// The repeater in the body.
        named: RepeaterId,
        /// The certificate's.
        signer: RepeaterId,
    },
    /// Signed by a key that the key list does not name.
    #[error("signed by key {0}, which is not in the key list")]
    UnknownKey(KeyId),
    /// Signed by a revoked key.
    #[error("signed by key {0}, which is revoked")]
    RevokedKey(KeyId),
    /// The key belongs to another site than the countersignature names.
    #[error("names site {named}, but its key is {owner}'s")]
    WrongSite {
        /// The site in the body.
        named: SiteId,
        /// The key's owner.
        owner: SiteId,
    },
    /// A newer format than this program knows.
    #[error("format version {0} is not known here; update this program")]
    Version(u16),
    /// A head of nothing.
    #[error("the head of a logbook without entries")]
    Empty,
}

/// A head that its repeater signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedHead {
    body: HeadBody,
    bytes: Bytes,
    digest: Digest,
}

impl SignedHead {
    /// Signs.
    ///
    /// # Errors
    /// [`LogbookError::Empty`] for what no verifier would take, and what the suite says.
    pub fn sign(
        head: LogbookHead,
        signer: &RepeaterSigner,
        now: Time,
    ) -> Result<SignedHead, LogbookError> {
        let body = HeadBody {
            version: VERSION,
            repeater: signer.repeater.clone(),
            head,
            signed: now,
        };
        check(body.version, &body.head)?;
        let bytes: Bytes = cose::sign_by_repeater(HEAD_KIND, to_cbor(&body), signer)?.into();
        let (digest, length) = (suite::sha256(&bytes), bytes.len());
        if length > limits::LOGBOOK_HEAD_BYTES {
            let limit = limits::LOGBOOK_HEAD_BYTES;
            return Err(CoseError::TooLong { length, limit }.into());
        }
        Ok(SignedHead {
            body,
            bytes,
            digest,
        })
    }

    /// Verifies what a peer or a store gave.
    ///
    /// # Errors
    /// Any [`LogbookError`] of a head.
    pub fn verify(bytes: Bytes, trust: &Trust) -> Result<SignedHead, LogbookError> {
        let (payload, signer) =
            cose::open_by_repeater(HEAD_KIND, &bytes, limits::LOGBOOK_HEAD_BYTES, trust)?;
        cose::require_version(&payload, VERSION, LogbookError::Version)?;
        let body: HeadBody = from_cbor(&payload, "the head of a logbook")?;
        check(body.version, &body.head)?;
        if body.repeater != signer {
            return Err(LogbookError::WrongRepeater {
                named: body.repeater,
                signer,
            });
        }
        let digest = suite::sha256(&bytes);
        Ok(SignedHead {
            body,
            bytes,
            digest,
        })
    }

    /// What it says.
    #[must_use]
    pub fn body(&self) -> &HeadBody {
        &self.body
    }
    /// The signed bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
    /// SHA-256 of [`SignedHead::bytes`].
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

/// A site's word that a logbook went so far, verified under a key list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Countersignature {
    body: Body,
    bytes: Bytes,
}

impl Countersignature {
    /// Countersigns a head.
    ///
    /// # Errors
    /// What the suite says.
    pub fn sign(
        head: &SignedHead,
        site: SiteId,
        key: &SigningKey,
        now: Time,
    ) -> Result<Countersignature, LogbookError> {
        let told = head.body();
        let body = Body {
            version: VERSION,
            site,
            repeater: told.repeater.clone(),
            head: told.head,
            told: told.signed,
            signed: now,
        };
        let bytes = cose::sign_statement(COUNTERSIGNATURE_KIND, to_cbor(&body), key)?.into();
        Ok(Countersignature { body, bytes })
    }

    /// Verifies what a peer or a disk gave.
    ///
    /// # Errors
    /// Any [`LogbookError`] of a countersignature.
    pub fn verify(bytes: Bytes, keys: &KeyList) -> Result<Countersignature, LogbookError> {
        let (kind, limit) = (COUNTERSIGNATURE_KIND, limits::COUNTERSIGNATURE_BYTES);
        let mut owner = None;
        let (payload, _) = cose::open_statement(kind, &bytes, limit, |kid| {
            let (entry, public) = keys.receipt_key(kid).ok_or(LogbookError::UnknownKey(kid))?;
            if entry.state == State::Revoked {
                return Err(LogbookError::RevokedKey(kid));
            }
            owner = Some(entry.site.clone());
            Ok(public)
        })?;
        cose::require_version(&payload, VERSION, LogbookError::Version)?;
        let body: Body = from_cbor(&payload, "a countersignature")?;
        check(body.version, &body.head)?;
        let owner = owner.expect("the key was found");
        if owner != body.site {
            return Err(LogbookError::WrongSite {
                named: body.site,
                owner,
            });
        }
        Ok(Countersignature { body, bytes })
    }

    /// Whether it is of this head, as this repeater told it.
    #[must_use]
    pub fn covers(&self, head: &HeadBody) -> bool {
        let told = (&head.repeater, head.head, head.signed);
        (&self.body.repeater, self.body.head, self.body.told) == told
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
}

fn check(version: u16, head: &LogbookHead) -> Result<(), LogbookError> {
    if version != VERSION {
        return Err(LogbookError::Version(version));
    }
    if head.entries == 0 {
        return Err(LogbookError::Empty);
    }
    Ok(())
}

/// How a head stands to those that were countersigned before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is the newest one again.
    Same,
    /// It goes further.
    Further,
    /// It is of an incarnation that was not seen before.
    Begun,
    /// It goes back: to fewer entries, or to an incarnation that another has followed.
    Behind,
    /// It has as many entries as the newest one, and another hash.
    Forked,
}

/// Judges a head by the newest one of each incarnation, in the order in which they began.
#[must_use]
pub fn step(before: &[LogbookHead], head: &LogbookHead) -> Step {
    let Some((last, earlier)) = before.split_last() else {
        return Step::Begun;
    };
    if last.incarnation != head.incarnation {
        let over = earlier.iter().any(|h| h.incarnation == head.incarnation);
        return if over { Step::Behind } else { Step::Begun };
    }
    match head.entries.cmp(&last.entries) {
        std::cmp::Ordering::Less => Step::Behind,
        std::cmp::Ordering::Equal if head.hash == last.hash => Step::Same,
        std::cmp::Ordering::Equal => Step::Forked,
        std::cmp::Ordering::Greater => Step::Further,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(incarnation: u8, entries: u64, hash: u8) -> LogbookHead {
        LogbookHead {
            incarnation: Incarnation([incarnation; 16]),
            entries,
            hash: Digest([hash; 32]),
        }
    }

    #[test]
    fn a_logbook_only_goes_on_and_one_that_was_followed_is_over() {
        let before = [head(1, 9, 1), head(2, 5, 2)];
        assert_eq!(step(&[], &head(1, 1, 1)), Step::Begun);
        for (told, is) in [
            (head(2, 5, 2), Step::Same),
            (head(2, 6, 3), Step::Further),
            (head(2, 5, 3), Step::Forked),
            (head(2, 4, 2), Step::Behind),
            (head(3, 1, 1), Step::Begun),
            (head(1, 9, 1), Step::Behind),
            (head(1, 100, 1), Step::Behind),
        ] {
            assert_eq!(step(&before, &told), is, "{told:?}");
        }
    }
}
