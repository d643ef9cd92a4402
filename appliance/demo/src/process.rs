//! Programs as child processes: this executable again, with a hidden first argument. Each writes to its own log;
//! when one ends that should not, the last lines of its log are in the error.
//!
//! No child outlives the demo: each asks the kernel to be killed with its parent before it does anything else.
//! Signals are sent only while the [`Registry`] is locked and children are reaped only under the same lock, so a
//! signal never reaches a stranger that got a dead child's id.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use link::clock::Clock;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The parent's process id, told to a child so that it can notice a parent that died before it asked.
const PARENT: &str = "DEMO_PARENT";
/// Lines of a log that an error shows.
const TAIL: usize = 12;
/// Lines of standard output kept.
const KEPT: usize = 4096;

/// Asks the kernel to end this process with its parent.
pub(crate) fn die_with_parent() {
    let asked = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
    let parent: Option<i32> = std::env::var(PARENT).ok().and_then(|p| p.parse().ok());
    if asked.is_err() || parent.is_some_and(|p| nix::unistd::getppid().as_raw() != p) {
        std::process::exit(1);
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Running children by name. Clones are the same registry.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry(Arc<Mutex<BTreeMap<String, Pid>>>);

impl Registry {
    /// Sends a signal; false where nobody of that name runs.
    pub(crate) fn signal(&self, name: &str, signal: Signal) -> bool {
        lock(&self.0)
            .get(name)
            .is_some_and(|pid| kill(*pid, signal).is_ok())
    }
    /// Names of running children that begin so.
    pub(crate) fn running(&self, prefix: &str) -> Vec<String> {
        lock(&self.0)
            .keys()
            .filter(|n| n.starts_with(prefix))
            .cloned()
            .collect()
    }
}

/// What is to be run.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    /// Name in logs and messages; one child of a name runs at a time.
    pub(crate) name: String,
    /// Which program: `repeaterd`, `bodycam`, `archive`, `agency`.
    pub(crate) party: &'static str,
    /// Its arguments.
    pub(crate) args: Vec<OsString>,
    /// `RUST_LOG`, where not the default.
    pub(crate) log_filter: Option<&'static str>,
    /// Whether the environment is emptied but for what an S3 store needs.
    pub(crate) bare: bool,
    /// Whether standard input is a pipe.
    pub(crate) fed: bool,
}

impl Spec {
    /// A program with arguments and nothing special.
    pub(crate) fn new<A: Into<OsString>>(
        name: impl Into<String>,
        party: &'static str,
        args: impl IntoIterator<Item = A>,
    ) -> Spec {
        let args = args.into_iter().map(Into::into).collect();
        Spec {
            name: name.into(),
            party,
            args,
            log_filter: None,
            bare: false,
            fed: false,
        }
    }
}

/// Sees each line of a child's log as it is written.
pub(crate) type Tap = Arc<dyn Fn(&str) + Send + Sync>;

/// Starts children.
#[derive(Clone, Debug)]
pub(crate) struct Launcher {
    exe: PathBuf,
    logs: PathBuf,
    clock: Clock,
    /// Who runs.
    pub(crate) registry: Registry,
}

impl Launcher {
    /// Logs go to `logs`, which is made.
    pub(crate) fn new(logs: &Path, clock: Clock) -> Result<Launcher> {
        fs::create_dir_all(logs).with_context(|| format!("cannot make {}", logs.display()))?;
        let exe = std::env::current_exe().context("cannot find this program's own file")?;
        Ok(Launcher {
            exe,
            logs: logs.to_owned(),
            clock,
            registry: Registry::default(),
        })
    }

    /// Starts a child; `tap` sees its log.
    pub(crate) fn start(&self, spec: &Spec, tap: Option<Tap>) -> Result<Running> {
        let path = self
            .logs
            .join(format!("{}.log", spec.name.replace(' ', "-")));
        let open = || OpenOptions::new().create(true).append(true).open(&path);
        let mut log = open().with_context(|| format!("cannot write {}", path.display()))?;
        writeln!(log, "--- {} {:?}", spec.party, spec.args)?;
        let mut command = Command::new(&self.exe);
        if spec.bare {
            command
                .env_clear()
                .envs(std::env::vars_os().filter(|(k, _)| k.to_string_lossy().starts_with("AWS_")));
        }
        command
            .arg(format!("party:{}", spec.party))
            .args(&spec.args)
            .env(PARENT, std::process::id().to_string());
        if let Some(filter) = spec.log_filter {
            command.env("RUST_LOG", filter);
        }
        command
            .stdin(if spec.fed {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped());
        command.stderr(if tap.is_some() {
            Stdio::piped()
        } else {
            Stdio::from(log.try_clone()?)
        });
        command.process_group(0); // an interrupt at the terminal is for the demo, which stops its children in order
        let mut running_names = lock(&self.registry.0);
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {}", spec.name))?;
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("process ids fit"));
        running_names.insert(spec.name.clone(), pid);
        drop(running_names);
        let said = Arc::new(Said::default());
        let mut readers = Vec::new();
        if let Some(out) = child.stdout.take() {
            let (said, log) = (Arc::clone(&said), open()?);
            readers.push(std::thread::spawn(move || read_out(out, &said, log)));
        }
        if let (Some(err), Some(tap)) = (child.stderr.take(), tap) {
            readers.push(std::thread::spawn(move || read_err(err, &tap, log)));
        }
        let registry = self.registry.clone();
        Ok(Running {
            name: spec.name.clone(),
            child,
            said,
            readers,
            path,
            registry,
            clock: self.clock.clone(),
            over: None,
        })
    }

    /// Runs a child to its end; what it said on standard output, or an error with the end of its log.
    pub(crate) fn run(&self, spec: &Spec) -> Result<Vec<String>> {
        let mut running = self.start(spec, None)?;
        let status = running.wait();
        if !status.success() {
            bail!("{} ended with {status}{}", spec.name, running.tail());
        }
        Ok(running.said())
    }
}

#[derive(Debug, Default)]
struct Said {
    lines: Mutex<(VecDeque<String>, bool)>,
    more: Condvar,
}

/// One child.
#[derive(Debug)]
pub(crate) struct Running {
    /// Its name.
    pub(crate) name: String,
    child: Child,
    said: Arc<Said>,
    readers: Vec<JoinHandle<()>>,
    path: PathBuf,
    registry: Registry,
    clock: Clock,
    over: Option<ExitStatus>,
}

impl Running {
    /// Waits for a line of standard output that begins with `prefix`; the rest of that line.
    pub(crate) fn ready(&mut self, prefix: &str, within: Duration) -> Result<String> {
        let until = self.clock.instant() + within;
        let said = Arc::clone(&self.said);
        let mut lines = lock(&said.lines);
        loop {
            if let Some(rest) = lines.0.iter().rev().find_map(|l| l.strip_prefix(prefix)) {
                return Ok(rest.trim().to_owned());
            }
            let left = until.saturating_duration_since(self.clock.instant());
            if lines.1 || left.is_zero() {
                drop(lines);
                let why = self.ended().map_or_else(
                    || "did not say so in time".to_owned(),
                    |s| format!("ended with {s}"),
                );
                bail!(
                    "{} should say `{prefix}...` when it is ready, but {why}{}",
                    self.name,
                    self.tail()
                );
            }
            lines = said
                .more
                .wait_timeout(lines, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
    /// The child's standard input, once.
    pub(crate) fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }
    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        if self.over.is_none() {
            let mut names = lock(&self.registry.0);
            if let Ok(Some(status)) = self.child.try_wait() {
                names.remove(&self.name);
                self.over = Some(status);
            }
        }
        self.over
    }
    /// Waits for its end and for the last line it wrote.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let status = loop {
            if let Some(status) = self.ended() {
                break status;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        status
    }
    /// Asks it to stop and waits; `None` where it had to be killed after `within`.
    pub(crate) fn stop(&mut self, within: Duration) -> Option<ExitStatus> {
        self.registry.signal(&self.name, Signal::SIGTERM);
        let until = self.clock.instant() + within;
        while self.ended().is_none() {
            if self.clock.instant() >= until {
                self.kill();
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(self.wait())
    }
    /// Kills it and waits.
    pub(crate) fn kill(&mut self) {
        self.registry.signal(&self.name, Signal::SIGKILL);
        self.wait();
    }
    /// What it said on standard output.
    pub(crate) fn said(&self) -> Vec<String> {
        lock(&self.said.lines).0.iter().cloned().collect()
    }
    /// The last lines of its log, for an error.
    pub(crate) fn tail(&self) -> String {
        let text = fs::read(&self.path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(TAIL)..].join("\n    ");
        format!("\n  the end of its log:\n    {last}")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.kill();
        }
    }
}

fn read_out(out: impl std::io::Read, said: &Said, mut log: File) {
    for line in BufReader::new(out).lines().map_while(Result::ok) {
        let _ = writeln!(log, "{line}");
        let mut lines = lock(&said.lines);
        if lines.0.len() == KEPT {
            lines.0.pop_front();
        }
        lines.0.push_back(line);
        drop(lines);
        said.more.notify_all();
    }
    lock(&said.lines).1 = true;
    said.more.notify_all();
}

fn read_err(err: impl std::io::Read, tap: &Tap, mut log: File) {
    for line in BufReader::new(err).lines().map_while(Result::ok) {
        tap(&line);
        let _ = writeln!(log, "{line}");
    }
}
