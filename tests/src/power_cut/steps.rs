//! A power cut at each numbered step of the spool's essay: party `spool-steps PLAN SPOOL BEACON OFFSET STEP` lives a short
//! life that comes to every step, and is killed when STEP is done. Where that is within one call, the spool does it
//! ([`Fault::DiesAfter`]); else this party does, between two calls. The power goes at that moment: any part of what was
//! not synced may be on the disk, and [`super::check`] says what must be true.

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::ExitCode;

use bytes::Bytes;
use nix::sys::signal::{Signal, raise};
use protocol::ids::{CameraId, Digest};
use serde_json::json;
use spool::{Fault, Faults, Spool, SpoolError};

use super::disk::{Disk, FileSystem, beacons, set_beacon};
use super::driver::{Diary, open, rebuild, told, told_meanwhile};
use super::image::{Cut, cuts};
use super::plan::{NOW, Plan, Recording, SITES};
use super::{History, Outcome, Recorded, Subject, plan, scratch};
use crate::process;

/// Every step at which the power is cut, by the names that the essay gives them.
pub const STEPS: [&str; 32] = [
    "create 1",
    "create 2",
    "create 3",
    "commit 1",
    "commit 2",
    "commit 3",
    "commit 4",
    "commit 5",
    "commit 6",
    "receipt 1",
    "receipt 3",
    "release 1",
    "release 2",
    "release 3",
    "reclaim 1",
    "reclaim 2",
    "reclaim 3",
    "reclaim 4",
    "forget 1",
    "forget 2",
    "forget 3",
    "start-up 1",
    "start-up 2",
    "start-up 3",
    "start-up 4",
    "start-up 5",
    "start-up 6",
    "start-up 7",
    "meanwhile 1",
    "take-over 1",
    "take-over 2",
    "take-over 3",
];

/// FLUSHes before the death, and parts of what was written after each, that are looked at.
const FLUSHES: usize = 6;
const PARTS: u32 = 8;

/// Looks at the disk as a power cut at this step leaves it.
///
/// # Panics
/// Where the life does not come to the step.
#[must_use]
pub fn look_at(step: &str, fs: FileSystem, seed: u64) -> Outcome {
    let (recorded, all) = record(step, fs, seed);
    recorded.survey_cuts(all, None, false)
}

fn record(step: &str, fs: FileSystem, seed: u64) -> (Recorded, Vec<Cut>) {
    let dir = scratch();
    let station = plan::make(seed);
    let disk = Disk::new(dir.path(), fs);
    let (beacon, offset) = disk.beacon();
    set_beacon(&beacon, offset, 0);
    let args = [
        station.path("").display().to_string(),
        disk.mount().join("spool").display().to_string(),
        beacon.display().to_string(),
        offset.to_string(),
        step.to_owned(),
    ];
    let said = process::run("spool-steps", args);
    assert!(said.code.is_none(), "{step}: {said:?}");
    // What the kernel writes from here on came too late.
    set_beacon(&beacon, offset, u64::MAX);
    let mut log = disk.record();
    let (death, _) = beacons(&log, fs).pop().unwrap();
    log.entries.truncate(death);
    let flushes = (0..death).rev().filter(|i| log.entries[*i].is_flush());
    let from = flushes.take(FLUSHES).last().unwrap_or(0);
    let all = cuts(&log, from, PARTS, seed);
    let said = beacons(&log, fs);
    let history = History {
        subject: Subject::Spool,
        fs,
        seed,
        fault: None,
    };
    let recorded = Recorded {
        history,
        station,
        log,
        said,
        dir,
    };
    (recorded, all)
}

struct Life {
    plan: Plan,
    step: &'static str,
    diary: Diary,
    spool: Spool,
}

/// Runs the party.
///
/// # Panics
/// Where the spool does what it must not on a whole disk.
#[must_use]
pub fn main(args: &[String]) -> ExitCode {
    let [plan, dir, beacon, offset, step] = args else {
        eprintln!("spool-steps PLAN SPOOL BEACON OFFSET STEP");
        return ExitCode::from(64);
    };
    let Some(step) = STEPS.into_iter().find(|s| s == step) else {
        eprintln!("spool-steps: there is no step {step}");
        return ExitCode::from(64);
    };
    let (folder, dir) = (PathBuf::from(plan), PathBuf::from(dir));
    let plan = Plan::load(&folder);
    let mut life = Life {
        spool: open(&plan, &folder, &dir, Faults::none()),
        diary: Diary::open(&folder, beacon, offset),
        plan,
        step,
    };
    life.diary.say(&json!({"opened": true}));
    life.first().unwrap();
    // The folder is locked: it is let go of before it is opened again.
    life.spool = open(&life.plan, &folder, &folder.join("between"), Faults::none());
    if step == "start-up 2" {
        std::fs::create_dir_all(folder.join("run")).unwrap();
        std::fs::write(folder.join("run/spool.suspect"), "a sync failed\n").unwrap();
    }
    let dies = Faults::of(&[Fault::DiesAfter(step)]);
    if step.starts_with("meanwhile") || step.starts_with("take-over") {
        let rebuild = rebuild(&life.plan, &folder, &dir, dies);
        life.spool = rebuild.interim().unwrap();
        life.meanwhile().unwrap();
        life.spool = open(&life.plan, &folder, &folder.join("between"), Faults::none());
        life.spool = rebuild.run(|| {}).unwrap().0;
        eprintln!("spool-steps: it did not come to {step}");
        return ExitCode::FAILURE;
    }
    life.spool = open(&life.plan, &folder, &dir, dies);
    life.diary.say(&json!({"opened": true}));
    life.second().unwrap();
    eprintln!("spool-steps: it did not come to {step}");
    ExitCode::FAILURE
}

impl Life {
    /// Three recordings are kept; of one nothing is needed any more but that room is made.
    fn first(&mut self) -> Result<(), SpoolError> {
        let [over, kept, other] = [0, 1, 2].map(|n| self.plan.recordings[n].clone());
        for recording in [&over, &kept, &other] {
            self.keep(recording)?;
        }
        self.receipts(&over)?;
        self.commit()?;
        self.release(over.camera())?;
        self.commit()?;
        let erased: Vec<String> = over.parts.keys().map(Digest::to_string).collect();
        self.diary.say(&json!({"erased": erased}));
        self.inventory(over.camera(), &[over.manifest.recording().number])?;
        self.commit()
    }

    fn second(&mut self) -> Result<(), SpoolError> {
        let [over, kept, new] = [0, 1, 3].map(|n| self.plan.recordings[n].clone());
        self.create(&new)?;
        self.commit()?;
        self.receipts(&kept)?;
        self.done("receipt 1");
        self.commit()?;
        self.done("receipt 3");
        self.release(kept.camera())?;
        self.commit()?;
        self.done("release 2");
        self.inventory(kept.camera(), &[over.manifest.recording().number])?;
        self.commit()?;
        self.done("release 3");
        // Of what there is, all together does not fit; what is over may be more than the first that is short of room asks for.
        for recording in self.plan.recordings.clone() {
            if recording.camera() == over.camera() || self.keep(&recording)? {
                continue;
            }
            self.spool.reclaim(NOW)?;
            for _ in 0..3 {
                self.commit()?;
            }
            if self.spool.stage(&over.header())?.is_none() {
                break;
            }
        }
        self.done("forget 3");
        Ok(())
    }

    /// In the interim spool a recording is Held, and another Archived.
    fn meanwhile(&mut self) -> Result<(), SpoolError> {
        let mut small = self.plan.recordings[3..].to_vec();
        small.sort_by_key(|r| r.parts.values().map(Bytes::len).sum::<usize>());
        for (recording, receipted) in small.into_iter().zip([false, true]) {
            self.spool.admit(&recording.manifest, NOW)?;
            assert!(self.pull(recording.camera())?, "there is room");
            if receipted {
                self.receipts(&recording)?;
            }
            let done = self.spool.commit(NOW)?;
            assert!(!done.held.is_empty() || !done.archived.is_empty());
            self.diary.say(&told_meanwhile(&done));
        }
        self.done("meanwhile 1");
        Ok(())
    }

    fn done(&self, step: &str) {
        if self.step == step {
            raise(Signal::SIGKILL).unwrap();
        }
    }

    fn commit(&mut self) -> Result<(), SpoolError> {
        let done = self.spool.commit(NOW)?;
        self.done("commit 6");
        self.diary.say(&told(&done, &self.spool.logbook_head()));
        Ok(())
    }

    /// The first segment step by step, the rest as it comes.
    fn create(&mut self, recording: &Recording) -> Result<(), SpoolError> {
        self.spool.admit(&recording.manifest, NOW)?;
        let tasks = self
            .spool
            .next_pulls(recording.camera(), 1, &HashSet::new(), NOW)?;
        let digest = tasks[0].digest;
        let mut incoming = self.spool.begin(&digest)?;
        self.done("create 1");
        incoming.write(self.plan.bytes_of(&digest).unwrap())?;
        self.done("create 2");
        self.spool.finish(incoming, NOW)?;
        self.done("create 3");
        self.pull(recording.camera()).map(drop)
    }

    /// Whether there was room for all of it.
    fn keep(&mut self, recording: &Recording) -> Result<bool, SpoolError> {
        self.spool.admit(&recording.manifest, NOW)?;
        let roomy = self.pull(recording.camera())?;
        self.commit()?;
        Ok(roomy)
    }

    fn pull(&mut self, camera: &CameraId) -> Result<bool, SpoolError> {
        loop {
            let tasks = self.spool.next_pulls(camera, 16, &HashSet::new(), NOW)?;
            if tasks.is_empty() {
                return Ok(true);
            }
            for task in tasks {
                let mut incoming = match self.spool.begin(&task.digest) {
                    Err(SpoolError::NoSpace(_)) => return Ok(false),
                    other => other?,
                };
                incoming.write(self.plan.bytes_of(&task.digest).unwrap())?;
                self.spool.finish(incoming, NOW)?;
            }
        }
    }

    fn receipts(&mut self, recording: &Recording) -> Result<(), SpoolError> {
        for site in SITES {
            let receipt = self.plan.whole_receipt(site, recording);
            self.spool.receipt(&receipt, NOW)?;
        }
        Ok(())
    }

    fn release(&mut self, camera: &CameraId) -> Result<(), SpoolError> {
        let due = self.spool.receipts_due(camera, 99, &HashSet::new())?;
        self.done("release 1");
        for due in due {
            let of = |r: &&Recording| {
                r.camera() == camera && r.manifest.recording().number == due.number
            };
            let recording = self.plan.recordings.iter().find(of).unwrap();
            let digests: Vec<Digest> = recording.parts.keys().copied().collect();
            self.spool.released(camera, due.number, &digests, NOW)?;
        }
        Ok(())
    }

    fn inventory(&mut self, camera: &CameraId, erased: &[u64]) -> Result<(), SpoolError> {
        let number = self.diary.said();
        let inventory = self.plan.inventory(camera, number, erased);
        self.spool.inventory(&inventory, NOW).map(drop)
    }
}
