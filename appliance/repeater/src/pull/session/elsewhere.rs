//! What a camera says that sites have signed for: another station has forwarded it, and the camera keeps it until it needs
//! room. It is not pulled a second time: the site is offered its manifest and answers with a receipt. So it waits for
//! that answer, behind everything else, which waits for nothing.
//!
//! The camera's word delays its own footage alone, and not for ever: what a site answers for and does not sign is wanted
//! there, and what none answers for is pulled in the end ([`limits::SIGNED_WAIT`]).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use protocol::ids::{CameraId, Digest, Range, Time};
use protocol::inventory::{Held, Inventory};
use spool::{PullTask, Spool, SpoolError};

use crate::limits;

/// Looks into the ledger in one go, where all that is found waits.
const LOOKS: usize = 32;

/// What the newest inventory of a session lists as receipted or erased, by recording.
#[derive(Clone, Debug)]
pub(super) struct Elsewhere {
    signed: Arc<HashMap<u64, Vec<Range>>>,
    /// When the session began, with its first inventory.
    since: Instant,
}

/// What may be pulled next, and what waits.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// To be pulled.
    pub(super) tasks: Vec<PullTask>,
    /// To be looked at again later.
    pub(super) waits: Vec<Digest>,
}

impl Elsewhere {
    /// Before any inventory.
    pub(super) fn nothing(now: Instant) -> Elsewhere {
        Elsewhere {
            signed: Arc::default(),
            since: now,
        }
    }

    /// An inventory came.
    pub(super) fn listed(&mut self, inventory: &Inventory) {
        let lists = |h: &Held| {
            let both = h.receipted.iter().chain(&h.erased);
            (h.number, both.copied().collect::<Vec<_>>())
        };
        let some = |(_, ranges): &(u64, Vec<Range>)| !ranges.is_empty();
        self.signed = Arc::new(inventory.held().map(lists).filter(some).collect());
    }

    /// Whether a task waits for a site's word.
    fn waits(&self, task: &PullTask, now: Instant) -> bool {
        let waited = now.saturating_duration_since(self.since);
        let ranges = self.signed.get(&task.recording.number);
        let listed = |seq| ranges.is_some_and(|r| r.iter().any(|r| r.contains(seq)));
        // A receipt comes just after the answer.
        let wanted = task.answered && waited >= limits::SIGNED_SETTLES;
        task.seq.is_some_and(listed) && !wanted && waited < limits::SIGNED_WAIT
    }

    /// When what waits is to be looked at again.
    pub(super) fn look_again(&self, now: Instant) -> Instant {
        let soon = now.saturating_duration_since(self.since) < limits::SIGNED_SETTLES;
        now + if soon {
            limits::SIGNED_SETTLES / 2
        } else {
            5 * limits::SIGNED_SETTLES
        }
    }

    /// What to pull next of a camera, but for what is in `skip`.
    pub(super) fn next_pulls(
        &self,
        spool: &mut Spool,
        camera: &CameraId,
        mut skip: HashSet<Digest>,
        (now, wall): (Instant, Time),
    ) -> Result<Found, SpoolError> {
        let mut found = Found::default();
        for _ in 0..LOOKS {
            let tasks = spool.next_pulls(camera, limits::PULL_BATCH, &skip, wall)?;
            let (waits, tasks): (Vec<_>, Vec<_>) =
                tasks.into_iter().partition(|task| self.waits(task, now));
            skip.extend(waits.iter().map(|task| task.digest));
            let none = waits.is_empty();
            found.waits.extend(waits.iter().map(|task| task.digest));
            found.tasks = tasks;
            if none || !found.tasks.is_empty() {
                break;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::time::Duration;

    use super::*;
    use protocol::ids::{Incarnation, RecordingId};
    use protocol::manifest::Class;

    fn task(number: u64, seq: Option<u64>, answered: bool) -> PullTask {
        PullTask {
            digest: Digest([1; 32]),
            length: 1,
            recording: RecordingId {
                camera: CameraId {
                    serial: "C1".parse().unwrap(),
                    incarnation: Incarnation([1; 16]),
                },
                number,
            },
            seq,
            class: Class::Routine,
            captured: Time(0),
            prefix: 0,
            answered,
            awaited: false,
        }
    }

    #[test]
    fn what_sites_have_signed_waits_for_their_word_and_nothing_else_does() {
        let began = link::clock::Clock::system().instant();
        let mut elsewhere = Elsewhere::nothing(began);
        elsewhere.signed = Arc::new(HashMap::from([(7, vec![Range { from: 0, to: 3 }])]));
        let waits =
            |n, seq, answered, after| elsewhere.waits(&task(n, seq, answered), began + after);
        let (now, later) = (Duration::ZERO, limits::SIGNED_SETTLES);
        assert!(waits(7, Some(3), false, now));
        assert!(waits(7, Some(3), false, later));
        assert!(!waits(7, Some(4), false, now), "nobody has signed for it");
        assert!(!waits(8, Some(3), false, now), "nor for that recording");
        assert!(
            !waits(7, None, false, now),
            "what is Held stands on a header"
        );
        // The site has answered: its receipt is under way, or it wants the segment.
        assert!(waits(7, Some(3), true, now));
        assert!(!waits(7, Some(3), true, later));
        assert!(
            !waits(7, Some(3), false, limits::SIGNED_WAIT),
            "not for ever"
        );
    }
}
