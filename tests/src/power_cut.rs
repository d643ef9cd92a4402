//! The power-cut suite: a spool lives on a real file system whose every block write is recorded; the disk is put together as a
//! cut at any moment leaves it, mounted, and a spool is opened on it and must keep every promise that was made before.
//!
//! Reading order: [`blocks`] is the record, [`image`] the cuts and the disk after one, [`disk`] the recorded file system;
//! [`plan`] is the footage, [`driver`] the life that is recorded with what is [`left`] in it, [`check`] what must be true after it;
//! [`mod@store`] is both for the archive's folder store; [`steps`] cuts the power at each step of the spool's essay. Here they are put together. Program `power-cut`; it needs root.
//!
//! A fault is a value that the driver passes to the spool's constructor ([`spool::Fault`]); the suite must notice each.

pub mod blocks;
pub mod check;
pub mod disk;
pub mod driver;
pub mod image;
pub mod left;
pub mod plan;
pub mod steps;
pub mod store;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use link::random::Random;
use spool::Fault;

use crate::chance::shuffle;
use crate::process;
use crate::station::Station;
use crate::wait::now;
use blocks::BlockLog;
use disk::{Disk, FileSystem, Mounted, beacons, set_beacon};
use image::{Cut, Replay, cuts};

/// Cuts between two FLUSHes, besides the one at the first of them.
const PARTS: u32 = 3;
/// Lives of one history, each ended by a kill.
const LIVES: u64 = 8;
/// Cuts that are played back in one go.
const BATCH: usize = 64;
/// Images looked at side by side.
const WORKERS: usize = 2;

/// Whose promises are put to the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The repeater's spool.
    Spool,
    /// The archive's store in a folder.
    Store,
}

impl Subject {
    /// Its name, that of its folder, and the first part of that of its parties.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Subject::Spool => "spool",
            Subject::Store => "store",
        }
    }
    /// Steps of one life.
    fn steps(self) -> u32 {
        match self {
            Subject::Spool => 40,
            Subject::Store => 8,
        }
    }
}

/// A history to record.
#[derive(Clone, Copy, Debug)]
pub struct History {
    /// Of what.
    pub subject: Subject,
    /// On which file system.
    pub fs: FileSystem,
    /// Decides the footage and the driver's steps.
    pub seed: u64,
    /// A fault that the spool has.
    pub fault: Option<Fault>,
}

impl History {
    fn fault_name(&self) -> Option<String> {
        self.fault.map(|f| format!("{f:?}"))
    }
}

/// A cut after which something was not as it must be.
#[derive(Clone, Debug)]
pub struct Broken {
    /// The cut.
    pub cut: Cut,
    /// What was wrong.
    pub wrong: Vec<String>,
}

/// What the cuts of a history showed.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Cuts looked at.
    pub tried: usize,
    /// Cuts there are.
    pub of: usize,
    /// Those that broke a promise.
    pub broken: Vec<Broken>,
}

/// A recorded history.
#[derive(Debug)]
pub struct Recorded {
    history: History,
    station: Station,
    log: BlockLog,
    /// After which entry how much was said.
    said: Vec<(usize, u64)>,
    dir: tempfile::TempDir,
}

/// Records a history.
///
/// # Panics
/// Where the disk cannot be made, or the driver ends otherwise than by its own kill.
#[must_use]
pub fn record(history: History) -> Recorded {
    let dir = scratch();
    let station = plan::make(history.seed);
    let disk = Disk::new(dir.path(), history.fs);
    let (beacon, offset) = disk.beacon();
    set_beacon(&beacon, offset, 0);
    let subject = history.subject.name();
    for life in 0..LIVES {
        let args = [
            station.path("").display().to_string(),
            disk.mount().join(subject).display().to_string(),
            beacon.display().to_string(),
            offset.to_string(),
            (history.seed * LIVES + life).to_string(),
            history.subject.steps().to_string(),
        ];
        let said = process::run(
            &format!("{subject}-driver"),
            args.into_iter().chain(history.fault_name()),
        );
        assert!(said.code.is_none(), "{history:?}, life {life}: {said:?}");
    }
    let log = disk.record();
    let said = beacons(&log, history.fs);
    Recorded {
        history,
        station,
        log,
        said,
        dir,
    }
}

/// A folder in memory where there is one: a disk's FLUSHes would be the slowest part.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    };
    tempfile::Builder::new()
        .prefix("bwc-power-cut-")
        .tempdir_in(base)
        .unwrap()
}

impl Recorded {
    /// Looks at the disk after cuts, in an order that the seed decides, until all were looked at, or `until`, or after the
    /// first broken promise where `first` says so.
    ///
    /// # Panics
    /// Where an image cannot be made.
    #[must_use]
    pub fn survey(&self, until: Option<Instant>, first: bool) -> Outcome {
        let from = self.said.first().map_or(0, |(entry, _)| *entry);
        let all = cuts(&self.log, from, PARTS, self.history.seed);
        self.survey_cuts(all, until, first)
    }

    fn survey_cuts(&self, mut all: Vec<Cut>, until: Option<Instant>, first: bool) -> Outcome {
        let of = all.len();
        let random = Random::seeded(self.history.seed);
        shuffle(&mut all, &random);
        let batches: Vec<&mut [Cut]> = all.chunks_mut(BATCH).collect();
        let batches = Mutex::new(batches.into_iter());
        let (tried, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let broken = Mutex::new(Vec::new());
        let over = || stop.load(Ordering::Relaxed) || until.is_some_and(|until| now() >= until);
        std::thread::scope(|scope| {
            for worker in 0..WORKERS {
                let (batches, tried, stop, broken) = (&batches, &tried, &stop, &broken);
                scope.spawn(move || {
                    let dir = self.dir.path().join(format!("worker-{worker}"));
                    std::fs::create_dir_all(dir.join("mount")).unwrap();
                    loop {
                        let Some(batch) = batches.lock().unwrap().next() else {
                            return;
                        };
                        batch.sort();
                        let mut replay = self.replay();
                        for cut in batch.iter() {
                            if over() {
                                return;
                            }
                            let wrong = self.look(&mut replay, *cut, &dir);
                            tried.fetch_add(1, Ordering::Relaxed);
                            if !wrong.is_empty() {
                                stop.fetch_or(first, Ordering::Relaxed);
                                broken.lock().unwrap().push(Broken { cut: *cut, wrong });
                            }
                        }
                    }
                });
            }
        });
        Outcome {
            tried: tried.into_inner(),
            of,
            broken: broken.into_inner().unwrap(),
        }
    }

    /// Keeps the disk after a cut, with the footage and what was said, for a person to look at.
    ///
    /// # Panics
    /// Where it cannot be written.
    pub fn keep(&self, cut: Cut, folder: &Path) {
        let _ = std::fs::remove_dir_all(folder); // of an earlier run
        std::fs::create_dir_all(folder).unwrap();
        self.replay().image(cut, &folder.join("image"));
        let upto = self.said_before(cut).to_string();
        std::fs::write(folder.join("upto"), upto).unwrap();
        let copied = std::process::Command::new("cp")
            .arg("-r")
            .args([self.station.path(""), folder.join("plan")])
            .status();
        assert!(copied.unwrap().success());
    }

    /// How much was said when the power went.
    fn said_before(&self, cut: Cut) -> u64 {
        let before = self
            .said
            .iter()
            .take_while(|(entry, _)| *entry < cut.issued);
        before.last().map_or(0, |(_, said)| *said)
    }

    fn replay(&self) -> Replay<'_> {
        let fs = self.history.fs;
        Replay::new(&self.log, fs.disk_bytes(), fs.piece())
    }

    fn look(&self, replay: &mut Replay<'_>, cut: Cut, dir: &Path) -> Vec<String> {
        // A name of its own: a loop device that the kernel has not yet let go of would show the image before.
        let image = dir.join(format!("image-{}-{}", cut.issued, cut.seed.unwrap_or(0)));
        let mount = dir.join("mount");
        let subject = self.history.subject.name();
        replay.image(cut, &image);
        let mounted = match Mounted::new(&image, &mount, self.history.fs) {
            Ok(mounted) => mounted,
            Err(error) => {
                std::fs::remove_file(&image).unwrap();
                return vec![format!("the file system does not mount: {error}")];
            }
        };
        let before = self
            .said
            .iter()
            .take_while(|(entry, _)| *entry < cut.issued);
        let upto = before.last().map_or(0, |(_, said)| *said);
        let args = [
            self.station.path("").display().to_string(),
            mount.join(subject).display().to_string(),
            upto.to_string(),
        ];
        let said = process::run(
            &format!("{subject}-check"),
            args.into_iter().chain(self.history.fault_name()),
        );
        drop(mounted);
        std::fs::remove_file(&image).unwrap();
        let mut wrong: Vec<String> = said.out.lines().map(str::to_owned).collect();
        if said.code != Some(0) && wrong.is_empty() {
            wrong.push(format!(
                "the program ended with {:?}: {}",
                said.code, said.err
            ));
        }
        wrong
    }
}
