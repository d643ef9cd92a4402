//! A network namespace for one test, and others at the far end of cables. All are of this process's threads, so they
//! end with the test, however it ends, and the machine's own interfaces are never touched.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, setns, unshare};

/// Set where the test runs again, as root of a user namespace.
const INSIDE: &str = "BWC_SOURCES_INSIDE";

/// Runs a test in a namespace of its own: as root, or as root of a user namespace where this user may make one.
/// Where neither may be it says so loudly, and in CI it fails.
pub(crate) fn alone(name: &str, test: fn()) {
    let inside = std::env::var_os(INSIDE).is_some();
    if nix::unistd::geteuid().is_root() {
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
                .expect("root may make namespaces");
            for args in [
                &["--make-rprivate", "/"][..],
                &["-t", "sysfs", "none", "/sys"],
            ] {
                run("mount", args);
            }
            run("ip", &["link", "set", "lo", "up"]);
            test();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
        return;
    }
    assert!(!inside, "not root in a user namespace of its own");
    let own = std::env::current_exe().unwrap();
    let again = Command::new("unshare")
        .arg("-Ur")
        .arg(own)
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .status();
    // 1 is what unshare says where it may not; a test that fails ends with 101.
    let missing = match again {
        Ok(status) if status.success() => return,
        Ok(status) if status.code() == Some(1) && status.signal().is_none() => {
            "the right to make a user namespace".to_owned()
        }
        Ok(status) => panic!("{name}: {status}"),
        Err(e) => format!("the program unshare: {e}"),
    };
    lacks(name, &missing);
}

/// A test lacks something: said loudly, and in CI it fails.
pub(crate) fn lacks(name: &str, missing: &str) {
    assert!(std::env::var_os("CI").is_none(), "{name} needs {missing}");
    eprintln!("SKIPPED: {name} needs {missing}");
}

/// Whether a program is installed.
pub(crate) fn has(program: &str) -> bool {
    let asked = Command::new(program).arg("-v").output();
    asked.is_ok()
}

/// Runs a program to its end, which must be good.
pub(crate) fn run(program: &str, args: &[&str]) {
    let done = Command::new(program).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(
        done.status.success(),
        "{program} {}: {said}",
        args.join(" ")
    );
}

/// `ip`, in the words of a shell.
pub(crate) fn ip(words: &str) {
    run("ip", &words.split(' ').collect::<Vec<_>>());
}

/// Sets a number of the kernel's in this namespace.
pub(crate) fn set(path: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/{path}"), value).unwrap();
}

/// Whatever is at the far end of cables.
pub(crate) struct Far(File);

impl Far {
    /// One with nothing in it.
    pub(crate) fn new() -> Far {
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            quick();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        Far(made.join().unwrap())
    }

    /// Runs something there: what it opens stays there.
    pub(crate) fn within<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let there = || {
            setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
            f()
        };
        let done = std::thread::scope(|scope| scope.spawn(there).join());
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// `ip` there.
    pub(crate) fn ip(&self, words: &str) {
        self.within(|| ip(words));
    }

    /// Lays a cable from `near` to `far`; both ends are down.
    pub(crate) fn cable(&self, near: &str, far: &str) {
        use std::os::fd::AsRawFd;
        ip(&format!("link add {near} type veth peer name {far}"));
        let namespace = format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd());
        ip(&format!("link set {far} netns {namespace}"));
    }
}

/// Addresses are used at once, as on a dock's port.
pub(crate) fn quick() {
    set("ipv6/conf/default/accept_dad", "0");
}
