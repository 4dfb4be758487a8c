//! `bench`: measures the rig's own cost.

use std::path::Path;
use std::time::{Instant, SystemTime};

use anyhow::Result;
use serde_json::json;

use super::exec::show_console;
use super::prepare_with_rig_module;
use super::run::check_target;
use crate::abi::{Abi, Arch};
use crate::bench::job::{self, Round};
use crate::bench::start::Starter;
use crate::bench::{self, Measured, Quantity};
use crate::guest::Guest;
use crate::launcher::{VmLauncher, VmSpec};
use crate::options::{BenchOptions, GuestOptions};
use crate::report::{self, seconds, terminal};
use crate::scratch::Scratch;
use crate::share::{Access, Folder};
use crate::{error, procfs, reference, ui};
use nlrig_build::{BuildContext, Built};

/// The schema of the document of `--json`.
const SCHEMA: &str = "nlrig.bench/1";
/// The load average above which the measured times are distorted: a guest under TCG
/// uses up to two CPUs.
const LOAD_QUIET: f64 = 0.5;

/// Measures and prints all quantities; the exit status is 1 if a bound does not hold.
///
/// # Errors
/// A part cannot be built, or a guest was lost.
pub fn bench(options: &BenchOptions) -> Result<u8> {
    if let Some(path) = &options.json {
        check_target(path)?;
    }
    let (started_at, start) = (SystemTime::now(), Instant::now());
    let load = procfs::load();
    if let Some(load) = load.filter(|&load| load > LOAD_QUIET) {
        ui::status(&format!("the host is busy (load average {load}): times will be longer"));
    }
    let (mut workshop, lab) = prepare_with_rig_module(&GuestOptions::default())?;
    let starter = Starter::find();
    let qemu = lab.qemu(Arch::X86_64)?.version;
    let built = workshop.build(Abi::X86_64, &[job::MOUNT.into()])?;
    let accel = lab.accel(&built)?;

    let first_vm_s = starter.rounds(options.rounds)?;
    let dir = Scratch::new()?;
    let threads = threads(&workshop, &lab, &built, dir.path(), options.rounds);
    let (rounds, guest_bytes) = threads.inspect_err(|err| {
        if error::is_vm_failure(err) {
            show_console(dir.path());
        }
    })?;
    let own_bytes = procfs::peak_bytes(std::process::id())?;
    let peak_memory_bytes = guest_bytes + own_bytes;
    let quantities =
        bench::quantities(&Measured { first_vm_s, rounds: rounds.clone(), peak_memory_bytes });

    let mut environment = report::environment(qemu);
    environment.add_accels([(&built.kernel, accel)]);
    environment.confinement = lab.confinement();
    environment.kernels.push(built.kernel.clone());
    let document = serde_json::to_string_pretty(&json!({
        "schema": SCHEMA,
        "started_at": report::rfc3339(started_at),
        "duration_s": seconds(start.elapsed()),
        "environment": environment,
        "load_before": load,
        "first_vm_command": starter.shown,
        "quantities": quantities,
        "rounds": rounds,
        "peak_memory": { "qemu_and_shares_bytes": guest_bytes, "rig_bytes": own_bytes },
    }))?;
    match options.json.as_deref() {
        Some(path) if path == Path::new("-") => ui::result(&document)?,
        path => {
            if let Some(path) = path {
                report::write_whole(path, &(document + "\n"))?;
            }
            let section = bench::section(&quantities, options.rounds, &starter.shown);
            ui::result(&terminal::section(&section))?;
        }
    }
    let excesses: Vec<_> = quantities.iter().filter_map(Quantity::excess).collect();
    for excess in &excesses {
        ui::error(excess);
    }
    Ok(if excesses.is_empty() { error::OK } else { error::TRIAL_FAILED })
}

/// Creates threads in one guest; returns the rounds and the guest's peak memory on the
/// host, in bytes.
fn threads(
    workshop: &BuildContext,
    lab: &VmLauncher,
    built: &Built,
    dir: &Path,
    rounds: u32,
) -> Result<(Vec<Round>, u64)> {
    let reference = reference::build(&workshop.cache, Arch::X86_64)?;
    let trial = job::largest()?;
    let needs = VmSpec {
        cpus: trial.cpus,
        memory_bytes: trial.memory_bytes,
        folders: vec![Folder {
            tag: job::TAG.to_string(),
            path: reference,
            access: Access::ReadOnly,
        }],
        ..VmSpec::default()
    };
    let room = lab.room(built, &needs)?;
    let mut guest: Guest = lab.boot(built, needs, room, dir)?;
    let rounds = job::rounds(&mut guest, rounds)?;
    // Before the guest's end: /proc has no peak of an ended process.
    let bytes = guest.peak_bytes()?;
    guest.end()?;
    Ok((rounds, bytes))
}
