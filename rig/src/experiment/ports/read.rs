//! What a trial's report says, for tables.

use nlrig_guest::ports::Formula;
use serde_json::{Map, Value};

use crate::report::TrialReport;

/// A parameter of the trial.
pub fn param<'a>(trial: &'a TrialReport, key: &str) -> Option<&'a Value> {
    trial.params.get(key)
}

/// A parameter that is a text; an empty one if it is none.
pub fn text<'a>(trial: &'a TrialReport, key: &str) -> &'a str {
    param(trial, key).and_then(Value::as_str).unwrap_or_default()
}

/// Whether a parameter has this value.
pub fn is(trial: &TrialReport, key: &str, value: impl Into<Value>) -> bool {
    param(trial, key) == Some(&value.into())
}

/// The one formula that was bound, if it was one.
pub fn formula(trial: &TrialReport) -> Option<Formula> {
    Formula::from_name(text(trial, "formula"))
}

/// The head of a table.
pub fn columns(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| name.to_string()).collect()
}

/// What was measured of binding by one formula.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Threads that bound, or tried.
    pub threads: u64,
    /// The first of them whose port was in use.
    pub first: Option<u64>,
    /// How many found their port in use.
    pub collisions: u64,
    /// How many have a port of their own.
    pub distinct: u64,
}

impl Seen {
    fn of(measured: &Map<String, Value>) -> Option<Seen> {
        let number = |key: &str| measured.get(key).and_then(Value::as_u64);
        Some(Seen {
            threads: number("threads")?,
            first: number("first_collision"),
            collisions: number("collisions")?,
            distinct: number("distinct")?,
        })
    }

    /// Of a trial of one formula.
    pub fn trial(trial: &TrialReport) -> Option<Seen> {
        Seen::of(trial.measured.as_ref()?)
    }

    /// The share of threads without a port.
    pub fn share(self) -> String {
        let percent = 100.0 * self.collisions as f64 / self.threads.max(1) as f64;
        format!("{percent:.1} %")
    }

    /// The first collision, for a table.
    pub fn first(self) -> String {
        self.first.map_or("none".to_string(), |first| first.to_string())
    }
}

/// What a trial of all formulas has measured of one.
pub fn each(trial: &TrialReport, formula: Formula) -> Option<Seen> {
    let measured = trial.measured.as_ref()?.get("by_formula")?.get(formula.name())?;
    Seen::of(measured.as_object()?)
}
