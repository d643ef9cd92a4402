//! The storage thread itself: commands in, one barrier for all that came together, then the answers.
//!
//! Nobody is answered before [`Thread::barrier`] has returned. An error of the spool that says stop ends the
//! thread, and with it the process: what follows a failed sync is not believed.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use link::clock::Clock;
use protocol::ids::{Digest, Time};
use protocol::keylist::KeyList;
use protocol::pressure::Gate;
use spool::{Committed, Finished, Incoming, Reaction, Spool, SpoolError};
use tokio::sync::{oneshot, watch};
use tracing::{debug, warn};

use super::{Begun, Command, Later, Pulled, fatal};
use crate::alarms::Alarms;
use crate::limits;
use crate::metrics::{Metrics, gauge_value};
use crate::notices::Notices;
use crate::reclaim;

/// All that the storage thread owns.
pub(super) struct Thread {
    spool: Spool,
    clock: Clock,
    metrics: Metrics,
    alarms: Alarms,
    notices: Notices,
    keys: watch::Sender<KeyList>,
    gate: Gate,
    slots: HashMap<u64, Result<Incoming, SpoolError>>,
    waiting: Vec<Later>,
    group_since: Option<Instant>,
    house_due: Option<Instant>,
    no_room_until: Option<Instant>,
}

impl Thread {
    pub(super) fn new(
        spool: Spool,
        clock: Clock,
        metrics: Metrics,
        alarms: Alarms,
        notices: Notices,
        keys: watch::Sender<KeyList>,
    ) -> Thread {
        Thread {
            gate: spool.gate(),
            spool,
            clock,
            metrics,
            alarms,
            notices,
            keys,
            slots: HashMap::new(),
            waiting: Vec::new(),
            group_since: None,
            house_due: None,
            no_room_until: None,
        }
    }

    /// Serves commands until the last handle is gone or it is stopped, and makes a last barrier.
    pub(super) fn run(mut self, commands: &Receiver<Command>) -> Result<(), String> {
        loop {
            match commands.recv_timeout(self.patience()) {
                Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(command) => self.apply(command)?,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.group_is_due() {
                self.barrier()?;
            }
            if self.house_due.is_none_or(|at| self.clock.instant() >= at) {
                self.keep_house()?;
            }
        }
        for (_, slot) in self.slots.drain() {
            slot.into_iter()
                .for_each(|incoming| self.spool.suspend(incoming));
        }
        self.barrier()
    }

    fn patience(&self) -> Duration {
        let now = self.clock.instant();
        if let Some(until) = self.no_room_until.filter(|until| now < *until) {
            return until - now;
        }
        match self.group_since {
            Some(since) => limits::GROUP_LINGER.saturating_sub(now - since),
            None => self
                .house_due
                .map_or(Duration::ZERO, |at| at.saturating_duration_since(now)),
        }
    }

    fn group_is_due(&self) -> bool {
        if self
            .no_room_until
            .is_some_and(|until| self.clock.instant() < until)
        {
            return false;
        }
        self.spool.commit_is_due()
            || self
                .group_since
                .is_some_and(|t| self.clock.instant() - t >= limits::GROUP_LINGER)
    }

    fn apply(&mut self, command: Command) -> Result<(), String> {
        let now = self.clock.now();
        let _permit = match command {
            Command::Job(job, permit) => {
                let done = job(&mut self.spool, now);
                if let Some(why) = done.fatal {
                    return Err(why);
                }
                done.after_barrier
                    .into_iter()
                    .for_each(|later| self.wait_for_barrier(later));
                if self.spool.pending().changes > 0 {
                    self.group_since.get_or_insert(self.clock.instant());
                }
                self.publish_keys();
                Some(permit)
            }
            Command::Begin {
                id,
                digest,
                reply,
                permit,
            } => {
                let _ = reply.send(self.begin(id, digest));
                Some(permit)
            }
            Command::Write { id, bytes, permit } => {
                self.write(id, bytes)?;
                Some(permit)
            }
            Command::Finish { id, reply, permit } => {
                self.finish(id, reply, now)?;
                Some(permit)
            }
            Command::Suspend { id } => {
                self.suspend(id);
                None
            }
            Command::Stop => None,
        };
        Ok(())
    }

    fn suspend(&mut self, id: u64) {
        if let Some(Ok(incoming)) = self.slots.remove(&id) {
            self.spool.suspend(incoming);
        }
    }

    fn begin(&mut self, id: u64, digest: Digest) -> Begun {
        let incoming = self.spool.begin(&digest)?;
        let at = (
            u64::from(incoming.offset()),
            u64::from(incoming.remaining()),
        );
        self.slots.insert(id, Ok(incoming));
        Ok(at)
    }

    fn write(&mut self, id: u64, bytes: Bytes) -> Result<(), String> {
        let Some(Ok(incoming)) = self.slots.get_mut(&id) else {
            return Ok(());
        };
        if let Err(e) = incoming.write_bytes(bytes) {
            if let Some(why) = fatal(&e) {
                return Err(why);
            }
            warn!("cannot write a segment: {e}");
            self.slots.insert(id, Err(e));
        }
        Ok(())
    }

    fn finish(
        &mut self,
        id: u64,
        reply: oneshot::Sender<Result<Pulled, SpoolError>>,
        now: Time,
    ) -> Result<(), String> {
        let incoming = match self.slots.remove(&id) {
            Some(Ok(incoming)) => incoming,
            Some(Err(e)) => {
                let _ = reply.send(Err(e));
                return Ok(());
            }
            None => return Ok(()),
        };
        let digest = incoming.digest();
        let pulled = match self.spool.finish(incoming, now) {
            Ok(Finished::Verified) => {
                self.wait_for_barrier(Box::new(move |committed| {
                    let pulled = if committed.again.contains(&digest) {
                        Pulled::Again
                    } else {
                        Pulled::Durable {
                            held: committed.held.iter().any(|d| d.digest() == digest),
                        }
                    };
                    let _ = reply.send(Ok(pulled));
                }));
                return Ok(());
            }
            Ok(Finished::PullAgain) => Ok(Pulled::Again),
            Ok(Finished::Refused { .. }) => Ok(Pulled::Refused),
            Ok(Finished::Incomplete) => Ok(Pulled::Incomplete),
            Err(e) => match fatal(&e) {
                Some(why) => return Err(why),
                None => Err(e),
            },
        };
        let _ = reply.send(pulled);
        Ok(())
    }

    fn wait_for_barrier(&mut self, later: Later) {
        self.waiting.push(later);
        self.group_since.get_or_insert(self.clock.instant());
    }

    /// The barrier, then the answers: nobody is told before.
    fn barrier(&mut self) -> Result<(), String> {
        let pending = self.spool.pending();
        if self.waiting.is_empty() && pending.changes == 0 {
            return Ok(());
        }
        let began = self.clock.instant();
        debug!(target: "repeater::trace", event = "barrier_begin", bytes = pending.bytes);
        let committed = self.spool.commit(self.clock.now());
        let held = committed.as_ref().map_or(0, |c| c.held.len());
        debug!(target: "repeater::trace", event = "barrier_end", held, ok = committed.is_ok());
        let committed = match committed {
            Ok(committed) => committed,
            Err(e) if e.reaction() == Reaction::NoSpace => return self.wait_for_room(&e),
            Err(e) => return Err(e.to_string()),
        };
        let took = self.clock.instant() - began;
        if pending.bytes > 0 {
            self.metrics.commit_seconds.observe(took.as_secs_f64());
        }
        self.group_since = None;
        for waiting in std::mem::take(&mut self.waiting) {
            waiting(&committed);
        }
        self.notify(&committed);
        Ok(())
    }

    /// The disk is full, perhaps by another program: nothing is lost and nobody is answered; room is made where it
    /// may be, and the barrier is tried again in a while.
    fn wait_for_room(&mut self, why: &SpoolError) -> Result<(), String> {
        warn!("no room for a barrier: {why}");
        self.no_room_until = Some(self.clock.instant() + limits::HOUSEKEEPING / 2);
        match reclaim::make_room(&mut self.spool, self.clock.now()) {
            Err(e) if fatal(&e).is_some() => Err(e.to_string()),
            _ => Ok(()),
        }
    }

    fn notify(&mut self, committed: &Committed) {
        let mut cameras: Vec<_> = committed
            .archived
            .iter()
            .map(|d| &d.recording().camera)
            .collect();
        cameras.sort_unstable();
        cameras.dedup();
        cameras
            .into_iter()
            .for_each(|camera| self.notices.camera(camera));
        if !committed.held.is_empty() || !committed.again.is_empty() {
            self.notices.sites();
        }
        self.watch_gate();
    }

    fn watch_gate(&mut self) {
        let gate = self.spool.gate();
        if gate != self.gate {
            warn!(before = ?self.gate, now = ?gate, "the spool's gate moves");
            self.gate = gate;
            self.notices.all_cameras();
        }
    }

    fn publish_keys(&self) {
        let newest = self.spool.key_list();
        if newest.number() != self.keys.borrow().number() {
            self.keys.send_replace(newest.clone());
            self.notices.all_cameras();
            self.notices.sites();
        }
    }

    fn keep_house(&mut self) -> Result<(), String> {
        let now = self.clock.now();
        let mut pause = limits::HOUSEKEEPING;
        match reclaim::round(&mut self.spool, now) {
            Ok(round) => {
                if round.segments > 0 {
                    pause = limits::RECLAIM_PAUSE;
                }
                self.metrics.reclaimed_bytes.inc_by(round.bytes);
                self.metrics
                    .scrub_pass_started
                    .set(gauge_value(round.pass_started.secs()));
                if round.damaged > 0 {
                    // What was found damaged is pulled again only once that is durable.
                    self.barrier()?;
                }
                if round.segments + round.damaged > 0 {
                    self.notices.all_cameras();
                }
            }
            Err(e) => match fatal(&e) {
                Some(why) => return Err(why),
                None => warn!("housekeeping: {e}"),
            },
        }
        self.watch_gate();
        self.alarms.take_spool(self.spool.alarms());
        self.show();
        self.house_due = Some(self.clock.instant() + pause);
        Ok(())
    }

    fn show(&self) {
        let (counts, space) = (self.spool.counts(), self.spool.space());
        for stage in protocol::custody::Stage::ALL {
            let row = &counts.stages[stage as usize];
            let name = [stage.name()];
            self.metrics
                .segments
                .with_label_values(&name)
                .set(gauge_value(row.iter().map(|t| t.segments).sum()));
            self.metrics
                .segment_bytes
                .with_label_values(&name)
                .set(gauge_value(row.iter().map(|t| t.bytes).sum()));
        }
        self.metrics
            .outstanding
            .set(gauge_value(counts.outstanding.segments));
        self.metrics
            .unaccounted
            .set(gauge_value(counts.unaccounted.segments));
        self.metrics
            .forgotten
            .set(gauge_value(counts.forgotten.segments));
        self.metrics
            .spool_used_bytes
            .set(gauge_value(space.used_bytes));
        self.metrics
            .spool_capacity_bytes
            .set(gauge_value(space.capacity_bytes));
        self.metrics.gate.set(self.gate as i64);
        let since = self.spool.unchecked_since();
        let age = since.map_or(0, |t| self.clock.now().secs().saturating_sub(t.secs()));
        self.metrics.scrub_oldest_unchecked.set(gauge_value(age));
    }
}
