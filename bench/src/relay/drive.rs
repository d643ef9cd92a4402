//! One run of all parties: start them, watch the repeater's status until the footage is where it should be,
//! and say what each party took for it.
//!
//! A run that makes no progress for a minute is an error with the repeater's last status: a bench never hangs
//! and never counts footage that did not arrive. Watching costs the repeater one small answer every 50 ms.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::Rig;
use crate::parties::{self, Fleet, Repeater, Status};
use crate::parts::bytes_f64;
use crate::process::{Child, Usage};

const GIB: f64 = (1u64 << 30) as f64;
const MIB: f64 = (1u64 << 20) as f64;
/// Between two looks at the status.
const LOOK: Duration = Duration::from_millis(50);
/// Between two looks for the first byte.
const LOOK_FIRST: Duration = Duration::from_millis(5);
/// Without any change for so long, a run has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a party took in a span of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Took {
    /// CPU-seconds for each GiB of footage.
    pub(crate) cpu_s_per_gib: f64,
    /// Peak resident memory in MiB since its start; of several cameras, the largest.
    pub(crate) peak_mib: f64,
}

/// What a span of a run gave.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    /// MiB of footage each second.
    pub(crate) mib_s: f64,
    /// All cameras together.
    pub(crate) cameras: Took,
    /// The repeater.
    pub(crate) repeaterd: Took,
    /// The archive; nothing where it was kept away.
    pub(crate) archive: Took,
}

/// All parties of one run, running.
#[derive(Debug)]
pub(crate) struct Drive<'a> {
    rig: &'a Rig<'a>,
    fleet: &'a Fleet,
    cameras: Vec<Child>,
    archive: Option<Child>,
    archive_at: SocketAddr,
    /// The repeater.
    pub(crate) repeater: Repeater,
    /// Where its spool is.
    pub(crate) spool: PathBuf,
    began: Mark,
}

/// The start of a span.
#[derive(Clone, Debug)]
struct Mark {
    at: Instant,
    cameras: f64,
    repeaterd: f64,
    archive: f64,
}

impl<'a> Drive<'a> {
    /// Starts all parties, the repeater last; the archive only where `with_archive`. The spool is in the phase's
    /// folder unless said otherwise. Returns when the first byte has been pulled.
    pub(crate) fn start(
        rig: &'a Rig<'a>,
        fleet: &'a Fleet,
        with_archive: bool,
        spool: Option<PathBuf>,
    ) -> Result<Drive<'a>> {
        let (yard, agency) = (rig.yard, &rig.agency);
        let mut archive = None;
        let mut archive_at = parties::free_udp()?;
        if with_archive {
            let (gateway, at) = parties::archive(yard, agency, fleet.dir(), archive_at)?;
            (archive, archive_at) = (Some(gateway), at);
        }
        let (cameras, addresses) = fleet.serve(yard)?;
        let spool = spool.unwrap_or_else(|| fleet.dir().join("spool"));
        let repeater =
            parties::repeater(yard, agency, fleet.dir(), &spool, archive_at, &addresses)?;
        let at = yard.clock.instant();
        let began = Mark {
            at,
            cameras: 0.0,
            repeaterd: 0.0,
            archive: 0.0,
        };
        let mut drive = Drive {
            rig,
            fleet,
            cameras,
            archive,
            archive_at,
            repeater,
            spool,
            began,
        };
        drive.began = drive.mark()?;
        drive.await_first_byte()?;
        Ok(drive)
    }

    /// Starts the archive that was kept away, and a new span.
    pub(crate) fn bring_archive(&mut self) -> Result<()> {
        ensure!(self.archive.is_none(), "the archive runs already");
        let dir = self.fleet.dir();
        let (gateway, at) =
            parties::archive(self.rig.yard, &self.rig.agency, dir, self.archive_at)?;
        ensure!(at == self.archive_at, "the archive listens elsewhere");
        self.archive = Some(gateway);
        self.began = self.mark()?;
        Ok(())
    }

    /// Watches until all segments are in `stage`.
    pub(crate) fn until_all_in(&mut self, stage: &str) -> Result<Status> {
        let segments = self.fleet.segments;
        self.until(&format!("{segments} segments are {stage}"), |s| {
            s.spool.all_in(stage, segments)
        })
    }

    /// Watches until `done`.
    pub(crate) fn until(&mut self, what: &str, done: impl Fn(&Status) -> bool) -> Result<Status> {
        let mut last = Status::default();
        let mut changed = self.now();
        loop {
            self.repeater.process.must_run()?;
            let status = self.repeater.status()?;
            ensure!(
                status.spool.unaccounted == 0,
                "footage is unaccounted: {status:?}"
            );
            if done(&status) {
                return Ok(status);
            }
            if status != last {
                (last, changed) = (status, self.now());
            } else if self.now().duration_since(changed) > PATIENCE {
                for party in self.cameras.iter_mut().chain(&mut self.archive) {
                    party.must_run()?;
                }
                bail!("waited in vain until {what}; the repeater's status: {last:?}");
            }
            std::thread::sleep(LOOK);
        }
    }

    /// What the span since the start, or since the archive came, has taken.
    pub(crate) fn outcome(&self) -> Result<Outcome> {
        let (began, now) = (&self.began, self.mark()?);
        let bytes = bytes_f64(self.fleet.bytes);
        let took = |used: f64, before: f64, peak_mib| Took {
            cpu_s_per_gib: (used - before) / (bytes / GIB),
            peak_mib,
        };
        let peak = |child: &Child| child.usage().map(|u| u.peak_mib);
        let cameras: Vec<f64> = self.cameras.iter().map(peak).collect::<Result<_>>()?;
        let archive = self.archive.as_ref().map(peak).transpose()?.unwrap_or(0.0);
        Ok(Outcome {
            mib_s: bytes / MIB / now.at.duration_since(began.at).as_secs_f64(),
            cameras: took(
                now.cameras,
                began.cameras,
                cameras.into_iter().fold(0.0, f64::max),
            ),
            repeaterd: took(
                now.repeaterd,
                began.repeaterd,
                peak(&self.repeater.process)?,
            ),
            archive: took(now.archive, began.archive, archive),
        })
    }

    /// Stops all parties and removes the phase's folder.
    pub(crate) fn stop(self) -> Result<()> {
        self.repeater.process.stop()?;
        for party in self.cameras.into_iter().chain(self.archive) {
            party.stop()?;
        }
        let dir = self.fleet.dir();
        std::fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))
    }

    fn await_first_byte(&mut self) -> Result<()> {
        let began = self.now();
        while self.repeater.metric("repeater_pulled_bytes_total")? <= 0.0 {
            self.repeater.process.must_run()?;
            ensure!(
                self.now().duration_since(began) < PATIENCE,
                "nothing was pulled"
            );
            std::thread::sleep(LOOK_FIRST);
        }
        // CPU counts from the start of the repeater, the wall from the first byte.
        self.began.at = self.now();
        Ok(())
    }

    fn now(&self) -> Instant {
        self.rig.yard.clock.instant()
    }

    fn mark(&self) -> Result<Mark> {
        let cpu = |child: &Child| child.usage().map(|u: Usage| u.cpu_s);
        let cameras: Vec<f64> = self.cameras.iter().map(cpu).collect::<Result<_>>()?;
        Ok(Mark {
            at: self.now(),
            cameras: cameras.iter().sum(),
            repeaterd: cpu(&self.repeater.process)?,
            archive: self.archive.as_ref().map(cpu).transpose()?.unwrap_or(0.0),
        })
    }
}
