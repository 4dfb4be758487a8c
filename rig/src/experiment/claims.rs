//! The experiment `claims`: every checkable statement of two widely read texts on
//! netlink, tried on a running kernel.
//!
//! The [`ledger`] is data: each [`Row`] has its claim, its setting, and the
//! evidence that would confirm or refute it. A trial passes when the evidence is
//! clear and is what the ledger expects, so a kernel that behaves otherwise is
//! noticed.

mod ledger;
mod page;
mod row;

use std::time::Duration;

use anyhow::Result;
use nlrig_guest::protocol::{Exit, Job, Rlimit};
use serde_json::{Map, Value, json};

use super::{Ask, Experiment, Facts, Judgement, Observed, RigModule, Trial, object, workload};
use crate::abi::Abi;
use crate::guest::Limits;
use crate::report::{Section, TrialReport, Verdict};
use crate::ui::truncate;
use crate::usage;
use row::{Finding, How, Row, Setting};

/// See the module's documentation.
pub struct Claims;

/// What a program may report as evidence; what comes behind is not looked at.
const EVIDENCE_MAX: usize = 64;

impl Experiment for Claims {
    fn name(&self) -> &'static str {
        "claims"
    }

    fn shows(&self) -> &'static str {
        "which statements of two texts on netlink hold on this kernel, with the evidence"
    }

    /// A claim is about the kernel: a 32-bit program on a 64-bit one adds little.
    fn abis(&self) -> &'static [Abi] {
        &[Abi::I386, Abi::X86_64]
    }

    fn rig_module(&self) -> RigModule {
        RigModule::Replaceable
    }

    fn parameters(&self) -> &'static [(&'static str, &'static str)] {
        &[("id", "only this row: A9 with its parts, or A9.2")]
    }

    fn entries(&self) -> Vec<(&'static str, &'static str)> {
        ledger::rows().map(|row| (row.id, row.claim)).collect()
    }

    fn plan(&self, ask: &Ask) -> Result<Vec<Trial>> {
        let abis: Vec<_> = ask.abis.iter().filter(|abi| self.abis().contains(abi)).collect();
        if abis.is_empty() {
            return Err(usage!("--abi ia32: claims are tried on i386 and x86_64"));
        }
        let only = ask.set.get("id");
        let mut rows: Vec<_> =
            ledger::rows().filter(|row| only.is_none_or(|only| belongs(row.id, only))).collect();
        if rows.is_empty() {
            let only = only.map_or("", String::as_str);
            return Err(usage!("--set id={only}: there is no such row; `list` shows them"));
        }
        // Those that share a guest have to be neighbours.
        rows.sort_by_key(|row| (row.setting().is_none_or(|setting| setting.alone), alike(row)));
        let mut trials = Vec::new();
        for &&abi in &abis {
            let about = rows.iter().filter(|row| row.only.is_none_or(|only| only == abi.kernel()));
            trials.extend(about.map(|row| trial(ask, abi, row)));
        }
        Ok(trials)
    }

    fn judge(&self, trial: &Trial, observed: &Observed) -> Judgement {
        let Some(row) = row_of(trial) else {
            return Judgement::fail(None, "there is no such row");
        };
        if row.setting().is_some_and(|setting| setting.breaks) {
            // Decided in `review`, however the machine ends.
            return Judgement::pass(None);
        }
        let evidence = evidence(&observed.data);
        match &observed.exit {
            Exit::Code(0) => judged(row, trial.abi, evidence),
            exit => {
                let told =
                    evidence.get("error").map_or(String::new(), |error| format!(": {error}"));
                let reason = format!("the program ended with {exit:?}{told}");
                Judgement::fail(
                    Some(measured(row, trial.abi, Finding::Undecided, evidence)),
                    reason,
                )
            }
        }
    }

    fn review(&self, trial: &Trial, judgement: Judgement, facts: &Facts<'_>) -> Judgement {
        let Some(row) = row_of(trial) else { return judgement };
        let infra = matches!(judgement.verdict, Verdict::Infra | Verdict::Skip);
        if infra || !row.setting().is_some_and(|setting| setting.breaks) {
            return judgement;
        }
        let mut evidence = evidence(facts.data);
        let well = judgement.verdict.is_well();
        let machine = if well { "well" } else { judgement.verdict.name() };
        evidence.insert("machine".to_string(), json!(machine));
        if let Some(reason) = judgement.reason {
            evidence.insert("machine_says".to_string(), json!(reason));
        }
        judged(row, trial.abi, evidence)
    }

    fn cites(&self, trial: &Trial) -> &'static [(&'static str, &'static str)] {
        row_of(trial).map_or(&[], |row| row.source)
    }

    fn sections(&self, trials: &[&TrialReport]) -> Vec<Section> {
        vec![page::section(trials)]
    }
}

/// Whether a row is the one that is meant, or a part of it.
fn belongs(id: &str, only: &str) -> bool {
    id.eq_ignore_ascii_case(only)
        || id.split_once('.').is_some_and(|(whole, _)| whole.eq_ignore_ascii_case(only))
}

/// What guests have to have in common.
fn alike(row: &Row) -> Option<(u32, u64, &'static str)> {
    row.setting().map(|setting| (setting.cpus, setting.memory_bytes, setting.boot))
}

fn row_of(trial: &Trial) -> Option<&'static Row> {
    let id = trial.params.get("id")?.as_str()?;
    ledger::rows().find(|row| row.id == id)
}

fn trial(ask: &Ask, abi: Abi, row: &Row) -> Trial {
    let (setting, desk) = match row.how {
        How::Guest(setting) => (setting, None),
        How::Desk(desk) => (Setting::ALONE, Some(desk)),
    };
    let own = |&(name, value): &(&str, &str)| (name.to_string(), value.to_string());
    let rlimit =
        |&(name, value): &(&str, u64)| Rlimit { name: name.to_string(), value: Some(value) };
    let argv = match setting.program {
        [] => vec![workload("claims"), row.id.to_string()],
        [program, rest @ ..] => {
            let rest = rest.iter().map(|argument| (*argument).to_string());
            std::iter::once(workload(program)).chain(rest).collect()
        }
    };
    Trial {
        name: format!("claims/{abi}/{}/{}", ask.kernel, row.id),
        abi,
        params: object(json!({ "id": row.id })),
        job: Job {
            argv,
            user: setting.user,
            sysctls: setting.sysctls.iter().map(own).chain(ask.sysctls.iter().cloned()).collect(),
            rlimits: setting.rlimits.iter().map(rlimit).collect(),
            ..Job::default()
        },
        desk,
        cpus: ask.cpus.unwrap_or(setting.cpus),
        memory_bytes: ask.memory_bytes.unwrap_or(setting.memory_bytes),
        limits: Limits::new(setting.limit, setting.limit + Duration::from_secs(20)),
        timeout: ask.timeout,
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
            Value::String(text) => json!(truncate(text.clone())),
            Value::Number(_) | Value::Bool(_) => value.clone(),
            other => json!(truncate(other.to_string())),
        };
        evidence.insert(truncate(key.clone()), value);
    }
    evidence
}

fn measured(
    row: &Row,
    abi: Abi,
    finding: Finding,
    evidence: Map<String, Value>,
) -> Map<String, Value> {
    object(json!({
        "finding": finding,
        "expected": row.expect.of(abi.kernel()),
        "evidence": evidence,
    }))
}

fn judged(row: &Row, abi: Abi, evidence: Map<String, Value>) -> Judgement {
    let (finding, expected) = (row.find(&evidence), row.expect.of(abi.kernel()));
    let told = page::show_evidence(&evidence);
    let measured = Some(measured(row, abi, finding, evidence));
    if finding == expected {
        return Judgement::pass(measured);
    }
    let needs = page::show_conditions(row.conditions(expected));
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
