//! The experiment `smoke`: a guest boots, says that it is ready, its module
//! answers one echo, and it ends.

use std::time::Duration;

use anyhow::Result;
use nlrig_guest::protocol::{Exit, Job};
use serde_json::{Map, Value, json};

use super::{Experiment, Judgement, Observed, Selection, Trial, object, workload};
use crate::guest::Limits;
use crate::report::{Section, TrialReport, Verdict, seconds};

/// See the module's documentation.
pub struct Smoke;

const LIMITS: Limits = Limits::new(Duration::from_secs(10), Duration::from_secs(20));
const MEMORY_BYTES: u64 = 256 << 20;

impl Experiment for Smoke {
    fn name(&self) -> &'static str {
        "smoke"
    }

    fn summary(&self) -> &'static str {
        "a guest boots, its module answers one netlink echo to the portid the kernel saw, and it ends"
    }

    fn plan(&self, selection: &Selection) -> Result<Vec<Trial>> {
        let trial = |abi| Trial {
            name: format!("smoke/{abi}/{}", selection.kernel),
            abi,
            params: Map::new(),
            job: Job {
                argv: vec![workload("echo")],
                user: selection.user,
                sysctls: selection.sysctls.clone(),
                rlimits: selection.rlimits.clone(),
                ..Job::default()
            },
            static_check: None,
            cpus: selection.cpus.unwrap_or(2),
            memory_bytes: selection.memory_bytes.unwrap_or(MEMORY_BYTES),
            limits: LIMITS,
            timeout: selection.timeout,
            alone: true,
            boot: "",
            flavour: None,
            fault: None,
            published: Vec::new(),
        };
        Ok(selection.abis.iter().copied().map(trial).collect())
    }

    fn judge(&self, _: &Trial, observed: &Observed) -> Judgement {
        let measured = Some(object(json!({
            "boot_s": seconds(observed.boot),
            "total_s": seconds(observed.total),
        })));
        match (observed.data.as_slice(), &observed.exit) {
            ([answer], Exit::Code(0)) if answer.get("portid").is_some_and(Value::is_u64) => {
                Judgement::pass(measured)
            }
            (data, exit) => Judgement::fail(
                measured,
                format!("the echo ended with {exit:?} and reported {}", json!(data)),
            ),
        }
    }

    fn sections(&self, trials: &[&TrialReport]) -> Vec<Section> {
        let mut sections = Vec::new();
        let mut abis: Vec<_> = trials.iter().map(|trial| trial.abi).collect();
        abis.dedup();
        let (many, few): (Vec<Vec<&TrialReport>>, Vec<_>) = abis
            .into_iter()
            .map(|abi| trials.iter().copied().filter(|trial| trial.abi == abi).collect())
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

/// So many boots are a distribution and no list.
const MANY: usize = 10;

fn measured(trial: &TrialReport, key: &str) -> Option<f64> {
    trial.measured.as_ref()?.get(key)?.as_f64()
}

/// A row a machine.
fn each(trials: &[&TrialReport]) -> Section {
    let number = |trial: &TrialReport, key: &str| {
        measured(trial, key).map_or("-".to_string(), |seconds| format!("{seconds:.2}"))
    };
    let rows = trials
        .iter()
        .map(|trial| {
            vec![
                trial.abi.to_string(),
                trial.kernel.clone(),
                trial.accel.clone(),
                number(trial, "boot_s"),
                number(trial, "total_s"),
                trial.verdict.name().to_string(),
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

/// A row an ABI.
fn distribution(by_abi: &[Vec<&TrialReport>]) -> Section {
    let columns =
        ["ABI", "boots", "pass", "second tries", "boot s: least", "median", "90 %", "99 %", "most"];
    let rows = by_abi
        .iter()
        .map(|trials| {
            let mut boots: Vec<_> =
                trials.iter().filter_map(|trial| measured(trial, "boot_s")).collect();
            boots.sort_by(f64::total_cmp);
            let passed = trials.iter().filter(|trial| trial.verdict == Verdict::Pass).count();
            let again = trials.iter().filter(|trial| trial.attempts > 1).count();
            let mut row: Vec<_> =
                [trials.len(), passed, again].iter().map(usize::to_string).collect();
            row.insert(0, trials.first().map_or(String::new(), |trial| trial.abi.to_string()));
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
