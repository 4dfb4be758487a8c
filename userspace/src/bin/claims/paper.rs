//! Claims about the paper's asynchronous module, and its tables.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use nlrig_guest::protocol::WORKLOAD_FD;
use nlrig_guest::snapshot::ThreadReport;
use nlrig_guest::uapi::*;
use nlrig_netlink::{Address, Errno, GroupMask, Header, Socket, builder};

use crate::Cases;
use crate::evidence::{BoxError, Evidence};
use crate::module;
use crate::state::State;

pub const CASES: Cases = &[
    ("B19.1", sender_returns_immediately),
    ("B19.2", one_thread_for_eight_clients),
    ("B19.3", eight_threads_for_eight_clients),
    ("B20.1", every_message_is_answered),
    ("B20.2", a_copy_is_not_accounted),
    ("B20.3", a_reference_is_not_limited),
    ("B20.4", a_copy_can_be_lost),
    ("B22.1", threads_at_2m),
    ("B22.2", size_of_code_and_data),
    ("B23", threads_at_2m),
];

const ARTICLE: i32 = NETLINK_NLRIG_ARTICLE as i32;
const PAPER: i32 = NETLINK_NLRIG_PAPER as i32;
/// The longest wait for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// The handler's sleep per message when handlers are compared.
const HANDLER_DELAY: Duration = Duration::from_millis(200);
/// The number of concurrent clients in the paper.
const CLIENTS: usize = 8;
/// The number of messages of 1 KiB, many times more than a default receive
/// buffer holds.
const FLOOD: u32 = 1500;

/// A socket with a port that the kernel chooses.
fn client(protocol: i32) -> Result<(Socket, u32), BoxError> {
    let socket = Socket::new(protocol)?;
    socket.bind(0, GroupMask::NONE)?;
    socket.set_receive_timeout(Some(ANSWER_TIMEOUT))?;
    let portid = socket.address()?.portid;
    Ok((socket, portid))
}

/// A message with the sender's port in its header, to which the article's
/// module answers.
fn message(portid: u32, bytes: usize) -> Vec<u8> {
    builder::message(Header { portid, ..Header::default() }, &vec![b'x'; bytes])
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round()
}

/// The minimum of three measurements, because load on the host can only add
/// time.
fn minimum(mut once: impl FnMut() -> Result<Duration, BoxError>) -> Result<Duration, BoxError> {
    let mut minimum = once()?;
    for _ in 1..3 {
        minimum = minimum.min(once()?);
    }
    Ok(minimum)
}

fn sender_returns_immediately(evidence: &mut Evidence) -> Result<(), BoxError> {
    module::article(1, HANDLER_DELAY)?;
    module::paper(HANDLER_DELAY)?;
    for (key, protocol) in [("inside_ms", ARTICLE), ("handed_over_ms", PAPER)] {
        let (socket, portid) = client(protocol)?;
        let once = || {
            let start = Instant::now();
            socket.send_to(&message(portid, 64), Address::KERNEL, 0)?;
            let took = start.elapsed();
            socket.recv(&mut [0; 2048], 0)?;
            Ok(took)
        };
        evidence.note(key, milliseconds(minimum(once)?));
    }
    evidence.note("handling_ms", milliseconds(HANDLER_DELAY));
    Ok(())
}

/// The time from the first message sent to the last answer received, with all
/// clients.
fn all_answered(protocol: i32) -> Result<Duration, BoxError> {
    let clients = (0..CLIENTS).map(|_| client(protocol)).collect::<Result<Vec<_>, _>>()?;
    let ready = Barrier::new(CLIENTS);
    let once = |(socket, portid): &(Socket, u32)| {
        ready.wait();
        let start = Instant::now();
        socket.send_to(&message(*portid, 64), Address::KERNEL, 0)?;
        socket.recv(&mut [0; 2048], 0)?;
        Ok::<_, Errno>((start, Instant::now()))
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = clients.iter().map(|client| scope.spawn(|| once(client))).collect();
        let mut times = Vec::new();
        for thread in threads {
            times.push(thread.join().map_err(|_| "a client panicked")??);
        }
        let first = times.iter().map(|(start, _)| *start).min().ok_or("there is no client")?;
        Ok(times.iter().map(|(_, end)| end.duration_since(first)).max().unwrap_or_default())
    })
}

fn compare_durations(evidence: &mut Evidence) -> Result<(), BoxError> {
    let inside = minimum(|| all_answered(ARTICLE))?;
    let handed_over = minimum(|| all_answered(PAPER))?;
    evidence.note("clients", CLIENTS);
    evidence.note("handling_ms", milliseconds(HANDLER_DELAY));
    evidence.note("inside_ms", milliseconds(inside));
    evidence.note("handed_over_ms", milliseconds(handed_over));
    let times = handed_over.as_secs_f64() / inside.as_secs_f64();
    evidence.note("times_as_long", (times * 10.0).round() / 10.0);
    Ok(())
}

fn one_thread_for_eight_clients(evidence: &mut Evidence) -> Result<(), BoxError> {
    module::article(1, HANDLER_DELAY)?;
    module::paper(HANDLER_DELAY)?;
    compare_durations(evidence)
}

/// Requires a guest in which the paper's module is not yet enabled.
fn eight_threads_for_eight_clients(evidence: &mut Evidence) -> Result<(), BoxError> {
    module::set("paper_threads", CLIENTS)?;
    module::article(1, HANDLER_DELAY)?;
    module::paper(HANDLER_DELAY)?;
    compare_durations(evidence)
}

fn every_message_is_answered(evidence: &mut Evidence) -> Result<(), BoxError> {
    module::paper(Duration::ZERO)?;
    State::reset()?;
    let (socket, portid) = client(PAPER)?;
    let mut answered = 0;
    for _ in 0..5 {
        socket.send_to(&message(portid, 64), Address::KERNEL, 0)?;
        answered += u32::from(socket.recv(&mut [0; 2048], 0).is_ok());
    }
    evidence.note("sent", 5);
    evidence.note("answered", answered);
    evidence.note("lost", State::read()?.paper.dropped);
    Ok(())
}

/// Sends messages faster than the handler's thread works, and notes the state
/// of the queue.
fn flood(evidence: &mut Evidence) -> Result<(), BoxError> {
    // The socket stays open until all messages are handled. Otherwise the
    // module's answers would fail.
    let (socket, portid) = client(PAPER)?;
    let kilobyte = message(portid, 1024);
    let refused = (0..FLOOD)
        .filter(|_| socket.send_to(&kilobyte, Address::KERNEL, libc::MSG_DONTWAIT).is_err())
        .count();
    let state = State::read()?;
    evidence.note("sent", FLOOD);
    evidence.note("refused", refused);
    evidence.note("waiting", state.paper.queued);
    evidence.note("charged_bytes", state.paper.charged);
    evidence.note("receive_buffer_bytes", socket.receive_buffer()?);
    module::set("paper_delay_ms", 0)?;
    if !State::wait(|now| now.paper.done >= FLOOD - state.paper.dropped, ANSWER_TIMEOUT)? {
        return Err("timed out waiting for the module to handle the flood".into());
    }
    Ok(())
}

fn a_copy_is_not_accounted(evidence: &mut Evidence) -> Result<(), BoxError> {
    module::paper(Duration::from_millis(100))?;
    State::reset()?;
    flood(evidence)
}

fn a_reference_is_not_limited(evidence: &mut Evidence) -> Result<(), BoxError> {
    module::paper(Duration::from_millis(100))?;
    module::set("paper_takes_reference", 1)?;
    State::reset()?;
    flood(evidence)
}

/// Requires a guest with little memory. A copy needs contiguous memory and the
/// original does not, so copies fail first.
fn a_copy_can_be_lost(evidence: &mut Evidence) -> Result<(), BoxError> {
    const BYTES: usize = 1 << 20;
    const MAX_MESSAGES: u32 = 1000;
    module::paper(Duration::from_secs(10))?;
    State::reset()?;
    let (socket, portid) = client(PAPER)?;
    // Exceeds net.core.wmem_max, as root may.
    socket.set_option(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, 4 << 20)?;
    let large = message(portid, BYTES);
    let mut sent = 0;
    while sent < MAX_MESSAGES && State::read()?.paper.dropped == 0 {
        socket.send_to(&large, Address::KERNEL, 0)?;
        sent += 1;
    }
    let counters = State::read()?.paper;
    evidence.note("sent_without_error", sent);
    evidence.note("came_in", counters.received);
    evidence.note("lost", counters.dropped);
    evidence.note("handled_or_waiting", counters.done + counters.queued);
    Ok(())
}

/// Runs the workload `threads`, which creates as many threads with bound
/// sockets as possible. It inherits the stack limit of this process.
fn threads_at_2m(evidence: &mut Evidence) -> Result<(), BoxError> {
    let (reader, writer) = std::io::pipe()?;
    let writer = OwnedFd::from(writer);
    let number = writer.as_raw_fd();
    let mut command = Command::new("/run/nlrig/guest/workloads/threads");
    // SAFETY: the closure calls only dup2(), on an open descriptor.
    unsafe {
        std::os::unix::process::CommandExt::pre_exec(&mut command, move || {
            match libc::dup2(number, WORKLOAD_FD) {
                -1 => Err(std::io::Error::last_os_error()),
                _ => Ok(()),
            }
        });
    }
    let mut child = command.spawn()?;
    drop(writer);
    let mut outcome = None;
    for line in BufReader::new(File::from(OwnedFd::from(reader))).lines() {
        if let ThreadReport::Outcome(last) = serde_json::from_str(&line?)? {
            outcome = Some(last);
        }
    }
    let status = child.wait()?;
    let outcome = outcome.ok_or_else(|| format!("the workload threads ended with {status}"))?;
    evidence.note("threads", outcome.threads);
    evidence.note("sockets", outcome.sockets);
    evidence.note("failed_call", outcome.failed.call);
    evidence.note("failed_with", outcome.failed.name);
    Ok(())
}

/// Memory that a program has mapped before it creates threads, without the main
/// stack.
fn size_of_code_and_data(evidence: &mut Evidence) -> Result<(), BoxError> {
    let text = std::fs::read_to_string("/proc/self/maps")?;
    let mapped: u64 = text
        .lines()
        .filter(|line| !line.ends_with("[stack]"))
        .filter_map(|line| {
            let (start, end) = line.split_whitespace().next()?.split_once('-')?;
            let number = |text| u64::from_str_radix(text, 16).ok();
            number(end)?.checked_sub(number(start)?)
        })
        .sum();
    evidence.note("code_and_data_kib", mapped >> 10);
    // The difference between 1536 stacks of 2 MiB and 1449.
    evidence.note("missing_kib", (1536 - 1449) * (2 << 10));
    Ok(())
}
