//! Where and with what it was measured: machine, commit, profile, load. A number without these is a rumour.
//!
//! The bench and all its children run on two CPUs, whatever the machine has: that is the size the
//! targets are stated for.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::figures::Figures;

/// The profile that this program was built with.
pub const PROFILE: &str = env!("BENCH_PROFILE");
/// CPUs that all processes share.
pub const CPUS: f64 = 2.0;
/// A load average above this is not an idle machine.
const BUSY: f64 = 0.5;

/// What there is to say about the run.
#[derive(Clone, Debug)]
pub struct Machine {
    about: String,
    commit: String,
    load: String,
}

impl Machine {
    /// Looks.
    #[must_use]
    pub fn look() -> Machine {
        Machine {
            about: about(),
            commit: commit().unwrap_or_else(|| "unknown".to_owned()),
            load: load(),
        }
    }
    /// Puts it at the head of the figures.
    pub fn tell(&self, figures: &mut Figures) {
        figures.say("machine", &self.about);
        figures.say("commit", &self.commit);
        figures.say("profile", PROFILE);
        figures.say("load at the start", &self.load);
    }
    /// Says loudly where the machine is not idle.
    pub fn warn_if_busy(&self) {
        let one = self
            .load
            .split(' ')
            .next()
            .and_then(|n| n.parse::<f64>().ok());
        if one.is_some_and(|n| n > BUSY) {
            eprintln!(
                "bench: !!! the machine is not idle (load {}): wall times do not hold, CPU-seconds hold roughly",
                self.load
            );
        }
    }
}

/// The load averages over 1, 5 and 15 minutes.
#[must_use]
pub fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// Leaves this process, and every child it will start, two CPUs.
///
/// # Errors
/// Where the kernel refuses.
pub fn pin_to_two() -> Result<()> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this).context("cannot ask for this process's CPUs")?;
    let mut two = CpuSet::new();
    let ours = (0..CpuSet::count()).filter(|&n| allowed.is_set(n).unwrap_or(false));
    for cpu in ours.take(2) {
        two.set(cpu).context("cannot name a CPU")?;
    }
    sched_setaffinity(this, &two).context("cannot keep to two CPUs")
}

fn about() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, key: &str| {
        let line = text.lines().find(|l| l.starts_with(key))?.to_owned();
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let model = field(&read("/proc/cpuinfo"), "model name");
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let kernel = read("/proc/sys/kernel/osrelease");
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "{} ({}), {cpus} CPUs used, {} RAM, Linux {}",
        model.unwrap_or_else(|| "unknown CPU".to_owned()),
        std::env::consts::ARCH,
        memory.unwrap_or_else(|| "unknown".to_owned()),
        kernel.trim()
    )
}

fn commit() -> Option<String> {
    let git = |args: &[&str]| {
        let clone = Path::new(env!("CARGO_MANIFEST_DIR"));
        let out = Command::new("git")
            .arg("-C")
            .arg(clone)
            .args(args)
            .output()
            .ok()?;
        let text = String::from_utf8(out.stdout).ok()?;
        out.status.success().then(|| text.trim().to_owned())
    };
    let head = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() {
        head
    } else {
        format!("{head} with local changes")
    })
}
