//! Exit statuses, and which error leads to which.

use nlrig_host::ErrorKind;
use nlrig_host::interrupt::Interrupted;
use nlrig_vm::VmFailure;

/// Everything came out as expected.
pub const OK: u8 = 0;
/// A trial failed.
pub const TRIAL_FAILED: u8 = 1;
/// The command line asks for something that does not exist.
pub const USAGE: u8 = 2;
/// `exec`: the guest kernel reported a fault, hung, or reset itself.
pub const GUEST_FAULT: u8 = 99;
/// `exec`: the command exceeded `--timeout`. The number that timeout(1) uses.
pub const TIMED_OUT: u8 = 124;
/// The rig itself could not do its work. The number that env(1) and timeout(1)
/// use.
pub const RIG: u8 = 125;
/// `exec --bisect`: the revision cannot be tested. `git bisect run` skips it.
pub const BISECT_SKIP: u8 = 125;
/// `exec --bisect`: nothing can be tested. `git bisect run` stops.
pub const BISECT_ABORT: u8 = 128;
/// A signal ended the run.
pub const INTERRUPTED: u8 = 130;

/// A usage error as an [`anyhow::Error`], with a formatted text.
#[macro_export]
macro_rules! usage {
    ($($arg:tt)*) => { ::anyhow::Error::from(::nlrig_host::Error::usage(format!($($arg)*))) };
}

/// The library's error behind this one, if it has one.
fn of_host(err: &anyhow::Error) -> Option<&nlrig_host::Error> {
    if let Some(nlrig_vm::Error::Host(err)) = err.downcast_ref() {
        return Some(err);
    }
    err.downcast_ref()
}

/// What kind of error it is, if a library crate said so.
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

/// The machine's failure, if the error is one.
///
/// # Errors
/// The error itself, if it is another's.
pub fn into_vm_failure(err: anyhow::Error) -> anyhow::Result<VmFailure> {
    match err.downcast::<nlrig_vm::Error>() {
        Ok(err) => Ok(err.into_vm_failure()?),
        Err(err) => err.downcast::<VmFailure>(),
    }
}

/// Whether a machine failed.
pub fn is_vm_failure(err: &anyhow::Error) -> bool {
    err.is::<VmFailure>()
        || err.downcast_ref::<nlrig_vm::Error>().is_some_and(|err| err.vm_failure().is_some())
}

/// The exit status that goes with an error.
pub fn status(err: &anyhow::Error) -> u8 {
    match kind(err) {
        Some(ErrorKind::Interrupted) => INTERRUPTED,
        Some(ErrorKind::Usage) => USAGE,
        _ => RIG,
    }
}

/// The exit status that goes with an error of `exec --bisect`, as `git bisect
/// run` understands it.
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
    fn a_bisection_skips_a_kernel_that_does_not_build_and_stops_at_all_else() {
        let broken = nlrig_host::Error::new("expected ';'").with_kind(ErrorKind::KernelBuild);
        let broken = anyhow::Error::from(broken).context("kernel 6.1");
        assert_eq!((status(&broken), bisect_status(&broken)), (RIG, BISECT_SKIP));
        assert_eq!(bisect_status(&usage!("no such ABI: {}", "arm")), BISECT_ABORT);
        assert_eq!(bisect_status(&anyhow::anyhow!("disk full")), BISECT_ABORT);
        assert_eq!(bisect_status(&Interrupted.into()), INTERRUPTED);
    }
}
