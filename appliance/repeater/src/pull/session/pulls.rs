//! What a session pulls: which tasks are begun, and what follows from how each ended.
//!
//! What one session is refused is put aside for it; what a camera gives wrongly, or lists and does not give, is
//! remembered beyond the session in [`super::super::troubles`].

use std::collections::HashSet;
use std::time::{Duration, Instant};

use protocol::ids::Digest;
use protocol::manifest::Class;
use protocol::message::Code;
use protocol::pressure::{self, Gate};
use spool::{PullTask, Reaction};
use tracing::{debug, warn};

use super::Session;
use super::elsewhere::Found;
use crate::commit::{Pulled, StorageError};
use crate::ended::Ended;
use crate::limits;
use crate::pull::permits::Ask;
use crate::pull::transfer::{self, Outcome};

impl Session<'_> {
    /// Asks for segments while there is room: in flight, in the spool, in this camera's share of it.
    pub(super) async fn fill(&mut self) -> Result<(), Ended> {
        let now = self.means.clock.instant();
        let room = self.hop.pulls.saturating_sub(self.in_flight.len());
        if room == 0 || self.paused_until.is_some_and(|until| now < until) {
            return Ok(());
        }
        self.paused_until = None;
        if self.ready.is_empty() {
            self.look_for_work(now).await?;
        }
        for _ in 0..room {
            if !self.rate.may_ask(now) {
                break;
            }
            let Some(task) = self.ready.pop_front() else {
                break;
            };
            self.rate.asked(task.length.into(), now);
            self.start(task);
        }
        Ok(())
    }

    /// Asks the ledger what to pull next. What went elsewhere meanwhile is not wanted when it is begun.
    async fn look_for_work(&mut self, now: Instant) -> Result<(), Ended> {
        self.aside.retain(|_, until| now < *until);
        self.signed.retain(|_, until| now < *until);
        let (behind, not_yet) = self.path.troubles.behind(&self.camera, now);
        let skip: HashSet<Digest> = (self.in_flight.iter())
            .chain(self.aside.keys())
            .chain(self.signed.keys())
            .copied()
            .collect();
        let camera = self.camera.clone();
        let crowded = self.hop.permits.others_want(&camera);
        let wall = self.means.clock.now();
        let urgent_left = self.hop.permits.has_urgent_quota(&camera, wall);
        let weak = !self.reach.takes_routine();
        let elsewhere = self.elsewhere.clone();
        let looked = self.hop.storage.ask(move |spool, wall| {
            let with = |more: &[Digest]| skip.iter().chain(more).copied().collect::<HashSet<_>>();
            let at = (now, wall);
            let mut found = elsewhere.next_pulls(spool, &camera, with(&behind), at)?;
            if found.tasks.is_empty() && behind.len() > not_yet.len() {
                found = elsewhere.next_pulls(spool, &camera, with(&not_yet), at)?;
            }
            let Found { mut tasks, waits } = found;
            let held = spool.camera_bytes(&camera)?;
            let over_share = !pressure::may_hold(held, spool.space().capacity_bytes, crowded);
            // Urgent footage has its own reserve of the spool, within its quota, and comes first in these tasks.
            let reserved = over_share || spool.gate() != Gate::Open;
            tasks.retain(|task| match task.class {
                _ if task.awaited => true,
                Class::Urgent => urgent_left || !(reserved || weak),
                // Whoever is heard badly slows everybody on the air: what can wait does.
                _ => !over_share && !weak,
            });
            Ok((tasks, over_share, waits))
        });
        let (tasks, over_share, waits) = looked.await?;
        let until = self.elsewhere.look_again(now);
        self.signed.extend(waits.into_iter().map(|d| (d, until)));
        self.hop.permits.wants(
            &self.camera,
            !tasks.is_empty() || !self.in_flight.is_empty(),
        );
        if (over_share || !urgent_left) && tasks.is_empty() {
            self.paused_until = Some(now + Duration::from_secs(1));
        }
        self.ready = tasks.into();
        Ok(())
    }

    fn start(&mut self, task: PullTask) {
        self.in_flight.insert(task.digest);
        let nearby = !self.reach.is_docked();
        let (means, permits, tasks) = (
            self.means.clone(),
            self.hop.permits.clone(),
            self.tasks.clone(),
        );
        let pull = self.tasks.spawn("pull", async move {
            let camera = &task.recording.camera;
            let ask = Ask {
                class: task.class,
                captured: task.captured,
                bytes: task.length.into(),
                now: means.clock.now(),
                nearby,
            };
            let permit = tokio::select! {
                permit = permits.take(camera, ask) => permit,
                () = tasks.cancelled() => {
                    return (task, Outcome::Broken("the session ended".into()));
                }
            };
            // It sees by itself that the session ends: what came is kept then.
            transfer::pull(means, task, permit).await
        });
        self.pulls.push(pull);
    }

    /// Applies how a pull ended.
    pub(super) fn pulled(&mut self, task: &PullTask, outcome: Outcome) -> Result<(), Ended> {
        let digest = task.digest;
        self.in_flight.remove(&digest);
        let now = self.means.clock.instant();
        let mut aside = |wait: Duration| {
            self.aside.insert(digest, now + wait);
        };
        match outcome {
            Outcome::Judged(Pulled::Durable { held }) => {
                if self.path.troubles.came(&self.camera, &digest) {
                    self.hop.acquit(&self.camera.to_string());
                }
                self.watch_first_held(task, held, now);
            }
            Outcome::Judged(Pulled::Again) => {}
            Outcome::Judged(Pulled::Refused) => {
                warn!(camera = %self.camera, %digest, "bytes are not what is signed")
            }
            Outcome::Judged(Pulled::Incomplete) => aside(Duration::from_secs(1)),
            Outcome::NotNow(StorageError::Gone) => return Err(Ended::Stopped),
            Outcome::NotNow(StorageError::Slow) => {
                self.paused_until = Some(now + Duration::from_secs(1))
            }
            Outcome::NotNow(StorageError::Spool(e)) => {
                debug!(camera = %self.camera, %digest, "not pulled now: {e}");
                match e.reaction() {
                    Reaction::NoSpace => self.paused_until = Some(now + Duration::from_secs(1)),
                    _ => aside(Duration::from_secs(2)),
                }
            }
            Outcome::Denied(code) if code == u64::from(Code::Busy.number()) => {
                self.paused_until = Some(now + Duration::from_secs(2));
            }
            Outcome::Denied(code) if code == u64::from(Code::NotHere.number()) => {
                self.not_here(task, now)
            }
            Outcome::Denied(code) => {
                debug!(camera = %self.camera, %digest, code, "the camera does not give it");
                aside(Duration::from_secs(10));
            }
            Outcome::Broken(why) => {
                debug!(camera = %self.camera, %digest, "pull broken: {why}");
                aside(Duration::from_millis(500));
            }
            Outcome::Fault(why) => {
                self.path.troubles.faulted(task, now);
                return Err(Ended::Fault(why));
            }
        }
        Ok(())
    }

    /// The ledger gives only what the newest inventory lists: what the camera then does not have is lost there, or
    /// was erased so lately that its next inventory says so.
    fn not_here(&self, task: &PullTask, now: Instant) {
        let digest = task.digest;
        debug!(camera = %self.camera, %digest, "the camera does not have it");
        if self.path.troubles.not_here(task, now) {
            let what = format!("lists {digest} of {} and does not give it", task.recording);
            self.hop.accuse(&self.camera.to_string(), what);
        }
    }

    /// Observes when the first segment is Held. It may be so by its header's barrier, where that comes later.
    fn watch_first_held(&mut self, task: &PullTask, held: bool, now: Instant) {
        let Some(waiting) = &mut self.first_held else {
            return;
        };
        if held && (task.seq.is_some() || waiting.contains(&task.recording)) {
            self.first_held = None;
            let took = (now - self.path.dialled).as_secs_f64();
            self.means.metrics.first_held_seconds.observe(took);
        } else if !held && task.seq.is_some() && waiting.len() < limits::PULL_BATCH {
            waiting.insert(task.recording.clone());
        }
    }
}
