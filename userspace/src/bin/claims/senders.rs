//! Claims about senders: source ports and nlmsg_pid, and how the kernel uses
//! them.

use std::time::Duration;

use nlrig_guest::uapi::*;
use nlrig_netlink::builder::message;
use nlrig_netlink::wire::{NLM_F_DUMP, NLM_F_REQUEST};
use nlrig_netlink::{Address, Errno, Header};
use serde_json::json;

use crate::Cases;
use crate::evidence::{BoxError, Evidence};
use crate::module::{self, SendRequest};
use crate::ports::{bound, greeting, receive_answers};
use crate::process::run_as_user;
use crate::state::State;

pub const CASES: Cases = &[
    ("A16.1", headers_arrive_as_written),
    ("A16.2", answers_without_nlmsg_pid),
    ("A16.3", no_answer_and_no_nlmsg_pid),
    ("A16.4", bytes_without_a_header),
    ("A16.5", messages_as_the_clients_fill_them),
    ("A17.1", forged_port),
    ("A17.2", forged_port_and_source_port),
    ("A18.1", unused_port),
    ("A18.2", unused_port_and_the_module),
    ("A20.1", second_socket_of_the_kernel),
    ("A20.2", kernel_sends_to_port_0),
];

const ARTICLE: i32 = NETLINK_NLRIG_ARTICLE as i32;
/// The port of the article's clients.
const PORT: u32 = 100;
/// The victim's port in the article's example.
const VICTIM: u32 = 101;
/// A port that no socket has: above all process ids and below the ports that
/// the kernel chooses.
const UNUSED_PORT: u32 = 1_000_000_009;
const REPLIES: u32 = 10;
/// An unprivileged user.
const USER: u32 = 1000;

fn headers_arrive_as_written(evidence: &mut Evidence) -> Result<(), BoxError> {
    // All fields are wrong.
    let header =
        Header { length: 7777, kind: 0xabcd, flags: 0xf0f0, sequence: 99, portid: UNUSED_PORT };
    let written = [&header.to_bytes()[..], b"body"].concat();

    module::article(0, Duration::ZERO)?;
    let client = bound(ARTICLE, PORT)?;
    State::reset()?;
    evidence.outcome("send_to_the_kernel", &client.send_to(&written, Address::KERNEL, 0));
    let state = State::read()?;
    let length = state.article.length as usize;
    evidence.note("kernel_got_length_as_sent", length == written.len());
    evidence.note("kernel_got_nlmsg_pid_as_written", state.article.nlmsg_pid == UNUSED_PORT);

    let (sender, receiver) =
        (bound(libc::NETLINK_USERSOCK, PORT)?, bound(libc::NETLINK_USERSOCK, VICTIM)?);
    evidence.outcome("send_to_a_user", &sender.send_to(&written, Address::port(VICTIM), 0));
    let mut buffer = [0; 256];
    let length = receiver.recv(&mut buffer, libc::MSG_DONTWAIT)?;
    evidence.note("user_got_bytes_as_written", buffer.get(..length) == Some(&written));
    Ok(())
}

fn answers_without_nlmsg_pid(evidence: &mut Evidence) -> Result<(), BoxError> {
    module::article(REPLIES, Duration::ZERO)?;
    module::set("article_reply_to_source", 1)?;
    let client = bound(ARTICLE, PORT)?;
    State::reset()?;
    client.send_to(&greeting(0), Address::KERNEL, 0)?;
    evidence.note("kernel_saw", State::read()?.article.src_portid);
    evidence.note("answers", receive_answers(&client));
    module::set("article_reply_to_source", 0)?;
    Ok(())
}

fn no_answer_and_no_nlmsg_pid(evidence: &mut Evidence) -> Result<(), BoxError> {
    module::article(0, Duration::ZERO)?;
    let client = bound(ARTICLE, PORT)?;
    State::reset()?;
    evidence.outcome("send", &client.send_to(&greeting(0), Address::KERNEL, 0));
    evidence.note("kernel_called", State::read()?.article.calls.total);
    Ok(())
}

fn bytes_without_a_header(evidence: &mut Evidence) -> Result<(), BoxError> {
    module::article(REPLIES, Duration::ZERO)?;
    let client = bound(ARTICLE, PORT)?;
    State::reset()?;
    evidence.outcome("send", &client.send_to(&[1, 2, 3], Address::KERNEL, 0));
    let state = State::read()?;
    evidence.note("kernel_called", state.article.calls.total);
    evidence.note("kernel_got_bytes", state.article.length);
    Ok(())
}

fn messages_as_the_clients_fill_them(evidence: &mut Evidence) -> Result<(), BoxError> {
    module::article(1, Duration::ZERO)?;
    let answers = |protocol, header: Header, body: &[u8]| -> Result<u32, BoxError> {
        let client = bound(protocol, PORT)?;
        client.send_to(&message(Header { portid: PORT, ..header }, body), Address::KERNEL, 0)?;
        Ok(receive_answers(&client))
    };
    evidence.note("article", answers(ARTICLE, Header::default(), &[0; 16])?);
    let (link, echo) = (libc::RTM_GETLINK, NLRIG_MSG_ECHO as u16);
    for (key, protocol, kind, flags) in [
        ("rtnetlink_type_0_flags_0", libc::NETLINK_ROUTE, 0, 0),
        ("rtnetlink_type_0", libc::NETLINK_ROUTE, 0, NLM_F_REQUEST),
        ("rtnetlink_flags_0", libc::NETLINK_ROUTE, link, 0),
        ("rtnetlink", libc::NETLINK_ROUTE, link, NLM_F_REQUEST | NLM_F_DUMP),
        ("echo_flags_0", NETLINK_NLRIG as i32, echo, 0),
        ("echo", NETLINK_NLRIG as i32, echo, NLM_F_REQUEST),
    ] {
        evidence.note(key, answers(protocol, Header::new(kind, flags, 1), &[0; 16])?);
    }
    Ok(())
}

/// An unprivileged process sends with another socket's port in nlmsg_pid.
/// Returns the number of answers that the process receives itself.
fn forge() -> Result<u64, BoxError> {
    let seen = run_as_user(USER, || {
        let forger = bound(ARTICLE, PORT)?;
        forger.send_to(&greeting(VICTIM), Address::KERNEL, 0)?;
        Ok(json!(receive_answers(&forger)))
    })?;
    seen.as_u64().ok_or_else(|| "the child did not report a number of answers".into())
}

fn forged_port(evidence: &mut Evidence) -> Result<(), BoxError> {
    module::article(REPLIES, Duration::ZERO)?;
    let victim = bound(ARTICLE, VICTIM)?;
    evidence.note("answers_to_the_sender", forge()?);
    evidence.note("answers_to_the_other", receive_answers(&victim));
    Ok(())
}

fn forged_port_and_source_port(evidence: &mut Evidence) -> Result<(), BoxError> {
    module::article(REPLIES, Duration::ZERO)?;
    module::set("article_reply_to_source", 1)?;
    let victim = bound(ARTICLE, VICTIM)?;
    State::reset()?;
    let answers = forge();
    module::set("article_reply_to_source", 0)?;
    evidence.note("answers_to_the_sender", answers?);
    evidence.note("answers_to_the_other", receive_answers(&victim));
    let state = State::read()?;
    evidence.note("nlmsg_pid_said", state.article.nlmsg_pid);
    evidence.note("kernel_saw", state.article.src_portid);
    Ok(())
}

fn unused_port(evidence: &mut Evidence) -> Result<(), BoxError> {
    module::article(REPLIES, Duration::ZERO)?;
    let client = bound(ARTICLE, PORT)?;
    State::reset()?;
    evidence.outcome("send", &client.send_to(&greeting(UNUSED_PORT), Address::KERNEL, 0));
    evidence.note("kernel_called", State::read()?.article.calls.total);
    Ok(())
}

fn unused_port_and_the_module(evidence: &mut Evidence) -> Result<(), BoxError> {
    module::article(REPLIES, Duration::ZERO)?;
    let client = bound(ARTICLE, PORT)?;
    State::reset()?;
    client.send_to(&greeting(UNUSED_PORT), Address::KERNEL, 0)?;
    let state = State::read()?;
    evidence.note("answers_taken", state.article.sent);
    evidence.note("answers_refused", state.article.refused);
    let errno = Errno(state.article.errno as i32);
    evidence.note("refused_with", errno.to_string());
    client.send_to(&greeting(PORT), Address::KERNEL, 0)?;
    evidence.note("answers_afterwards", receive_answers(&client));
    Ok(())
}

fn second_socket_of_the_kernel(evidence: &mut Evidence) -> Result<(), BoxError> {
    let same = module::set("article", NETLINK_NLRIG)
        .map_err(|err| Errno(err.raw_os_error().unwrap_or_default()));
    evidence.outcome("second_of_the_same_protocol", &same);
    if same.is_err() {
        let another = module::set("article", NETLINK_NLRIG_ARTICLE)
            .map_err(|err| Errno(err.raw_os_error().unwrap_or_default()));
        evidence.outcome("first_of_another_protocol", &another);
    }
    Ok(())
}

fn kernel_sends_to_port_0(evidence: &mut Evidence) -> Result<(), BoxError> {
    module::article(0, Duration::ZERO)?;
    State::reset()?;
    let request = SendRequest {
        count: 3,
        portid: Some(0),
        protocol: Some(NETLINK_NLRIG_ARTICLE),
        ..SendRequest::default()
    };
    let state = request.run()?;
    evidence.note("sent", state.send.sent);
    evidence.note("own_callback_called", state.article.calls.total);
    evidence.note("from_port", state.article.src_portid);
    Ok(())
}
