//! Room to record in: the quota, what may be erased for it, and the ballast that closes a recording on a full disk.
//!
//! Only [`Store::make_room`] frees anything, and only what receipts permit. Where that is not enough, recording is
//! refused; nothing is overwritten.

use std::fs;

use tracing::{info, warn};

use super::{SealError, Sealer};
use crate::disk::{self, at};
use crate::limits;
use crate::store::{Store, layout};

impl Sealer {
    /// Makes sure that the quota has room for `bytes` and a closing manifest.
    pub(super) fn need(&mut self, bytes: u64) -> Result<(), SealError> {
        let over = |used: u64| (used + bytes + limits::CLOSING_BYTES).saturating_sub(self.quota);
        if over(self.used) == 0 {
            return Ok(());
        }
        self.used = self.measure()?; // the server may have erased meanwhile
        let missing = over(self.used);
        if missing == 0 {
            return Ok(());
        }
        self.make_room(missing)?;
        if self.used + bytes + limits::CLOSING_BYTES > self.quota {
            return Err(SealError::Full { needed: bytes });
        }
        Ok(())
    }

    /// Erases what receipts permit, longest-receipted first; gives the bytes freed.
    pub(super) fn make_room(&mut self, bytes: u64) -> Result<u64, SealError> {
        if self.view.is_none() {
            self.view = Some(Store::open(
                &self.layout,
                &self.paper.camera,
                &self.trust,
                None,
            )?);
        }
        let now = self.now();
        let view = self.view.as_mut().expect("made above");
        let freed = view.make_room(bytes, now)?;
        info!(
            needed = bytes,
            freed, "made room by erasing what receipts permit"
        );
        self.used = self.measure()?;
        self.keep_ballast();
        Ok(freed)
    }

    pub(super) fn measure(&self) -> Result<u64, SealError> {
        let mut used = 0;
        for (name, _) in disk::list(&self.layout.recordings())? {
            if let Some(number) = layout::recording_number(&name) {
                let folder = self.layout.recording(number);
                if folder.exists() {
                    used += disk::list(&folder)?
                        .iter()
                        .map(|(_, length)| length)
                        .sum::<u64>();
                }
            }
        }
        Ok(used)
    }

    /// Reserves the room that closes a recording on a full disk. Without it the next start closes it.
    pub(super) fn keep_ballast(&self) {
        let path = self.layout.ballast();
        let options = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path);
        let reserved = options.map_err(at("open", &path)).and_then(|file| {
            let flags = nix::fcntl::FallocateFlags::empty();
            disk::reserve(&file, 0, limits::BALLAST_BYTES, flags).map_err(at("reserve", &path))
        });
        if let Err(error) = reserved {
            warn!(%error, "no ballast");
        }
    }
}
