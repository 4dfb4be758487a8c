//! Claims about the calls for sending and receiving, and their differences.

use std::mem::zeroed;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nlrig_guest::uapi::*;
use nlrig_netlink::wire::{HEADER_BYTES, NLM_F_REQUEST};
use nlrig_netlink::{Address, Errno, Group, GroupMask, Header, Messages, Socket, builder};

use crate::Cases;
use crate::evidence::{BoxError, Evidence};
use crate::module::{self, SendRequest};
use crate::peers::{FREE_PORT, FullQueue, bound, count_received, message, ms_since};

pub const CASES: Cases = &[
    ("A25.1", sendto_and_recvfrom),
    ("A25.2", the_address_of_recvfrom),
    ("A37.1", raw_and_datagram),
    ("A37.2", other_types),
    ("A38.1", flags_of_sendmsg),
    ("A38.2", flags_of_recvmsg),
    ("A38.3", flags_after_recvmsg),
    ("A39.1", all_pairs),
    ("A39.2", one_pair_for_all),
    ("A39.3", control_messages),
    ("A39.4", without_an_address),
];

const PROTOCOL: i32 = NETLINK_NLRIG as i32;
/// The longest time for a call that should not block.
const LIMIT: Duration = Duration::from_millis(600);

/// Converts the result of a system call.
pub fn check(result: isize) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| Errno::last())
}

/// A zeroed msghdr.
pub fn zero_msghdr() -> libc::msghdr {
    // SAFETY: msghdr consists of integers and pointers, for which zero is
    // valid.
    unsafe { zeroed() }
}

/// An iovec for sending `bytes`.
fn iovec_of(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

/// An iovec for receiving into `bytes`.
fn iovec_into(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
}

/// sendmsg() of `parts` without an address, with the given msg_flags.
fn send_parts(
    socket: &Socket,
    parts: &mut [libc::iovec],
    msg_flags: i32,
    flags: i32,
) -> Result<usize, Errno> {
    let mut header = zero_msghdr();
    header.msg_iov = parts.as_mut_ptr();
    header.msg_iovlen = parts.len() as _;
    header.msg_flags = msg_flags;
    // SAFETY: the caller's iovecs point to live slices.
    check(unsafe { libc::sendmsg(socket.as_raw_fd(), &header, flags) })
}

/// recvmsg() into `parts`, with the given initial msg_flags. Also returns the
/// final msg_flags.
fn receive_parts(
    socket: &Socket,
    parts: &mut [libc::iovec],
    msg_flags: i32,
    flags: i32,
) -> Result<(usize, i32), Errno> {
    let mut header = zero_msghdr();
    header.msg_iov = parts.as_mut_ptr();
    header.msg_iovlen = parts.len() as _;
    header.msg_flags = msg_flags;
    // SAFETY: the caller's iovecs point to live slices that it borrows mutably.
    let got = check(unsafe { libc::recvmsg(socket.as_raw_fd(), &mut header, flags) })?;
    Ok((got, header.msg_flags))
}

/// An echo request.
pub fn echo_request(sequence: u32) -> Vec<u8> {
    let header = Header::new(NLRIG_MSG_ECHO as u16, NLM_F_REQUEST, sequence);
    // The cookie; the rest of the body must be zero.
    let mut body = [0; size_of::<nlrig_echo>()];
    body[..8].fill(7);
    builder::message(header, &body)
}

/// Whether `bytes` are the reply to the echo request with this sequence number.
pub fn is_echo(bytes: &[u8], sequence: u32) -> bool {
    Messages::new(bytes).next().and_then(Result::ok).is_some_and(|answer| {
        u32::from(answer.header.kind) == NLRIG_MSG_ECHO_REPLY && answer.header.sequence == sequence
    })
}

/// The text after the header, up to the NUL.
fn text(datagram: &[u8]) -> String {
    let body = datagram.get(HEADER_BYTES..).unwrap_or_default();
    let body = body.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(body).into_owned()
}

fn sendto_and_recvfrom(evidence: &mut Evidence) -> Result<(), BoxError> {
    const REPLIES: u32 = 2;
    module::article(REPLIES, Duration::from_millis(10))?;
    let socket = Socket::new(NETLINK_NLRIG_ARTICLE as i32)?;
    socket.bind(100, GroupMask::NONE)?;
    let mut body = b"Hello you!".to_vec();
    body.resize(1024, 0);
    let greeting = builder::message(Header { portid: 100, ..Header::default() }, &body);

    evidence.outcome("sendto", &socket.send_to(&greeting, Address::KERNEL, 0));
    let mut buffer = [0; 2048];
    let mut answers = Vec::new();
    while let Ok(got) = socket.recv_from(&mut buffer, libc::MSG_DONTWAIT) {
        answers.push(buffer[..got.length].to_vec());
    }
    evidence.note("answers", answers.len());
    evidence.note("text", answers.first().map_or(String::new(), |answer| text(answer)));

    socket.send_message(&greeting, Some(Address::KERNEL), 0)?;
    let got = socket.recv_message(&mut buffer, libc::MSG_DONTWAIT)?;
    let same = answers.first().is_some_and(|answer| *answer == buffer[..got.length]);
    evidence.note("same_with_sendmsg_and_recvmsg", same);
    count_received(&socket)?;
    Ok(())
}

fn the_address_of_recvfrom(evidence: &mut Evidence) -> Result<(), BoxError> {
    let ((sender, from), (receiver, to)) = (bound(PROTOCOL)?, bound(PROTOCOL)?);
    for _ in 0..2 {
        sender.send_to(&message(b"who"), Address::port(to), 0)?;
    }
    let mut buffer = [0; 64];
    let got = receiver.recv_from(&mut buffer, libc::MSG_DONTWAIT)?;
    evidence.note("recvfrom_says_who", got.from.portid == from);
    let got = receiver.recv_message(&mut buffer, libc::MSG_DONTWAIT)?;
    evidence.note("recvmsg_says_who", got.from.portid == from);
    Ok(())
}

fn raw_and_datagram(evidence: &mut Evidence) -> Result<(), BoxError> {
    let mut answers = Vec::new();
    for (name, kind) in [("raw", libc::SOCK_RAW), ("dgram", libc::SOCK_DGRAM)] {
        let socket = Socket::with_type(kind | libc::SOCK_CLOEXEC, PROTOCOL);
        evidence.outcome(name, &socket);
        let Ok(socket) = socket else { continue };
        // Both sockets use the same port, because the reply contains it.
        socket.bind(FREE_PORT, GroupMask::NONE)?;
        socket.send_to(&echo_request(1), Address::KERNEL, 0)?;
        let mut buffer = [0; 256];
        let got = socket.recv(&mut buffer, libc::MSG_DONTWAIT)?;
        evidence.note(&format!("{name}_answered"), is_echo(&buffer[..got], 1));
        answers.push(buffer[..got].to_vec());
    }
    evidence.note("same_answer", answers.len() == 2 && answers[0] == answers[1]);
    Ok(())
}

fn other_types(evidence: &mut Evidence) -> Result<(), BoxError> {
    let types = [
        ("stream", libc::SOCK_STREAM),
        ("seqpacket", libc::SOCK_SEQPACKET),
        ("rdm", libc::SOCK_RDM),
        ("packet", 10),
    ];
    for (name, kind) in types {
        evidence.outcome(name, &Socket::with_type(kind | libc::SOCK_CLOEXEC, PROTOCOL));
    }
    Ok(())
}

fn flags_of_sendmsg(evidence: &mut Evidence) -> Result<(), BoxError> {
    let peer = FullQueue::new()?;
    peer.sender.connect(peer.portid, GroupMask::NONE)?;
    peer.sender.set_send_timeout(Some(LIMIT))?;
    let text = message(b"one too many");
    for (name, msg_flags, flags) in
        [("in_msg_flags", libc::MSG_DONTWAIT, 0), ("as_argument", 0, libc::MSG_DONTWAIT)]
    {
        let start = Instant::now();
        let result = send_parts(&peer.sender, &mut [iovec_of(&text)], msg_flags, flags);
        evidence.note(&format!("{name}_ms"), ms_since(start));
        evidence.outcome(name, &result);
    }
    Ok(())
}

fn flags_of_recvmsg(evidence: &mut Evidence) -> Result<(), BoxError> {
    let (socket, _) = bound(PROTOCOL)?;
    socket.set_receive_timeout(Some(LIMIT))?;
    for (name, msg_flags, flags) in
        [("in_msg_flags", libc::MSG_DONTWAIT, 0), ("as_argument", 0, libc::MSG_DONTWAIT)]
    {
        let start = Instant::now();
        let result = receive_parts(&socket, &mut [iovec_into(&mut [0; 64])], msg_flags, flags);
        evidence.note(&format!("{name}_ms"), ms_since(start));
        evidence.outcome(name, &result);
    }
    Ok(())
}

fn flags_after_recvmsg(evidence: &mut Evidence) -> Result<(), BoxError> {
    let ((sender, _), (receiver, to)) = (bound(PROTOCOL)?, bound(PROTOCOL)?);
    sender.send_to(&message(&[1; 84]), Address::port(to), 0)?;
    let mut buffer = [0; 16];
    let parts = &mut [iovec_into(&mut buffer)];
    let (_, flags) = receive_parts(&receiver, parts, libc::MSG_PEEK, libc::MSG_DONTWAIT)?;
    evidence.note("peek_is_left", flags & libc::MSG_PEEK != 0);
    evidence.note("says_truncated", flags & libc::MSG_TRUNC != 0);
    evidence.outcome("second_recv", &receiver.recv(&mut buffer, libc::MSG_DONTWAIT));
    Ok(())
}

/// A pair of calls: sends a request and receives the reply.
type Pair = fn(&Socket, &[u8], &mut [u8]) -> Result<usize, Errno>;

const PAIRS: [(&str, Pair); 5] = [
    ("send_recv", |socket, request, answer| {
        socket.send(request, 0)?;
        socket.recv(answer, libc::MSG_DONTWAIT)
    }),
    ("write_read", |socket, request, answer| {
        write(socket, request)?;
        let (room, length) = (answer.as_mut_ptr().cast(), answer.len());
        // SAFETY: the pointer and the length are those of `answer`.
        check(unsafe { libc::read(socket.as_raw_fd(), room, length) })
    }),
    ("writev_readv", |socket, request, answer| {
        writev(socket, request)?;
        let (first, second) = answer.split_at_mut(10);
        let parts = [iovec_into(first), iovec_into(second)];
        // SAFETY: the iovecs point into `answer`.
        check(unsafe { libc::readv(socket.as_raw_fd(), parts.as_ptr(), 2) })
    }),
    ("sendto_recvfrom", |socket, request, answer| {
        socket.send_to(request, Address::KERNEL, 0)?;
        socket.recv_from(answer, libc::MSG_DONTWAIT).map(|got| got.length)
    }),
    ("sendmsg_recvmsg", |socket, request, answer| {
        socket.send_message(request, Some(Address::KERNEL), 0)?;
        socket.recv_message(answer, libc::MSG_DONTWAIT).map(|got| got.length)
    }),
];

fn write(socket: &Socket, bytes: &[u8]) -> Result<usize, Errno> {
    // SAFETY: the pointer and the length are those of `bytes`.
    check(unsafe { libc::write(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) })
}

/// writev() in two parts.
fn writev(socket: &Socket, bytes: &[u8]) -> Result<usize, Errno> {
    let (first, second) = bytes.split_at(10);
    let parts = [iovec_of(first), iovec_of(second)];
    // SAFETY: the iovecs point into `bytes`.
    check(unsafe { libc::writev(socket.as_raw_fd(), parts.as_ptr(), 2) })
}

fn all_pairs(evidence: &mut Evidence) -> Result<(), BoxError> {
    let (socket, _) = bound(PROTOCOL)?;
    // read() and readv() take no flags, so a timeout keeps them from blocking.
    socket.set_receive_timeout(Some(Duration::from_secs(1)))?;
    for ((name, pair), sequence) in PAIRS.into_iter().zip(1..) {
        let mut answer = [0; 256];
        let result = pair(&socket, &echo_request(sequence), &mut answer);
        evidence.note(
            name,
            match result {
                Ok(got) if is_echo(&answer[..got], sequence) => "ok".to_string(),
                Ok(got) => format!("{got} other bytes"),
                Err(errno) => errno.to_string(),
            },
        );
    }
    Ok(())
}

fn one_pair_for_all(evidence: &mut Evidence) -> Result<(), BoxError> {
    let ((sender, from), (peer, to)) = (bound(PROTOCOL)?, bound(PROTOCOL)?);
    let (other, other_port) = bound(PROTOCOL)?;
    sender.connect(to, GroupMask::NONE)?;
    let text = message(b"as the others do");

    sender.send_message(&text, None, 0)?;
    evidence.note("as_send", count_received(&peer)? == 1);
    sender.send_message(&text, Some(Address::port(other_port)), 0)?;
    evidence.note("as_sendto", count_received(&other)? == 1 && count_received(&peer)? == 0);

    let (first, second) = text.split_at(10);
    send_parts(&sender, &mut [iovec_of(first), iovec_of(second)], 0, 0)?;
    let mut buffer = [0; 64];
    let seen = peer.recv_message(&mut buffer, libc::MSG_PEEK | libc::MSG_DONTWAIT)?;
    evidence.note("as_writev", buffer[..seen.length] == text);
    evidence.note("as_recvfrom", seen.from.portid == from);
    let (mut first, mut second) = ([0; 10], [0; 54]);
    let parts = &mut [iovec_into(&mut first), iovec_into(&mut second)];
    let again = receive_parts(&peer, parts, 0, libc::MSG_DONTWAIT);
    // The first recvmsg() only peeked, so the message is still queued.
    evidence.note("as_recv", again.is_ok());
    let (got, _) = again?;
    evidence.note("as_readv", [&first[..], &second].concat()[..got] == text);
    Ok(())
}

fn control_messages(evidence: &mut Evidence) -> Result<(), BoxError> {
    let (socket, _) = bound(PROTOCOL)?;
    socket.join(Group(5))?;
    socket.set_packet_info(true)?;
    SendRequest { count: 1, size: 4, group: Some(5), ..SendRequest::default() }.run()?;
    let got = socket.recv_message(&mut [0; 64], libc::MSG_DONTWAIT)?;
    evidence.note("group_in_msg_control", got.group.map_or(-1, |group| i64::from(group.0)));
    Ok(())
}

fn without_an_address(evidence: &mut Evidence) -> Result<(), BoxError> {
    let send: Pair = |socket, bytes, _| socket.send(bytes, 0);
    let write: Pair = |socket, bytes, _| write(socket, bytes);
    let writev: Pair = |socket, bytes, _| writev(socket, bytes);
    let (socket, _) = bound(PROTOCOL)?;
    for (name, call) in [("send", send), ("write", write), ("writev", writev)] {
        evidence.outcome(name, &call(&socket, &echo_request(1), &mut []));
    }
    evidence.note("answers_of_the_kernel", count_received(&socket)?);
    let (peer, portid) = bound(PROTOCOL)?;
    socket.connect(portid, GroupMask::NONE)?;
    for call in [send, write, writev] {
        call(&socket, &echo_request(1), &mut [])?;
    }
    evidence.note("heard_where_it_is_connected", count_received(&peer)?);
    evidence.note("answers_of_the_kernel_then", count_received(&socket)?);
    // The kernel answers a request sent to its address, but the connected
    // socket does not receive from it.
    socket.send_to(&echo_request(1), Address::KERNEL, 0)?;
    evidence.note("answers_to_sendto_then", count_received(&socket)?);
    Ok(())
}
