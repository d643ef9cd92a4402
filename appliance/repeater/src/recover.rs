//! `repeaterd recover`: the ledger built anew from manifests, segment files, inventories and logbook, while no daemon
//! runs. It says what it did and what it could not restore; nothing that a row said counts afterwards.
//!
//! The work is [`Spool::recover`]; this opens, prints, and decides the exit code.

use std::process::ExitCode;

use anyhow::Context;
use link::credentials::Credentials;
use link::seams::Seams;
use protocol::identity::Role;
use spool::{Spool, StartReport};

use crate::config::Config;
use crate::run::{key_list, spool_options};

/// What no file says: it is gone with every ledger, and comes again by itself.
const ANEW: &str =
    "begun anew: offers to sites, pauses after refusals, interrupted pulls, alarms, the scrub";

/// Rebuilds the ledger.
///
/// # Errors
/// Where the spool is in use, is not there, or cannot be read.
pub(crate) fn recover(config: &Config) -> anyhow::Result<ExitCode> {
    let seams = Seams::system();
    let credentials = Credentials::load(&config.credentials, Role::Repeater)?;
    let keys = key_list(&config.key_list, &credentials.trust)?;
    let dir = &config.spool_dir;
    anyhow::ensure!(
        dir.join("FORMAT").exists(),
        "{} is no spool; nothing was made",
        dir.display()
    );
    let options = spool_options(config, &seams)?;
    let (spool, report) = Spool::recover(options, credentials.trust, keys, seams.clock.now())
        .with_context(|| format!("cannot recover the spool {}", dir.display()))?;
    drop(spool);
    print(&report);
    Ok(ExitCode::from(u8::from(!report.is_complete())))
}

fn print(report: &StartReport) {
    println!(
        "ledger rebuilt: {} segments known, {} whole copies",
        report.segments, report.files
    );
    let done = report.numbers().into_iter().filter(|(_, n)| *n > 0);
    done.for_each(|(what, n)| println!("{what}: {n}"));
    println!("{ANEW}");
    if report.missing > 0 {
        println!(
            "LOST {} copies that were held; they are pulled again where their cameras have them",
            report.missing
        );
    }
    report.lost.iter().for_each(|what| println!("LOST {what}"));
    if report.is_complete() {
        println!("nothing is lost");
    }
}
