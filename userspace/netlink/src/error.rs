//! An errno, and what can be wrong with bytes.

use std::fmt;

/// An error number of errno(3), positive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Errno(pub i32);

/// A table of errnos from the names that libc has for them.
macro_rules! names {
    ($($name:ident)*) => { [$((libc::$name, stringify!($name))),*] };
}

/// What netlink, its protocols and the calls on its sockets answer with.
const NAMES: [(i32, &str); 51] = names! {
    EPERM ENOENT EINTR EIO ENXIO E2BIG EBADF EAGAIN ENOMEM EACCES EFAULT EBUSY EEXIST EXDEV
    ENODEV ENOTDIR EINVAL ENFILE EMFILE ENOTTY EFBIG ENOSPC EPIPE EDOM ERANGE ENAMETOOLONG ENOSYS
    ENOTEMPTY ENODATA EPROTO EBADMSG EOVERFLOW ENOTSOCK EDESTADDRREQ EMSGSIZE EPROTOTYPE
    ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT EAFNOSUPPORT EADDRINUSE
    EADDRNOTAVAIL ENETDOWN ENOBUFS EISCONN ENOTCONN ETIMEDOUT ECONNREFUSED EALREADY
};

/// The kernel's own ENOTSUPP, which user space should never see, and does.
const ENOTSUPP: i32 = 524;

impl Errno {
    /// The error of this thread's last call that failed.
    pub fn last() -> Errno {
        // SAFETY: errno belongs to this thread; reading it touches nothing else.
        Errno(unsafe { *libc::__errno_location() })
    }

    /// Its symbolic name, such as `EADDRINUSE`, if it is one that netlink gives.
    pub fn name(self) -> Option<&'static str> {
        if self.0 == ENOTSUPP {
            return Some("ENOTSUPP");
        }
        NAMES.iter().find(|(number, _)| *number == self.0).map(|(_, name)| *name)
    }

    /// What a call returned, or its error if that is negative.
    pub(crate) fn check<T: Copy + PartialOrd + Default>(result: T) -> Result<T, Errno> {
        if result < T::default() { Err(Errno::last()) } else { Ok(result) }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Errno {}

impl From<Errno> for std::io::Error {
    fn from(errno: Errno) -> std::io::Error {
        std::io::Error::from_raw_os_error(errno.0)
    }
}

/// Bytes are not the messages or the attributes they should be. Places count
/// from the beginning of what was to be taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Something ends before its end.
    Truncated {
        /// Where it begins, in bytes.
        at: usize,
        /// How long it says it is, or its header would be, in bytes.
        needs: usize,
        /// How many bytes there are.
        has: usize,
    },
    /// Something says that it is shorter than its own header.
    BadLength {
        /// Where it begins, in bytes.
        at: usize,
        /// How long it says it is, in bytes.
        length: usize,
    },
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::Truncated { at, needs, has } => {
                write!(f, "truncated at byte {at}: {needs} bytes needed, {has} left")
            }
            Malformed::BadLength { at, length } => {
                write!(f, "bad length at byte {at}: {length} bytes, less than the header")
            }
        }
    }
}

impl std::error::Error for Malformed {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_says_its_name_or_its_number() {
        assert_eq!(Errno(libc::EADDRINUSE).to_string(), "EADDRINUSE");
        assert_eq!(Errno(libc::EOPNOTSUPP).to_string(), "EOPNOTSUPP");
        assert_eq!(Errno(524).to_string(), "ENOTSUPP");
        assert_eq!(Errno(4095).to_string(), "errno 4095");
        assert_eq!(Errno(4095).name(), None);
    }

    #[test]
    fn no_errno_is_in_the_table_twice() {
        for (place, (number, name)) in NAMES.iter().enumerate() {
            assert_eq!(NAMES.iter().position(|other| other.0 == *number), Some(place), "{name}");
        }
    }
}
