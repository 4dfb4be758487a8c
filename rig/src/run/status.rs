//! The exit status of a run, from its report.

use crate::abi::Abi;
use crate::error;
use crate::report::{FaultDomain, Report, TrialReport, Verdict};

/// What decides the exit status beside the verdicts.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// The experiments that the user asked for by name.
    pub experiments: Vec<String>,
    /// The ABIs that the user asked for by name.
    pub abis: Vec<Abi>,
    /// Trials that were all skipped are no failure.
    pub allow_skip: bool,
    /// A trial that passed only at the second try is a failure.
    pub no_flaky: bool,
}

/// The exit status of a run; the first condition that holds decides.
///
/// A trial that failed outranks the rig's own trouble: a run that found a bug in
/// the guest must not look like one that found nothing.
pub fn status(report: &Report, policy: &Policy) -> u8 {
    if any_failed(report) {
        error::TRIAL_FAILED
    } else if report.trials.iter().any(is_rig_trouble) {
        error::RIG
    } else if !policy.allow_skip && all_skipped(report, policy).is_some()
        || policy.no_flaky && report.trials.iter().any(|trial| trial.flaky)
    {
        error::TRIAL_FAILED
    } else {
        error::OK
    }
}

/// Whether a trial failed, or its guest did.
pub fn any_failed(report: &Report) -> bool {
    report.trials.iter().any(|trial| !trial.verdict.is_well() && !is_rig_trouble(trial))
}

/// Whether a trial found out nothing about the guest. A machine that was lost to
/// nobody knows what is the guest's failure.
fn is_rig_trouble(trial: &TrialReport) -> bool {
    match trial.verdict {
        Verdict::Infra => true,
        Verdict::LostVm => trial.fault_domain.is_some_and(FaultDomain::is_rig),
        _ => false,
    }
}

/// What the user asked for that was skipped altogether: an experiment, an ABI,
/// or the kernel, with which everything is.
pub fn all_skipped(report: &Report, policy: &Policy) -> Option<String> {
    let skipped = |belongs: &dyn Fn(&&TrialReport) -> bool| {
        let mut trials = report.trials.iter().filter(belongs).peekable();
        trials.peek().is_some() && trials.all(|trial| trial.verdict == Verdict::Skip)
    };
    let experiment = policy
        .experiments
        .iter()
        .find(|name| skipped(&|trial| trial.experiment == **name))
        .map(|name| format!("experiment {name}"));
    let abi = || {
        let abi = policy.abis.iter().find(|abi| skipped(&|trial| trial.abi == **abi));
        abi.map(|abi| format!("ABI {abi}"))
    };
    let all = || skipped(&|_| true).then(|| "run".to_string());
    experiment.or_else(abi).or_else(all)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A report of trials, each with its ABI, verdict and fault domain.
    fn report(trials: &[(Abi, Verdict, Option<FaultDomain>)]) -> Report {
        let trial = |&(abi, verdict, domain): &(Abi, Verdict, Option<FaultDomain>)| {
            json!({
                "experiment": "smoke", "name": "smoke", "abi": abi, "kernel": "6.1.0",
                "flavour": "default", "accel": "tcg", "params": {}, "verdict": verdict,
                "reason": null, "attempts": 1, "blame": domain, "measured": null,
                "predicted": null, "published": [], "duration_s": 1.0, "clocksource": null,
                "artifacts": {}
            })
        };
        let trials: Vec<_> = trials.iter().map(trial).collect();
        let environment = crate::report::Environment::default();
        serde_json::from_value(json!({
            "schema": "", "started_at": "", "duration_s": 1.0, "environment": environment,
            "trials": trials,
        }))
        .unwrap()
    }

    fn asked() -> Policy {
        Policy {
            experiments: vec!["smoke".to_string()],
            abis: vec![Abi::I386],
            ..Policy::default()
        }
    }

    #[test]
    fn a_failed_trial_outranks_the_rigs_trouble() {
        use FaultDomain::*;
        const PASS: (Abi, Verdict, Option<FaultDomain>) = (Abi::X86_64, Verdict::Pass, None);
        for (verdict, domain, expected) in [
            (Verdict::Pass, None, 0),
            (Verdict::Fail, Some(Guest), 1),
            (Verdict::Reset, Some(Guest), 1),
            (Verdict::LostVm, Some(Guest), 1),
            (Verdict::LostVm, Some(Unknown), 1),
            (Verdict::LostVm, Some(Qemu), 125),
            (Verdict::LostVm, Some(Host), 125),
            (Verdict::Infra, Some(Host), 125),
        ] {
            let one = (Abi::X86_64, verdict, domain);
            assert_eq!(status(&report(&[PASS, one]), &Policy::default()), expected, "{one:?}");
        }
        let lost = (Abi::X86_64, Verdict::LostVm, Some(Qemu));
        let failed = (Abi::X86_64, Verdict::Fail, Some(Guest));
        assert_eq!(status(&report(&[lost, failed]), &Policy::default()), 1);
    }

    #[test]
    fn what_was_asked_for_and_skipped_is_a_failure() {
        let skip = |abi| (abi, Verdict::Skip, None);
        let pass = |abi| (abi, Verdict::Pass, None);
        let one = report(&[skip(Abi::I386), pass(Abi::X86_64)]);
        assert_eq!(status(&one, &Policy::default()), 0, "nobody asked for i386 by name");
        assert_eq!(status(&one, &asked()), 1);
        assert_eq!(all_skipped(&one, &asked()).as_deref(), Some("ABI i386"));
        assert_eq!(status(&one, &Policy { allow_skip: true, ..asked() }), 0);
        let some = report(&[skip(Abi::I386), pass(Abi::I386)]);
        assert_eq!(status(&some, &asked()), 0);
        let all = report(&[skip(Abi::I386), skip(Abi::X86_64)]);
        assert_eq!(status(&all, &Policy::default()), 1);
        assert_eq!(all_skipped(&all, &asked()).as_deref(), Some("experiment smoke"));
    }

    #[test]
    fn a_second_try_is_a_failure_only_if_asked() {
        let mut flaky = report(&[(Abi::I386, Verdict::Pass, None)]);
        flaky.trials[0].flaky = true;
        assert_eq!(status(&flaky, &asked()), 0);
        assert_eq!(status(&flaky, &Policy { no_flaky: true, ..asked() }), 1);
    }

    #[test]
    fn the_former_name_of_the_fault_domain_is_read() {
        let report = report(&[(Abi::I386, Verdict::LostVm, Some(FaultDomain::Qemu))]);
        assert_eq!(report.trials[0].fault_domain, Some(FaultDomain::Qemu));
        let text = serde_json::to_string(&report.trials[0]).unwrap();
        assert!(text.contains("\"fault_domain\":\"qemu\""), "{text}");
    }
}
