//! The disk as a power cut leaves it: everything up to a FLUSH, and of what was written after it any part, in any order,
//! torn between sectors.
//!
//! That is all that a disk with a volatile cache promises, and all that ext4 asks of it (FLUSH and FUA). What was written
//! with FUA counts from its completion. XFS asks for more: its recovery skips a block whose head is newer than the log, so
//! that a block of which only the head was written stays broken; on it, writes tear between blocks. And ext4 has one
//! superblock that it looks at, which has a sum and is in no journal: the disk's first block does not tear.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use link::random::Random;

use super::blocks::{BlockLog, SECTOR};
use crate::chance::shuffle;

const CHUNK: usize = 64 << 10;
/// Sectors of the disk's first block.
const FIRST_BLOCK: u64 = 8;

/// A moment at which the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cut {
    /// Entries that are done and durable, the last of them a FLUSH.
    pub durable: usize,
    /// Entries that were issued: of those beyond `durable` any part may be on the disk.
    pub issued: usize,
    /// Decides which part; none: none of them.
    pub seed: Option<u64>,
}

/// Every cut of a record from its entry `from` on: at each FLUSH, and `parts` times somewhere between it and the next.
#[must_use]
pub fn cuts(log: &BlockLog, from: usize, parts: u32, seed: u64) -> Vec<Cut> {
    let flushes: Vec<usize> = (from..log.entries.len())
        .filter(|i| log.entries[*i].is_flush())
        .map(|i| i + 1)
        .collect();
    let last = log.entries.len();
    let ends = flushes.iter().skip(1).chain([&last]);
    let random = Random::seeded(seed);
    let mut all = Vec::new();
    for (durable, end) in flushes.iter().zip(ends) {
        let (durable, issued) = (*durable, *durable);
        all.push(Cut {
            durable,
            issued,
            seed: None,
        });
        let between = (end - durable) as u64;
        for _ in 0..parts.min(u32::try_from(between).unwrap_or(u32::MAX)) {
            let more = 1 + usize::try_from(random.u64() % between).unwrap();
            all.push(Cut {
                durable,
                issued: durable + more,
                seed: Some(random.u64()),
            });
        }
    }
    all
}

/// Plays a record back, cut by cut in ascending order.
#[derive(Debug)]
pub struct Replay<'a> {
    log: &'a BlockLog,
    bytes: u64,
    piece: usize,
    disk: Chunks,
    done: usize,
}

type Chunks = BTreeMap<u64, Box<[u8]>>;

impl<'a> Replay<'a> {
    /// An empty disk of so many bytes, whose writes tear into pieces of so many sectors.
    #[must_use]
    pub fn new(log: &'a BlockLog, bytes: u64, piece: usize) -> Replay<'a> {
        Replay {
            log,
            bytes,
            piece,
            disk: Chunks::new(),
            done: 0,
        }
    }

    /// Writes the disk as it is after `cut` to a file.
    ///
    /// # Panics
    /// Where an earlier cut is asked for, or the file cannot be written.
    pub fn image(&mut self, cut: Cut, path: &Path) {
        assert!(cut.durable >= self.done, "cuts are played back in order");
        for entry in &self.log.entries[self.done..cut.durable] {
            if entry.writes() {
                write(&mut self.disk, entry.sector, &self.log.data(entry));
            }
        }
        self.done = cut.durable;
        let over = self.part(cut);
        let file = File::create(path).unwrap();
        file.set_len(self.bytes).unwrap();
        for (n, chunk) in &self.disk {
            if !over.contains_key(n) {
                file.write_all_at(chunk, n * CHUNK as u64).unwrap();
            }
        }
        for (n, chunk) in &over {
            file.write_all_at(chunk, n * CHUNK as u64).unwrap();
        }
    }

    /// The chunks that the part of the unsynced writes changes.
    fn part(&self, cut: Cut) -> Chunks {
        let mut over = Chunks::new();
        let Some(seed) = cut.seed else { return over };
        let random = Random::seeded(seed);
        let below = |n: u64| random.u64() % n;
        let kept_of_8 = 1 + below(7);
        let mut kept: Vec<_> = self.log.entries[cut.durable..cut.issued]
            .iter()
            .filter(|e| e.writes() && (e.is_durable() || below(8) < kept_of_8))
            .collect();
        shuffle(&mut kept, &random);
        let torn = (below(2) == 0 && !kept.is_empty()).then(|| below(kept.len() as u64));
        for (i, entry) in kept.iter().enumerate() {
            let data = self.log.data(entry);
            let is_torn =
                Some(i as u64) == torn && !entry.is_durable() && entry.sector >= FIRST_BLOCK;
            for (n, piece) in data.chunks(SECTOR * self.piece).enumerate() {
                if is_torn && below(2) == 0 {
                    continue;
                }
                let sector = entry.sector + (n * self.piece) as u64;
                for (i, bytes) in piece.chunks(SECTOR).enumerate() {
                    self.copy_up(&mut over, sector + i as u64);
                    write(&mut over, sector + i as u64, bytes);
                }
            }
        }
        over
    }

    fn copy_up(&self, over: &mut Chunks, sector: u64) {
        let n = sector * SECTOR as u64 / CHUNK as u64;
        if !over.contains_key(&n)
            && let Some(chunk) = self.disk.get(&n)
        {
            over.insert(n, chunk.clone());
        }
    }
}

fn write(disk: &mut Chunks, sector: u64, data: &[u8]) {
    for (i, bytes) in data.chunks(SECTOR).enumerate() {
        let at = (sector + i as u64) * SECTOR as u64;
        let (n, within) = (
            at / CHUNK as u64,
            usize::try_from(at % CHUNK as u64).unwrap(),
        );
        if bytes.iter().all(|b| *b == 0) && !disk.contains_key(&n) {
            continue;
        }
        let chunk = disk
            .entry(n)
            .or_insert_with(|| vec![0; CHUNK].into_boxed_slice());
        chunk[within..within + SECTOR].copy_from_slice(bytes);
    }
}
