//! Tests that boot VMs: all trials of the default plans and more of `threads`, all
//! controls, `exec`, hostile guests, unusual hosts, and accelerators that do not work.
//!
//! Listing the tests builds nothing; a test builds only the parts that it needs.
//! Trials that take minutes are ignored by default; `--include-ignored` runs them.

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
mod kernels;
mod modules;
mod package;
mod trials;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // VMs wait for memory and cores, so more threads than VMs would only wait.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    arguments.test_threads.get_or_insert((cores / 2).max(1));
    // Trials first: they build in this process, which shows the progress.
    let mut tests = trials::tests();
    tests.extend(exec::tests());
    tests.extend(exit_status::tests());
    tests.extend(hostile::tests());
    tests.extend(host::tests());
    tests.extend(accel::tests());
    tests.extend(bench::tests());
    tests.extend(endurance::tests());
    tests.extend(catalogue::tests());
    tests.extend(kernels::tests());
    tests.extend(modules::tests());
    tests.extend(package::tests());
    libtest_mimic::run(&arguments, tests).exit_code()
}
