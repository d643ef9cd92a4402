//! The logbook's head: told to each site, whose countersignature the spool keeps. So somebody who is not here knows how far
//! the logbook went, whatever becomes of it.
//!
//! A head is told once a session is up, and then every [`limits::HEAD_EVERY`] while the logbook has grown; sessions that
//! come and go tell none sooner than [`limits::HEAD_AGAIN`] after the last. Custody waits for none of this, and none of it
//! waits long: one message, one is unanswered at the most. What a site says against a head is an alarm, and kept with
//! the countersignature that stands against it.

use std::time::Instant;

use protocol::logbook::{Countersignature, LogbookError, SignedHead, Step, step};
use protocol::message::{Countersigned, HeadVerdict, Message};
use spool::{Countersigning, Spool};
use tracing::{debug, info, warn};

use super::session::Session;
use crate::ended::Ended;
use crate::{alarms, limits};

/// Of one session: what was told, and whether more is to be.
#[derive(Debug, Default)]
pub(super) struct Heads {
    /// Waits for its answer.
    unanswered: Option<SignedHead>,
    /// One was told on this session.
    begun: bool,
    /// When there was last nothing to tell.
    looked: Option<Instant>,
    /// The site takes no heads, or none of ours.
    over: bool,
}

impl Heads {
    /// The site does not know what a head is.
    pub(super) fn not_understood(&mut self) {
        self.over = true;
    }
}

/// Whether the next head is due, `last` told to the site in any session since the start.
fn is_due(last: Option<Instant>, begun: bool, now: Instant) -> bool {
    let pause = match begun {
        true => limits::HEAD_EVERY,
        false => limits::HEAD_AGAIN,
    };
    last.is_none_or(|at| now.saturating_duration_since(at) >= pause)
}

impl Session<'_> {
    /// Tells the site how far the logbook goes, where that is due.
    pub(super) async fn tell_head(&mut self) -> Result<(), Ended> {
        let now = self.hop.seams.clock.instant();
        let looked = self
            .heads
            .looked
            .map(|at| now.saturating_duration_since(at));
        let waits = self.silent
            || self.heads.over
            || self.heads.unanswered.is_some()
            || looked.is_some_and(|ago| ago < limits::HEAD_LOOK);
        if waits || !is_due(self.hop.sites.head_told(self.site), self.heads.begun, now) {
            return Ok(());
        }
        self.heads.looked = Some(now);
        let Some(signer) = self.hop.keyring.current().signer.clone() else {
            warn!(
                "the head of the logbook is not signed: the key of this repeater is not PKCS#8; renew it"
            );
            self.heads.over = true;
            return Ok(());
        };
        let site = self.site.clone();
        let look = move |spool: &mut Spool, _| spool.head_to_sign(&site);
        let Some(head) = self.hop.storage.ask(look).await? else {
            return Ok(());
        };
        let signed = SignedHead::sign(head, &signer, self.hop.seams.clock.now());
        let signed = signed.map_err(|e| Ended::Broken(format!("the logbook's head: {e}")))?;
        debug!(site = %self.site, entries = head.entries, "tells the logbook's head");
        self.heads.begun = true;
        self.hop.sites.tell_head(self.site, now);
        let message = Message::LogbookHead(signed.bytes().clone());
        self.heads.unanswered = Some(signed);
        self.say(&message).await
    }

    /// What the site says of the head that it was told.
    pub(super) async fn countersigned(&mut self, answer: Countersigned) -> Result<(), Ended> {
        let told = self
            .heads
            .unanswered
            .take_if(|h| h.digest() == answer.about);
        let Some(told) = told else {
            debug!(site = %self.site, about = %answer.about, "an answer to no head that was told");
            return Ok(());
        };
        let site = self.site.as_str();
        let said = match answer.verdict {
            HeadVerdict::Unavailable => {
                warn!(
                    site,
                    "the logbook's head is not countersigned now: {}", answer.text
                );
                return Ok(());
            }
            HeadVerdict::Refused => {
                self.heads.over = true;
                warn!(site, "the logbook's head is refused: {}", answer.text);
                self.hop.alarms.raise(
                    alarms::HEAD_REFUSED,
                    site,
                    format!("the site does not take the head of this logbook: {}", answer.text),
                    "compare this repeater's certificate and the site's trust; footage goes on as before",
                    self.hop.seams.clock.now(),
                );
                return Ok(());
            }
            HeadVerdict::Signed => Countersigning::Signed,
            HeadVerdict::Behind => Countersigning::Behind(told.body().head),
            HeadVerdict::Forked => Countersigning::Forked(told.body().head),
        };
        let bytes = answer.signature.map(Vec::from).unwrap_or_default();
        let keys = self.hop.storage.keys().borrow().clone();
        let signature = match Countersignature::verify(bytes.into(), &keys) {
            Ok(signature) => signature,
            Err(e @ LogbookError::Version(_)) => {
                return Err(Ended::Version(format!("a countersignature: {e}")));
            }
            Err(e) => {
                let what = format!("a countersignature that does not verify: {e}");
                return Err(Ended::Fault(what));
            }
        };
        if signature.body().site != *self.site {
            return Err(Ended::Identity(
                "a countersignature in another site's name".into(),
            ));
        }
        if !speaks_of(&signature, said, &told) {
            let what = "a countersignature that does not speak of the head that was told";
            return Err(Ended::Fault(what.into()));
        }
        self.hop.alarms.clear(alarms::HEAD_REFUSED, site);
        let entries = told.body().head.entries;
        match said {
            Countersigning::Signed => info!(site, entries, "the logbook's head is countersigned"),
            _ => warn!(
                site,
                entries, "the logbook's head is refused: {}", answer.text
            ),
        }
        let take = move |spool: &mut Spool, now| spool.countersigned(&signature, said, now);
        Ok(self.hop.storage.post(take).await?)
    }
}

/// Whether a countersignature is of the head that was told, or stands against it as the site says.
fn speaks_of(signature: &Countersignature, said: Countersigning, told: &SignedHead) -> bool {
    let (body, told) = (signature.body(), told.body());
    let against = || step(&[body.head], &told.head);
    body.repeater == told.repeater
        && match said {
            Countersigning::Signed => signature.covers(told),
            Countersigning::Forked(_) => against() == Step::Forked,
            // Of another incarnation: one that has followed this one.
            Countersigning::Behind(_) => matches!(against(), Step::Behind | Step::Begun),
        }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_head_is_due_with_a_session_and_then_every_ten_minutes() {
        let began = link::clock::Clock::system().instant();
        let later = |s| began + Duration::from_secs(s);
        assert!(is_due(None, false, began), "the first since the start");
        assert!(!is_due(Some(began), true, later(599)));
        assert!(is_due(Some(began), true, later(600)));
        assert!(
            !is_due(Some(began), false, later(59)),
            "sessions that come and go"
        );
        assert!(is_due(Some(began), false, later(60)), "a new session");
    }
}
