//! A command's standard streams: from the rig's own to the guest's ports and
//! back, byte for byte; or its output into files of limited size.
//!
//! Nothing here waits: each end is read or written when the machine's poll says
//! that it is ready, so that a slow reader of the rig's output holds up neither
//! deadlines nor an interruption.

use std::io::{self, ErrorKind, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::outcome::Result;
use nix::errno::Errno;
use nix::poll::PollFlags;

use super::log::Log;
use super::read_some;

/// A trial's output takes no more than this on disk, and its error output too.
const FILE_MAX_BYTES: u64 = 16 << 20;
/// How much input is taken ahead of the guest.
const CHUNK_BYTES: usize = 64 * 1024;
/// How much output is held for a slow reader before the guest has to wait.
const HELD_MAX_BYTES: usize = 1 << 20;
/// A pipe that is ready for writing takes as much without waiting (PIPE_BUF).
const WRITE_BYTES: usize = 4096;

/// The streams of one guest.
#[derive(Debug)]
pub struct Streams {
    stdin: UnixStream,
    stdout: Outlet,
    stderr: Outlet,
    /// Input that was read and not yet sent.
    pending: Vec<u8>,
    input: Input,
    /// Whether a command runs whose streams are the ports.
    running: bool,
    /// Whether the rig's own input is used.
    forward: bool,
}

/// The state of the command's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Open,
    /// The rig's own input is at its end; what is pending goes out first.
    Ending,
    Closed,
}

/// One stream out of the guest.
#[derive(Debug)]
struct Outlet {
    from: UnixStream,
    to: To,
    /// What has come and is not yet written.
    held: Vec<u8>,
    /// How much has come.
    bytes: u64,
    ended: bool,
}

/// Where a stream goes.
#[derive(Debug)]
enum To {
    Nowhere,
    /// The rig's own descriptor.
    Own(RawFd),
    File(Log),
}

/// One end that can be waited for.
#[derive(Clone, Copy, Debug)]
pub enum Stream {
    /// The rig's own standard input has something.
    OwnInput,
    /// The guest's input takes more.
    Stdin,
    /// The guest's output has something.
    Stdout,
    /// The guest's error output has something.
    Stderr,
    /// The rig's own output takes more.
    OwnOutput,
    /// The rig's own error output takes more.
    OwnError,
}

impl Streams {
    /// The host's ends of the three ports.
    ///
    /// # Errors
    /// Only if they are not sockets.
    pub fn new(stdin: UnixStream, stdout: UnixStream, stderr: UnixStream) -> Result<Streams> {
        stdin.set_nonblocking(true)?;
        let outlet =
            |from| Outlet { from, to: To::Nowhere, held: Vec::new(), bytes: 0, ended: false };
        Ok(Streams {
            stdin,
            stdout: outlet(stdout),
            stderr: outlet(stderr),
            pending: Vec::new(),
            input: Input::Closed,
            running: false,
            forward: false,
        })
    }

    /// Uses the rig's own standard streams; of its input only if `input` is
    /// true.
    pub fn forward(&mut self, input: bool) {
        self.forward = input;
        self.stdout.to = To::Own(1);
        self.stderr.to = To::Own(2);
    }

    /// Keeps output and error output in files of these names in this folder.
    ///
    /// # Errors
    /// They cannot be made.
    pub fn keep_in(&mut self, dir: &Path) -> Result<()> {
        self.stdout.to = To::File(Log::create(&dir.join("stdout"), FILE_MAX_BYTES)?);
        self.stderr.to = To::File(Log::create(&dir.join("stderr"), FILE_MAX_BYTES)?);
        Ok(())
    }

    /// Takes what still comes and lets it fall.
    pub fn discard(&mut self) {
        for outlet in [&mut self.stdout, &mut self.stderr] {
            outlet.to = To::Nowhere;
            outlet.held.clear();
        }
    }

    /// The command runs: its input may flow. Not before: the guest would take
    /// its end for a host that is not there yet.
    pub fn open(&mut self) {
        self.input = if self.forward { Input::Open } else { Input::Closed };
        self.stdout.bytes = 0;
        self.stderr.bytes = 0;
        self.running = true;
    }

    /// The command is over.
    pub fn close(&mut self) {
        self.input = Input::Closed;
        self.running = false;
    }

    /// Whether bytes that the guest sent have not come yet.
    pub fn lack(&self, stdout_bytes: u64, stderr_bytes: u64) -> bool {
        self.running && (self.stdout.bytes < stdout_bytes || self.stderr.bytes < stderr_bytes)
    }

    /// Whether bytes that have come are not written yet.
    pub fn hold(&self) -> bool {
        !self.stdout.held.is_empty() || !self.stderr.held.is_empty()
    }

    /// Whether no more is taken of one of them until its reader takes some.
    pub fn is_full(&self) -> bool {
        [&self.stdout, &self.stderr].iter().any(|outlet| outlet.held.len() >= HELD_MAX_BYTES)
    }

    /// How many bytes have come of both.
    pub fn come(&self) -> u64 {
        self.stdout.bytes + self.stderr.bytes
    }

    /// What to wait for.
    pub fn wanted(&self) -> Vec<(Stream, BorrowedFd<'_>, PollFlags)> {
        let mut wanted = Vec::new();
        if !self.running {
            return wanted;
        }
        for (outlet, come, own) in [
            (&self.stdout, Stream::Stdout, Stream::OwnOutput),
            (&self.stderr, Stream::Stderr, Stream::OwnError),
        ] {
            if !outlet.ended && outlet.held.len() < HELD_MAX_BYTES {
                wanted.push((come, outlet.from.as_fd(), PollFlags::POLLIN));
            }
            if let To::Own(fd) = outlet.to
                && !outlet.held.is_empty()
            {
                wanted.push((own, own_fd(fd), PollFlags::POLLOUT));
            }
        }
        match self.input {
            Input::Open if self.pending.is_empty() => {
                wanted.push((Stream::OwnInput, own_fd(0), PollFlags::POLLIN));
            }
            Input::Open | Input::Ending => {
                wanted.push((Stream::Stdin, self.stdin.as_fd(), PollFlags::POLLOUT));
            }
            Input::Closed => {}
        }
        wanted
    }

    /// Deals with one stream that is ready.
    ///
    /// # Errors
    /// The rig's own output cannot be written, or its input read.
    pub fn serve(&mut self, stream: Stream) -> Result<()> {
        match stream {
            Stream::OwnInput => self.read_own_input(),
            Stream::Stdin => self.feed(),
            Stream::Stdout => self.stdout.take()?,
            Stream::Stderr => self.stderr.take()?,
            Stream::OwnOutput => self.stdout.write()?,
            Stream::OwnError => self.stderr.write()?,
        }
        Ok(())
    }

    /// Not by std's stdin, whose buffer would hide bytes from poll.
    fn read_own_input(&mut self) {
        let mut chunk = vec![0; CHUNK_BYTES];
        match nix::unistd::read(own_fd(0), &mut chunk) {
            Ok(0) => self.input = Input::Ending,
            Ok(length) => self.pending.extend_from_slice(&chunk[..length]),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            // No standard input at all is an empty one.
            Err(_) => self.input = Input::Ending,
        }
    }

    fn feed(&mut self) {
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
    }
}

impl Outlet {
    fn take(&mut self) -> Result<()> {
        let before = self.held.len();
        self.ended = !read_some(&mut self.from, &mut self.held)?;
        self.bytes += (self.held.len() - before) as u64;
        match &mut self.to {
            To::Own(_) => return Ok(()),
            To::File(log) => log.append(&self.held)?,
            To::Nowhere => {}
        }
        self.held.clear();
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        let To::Own(fd) = self.to else { return Ok(()) };
        let part = &self.held[..self.held.len().min(WRITE_BYTES)];
        match nix::unistd::write(own_fd(fd), part) {
            Ok(length) => drop(self.held.drain(..length)),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(err) => return Err(err.into()),
        }
        Ok(())
    }
}

/// One of the rig's own standard streams.
fn own_fd(number: RawFd) -> BorrowedFd<'static> {
    // SAFETY: the rig never closes its standard streams; where one was closed
    // before it started, std has opened /dev/null in its place.
    unsafe { BorrowedFd::borrow_raw(number) }
}
