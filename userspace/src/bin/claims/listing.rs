//! Claims about the client as printed in the paper.
//!
//! Fields that the listing does not initialise are zero, which is the best
//! case. In C they would be stack garbage.

use std::mem::{size_of, zeroed};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nlrig_guest::uapi::*;
use nlrig_netlink::wire::HEADER_BYTES;
use nlrig_netlink::{Errno, Header, Socket, builder};

use crate::Cases;
use crate::calls::{check, echo_request, is_echo, zero_msghdr};
use crate::evidence::{BoxError, Evidence};
use crate::module;
use crate::peers::{bound, count_received};

pub const CASES: Cases = &[
    ("B21.1", as_printed),
    ("B21.2", without_the_length_of_the_address),
    ("B21.3", without_the_length_of_the_message),
    ("B21.4", the_same_header_again),
];

const PAPER: i32 = NETLINK_NLRIG_PAPER as i32;
const PRIVATE: i32 = NETLINK_NLRIG as i32;
/// The paper leaves MAX_PAYLOAD to the reader.
const MAX_PAYLOAD: usize = 1024;

/// Fields that the listing leaves out and the case fills in.
#[derive(Clone, Copy, Default)]
struct Filled {
    msg_iovlen: bool,
    iov_len: bool,
    msg_namelen: bool,
}

impl Filled {
    const WITHOUT_NAMELEN: Filled = Filled { msg_iovlen: true, iov_len: true, msg_namelen: false };
    const ALL: Filled = Filled { msg_namelen: true, ..Filled::WITHOUT_NAMELEN };
}

/// The variables of the listing.
struct Client {
    socket: Socket,
    /// nlh: header and payload.
    message: Vec<u8>,
    filled: Filled,
    /// dest_addr.nl_pid.
    to: u32,
}

impl Client {
    /// Creates a client with `message`, in a buffer of the listing's size.
    fn new(protocol: i32, message: &[u8], filled: Filled) -> Result<Client, BoxError> {
        let (socket, _) = bound(protocol)?;
        let mut message = message.to_vec();
        message.resize(HEADER_BYTES + MAX_PAYLOAD, 0);
        Ok(Client { socket, message, filled, to: 0 })
    }

    /// Calls `call` with the listing's msghdr.
    fn call(&mut self, call: impl FnOnce(i32, &mut libc::msghdr) -> isize) -> Result<usize, Errno> {
        // SAFETY: sockaddr_nl consists of integers, for which zero is valid.
        let mut dest_addr: libc::sockaddr_nl = unsafe { zeroed() };
        dest_addr.nl_family = libc::AF_NETLINK as u16;
        dest_addr.nl_pid = self.to;
        let mut iov = libc::iovec { iov_base: self.message.as_mut_ptr().cast(), iov_len: 0 };
        if self.filled.iov_len {
            iov.iov_len = self.message.len();
        }
        let mut msg = zero_msghdr();
        msg.msg_name = (&raw mut dest_addr).cast();
        msg.msg_iov = &mut iov;
        if self.filled.msg_iovlen {
            msg.msg_iovlen = 1;
        }
        if self.filled.msg_namelen {
            msg.msg_namelen = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        }
        check(call(self.socket.as_raw_fd(), &mut msg))
    }

    fn send(&mut self) -> Result<usize, Errno> {
        // SAFETY: everything that the header points to outlives the call.
        self.call(|fd, msg| unsafe { libc::sendmsg(fd, msg, 0) })
    }

    /// Receives without blocking. The listing would block forever.
    fn receive(&mut self) -> Result<usize, Errno> {
        // SAFETY: everything that the header points to outlives the call.
        self.call(|fd, msg| unsafe { libc::recvmsg(fd, msg, libc::MSG_DONTWAIT) })
    }

    /// Waits for the answer, which a thread of the paper's module sends.
    fn wait(&self) -> Result<bool, BoxError> {
        Ok(self.socket.poll(libc::POLLIN, Some(Duration::from_secs(5)))? != 0)
    }
}

/// The listing's message: type and payload, but no length.
fn printed_message() -> Vec<u8> {
    let header = Header { length: 0, kind: 0x10, ..Header::default() };
    [&header.to_bytes()[..], b"buf"].concat()
}

fn as_printed(evidence: &mut Evidence) -> Result<(), BoxError> {
    module::paper(Duration::ZERO)?;
    let stages = [
        ("as_printed", Filled::default()),
        ("with_iovlen", Filled { msg_iovlen: true, ..Filled::default() }),
        ("with_iov_len", Filled::WITHOUT_NAMELEN),
        ("with_namelen", Filled::ALL),
    ];
    for (name, filled) in stages {
        let mut client = Client::new(PAPER, &printed_message(), filled)?;
        let sent = client.send();
        evidence.outcome(name, &sent);
        let answered = if sent.is_ok() && client.wait()? {
            // The module returns the payload in a message of type
            // NLRIG_MSG_DATA.
            let got = client.receive()?;
            let header = Header::from_bytes(&client.message[..got]);
            header.is_some_and(|header| u32::from(header.kind) == NLRIG_MSG_DATA)
        } else {
            false
        };
        evidence.note(&format!("{name}_answered"), answered);
    }
    Ok(())
}

fn without_the_length_of_the_address(evidence: &mut Evidence) -> Result<(), BoxError> {
    for (name, filled) in [("as_printed", Filled::WITHOUT_NAMELEN), ("with_namelen", Filled::ALL)] {
        let (named, portid) = bound(PRIVATE)?;
        let mut client = Client::new(PRIVATE, &echo_request(1), filled)?;
        client.to = portid;
        client.send()?;
        evidence.note(&format!("{name}_heard_there"), count_received(&named)?);
        evidence.note(&format!("{name}_heard_of_the_kernel"), count_received(&client.socket)?);
    }
    Ok(())
}

fn without_the_length_of_the_message(evidence: &mut Evidence) -> Result<(), BoxError> {
    module::paper(Duration::ZERO)?;
    let mut client = Client::new(PAPER, &printed_message(), Filled::ALL)?;
    evidence.outcome("to_the_paper", &client.send());
    evidence.note("to_the_paper_answered", client.wait()?);

    let whole = echo_request(1);
    let header = Header::from_bytes(&whole).ok_or("no header")?;
    let lengthless = [&Header { length: 0, ..header }.to_bytes(), &whole[HEADER_BYTES..]].concat();
    for (name, message) in [("to_netlink_rcv_skb", lengthless), ("with_nlmsg_len", whole)] {
        let mut client = Client::new(PRIVATE, &message, Filled::ALL)?;
        evidence.outcome(name, &client.send());
        // The module answers before sendmsg() returns, or never.
        let answer = client.receive().is_ok() && is_echo(&client.message, 1);
        evidence.note(&format!("{name}_answered"), answer);
    }
    Ok(())
}

fn the_same_header_again(evidence: &mut Evidence) -> Result<(), BoxError> {
    module::paper(Duration::ZERO)?;
    for (name, filled) in [("as_printed", Filled::default()), ("with_lengths", Filled::ALL)] {
        let mut client = Client::new(PAPER, &printed_message(), filled)?;
        // A well-formed request, so that there is an answer.
        let request = builder::message(Header::new(0x10, 0, 1), b"buf");
        client.socket.send(&request, 0)?;
        if !client.wait()? {
            return Err("timed out waiting for the paper's module".into());
        }
        evidence.note(&format!("{name}_bytes"), client.receive()?);
        let again = client.socket.recv(&mut [0; 64], libc::MSG_DONTWAIT);
        evidence.outcome(&format!("{name}_recv_after_it"), &again);
    }
    Ok(())
}
