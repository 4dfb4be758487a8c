//! Claims about the contexts from which the kernel sends unsolicited messages.

use std::time::{Duration, Instant};

use nlrig_guest::uapi::*;
use nlrig_netlink::{Errno, Group, GroupMask, Socket};

use crate::Cases;
use crate::evidence::{BoxError, Evidence};
use crate::module::SendRequest;
use crate::peers::{FREE_PORT, bound, count_received};
use crate::state::State;

pub const CASES: Cases = &[
    ("A26.1", the_kernel_initiates),
    ("A26.2", an_agreed_port),
    ("A31.1", in_process_context),
    ("A31.2", in_softirq),
    ("A31.3", in_hardirq),
    ("A31.4", a_full_queue_in_each),
];

const PROTOCOL: i32 = NETLINK_NLRIG as i32;
/// A port that both sides know in advance.
const AGREED: u32 = FREE_PORT;
const COUNT: u32 = 3;

/// A request for a few messages to a port, sent from `context`.
fn to_port(portid: u32, context: u32) -> SendRequest {
    SendRequest {
        count: COUNT,
        size: 4,
        delay_ms: 2,
        portid: Some(portid),
        context,
        ..SendRequest::default()
    }
}

/// Lets the kernel send from `context` to a port and to a group, and notes the
/// messages received.
fn note_sent(evidence: &mut Evidence, name: &str, context: u32) -> Result<(), BoxError> {
    let (socket, portid) = bound(PROTOCOL)?;
    let state = to_port(portid, context).run()?;
    evidence.note(&format!("{name}_in"), sending_context(&state));
    evidence.note(&format!("{name}_heard"), count_received(&socket)?);
    socket.join(Group(5))?;
    SendRequest { portid: None, group: Some(5), ..to_port(0, context) }.run()?;
    evidence.note(&format!("{name}_heard_in_group"), count_received(&socket)?);
    Ok(())
}

/// The context that the module recorded.
fn sending_context(state: &State) -> &'static str {
    match state.send.contexts {
        NLRIG_IN_TASK => "task",
        NLRIG_IN_SOFTIRQ => "softirq",
        NLRIG_IN_HARDIRQ => "hardirq",
        _ => "several",
    }
}

/// The errno of the first message that failed.
fn error(state: &State) -> String {
    match state.send.errno {
        0 => "none".to_string(),
        number => Errno(number as i32).to_string(),
    }
}

fn the_kernel_initiates(evidence: &mut Evidence) -> Result<(), BoxError> {
    // The socket only binds and receives.
    let socket = Socket::new(PROTOCOL)?;
    socket.bind(AGREED, GroupMask::NONE)?;
    let contexts = [
        ("call_of_another", NLRIG_CONTEXT_PROCESS),
        ("thread", NLRIG_CONTEXT_THREAD),
        ("timer", NLRIG_CONTEXT_TIMER),
        ("tasklet", NLRIG_CONTEXT_TASKLET),
    ];
    for (name, context) in contexts {
        to_port(AGREED, context).run()?;
        evidence.note(&format!("heard_from_{name}"), count_received(&socket)?);
    }
    // The timer fires while this socket blocks and no other socket is open.
    let requester = Socket::new(PROTOCOL)?;
    let request = SendRequest { count: 1, delay_ms: 100, ..to_port(AGREED, NLRIG_CONTEXT_TIMER) };
    request.submit(&requester)??;
    drop(requester);
    socket.set_receive_timeout(Some(Duration::from_secs(10)))?;
    evidence.outcome("recv_that_waited", &socket.recv(&mut [0; 64], 0));
    Ok(())
}

fn an_agreed_port(evidence: &mut Evidence) -> Result<(), BoxError> {
    let early = to_port(AGREED, NLRIG_CONTEXT_THREAD).run()?;
    evidence.note("sent_to_nobody", early.send.sent);
    evidence.note("error", error(&early));
    let socket = Socket::new(PROTOCOL)?;
    socket.bind(AGREED, GroupMask::NONE)?;
    evidence.note("heard_of_those", count_received(&socket)?);
    let late = to_port(AGREED, NLRIG_CONTEXT_THREAD).run()?;
    evidence.note("sent_to_a_socket", late.send.sent);
    evidence.note("heard_of_these", count_received(&socket)?);
    Ok(())
}

fn in_process_context(evidence: &mut Evidence) -> Result<(), BoxError> {
    note_sent(evidence, "call", NLRIG_CONTEXT_PROCESS)?;
    note_sent(evidence, "thread", NLRIG_CONTEXT_THREAD)
}

fn in_softirq(evidence: &mut Evidence) -> Result<(), BoxError> {
    note_sent(evidence, "timer", NLRIG_CONTEXT_TIMER)?;
    note_sent(evidence, "tasklet", NLRIG_CONTEXT_TASKLET)
}

fn in_hardirq(evidence: &mut Evidence) -> Result<(), BoxError> {
    note_sent(evidence, "hrtimer", NLRIG_CONTEXT_HARDIRQ)?;
    // Messages that must be freed in hardirq context.
    let nobody = to_port(AGREED, NLRIG_CONTEXT_HARDIRQ).run()?;
    evidence.note("error_with_nobody_there", error(&nobody));
    let (receiver, portid) = receiver_with_small_queue()?;
    let full = many_messages(portid, NLRIG_CONTEXT_HARDIRQ).run()?;
    evidence.note("error_with_a_full_queue", error(&full));
    read_all(&receiver, 0)?;
    Ok(())
}

/// A request for more messages than a small queue holds.
fn many_messages(portid: u32, context: u32) -> SendRequest {
    SendRequest { count: MANY_MESSAGES, size: 1000, delay_ms: 0, ..to_port(portid, context) }
}

const MANY_MESSAGES: u32 = 50;

/// A socket with the smallest receive buffer, and its port.
fn receiver_with_small_queue() -> Result<(Socket, u32), BoxError> {
    let (socket, portid) = bound(PROTOCOL)?;
    socket.set_receive_buffer(0)?;
    Ok((socket, portid))
}

/// Reads until at least `wanted` messages have arrived and the queue is empty.
/// Returns the numbers of messages and of ENOBUFS errors.
fn read_all(socket: &Socket, wanted: u32) -> Result<(u32, u32), BoxError> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let (mut messages, mut losses) = (0, 0);
    loop {
        match socket.recv(&mut [0; 2048], libc::MSG_DONTWAIT) {
            Ok(_) => messages += 1,
            Err(Errno(libc::ENOBUFS)) => losses += 1,
            Err(Errno(libc::EAGAIN)) if messages >= wanted || Instant::now() > deadline => {
                return Ok((messages, losses));
            }
            Err(Errno(libc::EAGAIN)) => {
                socket.poll(libc::POLLIN, Some(Duration::from_millis(10)))?;
            }
            Err(errno) => return Err(format!("recv failed: {errno}").into()),
        }
    }
}

fn a_full_queue_in_each(evidence: &mut Evidence) -> Result<(), BoxError> {
    let requester = Socket::new(PROTOCOL)?;
    let (receiver, portid) = receiver_with_small_queue()?;
    SendRequest { block: true, ..many_messages(portid, NLRIG_CONTEXT_THREAD) }
        .submit(&requester)??;
    std::thread::sleep(Duration::from_millis(200));
    evidence.note("thread_waits_for_room", !State::read()?.send.done);
    evidence.note("heard_from_thread", read_all(&receiver, MANY_MESSAGES)?.0);
    if !State::wait(|state| state.send.done, Duration::from_secs(10))? {
        return Err("the module's thread did not stop sending".into());
    }

    let (receiver, portid) = receiver_with_small_queue()?;
    let waiting = SendRequest { block: true, ..many_messages(portid, NLRIG_CONTEXT_TIMER) }
        .submit(&requester)?;
    evidence.outcome("module_lets_timer_wait", &waiting);
    let state = many_messages(portid, NLRIG_CONTEXT_TIMER).run()?;
    evidence.note("error_from_timer", error(&state));
    let (messages, losses) = read_all(&receiver, 0)?;
    evidence.note("heard_from_timer", messages);
    evidence.note("losses_reported", losses);
    Ok(())
}
