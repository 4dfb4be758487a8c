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
use serde_json::{Map, Value, json};

use super::{Experiment, Facts, Judgement, Observed, Selection, Trial, object, workload};
use crate::abi::Abi;
use crate::guest::Limits;
use crate::report::{Entry, Section, TrialReport, Verdict, seconds};
use crate::usage;
use faults::{ALL, By};

/// See the module's documentation.
pub struct Control;

/// A guest that must be found dead gets less time to answer than others.
const LIMITS: Limits = Limits {
    silence: Duration::from_secs(20),
    total: Duration::from_secs(20),
    answer: Duration::from_secs(2),
};
/// What a machine without a fault may take.
const CALM_TIMEOUT: Duration = Duration::from_secs(60);
const MEMORY_BYTES: u64 = 256 << 20;

/// What a machine runs that is broken from outside: it says that it is there,
/// and waits for what comes.
const TARGET: &str = "echo '{\"ready\":true}' >&3; sleep 1";

impl Experiment for Control {
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

    fn plan(&self, selection: &Selection) -> Result<Vec<Trial>> {
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

    fn judge(&self, _: &Trial, observed: &Observed) -> Judgement {
        let strange = observed.data.iter().find(|value| value.get("not-json").is_some());
        match (&observed.exit, strange) {
            (Exit::Code(0), None) => Judgement::pass(None),
            (exit, None) => Judgement::fail(None, format!("the program ended with {exit:?}")),
            (_, Some(value)) => {
                Judgement::fail(None, format!("the program reported no JSON: {value}"))
            }
        }
    }

    fn review(&self, trial: &Trial, judgement: Judgement, facts: &Facts<'_>) -> Judgement {
        let reason = judgement.reason.unwrap_or_default();
        let measured = Some(object(json!({
            "verdict": judgement.verdict,
            "reason": reason,
            "verdict_s": seconds(facts.verdict),
            "fault_domain": facts.fault_domain,
            "attempts": facts.attempts,
            "flaky": facts.flaky,
        })));
        let Some(control) = ALL.iter().find(|control| trial.params["fault"] == control.name) else {
            return Judgement::fail(measured, "there is no such control");
        };
        let (verdict, says, within) = match is_calm(&trial.params) {
            true => (Verdict::Pass, "", CALM_TIMEOUT),
            false => (control.verdict, control.says, control.within),
        };
        if judgement.verdict != verdict || !reason.contains(says) {
            let got = judgement.verdict.name();
            return Judgement::fail(
                measured,
                format!("expected {} that says \"{says}\", got {got}: {reason}", verdict.name()),
            );
        }
        if facts.verdict > within {
            let (took, most) = (seconds(facts.verdict), within.as_secs());
            return Judgement::fail(measured, format!("the verdict took {took} s, not {most} s"));
        }
        let (attempts, fault_domain) = match is_calm(&trial.params) {
            true => (1, None),
            false => (control.attempts, control.fault_domain),
        };
        if facts.attempts != attempts || facts.flaky != (verdict == Verdict::Pass && attempts > 1) {
            return Judgement::fail(measured, format!("tried {} times", facts.attempts));
        }
        if facts.fault_domain != fault_domain {
            return Judgement::fail(measured, format!("fault domain {:?}", facts.fault_domain));
        }
        Judgement::pass(measured)
    }

    fn sections(&self, trials: &[&TrialReport]) -> Vec<Section> {
        let broken: Vec<_> = trials.iter().filter(|trial| !is_calm(&trial.params)).collect();
        let calm: Vec<_> = trials.iter().filter(|trial| is_calm(&trial.params)).collect();
        let well = calm.iter().filter(|trial| trial.verdict == Verdict::Pass).count();
        let mut machines: Vec<_> = calm.iter().map(|trial| trial.vm.as_str()).collect();
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
            calm.len(),
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
    let entry = |kind: &nlrig_splat::SplatKind| Entry {
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

fn is_calm(params: &Map<String, Value>) -> bool {
    params.get("calm") == Some(&json!(true))
}

fn trial(selection: &Selection, abi: Abi, control: &faults::ControlCase, calm: bool) -> Trial {
    let arch = abi.kernel();
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_string()).collect::<Vec<_>>();
    let boot = match control.by {
        By::Boot(words) if !calm => words,
        _ => "",
    };
    let (argv, fault) = match control.by {
        By::Module(_) if calm => (vec![workload("fault"), "none".to_string()], None),
        By::Module(kind) => (vec![workload("fault"), kind.to_string()], None),
        By::Script(_) if calm => (words(&["sh", "-c", "true"]), None),
        By::Script(script) => (words(&["sh", "-c", script]), None),
        By::Boot(_) => (words(&["sh", "-c", TARGET]), None),
        By::Outside(fault) => (words(&["sh", "-c", TARGET]), Some(fault).filter(|_| !calm)),
    };
    let sysctls = if calm { &[][..] } else { control.sysctls };
    let own = |&(name, value): &(&str, &str)| (name.to_string(), value.to_string());
    let name = if calm { "calm/" } else { "" };
    Trial {
        name: format!("control/{arch}/{name}{}", control.name),
        abi,
        params: object(json!({ "fault": control.name, "calm": calm })),
        job: Job { argv, sysctls: sysctls.iter().map(own).collect(), ..Job::default() },
        static_check: None,
        cpus: selection.cpus.unwrap_or(2),
        memory_bytes: selection.memory_bytes.unwrap_or(MEMORY_BYTES),
        limits: LIMITS,
        // Nothing is wrong there, so nothing is to be found out soon.
        timeout: Some(if calm { CALM_TIMEOUT } else { control.timeout }),
        alone: !calm,
        boot,
        flavour: None,
        fault,
        published: Vec::new(),
    }
}

fn row(trial: &TrialReport) -> Vec<String> {
    let measured = |key: &str| trial.measured.as_ref().and_then(|measured| measured.get(key));
    let text = |key: &str| measured(key).and_then(Value::as_str).unwrap_or("-").to_string();
    let fault = trial.params.get("fault").and_then(Value::as_str).unwrap_or("-");
    let what = ALL.iter().find(|control| control.name == fault).map_or("-", |control| control.what);
    let took = measured("verdict_s").and_then(Value::as_f64);
    vec![
        fault.to_string(),
        what.to_string(),
        trial.abi.kernel().to_string(),
        text("verdict"),
        text("fault_domain"),
        took.map_or("-".to_string(), |seconds| format!("{seconds:.1}")),
        trial.attempts.to_string(),
        if trial.verdict == Verdict::Pass { "yes" } else { "no" }.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::FaultDomain;

    fn reviewed(name: &str, verdict: Verdict, reason: &str, facts: Facts<'_>) -> Verdict {
        let selection = Selection::new(&[Abi::I386], "6.1");
        let trials = Control.plan(&selection).unwrap();
        let full = format!("control/i386/{name}");
        let trial = trials.iter().find(|trial| trial.name == full).unwrap();
        let judgement = Judgement { verdict, reason: Some(reason.to_string()), measured: None };
        Control.review(trial, judgement, &facts).verdict
    }

    #[test]
    fn a_control_passes_only_with_its_own_verdict_reason_time_and_tries() {
        let facts = |attempts, seconds| Facts {
            attempts,
            flaky: false,
            fault_domain: Some(FaultDomain::Guest),
            verdict: Duration::from_secs(seconds),
            data: &[],
        };
        let calm = |attempts| Facts { fault_domain: None, ..facts(attempts, 1) };
        let said = "nlrig: a panic on request";
        assert_eq!(reviewed("panic", Verdict::Panic, said, facts(1, 1)), Verdict::Pass);
        assert_eq!(reviewed("panic", Verdict::Oops, said, facts(1, 1)), Verdict::Fail);
        assert_eq!(reviewed("panic", Verdict::Panic, "else", facts(1, 1)), Verdict::Fail);
        assert_eq!(reviewed("panic", Verdict::Panic, said, facts(1, 60)), Verdict::Fail);
        assert_eq!(reviewed("panic", Verdict::Panic, said, facts(2, 1)), Verdict::Fail);
        assert_eq!(reviewed("calm/panic", Verdict::Pass, "", calm(1)), Verdict::Pass);
        assert_eq!(reviewed("calm/panic", Verdict::Panic, said, facts(1, 1)), Verdict::Fail);
        let host = Facts { fault_domain: Some(FaultDomain::Host), ..facts(1, 1) };
        assert_eq!(reviewed("panic", Verdict::Panic, said, host), Verdict::Fail);
        assert_eq!(reviewed("qemu-killed-once", Verdict::Pass, "", calm(2)), Verdict::Fail);
        let flaky = Facts { flaky: true, ..calm(2) };
        assert_eq!(reviewed("qemu-killed-once", Verdict::Pass, "", flaky), Verdict::Pass);
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
