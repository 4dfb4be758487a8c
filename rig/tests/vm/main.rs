//! Tests that boot real machines: every trial of the default plans and more of
//! `threads`, every control, `exec` as a user types it, guests that mean harm,
//! hosts where something is missing or dies, and accelerators that do not work.
//!
//! Nothing is built to list them, and only what a test needs is built when it
//! runs. Trials that take minutes are ignored by default; `--include-ignored`
//! runs them too.

mod accel;
mod bench;
mod catalogue;
#[path = "../common/mod.rs"]
mod common;
mod endurance;
mod exec;
mod exit_status;
mod host;
mod hostile;
mod package;
mod trials;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Machines wait for memory and cores anyway; more threads than machines
    // would only wait.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    arguments.test_threads.get_or_insert((cores / 2).max(1));
    // These first: they build in this process, which says how far it is.
    let mut tests = trials::tests();
    tests.extend(exec::tests());
    tests.extend(exit_status::tests());
    tests.extend(hostile::tests());
    tests.extend(host::tests());
    tests.extend(accel::tests());
    tests.extend(bench::tests());
    tests.extend(endurance::tests());
    tests.extend(catalogue::tests());
    tests.extend(package::tests());
    libtest_mimic::run(&arguments, tests).exit_code()
}
