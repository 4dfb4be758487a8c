//! The exit statuses, and the mapping from errors to them.

use nlrig_host::ErrorKind;
use nlrig_host::interrupt::Interrupted;
use nlrig_vm::VmFailure;

/// Success; for `run`, all trials passed.
pub const OK: u8 = 0;
/// A trial failed.
pub const TRIAL_FAILED: u8 = 1;
/// A usage error.
pub const USAGE: u8 = 2;
/// `exec`: the guest kernel reported a fault, hung, or reset itself.
pub const GUEST_FAULT: u8 = 99;
/// `exec`: the command exceeded `--timeout`. timeout(1) uses the same status.
pub const TIMED_OUT: u8 = 124;
/// The rig could not do its work. env(1) and timeout(1) use the same status.
pub const RIG: u8 = 125;
/// `exec --bisect`: the revision cannot be tested. `git bisect run` skips it.
pub const BISECT_SKIP: u8 = 125;
/// `exec --bisect`: nothing can be tested. `git bisect run` stops.
pub const BISECT_ABORT: u8 = 128;
/// A signal ended the run.
pub const INTERRUPTED: u8 = 130;

/// Makes a usage error with a formatted message, as an [`anyhow::Error`].
#[macro_export]
macro_rules! usage {
    ($($arg:tt)*) => { ::anyhow::Error::from(::nlrig_host::Error::usage(format!($($arg)*))) };
}

/// Returns the error of a library crate in an [`anyhow::Error`], if there is one.
fn of_host(err: &anyhow::Error) -> Option<&nlrig_host::Error> {
    if let Some(nlrig_vm::Error::Host(err)) = err.downcast_ref() {
        return Some(err);
    }
    err.downcast_ref()
}

/// Returns the kind of an error of a library crate.
pub fn kind(err: &anyhow::Error) -> Option<ErrorKind> {
    if err.is::<Interrupted>() {
        return Some(ErrorKind::Interrupted);
    }
    of_host(err).map(nlrig_host::Error::kind)
}

/// Whether a signal asked the rig to stop.
pub fn is_interruption(err: &anyhow::Error) -> bool {
    kind(err) == Some(ErrorKind::Interrupted)
}

/// Converts an error into the VM's failure.
///
/// # Errors
/// The error itself, if it is not a VM's failure.
pub fn into_vm_failure(err: anyhow::Error) -> anyhow::Result<VmFailure> {
    match err.downcast::<nlrig_vm::Error>() {
        Ok(err) => Ok(err.into_vm_failure()?),
        Err(err) => err.downcast::<VmFailure>(),
    }
}

/// Whether an error is a VM's failure.
pub fn is_vm_failure(err: &anyhow::Error) -> bool {
    err.is::<VmFailure>()
        || err.downcast_ref::<nlrig_vm::Error>().is_some_and(|err| err.vm_failure().is_some())
}

/// Returns the exit status for an error.
pub fn status(err: &anyhow::Error) -> u8 {
    match kind(err) {
        Some(ErrorKind::Interrupted) => INTERRUPTED,
        Some(ErrorKind::Usage) => USAGE,
        _ => RIG,
    }
}

/// Returns the exit status for an error of `exec --bisect`, as `git bisect run`
/// expects.
pub fn bisect_status(err: &anyhow::Error) -> u8 {
    match kind(err) {
        Some(ErrorKind::Interrupted) => INTERRUPTED,
        Some(ErrorKind::KernelBuild) => BISECT_SKIP,
        _ => BISECT_ABORT,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn context_does_not_hide_the_status() {
        let wrapped = || Err::<(), _>(Interrupted).context("building the kernel");
        assert_eq!(status(&wrapped().unwrap_err()), INTERRUPTED);
        let of_library = anyhow::Error::from(nlrig_host::Error::from(Interrupted));
        assert_eq!(status(&of_library.context("building")), INTERRUPTED);
        let of_guest = anyhow::Error::from(nlrig_vm::Error::from(Interrupted));
        assert_eq!(status(&of_guest.context("booting")), INTERRUPTED);
        assert_eq!(status(&usage!("no such ABI: {}", "arm")), USAGE);
        assert_eq!(status(&anyhow::anyhow!("disk full")), RIG);
    }

    #[test]
    fn a_bisection_skips_a_kernel_that_does_not_build_and_stops_on_other_errors() {
        let broken = nlrig_host::Error::new("expected ';'").with_kind(ErrorKind::KernelBuild);
        let broken = anyhow::Error::from(broken).context("kernel 6.1");
        assert_eq!((status(&broken), bisect_status(&broken)), (RIG, BISECT_SKIP));
        assert_eq!(bisect_status(&usage!("no such ABI: {}", "arm")), BISECT_ABORT);
        assert_eq!(bisect_status(&anyhow::anyhow!("disk full")), BISECT_ABORT);
        assert_eq!(bisect_status(&Interrupted.into()), INTERRUPTED);
    }
}
