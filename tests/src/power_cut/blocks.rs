//! The record of a block device: every write, in the order in which it was done, and every FLUSH.
//!
//! The format is that of the kernel's `dm-log-writes` (Documentation/admin-guide/device-mapper/log-writes.rst), as
//! `qemu-storage-daemon`'s `blklogwrites` writes it: a superblock, then for each entry a sector that describes it and
//! the data it wrote. The count in the superblock lags, so entries are read until one is empty.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of a sector: the unit in which a disk tears.
pub const SECTOR: usize = 512;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;

/// One thing that was done to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The first sector written.
    pub sector: u64,
    /// Sectors written.
    pub sectors: u64,
    flags: u64,
    data: u64,
}

impl Entry {
    /// Whether what was written before it is durable from here on.
    #[must_use]
    pub fn is_flush(&self) -> bool {
        self.flags & FLUSH != 0
    }
    /// Whether it is durable by itself.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.flags & FUA != 0
    }
    /// Whether it brings data.
    #[must_use]
    pub fn writes(&self) -> bool {
        self.flags & DISCARD == 0 && self.sectors > 0
    }
}

/// The record.
#[derive(Debug)]
pub struct BlockLog {
    file: File,
    /// What was done, in order.
    pub entries: Vec<Entry>,
}

impl BlockLog {
    /// Reads what was recorded so far.
    ///
    /// # Panics
    /// Where it is no such record.
    #[must_use]
    pub fn read(path: &Path) -> BlockLog {
        let file = File::open(path).unwrap();
        let length = file.metadata().unwrap().len();
        let mut head = [0; 28];
        file.read_exact_at(&mut head, 0).unwrap();
        assert_eq!(number(&head, 0), MAGIC, "{} is no record", path.display());
        let sector = u32::from_le_bytes(head[24..28].try_into().unwrap());
        assert_eq!(usize::try_from(sector).unwrap(), SECTOR);
        let mut entries = Vec::new();
        let mut at = SECTOR as u64;
        let mut bytes = [0; 32];
        while at + SECTOR as u64 <= length {
            file.read_exact_at(&mut bytes, at).unwrap();
            at += SECTOR as u64;
            let entry = Entry {
                sector: number(&bytes, 0),
                sectors: number(&bytes, 8),
                flags: number(&bytes, 16),
                data: at,
            };
            if entry.sectors == 0 && entry.flags == 0 {
                break;
            }
            if entry.writes() {
                at += entry.sectors * SECTOR as u64;
            }
            entries.push(entry);
        }
        BlockLog { file, entries }
    }

    /// What an entry wrote.
    ///
    /// # Panics
    /// Where the record is cut there.
    #[must_use]
    pub fn data(&self, entry: &Entry) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(entry.sectors).unwrap() * SECTOR];
        self.file.read_exact_at(&mut bytes, entry.data).unwrap();
        bytes
    }
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn writes_and_flushes_are_read_in_order_and_the_end_is_found() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut sector = |words: &[u64]| {
            let mut bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
            bytes.resize(SECTOR, 0);
            file.write_all(&bytes).unwrap();
        };
        sector(&[MAGIC, 1, 0, SECTOR as u64]);
        sector(&[7, 2, 0, 0]);
        sector(&[1, 1]);
        sector(&[2, 2]);
        sector(&[0, 0, FLUSH, 0]);
        sector(&[0, 8, DISCARD, 0]);
        sector(&[9, 1, FUA, 0]);
        sector(&[3, 3]);
        sector(&[]);
        let log = BlockLog::read(file.path());
        let seen: Vec<_> = log
            .entries
            .iter()
            .map(|e| (e.sector, e.writes(), e.is_flush(), e.is_durable()))
            .collect();
        let expected = [
            (7, true, false, false),
            (0, false, true, false),
            (0, false, false, false),
            (9, true, false, true),
        ];
        assert_eq!(seen, expected);
        let written = log.data(&log.entries[0]);
        assert_eq!((written[0], written[SECTOR], written.len()), (1, 2, 1024));
        assert_eq!(log.data(&log.entries[3])[0], 3);
    }
}
