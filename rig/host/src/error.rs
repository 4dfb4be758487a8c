//! The errors of the library crates: a kind to match on, and messages for a
//! person, from the outermost step to the first cause.

use std::error::Error as StdError;
use std::fmt;

use crate::interrupt::Interrupted;

/// The result of whatever may fail with an [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of error it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A signal asked the process to stop.
    Interrupted,
    /// The caller named something that does not exist or does not fit together.
    Usage,
    /// The kernel's own build failed, or its configuration did not resolve.
    KernelBuild,
    /// A command ran to its end without success, and the host is not to blame.
    CommandFailed,
    /// A kernel module did not compile.
    ModuleBuild,
    /// Anything else: a missing tool, a full disk, a damaged file.
    Host,
}

/// An error: its kind, what was being done, and why it failed.
///
/// `{}` prints the outermost message, `{:#}` the whole chain on one line.
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync + 'static>>,
}

impl Error {
    /// An error of the kind [`ErrorKind::Host`].
    pub fn new(message: impl Into<String>) -> Error {
        Error { kind: ErrorKind::Host, message: message.into(), source: None }
    }

    /// An error of the kind [`ErrorKind::Usage`].
    pub fn usage(message: impl Into<String>) -> Error {
        Error::new(message).with_kind(ErrorKind::Usage)
    }

    /// The same error as another kind. An interruption stays one.
    pub fn with_kind(mut self, kind: ErrorKind) -> Error {
        if self.kind != ErrorKind::Interrupted {
            self.kind = kind;
        }
        self
    }

    /// The same error inside of a larger step; the kind stays.
    pub fn context(self, message: impl Into<String>) -> Error {
        Error { kind: self.kind, message: message.into(), source: Some(Box::new(self)) }
    }

    /// What kind of error it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether a signal asked the process to stop.
    pub fn is_interruption(&self) -> bool {
        self.kind == ErrorKind::Interrupted
    }

    /// The I/O error behind it, if that is its first cause.
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

/// A foreign error whose message its wrapper shows already: it is skipped when
/// a chain is printed, and found when a cause is looked for.
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
                // A wrapper and what it wraps read alike.
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

/// As `unwrap` and a failing `main` show it: the whole chain.
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

/// Says what was being done when something failed.
pub trait Context<T> {
    /// An error with this message, and the cause behind it.
    ///
    /// # Errors
    /// If `self` is one, or none.
    fn context(self, message: impl Into<String>) -> Result<T>;

    /// The same with a message that is made only when it is needed.
    ///
    /// # Errors
    /// If `self` is one, or none.
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
