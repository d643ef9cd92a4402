//! Program `syscalls`: see [`tests::syscalls`].
//!
//! `syscalls --full` looks at every call of every scene with every fault. `syscalls --seconds N --shard S --at-least M` looks at as
//! many as fit, in an order that S decides; fewer than M are a failure. `syscalls --case SCENE/CALL/FAULT/N` looks at one.

#![allow(clippy::unwrap_used, reason = "a suite")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use tests::syscalls::scene::Stage;
use tests::syscalls::trace::missing;
use tests::syscalls::{Case, Went, look, survey};
use tests::wait::now;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    if let Some(what) = missing() {
        eprintln!("syscalls: cannot run here: {what}");
        return ExitCode::FAILURE;
    }
    let good = match words.as_slice() {
        ["--full"] => all(0, None, 1),
        ["--case", case] => one(&case.parse().unwrap()),
        ["--seconds", seconds, "--shard", shard, "--at-least", least] => {
            let time = Duration::from_secs(seconds.parse().unwrap());
            let (shard, least) = (shard.parse().unwrap(), least.parse().unwrap());
            all(shard, Some(now() + time), least)
        }
        _ => {
            eprintln!(
                "syscalls --full | --seconds N --shard S --at-least M | --case SCENE/CALL/FAULT/N"
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

fn all(shard: u64, until: Option<Instant>, least: usize) -> bool {
    let outcome = survey(shard, until);
    println!(
        "syscalls: {} broke a promise, {} did not come to their call",
        outcome.broken.len(),
        outcome.not_reached
    );
    let (tried, of) = (outcome.tried, outcome.of);
    println!("syscalls: {tried} of {of} cases, shard {shard}");
    if tried < least {
        println!("syscalls: FAILED: fewer than {least} cases");
    }
    outcome.broken.is_empty() && tried >= least
}

fn one(case: &Case) -> bool {
    let mut stage = Stage::new();
    stage.count();
    let went = look(&mut stage, case);
    match &went {
        Went::Wrong(what) => println!("syscalls: {case}: {what}"),
        other => println!("syscalls: {case}: {other:?}"),
    }
    went == Went::Well
}
