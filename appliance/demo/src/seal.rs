//! Recording: each original goes through `bodycam seal` on its camera, one recording after the other.
//!
//! Under chaos the footage comes through a pipe, paced, and a sealer may be killed at any moment. What it had
//! sealed is a recording that ends as interrupted; the rest goes on as a new one. Where the rest begins is
//! read from the manifests that the next sealer signs when it closes what was left open, so nothing is recorded
//! twice. While footage is recorded no camera erases, so they are there to be read.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use link::clock::Clock;
use nix::sys::signal::Signal;
use protocol::identity::Trust;
use protocol::manifest::EndReason;

use crate::chaos::Pace;
use crate::footage::Original;
use crate::parties::{self, Agency, Sealed, Secrets};
use crate::process::{Launcher, Running, Spec};
use crate::store::{self, Named};

/// Bytes fed at once.
const CHUNK: usize = 256 << 10;
/// Time for a sealer to close what another left open.
const CLOSE_WITHIN: Duration = Duration::from_secs(30);

/// One recording that a camera made.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// The camera, from 0.
    pub(crate) camera: usize,
    /// Which original, by its place in the list.
    pub(crate) original: usize,
    /// The recording's full name: `SERIAL/INCARNATION/NUMBER`.
    pub(crate) recording: String,
    /// Where in the original it begins.
    pub(crate) from: u64,
    /// Bytes of footage.
    pub(crate) footage: u64,
    /// Its segments.
    pub(crate) segments: u64,
    /// Whether it was interrupted.
    pub(crate) interrupted: bool,
}

/// What a camera's recorder works with.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    /// Starts programs.
    pub(crate) launcher: Launcher,
    /// The agency.
    pub(crate) agency: Agency,
    /// The pinned root.
    pub(crate) trust: Trust,
    /// The camera, from 0.
    pub(crate) camera: usize,
    /// Its disk.
    pub(crate) store: PathBuf,
    /// What its headers hold.
    pub(crate) secrets: Secrets,
    /// Set under chaos.
    pub(crate) pace: Option<Pace>,
    /// Bytes of footage of this camera in all.
    pub(crate) all: u64,
    /// Bytes of footage recorded so far, for the bars.
    pub(crate) recorded: Arc<AtomicU64>,
    /// Set when the demo ends early.
    pub(crate) stop: Arc<AtomicBool>,
    /// The clock.
    pub(crate) clock: Clock,
}

/// What became of a recording whose sealer was killed.
enum Fate {
    /// It had ended before.
    Finished(Named),
    /// It is closed as interrupted.
    Interrupted(Named),
    /// Nothing of it had been sealed.
    Nothing,
}

impl Recorder {
    /// Records this camera's originals, given with their place in the list.
    pub(crate) fn run(&self, originals: &[(usize, Original)]) -> Result<Vec<Piece>> {
        let (mut pieces, mut before) = (Vec::new(), 0);
        for (place, original) in originals {
            match &self.pace {
                None => pieces.push(self.whole(*place, original)?),
                Some(pace) => self.piecewise((*place, original), before, pace, &mut pieces)?,
            }
            before += original.bytes;
            self.recorded.store(before, Ordering::Relaxed);
        }
        Ok(pieces)
    }

    fn serial(&self) -> &str {
        &self.agency.serials[self.camera]
    }

    fn whole(&self, place: usize, original: &Original) -> Result<Piece> {
        let spec = parties::seal(
            &self.agency,
            self.serial(),
            &self.store,
            &self.secrets,
            &original.path,
        )?;
        let said = self.launcher.run(&spec)?;
        self.finished(place, 0, original.bytes, &said)
    }

    fn finished(&self, original: usize, from: u64, footage: u64, said: &[String]) -> Result<Piece> {
        let sealed = said
            .iter()
            .find_map(|l| Sealed::read(l))
            .context("`bodycam seal` ended well and named no recording")?;
        let (recording, segments) = (sealed.recording, sealed.segments);
        Ok(Piece {
            camera: self.camera,
            original,
            recording,
            from,
            footage,
            segments,
            interrupted: false,
        })
    }

    /// Records one original in as many recordings as kills make of it; `before` is what this camera recorded of
    /// others.
    fn piecewise(
        &self,
        (place, original): (usize, &Original),
        before: u64,
        pace: &Pace,
        pieces: &mut Vec<Piece>,
    ) -> Result<()> {
        let (mut from, mut killed) = (0, None);
        loop {
            let spec = parties::seal(
                &self.agency,
                self.serial(),
                &self.store,
                &self.secrets,
                Path::new("-"),
            )?;
            let mut running = self.launcher.start(&Spec { fed: true, ..spec }, None)?;
            if let Some(number) = killed.take() {
                let Some(fate) = self.settle(&mut running, number)? else {
                    killed = Some(number);
                    continue;
                };
                let (named, interrupted) = match fate {
                    Fate::Finished(named) => (Some(named), false),
                    Fate::Interrupted(named) => (Some(named), true),
                    Fate::Nothing => (None, true),
                };
                let (begin, footage) = (from, named.as_ref().map_or(0, |n| n.footage));
                pieces.extend(named.map(|n| self.piece(place, begin, n, interrupted)));
                if !interrupted {
                    return Ok(()); // what was started to close it has been fed nothing, and is killed
                }
                from += footage;
            }
            let number = self.next_number()?;
            self.feed(&mut running, original, from, before, pace)?;
            let status = running.wait();
            ensure!(!self.stop.load(Ordering::Relaxed), "stopped");
            if status.success() || running.said().iter().any(|l| Sealed::read(l).is_some()) {
                pieces.push(self.finished(place, from, original.bytes - from, &running.said())?);
                return Ok(());
            }
            if status.signal() != Some(Signal::SIGKILL as i32) {
                bail!("{} ended with {status}{}", running.name, running.tail());
            }
            killed = Some(number);
        }
    }

    fn piece(&self, original: usize, from: u64, named: Named, interrupted: bool) -> Piece {
        let Named {
            recording,
            segments,
            footage,
            ..
        } = named;
        Piece {
            camera: self.camera,
            original,
            recording,
            from,
            footage,
            segments: segments.len() as u64,
            interrupted,
        }
    }

    /// The number that the next recording gets: one more than those that exist or are gone.
    fn next_number(&self) -> Result<u64> {
        Ok(parties::camera_status(&self.launcher, self.serial(), &self.store)?.next_recording)
    }

    /// Waits until `running` has closed what the killed sealer of recording `number` left; none if it was killed too.
    fn settle(&self, running: &mut Running, number: u64) -> Result<Option<Fate>> {
        let until = self.clock.instant() + CLOSE_WITHIN;
        loop {
            let ended = running.ended().is_some();
            let Some(dir) = store::recording(&self.store, number)? else {
                let unused = self.next_number()? <= number;
                ensure!(
                    unused,
                    "recording {number} of {} is gone before its camera may erase any",
                    self.serial()
                );
                return Ok(Some(Fate::Nothing));
            };
            let named = store::named(&dir, &self.trust)?;
            if let Some((named, end)) = named.and_then(|n| n.end.map(|end| (n, end))) {
                return Ok(Some(match end.reason {
                    EndReason::Stopped => Fate::Finished(named),
                    EndReason::Interrupted => Fate::Interrupted(named),
                }));
            }
            if ended {
                return Ok(None);
            }
            ensure!(
                self.clock.instant() < until,
                "{} did not close what was left open{}",
                running.name,
                running.tail()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Feeds the original from `from` on, as fast as the pace allows, until it is all fed or the sealer has ended.
    fn feed(
        &self,
        running: &mut Running,
        original: &Original,
        from: u64,
        before: u64,
        pace: &Pace,
    ) -> Result<()> {
        let mut stdin = running.stdin().expect("it was asked for");
        let reading = || format!("cannot read {}", original.path.display());
        let mut file = File::open(&original.path).with_context(reading)?;
        file.seek(SeekFrom::Start(from)).with_context(reading)?;
        let (mut chunk, mut fed) = (vec![0; CHUNK], before + from);
        loop {
            let n = file.read(&mut chunk).with_context(reading)?;
            if n == 0 {
                return Ok(());
            }
            fed += n as u64;
            while fed
                > pace
                    .allowed(self.camera, self.all, self.clock.instant())
                    .max(CHUNK as u64)
            {
                ensure!(!self.stop.load(Ordering::Relaxed), "stopped");
                if running.ended().is_some() {
                    return Ok(());
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            if stdin.write_all(&chunk[..n]).is_err() {
                return Ok(()); // how it ended is told by its exit status
            }
            self.recorded.store(fed, Ordering::Relaxed);
        }
    }
}
