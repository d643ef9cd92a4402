//! The record `erased.log`: which receipts came, what was erased on them, which recordings are gone. Append-only.
//!
//! An entry is `BWCR`, a u32 big-endian length, the first 8 bytes of SHA-256 over the body, and the body in CBOR.
//! Sealer and server both append, each only under the store's custody lock and after reading what the other
//! wrote; so at that moment an incomplete tail is what a crash left, and is cut. A damaged entry in the middle is
//! passed over, loudly: receipts that it held come again, what it says was erased is missing without reason,
//! and the inventory says so.
//!
//! Room is reserved behind the end, so that receipts can be taken, and footage erased, when the disk is full.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use nix::fcntl::FallocateFlags;
use protocol::ids::{Digest, Range, Time};
use protocol::suite;
use tracing::{error, warn};

use crate::disk::{self, DiskError, at};
use crate::limits;

const MAGIC: &[u8; 4] = b"BWCR";
const PREFIX: usize = 16;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Entry {
    /// A receipt that verified when it came, whole.
    #[n(1)]
    Receipt {
        /// The recording's number.
        #[n(0)]
        number: u64,
        /// The signed bytes.
        #[n(1)]
        bytes: ByteVec,
    },
    /// Segments that are erased; stands in the record before the files go.
    #[n(2)]
    Erased {
        /// The recording's number.
        #[n(0)]
        number: u64,
        /// The segments.
        #[n(1)]
        segments: Vec<Range>,
        /// Digests of the receipts that permit it, each in the record before this entry.
        #[n(2)]
        receipts: Vec<Digest>,
        /// By the camera's clock.
        #[n(3)]
        at: Time,
        /// Digest of the recording's header: of whatever else has that number, nothing goes by this entry.
        #[n(4)]
        header: Digest,
    },
    /// A finished recording whose every segment is erased: header and manifests go too.
    #[n(3)]
    Released {
        /// The recording's number.
        #[n(0)]
        number: u64,
        /// Digest of its header.
        #[n(1)]
        header: Digest,
        /// Digest of its last manifest.
        #[n(2)]
        manifest: Digest,
        /// How many segments it had.
        #[n(3)]
        segments: u64,
        /// By the camera's clock.
        #[n(4)]
        at: Time,
    },
}

impl Entry {
    /// The recording that it speaks of.
    pub(crate) fn number(&self) -> u64 {
        match self {
            Entry::Receipt { number, .. }
            | Entry::Erased { number, .. }
            | Entry::Released { number, .. } => *number,
        }
    }
}

/// The record, read up to `end`.
#[derive(Debug)]
pub(crate) struct Record {
    file: File,
    path: PathBuf,
    end: u64,
    reserved: u64,
    /// A sync failed: what this process would read may be in memory only.
    failed: bool,
}

impl Record {
    /// Opens or makes the record at `path`; nothing of it is read yet.
    pub(crate) fn open(path: &Path) -> Result<Record, DiskError> {
        let new = !path.exists();
        let mut options = OpenOptions::new();
        let options = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let file = options.open(path).map_err(at("open", path))?;
        if new {
            file.sync_all().map_err(at("sync", path))?;
            disk::sync_folder(disk::folder_of(path))?;
        }
        Ok(Record {
            file,
            path: path.to_owned(),
            end: 0,
            reserved: 0,
            failed: false,
        })
    }

    /// Whether there is something behind what was read: by another process, or not at all yet.
    pub(crate) fn has_grown(&self) -> Result<bool, DiskError> {
        let length = self
            .file
            .metadata()
            .map_err(at("look at", &self.path))?
            .len();
        Ok(length > self.end)
    }

    /// Reads on from where it was read to, and cuts an incomplete tail. Under the custody lock.
    pub(crate) fn read_on(&mut self, each: &mut dyn FnMut(Entry)) -> Result<(), DiskError> {
        let length = self
            .file
            .metadata()
            .map_err(at("look at", &self.path))?
            .len();
        if self.end < length {
            // Whoever appended may have failed to sync; nothing is done on what could be gone after a power cut.
            self.sync()?;
        }
        while self.end < length {
            if let Some((entry, size)) = self.entry_at(self.end, length)? {
                self.end += size;
                each(entry);
                continue;
            }
            match self.next_whole_entry(length)? {
                Some(next) => {
                    let (bytes, from) = (next - self.end, self.end);
                    error!(path = %self.path.display(), from, bytes, "the record of erasures is damaged: passing over");
                    self.end = next;
                }
                None => {
                    warn!(path = %self.path.display(), bytes = length - self.end, "cutting what a crash left unfinished");
                    self.file.set_len(self.end).map_err(at("cut", &self.path))?;
                    self.file.sync_all().map_err(at("sync", &self.path))?;
                    break;
                }
            }
        }
        self.keep_reserve();
        Ok(())
    }

    fn entry_at(&self, from: u64, length: u64) -> Result<Option<(Entry, u64)>, DiskError> {
        let mut prefix = [0; PREFIX];
        if length - from < PREFIX as u64 {
            return Ok(None);
        }
        self.file
            .read_exact_at(&mut prefix, from)
            .map_err(at("read", &self.path))?;
        let [a, b, c, d] = [prefix[4], prefix[5], prefix[6], prefix[7]];
        let size = u64::from(u32::from_be_bytes([a, b, c, d]));
        let fits =
            size <= limits::RECORD_ENTRY_BYTES as u64 && size <= length - from - PREFIX as u64;
        if &prefix[..4] != MAGIC || !fits {
            return Ok(None);
        }
        let mut body = vec![0; usize::try_from(size).expect("bounded above")];
        self.file
            .read_exact_at(&mut body, from + PREFIX as u64)
            .map_err(at("read", &self.path))?;
        if suite::sha256(&body).0[..8] != prefix[8..] {
            return Ok(None);
        }
        Ok(minicbor::decode(&body)
            .ok()
            .map(|entry| (entry, PREFIX as u64 + size)))
    }

    /// Where the next whole entry begins behind the end, if anywhere.
    fn next_whole_entry(&self, length: u64) -> Result<Option<u64>, DiskError> {
        let mut window = vec![0; 64 * 1024];
        let mut from = self.end + 1;
        while from < length {
            let n = self
                .file
                .read_at(&mut window, from)
                .map_err(at("read", &self.path))?;
            let found = window[..n]
                .windows(MAGIC.len())
                .enumerate()
                .filter(|(_, w)| w == MAGIC);
            for (offset, _) in found {
                let candidate = from + offset as u64;
                if self.entry_at(candidate, length)?.is_some() {
                    return Ok(Some(candidate));
                }
            }
            if n < MAGIC.len() {
                break;
            }
            from += (n - (MAGIC.len() - 1)) as u64;
        }
        Ok(None)
    }

    /// Appends entries, durable on return. Under the custody lock, after [`Record::read_on`].
    pub(crate) fn append(&mut self, entries: &[Entry]) -> Result<(), DiskError> {
        let mut bytes = Vec::new();
        for entry in entries {
            let body = minicbor::to_vec(entry).expect("encoding to memory cannot fail");
            let size = u32::try_from(body.len())
                .ok()
                .filter(|_| body.len() <= limits::RECORD_ENTRY_BYTES);
            let size = size
                .ok_or_else(|| at("append to", &self.path)(io::ErrorKind::FileTooLarge.into()))?;
            bytes.extend_from_slice(MAGIC);
            bytes.extend_from_slice(&size.to_be_bytes());
            bytes.extend_from_slice(&suite::sha256(&body).0[..8]);
            bytes.extend_from_slice(&body);
        }
        if bytes.is_empty() {
            return Ok(());
        }
        self.usable()?; // before anything is cut: what stands behind the end may be another's
        let written = self
            .file
            .write_all_at(&bytes, self.end)
            .map_err(at("append to", &self.path));
        if let Err(error) = written.and_then(|()| self.sync()) {
            let _ = self.file.set_len(self.end); // what stays is an incomplete tail, cut by the next reader
            return Err(error);
        }
        self.end += bytes.len() as u64;
        self.keep_reserve();
        Ok(())
    }

    /// Syncs what is in the file. A failure is final for this process: the page cache would show as whole what is not.
    fn sync(&mut self) -> Result<(), DiskError> {
        self.usable()?;
        let synced = self.file.sync_data().map_err(at("sync", &self.path));
        self.failed = synced.is_err();
        synced
    }

    fn usable(&self) -> Result<(), DiskError> {
        if self.failed {
            let error = io::Error::other("an earlier sync failed; only a new start may go on");
            return Err(at("go on with", &self.path)(error));
        }
        Ok(())
    }

    fn keep_reserve(&mut self) {
        if self.reserved >= self.end + limits::RECORD_RESERVE_BYTES / 2 {
            return;
        }
        let flags = FallocateFlags::FALLOC_FL_KEEP_SIZE;
        match disk::reserve(&self.file, self.end, limits::RECORD_RESERVE_BYTES, flags) {
            Ok(()) => self.reserved = self.end + limits::RECORD_RESERVE_BYTES,
            Err(error) => {
                warn!(%error, path = %self.path.display(), "no room can be reserved for receipts")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn receipt(number: u64) -> Entry {
        Entry::Receipt {
            number,
            bytes: vec![7; 100].into(),
        }
    }

    fn read(path: &Path) -> Vec<Entry> {
        let mut found = Vec::new();
        Record::open(path)
            .unwrap()
            .read_on(&mut |e| found.push(e))
            .unwrap();
        found
    }

    #[test]
    fn entries_read_back_also_those_of_another_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("erased.log");
        let (mut one, mut other) = (Record::open(&path).unwrap(), Record::open(&path).unwrap());
        one.append(&[receipt(1), receipt(2)]).unwrap();
        assert!(other.has_grown().unwrap());
        let mut seen = 0;
        other.read_on(&mut |_| seen += 1).unwrap();
        let erased = Entry::Erased {
            number: 1,
            segments: vec![Range { from: 0, to: 3 }],
            receipts: vec![Digest([1; 32])],
            at: Time(5),
            header: Digest([2; 32]),
        };
        other.append(std::slice::from_ref(&erased)).unwrap();
        assert_eq!(seen, 2);
        assert_eq!(read(&path), [receipt(1), receipt(2), erased]);
    }

    #[test]
    fn after_a_failed_sync_nothing_is_appended_or_read_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("erased.log");
        let (mut one, mut other) = (Record::open(&path).unwrap(), Record::open(&path).unwrap());
        one.failed = true;
        other.append(&[receipt(1)]).unwrap();
        assert!(one.read_on(&mut |_| panic!("acted on")).is_err());
        assert!(one.append(&[receipt(2)]).is_err());
        assert_eq!(read(&path), [receipt(1)], "nor is another's entry cut");
    }

    #[test]
    fn a_torn_tail_is_cut_at_every_length_and_damage_costs_its_entry_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("erased.log");
        let mut record = Record::open(&path).unwrap();
        record.append(&[receipt(1)]).unwrap();
        let one = record.end;
        record.append(&[receipt(2)]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for cut in one..record.end {
            std::fs::write(&path, &whole[..usize::try_from(cut).unwrap()]).unwrap();
            assert_eq!(read(&path), [receipt(1)]);
            assert_eq!(std::fs::metadata(&path).unwrap().len(), one);
        }
        for at in 0..usize::try_from(one).unwrap() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(read(&path), [receipt(2)], "byte {at}");
        }
    }
}
