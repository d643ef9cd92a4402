//! A session's signs of life, shared by its pulls: a segment may rightly wait behind others, a camera from which
//! no stream has brought a byte for a while may not. What a camera merely says is no sign of life.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The session's last byte, and how many there were. Clones are the same session's.
#[derive(Clone, Debug)]
pub struct Progress {
    began: Instant,
    last_ms: Arc<AtomicU64>,
    own_ms: Arc<AtomicU64>,
    pulled_bytes: Arc<AtomicU64>,
}

impl Progress {
    /// A session that begins now.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Progress {
            began: now,
            last_ms: Arc::default(),
            own_ms: Arc::default(),
            pulled_bytes: Arc::default(),
        }
    }

    /// Something came, or nothing was asked.
    pub fn alive(&self, now: Instant) {
        let ms = millis(now.saturating_duration_since(self.began));
        self.last_ms.fetch_max(ms, Ordering::Relaxed);
    }

    /// So many bytes of footage came.
    pub fn pulled(&self, bytes: u64, now: Instant) {
        self.pulled_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.alive(now);
    }

    /// Bytes of footage that came.
    #[must_use]
    pub fn pulled_bytes(&self) -> u64 {
        self.pulled_bytes.load(Ordering::Relaxed)
    }

    /// A pull waited for our own storage: the camera could not send meanwhile.
    pub fn waited(&self, since: Instant, now: Instant) {
        let ms = millis(now.saturating_duration_since(since));
        self.own_ms.fetch_add(ms, Ordering::Relaxed);
        self.alive(now);
    }

    /// How long pulls of this session have waited for our own storage, all together.
    #[must_use]
    pub fn own(&self) -> Duration {
        Duration::from_millis(self.own_ms.load(Ordering::Relaxed))
    }

    /// When the last sign of life came, at most `now`.
    #[must_use]
    pub fn last(&self, now: Instant) -> Instant {
        now.min(self.began + Duration::from_millis(self.last_ms.load(Ordering::Relaxed)))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
