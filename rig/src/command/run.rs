//! `run`: builds, runs experiments, and writes the report.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use super::{abis, is_rig_module, prepare_with_rig_module};
use crate::abi::Abi;
use crate::error;
use crate::experiment::{self, AnyExperiment, RigModule, Selection};
use crate::options::{GuestOptions, RunOptions};
use crate::report::{self, Report, Section, terminal};
use crate::run::status::{Policy, all_skipped};
use crate::run::{self, Run};
use crate::{data, project, ui, usage};
use nlrig_build::BuildContext;

/// Runs the named experiments, or the default ones; returns the exit status.
///
/// # Errors
/// See the steps in [`crate::run`].
pub fn run(names: &[String], options: &RunOptions) -> Result<u8> {
    let experiments = experiment::find(names)?;
    for path in options.json.iter().chain(&options.page) {
        check_target(path)?;
    }
    let set: BTreeMap<_, _> = options.set.iter().cloned().collect();
    experiment::check_parameters(&experiments, &set)?;
    let guest = &options.guest;
    let selection = Selection {
        abis: abis(guest),
        kernel: guest.kernel.clone(),
        stacks: options.stack.clone(),
        sysctls: guest.sysctl.clone(),
        rlimits: guest.rlimit.clone(),
        user: guest.user,
        set,
        cpus: guest.cpus,
        memory_bytes: guest.memory,
        timeout: guest.timeout,
        env: guest.env.clone(),
    };
    let planned = run::plan(&experiments, &selection, options.repeat)?;

    check_modules(&experiments, guest)?;
    let (mut workshop, lab) = prepare_with_rig_module(guest)?;
    let results = match &options.out {
        Some(dir) => dir.clone(),
        None => project::results(),
    };
    // Report a missing QEMU before the builds, and before `latest` is replaced by an
    // empty folder.
    for abi in &selection.abis {
        lab.qemu(abi.kernel())?;
    }
    let mut built = BTreeMap::new();
    for &abi in &selection.abis {
        check_substitute(&mut workshop, abi)?;
        built.insert(abi, workshop.build(abi, &[])?);
    }
    if options.out.is_none() {
        run::forget_old(&results, run::RUNS_KEPT);
    }
    let mut run = Run::begin(workshop, lab, built, &guest.flavour, &results)?;
    ui::status(&format!("{} trials; results in {}", planned.len(), run.context.dir.display()));
    let policy = Policy {
        experiments: names.to_vec(),
        abis: guest.abi.clone(),
        allow_skip: options.allow_skip,
        no_flaky: options.no_flaky,
    };
    let ended = run.all(&planned, options.vms.map(|vms| vms as usize), options.run_timeout);
    // Write the report even after an error: it has the trials so far.
    let dir = run.context.dir.clone();
    let (report, sections) = run.finish(&experiments)?;

    let shown = publish(&report, &sections, options, &dir);
    let status = run::status::status(&report, &policy);
    match ended.and(shown) {
        Ok(()) => {
            if let Some(what) = all_skipped(&report, &policy).filter(|_| !policy.allow_skip) {
                ui::status(&format!("{what}: all trials were skipped; --allow-skip permits it"));
            }
            Ok(status)
        }
        // A failed trial takes precedence over an error of the rig.
        Err(err) if !error::is_interruption(&err) && run::status::any_failed(&report) => {
            ui::error(&format!("{err:#}"));
            Ok(status)
        }
        Err(err) => Err(err),
    }
}

/// Writes the report to the files of the options, and prints it.
fn publish(report: &Report, sections: &[Section], options: &RunOptions, dir: &Path) -> Result<()> {
    if let Some(path) = &options.page {
        report::write_page(path, report, sections)?;
    }
    match options.json.as_deref() {
        Some(path) if path == Path::new("-") => {
            return Ok(ui::result(&serde_json::to_string_pretty(report)?)?);
        }
        Some(path) => {
            report::write_whole(path, &(serde_json::to_string_pretty(report)? + "\n"))?;
        }
        None => {}
    }
    let tables: Vec<_> = sections.iter().map(terminal::section).collect();
    Ok(ui::result(&format!("{}\n{}", tables.join("\n"), dir.join("report.md").display()))?)
}

/// Refuses modules of the user's for an experiment that needs the rig's own.
///
/// # Errors
/// A usage error that names the experiment and the way out.
fn check_modules(experiments: &[&dyn AnyExperiment], guest: &GuestOptions) -> Result<()> {
    if guest.module.is_empty() || guest.module.iter().any(|path| is_rig_module(path)) {
        return Ok(());
    }
    let needs = |experiment: &&&dyn AnyExperiment| experiment.rig_module() == RigModule::Required;
    match experiments.iter().find(needs) {
        Some(experiment) => Err(usage!(
            "--module: the experiment {} needs the rig's own module: add --module rig, or run a command with `exec`",
            experiment.name()
        )),
        None => Ok(()),
    }
}

/// Builds the modules for the kernel of an ABI, and refuses them if the rig's
/// own, or one that stands in for it, is not among them.
///
/// # Errors
/// A usage error that names what was built; see [`BuildContext::modules`].
fn check_substitute(workshop: &mut BuildContext, abi: Abi) -> Result<()> {
    let modules = workshop.modules(abi.kernel())?;
    if modules.iter().any(|module| module.name == data::MODULE_NAME) {
        return Ok(());
    }
    let names: Vec<_> = modules.iter().map(|module| module.name.as_str()).collect();
    Err(usage!(
        "--module: a module that stands in for the rig's own must be called {}, not {}",
        data::MODULE_NAME,
        names.join(", ")
    ))
}

/// Checks before the work starts that a report can be written to `path`.
///
/// # Errors
/// A usage error: the folder is missing, or the path is a folder.
pub fn check_target(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        return Err(usage!("cannot write {}: no folder {}", path.display(), folder.display()));
    }
    if path.is_dir() {
        return Err(usage!("not a file: {}", path.display()));
    }
    Ok(())
}
