//! The protocol between the host and PID 1 of a guest, and what both read of
//! `/proc`.
//!
//! PID 1 itself is this crate's program, `init`.

pub mod proc;
pub mod protocol;
