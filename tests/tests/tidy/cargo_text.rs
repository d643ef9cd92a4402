//! Cargo's files as text: which crate names which dependency, and what that reaches.
//!
//! It reads the two shapes this workspace uses, `name = ...` or `name.workspace = true` in a
//! dependencies section and `[dependencies.name]`; versions and features are cargo-deny's part.

use std::collections::{BTreeMap, BTreeSet};

/// (section, crate) of every dependency a Cargo.toml names.
pub(crate) fn manifest_deps(text: &str) -> Vec<(String, String)> {
    let (mut section, mut found) = (String::new(), Vec::new());
    for line in text.lines().map(str::trim) {
        if let Some(s) = line.strip_prefix('[') {
            section = s.trim_end_matches(']').to_owned();
            // [dependencies.NAME]
            if let Some((head, name)) = section
                .rsplit_once('.')
                .filter(|(h, _)| h.ends_with("dependencies"))
            {
                found.push((head.to_owned(), name.to_owned()));
            }
        } else if section.ends_with("dependencies") && section != "workspace.dependencies" {
            let name: String = line
                .chars()
                .take_while(|c| c.is_alphanumeric() || "-_".contains(*c))
                .collect();
            if !name.is_empty() {
                found.push((section.clone(), name));
            }
        }
    }
    found
}

/// Crate -> the crates it needs, by name, from Cargo.lock.
pub(crate) fn lock_graph(lock: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut name = String::new();
    for line in lock.lines() {
        if let Some(n) = line.strip_prefix("name = ") {
            name = n.trim_matches('"').to_owned();
            graph.entry(name.clone()).or_default();
        } else if let Some(dep) = line.strip_prefix(" \"") {
            let dep = dep.split(['"', ' ']).next().unwrap().to_owned();
            graph.entry(name.clone()).or_default().insert(dep);
        }
    }
    graph
}

pub(crate) fn closure(
    graph: &BTreeMap<String, BTreeSet<String>>,
    from: &[String],
) -> BTreeSet<String> {
    let (mut reached, mut next) = (BTreeSet::new(), from.to_vec());
    while let Some(n) = next.pop() {
        if reached.insert(n.clone()) {
            next.extend(graph.get(&n).into_iter().flatten().cloned());
        }
    }
    reached
}
