//! The experiment `module`: the module itself is ill-treated. It comes and goes
//! many times, takes what no honest program sends, and must lose no memory.
//!
//! It says most on the flavour `debug`, where the kernel looks for faults of its
//! own: KASAN (x86_64), kmemleak and lockdep.

use std::time::Duration;

use anyhow::Result;
use nlrig_guest::protocol::{Exit, Job};
use serde_json::{Map, Value, json};

use super::{Experiment, Judgement, Observed, Selection, Trial, object, workload};
use crate::abi::Abi;
use crate::guest::Limits;
use crate::report::{Section, TrialReport};
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

impl Experiment for ModuleStress {
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

    fn parameters(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("times", "how often it is unloaded and loaded again (100; 0: not at all)"),
            ("seconds", "how long malformed messages are sent (20; 0: not at all)"),
            ("seed", "what these messages follow from (1)"),
        ]
    }

    fn plan(&self, selection: &Selection) -> Result<Vec<Trial>> {
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
        let reload = (times > 0).then(|| ("reload", vec![times], json!({ "times": times })));
        let params = json!({ "seconds": seconds, "seed": seed });
        let fuzz = (seconds > 0).then(|| ("fuzz", vec![seconds, seed], params));
        let mut trials = Vec::new();
        for &abi in &selection.abis {
            for (program, arguments, params) in [&reload, &fuzz].into_iter().flatten() {
                trials.push(trial(selection, abi, program, arguments, params));
            }
        }
        Ok(trials)
    }

    fn judge(&self, _: &Trial, observed: &Observed) -> Judgement {
        let objects = observed.data.iter().filter_map(Value::as_object).cloned();
        let measured: Map<String, Value> = objects.flatten().collect();
        let number = |key: &str| measured.get(key).and_then(Value::as_u64);
        let text = |key: &str| measured.get(key).and_then(Value::as_str).unwrap_or_default();
        let wrong = if observed.exit != Exit::Code(0) {
            Some(format!("the program ended with {:?}", observed.exit))
        } else if let Some(leaks) = number("leaks").filter(|leaks| *leaks > 0) {
            Some(format!("nobody points to {leaks} objects of memory: {}", text("leak")))
        } else if let Some(grown) = grown(&measured).filter(|grown| *grown > GROWTH_MAX_BYTES) {
            Some(format!("each round costs {grown:.0} bytes of the kernel's memory"))
        } else if number("bursts").is_some() && number("bursts") == number("killed") {
            Some("every burst had to be killed: nothing is known of what it sent".to_string())
        } else if number("rounds").or(number("bursts")).is_none() {
            Some("the program did not report what it did".to_string())
        } else {
            None
        };
        match wrong {
            None => Judgement::pass(Some(measured)),
            Some(reason) => Judgement::fail(Some(measured), reason),
        }
    }

    fn sections(&self, trials: &[&TrialReport]) -> Vec<Section> {
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

fn trial(
    selection: &Selection,
    abi: Abi,
    program: &str,
    arguments: &[u64],
    params: &Value,
) -> Trial {
    let arguments = arguments.iter().map(u64::to_string);
    // A round takes some ten milliseconds, on a debug kernel under TCG a second.
    let number = |key: &str| params.get(key).and_then(Value::as_u64);
    let work = number("seconds").or(number("times")).unwrap_or(0);
    Trial {
        name: format!("module/{abi}/{}/{program}", selection.kernel),
        abi,
        params: object(params.clone()),
        job: Job {
            argv: std::iter::once(workload(program)).chain(arguments).collect(),
            sysctls: selection.sysctls.clone(),
            rlimits: selection.rlimits.clone(),
            ..Job::default()
        },
        static_check: None,
        cpus: selection.cpus.unwrap_or(2),
        memory_bytes: selection.memory_bytes.unwrap_or(MEMORY_BYTES),
        limits: Limits::new(SILENCE, SILENCE + Duration::from_secs(work)),
        timeout: selection.timeout,
        alone: true,
        boot: "",
        flavour: None,
        fault: None,
        published: Vec::new(),
    }
}

/// Bytes of memory that each round has cost, if there were enough of them.
fn grown(measured: &Map<String, Value>) -> Option<f64> {
    let counted =
        measured.get("counted")?.as_u64().filter(|rounds| *rounds >= GROWTH_ROUNDS_MIN)?;
    Some(measured.get("grown_kib")?.as_f64()? * 1024.0 / counted as f64)
}

fn row(trial: &TrialReport) -> Vec<String> {
    let measured = |key: &str| trial.measured.as_ref().and_then(|measured| measured.get(key));
    let number = |key: &str| measured(key).and_then(Value::as_u64);
    let did = match (number("rounds"), number("bursts")) {
        (Some(rounds), _) => format!("{rounds} times"),
        (None, Some(bursts)) => format!("{bursts} bursts"),
        (None, None) => "-".to_string(),
    };
    let leaks = number("leaks").map_or("not looked for".to_string(), |leaks| leaks.to_string());
    vec![
        trial.name.rsplit('/').next().unwrap_or_default().to_string(),
        trial.abi.to_string(),
        trial.flavour.clone(),
        did,
        leaks,
        trial.verdict.name().to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Verdict;

    fn judged(data: Value, exit: Exit) -> Judgement {
        let trial = ModuleStress.plan(&Selection::new(&[Abi::I386], "6.1")).unwrap().remove(0);
        let observed = Observed {
            data: vec![data],
            exit,
            predicted: None,
            out_of_memory: None,
            last_sign: None,
            boot: Duration::ZERO,
            total: Duration::ZERO,
        };
        ModuleStress.judge(&trial, &observed)
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
