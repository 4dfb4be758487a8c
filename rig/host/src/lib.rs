//! Host support for a test rig.
//!
//! - [`process`]: child processes that never outlive their owner;
//! - [`procfs`]: facts from /proc;
//! - [`cache`]: a content-addressed cache of build results;
//! - [`scratch`]: temporary folders, removed even after a `kill -9`;
//! - [`interrupt`]: SIGINT, SIGTERM and SIGHUP unwind a run like an error;
//! - [`ui`]: messages and progress on standard error, results on standard output;
//! - [`units`]: sizes with units, `64K` or `2M`;
//! - [`Error`]: the error type, with an [`ErrorKind`] to match on.
//!
//! This crate does not know virtual machines.

pub mod cache;
mod error;
pub mod interrupt;
pub mod process;
pub mod procfs;
pub mod scratch;
pub mod ui;
pub mod units;

pub use error::{Context, Error, ErrorKind, Result};
