//! The logbook: the append-only, hash-chained record of every custody change, receipt, contact and alarm. It
//! also is where receipts are kept, whole.
//!
//! Layout: `bwclog1\n`, incarnation (16), then entries: length (u32, of what follows), kind (u8), time (u64),
//! body, chain hash (32) = SHA-256(chain hash before, kind, time, body). The first chain hash is the SHA-256 of
//! the 24 bytes before. All numbers are big-endian.
//!
//! Invariants: entries are staged in memory and become part of the logbook by [`Logbook::sync`]; what was
//! synced is never written again; blocks are reserved ahead, one entry and one receipt for each live segment,
//! so that receipts and reclaim work on a full disk. Never holds footage or officers' names.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use protocol::custody::Stage;
use protocol::ids::{Digest, Incarnation, Time};
use protocol::logbook::LogbookHead;
use protocol::suite::{Hasher, sha256};

use crate::error::{AtPath, SpoolError, is_full, is_unreadable};
use crate::faults::Fault;
use crate::folder::{Folder, reserve};
use crate::limits;

const MAGIC: &[u8; 8] = b"bwclog1\n";
const HEADER: usize = 24;
const HASH: usize = 32;
/// Kind, time and chain hash.
const FRAME: usize = 1 + 8 + HASH;

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Segments and the stages they reached.
    Custody {
        /// Bytes that became Held by it.
        bytes: u64,
        /// Each segment or header with its new stage.
        changes: Vec<(Digest, Stage)>,
    },
    /// A receipt, whole.
    Receipt(Vec<u8>),
    /// A contact, an alarm, a command, or the head of the logbook that this one replaces.
    Note(String),
}

impl Entry {
    fn kind(&self) -> u8 {
        match self {
            Entry::Custody { .. } => 1,
            Entry::Receipt(_) => 2,
            Entry::Note(_) => 3,
        }
    }

    fn body(&self) -> Vec<u8> {
        match self {
            Entry::Receipt(bytes) => bytes.clone(),
            Entry::Note(text) => text.as_bytes().to_vec(),
            Entry::Custody { bytes, changes } => {
                let list: Vec<u8> = changes
                    .iter()
                    .flat_map(|(d, s)| d.0.into_iter().chain([*s as u8]))
                    .collect();
                let count = u32::try_from(changes.len()).expect("changes are split at the limit");
                let mut out = count.to_be_bytes().to_vec();
                out.extend(bytes.to_be_bytes());
                out.extend(sha256(&list).0);
                out.extend(list);
                out
            }
        }
    }

    fn parse(kind: u8, body: &[u8]) -> Option<Entry> {
        match kind {
            2 => Some(Entry::Receipt(body.to_vec())),
            3 => Some(Entry::Note(String::from_utf8_lossy(body).into_owned())),
            1 => {
                let (head, list) = body.split_at_checked(4 + 8 + HASH)?;
                let bytes = u64::from_be_bytes(head.get(4..12)?.try_into().ok()?);
                let count = u32::from_be_bytes(head.get(..4)?.try_into().ok()?);
                let items = list.chunks_exact(33);
                if !items.remainder().is_empty() || usize::try_from(count).ok()? != items.len() {
                    return None;
                }
                let change = |c: &[u8]| {
                    Some((
                        Digest::from_slice(c.get(..32)?)?,
                        Stage::from_number(*c.last()?)?,
                    ))
                };
                Some(Entry::Custody {
                    bytes,
                    changes: items.map(change).collect::<Option<_>>()?,
                })
            }
            _ => None,
        }
    }
}

/// A place in the logbook: before the entry that begins there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) offset: u64,
    pub(crate) entries: u64,
    pub(crate) hash: Digest,
}

/// The logbook, open for appending.
#[derive(Debug)]
pub(crate) struct Logbook {
    file: File,
    path: PathBuf,
    incarnation: Incarnation,
    /// The end of what is synced.
    synced: Position,
    /// The end with what is staged.
    end: Position,
    staged: Vec<u8>,
    /// Blocks are reserved up to here.
    reserved: u64,
}

/// An entry as read, with where it lies.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) entry: Entry,
    pub(crate) time: Time,
    /// Where its body begins.
    pub(crate) body_offset: u64,
    /// The place after it.
    pub(crate) after: Position,
}

impl Logbook {
    /// Makes an empty one, synced, under `name`.
    pub(crate) fn create(
        folder: &mut Folder,
        name: &str,
        incarnation: Incarnation,
    ) -> Result<Logbook, SpoolError> {
        let mut header = MAGIC.to_vec();
        header.extend(incarnation.0);
        folder.write_durably(name, &header)?;
        let (logbook, _) = Logbook::open(folder, name)?.expect("it was just written");
        Ok(logbook)
    }

    /// Opens the one of that name; none where there is no such file or its first bytes are not a logbook's.
    /// Its end is where its header ends: [`Logbook::read`] and [`Logbook::cut_after`] find the true one.
    pub(crate) fn open(
        folder: &Folder,
        name: &str,
    ) -> Result<Option<(Logbook, Position)>, SpoolError> {
        let path = folder.path(name);
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.at(&path)?,
        };
        let mut header = [0; HEADER];
        if file.metadata().at(&path)?.len() < HEADER as u64
            || file.read_exact_at(&mut header, 0).is_err()
            || !header.starts_with(MAGIC)
        {
            return Ok(None);
        }
        let incarnation = Incarnation::from_slice(&header[8..]).expect("16 bytes are left");
        let start = Position {
            offset: HEADER as u64,
            entries: 0,
            hash: sha256(&header),
        };
        let logbook = Logbook {
            file,
            path,
            incarnation,
            synced: start,
            end: start,
            staged: Vec::new(),
            reserved: HEADER as u64,
        };
        Ok(Some((logbook, start)))
    }

    /// The entry at `at`; none where none is whole there: the end, a torn tail, or damage.
    pub(crate) fn read(&self, at: Position) -> Result<Option<Read>, SpoolError> {
        let mut length = [0; 4];
        let mut bytes = Vec::new();
        let get = |buffer: &mut [u8], offset| match self.file.read_exact_at(buffer, offset) {
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
            other => other.map(|()| true).at(&self.path),
        };
        if !get(&mut length, at.offset)? {
            return Ok(None);
        }
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if !(FRAME..=limits::LOGBOOK_ENTRY_BYTES).contains(&length) {
            return Ok(None);
        }
        bytes.resize(length, 0);
        if !get(&mut bytes, at.offset + 4)? {
            return Ok(None);
        }
        let (said, hash) = bytes.split_at(length - HASH);
        let chained = chain(at.hash, said);
        let Some((head, body)) = said.split_first_chunk::<9>() else {
            return Ok(None);
        };
        let [kind, time @ ..] = *head;
        let Some(entry) = Entry::parse(kind, body) else {
            return Ok(None);
        };
        let after = Position {
            offset: at.offset + 4 + length as u64,
            entries: at.entries + 1,
            hash: chained,
        };
        Ok((chained.0 == hash).then_some(Read {
            entry,
            time: Time(u64::from_be_bytes(time)),
            body_offset: at.offset + 4 + 9,
            after,
        }))
    }

    /// Whether its file goes as far as `at`, and the entry that ends there has that chain hash.
    pub(crate) fn passes(&self, at: Position) -> Result<bool, SpoolError> {
        if at.entries == 0 {
            return Ok(true);
        }
        let hash = self.bytes_in_file(at.offset.saturating_sub(HASH as u64), HASH)?;
        Ok(hash.is_some_and(|h| h == at.hash.0))
    }

    /// Goes on after `at`: what lies behind is a torn tail and is cut off.
    pub(crate) fn cut_after(&mut self, at: Position, folder: &Folder) -> Result<u64, SpoolError> {
        let torn = self
            .file
            .metadata()
            .at(&self.path)?
            .len()
            .saturating_sub(at.offset);
        if torn > 0 {
            self.file.set_len(at.offset).at(&self.path)?;
            self.file
                .sync_all()
                .map_err(|e| folder.suspect("logbook", e))?;
        }
        self.synced = at;
        self.end = at;
        self.reserved = at.offset;
        Ok(torn)
    }

    /// Takes `at`, the place after an entry that was just read, for the end.
    pub(crate) fn go_to(&mut self, at: Position) {
        self.synced = at;
        self.end = at;
    }

    /// Stages an entry; it says where the entry's body will lie.
    pub(crate) fn stage(&mut self, entry: &Entry, now: Time) -> u64 {
        let mut said = vec![entry.kind()];
        said.extend(now.0.to_be_bytes());
        said.extend(entry.body());
        let hash = chain(self.end.hash, &said);
        let length = u32::try_from(said.len() + HASH).expect("entries are bounded");
        let body_offset = self.end.offset + 4 + 9;
        self.staged.extend(length.to_be_bytes());
        self.staged.extend(said);
        self.staged.extend(hash.0);
        let offset = self.end.offset + 4 + u64::from(length);
        self.end = Position {
            offset,
            entries: self.end.entries + 1,
            hash,
        };
        body_offset
    }

    /// Writes and syncs what is staged. On [`SpoolError::Io`] for a full disk nothing is lost: what is
    /// staged stays so.
    pub(crate) fn sync(&mut self, folder: &Folder) -> Result<(), SpoolError> {
        if self.staged.is_empty() {
            return Ok(());
        }
        self.file
            .write_all_at(&self.staged, self.synced.offset)
            .at(&self.path)?;
        let synced = if folder.faults.has(Fault::LogbookSyncFails) {
            Err(std::io::Error::from_raw_os_error(nix::libc::EIO))
        } else {
            self.file.sync_data()
        };
        synced.map_err(|e| folder.suspect("logbook", e))?;
        self.synced = self.end;
        self.staged.clear();
        Ok(())
    }

    /// Reserves room for `live_segments`; false where the disk has none.
    pub(crate) fn reserve(&mut self, live_segments: u64) -> Result<bool, SpoolError> {
        let room =
            live_segments.saturating_mul(limits::LOGBOOK_ROOM_PER_SEGMENT) + limits::LOGBOOK_ROOM;
        let wanted = self.end.offset + room;
        if wanted <= self.reserved {
            return Ok(true);
        }
        // A step ahead, so that this is not asked for each segment.
        let to = wanted + limits::LOGBOOK_ROOM;
        match reserve(&self.file, self.reserved, to - self.reserved, true) {
            Ok(()) => {
                self.reserved = to;
                Ok(true)
            }
            Err(e) if is_full(&e) => Ok(false),
            Err(e) => Err(e).at(&self.path),
        }
    }

    /// Bytes that an earlier entry holds at `offset`, staged or synced.
    pub(crate) fn bytes_at(&self, offset: u64, length: usize) -> Result<Vec<u8>, SpoolError> {
        if let Some(at) = offset.checked_sub(self.synced.offset) {
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            let found = self.staged.get(at..).and_then(|s| s.get(..length));
            return found.map(<[u8]>::to_vec).ok_or_else(|| {
                SpoolError::Contradiction("a receipt beyond the logbook's end".into())
            });
        }
        let mut bytes = vec![0; length.min(limits::LOGBOOK_ENTRY_BYTES)];
        self.file.read_exact_at(&mut bytes, offset).at(&self.path)?;
        Ok(bytes)
    }

    /// Bytes at `offset` of its file, whatever of it is acknowledged; none beyond its end, or where it cannot be read.
    pub(crate) fn bytes_in_file(
        &self,
        offset: u64,
        length: usize,
    ) -> Result<Option<Vec<u8>>, SpoolError> {
        let mut bytes = vec![0; length.min(limits::LOGBOOK_ENTRY_BYTES)];
        match self.file.read_exact_at(&mut bytes, offset) {
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof || is_unreadable(&e) => {
                Ok(None)
            }
            other => other.map(|()| Some(bytes)).at(&self.path),
        }
    }

    /// The end with what is staged.
    pub(crate) fn end(&self) -> Position {
        self.end
    }
    /// The end of what is synced.
    pub(crate) fn synced(&self) -> Position {
        self.synced
    }
    /// Bytes that wait for the next sync.
    pub(crate) fn staged_bytes(&self) -> usize {
        self.staged.len()
    }
    /// Blocks reserved for it, in bytes.
    pub(crate) fn reserved(&self) -> u64 {
        self.reserved.max(self.end.offset)
    }
    /// Its incarnation.
    pub(crate) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }
    /// The head of what is synced.
    pub(crate) fn head(&self) -> LogbookHead {
        LogbookHead {
            incarnation: self.incarnation,
            entries: self.synced.entries,
            hash: self.synced.hash,
        }
    }
    /// Its file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn chain(before: Digest, said: &[u8]) -> Digest {
    let mut hasher = Hasher::new();
    hasher.update(&before.0);
    hasher.update(said);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::faults::Faults;

    fn setup(faults: Faults) -> (tempfile::TempDir, Folder, Logbook) {
        let dir = tempfile::tempdir().unwrap();
        let mut folder =
            Folder::open(&dir.path().join("spool"), &dir.path().join("run"), faults).unwrap();
        let logbook = Logbook::create(&mut folder, "logbook", Incarnation([9; 16])).unwrap();
        (dir, folder, logbook)
    }

    fn entries(folder: &Folder) -> (Vec<Entry>, Position) {
        let (logbook, mut at) = Logbook::open(folder, "logbook").unwrap().unwrap();
        let mut all = Vec::new();
        while let Some(read) = logbook.read(at).unwrap() {
            all.push(read.entry);
            at = read.after;
        }
        (all, at)
    }

    fn three() -> [Entry; 3] {
        [
            Entry::Custody {
                bytes: 5,
                changes: vec![
                    (Digest([1; 32]), Stage::Held),
                    (Digest([2; 32]), Stage::Announced),
                ],
            },
            Entry::Receipt(vec![7; 300]),
            Entry::Note("camera came".into()),
        ]
    }

    #[test]
    fn what_is_synced_is_read_and_what_is_staged_is_not() {
        let (_dir, folder, mut logbook) = setup(Faults::none());
        assert!(logbook.reserve(10).unwrap());
        let offsets: Vec<u64> = three().iter().map(|e| logbook.stage(e, Time(1))).collect();
        assert_eq!(logbook.bytes_at(offsets[1], 300).unwrap(), vec![7; 300]);
        assert_eq!(entries(&folder).0, []);
        logbook.sync(&folder).unwrap();
        assert_eq!(logbook.bytes_at(offsets[1], 300).unwrap(), vec![7; 300]);
        assert_eq!(entries(&folder), (three().to_vec(), logbook.end()));
        assert_eq!(logbook.head().entries, 3);
    }

    #[test]
    fn every_torn_tail_is_cut_at_the_last_whole_entry() {
        let (_dir, folder, mut logbook) = setup(Faults::none());
        three().iter().for_each(|e| _ = logbook.stage(e, Time(1)));
        logbook.sync(&folder).unwrap();
        let whole = std::fs::read(logbook.path()).unwrap();
        for cut in 24..whole.len() {
            std::fs::write(logbook.path(), &whole[..cut]).unwrap();
            let (found, at) = entries(&folder);
            assert!(found.len() < 3 && three().starts_with(&found));
            let (mut again, _) = Logbook::open(&folder, "logbook").unwrap().unwrap();
            assert_eq!(
                again.cut_after(at, &folder).unwrap(),
                cut as u64 - at.offset
            );
            again.stage(&Entry::Note("on".into()), Time(2));
            again.sync(&folder).unwrap();
            assert_eq!(entries(&folder).0.len(), found.len() + 1);
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_ends_the_chain() {
        let (_dir, folder, mut logbook) = setup(Faults::none());
        three().iter().for_each(|e| _ = logbook.stage(e, Time(1)));
        logbook.sync(&folder).unwrap();
        let whole = std::fs::read(logbook.path()).unwrap();
        for at in 8..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 4;
            std::fs::write(logbook.path(), &bytes).unwrap();
            assert!(entries(&folder).0.len() < 3, "byte {at}");
        }
    }

    #[test]
    fn a_failed_sync_is_suspect() {
        let (_dir, folder, mut logbook) = setup(Faults::of(&[Fault::LogbookSyncFails]));
        logbook.stage(&Entry::Note("x".into()), Time(1));
        assert!(matches!(
            logbook.sync(&folder),
            Err(SpoolError::Suspect { .. })
        ));
        assert!(folder.is_suspect());
    }
}
