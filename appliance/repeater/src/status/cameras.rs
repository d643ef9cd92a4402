//! What the page says of cameras: every one that the ledger knows, where it is, how far it is and how it was met last;
//! and whoever else was seen.

use std::collections::BTreeMap;
use std::time::Instant;

use protocol::custody::Stage;
use serde::Serialize;
use spool::{CameraStatus, Meeting, Spool, SpoolError};

use super::by_stage;
use crate::discover::roster::{Near, Reach};
use crate::pull::Sessions;
use crate::pull::sessions::Present;

/// One camera.
#[derive(Debug, Serialize)]
pub struct CameraLine {
    /// Its serial.
    pub serial: String,
    /// Its storage's incarnation.
    pub incarnation: String,
    /// Where it is connected, or would be.
    pub address: Option<String>,
    /// How it is reached; none where it is away.
    pub path: Option<PathLine>,
    /// `pulling`, `idle`, `greeting`, `asleep` (here, and nothing to give) or `away`.
    pub state: &'static str,
    /// Recordings known.
    pub recordings: u64,
    /// Segments by stage.
    pub segments: BTreeMap<&'static str, u64>,
    /// Sealed bytes announced, in all its recordings.
    pub bytes_announced: u64,
    /// Sealed bytes pulled on the present session.
    pub bytes_pulled: u64,
    /// Segments that are here, or further, of all that it announced, in percent.
    pub progress_percent: u64,
    /// In how many seconds the rest is here, at the present speed.
    pub estimate_seconds: Option<u64>,
    /// Segments announced and not archived.
    pub outstanding: u64,
    /// Last contact, in milliseconds since the epoch.
    pub last_contact_ms: Option<u64>,
    /// What was learnt of it then.
    pub contact: Option<ContactLine>,
}

/// How a camera is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PathLine {
    /// Docked, or nearby.
    pub docked: bool,
    /// The bay.
    pub bay: Option<String>,
    /// How well it is heard.
    pub signal_dbm: Option<i8>,
    /// Whether routine footage is pulled.
    pub takes_routine: bool,
}

/// What was learnt of a camera at its last contact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ContactLine {
    /// Docked, or nearby.
    pub docked: bool,
    /// The bay.
    pub bay: Option<String>,
    /// How well it was heard.
    pub signal_dbm: Option<i8>,
    /// Its clock less this machine's; none where it was unset.
    pub clock_offset_ms: Option<i64>,
    /// So much that may be off either way.
    pub clock_error_ms: Option<u64>,
    /// Whether this machine's clock was known to be right.
    pub time_trusted: bool,
    /// Its battery.
    pub battery_percent: Option<u8>,
    /// Whether it charged.
    pub charging: Option<bool>,
    /// Its free storage in bytes.
    pub free_bytes: Option<u64>,
    /// Its firmware's version.
    pub firmware: Option<String>,
}

/// Somebody who is no known camera.
#[derive(Debug, Serialize)]
pub struct DeviceLine {
    /// Where.
    pub address: String,
    /// On which interface, where that is known.
    pub interface: Option<String>,
    /// Why it was refused; none where nobody has answered there yet.
    pub refused: Option<&'static str>,
}

/// What the ledger knows of a camera, in one look.
#[derive(Debug)]
pub(super) struct Known {
    camera: CameraStatus,
    stages: [u64; 5],
    bytes: u64,
    /// Bytes still to be pulled, about.
    to_pull: u64,
}

/// Every camera of the ledger.
pub(super) fn look(spool: &Spool) -> Result<Vec<Known>, SpoolError> {
    let mut cameras = Vec::new();
    for camera in spool.cameras()? {
        let (mut stages, mut bytes, mut to_pull) = ([0; 5], 0, 0);
        for recording in spool.recordings(&camera.id)? {
            stages
                .iter_mut()
                .zip(recording.stages)
                .for_each(|(sum, n)| *sum += n);
            bytes += recording.bytes;
            let all: u64 = recording.stages.iter().sum();
            let announced = recording.stages[Stage::Announced as usize];
            to_pull += (recording.bytes / all.max(1)).saturating_mul(announced);
        }
        cameras.push(Known {
            camera,
            stages,
            bytes,
            to_pull,
        });
    }
    Ok(cameras)
}

/// The lines of all cameras, and of whoever else is here.
pub(super) fn lines(
    known: Vec<Known>,
    sessions: &Sessions,
    now: Instant,
) -> (Vec<CameraLine>, Vec<DeviceLine>) {
    let present = sessions.present();
    let (near, devices) = sessions.here(now);
    let cameras = known.into_iter().map(|known| {
        let id = &known.camera.id;
        let here = near.iter().find(|n| n.camera == *id);
        let mut own = present
            .iter()
            .filter(|(_, p)| p.camera.as_ref() == Some(id));
        let session = own.find(|(a, _)| here.is_none_or(|n| n.address == *a));
        line(known, here, session.map(|(_, p)| p))
    });
    let devices = devices.into_iter().map(|d| DeviceLine {
        address: d.address.to_string(),
        interface: d.link.map(|l| l.to_string()),
        refused: d.refused,
    });
    (cameras.collect(), devices.collect())
}

fn line(known: Known, here: Option<&Near>, session: Option<&Present>) -> CameraLine {
    let (camera, stages) = (known.camera, known.stages);
    let all: u64 = stages.iter().sum();
    let lacking = stages[Stage::Announced as usize];
    let speed = session.map(|p| p.speed);
    CameraLine {
        serial: camera.id.serial.to_string(),
        incarnation: camera.id.incarnation.to_string(),
        address: here.map(|n| n.address.to_string()),
        path: here.map(|n| path(n.reach)),
        state: match (session, here) {
            (Some(p), _) => p.state,
            (None, Some(_)) => "asleep",
            (None, None) => "away",
        },
        recordings: camera.recordings,
        segments: by_stage(|stage| stages[stage as usize]),
        bytes_announced: known.bytes,
        bytes_pulled: session.map_or(0, |p| p.pulled_bytes),
        progress_percent: (all - lacking) * 100 / all.max(1),
        estimate_seconds: speed.and_then(|s| s.takes(known.to_pull)),
        outstanding: camera.outstanding.segments,
        last_contact_ms: camera.last_contact.map(|t| t.0),
        contact: camera.meeting.map(contact),
    }
}

fn path(reach: Reach) -> PathLine {
    let (bay, signal_dbm) = match reach {
        Reach::Docked { bay } => (bay, None),
        Reach::Nearby { signal, .. } => (None, signal),
    };
    PathLine {
        docked: reach.is_docked(),
        bay: bay.map(|b| b.to_string()),
        signal_dbm,
        takes_routine: reach.takes_routine(),
    }
}

fn contact(m: Meeting) -> ContactLine {
    ContactLine {
        docked: m.docked,
        bay: m.bay,
        signal_dbm: m.signal_dbm,
        clock_offset_ms: m.clock.map(|c| c.offset_ms),
        clock_error_ms: m.clock.map(|c| c.error_ms),
        time_trusted: m.time_trusted,
        battery_percent: m.battery_percent,
        charging: m.charging,
        free_bytes: m.free_bytes,
        firmware: m.firmware,
    }
}
