//! A shim that is loaded into the repeater and lets one read or write move half of its bytes: strace can let a call fail, but
//! not do a part of it. It is compiled when it is needed, by `cc`, which building this tree needs, too.

use std::path::Path;
use std::process::Command;

use super::trace::Fault;

const SOURCE: &str = include_str!("short.c");

/// What the shim is told.
#[derive(Clone, Copy, Debug)]
pub struct Short<'a> {
    /// The call's name.
    pub call: &'a str,
    /// [`Fault::Short`] or [`Fault::Torn`].
    pub fault: Fault,
    /// Which of these calls of a thread.
    pub n: u32,
    /// On whose files.
    pub spool: &'a Path,
    /// It does nothing before there is this file.
    pub armed: &'a Path,
    /// Where it writes what it did.
    pub log: &'a Path,
}

/// Compiles the shim.
///
/// # Panics
/// Where there is no `cc`, or it does not.
pub fn compile(library: &Path) {
    let source = library.with_extension("c");
    std::fs::write(&source, SOURCE).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]);
    let done = cc.arg(library).arg(&source).arg("-ldl").output().unwrap();
    assert!(done.status.success(), "cc: {done:?}");
}

/// The environment of a party that has it.
#[must_use]
pub fn environment(library: &Path, short: &Short<'_>) -> Vec<String> {
    let set = |name: &str, value: &dyn std::fmt::Display| format!("{name}={value}");
    let mut all = vec![
        set("LD_PRELOAD", &library.display()),
        set("SHORT_CALL", &short.call),
        set("SHORT_N", &short.n),
        set("SHORT_SPOOL", &short.spool.display()),
        set("SHORT_ARMED", &short.armed.display()),
        set("SHORT_LOG", &short.log.display()),
    ];
    if short.fault == Fault::Torn {
        all.push("SHORT_FULL=1".into());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The second write of the shell's `printf`s, each of which is one.
    fn written(fault: Fault) -> (String, String, String) {
        let dir = tempfile::tempdir().unwrap();
        let (library, spool) = (dir.path().join("short.so"), dir.path().join("spool"));
        compile(&library);
        std::fs::create_dir(&spool).unwrap();
        let (armed, log, file) = (
            dir.path().join("armed"),
            dir.path().join("log"),
            spool.join("file"),
        );
        std::fs::write(&armed, "").unwrap();
        let short = Short {
            call: "write",
            fault,
            n: 2,
            spool: &spool,
            armed: &armed,
            log: &log,
        };
        let script = "exec 5>\"$0\"; printf 1234 >&5; printf abcdefgh >&5; printf 5678 >&5";
        let said = Command::new("env")
            .args(environment(&library, &short))
            .args(["sh", "-c", script])
            .arg(&file)
            .output()
            .unwrap();
        let text = |path| std::fs::read_to_string(path).unwrap_or_default();
        let errors = String::from_utf8_lossy(&said.stderr).into_owned();
        (text(file), text(log), errors)
    }

    #[test]
    fn a_write_moves_half_and_the_rest_is_asked_again_or_finds_the_disk_full() {
        let (file, log, errors) = written(Fault::Short);
        assert_eq!((file.as_str(), errors.as_str()), ("1234abcdefgh5678", ""));
        assert!(
            log.contains(" write(") && log.ends_with("(INJECTED)\n"),
            "{log}"
        );
        let (file, _, errors) = written(Fault::Torn);
        assert_eq!(file, "1234abcd5678");
        assert!(errors.contains("error"), "{errors}");
    }
}
