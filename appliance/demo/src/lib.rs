//! `demo`: every party on one machine, real video in, verified video out.
//!
//! Reading order is the run's: [`options`] say what was asked, [`footage`] makes or finds the originals,
//! [`process`] starts programs, [`parties`] knows each program's command line, files and answers (and nothing
//! else does), [`seal`] records the originals on the cameras while [`progress`] shows both hops and [`chaos`]
//! kills whoever it draws; [`signed`] reads what the cameras signed for before they may erase any of it; [`check`]
//! takes the footage out of the store in a process that has only store and key, and [`report`] counts. [`run`] is
//! the whole of it on one page.
//!
//! What is counted is counted where it is true: recordings, segments and bytes by the verified manifests on the
//! cameras' disks while nothing of them is erased, archived by reading the whole store again and comparing digest by
//! digest, released by looking at the cameras' disks once more. The demo trusts no party's success message: the last
//! line is printed only if all of these agree and every byte is the original's.
//!
//! Parties are processes: this program runs itself again with a hidden first argument (`party:repeaterd`), so
//! that one build holds all of them.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

mod chaos;
mod check;
mod fleet;
mod footage;
mod options;
mod parties;
mod process;
mod progress;
mod report;
mod run;
mod seal;
mod search;
mod signed;
mod store;
mod trace;

/// Exit code for a command line that makes no sense (sysexits).
const USAGE: u8 = 64;

/// The program: a party when the hidden first argument says so, else the demo. Exit 0 only if all footage
/// arrived whole and was released.
#[must_use]
#[allow(
    clippy::needless_pass_by_value,
    reason = "the signature that every program of this workspace has"
)]
pub fn main(args: Vec<OsString>) -> ExitCode {
    if let Some(code) = parties::dispatch(&args) {
        return code;
    }
    let options = match options::Options::try_parse_from(&args) {
        Ok(options) => options,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() {
                USAGE.into()
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match run::run(&options) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("demo: FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}
