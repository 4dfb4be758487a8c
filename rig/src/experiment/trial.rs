//! A trial: one program in one guest.

use std::time::Duration;

use nlrig_guest::protocol::{GuestFault, Job};

use super::Selection;
use crate::abi::Abi;
use crate::guest::Limits;
use crate::report::Published;
use crate::static_check::StaticCheck;

const CPUS: u32 = 2;
const MEMORY_BYTES: u64 = 512 << 20;
const LIMITS: Limits = Limits::new(Duration::from_secs(20), Duration::from_secs(40));

/// One trial: a job for a guest, and the guest it needs. `P` is the type of the
/// experiment's parameters.
#[derive(Clone, Debug)]
pub struct Trial<P> {
    /// Unique among the trials of a run.
    pub name: String,
    /// The ABI of the program.
    pub abi: Abi,
    /// What distinguishes it from the experiment's other trials.
    pub params: P,
    /// The program.
    pub job: Job,
    /// The check that decides the trial in place of a guest.
    pub static_check: Option<StaticCheck>,
    /// Processors of the guest.
    pub cpus: u32,
    /// Memory of the guest in bytes.
    pub memory_bytes: u64,
    /// The program's deadlines, before the accelerator's slowdown.
    pub limits: Limits,
    /// The user's time limit, which replaces the deadlines.
    pub timeout: Option<Duration>,
    /// Whether it needs a guest that no other trial has used.
    pub alone: bool,
    /// Whether it takes minutes, so that tests run it only if they are asked to.
    pub long: bool,
    /// Further words for the guest kernel's command line.
    pub boot: &'static str,
    /// The flavour of the guest kernel; the run's if absent.
    pub flavour: Option<&'static str>,
    /// The fault to inject; only controls have one.
    pub fault: Option<Fault>,
    /// What others have published.
    pub published: Vec<Published>,
}

impl Trial<()> {
    /// A trial without parameters, in a guest of 2 processors and 512 MiB that it
    /// shares with its neighbours. The setters change what differs.
    pub fn new(name: impl Into<String>, abi: Abi, job: Job) -> Trial<()> {
        Trial {
            name: name.into(),
            abi,
            params: (),
            job,
            static_check: None,
            cpus: CPUS,
            memory_bytes: MEMORY_BYTES,
            limits: LIMITS,
            timeout: None,
            alone: false,
            long: false,
            boot: "",
            flavour: None,
            fault: None,
            published: Vec::new(),
        }
    }
}

impl<P> Trial<P> {
    /// The same trial with these parameters.
    pub fn params<Q>(self, params: Q) -> Trial<Q> {
        Trial {
            params,
            name: self.name,
            abi: self.abi,
            job: self.job,
            static_check: self.static_check,
            cpus: self.cpus,
            memory_bytes: self.memory_bytes,
            limits: self.limits,
            timeout: self.timeout,
            alone: self.alone,
            long: self.long,
            boot: self.boot,
            flavour: self.flavour,
            fault: self.fault,
            published: self.published,
        }
    }

    /// Processors of the guest.
    pub fn cpus(self, cpus: u32) -> Trial<P> {
        Trial { cpus, ..self }
    }

    /// Memory of the guest in bytes.
    pub fn memory(self, memory_bytes: u64) -> Trial<P> {
        Trial { memory_bytes, ..self }
    }

    /// The program's deadlines, before the accelerator's slowdown.
    pub fn limits(self, limits: Limits) -> Trial<P> {
        Trial { limits, ..self }
    }

    /// A time limit that replaces the deadlines.
    pub fn timeout(self, timeout: Duration) -> Trial<P> {
        Trial { timeout: Some(timeout), ..self }
    }

    /// Replaces processors, memory and time limit where the user selects them.
    pub fn select(self, selection: &Selection) -> Trial<P> {
        Trial {
            cpus: selection.cpus.unwrap_or(self.cpus),
            memory_bytes: selection.memory_bytes.unwrap_or(self.memory_bytes),
            timeout: selection.timeout.or(self.timeout),
            ..self
        }
    }

    /// Needs a guest that no other trial has used.
    pub fn alone(self) -> Trial<P> {
        self.alone_if(true)
    }

    /// Needs a guest that no other trial has used, if the condition holds.
    pub fn alone_if(self, alone: bool) -> Trial<P> {
        Trial { alone, ..self }
    }

    /// Takes minutes, if the condition holds.
    pub fn long_if(self, long: bool) -> Trial<P> {
        Trial { long, ..self }
    }

    /// Further words for the guest kernel's command line.
    pub fn boot(self, boot: &'static str) -> Trial<P> {
        Trial { boot, ..self }
    }

    /// A flavour of the guest kernel that is not the run's.
    pub fn flavour(self, flavour: Option<&'static str>) -> Trial<P> {
        Trial { flavour, ..self }
    }

    /// The fault to inject.
    pub fn fault(self, fault: Option<Fault>) -> Trial<P> {
        Trial { fault, ..self }
    }

    /// The check that decides the trial in place of a guest.
    pub fn static_check(self, static_check: Option<StaticCheck>) -> Trial<P> {
        Trial { static_check, ..self }
    }

    /// What others have published.
    pub fn published(self, published: Vec<Published>) -> Trial<P> {
        Trial { published, ..self }
    }

    /// Whether both trials can run in one guest, one after the other.
    pub fn shares_a_boot_with(&self, other: &Trial<P>) -> bool {
        let machine = |trial: &Trial<P>| {
            (trial.abi, trial.cpus, trial.memory_bytes, trial.boot, trial.flavour)
        };
        let harmless = |trial: &Trial<P>| {
            let changes_nothing = trial.fault.is_none() && trial.job.sysctls.is_empty();
            !trial.alone && trial.static_check.is_none() && changes_nothing
        };
        harmless(self) && harmless(other) && machine(self) == machine(other)
    }

    /// The program's deadlines on a machine that is slower by a factor.
    pub fn deadlines(&self, slowdown: u32) -> Limits {
        let limits = self.limits.times(slowdown);
        match self.timeout {
            Some(timeout) => Limits { silence: timeout, total: timeout, ..limits },
            None => limits,
        }
    }
}

/// A fault to inject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The guest's PID 1 injects it.
    Guest(GuestFault),
    /// The rig injects it at the program's first report.
    Host(HostFault),
    /// As `Guest`, but only at the first attempt.
    GuestOnce(GuestFault),
    /// As `Host`, but only at the first attempt.
    HostOnce(HostFault),
}

/// A fault that a VM suffers from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostFault {
    /// QEMU is killed.
    KillQemu,
    /// The daemon of a share is killed.
    KillShareDaemon,
    /// The event port is closed.
    CloseChannel,
    /// The folder of the trial is removed.
    RemoveFolder,
}

/// The path of a workload in the guest.
pub fn workload(name: &str) -> String {
    format!("/run/nlrig/guest/workloads/{name}")
}
