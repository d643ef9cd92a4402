//! What we claim about speed, and the peers we compare to.
//!
//! `relay` drives all parties as processes on loopback and sets what they take against the parts that
//! nobody can do without: QUIC, SHA-256, the disk. `spool` drives the store alone against the raw disk,
//! `parts` measures the parts only, `docking` how soon a camera that is put into a dock is served. Each part is a minimal program of its own, run as its own process in
//! the same run, so that a noisy machine is noisy for both sides of every ratio.
//!
//! All processes share two CPUs, the size of machine that the targets are stated for. Parties are started
//! by re-executing this program with a hidden first argument; so are the parts.
//!
//! Reading order: [`options`], [`figures`] (what is printed and judged), [`machine`] (where it was
//! measured), [`process`] (starting, and what a process has used), `disk`, `parts`, `parties`, `relay`, `spool`.
//!
//! A figure is never made up: what cannot be measured here is named loudly and has no value.

pub mod figures;
pub mod machine;
pub mod options;
pub mod process;

mod disk;
mod docking;
mod parties;
mod parts;
mod relay;
mod spool;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use crate::figures::Figures;
use crate::machine::Machine;
use crate::options::{Command, Common, Options};

const EX_OK: u8 = 0;
const MISSED: u8 = 1;
const EX_USAGE: u8 = 64;
const EX_SOFTWARE: u8 = 70;

/// Runs the bench, or the party or part that the hidden first argument names.
#[must_use]
pub fn main(args: Vec<OsString>) -> ExitCode {
    let hidden = args.get(1).and_then(|a| a.to_str()).unwrap_or_default();
    if let Some(party) = hidden.strip_prefix("party:").map(str::to_owned) {
        return parties::run(&party, &args);
    }
    if let Some(part) = hidden.strip_prefix("part:").map(str::to_owned) {
        return part_code(&part, &args[2..]);
    }
    let options = match Options::try_parse_from(args) {
        Ok(options) => options,
        Err(e) => {
            let asked = !e.use_stderr();
            // A closed pipe is the reader's choice.
            let _ = e.print();
            return ExitCode::from(if asked { EX_OK } else { EX_USAGE });
        }
    };
    let common = options.command.common();
    if common.check && machine::PROFILE != "dist" {
        eprintln!(
            "bench: --check judges the profile dist alone, this is {}: cargo run --profile dist -p bench -- ...",
            machine::PROFILE
        );
        return ExitCode::from(EX_USAGE);
    }
    match measure(&options.command) {
        Ok(figures) => conclude(&figures, common),
        Err(e) => {
            eprintln!("bench: {e:#}");
            ExitCode::from(EX_SOFTWARE)
        }
    }
}

fn part_code(part: &str, args: &[OsString]) -> ExitCode {
    match parts::run(part, args) {
        Ok(()) => ExitCode::from(EX_OK),
        Err(e) => {
            eprintln!("bench: part {part}: {e:#}");
            ExitCode::from(EX_SOFTWARE)
        }
    }
}

fn measure(command: &Command) -> anyhow::Result<Figures> {
    machine::pin_to_two()?;
    let mut figures = Figures::default();
    let machine = Machine::look();
    machine.warn_if_busy();
    machine.tell(&mut figures);
    match command {
        Command::Relay(options) => relay::measure(options, &mut figures)?,
        Command::Spool(options) => spool::measure(options, &mut figures)?,
        Command::Docking(options) => docking::measure(options, &mut figures)?,
        Command::Parts(options) => {
            let yard = process::Yard::make(&options.common)?;
            parts::measure(&yard, options.megabytes, options.repeat)?.tell(&mut figures);
        }
    }
    figures.say("load at the end", &machine::load());
    Ok(figures)
}

fn conclude(figures: &Figures, common: &Common) -> ExitCode {
    if common.json {
        println!("{}", figures.json());
    } else {
        print!("{}", figures.table());
    }
    let missed = figures.missed();
    for figure in &missed {
        eprintln!("bench: target missed: {figure}");
    }
    let failed = common.check && !missed.is_empty();
    ExitCode::from(if failed { MISSED } else { EX_OK })
}
