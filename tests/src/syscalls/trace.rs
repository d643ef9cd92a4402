//! strace on a party: lets the Nth call of a name on the spool fail, and says which call that was.
//!
//! strace counts each thread for itself, and looks only at files that it was told by name; those that a scene touches are known
//! from the run in which its calls are counted. The party is attached to: it stays the harness's own child.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::process::{self, Party};
use crate::wait::{LONG, eventually, now};

/// Calls that read, change or sync what the spool keeps, or make the file for it.
const CALLS: [&str; 19] = [
    "openat",
    "read",
    "pread64",
    "write",
    "pwrite64",
    "writev",
    "fallocate",
    "truncate",
    "ftruncate",
    "fsync",
    "fdatasync",
    "sync_file_range",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "mkdir",
    "rmdir",
];

/// Those of them that move bytes: only their descriptor is about a file.
const READS: [&str; 2] = ["read", "pread64"];
const WRITES: [&str; 3] = ["write", "pwrite64", "writev"];

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The disk.
    Eio,
    /// The disk is full.
    Enospc,
    /// A signal came.
    Eintr,
    /// The process ends here.
    Kill,
    /// Half of the bytes are moved; see [`super::short`].
    Short,
    /// Half of the bytes are written, and then the disk is full.
    Torn,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Fault; 6] = [
        Fault::Eio,
        Fault::Enospc,
        Fault::Eintr,
        Fault::Kill,
        Fault::Short,
        Fault::Torn,
    ];

    /// What strace is told; none for what it cannot do.
    fn injected(self) -> Option<&'static str> {
        match self {
            Fault::Eio => Some("error=EIO"),
            Fault::Enospc => Some("error=ENOSPC"),
            Fault::Eintr => Some("error=EINTR"),
            Fault::Kill => Some("signal=SIGKILL"),
            Fault::Short | Fault::Torn => None,
        }
    }

    /// Whether a call can fail so.
    #[must_use]
    pub fn fits(self, call: &str) -> bool {
        let (reads, writes) = (READS.contains(&call), WRITES.contains(&call));
        match self {
            Fault::Eio | Fault::Eintr | Fault::Kill => true,
            Fault::Enospc => !reads,
            Fault::Short => reads || writes,
            Fault::Torn => writes,
        }
    }
}

/// A call as strace writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The thread.
    pub thread: u32,
    /// Its name.
    pub name: String,
    /// The files it is about, relative to the spool; the first is the one it acts on.
    pub files: Vec<String>,
    /// Whether it was made to fail.
    pub injected: bool,
}

/// strace, or the shim, at work.
#[derive(Debug)]
pub struct Trace {
    strace: Option<Party>,
    file: PathBuf,
    spool: PathBuf,
}

/// Why there can be no trace here, if so.
#[must_use]
pub fn missing() -> Option<String> {
    let done = process::run("under", ["strace", "-qq", "-o", "/dev/null", "true"]);
    (done.code != Some(0)).then(|| {
        format!(
            "`strace true` ends with {:?}: strace 6 and the right to trace one's own children are needed: {}{}",
            done.code, done.out, done.err
        )
    })
}

impl Trace {
    /// Attaches to a party and counts its calls on the spool; with `fault`, the call of that name and number on one of the
    /// files fails.
    ///
    /// # Panics
    /// Where strace does not attach.
    #[must_use]
    pub fn attach(
        party: &Party,
        logs: &Path,
        spool: &Path,
        files: &BTreeSet<String>,
        fault: Option<(&str, Fault, u32)>,
    ) -> Trace {
        let file = logs.join("trace");
        let mut args: Vec<String> = ["strace", "-f", "-qq", "-y", "-s", "0", "-e", "signal=none"]
            .map(str::to_owned)
            .into();
        args.extend(["-o".into(), file.display().to_string()]);
        args.extend(["-p".into(), party.id().to_string()]);
        args.push("-e".into());
        match fault {
            None => args.push(format!(
                "trace={}",
                CALLS.map(|c| format!("?{c}")).join(",")
            )),
            Some((call, fault, n)) => {
                let how = fault.injected().expect("strace can do it");
                args.push(format!("trace={call}"));
                args.push("-e".into());
                args.push(format!("inject={call}:{how}:when={n}"));
                for file in files {
                    args.extend(["-P".into(), spool.join(file).display().to_string()]);
                }
            }
        }
        let strace = Party::start(logs, "strace", "under", args, "off");
        eventually("strace attaches", Duration::from_secs(20), || {
            is_traced(party.id()).then_some(())
        });
        Trace {
            strace: Some(strace),
            file,
            spool: spool.to_owned(),
        }
    }

    /// What the shim writes to `file`, of a party that has it.
    #[must_use]
    pub fn of_shim(file: PathBuf, spool: &Path) -> Trace {
        Trace {
            strace: None,
            file,
            spool: spool.to_owned(),
        }
    }

    /// What it saw, once `end` has seen to it that the party it is attached to has ended.
    ///
    /// # Panics
    /// Where strace does not end.
    #[must_use]
    pub fn calls_after(mut self, end: impl FnOnce()) -> Vec<Call> {
        end();
        if let Some(strace) = &mut self.strace {
            strace.ended(Duration::from_secs(20));
        }
        // The shim makes no file where it had nothing to do.
        let text = std::fs::read(&self.file).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let root = self.spool.display().to_string();
        let lines = whole(&text);
        lines.iter().filter_map(|l| parse(l, &root)).collect()
    }
}

/// Waits until this process is traced; whether it is, in time.
#[must_use]
pub fn until_traced() -> bool {
    let own = std::process::id();
    let until = now() + LONG;
    while now() < until {
        if is_traced(own) {
            // strace has it, and is about to look at its calls.
            std::thread::sleep(Duration::from_millis(20));
            return true;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    false
}

/// Whether every thread of a process is traced.
fn is_traced(id: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{id}/task")) else {
        return true; // it has ended, which is found out elsewhere
    };
    threads.map_while(Result::ok).all(|t| {
        let status = std::fs::read_to_string(t.path().join("status")).unwrap_or_default();
        traced_or_gone(&status)
    })
}

/// What the kernel says of a thread. One that was ended at once, by the fault for which it is traced, waits for its parent to
/// take note: nobody traces it any more, which is found out elsewhere.
fn traced_or_gone(status: &str) -> bool {
    let says = |line: &str| status.lines().any(|l| l.starts_with(line));
    says("State:\tZ") || says("State:\tX") || !says("TracerPid:\t0")
}

/// The lines of strace's, those joined that it broke where another thread made a call meanwhile.
fn whole(text: &str) -> Vec<String> {
    let mut begun: BTreeMap<&str, &str> = BTreeMap::new();
    let mut lines = Vec::new();
    for line in text.lines() {
        let thread = line.split(' ').next().unwrap_or_default();
        if let Some(part) = line.strip_suffix(" <unfinished ...>") {
            begun.insert(thread, part);
            continue;
        }
        let rest = line
            .split_once("<... ")
            .and_then(|(_, l)| l.split_once(" resumed>"));
        match rest.and_then(|(_, rest)| begun.remove(thread).map(|part| (part, rest))) {
            Some((part, rest)) => lines.push(format!("{part}{rest}")),
            None => lines.push(line.to_owned()),
        }
    }
    // What was under way when the process ended was made, too.
    lines.extend(begun.into_values().map(str::to_owned));
    lines
}

/// A line of strace's, where it is a call on a file of the spool.
fn parse(line: &str, spool: &str) -> Option<Call> {
    let (thread, rest) = line.split_once(' ')?;
    let (name, rest) = rest.trim_start().split_once('(')?;
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return None;
    }
    // Bytes are no names: of calls that move them only the descriptor counts.
    let about = if READS.contains(&name) || WRITES.contains(&name) {
        rest.split(", ").next()?
    } else {
        rest
    };
    let mut files: Vec<String> = Vec::new();
    for part in about.split(spool).skip(1) {
        let name = part.split(['>', '"']).next()?.trim_start_matches('/');
        if !files.iter().any(|f| f == name) {
            files.push(name.to_owned());
        }
    }
    (!files.is_empty()).then(|| Call {
        thread: thread.parse().unwrap_or(0),
        name: name.to_owned(),
        files,
        injected: line.ends_with("(INJECTED)"),
    })
}

/// How often the busiest thread makes each call; `only` counts that thread alone.
#[must_use]
pub fn counted(calls: &[Call], only: Option<u32>) -> BTreeMap<String, u32> {
    let mut of: BTreeMap<(&str, u32), u32> = BTreeMap::new();
    for call in calls.iter().filter(|c| only.is_none_or(|t| c.thread == t)) {
        *of.entry((&call.name, call.thread)).or_default() += 1;
    }
    let mut most = BTreeMap::new();
    for ((name, _), n) in of {
        let entry: &mut u32 = most.entry(name.to_owned()).or_default();
        *entry = n.max(*entry);
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_killed_while_strace_attaches_is_not_waited_for() {
        let status = |state: &str, tracer: u32| {
            format!("Name:\trepeaterd\nState:\t{state}\nPid:\t7\nTracerPid:\t{tracer}\nUid:\t0\n")
        };
        assert!(traced_or_gone(&status("S (sleeping)", 9)));
        assert!(!traced_or_gone(&status("S (sleeping)", 0)));
        assert!(traced_or_gone(&status("Z (zombie)", 0)));
        assert!(traced_or_gone(""), "gone between two looks");
    }

    #[test]
    fn a_line_of_strace_is_read() {
        let line = "17 fdatasync(3</s/p/segments/ab>) = -1 EIO (Input/output error) (INJECTED)";
        let call = parse(line, "/s/p").unwrap();
        assert_eq!((call.thread, call.name.as_str()), (17, "fdatasync"));
        assert_eq!(
            (call.files, call.injected),
            (vec!["segments/ab".into()], true)
        );
        let line = "17 rename(\"/s/p/a.tmp\", \"/s/p/a\") = 0";
        assert_eq!(parse(line, "/s/p").unwrap().files, ["a.tmp", "a"]);
        let line = "17 pwrite64(9</x/y>, \"/s/p/a\", 6, 0) = 6";
        assert_eq!(parse(line, "/s/p"), None);
        assert_eq!(parse("17 <... fsync resumed>) = 0", "/s/p"), None);
    }

    #[test]
    fn a_call_fails_only_as_it_can() {
        let fits = |call| Fault::ALL.map(|fault| fault.fits(call));
        assert_eq!(fits("pwrite64"), [true; 6]);
        assert_eq!(fits("pread64"), [true, false, true, true, true, false]);
        assert_eq!(fits("unlink"), [true, true, true, true, false, false]);
    }

    #[test]
    fn a_call_that_strace_broke_in_two_is_one() {
        let text = "1 fsync(3</s/a> <unfinished ...>\n2 fsync(4</s/b>) = 0\n1 <... fsync resumed>) = -1 EIO (x) (INJECTED)\n2 fsync(5</s/c> <unfinished ...>\n";
        let calls: Vec<_> = whole(text).iter().filter_map(|l| parse(l, "/s")).collect();
        let seen: Vec<_> = calls
            .iter()
            .map(|c| (c.files[0].as_str(), c.injected))
            .collect();
        assert_eq!(seen, [("b", false), ("a", true), ("c", false)]);
    }

    #[test]
    fn the_busiest_thread_counts() {
        let call = |thread, name: &str| Call {
            thread,
            name: name.into(),
            files: vec!["x".into()],
            injected: false,
        };
        let calls = [
            call(1, "fsync"),
            call(1, "fsync"),
            call(2, "fsync"),
            call(2, "write"),
        ];
        let all = counted(&calls, None);
        assert_eq!((all["fsync"], all["write"]), (2, 1));
        assert_eq!(counted(&calls, Some(2))["fsync"], 1);
    }
}
