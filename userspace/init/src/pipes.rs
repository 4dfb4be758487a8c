//! Pipes from a program: forwards its output and its reports.

use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::AsRawFd;

use nlrig_init::protocol::{Event, LINE_MAX_BYTES};

use crate::channel::Channel;

/// Buffer size for one read: the default capacity of a pipe.
pub const CHUNK_BYTES: usize = 64 * 1024;

/// Forwards one output stream and counts its bytes.
pub struct Pump {
    /// None after end of file.
    pub source: Option<PipeReader>,
    sink: File,
    /// Bytes forwarded.
    pub bytes: u64,
}

impl Pump {
    pub fn new(source: PipeReader, sink: File) -> io::Result<Pump> {
        set_nonblocking(&source)?;
        Ok(Pump { source: Some(source), sink, bytes: 0 })
    }

    pub fn forward(&mut self, most: usize) -> io::Result<()> {
        let (sink, bytes) = (&mut self.sink, &mut self.bytes);
        drain(&mut self.source, most, |chunk| {
            *bytes += chunk.len() as u64;
            sink.write_all(chunk)
        })
    }
}

/// Splits a workload's reports into lines and sends each as an event.
pub struct Reports {
    /// None after end of file.
    pub source: Option<PipeReader>,
    line: Vec<u8>,
}

impl Reports {
    pub fn new(source: PipeReader) -> io::Result<Reports> {
        set_nonblocking(&source)?;
        Ok(Reports { source: Some(source), line: Vec::new() })
    }

    pub fn forward(&mut self, channel: &mut Channel, most: usize) -> io::Result<()> {
        let line = &mut self.line;
        drain(&mut self.source, most, |chunk| {
            for part in chunk.split_inclusive(|&byte| byte == b'\n') {
                // A line longer than the host accepts is truncated and does not
                // parse.
                let room = LINE_MAX_BYTES / 2 - line.len().min(LINE_MAX_BYTES / 2);
                line.extend_from_slice(&part[..part.len().min(room)]);
                if part.ends_with(b"\n") {
                    send_report(line, channel)?;
                }
            }
            Ok(())
        })
    }

    pub fn send_last_line(&mut self, channel: &mut Channel) -> io::Result<()> {
        if self.line.is_empty() { Ok(()) } else { send_report(&mut self.line, channel) }
    }
}

fn send_report(line: &mut Vec<u8>, channel: &mut Channel) -> io::Result<()> {
    // Non-JSON output is forwarded for the host to judge. A short part
    // suffices, because escaping makes it longer.
    let part = &line[..line.len().min(1024)];
    let value = serde_json::from_slice(line)
        .unwrap_or_else(|_| serde_json::json!({ "not-json": String::from_utf8_lossy(part) }));
    line.clear();
    channel.send(&Event::Data { value })
}

/// Reads the available bytes without blocking, at most `most`: an endless
/// writer must not keep this loop running.
fn drain(
    source: &mut Option<PipeReader>,
    most: usize,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let Some(pipe) = source else { return Ok(()) };
    let mut left = held_bytes(pipe)?.clamp(1, most);
    let mut chunk = vec![0; CHUNK_BYTES];
    while left > 0 {
        match pipe.read(&mut chunk[..left.min(CHUNK_BYTES)]) {
            Ok(0) => {
                *source = None;
                return Ok(());
            }
            Ok(length) => {
                left -= length;
                each(&chunk[..length])?;
            }
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    Ok(())
}

/// The number of bytes that a pipe holds.
fn held_bytes(pipe: &PipeReader) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int to `bytes`.
    if unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &mut bytes) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(bytes).unwrap_or(0))
}

fn set_nonblocking(pipe: &PipeReader) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}
