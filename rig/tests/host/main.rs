//! Tests of the rig on its host, without a VM: builds that fail, are killed, run
//! concurrently or fill the disk, and missing programs.
//!
//! The tests build fake kernels (see [`fake`]), which takes milliseconds, in a
//! private cache. A test hides a program or device of the host with its own PATH,
//! or with mounts in its own namespace.

mod builds;
#[path = "../common/mod.rs"]
mod common;
mod exit_status;
mod fake;
mod leftovers;
mod missing;
