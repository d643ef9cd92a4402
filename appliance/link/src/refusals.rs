//! How many peers were refused, by reason: read by metrics, counted where the refusal is logged.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use protocol::identity::IdentityError;

/// No certificate came.
pub const NO_CERTIFICATE: &str = "no_certificate";
/// No common protocol name (ALPN).
pub const WRONG_PROTOCOL: &str = "wrong_protocol";
/// The handshake did not end in time.
pub const HANDSHAKE_TIMEOUT: &str = "handshake_timeout";
/// The handshake failed in another way.
pub const HANDSHAKE: &str = "handshake";
/// Too many handshakes were under way.
pub const OVERLOAD: &str = "overload";

const OTHERS: [&str; 5] = [
    NO_CERTIFICATE,
    WRONG_PROTOCOL,
    HANDSHAKE_TIMEOUT,
    HANDSHAKE,
    OVERLOAD,
];
const KINDS: usize = IdentityError::REASONS.len() + OTHERS.len();

/// Counters by reason. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Refusals(Arc<[AtomicU64; KINDS]>);

impl Refusals {
    /// All at zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// Every reason with its count, also those at zero.
    #[must_use]
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        reasons()
            .zip(self.0.iter().map(|n| n.load(Ordering::Relaxed)))
            .collect()
    }
    /// The count of one reason; 0 for a word that is none.
    #[must_use]
    pub fn count(&self, reason: &str) -> u64 {
        self.counts()
            .iter()
            .find(|(word, _)| *word == reason)
            .map_or(0, |(_, n)| *n)
    }
    pub(crate) fn add(&self, reason: &'static str) {
        let counter = reasons()
            .zip(self.0.iter())
            .find(|(word, _)| *word == reason);
        debug_assert!(counter.is_some(), "{reason} is not a listed reason");
        if let Some((_, counter)) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn reasons() -> impl Iterator<Item = &'static str> {
    IdentityError::REASONS.into_iter().chain(OTHERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_reason() {
        let refusals = Refusals::new();
        for reason in reasons() {
            refusals.clone().add(reason);
        }
        refusals.add(OVERLOAD);
        assert!(
            refusals
                .counts()
                .iter()
                .all(|(word, n)| *n == if *word == OVERLOAD { 2 } else { 1 })
        );
        assert_eq!(refusals.count("revoked"), 1);
        assert_eq!(refusals.count("nonsense"), 0);
    }
}
