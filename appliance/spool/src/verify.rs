//! Verify: every copy, manifest and inventory is read again, and so is the logbook's chain, and compared with what
//! says what it should be. Changes nothing; a step reads so much and says where the next one begins, so that whoever
//! asks keeps a rate and a daemon serves others in between.
//!
//! What it finds wrong it names: the file, the recording, what is wrong, and what to do. A pull that was interrupted,
//! and a tail of the logbook that was never acknowledged, are not wrong. What only a spool that nobody uses can be
//! asked (`look`) is beside it: the rows against what they derive from.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use protocol::custody::Stage;
use protocol::ids::{Digest, RecordingId};

use crate::error::SpoolError;
use crate::logbook::{Entry, Logbook, Position};
use crate::rows::{self, SegmentRow, tag};
use crate::spool::Spool;
use crate::succession::missing_head;

/// Things looked at in one step at most, however small: bounds the answer.
const ITEMS: usize = 256;

pub(crate) const CHECK_DISK: &str = "check the disk (smartctl, dmesg); the running daemon pulls the copy again where its camera still has it";
pub(crate) const ARCHIVED: &str =
    "it is archived: nothing is lost; check the disk (smartctl, dmesg)";
pub(crate) const RECOVER: &str = "stop the daemon and run `repeaterd recover`";
pub(crate) const ASK_CAMERA: &str =
    "start the daemon again: it asks the camera for it; check the disk (smartctl, dmesg)";

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file or folder.
    pub path: PathBuf,
    /// Whose it is, where that is known.
    pub recording: Option<RecordingId>,
    /// The copy that is wrong, if it is one that a row vouches for.
    pub copy: Option<Digest>,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub mend: &'static str,
}

impl Problem {
    pub(crate) fn of(path: &Path, what: impl Into<String>, mend: &'static str) -> Problem {
        Problem {
            path: path.to_owned(),
            recording: None,
            copy: None,
            what: what.into(),
            mend,
        }
    }
}

/// What was read and found good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Good {
    /// Segments and headers.
    pub copies: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Manifests.
    pub manifests: u64,
    /// Inventories.
    pub inventories: u64,
    /// Entries of the logbook.
    pub entries: u64,
    /// Rows of the ledger, compared with what they derive from.
    pub rows: u64,
}

/// Where a step begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyFrom {
    /// Copies, by digest.
    Copies(Digest),
    /// Manifests, by digest.
    Manifests(Digest),
    /// Inventories, by the camera's number here.
    Inventories(u32),
    /// The logbook: offset, entries before it, chain hash.
    Logbook(Option<(u64, u64, Digest)>),
    /// The rows, all at once: only where nobody uses the spool.
    Rows,
}

impl Default for VerifyFrom {
    fn default() -> VerifyFrom {
        VerifyFrom::Copies(Digest([0; 32]))
    }
}

impl fmt::Display for VerifyFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VerifyFrom::Copies(d) => write!(f, "copies {d}"),
            VerifyFrom::Manifests(d) => write!(f, "manifests {d}"),
            VerifyFrom::Inventories(n) => write!(f, "inventories {n}"),
            VerifyFrom::Logbook(None) => write!(f, "logbook"),
            VerifyFrom::Logbook(Some((offset, entries, hash))) => {
                write!(f, "logbook {offset} {entries} {hash}")
            }
            VerifyFrom::Rows => write!(f, "rows"),
        }
    }
}

impl FromStr for VerifyFrom {
    type Err = String;
    fn from_str(text: &str) -> Result<VerifyFrom, String> {
        let words: Vec<&str> = text.split(' ').collect();
        let parsed = match words[..] {
            ["copies", d] => Digest::from_hex(d).map(VerifyFrom::Copies),
            ["manifests", d] => Digest::from_hex(d).map(VerifyFrom::Manifests),
            ["inventories", n] => n.parse().ok().map(VerifyFrom::Inventories),
            ["logbook"] => Some(VerifyFrom::Logbook(None)),
            ["logbook", offset, entries, hash] => offset
                .parse()
                .ok()
                .zip(entries.parse().ok())
                .zip(Digest::from_hex(hash))
                .map(|((offset, entries), hash)| {
                    VerifyFrom::Logbook(Some((offset, entries, hash)))
                }),
            _ => None,
        };
        parsed.ok_or_else(|| format!("`{text}` is no place to verify from"))
    }
}

/// What one step found.
#[derive(Clone, Debug, Default)]
pub struct VerifyStep {
    /// Where the next one begins; none: that was all.
    pub next: Option<VerifyFrom>,
    /// Bytes read.
    pub read_bytes: u64,
    /// What is good.
    pub good: Good,
    /// What is wrong.
    pub problems: Vec<Problem>,
    items: usize,
}

impl VerifyStep {
    /// An empty one, after which another begins there.
    pub(crate) fn before(next: VerifyFrom) -> VerifyStep {
        VerifyStep {
            next: Some(next),
            ..VerifyStep::default()
        }
    }
    pub(crate) fn is_full(&self, budget_bytes: u64) -> bool {
        self.read_bytes >= budget_bytes || self.items >= ITEMS
    }
    pub(crate) fn count(&mut self, bytes: u64) {
        self.items += 1;
        self.read_bytes += bytes;
    }
}

/// The stage that the logbook says of each segment last.
pub(crate) type Stages = HashMap<Digest, Stage>;

impl Spool {
    /// Reads and compares from there on until `budget_bytes` are read.
    ///
    /// # Errors
    /// [`SpoolError`] where the ledger cannot be read; what files hold is in the step.
    pub fn verify_step(
        &self,
        from: VerifyFrom,
        budget_bytes: u64,
    ) -> Result<VerifyStep, SpoolError> {
        match from {
            VerifyFrom::Copies(digest) => self.verify_copies(digest, budget_bytes),
            VerifyFrom::Manifests(digest) => self.verify_manifests(digest, budget_bytes),
            VerifyFrom::Inventories(number) => self.verify_inventories(number, budget_bytes),
            VerifyFrom::Logbook(at) => self.verify_logbook(at, budget_bytes, &mut |_| {}),
            VerifyFrom::Rows => Ok(VerifyStep::default()),
        }
    }

    fn verify_copies(&self, from: Digest, budget_bytes: u64) -> Result<VerifyStep, SpoolError> {
        let mut step = VerifyStep::before(VerifyFrom::Manifests(Digest([0; 32])));
        let from = rows::of(tag::SEGMENT, &from);
        for item in self.books.ledger.scan(&[tag::SEGMENT], Some(&from)) {
            let (key, value) = item?;
            let Some(digest) = rows::digest_at_end(&key) else {
                continue;
            };
            if step.is_full(budget_bytes) {
                step.next = Some(VerifyFrom::Copies(digest));
                break;
            }
            let row: SegmentRow = minicbor::decode(&value)
                .map_err(|e| SpoolError::Contradiction(format!("a segment: {e}")))?;
            if !row.is_whole() {
                continue;
            }
            step.count(row.length.into());
            match self.copy_is_wrong(&digest, row.length) {
                None => {
                    step.good.copies += 1;
                    step.good.bytes += u64::from(row.length);
                }
                Some(what) => step.problems.push(Problem {
                    recording: Some(self.recording_id(&row)?),
                    copy: Some(digest),
                    ..Problem::of(
                        &self.folder.segment(&digest),
                        format!("{what}; it was {}", row.stage()),
                        match row.stage() {
                            Stage::Archived | Stage::Released => ARCHIVED,
                            _ => CHECK_DISK,
                        },
                    )
                }),
            }
        }
        Ok(step)
    }

    /// What is wrong with the bytes of a copy.
    pub(crate) fn copy_is_wrong(&self, digest: &Digest, length: u32) -> Option<String> {
        match self.folder.open_segment(digest, length, false) {
            Ok(Some(_)) => {}
            Ok(None) => return Some("it is gone, has another length, or cannot be opened".into()),
            Err(e) => return Some(format!("it cannot be opened: {e}")),
        }
        match self.folder.digest_on_disk(&self.folder.segment(digest)) {
            Ok(found) if found == *digest => None,
            Ok(_) => Some("its bytes do not match its digest".into()),
            Err(e) => Some(format!("it cannot be read: {e}")),
        }
    }

    fn verify_manifests(&self, from: Digest, budget_bytes: u64) -> Result<VerifyStep, SpoolError> {
        let mut step = VerifyStep::before(VerifyFrom::Inventories(0));
        let from = rows::of(tag::MANIFEST, &from);
        for item in self.books.ledger.scan(&[tag::MANIFEST], Some(&from)) {
            let Some(digest) = rows::digest_at_end(&item?.0) else {
                continue;
            };
            if step.is_full(budget_bytes) {
                step.next = Some(VerifyFrom::Manifests(digest));
                break;
            }
            self.verify_manifest(&digest, &mut step)?;
        }
        Ok(step)
    }

    fn verify_manifest(&self, digest: &Digest, step: &mut VerifyStep) -> Result<(), SpoolError> {
        let path = self.folder.manifest(digest);
        let manifest = match self.read_manifest(&path) {
            Ok(Some(m)) if m.digest() == *digest => m,
            read => {
                step.count(0);
                let what = match read {
                    Ok(_) => "it is no manifest that verifies under this digest".to_owned(),
                    Err(e) => format!("it cannot be read: {e}"),
                };
                let row = self.books.manifest(digest)?;
                let recording = row.map(|r| {
                    let camera = self.books.camera(r.camera)?.id;
                    Ok::<_, SpoolError>(RecordingId {
                        camera,
                        number: r.number,
                    })
                });
                step.problems.push(Problem {
                    recording: recording.transpose()?,
                    ..Problem::of(&path, what, ASK_CAMERA)
                });
                return Ok(());
            }
        };
        step.count(manifest.bytes().len() as u64);
        let header = &manifest.body().header;
        let named = manifest
            .body()
            .segments
            .iter()
            .map(|s| (s.digest, s.length));
        for (named, length) in named.chain([(header.digest, header.length)]) {
            if self
                .books
                .segment(&named)?
                .is_none_or(|r| r.length != length)
            {
                step.problems.push(Problem {
                    recording: Some(manifest.recording().clone()),
                    ..Problem::of(
                        &path,
                        format!("it names {named}, of which no row says so"),
                        RECOVER,
                    )
                });
                return Ok(());
            }
        }
        step.good.manifests += 1;
        Ok(())
    }

    fn verify_inventories(&self, from: u32, budget_bytes: u64) -> Result<VerifyStep, SpoolError> {
        let mut step = VerifyStep::before(VerifyFrom::Logbook(None));
        let mut cameras: Vec<_> = self.books.names.cameras().filter(|c| c.1 >= from).collect();
        cameras.sort_unstable_by_key(|c| c.1);
        for (id, number) in cameras {
            if step.is_full(budget_bytes) {
                step.next = Some(VerifyFrom::Inventories(number));
                break;
            }
            let path = self.folder.inventory(id);
            let pending = self.group.renames.iter().any(|(_, to)| *to == path);
            let Some(newest) = self.books.camera(number)?.inventory.filter(|_| !pending) else {
                continue;
            };
            let length = std::fs::metadata(&path).map_or(0, |m| m.len());
            step.count(length);
            let what = match self.read_inventory(&path) {
                Ok(Some(i)) if i.camera() == id && i.number() >= newest => {
                    step.good.inventories += 1;
                    continue;
                }
                Ok(Some(i)) => format!(
                    "it is {} of {}, not {newest} of {id}",
                    i.number(),
                    i.camera()
                ),
                Ok(None) => "it is no inventory that verifies".into(),
                Err(e) => format!("it cannot be read: {e}"),
            };
            step.problems.push(Problem::of(&path, what, ASK_CAMERA));
        }
        Ok(step)
    }

    /// The chain from the first entry to the last acknowledged one.
    pub(crate) fn verify_logbook(
        &self,
        at: Option<(u64, u64, Digest)>,
        budget_bytes: u64,
        each: &mut impl FnMut(Entry),
    ) -> Result<VerifyStep, SpoolError> {
        let (mut step, head) = (VerifyStep::default(), self.books.logbook.head());
        let path = self.folder.path("logbook");
        let Some((logbook, start)) = Logbook::open(&self.folder, "logbook")? else {
            let what = "it is gone or has lost its beginning";
            step.problems.push(Problem::of(&path, what, RECOVER));
            return Ok(step);
        };
        let mut at = at.map_or(start, |(offset, entries, hash)| Position {
            offset,
            entries,
            hash,
        });
        while at.entries < head.entries {
            if step.read_bytes >= budget_bytes {
                step.next = Some(VerifyFrom::Logbook(Some((at.offset, at.entries, at.hash))));
                return Ok(step);
            }
            let Some(read) = logbook.read(at)? else {
                let what = format!(
                    "its chain breaks after {} of {} entries",
                    at.entries, head.entries
                );
                step.problems.push(Problem::of(&path, what, RECOVER));
                return Ok(step);
            };
            step.read_bytes += read.after.offset - at.offset;
            step.good.entries += 1;
            at = read.after;
            if let Some(kept) = self.signed.contradicts(logbook.incarnation(), &at) {
                let what = format!("entry {} is not the one that {kept}", at.entries);
                step.problems.push(Problem::of(&path, what, RECOVER));
            }
            each(read.entry);
        }
        if at.hash != head.hash || logbook.incarnation() != head.incarnation {
            let what = format!(
                "entry {} is not the one that was acknowledged",
                head.entries
            );
            step.problems.push(Problem::of(&path, what, RECOVER));
        }
        if let Some(what) = missing_head(&logbook, at, &self.signed)? {
            step.problems.push(Problem::of(&path, what, RECOVER));
        }
        Ok(step)
    }
}
