//! Boots a minimal Linux kernel under QEMU, runs commands in it, watches it, and
//! says how it ended.
//!
#![doc = concat!("```no_run\n", include_str!("../examples/uname.rs"), "```\n")]
//!
//! # How a guest lives
//!
//! 1. **Build.** `nlrig-build` compiles kernel and PID 1 once and keeps them in a
//!    cache; both come from data that the crates carry.
//! 2. **Accelerator.** [`VmLauncher::accel`] boots the very kernel under KVM before it
//!    trusts KVM, and falls back to TCG.
//! 3. **Room.** [`VmLauncher::room`] waits until the host has memory and cores for one
//!    more machine, beside all others of this user.
//! 4. **Boot.** [`VmLauncher::boot`] starts a daemon for each share and QEMU, and waits
//!    for PID 1's `ready`.
//! 5. **Jobs.** [`Guest::run`] sends a job to PID 1 and waits for its end, under the
//!    deadlines of [`Limits`]; events, console and output come through one poll.
//! 6. **End.** [`Guest::end`] asks PID 1 to end. Success must be stated: a machine that
//!    is gone without its last event is lost, whatever QEMU's exit status is.
//!
//! # How a guest dies
//!
//! Whatever goes wrong with the machine is a [`VmFailure`]: a [`Verdict`], a reason, and
//! the [`FaultDomain`] that caused it. A kernel that panics, oopses or warns is read from
//! its console; a guest that does not answer is asked by PID 1, then by a break on the
//! serial line, then interrupted by an NMI, and its tasks and call traces are kept. QEMU
//! and the daemons die with their owner, even after a `kill -9`.
//!
//! A share's daemon is the program that uses this crate, started again under another
//! name; a constructor takes it over before its `main`.

pub mod accel;
mod budget;
pub mod confine;
pub mod guest;
pub mod launcher;
pub mod outcome;
pub mod qemu;
pub mod share;
mod vm;

pub use accel::AccelMode;
pub use guest::{Guest, Limits};
pub use launcher::{VmLauncher, VmSpec};
pub use nlrig_build::{Abi, Arch};
pub use nlrig_init::protocol::{Exit, Job};
pub use outcome::{Error, FaultDomain, Result, Verdict, VmFailure};
pub use vm::{DEFAULT_FLAVOUR, DEFAULT_KERNEL, Ended, Outcome, Vm};

/// Parsers of a guest's output, for the fuzz targets alone. Not part of the interface.
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::guest::autopsy::{show, summary};
    pub use crate::guest::console::{Console, LINE_MAX_BYTES, TAIL_LINES};
    pub use crate::guest::events::Lines;
    pub use crate::guest::monitor::{Monitor, PROCESSORS_MAX};
}
