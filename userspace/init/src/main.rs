//! PID 1 of every guest: sets up the system, runs the host's jobs, and always
//! ends the virtual machine.
//!
//! All messages, including errors, go over the event port. The console is used
//! only if the port is missing.

mod channel;
mod guest_fault;
mod job;
mod kmsg;
mod modules;
mod mounts;
mod pipes;
mod tasks;

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{SigSet, Signal};
use nlrig_init::protocol::{Event, GuestFault, Request, WORKLOAD_FD};

use channel::Channel;

fn main() {
    if let Err(err) = run() {
        // The host reads the console of a guest that ended without its last
        // event.
        eprintln!("nlrig-init: {err}");
    }
    nix::unistd::sync();
    // microvm has neither ACPI nor a keyboard controller. With `reboot=t`, a
    // reboot is a triple fault, which ends QEMU under -no-reboot. Power-off
    // would halt forever.
    let Err(err) = reboot(RebootMode::RB_AUTOBOOT);
    // Reached only if the process is not PID 1. If PID 1 returns, the kernel
    // panics, which also ends the virtual machine.
    eprintln!("nlrig-init: cannot reboot: {err}");
}

fn run() -> io::Result<()> {
    reserve_workload_descriptor()?;
    // Read from a signalfd. Jobs unblock the signal.
    let mut child_signal = SigSet::empty();
    child_signal.add(Signal::SIGCHLD);
    child_signal.thread_block()?;

    let mut faults = mounts::mount_all(Path::new(mounts::TABLE));
    let refused = modules::load(&mut faults);
    let mut channel = Channel::open()?;

    let uname = nix::sys::utsname::uname()?;
    channel.send(&Event::Ready {
        kernel: uname.release().to_string_lossy().into_owned(),
        machine: uname.machine().to_string_lossy().into_owned(),
        uptime_s: uptime_s(),
        clocksource: first_line("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        taint: taint(),
        faults,
        refused,
    })?;

    let mut fault = None;
    loop {
        match channel.receive()? {
            Some(Request::Run(job)) => {
                job::run(&job, &child_signal, &mut channel, fault)?;
            }
            Some(Request::InjectFault(requested)) => fault = Some(requested),
            Some(Request::End) | None => break,
            Some(request) => answer(&request, &mut channel)?,
        }
    }
    if fault == Some(GuestFault::NoLastEvent) {
        return Ok(());
    }
    channel.send(&Event::End)?;
    channel.wait_for_host_to_close()
}

/// Answers a request that is allowed at any time.
fn answer(request: &Request, channel: &mut Channel) -> io::Result<()> {
    match request {
        Request::Ping => channel.send(&Event::Pong),
        Request::Tasks => {
            let (tasks, cut) = tasks::snapshot();
            channel.send(&Event::Tasks { tasks, cut })
        }
        request => Err(io::Error::other(format!("unexpected request from the host: {request:?}"))),
    }
}

/// Reserves descriptor 3. Otherwise the child's dup2() to it could close a
/// descriptor that PID 1 opened.
fn reserve_workload_descriptor() -> io::Result<()> {
    loop {
        let null = File::open("/").inspect_err(|err| eprintln!("nlrig-init: /: {err}"))?;
        let number = null.as_raw_fd();
        std::mem::forget(null);
        if number >= WORKLOAD_FD {
            return Ok(());
        }
    }
}

fn uptime_s() -> f64 {
    first_line("/proc/uptime")
        .split_whitespace()
        .next()
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(0.0)
}

/// The kernel's taint mask; see Documentation/admin-guide/tainted-kernels.rst.
fn taint() -> u64 {
    first_line("/proc/sys/kernel/tainted").parse().unwrap_or(0)
}

fn first_line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().lines().next().unwrap_or_default().to_string()
}
