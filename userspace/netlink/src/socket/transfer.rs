//! Sending and receiving. `flags` are the MSG_* flags of the system calls.

use std::mem::{size_of, zeroed};

use super::{ADDRESS_BYTES, Address, Group, Socket, zero_address};
use crate::error::Errno;

/// A received datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes in the buffer. With MSG_TRUNC, the length of the datagram, which
    /// may exceed the buffer.
    pub length: usize,
    /// The sender.
    pub from: Address,
    /// msg_flags: MSG_TRUNC if the datagram was longer than the buffer. 0 for
    /// calls that do not return flags.
    pub flags: i32,
    /// The destination group; 0 for unicast. Set only by
    /// [`recv_message`](Socket::recv_message) after
    /// [`set_packet_info`](Socket::set_packet_info).
    pub group: Option<Group>,
}

/// A buffer for netlink's control messages: NETLINK_PKTINFO (4 bytes),
/// NETLINK_LISTEN_ALL_NSID (4) and SCM_CREDENTIALS (12), each with a header.
#[repr(C, align(8))]
struct Control([u8; 128]);

/// A message header with one buffer and no address or control data.
fn header(iov: &mut libc::iovec) -> libc::msghdr {
    // SAFETY: msghdr consists of integers and pointers, for which zero is
    // valid.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_iov = iov;
    header.msg_iovlen = 1;
    header
}

impl Socket {
    /// send() to the connected address, by default the kernel. Returns the
    /// bytes sent. Binds an unbound socket to a port that the kernel chooses.
    ///
    /// # Errors
    /// ECONNREFUSED if no socket has the port, EMSGSIZE if `bytes` exceeds the
    /// send buffer, ENODATA if it is empty, ENOBUFS, EAGAIN.
    pub fn send(&self, bytes: &[u8], flags: i32) -> Result<usize, Errno> {
        // SAFETY: the pointer and the length are those of `bytes`.
        let sent = unsafe { libc::send(self.raw(), bytes.as_ptr().cast(), bytes.len(), flags) };
        Errno::check(sent).map(|sent| sent as usize)
    }

    /// sendto(): like [`Socket::send`], but to an address.
    ///
    /// The kernel sends first to the group, if there is one, and then to the
    /// port, even if that is port 0. The result is that of the port, so after
    /// ECONNREFUSED the group may still have the message.
    ///
    /// # Errors
    /// EPERM for an address other than the kernel's, if the protocol does not
    /// let users send to each other; see [`Socket::send`] for others.
    pub fn send_to(&self, bytes: &[u8], to: Address, flags: i32) -> Result<usize, Errno> {
        let to = to.to_raw();
        // SAFETY: the pointers and the lengths are those of `bytes` and `to`.
        let sent = unsafe {
            libc::sendto(
                self.raw(),
                bytes.as_ptr().cast(),
                bytes.len(),
                flags,
                (&raw const to).cast(),
                ADDRESS_BYTES,
            )
        };
        Errno::check(sent).map(|sent| sent as usize)
    }

    /// sendmsg(): like [`Socket::send_to`], or like [`Socket::send`] without an
    /// address.
    ///
    /// # Errors
    /// See [`Socket::send_to`].
    pub fn send_message(
        &self,
        bytes: &[u8],
        to: Option<Address>,
        flags: i32,
    ) -> Result<usize, Errno> {
        let mut iov =
            libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let mut header = header(&mut iov);
        let mut to = to.map(Address::to_raw);
        if let Some(to) = &mut to {
            header.msg_name = (&raw mut *to).cast();
            header.msg_namelen = ADDRESS_BYTES;
        }
        // SAFETY: everything that `header` points to outlives the call, which
        // only reads it.
        let sent = unsafe { libc::sendmsg(self.raw(), &header, flags) };
        Errno::check(sent).map(|sent| sent as usize)
    }

    /// recv(). Returns the bytes received; with MSG_TRUNC, the length of the
    /// datagram.
    ///
    /// # Errors
    /// EAGAIN if the queue is empty and the call does not block or times out;
    /// ENOBUFS if the kernel dropped a message; EINTR.
    pub fn recv(&self, buffer: &mut [u8], flags: i32) -> Result<usize, Errno> {
        let room = buffer.len();
        // SAFETY: the pointer and the length are those of `buffer`.
        let got = unsafe { libc::recv(self.raw(), buffer.as_mut_ptr().cast(), room, flags) };
        Errno::check(got).map(|got| got as usize)
    }

    /// recvfrom(): like [`Socket::recv`], and returns the sender.
    ///
    /// # Errors
    /// See [`Socket::recv`].
    pub fn recv_from(&self, buffer: &mut [u8], flags: i32) -> Result<Received, Errno> {
        let mut from = zero_address();
        let mut length = ADDRESS_BYTES;
        let room = buffer.len();
        // SAFETY: the pointers and the lengths are those of `buffer` and `from`.
        let got = unsafe {
            libc::recvfrom(
                self.raw(),
                buffer.as_mut_ptr().cast(),
                room,
                flags,
                (&raw mut from).cast(),
                &mut length,
            )
        };
        let length = Errno::check(got)? as usize;
        Ok(Received { length, from: Address::from_raw(&from), flags: 0, group: None })
    }

    /// recvmsg(): like [`Socket::recv_from`], and returns the flags and the
    /// group.
    ///
    /// # Errors
    /// See [`Socket::recv`].
    pub fn recv_message(&self, buffer: &mut [u8], flags: i32) -> Result<Received, Errno> {
        let mut iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        let mut from = zero_address();
        let mut control = Control([0; _]);
        let mut header = header(&mut iov);
        header.msg_name = (&raw mut from).cast();
        header.msg_namelen = ADDRESS_BYTES;
        header.msg_control = (&raw mut control).cast();
        header.msg_controllen = size_of::<Control>() as _;
        // SAFETY: everything that `header` points to outlives the call and has
        // the lengths in `header`.
        let got = unsafe { libc::recvmsg(self.raw(), &mut header, flags) };
        let length = Errno::check(got)? as usize;
        // SAFETY: the kernel filled in `header`, and `control` is still alive.
        let group = unsafe { packet_info(&header) };
        Ok(Received { length, from: Address::from_raw(&from), flags: header.msg_flags, group })
    }
}

/// The group in the NETLINK_PKTINFO control message, if there is one.
///
/// # Safety
/// The kernel must have filled in `header` and its control messages.
unsafe fn packet_info(header: &libc::msghdr) -> Option<Group> {
    // SAFETY: the caller guarantees a filled header; the macro stays within
    // msg_controllen.
    let mut at = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !at.is_null() {
        // SAFETY: a header returned by the macros lies within the control
        // messages.
        let message = unsafe { &*at };
        if (message.cmsg_level, message.cmsg_type) == (libc::SOL_NETLINK, libc::NETLINK_PKTINFO) {
            // SAFETY: the kernel stores a struct nl_pktinfo here, possibly
            // unaligned.
            let info: libc::nl_pktinfo =
                unsafe { libc::CMSG_DATA(at).cast::<libc::nl_pktinfo>().read_unaligned() };
            return Some(Group(info.group));
        }
        // SAFETY: `at` came from CMSG_FIRSTHDR or CMSG_NXTHDR on the same
        // header.
        at = unsafe { libc::CMSG_NXTHDR(header, at) };
    }
    None
}
