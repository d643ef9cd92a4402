//! Children: this program again with a hidden first argument, or a peer's program; what they said, and what
//! they have used.
//!
//! CPU time is the kernel's own account, read from `/proc/<pid>/stat` while a party lives (ticks of 10 ms)
//! or from `getrusage` by a part about itself. Peak memory is `VmHWM`. A child dies with the bench: each
//! asks for that before it does anything else, and each handle kills on drop.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child as StdChild, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use link::clock::Clock;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::sys::time::TimeValLike;
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::options::Common;

/// USER_HZ, the same on every architecture that this builds for.
const TICKS_PER_SECOND: f64 = 100.0;
/// Lines that a child may say before they are read.
const LINES: usize = 1024;
/// A child that was asked to stop is killed after this.
const STOP: Duration = Duration::from_secs(20);
/// Lines of a log that an error shows.
const TAIL: usize = 15;

/// Asks the kernel to end this process with its parent.
pub fn die_with_parent() {
    // Where it is refused, the handle's drop still kills.
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
}

/// CPU-seconds that this process has used so far.
#[must_use]
pub fn own_cpu_s() -> f64 {
    cpu_s_of(UsageWho::RUSAGE_SELF)
}
/// CPU-seconds that this process's ended children have used.
#[must_use]
pub fn children_cpu_s() -> f64 {
    cpu_s_of(UsageWho::RUSAGE_CHILDREN)
}

fn cpu_s_of(who: UsageWho) -> f64 {
    let usage = getrusage(who).expect("the kernel knows this process");
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(u64::try_from(micros).unwrap_or(0)).as_secs_f64()
}

/// The bench's work folder, and how to start children in it. Removed at the end.
#[derive(Debug)]
pub struct Yard {
    dir: TempDir,
    exe: PathBuf,
    /// The only clock.
    pub clock: Clock,
}

impl Yard {
    /// Makes a work folder where the options say.
    ///
    /// # Errors
    /// Where it cannot be made, or lies in RAM, where nothing is durable.
    pub fn make(common: &Common) -> Result<Yard> {
        let parent = common.dir.clone().unwrap_or_else(std::env::temp_dir);
        fs::create_dir_all(&parent).with_context(|| format!("cannot make {}", parent.display()))?;
        let kind =
            statfs(&parent).with_context(|| format!("cannot look at {}", parent.display()))?;
        ensure!(
            kind.filesystem_type() != TMPFS_MAGIC,
            "{} is in RAM, where nothing is durable: give --dir on a disk",
            parent.display()
        );
        let dir = tempfile::Builder::new()
            .prefix("repeater-bench-")
            .disable_cleanup(common.keep)
            .tempdir_in(&parent)?;
        if common.keep {
            eprintln!("bench: working in {}, which is kept", dir.path().display());
        }
        fs::create_dir(dir.path().join("logs"))?;
        let exe = std::env::current_exe().context("cannot find this program's own file")?;
        Ok(Yard {
            dir,
            exe,
            clock: Clock::system(),
        })
    }
    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
    /// A new folder of that name in it.
    ///
    /// # Errors
    /// What the system says.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.path().join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }
    /// Starts this program again: `hidden` is its first argument.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(&self, name: &str, hidden: &str, args: &[OsString]) -> Result<Child> {
        let mut command = Command::new(&self.exe);
        command.arg(hidden).args(args);
        self.spawn(name, command)
    }
    /// Starts another program.
    ///
    /// # Errors
    /// What the system says.
    pub fn spawn(&self, name: &str, mut command: Command) -> Result<Child> {
        let log = self.path().join("logs").join(format!("{name}.log"));
        let errors =
            File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors);
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let out = child.stdout.take().expect("standard output was asked for");
        let (said, lines) = sync_channel(LINES);
        std::thread::spawn(move || {
            let mut each = BufReader::new(out).lines().map_while(Result::ok);
            // A party goes on when nobody listens any more.
            each.by_ref().try_for_each(|line| said.send(line)).ok();
            each.for_each(drop);
        });
        Ok(Child {
            name: name.to_owned(),
            child,
            lines,
            log,
            clock: self.clock.clone(),
        })
    }
    /// Runs this program again to its end; the lines it said.
    ///
    /// # Errors
    /// Where it fails, with the end of its log.
    pub fn run(&self, name: &str, hidden: &str, args: &[OsString]) -> Result<Vec<String>> {
        self.start(name, hidden, args)?.finish()
    }
}

/// A running child. Dropped: killed.
#[derive(Debug)]
pub struct Child {
    name: String,
    child: StdChild,
    lines: Receiver<String>,
    log: PathBuf,
    clock: Clock,
}

impl Child {
    /// Waits for a line that begins with `prefix`; the rest of it.
    ///
    /// # Errors
    /// Where it ends or does not say so in time, with the end of its log.
    pub fn ready(&mut self, prefix: &str, within: Duration) -> Result<String> {
        let until = self.clock.instant() + within;
        loop {
            let left = until.saturating_duration_since(self.clock.instant());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    if let Some(rest) = line.strip_prefix(prefix) {
                        return Ok(rest.trim().to_owned());
                    }
                }
                Err(RecvTimeoutError::Timeout) => bail!(self.complaint("was not ready in time")),
                Err(RecvTimeoutError::Disconnected) => bail!(self.complaint("ended too early")),
            }
        }
    }
    /// What it has used by now.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn usage(&self) -> Result<Usage> {
        Usage::of(self.child.id()).with_context(|| self.complaint("is gone"))
    }
    /// Whether it still runs.
    ///
    /// # Errors
    /// Where it has ended, with the end of its log.
    pub fn must_run(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!(self.complaint(&format!("ended with {status}"))),
        }
    }
    /// Waits for its end; the lines it said that nobody read.
    ///
    /// # Errors
    /// Where it fails, with the end of its log.
    pub fn finish(mut self) -> Result<Vec<String>> {
        // The channel ends with the child's standard output.
        let said: Vec<String> = self.lines.iter().collect();
        let status = self.child.wait()?;
        ensure!(
            status.success(),
            self.complaint(&format!("ended with {status}"))
        );
        Ok(said)
    }
    /// Asks it to stop and waits; kills it where it does not.
    ///
    /// # Errors
    /// Where it had to be killed.
    pub fn stop(mut self) -> Result<()> {
        self.signal(Signal::SIGTERM);
        let until = self.clock.instant() + STOP;
        while self.child.try_wait()?.is_none() {
            if self.clock.instant() >= until {
                bail!(self.complaint("did not stop when asked and was killed"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("process ids fit");
        // An ended child is reaped only by this handle, so its id is nobody else's.
        let _ = kill(Pid::from_raw(pid), signal);
    }
    fn complaint(&self, what: &str) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: VecDeque<&str> = text.lines().rev().take(TAIL).collect();
        let tail: Vec<&str> = lines.into_iter().rev().collect();
        format!(
            "{} {what}; the end of its log:\n{}",
            self.name,
            tail.join("\n")
        )
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// What a process has used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// User and system time, threads that ended included, in seconds.
    pub cpu_s: f64,
    /// The same of its ended children.
    pub children_cpu_s: f64,
    /// Peak resident memory in MiB.
    pub peak_mib: f64,
}

impl Usage {
    /// Of a living process.
    ///
    /// # Errors
    /// Where there is none of that id.
    pub fn of(pid: u32) -> Result<Usage> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        parse_usage(&stat, &status).with_context(|| format!("cannot read /proc/{pid}"))
    }
}

fn parse_usage(stat: &str, status: &str) -> Option<Usage> {
    // The second field is the name in parentheses, which may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |n: usize| fields.get(n)?.parse::<f64>().ok();
    let high = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: f64 = high.split_whitespace().next()?.parse().ok()?;
    Some(Usage {
        cpu_s: (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND,
        children_cpu_s: (ticks(13)? + ticks(14)?) / TICKS_PER_SECOND,
        peak_mib: kib / 1024.0,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_kernels_account_is_read() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 2 3 4 5 150 50 20 10 20 0 1 0 9 9 9";
        let usage = parse_usage(stat, "Name:\tx\nVmHWM:\t    2048 kB\n").unwrap();
        assert_eq!(
            usage,
            Usage {
                cpu_s: 2.0,
                children_cpu_s: 0.3,
                peak_mib: 2.0
            }
        );
        assert!(Usage::of(std::process::id()).unwrap().peak_mib > 0.5);
        assert!(parse_usage("junk", "").is_none());
    }

    #[test]
    fn a_child_is_heard_and_ended() {
        let yard = Yard::make(&Common::default()).unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo ready: 7; echo oops >&2; sleep 60"]);
        let mut child = yard.spawn("shell", shell).unwrap();
        assert_eq!(
            child.ready("ready: ", Duration::from_secs(10)).unwrap(),
            "7"
        );
        assert!(child.usage().unwrap().peak_mib > 0.0);
        child.must_run().unwrap();
        child.stop().unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo oops >&2; exit 3"]);
        let error = yard
            .spawn("shell", shell)
            .unwrap()
            .finish()
            .unwrap_err()
            .to_string();
        assert!(error.contains("oops"), "{error}");
    }
}
