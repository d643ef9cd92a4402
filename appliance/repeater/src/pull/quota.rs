//! What each camera has had of its daily quota of urgent footage: beyond it, what it calls urgent is served as
//! flagged (`protocol::schedule`), so that a camera that calls everything urgent stands behind nobody's emergency but
//! its own. A day is one of the clock's, in UTC; whoever leaves and comes again, or makes its storage anew, has had
//! what it had. Kept in memory: a restart begins the day anew.

use std::collections::HashMap;

use protocol::ids::{Serial, Time};
use protocol::manifest::Class;
use protocol::schedule;

use crate::limits;

/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Urgent bytes of each camera today.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    day: u64,
    had: HashMap<Serial, u64>,
}

impl Quotas {
    /// It is `now`: with a new day every quota is whole again. A clock set back changes nothing.
    pub(super) fn pass(&mut self, now: Time) {
        let day = now.0 / DAY_MS;
        if day > self.day {
            self.day = day;
            self.had.clear();
        }
    }

    /// The class in which footage of this camera is served.
    pub(super) fn served(&self, camera: &Serial, class: Class) -> Class {
        let had = match self.had.get(camera) {
            Some(had) => *had,
            None if self.had.len() >= limits::QUOTA_CAMERAS => u64::MAX,
            None => 0,
        };
        schedule::served_class(class, had)
    }

    /// So many bytes were served in that class.
    pub(super) fn spend(&mut self, camera: &Serial, class: Class, bytes: u64) {
        if class == Class::Urgent {
            let had = self.had.entry(camera.clone()).or_default();
            *had = had.saturating_add(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use protocol::schedule::URGENT_BYTES_PER_DAY;

    #[test]
    fn urgent_beyond_the_quota_is_flagged_until_the_next_day_and_for_that_camera_alone() {
        let (a, b): (Serial, Serial) = ("A".parse().unwrap(), "B".parse().unwrap());
        let mut quotas = Quotas::default();
        quotas.pass(Time(5 * DAY_MS));
        quotas.spend(&a, Class::Urgent, URGENT_BYTES_PER_DAY - 1);
        quotas.spend(&a, Class::Routine, URGENT_BYTES_PER_DAY);
        assert_eq!(quotas.served(&a, Class::Urgent), Class::Urgent);
        quotas.spend(&a, Class::Urgent, 1);
        assert_eq!(quotas.served(&a, Class::Urgent), Class::Flagged);
        assert_eq!(quotas.served(&a, Class::Routine), Class::Routine);
        assert_eq!(quotas.served(&b, Class::Urgent), Class::Urgent);
        quotas.pass(Time(6 * DAY_MS - 1));
        quotas.pass(Time(4 * DAY_MS));
        assert_eq!(quotas.served(&a, Class::Urgent), Class::Flagged);
        quotas.pass(Time(6 * DAY_MS));
        assert_eq!(quotas.served(&a, Class::Urgent), Class::Urgent);
    }

    #[test]
    fn cameras_beyond_what_is_remembered_have_no_quota() {
        let mut quotas = Quotas::default();
        for n in 0..limits::QUOTA_CAMERAS {
            quotas.spend(&format!("C{n}").parse().unwrap(), Class::Urgent, 1);
        }
        let (known, new) = ("C0".parse().unwrap(), "new".parse().unwrap());
        assert_eq!(quotas.served(&known, Class::Urgent), Class::Urgent);
        assert_eq!(quotas.served(&new, Class::Urgent), Class::Flagged);
    }
}
