//! Alarms: each has one stable code, stays raised until its cause is gone, is a line at error when it
//! begins, and says what, where, since when and what to do. The metric `archive_alarm` counts those raised;
//! `/alarms` on the metrics address lists them.
//!
//! Bounded: above [`limits::ALARMS_OF_ONE`] further subjects of a code are logged only. Each code has its own
//! room, so that what a camera can raise at will (a conflict) never hides that the store fails. What a camera or a repeater did
//! (a conflict, a lower inventory number) has no end that a gateway could see: it stays until a restart.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus::{IntGaugeVec, Opts, Registry};
use protocol::ids::Time;
use tracing::{error, info};

use crate::limits;

/// Every alarm that a gateway can raise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// The store fails.
    StoreFailed,
    /// Stored bytes are not what their name says.
    ObjectDamaged,
    /// Two different objects claim one place in a recording.
    Conflict,
    /// A camera's inventory number went down.
    InventoryLower,
    /// One serial, another incarnation.
    IncarnationNew,
    /// A repeater's logbook goes back.
    LogbookBehind,
    /// A repeater's logbook says another entry where one was countersigned.
    LogbookForked,
    /// A repeater's logbook was begun anew.
    LogbookNew,
    /// A header that no active recipient can open.
    RecipientInactive,
    /// A header that no recipient of the key list can open.
    RecipientUnknown,
    /// The site's receipt key may not sign, or its epoch is void.
    CannotSign,
    /// A key list is refused.
    KeyListRefused,
    /// The revocation list is past its date.
    CrlStale,
    /// Changed credentials cannot be loaded.
    CredentialsUnusable,
}

impl Alarm {
    /// Every alarm.
    pub const ALL: [Alarm; 14] = [
        Alarm::StoreFailed,
        Alarm::ObjectDamaged,
        Alarm::Conflict,
        Alarm::InventoryLower,
        Alarm::IncarnationNew,
        Alarm::LogbookBehind,
        Alarm::LogbookForked,
        Alarm::LogbookNew,
        Alarm::RecipientInactive,
        Alarm::RecipientUnknown,
        Alarm::CannotSign,
        Alarm::KeyListRefused,
        Alarm::CrlStale,
        Alarm::CredentialsUnusable,
    ];

    /// The stable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Alarm::StoreFailed => "store_failed",
            Alarm::ObjectDamaged => "object_damaged",
            Alarm::Conflict => "conflict",
            Alarm::InventoryLower => "inventory_lower",
            Alarm::IncarnationNew => "incarnation_new",
            Alarm::LogbookBehind => "logbook_behind",
            Alarm::LogbookForked => "logbook_forked",
            Alarm::LogbookNew => "logbook_new",
            Alarm::RecipientInactive => "recipient_inactive",
            Alarm::RecipientUnknown => "recipient_unknown",
            Alarm::CannotSign => "cannot_sign",
            Alarm::KeyListRefused => "key_list_refused",
            Alarm::CrlStale => "crl_stale",
            Alarm::CredentialsUnusable => "credentials_unusable",
        }
    }

    /// What to do.
    #[must_use]
    pub fn cure(self) -> &'static str {
        match self {
            Alarm::StoreFailed => {
                "see to the store; repeaters keep what was refused and offer it again"
            }
            Alarm::ObjectDamaged => {
                "check the store's disks; the object is asked for again and ends this alarm when it is stored"
            }
            Alarm::Conflict => "both are kept; inquire into the camera, and run `archive verify`",
            Alarm::InventoryLower => {
                "inquire into the camera: its storage was rolled back, or somebody replays old statements"
            }
            Alarm::IncarnationNew => {
                "find out why the camera's storage was initialised again, and whether all it held had arrived"
            }
            Alarm::LogbookBehind => {
                "inquire at the station: an older copy of the repeater's spool was put back, or its logbook was cut"
            }
            Alarm::LogbookForked => {
                "inquire at the station: the repeater's logbook was altered, or two machines run with copies of one spool"
            }
            Alarm::LogbookNew => {
                "the first entry of the repeater's logbook says why: compare what it names with what stands here"
            }
            Alarm::RecipientInactive => {
                "the camera seals to retired or escrow keys only: bring it the newest key list"
            }
            Alarm::RecipientUnknown => {
                "nobody here could read it: inquire into the camera's firmware and key list"
            }
            Alarm::CannotSign => {
                "have the agency list this site's receipt key as active, and start a new store if its epoch is void"
            }
            Alarm::KeyListRefused => "compare the agency's key list with the one named here",
            Alarm::CrlStale => {
                "fetch the agency's newest revocation list; the old one is used until then"
            }
            Alarm::CredentialsUnusable => {
                "mend the file named here; the former credentials are used until then"
            }
        }
    }
}

/// One alarm that is raised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raised {
    /// Which.
    pub alarm: Alarm,
    /// Where: an object, a camera, a file.
    pub subject: String,
    /// What was found.
    pub what: String,
    /// Since when.
    pub since: Time,
}

/// All alarms of this process.
#[derive(Debug)]
pub struct Alarms {
    raised: Mutex<BTreeMap<(Alarm, String), Raised>>,
    gauge: IntGaugeVec,
}

impl Alarms {
    /// No alarms yet; the gauge goes to `registry`.
    #[must_use]
    pub fn new(registry: &Registry) -> Alarms {
        let options = Opts::new("archive_alarm", "Alarms raised now, by code");
        let gauge =
            IntGaugeVec::new(options, &["code"]).expect("a metric's name and label are constants");
        registry
            .register(Box::new(gauge.clone()))
            .expect("each metric is registered once");
        Alarm::ALL
            .iter()
            .for_each(|a| gauge.with_label_values(&[a.code()]).set(0));
        Alarms {
            raised: Mutex::default(),
            gauge,
        }
    }

    /// Raises an alarm about `subject`; a raised one stays as it is.
    pub fn raise(&self, alarm: Alarm, subject: &str, what: &str, now: Time) {
        let mut raised = self.lock();
        let key = (alarm, subject.to_owned());
        if raised.contains_key(&key) {
            return;
        }
        error!(
            code = alarm.code(),
            subject,
            "alarm: {what}; {}",
            alarm.cure()
        );
        let of_code = raised.keys().filter(|(code, _)| *code == alarm).count();
        if of_code < limits::ALARMS_OF_ONE {
            self.gauge.with_label_values(&[alarm.code()]).inc();
            let entry = Raised {
                alarm,
                subject: subject.to_owned(),
                what: what.to_owned(),
                since: now,
            };
            raised.insert(key, entry);
        }
    }

    /// Ends an alarm whose cause is gone.
    pub fn clear(&self, alarm: Alarm, subject: &str) {
        let mut raised = self.lock();
        if raised.is_empty() {
            return;
        }
        if raised.remove(&(alarm, subject.to_owned())).is_some() {
            self.gauge.with_label_values(&[alarm.code()]).dec();
            info!(code = alarm.code(), subject, "alarm ended");
        }
    }

    /// Those raised now.
    #[must_use]
    pub fn list(&self) -> Vec<Raised> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Alarm, String), Raised>> {
        self.raised.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_code_takes_the_room_of_another() {
        let alarms = Alarms::new(&Registry::new());
        let of = |alarm| alarms.list().iter().filter(|r| r.alarm == alarm).count();
        for n in 0..20 * limits::ALARMS_OF_ONE {
            alarms.raise(Alarm::Conflict, &format!("recording {n}"), "two", Time(0));
        }
        assert_eq!(of(Alarm::Conflict), limits::ALARMS_OF_ONE);
        alarms.raise(Alarm::StoreFailed, "store", "no answer", Time(0));
        assert_eq!(of(Alarm::StoreFailed), 1);
        alarms.clear(Alarm::Conflict, "recording 0");
        alarms.raise(Alarm::Conflict, "one more", "two", Time(0));
        assert_eq!(of(Alarm::Conflict), limits::ALARMS_OF_ONE);
    }
}
