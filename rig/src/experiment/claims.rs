//! The experiment `claims`: every checkable statement of two widely read texts on
//! netlink, tried on a running kernel.
//!
//! The [`catalogue`] is data: each [`Case`] has its claim, its setting, and the
//! evidence that would confirm or refute it. A trial passes when the evidence is
//! clear and is what the ledger expects, so a kernel that behaves otherwise is
//! noticed.

mod case;
mod catalogue;
mod page;

use std::time::Duration;

use anyhow::Result;
use nlrig_guest::protocol::{Exit, Job, Rlimit};
use serde_json::{Map, Value, json};

use super::{Experiment, Facts, Judgement, Observed, Selection, Trial, object, workload};
use crate::abi::Abi;
use crate::guest::Limits;
use crate::report::{Section, TrialReport, Verdict};
use crate::say::brief;
use crate::usage;
use case::{Case, Finding, Method, Setting};

/// See the module's documentation.
pub struct Claims;

/// What a program may report as evidence; what comes behind is not looked at.
const EVIDENCE_MAX: usize = 64;

impl Experiment for Claims {
    fn name(&self) -> &'static str {
        "claims"
    }

    fn summary(&self) -> &'static str {
        "which statements of two texts on netlink hold on this kernel, with the evidence"
    }

    /// A claim is about the kernel: a 32-bit program on a 64-bit one adds little.
    fn abis(&self) -> &'static [Abi] {
        &[Abi::I386, Abi::X86_64]
    }

    fn parameters(&self) -> &'static [(&'static str, &'static str)] {
        &[("id", "only this case: A9 with its parts, or A9.2")]
    }

    fn cases(&self) -> Vec<(&'static str, &'static str)> {
        catalogue::cases().map(|case| (case.id, case.claim)).collect()
    }

    fn plan(&self, selection: &Selection) -> Result<Vec<Trial>> {
        let abis: Vec<_> = selection.abis.iter().filter(|abi| self.abis().contains(abi)).collect();
        if abis.is_empty() {
            return Err(usage!("--abi ia32: claims are tried on i386 and x86_64"));
        }
        let only = selection.set.get("id");
        let mut cases: Vec<_> = catalogue::cases()
            .filter(|case| only.is_none_or(|only| belongs(case.id, only)))
            .collect();
        if cases.is_empty() {
            let only = only.map_or("", String::as_str);
            return Err(usage!("--set id={only}: there is no such case; `list` shows them"));
        }
        // Those that share a guest have to be neighbours.
        cases.sort_by_key(|case| (case.setting().is_none_or(|setting| setting.alone), alike(case)));
        let mut trials = Vec::new();
        for &&abi in &abis {
            let about =
                cases.iter().filter(|case| case.only.is_none_or(|only| only == abi.kernel()));
            trials.extend(about.map(|case| trial(selection, abi, case)));
        }
        Ok(trials)
    }

    fn judge(&self, trial: &Trial, observed: &Observed) -> Judgement {
        let Some(case) = case_of(trial) else {
            return Judgement::fail(None, "there is no such case");
        };
        if case.setting().is_some_and(|setting| setting.breaks) {
            // Decided in `review`, however the machine ends.
            return Judgement::pass(None);
        }
        let evidence = evidence(&observed.data);
        match &observed.exit {
            Exit::Code(0) => judged(case, trial.abi, evidence),
            exit => {
                let told =
                    evidence.get("error").map_or(String::new(), |error| format!(": {error}"));
                let reason = format!("the program ended with {exit:?}{told}");
                Judgement::fail(
                    Some(measured(case, trial.abi, Finding::Undecided, evidence)),
                    reason,
                )
            }
        }
    }

    fn review(&self, trial: &Trial, judgement: Judgement, facts: &Facts<'_>) -> Judgement {
        let Some(case) = case_of(trial) else { return judgement };
        let infra = matches!(judgement.verdict, Verdict::Infra | Verdict::Skip);
        if infra || !case.setting().is_some_and(|setting| setting.breaks) {
            return judgement;
        }
        let mut evidence = evidence(facts.data);
        let well = judgement.verdict.is_well();
        let machine = if well { "well" } else { judgement.verdict.name() };
        evidence.insert("machine".to_string(), json!(machine));
        if let Some(reason) = judgement.reason {
            evidence.insert("machine_says".to_string(), json!(reason));
        }
        judged(case, trial.abi, evidence)
    }

    fn sources(&self, trial: &Trial) -> &'static [(&'static str, &'static str)] {
        case_of(trial).map_or(&[], |case| case.source)
    }

    fn sections(&self, trials: &[&TrialReport]) -> Vec<Section> {
        vec![page::section(trials)]
    }
}

/// Whether a case is the one that is meant, or a part of it.
fn belongs(id: &str, only: &str) -> bool {
    id.eq_ignore_ascii_case(only)
        || id.split_once('.').is_some_and(|(whole, _)| whole.eq_ignore_ascii_case(only))
}

/// What guests have to have in common.
fn alike(case: &Case) -> Option<(u32, u64, &'static str)> {
    case.setting().map(|setting| (setting.cpus, setting.memory_bytes, setting.boot))
}

fn case_of(trial: &Trial) -> Option<&'static Case> {
    let id = trial.params.get("id")?.as_str()?;
    catalogue::cases().find(|case| case.id == id)
}

fn trial(selection: &Selection, abi: Abi, case: &Case) -> Trial {
    let (setting, static_check) = match case.method {
        Method::Guest(setting) => (setting, None),
        Method::Static(static_check) => (Setting::ALONE, Some(static_check)),
    };
    let own = |&(name, value): &(&str, &str)| (name.to_string(), value.to_string());
    let rlimit =
        |&(name, value): &(&str, u64)| Rlimit { name: name.to_string(), value: Some(value) };
    let argv = match setting.program {
        [] => vec![workload("claims"), case.id.to_string()],
        [program, rest @ ..] => {
            let rest = rest.iter().map(|argument| (*argument).to_string());
            std::iter::once(workload(program)).chain(rest).collect()
        }
    };
    Trial {
        name: format!("claims/{abi}/{}/{}", selection.kernel, case.id),
        abi,
        params: object(json!({ "id": case.id })),
        job: Job {
            argv,
            user: setting.user,
            sysctls: setting
                .sysctls
                .iter()
                .map(own)
                .chain(selection.sysctls.iter().cloned())
                .collect(),
            rlimits: setting.rlimits.iter().map(rlimit).collect(),
            ..Job::default()
        },
        static_check,
        cpus: selection.cpus.unwrap_or(setting.cpus),
        memory_bytes: selection.memory_bytes.unwrap_or(setting.memory_bytes),
        limits: Limits::new(setting.limit, setting.limit + Duration::from_secs(20)),
        timeout: selection.timeout,
        alone: setting.alone,
        boot: setting.boot,
        flavour: None,
        fault: None,
        published: Vec::new(),
    }
}

/// All that a program reported, as one object.
fn evidence(data: &[Value]) -> Map<String, Value> {
    let objects = data.iter().filter_map(Value::as_object);
    let mut evidence = Map::new();
    for (key, value) in objects.flatten() {
        if evidence.len() == EVIDENCE_MAX {
            break;
        }
        let value = match value {
            Value::String(text) => json!(brief(text.clone())),
            Value::Number(_) | Value::Bool(_) => value.clone(),
            other => json!(brief(other.to_string())),
        };
        evidence.insert(brief(key.clone()), value);
    }
    evidence
}

fn measured(
    case: &Case,
    abi: Abi,
    finding: Finding,
    evidence: Map<String, Value>,
) -> Map<String, Value> {
    object(json!({
        "finding": finding,
        "expected": case.expect.of(abi.kernel()),
        "evidence": evidence,
    }))
}

fn judged(case: &Case, abi: Abi, evidence: Map<String, Value>) -> Judgement {
    let (finding, expected) = (case.find(&evidence), case.expect.of(abi.kernel()));
    let told = page::show_evidence(&evidence);
    let measured = Some(measured(case, abi, finding, evidence));
    if finding == expected {
        return Judgement::pass(measured);
    }
    let needs = page::show_conditions(case.conditions(expected));
    Judgement::fail(
        measured,
        format!(
            "{}, expected {}, which needs {needs}; got {told}",
            finding.name(),
            expected.name()
        ),
    )
}

#[cfg(test)]
mod tests;
