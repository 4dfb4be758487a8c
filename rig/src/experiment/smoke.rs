//! The experiment `smoke`: a guest boots, says that it is ready, its module
//! answers one echo, and it ends.

use std::time::Duration;

use anyhow::Result;
use nlrig_guest::protocol::{Exit, Job};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Experiment, Judgement, Nothing, Observed, Selection, Trial, TrialResult, workload};
use crate::guest::Limits;
use crate::report::{Section, Verdict, seconds};

/// See the module's documentation.
pub struct Smoke;

const LIMITS: Limits = Limits::new(Duration::from_secs(10), Duration::from_secs(20));
const MEMORY_BYTES: u64 = 256 << 20;

/// How long a guest took.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct BootTimes {
    /// From the start of QEMU until the guest was ready.
    boot_s: f64,
    /// From the start of QEMU to its end.
    total_s: f64,
}

type Smoked<'a> = TrialResult<'a, Smoke>;

impl Experiment for Smoke {
    type Params = Nothing;
    type Prediction = Nothing;
    type Measured = BootTimes;

    fn name(&self) -> &'static str {
        "smoke"
    }

    fn summary(&self) -> &'static str {
        "a guest boots, its module answers one netlink echo to the portid the kernel saw, and it ends"
    }

    fn plan(&self, selection: &Selection) -> Result<Vec<Trial<Nothing>>> {
        let trial = |&abi| {
            let job = Job {
                argv: vec![workload("echo")],
                user: selection.user,
                sysctls: selection.sysctls.clone(),
                rlimits: selection.rlimits.clone(),
                ..Job::default()
            };
            Trial::new(format!("smoke/{abi}/{}", selection.kernel), abi, job)
                .params(Nothing {})
                .memory(MEMORY_BYTES)
                .limits(LIMITS)
                .alone()
                .select(selection)
        };
        Ok(selection.abis.iter().map(trial).collect())
    }

    fn evaluate(&self, _: &Trial<Nothing>, observed: &Observed<Nothing>) -> Judgement<BootTimes> {
        let times = BootTimes { boot_s: seconds(observed.boot), total_s: seconds(observed.total) };
        let wrong = match (observed.data.as_slice(), &observed.exit) {
            ([answer], Exit::Code(0)) if answer.get("portid").is_some_and(Value::is_u64) => None,
            (data, exit) => {
                Some(format!("the echo ended with {exit:?} and reported {}", json!(data)))
            }
        };
        Judgement::by(times, wrong)
    }

    fn sections(&self, trials: &[&Smoked<'_>]) -> Vec<Section> {
        let mut sections = Vec::new();
        let mut abis: Vec<_> = trials.iter().map(|trial| trial.report.abi).collect();
        abis.dedup();
        let (many, few): (Vec<Vec<&Smoked<'_>>>, Vec<_>) = abis
            .into_iter()
            .map(|abi| trials.iter().copied().filter(|trial| trial.report.abi == abi).collect())
            .partition(|of_abi: &Vec<_>| of_abi.len() >= MANY);
        if !few.is_empty() {
            sections.push(each(&few.concat()));
        }
        if !many.is_empty() {
            sections.push(distribution(&many));
        }
        sections
    }
}

/// From this many boots on, the report shows their distribution instead of a list.
const MANY: usize = 10;

/// One row for each VM.
fn each(trials: &[&Smoked<'_>]) -> Section {
    let number = |trial: &Smoked<'_>, time: fn(BootTimes) -> f64| {
        trial.measured.map_or("-".to_string(), |times| format!("{:.2}", time(times)))
    };
    let rows = trials
        .iter()
        .map(|trial| {
            vec![
                trial.report.abi.to_string(),
                trial.report.kernel.clone(),
                trial.report.accel.clone(),
                number(trial, |times| times.boot_s),
                number(trial, |times| times.total_s),
                trial.report.verdict.name().to_string(),
            ]
        })
        .collect();
    Section {
        title: "Smoke: boot, module, one echo, end".to_string(),
        columns: ["ABI", "kernel", "accel", "boot s", "total s", "verdict"]
            .map(str::to_string)
            .to_vec(),
        rows,
        words: "Each row is a machine of its own, from the start of QEMU to its end.".to_string(),
        ..Section::default()
    }
}

/// One row for each ABI.
fn distribution(by_abi: &[Vec<&Smoked<'_>>]) -> Section {
    let columns =
        ["ABI", "boots", "pass", "second tries", "boot s: least", "median", "90 %", "99 %", "most"];
    let rows = by_abi
        .iter()
        .map(|trials| {
            let mut boots: Vec<_> =
                trials.iter().filter_map(|trial| Some(trial.measured?.boot_s)).collect();
            boots.sort_by(f64::total_cmp);
            let passed =
                trials.iter().filter(|trial| trial.report.verdict == Verdict::Pass).count();
            let again = trials.iter().filter(|trial| trial.report.attempts > 1).count();
            let mut row: Vec<_> =
                [trials.len(), passed, again].iter().map(usize::to_string).collect();
            row.insert(
                0,
                trials.first().map_or(String::new(), |trial| trial.report.abi.to_string()),
            );
            row.extend([0, 50, 90, 99, 100].map(|percent| {
                percentile(&boots, percent).map_or("-".to_string(), |boot| format!("{boot:.2}"))
            }));
            row
        })
        .collect();
    Section {
        title: "Smoke: how long boots take".to_string(),
        columns: columns.map(str::to_string).to_vec(),
        rows,
        words: "Each boot is that of a machine of its own, from the start of QEMU until the \
                guest is ready."
            .to_string(),
        ..Section::default()
    }
}

/// The smallest value that so many percent do not exceed (nearest rank).
fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let boots: Vec<f64> = (1..=200).map(f64::from).collect();
        let seen = [0, 50, 90, 99, 100].map(|percent| percentile(&boots, percent).unwrap());
        assert_eq!(seen, [1.0, 100.0, 180.0, 198.0, 200.0]);
        assert_eq!(percentile(&[], 50), None);
        assert_eq!(percentile(&[7.0], 99), Some(7.0));
    }
}
