//! One party as a process: the program `party` with the party's own arguments. Standard output and the log are files, so
//! that nothing is lost however it ends.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::station::netns::Namespace;
use crate::wait::{LONG, eventually};

/// What is logged, unless a scenario wants more.
pub const FILTER: &str = "info,quinn=warn,quinn_proto=warn,quinn_udp=warn,rustls=warn";

/// A running party.
#[derive(Debug)]
pub struct Party {
    name: String,
    child: Child,
    out: PathBuf,
    log: PathBuf,
}

/// What a party said and how it ended.
#[derive(Debug)]
pub struct Said {
    /// Its exit code, none where a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// The program `party`, which cargo builds beside the suites and one above the tests. The bench becomes every party
/// itself, since cargo may have built it alone, and an older `party` lie beside it.
pub(crate) fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    if own.file_name().is_some_and(|name| name == "bench") {
        return own;
    }
    let folders = own.ancestors().skip(1).take(2);
    folders
        .map(|folder| folder.join("party"))
        .find(|party| party.exists())
        .expect("cargo has built `party` in target/PROFILE")
}

/// Becomes another program, `args[1]` with the rest for its arguments. It dies with who started it, where this one asked
/// for that.
#[must_use]
pub fn under(args: &[OsString]) -> ExitCode {
    let Some((program, args)) = args.get(1..).and_then(<[OsString]>::split_first) else {
        eprintln!("party: under PROGRAM [ARGUMENT]...");
        return ExitCode::from(64);
    };
    let error = Command::new(program).args(args).exec();
    eprintln!("party: {}: {error}", program.to_string_lossy());
    ExitCode::from(127)
}

/// The program, or `ip` that becomes it within a namespace: the process id stays.
fn command(space: Option<&Namespace>) -> Command {
    let Some(space) = space else {
        return Command::new(program());
    };
    let mut command = Command::new("ip");
    command.args(["netns", "exec", space.name()]).arg(program());
    command
}

/// Runs a party to its end.
pub fn run<A: Into<OsString>>(name: &str, args: impl IntoIterator<Item = A>) -> Said {
    let args = args.into_iter().map(Into::into);
    let done = Command::new(program())
        .arg(format!("party:{name}"))
        .args(args)
        .env("RUST_LOG", FILTER)
        .output()
        .unwrap();
    Said {
        code: done.status.code(),
        out: String::from_utf8_lossy(&done.stdout).into_owned(),
        err: String::from_utf8_lossy(&done.stderr).into_owned(),
    }
}

impl Party {
    /// Starts a party. `name` names its files in `logs`; a second start of a name goes on with its log.
    pub fn start<A: Into<OsString>>(
        logs: &Path,
        name: &str,
        party: &str,
        args: impl IntoIterator<Item = A>,
        filter: &str,
    ) -> Party {
        Party::start_in(None, logs, name, party, args, filter)
    }

    /// The same in a network namespace.
    pub fn start_in<A: Into<OsString>>(
        space: Option<&Namespace>,
        logs: &Path,
        name: &str,
        party: &str,
        args: impl IntoIterator<Item = A>,
        filter: &str,
    ) -> Party {
        let (out, log) = (
            logs.join(format!("{name}.out")),
            logs.join(format!("{name}.log")),
        );
        let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
        let mut errors = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        writeln!(errors, "--- {party} {args:?}").unwrap();
        let child = command(space)
            .arg(format!("party:{party}"))
            .args(args)
            .env("RUST_LOG", filter)
            .stdin(Stdio::null())
            .stdout(File::create(&out).unwrap())
            .stderr(errors)
            .spawn()
            .unwrap();
        Party {
            name: name.to_owned(),
            child,
            out,
            log,
        }
    }

    /// The rest of the line of standard output that begins with `prefix`, once it is written.
    ///
    /// # Panics
    /// Where the party ends before, or never says it.
    pub fn ready(&mut self, prefix: &str) -> String {
        eventually(&format!("{} says `{prefix}...`", self.name), LONG, || {
            if let Some(rest) = self.says(prefix) {
                return Some(rest);
            }
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none(),
                "{} ended with {ended:?} before it was ready:\n{}",
                self.name,
                self.log()
            );
            None
        })
    }

    /// The rest of the line of standard output that begins with `prefix`, if it is written.
    #[must_use]
    pub fn says(&self, prefix: &str) -> Option<String> {
        let said = self.out();
        let whole = &said[..said.rfind('\n').unwrap_or(0)];
        let rest = whole.lines().find_map(|l| l.strip_prefix(prefix));
        rest.map(|r| r.trim().to_owned())
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to standard output so far.
    #[must_use]
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.out).unwrap()).into_owned()
    }

    /// What it and those of its name before it logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned()
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// Where the party has ended.
    pub fn signal(&self, signal: Signal) {
        kill(
            Pid::from_raw(i32::try_from(self.child.id()).unwrap()),
            signal,
        )
        .unwrap();
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// How it ended, if it has.
    pub fn how_it_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// How it ended, once it has.
    ///
    /// # Panics
    /// Where it does not end in time.
    pub fn ended(&mut self, within: Duration) -> ExitStatus {
        eventually(&format!("{} ends", self.name), within, || {
            self.child.try_wait().unwrap()
        })
    }

    /// SIGKILL, and its end.
    pub fn kill(&mut self) {
        if self.runs() {
            self.signal(Signal::SIGKILL);
        }
        self.child.wait().unwrap();
    }

    /// SIGTERM, and its exit code.
    ///
    /// # Panics
    /// Where it does not end in time.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        self.ended(LONG).code()
    }
}

impl Drop for Party {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}
