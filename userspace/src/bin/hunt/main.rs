//! The workload `hunt`: one setup of the search for 1449. For each stack size,
//! it executes itself again and counts threads until a call fails.
//!
//! PID 1 starts `hunt STARTS SETUP STACK...`, which starts `hunt count SETUP
//! STACK` for each count, because RLIMIT_STACK and the personality take effect
//! at exec only.

mod count;
mod layout;

use std::ffi::c_ulong;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nlrig_guest::hunt::{AddressSpaceLayout, Setup};
use nlrig_guest::protocol::Aslr;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("hunt: {err}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [mode, setup, stacks @ ..] = arguments.as_slice() else {
        return Err(io::Error::other("usage: hunt STARTS SETUP STACK..."));
    };
    let bytes = |text: &String| text.parse::<u64>().map_err(io::Error::other);
    if let ("count", [stack]) = (mode.as_str(), stacks) {
        return count::count(&serde_json::from_str(setup)?, bytes(stack)?);
    }
    let starts: u32 = mode.parse().map_err(io::Error::other)?;
    for stack in stacks {
        for _ in 0..starts {
            start(setup, bytes(stack)?)?;
        }
    }
    Ok(())
}

/// Runs one count in a child process and waits for it.
fn start(setup: &str, stack_bytes: u64) -> io::Result<()> {
    let parsed: Setup = serde_json::from_str(setup)?;
    let mut command = Command::new("/proc/self/exe");
    command.args(["count", setup, &stack_bytes.to_string()]);
    // SAFETY: the closure makes system calls only.
    unsafe { command.pre_exec(move || prepare(&parsed, stack_bytes)) };
    let status = command.status()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!("the count ended with {status}")))
    }
}

/// Sets the limits and the personality, which take effect at exec.
fn prepare(setup: &Setup, stack_bytes: u64) -> io::Result<()> {
    soft_limit(Resource::RLIMIT_STACK, stack_bytes)?;
    if let Some(bytes) = setup.address_space_bytes {
        soft_limit(Resource::RLIMIT_AS, bytes)?;
    }
    if let Some(tasks) = setup.nproc {
        soft_limit(Resource::RLIMIT_NPROC, tasks)?;
    }
    let layout = match setup.layout {
        AddressSpaceLayout::Default | AddressSpaceLayout::TopDownOnly => 0,
        AddressSpaceLayout::BottomUp => libc::ADDR_COMPAT_LAYOUT,
        AddressSpaceLayout::Limit3G => libc::ADDR_LIMIT_3GB,
    };
    let aslr = if setup.aslr == Aslr::Off { libc::ADDR_NO_RANDOMIZE } else { 0 };
    // SAFETY: personality() takes an integer.
    let before = unsafe { libc::personality((layout | aslr) as c_ulong) };
    if before < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn soft_limit(resource: Resource, value: u64) -> io::Result<()> {
    let (_, hard) = getrlimit(resource)?;
    let soft = rlim_t::try_from(value).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    Ok(setrlimit(resource, soft, hard)?)
}
