//! The ledger: sled 0.34.7 as a small index, with what it does not promise added here (FACTS: its `flush` does
//! not reach the platter, it drops rows silently on a flipped bit, a killed snapshot stops its next open, its settings are
//! never synced).
//!
//! Invariants: changes are staged in memory, seen by every read at once, and become rows in one batch by
//! [`Ledger::sync`], with the place in the logbook that they belong to. A sum over all rows is kept with them
//! and compared at every open: a row that is missing or altered is a [`SpoolError::Contradiction`], upon which
//! the caller rebuilds. A process that dies while opening or closing it leaves a mark ([`doubt`]), and the next one
//! rebuilds too; a power cut in there leaves none, and needs none.

mod doubt;
mod files;
pub(crate) mod renew;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::iter::Peekable;
use std::path::{Path, PathBuf};
use std::time::Duration;

use minicbor::{Decode, Encode};
use protocol::ids::Digest;
use protocol::ids::Incarnation;
use protocol::suite::Hasher;

use crate::error::{AtPath, SpoolError, is_full};
use crate::faults::Fault;
use crate::folder::Folder;
use crate::limits;
use crate::logbook::Position;
use crate::rows::{Key, key, tag};
use crate::scrub::Cursor;
use doubt::Doubt;
use files::{remove_stale_snapshots, sync_its_files};
use renew::Renewals;
use watch::Watched;

/// Where the logbook stood when the rows were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) incarnation: Incarnation,
    pub(crate) position: Position,
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct MarkRow {
    #[n(0)]
    incarnation: Incarnation,
    #[n(1)]
    offset: u64,
    #[n(2)]
    entries: u64,
    #[n(3)]
    hash: Digest,
    #[cbor(n(4), with = "minicbor::bytes")]
    sum: [u8; 16],
    /// Where the scrub is; none where a release wrote it that did not keep that.
    #[n(5)]
    scrub: Option<Cursor>,
}

/// How often, and how far apart, an open is tried while sled's threads still hold the file: 5 s in all.
const OPEN_TRIES: u32 = 500;
const OPEN_PAUSE: Duration = Duration::from_millis(10);

type Item = Result<(Key, Vec<u8>), SpoolError>;

/// The ledger, open.
pub(crate) struct Ledger {
    /// None only while it is opened anew.
    db: Option<Watched>,
    file: File,
    path: PathBuf,
    doubt: Doubt,
    staged: BTreeMap<Key, Option<Vec<u8>>>,
    sum: u128,
    renewals: Renewals,
    /// Where the scrub is: written with the mark.
    pub(crate) scrub: Option<Cursor>,
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ledger({})", self.path.display())
    }
}

impl Ledger {
    /// Makes an empty one, in place of whatever is there.
    pub(crate) fn create(folder: &Folder, name: &str) -> Result<Ledger, SpoolError> {
        let path = folder.path(name);
        if path.exists() {
            fs::remove_dir_all(&path).at(&path)?;
        }
        let ledger = Ledger::open_at(folder, name)?;
        sync_its_files(folder, &path)?;
        for dir in [path.as_path(), path.parent().unwrap_or(&path)] {
            folder.sync_path(dir)?;
        }
        Ok(ledger)
    }

    /// Opens the one of that name, showing every row to `each`; the mark is none for one that was never synced, and
    /// `known` also where other rows are wrong.
    pub(crate) fn open(
        folder: &Folder,
        name: &str,
        known: &mut Option<Mark>,
        mut each: impl FnMut(&[u8], &[u8]) -> Result<(), SpoolError>,
    ) -> Result<(Ledger, Option<Mark>), SpoolError> {
        let doubt = Doubt::of(folder, name)?;
        if doubt.was_left()? {
            return Err(SpoolError::Contradiction(
                "the last process ended while it opened or closed the ledger".into(),
            ));
        }
        doubt.begin()?;
        let mut read = || {
            let mut ledger = Ledger::open_at(folder, name)?;
            let mark: Option<MarkRow> = ledger.get(&mark_key())?;
            *known = mark.as_ref().map(MarkRow::mark);
            let mut sum = 0u128;
            for item in ledger.db().iter() {
                let (k, v) = item?;
                if k.first() != Some(&tag::META) {
                    sum = sum.wrapping_add(share(&k, &v));
                    each(&k, &v)?;
                }
            }
            ledger.sum = sum;
            ledger.scrub = mark.as_ref().and_then(|m| m.scrub);
            match &mark {
                Some(m) if m.sum != sum.to_be_bytes() => Err(SpoolError::Contradiction(
                    "rows are missing or altered".into(),
                )),
                None if sum != 0 => {
                    Err(SpoolError::Contradiction("rows without their mark".into()))
                }
                _ => Ok((ledger, mark.map(|m| m.mark()))),
            }
        };
        let result = read();
        doubt.end()?;
        result
    }

    /// The ledger of that name is not the one in which a process has ended.
    pub(crate) fn forget_doubt(folder: &Folder, name: &str) -> Result<(), SpoolError> {
        Doubt::of(folder, name)?.end()
    }

    fn open_at(folder: &Folder, name: &str) -> Result<Ledger, SpoolError> {
        let path = folder.path(name);
        let (db, file) = Ledger::open_db(folder, &path)?;
        Ok(Ledger {
            db: Some(db),
            file,
            path,
            doubt: Doubt::of(folder, name)?,
            staged: BTreeMap::new(),
            sum: 0,
            renewals: Renewals::default(),
            scrub: None,
        })
    }

    fn open_db(folder: &Folder, path: &Path) -> Result<(Watched, File), SpoolError> {
        if !folder.faults.has(Fault::KeepStaleSnapshot) {
            remove_stale_snapshots(path)?;
        }
        sync_its_files(folder, path)?;
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(limits::LEDGER_CACHE_BYTES)
            .flush_every_ms(None);
        let file = path.join("db");
        let before = File::open(&file).ok();
        // A ledger that was just closed here keeps its lock until sled's threads are done with it; another
        // process cannot be it: the folder is locked.
        let mut tries = 0;
        let db = loop {
            match config.open() {
                Err(e)
                    if tries < OPEN_TRIES && e.to_string().contains("could not acquire lock") =>
                {
                    tries += 1;
                    std::thread::sleep(OPEN_PAUSE);
                }
                Err(sled::Error::Io(e)) => return Err(unopened(folder, before.as_ref(), e)),
                other => break other?,
            }
        };
        let watched = Watched::new(db).at(path)?;
        Ok((watched, File::open(&file).at(&file)?))
    }

    /// Opens it anew, with what is staged: after a full disk sled keeps an error that later calls do not clear.
    pub(crate) fn reopen(&mut self, folder: &Folder) -> Result<(), SpoolError> {
        // How much of a batch that failed a copy would have to follow is not known.
        self.renewals.end();
        self.db
            .take()
            .into_iter()
            .for_each(|db| self.doubt.close(db));
        let (db, file) = Ledger::open_db(folder, &self.path)?;
        (self.db, self.file) = (Some(db), file);
        // The batch that met the full disk is in it, or is not: its sum is the one that its mark says.
        let mark: Option<MarkRow> = self.get(&mark_key())?;
        // sled takes what it cannot read for what is not there.
        if mark.is_none() && self.sum != 0 {
            let what = "it was opened again, and has no rows";
            return Err(SpoolError::Contradiction(what.into()));
        }
        self.sum = mark.map_or(0, |m| u128::from_be_bytes(m.sum));
        Ok(())
    }

    fn db(&self) -> &sled::Db {
        self.watched().db()
    }

    fn watched(&self) -> &Watched {
        self.db
            .as_ref()
            .expect("a ledger that did not open again ended the process")
    }

    /// A row.
    pub(crate) fn get<R: for<'b> Decode<'b, ()>>(
        &self,
        key: &[u8],
    ) -> Result<Option<R>, SpoolError> {
        let parse = |bytes: &[u8]| {
            minicbor::decode(bytes).map_err(|e| {
                SpoolError::Contradiction(format!(
                    "a row `{}` does not parse: {e}",
                    char::from(key[0])
                ))
            })
        };
        match self.staged.get(key) {
            Some(staged) => staged.as_deref().map(parse).transpose(),
            None => self.db().get(key)?.as_deref().map(parse).transpose(),
        }
    }

    /// Whether there is such a row.
    pub(crate) fn has(&self, key: &[u8]) -> Result<bool, SpoolError> {
        match self.staged.get(key) {
            Some(staged) => Ok(staged.is_some()),
            None => Ok(self.db().contains_key(key)?),
        }
    }

    /// Stages a row.
    pub(crate) fn put<R: Encode<()>>(&mut self, key: Key, row: &R) {
        let bytes = minicbor::to_vec(row).expect("encoding into memory cannot fail");
        debug_assert!(
            bytes.len() <= limits::ROW_BYTES,
            "rows are bounded by the limits of what they hold"
        );
        self.staged.insert(key, Some(bytes));
    }
    /// Stages a key without a value.
    pub(crate) fn mark(&mut self, key: Key) {
        self.staged.insert(key, Some(Vec::new()));
    }
    /// Stages that a row goes.
    pub(crate) fn delete(&mut self, key: Key) {
        self.staged.insert(key, None);
    }
    /// Rows staged.
    pub(crate) fn staged(&self) -> usize {
        self.staged.len()
    }

    /// The rows whose keys begin with `prefix`, from `from` on, ascending.
    pub(crate) fn scan<'a>(
        &'a self,
        prefix: &[u8],
        from: Option<&[u8]>,
    ) -> impl Iterator<Item = Item> + use<'a> {
        let low = from.unwrap_or(prefix).to_vec();
        let high = after(prefix);
        let rows = self.db().range(low.clone()..high.clone());
        let staged = self.staged.range(low..high);
        Merged {
            rows: rows.peekable(),
            staged: staged.peekable(),
        }
    }

    /// Makes what is staged durable, as of `mark`. Nothing may be told to anybody before it returned.
    pub(crate) fn sync(&mut self, folder: &Folder, mark: Mark) -> Result<(), SpoolError> {
        let mut batch = sled::Batch::default();
        let mut sum = self.sum;
        // What of it lies behind the copy that is being made.
        let copied = self.renewals.fresh.as_ref().map(|f| f.copied.as_slice());
        let (mut behind, mut moved) = (sled::Batch::default(), 0u128);
        for (k, new) in &self.staged {
            let old = self.db().get(k)?;
            let change = new
                .as_deref()
                .map_or(0, |v| share(k, v))
                .wrapping_sub(old.as_deref().map_or(0, |v| share(k, v)));
            sum = sum.wrapping_add(change);
            let is_behind = copied.is_some_and(|c| k.as_slice() <= c);
            if is_behind {
                moved = moved.wrapping_add(change);
            }
            for batch in std::iter::once(&mut batch).chain(is_behind.then_some(&mut behind)) {
                match new {
                    Some(v) => batch.insert(k.as_slice(), v.as_slice()),
                    None if old.is_some() => batch.remove(k.as_slice()),
                    None => {}
                }
            }
        }
        let Mark {
            incarnation,
            position:
                Position {
                    offset,
                    entries,
                    hash,
                },
        } = mark;
        let row = MarkRow {
            incarnation,
            offset,
            entries,
            hash,
            sum: sum.to_be_bytes(),
            scrub: self.scrub,
        };
        let row = minicbor::to_vec(&row).expect("encoding into memory cannot fail");
        if copied.is_some_and(|c| mark_key().as_slice() <= c) {
            behind.insert(mark_key(), row.clone());
        }
        batch.insert(mark_key(), row);
        let written = self.db().apply_batch(batch);
        if let Err(e) = written.and_then(|()| self.watched().flush()) {
            return Err(self.unwritten(folder, e));
        }
        if !folder.faults.has(Fault::NoLedgerSync) {
            self.file
                .sync_data()
                .map_err(|e| folder.suspect("ledger", e))?;
        }
        self.sum = sum;
        self.staged.clear();
        self.follow(folder, behind, moved);
        Ok(())
    }

    /// The same for a ledger that nobody uses yet, which may be left in the middle: in the order of keys, a part at a time, so that
    /// sled writes each of its pages few times. A batch of its own knows no order.
    pub(crate) fn sync_in_parts(&mut self, folder: &Folder, mark: Mark) -> Result<(), SpoolError> {
        let mut rest = std::mem::take(&mut self.staged);
        loop {
            let next = rest.keys().nth(limits::RENEW_ROWS).cloned();
            let after = next.map_or_else(BTreeMap::new, |key| rest.split_off(&key));
            self.staged = std::mem::replace(&mut rest, after);
            self.sync(folder, mark)?;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    /// What follows from a batch that sled could not write. sled syncs what it writes, and who is told of a failed sync first is
    /// the only one: save our own descriptor, which the kernel tells too. A full disk may be met again; nothing else.
    fn unwritten(&self, folder: &Folder, error: sled::Error) -> SpoolError {
        match (error, self.file.sync_data()) {
            (sled::Error::Io(e), Ok(())) if is_full(&e) => sled::Error::Io(e).into(),
            (sled::Error::Io(e), _) | (_, Err(e)) => folder.suspect("ledger", e),
            (e, Ok(())) => e.into(),
        }
    }

    /// Bytes of its files.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.db().size_on_disk().unwrap_or(0)
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.renewals.end();
        self.db
            .take()
            .into_iter()
            .for_each(|db| self.doubt.close(db));
    }
}

/// What follows from an open that sled could not end. It says "full" of a write and of a sync alike; a descriptor from before
/// is told of a failed sync, too, and that is never tried again.
fn unopened(folder: &Folder, before: Option<&File>, error: std::io::Error) -> SpoolError {
    match before.map(File::sync_data) {
        Some(Err(e)) => folder.suspect("ledger", e),
        _ => sled::Error::Io(error).into(),
    }
}

impl MarkRow {
    fn mark(&self) -> Mark {
        let position = Position {
            offset: self.offset,
            entries: self.entries,
            hash: self.hash,
        };
        Mark {
            incarnation: self.incarnation,
            position,
        }
    }
}

fn mark_key() -> Key {
    key(tag::META, &[b"mark"])
}

/// A row's share of the sum.
fn share(k: &[u8], v: &[u8]) -> u128 {
    let mut hasher = Hasher::new();
    hasher.update(&u64::try_from(k.len()).unwrap_or(u64::MAX).to_be_bytes());
    hasher.update(k);
    hasher.update(v);
    let digest = hasher.finish();
    let (half, _) = digest.0.split_first_chunk().expect("a digest has 32 bytes");
    u128::from_be_bytes(*half)
}

/// The first key after all that begin with `prefix`.
fn after(prefix: &[u8]) -> Key {
    let mut key = prefix.to_vec();
    while let Some(last) = key.pop() {
        if last < u8::MAX {
            key.push(last + 1);
            return key;
        }
    }
    vec![u8::MAX; 64]
}

/// The rows of the database with what is staged laid over them.
struct Merged<'a> {
    rows: Peekable<sled::Iter>,
    staged: Peekable<std::collections::btree_map::Range<'a, Key, Option<Vec<u8>>>>,
}

impl Iterator for Merged<'_> {
    type Item = Item;
    fn next(&mut self) -> Option<Item> {
        loop {
            let staged_first = match (self.rows.peek(), self.staged.peek()) {
                (None, None) => return None,
                (Some(Ok((k, _))), Some((s, _))) => s.as_slice() <= &k[..],
                (None, Some(_)) => true,
                (Some(_), _) => false,
            };
            if !staged_first {
                let row = self.rows.next()?;
                return Some(
                    row.map(|(k, v)| (k.to_vec(), v.to_vec()))
                        .map_err(SpoolError::from),
                );
            }
            let (k, v) = self.staged.next()?;
            if matches!(self.rows.peek(), Some(Ok((r, _))) if r[..] == k[..]) {
                self.rows.next();
            }
            if let Some(v) = v {
                return Some(Ok((k.clone(), v.clone())));
            }
        }
    }
}
