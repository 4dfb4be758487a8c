//! Socket options: setsockopt(), getsockopt(), and methods for netlink's
//! options.

use std::mem::size_of;
use std::time::Duration;

use super::{Group, Socket};
use crate::error::Errno;

impl Socket {
    /// setsockopt() with the bytes of `value`.
    ///
    /// # Errors
    /// ENOPROTOOPT if the option does not exist, EINVAL if the length or the
    /// value is invalid, EPERM. Netlink's own options read a value shorter than
    /// an int as 0.
    pub fn set_option_bytes(&self, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        let length = value.len() as libc::socklen_t;
        // SAFETY: the pointer and the length are those of `value`.
        let result =
            unsafe { libc::setsockopt(self.raw(), level, name, value.as_ptr().cast(), length) };
        Errno::check(result).map(|_| ())
    }

    /// getsockopt() into `value`. Returns the length that the kernel reports,
    /// which may exceed the buffer.
    ///
    /// # Errors
    /// See [`Socket::set_option_bytes`].
    pub fn option_bytes(&self, level: i32, name: i32, value: &mut [u8]) -> Result<usize, Errno> {
        let mut length = value.len() as libc::socklen_t;
        // SAFETY: the pointer and the length are those of `value`.
        let result = unsafe {
            libc::getsockopt(self.raw(), level, name, value.as_mut_ptr().cast(), &mut length)
        };
        Errno::check(result).map(|_| length as usize)
    }

    /// setsockopt() with an int.
    ///
    /// # Errors
    /// See [`Socket::set_option_bytes`].
    pub fn set_option(&self, level: i32, name: i32, value: i32) -> Result<(), Errno> {
        self.set_option_bytes(level, name, &value.to_ne_bytes())
    }

    /// getsockopt() of an int.
    ///
    /// # Errors
    /// See [`Socket::set_option_bytes`].
    pub fn option(&self, level: i32, name: i32) -> Result<i32, Errno> {
        let mut value = [0; size_of::<i32>()];
        self.option_bytes(level, name, &mut value)?;
        Ok(i32::from_ne_bytes(value))
    }

    /// Joins a group by number: NETLINK_ADD_MEMBERSHIP.
    ///
    /// # Errors
    /// EINVAL if the protocol has no such group, EPERM.
    pub fn join(&self, group: Group) -> Result<(), Errno> {
        self.set_option(libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, group.0 as i32)
    }

    /// Leaves a group by number: NETLINK_DROP_MEMBERSHIP.
    ///
    /// # Errors
    /// See [`Socket::join`].
    pub fn leave(&self, group: Group) -> Result<(), Errno> {
        self.set_option(libc::SOL_NETLINK, libc::NETLINK_DROP_MEMBERSHIP, group.0 as i32)
    }

    /// The groups that the socket has joined, in ascending order:
    /// NETLINK_LIST_MEMBERSHIPS. Allocates.
    ///
    /// # Errors
    /// None known since Linux 4.2, which added the option.
    pub fn memberships(&self) -> Result<Vec<Group>, Errno> {
        const WORD_BYTES: usize = size_of::<u32>();
        let mut bytes = vec![0; 64];
        let length = loop {
            let length =
                self.option_bytes(libc::SOL_NETLINK, libc::NETLINK_LIST_MEMBERSHIPS, &mut bytes)?;
            if length <= bytes.len() {
                break length;
            }
            bytes.resize(length, 0);
        };
        let mut groups = Vec::new();
        for (place, word) in bytes[..length].chunks_exact(WORD_BYTES).enumerate() {
            let word = u32::from_ne_bytes([word[0], word[1], word[2], word[3]]);
            let set = (0..u32::BITS).filter(|bit| word >> bit & 1 != 0);
            groups.extend(set.map(|bit| Group(place as u32 * u32::BITS + bit + 1)));
        }
        Ok(groups)
    }

    /// Enables extended acknowledgements: NETLINK_EXT_ACK.
    ///
    /// # Errors
    /// ENOPROTOOPT before Linux 4.12.
    pub fn set_extended_acks(&self, on: bool) -> Result<(), Errno> {
        self.set_bool_option(libc::NETLINK_EXT_ACK, on)
    }

    /// Omits the request's body from error acknowledgements: NETLINK_CAP_ACK.
    ///
    /// # Errors
    /// ENOPROTOOPT before Linux 4.3.
    pub fn set_capped_acks(&self, on: bool) -> Result<(), Errno> {
        self.set_bool_option(libc::NETLINK_CAP_ACK, on)
    }

    /// Suppresses ENOBUFS from recv() after dropped messages:
    /// NETLINK_NO_ENOBUFS.
    ///
    /// # Errors
    /// None known.
    pub fn set_no_enobufs(&self, on: bool) -> Result<(), Errno> {
        self.set_bool_option(libc::NETLINK_NO_ENOBUFS, on)
    }

    /// Reports messages dropped by this socket to the sender of a multicast:
    /// NETLINK_BROADCAST_ERROR.
    ///
    /// # Errors
    /// None known.
    pub fn set_broadcast_error(&self, on: bool) -> Result<(), Errno> {
        self.set_bool_option(libc::NETLINK_BROADCAST_ERROR, on)
    }

    /// Enables strict checks of get requests: NETLINK_GET_STRICT_CHK.
    ///
    /// # Errors
    /// ENOPROTOOPT before Linux 4.20.
    pub fn set_strict_check(&self, on: bool) -> Result<(), Errno> {
        self.set_bool_option(libc::NETLINK_GET_STRICT_CHK, on)
    }

    /// Makes [`recv_message`](Socket::recv_message) return the destination
    /// group: NETLINK_PKTINFO.
    ///
    /// # Errors
    /// None known.
    pub fn set_packet_info(&self, on: bool) -> Result<(), Errno> {
        self.set_bool_option(libc::NETLINK_PKTINFO, on)
    }

    /// Sets the receive buffer size in bytes: SO_RCVBUF. The kernel doubles the
    /// value and limits it to net.core.rmem_max and its own minimum.
    ///
    /// # Errors
    /// None known.
    pub fn set_receive_buffer(&self, bytes: i32) -> Result<(), Errno> {
        self.set_option(libc::SOL_SOCKET, libc::SO_RCVBUF, bytes)
    }

    /// The receive buffer size in bytes, as doubled by the kernel.
    ///
    /// # Errors
    /// None known.
    pub fn receive_buffer(&self) -> Result<i32, Errno> {
        self.option(libc::SOL_SOCKET, libc::SO_RCVBUF)
    }

    /// Sets the send buffer size in bytes: SO_SNDBUF. Like
    /// [`Socket::set_receive_buffer`], but limited by net.core.wmem_max.
    ///
    /// # Errors
    /// None known.
    pub fn set_send_buffer(&self, bytes: i32) -> Result<(), Errno> {
        self.set_option(libc::SOL_SOCKET, libc::SO_SNDBUF, bytes)
    }

    /// The send buffer size in bytes, as doubled by the kernel.
    ///
    /// # Errors
    /// None known.
    pub fn send_buffer(&self) -> Result<i32, Errno> {
        self.option(libc::SOL_SOCKET, libc::SO_SNDBUF)
    }

    /// Sets SO_REUSEADDR, which netlink accepts and ignores.
    ///
    /// # Errors
    /// None known.
    pub fn set_reuse_address(&self, on: bool) -> Result<(), Errno> {
        self.set_option(libc::SOL_SOCKET, libc::SO_REUSEADDR, i32::from(on))
    }

    /// Sets the time a receive blocks before EAGAIN, unlimited if None:
    /// SO_RCVTIMEO.
    ///
    /// # Errors
    /// None known.
    pub fn set_receive_timeout(&self, timeout: Option<Duration>) -> Result<(), Errno> {
        self.set_timeout(libc::SO_RCVTIMEO, timeout)
    }

    /// Sets the time a send blocks before EAGAIN, unlimited if None:
    /// SO_SNDTIMEO.
    ///
    /// # Errors
    /// None known.
    pub fn set_send_timeout(&self, timeout: Option<Duration>) -> Result<(), Errno> {
        self.set_timeout(libc::SO_SNDTIMEO, timeout)
    }

    fn set_bool_option(&self, name: i32, on: bool) -> Result<(), Errno> {
        self.set_option(libc::SOL_NETLINK, name, i32::from(on))
    }

    fn set_timeout(&self, name: i32, timeout: Option<Duration>) -> Result<(), Errno> {
        // The kernel takes zero for no timeout, so a zero duration becomes 1
        // us.
        let timeout = timeout.map_or(Duration::ZERO, |time| time.max(Duration::from_micros(1)));
        let timeout = libc::timeval {
            tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_usec: timeout.subsec_micros() as libc::suseconds_t,
        };
        let length = size_of::<libc::timeval>() as libc::socklen_t;
        // SAFETY: the pointer and the length are those of `timeout`.
        let result = unsafe {
            libc::setsockopt(
                self.raw(),
                libc::SOL_SOCKET,
                name,
                (&raw const timeout).cast(),
                length,
            )
        };
        Errno::check(result).map(|_| ())
    }
}
