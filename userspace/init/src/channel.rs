//! The way to the host: named virtio-serial ports.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nlrig_init::protocol::{Event, LINE_MAX_BYTES, PORT_CLOSED, PORT_EVENTS, Request};

/// The kernel makes the ports from a work queue, a moment after it starts PID 1
/// at the latest; an emulated and busy machine takes longer.
const PORT_DEADLINE: Duration = Duration::from_secs(20);
const PORT_POLL: Duration = Duration::from_millis(5);
/// The host closes at once; one that does not is not waited for.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);
const CLOSE_POLL: Duration = Duration::from_millis(1);

/// The event port: events out, requests in.
pub struct Channel {
    out: File,
    requests: BufReader<File>,
}

impl Channel {
    pub fn open() -> io::Result<Channel> {
        let out = open_port(PORT_EVENTS)?;
        let requests = BufReader::new(out.try_clone()?);
        Ok(Channel { out, requests })
    }

    /// Sends one event. Returns when it is queued, not when the host has it.
    pub fn send(&mut self, event: &Event) -> io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        self.out.write_all(&line)
    }

    /// Waits until the host has closed its end, which it does once it has the
    /// last event: what is still queued would be lost with the machine.
    pub fn wait_for_host_to_close(&self) -> io::Result<()> {
        let deadline = Instant::now() + CLOSE_DEADLINE;
        while host_is_connected(&self.out)? && Instant::now() < deadline {
            sleep(CLOSE_POLL);
        }
        Ok(())
    }

    /// Sends what is no event; for who misbehaves on request.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// Where to wait for the next request, unless [`Channel::holds_request`].
    pub fn source(&self) -> &File {
        &self.out
    }

    /// Whether a request was read already and not given out.
    pub fn holds_request(&self) -> bool {
        !self.requests.buffer().is_empty()
    }

    /// Waits for the next request; none at the end of the session.
    pub fn receive(&mut self) -> io::Result<Option<Request>> {
        let mut line = Vec::new();
        let limit = LINE_MAX_BYTES as u64;
        self.requests.by_ref().take(limit).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            // Otherwise the host takes the end of this guest for a reset.
            eprintln!("{PORT_CLOSED}");
            return Ok(None);
        }
        match serde_json::from_slice(&line)? {
            Request::End => Ok(None),
            request => Ok(Some(request)),
        }
    }
}

/// Opens the port of this name once the kernel has made it and the host is at
/// the other end.
pub fn open_port(name: &str) -> io::Result<File> {
    let deadline = Instant::now() + PORT_DEADLINE;
    loop {
        if let Some(device) = find_port(name)? {
            let port = OpenOptions::new().read(true).write(true).open(&device)?;
            while !host_is_connected(&port)? {
                late(deadline, "the host is not connected to", name)?;
                sleep(PORT_POLL);
            }
            return Ok(port);
        }
        late(deadline, "there is no", name)?;
        sleep(PORT_POLL);
    }
}

fn late(deadline: Instant, what: &str, name: &str) -> io::Result<()> {
    if Instant::now() < deadline {
        return Ok(());
    }
    Err(io::Error::other(format!("{what} virtio port {name}")))
}

/// A port without a host reads as at its end and hangs up.
fn host_is_connected(port: &File) -> io::Result<bool> {
    let mut fds = [PollFd::new(port.as_fd(), PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO)?;
    Ok(!fds[0].revents().is_some_and(|seen| seen.contains(PollFlags::POLLHUP)))
}

fn find_port(name: &str) -> io::Result<Option<String>> {
    let class = match fs::read_dir("/sys/class/virtio-ports") {
        Ok(class) => class,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(err),
    };
    for port in class {
        let port = port?;
        let is_it = fs::read_to_string(port.path().join("name"))
            .is_ok_and(|found| found.trim_end() == name);
        let device = format!("/dev/{}", port.file_name().to_string_lossy());
        if is_it && fs::exists(&device)? {
            return Ok(Some(device));
        }
    }
    Ok(None)
}
