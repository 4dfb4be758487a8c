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

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use nlrig_guest::protocol::{Exit, Job, Rlimit};
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use super::{
    Experiment, Judgement, Nothing, Observed, OrderedMap, RigModule, Selection, SourceRef, Trial,
    TrialOutcome, TrialResult, workload,
};
use crate::abi::Abi;
use crate::guest::Limits;
use crate::report::{Section, Verdict};
use crate::ui::truncate;
use crate::usage;
use case::{Case, Finding, Method, Setting};

/// See the module's documentation.
pub struct Claims;

/// The case that a trial tries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimParams {
    /// `A9`, or `A9.2` for a part.
    id: String,
}

/// What a trial found out about a claim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClaimResult {
    finding: Finding,
    /// What the catalogue expects of this kernel.
    expected: Finding,
    evidence: Evidence,
}

/// What the guest program reported, and how the VM ended if that is evidence.
pub type Evidence = OrderedMap<Scalar>;

/// One value of the evidence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    /// Whether something is so.
    Flag(bool),
    /// A count, a time or a size.
    Number(Number),
    /// The name of an error, or a message.
    Text(String),
}

/// The number of values that are kept of a program's evidence.
const EVIDENCE_MAX: usize = 64;

impl Experiment for Claims {
    type Params = ClaimParams;
    type Prediction = Nothing;
    type Measured = ClaimResult;

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

    fn rig_module(&self) -> RigModule {
        RigModule::Replaceable
    }

    fn parameters(&self) -> &'static [(&'static str, &'static str)] {
        &[("id", "only this case: A9 with its parts, or A9.2")]
    }

    fn cases(&self) -> Vec<(&'static str, &'static str)> {
        catalogue::cases().map(|case| (case.id, case.claim)).collect()
    }

    fn plan(&self, selection: &Selection) -> Result<Vec<Trial<ClaimParams>>> {
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

    fn evaluate(
        &self,
        trial: &Trial<ClaimParams>,
        observed: &Observed<Nothing>,
    ) -> Judgement<ClaimResult> {
        let Some(case) = case_of(trial) else {
            return Judgement::fail(None, "there is no such case");
        };
        let evidence = evidence(&observed.data);
        match &observed.exit {
            Exit::Code(0) => judged(case, trial.abi, evidence),
            exit => {
                let error =
                    evidence.get("error").map_or(String::new(), |error| format!(": {error}"));
                let reason = format!("the program ended with {exit:?}{error}");
                let result = result(case, trial.abi, Finding::Undecided, evidence);
                Judgement::fail(Some(result), reason)
            }
        }
    }

    /// The end of a VM is evidence if the case may break it.
    fn judge(
        &self,
        trial: &Trial<ClaimParams>,
        outcome: &TrialOutcome<Nothing>,
    ) -> Judgement<ClaimResult> {
        let breaks = |case: &&Case| case.setting().is_some_and(|setting| setting.breaks);
        let failure = outcome.failure();
        let no_evidence = failure
            .is_some_and(|failure| matches!(failure.verdict, Verdict::Infra | Verdict::Skip));
        let Some(case) = case_of(trial).filter(breaks).filter(|_| !no_evidence) else {
            return outcome.judge_with(|observed| self.evaluate(trial, observed));
        };
        let mut evidence = evidence(outcome.data());
        let vm = failure.map_or("well", |failure| failure.verdict.name());
        evidence.insert("machine".to_string(), Scalar::Text(vm.to_string()));
        if let Some(failure) = failure {
            let reason = Scalar::Text(failure.reason.clone());
            evidence.insert("machine_says".to_string(), reason);
        }
        judged(case, trial.abi, evidence)
    }

    fn sources(&self, trial: &Trial<ClaimParams>) -> &'static [SourceRef] {
        case_of(trial).map_or(&[], |case| case.source)
    }

    fn sections(&self, trials: &[&TrialResult<'_, Self>]) -> Vec<Section> {
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

fn case_of(trial: &Trial<ClaimParams>) -> Option<&'static Case> {
    catalogue::cases().find(|case| case.id == trial.params.id)
}

fn trial(selection: &Selection, abi: Abi, case: &Case) -> Trial<ClaimParams> {
    let (setting, static_check) = match case.method {
        Method::Guest(setting) => (setting, None),
        Method::Static(check) => (Setting::ALONE, Some(check)),
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
    let job = Job {
        argv,
        user: setting.user,
        sysctls: setting.sysctls.iter().map(own).chain(selection.sysctls.iter().cloned()).collect(),
        rlimits: setting.rlimits.iter().map(rlimit).collect(),
        ..Job::default()
    };
    Trial::new(format!("claims/{abi}/{}/{}", selection.kernel, case.id), abi, job)
        .params(ClaimParams { id: case.id.to_string() })
        .static_check(static_check)
        .cpus(setting.cpus)
        .memory(setting.memory_bytes)
        .limits(Limits::new(setting.limit, setting.limit + Duration::from_secs(20)))
        .alone_if(setting.alone)
        .boot(setting.boot)
        .select(selection)
}

/// All that a program reported, as one object.
fn evidence(data: &[Value]) -> Evidence {
    let objects = data.iter().filter_map(Value::as_object);
    let mut evidence = Evidence::new();
    for (key, value) in objects.flatten() {
        if evidence.len() == EVIDENCE_MAX {
            break;
        }
        evidence.insert(truncate(key.clone()), Scalar::of(value));
    }
    evidence
}

impl Scalar {
    /// A value of the guest's, with its length bounded.
    fn of(value: &Value) -> Scalar {
        match value {
            Value::String(text) => Scalar::Text(truncate(text.clone())),
            Value::Number(number) => Scalar::Number(number.clone()),
            Value::Bool(flag) => Scalar::Flag(*flag),
            other => Scalar::Text(truncate(other.to_string())),
        }
    }
}

/// As JSON.
impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scalar::Flag(flag) => flag.fmt(f),
            Scalar::Number(number) => number.fmt(f),
            Scalar::Text(text) => Value::from(text.as_str()).fmt(f),
        }
    }
}

fn result(case: &Case, abi: Abi, finding: Finding, evidence: Evidence) -> ClaimResult {
    ClaimResult { finding, expected: case.expect.of(abi.kernel()), evidence }
}

fn judged(case: &Case, abi: Abi, evidence: Evidence) -> Judgement<ClaimResult> {
    let finding = case.find(&evidence);
    let result = result(case, abi, finding, evidence);
    if finding == result.expected {
        return Judgement::pass(Some(result));
    }
    let reason = format!(
        "{}, expected {}, which needs {}; got {}",
        finding.name(),
        result.expected.name(),
        page::show_conditions(case.conditions(result.expected)),
        page::show_evidence(&result.evidence)
    );
    Judgement::fail(Some(result), reason)
}

#[cfg(test)]
mod tests;
