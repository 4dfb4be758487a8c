//! Exit statuses, and the few errors that decide which one it is.

use std::fmt;

/// Everything came out as expected.
pub const OK: u8 = 0;
/// A trial failed.
pub const TRIAL_FAILED: u8 = 1;
/// The command line asks for something that does not exist.
pub const USAGE: u8 = 2;
/// The rig itself could not do its work. The number that env(1) and timeout(1)
/// use, and that `git bisect run` skips.
pub const RIG: u8 = 125;
/// A signal ended the run.
pub const INTERRUPTED: u8 = 130;

/// What was asked for does not exist or does not fit together.
#[derive(Debug)]
pub struct Usage(pub String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// A signal asked the rig to stop.
#[derive(Debug)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// A usage error as an [`anyhow::Error`], with a formatted text.
#[macro_export]
macro_rules! usage {
    ($($arg:tt)*) => { ::anyhow::Error::from($crate::error::Usage(format!($($arg)*))) };
}

/// The exit status that goes with an error.
pub fn status(err: &anyhow::Error) -> u8 {
    if err.is::<Interrupted>() {
        INTERRUPTED
    } else if err.is::<Usage>() {
        USAGE
    } else {
        RIG
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
        assert_eq!(status(&usage!("no such ABI: {}", "arm")), USAGE);
        assert_eq!(status(&anyhow::anyhow!("disk full")), RIG);
    }
}
