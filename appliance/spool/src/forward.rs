//! Forwarding: what to offer and put to which archive site, and what sites answer.
//!
//! Invariants: only what is Held, and durably so, is put; a site that gave its receipt, or is not needed, is
//! not asked; a refusal is no stage: the segment stays Held, is marked, and is tried again a day later or when
//! keys, configuration or the archive's software change. Finding the next thing costs a look at the head of one
//! queue for each pattern (see [`crate::rows::Pattern`]), however much waits.

use std::collections::BTreeSet;
use std::fs;

use bytes::Bytes;
use protocol::ids::{Digest, RecordingId, SiteId, Time};
use protocol::manifest::{Class, Manifest};
use protocol::message::Reason;
use protocol::receipt::Receipt;
use protocol::suite::sha256;

use crate::error::SpoolError;
use crate::limits;
use crate::names::Queue;
use crate::rows::{self, ManifestRow, key, tag};
use crate::spool::{Skip, Spool};

/// A manifest to offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferTask {
    /// Its digest.
    pub manifest: Digest,
    /// Its signed bytes.
    pub bytes: Bytes,
    /// Its recording.
    pub recording: RecordingId,
    /// The recording's class.
    pub class: Class,
    /// The header it names, then its segments.
    pub digests: Vec<Digest>,
}

/// A segment or header to put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutTask {
    /// The manifest that names it.
    pub manifest: Digest,
    /// What to put.
    pub digest: Digest,
    /// Its length in bytes.
    pub length: u32,
    /// Its recording.
    pub recording: RecordingId,
    /// None: the header.
    pub seq: Option<u64>,
    /// The recording's class.
    pub class: Class,
}

/// What became of a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiptOutcome {
    /// It counts from the next commit on.
    Staged,
    /// All that it says was known.
    Known,
    /// It names no recording or header known here; nothing is kept.
    Foreign,
}

impl Spool {
    /// Manifests that this site should be offered now: not answered by it, something of them (or they
    /// themselves) still lacking a site, and this one among those to use while `answering` answer.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn next_offers(
        &mut self,
        answering: &BTreeSet<SiteId>,
        site: &SiteId,
        limit: usize,
        skip: &Skip,
        now: Time,
    ) -> Result<Vec<OfferTask>, SpoolError> {
        let mut tasks = Vec::new();
        for digest in self.heads(Queue::Offers, tag::OFFER, answering, site, limit, skip)? {
            match self.offer(&digest)? {
                Some(task) => tasks.push(task),
                None => self.manifest_is_damaged(&digest, now)?,
            }
        }
        Ok(tasks)
    }

    /// The heads of all queues that lead to `site`, merged in the order of work.
    fn heads(
        &self,
        queue: Queue,
        tag: u8,
        answering: &BTreeSet<SiteId>,
        site: &SiteId,
        limit: usize,
        skip: &Skip,
    ) -> Result<Vec<Digest>, SpoolError> {
        if self.unsettled {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for pattern in self
            .books
            .names
            .patterns_for(queue, site, answering, &self.books.keys)?
        {
            let mut taken = 0;
            for item in self
                .books
                .ledger
                .scan(&rows::numbered(tag, pattern), None)
                .take(limits::SKIPPED_ROWS)
            {
                let (key, _) = item?;
                let Some(digest) = rows::digest_at_end(&key).filter(|d| !skip.contains(d)) else {
                    continue;
                };
                found.push((key[5..].to_vec(), digest));
                taken += 1;
                if taken >= limit {
                    break;
                }
            }
        }
        found.sort_unstable();
        found.truncate(limit);
        Ok(found.into_iter().map(|(_, digest)| digest).collect())
    }

    /// A manifest by its digest, as it is to be offered; none where it is unknown or its file is damaged.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn offer(&self, manifest: &Digest) -> Result<Option<OfferTask>, SpoolError> {
        let Some(row) = self.books.manifest(manifest)? else {
            return Ok(None);
        };
        let Ok(bytes) = fs::read(self.folder.manifest(manifest)) else {
            return Ok(None);
        };
        if sha256(&bytes) != *manifest {
            return Ok(None);
        }
        let bytes = Bytes::from(bytes);
        let Ok(parsed) = Manifest::verify(bytes.clone(), &self.trust) else {
            return Ok(None);
        };
        let body = parsed.body();
        let digests = std::iter::once(body.header.digest)
            .chain(body.segments.iter().map(|s| s.digest))
            .collect();
        let class = self
            .books
            .recording(row.camera, row.number)?
            .map_or(body.class, |r| r.row.class);
        Ok(Some(OfferTask {
            manifest: *manifest,
            bytes,
            recording: body.recording.clone(),
            class,
            digests,
        }))
    }

    /// Forgets a manifest whose file is not what its name says, so that the camera is asked for it again.
    pub(crate) fn manifest_is_damaged(
        &mut self,
        digest: &Digest,
        now: Time,
    ) -> Result<(), SpoolError> {
        let Some(row) = self.books.manifest(digest)? else {
            return Ok(());
        };
        let Some(mut rec) = self.books.recording(row.camera, row.number)? else {
            return Ok(());
        };
        // Receipts that were due for its sake alone are so no more.
        self.books
            .change_manifest(digest, &rec.row, |row| row.receipts.clear())?;
        let row = self.books.manifest(digest)?.unwrap_or(row);
        for queued in rows::manifest_queues(digest, &row, &rec.row) {
            self.books.count_queue(&queued, false);
            self.books.ledger.delete(queued);
        }
        self.books.ledger.delete(rows::of(tag::MANIFEST, digest));
        self.books.ledger.delete(rows::manifest_of(&row, digest));
        rec.row.next_missing = rec.row.next_missing.min(row.index);
        self.books.save(&rec);
        let recording = RecordingId {
            camera: self.books.camera(row.camera)?.id,
            number: row.number,
        };
        self.raise(
            "manifest_missing",
            &digest.to_string(),
            &format!("manifest {} of recording {recording}", row.index),
            now,
        );
        Ok(())
    }

    /// A site answered the offer of a manifest: it is not offered to it again.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn offer_answered(&mut self, site: &SiteId, manifest: &Digest) -> Result<(), SpoolError> {
        self.mark_manifest(site, manifest, |row, site| {
            if !row.answered.contains(&site) {
                row.answered.push(site);
            }
            row.refused_by.retain(|s| *s != site);
        })
    }

    /// A manifest is to be offered to a site again.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn offer_again(&mut self, site: &SiteId, manifest: &Digest) -> Result<(), SpoolError> {
        self.mark_manifest(site, manifest, |row, site| {
            row.answered.retain(|s| *s != site)
        })
    }

    /// Every manifest that no receipt of a site names is to be offered to it again: the connection is new, and an
    /// answer given on the one before led to nothing.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn offer_all_again(&mut self, site: &SiteId) -> Result<(), SpoolError> {
        let mut all = Vec::new();
        for item in self.books.ledger.scan(&[tag::MANIFEST], None) {
            all.extend(rows::digest_at_end(&item?.0));
        }
        let number = self.books.names.intern_site(site, &mut self.books.ledger)?;
        for manifest in all {
            let answered = self
                .books
                .manifest(&manifest)?
                .is_some_and(|row| row.answered.contains(&number));
            if answered {
                self.offer_again(site, &manifest)?;
            }
        }
        Ok(())
    }

    fn mark_manifest(
        &mut self,
        site: &SiteId,
        manifest: &Digest,
        change: impl FnOnce(&mut ManifestRow, u16),
    ) -> Result<(), SpoolError> {
        let Some(row) = self.books.manifest(manifest)? else {
            return Ok(());
        };
        let Some(rec) = self.books.recording(row.camera, row.number)? else {
            return Ok(());
        };
        let site = self.books.names.intern_site(site, &mut self.books.ledger)?;
        self.books
            .change_manifest(manifest, &rec.row, |row| change(row, site))
    }

    /// What to put to a site next, in order: urgent first, then oldest, header before its segments.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn next_puts(
        &mut self,
        answering: &BTreeSet<SiteId>,
        site: &SiteId,
        limit: usize,
        skip: &Skip,
        now: Time,
    ) -> Result<Vec<PutTask>, SpoolError> {
        self.retry_refused_puts(Some(now), None)?;
        let mut tasks = Vec::new();
        for digest in self.heads(Queue::Puts, tag::PUT, answering, site, limit, skip)? {
            let Some(row) = self.books.segment(&digest)? else {
                continue;
            };
            let rec = self.books.recording_of(&row)?;
            let recording = self.recording_id(&row)?;
            tasks.push(PutTask {
                manifest: row.manifest,
                digest,
                length: row.length,
                recording,
                seq: row.seq,
                class: rec.row.class,
            });
        }
        Ok(tasks)
    }

    /// Takes a receipt. It counts from the next commit on.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn receipt(&mut self, receipt: &Receipt, _now: Time) -> Result<ReceiptOutcome, SpoolError> {
        let body = receipt.body();
        let camera = self.books.names.camera(&body.recording.camera);
        let rec = camera
            .map(|c| self.books.recording(c, body.recording.number))
            .transpose()?
            .flatten();
        if rec.is_none_or(|rec| rec.row.header.digest != body.header)
            || !receipt.counts(&self.books.keys)
        {
            return Ok(ReceiptOutcome::Foreign);
        }
        let staged = self
            .group
            .receipts
            .iter()
            .any(|r| r.digest() == receipt.digest());
        if staged || self.gains(receipt)?.is_none() {
            return Ok(ReceiptOutcome::Known);
        }
        self.group.receipts.push(receipt.clone());
        Ok(ReceiptOutcome::Staged)
    }

    /// A site refuses a manifest, segment or header. It stays in custody, and is not for that site before a
    /// day, or [`Spool::retry_refused`].
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn site_refused(
        &mut self,
        site: &SiteId,
        digest: &Digest,
        reason: Reason,
        text: &str,
        now: Time,
    ) -> Result<(), SpoolError> {
        let number = self.books.names.intern_site(site, &mut self.books.ledger)?;
        let mark = |list: &mut Vec<u16>| {
            if !list.contains(&number) {
                list.push(number);
            }
        };
        if let Some(row) = self.books.segment(digest)? {
            let mut rec = self.books.recording_of(&row)?;
            self.books
                .change(digest, &mut rec, |row| mark(&mut row.refused_by))?;
            self.books.save(&rec);
        } else if self.books.manifest(digest)?.is_some() {
            self.mark_manifest(site, digest, |row, _| mark(&mut row.refused_by))?;
        } else {
            return Ok(());
        }
        let at = now.plus_ms(limits::DAY_MS).0;
        self.books.ledger.mark(key(
            tag::SITE_RETRY,
            &[&at.to_be_bytes(), &number.to_be_bytes(), &digest.0],
        ));
        let text: String = text.chars().filter(|c| !c.is_control()).take(128).collect();
        self.raise(
            "site_refused",
            &format!("{site} {digest}"),
            &format!("{reason:?}: {text}"),
            now,
        );
        Ok(())
    }

    /// Lets what sites refused be tried again now: for one site, or for all (keys or configuration changed).
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn retry_refused(&mut self, site: Option<&SiteId>) -> Result<(), SpoolError> {
        self.retry_refused_puts(None, site)
    }

    fn retry_refused_puts(
        &mut self,
        until: Option<Time>,
        only: Option<&SiteId>,
    ) -> Result<(), SpoolError> {
        let only = match only {
            Some(site) => match self.books.names.site_number(site) {
                Some(number) => Some(number),
                None => return Ok(()),
            },
            None => None,
        };
        let mut due = Vec::new();
        for item in self.books.ledger.scan(&[tag::SITE_RETRY], None) {
            let (key, _) = item?;
            let at = key
                .get(1..9)
                .and_then(|t| t.try_into().ok())
                .map_or(0, u64::from_be_bytes);
            let site = key
                .get(9..11)
                .and_then(|s| s.try_into().ok())
                .map_or(0, u16::from_be_bytes);
            if until.is_some_and(|now| at > now.0) || due.len() >= limits::COMMIT_CHANGES {
                break;
            }
            if let Some(digest) =
                rows::digest_at_end(&key).filter(|_| only.is_none_or(|o| o == site))
            {
                due.push((key, site, digest));
            }
        }
        for (key, number, digest) in due {
            self.books.ledger.delete(key);
            let site = self.books.names.site(number)?.clone();
            if let Some(row) = self.books.segment(&digest)? {
                let mut rec = self.books.recording_of(&row)?;
                self.books.change(&digest, &mut rec, |row| {
                    row.refused_by.retain(|s| *s != number)
                })?;
                self.books.save(&rec);
            } else {
                self.mark_manifest(&site, &digest, |row, _| {
                    row.refused_by.retain(|s| *s != number)
                })?;
            }
            self.lower("site_refused", &format!("{site} {digest}"));
        }
        Ok(())
    }
}
