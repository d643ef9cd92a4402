//! How a session comes by its path, and when it ends though nothing is wrong with it: its link went, its camera is served on a better path, or a
//! nearby camera has nothing to give and is let sleep. And how it lets go: what came stays with its digest.

use std::time::{Duration, Instant};

use futures_util::stream::StreamExt;
use protocol::manifest::Class;
use spool::Meeting;
use tokio::sync::watch;

use super::Session;
use crate::discover::roster::{Leave, Reach, Standing};
use crate::ended::Ended;
use crate::limits;

/// How often a session looks around that has something to do, and one that has not.
const LOOKS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// What a camera said of itself, and how it was reached then.
pub(super) fn met(said: Meeting, reach: Reach) -> Meeting {
    let (bay, signal_dbm) = match reach {
        Reach::Docked { bay } => (bay, None),
        Reach::Nearby { signal, .. } => (None, signal),
    };
    Meeting {
        docked: reach.is_docked(),
        bay: bay.map(|b| b.to_string()),
        signal_dbm,
        ..said
    }
}

/// The latest time at which a session is known to be alive. Where nothing is asked, nothing is missed until it looks again:
/// a look lies as far from the next as another path waits for a silence, and that path would be dialled now and then.
pub(super) fn alive_at(idle: bool, now: Instant, last: Instant, pause: Duration) -> Instant {
    if idle { now + pause } else { last }
}

/// Resolves when a path is not to be used any more.
pub(super) async fn left(standing: &mut watch::Receiver<Standing>) -> Ended {
    let left = standing.wait_for(|s| s.leave.is_some()).await;
    let leave = left.ok().and_then(|s| s.leave);
    leave.map_or(Ended::Stopped, ended)
}

fn ended(leave: Leave) -> Ended {
    match leave {
        Leave::Gone => Ended::Broken("its link is down, or its station left".into()),
        Leave::Elsewhere => Ended::Elsewhere,
    }
}

impl Session<'_> {
    /// Takes what the roster says of the path now.
    pub(super) fn look_at_path(&mut self) -> Result<(), Ended> {
        let standing = *self.path.standing.borrow_and_update();
        if let Some(leave) = standing.leave {
            return Err(ended(leave));
        }
        if standing.reach.is_docked() != self.reach.is_docked() {
            let why = "docked or nearby, it is not what it was told: greeting anew";
            return Err(Ended::Broken(why.into()));
        }
        self.reach = standing.reach;
        if !self.reach.takes_routine() {
            self.ready.retain(|task| task.class == Class::Urgent);
        }
        Ok(())
    }

    /// Ends the session of a nearby camera that has had nothing to give for a while.
    pub(super) fn let_sleep(&mut self) -> Result<(), Ended> {
        let now = self.means.clock.instant();
        if self.has_work() || self.reach.is_docked() {
            self.idle_since = None;
            return Ok(());
        }
        let since = *self.idle_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= limits::NEARBY_IDLE {
            return Err(Ended::Idle);
        }
        Ok(())
    }

    fn has_work(&self) -> bool {
        let pulls = !self.in_flight.is_empty() || !self.ready.is_empty();
        let papers = !self.wants.is_empty() || !self.pages.is_empty();
        pulls || papers || !self.aside.is_empty() || self.paused_until.is_some()
    }

    /// How long to wait for an event. Forty idle cameras cost nearly nothing: what is new rings or is said.
    pub(super) fn pause(&self) -> Duration {
        let now = self.means.clock.instant();
        match self.rate.waits_until() {
            Some(at) if !self.ready.is_empty() && at > now => (at - now).min(LOOKS.0),
            _ if self.has_work() => LOOKS.0,
            _ => LOOKS.1,
        }
    }

    /// Stops what is in flight: each pull keeps what came, and gives its digest free for the next session.
    pub(super) async fn let_go(&mut self) {
        self.tasks.cancel();
        let all = async { while self.pulls.next().await.is_some() {} };
        let _ = tokio::time::timeout(limits::TAKE_OVER, all).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_session_is_alive_until_it_has_looked_again() {
        let now = link::clock::Clock::system().instant();
        let heard = now - Duration::from_secs(1);
        // The storage thread is asked before it shows itself again, and may take its time.
        let again = now + LOOKS.1 + limits::STORAGE_WAIT / 2;
        let silent = again.saturating_duration_since(alive_at(true, now, heard, LOOKS.1));
        assert!(silent < limits::PATH_SILENCE, "{silent:?}");
        assert_eq!(alive_at(false, now, heard, LOOKS.0), heard);
    }
}
