//! Sending and receiving. Flags are those of the calls, MSG_*.

use std::mem::{size_of, zeroed};

use super::{ADDRESS_BYTES, Address, Group, Socket, zero_address};
use crate::error::Errno;

/// What came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes in the buffer; with the flag MSG_TRUNC the datagram's own length,
    /// which may be more than the buffer has.
    pub length: usize,
    /// Who sent it.
    pub from: Address,
    /// msg_flags: MSG_TRUNC if the datagram was longer than the buffer. 0 from
    /// calls that do not tell.
    pub flags: i32,
    /// The group it was sent to, group 0 if none: with
    /// [`set_packet_info`](Socket::set_packet_info) and
    /// [`recv_message`](Socket::recv_message) only.
    pub group: Option<Group>,
}

/// Room for the control messages of netlink: NETLINK_PKTINFO, 4 bytes,
/// NETLINK_LISTEN_ALL_NSID, 4, SCM_CREDENTIALS, 12, each with a header, and some.
#[repr(C, align(8))]
struct Control([u8; 128]);

/// The header of a call with one buffer, and nothing else yet.
fn header(iov: &mut libc::iovec) -> libc::msghdr {
    // SAFETY: msghdr is integers and pointers, for which zero is a value.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_iov = iov;
    header.msg_iovlen = 1;
    header
}

impl Socket {
    /// send(): to where the socket is connected, else to the kernel. How many
    /// bytes were sent. Binds to a port of the kernel's choice if that has not
    /// happened yet.
    ///
    /// # Errors
    /// ECONNREFUSED if nobody has the port, EMSGSIZE if it is more than the
    /// send buffer, ENOBUFS, ENODATA if it is nothing, EAGAIN.
    pub fn send(&self, bytes: &[u8], flags: i32) -> Result<usize, Errno> {
        // SAFETY: the pointer and the length are those of `bytes`.
        let sent = unsafe { libc::send(self.raw(), bytes.as_ptr().cast(), bytes.len(), flags) };
        Errno::check(sent).map(|sent| sent as usize)
    }

    /// sendto(): as [`Socket::send`], but to this address: first to its group,
    /// if it has one, and then to its port, be that the kernel's. The result is
    /// that of the port: ECONNREFUSED may mean that the group has got it.
    ///
    /// # Errors
    /// EPERM for an address other than the kernel's on a protocol that allows
    /// no sending among users, and those of [`Socket::send`].
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

    /// sendmsg(): as [`Socket::send_to`], or as [`Socket::send`] without an
    /// address.
    ///
    /// # Errors
    /// As [`Socket::send_to`].
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
        // SAFETY: all that `header` points to outlives the call, which only
        // reads it.
        let sent = unsafe { libc::sendmsg(self.raw(), &header, flags) };
        Errno::check(sent).map(|sent| sent as usize)
    }

    /// recv(): how many bytes came in; with MSG_TRUNC the datagram's own length.
    ///
    /// # Errors
    /// EAGAIN if there is nothing and it shall not wait, or not longer; ENOBUFS
    /// if the kernel had to drop something; EINTR.
    pub fn recv(&self, buffer: &mut [u8], flags: i32) -> Result<usize, Errno> {
        let room = buffer.len();
        // SAFETY: the pointer and the length are those of `buffer`.
        let got = unsafe { libc::recv(self.raw(), buffer.as_mut_ptr().cast(), room, flags) };
        Errno::check(got).map(|got| got as usize)
    }

    /// recvfrom(): as [`Socket::recv`], and says who sent it.
    ///
    /// # Errors
    /// As [`Socket::recv`].
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

    /// recvmsg(): as [`Socket::recv_from`], and says what the kernel tells
    /// besides.
    ///
    /// # Errors
    /// As [`Socket::recv`].
    pub fn recv_message(&self, buffer: &mut [u8], flags: i32) -> Result<Received, Errno> {
        let mut iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        let mut from = zero_address();
        let mut control = Control([0; _]);
        let mut header = header(&mut iov);
        header.msg_name = (&raw mut from).cast();
        header.msg_namelen = ADDRESS_BYTES;
        header.msg_control = (&raw mut control).cast();
        header.msg_controllen = size_of::<Control>() as _;
        // SAFETY: all that `header` points to outlives the call, with the
        // lengths that it says.
        let got = unsafe { libc::recvmsg(self.raw(), &mut header, flags) };
        let length = Errno::check(got)? as usize;
        // SAFETY: the kernel has filled `header` in, and `control` is still there.
        let group = unsafe { packet_info(&header) };
        Ok(Received { length, from: Address::from_raw(&from), flags: header.msg_flags, group })
    }
}

/// The group in the control message NETLINK_PKTINFO, if there is one.
///
/// # Safety
/// The kernel has filled in the header and the control messages it points to.
unsafe fn packet_info(header: &libc::msghdr) -> Option<Group> {
    // SAFETY: the caller's word; the macros stay within msg_controllen.
    let mut at = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !at.is_null() {
        // SAFETY: a header that the macros give is within the control messages.
        let message = unsafe { &*at };
        if (message.cmsg_level, message.cmsg_type) == (libc::SOL_NETLINK, libc::NETLINK_PKTINFO) {
            // SAFETY: the kernel puts a struct nl_pktinfo into this message; it
            // need not be aligned.
            let info: libc::nl_pktinfo =
                unsafe { libc::CMSG_DATA(at).cast::<libc::nl_pktinfo>().read_unaligned() };
            return Some(Group(info.group));
        }
        // SAFETY: as for the first.
        at = unsafe { libc::CMSG_NXTHDR(header, at) };
    }
    None
}
