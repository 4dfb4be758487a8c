//! Tests that boot real machines: every trial of the default plans, and `exec`
//! as a user types it.
//!
//! Nothing is built to list them, and only what a test needs is built when it
//! runs. Trials that take minutes are ignored by default; `--include-ignored`
//! runs them too.

mod bench;
mod exec;
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
    tests.extend(bench::tests());
    libtest_mimic::run(&arguments, tests).exit_code()
}
