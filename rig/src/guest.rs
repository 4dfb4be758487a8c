//! The life of one virtual machine: boot, run jobs, end.
//!
//! A [`Guest`] owns its QEMU and its share daemons; dropping it kills them. It
//! is driven by one thread, and everything comes through one poll: events,
//! console, QEMU's own words, and a command's streams. Whatever goes wrong with
//! the machine itself is a [`Loss`].

mod boot;
pub mod console;
pub mod events;
pub mod log;
pub mod streams;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nlrig_guest::protocol::{Event, Exit, Job, Request};

use crate::interrupt;
use crate::process::Child;
use crate::procfs;
use crate::report::Verdict;
use crate::scratch::Scratch;
use crate::share::Share;
pub use boot::Boot;
use console::Console;
use events::Lines;
use streams::Streams;

/// How long the guest may take to end once it was told to.
const END_LIMIT: Duration = Duration::from_secs(20);
/// How long QEMU may take to close once its guest is gone.
const QEMU_END_LIMIT: Duration = Duration::from_secs(5);
/// A machine that did not do what it was asked, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// What happened.
    pub verdict: Verdict,
    /// A sentence a person can act on.
    pub reason: String,
}

impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Loss {}

fn loss(verdict: Verdict, reason: impl Into<String>) -> anyhow::Error {
    Loss { verdict, reason: reason.into() }.into()
}

/// What the guest said when it was ready.
#[derive(Clone, Debug)]
pub struct Ready {
    /// The clock that its times come from.
    pub clocksource: String,
    /// What did not work while it came up; empty when all is well.
    pub faults: Vec<String>,
    /// From the start of QEMU to the event, on the host's clock.
    pub boot: Duration,
}

/// What is known of a machine that has ended well.
#[derive(Clone, Debug, Default)]
pub struct Farewell {
    /// Its kernel's own words, if it killed a process for want of memory.
    pub out_of_memory: Option<String>,
}

/// How long a job may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Without a sign of life.
    pub silence: Duration,
    /// In all.
    pub total: Duration,
}

/// A running virtual machine.
#[derive(Debug)]
pub struct Guest {
    qemu: Child,
    shares: Vec<Share>,
    console: Console,
    /// QEMU's own words.
    complaints: Console,
    events: Lines,
    control: UnixStream,
    streams: Streams,
    /// What it said when it was ready.
    pub ready: Ready,
    // Last: the sockets in it are needed until everything above is gone.
    _scratch: Scratch,
}

/// What woke the rig.
enum Woken {
    Event(Event),
    /// Nothing yet.
    Nothing,
    /// The event port was closed: the machine is gone.
    Gone,
}

impl Guest {
    /// Runs one job to its end; `data` gets every object that its program
    /// reports.
    ///
    /// # Errors
    /// A [`Loss`] if the program was late or the machine was lost; whatever
    /// `data` failed with.
    pub fn run(
        &mut self,
        job: &Job,
        limits: Limits,
        mut data: impl FnMut(serde_json::Value) -> Result<()>,
    ) -> Result<Exit> {
        self.send(&Request::Run(job.clone()))?;
        let start = Instant::now();
        let mut last_sign = start;
        loop {
            let deadline = (last_sign + limits.silence).min(start + limits.total);
            let late = || {
                let passed = seconds(start.elapsed());
                loss(Verdict::Timeout, format!("the program was not done after {passed}"))
            };
            if start.elapsed() > limits.total {
                return Err(late()); // However much it still says.
            }
            match self.next_event(deadline, late)? {
                Event::Started => self.streams.open(job),
                Event::Data { value } => data(value)?,
                Event::Exited { status, stdout_bytes, stderr_bytes } => {
                    self.drain_streams(stdout_bytes, stderr_bytes)?;
                    return Ok(status);
                }
                event => return Err(out_of_order(&event)),
            }
            last_sign = Instant::now();
        }
    }

    /// Lets a command use the rig's own standard streams, from its start to
    /// its end.
    pub fn forward_streams(&mut self) {
        self.streams.forward();
    }

    /// The most memory that QEMU and the share daemons have held so far, each
    /// at its own peak, in bytes. A page of the guest's that a daemon has
    /// touched counts for it too, so this is rather too much than too little.
    ///
    /// # Errors
    /// One of them is gone.
    pub fn peak_bytes(&self) -> Result<u64> {
        let processes = self.shares.iter().map(Share::id).chain([self.qemu.id()]);
        processes.map(procfs::peak_bytes).sum()
    }

    /// Ends the machine and waits until it is gone; what its console said.
    ///
    /// # Errors
    /// A [`Loss`] if the last event did not come.
    pub fn end(mut self) -> Result<Farewell> {
        self.send(&Request::End)?;
        let late = || loss(Verdict::GuestHang, "the guest did not end when it was told to");
        match self.next_event(Instant::now() + END_LIMIT, late)? {
            Event::End => {}
            event => return Err(out_of_order(&event)),
        }
        // The guest waits for this: what is still queued there is then ours.
        let _ = self.control.shutdown(Shutdown::Both);
        let deadline = Instant::now() + QEMU_END_LIMIT;
        while self.qemu.try_wait()?.is_none() && Instant::now() < deadline {
            // QEMU waits for nobody to read its console.
            let _ = self.wake(Duration::from_millis(5))?;
            interrupt::check()?;
        }
        self.qemu.kill();
        self.console.drain();
        Ok(Farewell { out_of_memory: self.console.out_of_memory().map(str::to_string) })
    }

    fn send(&mut self, request: &Request) -> Result<()> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        if self.control.write_all(&line).is_err() {
            return Err(self.post_mortem());
        }
        Ok(())
    }

    fn next_event(&mut self, deadline: Instant, late: impl Fn() -> anyhow::Error) -> Result<Event> {
        loop {
            interrupt::check()?;
            let left = deadline.saturating_duration_since(Instant::now());
            match self.wake(left.min(interrupt::POLL))? {
                Woken::Event(event) => return Ok(event),
                Woken::Gone => return Err(self.post_mortem()),
                // A guest whose share is gone waits for it for ever.
                Woken::Nothing if self.share_failure().is_some() => {
                    return Err(self.post_mortem());
                }
                Woken::Nothing if left.is_zero() => return Err(late()),
                Woken::Nothing => {}
            }
        }
    }

    /// Waits for anything to happen, at most this long, and deals with all of
    /// it but events, which it gives back one at a time.
    fn wake(&mut self, wait: Duration) -> Result<Woken> {
        if let Some(event) = self.events.next_event()? {
            return Ok(Woken::Event(event));
        }
        let ready = {
            let fixed = [
                Some(self.events.source().as_fd()),
                self.console.source(),
                self.complaints.source(),
            ];
            let mut wanted: Vec<(Source, BorrowedFd<'_>, PollFlags)> = Vec::new();
            for (source, fd) in
                [Source::Events, Source::Console, Source::Complaints].into_iter().zip(fixed)
            {
                wanted.extend(fd.map(|fd| (source, fd, PollFlags::POLLIN)));
            }
            for (stream, fd, flags) in self.streams.wanted() {
                wanted.push((Source::Stream(stream), fd, flags));
            }
            let mut fds: Vec<_> =
                wanted.iter().map(|(_, fd, flags)| PollFd::new(*fd, *flags)).collect();
            let wait = PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO);
            match poll(&mut fds, wait) {
                Ok(_) => {}
                Err(nix::errno::Errno::EINTR) => return Ok(Woken::Nothing),
                Err(err) => return Err(err.into()),
            }
            let woken = |fd: &PollFd<'_>| fd.any() == Some(true);
            wanted
                .iter()
                .zip(&fds)
                .filter(|(_, fd)| woken(fd))
                .map(|((source, ..), _)| *source)
                .collect::<Vec<_>>()
        };
        let mut gone = false;
        for source in ready {
            match source {
                Source::Events => gone = !self.events.read()?,
                Source::Console => self.console.read()?,
                Source::Complaints => self.complaints.read()?,
                Source::Stream(stream) => self.streams.serve(stream)?,
            }
        }
        match self.events.next_event()? {
            Some(event) => Ok(Woken::Event(event)),
            None if gone => Ok(Woken::Gone),
            None => Ok(Woken::Nothing),
        }
    }

    /// Waits for the bytes that the guest says it sent, and until they are
    /// written. How long the reader of the rig's own output takes is up to it.
    fn drain_streams(&mut self, stdout_bytes: u64, stderr_bytes: u64) -> Result<()> {
        let mut deadline = Instant::now() + END_LIMIT;
        loop {
            let lack = self.streams.lack(stdout_bytes, stderr_bytes);
            if !lack && !self.streams.hold() {
                break;
            }
            interrupt::check()?;
            if lack && !self.streams.hold() && Instant::now() > deadline {
                return Err(loss(Verdict::LostVm, "the command's output did not arrive whole"));
            }
            let come = self.streams.come();
            if matches!(self.wake(interrupt::POLL)?, Woken::Gone) {
                return Err(self.post_mortem());
            }
            if self.streams.come() > come {
                deadline = Instant::now() + END_LIMIT;
            }
        }
        self.streams.close();
        Ok(())
    }

    /// Why a share's daemon is gone, if one is.
    fn share_failure(&mut self) -> Option<String> {
        self.shares.iter_mut().find_map(Share::failure)
    }

    /// Why a machine is gone before its last event, from what it left.
    fn post_mortem(&mut self) -> anyhow::Error {
        if let Some(reason) = self.share_failure() {
            return loss(Verdict::Infra, reason);
        }
        // QEMU closes its sockets before it is gone, and the console may hold
        // more than was read.
        let deadline = Instant::now() + QEMU_END_LIMIT;
        let mut status = None;
        while status.is_none() && Instant::now() < deadline {
            status = self.qemu.try_wait().ok().flatten();
            std::thread::sleep(Duration::from_millis(5));
        }
        // Its pipes end with it, so that what is left in them can be read out.
        self.qemu.kill();
        self.console.drain();
        self.complaints.drain();
        if let Some(line) = self.console.panic() {
            return loss(Verdict::Panic, format!("the guest's kernel panicked: {line}"));
        }
        if let Some(reason) = self.share_failure() {
            return loss(Verdict::Infra, reason);
        }
        let how = match status {
            Some(status) => format!("QEMU ended ({status})"),
            None => "QEMU closed the event port".to_string(),
        };
        let why = match self.complaints.tail().last() {
            Some(line) => format!(": {line}"),
            None => String::new(),
        };
        loss(Verdict::LostVm, format!("{how} without the guest's last event{why}"))
    }
}

#[derive(Clone, Copy)]
enum Source {
    Events,
    Console,
    Complaints,
    Stream(streams::Stream),
}

fn out_of_order(event: &Event) -> anyhow::Error {
    let event = format!("{event:?}");
    let name = event.split([' ', '{']).next().unwrap_or_default();
    loss(Verdict::LostVm, format!("the guest sent {name} out of order"))
}

fn seconds(duration: Duration) -> String {
    format!("{:.0} s", duration.as_secs_f64())
}

/// Reads what is there; false at the end.
fn read_some(source: &mut impl Read, into: &mut Vec<u8>) -> std::io::Result<bool> {
    let mut chunk = [0; 64 * 1024];
    loop {
        match source.read(&mut chunk) {
            Ok(0) => return Ok(false),
            Ok(length) => {
                into.extend_from_slice(&chunk[..length]);
                return Ok(true);
            }
            Err(err) if err.kind() == std::io::ErrorKind::Interrupted => {}
            // The peer went away with data of ours unread: the end all the same.
            Err(err) if err.kind() == std::io::ErrorKind::ConnectionReset => return Ok(false),
            Err(err) => return Err(err),
        }
    }
}
