//! `bodycam status`: what is held, what has its receipts, what was erased. Reads only; needs no credentials, since the
//! store keeps the root that it was last opened with.

use std::path::Path;

use protocol::identity::Trust;
use serde::Serialize;

use crate::disk;
use crate::store::layout::Layout;
use crate::store::papers::{self, CameraPaper, InventoryPaper};
use crate::store::recording::{Recording, Whereabouts};
use crate::store::{Store, StoreError};

/// The whole store.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The camera's serial.
    pub serial: String,
    /// Its storage's incarnation, in hexadecimal.
    pub incarnation: String,
    /// The number that the next recording gets.
    pub next_recording: u64,
    /// Number of the newest inventory shown; none while none was.
    pub inventory: Option<u64>,
    /// Number of the key list in use.
    pub key_list: u64,
    /// Recordings that are held, in whole or in part.
    pub recordings: Vec<RecordingStatus>,
    /// How many recordings were released: erased as a whole on receipts.
    pub released: u64,
    /// How many segments those had.
    pub released_segments: u64,
    /// How many recordings are gone without receipts (damage).
    pub lost: u64,
    /// Sealed bytes held, headers included.
    pub bytes: u64,
    /// How many erasures the record tells of.
    pub erase_records: u64,
}

/// One recording.
#[derive(Clone, Debug, Serialize)]
pub struct RecordingStatus {
    /// Its number.
    pub number: u64,
    /// `routine`, `flagged` or `urgent`.
    pub class: &'static str,
    /// `recording`, `stopped` or `interrupted`.
    pub state: &'static str,
    /// Segments that its manifests name.
    pub segments: u64,
    /// Of those, segments that are here.
    pub held: u64,
    /// Segments with the receipts that the policy asks for, erased or not.
    pub receipted: u64,
    /// Segments erased on receipts.
    pub erased: u64,
    /// Segments that are gone without receipts (damage).
    pub missing: u64,
    /// Sealed bytes held, header included.
    pub bytes: u64,
}

/// Reads a store's status.
///
/// # Errors
/// Any [`StoreError`].
pub fn status(store: &Path) -> Result<Status, StoreError> {
    let layout = Layout::new(store);
    let path = layout.file("camera.cbor");
    let none = || StoreError::Damaged {
        path: path.clone(),
        what: "no camera's store is here",
    };
    let paper = papers::read::<CameraPaper>(&path)?.ok_or_else(none)?;
    let root = disk::read_if_there(&layout.file("trust.pem"), 64 * 1024)?.ok_or_else(none)?;
    let bad = |_| StoreError::Damaged {
        path: layout.file("trust.pem"),
        what: "not a root certificate",
    };
    let trust = Trust::from_pem(&root, None).map_err(bad)?;
    let store = Store::open(&layout, &paper.camera, &trust, None)?;
    let recordings: Vec<_> = store
        .recordings()
        .iter()
        .map(|(number, r)| recording(*number, r))
        .collect();
    Ok(Status {
        serial: paper.camera.serial.to_string(),
        incarnation: paper.camera.incarnation.to_string(),
        next_recording: store.next_number(),
        inventory: papers::read::<InventoryPaper>(&layout.file("inventory.cbor"))?
            .map(|p| p.number),
        key_list: store.keys().number(),
        released: store.gone().len() as u64,
        released_segments: store.gone().values().map(|gone| gone.segments).sum(),
        lost: store.lost().iter().map(protocol::ids::Range::count).sum(),
        bytes: recordings.iter().map(|r| r.bytes).sum(),
        erase_records: store.erasures(),
        recordings,
    })
}

fn recording(number: u64, r: &Recording) -> RecordingStatus {
    let count = |which: &dyn Fn(&crate::store::recording::Segment) -> bool| {
        r.segments.iter().filter(|s| which(s)).count() as u64
    };
    RecordingStatus {
        number,
        class: r.class.name(),
        state: match r.end.map(|e| e.reason) {
            None => "recording",
            Some(protocol::manifest::EndReason::Stopped) => "stopped",
            Some(protocol::manifest::EndReason::Interrupted) => "interrupted",
        },
        segments: r.segments.len() as u64,
        held: count(&|s| s.bytes == Whereabouts::Here),
        receipted: count(&|s| s.receipted.is_some() || s.bytes == Whereabouts::Erased),
        erased: count(&|s| s.bytes == Whereabouts::Erased),
        missing: count(&|s| s.bytes == Whereabouts::Missing),
        bytes: r.bytes_here(),
    }
}

/// What people read.
#[must_use]
pub fn text(status: &Status) -> String {
    let mut out = format!(
        "camera {} incarnation {}\n{} recordings held, {} released, {} lost; {} bytes; {} erasures on record; key list {}\n",
        status.serial,
        status.incarnation,
        status.recordings.len(),
        status.released,
        status.lost,
        status.bytes,
        status.erase_records,
        status.key_list,
    );
    for r in &status.recordings {
        out += &format!(
            "  {:>6} {:<7} {:<11} {:>6} segments: {:>6} held {:>6} receipted {:>6} erased {:>3} missing {:>14} bytes\n",
            r.number,
            r.class,
            r.state,
            r.segments,
            r.held,
            r.receipted,
            r.erased,
            r.missing,
            r.bytes,
        );
    }
    out
}
