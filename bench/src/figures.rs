//! Figures: a name, a value with its unit, a target where we claim one, and whether it is met.
//!
//! Names are stable: README names the figure that proves a number. A figure without a value says why in
//! its unit's place; where it has a target, that target is missed, since what was not measured is not met.

use std::fmt;

use serde::Serialize;
use serde_json::{Value, json};

/// What we claim of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// Nothing: it is told to be compared.
    None,
    /// It is not below this.
    AtLeast(f64),
    /// It is not above this.
    AtMost(f64),
}

impl Target {
    fn holds(self, value: f64) -> Option<bool> {
        match self {
            Target::None => None,
            Target::AtLeast(limit) => Some(value >= limit),
            Target::AtMost(limit) => Some(value <= limit),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::None => Ok(()),
            Target::AtLeast(limit) => write!(f, ">= {limit}"),
            Target::AtMost(limit) => write!(f, "<= {limit}"),
        }
    }
}

/// A measured value, a word about the machine, or a value that could not be had.
#[derive(Clone, Debug, PartialEq)]
enum Worth {
    Number(f64),
    Text(String),
    Skipped(String),
}

/// One line of the result.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    name: String,
    worth: Worth,
    unit: &'static str,
    target: Target,
}

impl Figure {
    /// Whether the target is met; none where there is no target.
    #[must_use]
    pub fn ok(&self) -> Option<bool> {
        match self.worth {
            Worth::Number(value) => self.target.holds(value),
            Worth::Text(_) => None,
            Worth::Skipped(_) => (self.target != Target::None).then_some(false),
        }
    }

    fn value_text(&self) -> String {
        match &self.worth {
            Worth::Number(value) if value.abs() >= 100.0 => format!("{value:.0}"),
            Worth::Number(value) => format!("{value:.3}"),
            Worth::Text(text) => text.clone(),
            Worth::Skipped(why) => format!("SKIPPED: {why}"),
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}", self.name, self.value_text())?;
        if !self.unit.is_empty() {
            write!(f, " {}", self.unit)?;
        }
        match self.target {
            Target::None => Ok(()),
            target => write!(f, ", target {target}"),
        }
    }
}

/// One line as `--json` prints it.
#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    value: Value,
    unit: &'a str,
    target: Option<String>,
    ok: Option<bool>,
}

/// All lines, in the order in which they were measured.
#[derive(Clone, Debug, Default)]
pub struct Figures(Vec<Figure>);

impl Figures {
    /// A measured value; told on standard error at once, since a run takes minutes.
    pub fn put(&mut self, name: &str, value: f64, unit: &'static str, target: Target) {
        self.add(name, Worth::Number(value), unit, target);
    }
    /// A word about the run.
    pub fn say(&mut self, name: &str, text: &str) {
        self.add(name, Worth::Text(text.to_owned()), "", Target::None);
    }
    /// A value that could not be had here, and why.
    pub fn skip(&mut self, name: &str, why: &str, unit: &'static str, target: Target) {
        eprintln!("bench: !!! SKIPPED {name}: {why}");
        self.add(name, Worth::Skipped(why.to_owned()), unit, target);
    }

    fn add(&mut self, name: &str, worth: Worth, unit: &'static str, target: Target) {
        let name = name.to_owned();
        let figure = Figure {
            name,
            worth,
            unit,
            target,
        };
        eprintln!("  {figure}");
        self.0.push(figure);
    }

    /// A measured value by name.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<f64> {
        let figure = self.0.iter().find(|f| f.name == name)?;
        match figure.worth {
            Worth::Number(value) => Some(value),
            Worth::Text(_) | Worth::Skipped(_) => None,
        }
    }

    /// Those whose target is not met.
    #[must_use]
    pub fn missed(&self) -> Vec<&Figure> {
        self.0.iter().filter(|f| f.ok() == Some(false)).collect()
    }

    /// The array of {name, value, unit, target, ok}.
    #[must_use]
    pub fn json(&self) -> String {
        let rows: Vec<Row<'_>> = self.0.iter().map(row).collect();
        serde_json::to_string_pretty(&rows).expect("names, numbers and texts are JSON")
    }

    /// The table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let widest = self.0.iter().map(|f| f.name.len()).max().unwrap_or(0);
        let line = |f: &Figure| {
            let verdict = match f.ok() {
                Some(true) => "ok",
                Some(false) => "MISSED",
                None => "",
            };
            let (name, value, target) = (&f.name, f.value_text(), f.target.to_string());
            let text = format!(
                "{name:widest$}  {value:>9} {unit:10} {target:>9} {verdict}",
                unit = f.unit
            );
            format!("{}\n", text.trim_end())
        };
        self.0.iter().map(line).collect()
    }
}

fn row(figure: &Figure) -> Row<'_> {
    let value = match &figure.worth {
        Worth::Number(value) => json!(value),
        Worth::Text(text) => json!(text),
        Worth::Skipped(_) => Value::Null,
    };
    let target = (figure.target != Target::None).then(|| figure.target.to_string());
    Row {
        name: &figure.name,
        value,
        unit: figure.unit,
        target,
        ok: figure.ok(),
    }
}

/// The middle one of several runs.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The value below which a share `q` (0 to 1) of the values lies.
#[must_use]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the rank is within the slice's length"
)]
pub fn quantile(mut values: Vec<f64>, q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (q * values.len() as f64).ceil() as usize;
    values
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn targets_are_judged_and_what_was_skipped_is_not_met() {
        let mut figures = Figures::default();
        figures.put("fast", 151.0, "MiB/s", Target::AtLeast(150.0));
        figures.put("slow", 149.0, "MiB/s", Target::AtLeast(150.0));
        figures.put("big", 129.0, "MiB", Target::AtMost(128.0));
        figures.put("nan", f64::NAN, "MiB", Target::AtMost(128.0));
        figures.put("told", 3.0, "s", Target::None);
        figures.skip("gone", "not here", "s", Target::AtMost(1.0));
        figures.skip("peer", "not installed", "s", Target::None);
        let missed: Vec<&str> = figures.missed().iter().map(|f| f.name.as_str()).collect();
        assert_eq!(missed, ["slow", "big", "nan", "gone"]);
        let rows: Vec<Value> = serde_json::from_str(&figures.json()).unwrap();
        assert_eq!(
            rows[0],
            json!({"name": "fast", "value": 151.0, "unit": "MiB/s", "target": ">= 150", "ok": true})
        );
        assert_eq!(rows[6]["value"], Value::Null);
        assert_eq!(rows[6]["ok"], Value::Null);
    }

    #[test]
    fn ranks() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert!(median(vec![]).is_nan());
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(quantile(hundred.clone(), 0.5), 50.0);
        assert_eq!(quantile(hundred, 0.99), 99.0);
    }
}
