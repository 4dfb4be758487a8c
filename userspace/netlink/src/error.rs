//! The errno type and the parse error.

use std::fmt;

/// An error number of errno(3), positive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Errno(pub i32);

/// Builds a table of errnos from their names in libc.
macro_rules! names {
    ($($name:ident)*) => { [$((libc::$name, stringify!($name))),*] };
}

/// The errnos that netlink, its protocols and its socket calls return.
const NAMES: [(i32, &str); 51] = names! {
    EPERM ENOENT EINTR EIO ENXIO E2BIG EBADF EAGAIN ENOMEM EACCES EFAULT EBUSY EEXIST EXDEV
    ENODEV ENOTDIR EINVAL ENFILE EMFILE ENOTTY EFBIG ENOSPC EPIPE EDOM ERANGE ENAMETOOLONG ENOSYS
    ENOTEMPTY ENODATA EPROTO EBADMSG EOVERFLOW ENOTSOCK EDESTADDRREQ EMSGSIZE EPROTOTYPE
    ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT EAFNOSUPPORT EADDRINUSE
    EADDRNOTAVAIL ENETDOWN ENOBUFS EISCONN ENOTCONN ETIMEDOUT ECONNREFUSED EALREADY
};

/// The kernel-internal ENOTSUPP, which some protocols leak to user space.
const ENOTSUPP: i32 = 524;

impl Errno {
    /// The errno of this thread's last failed call.
    pub fn last() -> Errno {
        // SAFETY: __errno_location() returns this thread's own errno.
        Errno(unsafe { *libc::__errno_location() })
    }

    /// The symbolic name, such as `EADDRINUSE`, if the table has the number.
    pub fn name(self) -> Option<&'static str> {
        if self.0 == ENOTSUPP {
            return Some("ENOTSUPP");
        }
        NAMES.iter().find(|(number, _)| *number == self.0).map(|(_, name)| *name)
    }

    /// Turns a negative result of a system call into the thread's errno.
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

/// A malformed message or attribute. Offsets count from the start of the parsed
/// bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A message, attribute or header extends past the end of the bytes.
    Truncated {
        /// Byte offset of its start.
        at: usize,
        /// Its length in bytes, or that of its header.
        needs: usize,
        /// Bytes left.
        has: usize,
    },
    /// A length field is shorter than the header.
    BadLength {
        /// Byte offset of its start.
        at: usize,
        /// The length field's value.
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
    fn an_errno_displays_as_its_name_or_number() {
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
