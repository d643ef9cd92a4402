//! A session's signs of life, shared by its pulls: a segment may rightly wait behind others, a camera from which
//! no stream has brought a byte for a while may not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The session's last byte, and how many there were. Clones are the same session's.
#[derive(Clone, Debug)]
pub struct Progress {
    began: Instant,
    last_ms: Arc<AtomicU64>,
    pulled_bytes: Arc<AtomicU64>,
}

impl Progress {
    /// A session that begins now.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Progress {
            began: now,
            last_ms: Arc::default(),
            pulled_bytes: Arc::default(),
        }
    }

    /// Something came.
    pub fn alive(&self, now: Instant) {
        let ms = now.saturating_duration_since(self.began).as_millis();
        self.last_ms
            .fetch_max(u64::try_from(ms).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// So many bytes of footage came.
    pub fn pulled(&self, bytes: u64) {
        self.pulled_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes of footage that came.
    #[must_use]
    pub fn pulled_bytes(&self) -> u64 {
        self.pulled_bytes.load(Ordering::Relaxed)
    }

    /// When the last sign of life came, at most `now`.
    #[must_use]
    pub fn last(&self, now: Instant) -> Instant {
        now.min(self.began + Duration::from_millis(self.last_ms.load(Ordering::Relaxed)))
    }

    /// How long ago that was.
    #[must_use]
    pub fn silent_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last(now))
    }
}
