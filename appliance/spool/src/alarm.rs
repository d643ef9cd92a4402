//! Alarms of the spool: raised with a stable code, kept in the ledger, and lowered when their cause is gone. The
//! repeater turns each into a metric, a log line and a line in its status.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use protocol::ids::Time;

use crate::error::SpoolError;
use crate::ledger::Ledger;
use crate::limits;
use crate::rows::{Key, key, tag};

/// Every code, and what to do about it.
pub const CODES: [(&str, &str); 22] = [
    (
        "camera_incarnation",
        "the camera's storage was wiped or replaced: ask who did it, and what had not been offloaded",
    ),
    (
        "copy_damaged",
        "the copy here went bad and is pulled again; if it comes back, check the disk (smartctl)",
    ),
    (
        "countersigned_damaged",
        "what archives countersigned of the logbook could not be read; the next countersignature is kept anew: check the disk",
    ),
    (
        "digest_owned",
        "a camera claims another recording's segment: examine the camera",
    ),
    (
        "disk_full",
        "another program fills the disk: make room; pulling goes on by itself",
    ),
    (
        "header_changed",
        "a camera named two headers for one recording: examine the camera",
    ),
    (
        "interim_kept",
        "footage that came during a rebuild could not be taken over: keep the folder, ask its cameras and support",
    ),
    (
        "inventory_lower",
        "the camera went back in time: restored from a copy, or a clone; examine the camera",
    ),
    (
        "key_list_damaged",
        "the stored key list was unreadable and the configured one is used: distribute the newest",
    ),
    (
        "ledger_rebuilding",
        "wait: new footage is taken meanwhile, older footage goes on when it is done; see the log for why",
    ),
    (
        "logbook_behind",
        "an archive has seen more of the logbook than is here: ask who put an older copy back; restart the daemon, which begins a new logbook that names what is missing",
    ),
    (
        "logbook_damaged",
        "the logbook was damaged and a new one begun: keep the old file, check the disk",
    ),
    (
        "logbook_forked",
        "an archive has seen another entry where this logbook has its own: ask whether two machines run with one spool's copies; restart the daemon, which begins a new logbook",
    ),
    (
        "manifest_conflict",
        "two manifests carry one index, or two segments one number; both are kept: examine the camera",
    ),
    (
        "manifest_limit",
        "a camera announced more than one camera may: examine the camera",
    ),
    (
        "manifest_missing",
        "a manifest's file was missing or damaged; it is asked for again: check the disk",
    ),
    (
        "recordings_missing",
        "recordings that the camera had are in no list of its newest inventory: examine the camera",
    ),
    (
        "released_void",
        "a site lost a store on which released footage stood: the logbook has the receipts; ask the other sites",
    ),
    (
        "segment_refused",
        "bytes from the camera did not match their digest; they are pulled again: examine camera and link",
    ),
    (
        "site_refused",
        "an archive refuses footage: see the reason; it is offered again daily and after a change",
    ),
    (
        "sync_failed",
        "a segment could not be written and is pulled again: check the disk (smartctl, dmesg)",
    ),
    (
        "unaccounted",
        "announced footage is on no known holder: see `status`, then ask the archive and the camera",
    ),
];

/// The codes of what happened once and that no later event undoes: a person looks into it and settles it. The others
/// go when their cause is gone.
pub const SETTLED_BY_A_PERSON: [&str; 13] = [
    "camera_incarnation",
    "digest_owned",
    "header_changed",
    "interim_kept",
    "inventory_lower",
    "key_list_damaged",
    "logbook_behind",
    "logbook_damaged",
    "logbook_forked",
    "manifest_conflict",
    "manifest_limit",
    "recordings_missing",
    "released_void",
];

/// What came of settling an alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It stands no more.
    Cleared,
    /// No such alarm stands.
    NotRaised,
    /// It goes when its cause is gone, and not before.
    EndsByItself,
}

/// One alarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// One of [`CODES`].
    pub code: &'static str,
    /// What it is about: a camera, a recording, a digest, a site.
    pub subject: String,
    /// What happened.
    pub what: String,
    /// What to do.
    pub action: &'static str,
    /// When it was raised.
    pub since: Time,
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct Row {
    #[n(0)]
    subject: String,
    #[n(1)]
    what: String,
    #[n(2)]
    since: Time,
}

/// The alarms that are raised.
#[derive(Debug, Default)]
pub(crate) struct Alarms(BTreeMap<(&'static str, String), Alarm>);

impl Alarms {
    /// Takes a row as read.
    pub(crate) fn read(&mut self, key: &[u8], value: &[u8]) -> Result<(), SpoolError> {
        let row: Row = minicbor::decode(value)
            .map_err(|e| SpoolError::Contradiction(format!("an alarm: {e}")))?;
        // A code that this release does not know any more has no cause here either.
        if let Some((code, action)) = CODES.iter().find(|(code, _)| {
            key.get(1..)
                .is_some_and(|k| k.starts_with(&[code.as_bytes(), b"\0"].concat()))
        }) {
            let alarm = Alarm {
                code,
                subject: row.subject.clone(),
                what: row.what,
                action,
                since: row.since,
            };
            self.0.insert((code, row.subject), alarm);
        }
        Ok(())
    }

    /// Raises one; true where it is new.
    pub(crate) fn raise(
        &mut self,
        code: &str,
        subject: &str,
        what: String,
        now: Time,
        ledger: &mut Ledger,
    ) -> bool {
        let (code, action) = CODES
            .iter()
            .find(|(c, _)| *c == code)
            .expect("every code raised is in the table");
        let id = (*code, subject.to_owned());
        if self.0.contains_key(&id) {
            return false;
        }
        if self.0.keys().filter(|(c, _)| c == code).count() >= limits::ALARMS_PER_CODE {
            tracing::error!(
                code,
                subject,
                "{what}; too many alarms of this code are raised to keep this one"
            );
            return false;
        }
        tracing::error!(code, subject, "{what}; {action}");
        ledger.put(
            alarm_key(code, subject),
            &Row {
                subject: subject.to_owned(),
                what: what.clone(),
                since: now,
            },
        );
        self.0.insert(
            id,
            Alarm {
                code,
                subject: subject.to_owned(),
                what,
                action,
                since: now,
            },
        );
        true
    }

    /// Lowers one; true where it was raised.
    pub(crate) fn lower(&mut self, code: &str, subject: &str, ledger: &mut Ledger) -> bool {
        let Some((code, _)) = CODES.iter().find(|(c, _)| *c == code) else {
            return false;
        };
        let was = self.0.remove(&(*code, subject.to_owned())).is_some();
        if was {
            tracing::info!(code, subject, "alarm lowered");
            ledger.delete(alarm_key(code, subject));
        }
        was
    }

    /// Those that are raised.
    pub(crate) fn all(&self) -> Vec<Alarm> {
        self.0.values().cloned().collect()
    }
}

fn alarm_key(code: &str, subject: &str) -> Key {
    key(tag::ALARM, &[code.as_bytes(), b"\0", subject.as_bytes()])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::faults::Faults;
    use crate::folder::Folder;

    #[test]
    fn every_code_that_a_person_settles_is_a_code() {
        for code in SETTLED_BY_A_PERSON {
            assert!(CODES.iter().any(|(c, _)| *c == code), "{code}");
        }
    }

    #[test]
    fn many_alarms_of_one_code_hide_none_of_another() {
        let dir = tempfile::tempdir().unwrap();
        let (root, run) = (dir.path().join("spool"), dir.path().join("run"));
        let folder = Folder::open(&root, &run, Faults::none()).unwrap();
        let mut ledger = Ledger::create(&folder, "ledger").unwrap();
        let mut alarms = Alarms::default();
        let mut raise = |code: &str, subject: &str| {
            alarms.raise(code, subject, String::new(), Time(1), &mut ledger)
        };
        for n in 0..2 * limits::ALARMS_PER_CODE {
            let kept = raise("segment_refused", &n.to_string());
            assert_eq!(kept, n < limits::ALARMS_PER_CODE);
        }
        assert!(raise("unaccounted", "spool") && !raise("unaccounted", "spool"));
        assert_eq!(alarms.all().len(), limits::ALARMS_PER_CODE + 1);
    }
}
