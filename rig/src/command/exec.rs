//! `exec`: runs one command in a guest, with the host's streams and exit status.

mod outcome;
mod record;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nlrig_guest::protocol::{Exit, Job};
use nlrig_host::ErrorKind;

use super::prepare;
use super::run::check_target;
use crate::abi::Abi;
use crate::guest::tail_of;
use crate::guest::{CONSOLE_FILE, Guest, Limits};
use crate::launcher::VmSpec;
use crate::options::{ExecOptions, FaultKind};
use crate::report::Verdict;
use crate::scratch::Scratch;
use crate::share::{Access, Folder};
use crate::{error, ui, usage};
use outcome::CommandOutcome;
use record::Record;

/// The default of `--timeout`.
const LIMIT: Duration = Duration::from_secs(60 * 60);
const MEMORY_BYTES: u64 = 512 << 20;
/// The guest's mount point of the current directory.
const CWD_IN_GUEST: &str = "/run/nlrig/cwd";
/// The number of console lines that are printed for a lost guest.
const TAIL_LINES: usize = 15;

/// Runs the command and returns the exit status.
///
/// # Errors
/// Usage errors; the guest could not be built or started.
pub fn exec(options: &ExecOptions) -> Result<u8> {
    let abi = match options.guest.abi[..] {
        [] => Abi::X86_64,
        [abi] => abi,
        _ => return Err(usage!("exec runs one command in one guest; use one --abi")),
    };
    if let Some(path) = &options.json {
        if path == Path::new("-") {
            return Err(usage!("--json -: standard output is the command's; name a file"));
        }
        check_target(path)?;
    }
    let start = Instant::now();
    let mut record = Record::new(options, abi);
    let ended = in_guest(options, abi, &mut record);
    let status = match &ended {
        Ok(outcome) => {
            record.ended(outcome);
            outcome.status(options.bisect)
        }
        // No guest was started, so there is no record.
        Err(err) if matches!(error::kind(err), Some(ErrorKind::Usage | ErrorKind::Interrupted)) => {
            return ended.map(|_| error::OK);
        }
        Err(err) => {
            record.failed(err);
            if options.bisect { error::bisect_status(err) } else { error::status(err) }
        }
    };
    let written = match &options.json {
        Some(path) => record.write(path, status, start.elapsed()),
        None => Ok(()),
    };
    // The first error takes precedence over a failed write of the record.
    ended?;
    written.map(|()| status)
}

/// Builds a guest, boots it, and runs the command in it.
fn in_guest(options: &ExecOptions, abi: Abi, record: &mut Record) -> Result<CommandOutcome> {
    let cwd = std::env::current_dir().context("cannot find the current directory")?;
    let (access, mode) =
        if options.writable { (Access::ReadWrite, "rw") } else { (Access::ReadOnly, "ro") };
    let (mut workshop, lab) = prepare(&options.guest)?;
    let mount = format!("cwd {CWD_IN_GUEST} virtiofs {mode},nosuid,nodev");
    let built = workshop.build(abi, &[mount])?;

    let dir = Scratch::new()?;
    let needs = VmSpec {
        cpus: options.guest.cpus.unwrap_or(2),
        memory_bytes: options.guest.memory.unwrap_or(MEMORY_BYTES),
        folders: vec![Folder { tag: "cwd".to_string(), path: cwd, access }],
        ..VmSpec::default()
    };
    let accel = lab.accel(&built)?.used;
    record.built(&built, accel.name());
    let limit = options.guest.timeout.unwrap_or(LIMIT);
    let limits = Limits::fixed(limit, accel.slowdown());
    let mut outcome = CommandOutcome::default();
    let ended = lab
        .room(&built, &needs)
        .and_then(|room| lab.boot(&built, needs, room, dir.path()))
        .map_err(anyhow::Error::from)
        .and_then(|guest| run(guest, options, limits, &mut outcome));
    if let Err(err) = ended {
        match error::into_vm_failure(err) {
            Ok(loss) => outcome.failure = Some(loss),
            // The reader of the output is gone; on the host the command would get
            // SIGPIPE.
            Err(err) if is_broken_pipe(&err) => outcome.exit = Some(Exit::Signal(libc::SIGPIPE)),
            Err(err) => return Err(err),
        }
    }
    explain(&outcome, dir.path());
    Ok(outcome)
}

/// Runs the command in a guest and ends the guest.
///
/// `outcome` has the command's exit status even if the guest's end fails.
fn run(
    mut guest: Guest,
    options: &ExecOptions,
    limits: Limits,
    outcome: &mut CommandOutcome,
) -> Result<()> {
    let allowed: Vec<_> = options.allow.iter().copied().map(FaultKind::verdict).collect();
    guest.allow(&allowed);
    guest.forward_streams(!options.no_stdin);
    outcome.exit = Some(guest.run(&job(options), limits, |_| Ok::<_, anyhow::Error>(()))?);
    if let Some(loss) = guest.allowed_fault() {
        ui::status(&format!("allowed fault of the guest kernel: {loss}"));
    }
    match guest.trouble() {
        // Do not wait for the end of a guest with a fault.
        Some(trouble) => Err(trouble.into()),
        None => Ok(guest.end()?),
    }
}

fn job(options: &ExecOptions) -> Job {
    Job {
        argv: options.command.clone(),
        stdin: !options.no_stdin,
        cwd: Some(CWD_IN_GUEST.to_string()),
        user: options.guest.user,
        sysctls: options.guest.sysctl.clone(),
        rlimits: options.guest.rlimit.clone(),
        env: options.guest.env.clone(),
        ..Job::default()
    }
}

/// Prints the error, and the end of the console if the command did not end.
fn explain(outcome: &CommandOutcome, dir: &Path) {
    let Some(message) = outcome.message() else { return };
    if let Some(loss) = &outcome.failure {
        let is_over = outcome.exit.is_some() || loss.verdict == Verdict::Timeout;
        if !is_over {
            show_console(dir);
        }
        ui::detail(&loss.reason);
    }
    ui::error(&message);
}

fn is_broken_pipe(err: &anyhow::Error) -> bool {
    let kind = match err.downcast_ref::<nlrig_vm::Error>() {
        Some(nlrig_vm::Error::Host(err)) => err.io_kind(),
        _ => err.downcast_ref::<std::io::Error>().map(std::io::Error::kind),
    };
    kind == Some(std::io::ErrorKind::BrokenPipe)
}

/// Shows the last lines that a guest wrote to its console.
pub fn show_console(dir: &Path) {
    for line in tail_of(&dir.join(CONSOLE_FILE), TAIL_LINES) {
        ui::status(&format!("guest: {line}"));
    }
}
