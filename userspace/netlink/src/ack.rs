//! Acknowledgements (NLMSG_ERROR) and ends of dumps (NLMSG_DONE), with their
//! extended acknowledgement attributes.

use crate::attribute::Attributes;
use crate::error::{Errno, Malformed};
use crate::message::Message;
use crate::wire::{
    HEADER_BYTES, Header, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLMSGERR_ATTR_MISS_TYPE, NLMSGERR_ATTR_MSG,
    NLMSGERR_ATTR_OFFS, align, u32_at,
};

/// Length in bytes of the errno at the start of both payloads.
const ERROR_BYTES: usize = 4;

/// The payload of an NLMSG_ERROR.
#[derive(Clone, Debug)]
pub struct Ack<'a> {
    /// The errno, positive; 0 is success. The wire carries it negated.
    pub errno: i32,
    /// The header of the acknowledged request.
    pub header: Header,
    /// The body of the request. None on success, and if acknowledgements are
    /// capped.
    pub request: Option<&'a [u8]>,
    /// The error text of the extended acknowledgement.
    pub message: Option<&'a str>,
    /// Byte offset in the request of the attribute that caused the error.
    pub offset: Option<u32>,
    /// The type of a missing attribute.
    pub missing: Option<u32>,
    /// All NLMSGERR_ATTR_* attributes.
    pub attributes: Attributes<'a>,
}

impl<'a> Ack<'a> {
    /// Parses an NLMSG_ERROR. Does not check the message type.
    ///
    /// # Errors
    /// The message is too short, or its attributes are malformed. Offsets count
    /// from the start of the payload, or from the first attribute.
    pub fn parse(message: &Message<'a>) -> Result<Ack<'a>, Malformed> {
        let payload = message.payload;
        let fixed = ERROR_BYTES + HEADER_BYTES;
        let too_short = |needs| Malformed::Truncated { at: 0, needs, has: payload.len() };
        let (Some(error), Some(header)) =
            (u32_at(payload, 0), payload.get(ERROR_BYTES..).and_then(Header::from_bytes))
        else {
            return Err(too_short(fixed));
        };
        let mut end = fixed;
        let mut request = None;
        let tlvs = message.header.has(NLM_F_ACK_TLVS);
        if !message.header.has(NLM_F_CAPPED) {
            end = ERROR_BYTES.saturating_add(header.length as usize).max(fixed);
            request = payload.get(fixed..end);
            // A truncated body matters only if attributes follow it.
            if tlvs && request.is_none() {
                return Err(too_short(end));
            }
        }
        let extended = Extended::parse(payload, end, tlvs)?;
        Ok(Ack {
            errno: (error as i32).wrapping_neg(),
            header,
            request,
            message: extended.message,
            offset: extended.offset,
            missing: extended.missing,
            attributes: extended.attributes,
        })
    }

    /// Converts the errno into a `Result`.
    ///
    /// # Errors
    /// The errno, unless it is 0.
    pub fn result(&self) -> Result<(), Errno> {
        if self.errno == 0 { Ok(()) } else { Err(Errno(self.errno)) }
    }
}

/// The payload of an NLMSG_DONE.
#[derive(Clone, Debug)]
pub struct Done<'a> {
    /// The errno of the dump, positive; 0 is success. The wire carries it
    /// negated. An empty payload, as some protocols send, also counts as 0.
    pub errno: i32,
    /// The error text of the extended acknowledgement.
    pub message: Option<&'a str>,
    /// Byte offset in the request of the attribute that caused the error.
    pub offset: Option<u32>,
}

impl<'a> Done<'a> {
    /// Parses an NLMSG_DONE. Does not check the message type.
    ///
    /// # Errors
    /// The message is too short, or its attributes are malformed. Offsets count
    /// as in [`Ack::parse`].
    pub fn parse(message: &Message<'a>) -> Result<Done<'a>, Malformed> {
        let payload = message.payload;
        let error = match u32_at(payload, 0) {
            Some(error) => error as i32,
            None if payload.is_empty() => 0,
            None => {
                return Err(Malformed::Truncated { at: 0, needs: ERROR_BYTES, has: payload.len() });
            }
        };
        let tlvs = message.header.has(NLM_F_ACK_TLVS);
        let extended = Extended::parse(payload, ERROR_BYTES, tlvs)?;
        Ok(Done { errno: error.wrapping_neg(), message: extended.message, offset: extended.offset })
    }

    /// Converts the errno into a `Result`.
    ///
    /// # Errors
    /// The errno, unless it is 0.
    pub fn result(&self) -> Result<(), Errno> {
        if self.errno == 0 { Ok(()) } else { Err(Errno(self.errno)) }
    }
}

/// The attributes of an extended acknowledgement.
struct Extended<'a> {
    message: Option<&'a str>,
    offset: Option<u32>,
    missing: Option<u32>,
    attributes: Attributes<'a>,
}

impl<'a> Extended<'a> {
    /// Parses the attributes after the first `after` bytes, rounded up to the
    /// alignment. Without NLM_F_ACK_TLVS (`present`) there are none.
    fn parse(payload: &'a [u8], after: usize, present: bool) -> Result<Extended<'a>, Malformed> {
        let bytes = if present { payload.get(align(after)..).unwrap_or_default() } else { &[] };
        let attributes = Attributes::new(bytes);
        attributes.check()?;
        let number = |kind| attributes.find_kind(kind).and_then(|found| found.u32());
        Ok(Extended {
            message: attributes.find_kind(NLMSGERR_ATTR_MSG).and_then(|found| found.str()),
            offset: number(NLMSGERR_ATTR_OFFS),
            missing: number(NLMSGERR_ATTR_MISS_TYPE),
            attributes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{NLMSG_DONE, NLMSG_ERROR};
    use crate::{MessageBuilder, Messages};

    fn answer(flags: u16, errno: i32, request: &[u8], tlvs: bool) -> Vec<u8> {
        let mut builder = MessageBuilder::new();
        builder.message(Header::new(NLMSG_ERROR, flags, 7), |body| {
            body.raw(&(-errno).to_ne_bytes()).raw(request);
            if tlvs {
                body.string(NLMSGERR_ATTR_MSG, "no").u32(NLMSGERR_ATTR_OFFS, 20);
            }
        });
        builder.bytes().unwrap().to_vec()
    }

    fn parse(bytes: &[u8]) -> Result<Ack<'_>, Malformed> {
        Messages::new(bytes).next().unwrap().unwrap().ack().unwrap()
    }

    /// A request with a header and three bytes of body.
    fn request() -> Vec<u8> {
        let mut builder = MessageBuilder::new();
        builder.message(Header::ack(16, 0, 7), |body| {
            body.raw(&[1, 2, 3]);
        });
        builder.bytes().unwrap().to_vec()
    }

    #[test]
    fn attributes_follow_the_padded_request_or_its_header() {
        let request = request();
        let whole = answer(NLM_F_ACK_TLVS, libc::EINVAL, &request, true);
        let capped = answer(NLM_F_ACK_TLVS | NLM_F_CAPPED, libc::EINVAL, &request[..16], true);
        for (bytes, body) in [(whole, Some(&[1, 2, 3][..])), (capped, None)] {
            let ack = parse(&bytes).unwrap();
            assert_eq!((ack.errno, ack.message, ack.offset), (libc::EINVAL, Some("no"), Some(20)));
            assert_eq!((ack.header.kind, ack.header.sequence), (16, 7));
            assert_eq!(ack.request, body);
            assert_eq!(ack.result(), Err(Errno(libc::EINVAL)));
        }
    }

    #[test]
    fn without_the_flag_there_are_no_attributes() {
        let request = request();
        let bytes = answer(0, libc::EPERM, &request, false);
        let ack = parse(&bytes).unwrap();
        assert_eq!((ack.errno, ack.message, ack.offset), (libc::EPERM, None, None));
        let bytes = answer(NLM_F_CAPPED, 0, &request[..16], false);
        assert_eq!(parse(&bytes).unwrap().result(), Ok(()));
    }

    #[test]
    fn a_truncated_acknowledgement_is_an_error() {
        let request = request();
        let bytes = answer(NLM_F_CAPPED, 0, &request[..15], false);
        assert_eq!(parse(&bytes).unwrap_err(), Malformed::Truncated { at: 0, needs: 20, has: 19 });
        // The length promises a body, and the flag promises attributes.
        let bytes = answer(NLM_F_ACK_TLVS, 1, &request[..16], false);
        assert_eq!(parse(&bytes).unwrap_err(), Malformed::Truncated { at: 0, needs: 23, has: 20 });
    }

    #[test]
    fn an_nlmsg_done_carries_the_errno_of_the_dump() {
        let done = |payload: &[u8], flags| {
            let header = Header::new(NLMSG_DONE, flags, 1);
            let done = Message { header, payload }.done().unwrap();
            done.map(|done| (done.errno, done.message.map(str::to_string)))
        };
        assert_eq!(done(&[], 0), Ok((0, None)));
        assert_eq!(done(&0i32.to_ne_bytes(), 0), Ok((0, None)));
        assert_eq!(done(&(-22i32).to_ne_bytes(), 0), Ok((22, None)));
        assert_eq!(done(&[1, 2], 0), Err(Malformed::Truncated { at: 0, needs: 4, has: 2 }));
        let text = [&(-22i32).to_ne_bytes()[..], &6u16.to_ne_bytes(), &1u16.to_ne_bytes(), b"n\0"];
        assert_eq!(done(&text.concat(), NLM_F_ACK_TLVS), Ok((22, Some("n".to_string()))));
    }
}
