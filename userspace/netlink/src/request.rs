//! A request together with its whole answer.

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

/// Limits on waiting for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// The longest time until the answer is complete.
    pub time: Duration,
    /// The maximum number of datagrams, unrelated ones included.
    pub datagrams: usize,
}

impl Default for RequestLimits {
    /// Ten seconds and 4096 datagrams.
    fn default() -> RequestLimits {
        RequestLimits { time: Duration::from_secs(10), datagrams: 4096 }
    }
}

/// A reason why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// The request is shorter than a header, or lacks the flags that request an
    /// answer.
    Request,
    /// A system call failed.
    Call {
        /// The name of the call.
        call: &'static str,
        /// Its errno.
        errno: Errno,
    },
    /// The answer was not complete in time.
    Time,
    /// The answer was not complete within this number of datagrams.
    Datagrams(usize),
    /// A datagram of this many bytes is longer than the buffer.
    TooLong(usize),
    /// The answer is malformed.
    Malformed(Malformed),
    /// The kernel reported lost data (NLMSG_OVERRUN).
    Overrun,
    /// The kernel answered with an error, immediately or at the end of the
    /// dump.
    Refused {
        /// The errno.
        errno: Errno,
        /// The error text, if extended acknowledgements are enabled.
        message: Option<String>,
    },
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestError::Request => f.write_str(
                "the request is too short, or lacks NLM_F_REQUEST, NLM_F_ACK or NLM_F_DUMP",
            ),
            RequestError::Call { call, errno } => write!(f, "{call} failed: {errno}"),
            RequestError::Time => f.write_str("timed out waiting for the answer"),
            RequestError::Datagrams(limit) => {
                write!(f, "the answer is incomplete after {limit} datagrams")
            }
            RequestError::TooLong(length) => {
                write!(f, "a datagram of {length} bytes is longer than the buffer")
            }
            RequestError::Malformed(malformed) => write!(f, "the answer is malformed: {malformed}"),
            RequestError::Overrun => f.write_str("the kernel reported lost data (NLMSG_OVERRUN)"),
            RequestError::Refused { errno, message: Some(message) } => {
                write!(f, "the kernel returned {errno}: {message}")
            }
            RequestError::Refused { errno, message: None } => {
                write!(f, "the kernel returned {errno}")
            }
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
    /// The messages, each aligned and already checked.
    bytes: Vec<u8>,
    /// Whether a message had NLM_F_DUMP_INTR: the data changed during the dump
    /// and may be inconsistent.
    pub interrupted: bool,
    /// Datagrams received, including the one with NLMSG_DONE.
    pub datagrams: usize,
    /// The header of the NLMSG_DONE.
    pub done: Header,
}

impl Dump {
    /// The messages before NLMSG_DONE.
    pub fn messages(&self) -> impl Iterator<Item = Message<'_>> {
        Messages::new(&self.bytes).map_while(Result::ok)
    }
}

/// Sends one dump request to the kernel and collects the answer up to
/// NLMSG_DONE.
///
/// The request needs NLM_F_REQUEST and NLM_F_DUMP, see [`Header::dump`].
/// Messages with another sequence number are skipped. Allocates.
///
/// # Errors
/// The flags are missing, a call failed, the answer is malformed or exceeds a
/// limit, or the kernel answered with an error.
pub fn dump(socket: &Socket, request: &[u8], limits: RequestLimits) -> Result<Dump, RequestError> {
    /// More than the kernel puts into one datagram of a dump.
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

/// Sends one request to the kernel and waits for its acknowledgement.
///
/// The request needs NLM_F_REQUEST and NLM_F_ACK, see [`Header::ack`]. All
/// other messages received meanwhile are dropped. Does not allocate.
///
/// # Errors
/// The flags are missing, a call failed, or the answer is malformed or exceeds
/// a limit. An errno in the acknowledgement is not an error of this function.
pub fn request_ack<'b>(
    socket: &Socket,
    request: &[u8],
    buffer: &'b mut [u8],
    limits: RequestLimits,
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
    // The loop above found an acknowledgement at `place`, so the error cannot
    // occur.
    Ok(ack.ok_or(RequestError::Request)??)
}

fn refused(errno: Errno, message: Option<&str>) -> RequestError {
    RequestError::Refused { errno, message: message.map(str::to_string) }
}

/// Receives datagrams from the kernel within the limits.
struct Receiver<'a> {
    socket: &'a Socket,
    /// The request's sequence number.
    sequence: u32,
    limits: RequestLimits,
    start: Instant,
    received: usize,
}

impl<'a> Receiver<'a> {
    fn send(
        socket: &'a Socket,
        request: &[u8],
        flags: u16,
        limits: RequestLimits,
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

    /// Receives the next datagram from the kernel into `buffer` and returns its
    /// length.
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
            // On some protocols, any process may send to this port.
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
