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
use serde_json::{Map, Value};

use super::Planned;
use super::collect::Collected;
use crate::artifact::Built;
use crate::desk::{self, Desk};
use crate::error;
use crate::experiment::{Experiment, Facts, Fault, Judgement, Observed, Sabotage, Trial};
use crate::guest::{self, Guest, Parts};
use crate::launcher::{VmLauncher, VmSpec};
use crate::outcome::VmFailure;
use crate::report::{FaultDomain, SourceLine, TrialReport, Verdict, seconds};
use crate::{procfs, say};

/// How much of a console stands in the report.
const TAIL_LINES: usize = 15;
/// How long a kernel is listened to between two trials.
const LATE_WORDS: Duration = Duration::from_millis(50);
/// How often a trial is tried: a machine may be lost by the host's doing.
const ATTEMPTS_MAX: u32 = 2;

/// Where the trials of a run are made; threads of the run share it.
#[derive(Debug)]
pub struct Stage {
    /// Boots.
    pub lab: VmLauncher,
    /// The folder of the run.
    pub dir: PathBuf,
    flavour: String,
    /// How many machines were started.
    machines: AtomicU32,
    first_vm_s: OnceLock<f64>,
}

impl Stage {
    /// For a run whose results go to `dir`.
    pub fn new(lab: VmLauncher, flavour: &str, dir: PathBuf) -> Stage {
        let (machines, first_vm_s) = Default::default();
        Stage { lab, dir, flavour: flavour.to_string(), machines, first_vm_s }
    }

    /// From the start of the process to that of its first machine that came up.
    pub fn first_vm_s(&self) -> Option<f64> {
        self.first_vm_s.get().copied()
    }

    /// The folder of a trial.
    pub fn folder(&self, trial: &Trial) -> PathBuf {
        self.dir.join(trial.name.replace('/', "_"))
    }
}

/// Runs trials, and keeps a machine for the next one if both may share it.
pub struct Worker<'a> {
    stage: &'a Stage,
    machine: Option<Machine>,
}

/// A machine between trials.
struct Machine {
    guest: Guest,
    name: String,
    /// The trial that was the last to run in it.
    last: Trial,
    /// When QEMU was started.
    start: Instant,
}

/// What came of one try.
struct Attempt {
    judgement: Judgement,
    fault_domain: Option<FaultDomain>,
    /// From the start of the program to the verdict.
    verdict: Duration,
    notes: Notes,
}

/// What was noted of a try before it ended, however it did.
#[derive(Default)]
struct Notes {
    vm: String,
    clocksource: Option<String>,
    predicted: Option<Map<String, Value>>,
    /// What the program reported.
    data: Vec<Value>,
    /// What is wrong with the kernel.
    trouble: Option<VmFailure>,
    /// When the machine was started, and then the program.
    begun: Option<Instant>,
    /// How long the host had no room for the machine.
    waited: Duration,
}

impl<'a> Worker<'a> {
    /// Has no machine yet.
    pub fn new(stage: &'a Stage) -> Worker<'a> {
        Worker { stage, machine: None }
    }

    /// Runs one trial; `keep` says that the next one may want its machine.
    ///
    /// # Errors
    /// Only what ends the run: an interruption, a full disk. What happens to
    /// the trial's machine is its verdict.
    pub fn trial(&mut self, planned: &Planned, built: &Built, keep: bool) -> Result<TrialReport> {
        // Trying KVM takes seconds, which are not the trial's.
        self.stage.lab.accel(built)?;
        let start = Instant::now();
        let mut attempts = 1;
        let mut first_loss = None;
        let mut attempt = self.attempt(planned, built, keep)?;
        let mut waited = attempt.notes.waited;
        while attempt.judgement.verdict == Verdict::LostVm && attempts < ATTEMPTS_MAX {
            let reason = attempt.judgement.reason.unwrap_or_default();
            say::status(&format!("{}: lost-vm, tried once more: {reason}", planned.trial.name));
            set_aside(&self.stage.folder(&planned.trial))?;
            first_loss = Some(reason);
            attempts += 1;
            attempt = self.attempt(planned, built, keep)?;
            waited += attempt.notes.waited;
        }
        let data = std::mem::take(&mut attempt.notes.data);
        let facts = Facts { attempts, verdict: attempt.verdict, data: &data };
        attempt.judgement = planned.experiment.review(&planned.trial, attempt.judgement, &facts);
        let duration_s = seconds(start.elapsed().saturating_sub(waited));
        let report = self.report(planned, built, attempt)?;
        Ok(TrialReport { attempts, first_loss, duration_s, ..report })
    }

    /// Reports a trial that is not run.
    ///
    /// # Errors
    /// See [`Worker::trial`].
    pub fn leave_out(&self, planned: &Planned, built: &Built, why: &str) -> Result<TrialReport> {
        let judgement =
            Judgement { verdict: Verdict::Infra, reason: Some(why.to_string()), measured: None };
        let (verdict, notes) = Default::default();
        let attempt = Attempt { judgement, fault_domain: None, verdict, notes };
        Ok(TrialReport { attempts: 0, ..self.report(planned, built, attempt)? })
    }

    fn report(&self, planned: &Planned, built: &Built, attempt: Attempt) -> Result<TrialReport> {
        let Planned { experiment, trial } = planned;
        let Attempt {
            judgement: Judgement { verdict, reason, measured }, fault_domain, notes, ..
        } = attempt;
        let dir = self.stage.folder(trial);
        let tail = || guest::console::tail_of(&dir.join(guest::CONSOLE_FILE), TAIL_LINES);
        Ok(TrialReport {
            experiment: experiment.name().to_string(),
            name: trial.name.clone(),
            abi: trial.abi,
            kernel: built.kernel.version.clone(),
            flavour: trial.flavour.unwrap_or(&self.stage.flavour).to_string(),
            accel: self.stage.lab.accel(built)?.used.name().to_string(),
            params: trial.params.clone(),
            verdict,
            reason,
            attempts: 1,
            first_loss: None,
            fault_domain: fault_domain.filter(|_| verdict == Verdict::LostVm),
            vm: notes.vm,
            measured,
            predicted: notes.predicted,
            published: trial.published.clone(),
            duration_s: 0.0,
            clocksource: notes.clocksource,
            source_lines: source_lines(experiment.cites(trial), built),
            artifacts: artifacts(&self.stage.dir, &dir),
            console_tail: if verdict.is_well() { Vec::new() } else { tail() },
        })
    }

    fn attempt(&mut self, planned: &Planned, built: &Built, keep: bool) -> Result<Attempt> {
        let Planned { experiment, trial } = planned;
        let start = Instant::now();
        let mut notes = Notes::default();
        let observed = match &trial.desk {
            Some(desk) => at_the_desk(desk, built),
            None => self.observe(*experiment, trial, built, keep, &mut notes),
        };
        let (judgement, fault_domain) = match observed {
            Ok(observed) => {
                (with_trouble(experiment.judge(trial, &observed), notes.trouble.take()), None)
            }
            Err(err) if error::is_interruption(&err) => return Err(err),
            Err(err) => match error::into_vm_failure(err) {
                Ok(VmFailure { verdict, reason, fault_domain, .. }) => {
                    let judgement = Judgement { verdict, reason: Some(reason), measured: None };
                    (with_trouble(judgement, notes.trouble.take()), Some(fault_domain))
                }
                Err(err) => return Err(err.context(trial.name.clone())),
            },
        };
        let verdict = notes.begun.unwrap_or(start).elapsed();
        Ok(Attempt { judgement, fault_domain, verdict, notes })
    }

    /// What is seen of a trial; what is wrong with its kernel since is noted.
    fn observe(
        &mut self,
        experiment: &dyn Experiment,
        trial: &Trial,
        built: &Built,
        keep: bool,
        notes: &mut Notes,
    ) -> Result<Observed> {
        let dir = self.stage.folder(trial);
        // Taken out: a machine that is not put back is gone.
        let Machine { mut guest, name, start, .. } = self.machine_for(trial, built, &dir, notes)?;
        notes.vm = name.clone();
        notes.clocksource = Some(guest.ready.clocksource.clone());
        guest.keep_output()?;
        let mut sabotage = None;
        match trial.fault {
            Some(Fault::Guest(how)) => guest.misbehave(how)?,
            Some(Fault::Host(how)) => sabotage = Some((how, guest.parts()?)),
            None => {}
        }
        let slowdown = self.stage.lab.accel(built)?.used.slowdown();
        let mut collected = Collected::new(experiment, trial);
        notes.begun = Some(Instant::now());
        let exit = guest.run(&trial.job, trial.limits(slowdown), |value| {
            if let Some((how, parts)) = sabotage.take() {
                break_machine(how, &parts)?;
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
        Ok(Observed { data, exit, predicted, out_of_memory, last_sign, boot, total })
    }

    /// The machine that the trial before has left, or a new one.
    fn machine_for(
        &mut self,
        trial: &Trial,
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
                machine.guest.turn_to(dir)?;
                return Ok(machine);
            };
            let (name, last) = (&machine.name, &machine.last.name);
            say::status(&format!("{name} ends after {last}: {}", trouble.reason));
        }
        let Trial { cpus, memory_bytes, boot: command_line, .. } = *trial;
        let needs = VmSpec { cpus, memory_bytes, folders: Vec::new(), command_line };
        let start = Instant::now();
        let room = self.stage.lab.room(built, &needs)?;
        notes.waited = start.elapsed();
        notes.begun = Some(Instant::now());
        let guest = self.stage.lab.boot(built, needs, room, dir)?;
        let boot = guest.ready.boot;
        if let Ok(age) = procfs::age() {
            self.stage.first_vm_s.get_or_init(|| seconds(age.saturating_sub(boot)));
        }
        let number = self.stage.machines.fetch_add(1, Ordering::Relaxed) + 1;
        let start = Instant::now() - boot;
        Ok(Machine { guest, name: format!("vm-{number}"), last: trial.clone(), start })
    }
}

/// What the desk has to say, as if a program had reported it.
fn at_the_desk(desk: &Desk, built: &Built) -> Result<Observed> {
    let start = Instant::now();
    let answer = desk::answer(desk, &built.kernel).map_err(|err| {
        if error::is_interruption(&err) {
            return err;
        }
        VmFailure::caused_by(Verdict::Infra, format!("{err:#}"), FaultDomain::Host).into()
    })?;
    Ok(Observed {
        data: vec![answer],
        exit: Exit::Code(0),
        predicted: None,
        out_of_memory: None,
        last_sign: None,
        boot: Duration::ZERO,
        total: start.elapsed(),
    })
}

/// Where these texts stand in a kernel's source, as far as it is there.
fn source_lines(cites: &[(&str, &str)], built: &Built) -> Vec<SourceLine> {
    let source = built.kernel.source_dir();
    cites
        .iter()
        .map(|&(file, text)| SourceLine {
            file: file.to_string(),
            line: desk::line_of(&source, file, text).ok().flatten(),
            text: text.to_string(),
        })
        .collect()
}

/// Whether it is the program's failure, and no loss of the machine.
fn is_failure(err: &anyhow::Error) -> bool {
    err.downcast_ref::<VmFailure>().is_some_and(|loss| loss.verdict == Verdict::Fail)
}

/// What is wrong with the kernel outranks what the program made of it.
fn with_trouble(judgement: Judgement, trouble: Option<VmFailure>) -> Judgement {
    let Some(VmFailure { verdict, reason, .. }) = trouble else { return judgement };
    let reason = match judgement.reason {
        Some(also) => format!("{reason}; {also}"),
        None => reason,
    };
    Judgement { verdict, reason: Some(reason), measured: judgement.measured }
}

/// Breaks a machine from outside.
fn break_machine(how: Sabotage, parts: &Parts) -> Result<()> {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    let kill = |id: u32| kill(Pid::from_raw(id as i32), Signal::SIGKILL);
    match how {
        Sabotage::KillQemu => kill(parts.qemu)?,
        Sabotage::KillShareDaemon => parts.shares.iter().try_for_each(|id| kill(*id))?,
        Sabotage::CloseChannel => parts.channel.shutdown(std::net::Shutdown::Both)?,
        Sabotage::RemoveFolder => fs::remove_dir_all(&parts.dir)?,
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
        ("tasks", guest::autopsy::TASKS_FILE),
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
