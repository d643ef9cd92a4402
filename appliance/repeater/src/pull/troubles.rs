//! Digests that a camera does not give as it should, remembered beyond the session that found out, so that one bad
//! segment does not keep the rest of that camera's footage waiting for ever.
//!
//! A stream that broke the protocol puts its digest off for a minute, doubling to a day; one that the camera lists
//! and does not have is asked for again after its next inventory, and then alarms. Whatever is in here comes
//! behind the camera's other footage even when its time has come. Only memory: after a restart it is found out
//! anew. Bounded for each serial, which a device key proves, and over all.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use protocol::ids::{CameraId, Digest, RecordingId, Serial};
use protocol::inventory::Inventory;
use spool::PullTask;

use crate::limits;

/// The register. Clones are the same register.
#[derive(Clone, Debug, Default)]
pub struct Troubles(Arc<Mutex<HashMap<Serial, HashMap<Digest, Trouble>>>>);

#[derive(Clone, Debug)]
struct Trouble {
    recording: RecordingId,
    seq: Option<u64>,
    tries: u32,
    until: Instant,
    /// Whether the camera says that it does not have it, instead of giving it wrongly.
    missing: bool,
}

impl Trouble {
    fn alarms(&self) -> bool {
        self.missing && self.tries > 1
    }
}

impl Troubles {
    /// The stream of this digest broke the protocol.
    pub fn faulted(&self, task: &PullTask, now: Instant) {
        self.note(task, now, false);
    }

    /// The camera lists this digest and says that it does not have it. Whether that is an alarm: it may have erased
    /// it a moment ago, but its next inventory would say so.
    #[must_use]
    pub fn not_here(&self, task: &PullTask, now: Instant) -> bool {
        self.note(task, now, true)
    }

    fn note(&self, task: &PullTask, now: Instant, missing: bool) -> bool {
        let mut all = self.lock();
        let camera = &task.recording.camera;
        if all.len() >= limits::PUT_OFF_CAMERAS && !all.contains_key(&camera.serial) {
            all.retain(|_, of| of.values().any(|t| t.until > now || t.alarms()));
            if all.len() >= limits::PUT_OFF_CAMERAS {
                return false;
            }
        }
        let of = all.entry(camera.serial.clone()).or_default();
        if of.len() >= limits::PUT_OFF_MOST && !of.contains_key(&task.digest) {
            let first = of.iter().filter(|(_, t)| !t.alarms());
            match first.min_by_key(|(_, t)| t.until).map(|(d, _)| *d) {
                Some(soonest) => of.remove(&soonest),
                None => return false,
            };
        }
        let trouble = match of.entry(task.digest) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(Trouble {
                recording: task.recording.clone(),
                seq: task.seq,
                tries: 0,
                until: now,
                missing,
            }),
        };
        if trouble.missing != missing {
            trouble.tries = 0;
            trouble.missing = missing;
        }
        trouble.until = now + wait(trouble.tries, missing);
        trouble.tries = trouble.tries.saturating_add(1);
        trouble.alarms()
    }

    /// This digest came as it should. Whether no alarm is left of what this camera does not have.
    #[must_use]
    pub fn came(&self, camera: &CameraId, digest: &Digest) -> bool {
        self.remove(camera, |d, _| d == digest)
    }

    /// A new inventory: what it does not list any more is no trouble. Whether no alarm is left.
    #[must_use]
    pub fn listed(&self, inventory: &Inventory) -> bool {
        let lists = |t: &Trouble| {
            let held = inventory.held().find(|h| h.number == t.recording.number);
            held.is_some_and(|h| {
                t.seq
                    .is_none_or(|seq| !h.erased.iter().any(|r| r.contains(seq)))
            })
        };
        self.remove(inventory.camera(), |_, t| !lists(t))
    }

    fn remove(&self, camera: &CameraId, over: impl Fn(&Digest, &Trouble) -> bool) -> bool {
        let mut all = self.lock();
        let Some(of) = all.get_mut(&camera.serial) else {
            return false;
        };
        let mine = |t: &Trouble| t.recording.camera == *camera;
        let alarmed = |of: &HashMap<Digest, Trouble>| of.values().any(|t| mine(t) && t.alarms());
        let before = alarmed(of);
        of.retain(|digest, t| !(mine(t) && over(digest, t)));
        let after = alarmed(of);
        if of.is_empty() {
            all.remove(&camera.serial);
        }
        before && !after
    }

    /// What of this camera is not pulled while there is other work: all that is in here, and of that what is not to be
    /// pulled yet at all.
    #[must_use]
    pub fn behind(&self, camera: &CameraId, now: Instant) -> (Vec<Digest>, Vec<Digest>) {
        let all = self.lock();
        let of = all.get(&camera.serial).into_iter().flatten();
        let (mut behind, mut not_yet) = (Vec::new(), Vec::new());
        for (digest, trouble) in of {
            behind.push(*digest);
            if now < trouble.until {
                not_yet.push(*digest);
            }
        }
        (behind, not_yet)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Serial, HashMap<Digest, Trouble>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a digest is put off after so many earlier tries.
fn wait(tries: u32, missing: bool) -> Duration {
    let (first, longest) = limits::PUT_OFF;
    if missing && tries == 0 {
        return limits::NOT_HERE;
    }
    let doublings = tries.saturating_sub(u32::from(missing)).min(16);
    (first * 2u32.pow(doublings)).min(longest)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use protocol::ids::{Incarnation, Time};
    use protocol::manifest::Class;

    fn task(n: u16) -> PullTask {
        let mut digest = [0; 32];
        digest[..2].copy_from_slice(&n.to_be_bytes());
        PullTask {
            digest: Digest(digest),
            length: 1,
            recording: RecordingId {
                camera: CameraId {
                    serial: "C1".parse().unwrap(),
                    incarnation: Incarnation([1; 16]),
                },
                number: 0,
            },
            seq: Some(n.into()),
            class: Class::Routine,
            captured: Time(0),
            prefix: 0,
            answered: false,
            awaited: false,
        }
    }

    #[test]
    fn a_faulted_digest_is_put_off_ever_longer_and_stays_behind_other_work() {
        let (troubles, task, began) = (
            Troubles::default(),
            task(1),
            link::clock::Clock::system().instant(),
        );
        let camera = &task.recording.camera;
        let minute = Duration::from_secs(60);
        for doubling in 0..4 {
            troubles.faulted(&task, began);
            let due = began + minute * 2u32.pow(doubling);
            let just_before = due - Duration::from_secs(1);
            assert_eq!(troubles.behind(camera, just_before).1, [task.digest]);
            assert_eq!(troubles.behind(camera, due).1, []);
            assert_eq!(troubles.behind(camera, due).0, [task.digest]);
        }
        (0..40).for_each(|_| troubles.faulted(&task, began));
        assert_eq!(troubles.behind(camera, began + minute * 60 * 24).1, []);
        assert!(!troubles.came(camera, &task.digest), "it did not alarm");
        assert_eq!(troubles.behind(camera, began).0, []);
    }

    #[test]
    fn what_is_listed_and_not_given_alarms_until_it_comes() {
        let (troubles, now) = (Troubles::default(), link::clock::Clock::system().instant());
        let (one, two) = (task(1), task(2));
        let camera = &one.recording.camera;
        assert!(!troubles.not_here(&one, now), "perhaps erased just now");
        assert!(troubles.not_here(&one, now));
        assert!(!troubles.not_here(&two, now));
        assert!(troubles.not_here(&two, now));
        assert!(!troubles.came(camera, &one.digest), "the other one stands");
        assert!(troubles.came(camera, &two.digest));
    }

    #[test]
    fn one_camera_fills_its_own_part_only() {
        let (troubles, now) = (Troubles::default(), link::clock::Clock::system().instant());
        (0..1000).for_each(|n| troubles.faulted(&task(n), now));
        let kept = troubles.behind(&task(0).recording.camera, now).0;
        assert_eq!(kept.len(), limits::PUT_OFF_MOST);
    }
}
