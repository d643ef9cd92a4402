//! `bench spool`: the store alone, driven by one thread as the repeater drives it, against the raw disk.
//!
//! Footage of several cameras is made beforehand (manifests signed, digests known); then it is taken, named by
//! receipts, released, and the store is opened again, each step timed. The store's own work is in processes
//! of their own ([`store`]), so that their CPU and memory are theirs alone.
//!
//! It proves speed, not safety: what survives a power cut is the spool's tests' matter.

mod cut;
mod script;
mod store;

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::figures::{Figures, Target};
use crate::options::Spool;
use crate::parties::Agency;
use crate::parts::{self, Part, SEGMENT_BYTES};
use crate::process::Yard;

pub(crate) use cut::take_and_cut;
pub(crate) use store::{rebuild, run, start};

/// What a process of this bench is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    agency: PathBuf,
    dir: PathBuf,
    segments: u32,
    segment_bytes: u32,
    cameras: u32,
    churn: u32,
}

/// What the store took.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Taken {
    mib_s: f64,
    segments_s: f64,
    cpu_s_per_gib: f64,
    commit_p50_ms: f64,
    commit_p99_ms: f64,
    commit_max_ms: f64,
    pick_p50_us: f64,
    pick_p99_us: f64,
    put_pick_p50_us: f64,
    receipts_s: f64,
    release_s: f64,
    disk_over_held: f64,
    ledger_bytes_per_segment: f64,
    churned: Churned,
    peak_mib: f64,
}

/// What taking as many again and again left.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Churned {
    ledger_bytes_per_segment: f64,
    longest_ms: f64,
}

/// What opening it again took, as it is or with a ledger derived anew.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Started {
    ready_s: f64,
    peak_mib: f64,
    /// Segments that are Held, headers among them.
    held: u64,
}

/// Measures.
pub(crate) fn measure(options: &Spool, figures: &mut Figures) -> Result<()> {
    let yard = Yard::make(&options.common)?;
    let agency = Agency::make(&yard, options.cameras)?;
    let job = Job {
        agency: agency.file(""),
        dir: yard.folder("store")?,
        segments: options.segments,
        segment_bytes: options.bytes_each(),
        cameras: options.cameras,
        churn: options.churn,
    };
    figures.say(
        "segments",
        &format!("{} of {} B", options.segments, options.bytes_each()),
    );
    if options.cut {
        return cut::measure(options, &yard, &job, figures);
    }
    let bytes = u64::from(options.segments) * u64::from(options.bytes_each());
    let raw_segments = (bytes / SEGMENT_BYTES as u64).clamp(64, 4096);
    let raw = parts::measure_disk(&yard, raw_segments, 3)?;
    let taken: Taken = ask(&yard, "spool", &job)?;
    let started: Started = ask(&yard, "spool-start", &job)?;
    let rebuilt: Started = ask(&yard, "spool-rebuild", &job)?;
    tell_rates(options, &raw, &taken, figures);
    tell_size(options, (&taken, &started), figures);
    figures.put("spool_rebuild", rebuilt.ready_s, "s", Target::AtMost(60.0));
    figures.put("spool_rebuild_peak", rebuilt.peak_mib, "MiB", Target::None);
    Ok(())
}

/// What is claimed of rates and bytes is claimed for segments of the usual size: small ones stand in for many.
fn is_usual(options: &Spool) -> bool {
    let bytes = u64::from(options.segments) * u64::from(options.bytes_each());
    bytes >= 1 << 30 && options.bytes_each() >= 4 << 20
}

fn tell_rates(options: &Spool, raw: &Part, taken: &Taken, figures: &mut Figures) {
    let (mut share, mut slower) = (Target::None, Target::None);
    if is_usual(options) {
        (share, slower) = (Target::AtLeast(0.7), Target::AtMost(3.0));
    }
    figures.put("spool_rate_over_disk", taken.mib_s / raw.mib_s, "x", share);
    figures.put(
        "spool_commit_p99_over_disk",
        taken.commit_p99_ms / raw.commit_p99_ms,
        "x",
        slower,
    );
    let mut put = |name, value, unit| figures.put(name, value, unit, Target::None);
    put("raw_disk_rate", raw.mib_s, "MiB/s");
    put("raw_disk_cpu", raw.cpu, "CPU-s/GiB");
    put("raw_disk_commit_p50", raw.commit_p50_ms, "ms");
    put("raw_disk_commit_p99", raw.commit_p99_ms, "ms");
    put("spool_rate", taken.mib_s, "MiB/s");
    put("spool_segments_rate", taken.segments_s, "1/s");
    put("spool_cpu", taken.cpu_s_per_gib, "CPU-s/GiB");
    put("spool_commit_p50", taken.commit_p50_ms, "ms");
    put("spool_commit_p99", taken.commit_p99_ms, "ms");
    put("spool_commit_max", taken.commit_max_ms, "ms");
}

fn tell_size(options: &Spool, (taken, started): (&Taken, &Started), figures: &mut Figures) {
    figures.put(
        "spool_next_pull_p50",
        taken.pick_p50_us,
        "us",
        Target::AtMost(50.0),
    );
    let mut put = |name, value, unit| figures.put(name, value, unit, Target::None);
    put("spool_next_pull_p99", taken.pick_p99_us, "us");
    put("spool_next_put_p50", taken.put_pick_p50_us, "us");
    put("spool_receipts", taken.receipts_s, "s");
    put("spool_releases", taken.release_s, "s");
    put(
        "spool_ledger_per_segment",
        taken.ledger_bytes_per_segment,
        "B",
    );
    let at_most = |most| Target::AtMost(most);
    if options.churn > 0 {
        let churned = taken.churned;
        let per = churned.ledger_bytes_per_segment;
        figures.put(
            "spool_ledger_per_segment_churned",
            per,
            "B",
            at_most(1024.0),
        );
        figures.put(
            "spool_longest_call_churned",
            churned.longest_ms,
            "ms",
            at_most(250.0),
        );
    }
    figures.put("spool_start", started.ready_s, "s", at_most(2.0));
    figures.put("spool_start_peak", started.peak_mib, "MiB", at_most(128.0));
    figures.put("spool_peak", taken.peak_mib, "MiB", Target::AtMost(128.0));
    let target = if is_usual(options) {
        Target::AtMost(1.01)
    } else {
        Target::None
    };
    figures.put("spool_disk_over_held", taken.disk_over_held, "x", target);
}

fn ask<T: for<'a> Deserialize<'a>>(yard: &Yard, part: &str, job: &Job) -> Result<T> {
    let args = [OsString::from(serde_json::to_string(job)?)];
    let said = yard.run(part, &format!("part:{part}"), &args)?;
    let last = said.last().context("the part said nothing")?;
    serde_json::from_str(last).with_context(|| format!("the part said `{last}`"))
}
