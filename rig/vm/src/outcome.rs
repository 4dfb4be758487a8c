//! How a trial came out, and why a machine failed: below guest and report alike.

use std::fmt;
use std::process::ExitStatus;

use nlrig_host::interrupt::Interrupted;
use nlrig_host::ui::truncate;
use serde::{Deserialize, Serialize};

use nlrig_splat::Splat;

/// What came of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As expected.
    Pass,
    /// Not as expected.
    Fail,
    /// The host lacks what the trial needs.
    Skip,
    /// The program exceeded its time limit; the guest still answers.
    Timeout,
    /// The guest does not answer any more.
    GuestHang,
    /// The kernel panicked.
    Panic,
    /// The kernel oopsed.
    Oops,
    /// The kernel warned.
    Warning,
    /// The kernel was tainted.
    Taint,
    /// The guest rebooted or triple-faulted before its last event.
    Reset,
    /// The machine was lost to QEMU, to the host, or to nobody knows what.
    LostVm,
    /// The rig could not do its work.
    Infra,
}

impl Verdict {
    /// Its name, as in the report.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Fail => "fail",
            Verdict::Skip => "skip",
            Verdict::Timeout => "timeout",
            Verdict::GuestHang => "guest-hang",
            Verdict::Panic => "panic",
            Verdict::Oops => "oops",
            Verdict::Warning => "warning",
            Verdict::Taint => "taint",
            Verdict::Reset => "reset",
            Verdict::LostVm => "lost-vm",
            Verdict::Infra => "infra",
        }
    }

    /// Whether a run with it can be called a success.
    pub fn is_well(self) -> bool {
        matches!(self, Verdict::Pass | Verdict::Skip)
    }
}

impl From<nlrig_splat::Severity> for Verdict {
    fn from(severity: nlrig_splat::Severity) -> Verdict {
        match severity {
            nlrig_splat::Severity::Warning => Verdict::Warning,
            nlrig_splat::Severity::Oops => Verdict::Oops,
            nlrig_splat::Severity::Panic => Verdict::Panic,
        }
    }
}

/// Where a fault is, as far as there is evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FaultDomain {
    /// The guest: its kernel or its program.
    Guest,
    /// QEMU: it was killed, or failed.
    Qemu,
    /// The host: its disk, its memory, a daemon of the rig.
    Host,
    /// Nobody knows.
    Unknown,
}

impl FaultDomain {
    /// Its name, as in the report.
    pub fn name(self) -> &'static str {
        match self {
            FaultDomain::Guest => "guest",
            FaultDomain::Qemu => "qemu",
            FaultDomain::Host => "host",
            FaultDomain::Unknown => "unknown",
        }
    }

    /// Whether the rig's own side failed, which says nothing about the guest.
    pub fn is_rig(self) -> bool {
        matches!(self, FaultDomain::Qemu | FaultDomain::Host)
    }
}

/// A machine that did not do what it was asked, and what is known about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmFailure {
    /// What happened.
    pub verdict: Verdict,
    /// A sentence that a person can act on.
    pub reason: String,
    /// Where the fault is.
    pub fault_domain: FaultDomain,
    /// The kernel's own report that decides the verdict, if it printed one.
    pub kernel_report: Option<KernelReport>,
    /// How QEMU ended, if it ended by itself.
    pub qemu_status: Option<ExitStatus>,
}

/// A fault as the guest kernel printed it on the console.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KernelReport {
    /// The deciding line, without its time stamp.
    pub line: String,
    /// The call trace, innermost function first.
    pub trace: Vec<String>,
}

impl VmFailure {
    /// A failure whose fault is in the guest.
    pub fn new(verdict: Verdict, reason: impl Into<String>) -> VmFailure {
        VmFailure::caused_by(verdict, reason, FaultDomain::Guest)
    }

    /// A failure whose fault is in this domain. The reason may quote the guest, so its
    /// length is bounded.
    pub fn caused_by(
        verdict: Verdict,
        reason: impl Into<String>,
        fault_domain: FaultDomain,
    ) -> VmFailure {
        VmFailure {
            verdict,
            reason: truncate(reason.into()),
            fault_domain,
            kernel_report: None,
            qemu_status: None,
        }
    }

    /// A failure that the guest kernel reported itself.
    pub fn of_splat(splat: &Splat) -> VmFailure {
        VmFailure::new(splat.severity().into(), splat.describe()).with_report(splat)
    }

    /// The same failure with the kernel's report of its cause.
    pub fn with_report(mut self, splat: &Splat) -> VmFailure {
        let (line, trace) = (truncate(splat.line.clone()), splat.trace.clone());
        self.kernel_report = Some(KernelReport { line, trace });
        self
    }
}

impl fmt::Display for VmFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for VmFailure {}

/// Why a machine could not be used to its end.
#[derive(Debug)]
pub enum Error {
    /// The machine failed.
    Vm(VmFailure),
    /// The rig could not do its work on this host, or was interrupted.
    Host(nlrig_host::Error),
}

/// The result of what may fail with an [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Whether a signal asked the process to stop.
    pub fn is_interruption(&self) -> bool {
        matches!(self, Error::Host(err) if err.is_interruption())
    }

    /// The machine's failure, if it is one.
    ///
    /// # Errors
    /// The error itself, if it is the host's.
    pub fn into_vm_failure(self) -> Result<VmFailure> {
        match self {
            Error::Vm(failure) => Ok(failure),
            Error::Host(_) => Err(self),
        }
    }

    /// The machine's failure, if it is one.
    pub fn vm_failure(&self) -> Option<&VmFailure> {
        match self {
            Error::Vm(failure) => Some(failure),
            Error::Host(_) => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Vm(failure) => failure.fmt(f),
            Error::Host(err) => err.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Vm(_) => None,
            Error::Host(err) => err.source(),
        }
    }
}

impl From<VmFailure> for Error {
    fn from(failure: VmFailure) -> Error {
        Error::Vm(failure)
    }
}

impl<E: Into<nlrig_host::Error>> From<E> for Error
where
    E: NotOurs,
{
    fn from(err: E) -> Error {
        Error::Host(err.into())
    }
}

/// The errors of the host that `?` turns into an [`Error`].
pub trait NotOurs {}
impl NotOurs for nlrig_host::Error {}
impl NotOurs for Interrupted {}
impl NotOurs for std::io::Error {}
impl NotOurs for nix::errno::Errno {}
impl NotOurs for serde_json::Error {}
