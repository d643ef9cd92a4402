//! Whether a site still gives what it owes, looked at every second.
//!
//! Two ways to be silent, one consequence. *Dead*: it owes something and no packet comes. *Mute*: packets come,
//! offers stay unanswered, and it says nothing else either. A silent site gets no further work, so that the other
//! sites of the policy take over, and the next endpoint is dialled beside it. It is heard again as soon as the
//! cause is gone: what a hello alone does not show of a mute one.
//!
//! A put has two waits: until the site has all of it, as long as streams move at all (on a slow line puts wait
//! for each other); from then on, for its receipt.

use std::time::Instant;

use protocol::ids::Digest;
use tracing::{info, warn};

use super::session::Session;
use crate::{alarms, limits};

impl Session<'_> {
    /// Looks whether the site still answers what it owes.
    ///
    /// # Errors
    /// Why the session is to end.
    pub(super) fn tick(&mut self) -> Result<(), String> {
        let now = self.hop.seams.clock.instant();
        let stats = self.means.peer.connection.stats();
        let owes = !self.unanswered.is_empty() || !self.under_way.is_empty();
        if stats.udp_rx.datagrams != self.heard.0 || !owes {
            self.heard = (stats.udp_rx.datagrams, now);
        }
        if stats.frame_tx.stream != self.streamed.0 {
            self.streamed = (stats.frame_tx.stream, now);
        }
        let dead = now.saturating_duration_since(self.heard.1) >= limits::SITE_SILENCE;
        let mute = self.is_mute(now);
        if dead || mute {
            self.fall_silent(mute);
        } else if std::mem::take(&mut self.silent) {
            info!(site = %self.site, "answers again");
            self.hop.sites.back(self.site, &self.hop.metrics);
            self.answered();
        }
        self.give_up_late(now)
    }

    /// Whether an offer waits too long and nothing else was said meanwhile.
    fn is_mute(&self, now: Instant) -> bool {
        let late = |since: Instant| now.saturating_duration_since(since) >= limits::ANSWER_WAIT;
        late(self.said) && self.unanswered.values().any(|asked| late(asked.since))
    }

    /// The site gave something that it owed.
    pub(super) fn answered(&mut self) {
        self.doubted = false;
        self.hop.sites.set_owes(self.site, false);
        self.hop
            .alarms
            .clear(alarms::SITE_SILENT, self.site.as_str());
    }

    /// Gives up puts that stand still or lack their receipt, and offers without answer.
    fn give_up_late(&mut self, now: Instant) -> Result<(), String> {
        let late = |since: Instant| now.saturating_duration_since(since) >= limits::RECEIPT_WAIT;
        let moved = self.streamed.1;
        let stale: Vec<Digest> = self
            .under_way
            .iter()
            .filter(|(_, u)| late(u.sent.unwrap_or(u.since.max(moved))))
            .map(|(d, _)| *d)
            .collect();
        stale
            .into_iter()
            .for_each(|digest| self.give_up(digest, now));
        let before = self.unanswered.len();
        self.unanswered.retain(|_, asked| !late(asked.since));
        if self.silent && self.unanswered.len() < before {
            let why = format!("no answer for {} s", limits::RECEIPT_WAIT.as_secs());
            return Err(why);
        }
        Ok(())
    }

    fn fall_silent(&mut self, mute: bool) {
        if !std::mem::replace(&mut self.silent, true) {
            warn!(site = %self.site, mute, "silent; dialling beside it");
            self.hop.sites.silent(self.site, &self.hop.metrics);
            self.hop.sites.set_owes(self.site, mute);
            let (wait, how) = match mute {
                true => (limits::ANSWER_WAIT, "answers no offer"),
                false => (limits::SITE_SILENCE, "brings no packet"),
            };
            let what = format!("the site owes answers and {how} for {} s", wait.as_secs());
            self.hop.alarms.raise(
                alarms::SITE_SILENT,
                self.site.as_str(),
                what,
                alarms::MEND_SILENT,
                self.hop.seams.clock.now(),
            );
            self.hop.notices.sites();
        }
        // The same endpoint again says hello and is as mute as before.
        let other = self.next_address != self.means.peer.address();
        if self.beside.is_none() && (other || !mute) {
            let (dialer, address) = (self.hop.dialer.clone(), self.next_address);
            self.beside = Some(
                self.tasks
                    .spawn("beside", async move { dialer.connect(address).await }),
            );
        }
    }
}
