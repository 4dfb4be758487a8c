//! What the kernel tells of itself: the states of tasks, its netlink sockets, its
//! log.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use nlrig_netlink::Errno;

use crate::evidence::Trouble;

/// A record of the log is no longer.
const RECORD_MAX_BYTES: usize = 8192;

/// The state of a thread of a process, a letter as in proc(5): `S`, `D`, `Z`, …
/// The first thread's number is that of its process.
pub fn state(process: u32, thread: u32) -> Result<char, Trouble> {
    let stat = fs::read_to_string(format!("/proc/{process}/task/{thread}/stat"))?;
    // The name may have any characters in it, parentheses too.
    let (_, behind) = stat.rsplit_once(") ").ok_or("a stat without a name")?;
    Ok(behind.chars().next().ok_or("a stat without a state")?)
}

/// How many bytes wait in a pipe or a socket (FIONREAD).
pub fn waiting(file: &impl AsRawFd) -> Result<u64, Trouble> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the pointer is that of `bytes`, an int as this ioctl wants it.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    if result < 0 { Err(Errno::last().into()) } else { Ok(u64::try_from(bytes)?) }
}

/// The number of a task of this name, if there is one.
pub fn task(name: &str) -> Result<Option<u32>, Trouble> {
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|text| text.parse().ok()) else {
            continue;
        };
        // A task may end at any moment.
        let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if comm.trim_end() == name {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// What /proc/net/netlink says of a socket.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Bytes that its receive queue is charged for.
    pub rmem: u64,
    /// Messages for it that were dropped.
    pub drops: u64,
}

impl Entry {
    /// The socket of this protocol and port.
    pub fn of(protocol: u32, portid: u32) -> Result<Entry, Trouble> {
        let table = fs::read_to_string("/proc/net/netlink")?;
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let &[_, of_protocol, of_port, _, rmem, _, _, _, drops, ..] = fields.as_slice() else {
                return Err(format!("/proc/net/netlink has a line \"{line}\"").into());
            };
            if of_protocol.parse() == Ok(protocol) && of_port.parse() == Ok(portid) {
                return Ok(Entry { rmem: rmem.parse()?, drops: drops.parse()? });
            }
        }
        Err(format!("/proc/net/netlink has no socket {portid} of protocol {protocol}").into())
    }
}

/// The kernel's log, from some moment on.
pub struct Log(File);

/// A line of it.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its time stamp in microseconds.
    pub at_us: u64,
    pub text: String,
}

impl Log {
    /// From now on.
    pub fn from_now() -> Result<Log, Trouble> {
        let mut file =
            OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg")?;
        file.seek(SeekFrom::End(0))?;
        Ok(Log(file))
    }

    /// The lines that have come since then, or since this was last asked for.
    pub fn lines(&mut self) -> Result<Vec<Line>, Trouble> {
        let mut lines = Vec::new();
        let mut buffer = [0; RECORD_MAX_BYTES];
        loop {
            let length = match self.0.read(&mut buffer) {
                Ok(length) => length,
                Err(err) if err.kind() == ErrorKind::WouldBlock => return Ok(lines),
                // Records were overwritten before they were read.
                Err(err) if err.raw_os_error() == Some(libc::EPIPE) => continue,
                Err(err) => return Err(err.into()),
            };
            // "6,1234,5678,-;text", and lines with details that begin with a space.
            let record = String::from_utf8_lossy(&buffer[..length]);
            let (prefix, text) = record.split_once(';').ok_or("a record without a text")?;
            let at_us = prefix.split(',').nth(2).ok_or("a record without a time")?.parse()?;
            let text = text.lines().next().unwrap_or_default().to_string();
            lines.push(Line { at_us, text });
        }
    }

    /// How many of these lines say this.
    pub fn count(&mut self, what: &str) -> Result<usize, Trouble> {
        Ok(self.lines()?.iter().filter(|line| line.text.contains(what)).count())
    }
}
