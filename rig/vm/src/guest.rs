//! The life of one virtual machine: boot, run jobs, end.
//!
//! A [`Guest`] owns its QEMU and its share daemons; dropping it kills them. It
//! is driven by one thread, and everything comes through one poll: events,
//! console, QEMU's own words, and a command's streams. Whatever goes wrong with
//! the machine itself is a [`VmFailure`].

pub(crate) mod autopsy;
mod boot;
pub(crate) mod console;
mod end;
pub(crate) mod events;
mod job;
pub mod log;
pub(crate) mod monitor;
mod refused;
pub mod streams;
pub mod watch;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::outcome::Result;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nlrig_host::Context;
use nlrig_init::protocol::{Event, RefusedModule, Request};

use crate::budget::Held;
use crate::confine::Confinement;
use crate::outcome::{Verdict, VmFailure};
use crate::share::Share;
pub use autopsy::TASKS_FILE;
pub use boot::Boot;
use console::Console;
pub use console::tail_of;
use events::Lines;
use monitor::Monitor;
use nlrig_host::interrupt;
use nlrig_host::process::Child;
use nlrig_host::procfs;
use streams::Streams;
pub use watch::Limits;

fn loss(verdict: Verdict, reason: impl Into<String>) -> crate::outcome::Error {
    VmFailure::new(verdict, reason).into()
}

/// What the guest said when it was ready.
#[derive(Clone, Debug, Default)]
pub struct Ready {
    /// The clock that its times come from.
    pub clocksource: String,
    /// What did not work while it came up; empty when all is well.
    pub faults: Vec<String>,
    /// The module that the kernel refused to load, if it did.
    pub refused: Vec<RefusedModule>,
    /// From the start of QEMU to the event, on the host's clock.
    pub boot: Duration,
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
    /// The way into its serial line.
    keyboard: UnixStream,
    monitor: Monitor,
    streams: Streams,
    /// Where what it says is kept.
    dir: PathBuf,
    /// The names of its kernel's functions.
    symbols: PathBuf,
    /// The kernel's taint mask after the last job.
    taint: u64,
    /// The same when it became ready: only what came later is a fault.
    taint_at_ready: u64,
    /// Kinds of faults of its kernel that are none.
    allowed: Vec<Verdict>,
    /// Questions that it has not answered yet.
    pongs_due: u32,
    was_ready: bool,
    /// How long it may take to end.
    end_limit: Duration,
    /// What it said when it was ready.
    pub ready: Ready,
    /// What holds QEMU and the share daemons back, by the kind of process.
    pub confinement: BTreeMap<String, Confinement>,
    // Last: the host has no room for another before this one is gone.
    _held: Held,
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
    /// Keeps what it says from now on in another folder, for another trial.
    ///
    /// # Errors
    /// The files there cannot be made.
    pub fn redirect_logs(&mut self, dir: &Path) -> Result<()> {
        self.console.redirect(&dir.join(CONSOLE_FILE))?;
        self.events.redirect(&dir.join(EVENTS_FILE))?;
        std::fs::copy(self.dir.join(COMMAND_FILE), dir.join(COMMAND_FILE))
            .with_context(|| format!("cannot write to {}", dir.display()))?;
        self.dir = dir.to_path_buf();
        Ok(())
    }

    /// What of this machine a test can break from outside.
    ///
    /// # Errors
    /// No more descriptors.
    pub fn parts(&self) -> Result<VmHandles> {
        Ok(VmHandles {
            qemu: self.qemu.id(),
            shares: self.shares.iter().map(Share::id).collect(),
            channel: self.control.try_clone()?,
            dir: self.dir.clone(),
        })
    }

    /// The most memory that QEMU and the share daemons have held so far, each
    /// at its own peak, in bytes. A page of the guest's that a daemon has
    /// touched counts for it too, so this is rather too much than too little.
    ///
    /// # Errors
    /// One of them is gone.
    pub fn peak_bytes(&self) -> Result<u64> {
        let processes = self.shares.iter().flat_map(Share::processes).chain([self.qemu.id()]);
        Ok(processes.map(procfs::peak_bytes).sum::<nlrig_host::Result<u64>>()?)
    }

    fn send(&mut self, request: &Request) -> Result<()> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        if self.control.write_all(&line).is_err() {
            return Err(self.post_mortem());
        }
        Ok(())
    }

    /// The next event, if it comes before the deadline.
    fn next_event(&mut self, deadline: Instant) -> Result<Option<Event>> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self.event_within(left.min(interrupt::POLL))?;
            if event.is_some() || left.is_zero() {
                return Ok(event);
            }
        }
    }

    /// The next event, if there is one within a short while.
    fn event_within(&mut self, wait: Duration) -> Result<Option<Event>> {
        interrupt::check()?;
        let woken = match self.wake(wait) {
            Ok(woken) => woken,
            Err(err) => {
                return Err(match err.into_vm_failure() {
                    Ok(nonsense) => self.confused(nonsense),
                    Err(err) => err,
                });
            }
        };
        match woken {
            // An answer may come after the program's end, or later.
            Woken::Event(Event::Pong) if self.pongs_due > 0 => {
                self.pongs_due -= 1;
                Ok(None)
            }
            Woken::Event(event) => Ok(Some(event)),
            Woken::Gone => Err(self.post_mortem()),
            // A guest whose share is gone waits for it for ever.
            Woken::Nothing if self.share_failure().is_some() => Err(self.post_mortem()),
            Woken::Nothing => Ok(None),
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
}

/// What of a machine can be broken from outside.
#[derive(Debug)]
pub struct VmHandles {
    /// QEMU's number among processes.
    pub qemu: u32,
    /// The share daemons' numbers.
    pub shares: Vec<u32>,
    /// The way to the guest's PID 1.
    pub channel: UnixStream,
    /// The folder of the trial.
    pub dir: PathBuf,
}

/// QEMU's standard error, in the folder of a trial.
pub const QEMU_LOG_FILE: &str = "qemu.log";
/// The console, in the folder of a trial.
pub const CONSOLE_FILE: &str = "console";
/// QEMU's command line, in the folder of a trial.
pub const COMMAND_FILE: &str = "qemu.sh";
/// The events, in the folder of a trial.
pub const EVENTS_FILE: &str = "events.jsonl";

#[derive(Clone, Copy)]
enum Source {
    Events,
    Console,
    Complaints,
    Stream(streams::Stream),
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
