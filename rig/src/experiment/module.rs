//! The experiment `module`: the module itself is ill-treated. It comes and goes
//! many times, takes what no honest program sends, and must lose no memory.
//!
//! It says most on the flavour `debug`, where the kernel looks for faults of its
//! own: KASAN (x86_64), kmemleak and lockdep.

use std::time::Duration;

use anyhow::Result;
use nlrig_guest::protocol::{Exit, Job};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    Experiment, Judgement, Nothing, Observed, OrderedMap, RigModule, Selection, Trial, TrialResult,
    workload,
};
use crate::abi::Abi;
use crate::guest::Limits;
use crate::report::Section;
use crate::usage;

/// See the module's documentation.
pub struct ModuleStress;

const MEMORY_BYTES: u64 = 512 << 20;
const TIMES: u64 = 100;
const SECONDS: u64 = 20;
const SEED: u64 = 1;
/// What is asked for beyond this is a slip of the finger.
const MOST: u64 = 1_000_000;
/// Without a sign of life: loading takes milliseconds, a burst seconds, and a
/// search for lost memory on a debug kernel minutes.
const SILENCE: Duration = Duration::from_secs(120);
/// What a round may cost in unreclaimable memory before it is called a leak, in
/// bytes, over so many rounds at least: less is a cache that still grows.
const GROWTH_MAX_BYTES: f64 = 1024.0;
const GROWTH_ROUNDS_MIN: u64 = 200;

/// The stress that a trial applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Stress {
    /// The module is unloaded and loaded again.
    Reload {
        /// How often.
        times: u64,
    },
    /// The module is sent malformed messages.
    Fuzz {
        /// For how long.
        seconds: u64,
        /// The seed of the messages.
        seed: u64,
    },
}

/// What the workloads `reload` and `fuzz` report.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StressReport {
    /// How often the module was loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rounds: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rounds_per_s: Option<f64>,
    /// The number of rounds in which memory was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    counted: Option<u64>,
    /// By how much the kernel's memory has grown in them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grown_kib: Option<i64>,
    /// How many processes sent malformed messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bursts: Option<u64>,
    /// The kernel's answers by type and error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    counts: Option<OrderedMap<u64>>,
    /// How many of the processes had to be killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    killed: Option<u64>,
    /// kmemleak's report of the first unreferenced object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    leak: Option<String>,
    /// How many unreferenced objects kmemleak found, if the kernel has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    leaks: Option<u64>,
}

impl Stress {
    /// The workload, which is the last part of the trial's name too.
    fn program(self) -> &'static str {
        match self {
            Stress::Reload { .. } => "reload",
            Stress::Fuzz { .. } => "fuzz",
        }
    }

    fn arguments(self) -> Vec<u64> {
        match self {
            Stress::Reload { times } => vec![times],
            Stress::Fuzz { seconds, seed } => vec![seconds, seed],
        }
    }

    /// The deadlines. A round takes some ten milliseconds, on a debug kernel under
    /// TCG a second.
    fn limits(self) -> Limits {
        let (Stress::Reload { times: work_s } | Stress::Fuzz { seconds: work_s, .. }) = self;
        Limits::new(SILENCE, SILENCE + Duration::from_secs(work_s))
    }
}

impl StressReport {
    /// Merges the workload's reports, each of which has some of the values.
    fn read(data: &[Value]) -> serde_json::Result<StressReport> {
        let objects = data.iter().filter_map(Value::as_object).cloned();
        serde_json::from_value(Value::Object(objects.flatten().collect::<Map<_, _>>()))
    }

    /// Bytes of memory that each round has cost, if there were enough of them.
    fn grown_bytes(&self) -> Option<f64> {
        let counted = self.counted.filter(|rounds| *rounds >= GROWTH_ROUNDS_MIN)?;
        Some(self.grown_kib? as f64 * 1024.0 / counted as f64)
    }

    /// What is wrong with the module by these numbers.
    fn fault(&self) -> Option<String> {
        if let Some(leaks) = self.leaks.filter(|leaks| *leaks > 0) {
            let first = self.leak.as_deref().unwrap_or_default();
            Some(format!("kmemleak: {leaks} unreferenced objects: {first}"))
        } else if let Some(grown) = self.grown_bytes().filter(|grown| *grown > GROWTH_MAX_BYTES) {
            Some(format!("each round costs {grown:.0} bytes of the kernel's memory"))
        } else if self.bursts.is_some() && self.bursts == self.killed {
            Some("every burst had to be killed: nothing is known of what it sent".to_string())
        } else if self.rounds.or(self.bursts).is_none() {
            Some("the program did not report what it did".to_string())
        } else {
            None
        }
    }
}

impl Experiment for ModuleStress {
    type Params = Stress;
    type Prediction = Nothing;
    type Measured = StressReport;

    fn name(&self) -> &'static str {
        "module"
    }

    fn summary(&self) -> &'static str {
        "the module loads and unloads many times, takes malformed messages, and loses no memory"
    }

    /// What is ill-treated is the kernel's; ia32 adds its own layer to it.
    fn abis(&self) -> &'static [Abi] {
        &Abi::ALL
    }

    fn by_default(&self) -> bool {
        false
    }

    fn rig_module(&self) -> RigModule {
        RigModule::Replaceable
    }

    fn parameters(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("times", "how often it is unloaded and loaded again (100; 0: not at all)"),
            ("seconds", "how long malformed messages are sent (20; 0: not at all)"),
            ("seed", "what these messages follow from (1)"),
        ]
    }

    fn plan(&self, selection: &Selection) -> Result<Vec<Trial<Stress>>> {
        let number = |key: &str, own: u64| match selection.set.get(key) {
            None => Ok(own),
            Some(text) => text
                .parse()
                .ok()
                .filter(|number| *number <= MOST)
                .ok_or_else(|| usage!("--set {key}={text}: not a number up to {MOST}")),
        };
        let (times, seconds) = (number("times", TIMES)?, number("seconds", SECONDS)?);
        let seed = number("seed", SEED)?;
        let reload = (times > 0).then_some(Stress::Reload { times });
        let fuzz = (seconds > 0).then_some(Stress::Fuzz { seconds, seed });
        let stresses: Vec<_> = [reload, fuzz].into_iter().flatten().collect();
        let of_abi = |&abi| stresses.iter().map(move |stress| trial(selection, abi, *stress));
        Ok(selection.abis.iter().flat_map(of_abi).collect())
    }

    fn evaluate(&self, _: &Trial<Stress>, observed: &Observed<Nothing>) -> Judgement<StressReport> {
        let report = match StressReport::read(&observed.data) {
            Ok(report) => report,
            Err(err) => return Judgement::fail(None, format!("the report cannot be read: {err}")),
        };
        let wrong = match &observed.exit {
            Exit::Code(0) => report.fault(),
            exit => Some(format!("the program ended with {exit:?}")),
        };
        Judgement::by(report, wrong)
    }

    fn sections(&self, trials: &[&TrialResult<'_, Self>]) -> Vec<Section> {
        let columns = ["trial", "ABI", "flavour", "did", "memory nobody points to", "verdict"];
        vec![Section {
            title: "Module: loaded, unloaded, ill-treated".to_string(),
            columns: columns.map(str::to_string).to_vec(),
            rows: trials.iter().map(|trial| row(trial)).collect(),
            words: "A kernel without kmemleak does not look for lost memory; there each round of \
                    loading must not cost more than a KiB. Whatever else is wrong, the kernel says \
                    itself: each trial has a machine of its own, and fails with what its console \
                    says."
                .to_string(),
            ..Section::default()
        }]
    }
}

fn trial(selection: &Selection, abi: Abi, stress: Stress) -> Trial<Stress> {
    let program = stress.program();
    let arguments = stress.arguments().into_iter().map(|argument| argument.to_string());
    let job = Job {
        argv: std::iter::once(workload(program)).chain(arguments).collect(),
        sysctls: selection.sysctls.clone(),
        rlimits: selection.rlimits.clone(),
        ..Job::default()
    };
    Trial::new(format!("module/{abi}/{}/{program}", selection.kernel), abi, job)
        .params(stress)
        .memory(MEMORY_BYTES)
        .limits(stress.limits())
        .alone()
        .select(selection)
}

fn row(trial: &TrialResult<'_, ModuleStress>) -> Vec<String> {
    let measured = trial.measured.as_ref();
    let number = |of: fn(&StressReport) -> Option<u64>| measured.and_then(of);
    let did = match (number(|report| report.rounds), number(|report| report.bursts)) {
        (Some(rounds), _) => format!("{rounds} times"),
        (None, Some(bursts)) => format!("{bursts} bursts"),
        (None, None) => "-".to_string(),
    };
    let leaks = number(|report| report.leaks);
    let leaks = leaks.map_or("not looked for".to_string(), |leaks| leaks.to_string());
    vec![
        trial.params.program().to_string(),
        trial.report.abi.to_string(),
        trial.report.flavour.clone(),
        did,
        leaks,
        trial.report.verdict.name().to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Verdict;
    use serde_json::json;

    fn judged(data: Value, exit: Exit) -> Judgement<StressReport> {
        let trial = ModuleStress.plan(&Selection::new(&[Abi::I386], "6.1")).unwrap().remove(0);
        ModuleStress.evaluate(&trial, &Observed::new(vec![data], exit))
    }

    #[test]
    fn a_leak_fails_and_so_does_memory_that_grows() {
        let verdict = |data| judged(data, Exit::Code(0)).verdict;
        assert_eq!(verdict(json!({"rounds": 100, "leaks": 0})), Verdict::Pass);
        assert_eq!(verdict(json!({"rounds": 100, "leaks": 1, "leak": "x"})), Verdict::Fail);
        let grown = |kib: i64| json!({"rounds": 1050, "grown_kib": kib, "counted": 1000});
        assert_eq!(verdict(grown(500)), Verdict::Pass);
        assert_eq!(verdict(grown(4000)), Verdict::Fail);
        assert_eq!(verdict(json!({"bursts": 4, "killed": 1})), Verdict::Pass);
        assert_eq!(verdict(json!({"bursts": 4, "killed": 4})), Verdict::Fail);
        assert_eq!(verdict(json!({})), Verdict::Fail);
        assert_eq!(judged(json!({"rounds": 100}), Exit::Code(1)).verdict, Verdict::Fail);
    }

    #[test]
    fn what_is_asked_for_is_a_number_and_zero_leaves_out() {
        let mut selection = Selection::new(&[Abi::I386], "6.1");
        assert_eq!(ModuleStress.plan(&selection).unwrap().len(), 2);
        selection.set.insert("times".to_string(), "0".to_string());
        assert_eq!(ModuleStress.plan(&selection).unwrap().len(), 1);
        selection.set.insert("times".to_string(), "often".to_string());
        let err = ModuleStress.plan(&selection).unwrap_err();
        assert_eq!(crate::error::status(&err), crate::error::USAGE);
    }
}
