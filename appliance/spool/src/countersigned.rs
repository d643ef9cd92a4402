//! What archive sites have seen of the logbook: of each site the newest head that it countersigned, in one small file.
//! It is the one thing here that says how far the logbook went and that no program on this machine could have written;
//! where entries are lost, the successor's first entry names it (see `succession`).
//!
//! The file is `bwcsig1\n`, the SHA-256 of the rest, and a CBOR array of pairs: the incarnation of ours that the site
//! refused (or null), and the countersignature as it came. It is written beside its name and gets it with the next
//! commit; each countersignature also is a note in the logbook. One whose key does not count any more is passed over.
//!
//! A site that has seen more than we have, or another entry than ours, gives its countersignature with its refusal:
//! that is kept, and the next start begins a successor. Nothing of custody hangs on any of this.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use protocol::ids::{Incarnation, SiteId, Time};
use protocol::keylist::KeyList;
use protocol::logbook::{Countersignature, LogbookError, LogbookHead};
use protocol::suite::sha256;

use crate::error::{AtPath, SpoolError, is_unreadable};
use crate::folder::{Folder, Place};
use crate::limits;
use crate::logbook::{Entry, Position};
use crate::spool::Spool;
use crate::start::{Deferred, StartReport};

/// The file's name.
pub(crate) const NAME: &str = "countersigned";
const MAGIC: &[u8; 8] = b"bwcsig1\n";
const SUM: usize = 32;
/// How the logbook's notes of it begin.
const NOTE: &str = "countersigned by ";

/// A pair of the file.
#[derive(Encode, Decode)]
#[cbor(array)]
struct Row {
    #[n(0)]
    against: Option<Incarnation>,
    #[n(1)]
    signature: ByteVec,
}

/// What one site said last.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) signature: Countersignature,
    /// The incarnation of ours that it refused with it.
    pub(crate) against: Option<Incarnation>,
    /// Where in the logbook its head is, if that was asked for since the start.
    at: Option<Position>,
}

impl Kept {
    pub(crate) fn head(&self) -> LogbookHead {
        self.signature.body().head
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (body, head) = (self.signature.body(), self.head());
        write!(
            f,
            "site {} countersigned (logbook {}, entry {}, chain hash {}, at {} ms)",
            body.site, head.incarnation, head.entries, head.hash, body.signed.0
        )
    }
}

/// What all sites said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Countersigned {
    kept: Vec<Kept>,
    /// Heads that sites were last asked to countersign.
    asked: Vec<(SiteId, Position)>,
    missing: bool,
    damage: Option<String>,
}

/// What a site said of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Countersigning {
    /// It countersigned it.
    Signed,
    /// It has seen more, or an incarnation that follows.
    Behind(LogbookHead),
    /// It has seen another entry there.
    Forked(LogbookHead),
}

impl Countersigned {
    /// Reads the file; one that is damaged says so.
    pub(crate) fn read(folder: &Folder, keys: &KeyList) -> Result<Countersigned, SpoolError> {
        let path = folder.path(NAME);
        let damaged = |why: &str| Countersigned {
            damage: Some(format!("what archives countersigned cannot be read: {why}")),
            ..Countersigned::default()
        };
        let mut bytes = Vec::new();
        let read = fs::File::open(&path).and_then(|f| {
            f.take(limits::COUNTERSIGNED_BYTES + 1)
                .read_to_end(&mut bytes)
        });
        match read {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Ok(Countersigned {
                    missing: true,
                    ..Countersigned::default()
                });
            }
            Err(e) if is_unreadable(&e) => return Ok(damaged(&e.to_string())),
            other => _ = other.at(&path)?,
        }
        let rest = bytes
            .strip_prefix(MAGIC)
            .and_then(|r| r.split_at_checked(SUM));
        let Some((_, rest)) = rest.filter(|(sum, rest)| sha256(rest).0 == **sum) else {
            return Ok(damaged("it is not as it was written"));
        };
        let Ok(rows) = minicbor::decode::<Vec<Row>>(rest) else {
            return Ok(damaged("it is not of this form"));
        };
        let mut kept = Vec::new();
        for row in rows {
            match Countersignature::verify(Vec::from(row.signature).into(), keys) {
                Ok(signature) => kept.push(Kept {
                    signature,
                    against: row.against,
                    at: None,
                }),
                Err(e @ (LogbookError::UnknownKey(_) | LogbookError::RevokedKey(_))) => {
                    tracing::warn!("a countersignature of the logbook counts no more: {e}");
                }
                Err(e) => return Ok(damaged(&e.to_string())),
            }
        }
        Ok(Countersigned {
            kept,
            ..Countersigned::default()
        })
    }

    /// The same for a start, which says what is wrong.
    pub(crate) fn of_a_start(
        folder: &Folder,
        keys: &KeyList,
        report: &mut StartReport,
        alarms: &mut Deferred,
    ) -> Result<Countersigned, SpoolError> {
        let read = Countersigned::read(folder, keys)?;
        if let Some(why) = &read.damage {
            report.lost.push(why.clone());
            alarms.push(("countersigned_damaged", NAME.into(), why.clone()));
        }
        Ok(read)
    }

    /// Why it could not be read, if so.
    pub(crate) fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }
    /// There is no such file.
    pub(crate) fn is_missing(&self) -> bool {
        self.missing
    }
    /// What sites said, the furthest first.
    pub(crate) fn all(&self) -> Vec<&Kept> {
        let mut all: Vec<&Kept> = self.kept.iter().collect();
        all.sort_by_key(|k| std::cmp::Reverse((k.signature.body().signed, k.head().entries)));
        all
    }
    /// The heads of one logbook.
    pub(crate) fn of(&self, incarnation: Incarnation) -> impl Iterator<Item = &Kept> {
        let of = move |k: &&Kept| k.head().incarnation == incarnation;
        self.kept.iter().filter(of)
    }
    /// Who refused that logbook.
    pub(crate) fn against(&self, incarnation: Incarnation) -> Option<&Kept> {
        self.kept.iter().find(|k| k.against == Some(incarnation))
    }
    /// The countersigned head of which a place in a logbook says otherwise.
    pub(crate) fn contradicts(&self, incarnation: Incarnation, at: &Position) -> Option<&Kept> {
        let other = |k: &&Kept| k.head().entries == at.entries && k.head().hash != at.hash;
        self.of(incarnation).find(other)
    }

    fn position_asked(&self, site: &SiteId) -> Option<Position> {
        let asked = self.asked.iter().find(|(s, _)| s == site);
        asked.map(|(_, at)| *at)
    }

    /// Takes what a site said; false where that is known.
    fn take(&mut self, signature: &Countersignature, against: Option<Incarnation>) -> bool {
        let site = &signature.body().site;
        let at = self.position_asked(site);
        let at = at.filter(|at| at.entries == signature.body().head.entries);
        if let Some(kept) = self
            .kept
            .iter_mut()
            .find(|k| k.signature.body().site == *site)
        {
            kept.at = at;
            let same = kept.head() == signature.body().head && kept.against == against;
            if same && self.damage.is_none() && !self.missing {
                return false;
            }
        }
        self.kept.retain(|k| k.signature.body().site != *site);
        if self.kept.len() >= limits::COUNTERSIGNED_SITES {
            let oldest = (0..self.kept.len()).min_by_key(|n| self.kept[*n].signature.body().signed);
            oldest.into_iter().for_each(|n| _ = self.kept.remove(n));
        }
        self.kept.push(Kept {
            signature: signature.clone(),
            against,
            at,
        });
        (self.missing, self.damage) = (false, None);
        true
    }

    fn bytes(&self) -> Vec<u8> {
        let row = |k: &Kept| Row {
            against: k.against,
            signature: k.signature.bytes().to_vec().into(),
        };
        let rows: Vec<Row> = self.kept.iter().map(row).collect();
        let rest = minicbor::to_vec(rows).expect("encoding to memory cannot fail");
        [&MAGIC[..], &sha256(&rest).0[..], &rest[..]].concat()
    }
}

/// Whether a note of the logbook says that a site countersigned.
pub(crate) fn is_note(text: &str) -> bool {
    text.starts_with(NOTE)
}

impl Spool {
    /// The head that a site is to be asked to countersign: what is durable, unless the site has refused this logbook, or
    /// nothing but such notes was written since it countersigned.
    ///
    /// # Errors
    /// [`SpoolError::Io`].
    pub fn head_to_sign(&mut self, site: &SiteId) -> Result<Option<LogbookHead>, SpoolError> {
        let (logbook, head) = (&self.books.logbook, self.books.logbook.head());
        let refused = self.signed.against(head.incarnation);
        // What an interim spool's logbook says comes into the other's, which is the station's.
        let interim = self.beside.is_some();
        if interim || head.entries == 0 || refused.is_some_and(|k| k.signature.body().site == *site)
        {
            return Ok(None);
        }
        let mut own = self.signed.kept.iter();
        let own = own.find(|k| k.signature.body().site == *site && k.at.is_some());
        if let Some(mut at) = own.and_then(|k| k.at) {
            while at.entries < head.entries {
                match logbook.read(at)? {
                    Some(read) if matches!(&read.entry, Entry::Note(text) if is_note(text)) => {
                        at = read.after;
                    }
                    _ => break,
                }
            }
            if at.entries >= head.entries {
                return Ok(None);
            }
        }
        let at = logbook.synced();
        self.signed.asked.retain(|(s, _)| s != site);
        if self.signed.asked.len() >= limits::COUNTERSIGNED_SITES {
            self.signed.asked.remove(0);
        }
        self.signed.asked.push((site.clone(), at));
        Ok(Some(head))
    }

    /// A site has countersigned a head, or refused one by a countersignature that stands against it, which is an alarm.
    /// Durable at the next commit.
    ///
    /// # Errors
    /// [`SpoolError::Io`].
    pub fn countersigned(
        &mut self,
        signature: &Countersignature,
        said: Countersigning,
        now: Time,
    ) -> Result<(), SpoolError> {
        let (code, sent) = match said {
            Countersigning::Signed => (None, None),
            Countersigning::Behind(sent) => (Some("logbook_behind"), Some(sent)),
            Countersigning::Forked(sent) => (Some("logbook_forked"), Some(sent)),
        };
        if !self.signed.take(signature, sent.map(|s| s.incarnation)) {
            return Ok(());
        }
        let tmp = match self.write_countersigned() {
            Ok(tmp) => tmp,
            Err(e) => {
                // It is to be written when it comes again.
                self.signed.missing = true;
                return Err(e);
            }
        };
        let path = self.folder.path(NAME);
        self.group.renames.retain(|(from, _)| *from != tmp);
        self.group.renames.push((tmp, path));
        self.folder.changed(Place::Root);
        self.lower("countersigned_damaged", NAME);
        let (body, head) = (signature.body(), signature.body().head);
        let what = format!(
            "logbook {}, entry {}, chain hash {}, at {} ms",
            head.incarnation, head.entries, head.hash, body.signed.0
        );
        match (code, sent) {
            (Some(code), Some(sent)) => {
                let what = format!(
                    "the site refuses logbook {}, entry {}: it has countersigned {what}",
                    sent.incarnation, sent.entries
                );
                self.raise(code, body.site.as_str(), &what, now);
            }
            _ => self
                .group
                .notes
                .push(format!("{NOTE}{}: {what}", body.site)),
        }
        Ok(())
    }

    fn write_countersigned(&self) -> Result<PathBuf, SpoolError> {
        let tmp = self.folder.path(&format!("{NAME}.tmp"));
        fs::write(&tmp, self.signed.bytes()).at(&tmp)?;
        Ok(tmp)
    }

    /// The newest countersignature of each site.
    #[must_use]
    pub fn countersignatures(&self) -> Vec<Countersignature> {
        let all = self.signed.kept.iter();
        all.map(|k| k.signature.clone()).collect()
    }
}
