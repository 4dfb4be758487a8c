//! Claims about receive buffers: queueing of messages, and the effects of a
//! full buffer.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::unistd::Pid;
use nlrig_guest::uapi::*;
use nlrig_netlink::{Errno, GroupMask, Socket};
use serde_json::{Value, json};

use crate::Cases;
use crate::evidence::{BoxError, Evidence};
use crate::module::SendRequest;
use crate::observe::{SocketEntry, state, task};
use crate::peers::FREE_PORT;
use crate::process::{CHILD_TIMEOUT, ForkedChild};
use crate::state::State;

pub const CASES: Cases = &[
    ("A6.1", messages_are_queued),
    ("A6.2", the_queue_is_limited),
    ("A7.1", a_nonblocking_send_to_a_full_queue),
    ("A7.2", the_receiver_gets_enobufs),
    ("A7.3", after_half_the_queue_is_read),
    ("A7.4", drops_are_counted),
    ("A7.5", a_receiver_without_enobufs),
    ("A7.6", a_kernel_thread_blocks_on_a_full_queue),
    ("A7.7", a_client_deadlocks_with_itself),
];

const PROTOCOL: i32 = NETLINK_NLRIG as i32;
/// The receiver's port. Not a process id, which the kernel would assign to
/// another socket.
const PORTID: u32 = FREE_PORT;
/// The payload size of the article's module.
const BODY_BYTES: u32 = 1024;
/// Far more messages than a default buffer holds.
const FLOOD: u32 = 400;
/// The longest time for an operation that should complete immediately.
const IMMEDIATE_TIMEOUT: Duration = Duration::from_secs(5);

fn receiver() -> Result<Socket, BoxError> {
    let socket = Socket::new(PROTOCOL)?;
    socket.bind(PORTID, GroupMask::NONE)?;
    Ok(socket)
}

/// A request for `count` messages to the receiver.
fn messages(count: u32) -> SendRequest {
    SendRequest { count, size: BODY_BYTES, portid: Some(PORTID), ..SendRequest::default() }
}

/// The errno of the first message that failed.
fn error(state: &State) -> String {
    match state.send.errno {
        0 => "ok".to_string(),
        errno => Errno(errno as i32).to_string(),
    }
}

fn receive(socket: &Socket) -> Result<usize, Errno> {
    socket.recv(&mut [0; 2048], libc::MSG_DONTWAIT)
}

/// The result of receiving until the queue is empty.
#[derive(Default)]
struct ReceiveResult {
    messages: u32,
    /// The number of ENOBUFS errors.
    enobufs: u32,
}

fn receive_all(socket: &Socket) -> Result<ReceiveResult, BoxError> {
    let mut got = ReceiveResult::default();
    loop {
        match receive(socket) {
            Ok(_) => got.messages += 1,
            Err(Errno(libc::EAGAIN)) => return Ok(got),
            Err(Errno(libc::ENOBUFS)) => got.enobufs += 1,
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn messages_are_queued(evidence: &mut Evidence) -> Result<(), BoxError> {
    let receiver = receiver()?;
    evidence.note("queued_bytes_before", SocketEntry::of(NETLINK_NLRIG, PORTID)?.rmem);
    let state = messages(20).run()?;
    evidence.note("sent", state.send.sent);
    evidence.note("failed", state.send.failed);
    evidence.note("us_each", state.send.elapsed_us / 20);
    evidence.note("queued_bytes", SocketEntry::of(NETLINK_NLRIG, PORTID)?.rmem);
    evidence.note("received_afterwards", receive_all(&receiver)?.messages);
    evidence.note("queued_bytes_afterwards", SocketEntry::of(NETLINK_NLRIG, PORTID)?.rmem);
    Ok(())
}

fn the_queue_is_limited(evidence: &mut Evidence) -> Result<(), BoxError> {
    let receiver = receiver()?;
    let state = messages(FLOOD).run()?;
    evidence.note("sent", state.send.sent);
    evidence.note("failed", state.send.failed);
    evidence.note("error", error(&state));
    evidence.note("buffer_bytes", receiver.receive_buffer()?);
    let queued = SocketEntry::of(NETLINK_NLRIG, PORTID)?.rmem;
    evidence.note("queued_bytes", queued);
    evidence.note("bytes_each", queued / u64::from(state.send.sent.max(1)));
    Ok(())
}

/// The module sends from a kernel thread: if the send blocked, this process
/// would not, and could detect it.
fn a_nonblocking_send_to_a_full_queue(evidence: &mut Evidence) -> Result<(), BoxError> {
    let receiver = receiver()?;
    let requester = Socket::new(PROTOCOL)?;
    SendRequest { context: NLRIG_CONTEXT_THREAD, ..messages(FLOOD) }.submit(&requester)??;
    let over = State::wait(|state| state.send.done, IMMEDIATE_TIMEOUT)?;
    evidence.note("returned", over);
    let state = State::read()?;
    evidence.note("first_failed", state.send.first_failed);
    evidence.note("failed", state.send.failed);
    evidence.note("error", error(&state));
    evidence.note("us_each", state.send.elapsed_us / FLOOD);
    drop(receiver);
    // Closing the receiver ends the wait of a blocked sender.
    State::wait(|state| state.send.done, IMMEDIATE_TIMEOUT)?;
    Ok(())
}

fn the_receiver_gets_enobufs(evidence: &mut Evidence) -> Result<(), BoxError> {
    let receiver = receiver()?;
    let state = messages(FLOOD).run()?;
    evidence.note("failed", state.send.failed);
    evidence.outcome("first_receive", &receive(&receiver));
    evidence.outcome("second_receive", &receive(&receiver));
    let rest = receive_all(&receiver)?;
    evidence.note("enobufs_later", rest.enobufs);
    evidence.note("lost", i64::from(state.send.sent) - i64::from(rest.messages) - 1);
    Ok(())
}

fn after_half_the_queue_is_read(evidence: &mut Evidence) -> Result<(), BoxError> {
    let receiver = receiver()?;
    let sent = messages(FLOOD).run()?.send.sent;
    evidence.outcome("first_receive", &receive(&receiver));
    for _ in 0..sent / 2 {
        receive(&receiver)?;
    }
    evidence.note("buffer_bytes", receiver.receive_buffer()?);
    evidence.note("queued_bytes_with_room", SocketEntry::of(NETLINK_NLRIG, PORTID)?.rmem);
    evidence.note("with_room", error(&messages(1).run()?));
    receive_all(&receiver)?;
    evidence.note("when_empty", error(&messages(1).run()?));
    Ok(())
}

fn drops_are_counted(evidence: &mut Evidence) -> Result<(), BoxError> {
    let _receiver = receiver()?;
    evidence.note("drops_before", SocketEntry::of(NETLINK_NLRIG, PORTID)?.drops);
    let failed = messages(FLOOD).run()?.send.failed;
    let drops = SocketEntry::of(NETLINK_NLRIG, PORTID)?.drops;
    evidence.note("failed", failed);
    evidence.note("drops", drops);
    evidence.note("difference", drops.abs_diff(u64::from(failed)));
    Ok(())
}

fn a_receiver_without_enobufs(evidence: &mut Evidence) -> Result<(), BoxError> {
    let receiver = receiver()?;
    receiver.set_no_enobufs(true)?;
    let state = messages(FLOOD).run()?;
    evidence.note("failed", state.send.failed);
    evidence.note("drops", SocketEntry::of(NETLINK_NLRIG, PORTID)?.drops);
    evidence.outcome("first_receive", &receive(&receiver));
    for _ in 0..state.send.sent / 2 {
        receive(&receiver)?;
    }
    evidence.note("with_room", error(&messages(1).run()?));
    evidence.note("enobufs_later", receive_all(&receiver)?.enobufs);
    Ok(())
}

/// The observation time for a counter that should not change.
const STALL_TIME: Duration = Duration::from_millis(300);

/// Waits until the module, with counters at zero, starts to send and then stops
/// making progress. False if it finishes or time runs out.
fn is_stalled() -> Result<bool, BoxError> {
    let start = Instant::now();
    let mut last = (0, start);
    loop {
        let state = State::read()?;
        let sent = state.send.sent;
        let over = state.send.done && sent > 0;
        if over || start.elapsed() > CHILD_TIMEOUT {
            return Ok(false);
        }
        if sent != last.0 {
            last = (sent, Instant::now());
        } else if sent > 0 && last.1.elapsed() > STALL_TIME {
            return Ok(true);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn a_kernel_thread_blocks_on_a_full_queue(evidence: &mut Evidence) -> Result<(), BoxError> {
    let receiver = receiver()?;
    let requester = Socket::new(PROTOCOL)?;
    State::reset()?;
    let send = SendRequest { context: NLRIG_CONTEXT_THREAD, block: true, ..messages(FLOOD) };
    send.submit(&requester)??;
    evidence.note("waits", is_stalled()?);
    evidence.note("sent_by_then", State::read()?.send.sent);
    let thread = task("nlrig/send")?;
    let in_state = thread.map(|thread| state(thread, thread)).transpose()?;
    evidence.note("thread_in_state", in_state.unwrap_or('-').to_string());
    let mut received = 0;
    while received < FLOOD && receiver.poll(libc::POLLIN, Some(IMMEDIATE_TIMEOUT))? != 0 {
        receive(&receiver)?;
        received += 1;
    }
    evidence.note("returned_afterwards", State::wait(|state| state.send.done, IMMEDIATE_TIMEOUT)?);
    evidence.note("failed", State::read()?.send.failed);
    evidence.note("received", received);
    Ok(())
}

extern "C" fn ignore(_: i32) {}

/// The module blocks in the client's own system call, for buffer space that
/// only the client could free.
fn a_client_deadlocks_with_itself(evidence: &mut Evidence) -> Result<(), BoxError> {
    State::reset()?;
    let client = ForkedChild::start(|| {
        let action = SigAction::new(SigHandler::Handler(ignore), SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler does nothing.
        unsafe { sigaction(Signal::SIGUSR1, &action) }?;
        let client = receiver()?;
        let start = Instant::now();
        // The acknowledgement does not fit into the buffer either.
        let answer = SendRequest { block: true, ..messages(FLOOD) }.submit(&client);
        let sending_ms = start.elapsed().as_millis() as u64;
        let report = match answer {
            Ok(_) => "answered".to_string(),
            Err(err) => err.to_string(),
        };
        Ok(json!({ "sending_ms": sending_ms, "answer": report }))
    })?;
    evidence.note("waits", is_stalled()?);
    evidence.note("client_in_state", state(client.id(), client.id())?.to_string());
    let start = Instant::now();
    kill(Pid::from_raw(client.id() as i32), Signal::SIGUSR1)?;
    evidence.note("returned_by_signal", State::wait(|state| state.send.done, IMMEDIATE_TIMEOUT)?);
    evidence.note("after_signal_ms", start.elapsed().as_millis() as u64);
    evidence.note("error", error(&State::read()?));
    let report: Value = client.wait(CHILD_TIMEOUT)?;
    for key in ["sending_ms", "answer"] {
        evidence.note(key, report.get(key).cloned().unwrap_or_default());
    }
    Ok(())
}
