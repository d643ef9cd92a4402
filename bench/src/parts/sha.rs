//! SHA-256 as the parties call it, over 4 MiB that lie in RAM, fed in pieces of 64 KiB.

use anyhow::{Result, ensure};
use link::clock::Clock;
use link::random::Random;
use protocol::suite::{Hasher, sha256};

use super::{SEGMENT_BYTES, Sample};
use crate::process::own_cpu_s;

const PIECE: usize = 64 << 10;

/// Hashes one buffer `segments` times.
pub(super) fn run(segments: u64) -> Result<()> {
    let mut segment = vec![0; SEGMENT_BYTES];
    Random::system().fill(&mut segment);
    let expected = sha256(&segment);
    let clock = Clock::system();
    let (began, cpu) = (clock.instant(), own_cpu_s());
    for _ in 0..segments {
        let mut hasher = Hasher::new();
        segment.chunks(PIECE).for_each(|piece| hasher.update(piece));
        ensure!(hasher.finish() == expected, "two digests of the same bytes");
    }
    let wall_s = clock.instant().duration_since(began).as_secs_f64();
    let bytes = segments * SEGMENT_BYTES as u64;
    Sample {
        bytes,
        wall_s,
        cpu_s: own_cpu_s() - cpu,
        ..Sample::default()
    }
    .print();
    Ok(())
}
