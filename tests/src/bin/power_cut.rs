//! Program `power-cut`: see [`tests::power_cut`].
//!
//! `power-cut --full [HISTORIES]` looks at every cut of so many histories on each file system (default 3), and at every
//! seeded fault. `power-cut --seconds N --shard S --at-least M` looks at as many cuts of history S as fit, half of them on
//! each file system, and at one seeded fault; fewer than M cuts are a failure. `power-cut --fault NAME [--shard S]` looks at
//! one seeded fault, in up to three histories from S on; `power-cut --step NAME` at a power cut when that step of the spool's
//! essay is done, `--steps` at all of them.

#![allow(clippy::unwrap_used, reason = "a suite")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use spool::Fault;
use tests::power_cut::disk::{FileSystem, missing};
use tests::power_cut::driver::FAULTS;
use tests::power_cut::steps::{STEPS, look_at};
use tests::power_cut::{History, Outcome, Subject, record};
use tests::wait::now;

/// Histories that there are, for a shard to be one of.
const SHARDS: u64 = 64;

/// In so many cuts every fault was noticed whenever it was tried.
const TELLING: usize = 1000;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    if let Some(what) = FileSystem::ALL.into_iter().find_map(missing) {
        eprintln!("power-cut: cannot run here: {what}");
        return ExitCode::FAILURE;
    }
    let good = match words.as_slice() {
        ["--full"] => full(3),
        ["--full", histories] => full(histories.parse().unwrap()),
        ["--steps"] => all_steps(),
        ["--step", name] => steps(name, 0),
        ["--fault", name] => notices(named(name), 0, None),
        ["--fault", name, "--shard", shard] => notices(named(name), shard.parse().unwrap(), None),
        ["--seconds", seconds, "--shard", shard, "--at-least", least] => shard_of(
            Duration::from_secs(seconds.parse().unwrap()),
            shard.parse::<u64>().unwrap() % SHARDS,
            least.parse().unwrap(),
        ),
        _ => {
            eprintln!(
                "power-cut --full [HISTORIES] | --seconds N --shard S --at-least M | --steps | --step NAME | \
                 --fault NAME [--shard S]"
            );
            return ExitCode::from(64);
        }
    };
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn named(name: &str) -> Fault {
    let fault = FAULTS.into_iter().find(|f| format!("{f:?}") == name);
    fault.expect("a fault of this name")
}

fn full(histories: u64) -> bool {
    let (mut tried, mut of, mut good) = (0, 0, true);
    for seed in 0..histories {
        for (subject, fs) in subjects() {
            let outcome = cut(subject, fs, seed, None);
            good &= outcome.broken.is_empty();
            tried += outcome.tried;
            of += outcome.of;
        }
    }
    good &= all_steps();
    for fault in FAULTS {
        good &= notices(fault, 0, None);
    }
    println!("power-cut: {tried} of {of} cases, all shards of {histories} histories");
    good
}

fn subjects() -> impl Iterator<Item = (Subject, FileSystem)> {
    let of = |subject| FileSystem::ALL.into_iter().map(move |fs| (subject, fs));
    of(Subject::Spool).chain(of(Subject::Store))
}

/// Seven tenths of the time for the spool, one for the store, two for a fault.
fn shard_of(time: Duration, shard: u64, least: usize) -> bool {
    let began = now();
    let until = |tenths: u32| Some(began + time * tenths / 20);
    let (mut tried, mut of, mut good) = (0, 0, true);
    for ((subject, fs), tenths) in subjects().zip([7, 14, 15, 16]) {
        let outcome = cut(subject, fs, shard, until(tenths));
        good &= outcome.broken.is_empty();
        tried += outcome.tried;
        of += outcome.of;
    }
    good &= steps(STEPS[usize::try_from(shard).unwrap() % STEPS.len()], shard);
    let fault = FAULTS[usize::try_from(shard).unwrap() % FAULTS.len()];
    good &= notices(fault, shard, until(20));
    println!("power-cut: {tried} of {of} cases, shard {shard}");
    if tried < least {
        println!("power-cut: FAILED: fewer than {least} cases in {time:?}");
    }
    good && tried >= least
}

fn cut(subject: Subject, fs: FileSystem, seed: u64, until: Option<Instant>) -> Outcome {
    let history = History {
        subject,
        fs,
        seed,
        fault: None,
    };
    let recorded = record(history);
    let outcome = recorded.survey(until, false);
    println!(
        "power-cut: {} on {}, history {seed}: {} of {} cuts, {} broke a promise",
        subject.name(),
        fs.name(),
        outcome.tried,
        outcome.of,
        outcome.broken.len()
    );
    for broken in outcome.broken.iter().take(10) {
        println!("power-cut: {:?}", broken.cut);
        broken
            .wrong
            .iter()
            .take(10)
            .for_each(|w| println!("    {w}"));
    }
    if let Some(broken) = outcome.broken.first() {
        let name = format!("bwc-power-cut-{}-{}-{seed}", subject.name(), fs.name());
        let folder = std::env::temp_dir().join(name);
        recorded.keep(broken.cut, &folder);
        println!(
            "power-cut: the first of them is kept in {}",
            folder.display()
        );
    }
    outcome
}

fn all_steps() -> bool {
    // Every one is looked at, also after one broke a promise.
    let broken = STEPS.iter().filter(|step| !steps(step, 0));
    broken.count() == 0
}

/// Whether a power cut at a step of the spool's essay breaks no promise, on each file system.
fn steps(step: &str, seed: u64) -> bool {
    FileSystem::ALL.into_iter().fold(true, |good, fs| {
        let outcome = look_at(step, fs, seed);
        let (tried, broken) = (outcome.tried, outcome.broken.len());
        println!(
            "power-cut: {step} on {}: {tried} cuts, {broken} broke a promise",
            fs.name()
        );
        for broken in outcome.broken.iter().take(10) {
            println!("power-cut: {:?}: {}", broken.cut, broken.wrong[0]);
        }
        good && broken == 0 && tried > 0
    })
}

/// Whether a seeded fault is noticed, on one of the file systems, in one of three histories.
fn notices(fault: Fault, seed: u64, until: Option<Instant>) -> bool {
    let mut tried = 0;
    for seed in seed..seed + 3 {
        for fs in FileSystem::ALL {
            let history = History {
                subject: Subject::Spool,
                fs,
                seed,
                fault: Some(fault),
            };
            let outcome = record(history).survey(until, true);
            tried += outcome.tried;
            if let Some(broken) = outcome.broken.first() {
                println!(
                    "power-cut: {fault:?} is noticed on {} after {tried} cuts: {}",
                    fs.name(),
                    broken.wrong[0]
                );
                return true;
            }
        }
    }
    if tried < TELLING {
        println!("power-cut: {fault:?} is not noticed in {tried} cuts: too few to say anything");
        return true;
    }
    println!("power-cut: FAILED: {fault:?} is not noticed in {tried} cuts");
    false
}
