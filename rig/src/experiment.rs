//! Experiments: what is claimed, tried, predicted and judged.
//!
//! An experiment is one file below this one and one line in [`ALL`]. It knows
//! neither QEMU nor shares: it plans [`Trial`]s, each a job for a guest, and
//! judges what is [`Observed`] of them.

mod claims;
mod control;
mod hunt;
mod module;
mod ports;
mod smoke;
mod threads;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use nlrig_guest::protocol::{Exit, GuestFault, Job, Rlimit};
use serde_json::{Map, Value};

use crate::abi::Abi;
use crate::guest::Limits;
use crate::report::{FaultDomain, Section, TrialReport, Verdict};
use crate::say::brief;
use crate::static_check::StaticCheck;
use crate::usage;

/// Every experiment, in the order in which they run.
pub const ALL: &[&dyn Experiment] = &[
    &smoke::Smoke,
    &threads::Threads,
    &ports::Ports,
    &claims::Claims,
    &control::Control,
    &module::ModuleStress,
    &hunt::Hunt,
];

/// One experiment.
pub trait Experiment: Sync {
    /// What the user calls it.
    fn name(&self) -> &'static str;

    /// What it shows, in one sentence.
    fn summary(&self) -> &'static str;

    /// The kinds of programs that it can be tried with.
    fn abis(&self) -> &'static [Abi] {
        &Abi::ALL
    }

    /// Whether a run that names no experiment runs it.
    fn by_default(&self) -> bool {
        true
    }

    /// The parameters it takes as `--set key=value`, each with its meaning.
    fn parameters(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// What it consists of, each with its name and a sentence, if that is more
    /// than its trials by their parameters.
    fn cases(&self) -> Vec<(&'static str, &'static str)> {
        Vec::new()
    }

    /// The trials that answer what was asked.
    ///
    /// # Errors
    /// A usage error: a parameter that does not fit.
    fn plan(&self, selection: &Selection) -> Result<Vec<Trial>>;

    /// Looks at what a trial has reported so far, after each object, until a
    /// prediction can be made of it. What comes later it does not get to see.
    ///
    /// # Errors
    /// The last object is not what the workload should report.
    fn predict(&self, _trial: &Trial, _so_far: &[Value]) -> Result<Option<Map<String, Value>>> {
        Ok(None)
    }

    /// Says what came of a trial whose machine did all it was asked.
    fn judge(&self, trial: &Trial, observed: &Observed) -> Judgement;

    /// Looks once more at what came of a trial, however its machine ended: an
    /// experiment that breaks machines expects them broken.
    fn review(&self, _trial: &Trial, judgement: Judgement, _facts: &Facts<'_>) -> Judgement {
        judgement
    }

    /// Where the kernel's source makes it so: files, each with a text in one of
    /// its lines.
    fn sources(&self, _trial: &Trial) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// Tables of all of this experiment's trials, with words.
    fn sections(&self, trials: &[&TrialReport]) -> Vec<Section>;
}

/// What the user asked of an experiment.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Kinds of programs.
    pub abis: Vec<Abi>,
    /// The kernel, as the user calls it.
    pub kernel: String,
    /// Thread stack sizes in bytes; the experiment's own if empty.
    pub stacks: Vec<u64>,
    /// Kernel parameters for the guest.
    pub sysctls: Vec<(String, String)>,
    /// Limits for the program.
    pub rlimits: Vec<Rlimit>,
    /// The user the program runs as.
    pub user: Option<u32>,
    /// The experiment's own parameters.
    pub set: BTreeMap<String, String>,
    /// Processors of the guest; the experiment's own if absent.
    pub cpus: Option<u32>,
    /// Memory of the guest; the experiment's own if absent.
    pub memory_bytes: Option<u64>,
    /// How long a program may take in all; the experiment's own if absent.
    pub timeout: Option<Duration>,
    /// Further variables in the environment of every program.
    pub env: Vec<(String, String)>,
}

impl Selection {
    /// The default plan for these ABIs on this kernel.
    pub fn new(abis: &[Abi], kernel: &str) -> Selection {
        Selection {
            abis: abis.to_vec(),
            kernel: kernel.to_string(),
            stacks: Vec::new(),
            sysctls: Vec::new(),
            rlimits: Vec::new(),
            user: None,
            set: BTreeMap::new(),
            cpus: None,
            memory_bytes: None,
            timeout: None,
            env: Vec::new(),
        }
    }
}

/// One trial: a job for a guest.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Unique among the trials of a run.
    pub name: String,
    /// What kind of program it runs.
    pub abi: Abi,
    /// What distinguishes it from the experiment's other trials.
    pub params: Map<String, Value>,
    /// The program.
    pub job: Job,
    /// What is asked at the static_check, in place of the program.
    pub static_check: Option<StaticCheck>,
    /// Processors of the guest.
    pub cpus: u32,
    /// Memory of the guest.
    pub memory_bytes: u64,
    /// How long the program may take, before the accelerator's slowdown.
    pub limits: Limits,
    /// How long the user lets it take, in place of the limits.
    pub timeout: Option<Duration>,
    /// Whether it needs a guest that no other trial has seen. The rest share one
    /// with their neighbours of the same kind.
    pub alone: bool,
    /// Further words for the guest's kernel.
    pub boot: &'static str,
    /// The flavour of the guest's kernel; the run's if absent.
    pub flavour: Option<&'static str>,
    /// What goes wrong on purpose; only controls set it.
    pub fault: Option<Fault>,
    /// What others have published.
    pub published: Vec<Value>,
}

impl Trial {
    /// Whether both can run in one machine, one after the other.
    pub fn shares_a_boot_with(&self, other: &Trial) -> bool {
        let machine = |trial: &Trial| {
            let Trial { abi, cpus, memory_bytes, boot, flavour, .. } = *trial;
            (abi, cpus, memory_bytes, boot, flavour)
        };
        let harmless = |trial: &Trial| {
            let changes_nothing = trial.fault.is_none() && trial.job.sysctls.is_empty();
            !trial.alone && trial.static_check.is_none() && changes_nothing
        };
        harmless(self) && harmless(other) && machine(self) == machine(other)
    }

    /// How long the program may take on a machine that is so many times slower.
    pub fn limits(&self, slowdown: u32) -> Limits {
        let limits = self.limits.times(slowdown);
        match self.timeout {
            Some(timeout) => Limits { silence: timeout, total: timeout, ..limits },
            None => limits,
        }
    }
}

/// Something that goes wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The guest's PID 1 does it.
    Guest(GuestFault),
    /// The rig does it, as soon as the program says something.
    Host(HostFault),
    /// As `Guest`, but only at the first try.
    GuestOnce(GuestFault),
    /// As `Host`, but only at the first try.
    HostOnce(HostFault),
}

/// What can happen to a machine from outside.
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

/// How a trial went, beside its verdict.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// How often it was tried.
    pub attempts: u32,
    /// Whether it passed only at the second try.
    pub flaky: bool,
    /// Where the fault is, unless it passed or was skipped.
    pub fault_domain: Option<FaultDomain>,
    /// From the start of the program to the verdict, in the last try.
    pub verdict: Duration,
    /// What the program reported in the last try, however that ended.
    pub data: &'a [Value],
}

/// What was seen of a trial.
#[derive(Clone, Debug)]
pub struct Observed {
    /// What the program reported, in its order.
    pub data: Vec<Value>,
    /// How it ended.
    pub exit: Exit,
    /// What was predicted before.
    pub predicted: Option<Map<String, Value>>,
    /// The guest kernel's own words, if it killed a process for want of memory.
    pub out_of_memory: Option<String>,
    /// The program's last sign of life.
    pub last_sign: Option<Value>,
    /// From the start of QEMU until the guest was ready.
    pub boot: Duration,
    /// From the start of QEMU to its end; to the end of the program if the guest
    /// goes on.
    pub total: Duration,
}

/// What an experiment makes of a trial.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// What came of it.
    pub verdict: Verdict,
    /// Why; nothing for a pass.
    pub reason: Option<String>,
    /// What was measured.
    pub measured: Option<Map<String, Value>>,
}

impl Judgement {
    /// As expected.
    pub fn pass(measured: Option<Map<String, Value>>) -> Judgement {
        Judgement { verdict: Verdict::Pass, reason: None, measured }
    }

    /// Not as expected, and why, in as many words as are read.
    pub fn fail(measured: Option<Map<String, Value>>, reason: impl Into<String>) -> Judgement {
        Judgement { verdict: Verdict::Fail, reason: Some(brief(reason.into())), measured }
    }
}

/// The experiments of these names, or those that run by default.
///
/// # Errors
/// A usage error that names the one there is not.
pub fn find(names: &[String]) -> Result<Vec<&'static dyn Experiment>> {
    if names.is_empty() {
        let by_default = |experiment: &&&dyn Experiment| experiment.by_default();
        return Ok(ALL.iter().filter(by_default).copied().collect());
    }
    let all = || ALL.iter().map(|experiment| experiment.name()).collect::<Vec<_>>().join(", ");
    if let Some(name) = names.iter().find(|name| !ALL.iter().any(|known| known.name() == **name)) {
        return Err(usage!("no experiment \"{name}\": there is {}", all()));
    }
    // Each once, however often it is named.
    let named = |experiment: &&&dyn Experiment| names.iter().any(|name| name == experiment.name());
    Ok(ALL.iter().filter(named).copied().collect())
}

/// Refuses parameters that none of these experiments takes.
///
/// # Errors
/// A usage error that names the parameter.
pub fn check_parameters(
    experiments: &[&dyn Experiment],
    set: &BTreeMap<String, String>,
) -> Result<()> {
    for key in set.keys() {
        let mut all = experiments.iter().flat_map(|experiment| experiment.parameters());
        if !all.any(|(name, _)| name == key) {
            let names: Vec<_> = experiments.iter().map(|experiment| experiment.name()).collect();
            return Err(usage!("--set {key}: {} takes no such parameter", names.join(" or ")));
        }
    }
    Ok(())
}

/// The value of a parameter that has two; the first is the default.
fn one_of<'a>(selection: &'a Selection, key: &str, values: [&'a str; 2]) -> Result<&'a str> {
    match selection.set.get(key).map(String::as_str) {
        None => Ok(values[0]),
        Some(value) if values.contains(&value) => Ok(value),
        Some(other) => Err(usage!("--set {key}={other}: it is {} or {}", values[0], values[1])),
    }
}

/// The path of a workload in the guest.
fn workload(name: &str) -> String {
    format!("/run/nlrig/guest/workloads/{name}")
}

/// The objects of a JSON value; nothing if it is none.
fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_experiment_or_parameter_is_a_usage_error() {
        let err = find(&["nonsense".to_string()]).err().unwrap();
        assert!(err.to_string().contains("\"nonsense\""), "{err}");
        assert_eq!(crate::error::status(&err), crate::error::USAGE);
        let set = BTreeMap::from([("colour".to_string(), "red".to_string())]);
        let err = check_parameters(ALL, &set).unwrap_err();
        assert!(err.to_string().contains("colour"), "{err}");
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = ALL.iter().map(|experiment| experiment.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }
}
