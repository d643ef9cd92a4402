//! The whole run on one page: originals, agency, parties, recording while both hops work, the end of it, and
//! then the checks with every party stopped.
//!
//! Threads: one a camera records, one draws, this one looks after the parties and, under chaos, kills them. The
//! first error stops all of them; every child is gone before this returns, and the work folder too unless it
//! was asked to stay.

mod ending;
mod setup;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use link::clock::Clock;
use link::random::Random;
use nix::sys::signal::Signal;

use crate::chaos::{self, Chaos, Kill, Pace};
use crate::fleet::Fleet;
use crate::footage::{self, Original};
use crate::options::Options;
use crate::parties::{self, Agency, Erase, Secrets, SpoolStatus, StorePlace};
use crate::process::{Launcher, Spec, lock};
use crate::progress::{self, Track};
use crate::seal::{Piece, Recorder};
use crate::signed::Signed;
use crate::store;
use crate::trace::{self, Trace};
use setup::{kept, place, stop_on_signal};

/// How often the parties are looked after.
const TICK: Duration = Duration::from_millis(50);
/// How long the repeater's ledger may take to agree with cameras that are rid of everything.
const SETTLE_WITHIN: Duration = Duration::from_secs(30);
/// Any free port of this machine alone.
const ANY_PORT: &str = "127.0.0.1:0";

/// Runs the demo; the last line.
pub(crate) fn run(options: &Options) -> Result<String> {
    let stop = Arc::new(AtomicBool::new(false));
    stop_on_signal(&stop)?;
    let temporary = match &options.keep {
        Some(_) => None,
        None => Some(
            tempfile::Builder::new()
                .prefix("repeater-demo-")
                .tempdir()
                .context("cannot make a temporary folder")?,
        ),
    };
    let work = match (&options.keep, &temporary) {
        (Some(dir), _) => kept(dir)?,
        (None, Some(dir)) => dir.path().to_owned(),
        (None, None) => unreachable!("one of both was made above"),
    };
    let demo = Demo::prepare(options, &work, stop)?;
    demo.run()
}

/// Everything that does not change during a run.
struct Demo<'a> {
    options: &'a Options,
    work: &'a Path,
    clock: Clock,
    stop: Arc<AtomicBool>,
    launcher: Launcher,
    agency: Agency,
    originals: Vec<Original>,
    secrets: Vec<Secrets>,
    place: StorePlace,
    tracks: Vec<Track>,
    deadline: Instant,
    trouble: Mutex<Option<anyhow::Error>>,
}

impl<'a> Demo<'a> {
    fn prepare(options: &'a Options, work: &'a Path, stop: Arc<AtomicBool>) -> Result<Demo<'a>> {
        let clock = Clock::system();
        let deadline = clock.instant() + Duration::from_secs(options.timeout);
        let launcher = Launcher::new(&work.join("logs"), clock.clone())?;
        let cameras = usize::from(options.cameras);
        for dir in ["originals", "cameras", "exports", "run"] {
            fs::create_dir_all(work.join(dir))
                .with_context(|| format!("cannot make {}", work.join(dir).display()))?;
        }
        let originals = match &options.footage {
            Some(dir) => footage::folder(dir, cameras)?,
            None => footage::sample(
                &work.join("originals"),
                cameras,
                options.megabytes * 1_000_000,
            )?,
        };
        let bytes = originals.iter().map(|o| o.bytes).sum::<u64>();
        if options.chaos.is_some() {
            chaos::enough(bytes)?;
        }
        eprintln!(
            "demo: {cameras} cameras, {} files to record, {bytes} bytes; working in {}",
            originals.len(),
            work.display()
        );
        let agency = Agency::trial(&launcher, &work.join("agency"), options.cameras)?;
        let random = Random::system();
        let secret = |what: &str| format!("{what} {:016x}", random.u64());
        let secrets = agency
            .serials
            .iter()
            .map(|_| Secrets {
                officer: secret("Officer"),
                case: secret("Case"),
            })
            .collect();
        let place = place(options, work, &random);
        let track = |(camera, serial): (usize, &String)| {
            let own = || originals.iter().filter(|o| o.camera == camera);
            Track {
                serial: serial.clone(),
                all: own().map(|o| o.bytes).sum(),
                recorded: Arc::new(AtomicU64::new(0)),
                segments: own().map(|o| progress::segments_of(o.bytes) + 1).sum(),
            }
        };
        let tracks = agency.serials.iter().enumerate().map(track).collect();
        let trouble = Mutex::new(None);
        Ok(Demo {
            options,
            work,
            clock,
            stop,
            launcher,
            agency,
            originals,
            secrets,
            place,
            tracks,
            deadline,
            trouble,
        })
    }

    fn run(self) -> Result<String> {
        let trace = Trace::new(self.launcher.registry.clone());
        let mut fleet = Fleet::new(self.launcher.clone(), trace.clone());
        let places = self.start(&mut fleet)?;
        let began = self.clock.instant();
        let Recorded {
            pieces,
            signed,
            kills,
        } = self.record(&mut fleet, &trace, &places)?;
        let took = self.clock.instant().saturating_duration_since(began);
        fleet.stop()?;
        if self.options.chaos.is_some() {
            println!("\nkilled and started again:\n{}", chaos::table(&kills));
        }
        let bytes: u64 = self.originals.iter().map(|o| o.bytes).sum();
        println!(
            "recorded, offloaded, archived and released {} MB in {:.1} s",
            bytes / 1_000_000,
            took.as_secs_f64()
        );
        self.check(&pieces, &signed)
    }

    /// Starts the parties.
    fn start(&self, fleet: &mut Fleet) -> Result<Places> {
        let any: SocketAddr = ANY_PORT.parse()?;
        let config = self.work.join("archive.toml");
        let traced = self.options.chaos.is_some();
        let filtered = |spec: Spec| Spec {
            log_filter: traced.then_some(trace::FILTER),
            ..spec
        };
        let archive = filtered(parties::archive(&self.agency, &config, &self.place, any)?);
        parties::make_store(&self.launcher, &config)?;
        let archive = fleet.start(archive, parties::LISTENING, traced)?;
        let archive = archive.parse().context("the archive's address")?;
        fleet.respecify(parties::archive(
            &self.agency,
            &config,
            &self.place,
            archive,
        )?);
        let mut cameras = Vec::new();
        for serial in &self.agency.serials {
            let disk = self.disk(serial);
            let at = fleet.start(
                parties::serve(&self.agency, serial, &disk, (any, Erase::WhenNeeded))?,
                parties::LISTENING,
                false,
            )?;
            let at = at.parse().context("a camera's address")?;
            let serve = (at, Erase::WhenNeeded);
            fleet.respecify(parties::serve(&self.agency, serial, &disk, serve)?);
            cameras.push(at);
        }
        let config = self.work.join("repeater.toml");
        let repeater =
            |http| parties::repeater(&self.agency, &config, self.work, archive, &cameras, http);
        let http = fleet.start(filtered(repeater(any)?), parties::READY, traced)?;
        let http = http
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .parse()
            .context("the repeater's address")?;
        fleet.respecify(repeater(http)?);
        Ok(Places { http, cameras })
    }

    /// Records everything, reads what was signed for, and waits until every camera is rid of it.
    fn record(&self, fleet: &mut Fleet, trace: &Trace, places: &Places) -> Result<Recorded> {
        let (over, began, http) = (AtomicBool::new(false), self.clock.instant(), places.http);
        let since = || self.clock.instant().saturating_duration_since(began);
        let pace = self
            .options
            .chaos
            .map(|_| Pace::new(self.agency.serials.len(), began));
        std::thread::scope(|scope| {
            scope.spawn(|| progress::draw(&self.tracks, http, &self.clock, &over));
            let result = self.recorders(scope, pace.as_ref()).and_then(|recorders| {
                let mut kills = Vec::new();
                let random = self.options.chaos.map(Random::seeded);
                if let (Some(random), Some(pace)) = (random.clone(), &pace) {
                    let go_on = || self.go_on().map_err(|e| self.how_far(e, http));
                    let serials = &self.agency.serials[..];
                    let chaos = Chaos {
                        fleet,
                        trace,
                        random,
                        serials,
                        pace,
                        clock: self.clock.clone(),
                        began,
                    };
                    kills = chaos.run(&go_on)?;
                }
                let pieces = self.finish(fleet, http, recorders)?;
                let signed = self.signed()?;
                let chaos = random
                    .as_ref()
                    .map(|r| (r, &since as &dyn Fn() -> Duration));
                kills.extend(self.may_erase(fleet, &places.cameras, chaos)?);
                self.rid(fleet, http)?;
                Ok(Recorded {
                    pieces,
                    signed,
                    kills,
                })
            });
            over.store(true, Ordering::Relaxed);
            if result.is_err() {
                self.stop.store(true, Ordering::Relaxed);
                for sealer in self.launcher.registry.running(parties::SEALERS) {
                    self.launcher.registry.signal(&sealer, Signal::SIGKILL);
                }
            }
            result
        })
    }

    fn recorders<'s>(
        &'s self,
        scope: &'s Scope<'s, '_>,
        pace: Option<&Pace>,
    ) -> Result<Vec<Recording<'s>>> {
        let trust = self.agency.trust()?;
        let mut all = Vec::new();
        for (camera, (serial, secrets)) in self.agency.serials.iter().zip(&self.secrets).enumerate()
        {
            let recorder = Recorder {
                launcher: self.launcher.clone(),
                agency: self.agency.clone(),
                trust: trust.clone(),
                camera,
                store: self.disk(serial),
                secrets: secrets.clone(),
                pace: pace.cloned(),
                all: self.tracks[camera].all,
                recorded: Arc::clone(&self.tracks[camera].recorded),
                stop: Arc::clone(&self.stop),
                clock: self.clock.clone(),
            };
            let own: Vec<(usize, Original)> = self
                .originals
                .iter()
                .cloned()
                .enumerate()
                .filter(|(_, o)| o.camera == camera)
                .collect();
            all.push(scope.spawn(move || match recorder.run(&own) {
                Ok(pieces) => pieces,
                Err(error) => {
                    lock(&self.trouble).get_or_insert(error);
                    Vec::new()
                }
            }));
        }
        Ok(all)
    }

    /// An error where a recorder failed, time is over, or somebody asked to stop.
    fn go_on(&self) -> Result<()> {
        if let Some(error) = lock(&self.trouble).take() {
            return Err(error);
        }
        ensure!(!self.stop.load(Ordering::Relaxed), "stopped by a signal");
        ensure!(
            self.clock.instant() < self.deadline,
            "not done in {} seconds (--timeout)",
            self.options.timeout
        );
        Ok(())
    }

    /// Waits for the recorders.
    fn finish(
        &self,
        fleet: &mut Fleet,
        http: SocketAddr,
        recorders: Vec<Recording<'_>>,
    ) -> Result<Vec<Piece>> {
        while !recorders.iter().all(ScopedJoinHandle::is_finished) {
            self.look_after(fleet, http)?;
        }
        let mut pieces = Vec::new();
        for recorder in recorders {
            pieces.extend(
                recorder
                    .join()
                    .map_err(|_| anyhow!("a recorder panicked"))?,
            );
        }
        self.go_on()?; // a recorder may have failed as the last one
        Ok(pieces)
    }

    /// Waits until no camera's disk holds a recording and the repeater owes nothing.
    fn rid(&self, fleet: &mut Fleet, http: SocketAddr) -> Result<()> {
        while !self.released()? {
            self.look_after(fleet, http)?;
        }
        let until = self.clock.instant() + SETTLE_WITHIN;
        loop {
            let spool = parties::status(http)
                .context("cannot ask the repeater for its status")?
                .spool;
            if spool.outstanding == 0 && spool.unaccounted == 0 {
                return Ok(());
            }
            let SpoolStatus {
                outstanding,
                unaccounted,
            } = spool;
            ensure!(
                self.clock.instant() < until,
                "cameras are rid of everything, but by the repeater {outstanding} segments are outstanding and {unaccounted} \
                 unaccounted for"
            );
            self.look_after(fleet, http)?;
        }
    }

    /// Looks after parties and time.
    fn look_after(&self, fleet: &mut Fleet, http: SocketAddr) -> Result<()> {
        std::thread::sleep(TICK);
        fleet.check()?;
        self.go_on().map_err(|e| self.how_far(e, http))
    }

    /// Adds to an error how far it had come.
    fn how_far(&self, error: anyhow::Error, http: SocketAddr) -> anyhow::Error {
        let left: u64 = self
            .agency
            .serials
            .iter()
            .filter_map(|s| store::segments_on_disk(&self.disk(s)).ok())
            .map(|held| held.len() as u64)
            .sum();
        let Ok(status) = parties::status(http) else {
            return error;
        };
        let alarm = |a: &parties::Alarm| format!("\n  alarm {}: {} ({})", a.code, a.what, a.place);
        let alarms: String = status.alarms.iter().map(alarm).collect();
        error.context(format!(
            "cameras hold {left} segments, {} are outstanding, {} unaccounted for{alarms}\n",
            status.spool.outstanding, status.spool.unaccounted
        ))
    }

    fn released(&self) -> Result<bool> {
        for serial in &self.agency.serials {
            if !store::recordings(&self.disk(serial))?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn disk(&self, serial: &str) -> PathBuf {
        self.work.join("cameras").join(serial)
    }
}

/// Where parties answer.
struct Places {
    /// The repeater's status page.
    http: SocketAddr,
    /// Cameras, in the order of their serials.
    cameras: Vec<SocketAddr>,
}

/// What was recorded.
struct Recorded {
    pieces: Vec<Piece>,
    signed: Vec<Signed>,
    kills: Vec<Kill>,
}

/// A camera's recorder.
type Recording<'s> = ScopedJoinHandle<'s, Vec<Piece>>;
