//! Tests that boot real machines: every trial of the default plans and more of
//! `threads`, `exec` as a user types it, hosts where something is missing or
//! dies, and accelerators that do not work.
//!
//! Nothing is built to list them, and only what a test needs is built when it
//! runs. Trials that take minutes are ignored by default; `--include-ignored`
//! runs them too.

mod accel;
mod bench;
#[path = "../common/mod.rs"]
mod common;
mod exec;
mod host;
mod trials;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Two emulated machines on two cores starve each other's clocks.
    arguments.test_threads.get_or_insert(1);
    // These first: they build in this process, which says how far it is.
    let mut tests = trials::tests();
    tests.extend(exec::tests());
    tests.extend(host::tests());
    tests.extend(accel::tests());
    tests.extend(bench::tests());
    libtest_mimic::run(&arguments, tests).exit_code()
}
