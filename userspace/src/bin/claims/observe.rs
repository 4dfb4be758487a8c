//! Observation of the kernel: task states, netlink sockets, and the log.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use nlrig_netlink::Errno;

use crate::evidence::BoxError;

/// The maximum size of a log record.
const RECORD_MAX_BYTES: usize = 8192;

/// The state of a thread as in proc(5): `S`, `D`, `Z`, ... The first thread has
/// the id of its process.
pub fn state(process: u32, thread: u32) -> Result<char, BoxError> {
    let stat = fs::read_to_string(format!("/proc/{process}/task/{thread}/stat"))?;
    // The name may contain any characters, including parentheses.
    let (_, behind) = stat.rsplit_once(") ").ok_or("/proc/PID/stat: no name")?;
    Ok(behind.chars().next().ok_or("/proc/PID/stat: no state")?)
}

/// The number of bytes queued in a pipe or socket (FIONREAD).
pub fn queued_bytes(file: &impl AsRawFd) -> Result<u64, BoxError> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes an int to `bytes`.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    if result < 0 { Err(Errno::last().into()) } else { Ok(u64::try_from(bytes)?) }
}

/// The id of a task with this name, if there is one.
pub fn task(name: &str) -> Result<Option<u32>, BoxError> {
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|text| text.parse().ok()) else {
            continue;
        };
        // A task may end at any time.
        let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if comm.trim_end() == name {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// A socket's line in /proc/net/netlink.
#[derive(Clone, Copy, Debug)]
pub struct SocketEntry {
    /// Bytes charged to the receive queue.
    pub rmem: u64,
    /// Dropped messages.
    pub drops: u64,
}

impl SocketEntry {
    /// Finds the socket with this protocol and port.
    pub fn of(protocol: u32, portid: u32) -> Result<SocketEntry, BoxError> {
        let table = fs::read_to_string("/proc/net/netlink")?;
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let &[_, of_protocol, of_port, _, rmem, _, _, _, drops, ..] = fields.as_slice() else {
                return Err(format!("/proc/net/netlink: unexpected line \"{line}\"").into());
            };
            if of_protocol.parse() == Ok(protocol) && of_port.parse() == Ok(portid) {
                return Ok(SocketEntry { rmem: rmem.parse()?, drops: drops.parse()? });
            }
        }
        Err(format!("/proc/net/netlink: no socket {portid} of protocol {protocol}").into())
    }
}

/// The kernel log, read from a given moment on.
pub struct KmsgReader(File);

/// A line of the kernel log.
#[derive(Clone, Debug)]
pub struct LogLine {
    /// The time stamp in microseconds.
    pub at_us: u64,
    pub text: String,
}

impl KmsgReader {
    /// Starts at the end of the log.
    pub fn from_now() -> Result<KmsgReader, BoxError> {
        let mut file =
            OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg")?;
        file.seek(SeekFrom::End(0))?;
        Ok(KmsgReader(file))
    }

    /// The lines since the last call, or since the start.
    pub fn lines(&mut self) -> Result<Vec<LogLine>, BoxError> {
        let mut lines = Vec::new();
        let mut buffer = [0; RECORD_MAX_BYTES];
        loop {
            let length = match self.0.read(&mut buffer) {
                Ok(length) => length,
                Err(err) if err.kind() == ErrorKind::WouldBlock => return Ok(lines),
                // EPIPE: records were overwritten before they were read.
                Err(err) if err.raw_os_error() == Some(libc::EPIPE) => continue,
                Err(err) => return Err(err.into()),
            };
            // A record is "6,1234,5678,-;text", followed by detail lines that
            // start with a space.
            let record = String::from_utf8_lossy(&buffer[..length]);
            let (prefix, text) =
                record.split_once(';').ok_or("/dev/kmsg: a record without text")?;
            let at_us = prefix
                .split(',')
                .nth(2)
                .ok_or("/dev/kmsg: a record without a time stamp")?
                .parse()?;
            let text = text.lines().next().unwrap_or_default().to_string();
            lines.push(LogLine { at_us, text });
        }
    }

    /// The number of new lines that contain `what`.
    pub fn count(&mut self, what: &str) -> Result<usize, BoxError> {
        Ok(self.lines()?.iter().filter(|line| line.text.contains(what)).count())
    }
}
