//! Every configuration that is shipped or shown in the README passes its program's own `check`, and an error in one is named with file, line,
//! key, reason and how to mend it.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use link::config::Source;
use tests::process::run;
use tests::station::{Plan, STATION, Station};

/// Configurations in the folders that are installed from.
fn shipped() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let (mut found, mut folders) = (
        Vec::new(),
        vec![root.join("systemd"), root.join("os-image")],
    );
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().path())
        {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "toml") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Configurations that the README shows.
fn shown() -> Vec<String> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = std::fs::read_to_string(readme).unwrap();
    let blocks = text.split("```toml\n").skip(1);
    blocks
        .map(|rest| rest.split_once("```").unwrap().0.to_owned())
        .collect()
}

/// Which program a configuration is for, by its first lines' words.
fn program(text: &str) -> Option<&'static str> {
    let has = |word: &str| text.lines().any(|l| l.starts_with(word));
    match (has("[identity]"), has("receipt_key")) {
        (true, _) => Some("repeaterd"),
        (_, true) => Some("archive"),
        _ => None,
    }
}

/// The configuration with the trial agency's papers where it names installed ones.
fn with_trial_papers(station: &Station, program: &str, text: &str) -> String {
    let agency = |p: &str| station.agency.path(p).display().to_string();
    let own = if program == "archive" {
        agency("archives/site-a")
    } else {
        agency(&format!("repeaters/{STATION}-1"))
    };
    let folder = if program == "archive" {
        "/etc/archive"
    } else {
        "/etc/repeater"
    };
    let mut text = text.to_owned();
    for shared in ["trust.pem", "crl.pem", "key-list.cose"] {
        text = text.replace(
            &format!("\"{folder}/{shared}\""),
            &format!("\"{}\"", agency(shared)),
        );
        // The README names files of the working directory.
        text = text.replace(
            &format!("= \"{shared}\""),
            &format!("= \"{}\"", agency(shared)),
        );
    }
    for private in ["chain.pem", "key.pem", "receipt.key"] {
        text = text.replace(
            &format!("= \"{private}\""),
            &format!("= \"{own}/{private}\""),
        );
    }
    let text = text.replace("\"$CREDENTIALS_DIRECTORY/", &format!("\"{own}/"));
    text.replace(&format!("\"{folder}/"), &format!("\"{own}/"))
}

#[test]
fn every_shipped_configuration_passes_check() {
    let station = Station::new(Plan::default());
    let mut programs = Vec::new();
    for path in shipped() {
        let text = std::fs::read_to_string(&path).unwrap();
        let Some(program) = program(&text) else {
            continue;
        };
        let copy = station.path("config.toml");
        std::fs::write(&copy, with_trial_papers(&station, program, &text)).unwrap();
        let said = run(program, ["check", copy.to_str().unwrap()]);
        assert_eq!(said.code, Some(0), "{}: {}", path.display(), said.err);
        programs.push(program);
    }
    for program in ["repeaterd", "archive"] {
        assert!(
            programs.contains(&program),
            "no configuration of {program} is shipped"
        );
    }
}

#[test]
fn what_the_readme_shows_passes_check() {
    let station = Station::new(Plan::default());
    let mut programs = Vec::new();
    for text in shown() {
        if text.starts_with("station = ") {
            // What an agency plans of a station; no program runs by it.
            let plan = Source::new("readme.toml", text);
            link::enrolment::Plan::parse(&plan).unwrap();
            programs.push("agency");
            continue;
        }
        let program = program(&text).unwrap_or_else(|| panic!("whose is this?\n{text}"));
        let copy = station.path("readme.toml");
        std::fs::write(&copy, with_trial_papers(&station, program, &text)).unwrap();
        let said = run(program, ["check", copy.to_str().unwrap()]);
        assert_eq!(said.code, Some(0), "{program}: {}\n{text}", said.err);
        programs.push(program);
    }
    programs.sort_unstable();
    assert_eq!(programs, ["agency", "archive", "repeaterd"]);
}

#[test]
fn an_error_is_named_with_file_line_key_reason_and_cure() {
    let station = Station::new(Plan::default());
    for path in shipped() {
        let text = std::fs::read_to_string(&path).unwrap();
        let Some(program) = program(&text) else {
            continue;
        };
        let good = with_trial_papers(&station, program, &text);
        let copy = station.path("broken.toml");
        let broken = good.replacen(":478", ":x478", 1);
        let (line, words) = broken
            .lines()
            .zip(1..)
            .find_map(|(words, line)| words.contains(":x478").then_some((line, words)))
            .unwrap();
        let key = words.split_once('=').unwrap().0.trim();
        std::fs::write(&copy, &broken).unwrap();
        let said = run(program, ["check", copy.to_str().unwrap()]);
        assert_eq!(said.code, Some(78), "{program}: {}", said.err);
        let place = format!("broken.toml:{line}:");
        for part in [place.as_str(), key, "x478", "write an address and a port"] {
            assert!(
                said.err.contains(part),
                "{program}: no `{part}` in {}",
                said.err
            );
        }
        std::fs::write(&copy, format!("colour = 1\n{good}")).unwrap();
        let said = run(program, ["check", copy.to_str().unwrap()]);
        assert!(
            said.code == Some(78)
                && said.err.contains("broken.toml:1:")
                && said.err.contains("colour"),
            "{program}: {}",
            said.err
        );
    }
}
