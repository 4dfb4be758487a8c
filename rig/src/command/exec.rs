//! `exec`: one command in a guest, as if it ran here.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nlrig_guest::protocol::{Exit, Job};

use super::prepare;
use crate::abi::Abi;
use crate::guest::console::tail_of;
use crate::guest::{CONSOLE_FILE, Guest, Limits};
use crate::launcher::VmSpec;
use crate::options::ExecOptions;
use crate::report::Verdict;
use crate::scratch::Scratch;
use crate::share::{Access, Folder};
use crate::{error, say, usage};

/// A command that says nothing for long is not hung.
const LIMIT: Duration = Duration::from_secs(60 * 60);
const MEMORY_BYTES: u64 = 512 << 20;
/// Where the guest sees the current directory.
const CWD_IN_GUEST: &str = "/run/nlrig/cwd";
/// How much of a lost guest's console is shown.
const TAIL_LINES: usize = 15;

/// Runs the command and gives back its exit status.
///
/// # Errors
/// More than one ABI; the guest could not be built, or was lost.
pub fn exec(options: &ExecOptions) -> Result<u8> {
    let abi = match options.guest.abi[..] {
        [] => Abi::X86_64,
        [abi] => abi,
        _ => return Err(usage!("exec runs one command in one guest: give one --abi")),
    };
    let cwd = std::env::current_dir().context("the current directory is gone")?;
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
    let job = Job {
        argv: options.command.clone(),
        stdin: true,
        cwd: Some(CWD_IN_GUEST.to_string()),
        user: options.guest.user,
        sysctls: options.guest.sysctl.clone(),
        rlimits: options.guest.rlimit.clone(),
        ..Job::default()
    };
    let slowdown = lab.accel(&built)?.used.slowdown();
    let limits = Limits::fixed(options.guest.timeout.unwrap_or(LIMIT), slowdown);
    let exit = lab
        .room(&built, &needs)
        .and_then(|room| lab.boot(&built, needs, room, dir.path()))
        .map_err(anyhow::Error::from)
        .and_then(|guest| run(guest, &job, limits));
    match exit {
        Ok(exit) => Ok(status(exit)),
        // The reader of the output is gone, and so would be a command run here.
        Err(err) if is_broken_pipe(&err) => Ok(128 + libc::SIGPIPE as u8),
        Err(err) => match error::into_vm_failure(err) {
            Ok(loss) => {
                show_console(dir.path());
                Err(anyhow!("{}: {}", story(loss.verdict), loss.reason))
            }
            Err(err) => Err(err),
        },
    }
}

/// What a verdict means to who waits for a command.
fn story(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Panic => "the guest's kernel panicked",
        Verdict::Oops => "the guest's kernel oopsed",
        Verdict::Warning => "the guest's kernel warned",
        Verdict::GuestHang => "the guest hung",
        Verdict::LostVm => "the guest was lost",
        Verdict::Timeout => "the command was late",
        Verdict::Taint => "the guest's kernel is tainted",
        _ => "the guest could not be used",
    }
}

fn run(mut guest: Guest, job: &Job, limits: Limits) -> Result<Exit> {
    guest.forward_streams();
    let exit = guest.run(job, limits, |_| Ok::<_, anyhow::Error>(()))?;
    match guest.trouble() {
        // The command has ended all the same, and its status is what was asked.
        Some(trouble) => say::error(&format!("{}: {}", story(trouble.verdict), trouble.reason)),
        None => guest.end()?,
    }
    Ok(exit)
}

fn is_broken_pipe(err: &anyhow::Error) -> bool {
    let kind = match err.downcast_ref::<nlrig_vm::Error>() {
        Some(nlrig_vm::Error::Host(err)) => err.io_kind(),
        _ => err.downcast_ref::<std::io::Error>().map(std::io::Error::kind),
    };
    kind == Some(std::io::ErrorKind::BrokenPipe)
}

/// The status a shell would give.
fn status(exit: Exit) -> u8 {
    match exit {
        Exit::Code(code) => code as u8,
        Exit::Signal(signal) => 128_u8.wrapping_add(signal as u8),
        Exit::NotStarted { reason, code } => {
            say::error(&reason);
            u8::try_from(code).unwrap_or(error::RIG)
        }
    }
}

/// Says the last lines that a lost guest wrote to its console.
pub fn show_console(dir: &Path) {
    for line in tail_of(&dir.join(CONSOLE_FILE), TAIL_LINES) {
        say::status(&format!("guest: {line}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_a_shells() {
        assert_eq!(status(Exit::Code(42)), 42);
        assert_eq!(status(Exit::Signal(9)), 137);
        assert_eq!(status(Exit::NotStarted { reason: "x: not found".into(), code: 127 }), 127);
    }
}
