//! AF_NETLINK sockets, with one method per system call and its exact errno.
//!
//! No method retries a call, and none allocates unless its description says so.
//! This module has the socket and its addresses; [`transfer`] sends and
//! receives, [`option`](mod@option) sets and reads socket options.

pub mod option;
pub mod transfer;

use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::time::Duration;

use crate::error::Errno;
pub use transfer::Received;

/// The number of a multicast group, counted from 1; 0 is no group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(pub u32);

/// Groups 1 to 32 as the bit mask of an address: bit n is group n + 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct GroupMask(pub u32);

impl GroupMask {
    /// No group.
    pub const NONE: GroupMask = GroupMask(0);

    /// The mask with one group. None if the mask has no bit for it.
    pub const fn of(group: Group) -> Option<GroupMask> {
        match group.0 {
            1..=32 => Some(GroupMask(1 << (group.0 - 1))),
            _ => None,
        }
    }

    /// Whether the mask contains `group`.
    pub fn contains(self, group: Group) -> bool {
        GroupMask::of(group).is_some_and(|one| self.0 & one.0 != 0)
    }
}

/// A netlink address, struct sockaddr_nl. The default, all zeros, is the
/// kernel's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Address {
    /// The port; 0 is the kernel. In bind(), 0 lets the kernel choose a port.
    pub portid: u32,
    /// The groups. A message is sent to the first of them only.
    pub groups: GroupMask,
}

impl Address {
    /// The kernel's address.
    pub const KERNEL: Address = Address { portid: 0, groups: GroupMask::NONE };

    /// The address of a port, without a group.
    pub const fn port(portid: u32) -> Address {
        Address { portid, groups: GroupMask::NONE }
    }

    fn to_raw(self) -> libc::sockaddr_nl {
        let mut raw = zero_address();
        raw.nl_family = libc::AF_NETLINK as u16;
        raw.nl_pid = self.portid;
        raw.nl_groups = self.groups.0;
        raw
    }

    fn from_raw(raw: &libc::sockaddr_nl) -> Address {
        Address { portid: raw.nl_pid, groups: GroupMask(raw.nl_groups) }
    }
}

/// Length of an address, in bytes.
const ADDRESS_BYTES: libc::socklen_t = size_of::<libc::sockaddr_nl>() as libc::socklen_t;

fn zero_address() -> libc::sockaddr_nl {
    // SAFETY: sockaddr_nl is plain integers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}

/// An AF_NETLINK socket. Closed on drop;
/// [`into_raw_fd`](IntoRawFd::into_raw_fd) keeps it open.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
}

impl Socket {
    /// socket() of type SOCK_RAW with close-on-exec, for a NETLINK_* protocol.
    ///
    /// # Errors
    /// EPROTONOSUPPORT if the kernel does not have the protocol; EMFILE,
    /// ENFILE, ENOBUFS, ENOMEM.
    pub fn new(protocol: i32) -> Result<Socket, Errno> {
        Socket::with_type(libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol)
    }

    /// socket() with type `kind`, including SOCK_* flags.
    ///
    /// # Errors
    /// ESOCKTNOSUPPORT if the type is neither SOCK_RAW nor SOCK_DGRAM; see
    /// [`Socket::new`] for others.
    pub fn with_type(kind: i32, protocol: i32) -> Result<Socket, Errno> {
        // SAFETY: socket() takes no pointer.
        let fd = Errno::check(unsafe { libc::socket(libc::AF_NETLINK, kind, protocol) })?;
        // SAFETY: the descriptor is new and has no other owner.
        Ok(Socket { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// bind() to a port and to groups. Port 0 lets the kernel choose.
    ///
    /// # Errors
    /// EADDRINUSE if another socket has the port, EINVAL if this socket has
    /// another port, EPERM if the groups need a capability.
    pub fn bind(&self, portid: u32, groups: GroupMask) -> Result<(), Errno> {
        let address = Address { portid, groups }.to_raw();
        // SAFETY: the pointer and the length are those of `address`.
        let result = unsafe { libc::bind(self.raw(), (&raw const address).cast(), ADDRESS_BYTES) };
        Errno::check(result).map(|_| ())
    }

    /// connect(): sets the default destination. Binds an unbound socket to a
    /// port that the kernel chooses.
    ///
    /// # Errors
    /// EPERM for an address other than the kernel's, if the protocol does not
    /// let users send to each other; see [`Socket::bind`] for others.
    pub fn connect(&self, portid: u32, groups: GroupMask) -> Result<(), Errno> {
        let address = Address { portid, groups }.to_raw();
        // SAFETY: the pointer and the length are those of `address`.
        let result =
            unsafe { libc::connect(self.raw(), (&raw const address).cast(), ADDRESS_BYTES) };
        Errno::check(result).map(|_| ())
    }

    /// getsockname(): the port (0 before bind()) and groups 1 to 32.
    ///
    /// # Errors
    /// None known.
    pub fn address(&self) -> Result<Address, Errno> {
        let mut address = zero_address();
        let mut length = ADDRESS_BYTES;
        // SAFETY: the pointer is that of `address`, and `length` is its size.
        let result =
            unsafe { libc::getsockname(self.raw(), (&raw mut address).cast(), &mut length) };
        Errno::check(result).map(|_| Address::from_raw(&address))
    }

    /// poll() for `events` (POLL*), at most for `timeout`, rounded up to a
    /// millisecond; without a timeout if None. Returns the events, or 0 on
    /// timeout.
    ///
    /// # Errors
    /// EINTR, ENOMEM.
    pub fn poll(&self, events: i16, timeout: Option<Duration>) -> Result<i16, Errno> {
        let timeout = timeout.map_or(-1, |timeout| {
            i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
        });
        let mut poll = libc::pollfd { fd: self.raw(), events, revents: 0 };
        // SAFETY: `poll` is one pollfd and outlives the call.
        Errno::check(unsafe { libc::poll(&mut poll, 1, timeout) }).map(|_| poll.revents)
    }

    fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.raw()
    }
}

impl IntoRawFd for Socket {
    fn into_raw_fd(self) -> RawFd {
        self.fd.into_raw_fd()
    }
}

impl From<OwnedFd> for Socket {
    /// Adopts a descriptor. If it is not a netlink socket, the system calls
    /// fail.
    fn from(fd: OwnedFd) -> Socket {
        Socket { fd }
    }
}

impl From<Socket> for OwnedFd {
    fn from(socket: Socket) -> OwnedFd {
        socket.fd
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_a_number_and_a_mask_is_bits() {
        assert_eq!(GroupMask::of(Group(0)), None);
        assert_eq!(GroupMask::of(Group(1)), Some(GroupMask(1)));
        assert_eq!(GroupMask::of(Group(32)), Some(GroupMask(1 << 31)));
        assert_eq!(GroupMask::of(Group(33)), None);
        assert!(GroupMask(0b100).contains(Group(3)));
        assert!(!GroupMask(0b100).contains(Group(2)));
        assert!(!GroupMask(u32::MAX).contains(Group(33)));
    }

    #[test]
    fn an_address_is_laid_out_like_struct_sockaddr_nl() {
        let address = Address { portid: 7, groups: GroupMask(9) };
        assert_eq!(Address::from_raw(&address.to_raw()), address);
        assert_eq!(i32::from(address.to_raw().nl_family), libc::AF_NETLINK);
        assert_eq!(ADDRESS_BYTES, 12);
    }
}
