//! Contacts: who came and went, and what a camera said of itself when it came. They change no custody. Each is a note in
//! the logbook; what a camera said last is also kept with the camera.
//!
//! A camera's word on itself is kept as it was given, within bounds; nothing is decided by it here.

use std::fmt;

use minicbor::{Decode, Encode};
use protocol::ids::{CameraId, SiteId, StoreEpoch, Time};

use crate::error::SpoolError;
use crate::limits;
use crate::rows::{numbered, tag};
use crate::spool::Spool;

/// An event for the logbook that changes no custody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contact {
    /// A camera's session began.
    CameraCame {
        /// The camera.
        camera: CameraId,
        /// How it came, and what it said of itself.
        meeting: Meeting,
    },
    /// It ended.
    CameraLeft {
        /// The camera.
        camera: CameraId,
    },
    /// An archive's session began.
    SiteCame {
        /// The site.
        site: SiteId,
        /// Its store's epoch.
        epoch: StoreEpoch,
    },
    /// It ended.
    SiteLeft {
        /// The site.
        site: SiteId,
    },
    /// A person's command.
    Command {
        /// Who gave it.
        who: String,
        /// What it was.
        what: String,
    },
}

/// How a camera came, and what it said of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Meeting {
    /// Docked, or nearby.
    #[n(0)]
    pub docked: bool,
    /// The bay.
    #[n(1)]
    pub bay: Option<String>,
    /// How well it was heard, in dBm.
    #[n(2)]
    pub signal_dbm: Option<i8>,
    /// Its clock against the repeater's; none where it is unset.
    #[n(3)]
    pub clock: Option<ClockOffset>,
    /// Whether the repeater's own clock was known to be right.
    #[n(4)]
    pub time_trusted: bool,
    /// Its battery.
    #[n(5)]
    pub battery_percent: Option<u8>,
    /// Whether it charges.
    #[n(6)]
    pub charging: Option<bool>,
    /// Its free storage in bytes.
    #[n(7)]
    pub free_bytes: Option<u64>,
    /// Its firmware's version.
    #[n(8)]
    pub firmware: Option<String>,
}

/// A camera's clock less the repeater's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct ClockOffset {
    /// In milliseconds: positive where the camera is ahead.
    #[n(0)]
    pub offset_ms: i64,
    /// So much it may be off either way, by the way that the question took, and by what the repeater's own clock may be
    /// off, where that is known.
    #[n(1)]
    pub error_ms: u64,
}

impl Meeting {
    /// The same, no longer than is kept.
    fn bounded(mut self) -> Meeting {
        for text in [&mut self.bay, &mut self.firmware].into_iter().flatten() {
            let visible = |c: char| if c.is_control() { ' ' } else { c };
            *text = (text.chars().take(limits::CONTACT_CHARS))
                .map(visible)
                .collect();
        }
        self
    }
}

impl fmt::Display for Meeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.docked { "docked" } else { "nearby" })?;
        if let Some(bay) = &self.bay {
            write!(f, " in bay {bay}")?;
        }
        if let Some(dbm) = self.signal_dbm {
            write!(f, " at {dbm} dBm")?;
        }
        match &self.clock {
            Some(c) => write!(f, ", clock {:+} ms (+-{} ms)", c.offset_ms, c.error_ms)?,
            None => f.write_str(", clock unset")?,
        }
        if !self.time_trusted {
            f.write_str(" against a clock not known to be right")?;
        }
        if let Some(percent) = self.battery_percent {
            write!(f, ", battery {percent} %")?;
        }
        match self.charging {
            Some(true) => f.write_str(", charging")?,
            Some(false) => f.write_str(", not charging")?,
            None => {}
        }
        if let Some(bytes) = self.free_bytes {
            write!(f, ", {bytes} bytes free")?;
        }
        if let Some(firmware) = &self.firmware {
            write!(f, ", firmware {firmware}")?;
        }
        Ok(())
    }
}

impl Spool {
    /// Stages a logbook entry; a camera's contact is also kept with the camera.
    ///
    /// # Errors
    /// [`SpoolError::Ledger`].
    pub fn contact(&mut self, contact: Contact, now: Time) -> Result<(), SpoolError> {
        let note = match contact {
            Contact::CameraCame { camera, meeting } => {
                let meeting = meeting.bounded();
                let note = format!("camera {camera} came, {meeting}");
                let books = &mut self.books;
                let number = books.names.intern_camera(&camera, &mut books.ledger);
                let mut row = books.camera(number)?;
                row.last_contact = Some(now);
                row.meeting = Some(meeting);
                books.ledger.put(numbered(tag::CAMERA, number), &row);
                note
            }
            Contact::CameraLeft { camera } => format!("camera {camera} left"),
            Contact::SiteCame { site, epoch } => format!("site {site} came, epoch {epoch}"),
            Contact::SiteLeft { site } => format!("site {site} left"),
            Contact::Command { who, what } => format!("{who} commands {what}"),
        };
        self.group.notes.push(note.chars().take(1024).collect());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::rows::CameraRow;

    /// The row as it was before it kept a meeting.
    #[derive(Encode, Decode)]
    #[cbor(array)]
    struct Before {
        #[n(0)]
        id: CameraId,
        #[n(1)]
        inventory: Option<u64>,
        #[n(2)]
        next_recording: u64,
        #[n(3)]
        last_contact: Option<Time>,
    }

    fn camera() -> CameraId {
        CameraId {
            serial: "C1".parse().unwrap(),
            incarnation: protocol::ids::Incarnation([1; 16]),
        }
    }

    #[test]
    fn rows_without_a_meeting_are_read_and_rows_with_one_by_older_programs() {
        let before = Before {
            id: camera(),
            inventory: Some(3),
            next_recording: 7,
            last_contact: Some(Time(9)),
        };
        let row: CameraRow = minicbor::decode(&minicbor::to_vec(&before).unwrap()).unwrap();
        assert_eq!((row.next_recording, &row.meeting), (7, &None));
        let meeting = Some(Meeting::default());
        let row = CameraRow { meeting, ..row };
        let read: Before = minicbor::decode(&minicbor::to_vec(&row).unwrap()).unwrap();
        assert_eq!((read.next_recording, read.last_contact), (7, Some(Time(9))));
        assert_eq!((read.id, read.inventory), (camera(), Some(3)));
    }

    #[test]
    fn a_meeting_says_what_is_known_and_no_more_than_is_kept() {
        let meeting = Meeting {
            docked: true,
            bay: Some("A1".into()),
            clock: Some(ClockOffset {
                offset_ms: -120,
                error_ms: 4,
            }),
            battery_percent: Some(80),
            charging: Some(true),
            free_bytes: Some(5),
            firmware: Some("x\ny".to_owned() + &"z".repeat(1000)),
            ..Meeting::default()
        };
        let bounded = meeting.bounded();
        assert_eq!(
            bounded.firmware.as_ref().unwrap().len(),
            limits::CONTACT_CHARS
        );
        let said = bounded.to_string();
        let begins = "docked in bay A1, clock -120 ms (+-4 ms) against a clock not known to be right, \
            battery 80 %, charging, 5 bytes free, firmware x yz";
        assert!(said.starts_with(begins), "{said}");
        let nothing = Meeting::default().to_string();
        assert!(nothing.starts_with("nearby, clock unset"), "{nothing}");
    }
}
