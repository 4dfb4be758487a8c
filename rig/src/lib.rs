//! nlrig: a test rig for netlink and kernel modules.
//!
//! The general machinery is in the crates below this one: `nlrig-vm` boots
//! guests and watches them, `nlrig-build` builds what they boot. Here are the
//! experiments, the reports and the command line. One trial flows one way:
//!
//! - **plan**: [`cli`] and [`options`] read the command line, [`experiment`]
//!   makes trials of it;
//! - **build**, **boot**, **observe**: `nlrig-build` and `nlrig-vm`;
//! - **judge**: [`experiment`] again, with [`limits`] for predictions;
//! - **report**: [`report`] writes and renders.
//!
//! [`static_check`] decides what needs no VM. [`run`] is that line from
//! end to end; [`command::exec`] is its short cut for one command, and [`bench`]
//! times the rig itself.

pub mod bench;
pub mod cli;
pub mod command;
pub mod data;
pub mod error;
pub mod experiment;
pub mod limits;
pub mod options;
pub mod project;
pub mod reference;
pub mod report;
pub mod run;
pub mod static_check;

pub use nlrig_build::{abi, artifact, kernel, toolchain};
pub use nlrig_host::{cache, interrupt, process, procfs, scratch, ui, units};
pub use nlrig_vm::{accel, confine, guest, launcher, outcome, qemu, share};
