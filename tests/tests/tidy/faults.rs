//! No program can seed a fault in the spool: outside the spool and the suites nobody names one, and inside nothing
//! but the value given to its constructor decides: no environment, no feature, no flag of the compiler.
//!
//! It reads masked text. A fault is made by `Faults::of` alone; that, imports of its name, and a field `faults` with
//! another value than `Faults::none()` are what the rule looks for. The suites' folder and the spool's are at home.

use crate::cargo_text::manifest_deps;
use crate::rust_text::{contains_word, mask};
use crate::tree::{report, rust_files, text_files};

const SPOOL: &str = "appliance/spool/src/";
const SUITES: [&str; 3] = ["appliance/spool/src/", "appliance/spool/tests/", "tests/"];

/// What reads the environment, while it runs or while it is built.
const ENVIRONMENT: [&str; 5] = ["std::env", "env::var", "env::args", "env!", "option_env!"];

/// Every breach in one file, without its path.
fn breaches(path: &str, text: &str) -> Vec<String> {
    let code = mask(text);
    let mut found = Vec::new();
    if !SUITES.iter().any(|home| path.starts_with(home)) {
        found.extend(names_a_fault(&code));
    }
    // What stands behind the unit tests' gate is no part of a program.
    let program = code.split("#[cfg(test)]").next().unwrap_or_default();
    for (i, line) in program.lines().enumerate() {
        let at = i + 1;
        let packed: String = line.split_whitespace().collect();
        if packed.contains("feature=") && packed.contains("cfg") {
            found.push(format!("{at}: a feature: say it by a value"));
        }
        if !path.starts_with(SPOOL) {
            continue;
        }
        if packed.contains("cfg!(") || packed.contains("cfg(") || packed.contains("cfg_attr(") {
            found.push(format!("{at}: the compiler's flags decide nothing here"));
        }
        if contains_word(line, "Faults::of") {
            found.push(format!("{at}: a fault in a program"));
        }
        let asks = |what: &&&str| contains_word(line, what);
        found.extend(
            ENVIRONMENT
                .iter()
                .find(asks)
                .map(|what| format!("{at}: {what}: take it as an option")),
        );
    }
    found
}

fn names_a_fault(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (i, line) in code.lines().enumerate() {
        let at = i + 1;
        let other = |field: &str| {
            let value = line.split(field).nth(1).map(str::trim_start);
            contains_word(line, field) && value.is_some_and(|v| !v.starts_with("Faults::none()"))
        };
        if contains_word(line, "Faults::of") || contains_word(line, "spool::Fault") {
            found.push(format!("{at}: names a fault: only suites may"));
        }
        if other("faults:") || other(".faults =") {
            found.push(format!("{at}: pass Faults::none()"));
        }
    }
    for import in code.split("use spool::").skip(1) {
        let import = import.split(';').next().unwrap_or_default();
        if contains_word(import, "Fault") || import.contains('*') || import.contains("Faults as") {
            found.push(format!("use spool::{import}: imports a fault"));
        }
    }
    found
}

#[test]
fn no_program_can_seed_a_fault() {
    let of_file = |path: &str, text: &str| -> Vec<String> {
        let found = breaches(path, text).into_iter();
        found.map(|what| format!("{path}:{what}")).collect()
    };
    let mut found: Vec<String> = rust_files()
        .iter()
        .flat_map(|f| of_file(&f.path, &f.text))
        .collect();
    for f in text_files()
        .iter()
        .filter(|f| f.path.ends_with("Cargo.toml"))
    {
        if f.text.lines().any(|l| l.trim() == "[features]") {
            found.push(format!("{}: [features]: say it by a value", f.path));
        }
        if f.path.starts_with("appliance/spool/") && f.text.contains("build") {
            found.push(format!(
                "{}: the spool is built from its source alone",
                f.path
            ));
        }
        let deps = manifest_deps(&f.text);
        let renamed = |line: &str| line.contains("package") && line.contains("\"spool\"");
        if deps.iter().any(|(_, dep)| dep == "fail") || f.text.lines().any(renamed) {
            found.push(format!("{}: no fail points, no other name", f.path));
        }
    }
    let script = |f: &&crate::tree::Source| f.path == "appliance/spool/build.rs";
    found.extend(rust_files().iter().find(script).map(|f| f.path.clone()));
    report(found);
}

#[test]
fn every_way_to_seed_a_fault_is_caught() {
    let program = "appliance/repeater/src/run.rs";
    for bad in [
        "use spool::{Fault, Spool};",
        "use spool::{\n    Faults,\n    Fault,\n};",
        "use spool::*;",
        "use spool::{Faults as Other};",
        "let f = spool::Fault::NoLedgerSync;",
        "let f = Faults::of(&list);",
        "    faults: config.faults,",
        "options.faults = other;",
        "#[cfg(feature = \"faults\")]",
        "if cfg!(feature = \"faults\") {}",
    ] {
        assert!(!breaches(program, bad).is_empty(), "{bad}");
    }
    for bad in [
        "let f = std::env::var(\"F\");",
        "let f = option_env!(\"F\");",
        "use std::env;",
        "#[cfg(debug_assertions)]",
        "Options { faults: Faults::of(&list) }",
    ] {
        assert!(
            !breaches("appliance/spool/src/spool.rs", bad).is_empty(),
            "{bad}"
        );
    }
    for good in [
        "use spool::{Faults, Spool};\n    faults: Faults::none(),",
        "Err(Ended::Fault(why))",
        "// use spool::Fault;",
    ] {
        assert_eq!(breaches(program, good), Vec::<String>::new(), "{good}");
    }
    let suite = "tests/src/power_cut/driver.rs";
    assert!(breaches(suite, "let f = Faults::of(&[Fault::NoSpace]);").is_empty());
}
