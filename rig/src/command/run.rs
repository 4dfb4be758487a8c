//! `run`, and the main job.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use super::{abis, prepare};
use crate::error;
use crate::experiment::{self, Selection};
use crate::options::RunOptions;
use crate::report::{self, Report, Section, terminal};
use crate::run::status::{Policy, all_skipped};
use crate::run::{self, Run};
use crate::{project, say, usage};

/// Runs the experiments of these names, or all that run by default; gives back
/// the exit status.
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

    let (mut workshop, lab) = prepare(guest)?;
    let results = match &options.out {
        Some(dir) => dir.clone(),
        None => project::results(),
    };
    // What is missing is said before the long work, and before there is a new
    // `latest` with nothing in it.
    for abi in &selection.abis {
        lab.qemu(abi.kernel())?;
    }
    let mut built = BTreeMap::new();
    for &abi in &selection.abis {
        built.insert(abi, workshop.build(abi, &[])?);
    }
    if options.out.is_none() {
        run::forget_old(&results, run::RUNS_KEPT);
    }
    let mut run = Run::begin(workshop, lab, built, &guest.flavour, &results)?;
    say::status(&format!("{} trials; results in {}", planned.len(), run.context.dir.display()));
    let policy = Policy {
        experiments: names.to_vec(),
        abis: guest.abi.clone(),
        allow_skip: options.allow_skip,
        no_flaky: options.no_flaky,
    };
    let ended = run.all(&planned, options.vms.map(|vms| vms as usize), options.run_timeout);
    // Whatever ended it: what was found until then is worth a report.
    let dir = run.context.dir.clone();
    let (report, sections) = run.finish(&experiments)?;

    let shown = publish(&report, &sections, options, &dir);
    let status = run::status::status(&report, &policy);
    match ended.and(shown) {
        Ok(()) => {
            if let Some(what) = all_skipped(&report, &policy).filter(|_| !policy.allow_skip) {
                say::status(&format!("{what}: every trial was skipped; --allow-skip permits it"));
            }
            Ok(status)
        }
        // A trial that failed is worth more than what went wrong beside it.
        Err(err) if !error::is_interruption(&err) && run::status::any_failed(&report) => {
            say::error(&format!("{err:#}"));
            Ok(status)
        }
        Err(err) => Err(err),
    }
}

/// Writes the report where the user wants it, and prints it.
fn publish(report: &Report, sections: &[Section], options: &RunOptions, dir: &Path) -> Result<()> {
    if let Some(path) = &options.page {
        report::write_page(path, report, sections)?;
    }
    match options.json.as_deref() {
        Some(path) if path == Path::new("-") => {
            return Ok(say::result(&serde_json::to_string_pretty(report)?)?);
        }
        Some(path) => {
            report::write_whole(path, &(serde_json::to_string_pretty(report)? + "\n"))?;
        }
        None => {}
    }
    let tables: Vec<_> = sections.iter().map(terminal::section).collect();
    Ok(say::result(&format!("{}\n{}", tables.join("\n"), dir.join("report.md").display()))?)
}

/// Refuses a place for the report before the work, not after it.
///
/// # Errors
/// A usage error: a file cannot be made there.
pub fn check_target(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if folder.is_some_and(|folder| !folder.is_dir()) || path.is_dir() {
        return Err(usage!("{}: there is no such folder, or it is one", path.display()));
    }
    Ok(())
}
