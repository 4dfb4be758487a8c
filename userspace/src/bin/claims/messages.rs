//! Claims about messages: types, flags, sequence numbers, answers and sizes.

use std::time::Duration;

use nlrig_guest::uapi::*;
use nlrig_netlink::builder::message;
use nlrig_netlink::wire::{
    HEADER_BYTES, NLM_F_ACK, NLM_F_MULTI, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP,
};
use nlrig_netlink::{Ack, Address, Errno, GroupMask, Header, MessageBuilder, Messages, Socket};

use crate::Cases;
use crate::evidence::{BoxError, Evidence};
use crate::module::{self, SendRequest};

pub const CASES: Cases = &[
    ("A34.2", noop_does_nothing),
    ("A34.3", an_error_of_0_is_an_acknowledgement),
    ("A35.1", the_last_message_of_a_dump),
    ("A35.2", the_other_messages_of_a_dump),
    ("A35.3", the_flag_of_the_last_message),
    ("A35.4", acknowledgements),
    ("A35.5", sequence_numbers),
    ("A35.6", an_error_has_the_request),
    ("A35.7", an_error_has_a_text),
    ("B7.1", the_largest_message_to_the_kernel),
    ("B7.2", the_largest_message_from_the_kernel),
    ("B8.1", type_0),
    ("B8.2", flags_arrive_as_they_were_sent),
    ("B8.3", flags_0),
];

const PROTOCOL: i32 = NETLINK_NLRIG as i32;
/// A type that the module does not know.
const UNKNOWN: u16 = 1000;
/// The body of an echo.
const ECHO: [u8; size_of::<nlrig_echo>()] = [0; _];

/// Sends a datagram to the kernel and receives all answers. The module answers
/// before send() returns, and a dump continues while it is read.
fn exchange(socket: &Socket, request: &[u8]) -> Result<Vec<Vec<u8>>, BoxError> {
    socket.send_to(request, Address::KERNEL, 0)?;
    let mut answers = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match socket.recv(&mut buffer, libc::MSG_DONTWAIT) {
            Ok(length) => answers.push(buffer[..length].to_vec()),
            Err(Errno(libc::EAGAIN)) => return Ok(answers),
            Err(err) => return Err(err.into()),
        }
    }
}

/// The headers of all messages in `datagrams`.
fn headers(datagrams: &[Vec<u8>]) -> Result<Vec<Header>, BoxError> {
    let messages = datagrams.iter().flat_map(|datagram| Messages::new(datagram));
    Ok(messages.map(|message| message.map(|message| message.header)).collect::<Result<_, _>>()?)
}

/// Calls `read` with the acknowledgement in `datagrams`. None if there is none.
fn acknowledgement<T>(
    datagrams: &[Vec<u8>],
    read: impl FnOnce(Ack<'_>) -> T,
) -> Result<Option<T>, BoxError> {
    for datagram in datagrams {
        for message in Messages::new(datagram) {
            if let Some(ack) = message?.ack() {
                return Ok(Some(read(ack?)));
            }
        }
    }
    Ok(None)
}

/// The result of the acknowledgement in `datagrams`: `ok`, the name of an
/// errno, or `none`.
fn verdict(datagrams: &[Vec<u8>]) -> Result<String, BoxError> {
    let result = acknowledgement(datagrams, |ack| ack.result())?;
    Ok(match result {
        None => "none".to_string(),
        Some(Ok(())) => "ok".to_string(),
        Some(Err(err)) => err.to_string(),
    })
}

fn count_of(kind: u32, datagrams: &[Vec<u8>]) -> Result<usize, BoxError> {
    Ok(headers(datagrams)?.iter().filter(|header| u32::from(header.kind) == kind).count())
}

fn echo(flags: u16, sequence: u32) -> Vec<u8> {
    message(Header::new(NLRIG_MSG_ECHO as u16, flags, sequence), &ECHO)
}

/// The datagrams with which the article's module answers a message with this
/// header.
fn article_answers(header: Header) -> Result<Vec<Vec<u8>>, BoxError> {
    module::article(1, Duration::ZERO)?;
    let socket = Socket::new(NETLINK_NLRIG_ARTICLE as i32)?;
    socket.bind(0, GroupMask::NONE)?;
    let portid = socket.address()?.portid;
    exchange(&socket, &message(Header { portid, ..header }, b"Hello you!\0"))
}

fn noop_does_nothing(evidence: &mut Evidence) -> Result<(), BoxError> {
    let socket = Socket::new(PROTOCOL)?;
    let answers = exchange(&socket, &message(Header::ack(NLMSG_NOOP, 0, 1), &[]))?;
    evidence.note("noop", verdict(&answers)?);
    evidence.note("noop_answers", headers(&answers)?.len());
    let answers = exchange(&socket, &message(Header::ack(UNKNOWN, 0, 2), &[]))?;
    evidence.note("unknown", verdict(&answers)?);
    Ok(())
}

fn an_error_of_0_is_an_acknowledgement(evidence: &mut Evidence) -> Result<(), BoxError> {
    let socket = Socket::new(PROTOCOL)?;
    let answers = exchange(&socket, &echo(NLM_F_REQUEST | NLM_F_ACK, 1))?;
    evidence.note("errors_on_success", count_of(NLMSG_ERROR.into(), &answers)?);
    evidence.note("success", verdict(&answers)?);
    let answers = exchange(&socket, &message(Header::ack(UNKNOWN, 0, 2), &[]))?;
    evidence.note("failure", verdict(&answers)?);
    Ok(())
}

/// Received datagrams, in order.
type Datagrams = Vec<Vec<u8>>;

/// Two dumps: the links from rtnetlink, and one from the module that needs
/// several datagrams.
fn dumps() -> Result<[(&'static str, Datagrams); 2], BoxError> {
    let route = Socket::new(libc::NETLINK_ROUTE)?;
    let links = message(Header::dump(libc::RTM_GETLINK, 11), &[0; size_of::<IfInfo>()]);
    let ours = Socket::new(PROTOCOL)?;
    let mut request = MessageBuilder::new();
    request.message(Header::dump(NLRIG_MSG_DUMP as u16, 12), |body| {
        body.u32(NLRIG_A_DUMP_COUNT as u16, 1000);
    });
    Ok([("route", exchange(&route, &links)?), ("module", exchange(&ours, request.bytes()?)?)])
}

/// A type with the size of struct ifinfomsg.
type IfInfo = [u32; 4];

fn the_last_message_of_a_dump(evidence: &mut Evidence) -> Result<(), BoxError> {
    for (name, datagrams) in dumps()? {
        let headers = headers(&datagrams)?;
        let last = headers.last().ok_or("the dump is empty")?;
        evidence.note(&format!("{name}_datagrams"), datagrams.len());
        evidence.note(&format!("{name}_messages"), headers.len());
        evidence.note(&format!("{name}_last"), last.kind);
        let end = if last.kind == NLMSG_DONE { "done" } else { "another" };
        evidence.note(&format!("{name}_end"), end);
    }
    Ok(())
}

fn the_other_messages_of_a_dump(evidence: &mut Evidence) -> Result<(), BoxError> {
    for (name, datagrams) in dumps()? {
        let headers = headers(&datagrams)?;
        let rest = headers.iter().filter(|header| header.kind != NLMSG_DONE);
        let without = rest.filter(|header| !header.has(NLM_F_MULTI)).count();
        evidence.note(&format!("{name}_messages"), headers.len());
        evidence.note(&format!("{name}_without"), without);
    }
    Ok(())
}

fn the_flag_of_the_last_message(evidence: &mut Evidence) -> Result<(), BoxError> {
    for (name, datagrams) in dumps()? {
        let headers = headers(&datagrams)?;
        let done = headers.iter().find(|header| header.kind == NLMSG_DONE);
        let done = done.ok_or("a dump without NLMSG_DONE")?;
        evidence.note(&format!("{name}_done_has_it"), done.has(NLM_F_MULTI));
    }
    Ok(())
}

fn acknowledgements(evidence: &mut Evidence) -> Result<(), BoxError> {
    let socket = Socket::new(PROTOCOL)?;
    let kind = NLMSG_ERROR.into();
    let asked = exchange(&socket, &echo(NLM_F_REQUEST | NLM_F_ACK, 1))?;
    evidence.note("acks_if_asked", count_of(kind, &asked)?);
    let not = exchange(&socket, &echo(NLM_F_REQUEST, 2))?;
    evidence.note("acks_if_not", count_of(kind, &not)?);
    let theirs = article_answers(Header::ack(UNKNOWN, 0, 3))?;
    evidence.note("acks_of_the_articles_module", count_of(kind, &theirs)?);
    Ok(())
}

fn sequence_numbers(evidence: &mut Evidence) -> Result<(), BoxError> {
    let socket = Socket::new(PROTOCOL)?;
    let (mut answers, mut acks) = (Vec::new(), Vec::new());
    for sequence in [7, 3_000_000_000, 7, 0] {
        let datagrams = exchange(&socket, &echo(NLM_F_REQUEST | NLM_F_ACK, sequence))?;
        for header in headers(&datagrams)? {
            let list = if header.kind == NLMSG_ERROR { &mut acks } else { &mut answers };
            list.push(header.sequence.to_string());
        }
    }
    evidence.note("answers", answers.join(" "));
    evidence.note("acks", acks.join(" "));
    let [_, (_, dump)] = dumps()?;
    let others = headers(&dump)?.iter().filter(|header| header.sequence != 12).count();
    evidence.note("dump_with_another", others);
    Ok(())
}

fn an_error_has_the_request(evidence: &mut Evidence) -> Result<(), BoxError> {
    let socket = Socket::new(PROTOCOL)?;
    let body = b"what was sent";
    let request = message(Header::ack(UNKNOWN, 0, 5), body);
    let sent = Header::from_bytes(&request).ok_or("no header")?;
    let datagrams = exchange(&socket, &request)?;
    let (header, comes_back) =
        acknowledgement(&datagrams, |ack| (ack.header, ack.request == Some(body)))?
            .ok_or("received no acknowledgement")?;
    evidence.note("header_comes_back", header == sent);
    evidence.note("body_comes_back", comes_back);
    socket.set_capped_acks(true)?;
    let datagrams = exchange(&socket, &request)?;
    let comes_back = acknowledgement(&datagrams, |ack| ack.request.is_some())?;
    evidence.note("capped_body_comes_back", comes_back.ok_or("received no acknowledgement")?);
    Ok(())
}

fn an_error_has_a_text(evidence: &mut Evidence) -> Result<(), BoxError> {
    let socket = Socket::new(PROTOCOL)?;
    for (key, asked) in [("text_if_asked", true), ("text_if_not", false)] {
        socket.set_extended_acks(asked)?;
        let datagrams = exchange(&socket, &message(Header::ack(UNKNOWN, 0, 1), &[]))?;
        let text = acknowledgement(&datagrams, |ack| ack.message.unwrap_or("none").to_string())?;
        evidence.note(key, text.ok_or("received no acknowledgement")?);
    }
    Ok(())
}

/// The largest message that the kernel accepts from `socket`. The module skips
/// the message, because it is not a request.
fn largest(socket: &Socket, limit: usize) -> Result<usize, BoxError> {
    let mut bytes = vec![0; limit];
    let (mut fits, mut does_not) = (HEADER_BYTES, limit + 1);
    while fits + 1 < does_not {
        let length = usize::midpoint(fits, does_not);
        let header = Header { length: length as u32, ..Header::default() };
        bytes[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
        match socket.send_to(&bytes[..length], Address::KERNEL, 0) {
            Ok(_) => fits = length,
            Err(Errno(libc::EMSGSIZE)) => does_not = length,
            Err(err) => return Err(format!("{length} bytes: {err}").into()),
        }
    }
    Ok(fits)
}

fn the_largest_message_to_the_kernel(evidence: &mut Evidence) -> Result<(), BoxError> {
    const RAISED: i32 = 8 << 20;
    let socket = Socket::new(PROTOCOL)?;
    let buffer = usize::try_from(socket.send_buffer()?)?;
    let found = largest(&socket, 4 * buffer)?;
    evidence.note("send_buffer", buffer);
    evidence.note("largest", found);
    evidence.note("send_buffer_less_largest", buffer as i64 - found as i64);
    // The kernel doubles the value.
    socket.set_option(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, RAISED / 2)?;
    let found = largest(&socket, RAISED as usize + 4096)?;
    evidence.note("largest_in_a_send_buffer_of_8_mib", found);
    Ok(())
}

fn the_largest_message_from_the_kernel(evidence: &mut Evidence) -> Result<(), BoxError> {
    let socket = Socket::new(PROTOCOL)?;
    socket.bind(0, GroupMask::NONE)?;
    let room = socket.receive_buffer()?;
    evidence.note("receive_buffer", room);
    let mut largest = 0;
    for size in [4 << 10, 64 << 10, 512 << 10, NLRIG_SIZE_MAX] {
        let portid = Some(socket.address()?.portid);
        SendRequest { count: 1, size, portid, ..SendRequest::default() }.run()?;
        match socket.recv(&mut [0; 16], libc::MSG_DONTWAIT | libc::MSG_TRUNC) {
            Ok(length) => largest = largest.max(length),
            Err(err) => evidence.note(&format!("of_{size}_bytes"), err.to_string()),
        }
    }
    evidence.note("largest", largest);
    evidence
        .note("times_the_receive_buffer", (largest as f64 / f64::from(room) * 10.0).round() / 10.0);
    Ok(())
}

fn type_0(evidence: &mut Evidence) -> Result<(), BoxError> {
    let socket = Socket::new(PROTOCOL)?;
    let answers = exchange(&socket, &echo(NLM_F_REQUEST, 1))?;
    evidence.note("answers_to_its_type", answers.len());
    let answers = exchange(&socket, &message(Header::new(0, NLM_F_REQUEST, 2), &ECHO))?;
    evidence.note("answers_to_0", answers.len());
    let answers = article_answers(Header::new(0, NLM_F_REQUEST, 3))?;
    evidence.note("answers_of_the_articles_module", answers.len());
    Ok(())
}

fn flags_0(evidence: &mut Evidence) -> Result<(), BoxError> {
    let socket = Socket::new(PROTOCOL)?;
    let answers = exchange(&socket, &echo(NLM_F_REQUEST, 1))?;
    evidence.note("answers_to_a_request", answers.len());
    let answers = exchange(&socket, &echo(0, 2))?;
    evidence.note("answers_to_0", answers.len());
    let answers = article_answers(Header::new(UNKNOWN, 0, 3))?;
    evidence.note("answers_of_the_articles_module", answers.len());
    Ok(())
}

fn flags_arrive_as_they_were_sent(evidence: &mut Evidence) -> Result<(), BoxError> {
    let hex = |header: Header| format!("{:#06x}", header.flags);
    let (from, to) = (Socket::new(libc::NETLINK_USERSOCK)?, Socket::new(libc::NETLINK_USERSOCK)?);
    to.bind(0, GroupMask::NONE)?;
    let sent = message(Header::new(UNKNOWN, 0xffff, 1), b"hi");
    from.send_to(&sent, Address::port(to.address()?.portid), 0)?;
    let mut buffer = [0; 64];
    let length = to.recv(&mut buffer, libc::MSG_DONTWAIT)?;
    let seen = Header::from_bytes(&buffer[..length]).ok_or("received no message")?;
    evidence.note("seen_by_a_program", hex(seen));
    evidence.note("whole_message_is_the_same", buffer[..length] == sent);

    let socket = Socket::new(PROTOCOL)?;
    let header = Header::ack(UNKNOWN, 0xe0f0, 2);
    let datagrams = exchange(&socket, &message(header, &[]))?;
    let seen =
        acknowledgement(&datagrams, |ack| ack.header)?.ok_or("received no acknowledgement")?;
    evidence.note("sent_to_the_module", hex(header));
    evidence.note("seen_by_the_module", hex(seen));
    Ok(())
}
