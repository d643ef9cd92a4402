//! What must be true after a call has failed: of the spool, opened again by this process after the last life was told to stop, and of
//! how the repeater met the failure.
//!
//! That everything has arrived and was released is looked at in the scene, from outside.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use link::clock::Clock;
use protocol::custody::Stage;
use protocol::ids::Digest;
use spool::{Entry, Options, Spool, SpoolError};

use super::trace::{Call, Fault};
use crate::station::Station;

/// Enough for the few segments here.
const CAPACITY_BYTES: u64 = 1 << 30;

/// What the log of a start says that read everything again.
const READ_AGAIN: &str = "suspect boot: everything read again";

/// What the log of a start says that made the ledger anew.
const REBUILT: &str = "the ledger is rebuilt: ";

/// The mark of a boot on which a sync failed.
#[must_use]
pub fn marker(station: &Station) -> PathBuf {
    station.path("run/spool.suspect")
}

/// What is wrong with a spool in which everything was released, after the lives of which this is the log.
///
/// # Panics
/// Where it does not open.
#[must_use]
pub fn spool(station: &Station, log: &str) -> Vec<String> {
    let dir = station.path("spool/repeater");
    let options = Options::new(dir, CAPACITY_BYTES, station.path("run"), [9; 16]);
    let now = Clock::system().now();
    let (spool, report) = match Spool::open(options, station.trust(), station.key_list(), now) {
        Ok(opened) => opened,
        Err(e) => return vec![format!("the spool does not open: {e}")],
    };
    let mut wrong = Vec::new();
    let clean = report.rebuilt.is_none() && !report.suspect && report.missing == 0;
    if !clean || !report.lost.is_empty() || report.torn_bytes > 0 {
        wrong.push(format!("after a stop in good order: {report}"));
    }
    let counts = spool.counts();
    if counts.unaccounted.segments + counts.outstanding.segments > 0 {
        wrong.push(format!("outstanding or unaccounted: {counts:?}"));
    }
    match held_again(&spool, log) {
        Ok(again) => wrong.extend(again),
        Err(e) => wrong.push(format!("its logbook: {e}")),
    }
    wrong
}

/// What the logbook says to have become Held more than once: it was Held, and was lost. A copy that could not be read is
/// damaged, says so, and is pulled again.
fn held_again(spool: &Spool, log: &str) -> Result<Vec<String>, SpoolError> {
    let mut held: BTreeMap<Digest, u32> = BTreeMap::new();
    spool.history(|_, entry| {
        if let Entry::Custody { changes, .. } = entry {
            for (digest, stage) in changes {
                *held.entry(digest).or_default() += u32::from(stage == Stage::Held);
            }
        }
    })?;
    // Copies whose manifest could not be read keep their bytes under another name, and which they are nobody can say.
    let kept = log.contains("which are kept as");
    let unread = |digest: &Digest| {
        let digest = digest.to_string();
        // The process that kept it may have ended before it could tell; the next one names the file.
        let file = format!("{digest}.kept");
        let named =
            |l: &str| (l.contains("copy_damaged") && l.contains(&digest)) || l.contains(&file);
        kept || log.lines().any(named)
    };
    let more = held
        .into_iter()
        .filter(|(digest, times)| *times > 1 && !unread(digest));
    Ok(more
        .map(|(digest, times)| format!("{digest} became Held {times} times"))
        .collect())
}

/// What the daemon says when the ledger opens on a full disk.
const GIVEN_UP: &str = "the ballast is given up to open the ledger";

/// A call that failed, and what came of it.
#[derive(Debug)]
pub struct At<'a> {
    /// The call.
    pub call: &'a Call,
    /// Whether no other failed.
    pub alone: bool,
    /// How it failed.
    pub fault: Fault,
    /// How the repeater ended, where it did.
    pub ended: Option<ExitStatus>,
    /// Whether the boot was marked suspect then.
    pub suspect: bool,
    /// What it logged, in both lives.
    pub log: &'a str,
    /// Its spool.
    pub spool: &'a Path,
}

/// What is wrong with how a failure was met.
#[must_use]
pub fn reaction(at: &At<'_>) -> Vec<String> {
    let name = at.call.name.as_str();
    let file = at.call.files[0].as_str();
    let mut wrong = Vec::new();
    let mut must = |holds: bool, what: &str| {
        if !holds {
            wrong.push(format!("{name} of {file}, {:?}: {what}", at.fault));
        }
    };
    let segment = file.strip_prefix("segments/");
    let syncs = matches!(name, "fsync" | "fdatasync");
    match (at.fault, segment) {
        // The call is made again; or the process ends, and nothing is believed of what it had not finished.
        // So is what was moved in part.
        (Fault::Eintr | Fault::Kill | Fault::Short, _) => {}
        // Another thread had its call fail, too, and that one ended the process.
        (_, Some(_)) if !at.alone && at.ended.is_some() => {}
        (_, Some(digest)) if name == "fdatasync" => {
            must(at.ended.is_none(), "the repeater ended");
            let alarm = |l: &str| l.contains("sync_failed") && l.contains(digest);
            must(at.log.lines().any(alarm), "no alarm sync_failed");
            let aside = at.spool.join("refused").join(digest);
            must(aside.exists(), "its file is not set aside");
        }
        (_, Some(_)) if name == "sync_file_range" => {
            must(
                at.ended.is_none(),
                "a hint to the kernel failed, and the repeater ended",
            );
        }
        // sled says "full" of a write and of a sync with one word; the kernel tells our own descriptor which it was, strace does not.
        (Fault::Enospc, None) if name == "sync_file_range" => {}
        (Fault::Enospc, None) if file.starts_with("ledger/") && at.log.contains(GIVEN_UP) => {}
        _ if syncs || name == "sync_file_range" => {
            let last = at.log.rsplit("\n--- ").next().unwrap_or_default();
            // sled syncs while it opens and closes a ledger: that is then rebuilt into new files, by this start or the next.
            let in_time = ["the ledger failed", "the boot is suspect"];
            let after = |why: &str| last.contains(&format!("{REBUILT}{why}"));
            let rebuilt = in_time.iter().any(|why| after(why)) || at.ended.is_some() && after("");
            let anew = file.starts_with("ledger") && rebuilt;
            let again = at.ended.is_some() && at.suspect && last.contains(READ_AGAIN);
            must(anew || again, "what was not synced is believed afterwards");
        }
        _ => {}
    }
    wrong
}
