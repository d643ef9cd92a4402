//! What the store holds of recordings that are being offered, remembered for [`limits::LISTING`]: so that a
//! recording of a thousand segments costs one listing and not one per manifest.
//!
//! A listing is a hint only. What it says to be stored is checked before it is vouched for; what it lacks is
//! asked for, and a put that meets an object another gateway has just written is checked, too. It is how
//! conflicts are seen: this gateway's own writes are added at once. Bounded by names; the oldest go first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use protocol::ids::{Digest, RecordingId};

use crate::found::{self, Found, Object};
use crate::layout::{self, Item};
use crate::limits;
use crate::vault::{Vault, VaultError};

/// Recordings listed lately.
#[derive(Debug, Default)]
pub struct Listings {
    known: Mutex<HashMap<RecordingId, Listed>>,
}

#[derive(Debug)]
struct Listed {
    found: Arc<Found>,
    at: Instant,
}

impl Listings {
    /// The listing of a recording, read again where it is old, and when its reading began.
    ///
    /// # Errors
    /// [`VaultError`].
    pub async fn of(
        &self,
        vault: &Vault,
        id: &RecordingId,
        now: Instant,
    ) -> Result<(Arc<Found>, Instant), VaultError> {
        if let Some(listed) = self
            .lock()
            .get(id)
            .filter(|l| now.saturating_duration_since(l.at) < limits::LISTING)
        {
            return Ok((Arc::clone(&listed.found), listed.at));
        }
        let found = Arc::new(found::recording(vault, id).await?);
        let mut known = self.lock();
        known.insert(
            id.clone(),
            Listed {
                found: Arc::clone(&found),
                at: now,
            },
        );
        make_room(&mut known);
        Ok((found, now))
    }

    /// Forgets a recording: its listing was seen to be wrong.
    pub fn forget(&self, id: &RecordingId) {
        self.lock().remove(id);
    }

    /// This gateway has made an object durable.
    pub fn add(&self, id: &RecordingId, item: Item, length: u64) {
        let mut known = self.lock();
        let Some(listed) = known.get_mut(id) else {
            return;
        };
        let found = Arc::make_mut(&mut listed.found);
        let object = |digest: Digest| Object {
            digest,
            length,
            path: layout::key(id, item),
        };
        let (all, digest) = match item {
            Item::Manifest { index, digest } => (found.manifests.entry(index).or_default(), digest),
            Item::Header { digest } => (&mut found.headers, digest),
            Item::Segment { seq, digest } => (found.segments.entry(seq).or_default(), digest),
            Item::Expired => return,
        };
        if !all.iter().any(|o| o.digest == digest) {
            all.push(object(digest));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RecordingId, Listed>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make_room(known: &mut HashMap<RecordingId, Listed>) {
    let names = |l: &Listed| 1 + l.found.segments.len() + l.found.manifests.len();
    let mut all: usize = known.values().map(names).sum();
    while all > limits::LISTED_NAMES && known.len() > 1 {
        let Some(oldest) = known
            .iter()
            .min_by_key(|(_, l)| l.at)
            .map(|(id, _)| id.clone())
        else {
            return;
        };
        all -= known.remove(&oldest).as_ref().map_or(0, names);
    }
}
