//! Who is served next: pure functions over class, deadlines and bytes served. One file, both hops.
//!
//! Order: urgent within the camera's daily quota first (beyond it, as flagged); then docked cameras before nearby
//! ones; then the camera that leaves or fills soonest; then the oldest footage. Equal cameras share by bytes. On the archive hop the same order
//! without the camera's haste.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::ids::{SiteId, Time};
use crate::keylist::KeyList;
use crate::manifest::{Class, Policy};
use crate::receipt;

/// Urgent bytes that one camera may have served first in one day; what is beyond goes as flagged.
pub const URGENT_BYTES_PER_DAY: u64 = 2 << 30;

/// The class in which footage is served, given what the camera has had of its urgent quota today.
#[must_use]
pub fn served_class(class: Class, urgent_bytes_today: u64) -> Class {
    match class {
        Class::Urgent if urgent_bytes_today >= URGENT_BYTES_PER_DAY => Class::Flagged,
        other => other,
    }
}

/// The position of a class in an ascending order of work.
#[must_use]
pub fn rank(class: Class) -> u8 {
    2 - class as u8
}

/// What a camera says of its need, in its hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// Battery in percent, where it says so.
    pub battery_percent: Option<u8>,
    /// Whether it charges, where it says so.
    pub charging: Option<bool>,
    /// Free storage in bytes.
    pub free_bytes: u64,
}

/// Bytes that a camera records in a second at most (1080p at 13.7 Mbit/s): how fast it fills.
pub const RECORDS_BYTES_PER_SECOND: u64 = 1_712_500;
/// Milliseconds in which a docked camera gains one percent: two hours from empty to full.
pub const CHARGES_PERCENT_MS: u64 = 72_000;
/// Whoever stays for a whole shift and has room for it is in no haste.
pub const SHIFT_MS: u64 = 8 * 60 * 60 * 1000;

/// When a camera that said so `now` is expected to leave or be full, whichever is sooner; none where neither happens
/// within a shift. A docked camera is taken out when it is charged, one that does not charge at any moment. It is
/// what the camera says: a lie gains it the first place among its class, and nobody loses the segment in flight
/// that each camera always has.
#[must_use]
pub fn deadline(now: Time, need: Need) -> Option<Time> {
    let full = (need.free_bytes / RECORDS_BYTES_PER_SECOND).saturating_mul(1000);
    let leaves = match (need.charging, need.battery_percent) {
        (Some(false), _) => Some(0),
        (Some(true), Some(percent)) => {
            Some(u64::from(100u8.saturating_sub(percent)) * CHARGES_PERCENT_MS)
        }
        _ => None,
    };
    let soonest = leaves.map_or(full, |l| l.min(full));
    (soonest < SHIFT_MS).then(|| now.plus_ms(soonest))
}

/// One camera that waits for a permit to pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Class of its next segment, after the quota.
    pub class: Class,
    /// Whether it is on the air, and not docked.
    pub nearby: bool,
    /// When it is expected to leave or be full, none where unknown.
    pub deadline: Option<Time>,
    /// Bytes that it was served in this round of sharing.
    pub served_bytes: u64,
    /// When its next segment was captured.
    pub captured: Time,
}

/// The order of service: smaller is sooner. Of one class docked cameras go before nearby ones. A deadline is compared in steps of ten minutes, so that cameras
/// that leave at one shift's end are equals and share by bytes.
#[must_use]
pub fn order(w: &Waiting) -> impl Ord + use<> {
    let haste = w.deadline.map_or(u64::MAX, |d| d.0 / 600_000);
    (
        Reverse(w.class),
        w.nearby,
        haste,
        w.served_bytes,
        w.captured,
    )
}

/// The index of the camera that is served next.
#[must_use]
pub fn next(waiting: &[Waiting]) -> Option<usize> {
    (0..waiting.len()).min_by_key(|i| order(&waiting[*i]))
}

/// The sites to which a recording's bytes go now: of the policy's sites that answer, in the policy's order,
/// so many as receipts are still lacking. A site that already gave its receipt is not asked again.
#[must_use]
pub fn sites_to_use(
    policy: &Policy,
    keys: &KeyList,
    have: &BTreeSet<SiteId>,
    answering: &BTreeSet<SiteId>,
) -> Vec<SiteId> {
    let counting = have.iter().filter(|s| policy.sites.contains(s)).count();
    let lacking = receipt::needed(policy, keys).saturating_sub(counting);
    let usable = policy
        .sites
        .iter()
        .filter(|s| answering.contains(s) && !have.contains(s) && !keys.is_suspended(s));
    usable.take(lacking).cloned().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn w(class: Class, deadline: Option<u64>, served_bytes: u64, captured: u64) -> Waiting {
        Waiting {
            class,
            nearby: false,
            deadline: deadline.map(Time),
            served_bytes,
            captured: Time(captured),
        }
    }

    #[test]
    fn urgent_then_haste_then_shares_then_age() {
        let hour = 3_600_000;
        let waiting = [
            w(Class::Routine, None, 0, 1),
            w(Class::Routine, Some(hour), 9, 5),
            w(Class::Flagged, None, 9, 9),
            w(Class::Urgent, None, 9, 9),
        ];
        assert_eq!(next(&waiting), Some(3));
        assert_eq!(next(&waiting[..3]), Some(2));
        assert_eq!(next(&waiting[..2]), Some(1));
        assert_eq!(
            next(&[w(Class::Routine, None, 8, 1), w(Class::Routine, None, 4, 2)]),
            Some(1)
        );
        assert_eq!(
            next(&[w(Class::Routine, None, 4, 2), w(Class::Routine, None, 4, 1)]),
            Some(1)
        );
        let mut near = w(Class::Routine, Some(0), 0, 0);
        near.nearby = true;
        assert_eq!(next(&[near, waiting[0]]), Some(1), "docked beats nearby");
        near.class = Class::Flagged;
        assert_eq!(next(&[near, waiting[0]]), Some(0), "but for its class");
        assert_eq!(next(&[]), None);
        assert_eq!(
            served_class(Class::Urgent, URGENT_BYTES_PER_DAY),
            Class::Flagged
        );
    }

    #[test]
    fn who_is_charged_full_or_undocked_is_soonest() {
        let need = |charging, battery_percent, free_bytes| Need {
            battery_percent,
            charging,
            free_bytes,
        };
        let (now, roomy) = (Time(1_000), 1 << 40);
        let at = |need| deadline(now, need).map(|t| t.0 - now.0);
        assert_eq!(at(need(None, None, roomy)), None, "nothing is known");
        assert_eq!(at(need(None, Some(50), roomy)), None);
        assert_eq!(at(need(Some(true), None, roomy)), None);
        assert_eq!(at(need(Some(true), Some(100), roomy)), Some(0));
        assert_eq!(
            at(need(Some(true), Some(50), roomy)),
            Some(3_600_000),
            "half of two hours"
        );
        assert_eq!(at(need(Some(true), Some(255), roomy)), Some(0));
        assert_eq!(at(need(Some(false), Some(20), roomy)), Some(0));
        assert_eq!(at(need(None, None, 0)), Some(0), "full");
        let minute = 60 * RECORDS_BYTES_PER_SECOND;
        assert_eq!(at(need(Some(true), Some(50), minute)), Some(60_000));
        assert_eq!(at(need(None, None, 8 * 60 * minute)), None, "a shift");
        assert_eq!(at(need(None, None, u64::MAX)), None);
    }

    #[test]
    fn equal_cameras_share_by_bytes() {
        let mut cameras = [0u64; 7].map(|s| w(Class::Routine, None, s, 0));
        for _ in 0..700 {
            let i = next(&cameras).unwrap();
            cameras[i].served_bytes += 4;
        }
        assert!(cameras.iter().all(|c| c.served_bytes == 400));
    }
}
