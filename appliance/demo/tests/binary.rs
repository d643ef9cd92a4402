//! The program `demo` as a user runs it: its exit code and its last line, exact, with footage at the edges of a
//! segment; and what it says where it cannot do what was asked.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const MIB: usize = 1 << 20;

fn demo(args: &[&str], footage: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_demo"))
        .args(args)
        .arg("--footage")
        .arg(footage)
        .output()
        .unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn footage_at_the_edges_of_a_segment_is_counted_exactly() {
    let dir = tempfile::tempdir().unwrap();
    for (n, length) in [0, 1, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1].iter().enumerate() {
        let bytes: Vec<u8> = (0..*length)
            .map(|i| (i * 7 / 3 + n).to_le_bytes()[0])
            .collect();
        fs::write(dir.path().join(format!("{n}")), bytes).unwrap();
    }
    let ran = demo(&["--cameras", "2", "--timeout", "60"], dir.path());
    assert_eq!(ran.status.code(), Some(0), "{}", errors(&ran));
    let said = String::from_utf8(ran.stdout).unwrap();
    let expected = "demo: 2 cameras, 5 recordings, 6 segments, 12582913 bytes: \
                    6 archived, 6 released, 0 lost, footage identical";
    assert_eq!(said.lines().last(), Some(expected), "{said}");
}

#[test]
fn what_cannot_be_done_is_said_and_ends_without_a_last_line() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("not-there");
    for (args, footage, code, says) in [
        (&[][..], missing.as_path(), 1, "not-there"),
        (&[], dir.path(), 1, "holds no file"),
        (&["--cameras", "0"], dir.path(), 64, "--cameras"),
        (&["--no-such-option"], dir.path(), 64, "--no-such-option"),
    ] {
        let ran = demo(args, footage);
        assert_eq!(ran.status.code(), Some(code), "{args:?}: {}", errors(&ran));
        assert!(errors(&ran).contains(says), "{args:?}: {}", errors(&ran));
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(!said.contains("identical"), "{said}");
    }
}
