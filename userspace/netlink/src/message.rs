//! Parser for messages.

use crate::ack::{Ack, Done};
use crate::attribute::Attributes;
use crate::error::Malformed;
use crate::wire::{HEADER_BYTES, Header, NLMSG_DONE, NLMSG_ERROR, align};

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The header.
    pub header: Header,
    /// The bytes after the header, without padding.
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The attributes after a protocol-specific header of `after` bytes, such
    /// as 16 for struct ifinfomsg. Empty if the message is shorter.
    pub fn attributes(&self, after: usize) -> Attributes<'a> {
        Attributes::new(self.payload.get(align(after)..).unwrap_or_default())
    }

    /// The acknowledgement, if the message is an NLMSG_ERROR.
    pub fn ack(&self) -> Option<Result<Ack<'a>, Malformed>> {
        (self.header.kind == NLMSG_ERROR).then(|| Ack::parse(self))
    }

    /// The end of the dump, if the message is an NLMSG_DONE.
    pub fn done(&self) -> Option<Result<Done<'a>, Malformed>> {
        (self.header.kind == NLMSG_DONE).then(|| Done::parse(self))
    }
}

/// An iterator over the messages of a datagram. The first malformed message is
/// returned as an error and ends the iteration. Offsets count from the start of
/// the datagram.
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Messages<'a> {
    /// Iterates over the messages of `datagram`.
    pub fn new(datagram: &'a [u8]) -> Messages<'a> {
        Messages { bytes: datagram, at: 0 }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at;
        let rest = self.bytes.get(at..).filter(|rest| !rest.is_empty())?;
        // A malformed message ends the iteration; a valid one sets `at` again
        // below.
        self.at = self.bytes.len();
        let has = rest.len();
        let Some(header) = Header::from_bytes(rest) else {
            return Some(Err(Malformed::Truncated { at, needs: HEADER_BYTES, has }));
        };
        let length = header.length as usize;
        if length < HEADER_BYTES {
            return Some(Err(Malformed::BadLength { at, length }));
        }
        let Some(payload) = rest.get(HEADER_BYTES..length) else {
            return Some(Err(Malformed::Truncated { at, needs: length, has }));
        };
        self.at = at.saturating_add(align(length));
        Some(Ok(Message { header, payload }))
    }
}

impl std::iter::FusedIterator for Messages<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn message_with_length(length: u32, payload: &[u8]) -> Vec<u8> {
        let header = Header { length, ..Header::new(16, 0, 1) };
        [&header.to_bytes(), payload].concat()
    }

    #[test]
    fn padding_between_messages_is_skipped() {
        let bytes =
            [message_with_length(17, &[1, 0, 0, 0]), message_with_length(18, &[2, 3])].concat();
        let payloads: Vec<&[u8]> =
            Messages::new(&bytes).map(|message| message.unwrap().payload).collect();
        assert_eq!(payloads, [&[1][..], &[2, 3]]);
    }

    #[test]
    fn a_malformed_message_ends_the_iteration() {
        let right = message_with_length(16, &[]);
        for (wrong, error) in [
            (vec![0; 15], Malformed::Truncated { at: 16, needs: 16, has: 15 }),
            (message_with_length(0, &[0; 32]), Malformed::BadLength { at: 16, length: 0 }),
            (message_with_length(15, &[]), Malformed::BadLength { at: 16, length: 15 }),
            (message_with_length(17, &[]), Malformed::Truncated { at: 16, needs: 17, has: 16 }),
            (
                message_with_length(u32::MAX, &[]),
                Malformed::Truncated { at: 16, needs: u32::MAX as usize, has: 16 },
            ),
        ] {
            let bytes = [right.clone(), wrong].concat();
            let mut messages = Messages::new(&bytes);
            assert!(messages.next().unwrap().is_ok());
            assert_eq!(messages.next(), Some(Err(error)));
            assert_eq!(messages.next(), None);
        }
        assert_eq!(Messages::new(&[]).next(), None);
    }

    #[test]
    fn attributes_start_after_the_padded_protocol_header() {
        let message = Message { header: Header::default(), payload: &[1, 0, 0, 0, 4, 0, 4, 0] };
        assert_eq!(message.attributes(1).count(), 1);
        assert_eq!(message.attributes(9).count(), 0);
        assert_eq!(message.attributes(usize::MAX).count(), 0);
    }
}
