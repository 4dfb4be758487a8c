//! Builder for messages: well-formed ones, with lengths and padding filled in,
//! and malformed ones, with lengths as the caller sets them.

use std::fmt;

use crate::wire::{ALIGNMENT, ATTRIBUTE_HEADER_BYTES, HEADER_BYTES, Header, NLA_F_NESTED, align};

/// A reason why a datagram cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildError {
    /// The messages do not fit into the buffer.
    Full {
        /// Bytes needed.
        needs: usize,
    },
    /// An attribute is longer than its 16-bit length field allows.
    AttributeTooLong {
        /// The attribute's length in bytes.
        length: usize,
    },
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BuildError::Full { needs } => {
                write!(f, "the buffer is too small: the messages need {needs} bytes")
            }
            BuildError::AttributeTooLong { length } => {
                write!(f, "an attribute of {length} bytes exceeds the maximum of 65535")
            }
        }
    }
}

impl std::error::Error for BuildError {}

/// Builds the messages of one datagram in a growing Vec, or without allocation
/// in the caller's buffer.
#[derive(Debug)]
pub struct MessageBuilder<'a> {
    body: Body<'a>,
}

impl MessageBuilder<'static> {
    /// Starts a datagram of any size. Allocates.
    pub fn new() -> MessageBuilder<'static> {
        MessageBuilder { body: Body::new(Store::Owned(Vec::new())) }
    }
}

impl Default for MessageBuilder<'static> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> MessageBuilder<'a> {
    /// Starts a datagram in `buffer`. Never allocates.
    pub fn in_buffer(buffer: &'a mut [u8]) -> MessageBuilder<'a> {
        MessageBuilder { body: Body::new(Store::Lent(buffer)) }
    }

    /// Appends an aligned message. `fill` appends the body; the length is
    /// filled in.
    pub fn message(&mut self, header: Header, fill: impl FnOnce(&mut Body<'a>)) -> &mut Self {
        let at = self.begin(header, fill);
        // The kernel cannot take a datagram of 4 GiB, so a saturated length
        // does no harm.
        let length = u32::try_from(self.body.length - at).unwrap_or(u32::MAX);
        self.body.write(at, &length.to_ne_bytes());
        self
    }

    /// Like [`MessageBuilder::message`], but keeps the length in `header`.
    pub fn message_as_is(&mut self, header: Header, fill: impl FnOnce(&mut Body<'a>)) -> &mut Self {
        self.begin(header, fill);
        self
    }

    fn begin(&mut self, header: Header, fill: impl FnOnce(&mut Body<'a>)) -> usize {
        self.body.align();
        let at = self.body.length;
        self.body.raw(&header.to_bytes());
        fill(&mut self.body);
        at
    }

    /// Appends `bytes` unchanged.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.body.raw(bytes);
        self
    }

    /// The datagram, without padding after the last message.
    ///
    /// # Errors
    /// The datagram does not fit, or an attribute is too long.
    pub fn bytes(&self) -> Result<&[u8], BuildError> {
        let Body { store, length, too_long } = &self.body;
        if let Some(length) = *too_long {
            return Err(BuildError::AttributeTooLong { length });
        }
        store.bytes().get(..*length).ok_or(BuildError::Full { needs: *length })
    }

    /// The datagram as a Vec. Copies it if it was built in a buffer.
    ///
    /// # Errors
    /// See [`MessageBuilder::bytes`].
    pub fn into_vec(self) -> Result<Vec<u8>, BuildError> {
        let bytes = self.bytes()?;
        match self.body.store {
            Store::Owned(bytes) => Ok(bytes),
            Store::Lent(_) => Ok(bytes.to_vec()),
        }
    }
}

/// Builds a message from `header` and an unmodified `body`. Allocates.
pub fn message(header: Header, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER_BYTES + body.len()).unwrap_or(u32::MAX);
    [&Header { length, ..header }.to_bytes(), body].concat()
}

/// The memory that holds the datagram.
#[derive(Debug)]
enum Store<'a> {
    Owned(Vec<u8>),
    Lent(&'a mut [u8]),
}

impl Store<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Store::Owned(bytes) => bytes,
            Store::Lent(bytes) => bytes,
        }
    }
}

/// The body of a message or nested attribute under construction. Attributes are
/// aligned and zero-padded. As in the kernel, the padding counts towards the
/// length of the enclosing attribute or message.
#[derive(Debug)]
pub struct Body<'a> {
    store: Store<'a>,
    /// The length of the datagram, even if the buffer is too small for it.
    length: usize,
    /// The length of the first attribute that is too long.
    too_long: Option<usize>,
}

impl<'a> Body<'a> {
    fn new(store: Store<'a>) -> Body<'a> {
        Body { store, length: 0, too_long: None }
    }

    /// Appends `bytes` unchanged, for example a protocol-specific header.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        let at = self.length;
        self.length += bytes.len();
        match &mut self.store {
            Store::Owned(all) => all.extend_from_slice(bytes),
            Store::Lent(_) => self.write(at, bytes),
        }
        self
    }

    /// Appends zeros up to the next multiple of 4 bytes in the datagram.
    pub fn align(&mut self) -> &mut Self {
        let missing = align(self.length) - self.length;
        self.raw(&[0; ALIGNMENT][..missing])
    }

    /// Appends an attribute with `payload`.
    pub fn bytes(&mut self, kind: u16, payload: &[u8]) -> &mut Self {
        let length = ATTRIBUTE_HEADER_BYTES + payload.len();
        let length = self.attribute_length(length);
        self.attribute_as_is(length, kind, payload)
    }

    /// Appends an attribute with the given length field, whatever the length of
    /// `payload`.
    pub fn attribute_as_is(&mut self, length: u16, kind: u16, payload: &[u8]) -> &mut Self {
        self.align().raw(&length.to_ne_bytes()).raw(&kind.to_ne_bytes()).raw(payload).align()
    }

    /// Appends an attribute without payload.
    pub fn flag(&mut self, kind: u16) -> &mut Self {
        self.bytes(kind, &[])
    }

    /// Appends an 8-bit attribute.
    pub fn u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.bytes(kind, &[value])
    }

    /// Appends a 16-bit attribute in native byte order.
    pub fn u16(&mut self, kind: u16, value: u16) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// Appends a 32-bit attribute in native byte order.
    pub fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// Appends a 64-bit attribute in native byte order. As in the kernel, it is
    /// aligned to 4 bytes only.
    pub fn u64(&mut self, kind: u16, value: u64) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// Appends a NUL-terminated text attribute.
    pub fn string(&mut self, kind: u16, text: &str) -> &mut Self {
        let length = ATTRIBUTE_HEADER_BYTES + text.len() + 1;
        let length = self.attribute_length(length);
        self.align().raw(&length.to_ne_bytes()).raw(&kind.to_ne_bytes());
        self.raw(text.as_bytes()).raw(&[0]).align()
    }

    /// Appends an attribute with NLA_F_NESTED. `fill` appends its payload.
    pub fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.nested_as_is(kind | NLA_F_NESTED, fill)
    }

    /// Like [`Body::nested`], but adds no flag to `kind`: older protocols nest
    /// without NLA_F_NESTED.
    pub fn nested_as_is(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.align();
        let at = self.length;
        self.raw(&[0; 2]).raw(&kind.to_ne_bytes());
        fill(self);
        let length = self.attribute_length(self.length - at);
        self.write(at, &length.to_ne_bytes());
        self.align()
    }

    /// The value of the length field. Records a length that is too long.
    fn attribute_length(&mut self, length: usize) -> u16 {
        u16::try_from(length).unwrap_or_else(|_| {
            self.too_long.get_or_insert(length);
            u16::MAX
        })
    }

    /// Overwrites the bytes at `at`. Does nothing if they do not fit.
    fn write(&mut self, at: usize, bytes: &[u8]) {
        let all = match &mut self.store {
            Store::Owned(all) => all.as_mut_slice(),
            Store::Lent(all) => all,
        };
        if let Some(place) = all.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Attributes, Messages};

    fn fill(body: &mut Body) {
        body.raw(&[9]).u8(1, 7).flag(2).nested(3, |nest| {
            nest.string(4, "lo").u64(5, 6);
        });
    }

    #[test]
    fn lengths_and_padding_are_filled_in() {
        let mut builder = MessageBuilder::new();
        builder.message(Header::new(16, 1, 2), fill);
        let bytes = builder.into_vec().unwrap();
        // 16 bytes of header, 4 of body, 8 of u8, 4 of the flag, and a nest of
        // 4 + 8 + 12.
        assert_eq!(bytes.len(), 56);
        let message = Messages::new(&bytes).next().unwrap().unwrap();
        assert_eq!(message.header, Header { length: 56, ..Header::new(16, 1, 2) });
        let nest = message.attributes(1).find_kind(3).unwrap();
        assert!(nest.is_nested());
        assert_eq!(nest.nested().find_kind(4).unwrap().str(), Some("lo"));
        assert_eq!(nest.nested().find_kind(5).unwrap().u64(), Some(6));
    }

    #[test]
    fn a_small_buffer_is_an_error_with_the_size_needed() {
        let mut owned = MessageBuilder::new();
        owned.message(Header::new(16, 1, 2), fill);
        for room in 0..60 {
            let mut buffer = vec![0xaa; room];
            let mut lent = MessageBuilder::in_buffer(&mut buffer);
            lent.message(Header::new(16, 1, 2), fill);
            if room < 56 {
                assert_eq!(lent.bytes(), Err(BuildError::Full { needs: 56 }));
            } else {
                assert_eq!(lent.bytes(), owned.bytes());
            }
        }
    }

    #[test]
    fn an_attribute_longer_than_65535_bytes_is_an_error() {
        let mut builder = MessageBuilder::new();
        builder.raw(&[]).message(Header::default(), |body| {
            body.bytes(1, &vec![0; 65531]);
        });
        assert!(builder.bytes().is_ok());
        builder.message(Header::default(), |body| {
            body.nested(1, |nest| {
                nest.bytes(1, &vec![0; 65531]);
            });
        });
        assert_eq!(builder.bytes(), Err(BuildError::AttributeTooLong { length: 65540 }));
    }

    #[test]
    fn explicit_lengths_are_kept() {
        let mut builder = MessageBuilder::new();
        builder.message_as_is(Header { length: 3, ..Header::default() }, |body| {
            body.attribute_as_is(2, 1, &[1, 2, 3, 4]);
        });
        let bytes = builder.into_vec().unwrap();
        assert_eq!(Header::from_bytes(&bytes).unwrap().length, 3);
        assert!(Messages::new(&bytes).next().unwrap().is_err());
        assert!(Attributes::new(&bytes[16..]).next().unwrap().is_err());
    }
}
