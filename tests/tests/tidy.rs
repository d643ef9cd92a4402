//! The house's rules as tests: what a reader may rely on in every file of this tree.
//!
//! Each rule walks the tree, collects every breach as `path:line: what, and what to do instead`, and
//! fails once with all of them. Rules read masked text (comments, strings and characters blanked), so
//! a word in prose breaks nothing; that masking and every rule that parses are tested below on small
//! samples that must be caught, since a rule that cannot fail says nothing.
//!
//! It reads text only: types are clippy's part (`.clippy.toml`), licences and versions cargo-deny's
//! (`deny.toml`). It needs no git and no network, so it holds for an unpacked archive too.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "tidy/cargo_text.rs"]
mod cargo_text;
#[path = "tidy/essay.rs"]
mod essay;
#[path = "tidy/faults.rs"]
mod faults;
#[path = "tidy/markdown.rs"]
mod markdown;
#[path = "tidy/rust_text.rs"]
mod rust_text;
#[path = "tidy/tree.rs"]
mod tree;

use std::collections::BTreeSet;
use std::fs;

use cargo_text::{closure, lock_graph, manifest_deps};
use markdown::{blocks, figure, markers, proof_exists};
use rust_text::{contains_word, functions, has_essay, machine_path, mask};
use tree::{Source, read, report, root, rust_files, text_files};

const MAX_FILE_LINES: usize = 500;
const MAX_FN_LINES: usize = 70;
/// A test or a maker of vectors may tell its cases one after the other.
const MAX_TELLING_LINES: usize = 100;

/// What the top level holds, besides LICENSE* and dotfiles; `target` is what cargo builds.
const TOP: [&str; 10] = [
    "Cargo.toml",
    "Cargo.lock",
    "deny.toml",
    "README.md",
    "appliance",
    "os-image",
    "systemd",
    "tests",
    "bench",
    "target",
];

/// Banned text, what to do instead, and the path prefixes where it is at home.
const BANNED: [(&str, &str, &[&str]); 10] = [
    (
        "tokio::spawn",
        "use link::tasks::Tasks: named, cancelled, awaited",
        &["appliance/link/src/tasks"],
    ),
    (
        "tokio::task::spawn",
        "use link::tasks::Tasks: named, cancelled, awaited",
        &["appliance/link/src/tasks"],
    ),
    (
        "unbounded_channel",
        "use a bounded channel, its bound in the limits file",
        &[],
    ),
    (
        "std::sync::mpsc::channel",
        "use std::sync::mpsc::sync_channel",
        &[],
    ),
    (
        "Instant::now",
        "take `now`; the shell asks link::clock::Clock",
        &["appliance/link/src/clock"],
    ),
    (
        "SystemTime::now",
        "take `now`; the shell asks link::clock::Clock",
        &["appliance/link/src/clock"],
    ),
    (
        "aws_lc_rs",
        "use protocol::suite",
        &["appliance/protocol/src/suite", "appliance/link/src/"],
    ),
    (
        "sled::",
        "the ledger is spool's alone",
        &["appliance/spool/src/"],
    ),
    ("static mut", "one owner per state: pass it", &[]),
    ("dbg!", "use tracing", &[]),
];

/// Crates of this workspace -> what each may depend on among them. The programs' side
/// (demo, tests, bench) may use all.
const DIRECTION: [(&str, &[&str]); 6] = [
    ("protocol", &[]),
    ("link", &["protocol"]),
    ("spool", &["protocol"]),
    ("repeater", &["spool", "link", "protocol"]),
    ("camera", &["link", "protocol"]),
    ("archive", &["link", "protocol"]),
];

/// All that `protocol` may build on. It does no IO and asks no clock; a name more is a design decision.
const PROTOCOL_DEPS: [&str; 9] = [
    "aws-lc-rs",
    "bytes",
    "ciborium",
    "coset",
    "minicbor",
    "rustls-pki-types",
    "rustls-webpki",
    "thiserror",
    "zeroize",
];

/// What must not reach `protocol` by any way.
const NEVER_IN_PROTOCOL: [&str; 6] = ["tokio", "sled", "quinn", "quinn-proto", "mio", "socket2"];

#[test]
fn top_level_holds_only_what_it_should() {
    let mut names: Vec<String> = fs::read_dir(root())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names
        .retain(|n| !n.starts_with('.') && !n.starts_with("LICENSE") && !TOP.contains(&n.as_str()));
    report(
        names
            .into_iter()
            .map(|n| format!("{n}: move it into one of {TOP:?}")),
    );
}

#[test]
fn files_are_short() {
    let long = |f: &Source| {
        let n = f.text.lines().count();
        (n > MAX_FILE_LINES).then(|| {
            format!(
                "{}: {n} lines of {MAX_FILE_LINES}: split it by what it does",
                f.path
            )
        })
    };
    report(rust_files().iter().filter_map(long));
}

#[test]
fn functions_are_short() {
    let mut found = Vec::new();
    for f in rust_files() {
        let tells = f.path.contains("/tests/") || f.path.contains("/examples/");
        let most = if tells {
            MAX_TELLING_LINES
        } else {
            MAX_FN_LINES
        };
        for (line, name, lines) in functions(&mask(&f.text)) {
            if lines > most {
                found.push(format!(
                    "{}:{line}: fn {name} has {lines} lines of {most}: name its parts",
                    f.path
                ));
            }
        }
    }
    report(found);
}

#[test]
fn every_file_opens_with_an_essay() {
    let bad = |f: &Source| {
        (!has_essay(&f.text)).then(|| {
            format!(
                "{}:1: open with a `//!` essay: purpose, invariants, what it does not do",
                f.path
            )
        })
    };
    report(rust_files().iter().filter_map(bad));
}

#[test]
fn banned_calls_have_their_replacement() {
    let mut found = Vec::new();
    for f in rust_files() {
        for (i, line) in mask(&f.text).lines().enumerate() {
            for (what, instead, home) in BANNED {
                if contains_word(line, what) && !home.iter().any(|h| f.path.starts_with(h)) {
                    found.push(format!("{}:{}: {what}: {instead}", f.path, i + 1));
                }
            }
        }
    }
    report(found);
}

#[test]
fn unsafe_is_in_one_module() {
    let home = "appliance/spool/src/early_writeback";
    let mut found = Vec::new();
    for f in rust_files().iter().filter(|f| !f.path.starts_with(home)) {
        for (i, line) in mask(&f.text).lines().enumerate() {
            if contains_word(line, "unsafe") || line.contains("allow(unsafe_code") {
                found.push(format!(
                    "{}:{}: only {home} may: use nix or a safe wrapper there",
                    f.path,
                    i + 1
                ));
            }
        }
    }
    report(found);
}

#[test]
fn nothing_is_left_for_later() {
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("todo", "!"),
        concat!("unimplemented", "!"),
    ];
    let mut found = Vec::new();
    for f in text_files() {
        for (i, line) in f.text.lines().enumerate() {
            if let Some(w) = words.iter().find(|w| contains_word(line, w)) {
                found.push(format!(
                    "{}:{}: {w}: do it, or file an issue",
                    f.path,
                    i + 1
                ));
            }
        }
    }
    report(found);
}

#[test]
fn no_path_of_somebodys_machine() {
    let mut found = Vec::new();
    for f in text_files() {
        for (i, line) in f.text.lines().enumerate() {
            if let Some(p) = machine_path(line) {
                found.push(format!(
                    "{}:{}: {p}: say it relative to the clone, or by a variable",
                    f.path,
                    i + 1
                ));
            }
        }
    }
    report(found);
}

#[test]
fn dependencies_point_one_way() {
    let ours: BTreeSet<&str> = DIRECTION
        .iter()
        .map(|d| d.0)
        .chain(["demo", "tests", "bench"])
        .collect();
    let mut found = Vec::new();
    for (krate, allowed) in DIRECTION {
        let path = format!("appliance/{krate}/Cargo.toml");
        for (section, dep) in manifest_deps(&read(&path)) {
            if ours.contains(dep.as_str()) && !allowed.contains(&dep.as_str()) {
                found.push(format!("{path}: [{section}] {dep}: {krate} may use {allowed:?}; put the scenario into tests"));
            }
        }
    }
    report(found);
}

#[test]
fn only_spool_knows_sled() {
    let mut found = Vec::new();
    for f in text_files()
        .iter()
        .filter(|f| f.path.ends_with("/Cargo.toml") && f.path != "appliance/spool/Cargo.toml")
    {
        if manifest_deps(&f.text).iter().any(|(_, dep)| dep == "sled") {
            found.push(format!("{}: sled: ask the spool", f.path));
        }
    }
    report(found);
}

#[test]
fn protocol_does_no_io() {
    let direct: Vec<String> = manifest_deps(&read("appliance/protocol/Cargo.toml"))
        .into_iter()
        .filter(|(section, _)| section == "dependencies")
        .map(|(_, dep)| dep)
        .collect();
    let more = direct
        .iter()
        .filter(|d| !PROTOCOL_DEPS.contains(&d.as_str()));
    let mut found: Vec<String> = more
        .map(|d| format!("protocol: {d}: not in PROTOCOL_DEPS"))
        .collect();
    let reached = closure(&lock_graph(&read("Cargo.lock")), &direct);
    found.extend(
        NEVER_IN_PROTOCOL
            .iter()
            .filter(|d| reached.contains(**d))
            .map(|d| format!("protocol: reaches {d}")),
    );
    report(found);
}

#[test]
fn every_number_in_readme_names_its_proof() {
    let blocks = blocks(&read("README.md"));
    assert!(!blocks.is_empty(), "README.md is empty");
    let bare = blocks.iter().filter_map(|(line, b)| {
        let fig = figure(b)?;
        markers(b).is_empty().then(|| {
            format!("README.md:{line}: {fig}: add (test: NAME), (suite: NAME), (bench: NAME) or (source: WHERE)")
        })
    });
    report(bare);
}

#[test]
fn every_named_proof_exists() {
    let rust = rust_files();
    let mut found = Vec::new();
    for f in text_files().iter().filter(|f| f.path.ends_with(".md")) {
        for (line, block) in blocks(&f.text) {
            for (kind, name) in markers(&block) {
                if !proof_exists(&rust, &kind, &name) {
                    found.push(format!(
                        "{}:{line}: ({kind}: {name}): there is no such {kind}",
                        f.path
                    ));
                }
            }
        }
    }
    report(found);
}

#[test]
fn every_rule_names_tests_that_exist_and_says_what_was_tried() {
    let (rust, out) = (rust_files(), read("tests/taken_out.toml"));
    let text = read("appliance/ARCHITECTURE.md");
    let table = text.split("| tried |").nth(1).unwrap();
    let mut found = Vec::new();
    let rows = table.lines().skip(2).take_while(|l| l.starts_with('|'));
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let names: Vec<&str> = cells[3].split('`').skip(1).step_by(2).collect();
        let listed = names
            .iter()
            .any(|n| out.contains(&format!("test = \"{n}\"")));
        if names.is_empty() || !names.iter().all(|n| proof_exists(&rust, "test", n)) {
            found.push(format!(
                "{}: names no test, or one that does not exist",
                cells[1]
            ));
        }
        if (cells[4] == "yes") != listed {
            found.push(format!(
                "{}: `yes` stands where taken_out.toml has its test",
                cells[1]
            ));
        }
    }
    report(found);
}

#[test]
fn every_line_to_be_taken_out_is_there_once() {
    let unescape = |s: &str| s.replace("\\n", "\n").replace("\\\"", "\"");
    let value = |rule: &str, key: &str| {
        let line = rule
            .lines()
            .find_map(|l| l.strip_prefix(&format!("{key} = \"")));
        unescape(line.and_then(|l| l.strip_suffix('"')).unwrap())
    };
    let out = read("tests/taken_out.toml");
    let rules: Vec<&str> = out.split("[[rule]]").skip(1).collect();
    assert!(rules.len() >= 20, "{} rules", rules.len());
    report(rules.iter().filter_map(|rule| {
        let (file, line) = (value(rule, "file"), value(rule, "line"));
        let times = read(&file).matches(&line).count();
        (times != 1).then(|| format!("{file}: `{line}` stands there {times} times, not once"))
    }));
}

// ---- the rules catch what they should ----

#[test]
fn masking_hides_prose_and_keeps_code() {
    let src = "let a = \"Instant::now\"; // Instant::now\nlet b = r#\"x\"y\"#; /* unsafe\n*/ let c = '\"'; fn f<'a>() {}";
    let m = mask(src);
    assert_eq!(m.lines().count(), src.lines().count());
    assert!(
        !m.contains("now") && !m.contains("unsafe") && m.contains("fn f<'a>() {}"),
        "{m}"
    );
}

#[test]
fn samples_that_break_a_rule_are_caught() {
    let long = format!(
        "fn short() {{}}\nfn long(a: [u8; 2]) {{\n{}}}",
        "    if a {}\n".repeat(70)
    );
    assert_eq!(
        functions(&mask(&long)),
        [(1, "short".into(), 1), (2, "long".into(), 72)]
    );
    assert!(
        contains_word("x = Instant::now();", "Instant::now")
            && !contains_word("tokio::spawner", "tokio::spawn")
    );
    assert!(
        machine_path(concat!("see /wo", "rk/main")).is_some()
            && machine_path(concat!("net/wo", "rk/main")).is_none()
    );
    assert!(!has_essay("use std;\n") && !has_essay(&format!("//! one line\n{}", "\n".repeat(40))));
    let deps = manifest_deps(
        "[dependencies]\nsled.workspace = true\n[dev-dependencies.link]\npath = \"x\"\n",
    );
    assert_eq!(
        deps,
        [
            ("dependencies".into(), "sled".into()),
            ("dev-dependencies".into(), "link".into())
        ]
    );
    let md = "It is fast: at least\n150 MiB/s.\n\n- stops in 5 s (test: shutdown)\n- listens on `7 s` 4 ways\n";
    let figs: Vec<_> = blocks(md)
        .iter()
        .map(|(n, b)| (*n, figure(b).is_some(), markers(b).len()))
        .collect();
    assert_eq!(figs, [(1, true, 0), (4, true, 1), (5, false, 0)]);
    let none = |kind, name| !proof_exists(&[], kind, name);
    assert!(none("test", "shutdown") && none("suite", "syscalls") && none("bench", "relay"));
    assert!(proof_exists(&rust_files(), "suite", "power-cut"));
    assert_eq!(
        markers("all of 7 cameras (suite: syscalls)"),
        [("suite".into(), "syscalls".into())]
    );
}
