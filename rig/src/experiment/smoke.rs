//! The experiment `smoke`: a guest boots, says that it is ready, its module
//! answers one echo, and it ends.

use std::time::Duration;

use anyhow::Result;
use nlrig_guest::protocol::{Exit, Job};
use serde_json::{Map, Value, json};

use super::{Ask, Experiment, Judgement, Observed, Trial, object, workload};
use crate::guest::Limits;
use crate::report::{Section, TrialReport, seconds};

/// See the module's documentation.
pub struct Smoke;

const LIMITS: Limits = Limits::new(Duration::from_secs(10), Duration::from_secs(20));
const MEMORY_BYTES: u64 = 256 << 20;

impl Experiment for Smoke {
    fn name(&self) -> &'static str {
        "smoke"
    }

    fn shows(&self) -> &'static str {
        "a guest boots, its module answers one netlink echo to the portid the kernel saw, and it ends"
    }

    fn plan(&self, ask: &Ask) -> Result<Vec<Trial>> {
        let trial = |abi| Trial {
            name: format!("smoke/{abi}/{}", ask.kernel),
            abi,
            params: Map::new(),
            job: Job {
                argv: vec![workload("echo")],
                user: ask.user,
                sysctls: ask.sysctls.clone(),
                rlimits: ask.rlimits.clone(),
                ..Job::default()
            },
            cpus: ask.cpus.unwrap_or(2),
            memory_bytes: ask.memory_bytes.unwrap_or(MEMORY_BYTES),
            limits: LIMITS,
            timeout: ask.timeout,
            alone: true,
            fault: None,
            published: Vec::new(),
        };
        Ok(ask.abis.iter().copied().map(trial).collect())
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
        let number = |trial: &TrialReport, key: &str| {
            let value = trial.measured.as_ref().and_then(|measured| measured.get(key)?.as_f64());
            value.map_or("-".to_string(), |seconds| format!("{seconds:.2}"))
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
        vec![Section {
            title: "Smoke: boot, module, one echo, end".to_string(),
            columns: ["ABI", "kernel", "accel", "boot s", "total s", "verdict"]
                .map(str::to_string)
                .to_vec(),
            rows,
            words: "Each row is a machine of its own, from the start of QEMU to its end."
                .to_string(),
        }]
    }
}
