//! `repeaterd verify`: everything that the spool keeps is read again at a bounded rate, and what is wrong is named, with
//! what to do. Where no daemon has the spool, it is looked at as it lies and nothing of it changes; where one has it,
//! the daemon is asked, a step at a time over its control socket, and books what it finds damaged as its scrub does.
//!
//! The work is `spool`'s ([`Spool::verify_step`], [`Look`]); this asks for the next step, keeps the rate, shows how far
//! it is on stderr, and prints the report. A running daemon's rows are not compared with what they derive from: only
//! a spool that stands still has one state.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use link::credentials::load_trust;
use link::seams::Seams;
use serde::{Deserialize, Serialize};
use spool::{Look, Spool, SpoolError, VerifyFrom, VerifyStep};

use crate::config::Config;
use crate::run::{key_list, spool_options};
use crate::{control, limits};

/// How a person wants it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How {
    /// The report as JSON.
    pub(crate) json: bool,
    /// Bytes a second at most; 0: as fast as the disk.
    pub(crate) bytes_per_second: u64,
    /// So long at most; what was not read then is not judged.
    pub(crate) within: Option<Duration>,
}

/// What one step says; a line of the control socket.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Answer {
    next: Option<String>,
    read_bytes: u64,
    total_bytes: u64,
    good: Good,
    problems: Vec<Problem>,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Good {
    copies: u64,
    bytes: u64,
    manifests: u64,
    inventories: u64,
    logbook_entries: u64,
    ledger_rows: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Problem {
    path: PathBuf,
    recording: Option<String>,
    what: String,
    mend: String,
}

/// The report.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Whether all was read.
    complete: bool,
    /// Whether a running daemon was asked.
    online: bool,
    good: Good,
    problems: Vec<Problem>,
}

impl Answer {
    pub(crate) fn new(step: VerifyStep, total_bytes: u64) -> Answer {
        let g = step.good;
        let problem = |p: spool::Problem| Problem {
            path: p.path,
            recording: p.recording.map(|r| r.full()),
            what: p.what,
            mend: p.mend.to_owned(),
        };
        Answer {
            next: step.next.map(|n| n.to_string()),
            read_bytes: step.read_bytes,
            total_bytes,
            good: Good {
                copies: g.copies,
                bytes: g.bytes,
                manifests: g.manifests,
                inventories: g.inventories,
                logbook_entries: g.entries,
                ledger_rows: g.rows,
            },
            problems: step.problems.into_iter().map(problem).collect(),
        }
    }
}

impl Good {
    fn add(&mut self, other: Good) {
        self.copies += other.copies;
        self.bytes += other.bytes;
        self.manifests += other.manifests;
        self.inventories += other.inventories;
        self.logbook_entries += other.logbook_entries;
        self.ledger_rows += other.ledger_rows;
    }
}

/// Verifies the spool: 0 where all is good, 1 where something is not.
///
/// # Errors
/// Where the spool cannot be read, or the daemon that has it does not answer.
pub(crate) fn verify(config: &Config, how: How) -> anyhow::Result<ExitCode> {
    let report = report(config, how)?;
    if how.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    Ok(ExitCode::from(u8::from(!report.problems.is_empty())))
}

/// Looks at the spool.
///
/// # Errors
/// As [`verify`].
pub(crate) fn report(config: &Config, how: How) -> anyhow::Result<Report> {
    let seams = Seams::system();
    let scratch = Scratch::new()?;
    match look(config, &seams, &scratch.0) {
        Ok(mut look) => {
            let total = look.total_bytes();
            let step = |from: &str| {
                let from = match from {
                    "rows" => VerifyFrom::Rows,
                    other => other.parse().map_err(anyhow::Error::msg)?,
                };
                Ok(Answer::new(look.step(from, limits::VERIFY_BYTES)?, total))
            };
            walk(false, how, &seams, step)
        }
        Err(e) if matches!(e.downcast_ref(), Some(SpoolError::InUse(_))) => {
            let ask = |from: &str| {
                let said = control::ask(&config.spool_dir, &format!("verify {from}"))?;
                serde_json::from_str(&said).context("the daemon's answer is not JSON")
            };
            walk(true, how, &seams, ask)
        }
        Err(e) => Err(e),
    }
}

/// A step of a running daemon: what is damaged is booked, and pulled again.
///
/// # Errors
/// What the spool says.
pub(crate) fn daemon_step(
    spool: &mut Spool,
    from: VerifyFrom,
    now: protocol::ids::Time,
) -> Result<Answer, SpoolError> {
    let step = spool.verify_step(from, limits::VERIFY_BYTES)?;
    for digest in step.problems.iter().filter_map(|p| p.copy) {
        spool.copy_is_damaged(&digest, now)?;
    }
    Ok(Answer::new(step, spool.space().used_bytes))
}

/// The spool as it lies, of which no daemon has hold.
///
/// # Errors
/// What the spool says, above all [`SpoolError::InUse`].
pub(crate) fn look(config: &Config, seams: &Seams, scratch: &Path) -> anyhow::Result<Look> {
    // Whoever looks needs no private key, which the service manager gives to the daemon alone.
    let files = &config.credentials;
    let trust = load_trust(&files.trust, files.crl.as_deref())?;
    let keys = key_list(&config.key_list, &trust)?;
    let options = spool_options(config, seams)?;
    let now = seams.clock.now();
    Look::open(&options, trust, keys, scratch, try_in_another_process, now)
        .with_context(|| format!("cannot look at the spool {}", config.spool_dir.display()))
}

/// What lies in a damaged ledger can end the process that opens it: let that be another one. It leaves a mark in
/// the folder, by which this one knows.
fn try_in_another_process(scratch: &Path) {
    let tried = std::env::current_exe().and_then(|program| {
        Command::new(program)
            .arg("try-ledger")
            .arg(scratch)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
    });
    if let Err(e) = tried {
        eprintln!("repeaterd: the ledger is not tried in another process first: {e}");
    }
}

/// Asks for one step after the other, at the rate.
fn walk(
    online: bool,
    how: How,
    seams: &Seams,
    mut step: impl FnMut(&str) -> anyhow::Result<Answer>,
) -> anyhow::Result<Report> {
    let began = seams.clock.instant();
    let (mut read, mut shown) = (0, began);
    let mut report = Report {
        complete: true,
        online,
        good: Good::default(),
        problems: Vec::new(),
    };
    let mut next = Some(VerifyFrom::default().to_string());
    while let Some(from) = next {
        let answer = step(&from)?;
        read += answer.read_bytes;
        report.good.add(answer.good);
        report.problems.extend(answer.problems);
        next = answer.next;
        let took = seams.clock.instant().saturating_duration_since(began);
        if let Some(wait) = due(read, how.bytes_per_second).checked_sub(took) {
            std::thread::sleep(wait);
        }
        let now = seams.clock.instant();
        if next.is_some()
            && how
                .within
                .is_some_and(|most| now.saturating_duration_since(began) >= most)
        {
            report.complete = false;
            break;
        }
        if now.saturating_duration_since(shown) >= limits::VERIFY_SHOWN {
            shown = now;
            show(read, answer.total_bytes, began, now);
        }
    }
    Ok(report)
}

/// When so much may have been read.
fn due(read_bytes: u64, bytes_per_second: u64) -> Duration {
    match read_bytes
        .saturating_mul(1000)
        .checked_div(bytes_per_second)
    {
        Some(ms) => Duration::from_millis(ms),
        None => Duration::ZERO,
    }
}

fn show(read: u64, total: u64, began: Instant, now: Instant) {
    let left = total.saturating_sub(read);
    let took = now.saturating_duration_since(began).as_secs();
    let seconds = left.saturating_mul(took).checked_div(read).unwrap_or(0);
    eprintln!(
        "verify: {} of {} MiB read, about {seconds} s left",
        read >> 20,
        total >> 20
    );
}

fn print(report: &Report) {
    for p in &report.problems {
        let whose = p.recording.as_ref().map(|r| format!(" (recording {r})"));
        println!(
            "WRONG {}{}: {}: {}",
            p.path.display(),
            whose.unwrap_or_default(),
            p.what,
            p.mend
        );
    }
    let g = report.good;
    println!(
        "good: {} copies, {} bytes, {} manifests, {} inventories, {} logbook entries, {} ledger rows",
        g.copies, g.bytes, g.manifests, g.inventories, g.logbook_entries, g.ledger_rows
    );
    match report.problems.len() {
        0 => println!("nothing is wrong"),
        n => println!("{n} problems"),
    }
}

/// A folder for the copy of the ledger, gone with this value.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    /// Makes it.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn new() -> anyhow::Result<Scratch> {
        use std::os::unix::fs::DirBuilderExt;
        let name = format!("repeaterd-verify-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make {} for a copy of the ledger", path.display()))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
