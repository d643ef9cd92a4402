//! What the gateway does with an offer before anything is put: it is verified, must name this site, is stored,
//! and then what it names is looked for.
//!
//! The manifest is durable before anything is wanted or receipted under it. What the store has is checked
//! (existence, length, and the bytes themselves unless this process has seen them) before it is vouched for.
//! Contradictions between manifests of one recording are kept, both, and alarm.

use std::sync::Arc;

use bytes::Bytes;
use protocol::cose::CoseError;
use protocol::ids::Digest;
use protocol::manifest::{Manifest, ManifestError};
use protocol::message::Reason;

use crate::alarms::Alarm;
use crate::found::{Found, Object};
use crate::gateway::Gateway;
use crate::layout::{self, Item};
use crate::offers::Seen;
use crate::vault::{Copy, Put, VaultError};

/// A refusal: why, in the protocol's word and in a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The word.
    pub reason: Reason,
    /// The sentence.
    pub text: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(reason: Reason, text: &impl ToString) -> Refusal {
        Refusal {
            reason,
            text: text.to_string(),
        }
    }
}

/// What was found of an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// What is stored of its header and segments, and as of when.
    Stored(Seen),
    /// It was lawfully deleted.
    Expired,
}

/// Verifies an offer.
///
/// # Errors
/// [`Refusal`] for one that does not verify or that does not count here.
pub fn verify(gateway: &Gateway, offered: Bytes) -> Result<Manifest, Refusal> {
    let trust = &gateway.keyring.current().trust;
    let manifest = Manifest::verify(offered, trust).map_err(|e| Refusal::new(reason_of(&e), &e))?;
    if !manifest.body().policy.sites.contains(&gateway.site) {
        let text = format!("site {} does not count in its receipt policy", gateway.site);
        return Err(Refusal::new(Reason::NotMySite, &text));
    }
    Ok(manifest)
}

fn reason_of(error: &ManifestError) -> Reason {
    match error {
        ManifestError::Envelope(CoseError::BadSignature | CoseError::Signer(_))
        | ManifestError::WrongCamera { .. } => Reason::BadSignature,
        ManifestError::Version(_) => Reason::Version,
        ManifestError::Envelope(_) | ManifestError::Invalid(_) => Reason::Malformed,
    }
}

/// Stores a manifest and looks for what it names, when it is its turn.
///
/// # Errors
/// [`Refusal`] with [`Reason::StoreFailed`].
pub async fn look_up(gateway: &Gateway, manifest: &Manifest) -> Result<Lookup, Refusal> {
    let _turn = gateway.turns.take(manifest.body().class).await;
    let looked = gateway.in_time(look_up_in_store(gateway, manifest)).await;
    gateway.watch_store(&looked);
    looked.map_err(|e| Refusal::new(Reason::StoreFailed, &e))
}

async fn look_up_in_store(gateway: &Gateway, manifest: &Manifest) -> Result<Lookup, VaultError> {
    let id = manifest.recording();
    let began = gateway.seams.clock.instant();
    let (found, listed) = gateway.listings.of(&gateway.vault, id, began).await?;
    if found.expired {
        return Ok(Lookup::Expired);
    }
    conflicts(gateway, manifest, &found);
    let item = Item::Manifest {
        index: manifest.body().index,
        digest: manifest.digest(),
    };
    if !is_kept(gateway, manifest, item, &found).await? {
        gateway
            .keep(id, item, manifest.bytes().clone(), manifest.digest())
            .await?;
    }
    let mut seen = Seen {
        began,
        listed,
        stored: Vec::new(),
        lost: Vec::new(),
    };
    for (item, digest, length) in named(manifest) {
        if !is_listed(&found, item, digest) {
            continue;
        }
        let path = layout::key(id, item);
        match gateway.vault.check(&path, length, digest).await? {
            Copy::Good => {
                gateway
                    .metrics
                    .already
                    .with_label_values(&[kind(item)])
                    .inc();
                seen.stored.push(digest);
                continue;
            }
            Copy::Missing => gateway.listings.forget(id),
            Copy::Damaged(what) => gateway.alarm(Alarm::ObjectDamaged, path.as_ref(), &what),
        }
        seen.lost.push(digest);
    }
    // Footage that vanished since it was listed may have been lawfully deleted meanwhile.
    let (found, _) = gateway.listings.of(&gateway.vault, id, began).await?;
    Ok(if found.expired {
        Lookup::Expired
    } else {
        Lookup::Stored(seen)
    })
}

/// Whether the manifest itself is stored, durably: offered again, it costs one look and no write.
async fn is_kept(
    gateway: &Gateway,
    manifest: &Manifest,
    item: Item,
    found: &Found,
) -> Result<bool, VaultError> {
    if !is_listed(found, item, manifest.digest()) {
        return Ok(false);
    }
    let path = layout::key(manifest.recording(), item);
    let length = u64::try_from(manifest.bytes().len()).unwrap_or(u64::MAX);
    Ok(gateway
        .vault
        .check(&path, length, manifest.digest())
        .await?
        == Copy::Good)
}

fn named(manifest: &Manifest) -> impl Iterator<Item = (Item, Digest, u64)> + '_ {
    let header = manifest.body().header;
    let first = (
        Item::Header {
            digest: header.digest,
        },
        header.digest,
        u64::from(header.length),
    );
    let segments = manifest.body().segments.iter();
    let segments = segments.map(|s| {
        (
            Item::Segment {
                seq: s.seq,
                digest: s.digest,
            },
            s.digest,
            u64::from(s.length),
        )
    });
    std::iter::once(first).chain(segments)
}

fn is_listed(found: &Found, item: Item, digest: Digest) -> bool {
    let among = |all: &[Object]| all.iter().any(|o| o.digest == digest);
    match item {
        Item::Header { .. } => among(&found.headers),
        Item::Segment { seq, .. } => found.segments.get(&seq).is_some_and(|all| among(all)),
        Item::Manifest { index, .. } => found.manifests.get(&index).is_some_and(|all| among(all)),
        Item::Expired => false,
    }
}

/// The name of an item's kind in metrics.
#[must_use]
pub fn kind(item: Item) -> &'static str {
    match item {
        Item::Manifest { .. } => "manifest",
        Item::Header { .. } => "header",
        Item::Segment { .. } => "segment",
        Item::Expired => "expired",
    }
}

fn conflicts(gateway: &Gateway, manifest: &Manifest, found: &Arc<Found>) {
    let id = manifest.recording().full();
    let body = manifest.body();
    let other = |all: &[Object], digest| {
        all.iter()
            .find(|o| o.digest != digest)
            .map(|o| o.path.to_string())
    };
    let raise = |what: &str, path: Option<String>| {
        if let Some(path) = path {
            gateway.alarm(
                Alarm::Conflict,
                &id,
                &format!("{what}, and {path} is stored"),
            );
        }
    };
    let manifests = found
        .manifests
        .get(&body.index)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let claim = format!(
        "manifest {} with index {} was offered",
        manifest.digest(),
        body.index
    );
    raise(&claim, other(manifests, manifest.digest()));
    let claim = format!(
        "manifest {} names header {}",
        manifest.digest(),
        body.header.digest
    );
    raise(&claim, other(&found.headers, body.header.digest));
    for s in &body.segments {
        let stored = found
            .segments
            .get(&s.seq)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let claim = format!(
            "manifest {} names segment {} with digest {}",
            manifest.digest(),
            s.seq,
            s.digest
        );
        raise(&claim, other(stored, s.digest));
    }
}

/// Notes in the log and the alarms how a put ended.
pub(crate) fn after_put(gateway: &Gateway, item: Item, path: &str, length: usize, put: &Put) {
    match put {
        Put::New => gateway.metrics.stored(kind(item), length),
        Put::Already => gateway
            .metrics
            .already
            .with_label_values(&[kind(item)])
            .inc(),
        Put::Mended(what) => {
            gateway.alarm(Alarm::ObjectDamaged, path, what);
            gateway.alarms.clear(Alarm::ObjectDamaged, path);
            gateway.metrics.stored(kind(item), length);
        }
    }
}
