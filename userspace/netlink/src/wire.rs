//! The numbers of `linux/netlink.h`, the header of a message, and alignment.
//! All numbers are in the machine's own byte order.

/// Length of a message's header, struct nlmsghdr, in bytes.
pub const HEADER_BYTES: usize = 16;
/// Length of an attribute's header, struct nlattr, in bytes.
pub const ATTRIBUTE_HEADER_BYTES: usize = 4;
/// Messages and attributes begin at multiples of so many bytes.
pub const ALIGNMENT: usize = 4;

/// The message is to be ignored.
pub const NLMSG_NOOP: u16 = libc::NLMSG_NOOP as u16;
/// An error, or an acknowledgement if its number is 0.
pub const NLMSG_ERROR: u16 = libc::NLMSG_ERROR as u16;
/// The end of an answer of several messages.
pub const NLMSG_DONE: u16 = libc::NLMSG_DONE as u16;
/// Data was lost.
pub const NLMSG_OVERRUN: u16 = libc::NLMSG_OVERRUN as u16;
/// The first type that belongs to a protocol; those below are netlink's own.
pub const NLMSG_MIN_TYPE: u16 = libc::NLMSG_MIN_TYPE as u16;

/// The message is a request.
pub const NLM_F_REQUEST: u16 = libc::NLM_F_REQUEST as u16;
/// The message is one of several, which NLMSG_DONE ends.
pub const NLM_F_MULTI: u16 = libc::NLM_F_MULTI as u16;
/// An acknowledgement is asked for, also of success.
pub const NLM_F_ACK: u16 = libc::NLM_F_ACK as u16;
/// The sender asks for what the request sets off as well.
pub const NLM_F_ECHO: u16 = libc::NLM_F_ECHO as u16;
/// The dump was interrupted by a change: it may be inconsistent.
pub const NLM_F_DUMP_INTR: u16 = libc::NLM_F_DUMP_INTR as u16;
/// The dump was filtered, as the request asked.
pub const NLM_F_DUMP_FILTERED: u16 = libc::NLM_F_DUMP_FILTERED as u16;

/// Of a request to get: the whole table.
pub const NLM_F_ROOT: u16 = libc::NLM_F_ROOT as u16;
/// Of a request to get: all that match.
pub const NLM_F_MATCH: u16 = libc::NLM_F_MATCH as u16;
/// Of a request to get: an atomic snapshot. Obsolete.
pub const NLM_F_ATOMIC: u16 = libc::NLM_F_ATOMIC as u16;
/// Of a request to get: all there are.
pub const NLM_F_DUMP: u16 = libc::NLM_F_DUMP as u16;

/// Of a request for something new: replace what exists.
pub const NLM_F_REPLACE: u16 = libc::NLM_F_REPLACE as u16;
/// Of a request for something new: it must not exist yet.
pub const NLM_F_EXCL: u16 = libc::NLM_F_EXCL as u16;
/// Of a request for something new: create it if it does not exist.
pub const NLM_F_CREATE: u16 = libc::NLM_F_CREATE as u16;
/// Of a request for something new: at the end of the list.
pub const NLM_F_APPEND: u16 = libc::NLM_F_APPEND as u16;

/// Of a request to delete: not what is below.
pub const NLM_F_NONREC: u16 = libc::NLM_F_NONREC as u16;
/// Of a request to delete: all that match.
pub const NLM_F_BULK: u16 = libc::NLM_F_BULK as u16;

/// Of an acknowledgement: it has the request's header only, not its body.
pub const NLM_F_CAPPED: u16 = libc::NLM_F_CAPPED as u16;
/// Of an acknowledgement: attributes NLMSGERR_ATTR_* follow.
pub const NLM_F_ACK_TLVS: u16 = libc::NLM_F_ACK_TLVS as u16;

/// Of an attribute's type: its payload is attributes.
pub const NLA_F_NESTED: u16 = libc::NLA_F_NESTED as u16;
/// Of an attribute's type: its payload is in network byte order.
pub const NLA_F_NET_BYTEORDER: u16 = libc::NLA_F_NET_BYTEORDER as u16;
/// What of an attribute's type is not a flag.
pub const NLA_TYPE_MASK: u16 = libc::NLA_TYPE_MASK as u16;

// Not in libc.

/// Text that says what was wrong, with a NUL at its end.
pub const NLMSGERR_ATTR_MSG: u16 = 1;
/// Where in the request the attribute that was wrong begins, in bytes: u32.
pub const NLMSGERR_ATTR_OFFS: u16 = 2;
/// Data of the protocol's own.
pub const NLMSGERR_ATTR_COOKIE: u16 = 3;
/// The policy that the attribute did not keep to, nested.
pub const NLMSGERR_ATTR_POLICY: u16 = 4;
/// The type of an attribute that is missing: u32.
pub const NLMSGERR_ATTR_MISS_TYPE: u16 = 5;
/// Where in the request the nest begins that lacks it, in bytes: u32.
pub const NLMSGERR_ATTR_MISS_NEST: u16 = 6;

/// A length in bytes, rounded up to [`ALIGNMENT`]: NLMSG_ALIGN and NLA_ALIGN.
/// Saturates at the largest multiple there is.
pub const fn align(length: usize) -> usize {
    length.saturating_add(ALIGNMENT - 1) & !(ALIGNMENT - 1)
}

/// The header of a message, struct nlmsghdr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Header {
    /// nlmsg_len: the message's length in bytes, header included, without the
    /// padding after it. A [`Builder`](crate::Builder) fills it in.
    pub length: u32,
    /// nlmsg_type: NLMSG_*, or a number of the protocol's.
    pub kind: u16,
    /// nlmsg_flags: NLM_F_*.
    pub flags: u16,
    /// nlmsg_seq: the sender's choice; answers repeat it.
    pub sequence: u32,
    /// nlmsg_pid: the sender's port; 0 for the kernel. Nobody checks it.
    pub portid: u32,
}

impl Header {
    /// A header of this type with these flags and this sequence number.
    pub const fn new(kind: u16, flags: u16, sequence: u32) -> Header {
        Header { length: HEADER_BYTES as u32, kind, flags, sequence, portid: 0 }
    }

    /// The header of a request that asks for an acknowledgement, and has these
    /// flags besides.
    pub const fn ack(kind: u16, flags: u16, sequence: u32) -> Header {
        Header::new(kind, flags | NLM_F_REQUEST | NLM_F_ACK, sequence)
    }

    /// The header of a request for a dump.
    pub const fn dump(kind: u16, sequence: u32) -> Header {
        Header::new(kind, NLM_F_REQUEST | NLM_F_DUMP, sequence)
    }

    /// The header as it is sent.
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&self.length.to_ne_bytes());
        bytes[4..6].copy_from_slice(&self.kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&self.flags.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        bytes[12..16].copy_from_slice(&self.portid.to_ne_bytes());
        bytes
    }

    /// The header at the beginning of these bytes, unless they are too few.
    pub fn from_bytes(bytes: &[u8]) -> Option<Header> {
        Some(Header {
            length: u32_at(bytes, 0)?,
            kind: u16_at(bytes, 4)?,
            flags: u16_at(bytes, 6)?,
            sequence: u32_at(bytes, 8)?,
            portid: u32_at(bytes, 12)?,
        })
    }

    /// Whether all of these flags are set.
    pub const fn has(&self, flags: u16) -> bool {
        self.flags & flags == flags
    }
}

/// The 16 bits at this place, if they are there.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The 32 bits at this place, if they are there.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_rounded_up_to_four() {
        let rounded: Vec<usize> = (0..9).map(align).collect();
        assert_eq!(rounded, [0, 4, 4, 4, 4, 8, 8, 8, 8]);
        assert_eq!(align(usize::MAX), usize::MAX - 3);
    }

    #[test]
    fn a_header_is_laid_out_like_struct_nlmsghdr() {
        let header = Header { length: 20, kind: 16, flags: 5, sequence: 7, portid: 9 };
        let bytes = header.to_bytes();
        assert_eq!(Header::from_bytes(&bytes), Some(header));
        assert_eq!(Header::from_bytes(&bytes[..15]), None);
        // SAFETY: nlmsghdr is plain integers, for which any bytes are a value.
        let theirs: libc::nlmsghdr = unsafe { std::mem::transmute(bytes) };
        assert_eq!((theirs.nlmsg_len, theirs.nlmsg_type, theirs.nlmsg_flags), (20, 16, 5));
        assert_eq!((theirs.nlmsg_seq, theirs.nlmsg_pid), (7, 9));
    }
}
