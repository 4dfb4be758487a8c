//! A command's standard streams: from the rig's own to the guest's ports and
//! back, byte for byte.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use anyhow::Result;
use nix::poll::PollFlags;
use nlrig_guest::protocol::{Job, Stdio};

use super::read_some;

/// How much input is taken ahead of the guest.
const CHUNK_BYTES: usize = 64 * 1024;

/// The streams of one guest.
#[derive(Debug)]
pub struct Streams {
    stdin: UnixStream,
    stdout: UnixStream,
    stderr: UnixStream,
    /// Bytes that came of each.
    stdout_bytes: u64,
    stderr_bytes: u64,
    /// Input that was read and not yet sent.
    pending: Vec<u8>,
    input: Input,
    /// Whether a command runs whose streams are the ports.
    running: bool,
    /// Whether the rig's own streams are used at all.
    forward: bool,
}

/// The state of the command's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    /// The command has not started: the guest would take an end for the start.
    Waiting,
    Open,
    /// The rig's own input is at its end; what is pending goes out first.
    Ending,
    Closed,
}

/// One end that can be waited for.
#[derive(Clone, Copy, Debug)]
pub enum Stream {
    /// The rig's own standard input.
    OwnInput,
    /// The guest's input takes more.
    Stdin,
    /// The guest's output has something.
    Stdout,
    /// The guest's error output has something.
    Stderr,
}

impl Streams {
    /// The host's ends of the three ports.
    ///
    /// # Errors
    /// Only if they are not sockets.
    pub fn new(stdin: UnixStream, stdout: UnixStream, stderr: UnixStream) -> Result<Streams> {
        stdin.set_nonblocking(true)?;
        Ok(Streams {
            stdin,
            stdout,
            stderr,
            stdout_bytes: 0,
            stderr_bytes: 0,
            pending: Vec::new(),
            input: Input::Waiting,
            running: false,
            forward: false,
        })
    }

    /// Uses the rig's own standard streams.
    pub fn forward(&mut self) {
        self.forward = true;
    }

    /// The command runs: its input may flow.
    pub fn open(&mut self, job: &Job) {
        if job.stdio == Stdio::Ports {
            self.input = if self.forward { Input::Open } else { Input::Ending };
            self.running = true;
        }
    }

    /// The command is over.
    pub fn close(&mut self) {
        self.input = Input::Closed;
        self.running = false;
    }

    /// Whether bytes are still under way.
    pub fn lack(&self, stdout_bytes: u64, stderr_bytes: u64) -> bool {
        self.running && (self.stdout_bytes < stdout_bytes || self.stderr_bytes < stderr_bytes)
    }

    /// What to wait for.
    pub fn wanted(&self) -> Vec<(Stream, BorrowedFd<'_>, PollFlags)> {
        if !self.running {
            return Vec::new();
        }
        let mut wanted = vec![
            (Stream::Stdout, self.stdout.as_fd(), PollFlags::POLLIN),
            (Stream::Stderr, self.stderr.as_fd(), PollFlags::POLLIN),
        ];
        match self.input {
            Input::Open if self.pending.is_empty() => {
                // SAFETY: the rig's standard input stays open as long as it runs.
                let own = unsafe { BorrowedFd::borrow_raw(0) };
                wanted.push((Stream::OwnInput, own, PollFlags::POLLIN));
            }
            Input::Open | Input::Ending => {
                wanted.push((Stream::Stdin, self.stdin.as_fd(), PollFlags::POLLOUT));
            }
            Input::Waiting | Input::Closed => {}
        }
        wanted
    }

    /// Deals with one stream that is ready.
    ///
    /// # Errors
    /// The rig's own output cannot be written, or its input read.
    pub fn serve(&mut self, stream: Stream) -> Result<()> {
        match stream {
            Stream::OwnInput => self.read_own_input()?,
            Stream::Stdin => self.feed()?,
            Stream::Stdout => {
                self.stdout_bytes += pass_on(&mut self.stdout, self.forward, io::stdout())?;
            }
            Stream::Stderr => {
                self.stderr_bytes += pass_on(&mut self.stderr, self.forward, io::stderr())?;
            }
        }
        Ok(())
    }

    fn read_own_input(&mut self) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK_BYTES];
        // Not std's stdin, whose buffer would hide bytes from poll.
        // SAFETY: as in wanted(); the file is not dropped.
        let mut own = std::mem::ManuallyDrop::new(unsafe {
            <std::fs::File as std::os::fd::FromRawFd>::from_raw_fd(0)
        });
        match own.read(&mut chunk) {
            Ok(0) => self.input = Input::Ending,
            Ok(length) => self.pending.extend_from_slice(&chunk[..length]),
            Err(err) if matches!(err.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            // No standard input at all is an empty one.
            Err(_) => self.input = Input::Ending,
        }
        Ok(())
    }

    fn feed(&mut self) -> io::Result<()> {
        if !self.pending.is_empty() {
            match self.stdin.write(&self.pending) {
                Ok(length) => drop(self.pending.drain(..length)),
                Err(err)
                    if matches!(err.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                // The machine is gone, which the event port says too.
                Err(_) => self.input = Input::Closed,
            }
        } else if self.input == Input::Ending {
            // Only this half: closing both would let QEMU drop what it has not
            // read.
            let _ = self.stdin.shutdown(Shutdown::Write);
            self.input = Input::Closed;
        }
        Ok(())
    }
}

fn pass_on(from: &mut UnixStream, forward: bool, mut to: impl Write) -> io::Result<u64> {
    let mut bytes = Vec::new();
    if !read_some(from, &mut bytes)? {
        // Do not wake up for it again and again until the event port closes.
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    if forward {
        to.write_all(&bytes)?;
        to.flush()?;
    }
    Ok(bytes.len() as u64)
}
