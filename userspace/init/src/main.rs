//! PID 1 of every guest: makes the system ready, runs what the host asks for,
//! and always ends the virtual machine.
//!
//! It tells the host everything over the event port, faults included; only when
//! that port itself is missing does the console get a word.

mod channel;
mod job;
mod kmsg;
mod misbehave;
mod mounts;
mod pipes;
mod tasks;

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::kmod::init_module;
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{SigSet, Signal};
use nlrig_init::protocol::{Event, GuestFault, Request, WORKLOAD_FD};

use channel::Channel;

/// One module's path a line; made by the rig from the image's recipe.
const MODULES: &str = "/etc/modules";

fn main() {
    if let Err(err) = run() {
        // The host reads the console of a guest that did not say goodbye.
        eprintln!("nlrig-init: {err}");
    }
    nix::unistd::sync();
    // microvm has neither ACPI nor a keyboard controller: with `reboot=t` this
    // is a triple fault, which ends QEMU under -no-reboot. Power-off would halt
    // for ever.
    let Err(err) = reboot(RebootMode::RB_AUTOBOOT);
    // Only if this is not PID 1 of anything. As PID 1, returning is a panic of
    // the kernel, which ends the machine too.
    eprintln!("nlrig-init: cannot reboot: {err}");
}

fn run() -> io::Result<()> {
    reserve_workload_descriptor()?;
    // Taken from a descriptor; jobs unblock it again.
    let mut child_signal = SigSet::empty();
    child_signal.add(Signal::SIGCHLD);
    child_signal.thread_block()?;

    let mut faults = mounts::mount_all(Path::new(mounts::TABLE));
    let refused = load_modules(&mut faults);
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

    let mut misbehaviour = None;
    loop {
        match channel.receive()? {
            Some(Request::Run(job)) => {
                job::run(&job, &child_signal, &mut channel, misbehaviour)?;
            }
            Some(Request::Misbehave(how)) => misbehaviour = Some(how),
            Some(Request::End) | None => break,
            Some(request) => answer(&request, &mut channel)?,
        }
    }
    if misbehaviour == Some(GuestFault::NoLastEvent) {
        return Ok(());
    }
    channel.send(&Event::End)?;
    channel.wait_for_host_to_close()
}

/// Answers what may be asked at any time.
fn answer(request: &Request, channel: &mut Channel) -> io::Result<()> {
    match request {
        Request::Ping => channel.send(&Event::Pong),
        Request::Tasks => {
            let (tasks, cut) = tasks::look();
            channel.send(&Event::Tasks { tasks, cut })
        }
        request => Err(io::Error::other(format!("the host sent {request:?} out of order"))),
    }
}

/// Keeps descriptor 3 taken, so that nothing this process opens is closed in a
/// job's child when its report goes there.
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

/// Loads the modules of the list and returns those that the kernel refused. What
/// cannot be read is a fault of the host's share, not of the module.
fn load_modules(faults: &mut Vec<String>) -> Vec<String> {
    let list = match fs::read_to_string(MODULES) {
        Ok(list) => list,
        Err(err) => {
            faults.push(format!("{MODULES}: {err}"));
            return Vec::new();
        }
    };
    let mut refused = Vec::new();
    for path in list.lines().filter(|line| !line.is_empty()) {
        // Not finit_module(): its error may be the share's as well.
        match fs::read(path) {
            Ok(image) => {
                if let Err(err) = init_module(&image, c"") {
                    refused.push(format!("{path}: {}", io::Error::from(err)));
                }
            }
            Err(err) => faults.push(format!("module {path}: {err}")),
        }
    }
    refused
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
