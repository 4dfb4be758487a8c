//! The rig and its host, without a machine: builds that fail, are killed, meet
//! or find their disk full, and programs that are not there.
//!
//! What is built here are kernels that are none (see [`fake`]), in a moment and
//! in a cache of the test's own. What the host must lack for a test is hidden
//! from it: by a PATH of its own, or by mounts in a namespace of its own.

mod builds;
#[path = "../common/mod.rs"]
mod common;
mod exit_status;
mod fake;
mod leftovers;
mod missing;
