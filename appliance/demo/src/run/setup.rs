//! What a run stands on: the archive's store, the folder that is kept, the answer to a signal. Nothing here knows
//! what a run does.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use link::random::Random;

use crate::options::Options;
use crate::parties::StorePlace;

/// Where the archive stores: a folder of the work folder, or a prefix of its own in the bucket.
pub(super) fn place(options: &Options, work: &Path, random: &Random) -> StorePlace {
    match &options.archive {
        None => {
            let folder = work.join("store");
            let url = format!("file://{}", folder.display());
            StorePlace {
                url,
                durability: "fsync".to_owned(),
                folder: Some(folder),
            }
        }
        // A run of its own in the bucket: the checks expect what this run recorded, and nothing else.
        Some(url) => {
            let url = format!("{}/demo-{:016x}", url.trim_end_matches('/'), random.u64());
            StorePlace {
                url,
                durability: options.durability.clone(),
                folder: None,
            }
        }
    }
}

/// A folder to keep: new, or empty.
pub(super) fn kept(dir: &Path) -> Result<PathBuf> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let empty = fs::read_dir(dir)
        .with_context(|| format!("cannot read {}", dir.display()))?
        .next()
        .is_none();
    ensure!(
        empty,
        "{} is not empty: name a new folder for --keep",
        dir.display()
    );
    fs::canonicalize(dir).with_context(|| format!("cannot find {}", dir.display()))
}

/// Every party has stopped, and the folder is gone, this long after a signal.
const STOPS_WITHIN: Duration = Duration::from_secs(60);

/// The first signal ends the run in order, a second one at once.
pub(super) fn stop_on_signal(stop: &Arc<AtomicBool>) -> Result<()> {
    let stop = Arc::clone(stop);
    let signal = link::tasks::stop_signal(STOPS_WITHIN).context("cannot wait for signals")?;
    std::thread::spawn(move || {
        if link::tasks::current_thread(signal).is_ok() {
            stop.store(true, Ordering::Relaxed);
        }
    });
    Ok(())
}
