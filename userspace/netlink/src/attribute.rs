//! Parser for attributes: struct nlattr or struct rtattr, each with a payload.

use crate::error::Malformed;
use crate::wire::{
    ATTRIBUTE_HEADER_BYTES, NLA_F_NESTED, NLA_F_NET_BYTEORDER, NLA_TYPE_MASK, align, u16_at,
};

/// One attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// nla_type on the wire, flags included.
    pub raw_kind: u16,
    /// The bytes after the header, without padding.
    pub payload: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// The type without its flags.
    pub fn kind(&self) -> u16 {
        self.raw_kind & NLA_TYPE_MASK
    }

    /// Whether NLA_F_NESTED is set. Older protocols nest attributes without the
    /// flag.
    pub fn is_nested(&self) -> bool {
        self.raw_kind & NLA_F_NESTED != 0
    }

    /// Whether NLA_F_NET_BYTEORDER is set. The getters ignore the flag; use
    /// [`Attribute::payload`].
    pub fn is_net_byteorder(&self) -> bool {
        self.raw_kind & NLA_F_NET_BYTEORDER != 0
    }

    /// The payload as an integer in native byte order; None unless the length
    /// matches exactly.
    pub fn u8(&self) -> Option<u8> {
        self.payload.try_into().ok().map(u8::from_ne_bytes)
    }

    /// The payload as a u16; see [`Attribute::u8`].
    pub fn u16(&self) -> Option<u16> {
        self.payload.try_into().ok().map(u16::from_ne_bytes)
    }

    /// The payload as a u32; see [`Attribute::u8`].
    pub fn u32(&self) -> Option<u32> {
        self.payload.try_into().ok().map(u32::from_ne_bytes)
    }

    /// The payload as a u64; see [`Attribute::u8`].
    pub fn u64(&self) -> Option<u64> {
        self.payload.try_into().ok().map(u64::from_ne_bytes)
    }

    /// The payload as an i32; see [`Attribute::u8`].
    pub fn i32(&self) -> Option<i32> {
        self.payload.try_into().ok().map(i32::from_ne_bytes)
    }

    /// The payload as text, without a NUL at the end. None if the payload is
    /// not UTF-8, or holds another NUL.
    pub fn str(&self) -> Option<&'a str> {
        let text = self.payload.strip_suffix(&[0]).unwrap_or(self.payload);
        if text.contains(&0) { None } else { std::str::from_utf8(text).ok() }
    }

    /// The payload parsed as attributes, with or without NLA_F_NESTED.
    pub fn nested(&self) -> Attributes<'a> {
        Attributes::new(self.payload)
    }
}

/// An iterator over attributes. The first malformed attribute is returned as an
/// error and ends the iteration. Offsets count from the first byte.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Attributes<'a> {
    /// Iterates over the attributes in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Attributes<'a> {
        Attributes { bytes, at: 0 }
    }

    /// The first attribute of type `kind`, ignoring the type's flags. The
    /// search stops at a malformed attribute.
    pub fn find_kind(&self, kind: u16) -> Option<Attribute<'a>> {
        self.clone().map_while(Result::ok).find(|attribute| attribute.kind() == kind)
    }

    /// Checks that all attributes are well-formed.
    ///
    /// # Errors
    /// The first malformed attribute.
    pub fn check(&self) -> Result<(), Malformed> {
        self.clone().try_for_each(|attribute| attribute.map(|_| ()))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at;
        let rest = self.bytes.get(at..).filter(|rest| !rest.is_empty())?;
        // A malformed attribute ends the iteration; a valid one sets `at` again
        // below.
        self.at = self.bytes.len();
        let has = rest.len();
        let (Some(length), Some(raw_kind)) = (u16_at(rest, 0), u16_at(rest, 2)) else {
            return Some(Err(Malformed::Truncated { at, needs: ATTRIBUTE_HEADER_BYTES, has }));
        };
        let length = usize::from(length);
        if length < ATTRIBUTE_HEADER_BYTES {
            return Some(Err(Malformed::BadLength { at, length }));
        }
        let Some(payload) = rest.get(ATTRIBUTE_HEADER_BYTES..length) else {
            return Some(Err(Malformed::Truncated { at, needs: length, has }));
        };
        self.at = at.saturating_add(align(length));
        Some(Ok(Attribute { raw_kind, payload }))
    }
}

impl std::iter::FusedIterator for Attributes<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(length: u16, kind: u16, payload: &[u8]) -> Vec<u8> {
        [&length.to_ne_bytes(), &kind.to_ne_bytes(), payload].concat()
    }

    #[test]
    fn padding_between_attributes_is_skipped() {
        let bytes = [attribute(5, 1, &[7, 0, 0, 0]), attribute(6, 2 | NLA_F_NESTED, b"hi")];
        let bytes = bytes.concat();
        let read: Vec<Attribute> = Attributes::new(&bytes).map(Result::unwrap).collect();
        assert_eq!((read[0].kind(), read[0].u8(), read[0].u16()), (1, Some(7), None));
        assert_eq!((read[1].kind(), read[1].is_nested(), read[1].str()), (2, true, Some("hi")));
        assert_eq!(read.len(), 2);
    }

    #[test]
    fn a_malformed_attribute_ends_the_iteration() {
        let right = attribute(4, 1, &[]);
        for (wrong, error) in [
            (vec![9], Malformed::Truncated { at: 4, needs: 4, has: 1 }),
            (attribute(3, 0, &[0; 8]), Malformed::BadLength { at: 4, length: 3 }),
            (attribute(0, 0, &[0; 8]), Malformed::BadLength { at: 4, length: 0 }),
            (attribute(9, 0, &[0; 4]), Malformed::Truncated { at: 4, needs: 9, has: 8 }),
        ] {
            let bytes = [right.clone(), wrong].concat();
            let mut attributes = Attributes::new(&bytes);
            assert!(attributes.next().unwrap().is_ok());
            assert_eq!(attributes.next(), Some(Err(error)));
            assert_eq!(attributes.next(), None);
            assert_eq!(Attributes::new(&bytes).check(), Err(error));
            assert!(Attributes::new(&bytes).find_kind(1).is_some());
        }
    }

    #[test]
    fn at_most_one_trailing_nul_is_stripped() {
        let text = |payload| Attribute { raw_kind: 1, payload }.str();
        assert_eq!(text(b"lo\0"), Some("lo"));
        assert_eq!(text(b"lo"), Some("lo"));
        assert_eq!(text(b""), Some(""));
        assert_eq!(text(b"lo\0\0"), None);
        assert_eq!(text(b"\xff\0"), None);
    }
}
