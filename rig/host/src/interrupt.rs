//! Handles the signals that ask the rig to stop.
//!
//! The handler only sets a flag. Each wait in the rig is short and calls
//! [`check`] between two waits, so an interrupted run unwinds like a failed one:
//! destructors kill the children and remove the temporary folders.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// The longest time that a wait in the rig goes without calling [`check`].
pub const POLL: Duration = Duration::from_millis(100);

static SEEN: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_: libc::c_int) {
    SEEN.store(true, Ordering::SeqCst);
}

/// Installs the handler for SIGINT, SIGTERM and SIGHUP.
///
/// A second signal of the same kind ends the process at once. The kernel then
/// kills the children (see `process`).
pub fn install() {
    // No SA_RESTART: a signal must interrupt system calls that wait.
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESETHAND, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only stores to an atomic.
        if let Err(err) = unsafe { sigaction(signal, &action) } {
            crate::ui::status(&format!("cannot handle {signal}: {err}"));
        }
    }
}

/// Returns an error if a signal has asked the rig to stop.
///
/// # Errors
/// [`Interrupted`], on each call after the signal.
pub fn check() -> Result<(), Interrupted> {
    if SEEN.load(Ordering::SeqCst) { Err(Interrupted) } else { Ok(()) }
}

/// The error after a signal that asked the rig to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}
