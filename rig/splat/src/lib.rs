//! Reads Linux console logs and finds the kernel's own fault reports in them.
//!
//! The crate does no I/O: a [`Reader`] takes the bytes of a console as they
//! come, in bounded memory, and keeps the most severe [`Splat`] so far. A splat
//! is the line that reports the fault, the [`SplatKind`] of fault, and the call
//! trace behind the line.
//!
//! ```
//! let log = b"[    5.1] BUG: kernel NULL pointer dereference, address: 00000000\n\
//!             [    5.1] Oops: 0002 [#1] PREEMPT SMP\n\
//!             [    5.1] RIP: 0010:demo_write+0x5/0x10 [demo]\n";
//! let splat = nlrig_splat::classify(log).expect("an oops");
//! assert_eq!(splat.severity(), nlrig_splat::Severity::Oops);
//! assert_eq!(splat.line, "BUG: kernel NULL pointer dereference, address: 00000000");
//! assert_eq!(splat.trace, ["demo_write+0x5/0x10 [demo]"]);
//! ```
//!
//! What a line must look like to count is data: [`KINDS`] has a pattern for
//! each printk() call that reports a fault, written as the kernel's format
//! string, with the source file of the call. A pattern matches from the first
//! character behind the line's prefixes (log level, time stamp, caller id,
//! syslog header). A program's words to /dev/kmsg that are spelt like a
//! kernel's report cannot be told from it, because the console does not show a
//! record's facility.
//!
//! [`Taint`] reads the mask in /proc/sys/kernel/tainted.

mod kinds;
mod line;
mod pattern;
mod reader;
mod table;
mod taint;
mod trace;

pub use kinds::{KINDS, Severity, SplatKind};
pub use line::text_of;
pub use reader::{LINE_MAX_BYTES, Reader, Splat, classify};
pub use taint::Taint;
pub use trace::TRACE_MAX_FRAMES;
