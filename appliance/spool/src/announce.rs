//! Manifests: what cameras announce. They arrive verified (their type says so); here they become rows, and
//! contradictions become alarms.
//!
//! A manifest stands by itself: one whose predecessor has not come is admitted. Two with one index are both kept.
//! A digest has one owner, and a recording one header: what claims otherwise is refused. Seen by the next call at
//! once, durable at the next commit, the file before the rows.

use std::fs;

use protocol::ids::{Digest, RecordingId, Time};
use protocol::manifest::{Class, Manifest, Policy};

use crate::books::Recording;
use crate::error::{AtPath, SpoolError};
use crate::folder::{Place, remove};
use crate::limits;
use crate::rows::{self, ManifestRow, RecordingRow, SegmentRow, camera_has, tag};
use crate::spool::Spool;

/// What became of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Taken.
    New,
    /// Known already.
    Known,
    /// Taken beside another that it contradicts; an alarm is raised.
    Conflict,
    /// Not taken; an alarm is raised.
    Refused(AdmitRefusal),
}

/// Why a manifest is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdmitRefusal {
    /// It claims what belongs to another recording, or to another place or length.
    #[error("{digest} is already announced for {owner}")]
    DigestOwned {
        /// The digest.
        digest: Digest,
        /// Whose it is.
        owner: RecordingId,
    },
    /// A recording has one header.
    #[error("names another header than an earlier manifest of {0}")]
    HeaderChanged(RecordingId),
    /// More than one camera may have outstanding.
    #[error("the camera has more outstanding than one camera may")]
    TooMuch,
}

impl AdmitRefusal {
    fn code(&self) -> &'static str {
        match self {
            AdmitRefusal::DigestOwned { .. } => "digest_owned",
            AdmitRefusal::HeaderChanged(_) => "header_changed",
            AdmitRefusal::TooMuch => "manifest_limit",
        }
    }
}

impl Spool {
    /// Takes a manifest.
    ///
    /// # Errors
    /// [`SpoolError`]; a camera's contradictions are in [`Admission`] and alarms, not errors.
    pub fn admit(&mut self, manifest: &Manifest, now: Time) -> Result<Admission, SpoolError> {
        let digest = manifest.digest();
        if self.books.manifest(&digest)?.is_some() {
            return Ok(Admission::Known);
        }
        let body = manifest.body();
        let camera = self
            .books
            .names
            .intern_camera(&body.recording.camera, &mut self.books.ledger);
        if let Some(refusal) = self.admit_refusal(camera, manifest)? {
            self.raise(
                refusal.code(),
                &body.recording.to_string(),
                &format!("manifest {}: {refusal}", body.index),
                now,
            );
            return Ok(Admission::Refused(refusal));
        }
        if !self.take_back(manifest)? {
            let path = self.folder.manifest(&digest);
            remove(&path)?; // one that was damaged, perhaps nobody's to write
            fs::write(&path, manifest.bytes()).at(&path)?;
            self.manifest_bytes += (manifest.bytes().len() as u64).next_multiple_of(4096);
            self.group.files.push(path);
            self.folder.changed(Place::Manifests);
        }
        self.lower("manifest_missing", &digest.to_string());
        let conflict = self.enter(camera, manifest)?;
        if conflict {
            let what = format!(
                "manifest {digest} contradicts another of index {} or of the same segments",
                body.index
            );
            self.raise("manifest_conflict", &body.recording.to_string(), &what, now);
        }
        Ok(if conflict {
            Admission::Conflict
        } else {
            Admission::New
        })
    }

    fn admit_refusal(
        &self,
        camera: u32,
        manifest: &Manifest,
    ) -> Result<Option<AdmitRefusal>, SpoolError> {
        let body = manifest.body();
        let outstanding = self
            .books
            .totals
            .cameras
            .get(&camera)
            .map_or(0, |c| c.outstanding.segments);
        if outstanding + body.segments.len() as u64 > limits::CAMERA_OUTSTANDING {
            return Ok(Some(AdmitRefusal::TooMuch));
        }
        let known = self.books.recording(camera, body.recording.number)?;
        if known.is_some_and(|rec| rec.row.header != body.header) {
            return Ok(Some(AdmitRefusal::HeaderChanged(body.recording.clone())));
        }
        let header = (body.header.digest, None, body.header.length);
        let named = body
            .segments
            .iter()
            .map(|s| (s.digest, Some(s.seq), s.length))
            .chain([header]);
        for (digest, seq, length) in named {
            let Some(row) = self.books.segment(&digest)? else {
                continue;
            };
            let owner = (row.camera, row.number, row.seq, row.length);
            if owner != (camera, body.recording.number, seq, length) {
                let owner = RecordingId {
                    camera: self.books.camera(row.camera)?.id,
                    number: row.number,
                };
                return Ok(Some(AdmitRefusal::DigestOwned { digest, owner }));
            }
        }
        Ok(None)
    }

    /// Makes the rows of a manifest; true where it contradicts another.
    pub(crate) fn enter(&mut self, camera: u32, manifest: &Manifest) -> Result<bool, SpoolError> {
        let (body, digest) = (manifest.body(), manifest.digest());
        let number = body.recording.number;
        let mut conflict = false;
        let mut rec = match self.books.recording(camera, number)? {
            Some(mut rec) => {
                let before = rec.row.clone();
                let at_index = rows::recording(tag::MANIFESTS, camera, number)
                    .into_iter()
                    .chain(body.index.to_be_bytes());
                conflict |= self
                    .books
                    .ledger
                    .scan(&at_index.collect::<Vec<_>>(), None)
                    .next()
                    .is_some();
                rec.row.captured = rec.row.captured.min(body.captured_from);
                if body.index >= rec.row.top {
                    rec.row.top = body.index;
                    rec.row.class = body.class;
                    rec.row.policy = body.policy.clone();
                }
                rec.row.end = rec.row.end.or(body.end.map(|e| e.segments));
                if places(&rec.row) != places(&before) {
                    self.books.requeue(&before, &rec)?;
                    if rec.row.policy != before.policy {
                        for digest in self.books.segments_of(camera, number)? {
                            self.books.weigh(&digest, &mut rec)?;
                        }
                    }
                }
                rec
            }
            None => {
                self.books.totals.add_recording(camera);
                Recording {
                    camera,
                    number,
                    row: new_recording(manifest),
                }
            }
        };
        let row = ManifestRow {
            camera,
            number,
            index: body.index,
            open: 0,
            answered: Vec::new(),
            refused_by: Vec::new(),
            queue: None,
            receipts: Vec::new(),
            released: false,
        };
        self.books.insert_manifest(&digest, row, &rec.row)?;
        let header = SegmentRow::announced(camera, number, None, body.header.length, digest);
        self.enter_segment(&body.header.digest, &mut rec, header)?;
        for s in &body.segments {
            let row = SegmentRow::announced(camera, number, Some(s.seq), s.length, digest);
            conflict |= self.enter_segment(&s.digest, &mut rec, row)?;
        }
        rec.row.next_missing = self.next_missing(&rec)?;
        self.books.save(&rec);
        Ok(conflict)
    }

    /// Enters one segment unless it is there; true where another has its number.
    fn enter_segment(
        &mut self,
        digest: &Digest,
        rec: &mut Recording,
        mut row: SegmentRow,
    ) -> Result<bool, SpoolError> {
        if let Some(known) = self.books.segment(digest)? {
            if known.manifest == row.manifest && protocol::custody::is_outstanding(known.stage()) {
                // The manifest's row was lost and came back.
                self.books
                    .change_manifest(&row.manifest, &rec.row, |m| m.open += 1)?;
            }
            return Ok(false);
        }
        row.camera_has = rec.row.fate;
        let mut at_place = rows::segment_of(&row, digest);
        at_place.truncate(at_place.len() - digest.0.len());
        let conflict = self.books.ledger.scan(&at_place, None).next().is_some();
        self.books.insert(digest, rec, row)?;
        Ok(conflict)
    }

    fn next_missing(&self, rec: &Recording) -> Result<u32, SpoolError> {
        let prefix = rows::recording(tag::MANIFESTS, rec.camera, rec.number);
        let from = rows::key(
            prefix[0],
            &[&prefix[1..], &rec.row.next_missing.to_be_bytes()],
        );
        let mut next = rec.row.next_missing;
        for item in self.books.ledger.scan(&prefix, Some(&from)) {
            let index = item?
                .0
                .get(13..17)
                .and_then(|i| i.try_into().ok())
                .map(u32::from_be_bytes);
            match index {
                Some(index) if index == next => next += 1,
                Some(index) if index < next => {}
                _ => break,
            }
        }
        Ok(next)
    }
}

/// What of a recording decides where its segments and manifests stand in the queues. With each of many manifests `top`
/// moves, and that alone is no reason to go through all of them.
fn places(row: &RecordingRow) -> (Class, &Policy, Time) {
    (row.class, &row.policy, row.captured)
}

fn new_recording(manifest: &Manifest) -> RecordingRow {
    let body = manifest.body();
    RecordingRow {
        header: body.header,
        policy: body.policy.clone(),
        class: body.class,
        captured: body.captured_from,
        top: body.index,
        next_missing: 0,
        end: body.end.map(|e| e.segments),
        stages: [0; 5],
        bytes: 0,
        fate: camera_has::IT,
    }
}
