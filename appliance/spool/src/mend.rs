//! What a start mends: manifests and inventories that have no rows yet, logbook entries behind the ledger's mark,
//! and rows that files contradict, by the table of `start`.
//!
//! Contents are not read here, but for manifests and inventories: copies are the scrub's.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::Path;
use std::thread::JoinHandle;

use bytes::Bytes;
use protocol::custody::{Event, Stage};
use protocol::ids::Digest;
use protocol::inventory::{Inventory, Page};
use protocol::limits as wire;
use protocol::manifest::Manifest;
use protocol::receipt::Receipt;

use crate::books::step;
use crate::error::{AtPath, SpoolError, is_unreadable};
use crate::folder::{Folder, Place, remove};
use crate::logbook::Entry;
use crate::rows::{self, SegmentRow, tag};
use crate::spool::Spool;
use crate::start::StartReport;

impl Spool {
    /// The segments and headers whose rows are such, with their lengths.
    pub(crate) fn copies(
        &self,
        such: impl Fn(&SegmentRow) -> bool,
    ) -> Result<Vec<(Digest, u32)>, SpoolError> {
        let mut copies = Vec::new();
        for item in self.books.ledger.scan(&[tag::SEGMENT], None) {
            let (key, value) = item?;
            let row: SegmentRow = minicbor::decode(&value)
                .map_err(|e| SpoolError::Contradiction(format!("a segment: {e}")))?;
            copies.extend(
                rows::digest_at_end(&key)
                    .filter(|_| such(&row))
                    .map(|d| (d, row.length)),
            );
        }
        Ok(copies)
    }

    /// Step 6: rows against files; `copies` where they were read already.
    pub(crate) fn cross_check(
        &mut self,
        known: Option<(Vec<(Digest, u32)>, Files)>,
        report: &mut StartReport,
    ) -> Result<(), SpoolError> {
        let (mut copies, files) = match known {
            Some((copies, files)) => (copies, files.list()?),
            None => (
                self.copies(|row| row.here)?,
                digests_in(&self.folder.place(Place::Segments))?,
            ),
        };
        // As rows are already. A file is looked up among them, and nothing is kept of it but a mark.
        copies.sort_unstable();
        let mut found = vec![false; copies.len()];
        let mut strays = BTreeSet::new();
        for (digest, length) in files {
            match copies.binary_search_by_key(&digest, |copy| copy.0) {
                Ok(at) if u64::from(copies[at].1) == length => found[at] = true,
                _ => _ = strays.insert(digest),
            }
        }
        let mut missing = Vec::new();
        for ((digest, _), found) in copies.iter().zip(found) {
            if !found && let Some(row) = self.books.segment(digest)? {
                missing.push((*digest, row));
            }
        }
        for (digest, row) in missing {
            self.copy_is_missing(&digest, &row, report)?;
            strays.remove(&digest);
        }
        if report.manifests_damaged > 0 {
            self.keep_strays(strays.iter(), report)?;
        } else {
            for digest in &strays {
                self.folder.unlink_segment(digest)?;
                report.orphans += 1;
            }
        }
        self.check_manifests(report)
    }

    /// Copies that a damaged manifest may have named are given a name that no start touches: where their camera is
    /// gone, they are all that is left.
    fn keep_strays<'a>(
        &mut self,
        strays: impl Iterator<Item = &'a Digest>,
        report: &mut StartReport,
    ) -> Result<(), SpoolError> {
        let mut kept = 0;
        for digest in strays {
            let from = self.folder.segment(digest);
            fs::rename(&from, from.with_extension("kept")).at(&from)?;
            self.folder.changed(Place::Segments);
            kept += 1;
        }
        if kept > 0 {
            report.lost.push(format!(
                "the manifests of {kept} copies, which are kept as {}/*.kept",
                self.folder.place(Place::Segments).display()
            ));
        }
        Ok(())
    }

    fn copy_is_missing(
        &mut self,
        digest: &Digest,
        row: &SegmentRow,
        report: &mut StartReport,
    ) -> Result<(), SpoolError> {
        if row.is_whole() && row.stage() == Stage::Held {
            report.missing += 1;
            return self.copy_is_lost(digest, row, self.opened);
        }
        // A reclaim or a reservation that the last process did not get to book.
        self.folder.unlink_segment(digest)?;
        let mut rec = self.books.recording_of(row)?;
        self.books.change(digest, &mut rec, |row| {
            row.here = false;
            row.prefix = 0;
        })?;
        self.books.save(&rec);
        Ok(())
    }

    fn check_manifests(&mut self, report: &mut StartReport) -> Result<(), SpoolError> {
        let names: HashSet<String> = names_in(&self.folder.place(Place::Manifests))?
            .into_iter()
            .map(|(n, _)| n)
            .collect();
        let mut missing = Vec::new();
        for item in self.books.ledger.scan(&[tag::MANIFEST], None) {
            let (key, _) = item?;
            missing.extend(rows::digest_at_end(&key).filter(|d| !names.contains(&d.to_string())));
        }
        for digest in missing {
            report.lost.push(format!("manifest {digest}"));
            self.manifest_is_damaged(&digest, self.opened)?;
        }
        Ok(())
    }

    /// Verifies and enters manifests that have no row; what does not verify is removed.
    pub(crate) fn enter_orphans(&mut self) -> Result<usize, SpoolError> {
        let mut entered = 0;
        for (name, length) in names_in(&self.folder.place(Place::Manifests))? {
            let known = match Digest::from_hex(&name) {
                Some(digest) => self.books.manifest(&digest)?.is_some(),
                None => false,
            };
            if !known {
                let path = self.folder.place(Place::Manifests).join(&name);
                match self.read_manifest(&path)? {
                    Some(manifest) if manifest.digest().to_string() == name => {
                        let camera = self
                            .books
                            .names
                            .intern_camera(&manifest.recording().camera, &mut self.books.ledger);
                        self.enter(camera, &manifest)?;
                        self.group.files.push(path);
                        entered += 1;
                    }
                    _ => {
                        tracing::warn!(file = %path.display(), "not a whole manifest: removed");
                        remove(&path)?;
                        self.folder.changed(Place::Manifests);
                        continue;
                    }
                }
            }
            self.manifest_bytes += length.next_multiple_of(4096);
        }
        Ok(entered)
    }

    /// A manifest from a file; none where it does not verify.
    pub(crate) fn read_manifest(&self, path: &Path) -> Result<Option<Manifest>, SpoolError> {
        let bytes = match fs::read(path) {
            Err(e) if is_unreadable(&e) => return Ok(None),
            other => other.at(path)?,
        };
        Ok(Manifest::verify(bytes.into(), &self.trust).ok())
    }

    /// Applies inventories that are newer than their camera's row.
    pub(crate) fn apply_newer_inventories(
        &mut self,
        report: &mut StartReport,
    ) -> Result<(), SpoolError> {
        let place = self.folder.place(Place::Inventories);
        for (name, _) in names_in(&place)? {
            let path = place.join(&name);
            let Some(inventory) = self.read_inventory(&path)? else {
                tracing::warn!(file = %path.display(), "not a whole inventory: removed; the camera sends it again");
                report
                    .lost
                    .push(format!("inventory {name}: its camera sends it again"));
                remove(&path)?;
                self.folder.changed(Place::Inventories);
                continue;
            };
            let camera = self
                .books
                .names
                .intern_camera(inventory.camera(), &mut self.books.ledger);
            let mut row = self.books.camera(camera)?;
            if row.inventory.is_none_or(|n| n < inventory.number()) {
                // Its camera may have announced more since.
                self.apply_inventory(camera, &inventory, false)?;
                row.inventory = Some(inventory.number());
                row.next_recording = row.next_recording.max(inventory.next_recording());
                self.books
                    .ledger
                    .put(rows::numbered(tag::CAMERA, camera), &row);
            }
        }
        Ok(())
    }

    pub(crate) fn read_inventory(&self, path: &Path) -> Result<Option<Inventory>, SpoolError> {
        let bytes = Bytes::from(fs::read(path).at(path)?);
        let mut pages = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let length = bytes
                .get(at..at + 4)
                .and_then(|l| l.try_into().ok())
                .map(u32::from_be_bytes);
            let length = length
                .and_then(|l| usize::try_from(l).ok())
                .filter(|l| *l <= wire::INVENTORY_PAGE_BYTES);
            let Some(end) = length.map(|l| at + 4 + l).filter(|end| *end <= bytes.len()) else {
                return Ok(None);
            };
            let Ok(page) = Page::verify(bytes.slice(at + 4..end), &self.trust) else {
                return Ok(None);
            };
            pages.push(page);
            at = end;
        }
        Ok(Inventory::assemble(pages).ok())
    }

    /// Does again what entries say that the ledger had not got. Bytes count only where their file is there.
    pub(crate) fn replay(&mut self, tail: &[(Entry, u64)]) -> Result<(), SpoolError> {
        for (entry, offset) in tail {
            match entry {
                Entry::Note(_) => {}
                Entry::Receipt(bytes) => {
                    let Ok(receipt) =
                        Receipt::verify(Bytes::copy_from_slice(bytes), &self.books.keys)
                    else {
                        continue;
                    };
                    if let Some(digests) = self.gains(&receipt)? {
                        self.attach(&receipt, *offset, &digests)?;
                    }
                }
                Entry::Custody { changes, .. } => {
                    for (digest, stage) in changes {
                        self.replay_change(digest, *stage)?;
                    }
                }
            }
        }
        // The logbook has these already.
        self.books.changes.clear();
        Ok(())
    }

    fn replay_change(&mut self, digest: &Digest, stage: Stage) -> Result<(), SpoolError> {
        let Some(row) = self.books.segment(digest)? else {
            return Ok(());
        };
        match stage {
            Stage::Held
                if !row.is_whole()
                    && self
                        .folder
                        .open_segment(digest, row.length, false)?
                        .is_some() =>
            {
                self.bytes_are_whole(digest)
            }
            Stage::Released if row.stage() == Stage::Archived => {
                let mut rec = self.books.recording_of(&row)?;
                self.books
                    .change(digest, &mut rec, |row| _ = step(row, Event::Released))?;
                self.books.save(&rec);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// The copies in a folder, being listed by a thread of its own while the ledger is read.
pub(crate) struct Files(JoinHandle<Result<Vec<(Digest, u64)>, SpoolError>>);

impl Files {
    pub(crate) fn of(folder: &Folder) -> Result<Files, SpoolError> {
        let place = folder.place(Place::Segments);
        let of = place.clone();
        let thread = std::thread::Builder::new().name("list".into());
        let listing = thread.spawn(move || digests_in(&of));
        listing.map(Files).at(&place)
    }

    fn list(self) -> Result<Vec<(Digest, u64)>, SpoolError> {
        let what = "the thread that lists the copies has ended";
        let listed = self.0.join();
        listed.unwrap_or_else(|_| Err(SpoolError::Contradiction(what.into())))
    }
}

/// The files in a folder that have a digest's name, with their lengths.
fn digests_in(place: &Path) -> Result<Vec<(Digest, u64)>, SpoolError> {
    let mut found = Vec::new();
    for file in files_in(place)? {
        let (name, length) = file?;
        match Digest::from_hex(&name) {
            Some(digest) => found.push((digest, length)),
            None => {
                tracing::warn!(file = %place.join(&name).display(), "not a segment's name: left alone");
            }
        }
    }
    Ok(found)
}

/// The names and lengths of the files in a folder; unfinished ones are removed.
pub(crate) fn names_in(place: &Path) -> Result<Vec<(String, u64)>, SpoolError> {
    files_in(place)?.collect()
}

/// The same, one at a time.
fn files_in(
    place: &Path,
) -> Result<impl Iterator<Item = Result<(String, u64), SpoolError>>, SpoolError> {
    let next = move |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.at(place)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".tmp") {
            remove(&entry.path())?;
            return Ok(None);
        }
        let length = entry.metadata().at(&entry.path())?.len();
        Ok(Some((name, length)))
    };
    let entries = fs::read_dir(place).at(place)?;
    Ok(entries.filter_map(move |entry| next(entry).transpose()))
}

/// Whether a folder can be read and has no files.
pub(crate) fn is_empty(place: &Path) -> bool {
    files_in(place).is_ok_and(|mut files| files.next().is_none())
}
