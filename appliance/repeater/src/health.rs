//! Whether this repeater does what it should, as the service manager is told: READY once, a beat of the watchdog at every
//! look that finds it well, and a line for people.
//!
//! Well means that the storage thread answers and that both hops' runtimes have beaten since the last look; that this runs
//! shows that the main thread is well. No peer is asked: an absent archive, a full spool or no camera is not ill health.
//! A look waits for the storage thread for as long as that takes, so a sync that takes a minute costs some beats and no
//! more; the manager's limit is above it ([`limits::LIVE_WITHIN`]).

use std::collections::BTreeMap;
use std::time::Duration;

use link::clock::Clock;
use link::service::Manager;
use protocol::ids::SiteId;
use tracing::{info, warn};

use crate::commit::Storage;
use crate::forward::sites::{Site, Sites};
use crate::limits;
use crate::pull::Sessions;
use crate::pulse::Pulses;

/// What one look found. The storage thread has answered, or there would be none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signs {
    /// Hops whose runtimes do not run.
    pub missing: Vec<&'static str>,
    /// Cameras that are docked.
    pub docked: usize,
    /// Sealed bytes that are announced and not archived.
    pub waiting_bytes: u64,
    /// Sites that do not answer, of all that are configured.
    pub away: Vec<String>,
    /// How many are configured.
    pub sites: usize,
}

impl Signs {
    /// Whether all is well.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.missing.is_empty()
    }

    /// The line for people: `3 docked, 12.4 GB waiting, archive ok`.
    #[must_use]
    pub fn line(&self) -> String {
        let archive = match self.away.len() {
            0 => "archive ok".to_owned(),
            n if n == self.sites => "archive away".to_owned(),
            _ => format!("archive {} away", self.away.join(", ")),
        };
        let (docked, waiting) = (self.docked, size(self.waiting_bytes));
        let line = format!("{docked} docked, {waiting} waiting, {archive}");
        match self.missing.as_slice() {
            [] => line,
            missing => format!("{} does not run; {line}", missing.join(" and ")),
        }
    }
}

/// Bytes for people: three digits or so.
fn size(bytes: u64) -> String {
    let units = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut tenths = u128::from(bytes) / 100;
    let mut unit = 0;
    while tenths >= 10_000 && unit + 1 < units.len() {
        tenths /= 1000;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, units[unit])
}

/// The sites that do not answer.
fn away(sites: &BTreeMap<SiteId, Site>) -> Vec<String> {
    let silent = sites.iter().filter(|(_, known)| !known.answering);
    silent.map(|(site, _)| site.to_string()).collect()
}

/// How often is looked: as often as people want to read it, and often enough for the watchdog.
#[must_use]
pub fn pause(watchdog: Option<Duration>) -> Duration {
    let enough = watchdog.map_or(limits::LOOK, |limit| limit / 6);
    enough.clamp(Duration::from_millis(10), limits::LOOK)
}

/// Whose health it is.
#[derive(Clone, Debug)]
pub struct Health {
    /// The storage thread.
    pub storage: Storage,
    /// The hops.
    pub pulses: Pulses,
    /// Who is here.
    pub sessions: Sessions,
    /// Who answers.
    pub sites: Sites,
    /// Time.
    pub clock: Clock,
}

impl Health {
    /// Looks; none where the storage thread has ended, and with it soon the process.
    pub async fn look(&self) -> Option<Signs> {
        let asked = self
            .storage
            .ask(|spool, _| Ok(spool.counts().outstanding.bytes));
        let waiting_bytes = asked.await.ok()?;
        let now = self.clock.instant();
        let sites = self.sites.all();
        Some(Signs {
            missing: self.pulses.missing(now, limits::HOP_BEATS),
            docked: self.sessions.docked(now),
            waiting_bytes,
            away: away(&sites),
            sites: sites.len(),
        })
    }

    /// Tells the manager for as long as the storage thread lives.
    pub async fn tell(self, manager: &Manager) {
        if manager.watchdog().is_some_and(|w| w <= limits::LIVE_WITHIN) {
            warn!(
                "WatchdogSec is {} s or less: a slow sync may end this daemon",
                limits::LIVE_WITHIN.as_secs()
            );
        }
        let pause = pause(manager.watchdog());
        let (mut is_ready, mut was_well, mut said) = (false, true, String::new());
        while let Some(signs) = self.look().await {
            if signs.is_well() {
                if !std::mem::replace(&mut is_ready, true) {
                    manager.ready();
                }
                manager.beat();
            }
            let line = signs.line();
            if line != said {
                manager.status(&line);
                said = line;
            }
            if is_ready && was_well != signs.is_well() {
                was_well = signs.is_well();
                match was_well {
                    true => info!("both hops run again"),
                    false => warn!("no beat for the watchdog: {said}"),
                }
            }
            // Until it serves, somebody waits for it.
            let next = if is_ready { pause } else { limits::FIRST_LOOK };
            tokio::time::sleep(next).await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn signs() -> Signs {
        Signs {
            missing: vec![],
            docked: 3,
            waiting_bytes: 12_449_999_999,
            away: vec![],
            sites: 2,
        }
    }

    #[test]
    fn the_line_says_who_is_docked_what_waits_and_whether_an_archive_answers() {
        assert_eq!(signs().line(), "3 docked, 12.4 GB waiting, archive ok");
        let mut one = signs();
        one.away = vec!["site-b".into()];
        assert_eq!(one.line(), "3 docked, 12.4 GB waiting, archive site-b away");
        one.away.push("site-a".into());
        one.missing = vec!["pull", "forward"];
        let line = "pull and forward does not run; 3 docked, 12.4 GB waiting, archive away";
        assert_eq!(one.line(), line);
    }

    #[test]
    fn only_a_hop_that_does_not_run_is_ill_health() {
        let mut all = signs();
        (all.docked, all.waiting_bytes) = (0, u64::MAX);
        all.away = vec!["a".into(), "b".into()];
        assert!(all.is_well());
        all.missing = vec!["forward"];
        assert!(!all.is_well());
    }

    #[test]
    fn sizes_are_short() {
        for (bytes, words) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (999_999, "999.9 kB"),
            (1_000_000, "1.0 MB"),
            (4_194_304, "4.1 MB"),
            (1_500_000_000_000, "1.5 TB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(size(bytes), words);
        }
    }

    #[test]
    fn it_is_looked_often_enough_for_the_watchdog() {
        assert_eq!(pause(None), limits::LOOK);
        assert_eq!(pause(Some(Duration::from_secs(90))), limits::LOOK);
        let short = Duration::from_secs(6);
        assert_eq!(pause(Some(short)), Duration::from_secs(1));
        // A sync of the longest tolerated, and a look on either side of it, are within the unit's limit.
        let unit = Duration::from_secs(90);
        assert!(limits::LIVE_WITHIN + 2 * pause(Some(unit)) < unit);
    }
}
