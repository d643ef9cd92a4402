//! What a seed decides in the suites: numbers below another, and orders.

use link::random::Random;

/// A number below `n`.
///
/// # Panics
/// Where `n` is 0.
#[must_use]
pub fn below(random: &Random, n: usize) -> usize {
    usize::try_from(random.u64() % n as u64).unwrap()
}

/// Puts a list in an order that the stream decides.
pub fn shuffle<T>(list: &mut [T], random: &Random) {
    for i in (1..list.len()).rev() {
        list.swap(i, below(random, i + 1));
    }
}
