//! Signals that ask the rig to stop.
//!
//! The handler only notes the signal. Every wait in the rig is short and asks
//! [`check`] in between, so that an interrupted run unwinds like a failed one:
//! owners drop, children die, temporary folders go.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// The longest that any wait in the rig goes without asking [`check`].
pub const POLL: Duration = Duration::from_millis(100);

static SEEN: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_: libc::c_int) {
    SEEN.store(true, Ordering::SeqCst);
}

/// Takes over SIGINT, SIGTERM and SIGHUP. The second one of a kind ends the
/// process at once; its children are told by the kernel (see `process`).
pub fn install() {
    // Without SA_RESTART, so that a wait in the kernel ends too.
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESETHAND, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only stores to an atomic.
        if let Err(err) = unsafe { sigaction(signal, &action) } {
            crate::ui::status(&format!("cannot handle {signal}: {err}"));
        }
    }
}

/// An error once a signal has asked the rig to stop.
///
/// # Errors
/// [`Interrupted`], from then on.
pub fn check() -> Result<(), Interrupted> {
    if SEEN.load(Ordering::SeqCst) { Err(Interrupted) } else { Ok(()) }
}

/// A signal asked the rig to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}
