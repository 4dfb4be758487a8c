//! What an experiment judges: the outcome of a trial, however its VM ended.

use std::time::Duration;

use nlrig_guest::protocol::Exit;
use serde_json::Value;

use crate::outcome::VmFailure;
use crate::report::{FaultDomain, Verdict};
use crate::ui::truncate;

/// The outcome of a trial. `P` is the type of the experiment's prediction.
#[derive(Clone, Debug)]
pub enum TrialOutcome<P> {
    /// The program ended, and the guest kernel reported no fault.
    Completed(Observed<P>),
    /// The VM failed, or the guest kernel reported a fault.
    Failed(FailedTrial<P>),
}

/// What was observed of a program that ended.
#[derive(Clone, Debug)]
pub struct Observed<P> {
    /// The program's reports in their order, without progress reports.
    pub data: Vec<Value>,
    /// How the program ended.
    pub exit: Exit,
    /// The prediction that was made before.
    pub predicted: Option<P>,
    /// The guest kernel's message, if it killed a process for want of memory.
    pub out_of_memory: Option<String>,
    /// The program's last progress report.
    pub last_sign: Option<Value>,
    /// From the start of QEMU until the guest was ready.
    pub boot: Duration,
    /// From the start of QEMU to its end; to the end of the program if the guest
    /// goes on.
    pub total: Duration,
    /// The number of attempts, this one included.
    pub attempts: u32,
    /// From the start of the program to the verdict.
    pub verdict_after: Duration,
}

/// A trial whose VM failed, or whose guest kernel reported a fault.
#[derive(Clone, Debug)]
pub struct FailedTrial<P> {
    /// The failure.
    pub failure: VmFailure,
    /// What was observed, if the program ended all the same.
    pub observed: Option<Observed<P>>,
    /// The program's reports until then.
    pub data: Vec<Value>,
    /// The number of attempts, this one included.
    pub attempts: u32,
    /// From the start of the program to the verdict.
    pub verdict_after: Duration,
}

impl<P> Observed<P> {
    /// A program that reported this and ended so, at the first attempt.
    pub fn new(data: Vec<Value>, exit: Exit) -> Observed<P> {
        Observed {
            data,
            exit,
            predicted: None,
            out_of_memory: None,
            last_sign: None,
            boot: Duration::ZERO,
            total: Duration::ZERO,
            attempts: 1,
            verdict_after: Duration::ZERO,
        }
    }

    fn try_map<Q, E>(self, read: impl Fn(P) -> Result<Q, E>) -> Result<Observed<Q>, E> {
        Ok(Observed {
            predicted: self.predicted.map(read).transpose()?,
            data: self.data,
            exit: self.exit,
            out_of_memory: self.out_of_memory,
            last_sign: self.last_sign,
            boot: self.boot,
            total: self.total,
            attempts: self.attempts,
            verdict_after: self.verdict_after,
        })
    }
}

impl<P> FailedTrial<P> {
    /// A VM that failed at the first attempt, before the program ended.
    pub fn new(failure: VmFailure, data: Vec<Value>) -> FailedTrial<P> {
        let (attempts, verdict_after) = (1, Duration::ZERO);
        FailedTrial { failure, observed: None, data, attempts, verdict_after }
    }
}

impl<P> TrialOutcome<P> {
    /// The number of attempts.
    pub fn attempts(&self) -> u32 {
        match self {
            TrialOutcome::Completed(observed) => observed.attempts,
            TrialOutcome::Failed(failed) => failed.attempts,
        }
    }

    /// From the start of the program to the verdict, in the last attempt.
    pub fn verdict_after(&self) -> Duration {
        match self {
            TrialOutcome::Completed(observed) => observed.verdict_after,
            TrialOutcome::Failed(failed) => failed.verdict_after,
        }
    }

    /// The program's reports.
    pub fn data(&self) -> &[Value] {
        match self {
            TrialOutcome::Completed(observed) => &observed.data,
            TrialOutcome::Failed(failed) => &failed.data,
        }
    }

    /// The failure, if the VM failed or the guest kernel reported a fault.
    pub fn failure(&self) -> Option<&VmFailure> {
        match self {
            TrialOutcome::Completed(_) => None,
            TrialOutcome::Failed(failed) => Some(&failed.failure),
        }
    }

    /// Where the fault is if the trial has this verdict.
    pub fn fault_domain(&self, verdict: Verdict) -> Option<FaultDomain> {
        fault_domain(self.failure(), verdict)
    }

    /// Judges a trial that is not meant to fail: by its program, unless the VM
    /// failed. A fault of the guest kernel outranks what the program made of it,
    /// whose measurement is kept.
    pub fn judge_with<M>(
        &self,
        evaluate: impl FnOnce(&Observed<P>) -> Judgement<M>,
    ) -> Judgement<M> {
        match self {
            TrialOutcome::Completed(observed) => evaluate(observed),
            TrialOutcome::Failed(FailedTrial { failure, observed, .. }) => {
                let program = observed.as_ref().map(evaluate);
                let judgement = Judgement::failed(failure);
                match program {
                    None => judgement,
                    Some(Judgement { reason, measured, .. }) => Judgement {
                        reason: reason
                            .map(|also| format!("{}; {also}", failure.reason))
                            .or(judgement.reason),
                        measured,
                        ..judgement
                    },
                }
            }
        }
    }

    /// The same outcome with its prediction in another form.
    ///
    /// # Errors
    /// The prediction cannot be read.
    pub fn try_map<Q, E>(self, read: impl Fn(P) -> Result<Q, E>) -> Result<TrialOutcome<Q>, E> {
        Ok(match self {
            TrialOutcome::Completed(observed) => TrialOutcome::Completed(observed.try_map(read)?),
            TrialOutcome::Failed(failed) => TrialOutcome::Failed(FailedTrial {
                observed: failed.observed.map(|observed| observed.try_map(read)).transpose()?,
                failure: failed.failure,
                data: failed.data,
                attempts: failed.attempts,
                verdict_after: failed.verdict_after,
            }),
        })
    }
}

/// Where the fault is if a trial has this verdict; none if it passed or was skipped.
/// A verdict that is not the VM's own failure is about the guest.
pub fn fault_domain(failure: Option<&VmFailure>, verdict: Verdict) -> Option<FaultDomain> {
    let own = failure.filter(|failure| failure.verdict == verdict);
    let domain = own.map_or(FaultDomain::Guest, |failure| failure.fault_domain);
    Some(domain).filter(|_| !verdict.is_well())
}

/// What an experiment makes of an outcome. `M` is the type of its measurement.
#[derive(Clone, Debug)]
pub struct Judgement<M> {
    /// The verdict.
    pub verdict: Verdict,
    /// The reason; none for a pass.
    pub reason: Option<String>,
    /// What was measured.
    pub measured: Option<M>,
}

impl<M> Judgement<M> {
    /// As expected.
    pub fn pass(measured: Option<M>) -> Judgement<M> {
        Judgement { verdict: Verdict::Pass, reason: None, measured }
    }

    /// Not as expected, with a reason that is cut to a readable length.
    pub fn fail(measured: Option<M>, reason: impl Into<String>) -> Judgement<M> {
        Judgement { verdict: Verdict::Fail, reason: Some(truncate(reason.into())), measured }
    }

    /// Pass if nothing is wrong, else fail for this reason.
    pub fn by(measured: M, wrong: Option<String>) -> Judgement<M> {
        match wrong {
            None => Judgement::pass(Some(measured)),
            Some(reason) => Judgement::fail(Some(measured), reason),
        }
    }

    /// The VM's own failure.
    pub fn failed(failure: &VmFailure) -> Judgement<M> {
        let (verdict, reason) = (failure.verdict, Some(failure.reason.clone()));
        Judgement { verdict, reason, measured: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panic() -> VmFailure {
        VmFailure::new(Verdict::Panic, "a panic")
    }

    #[test]
    fn a_kernel_fault_outranks_the_program_and_keeps_its_measurement() {
        let observed: Observed<()> = Observed::new(Vec::new(), Exit::Code(1));
        let failed = FailedTrial { observed: Some(observed), ..FailedTrial::new(panic(), vec![]) };
        let outcome = TrialOutcome::Failed(failed);
        let judgement = outcome.judge_with(|_| Judgement::fail(Some(7), "and it failed"));
        assert_eq!(judgement.verdict, Verdict::Panic);
        assert_eq!(judgement.reason.as_deref(), Some("a panic; and it failed"));
        assert_eq!(judgement.measured, Some(7));
        let passed = outcome.judge_with(|_| Judgement::pass(Some(7)));
        assert_eq!((passed.verdict, passed.reason.as_deref()), (Verdict::Panic, Some("a panic")));
    }

    #[test]
    fn a_program_that_did_not_end_is_not_evaluated() {
        let outcome: TrialOutcome<()> = TrialOutcome::Failed(FailedTrial::new(panic(), vec![]));
        let judgement = outcome.judge_with(|_| Judgement::pass(Some(7)));
        assert_eq!((judgement.verdict, judgement.measured), (Verdict::Panic, None));
    }

    #[test]
    fn the_fault_domain_is_the_failures_only_with_its_verdict() {
        let failure = VmFailure::caused_by(Verdict::LostVm, "killed", FaultDomain::Qemu);
        let outcome: TrialOutcome<()> = TrialOutcome::Failed(FailedTrial::new(failure, vec![]));
        assert_eq!(outcome.fault_domain(Verdict::LostVm), Some(FaultDomain::Qemu));
        assert_eq!(outcome.fault_domain(Verdict::Fail), Some(FaultDomain::Guest));
        assert_eq!(outcome.fault_domain(Verdict::Pass), None);
    }
}
