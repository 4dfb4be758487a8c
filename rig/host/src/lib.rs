//! What a test rig needs of the host it runs on.
//!
//! - [`process`]: children that never outlive their owner, and [`procfs`];
//! - [`cache`]: build results, found again by the hash of their inputs;
//! - [`scratch`]: temporary folders, removed even after a `kill -9`;
//! - [`interrupt`]: SIGINT and its kin unwind a run like an error;
//! - [`ui`]: messages and progress on standard error, results on standard output;
//! - [`units`]: sizes as people write them;
//! - [`Error`]: what can go wrong, by [`ErrorKind`].
//!
//! Nothing here knows of virtual machines.

pub mod cache;
mod error;
pub mod interrupt;
pub mod process;
pub mod procfs;
pub mod scratch;
pub mod ui;
pub mod units;

pub use error::{Context, Error, ErrorKind, Result};
