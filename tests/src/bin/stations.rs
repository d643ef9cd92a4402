//! Program `stations`: see [`tests::stations`].
//!
//! `stations --full` looks at every case. `stations --seconds N --shard S --at-least M` looks at as many as fit, from the
//! `S`th on; fewer than M are a failure. `stations --case NAME` looks at one, `stations --list` names them.

#![allow(clippy::unwrap_used, reason = "a suite")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use tests::station::netns::missing;
use tests::stations::{CASES, look, survey};
use tests::wait::now;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    if words == ["--list"] {
        CASES.iter().for_each(|case| println!("{}", case.name));
        return ExitCode::SUCCESS;
    }
    if let Some(what) = missing() {
        eprintln!("stations: cannot run here, nothing was tried: {what}");
        return ExitCode::FAILURE;
    }
    let good = match words.as_slice() {
        ["--full"] => all(0, None, CASES.len()),
        ["--case", name] => {
            let case = CASES.iter().find(|c| c.name == *name);
            look(case.expect("`stations --list` names the cases"))
        }
        ["--seconds", seconds, "--shard", shard, "--at-least", least] => {
            let time = Duration::from_secs(seconds.parse().unwrap());
            let (shard, least) = (shard.parse().unwrap(), least.parse().unwrap());
            all(shard, Some(now() + time), least)
        }
        _ => {
            eprintln!(
                "stations --full | --seconds N --shard S --at-least M | --case NAME | --list"
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
    for name in &outcome.broken {
        println!("stations: FAILED: {name}");
    }
    let (tried, of) = (outcome.tried, CASES.len());
    println!("stations: {tried} of {of} cases, shard {shard}");
    if tried < least {
        println!("stations: FAILED: fewer than {least} cases");
    }
    outcome.broken.is_empty() && tried >= least
}
