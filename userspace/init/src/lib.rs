//! The protocol between the host and PID 1 of a guest, and the `/proc` parsers
//! that both use.
//!
//! PID 1 itself is the binary `init` of this crate.

pub mod proc;
pub mod protocol;
