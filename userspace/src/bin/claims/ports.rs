//! Claims about ports: assignment, conflicts and scope.

use std::time::Duration;

use nix::errno::Errno as Errors;
use nlrig_guest::uapi::*;
use nlrig_netlink::builder::message;
use nlrig_netlink::wire::{NLM_F_DUMP, NLM_F_REQUEST};
use nlrig_netlink::{Address, Errno, GroupMask, Header, Messages, Socket};
use serde_json::{Value, json};

use crate::Cases;
use crate::evidence::{BoxError, Evidence};
use crate::module;
use crate::process::{CHILD_TIMEOUT, CloneOptions, ForkedChild, run_in_child};
use crate::state::State;

pub const CASES: Cases = &[
    ("A8.1", port_0_is_the_kernel),
    ("A8.2", port_0_from_another_network_namespace),
    ("A10.1", port_0_as_ones_own),
    ("A10.2", work_after_binding_port_0),
    ("A10.3", ports_chosen_for_port_0),
    ("A11.1", answers_without_bind),
    ("A11.2", ports_without_bind),
    ("A12", same_port_twice),
    ("A13", same_port_twice_with_reuse),
    ("A14.1", same_port_of_several_protocols),
    ("A14.2", same_port_in_another_network_namespace),
    ("A15.1", a_port_above_all_process_ids),
    ("A15.2", ports_and_the_process_id),
    ("A15.3", process_ids_as_ports),
    ("A15.4", process_ids_that_are_the_same),
];

const PROTOCOL: i32 = NETLINK_NLRIG as i32;
const ARTICLE: i32 = NETLINK_NLRIG_ARTICLE as i32;
/// The port of the article's clients.
const PORT: u32 = 100;

/// A message like that of the article's client: type, flags and sequence number
/// 0, and `portid` as nlmsg_pid.
pub fn greeting(portid: u32) -> Vec<u8> {
    message(Header { portid, ..Header::default() }, b"Hello you!\0")
}

/// Receives all queued answers without blocking and returns their number. The
/// article's module answers before send() returns.
pub fn receive_answers(socket: &Socket) -> u32 {
    let mut buffer = [0; 2048];
    let mut answers = 0;
    while socket.recv(&mut buffer, libc::MSG_DONTWAIT).is_ok() {
        answers += 1;
    }
    answers
}

/// A socket bound to this port.
pub fn bound(protocol: i32, portid: u32) -> Result<Socket, BoxError> {
    let socket = Socket::new(protocol)?;
    socket.bind(portid, GroupMask::NONE)?;
    Ok(socket)
}

/// Binds a new socket. Also returns the result, `ok` or the name of the errno.
/// The caller keeps the socket to hold the port.
fn try_bind(protocol: i32, portid: u32) -> Result<(Socket, String), BoxError> {
    let socket = Socket::new(protocol)?;
    let outcome = match socket.bind(portid, GroupMask::NONE) {
        Ok(()) => "ok".to_string(),
        Err(errno) => errno.to_string(),
    };
    Ok((socket, outcome))
}

/// Exchanges one echo. Returns the source port as seen by the kernel, and the
/// sender of the answer.
fn echo(socket: &Socket) -> Result<(u32, Address), BoxError> {
    let request = Header::new(NLRIG_MSG_ECHO as u16, NLM_F_REQUEST, 1);
    socket.send_to(&message(request, &[0; size_of::<nlrig_echo>()]), Address::KERNEL, 0)?;
    let mut buffer = [0; 256];
    let received = socket.recv_from(&mut buffer, libc::MSG_DONTWAIT)?;
    let answer = Messages::new(&buffer[..received.length]).next().ok_or("an empty answer")??;
    if u32::from(answer.header.kind) != NLRIG_MSG_ECHO_REPLY {
        return Err(format!(
            "expected an echo reply, received a message of type {}",
            answer.header.kind
        )
        .into());
    }
    Ok((answer.header.portid, received.from))
}

/// Moves this process, which has a single thread, into a new namespace.
fn unshare_namespace(namespace: i32) -> Result<(), BoxError> {
    // SAFETY: unshare() takes no pointer.
    Ok(Errors::result(unsafe { libc::unshare(namespace) }).map(drop)?)
}

/// Reports all values of an object.
fn note_all(evidence: &mut Evidence, values: Value) {
    if let Value::Object(values) = values {
        values.into_iter().for_each(|(key, value)| evidence.note(&key, value));
    }
}

fn port_0_is_the_kernel(evidence: &mut Evidence) -> Result<(), BoxError> {
    module::article(1, Duration::ZERO)?;
    let socket = bound(ARTICLE, PORT)?;
    State::reset()?;
    evidence.outcome("send", &socket.send_to(&greeting(PORT), Address::KERNEL, 0));
    evidence.note("kernel_called", State::read()?.article.calls.total);
    let mut buffer = [0; 2048];
    let answer = socket.recv_from(&mut buffer, libc::MSG_DONTWAIT);
    evidence.outcome("answer", &answer);
    evidence.note("answer_from", answer?.from.portid);
    Ok(())
}

fn port_0_from_another_network_namespace(evidence: &mut Evidence) -> Result<(), BoxError> {
    let seen = run_in_child(|| {
        unshare_namespace(libc::CLONE_NEWNET)?;
        let (ours, theirs) = (Socket::new(PROTOCOL), Socket::new(libc::NETLINK_ROUTE)?);
        let socket = name_of(&ours);
        let echo = message(
            Header::new(NLRIG_MSG_ECHO as u16, NLM_F_REQUEST, 1),
            &[0; size_of::<nlrig_echo>()],
        );
        let sent = ours.and_then(|ours| ours.send_to(&echo, Address::KERNEL, 0));
        let request = Header::new(libc::RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, 1);
        let route = theirs.send_to(&message(request, &[0; 16]), Address::KERNEL, 0);
        Ok(json!({
            "socket_of_the_module": socket,
            "send_to_the_module": name_of(&sent),
            "send_to_rtnetlink": name_of(&route),
            "answers_of_rtnetlink": receive_answers(&theirs),
        }))
    })?;
    note_all(evidence, seen);
    Ok(())
}

fn name_of<T>(result: &Result<T, Errno>) -> String {
    result.as_ref().err().map_or("ok".to_string(), Errno::to_string)
}

fn port_0_as_ones_own(evidence: &mut Evidence) -> Result<(), BoxError> {
    let socket = Socket::new(PROTOCOL)?;
    evidence.outcome("bind", &socket.bind(0, GroupMask::NONE));
    evidence.note("port", socket.address()?.portid);
    Ok(())
}

fn work_after_binding_port_0(evidence: &mut Evidence) -> Result<(), BoxError> {
    let sockets = [Socket::new(PROTOCOL)?, Socket::new(PROTOCOL)?];
    let mut answered = 0;
    for (socket, key) in sockets.iter().zip(["first_bind", "second_bind"]) {
        evidence.outcome(key, &socket.bind(0, GroupMask::NONE));
        let seen = echo(socket).map(|(seen, _)| seen);
        answered += u32::from(seen.is_ok_and(|seen| Ok(Address::port(seen)) == socket.address()));
    }
    evidence.note("same_port", sockets[0].address()? == sockets[1].address()?);
    evidence.note("answered", answered);

    module::article(3, Duration::ZERO)?;
    let client = bound(ARTICLE, 0)?;
    client.send_to(&greeting(client.address()?.portid), Address::KERNEL, 0)?;
    evidence.note("answers_of_the_articles_module", receive_answers(&client));
    Ok(())
}

fn ports_chosen_for_port_0(evidence: &mut Evidence) -> Result<(), BoxError> {
    let (first, second) = (bound(PROTOCOL, 0)?, bound(PROTOCOL, 0)?);
    let (first, second) = (first.address()?.portid, second.address()?.portid);
    evidence.note("first_is_process_id", first == std::process::id());
    evidence.note("second_is_process_id", second == std::process::id());
    // As a signed number, like in the kernel.
    evidence.note("second", second as i32);
    Ok(())
}

fn answers_without_bind(evidence: &mut Evidence) -> Result<(), BoxError> {
    module::article(10, Duration::ZERO)?;
    let socket = Socket::new(ARTICLE)?;
    evidence.note("port_before", socket.address()?.portid);
    let sent = socket.send_to(&greeting(std::process::id()), Address::KERNEL, 0);
    evidence.outcome("send", &sent);
    evidence.note("answers", receive_answers(&socket));
    Ok(())
}

fn ports_without_bind(evidence: &mut Evidence) -> Result<(), BoxError> {
    module::article(0, Duration::ZERO)?;
    let (sender, connected) = (Socket::new(ARTICLE)?, Socket::new(ARTICLE)?);
    evidence.note("new", sender.address()?.portid);
    sender.send_to(&greeting(0), Address::KERNEL, 0)?;
    evidence.note("has_port_after_send", sender.address()?.portid != 0);
    connected.connect(0, GroupMask::NONE)?;
    evidence.note("has_port_after_connect", connected.address()?.portid != 0);
    Ok(())
}

fn same_port_twice(evidence: &mut Evidence) -> Result<(), BoxError> {
    let (first, second) = (Socket::new(PROTOCOL)?, Socket::new(PROTOCOL)?);
    evidence.outcome("first_bind", &first.bind(PORT, GroupMask::NONE));
    evidence.outcome("second_bind", &second.bind(PORT, GroupMask::NONE));
    let other = run_in_child(|| Ok(json!({"other_process_bind": try_bind(PROTOCOL, PORT)?.1})))?;
    note_all(evidence, other);
    Ok(())
}

fn same_port_twice_with_reuse(evidence: &mut Evidence) -> Result<(), BoxError> {
    let sockets = [Socket::new(PROTOCOL)?, Socket::new(PROTOCOL)?];
    let mut reuse = 0;
    for (socket, key) in sockets.iter().zip(["first_bind", "second_bind"]) {
        socket.set_reuse_address(true)?;
        reuse += socket.option(libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
        evidence.outcome(key, &socket.bind(PORT, GroupMask::NONE));
    }
    evidence.note("sockets_with_the_option", reuse);
    Ok(())
}

fn same_port_of_several_protocols(evidence: &mut Evidence) -> Result<(), BoxError> {
    let _first = bound(PROTOCOL, PORT)?;
    let (_route, outcome) = try_bind(libc::NETLINK_ROUTE, PORT)?;
    evidence.note("bind_of_rtnetlink", outcome);
    let (_users, outcome) = try_bind(libc::NETLINK_USERSOCK, PORT)?;
    evidence.note("bind_of_usersock", outcome);
    let (_again, outcome) = try_bind(PROTOCOL, PORT)?;
    evidence.note("bind_of_the_same", outcome);
    Ok(())
}

fn same_port_in_another_network_namespace(evidence: &mut Evidence) -> Result<(), BoxError> {
    let _first = bound(PROTOCOL, PORT)?;
    let seen = run_in_child(|| {
        let (_here, here) = try_bind(PROTOCOL, PORT)?;
        unshare_namespace(libc::CLONE_NEWNET)?;
        let (_there, there) = try_bind(PROTOCOL, PORT)?;
        Ok(json!({"bind_in_the_same": here, "bind_in_another": there}))
    })?;
    note_all(evidence, seen);
    Ok(())
}

fn a_port_above_all_process_ids(evidence: &mut Evidence) -> Result<(), BoxError> {
    const ABOVE_PID_MAX: u32 = 1_000_000_007;
    let highest: u32 = std::fs::read_to_string("/proc/sys/kernel/pid_max")?.trim().parse()?;
    evidence.note("is_above_pid_max", ABOVE_PID_MAX > highest);
    let socket = Socket::new(PROTOCOL)?;
    evidence.outcome("bind", &socket.bind(ABOVE_PID_MAX, GroupMask::NONE));
    evidence.note("echo_to_that_port", echo(&socket)?.0 == ABOVE_PID_MAX);
    Ok(())
}

fn ports_and_the_process_id(evidence: &mut Evidence) -> Result<(), BoxError> {
    let (_chosen, outcome) = try_bind(PROTOCOL, std::process::id() ^ 1)?;
    evidence.note("bind_of_another_number", outcome);
    let by_kernel = bound(PROTOCOL, 0)?.address()?.portid;
    evidence.note("kernel_chooses_process_id", by_kernel == std::process::id());
    Ok(())
}

/// Starts two processes, which bind to their own process ids or to ports that
/// the kernel chooses, and live at the same time. Returns the process id, the
/// result and the port of each.
fn two_processes(
    namespaces: i32,
    port_is_own_id: bool,
) -> Result<[(u64, String, u64); 2], BoxError> {
    let attempt = || {
        let id = std::process::id();
        let (socket, outcome) = try_bind(PROTOCOL, if port_is_own_id { id } else { 0 })?;
        let port = socket.address()?.portid;
        // Keeps the port until the process ends.
        std::mem::forget(socket);
        Ok(json!({"id": id, "bind": outcome, "port": port}))
    };
    let options = CloneOptions { namespaces, keep_alive: true, ..CloneOptions::default() };
    let mut first = ForkedChild::start_with(options, attempt)?;
    let one = first.report(CHILD_TIMEOUT)?;
    let other = ForkedChild::start_with(options, attempt)?.wait(CHILD_TIMEOUT)?;
    let read = |seen: &Value| {
        let number = |key: &str| seen[key].as_u64().unwrap_or_default();
        (number("id"), seen["bind"].as_str().unwrap_or_default().to_string(), number("port"))
    };
    Ok([read(&one), read(&other)])
}

/// Processes that use their ids as ports: in one pid namespace, and each in a
/// pid namespace of its own.
pub fn process_ids_as_ports(evidence: &mut Evidence) -> Result<(), BoxError> {
    let [(_, first, _), (_, second, _)] = two_processes(0, true)?;
    evidence.note("first_bind", first);
    evidence.note("second_bind", second);
    let [(_, first, _), (_, second, _)] = two_processes(libc::CLONE_NEWPID, true)?;
    evidence.note("first_bind_in_own_namespace", first);
    evidence.note("second_bind_in_own_namespace", second);
    Ok(())
}

fn process_ids_that_are_the_same(evidence: &mut Evidence) -> Result<(), BoxError> {
    let [first, second] = two_processes(libc::CLONE_NEWPID, false)?;
    evidence.note("first_id", first.0);
    evidence.note("second_id", second.0);
    evidence.note("first_got_its_id", first.2 == first.0);
    evidence.note("second_got_its_id", second.2 == second.0);
    evidence.note("second_bind", second.1);
    Ok(())
}
