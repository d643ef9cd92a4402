//! Each numbered step of the spool's essay names the case of the suite `power-cut` that cuts the power there, and each case
//! is one of them. It reads text only.

use crate::tree::{read, report};

const ESSAY: &str = "appliance/spool/src/lib.rs";
const CASES: &str = "tests/src/power_cut/steps.rs";

/// The steps of an essay: from a line that begins with a number to the next, or to what is no step any more.
fn steps(essay: &str) -> Vec<String> {
    let mut steps: Vec<String> = Vec::new();
    let mut within = false;
    for line in essay.lines().map_while(|l| l.strip_prefix("//!")) {
        let text = line.trim();
        let begins = text
            .split_once(". ")
            .is_some_and(|(n, _)| n.parse::<u8>().is_ok());
        within = begins || (within && line.starts_with("    "));
        match steps.last_mut() {
            _ if begins => steps.push(text.to_owned()),
            Some(step) if within => *step += &format!(" {text}"),
            _ => {}
        }
    }
    steps
}

/// The case that a step names: the last thing between backticks, in brackets.
fn case_of(step: &str) -> Option<&str> {
    let (_, rest) = step.rsplit_once("(`")?;
    rest.split_once("`)").map(|(case, _)| case)
}

fn cases(suite: &str) -> Vec<&str> {
    let list = suite
        .split_once("STEPS: [&str;")
        .map_or("", |(_, rest)| rest);
    let list = list.split_once("];").map_or("", |(list, _)| list);
    list.split('"').skip(1).step_by(2).collect()
}

fn breaches(essay: &str, suite: &str) -> Vec<String> {
    let procedures = essay.split_once("# Procedures").map_or("", |(_, p)| p);
    let procedures = procedures.split_once("# Power cuts").map_or("", |(p, _)| p);
    let (steps, cases) = (steps(&format!("//!{procedures}")), cases(suite));
    let mut found = Vec::new();
    if steps.is_empty() || cases.is_empty() {
        found.push("no steps, or no cases".to_owned());
    }
    let known = |step: &&String| case_of(step).is_some_and(|case| cases.contains(&case));
    let bad = steps.iter().filter(|step| !known(step));
    found.extend(bad.map(|step| format!("{ESSAY}: `{step}` names no case of {CASES}")));
    let named: Vec<&str> = steps.iter().filter_map(|step| case_of(step)).collect();
    let bad = cases.iter().filter(|case| !named.contains(case));
    found.extend(bad.map(|case| format!("{CASES}: `{case}` is no step of {ESSAY}")));
    found
}

#[test]
fn every_step_of_the_spools_essay_has_its_power_cut() {
    report(breaches(&read(ESSAY), &read(CASES)));
}

#[test]
fn a_step_without_a_power_cut_is_caught() {
    let suite = "pub const STEPS: [&str; 2] = [\n \"make 1\",\n \"make 2\",\n];";
    let essay = |second: &str| {
        format!(
            "//! # Procedures\n//! **Make**:\n//! 1. one (`make 1`);\n//! 2. two, and\n//!    {second}.\n//!\n//! # Power cuts\n"
        )
    };
    assert_eq!(
        breaches(&essay("more (`make 2`)"), suite),
        Vec::<String>::new()
    );
    assert_eq!(breaches(&essay("more"), suite).len(), 2);
    assert_eq!(breaches(&essay("more (`make 3`)"), suite).len(), 2);
    assert!(!breaches("", suite).is_empty());
}
