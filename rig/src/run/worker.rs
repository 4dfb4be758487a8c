//! One trial after another, each in a machine that no bad one has seen: boot,
//! observe, judge, and a second try for a lost machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nlrig_guest::protocol::Exit;
use serde_json::Value;

use super::Planned;
use super::collect::Collected;
use crate::artifact::Built;
use crate::error;
use crate::experiment::{
    AnyExperiment, AnyTrial, FailedTrial, Fault, HostFault, Judgement, Object, Observed, SourceRef,
    TrialOutcome, fault_domain,
};
use crate::guest::{self, Guest, VmHandles};
use crate::launcher::{VmLauncher, VmSpec};
use crate::outcome::VmFailure;
use crate::report::{FaultDomain, SourceLine, TrialReport, Verdict, seconds};
use crate::static_check::{self, StaticCheck};
use crate::{procfs, ui};

/// How much of a console stands in the report.
const TAIL_LINES: usize = 15;
/// How long a kernel is listened to between two trials.
const LATE_WORDS: Duration = Duration::from_millis(50);
/// How often a trial is tried if QEMU or the host loses its machine.
const ATTEMPTS_MAX: u32 = 2;

/// Where the trials of a run are made; threads of the run share it.
#[derive(Debug)]
pub struct RunContext {
    /// Boots.
    pub lab: VmLauncher,
    /// The folder of the run.
    pub dir: PathBuf,
    flavour: String,
    /// How many machines were started.
    machines: AtomicU32,
    first_vm_s: OnceLock<f64>,
}

impl RunContext {
    /// For a run whose results go to `dir`.
    pub fn new(lab: VmLauncher, flavour: &str, dir: PathBuf) -> RunContext {
        let (machines, first_vm_s) = Default::default();
        RunContext { lab, dir, flavour: flavour.to_string(), machines, first_vm_s }
    }

    /// From the start of the process to that of its first machine that came up.
    pub fn first_vm_s(&self) -> Option<f64> {
        self.first_vm_s.get().copied()
    }

    /// The folder of a trial.
    pub fn folder(&self, trial: &AnyTrial) -> PathBuf {
        self.dir.join(trial.name.replace('/', "_"))
    }
}

/// Runs trials, and keeps a machine for the next one if both may share it.
pub struct Worker<'a> {
    context: &'a RunContext,
    machine: Option<Machine>,
}

/// A machine between trials.
struct Machine {
    guest: Guest,
    name: String,
    /// The trial that was the last to run in it.
    last: AnyTrial,
    /// When QEMU was started.
    start: Instant,
}

/// One attempt at a trial.
struct Attempt {
    outcome: TrialOutcome<Object>,
    notes: Notes,
}

/// What is noted of an attempt before it ends, however it does.
#[derive(Default)]
struct Notes {
    vm: String,
    clocksource: Option<String>,
    predicted: Option<Object>,
    /// The program's reports.
    data: Vec<Value>,
    /// The fault that the guest kernel reported.
    trouble: Option<VmFailure>,
    /// When the VM was started, and then the program.
    begun: Option<Instant>,
    /// How long the host had no room for the machine.
    waited: Duration,
}

impl Attempt {
    /// The failure, if the VM was lost to QEMU or to the host, which says nothing
    /// about the guest. A loss that nobody can explain is final.
    fn lost(&self) -> Option<&VmFailure> {
        self.outcome
            .failure()
            .filter(|failure| failure.verdict == Verdict::LostVm && failure.fault_domain.is_rig())
    }
}

impl<'a> Worker<'a> {
    /// Has no machine yet.
    pub fn new(context: &'a RunContext) -> Worker<'a> {
        Worker { context, machine: None }
    }

    /// Runs one trial; `keep` says that the next one may want its machine.
    ///
    /// # Errors
    /// Only what ends the run: an interruption, a full disk. What happens to
    /// the trial's machine is its verdict.
    pub fn trial(&mut self, planned: &Planned, built: &Built, keep: bool) -> Result<TrialReport> {
        // Trying KVM takes seconds, which are not the trial's.
        self.context.lab.accel(built)?;
        let start = Instant::now();
        let mut attempts = 1;
        let mut first_loss = None;
        let mut attempt = self.attempt(planned, built, keep, attempts)?;
        let mut waited = attempt.notes.waited;
        while let Some(lost) = attempt.lost().filter(|_| attempts < ATTEMPTS_MAX) {
            let reason = lost.reason.clone();
            ui::status(&format!("{}: lost-vm, tried once more: {reason}", planned.trial.name));
            set_aside(&self.context.folder(&planned.trial))?;
            first_loss = Some(reason);
            attempts += 1;
            attempt = self.attempt(planned, built, keep, attempts)?;
            waited += attempt.notes.waited;
        }
        let duration_s = seconds(start.elapsed().saturating_sub(waited));
        let report = self.report(planned, built, attempt)?;
        // A VM that is broken on purpose is not flaky.
        let flaky =
            attempts > 1 && report.verdict == Verdict::Pass && planned.trial.fault.is_none();
        Ok(TrialReport { attempts, flaky, first_loss, duration_s, ..report })
    }

    /// Reports a trial that is not run.
    ///
    /// # Errors
    /// See [`Worker::trial`].
    pub fn leave_out(&self, planned: &Planned, built: &Built, why: &str) -> Result<TrialReport> {
        let failure = VmFailure::caused_by(Verdict::Infra, why, FaultDomain::Host);
        let notes = Notes::default();
        let judgement = Judgement::failed(&failure);
        let report = self.judged(planned, built, judgement, Some(FaultDomain::Host), notes)?;
        Ok(TrialReport { attempts: 0, ..report })
    }

    /// Judges an attempt and reports it.
    fn report(&self, planned: &Planned, built: &Built, attempt: Attempt) -> Result<TrialReport> {
        let Planned { experiment, trial } = planned;
        let Attempt { outcome, notes } = attempt;
        let failure = outcome.failure().cloned();
        let judgement = experiment.judge(trial, outcome);
        let fault_domain = fault_domain(failure.as_ref(), judgement.verdict);
        self.judged(planned, built, judgement, fault_domain, notes)
    }

    fn judged(
        &self,
        planned: &Planned,
        built: &Built,
        judgement: Judgement<Object>,
        fault_domain: Option<FaultDomain>,
        notes: Notes,
    ) -> Result<TrialReport> {
        let Planned { experiment, trial } = planned;
        let Judgement { verdict, reason, measured } = judgement;
        let dir = self.context.folder(trial);
        let tail = || guest::tail_of(&dir.join(guest::CONSOLE_FILE), TAIL_LINES);
        Ok(TrialReport {
            experiment: experiment.name().to_string(),
            name: trial.name.clone(),
            abi: trial.abi,
            kernel: built.kernel.version.clone(),
            flavour: trial.flavour.unwrap_or(&self.context.flavour).to_string(),
            accel: self.context.lab.accel(built)?.used.name().to_string(),
            params: trial.params.clone(),
            verdict,
            reason,
            attempts: 1,
            flaky: false,
            first_loss: None,
            fault_domain,
            vm: notes.vm,
            measured,
            predicted: notes.predicted,
            published: trial.published.clone(),
            duration_s: 0.0,
            clocksource: notes.clocksource,
            source_lines: source_lines(experiment.sources(trial), built),
            artifacts: artifacts(&self.context.dir, &dir),
            console_tail: if verdict.is_well() { Vec::new() } else { tail() },
        })
    }

    fn attempt(
        &mut self,
        planned: &Planned,
        built: &Built,
        keep: bool,
        number: u32,
    ) -> Result<Attempt> {
        let Planned { experiment, trial } = planned;
        let start = Instant::now();
        let mut notes = Notes::default();
        let observed = match &trial.static_check {
            Some(check) => run_static_check(check, built),
            None => self.observe(*experiment, trial, built, keep, number, &mut notes),
        };
        let observed = match observed {
            Err(err) if error::is_interruption(&err) => return Err(err),
            Err(err) => match error::into_vm_failure(err) {
                Ok(failure) => Err(failure),
                Err(err) => return Err(err.context(trial.name.clone())),
            },
            Ok(observed) => Ok(observed),
        };
        let verdict_after = notes.begun.unwrap_or(start).elapsed();
        let observed =
            observed.map(|observed| Observed { attempts: number, verdict_after, ..observed });
        let (failure, observed) = match (observed, notes.trouble.take()) {
            (Ok(observed), None) => {
                return Ok(Attempt { outcome: TrialOutcome::Completed(observed), notes });
            }
            (Ok(observed), Some(trouble)) => (trouble, Some(observed)),
            (Err(failure), None) => (failure, None),
            (Err(failure), Some(trouble)) => (with_cause(trouble, &failure), None),
        };
        let data = std::mem::take(&mut notes.data);
        let failed = FailedTrial { failure, observed, data, attempts: number, verdict_after };
        Ok(Attempt { outcome: TrialOutcome::Failed(failed), notes })
    }

    /// Runs the program and observes it. A fault that the guest kernel reports is
    /// noted.
    fn observe(
        &mut self,
        experiment: &dyn AnyExperiment,
        trial: &AnyTrial,
        built: &Built,
        keep: bool,
        number: u32,
        notes: &mut Notes,
    ) -> Result<Observed<Object>> {
        let dir = self.context.folder(trial);
        // Taken out: a machine that is not put back is gone.
        let Machine { mut guest, name, start, .. } = self.machine_for(trial, built, &dir, notes)?;
        notes.vm = name.clone();
        notes.clocksource = Some(guest.ready.clocksource.clone());
        guest.keep_output()?;
        let mut host_fault = None;
        match trial.fault {
            Some(Fault::GuestOnce(_) | Fault::HostOnce(_)) if number > 1 => {}
            Some(Fault::Guest(how) | Fault::GuestOnce(how)) => guest.inject_fault(how)?,
            Some(Fault::Host(how) | Fault::HostOnce(how)) => {
                host_fault = Some((how, guest.parts()?));
            }
            None => {}
        }
        let slowdown = self.context.lab.accel(built)?.used.slowdown();
        let mut collected = Collected::new(experiment, trial);
        notes.begun = Some(Instant::now());
        let exit = guest.run(&trial.job, trial.deadlines(slowdown), |value| {
            if let Some((how, parts)) = host_fault.take() {
                inject(how, &parts)?;
            }
            collected.take(value)
        });
        notes.predicted = collected.predicted.clone();
        notes.data = collected.data.clone();
        // A loss has its cause with it; what the program did wrong has not.
        if exit.as_ref().map_or_else(is_failure, |_| true) {
            notes.trouble = guest.trouble();
        }
        let exit = exit?;
        let out_of_memory = guest.out_of_memory().map(str::to_string);
        let boot = guest.ready.boot;
        if notes.trouble.is_some() {
            // It has told its state; nothing else may run in it.
            drop(guest);
        } else if keep {
            self.machine = Some(Machine { guest, name, last: trial.clone(), start });
        } else {
            guest.end()?;
        }
        if !dir.is_dir() {
            let name = dir.file_name().unwrap_or_default().display();
            let reason = format!("the folder of the trial is gone: {name}");
            return Err(VmFailure::caused_by(Verdict::Infra, reason, FaultDomain::Host).into());
        }
        if let Exit::NotStarted { reason, .. } = &exit {
            return Err(
                VmFailure::caused_by(Verdict::Infra, reason.clone(), FaultDomain::Host).into()
            );
        }
        let Collected { data, predicted, last_sign, unpredictable, .. } = collected;
        if let Some(reason) = unpredictable {
            return Err(VmFailure::new(Verdict::Fail, reason).into());
        }
        let total = start.elapsed();
        Ok(Observed {
            predicted,
            out_of_memory,
            last_sign,
            boot,
            total,
            ..Observed::new(data, exit)
        })
    }

    /// The machine that the trial before has left, or a new one.
    fn machine_for(
        &mut self,
        trial: &AnyTrial,
        built: &Built,
        dir: &Path,
        notes: &mut Notes,
    ) -> Result<Machine> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        if let Some(mut machine) = self.machine.take()
            && machine.last.shares_a_boot_with(trial)
        {
            // A kernel may say late what the trial before has done to it.
            machine.guest.listen_for(LATE_WORDS)?;
            let Some(trouble) = machine.guest.trouble() else {
                machine.guest.redirect_logs(dir)?;
                return Ok(machine);
            };
            let (name, last) = (&machine.name, &machine.last.name);
            ui::status(&format!("{name} ends after {last}: {}", trouble.reason));
        }
        let AnyTrial { cpus, memory_bytes, boot, .. } = *trial;
        let command_line = boot.to_string();
        let needs = VmSpec { cpus, memory_bytes, folders: Vec::new(), command_line };
        let start = Instant::now();
        let room = self.context.lab.room(built, &needs)?;
        notes.waited = start.elapsed();
        notes.begun = Some(Instant::now());
        let guest = self.context.lab.boot(built, needs, room, dir)?;
        let boot = guest.ready.boot;
        if let Ok(age) = procfs::age() {
            self.context.first_vm_s.get_or_init(|| seconds(age.saturating_sub(boot)));
        }
        let number = self.context.machines.fetch_add(1, Ordering::Relaxed) + 1;
        let start = Instant::now() - boot;
        Ok(Machine { guest, name: format!("vm-{number}"), last: trial.clone(), start })
    }
}

/// The fault of the guest kernel that explains a failure of its program.
fn with_cause(trouble: VmFailure, failure: &VmFailure) -> VmFailure {
    VmFailure { reason: format!("{}; {}", trouble.reason, failure.reason), ..trouble }
}

/// Runs a static check; its answer takes the place of a program's report.
fn run_static_check(check: &StaticCheck, built: &Built) -> Result<Observed<Object>> {
    let start = Instant::now();
    let answer = static_check::answer(check, &built.kernel).map_err(|err| {
        if error::is_interruption(&err) {
            return err;
        }
        VmFailure::caused_by(Verdict::Infra, format!("{err:#}"), FaultDomain::Host).into()
    })?;
    let total = start.elapsed();
    Ok(Observed { total, ..Observed::new(vec![answer], Exit::Code(0)) })
}

/// The numbers of these lines in the kernel's source, where they are found.
fn source_lines(sources: &[SourceRef], built: &Built) -> Vec<SourceLine> {
    let source = built.kernel.source_dir();
    sources
        .iter()
        .map(|&(file, text)| SourceLine {
            file: file.to_string(),
            line: static_check::line_of(&source, file, text).ok().flatten(),
            text: text.to_string(),
        })
        .collect()
}

/// Whether it is the program's failure, and no loss of the machine.
fn is_failure(err: &anyhow::Error) -> bool {
    err.downcast_ref::<VmFailure>().is_some_and(|loss| loss.verdict == Verdict::Fail)
}

/// Injects a fault into a VM from outside.
fn inject(how: HostFault, parts: &VmHandles) -> Result<()> {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    let kill = |id: u32| kill(Pid::from_raw(id as i32), Signal::SIGKILL);
    match how {
        HostFault::KillQemu => kill(parts.qemu)?,
        HostFault::KillShareDaemon => parts.shares.iter().try_for_each(|id| kill(*id))?,
        HostFault::CloseChannel => parts.channel.shutdown(std::net::Shutdown::Both)?,
        HostFault::RemoveFolder => fs::remove_dir_all(&parts.dir)?,
    }
    Ok(())
}

/// What the first try has left stands beside what the second one leaves.
fn set_aside(dir: &Path) -> Result<()> {
    let mut aside = dir.as_os_str().to_owned();
    aside.push(".lost");
    match fs::rename(dir, &aside) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
            Err(err).with_context(|| format!("cannot rename {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// What a finished trial left, relative to the run.
fn artifacts(run: &Path, dir: &Path) -> BTreeMap<String, String> {
    [
        ("console", guest::CONSOLE_FILE),
        ("events", guest::EVENTS_FILE),
        ("qemu_command", guest::COMMAND_FILE),
        ("qemu_log", "qemu.log"),
        ("stdout", "stdout"),
        ("stderr", "stderr"),
        ("tasks", guest::TASKS_FILE),
    ]
    .into_iter()
    .filter(|(_, file)| dir.join(file).is_file())
    .filter_map(|(name, file)| {
        let path = dir.join(file);
        let path = path.strip_prefix(run).ok()?.to_str()?.to_string();
        Some((name.to_string(), path))
    })
    .collect()
}
