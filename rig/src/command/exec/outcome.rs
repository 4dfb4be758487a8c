//! What came of one command in a guest: its exit status, and what the user is
//! told.

use nlrig_guest::protocol::Exit;

use crate::error;
use crate::outcome::VmFailure;
use crate::report::{FaultDomain, Verdict};

/// What came of one command.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How the command ended, if it did.
    pub exit: Option<Exit>,
    /// What went wrong in the guest or around it.
    pub failure: Option<VmFailure>,
}

/// The rows of the table of exit statuses that a guest can end in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Row {
    /// The rig could not do its work.
    Rig,
    /// The guest kernel reported a fault, hung, or reset itself.
    GuestFault,
    /// The command exceeded its time, and the guest still answered.
    TimedOut,
    /// The command's own status, as a shell gives it.
    Command(u8),
}

impl Outcome {
    /// The exit status of `exec`, or of `exec --bisect`.
    pub fn status(&self, bisect: bool) -> u8 {
        match (self.row(), bisect) {
            (Row::Rig, false) => error::RIG,
            (Row::Rig, true) => error::BISECT_ABORT,
            (Row::GuestFault, false) => error::GUEST_FAULT,
            (Row::TimedOut, false) => error::TIMED_OUT,
            (Row::GuestFault | Row::TimedOut, true) => error::TRIAL_FAILED,
            (Row::Command(status), false) => status,
            (Row::Command(0), true) => error::OK,
            (Row::Command(_), true) => error::TRIAL_FAILED,
        }
    }

    fn row(&self) -> Row {
        if let Some(loss) = &self.failure {
            return match loss.verdict {
                _ if loss.fault_domain.is_rig() => Row::Rig,
                Verdict::Skip | Verdict::Infra => Row::Rig,
                Verdict::Timeout => Row::TimedOut,
                _ => Row::GuestFault,
            };
        }
        match &self.exit {
            Some(Exit::Code(code)) => Row::Command(*code as u8),
            Some(Exit::Signal(signal)) => Row::Command(128_u8.wrapping_add(*signal as u8)),
            Some(Exit::NotStarted { code: code @ (126 | 127), .. }) => Row::Command(*code as u8),
            // The guest could not be made ready for the command.
            Some(Exit::NotStarted { .. }) | None => Row::Rig,
        }
    }

    /// The verdict on it as on a trial.
    pub fn verdict(&self) -> Verdict {
        match (&self.failure, self.row()) {
            (Some(loss), _) => loss.verdict,
            (None, Row::Command(0)) => Verdict::Pass,
            (None, Row::Rig) => Verdict::Infra,
            (None, _) => Verdict::Fail,
        }
    }

    /// Where the fault is; none if it passed or was skipped.
    pub fn fault_domain(&self) -> Option<FaultDomain> {
        match (&self.failure, self.verdict()) {
            (_, verdict) if verdict.is_well() => None,
            (Some(loss), _) => Some(loss.fault_domain),
            (None, Verdict::Infra) => Some(FaultDomain::Host),
            (None, _) => Some(FaultDomain::Guest),
        }
    }

    /// Why it did not pass.
    pub fn reason(&self) -> Option<String> {
        match (&self.failure, &self.exit) {
            (Some(loss), _) => Some(loss.reason.clone()),
            (None, Some(Exit::NotStarted { reason, .. })) => Some(reason.clone()),
            (None, Some(Exit::Code(0)) | None) => None,
            (None, Some(exit)) => Some(format!("the command {}", ended(exit))),
        }
    }

    /// What standard error says of it; nothing of a command that ended by itself.
    pub fn message(&self) -> Option<String> {
        let Some(loss) = &self.failure else {
            let not_started = matches!(self.exit, Some(Exit::NotStarted { .. }));
            return self.reason().filter(|_| not_started);
        };
        let happened = happened(loss.verdict);
        // What the kernel printed is clearer than the reason, which repeats it.
        let mut message = match &loss.kernel_report {
            Some(report) if loss.verdict != Verdict::GuestHang => {
                let trace = match report.trace.join("\n    ") {
                    trace if trace.is_empty() => trace,
                    trace => format!("\n  call trace:\n    {trace}"),
                };
                format!("{happened}: {}{trace}", report.line)
            }
            _ => format!("{happened}: {}", loss.reason),
        };
        if let Some(exit) = &self.exit {
            message.push_str(&format!("\n  the command itself {}", ended(exit)));
        }
        Some(message)
    }
}

/// What a verdict means to someone who waits for a command.
fn happened(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Panic => "the guest kernel panicked",
        Verdict::Oops => "the guest kernel oopsed",
        Verdict::Warning => "the guest kernel warned",
        Verdict::Taint => "the guest kernel was tainted",
        Verdict::GuestHang => "the guest hung",
        Verdict::Reset => "the guest reset itself",
        Verdict::LostVm => "the virtual machine was lost",
        Verdict::Timeout => "the command timed out",
        Verdict::Fail => "the guest was not ready",
        _ => "the guest could not run the command",
    }
}

/// How a command ended, behind its name.
fn ended(exit: &Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exited with status {code}"),
        Exit::Signal(signal) => format!("was killed by signal {signal}"),
        Exit::NotStarted { reason, .. } => format!("did not start: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::KernelReport;

    fn exited(exit: Exit) -> Outcome {
        Outcome { exit: Some(exit), failure: None }
    }

    fn failed(verdict: Verdict, domain: FaultDomain) -> Outcome {
        let failure = Some(VmFailure::caused_by(verdict, "why", domain));
        Outcome { exit: None, failure }
    }

    fn not_started(code: i32) -> Outcome {
        exited(Exit::NotStarted { reason: "why".into(), code })
    }

    #[test]
    fn each_row_has_its_two_statuses() {
        use FaultDomain::*;
        for (outcome, plain, bisect) in [
            (exited(Exit::Code(0)), 0, 0),
            (exited(Exit::Code(42)), 42, 1),
            // What looks like the rig's own statuses is the command's.
            (exited(Exit::Code(99)), 99, 1),
            (exited(Exit::Code(125)), 125, 1),
            (exited(Exit::Code(128)), 128, 1),
            (exited(Exit::Signal(9)), 137, 1),
            (exited(Exit::Signal(64)), 192, 1),
            (not_started(127), 127, 1),
            (not_started(126), 126, 1),
            (not_started(125), 125, 128),
            (failed(Verdict::Timeout, Guest), 124, 1),
            (failed(Verdict::Panic, Guest), 99, 1),
            (failed(Verdict::Oops, Guest), 99, 1),
            (failed(Verdict::Warning, Guest), 99, 1),
            (failed(Verdict::Taint, Guest), 99, 1),
            (failed(Verdict::GuestHang, Guest), 99, 1),
            (failed(Verdict::Reset, Guest), 99, 1),
            (failed(Verdict::LostVm, Guest), 99, 1),
            (failed(Verdict::LostVm, Unknown), 99, 1),
            (failed(Verdict::LostVm, Qemu), 125, 128),
            (failed(Verdict::LostVm, Host), 125, 128),
            (failed(Verdict::Infra, Host), 125, 128),
            (failed(Verdict::Skip, Host), 125, 128),
        ] {
            assert_eq!(outcome.status(false), plain, "{outcome:?}");
            assert_eq!(outcome.status(true), bisect, "{outcome:?}");
        }
    }

    #[test]
    fn a_fault_of_the_kernel_outranks_the_commands_status() {
        let failure = Some(VmFailure::new(Verdict::Warning, "why"));
        let outcome = Outcome { exit: Some(Exit::Code(0)), failure };
        assert_eq!((outcome.status(false), outcome.status(true)), (99, 1));
        assert_eq!(
            outcome.message().unwrap(),
            "the guest kernel warned: why\n  the command itself exited with status 0"
        );
    }

    #[test]
    fn the_message_has_the_deciding_line_and_the_call_trace() {
        let report = KernelReport {
            line: "BUG: kernel NULL pointer dereference".to_string(),
            trace: vec!["f+0x1/0x2".to_string(), "g+0x3/0x4".to_string()],
        };
        let mut loss = VmFailure::new(Verdict::Oops, "all of it; and more");
        loss.kernel_report = Some(report);
        let outcome = Outcome { exit: None, failure: Some(loss) };
        assert_eq!(
            outcome.message().unwrap(),
            "the guest kernel oopsed: BUG: kernel NULL pointer dereference\n  \
             call trace:\n    f+0x1/0x2\n    g+0x3/0x4"
        );
    }

    #[test]
    fn a_command_that_ends_by_itself_needs_no_message() {
        assert_eq!(exited(Exit::Code(3)).message(), None);
        assert_eq!(not_started(127).message().as_deref(), Some("why"));
    }
}
