//! The parts that no relay can do without, each by a minimal program of its own: what QUIC, SHA-256 and the
//! disk take when nothing else is done. Their sum is what a party is held against.
//!
//! Each part is a process of its own, of this profile, with the sockets, cipher and datagram size of the
//! parties. It prints one line of JSON ([`Sample`]) about itself. The median of several runs counts.
//!
//! The parts know no message, no manifest and no ledger, and verify nothing.

mod disk;
mod quic;
mod sha;

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::figures::{Figures, Target, median};
use crate::machine::CPUS;
use crate::process::{self, Yard};

/// Bytes of one segment as the parts move it.
pub(crate) const SEGMENT_BYTES: usize = 4 << 20;
const GIB: f64 = (1u64 << 30) as f64;
const MIB: f64 = (1u64 << 20) as f64;

/// What one process says of one part.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Bytes moved.
    pub(crate) bytes: u64,
    /// Wall time in seconds.
    pub(crate) wall_s: f64,
    /// User and system time in seconds.
    pub(crate) cpu_s: f64,
    /// Median and 99th percentile of a commit in milliseconds, where the part commits.
    pub(crate) commit_p50_ms: f64,
    /// See `commit_p50_ms`.
    pub(crate) commit_p99_ms: f64,
}

impl Sample {
    /// CPU-seconds for each GiB.
    pub(crate) fn cpu_s_per_gib(&self) -> f64 {
        self.cpu_s / (bytes_f64(self.bytes) / GIB)
    }
    /// MiB each second.
    pub(crate) fn mib_s(&self) -> f64 {
        bytes_f64(self.bytes) / MIB / self.wall_s
    }
    fn print(&self) {
        println!("{}", serde_json::to_string(self).expect("numbers are JSON"));
    }
}

/// Bytes as a number to divide by.
#[allow(clippy::cast_precision_loss, reason = "2^53 bytes are beyond any run")]
pub(crate) fn bytes_f64(bytes: u64) -> f64 {
    bytes as f64
}

/// Median of a part's runs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Part {
    /// CPU-seconds for each GiB.
    pub(crate) cpu: f64,
    /// MiB each second.
    pub(crate) mib_s: f64,
    /// Median of the runs' commit medians in milliseconds.
    pub(crate) commit_p50_ms: f64,
    /// Median of the runs' 99th percentiles in milliseconds.
    pub(crate) commit_p99_ms: f64,
}

impl Part {
    fn of(samples: &[Sample]) -> Part {
        let middle = |f: fn(&Sample) -> f64| median(samples.iter().map(f).collect());
        Part {
            cpu: middle(Sample::cpu_s_per_gib),
            mib_s: middle(Sample::mib_s),
            commit_p50_ms: middle(|s| s.commit_p50_ms),
            commit_p99_ms: middle(|s| s.commit_p99_ms),
        }
    }
}

/// All parts of one run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Parts {
    /// QUIC, the sending side.
    pub(crate) send: Part,
    /// QUIC, the receiving side.
    pub(crate) receive: Part,
    /// SHA-256 over what lies in RAM.
    pub(crate) sha256: Part,
    /// Write of 4 MiB files, durable every 16 MiB.
    pub(crate) write: Part,
    /// Read of what was just written.
    pub(crate) read: Part,
}

impl Parts {
    /// What `repeaterd` cannot do without, in CPU-seconds for each GiB.
    pub(crate) fn repeaterd(&self) -> f64 {
        self.receive.cpu + self.sha256.cpu + self.write.cpu + self.read.cpu + self.send.cpu
    }
    /// The same of a camera.
    pub(crate) fn camera(&self) -> f64 {
        self.read.cpu + self.send.cpu
    }
    /// The same of an archive.
    pub(crate) fn archive(&self) -> f64 {
        self.receive.cpu + self.sha256.cpu + self.write.cpu
    }
    /// The same of all parties.
    pub(crate) fn all(&self) -> f64 {
        self.camera() + self.repeaterd() + self.archive()
    }
    /// The rate at which two cores end where all parties do their parts and nothing else, in MiB/s.
    pub(crate) fn implied_mib_s(&self) -> f64 {
        GIB / MIB / (self.all() / CPUS)
    }

    /// Puts all parts, their sums and the wall they imply among the figures.
    pub(crate) fn tell(&self, figures: &mut Figures) {
        let each = [
            ("quinn_send", self.send),
            ("quinn_receive", self.receive),
            ("sha256", self.sha256),
            ("durable_write", self.write),
            ("read", self.read),
        ];
        for (name, part) in each {
            let put = |f: &mut Figures, what, value, unit| {
                f.put(&format!("part_{name}_{what}"), value, unit, Target::None);
            };
            put(figures, "cpu", part.cpu, "CPU-s/GiB");
            put(figures, "rate", part.mib_s, "MiB/s");
        }
        let commit = [
            ("p50", self.write.commit_p50_ms),
            ("p99", self.write.commit_p99_ms),
        ];
        for (rank, value) in commit {
            figures.put(
                &format!("part_durable_write_commit_{rank}"),
                value,
                "ms",
                Target::None,
            );
        }
        let sums = [
            ("camera", self.camera()),
            ("repeaterd", self.repeaterd()),
            ("archive", self.archive()),
            ("all", self.all()),
        ];
        for (who, cpu) in sums {
            figures.put(
                &format!("parts_of_{who}_cpu"),
                cpu,
                "CPU-s/GiB",
                Target::None,
            );
        }
        figures.put(
            "parts_implied_rate",
            self.implied_mib_s(),
            "MiB/s",
            Target::None,
        );
    }
}

/// Measures every part `repeat` times with `megabytes` MiB each.
pub(crate) fn measure(yard: &Yard, megabytes: u64, repeat: u32) -> Result<Parts> {
    let segments = megabytes.div_ceil(4);
    let keys = quic::keys(yard)?;
    let mut samples: [Vec<Sample>; 5] = Default::default();
    for _ in 0..repeat {
        let (sent, received) = quic::measure(yard, &keys, segments)?;
        let hashed = one(yard, "sha256", &[segments.to_string()])?;
        let folder = yard.folder("raw")?;
        let written = write(yard, &folder, segments)?;
        let read = one(yard, "read", &[folder.display().to_string()])?;
        std::fs::remove_dir_all(&folder)?;
        for (all, sample) in samples
            .iter_mut()
            .zip([sent, received, hashed, written, read])
        {
            all.push(sample);
        }
    }
    let [send, receive, sha256, write, read] = samples.map(|s| Part::of(&s));
    Ok(Parts {
        send,
        receive,
        sha256,
        write,
        read,
    })
}

/// Measures the raw disk alone, `repeat` times.
pub(crate) fn measure_disk(yard: &Yard, segments: u64, repeat: u32) -> Result<Part> {
    let mut samples = Vec::new();
    for _ in 0..repeat {
        let folder = yard.folder("raw")?;
        samples.push(write(yard, &folder, segments)?);
        std::fs::remove_dir_all(&folder)?;
    }
    Ok(Part::of(&samples))
}

fn write(yard: &Yard, folder: &Path, segments: u64) -> Result<Sample> {
    one(
        yard,
        "write",
        &[folder.display().to_string(), segments.to_string()],
    )
}

/// Runs one part to its end and reads what it said.
pub(crate) fn one(yard: &Yard, part: &str, args: &[String]) -> Result<Sample> {
    let args: Vec<OsString> = args.iter().map(OsString::from).collect();
    let said = yard.run(part, &format!("part:{part}"), &args)?;
    parse(&said)
}

fn parse(said: &[String]) -> Result<Sample> {
    let last = said.last().context("the part said nothing")?;
    serde_json::from_str(last).with_context(|| format!("the part said `{last}`"))
}

/// Becomes the part that the hidden first argument names.
pub(crate) fn run(part: &str, args: &[OsString]) -> Result<()> {
    // A stalled disk must be freed even where the bench was killed.
    if part != "stall" {
        process::die_with_parent();
    }
    match part {
        "quic-send" => quic::send(path(args, 0)?, text(args, 1)?.parse()?, number(args, 2)?),
        "quic-receive" => quic::receive(path(args, 0)?, number(args, 1)?),
        "sha256" => sha::run(number(args, 0)?),
        "write" => disk::write(path(args, 0)?, number(args, 1)?),
        "read" => disk::read(path(args, 0)?),
        "sync" => disk::sync(path(args, 0)?),
        "timed" => crate::relay::timed(args),
        "stall" => crate::relay::stand_still(path(args, 0)?, Duration::from_secs(number(args, 1)?)),
        "spool" => crate::spool::run(text(args, 0)?),
        "spool-cut" => crate::spool::take_and_cut(text(args, 0)?),
        "spool-start" => crate::spool::start(text(args, 0)?),
        "spool-rebuild" => crate::spool::rebuild(text(args, 0)?),
        _ => bail!("there is no part of that name"),
    }
}

fn text(args: &[OsString], n: usize) -> Result<&str> {
    args.get(n)
        .and_then(|a| a.to_str())
        .context("an argument is missing")
}
fn path(args: &[OsString], n: usize) -> Result<&Path> {
    args.get(n).map(Path::new).context("a path is missing")
}
fn number(args: &[OsString], n: usize) -> Result<u64> {
    text(args, n)?.parse().context("not a number")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn sums_follow_the_footages_way() {
        let part = |cpu| Part {
            cpu,
            ..Part::default()
        };
        let (send, receive, sha256) = (part(1.5), part(1.3), part(0.85));
        let parts = Parts {
            send,
            receive,
            sha256,
            write: part(0.5),
            read: part(0.1),
        };
        assert!((parts.repeaterd() - 4.25).abs() < 1e-9);
        assert!((parts.camera() - 1.6).abs() < 1e-9);
        assert!((parts.archive() - 2.65).abs() < 1e-9);
        assert!((parts.implied_mib_s() - 1024.0 * 2.0 / 8.5).abs() < 1e-9);
    }

    #[test]
    fn a_sample_reads_back() {
        let sample = Sample {
            bytes: 1 << 30,
            wall_s: 2.0,
            cpu_s: 3.0,
            ..Sample::default()
        };
        let line = serde_json::to_string(&sample).unwrap();
        let back = parse(&["noise".into(), line]).unwrap();
        assert!((back.cpu_s_per_gib() - 3.0).abs() < 1e-9 && (back.mib_s() - 512.0).abs() < 1e-9);
        assert!(parse(&[]).is_err() && parse(&["x".into()]).is_err());
    }
}
