//! One run: plan → build → boot → observe → judge → report.

mod collect;
mod schedule;
pub mod status;
mod worker;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};

use crate::abi::Abi;
use crate::experiment::{AnyExperiment, AnyTrial, Selection};
use crate::kernel::Kernel;
use crate::launcher::VmLauncher;
use crate::report::{self, Report, Section, TrialReport, seconds};
use crate::ui;
use nlrig_build::{BuildContext, Built};
use schedule::Schedule;
pub use schedule::groups;
pub use worker::{RunContext, Worker};

/// How many runs are kept below the rig's own folder of results.
pub const RUNS_KEPT: usize = 20;

/// A trial with the experiment that judges it.
#[derive(Clone)]
pub struct Planned {
    /// The experiment.
    pub experiment: &'static dyn AnyExperiment,
    /// The trial.
    pub trial: AnyTrial,
}

/// The trials of these experiments, in their order; every repetition is one of
/// its own.
///
/// # Errors
/// See [`AnyExperiment::plan`].
pub fn plan(
    experiments: &[&'static dyn AnyExperiment],
    selection: &Selection,
    repetitions: u32,
) -> Result<Vec<Planned>> {
    let mut planned = Vec::new();
    for &experiment in experiments {
        for trial in experiment.plan(selection)? {
            for repetition in 1..=repetitions {
                let mut trial = trial.clone();
                trial.job.env.extend(selection.env.iter().cloned());
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
    pub workshop: BuildContext,
    /// Where trials are made.
    pub context: Arc<RunContext>,
    built: BTreeMap<Abi, Built>,
    /// What trials with a flavour of their own boot.
    flavoured: BTreeMap<(Abi, &'static str), Built>,
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
        workshop: BuildContext,
        lab: VmLauncher,
        built: BTreeMap<Abi, Built>,
        flavour: &str,
        results: &Path,
    ) -> Result<Run> {
        let started = SystemTime::now();
        let dir = make_run_folder(results, started)?;
        let qemu = lab.qemu(crate::abi::Arch::X86_64)?.version;
        let report = Report {
            schema: report::SCHEMA.to_string(),
            started_at: report::rfc3339(started),
            duration_s: 0.0,
            first_vm_s: None,
            environment: report::environment(qemu),
            trials: Vec::new(),
        };
        let context = Arc::new(RunContext::new(lab, flavour, dir));
        let flavoured = BTreeMap::new();
        Ok(Run { workshop, context, built, flavoured, report, start: Instant::now() })
    }

    /// What this trial boots.
    ///
    /// # Errors
    /// See [`BuildContext::build`].
    pub fn built(&mut self, trial: &AnyTrial) -> Result<Built> {
        let abi = trial.abi;
        if let Some(flavour) = trial.flavour {
            if let Some(built) = self.flavoured.get(&(abi, flavour)) {
                return Ok(built.clone());
            }
            let built = self.workshop.build_flavour(abi, flavour)?;
            self.flavoured.insert((abi, flavour), built.clone());
            return Ok(built);
        }
        if let Some(built) = self.built.get(&abi) {
            return Ok(built.clone());
        }
        let built = self.workshop.build(abi, &[])?;
        self.built.insert(abi, built.clone());
        Ok(built)
    }

    /// Runs all trials, as many machines at once as the host holds, or as many
    /// as are asked for; says how each went. What is not begun after `limit` is
    /// not run; builds do not count.
    ///
    /// # Errors
    /// Only what ends the run: an interruption, a full disk. What was found
    /// until then is in the report all the same.
    pub fn all(
        &mut self,
        planned: &[Planned],
        max_parallel: Option<usize>,
        limit: Duration,
    ) -> Result<()> {
        let built =
            planned.iter().map(|planned| self.built(&planned.trial)).collect::<Result<Vec<_>>>()?;
        let schedule =
            Schedule { planned, built: &built, max_parallel, deadline: Instant::now() + limit };
        let (trials, ended) = schedule.run(&self.context);
        self.report.trials.extend(trials);
        for built in &built {
            let kernels = &mut self.report.environment.kernels;
            // Two flavours may be one image.
            let is_same = |kernel: &Kernel| {
                let of = |kernel: &Kernel| (kernel.image_sha256.clone(), kernel.flavour.clone());
                of(kernel) == of(&built.kernel)
            };
            if !kernels.iter().any(is_same) {
                kernels.push(built.kernel.clone());
            }
        }
        // Only what was tried: an interrupted run tries no further.
        let chosen = built.iter().filter_map(|built| {
            Some((&built.kernel, self.context.lab.known_accel(&built.kernel)?))
        });
        self.report.environment.add_accels(chosen);
        self.report.environment.confinement = self.context.lab.confinement();
        self.report.first_vm_s = self.context.first_vm_s();
        ended
    }

    /// Ends the run: writes the reports and gives back what they say.
    ///
    /// # Errors
    /// A report cannot be written.
    pub fn finish(
        mut self,
        experiments: &[&'static dyn AnyExperiment],
    ) -> Result<(Report, Vec<Section>)> {
        self.report.duration_s = seconds(self.start.elapsed());
        let sections = sections(&self.report, experiments);
        self.report.write_json(&self.context.dir.join("report.json"))?;
        report::write_page(&self.context.dir.join("report.md"), &self.report, &sections)?;
        Ok((self.report, sections))
    }
}

/// All tables of a report.
pub fn sections(report: &Report, experiments: &[&'static dyn AnyExperiment]) -> Vec<Section> {
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

/// Makes the folder of a run and points `latest` at it.
fn make_run_folder(results: &Path, started: SystemTime) -> Result<PathBuf> {
    fs::create_dir_all(results).with_context(|| format!("cannot make {}", results.display()))?;
    // Tests begin several runs in one process.
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let stamp = report::rfc3339(started).replace(':', "").replace(['-', 'Z'], "");
    let mut name = format!("run-{stamp}-{}", std::process::id());
    match RUNS.fetch_add(1, Ordering::Relaxed) {
        0 => {}
        number => name.push_str(&format!("-{number}")),
    }
    let dir = results.join(&name);
    fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    // A new link renamed over the old one: there is always a latest.
    let link = results.join(format!(".latest-{name}"));
    let _ = fs::remove_file(&link);
    std::os::unix::fs::symlink(&name, &link)?;
    fs::rename(&link, results.join("latest"))
        .with_context(|| format!("cannot replace {}", results.join("latest").display()))?;
    Ok(dir)
}

/// Removes all but so many of the newest runs in a folder of results.
pub fn forget_old(results: &Path, kept: usize) {
    let Ok(entries) = fs::read_dir(results) else { return };
    let mut runs: Vec<_> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("run-"))
        .collect();
    // Their names begin with the time.
    runs.sort_unstable();
    for old in runs.iter().rev().skip(kept) {
        let _ = fs::remove_dir_all(results.join(old));
    }
}

/// Says how a trial went.
fn say_result(trial: &TrialReport, done: usize, total: usize) {
    ui::status(&format!("[{done}/{total}] {}", one_line(trial)));
}

fn one_line(trial: &TrialReport) -> String {
    let verdict = match trial.flaky {
        true => "pass at the second try",
        false => trial.verdict.name(),
    };
    let measured = |key: &str| trial.measured.as_ref().and_then(|measured| measured.get(key));
    let found = measured("finding").and_then(serde_json::Value::as_str);
    let what = match (&trial.reason, measured("threads"), found) {
        (Some(reason), ..) => format!("{verdict}: {reason}"),
        (None, Some(threads), _) => format!("{verdict}: {threads} threads"),
        (None, None, Some(finding)) => format!("{verdict}: {finding}"),
        (None, None, None) => verdict.to_string(),
    };
    format!("{}: {what} ({:.1} s)", trial.name, trial.duration_s)
}
