//! A life of the spool on the recorded disk: party `spool-driver PLAN SPOOL BEACON OFFSET SEED STEPS [FAULT]...`.
//!
//! It does what a repeater does, in an order that the seed decides: inventories, manifests, pulls whole and broken off,
//! commits, receipts, releases, reclaim, countersignatures, notes, and opening again; then it is killed, in every other life wherever it is. Whatever a commit lets it say to the
//! world it writes to `PLAN/said`, on another disk, and sets a beacon on the recorded one: what was said before the power went is
//! thereby known to a write.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use link::random::Random;
use nix::sys::signal::{Signal, raise};
use protocol::custody::Stage;
use protocol::ids::Digest;
use serde_json::{Value, json};
use spool::{
    Committed, Contact, Countersigning, Durable, Fault, Faults, LogbookHead, Meeting, Opened,
    Options, Rebuild, Spool, SpoolError,
};

use super::disk::set_beacon;
use super::left;
use super::plan::{CAPACITY_BYTES, NOW, Plan, SITES};
use crate::chance::below;

/// Every fault that this suite has to notice.
pub const FAULTS: [Fault; 8] = [
    Fault::NoLedgerSync,
    Fault::HeldBeforeBarrier,
    Fault::NoDirectorySync,
    Fault::RowBeforeBytes,
    Fault::ReclaimBeforeReceipt,
    Fault::ReclaimRowFirst,
    Fault::KeepStaleSnapshot,
    Fault::NoSyncAtStart,
];

/// Commits with nothing in them, between a start and what it is told first.
const EMPTY_COMMITS: u32 = 4;

/// How the spool under test is opened.
#[must_use]
pub fn options(folder: &Path, dir: &Path, faults: Faults) -> Options {
    let mut options = Options::new(dir.to_owned(), CAPACITY_BYTES, folder.join("run"), [7; 16]);
    if faults == Faults::none() {
        // All the time: what takes place once in hours is to meet the power cut, too.
        options.ledger_bytes = 0;
    }
    options.faults = faults;
    options
}

/// The faults of these names.
///
/// # Panics
/// Where there is none of a name.
#[must_use]
pub fn named(names: &[String]) -> Faults {
    let fault = |name: &String| *FAULTS.iter().find(|f| format!("{f:?}") == *name).unwrap();
    Faults::of(&names.iter().map(fault).collect::<Vec<_>>())
}

struct Driver {
    plan: Plan,
    folder: PathBuf,
    dir: PathBuf,
    faults: Faults,
    diary: Diary,
    random: Random,
    spool: Spool,
}

/// What the world was told, on another disk than the one under test.
#[derive(Debug)]
pub struct Diary {
    path: PathBuf,
    said: u64,
    beacon: (PathBuf, u64),
}

impl Diary {
    /// Goes on with the diary of the lives before.
    ///
    /// # Panics
    /// Where `offset` is no number.
    #[must_use]
    pub fn open(folder: &Path, beacon: &str, offset: &str) -> Diary {
        let path = folder.join("said");
        let said = fs::read_to_string(&path).unwrap_or_default();
        Diary {
            path,
            said: said.lines().count() as u64,
            beacon: (beacon.into(), offset.parse().unwrap()),
        }
    }

    /// How often it was told something.
    #[must_use]
    pub fn said(&self) -> u64 {
        self.said
    }

    /// Writes down what the world was told, then the beacon.
    ///
    /// # Panics
    /// Where either cannot be written.
    pub fn say(&mut self, what: &Value) {
        let mut options = OpenOptions::new();
        let mut file = options.create(true).append(true).open(&self.path).unwrap();
        file.write_all(format!("{what}\n").as_bytes()).unwrap();
        self.said += 1;
        set_beacon(&self.beacon.0, self.beacon.1, self.said);
    }
}

/// In every other life, SIGKILL after a time that is short more often than long: wherever the process is then.
///
/// # Panics
/// Where no thread can be started.
pub fn kill_some_time(random: &Random) {
    if random.u64().is_multiple_of(2) {
        return;
    }
    let longest = 1 << (random.u64() % 10);
    let wait = Duration::from_millis(random.u64() % longest);
    std::thread::spawn(move || {
        std::thread::sleep(wait);
        raise(Signal::SIGKILL).unwrap();
    });
}

/// Runs it.
///
/// # Panics
/// Where the spool does what it must not on a whole disk.
#[must_use]
pub fn main(args: &[String]) -> ExitCode {
    let [plan, dir, beacon, offset, seed, steps, faults @ ..] = args else {
        eprintln!("spool-driver PLAN SPOOL BEACON OFFSET SEED STEPS [FAULT]...");
        return ExitCode::from(64);
    };
    let (folder, dir) = (PathBuf::from(plan), PathBuf::from(dir));
    let (plan, faults) = (Plan::load(&folder), named(faults));
    let random = Random::seeded(seed.parse().unwrap());
    if random.u64().is_multiple_of(3) {
        left::half_a_snapshot(&dir.join("ledger"));
    }
    let unsynced = random.u64().is_multiple_of(2) && left::an_unsynced_entry(&plan, &folder, &dir);
    kill_some_time(&random);
    let mut driver = Driver {
        spool: open(&plan, &folder, &dir, faults.clone()),
        plan,
        dir,
        faults,
        diary: Diary::open(&folder, beacon, offset),
        random,
        folder,
    };
    driver.diary.say(&json!({"opened": true}));
    // What a start took over from who was killed, nothing that comes after it may have to make durable.
    for _ in 0..if unsynced { EMPTY_COMMITS } else { 0 } {
        driver.commit().unwrap();
    }
    for _ in 0..steps.parse::<u32>().unwrap() {
        driver.step().unwrap();
    }
    raise(Signal::SIGKILL).unwrap();
    ExitCode::FAILURE
}

/// Opens a spool.
pub(crate) fn open(plan: &Plan, folder: &Path, dir: &Path, faults: Faults) -> Spool {
    let reclaims_early = faults == Faults::of(&[Fault::ReclaimBeforeReceipt]);
    let mut options = options(folder, dir, faults);
    if reclaims_early {
        // Down to so little that what was archived a moment ago goes, too: only its receipt is not durable yet.
        options.marks.low_bytes = CAPACITY_BYTES / 5;
    }
    Spool::open(options, plan.trust.clone(), plan.keys.clone(), NOW)
        .unwrap()
        .0
}

/// A start that has everything to read again.
///
/// # Panics
/// Where it does not want to.
pub(crate) fn rebuild(plan: &Plan, folder: &Path, dir: &Path, faults: Faults) -> Rebuild {
    fs::create_dir_all(folder.join("run")).unwrap();
    fs::write(folder.join("run/spool.suspect"), "a sync failed\n").unwrap();
    let options = options(folder, dir, faults);
    let (trust, keys) = (plan.trust.clone(), plan.keys.clone());
    match Spool::open_or_rebuild(options, trust, keys, NOW).unwrap() {
        Opened::Rebuilds(rebuild) => *rebuild,
        Opened::Ready(..) => panic!("a suspect boot, and it believes its ledger"),
    }
}

/// What a commit of an interim spool lets the world be told: of custody, but for its logbook's head.
pub(crate) fn told_meanwhile(done: &Committed) -> Value {
    let held =
        |list: &[Durable]| -> Vec<String> { list.iter().map(|d| d.digest().to_string()).collect() };
    json!({"held": held(&done.held), "archived": held(&done.archived)})
}

/// What a commit lets the world be told.
pub(crate) fn told(done: &Committed, head: &LogbookHead) -> Value {
    let names =
        |list: &[Durable]| -> Vec<String> { list.iter().map(|d| d.digest().to_string()).collect() };
    json!({
        "held": names(&done.held), "archived": names(&done.archived),
        "released": names(&done.released),
        "entries": head.entries, "hash": head.hash.to_string(),
        "incarnation": format!("{:?}", head.incarnation),
    })
}

impl Driver {
    fn below(&self, n: usize) -> usize {
        below(&self.random, n)
    }

    fn step(&mut self) -> Result<(), SpoolError> {
        match self.below(40) {
            0..=3 => self.announce(),
            4..=13 => self.pull(),
            14..=21 => self.commit(),
            22..=27 => self.receipt(),
            28..=29 => self.release(),
            30..=32 => self.spool.reclaim(NOW).map(drop),
            33..=34 => self.inventory(),
            35 => self.reopen(),
            36 => self.drain(),
            37 => self.note(),
            38 => self.countersign(),
            _ => self.all_of_one(),
        }
    }

    fn commit(&mut self) -> Result<(), SpoolError> {
        let done = self.spool.commit(NOW)?;
        let mut said = told(&done, &self.spool.logbook_head());
        let signed = self.spool.countersignatures().into_iter();
        let signed = signed.map(|c| (c.body().site.to_string(), c.body().head.entries));
        said["countersigned"] = signed.collect::<BTreeMap<_, _>>().into_iter().collect();
        self.diary.say(&said);
        Ok(())
    }

    /// A site countersigns how far the logbook is durable.
    fn countersign(&mut self) -> Result<(), SpoolError> {
        let site = SITES[self.below(SITES.len())];
        let Some(head) = self.spool.head_to_sign(&site.parse().unwrap())? else {
            return Ok(());
        };
        let signature = self.plan.countersign(site, head);
        self.spool
            .countersigned(&signature, Countersigning::Signed, NOW)
    }

    fn announce(&mut self) -> Result<(), SpoolError> {
        let n = self.below(self.plan.recordings.len());
        self.spool
            .admit(&self.plan.recordings[n].manifest, NOW)
            .map(drop)
    }

    fn pull(&mut self) -> Result<(), SpoolError> {
        let camera = &self.plan.cameras[self.below(self.plan.cameras.len())];
        let tasks = self
            .spool
            .next_pulls(camera, 1 + self.below(6), &HashSet::new(), NOW)?;
        for task in tasks {
            let mut incoming = match self.spool.begin(&task.digest) {
                Err(SpoolError::NoSpace(_)) => return Ok(()),
                other => other?,
            };
            let bytes = self.plan.bytes_of(&task.digest).unwrap();
            let from = usize::try_from(incoming.offset()).unwrap();
            let broken = (self.below(5) == 0).then(|| self.below(bytes.len() - from));
            let upto = from + broken.unwrap_or(bytes.len() - from);
            for chunk in bytes[from..upto].chunks(16 << 10) {
                incoming.write(chunk)?;
            }
            match broken {
                Some(_) => self.spool.suspend(incoming),
                None => assert_eq!(self.spool.finish(incoming, NOW)?, spool::Finished::Verified),
            }
        }
        Ok(())
    }

    fn receipt(&mut self) -> Result<(), SpoolError> {
        let recording = &self.plan.recordings[self.below(self.plan.recordings.len())];
        let stages: Vec<_> = recording
            .parts
            .keys()
            .map(|d| self.spool.stage(d))
            .collect::<Result<_, _>>()?;
        let here = |s: &Option<Stage>| s.is_some_and(|s| s != Stage::Announced);
        if !stages.iter().all(here) {
            return Ok(());
        }
        let segments = &recording.manifest.body().segments;
        let one = segments[self.below(segments.len())].digest;
        let only = (self.below(4) == 0).then_some(one);
        let site = SITES[self.below(SITES.len())];
        let receipt = self.plan.receipt(site, recording, only);
        self.spool.receipt(&receipt, NOW).map(drop)
    }

    fn release(&mut self) -> Result<(), SpoolError> {
        let camera = self.plan.cameras[self.below(self.plan.cameras.len())].clone();
        for due in self.spool.receipts_due(&camera, 4, &HashSet::new())? {
            let recording = self
                .plan
                .recordings
                .iter()
                .find(|r| r.camera() == &camera && r.manifest.recording().number == due.number);
            let digests: Vec<Digest> = recording.unwrap().parts.keys().copied().collect();
            self.spool.released(&camera, due.number, &digests, NOW)?;
        }
        Ok(())
    }

    fn inventory(&mut self) -> Result<(), SpoolError> {
        let camera = self.plan.cameras[self.below(self.plan.cameras.len())].clone();
        let mut erased = Vec::new();
        for r in self
            .plan
            .recordings
            .iter()
            .filter(|r| r.camera() == &camera)
        {
            let mut all = true;
            for digest in r.parts.keys() {
                all &= self.spool.stage(digest)? == Some(Stage::Released);
            }
            if all {
                erased.push(r.manifest.recording().number);
                // What is erased may be forgotten from here on.
                let parts: Vec<String> = r.parts.keys().map(Digest::to_string).collect();
                self.diary.say(&json!({"erased": parts}));
            }
        }
        let number = self.diary.said * 1000 + self.random.u64() % 1000;
        let inventory = self.plan.inventory(&camera, number, &erased);
        self.spool.inventory(&inventory, NOW).map(drop)
    }

    fn note(&mut self) -> Result<(), SpoolError> {
        let camera = self.plan.cameras[self.below(self.plan.cameras.len())].clone();
        self.spool.contact(
            Contact::CameraCame {
                camera,
                meeting: Meeting::default(),
            },
            NOW,
        )
    }

    /// The archive answers for all that is here, and room is made at once.
    fn drain(&mut self) -> Result<(), SpoolError> {
        for recording in &self.plan.recordings {
            let held = |d: &Digest| Ok(self.spool.stage(d)? == Some(Stage::Held));
            let held: Vec<bool> = recording
                .parts
                .keys()
                .map(held)
                .collect::<Result<_, SpoolError>>()?;
            if held.iter().all(|held| *held) {
                for site in SITES {
                    let receipt = self.plan.whole_receipt(site, recording);
                    self.spool.receipt(&receipt, NOW)?;
                }
            }
        }
        self.spool.reclaim(NOW).map(drop)
    }

    /// A recording as it usually goes.
    fn all_of_one(&mut self) -> Result<(), SpoolError> {
        self.announce()?;
        self.pull()?;
        self.commit()?;
        self.receipt()?;
        self.commit()
    }

    fn reopen(&mut self) -> Result<(), SpoolError> {
        self.let_go();
        if self.below(2) == 0 {
            return self.rebuild();
        }
        self.spool = open(&self.plan, &self.folder, &self.dir, self.faults.clone());
        Ok(())
    }

    /// The folder is locked: it is let go of before it is opened again.
    fn let_go(&mut self) {
        let between = self.folder.join("between");
        self.spool = open(&self.plan, &self.folder, &between, Faults::none());
    }

    /// A start after a failed sync, while which footage comes.
    fn rebuild(&mut self) -> Result<(), SpoolError> {
        let rebuild = rebuild(&self.plan, &self.folder, &self.dir, self.faults.clone());
        self.spool = rebuild.interim()?;
        for _ in 0..self.below(4) {
            self.announce()?;
            self.pull()?;
            let done = self.spool.commit(NOW)?;
            self.diary.say(&told_meanwhile(&done));
        }
        self.let_go();
        self.spool = rebuild.run(|| {})?.0;
        Ok(())
    }
}
