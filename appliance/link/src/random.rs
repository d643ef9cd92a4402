//! The seam for randomness: the operating system's, or a seeded stream for the simulation.
//!
//! The seeded stream is predictable and makes no secret; only tests and the simulation construct it. TLS takes
//! its randomness from its own library either way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A source of random bytes. Clones share one stream.
#[derive(Clone, Debug)]
pub struct Random(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Seeded(Arc<AtomicU64>),
}

impl Random {
    /// The operating system's.
    #[must_use]
    pub fn system() -> Self {
        Random(Source::System)
    }
    /// A stream that a seed decides: for simulation, never for keys that must stay secret.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Random(Source::Seeded(Arc::new(AtomicU64::new(seed))))
    }
    /// Fills `bytes`.
    pub fn fill(&self, bytes: &mut [u8]) {
        match &self.0 {
            Source::System => {
                aws_lc_rs::rand::fill(bytes).expect("the operating system gives randomness")
            }
            Source::Seeded(state) => {
                for chunk in bytes.chunks_mut(8) {
                    chunk.copy_from_slice(&split_mix(state).to_le_bytes()[..chunk.len()]);
                }
            }
        }
    }
    /// `N` bytes.
    #[must_use]
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }
    /// A number, for jitter and ids.
    #[must_use]
    pub fn u64(&self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }
}

/// SplitMix64: every state gives another number, and clones on several tasks never repeat one.
fn split_mix(state: &AtomicU64) -> u64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut z = state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_the_system_does_not() {
        let (a, b) = (Random::seeded(7), Random::seeded(7));
        assert_eq!(a.bytes::<37>(), b.bytes::<37>());
        assert_ne!(a.u64(), a.u64());
        assert_ne!(
            Random::system().bytes::<16>(),
            Random::system().bytes::<16>()
        );
    }
}
