//! Inventories: what a camera says, signed, that it still holds. They arrive verified (their type says so).
//!
//! The newest overrules the rows: what it lists without receipts is not Released, what it no longer lists cannot
//! be pulled. A number that falls, recordings that are in no list, and a new incarnation are alarms. Seen by the
//! next call at once, durable at the next commit, the file before the rows.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};

use bytes::Bytes;
use protocol::custody::{Event, Stage};
use protocol::ids::{CameraId, Range, Time};
use protocol::inventory::{Fate, Held, Inventory};
use protocol::limits;
use protocol::message::WantManifests;

use crate::books::{Recording, step};
use crate::error::{AtPath, SpoolError};
use crate::folder::Place;
use crate::rows::{self, ManifestRow, RecordingRow, camera_has, tag};
use crate::spool::Spool;

/// What an inventory asks of the session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InventoryOutcome {
    /// Manifests to ask the camera for.
    pub want: Vec<WantManifests>,
    /// Whether it was newer than what was known.
    pub fresh: bool,
}

/// The pages of a stored inventory, in order, each as its camera signed it. Reads one at a time; a newer inventory
/// that comes meanwhile is another file.
#[derive(Debug)]
pub struct InventoryPages(File);

impl InventoryPages {
    /// The next page; none after the last one.
    ///
    /// # Errors
    /// Where the file cannot be read, or is not what was written.
    pub fn next_page(&mut self) -> io::Result<Option<Bytes>> {
        let mut length = [0; 4];
        if self.0.read(&mut length[..1])? == 0 {
            return Ok(None);
        }
        self.0.read_exact(&mut length[1..])?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > limits::INVENTORY_PAGE_BYTES {
            let what = format!("a page of {length} bytes in a stored inventory");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let mut page = vec![0; length];
        self.0.read_exact(&mut page)?;
        Ok(Some(page.into()))
    }
}

impl Spool {
    /// The number of each camera's newest inventory.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn inventory_numbers(&self) -> Result<Vec<(CameraId, u64)>, SpoolError> {
        let mut all = Vec::new();
        for (id, number) in self.books.names.cameras() {
            let newest = self.books.camera(number)?.inventory;
            all.extend(newest.map(|n| (id.clone(), n)));
        }
        Ok(all)
    }

    /// A camera's newest inventory, with its number; none where none is stored, or not durably yet.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn open_inventory(
        &self,
        camera: &CameraId,
    ) -> Result<Option<(u64, InventoryPages)>, SpoolError> {
        let Some(number) = self.books.names.camera(camera) else {
            return Ok(None);
        };
        let path = self.folder.inventory(camera);
        let pending = self.group.renames.iter().any(|(_, to)| *to == path);
        let newest = self.books.camera(number)?.inventory;
        let Some(newest) = newest.filter(|_| !pending) else {
            return Ok(None);
        };
        match File::open(&path) {
            Ok(file) => Ok(Some((newest, InventoryPages(file)))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).at(&path),
        }
    }

    /// Takes a camera's inventory.
    ///
    /// # Errors
    /// [`SpoolError`]; a camera's contradictions are alarms, not errors.
    pub fn inventory(
        &mut self,
        inventory: &Inventory,
        now: Time,
    ) -> Result<InventoryOutcome, SpoolError> {
        let camera = inventory.camera();
        let known = self.books.names.camera(camera).is_some();
        let other = self
            .books
            .names
            .cameras()
            .any(|(id, _)| id.serial == camera.serial && id.incarnation != camera.incarnation);
        let number = self
            .books
            .names
            .intern_camera(camera, &mut self.books.ledger);
        let mut row = self.books.camera(number)?;
        if other && (!known || row.inventory.is_none()) {
            self.raise(
                "camera_incarnation",
                camera.serial.as_str(),
                &format!("its storage has a new incarnation, {}", camera.incarnation),
                now,
            );
        }
        let subject = camera.to_string();
        if let Some(before) = row.inventory.filter(|n| *n > inventory.number()) {
            let what = format!(
                "its inventory {} is older than {before}, which was seen",
                inventory.number()
            );
            self.raise("inventory_lower", &subject, &what, now);
            return Ok(InventoryOutcome::default());
        }
        let fresh = row.inventory != Some(inventory.number());
        if fresh {
            if inventory.next_recording() < row.next_recording {
                let what = format!(
                    "it had {} recordings, now {}",
                    row.next_recording,
                    inventory.next_recording()
                );
                self.raise("recordings_missing", &subject, &what, now);
            }
            self.keep_inventory(inventory)?;
            self.apply_inventory(number, inventory, true)?;
            row.inventory = Some(inventory.number());
            row.next_recording = row.next_recording.max(inventory.next_recording());
            self.books
                .ledger
                .put(rows::numbered(tag::CAMERA, number), &row);
        }
        let want = inventory
            .held()
            .map(|held| self.wanted(number, held))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(InventoryOutcome {
            want: want.into_iter().flatten().collect(),
            fresh,
        })
    }

    fn wanted(&self, camera: u32, held: &Held) -> Result<Option<WantManifests>, SpoolError> {
        let from_index = match self.books.recording(camera, held.number)? {
            None => 0,
            Some(rec) if rec.row.next_missing <= held.index => rec.row.next_missing,
            Some(rec) => {
                let row = ManifestRow {
                    camera,
                    number: rec.number,
                    index: held.index,
                    open: 0,
                    answered: Vec::new(),
                    refused_by: Vec::new(),
                    queue: None,
                    receipts: Vec::new(),
                    released: false,
                };
                if self
                    .books
                    .ledger
                    .has(&rows::manifest_of(&row, &held.manifest))?
                {
                    return Ok(None);
                }
                held.index
            }
        };
        Ok(Some(WantManifests {
            number: held.number,
            from_index,
        }))
    }

    /// Writes the pages beside the file that they replace at the commit.
    fn keep_inventory(&mut self, inventory: &Inventory) -> Result<(), SpoolError> {
        let path = self.folder.inventory(inventory.camera());
        // Beside the whole name: a serial may hold dots, and two cameras must not share one.
        let mut tmp = path.clone().into_os_string();
        tmp.push(".tmp");
        let tmp = std::path::PathBuf::from(tmp);
        let mut bytes = Vec::new();
        for page in inventory.pages() {
            bytes.extend(
                u32::try_from(page.bytes().len())
                    .expect("pages are bounded")
                    .to_be_bytes(),
            );
            bytes.extend_from_slice(page.bytes());
        }
        fs::write(&tmp, &bytes).at(&tmp)?;
        self.group.renames.retain(|(from, _)| *from != tmp);
        self.group.renames.push((tmp, path));
        self.folder.changed(Place::Inventories);
        Ok(())
    }

    /// Lets an inventory overrule the rows of its camera's recordings. Unless it is the `latest` that the camera said,
    /// recordings beyond its next number are younger than it, and it says nothing of them.
    pub(crate) fn apply_inventory(
        &mut self,
        camera: u32,
        inventory: &Inventory,
        latest: bool,
    ) -> Result<(), SpoolError> {
        let held: HashMap<u64, &Held> = inventory.held().map(|h| (h.number, h)).collect();
        let released: Vec<Range> = inventory.released().map(|r| r.range).collect();
        let prefix = rows::key(tag::RECORDING, &[&camera.to_be_bytes()]);
        let mut known = Vec::new();
        for item in self.books.ledger.scan(&prefix, None) {
            let (key, value) = item?;
            let number = key.last_chunk().map(|n| u64::from_be_bytes(*n));
            let row: RecordingRow = minicbor::decode(&value)
                .map_err(|e| SpoolError::Contradiction(format!("a recording: {e}")))?;
            known.push((
                number.ok_or_else(|| SpoolError::Contradiction("a key too short".into()))?,
                row,
            ));
        }
        for (number, row) in known {
            let mut rec = Recording {
                camera,
                number,
                row,
            };
            let fate = match held.get(&number) {
                Some(_) => Fate::Held,
                None if released.iter().any(|r| r.contains(number)) => Fate::Released,
                None if inventory.overwritten().any(|r| r.contains(number)) => Fate::Overwritten,
                None if !latest && number >= inventory.next_recording() => continue,
                // Beyond its next number: an inventory that lost recordings. The alarm is raised by the caller.
                None => Fate::Released,
            };
            self.apply_fate(&mut rec, fate, held.get(&number).copied())?;
        }
        Ok(())
    }

    fn apply_fate(
        &mut self,
        rec: &mut Recording,
        fate: Fate,
        held: Option<&Held>,
    ) -> Result<(), SpoolError> {
        let has = match fate {
            Fate::Held => camera_has::IT,
            Fate::Released => camera_has::ERASED,
            Fate::Overwritten => camera_has::OVERWRITTEN,
        };
        let archived =
            rec.row.stages[Stage::Archived as usize] + rec.row.stages[Stage::Released as usize];
        let erased = held.is_some_and(|h| !h.erased.is_empty());
        if rec.row.fate == has && archived == 0 && !erased {
            return Ok(());
        }
        // What is over stays over: a camera's whole history is not walked at each of its inventories.
        let released = rec.row.stages[Stage::Released as usize];
        let over = has == camera_has::ERASED && released == rec.row.stages.iter().sum::<u32>();
        if rec.row.fate == has && over {
            return Ok(());
        }
        rec.row.fate = has;
        let within = |ranges: Option<&Vec<Range>>, seq: u64| {
            ranges.is_some_and(|r| r.iter().any(|r| r.contains(seq)))
        };
        for digest in self.books.segments_of(rec.camera, rec.number)? {
            self.books.change(&digest, rec, |row| {
                let erased = row
                    .seq
                    .is_some_and(|seq| within(held.map(|h| &h.erased), seq));
                row.camera_has = if erased { camera_has::ERASED } else { has };
                // The header has no number in the lists: it goes with the recording.
                let receipted = match row.seq {
                    Some(seq) => {
                        within(held.map(|h| &h.receipted), seq) || has == camera_has::ERASED
                    }
                    None => has == camera_has::ERASED,
                };
                match row.stage() {
                    Stage::Archived if receipted => _ = step(row, Event::Released),
                    Stage::Released if !receipted && has == camera_has::IT && row.seq.is_some() => {
                        _ = step(row, Event::Listed)
                    }
                    _ => {}
                }
            })?;
        }
        // A camera that has erased every segment and still lists the recording lacks receipts for its manifests.
        let papers_only =
            held.is_some_and(|h| rec.row.end == Some(h.erased.iter().map(Range::count).sum()));
        if papers_only || has == camera_has::ERASED {
            for manifest in self.books.manifests_of(rec.camera, rec.number)? {
                self.books
                    .change_manifest(&manifest, &rec.row, |row| row.released = !papers_only)?;
            }
        }
        self.books.save(rec);
        self.books.may_be_over(rec);
        Ok(())
    }
}
