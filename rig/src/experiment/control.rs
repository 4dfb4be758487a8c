//! The experiment `control`: machines are broken on purpose, and the rig must
//! say how.
//!
//! A rig is worth what its failures are worth. Each control provokes one fault in
//! a real machine and passes if the verdict, the reason and the time are the ones
//! expected. The same programs without their faults must all pass: the controls
//! of the controls.

mod faults;

use std::time::Duration;

use anyhow::Result;
use nlrig_guest::protocol::{Exit, Job};
use serde::{Deserialize, Serialize};

use super::{
    Experiment, Judgement, Nothing, Observed, Selection, Trial, TrialOutcome, TrialResult, workload,
};
use crate::abi::Abi;
use crate::guest::Limits;
use crate::report::{Detail, FaultDomain, Section, Verdict, seconds};
use crate::usage;
use faults::{ALL, By, ControlCase};

/// See the module's documentation.
pub struct Control;

/// The fault that a trial provokes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlParams {
    /// The name of its control.
    fault: String,
    /// Whether the same program runs without its fault.
    #[serde(rename = "calm")]
    negative_control: bool,
}

/// What the rig reported of a fault.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    verdict: Verdict,
    reason: String,
    verdict_s: f64,
    #[serde(default)]
    fault_domain: Option<FaultDomain>,
    attempts: u32,
    /// Whether it passed only at the second attempt.
    #[serde(default)]
    flaky: bool,
}

/// A guest that must be found dead gets less time to answer than others.
const LIMITS: Limits = Limits {
    silence: Duration::from_secs(20),
    total: Duration::from_secs(20),
    answer: Duration::from_secs(2),
};
/// The time limit of a negative control.
const NEGATIVE_TIMEOUT: Duration = Duration::from_secs(60);
const MEMORY_BYTES: u64 = 256 << 20;

/// What a machine runs that is broken from outside: it says that it is there,
/// and waits for what comes.
const TARGET: &str = "echo '{\"ready\":true}' >&3; sleep 1";

impl Experiment for Control {
    type Params = ControlParams;
    type Prediction = Nothing;
    type Measured = Detection;

    fn name(&self) -> &'static str {
        "control"
    }

    fn summary(&self) -> &'static str {
        "every way a machine can fail gets its own verdict, within a known time"
    }

    /// A fault is the kernel's: a 32-bit program on a 64-bit one adds nothing.
    fn abis(&self) -> &'static [Abi] {
        &[Abi::I386, Abi::X86_64]
    }

    fn by_default(&self) -> bool {
        false
    }

    fn parameters(&self) -> &'static [(&'static str, &'static str)] {
        &[("fault", "only this one, as the names of the trials end")]
    }

    fn plan(&self, selection: &Selection) -> Result<Vec<Trial<ControlParams>>> {
        let only = selection.set.get("fault");
        if let Some(only) = only.filter(|only| !ALL.iter().any(|known| known.name == **only)) {
            let names: Vec<_> = ALL.iter().map(|control| control.name).collect();
            return Err(usage!("--set fault={only}: there is {}", names.join(", ")));
        }
        let abis: Vec<_> = selection.abis.iter().filter(|abi| self.abis().contains(abi)).collect();
        if abis.is_empty() {
            return Err(usage!("--abi ia32: controls are tried on i386 and x86_64"));
        }
        let mut trials = Vec::new();
        for &abi in abis {
            let controls =
                || ALL.iter().filter(|control| only.is_none_or(|only| control.name == *only));
            trials.extend(controls().map(|control| trial(selection, abi, control, false)));
            trials.extend(controls().map(|control| trial(selection, abi, control, true)));
        }
        Ok(trials)
    }

    fn evaluate(
        &self,
        _: &Trial<ControlParams>,
        observed: &Observed<Nothing>,
    ) -> Judgement<Detection> {
        let strange = observed.data.iter().find(|value| value.get("not-json").is_some());
        match (&observed.exit, strange) {
            (Exit::Code(0), None) => Judgement::pass(None),
            (exit, None) => Judgement::fail(None, format!("the program ended with {exit:?}")),
            (_, Some(value)) => {
                Judgement::fail(None, format!("the program reported no JSON: {value}"))
            }
        }
    }

    /// Passes if the verdict that any other experiment would report is the one that
    /// the control expects, for its reason, in time, and after its attempts.
    fn judge(
        &self,
        trial: &Trial<ControlParams>,
        outcome: &TrialOutcome<Nothing>,
    ) -> Judgement<Detection> {
        let found = outcome.judge_with(|observed| self.evaluate(trial, observed));
        let attempts = outcome.attempts();
        let detection = Detection {
            verdict: found.verdict,
            reason: found.reason.unwrap_or_default(),
            verdict_s: seconds(outcome.verdict_after()),
            fault_domain: outcome.fault_domain(found.verdict),
            attempts,
            flaky: attempts > 1 && found.verdict == Verdict::Pass,
        };
        let wrong = match trial.params.control() {
            None => Some("there is no such control".to_string()),
            Some(control) => {
                detection.disagreement(control, &trial.params, outcome.verdict_after())
            }
        };
        Judgement::by(detection, wrong)
    }

    fn sections(&self, trials: &[&TrialResult<'_, Self>]) -> Vec<Section> {
        let (negative, broken): (Vec<_>, Vec<_>) =
            trials.iter().copied().partition(|trial| trial.params.negative_control);
        let well = negative.iter().filter(|trial| trial.report.verdict == Verdict::Pass).count();
        let mut machines: Vec<_> = negative.iter().map(|trial| trial.report.vm.as_str()).collect();
        machines.dedup();
        let columns = [
            "fault",
            "what happens",
            "architecture",
            "verdict",
            "fault domain",
            "seconds",
            "tries",
            "as expected",
        ];
        let words = format!(
            "Seconds are from the start of the program to the verdict, in the last try; what \
             takes four or eight of them is found by a deadline of that length. A trial whose \
             machine is lost to QEMU or to the host is tried once more. Of the same programs without their faults {well} of {} \
             passed, in {} machines.",
            negative.len(),
            machines.len(),
        );
        let controls = Section {
            title: "Controls: every way to fail, and its verdict".to_string(),
            columns: columns.map(str::to_string).to_vec(),
            rows: broken.iter().map(|trial| row(trial)).collect(),
            words,
            ..Section::default()
        };
        vec![controls, kinds()]
    }
}

/// The kinds of fault report that are found on a console, for the page.
fn kinds() -> Section {
    let entry = |kind: &nlrig_splat::SplatKind| Detail {
        title: format!("{} ({})", kind.name, kind.severity),
        fields: vec![
            ("fault", kind.what.to_string()),
            ("printed by", kind.source.to_string()),
            ("begins with", kind.patterns.join(" | ")),
        ],
    };
    Section {
        title: "What a kernel reports on its console".to_string(),
        words: "Each kind with the format strings that its first line is printed by. Any other \
                BUG: or WARNING: of the kernel is a warning if a call trace follows it."
            .to_string(),
        entries: nlrig_splat::KINDS.iter().map(entry).collect(),
        ..Section::default()
    }
}

impl ControlParams {
    fn control(&self) -> Option<&'static ControlCase> {
        ALL.iter().find(|control| control.name == self.fault)
    }
}

impl Detection {
    /// Why it is not the one that a control expects, if it is not.
    fn disagreement(
        &self,
        control: &ControlCase,
        params: &ControlParams,
        verdict_after: Duration,
    ) -> Option<String> {
        let (verdict, says, within, attempts, fault_domain) = match params.negative_control {
            true => (Verdict::Pass, "", NEGATIVE_TIMEOUT, 1, None),
            false => {
                let ControlCase { verdict, says, within, attempts, fault_domain, .. } = *control;
                (verdict, says, within, attempts, fault_domain)
            }
        };
        let reason = &self.reason;
        if self.verdict != verdict || !reason.contains(says) {
            let (expected, got) = (verdict.name(), self.verdict.name());
            Some(format!("expected {expected} that says \"{says}\", got {got}: {reason}"))
        } else if verdict_after > within {
            let most = within.as_secs();
            Some(format!("the verdict took {} s, not {most} s", self.verdict_s))
        } else if self.attempts != attempts
            || self.flaky != (verdict == Verdict::Pass && attempts > 1)
        {
            Some(format!("tried {} times", self.attempts))
        } else if self.fault_domain != fault_domain {
            Some(format!("fault domain {:?}", self.fault_domain))
        } else {
            None
        }
    }
}

fn trial(
    selection: &Selection,
    abi: Abi,
    control: &ControlCase,
    negative_control: bool,
) -> Trial<ControlParams> {
    let arch = abi.kernel();
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_string()).collect::<Vec<_>>();
    let boot = match control.by {
        By::Boot(words) if !negative_control => words,
        _ => "",
    };
    let (argv, fault) = match control.by {
        By::Module(_) if negative_control => (vec![workload("fault"), "none".to_string()], None),
        By::Module(kind) => (vec![workload("fault"), kind.to_string()], None),
        By::Script(_) if negative_control => (words(&["sh", "-c", "true"]), None),
        By::Script(script) => (words(&["sh", "-c", script]), None),
        By::Boot(_) => (words(&["sh", "-c", TARGET]), None),
        By::Outside(fault) => {
            (words(&["sh", "-c", TARGET]), Some(fault).filter(|_| !negative_control))
        }
    };
    let sysctls = if negative_control { &[][..] } else { control.sysctls };
    let own = |&(name, value): &(&str, &str)| (name.to_string(), value.to_string());
    let sysctls = sysctls.iter().map(own).collect();
    let folder = if negative_control { "calm/" } else { "" };
    let name = format!("control/{arch}/{folder}{}", control.name);
    let trial = Trial::new(name, abi, Job { argv, sysctls, ..Job::default() })
        .params(ControlParams { fault: control.name.to_string(), negative_control })
        .memory(MEMORY_BYTES)
        .limits(LIMITS)
        .alone_if(!negative_control)
        .boot(boot)
        .fault(fault)
        .select(selection);
    // The control's own time limit stands: the fault must be found within it.
    trial.timeout(if negative_control { NEGATIVE_TIMEOUT } else { control.timeout })
}

fn row(trial: &TrialResult<'_, Control>) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or("-".to_string());
    let found = trial.measured.as_ref();
    let fault_domain = found.and_then(|found| found.fault_domain);
    vec![
        trial.params.fault.clone(),
        trial.params.control().map_or("-", |control| control.what).to_string(),
        trial.report.abi.kernel().to_string(),
        or_dash(found.map(|found| found.verdict.name().to_string())),
        or_dash(fault_domain.map(|domain| domain.name().to_string())),
        or_dash(found.map(|found| format!("{:.1}", found.verdict_s))),
        trial.report.attempts.to_string(),
        if trial.report.verdict == Verdict::Pass { "yes" } else { "no" }.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::FailedTrial;
    use crate::outcome::VmFailure;

    /// What the control of this name makes of an outcome.
    fn judged(name: &str, outcome: TrialOutcome<Nothing>) -> Verdict {
        let trials = Control.plan(&Selection::new(&[Abi::I386], "6.1")).unwrap();
        let full = format!("control/i386/{name}");
        let trial = trials.iter().find(|trial| trial.name == full).unwrap();
        Control.judge(trial, &outcome).verdict
    }

    fn failed(
        verdict: Verdict,
        reason: &str,
        domain: FaultDomain,
        attempts: u32,
        after_s: u64,
    ) -> TrialOutcome<Nothing> {
        let failure = VmFailure::caused_by(verdict, reason, domain);
        let verdict_after = Duration::from_secs(after_s);
        let failed = FailedTrial::new(failure, Vec::new());
        TrialOutcome::Failed(FailedTrial { attempts, verdict_after, ..failed })
    }

    fn passed(attempts: u32) -> TrialOutcome<Nothing> {
        let observed = Observed::new(Vec::new(), Exit::Code(0));
        TrialOutcome::Completed(Observed { attempts, ..observed })
    }

    #[test]
    fn a_control_passes_only_with_its_own_verdict_reason_time_and_attempts() {
        use FaultDomain::{Guest, Host};
        let says = "nlrig: a panic on request";
        let panic = |reason, attempts, after_s| {
            judged("panic", failed(Verdict::Panic, reason, Guest, attempts, after_s))
        };
        assert_eq!(panic(says, 1, 1), Verdict::Pass);
        assert_eq!(panic("else", 1, 1), Verdict::Fail);
        assert_eq!(panic(says, 1, 60), Verdict::Fail);
        assert_eq!(panic(says, 2, 1), Verdict::Fail);
        let oops = failed(Verdict::Oops, says, Guest, 1, 1);
        assert_eq!(judged("panic", oops), Verdict::Fail);
        let host = failed(Verdict::Panic, says, Host, 1, 1);
        assert_eq!(judged("panic", host), Verdict::Fail);
        assert_eq!(judged("panic", passed(1)), Verdict::Fail);
        assert_eq!(judged("calm/panic", passed(1)), Verdict::Pass);
        let panic = failed(Verdict::Panic, says, Guest, 1, 1);
        assert_eq!(judged("calm/panic", panic), Verdict::Fail);
        assert_eq!(judged("qemu-killed-once", passed(1)), Verdict::Fail);
        assert_eq!(judged("qemu-killed-once", passed(2)), Verdict::Pass);
    }

    #[test]
    fn each_fault_domain_has_a_control() {
        use FaultDomain::*;
        for domain in [Guest, Qemu, Host, Unknown] {
            assert!(ALL.iter().any(|control| control.fault_domain == Some(domain)), "{domain:?}");
        }
    }

    #[test]
    fn each_verdict_but_skip_has_a_control() {
        use Verdict::*;
        for verdict in
            [Pass, Fail, Timeout, GuestHang, Panic, Oops, Warning, Taint, Reset, LostVm, Infra]
        {
            assert!(ALL.iter().any(|control| control.verdict == verdict), "{verdict:?}");
        }
    }
}
