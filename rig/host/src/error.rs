//! The error type of the library crates: a kind to match on, and a chain of
//! messages from the outermost step to the root cause.

use std::error::Error as StdError;
use std::fmt;

use crate::interrupt::Interrupted;

/// A result whose error is an [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kind of an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A signal asked the process to stop.
    Interrupted,
    /// An argument names something that does not exist, or arguments conflict.
    Usage,
    /// The kernel did not build, or its configuration did not resolve.
    KernelBuild,
    /// A command failed for a reason that is not the host's.
    CommandFailed,
    /// A kernel module did not compile.
    ModuleBuild,
    /// Anything else: a missing tool, a full disk, a damaged file.
    Host,
}

/// An error: its kind, the step that failed, and the cause.
///
/// `{}` prints the outermost message, `{:#}` the whole chain on one line.
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync + 'static>>,
}

impl Error {
    /// Makes an error of the kind [`ErrorKind::Host`].
    pub fn new(message: impl Into<String>) -> Error {
        Error { kind: ErrorKind::Host, message: message.into(), source: None }
    }

    /// Makes an error of the kind [`ErrorKind::Usage`].
    pub fn usage(message: impl Into<String>) -> Error {
        Error::new(message).with_kind(ErrorKind::Usage)
    }

    /// Changes the kind, unless the error is an interruption.
    pub fn with_kind(mut self, kind: ErrorKind) -> Error {
        if self.kind != ErrorKind::Interrupted {
            self.kind = kind;
        }
        self
    }

    /// Adds a message for the enclosing step; the kind stays.
    pub fn context(self, message: impl Into<String>) -> Error {
        Error { kind: self.kind, message: message.into(), source: Some(Box::new(self)) }
    }

    /// Returns the kind.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns whether a signal asked the process to stop.
    pub fn is_interruption(&self) -> bool {
        self.kind == ErrorKind::Interrupted
    }

    /// Returns the kind of I/O error, if the root cause is one.
    pub fn io_kind(&self) -> Option<std::io::ErrorKind> {
        let mut cause: &(dyn StdError + 'static) = self;
        while let Some(next) = cause.source() {
            cause = next;
        }
        cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind)
    }

    fn wrapping(err: impl StdError + Send + Sync + 'static) -> Error {
        Error {
            kind: ErrorKind::Host,
            message: err.to_string(),
            source: Some(Box::new(Cause(err))),
        }
    }
}

/// An error of another crate, whose message its wrapper already has.
///
/// Printing a chain skips the duplicate; a search for the root cause finds the
/// error.
#[derive(Debug)]
struct Cause<E>(E);

impl<E: fmt::Display> fmt::Display for Cause<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<E: StdError + 'static> StdError for Cause<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.0)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if f.alternate() {
            let mut shown = self.message.clone();
            let mut cause = self.source();
            while let Some(next) = cause {
                let text = next.to_string();
                // A wrapper and the error in it have the same message.
                if text != shown {
                    write!(f, ": {text}")?;
                    shown = text;
                }
                cause = next.source();
            }
        }
        Ok(())
    }
}

/// Prints the whole chain, for `unwrap` and a failing `main`.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:#}")
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<tempfile::PersistError> for Error {
    fn from(err: tempfile::PersistError) -> Error {
        err.error.into()
    }
}

impl From<Interrupted> for Error {
    fn from(_: Interrupted) -> Error {
        Error { kind: ErrorKind::Interrupted, message: "interrupted".to_string(), source: None }
    }
}

macro_rules! from {
    ($($kind:ty),*) => {
        $(impl From<$kind> for Error {
            fn from(err: $kind) -> Error {
                Error::wrapping(err)
            }
        })*
    };
}

from!(
    std::io::Error,
    nix::errno::Errno,
    serde_json::Error,
    toml::de::Error,
    xshell::Error,
    std::fs::TryLockError
);

/// Adds the failed step to an error.
pub trait Context<T> {
    /// Adds a message to an error, or makes `None` an error with this message.
    ///
    /// # Errors
    /// `self` is an error or `None`.
    fn context(self, message: impl Into<String>) -> Result<T>;

    /// Like [`Context::context`], but formats the message only for an error.
    ///
    /// # Errors
    /// `self` is an error or `None`.
    fn with_context<S: Into<String>>(self, message: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for Result<T, E> {
    fn context(self, message: impl Into<String>) -> Result<T> {
        self.map_err(|err| err.into().context(message))
    }

    fn with_context<S: Into<String>>(self, message: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|err| err.into().context(message()))
    }
}

impl<T> Context<T> for Option<T> {
    fn context(self, message: impl Into<String>) -> Result<T> {
        self.ok_or_else(|| Error::new(message))
    }

    fn with_context<S: Into<String>>(self, message: impl FnOnce() -> S) -> Result<T> {
        self.ok_or_else(|| Error::new(message()))
    }
}

/// Returns an [`Error`] with a formatted message.
#[macro_export]
macro_rules! bail {
    ($($arg:tt)*) => { return ::std::result::Result::Err($crate::Error::new(format!($($arg)*)).into()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_names_each_cause_once_and_keeps_its_kind() {
        let io = std::io::Error::from(std::io::ErrorKind::NotFound);
        let err = Err::<(), _>(io).context("cannot read x").context("building y").unwrap_err();
        assert_eq!(format!("{err:#}"), "building y: cannot read x: entity not found");
        assert_eq!(err.to_string(), "building y");
        assert_eq!(err.io_kind(), Some(std::io::ErrorKind::NotFound));
        let wrapped = Err::<(), _>(Interrupted).context("building the kernel").unwrap_err();
        assert!(wrapped.is_interruption());
        assert!(wrapped.with_kind(ErrorKind::KernelBuild).is_interruption());
    }
}
