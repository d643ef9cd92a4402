//! `repeaterd gate`: whether a boot counts as good. It looks at the running daemon once a second, and ends well once all
//! looks were good for as long as is asked; it fails where that does not come about in time. systemd reaches
//! boot-complete.target only behind it, so a release that does not come to that is gone back from.
//!
//! A look is good when the page says that the storage thread and both hops answer, and when every hostapd that is
//! configured does. At both ends of the time a probe is committed: an entry of the logbook, in the room that is kept for
//! what must always fit. What peers do counts for nothing: an absent archive or a full spool is not ill health.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use link::clock::Clock;

use crate::cli::fetch;
use crate::config::Config;
use crate::{alarms, control, limits};

/// How long it has to be well, and by when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How {
    /// Without a break.
    pub(crate) stable: Duration,
    /// All together.
    pub(crate) within: Duration,
    /// Where the daemon's page is.
    pub(crate) page: SocketAddr,
}

/// What the gate says in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    Ill(String),
}

/// What was seen so far.
#[derive(Debug)]
struct Gate {
    how: How,
    began: Instant,
    well_since: Option<Instant>,
}

impl Gate {
    /// Whether the next look is one with a probe: the first good one, and the last.
    fn wants_probe(&self, now: Instant) -> bool {
        self.well_since
            .is_none_or(|since| now.saturating_duration_since(since) >= self.how.stable)
    }

    /// Takes in what a look found.
    fn step(&mut self, now: Instant, found: &Result<(), String>) -> Option<Verdict> {
        let since = match found {
            Ok(()) => *self.well_since.get_or_insert(now),
            Err(_) => {
                self.well_since = None;
                now
            }
        };
        if found.is_ok() && now.saturating_duration_since(since) >= self.how.stable {
            return Some(Verdict::Good);
        }
        let over = now.saturating_duration_since(self.began) >= self.how.within;
        over.then(|| {
            let well = now.saturating_duration_since(since).as_secs();
            Verdict::Ill(match found {
                Err(why) => why.clone(),
                Ok(()) => format!("it was well for no more than {well} s"),
            })
        })
    }
}

/// Looks until it is known.
///
/// # Errors
/// Why the boot is not good.
pub(crate) fn gate(config: &Config, how: How) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        how.within > how.stable,
        "--within must be more than --stable"
    );
    let clock = Clock::system();
    let mut gate = Gate {
        how,
        began: clock.instant(),
        well_since: None,
    };
    let mut said = String::new();
    loop {
        let probe = gate.wants_probe(clock.instant());
        let found = look(config, how.page, probe).map_err(|e| format!("{e:#}"));
        let verdict = gate.step(clock.instant(), &found);
        match verdict {
            Some(Verdict::Good) => {
                println!("healthy for {} s", how.stable.as_secs());
                return Ok(ExitCode::SUCCESS);
            }
            Some(Verdict::Ill(why)) => anyhow::bail!("not healthy: {why}"),
            None => {}
        }
        let now = found.err().unwrap_or_else(|| "well".into());
        if now != said {
            eprintln!("repeaterd: {now}");
            said = now;
        }
        std::thread::sleep(limits::GATE_LOOK);
    }
}

fn look(config: &Config, page: SocketAddr, probe: bool) -> anyhow::Result<()> {
    fetch(page, "/livez").context("the daemon is not alive")?;
    let status = fetch(page, "/status").context("the daemon shows no status")?;
    let status: serde_json::Value =
        serde_json::from_str(&status).context("the daemon's status is not JSON")?;
    let alarms = status["alarms"].as_array().map_or(&[][..], Vec::as_slice);
    let silent = alarms.iter().find(|a| a["code"] == alarms::HOSTAPD_SILENT);
    if let Some(silent) = silent {
        anyhow::bail!("hostapd does not answer: {}", silent["where"]);
    }
    if probe {
        let said = control::ask(&config.spool_dir, "probe");
        said.context("the storage thread commits no probe")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn gate(began: Instant) -> Gate {
        let how = How {
            stable: 10 * SECOND,
            within: 60 * SECOND,
            page: ([127, 0, 0, 1], 9470).into(),
        };
        Gate {
            how,
            began,
            well_since: None,
        }
    }

    /// What becomes of a gate that looks once a second; `well` says of each second whether it is.
    fn told(well: impl Fn(u32) -> bool) -> (u32, Verdict, Vec<u32>) {
        let began = Clock::system().instant();
        let (mut gate, mut probes) = (gate(began), Vec::new());
        for second in 0..1000 {
            let now = began + second * SECOND;
            if gate.wants_probe(now) {
                probes.push(second);
            }
            let found = well(second).then_some(()).ok_or_else(|| "ill".to_owned());
            if let Some(verdict) = gate.step(now, &found) {
                return (second, verdict, probes);
            }
        }
        panic!("it never ends");
    }

    #[test]
    fn it_is_good_only_after_a_time_without_a_break() {
        assert_eq!(told(|_| true), (10, Verdict::Good, vec![0, 10]));
        // Ill until 3, and once more at 8.
        let (at, verdict, probes) = told(|s| s >= 3 && s != 8);
        assert_eq!((at, verdict), (19, Verdict::Good));
        assert_eq!(probes, [0, 1, 2, 3, 9, 19]);
    }

    #[test]
    fn it_is_ill_where_that_does_not_come_about_in_time() {
        let never = told(|_| false);
        assert_eq!((never.0, never.1), (60, Verdict::Ill("ill".into())));
        let flaps = told(|s| s % 9 != 0 || s == 0);
        let Verdict::Ill(why) = flaps.1 else {
            panic!("it flaps")
        };
        assert_eq!(
            (flaps.0, why.as_str()),
            (60, "it was well for no more than 5 s")
        );
        // One that begins well at the last moment has come too late.
        assert!(matches!(told(|s| s > 55).1, Verdict::Ill(_)));
    }
}
