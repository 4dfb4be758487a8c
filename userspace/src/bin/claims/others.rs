//! Claims about alternatives to netlink: who initiates, and what is copied.

use std::fs::{self, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::mem::{size_of, zeroed};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixDatagram;

use nlrig_guest::uapi::*;
use nlrig_netlink::wire::NLM_F_REQUEST;
use nlrig_netlink::{Address, Errno, GroupMask, Header, MessageBuilder, Messages, Socket};

use crate::Cases;
use crate::chardev::{Device, Mapping, page_bytes};
use crate::evidence::{BoxError, Evidence};
use crate::module::SendRequest;
use crate::observe::queued_bytes;

pub const CASES: Cases = &[
    ("A32.1", a_number_through_proc_and_back),
    ("A32.2", a_number_through_an_ioctl_and_back),
    ("A32.3", netlink_replies_and_notifications),
    ("A32.4", sysfs_and_mmap),
    ("A33.1", netlink_after_the_buffer_is_overwritten),
    ("A33.2", memory_of_a_queued_message),
    ("A33.3", a_pipe_after_the_buffer_is_overwritten),
    ("A33.4", a_socket_after_the_buffer_is_overwritten),
    ("A33.5", memory_mapped_rings),
    ("A33.6", payload_of_a_signal),
    ("A33.7", a_new_ioctl),
];

/// The size of a message whose copies are examined.
const MESSAGE_BYTES: usize = 4000;

fn a_number_through_proc_and_back(evidence: &mut Evidence) -> Result<(), BoxError> {
    number_through_file(evidence, "/proc/nlrig/value")
}

/// Writes 41 to a file that adds one, and reads it back.
fn number_through_file(evidence: &mut Evidence, path: &str) -> Result<(), BoxError> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    evidence.io_outcome("write", &file.write_at(b"41", 0));
    let mut text = [0; 32];
    let read = file.read_at(&mut text, 0);
    evidence.io_outcome("read", &read);
    let text = String::from_utf8_lossy(&text[..read.unwrap_or(0)]).trim().to_string();
    evidence.note("came_back", text);
    Ok(())
}

fn a_number_through_an_ioctl_and_back(evidence: &mut Evidence) -> Result<(), BoxError> {
    let back = Device::open()?.exchange(41);
    evidence.io_outcome("ioctl", &back);
    evidence.note("came_back", back?.value);
    Ok(())
}

fn netlink_replies_and_notifications(evidence: &mut Evidence) -> Result<(), BoxError> {
    let socket = Socket::new(NETLINK_NLRIG as i32)?;
    socket.bind(0, GroupMask(0))?;
    let cookie = 41u64.to_ne_bytes();
    let mut echo = MessageBuilder::new();
    echo.message(Header::new(NLRIG_MSG_ECHO as u16, NLM_F_REQUEST, 1), |body| {
        body.raw(&cookie).raw(&[0; 8]);
    });
    socket.send_to(echo.bytes()?, Address::KERNEL, 0)?;
    let answer = next(&socket)?;
    let answered = answer.0 == NLRIG_MSG_ECHO_REPLY && answer.1.starts_with(&cookie);
    evidence.note("answered", answered);
    // Another socket makes the request; this one only receives.
    let send = SendRequest {
        count: 1,
        delay_ms: 20,
        portid: Some(socket.address()?.portid),
        context: NLRIG_CONTEXT_TIMER,
        ..SendRequest::default()
    };
    send.run()?;
    evidence.note("unasked", next(&socket)?.0 == NLRIG_MSG_DATA);
    Ok(())
}

/// Type and payload of the queued message. Type 0 if there is none.
fn next(socket: &Socket) -> Result<(u32, Vec<u8>), BoxError> {
    let mut buffer = [0; 4096];
    let length = match socket.recv(&mut buffer, libc::MSG_DONTWAIT) {
        Err(Errno(libc::EAGAIN)) => return Ok((0, Vec::new())),
        length => length?,
    };
    let message = Messages::new(&buffer[..length]).next().ok_or("an empty datagram")??;
    Ok((message.header.kind.into(), message.payload.to_vec()))
}

fn sysfs_and_mmap(evidence: &mut Evidence) -> Result<(), BoxError> {
    number_through_file(evidence, "/sys/kernel/nlrig/value")?;
    let device = Device::open()?;
    let page = device.page();
    evidence.io_outcome("map", &page);
    let page = page?;
    device.exchange(41)?;
    evidence.note("in_mapping", page.exchange().value);
    Ok(())
}

/// A buffer that the sender overwrites after sending. It shows whether the
/// receiver gets the old or the new contents.
struct SentBuffer {
    bytes: Vec<u8>,
}

impl SentBuffer {
    const OLD: u8 = b'o';
    const NEW: u8 = b'n';

    fn new() -> SentBuffer {
        SentBuffer { bytes: vec![SentBuffer::OLD; MESSAGE_BYTES] }
    }

    fn overwrite(&mut self) {
        self.bytes.fill(SentBuffer::NEW);
    }

    fn content(received: &[u8]) -> &'static str {
        let all = |byte| received.iter().all(|one| *one == byte);
        match received.len() == MESSAGE_BYTES {
            true if all(SentBuffer::OLD) => "old",
            true if all(SentBuffer::NEW) => "new",
            _ => "something else",
        }
    }
}

/// Two sockets of a protocol for messages between programs.
fn netlink_pair() -> Result<(Socket, Socket, u32), BoxError> {
    let pair = (Socket::new(libc::NETLINK_USERSOCK)?, Socket::new(libc::NETLINK_USERSOCK)?);
    pair.1.bind(0, GroupMask(0))?;
    let portid = pair.1.address()?.portid;
    Ok((pair.0, pair.1, portid))
}

fn netlink_after_the_buffer_is_overwritten(evidence: &mut Evidence) -> Result<(), BoxError> {
    let (sender, receiver, portid) = netlink_pair()?;
    let mut message = SentBuffer::new();
    sender.send_to(&message.bytes, Address::port(portid), 0)?;
    message.overwrite();
    let mut buffer = [0; 2 * MESSAGE_BYTES];
    let length = receiver.recv(&mut buffer, libc::MSG_DONTWAIT)?;
    evidence.note("received", SentBuffer::content(&buffer[..length]));
    Ok(())
}

fn memory_of_a_queued_message(evidence: &mut Evidence) -> Result<(), BoxError> {
    let (sender, receiver, portid) = netlink_pair()?;
    evidence.note("bytes_of_message", MESSAGE_BYTES as u64);
    evidence.note("rmem_before", rmem(libc::NETLINK_USERSOCK, portid)?);
    sender.send_to(&SentBuffer::new().bytes, Address::port(portid), 0)?;
    evidence.note("rmem_while_it_waits", rmem(libc::NETLINK_USERSOCK, portid)?);
    receiver.recv(&mut [0; 2 * MESSAGE_BYTES], libc::MSG_DONTWAIT)?;
    evidence.note("rmem_after", rmem(libc::NETLINK_USERSOCK, portid)?);
    Ok(())
}

/// The Rmem column of /proc/net/netlink: kernel memory charged to the receive
/// queue, in bytes.
fn rmem(protocol: i32, portid: u32) -> Result<u64, BoxError> {
    let table = fs::read_to_string("/proc/net/netlink")?;
    let socket =
        table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find(|columns| {
            columns.get(1) == Some(&protocol.to_string().as_str())
                && columns.get(2) == Some(&portid.to_string().as_str())
        });
    let socket = socket.ok_or("/proc/net/netlink: the socket is missing")?;
    Ok(socket.get(4).ok_or("/proc/net/netlink: no column Rmem")?.parse()?)
}

fn a_pipe_after_the_buffer_is_overwritten(evidence: &mut Evidence) -> Result<(), BoxError> {
    let (mut reader, mut writer) = io::pipe()?;
    let mut message = SentBuffer::new();
    writer.write_all(&message.bytes)?;
    message.overwrite();
    evidence.note("waiting_in_pipe", queued_bytes(&reader)?);
    evidence.note("written", read_message(&mut reader)?);
    evidence.note("lent", vmsplice_to_pipe(&mut reader, &writer)?);
    Ok(())
}

/// Sends with vmsplice(), which passes the page itself to the pipe.
fn vmsplice_to_pipe(
    reader: &mut PipeReader,
    writer: &PipeWriter,
) -> Result<&'static str, BoxError> {
    let mut message = SentBuffer::new();
    let part =
        libc::iovec { iov_base: message.bytes.as_mut_ptr().cast(), iov_len: message.bytes.len() };
    // SAFETY: the memory is read from the pipe before `message` is dropped.
    let spliced = unsafe { libc::vmsplice(writer.as_raw_fd(), &raw const part, 1, 0) };
    if spliced != MESSAGE_BYTES as isize {
        return Err(format!("vmsplice: {spliced}, {}", Errno::last()).into());
    }
    message.overwrite();
    read_message(reader)
}

fn read_message(reader: &mut PipeReader) -> Result<&'static str, BoxError> {
    let mut buffer = [0; MESSAGE_BYTES];
    reader.read_exact(&mut buffer)?;
    Ok(SentBuffer::content(&buffer))
}

fn a_socket_after_the_buffer_is_overwritten(evidence: &mut Evidence) -> Result<(), BoxError> {
    let (sender, receiver) = UnixDatagram::pair()?;
    let mut message = SentBuffer::new();
    sender.send(&message.bytes)?;
    message.overwrite();
    evidence.note("waiting_in_socket", queued_bytes(&receiver)?);
    let mut buffer = [0; 2 * MESSAGE_BYTES];
    let length = receiver.recv(&mut buffer)?;
    evidence.note("received", SentBuffer::content(&buffer[..length]));
    Ok(())
}

fn memory_mapped_rings(evidence: &mut Evidence) -> Result<(), BoxError> {
    let socket = Socket::new(NETLINK_NLRIG as i32)?;
    // struct nl_mmap_req: a block of one page, with two frames.
    let page = page_bytes() as u32;
    let request: Vec<u8> = [page, 1, page / 2, 2].into_iter().flat_map(u32::to_ne_bytes).collect();
    for (key, ring) in [("rx_ring", libc::NETLINK_RX_RING), ("tx_ring", libc::NETLINK_TX_RING)] {
        evidence.outcome(key, &socket.set_option_bytes(libc::SOL_NETLINK, ring, &request));
    }
    let map = Mapping::new(&socket, 0, page_bytes(), libc::PROT_READ, libc::MAP_SHARED);
    evidence.io_outcome("map", &map);
    evidence.outcome("zerocopy", &socket.set_option(libc::SOL_SOCKET, libc::SO_ZEROCOPY, 1));
    Ok(())
}

/// Sends this process a signal whose siginfo is filled with 0x5a where a
/// program may choose it.
fn payload_of_a_signal(evidence: &mut Evidence) -> Result<(), BoxError> {
    const MARK: u8 = 0x5a;
    const INFO_BYTES: usize = size_of::<libc::siginfo_t>();
    let number = libc::SIGRTMIN();
    // SAFETY: sigset_t consists of integers, for which zero is valid.
    let mut set: libc::sigset_t = unsafe { zeroed() };
    // SAFETY: siginfo_t consists of integers, for which zero is valid.
    let mut info: libc::siginfo_t = unsafe { zeroed() };
    // SAFETY: the pointer and the length are those of `info`.
    unsafe { std::slice::from_raw_parts_mut((&raw mut info).cast::<u8>(), INFO_BYTES).fill(MARK) };
    (info.si_signo, info.si_errno, info.si_code) = (number, 0, libc::SI_QUEUE);
    // SAFETY: the pointers are those of `set`; no handler is installed.
    unsafe {
        libc::sigaddset(&raw mut set, number);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
    // SAFETY: the pointer is that of `info`.
    let sent = unsafe {
        libc::syscall(libc::SYS_rt_sigqueueinfo, libc::getpid(), number, &raw const info)
    };
    evidence.outcome("sent", &if sent < 0 { Err(Errno::last()) } else { Ok(()) });
    let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: siginfo_t consists of integers, for which zero is valid.
    let mut info: libc::siginfo_t = unsafe { zeroed() };
    // SAFETY: the pointers are those of local variables.
    let received = unsafe { libc::sigtimedwait(&raw const set, &raw mut info, &raw const at_once) };
    evidence.note("came", received == number);
    // SAFETY: the pointer and the length are those of `info`, which is
    // initialised.
    let bytes = unsafe { std::slice::from_raw_parts((&raw const info).cast::<u8>(), INFO_BYTES) };
    evidence.note("bytes_came", bytes.iter().filter(|byte| **byte == MARK).count() as u64);
    evidence.note("bytes_of_info", INFO_BYTES as u64);
    Ok(())
}

fn a_new_ioctl(evidence: &mut Evidence) -> Result<(), BoxError> {
    evidence.io_outcome("on_dev_null", &Device::open_other("/dev/null")?.exchange(41));
    let back = Device::open()?.exchange(41);
    evidence.io_outcome("on_dev_nlrig", &back);
    evidence.note("came_back", back?.value);
    Ok(())
}
