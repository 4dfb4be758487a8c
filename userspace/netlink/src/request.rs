//! A request, and all of its answer.

use std::fmt;
use std::time::{Duration, Instant};

use crate::ack::Ack;
use crate::error::{Errno, Malformed};
use crate::message::{Message, Messages};
use crate::socket::{Address, Socket};
use crate::wire::{
    HEADER_BYTES, Header, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_OVERRUN,
    align,
};

/// How much of an answer is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long the whole answer may take.
    pub time: Duration,
    /// How many datagrams may come in, those for others included.
    pub datagrams: usize,
}

impl Default for Limits {
    /// Ten seconds and 4096 datagrams.
    fn default() -> Limits {
        Limits { time: Duration::from_secs(10), datagrams: 4096 }
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// The request is shorter than a header, or lacks the flags that bring an
    /// answer.
    Request,
    /// A call failed.
    Call {
        /// Its name.
        call: &'static str,
        /// Its error.
        errno: Errno,
    },
    /// The answer did not end in time.
    Time,
    /// The answer did not end within so many datagrams.
    Datagrams(usize),
    /// A datagram is longer than the buffer: so many bytes.
    TooLong(usize),
    /// The answer does not add up.
    Malformed(Malformed),
    /// The kernel says that data was lost (NLMSG_OVERRUN).
    Overrun,
    /// The kernel answered with an error, at once or at the end of the dump.
    Refused {
        /// The error.
        errno: Errno,
        /// What was wrong, in words, with extended acknowledgements.
        message: Option<String>,
    },
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestError::Request => {
                f.write_str("the request is not one that is answered: see its length and flags")
            }
            RequestError::Call { call, errno } => write!(f, "{call} failed: {errno}"),
            RequestError::Time => f.write_str("the answer did not end in time"),
            RequestError::Datagrams(limit) => {
                write!(f, "the answer did not end within {limit} datagrams")
            }
            RequestError::TooLong(length) => {
                write!(f, "a datagram of {length} bytes is longer than the buffer")
            }
            RequestError::Malformed(malformed) => write!(f, "the answer is malformed: {malformed}"),
            RequestError::Overrun => f.write_str("the kernel says that data was lost"),
            RequestError::Refused { errno, message: Some(message) } => {
                write!(f, "the kernel says {errno}: {message}")
            }
            RequestError::Refused { errno, message: None } => write!(f, "the kernel says {errno}"),
        }
    }
}

impl std::error::Error for RequestError {}

impl From<Malformed> for RequestError {
    fn from(malformed: Malformed) -> RequestError {
        RequestError::Malformed(malformed)
    }
}

/// The answer to a request for a dump.
#[derive(Clone, Debug)]
pub struct Dump {
    /// The messages, each aligned; all are known to add up.
    bytes: Vec<u8>,
    /// Whether a message had NLM_F_DUMP_INTR: something changed meanwhile, and
    /// what was read may be neither the old nor the new.
    pub interrupted: bool,
    /// How many datagrams it came in, that of NLMSG_DONE included.
    pub datagrams: usize,
    /// The header of the NLMSG_DONE.
    pub done: Header,
}

impl Dump {
    /// The messages up to NLMSG_DONE, without it.
    pub fn messages(&self) -> impl Iterator<Item = Message<'_>> {
        Messages::new(&self.bytes).map_while(Result::ok)
    }
}

/// Sends one request for a dump (NLM_F_REQUEST and NLM_F_DUMP, see
/// [`Header::dump`]) to the kernel, and collects its answer up to NLMSG_DONE. What
/// has another sequence number is not for us, and is left out. Allocates.
///
/// # Errors
/// The request is none for a dump, a call failed, the answer is not right or
/// beyond a limit, or the kernel answered with an error.
pub fn dump(socket: &Socket, request: &[u8], limits: Limits) -> Result<Dump, RequestError> {
    /// The most that the kernel puts into one datagram of a dump, and some.
    const DATAGRAM_BYTES: usize = 64 << 10;
    let mut receiver = Receiver::send(socket, request, NLM_F_DUMP, limits)?;
    let mut buffer = vec![0; DATAGRAM_BYTES];
    let mut dump =
        Dump { bytes: Vec::new(), interrupted: false, datagrams: 0, done: Header::default() };
    loop {
        let length = receiver.next(&mut buffer)?;
        let mut ours = false;
        for message in Messages::new(&buffer[..length]) {
            let message = message?;
            if message.header.sequence != receiver.sequence {
                continue;
            }
            if !ours {
                dump.datagrams += 1;
                ours = true;
            }
            dump.interrupted |= message.header.has(NLM_F_DUMP_INTR);
            if let Some(done) = message.done() {
                let done = done?;
                done.result().map_err(|errno| refused(errno, done.message))?;
                dump.done = message.header;
                return Ok(dump);
            }
            if let Some(ack) = message.ack() {
                let ack = ack?;
                ack.result().map_err(|errno| refused(errno, ack.message))?;
                continue;
            }
            if message.header.kind == NLMSG_OVERRUN {
                return Err(RequestError::Overrun);
            }
            dump.bytes.extend_from_slice(&message.header.to_bytes());
            dump.bytes.extend_from_slice(message.payload);
            dump.bytes.resize(align(dump.bytes.len()), 0);
        }
    }
}

/// Sends one request that asks for an acknowledgement (NLM_F_REQUEST and
/// NLM_F_ACK, see [`Header::ack`]) to the kernel, and waits for that. Everything
/// else that comes in meanwhile is dropped. Does not allocate.
///
/// # Errors
/// The request asks for none, a call failed, or the answer is not right or
/// beyond a limit. What the acknowledgement says is no error here.
pub fn request_ack<'b>(
    socket: &Socket,
    request: &[u8],
    buffer: &'b mut [u8],
    limits: Limits,
) -> Result<Ack<'b>, RequestError> {
    let mut receiver = Receiver::send(socket, request, NLM_F_ACK, limits)?;
    let (length, place) = loop {
        let length = receiver.next(buffer)?;
        let mut found = None;
        for (place, message) in Messages::new(&buffer[..length]).enumerate() {
            let message = message?;
            if message.header.sequence == receiver.sequence && message.ack().is_some() {
                found = Some(place);
                break;
            }
        }
        if let Some(place) = found {
            break (length, place);
        }
    };
    let ack = Messages::new(&buffer[..length]).flatten().nth(place).and_then(|found| found.ack());
    // It was found there a moment ago.
    Ok(ack.ok_or(RequestError::Request)??)
}

fn refused(errno: Errno, message: Option<&str>) -> RequestError {
    RequestError::Refused { errno, message: message.map(str::to_string) }
}

/// Receives what the kernel sends, until a limit is reached.
struct Receiver<'a> {
    socket: &'a Socket,
    /// The request's sequence number.
    sequence: u32,
    limits: Limits,
    start: Instant,
    received: usize,
}

impl<'a> Receiver<'a> {
    fn send(
        socket: &'a Socket,
        request: &[u8],
        flags: u16,
        limits: Limits,
    ) -> Result<Receiver<'a>, RequestError> {
        let header = Header::from_bytes(request).ok_or(RequestError::Request)?;
        if !header.has(NLM_F_REQUEST | flags) || (header.length as usize) < HEADER_BYTES {
            return Err(RequestError::Request);
        }
        let start = Instant::now();
        socket
            .send_to(request, Address::KERNEL, 0)
            .map_err(|errno| RequestError::Call { call: "sendto", errno })?;
        Ok(Receiver { socket, sequence: header.sequence, limits, start, received: 0 })
    }

    /// The next datagram from the kernel: its length in the buffer.
    fn next(&mut self, buffer: &mut [u8]) -> Result<usize, RequestError> {
        loop {
            let left = self.limits.time.saturating_sub(self.start.elapsed());
            match self.socket.poll(libc::POLLIN, Some(left)) {
                Ok(0) | Err(Errno(libc::EINTR)) if left.is_zero() => {
                    return Err(RequestError::Time);
                }
                Ok(0) | Err(Errno(libc::EINTR)) => continue,
                Ok(_) => {}
                Err(errno) => return Err(RequestError::Call { call: "poll", errno }),
            }
            if self.received == self.limits.datagrams {
                return Err(RequestError::Datagrams(self.limits.datagrams));
            }
            let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
            let received = match self.socket.recv_from(buffer, flags) {
                Ok(received) => received,
                Err(Errno(libc::EAGAIN | libc::EINTR)) => continue,
                Err(errno) => return Err(RequestError::Call { call: "recvfrom", errno }),
            };
            self.received += 1;
            // Anyone may send to our port on some protocols.
            if received.from.portid != Address::KERNEL.portid {
                continue;
            }
            if received.length > buffer.len() {
                return Err(RequestError::TooLong(received.length));
            }
            return Ok(received.length);
        }
    }
}
