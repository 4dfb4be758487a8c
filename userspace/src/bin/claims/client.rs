//! The article's client, which sends one greeting and reads the answers.

use std::time::{Duration, Instant};

use nlrig_guest::uapi::NETLINK_NLRIG_ARTICLE;
use nlrig_netlink::builder::message;
use nlrig_netlink::{Address, Errno, GroupMask, Header, Messages, Socket};

use crate::evidence::BoxError;

/// The port that the article's clients bind to and write into nlmsg_pid.
pub const PORTID: u32 = 100;
/// The text of each answer.
pub const ANSWER: &str = "I am from kernel!";

/// Payload size of a greeting and of an answer.
const PAYLOAD_BYTES: usize = 1024;

/// The calls that a client uses. The article has one client for each pair.
#[derive(Clone, Copy, Debug)]
pub enum CallPair {
    /// sendmsg() and recvmsg().
    Message,
    /// sendto() and recvfrom().
    Address,
}

/// A client. Its socket is closed on drop.
pub struct Client {
    pub socket: Socket,
    greeting: Vec<u8>,
    calls: CallPair,
}

impl Client {
    /// Binds to port `bound`, and sets `named` as nlmsg_pid of the greeting: A
    /// and C in the article. The article's module must be enabled.
    pub fn new(bound: u32, named: u32) -> Result<Client, BoxError> {
        let socket = Socket::new(NETLINK_NLRIG_ARTICLE as i32)?;
        socket.bind(bound, GroupMask::NONE)?;
        let mut body = [0; PAYLOAD_BYTES];
        let text = b"Hello you!";
        body[..text.len()].copy_from_slice(text);
        // Type, flags and sequence number are 0.
        let header = Header { portid: named, ..Header::default() };
        Ok(Client { socket, greeting: message(header, &body), calls: CallPair::Message })
    }

    /// Returns the client with other calls.
    pub fn with(self, calls: CallPair) -> Client {
        Client { calls, ..self }
    }

    /// Sends the greeting and returns the duration of the call.
    pub fn greet(&self, flags: i32) -> Result<Duration, Errno> {
        let start = Instant::now();
        match self.calls {
            CallPair::Message => {
                self.socket.send_message(&self.greeting, Some(Address::KERNEL), flags)
            }
            CallPair::Address => self.socket.send_to(&self.greeting, Address::KERNEL, flags),
        }?;
        Ok(start.elapsed())
    }

    /// The text of the next answer. None on timeout.
    pub fn answer(&self, limit: Duration) -> Result<Option<String>, BoxError> {
        if self.socket.poll(libc::POLLIN, Some(limit))? == 0 {
            return Ok(None);
        }
        let mut buffer = [0; 2 * PAYLOAD_BYTES];
        let received = match self.calls {
            CallPair::Message => self.socket.recv_message(&mut buffer, libc::MSG_DONTWAIT),
            CallPair::Address => self.socket.recv_from(&mut buffer, libc::MSG_DONTWAIT),
        }?;
        let message =
            Messages::new(&buffer[..received.length]).next().ok_or("an empty answer")??;
        let text = message.payload.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(Some(String::from_utf8_lossy(text).into_owned()))
    }

    /// Reads all queued answers and returns their number.
    pub fn answers(&self) -> Result<u32, BoxError> {
        let mut count = 0;
        while self.answer(Duration::ZERO)?.is_some() {
            count += 1;
        }
        Ok(count)
    }
}
