//! Claims about messages between processes: permissions and queueing.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use nlrig_guest::uapi::NETLINK_NLRIG;
use nlrig_netlink::{Address, Errno, GroupMask, Header, Socket, builder};
use serde_json::json;

use crate::Cases;
use crate::evidence::{BoxError, Evidence};
use crate::process::{CHILD_TIMEOUT, ForkedChild, run_as_user};
use crate::state::State;

pub const CASES: Cases = &[
    ("A19.1", one_process_to_another),
    ("A19.2", as_another_user),
    ("A19.3", messages_wait_in_the_queue),
    ("A19.4", the_queue_is_full),
];

const PROTOCOL: i32 = NETLINK_NLRIG as i32;
/// A port that the kernel never assigns: neither a process id nor negative.
pub const FREE_PORT: u32 = 1 << 30 | 101;
const TEXT: &[u8] = b"Hello you!\0";

/// A message that no handler in the kernel acts on.
pub fn message(body: &[u8]) -> Vec<u8> {
    builder::message(Header::default(), body)
}

/// A socket with a port that the kernel chooses, and the port.
pub fn bound(protocol: i32) -> Result<(Socket, u32), BoxError> {
    let socket = Socket::new(protocol)?;
    socket.bind(0, GroupMask::NONE)?;
    let portid = socket.address()?.portid;
    Ok((socket, portid))
}

/// Receives all queued datagrams and returns their number.
pub fn count_received(socket: &Socket) -> Result<u32, BoxError> {
    let mut count = 0;
    loop {
        match socket.recv(&mut [0; 64], libc::MSG_DONTWAIT) {
            Ok(_) => count += 1,
            Err(Errno(libc::EAGAIN)) => return Ok(count),
            Err(errno) => return Err(format!("recv failed: {errno}").into()),
        }
    }
}

/// Milliseconds since `start`.
pub fn ms_since(start: Instant) -> f64 {
    (start.elapsed().as_secs_f64() * 1000.0).round()
}

/// A sender, and a receiver whose queue it has filled.
pub struct FullQueue {
    pub sender: Socket,
    pub receiver: Socket,
    /// The receiver's port.
    pub portid: u32,
    /// The number of messages in the queue.
    pub fitted: u32,
}

impl FullQueue {
    pub fn new() -> Result<FullQueue, BoxError> {
        /// Far more messages than fit.
        const MAX_MESSAGES: u32 = 10_000;
        let ((sender, _), (receiver, portid)) = (bound(PROTOCOL)?, bound(PROTOCOL)?);
        // The kernel raises the size to its minimum.
        receiver.set_receive_buffer(0)?;
        for fitted in 0..MAX_MESSAGES {
            match sender.send_to(&message(TEXT), Address::port(portid), libc::MSG_DONTWAIT) {
                Ok(_) => {}
                Err(Errno(libc::EAGAIN)) => {
                    return Ok(FullQueue { sender, receiver, portid, fitted });
                }
                Err(errno) => return Err(format!("cannot fill the receive queue: {errno}").into()),
            }
        }
        Err("the receive queue did not fill up".into())
    }
}

/// Sends to a port that another process is about to bind to.
fn send_soon(from: &Socket, portid: u32) -> Result<Result<usize, Errno>, BoxError> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match from.send_to(&message(TEXT), Address::port(portid), 0) {
            Err(Errno(libc::ECONNREFUSED)) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(2));
            }
            result => return Ok(result),
        }
    }
}

/// The number of input callback invocations of the kernel socket, including the
/// one by this request.
fn inputs() -> Result<u32, BoxError> {
    Ok(State::read()?.input.total)
}

fn one_process_to_another(evidence: &mut Evidence) -> Result<(), BoxError> {
    let receiver = ForkedChild::start(|| {
        let socket = Socket::new(PROTOCOL)?;
        socket.bind(FREE_PORT, GroupMask::NONE)?;
        socket.set_receive_timeout(Some(Duration::from_secs(10)))?;
        let mut buffer = [0; 256];
        let got = socket.recv_from(&mut buffer, 0)?;
        Ok(json!({ "same": buffer[..got.length] == message(TEXT), "from": got.from.portid }))
    })?;
    let (sender, portid) = bound(PROTOCOL)?;
    let before = inputs()?;
    evidence.outcome("sendto", &send_soon(&sender, FREE_PORT)?);
    let heard = receiver.wait(CHILD_TIMEOUT)?;
    evidence.note("heard_as_sent", heard["same"] == true);
    evidence.note("from_the_senders_port", heard["from"] == portid);
    // The second inputs() invokes the callback itself.
    evidence.note("inputs_of_the_kernel", inputs()?.wrapping_sub(before).saturating_sub(1));
    Ok(())
}

fn as_another_user(evidence: &mut Evidence) -> Result<(), BoxError> {
    let protocols = [("private_protocol", PROTOCOL), ("usersock", libc::NETLINK_USERSOCK)];
    for (name, protocol) in protocols {
        let (receiver, portid) = bound(protocol)?;
        let sent = run_as_user(1000, || {
            let result = bound(protocol)?.0.send_to(&message(TEXT), Address::port(portid), 0);
            Ok(json!(result.map_or_else(|errno| errno.to_string(), |_| "ok".to_string())))
        })?;
        evidence.note(name, sent);
        evidence.note(&format!("{name}_heard"), count_received(&receiver)?);
    }
    // In new namespaces, where the user is root and the protocol has no kernel
    // socket.
    let at_home = run_as_user(1000, || {
        // SAFETY: unshare() takes no pointer.
        if unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET) } != 0 {
            return Err(format!("unshare failed: {}", Errno::last()).into());
        }
        let ((sender, _), (_receiver, portid)) = (bound(PROTOCOL)?, bound(PROTOCOL)?);
        let result = sender.send_to(&message(TEXT), Address::port(portid), 0);
        Ok(json!(result.map_or_else(|errno| errno.to_string(), |_| "ok".to_string())))
    })?;
    evidence.note("private_protocol_in_own_namespaces", at_home);
    Ok(())
}

fn messages_wait_in_the_queue(evidence: &mut Evidence) -> Result<(), BoxError> {
    const COUNT: u32 = 10;
    let (mut start, start_writer) = std::io::pipe()?;
    let (mut go, mut go_writer) = std::io::pipe()?;
    let receiver = ForkedChild::start(|| {
        let (socket, portid) = bound(PROTOCOL)?;
        (&start_writer).write_all(&portid.to_ne_bytes())?;
        // Nothing is received until all messages are sent.
        go.read_exact(&mut [0])?;
        Ok(json!(count_received(&socket)?))
    })?;
    let mut portid = [0; 4];
    start.read_exact(&mut portid)?;
    let to = Address::port(u32::from_ne_bytes(portid));
    let (sender, _) = bound(PROTOCOL)?;
    // If the messages are not queued, send() must not block forever.
    sender.set_send_timeout(Some(Duration::from_secs(2)))?;
    let results = (0..COUNT).map(|_| sender.send_to(&message(TEXT), to, 0));
    let sent = results.filter(Result::is_ok).count();
    evidence.note("sent_before_any_was_read", sent);
    go_writer.write_all(&[0])?;
    evidence.note("heard_afterwards", receiver.wait(CHILD_TIMEOUT)?);
    Ok(())
}

fn the_queue_is_full(evidence: &mut Evidence) -> Result<(), BoxError> {
    const LIMIT: Duration = Duration::from_millis(600);
    const READ_AFTER: Duration = Duration::from_millis(400);
    let peer = FullQueue::new()?;
    let to = Address::port(peer.portid);
    evidence.note("fitted", peer.fitted);

    let start = Instant::now();
    let dontwait = peer.sender.send_to(&message(TEXT), to, libc::MSG_DONTWAIT);
    evidence.note("dontwait_ms", ms_since(start));
    evidence.outcome("dontwait", &dontwait);

    peer.sender.set_send_timeout(Some(LIMIT))?;
    let start = Instant::now();
    let limited = peer.sender.send_to(&message(TEXT), to, 0);
    evidence.note("until_time_is_over_ms", ms_since(start));
    evidence.outcome("until_time_is_over", &limited);

    peer.sender.set_send_timeout(Some(Duration::from_secs(10)))?;
    let start = Instant::now();
    let reader = ForkedChild::start(|| {
        std::thread::sleep(READ_AFTER);
        Ok(json!(count_received(&peer.receiver)?))
    })?;
    let unlimited = peer.sender.send_to(&message(TEXT), to, 0);
    evidence.note("until_it_reads_ms", ms_since(start));
    evidence.outcome("until_it_reads", &unlimited);
    reader.wait(CHILD_TIMEOUT)?;
    Ok(())
}
