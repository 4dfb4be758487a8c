//! One run: plan → build → boot → observe → judge → report.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use nlrig_guest::protocol::{Exit, Stdio};
use serde_json::{Map, Value};

use crate::abi::Abi;
use crate::artifact::{Built, Workshop};
use crate::experiment::{Ask, Experiment, Judgement, Observed, Trial};
use crate::guest::Loss;
use crate::lab::{Lab, Needs};
use crate::report::{self, Report, Section, TrialReport, Verdict, seconds};
use crate::{error, interrupt, procfs, say, share};

/// How many runs are kept below the folder of results.
const RUNS_KEPT: usize = 20;

/// What a workload may report in one trial, in objects and in bytes.
const DATA_MAX: usize = 100_000;
const DATA_MAX_BYTES: usize = 32 << 20;

/// A trial with the experiment that judges it.
#[derive(Clone)]
pub struct Planned {
    /// The experiment.
    pub experiment: &'static dyn Experiment,
    /// The trial.
    pub trial: Trial,
}

/// The trials of these experiments, in their order; every repetition is one of
/// its own.
///
/// # Errors
/// See [`Experiment::plan`].
pub fn plan(
    experiments: &[&'static dyn Experiment],
    ask: &Ask,
    repetitions: u32,
) -> Result<Vec<Planned>> {
    let mut planned = Vec::new();
    for &experiment in experiments {
        for trial in experiment.plan(ask)? {
            for repetition in 1..=repetitions {
                let mut trial = trial.clone();
                if repetitions > 1 {
                    trial.name.push_str(&format!("/repetition={repetition}"));
                }
                planned.push(Planned { experiment, trial });
            }
        }
    }
    Ok(planned)
}

/// What a run needs and what it has found.
pub struct Run {
    /// Builds.
    pub workshop: Workshop,
    /// Boots.
    pub lab: Lab,
    /// The kernel's flavour, for the report.
    pub flavour: String,
    /// The folder of this run.
    pub dir: PathBuf,
    built: BTreeMap<Abi, Built>,
    report: Report,
    start: Instant,
}

impl Run {
    /// Begins a run in a new folder below `results`; `latest` there is it.
    /// What was not built before is built when a trial needs it.
    ///
    /// # Errors
    /// The folder cannot be made; there is no QEMU.
    pub fn begin(
        workshop: Workshop,
        mut lab: Lab,
        built: BTreeMap<Abi, Built>,
        flavour: &str,
        results: &Path,
    ) -> Result<Run> {
        let started = SystemTime::now();
        let dir = make_run_folder(results, started)?;
        let qemu = lab.qemu(crate::abi::Arch::X86_64)?;
        let report = Report {
            schema: report::SCHEMA.to_string(),
            started_at: report::rfc3339(started),
            duration_s: 0.0,
            first_vm_s: None,
            environment: report::environment(&workshop.project, qemu),
            trials: Vec::new(),
        };
        let start = Instant::now();
        Ok(Run { workshop, lab, flavour: flavour.to_string(), dir, built, report, start })
    }

    /// What trials of this ABI boot.
    fn built(&mut self, abi: Abi) -> Result<Built> {
        if let Some(built) = self.built.get(&abi) {
            return Ok(built.clone());
        }
        let built = build(&mut self.workshop, abi)?;
        self.built.insert(abi, built.clone());
        Ok(built)
    }

    /// Runs one trial and puts it into the report.
    ///
    /// # Errors
    /// Only what ends the run: an interruption, a full disk. What happens to
    /// the trial's machine is its verdict.
    pub fn trial(&mut self, planned: &Planned) -> Result<&TrialReport> {
        let Planned { experiment, trial } = planned;
        let built = self.built(trial.abi)?;
        let dir = self.dir.join(trial.name.replace('/', "_"));
        // Trying KVM takes seconds, which are not the trial's.
        let accel = self.lab.accel(&built)?;
        let start = Instant::now();
        let attempt = self.attempt(*experiment, trial, &built, &dir);
        let (judgement, predicted, clocksource) = match attempt {
            Ok((observed, clocksource)) => {
                (experiment.judge(trial, &observed), observed.predicted, Some(clocksource))
            }
            Err(err) if err.is::<error::Interrupted>() => return Err(err),
            Err(err) => match err.downcast::<Loss>() {
                Ok(loss) => (
                    Judgement { verdict: loss.verdict, reason: Some(loss.reason), measured: None },
                    None,
                    None,
                ),
                Err(err) => return Err(err.context(trial.name.clone())),
            },
        };
        let kernels = &mut self.report.environment.kernels;
        if !kernels.iter().any(|kernel| kernel.image_sha256 == built.kernel.image_sha256) {
            kernels.push(built.kernel.clone());
        }
        self.report.environment.accel.insert(built.kernel.arch.to_string(), accel.clone());
        let trial_report = TrialReport {
            experiment: experiment.name().to_string(),
            name: trial.name.clone(),
            abi: trial.abi,
            kernel: built.kernel.version.clone(),
            flavour: self.flavour.clone(),
            accel: accel.used.name().to_string(),
            params: trial.params.clone(),
            verdict: judgement.verdict,
            reason: judgement.reason,
            attempts: 1,
            measured: judgement.measured,
            predicted,
            published: trial.published.clone(),
            duration_s: seconds(start.elapsed()),
            clocksource,
            artifacts: artifacts(&self.dir, &dir),
        };
        self.report.trials.push(trial_report);
        self.report.trials.last().context("the trial was just reported")
    }

    fn attempt(
        &mut self,
        experiment: &dyn Experiment,
        trial: &Trial,
        built: &Built,
        dir: &Path,
    ) -> Result<(Observed, String)> {
        let mut job = trial.job.clone();
        job.stdio = Stdio::Folder(share::OUT_IN_GUEST.to_string());
        let start = Instant::now();
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let needs = Needs {
            cpus: trial.cpus,
            memory_bytes: trial.memory_bytes,
            folders: vec![share::out_folder(dir)?],
        };
        let mut guest = self.lab.boot(built, needs, dir)?;
        let boot = guest.ready.boot;
        if self.report.trials.is_empty() {
            let age = procfs::age().ok();
            self.report.first_vm_s = age.map(|age| seconds(age.saturating_sub(boot)));
        }
        let clocksource = guest.ready.clocksource.clone();
        let mut data: Vec<Value> = Vec::new();
        let mut predicted: Option<Map<String, Value>> = None;
        let mut unpredictable = None;
        let mut last_sign = None;
        let mut bytes = 0;
        let mut progress = say::Progress::new();
        let exit = guest.run(&job, trial.limits, |value| {
            if predicted.is_none() && unpredictable.is_none() {
                match experiment.predict(trial, &value) {
                    Ok(made) => predicted = made,
                    Err(err) => unpredictable = Some(format!("{err:#}")),
                }
            }
            // Of signs of life only the last one is for the record.
            match value.get("progress") {
                Some(sign) => {
                    progress.update(|| format!("{}: {sign}", trial.name));
                    last_sign = Some(value);
                }
                None => {
                    bytes += value.to_string().len();
                    if data.len() == DATA_MAX || bytes > DATA_MAX_BYTES {
                        let reason = "the workload reported without end".to_string();
                        return Err(Loss { verdict: Verdict::LostVm, reason }.into());
                    }
                    data.push(value);
                }
            }
            Ok(())
        })?;
        drop(progress);
        let farewell = guest.end()?;
        if let Some(reason) = unpredictable {
            return Err(Loss { verdict: Verdict::Fail, reason }.into());
        }
        if let Exit::NotStarted { reason, .. } = &exit {
            return Err(Loss { verdict: Verdict::Infra, reason: reason.clone() }.into());
        }
        let total = start.elapsed();
        let out_of_memory = farewell.out_of_memory;
        Ok((Observed { data, exit, predicted, out_of_memory, last_sign, boot, total }, clocksource))
    }

    /// Ends the run: writes the reports and gives back what they say.
    ///
    /// # Errors
    /// A report cannot be written.
    pub fn finish(
        mut self,
        experiments: &[&'static dyn Experiment],
    ) -> Result<(Report, Vec<Section>)> {
        self.report.duration_s = seconds(self.start.elapsed());
        let sections = sections(&self.report, experiments);
        self.report.write_json(&self.dir.join("report.json"))?;
        let page = report::markdown::page(&self.report, &sections);
        report::write_whole(&self.dir.join("report.md"), &page)?;
        Ok((self.report, sections))
    }
}

/// Builds what trials of this ABI boot.
///
/// # Errors
/// See [`Workshop::build`].
pub fn build(workshop: &mut Workshop, abi: Abi) -> Result<Built> {
    workshop.build(abi, &[share::OUT_MOUNT.to_string()])
}

/// All tables of a report.
pub fn sections(report: &Report, experiments: &[&'static dyn Experiment]) -> Vec<Section> {
    experiments
        .iter()
        .flat_map(|experiment| {
            let trials: Vec<_> = report
                .trials
                .iter()
                .filter(|trial| trial.experiment == experiment.name())
                .collect();
            if trials.is_empty() { Vec::new() } else { experiment.sections(&trials) }
        })
        .collect()
}

/// What a finished trial left, relative to the run.
fn artifacts(run: &Path, dir: &Path) -> BTreeMap<String, String> {
    [
        ("console", "console"),
        ("events", "events.jsonl"),
        ("qemu_command", "qemu.sh"),
        ("qemu_log", "qemu.log"),
        ("stdout", "out/stdout"),
        ("stderr", "out/stderr"),
    ]
    .into_iter()
    // A link in the guest's folder may lead anywhere.
    .filter(|(_, file)| fs::symlink_metadata(dir.join(file)).is_ok_and(|meta| meta.is_file()))
    .filter_map(|(name, file)| {
        let path = dir.join(file);
        let path = path.strip_prefix(run).ok()?.to_str()?.to_string();
        Some((name.to_string(), path))
    })
    .collect()
}

/// Makes the folder of a run and points `latest` at it.
fn make_run_folder(results: &Path, started: SystemTime) -> Result<PathBuf> {
    fs::create_dir_all(results).with_context(|| format!("cannot make {}", results.display()))?;
    let stamp = report::rfc3339(started).replace(':', "").replace(['-', 'Z'], "");
    let name = format!("run-{stamp}-{}", std::process::id());
    let dir = results.join(&name);
    fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    // A new link renamed over the old one: there is always a latest.
    let link = results.join(format!(".latest-{}", std::process::id()));
    let _ = fs::remove_file(&link);
    std::os::unix::fs::symlink(&name, &link)?;
    fs::rename(&link, results.join("latest"))
        .with_context(|| format!("cannot replace {}", results.join("latest").display()))?;
    Ok(dir)
}

/// Removes all but the newest runs in the rig's own folder of results.
pub fn forget_old(results: &Path) {
    let Ok(entries) = fs::read_dir(results) else { return };
    let mut runs: Vec<_> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("run-"))
        .collect();
    // Their names begin with the time.
    runs.sort_unstable();
    for old in runs.iter().rev().skip(RUNS_KEPT) {
        let _ = fs::remove_dir_all(results.join(old));
    }
}

/// The exit status of a run.
pub fn status(report: &Report) -> u8 {
    let verdicts = || report.trials.iter().map(|trial| trial.verdict);
    if verdicts().any(|verdict| matches!(verdict, Verdict::Infra | Verdict::LostVm)) {
        error::RIG
    } else if verdicts().all(Verdict::is_well) {
        error::OK
    } else {
        error::TRIAL_FAILED
    }
}

/// Runs all trials; says how each went.
///
/// # Errors
/// See [`Run::trial`]. What was found until then is in the report on disk.
pub fn all(run: &mut Run, planned: &[Planned]) -> Result<()> {
    let total = planned.len();
    for (index, planned) in planned.iter().enumerate() {
        interrupt::check()?;
        let trial = run.trial(planned)?;
        say::status(&format!("[{}/{total}] {}", index + 1, one_line(trial)));
    }
    Ok(())
}

fn one_line(trial: &TrialReport) -> String {
    let took = Duration::from_secs_f64(trial.duration_s.max(0.0)).as_secs_f64();
    let verdict = trial.verdict.name();
    match (&trial.reason, trial.measured.as_ref().and_then(|measured| measured.get("threads"))) {
        (Some(reason), _) => format!("{}: {verdict}: {reason} ({took:.1} s)", trial.name),
        (None, Some(threads)) => {
            format!("{}: {verdict}: {threads} threads ({took:.1} s)", trial.name)
        }
        (None, None) => format!("{}: {verdict} ({took:.1} s)", trial.name),
    }
}
