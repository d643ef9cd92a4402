//! Markdown as text: paragraphs, figures, and the proofs that figures name.
//!
//! A figure is a number with a unit outside `code`. A proof is a marker in the same paragraph, list
//! item or table row: a test, a suite, a bench, or the source of a fact that is not ours to test. It does
//! not judge whether the proof proves the figure: that is the reviewer's part.

use std::path::Path;

use super::tree::Source;

/// (first line, text) of each paragraph, list item and table row outside code fences.
pub(crate) fn blocks(markdown: &str) -> Vec<(usize, String)> {
    let (mut found, mut fenced, mut open) = (Vec::<(usize, String)>::new(), false, false);
    for (i, line) in markdown.lines().enumerate() {
        let t = line.trim();
        if t.starts_with("```") {
            (fenced, open) = (!fenced, false);
        } else if fenced || t.is_empty() || (!open && line.starts_with("    ")) {
            open = false;
        } else {
            let item = t.starts_with(['|', '#', '-', '*'])
                || t.split_once(". ")
                    .is_some_and(|(n, _)| n.parse::<u32>().is_ok());
            if open && !item {
                found.last_mut().unwrap().1.push_str(&format!(" {t}"));
            } else {
                found.push((i + 1, t.to_owned()));
            }
            open = !t.starts_with(['|', '#']);
        }
    }
    found
}

/// The first number with a unit in the block, outside `code`: that is what a reader will hold us to.
pub(crate) fn figure(block: &str) -> Option<String> {
    const UNITS: [&str; 26] = [
        "%",
        "x",
        "ms",
        "s",
        "seconds",
        "minutes",
        "min",
        "hours",
        "h",
        "days",
        "B",
        "KiB",
        "MiB",
        "GiB",
        "kB",
        "MB",
        "GB",
        "TB",
        "MiB/s",
        "MB/s",
        "GB/s",
        "Mbit/s",
        "CPU-s/GiB",
        "CPU-seconds",
        "cameras",
        "bytes",
    ];
    let prose: String = block.split('`').step_by(2).collect::<Vec<_>>().join(" ");
    let words: Vec<&str> = prose
        .split([' ', '|', '(', ')', '*'])
        .map(|w| w.trim_end_matches(['.', ',', ';', ':', '!', '?']))
        .filter(|w| !w.is_empty())
        .collect();
    for (i, w) in words.iter().enumerate() {
        let unit = w.trim_start_matches(|c: char| c.is_ascii_digit() || ".,".contains(c));
        let (number, next) = (
            unit.len() < w.len(),
            words.get(i + 1).copied().unwrap_or(""),
        );
        if number && (UNITS.contains(&unit) || (unit.is_empty() && UNITS.contains(&next))) {
            return Some(format!("{w} {next}"));
        }
    }
    None
}

/// (test|suite|bench|source, name) of every marker in the block.
pub(crate) fn markers(block: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for kind in ["test", "suite", "bench", "source"] {
        for part in block.split(&format!("({kind}: ")).skip(1) {
            let names = part.split(')').next().unwrap();
            found.extend(
                names
                    .split(", ")
                    .map(|n| (kind.to_owned(), n.trim_matches('`').to_owned())),
            );
        }
    }
    found
}

/// A test is a scenario file (`outage`), a test function, both (`outage::drains`), or a case of the stations
/// (`stations dock`); a suite is a program of the
/// package `tests` (`power-cut`); a bench is a file of the bench package, and what follows `/` one of the figures it
/// prints.
pub(crate) fn proof_exists(rust: &[Source], kind: &str, name: &str) -> bool {
    let stem = |f: &Source| Path::new(&f.path).file_stem().is_some_and(|s| s == name);
    match kind {
        "test" if name.starts_with("stations ") => {
            let case = name.replacen("stations ", "case(\"", 1) + "\",";
            let suite = |f: &&Source| f.path == "tests/src/stations.rs";
            rust.iter().filter(suite).any(|f| f.text.contains(&case))
        }
        "test" => {
            let (of, func) = name.rsplit_once("::").unwrap_or(("", name));
            let home = |f: &&Source| of.split("::").all(|p| f.path.contains(p));
            rust.iter()
                .any(|f| f.path.starts_with("tests/tests/") && stem(f))
                || rust
                    .iter()
                    .filter(home)
                    .any(|f| f.text.contains("test]") && f.text.contains(&format!("fn {func}(")))
        }
        "suite" => {
            let path = format!("tests/src/bin/{}.rs", name.replace('-', "_"));
            rust.iter().any(|f| f.path == path)
        }
        "bench" => {
            let (file, fig) = name.split_once('/').unwrap_or((name, ""));
            let home = |f: &&Source| {
                f.path == format!("bench/src/{file}.rs")
                    || f.path.starts_with(&format!("bench/src/{file}/"))
            };
            rust.iter().filter(home).any(|f| f.text.contains(fig))
        }
        _ => !name.is_empty(),
    }
}
