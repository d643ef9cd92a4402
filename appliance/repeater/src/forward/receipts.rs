//! A site that takes footage and signs nothing: it answers, so that work goes to it, and nothing of it is ever archived.
//! That is an alarm where the oldest put that it has whole is [`limits::RECEIPTS_GONE`] old and still waits; it ends
//! with the next receipt of that site. What was archived without it meanwhile is not owed any more.

use std::time::{Duration, Instant};

use protocol::custody::Stage;
use protocol::ids::{Digest, SiteId, Time};

use super::Hop;
use super::sites::Sites;
use crate::alarms::{self, Alarms};
use crate::limits;

/// A receipt that is overdue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overdue {
    /// Who owes it.
    pub site: SiteId,
    /// For what, at least.
    pub digest: Digest,
    /// Since the site has had it.
    pub waited: Duration,
}

/// Looks for sites that owe receipts for too long.
pub(super) async fn watch(hop: &Hop) {
    for overdue in hop.sites.overdue(hop.seams.clock.instant()) {
        let digest = overdue.digest;
        let held = hop
            .storage
            .ask(move |spool, _| Ok(spool.stage(&digest)? == Some(Stage::Held)));
        // Without an answer nothing is known, and it is looked at again.
        if let Ok(held) = held.await {
            judge(
                &hop.sites,
                &hop.alarms,
                &overdue,
                held,
                hop.seams.clock.now(),
            );
        }
    }
}

fn judge(sites: &Sites, alarms: &Alarms, overdue: &Overdue, held: bool, now: Time) {
    if !held {
        return settle(sites, alarms, &overdue.site);
    }
    alarms.raise(
        alarms::SITE_NO_RECEIPTS,
        overdue.site.as_str(),
        format!(
            "the site took {} and has signed no receipt for {} s",
            overdue.digest,
            overdue.waited.as_secs()
        ),
        "look for why this site signs nothing (its store, its receipt key); footage is kept here and on the cameras",
        now,
    );
}

/// The site has signed, or what it owed is archived without it.
pub(super) fn settle(sites: &Sites, alarms: &Alarms, site: &SiteId) {
    sites.receipted(site);
    alarms.clear(alarms::SITE_NO_RECEIPTS, site.as_str());
}

/// Since when the oldest receipt is due that is too long overdue.
pub(super) fn is_overdue(since: Instant, now: Instant) -> Option<Duration> {
    let waited = now.saturating_duration_since(since);
    (waited >= limits::RECEIPTS_GONE).then_some(waited)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::metrics::Metrics;
    use link::clock::Clock;

    #[test]
    fn a_site_that_takes_and_never_signs_is_an_alarm_until_it_signs() {
        let (site, other): (SiteId, SiteId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let sites = Sites::new([site.clone(), other].into_iter());
        let metrics = Metrics::new().unwrap();
        let alarms = Alarms::new(metrics.clone());
        let began = Clock::system().instant();
        let later = |s| began + Duration::from_secs(s);
        let look = |s, held| {
            for overdue in sites.overdue(later(s)) {
                judge(&sites, &alarms, &overdue, held, Time(s * 1000));
            }
            let standing = alarms.standing();
            standing
                .into_iter()
                .map(|a| (a.code, a.subject))
                .collect::<Vec<_>>()
        };
        let raised = [("site_no_receipts", "a".to_owned())];
        assert_eq!(look(10_000, true), [], "it has been given nothing");
        sites.owes_receipt(&site, Digest([1; 32]), began);
        sites.owes_receipt(&site, Digest([2; 32]), later(500));
        assert_eq!(look(599, true), []);
        assert_eq!(look(600, true), raised, "since the first one");
        assert!(metrics.text().unwrap().contains("site_no_receipts\"} 1"));
        sites.owes_receipt(&site, Digest([3; 32]), later(700));
        assert_eq!(look(700, true), raised, "more of the same is no end");
        settle(&sites, &alarms, &site);
        assert_eq!(look(5_000, true), []);
        // Archived by another site meanwhile: nothing is owed, and the next put begins anew.
        sites.owes_receipt(&site, Digest([4; 32]), later(5_000));
        assert_eq!(look(5_600, false), []);
        assert_eq!(look(9_000, true), []);
        sites.owes_receipt(&site, Digest([5; 32]), later(9_000));
        assert_eq!(look(9_599, true), []);
        assert_eq!(look(9_600, true), raised);
    }
}
