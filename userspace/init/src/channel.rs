//! The connection to the host: named virtio-serial ports.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nlrig_init::protocol::{Event, LINE_MAX_BYTES, PORT_CLOSED, PORT_EVENTS, Request};

/// The kernel creates the ports from a work queue, shortly after it starts PID
/// 1. An emulated guest on a busy host takes longer.
const PORT_DEADLINE: Duration = Duration::from_secs(20);
const PORT_POLL: Duration = Duration::from_millis(5);
/// Timeout for a host that does not close the port, which normally happens
/// immediately.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);
const CLOSE_POLL: Duration = Duration::from_millis(1);

/// The event port: sends events, receives requests.
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

    /// Queues one event. The host may not have received it on return.
    pub fn send(&mut self, event: &Event) -> io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        self.out.write_all(&line)
    }

    /// Waits until the host closes its end of the port, after it has received
    /// the last event. Events still queued at reboot would be lost.
    pub fn wait_for_host_to_close(&self) -> io::Result<()> {
        let deadline = Instant::now() + CLOSE_DEADLINE;
        while host_is_connected(&self.out)? && Instant::now() < deadline {
            sleep(CLOSE_POLL);
        }
        Ok(())
    }

    /// Sends bytes that are not an event, for fault injection.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// The descriptor to poll for the next request, unless
    /// [`Channel::holds_request`].
    pub fn source(&self) -> &File {
        &self.out
    }

    /// Whether the read buffer holds another request.
    pub fn holds_request(&self) -> bool {
        !self.requests.buffer().is_empty()
    }

    /// Waits for the next request. None at the end of the session.
    pub fn receive(&mut self) -> io::Result<Option<Request>> {
        let mut line = Vec::new();
        let limit = LINE_MAX_BYTES as u64;
        self.requests.by_ref().take(limit).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            // Without this line, the host would take the end of the guest for a
            // reset.
            eprintln!("{PORT_CLOSED}");
            return Ok(None);
        }
        match serde_json::from_slice(&line)? {
            Request::End => Ok(None),
            request => Ok(Some(request)),
        }
    }
}

/// Opens the port with this name, once it exists and the host is connected.
pub fn open_port(name: &str) -> io::Result<File> {
    let deadline = Instant::now() + PORT_DEADLINE;
    loop {
        if let Some(device) = find_port(name)? {
            let port = OpenOptions::new().read(true).write(true).open(&device)?;
            while !host_is_connected(&port)? {
                check_deadline(deadline, name, "the host is not connected")?;
                sleep(PORT_POLL);
            }
            return Ok(port);
        }
        check_deadline(deadline, name, "not found")?;
        sleep(PORT_POLL);
    }
}

fn check_deadline(deadline: Instant, name: &str, reason: &str) -> io::Result<()> {
    if Instant::now() < deadline {
        return Ok(());
    }
    Err(io::Error::other(format!("virtio port {name}: {reason}")))
}

/// A port without a connected host reports POLLHUP and reads as end of file.
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
