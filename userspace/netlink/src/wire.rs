//! Constants of `linux/netlink.h`, the message header, and alignment. All
//! integers are in native byte order.

/// Size of the message header, struct nlmsghdr, in bytes.
pub const HEADER_BYTES: usize = 16;
/// Size of the attribute header, struct nlattr, in bytes.
pub const ATTRIBUTE_HEADER_BYTES: usize = 4;
/// Alignment of messages and attributes in bytes.
pub const ALIGNMENT: usize = 4;

/// The receiver ignores the message.
pub const NLMSG_NOOP: u16 = libc::NLMSG_NOOP as u16;
/// An error, or an acknowledgement if the errno is 0.
pub const NLMSG_ERROR: u16 = libc::NLMSG_ERROR as u16;
/// The end of a multipart answer.
pub const NLMSG_DONE: u16 = libc::NLMSG_DONE as u16;
/// Data was lost.
pub const NLMSG_OVERRUN: u16 = libc::NLMSG_OVERRUN as u16;
/// The first protocol-specific type; lower types are netlink's own.
pub const NLMSG_MIN_TYPE: u16 = libc::NLMSG_MIN_TYPE as u16;

/// The message is a request.
pub const NLM_F_REQUEST: u16 = libc::NLM_F_REQUEST as u16;
/// The message is part of a multipart answer that ends with NLMSG_DONE.
pub const NLM_F_MULTI: u16 = libc::NLM_F_MULTI as u16;
/// The sender requests an acknowledgement, also on success.
pub const NLM_F_ACK: u16 = libc::NLM_F_ACK as u16;
/// The sender also requests the notifications that the request triggers.
pub const NLM_F_ECHO: u16 = libc::NLM_F_ECHO as u16;
/// The data changed during the dump, which may be inconsistent.
pub const NLM_F_DUMP_INTR: u16 = libc::NLM_F_DUMP_INTR as u16;
/// The dump was filtered as requested.
pub const NLM_F_DUMP_FILTERED: u16 = libc::NLM_F_DUMP_FILTERED as u16;

/// Get request: return the whole table.
pub const NLM_F_ROOT: u16 = libc::NLM_F_ROOT as u16;
/// Get request: return all matching entries.
pub const NLM_F_MATCH: u16 = libc::NLM_F_MATCH as u16;
/// Get request: return an atomic snapshot. Obsolete.
pub const NLM_F_ATOMIC: u16 = libc::NLM_F_ATOMIC as u16;
/// Get request: return all entries.
pub const NLM_F_DUMP: u16 = libc::NLM_F_DUMP as u16;

/// New request: replace an existing entry.
pub const NLM_F_REPLACE: u16 = libc::NLM_F_REPLACE as u16;
/// New request: fail if the entry exists.
pub const NLM_F_EXCL: u16 = libc::NLM_F_EXCL as u16;
/// New request: create the entry if it does not exist.
pub const NLM_F_CREATE: u16 = libc::NLM_F_CREATE as u16;
/// New request: append to the end of the list.
pub const NLM_F_APPEND: u16 = libc::NLM_F_APPEND as u16;

/// Delete request: do not delete recursively.
pub const NLM_F_NONREC: u16 = libc::NLM_F_NONREC as u16;
/// Delete request: delete all matching entries.
pub const NLM_F_BULK: u16 = libc::NLM_F_BULK as u16;

/// Acknowledgement: contains the request's header without its body.
pub const NLM_F_CAPPED: u16 = libc::NLM_F_CAPPED as u16;
/// Acknowledgement: NLMSGERR_ATTR_* attributes follow.
pub const NLM_F_ACK_TLVS: u16 = libc::NLM_F_ACK_TLVS as u16;

/// Attribute type flag: the payload consists of attributes.
pub const NLA_F_NESTED: u16 = libc::NLA_F_NESTED as u16;
/// Attribute type flag: the payload is in network byte order.
pub const NLA_F_NET_BYTEORDER: u16 = libc::NLA_F_NET_BYTEORDER as u16;
/// The bits of an attribute type that are not flags.
pub const NLA_TYPE_MASK: u16 = libc::NLA_TYPE_MASK as u16;

// The libc crate lacks the following constants.

/// The error text, NUL-terminated.
pub const NLMSGERR_ATTR_MSG: u16 = 1;
/// Byte offset in the request of the attribute that caused the error: u32.
pub const NLMSGERR_ATTR_OFFS: u16 = 2;
/// Protocol-specific data.
pub const NLMSGERR_ATTR_COOKIE: u16 = 3;
/// The policy that the attribute violates, nested.
pub const NLMSGERR_ATTR_POLICY: u16 = 4;
/// The type of a missing attribute: u32.
pub const NLMSGERR_ATTR_MISS_TYPE: u16 = 5;
/// Byte offset in the request of the nest that lacks an attribute: u32.
pub const NLMSGERR_ATTR_MISS_NEST: u16 = 6;

/// Rounds a length in bytes up to [`ALIGNMENT`], like NLMSG_ALIGN and
/// NLA_ALIGN. Saturates at the largest multiple.
pub const fn align(length: usize) -> usize {
    length.saturating_add(ALIGNMENT - 1) & !(ALIGNMENT - 1)
}

/// The message header, struct nlmsghdr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Header {
    /// nlmsg_len: the length in bytes, including the header but not the padding
    /// after the message. [`MessageBuilder`](crate::MessageBuilder) fills it
    /// in.
    pub length: u32,
    /// nlmsg_type: NLMSG_*, or a protocol-specific type.
    pub kind: u16,
    /// nlmsg_flags: NLM_F_*.
    pub flags: u16,
    /// nlmsg_seq: chosen by the sender and repeated in answers.
    pub sequence: u32,
    /// nlmsg_pid: the sender's port, 0 for the kernel. Not checked by netlink.
    pub portid: u32,
}

impl Header {
    /// Creates a header with this type, these flags and this sequence number.
    pub const fn new(kind: u16, flags: u16, sequence: u32) -> Header {
        Header { length: HEADER_BYTES as u32, kind, flags, sequence, portid: 0 }
    }

    /// Creates the header of a request with NLM_F_ACK and additional `flags`.
    pub const fn ack(kind: u16, flags: u16, sequence: u32) -> Header {
        Header::new(kind, flags | NLM_F_REQUEST | NLM_F_ACK, sequence)
    }

    /// Creates the header of a dump request.
    pub const fn dump(kind: u16, sequence: u32) -> Header {
        Header::new(kind, NLM_F_REQUEST | NLM_F_DUMP, sequence)
    }

    /// The header in wire format.
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&self.length.to_ne_bytes());
        bytes[4..6].copy_from_slice(&self.kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&self.flags.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        bytes[12..16].copy_from_slice(&self.portid.to_ne_bytes());
        bytes
    }

    /// Parses the header at the start of `bytes`. None if they are too few.
    pub fn from_bytes(bytes: &[u8]) -> Option<Header> {
        Some(Header {
            length: u32_at(bytes, 0)?,
            kind: u16_at(bytes, 4)?,
            flags: u16_at(bytes, 6)?,
            sequence: u32_at(bytes, 8)?,
            portid: u32_at(bytes, 12)?,
        })
    }

    /// Whether all of `flags` are set.
    pub const fn has(&self, flags: u16) -> bool {
        self.flags & flags == flags
    }
}

/// The 16-bit integer at offset `at`, if it is within `bytes`.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The 32-bit integer at offset `at`, if it is within `bytes`.
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
        // SAFETY: nlmsghdr consists of integers, for which all bytes are valid.
        let theirs: libc::nlmsghdr = unsafe { std::mem::transmute(bytes) };
        assert_eq!((theirs.nlmsg_len, theirs.nlmsg_type, theirs.nlmsg_flags), (20, 16, 5));
        assert_eq!((theirs.nlmsg_seq, theirs.nlmsg_pid), (7, 9));
    }
}
