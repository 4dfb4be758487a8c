//! The life of one virtual machine: boot, run jobs, end.
//!
//! A [`Guest`] owns its QEMU and its share daemons; dropping it kills them. It
//! is driven by one thread, and everything comes through one poll: events,
//! console, QEMU's own words, and a command's streams. Whatever goes wrong with
//! the machine itself is a [`Loss`].

pub mod autopsy;
mod boot;
pub mod console;
pub mod events;
pub mod log;
pub mod monitor;
pub mod splat;
pub mod streams;
pub mod watch;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nlrig_guest::protocol::{Event, Exit, Job, Misbehaviour, Request};

use crate::budget::Held;
use crate::interrupt;
use crate::process::Child;
use crate::procfs;
use crate::report::{Blame, Verdict};
use crate::say::brief;
use crate::scratch::Scratch;
use crate::share::Share;
pub use boot::Boot;
use console::Console;
use events::Lines;
use monitor::Monitor;
use streams::Streams;
pub use watch::Limits;
use watch::{Due, Watch};

/// How long the guest may take to end once it was told to.
const END_LIMIT: Duration = Duration::from_secs(20);
/// How long QEMU may take to close once its guest is gone.
const QEMU_END_LIMIT: Duration = Duration::from_secs(5);
/// How long the console may lag behind an event that says that there is
/// something on it.
const CONSOLE_LAG: Duration = Duration::from_millis(500);

/// A machine that did not do what it was asked, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// What happened.
    pub verdict: Verdict,
    /// A sentence a person can act on.
    pub reason: String,
    /// Whose doing it is, as far as there is evidence.
    pub blame: Blame,
}

impl Loss {
    /// A loss that is the guest's own, as far as anybody knows.
    pub fn new(verdict: Verdict, reason: impl Into<String>) -> Loss {
        Loss::blamed(verdict, reason, Blame::Guest)
    }

    /// A loss by somebody's doing. A guest's own words in the reason are cut
    /// where nobody reads on.
    pub fn blamed(verdict: Verdict, reason: impl Into<String>, blame: Blame) -> Loss {
        Loss { verdict, reason: brief(reason.into()), blame }
    }
}

impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Loss {}

fn loss(verdict: Verdict, reason: impl Into<String>) -> anyhow::Error {
    Loss::new(verdict, reason).into()
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
    /// Its kernel's taint mask, when it last told.
    taint: u64,
    was_ready: bool,
    /// How long it may take to end.
    end_limit: Duration,
    /// What it said when it was ready.
    pub ready: Ready,
    // The sockets in it are needed until everything above is gone.
    _scratch: Scratch,
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
        let mut watch = Watch::new(limits, Instant::now());
        loop {
            let now = Instant::now();
            let wait = match watch.due(now) {
                Due::Wait(wait) => wait,
                Due::Ask => {
                    self.send(&Request::Ping)?;
                    watch.asked(now);
                    continue;
                }
                Due::Late => return Err(self.late(watch.passed(now), limits.answer)?),
                Due::Dead => {
                    let silent = seconds(limits.answer);
                    let what = format!("nobody in the guest answered within {silent}");
                    return Err(self.hung(&what)?);
                }
            };
            let heard = self.heard_bytes();
            let event = self.event_within(wait.min(interrupt::POLL))?;
            let now = Instant::now();
            if self.heard_bytes() != heard {
                watch.heard(now);
            }
            if self.console.splat().is_some_and(|splat| splat.verdict == Verdict::Oops) {
                watch.doom(now);
            }
            match event {
                None => continue,
                Some(Event::Started) => self.streams.open(),
                Some(Event::Data { value }) => data(value)?,
                Some(Event::Pong) if watch.answered(now) => continue,
                Some(Event::Exited { status, stdout_bytes, stderr_bytes, taint }) => {
                    self.taint = taint;
                    self.drain_streams(stdout_bytes, stderr_bytes)?;
                    self.let_console_catch_up(&status)?;
                    return Ok(status);
                }
                Some(event) => return Err(self.out_of_order(&event)),
            }
            watch.sign(now);
        }
    }

    /// What is wrong with the guest's kernel so far, from its console and its
    /// taint mask.
    pub fn trouble(&self) -> Option<Loss> {
        if let Some(splat) = self.console.splat() {
            return Some(Loss::new(splat.verdict, splat.describe()));
        }
        let (verdict, names) = splat::taint(self.taint)?;
        Some(Loss::new(verdict, format!("the kernel is tainted: {names}")))
    }

    /// The kernel's own words, if it killed a process of this job for want of
    /// memory.
    pub fn out_of_memory(&self) -> Option<&str> {
        self.console.out_of_memory()
    }

    /// Keeps what it says from now on in another folder, for another trial.
    ///
    /// # Errors
    /// The files there cannot be made.
    pub fn turn_to(&mut self, dir: &Path) -> Result<()> {
        self.console.turn_to(&dir.join(CONSOLE_FILE))?;
        self.events.turn_to(&dir.join(EVENTS_FILE))?;
        std::fs::copy(self.dir.join(COMMAND_FILE), dir.join(COMMAND_FILE))
            .with_context(|| format!("cannot write to {}", dir.display()))?;
        self.dir = dir.to_path_buf();
        Ok(())
    }

    /// Keeps what the next program writes in files, of limited size, `stdout`
    /// and `stderr` in its folder.
    ///
    /// # Errors
    /// They cannot be made.
    pub fn keep_output(&mut self) -> Result<()> {
        self.streams.keep_in(&self.dir)
    }

    /// Asks the guest to do its next job wrongly.
    ///
    /// # Errors
    /// A [`Loss`] if the machine is gone.
    pub fn misbehave(&mut self, how: Misbehaviour) -> Result<()> {
        self.send(&Request::Misbehave(how))
    }

    /// What of this machine a test can break from outside.
    ///
    /// # Errors
    /// No more descriptors.
    pub fn parts(&self) -> Result<Parts> {
        Ok(Parts {
            qemu: self.qemu.id(),
            shares: self.shares.iter().map(Share::id).collect(),
            channel: self.control.try_clone()?,
            dir: self.dir.clone(),
        })
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

    /// Ends the machine and waits until it is gone.
    ///
    /// # Errors
    /// A [`Loss`] if the last event did not come, or the kernel panicked after
    /// it.
    pub fn end(mut self) -> Result<()> {
        self.send(&Request::End)?;
        let deadline = Instant::now() + self.end_limit;
        match self.next_event(deadline)? {
            Some(Event::End) => {}
            Some(event) => return Err(self.out_of_order(&event)),
            None => return Err(self.hung("the guest did not end when it was told to")?),
        }
        // The guest waits for this: what is still queued there is then ours.
        let _ = self.control.shutdown(Shutdown::Both);
        let deadline = Instant::now() + QEMU_END_LIMIT;
        while self.qemu.try_wait()?.is_none() && Instant::now() < deadline {
            // QEMU waits for nobody to read its console.
            self.listen_for(Duration::from_millis(5))?;
            interrupt::check()?;
        }
        self.qemu.kill();
        self.console.drain();
        match self.console.splat() {
            Some(splat) => Err(loss(splat.verdict, splat.describe())),
            None => Ok(()),
        }
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
                return Err(match err.downcast::<Loss>() {
                    Ok(nonsense) => self.confused(nonsense),
                    Err(err) => err,
                });
            }
        };
        match woken {
            Woken::Event(event) => Ok(Some(event)),
            Woken::Gone => Err(self.post_mortem()),
            // A guest whose share is gone waits for it for ever.
            Woken::Nothing if self.share_failure().is_some() => Err(self.post_mortem()),
            Woken::Nothing => Ok(None),
        }
    }

    /// What the guest said cannot be; its console may know why.
    fn confused(&mut self, nonsense: Loss) -> anyhow::Error {
        match self.listen_for(CONSOLE_LAG) {
            Ok(()) => self.with_splat(nonsense).into(),
            Err(err) => err,
        }
    }

    fn out_of_order(&mut self, event: &Event) -> anyhow::Error {
        let event = format!("{event:?}");
        let name = event.split([' ', '{']).next().unwrap_or_default();
        self.confused(Loss::new(Verdict::LostVm, format!("the guest sent {name} out of order")))
    }

    /// How much has come of what nobody asked for.
    fn heard_bytes(&self) -> u64 {
        self.console.bytes() + self.streams.come()
    }

    /// The kernel prints before it lets anybody know, but what it prints comes
    /// another way.
    fn let_console_catch_up(&mut self, exit: &Exit) -> Result<()> {
        self.listen_for(Duration::from_millis(5))?;
        let deadline = Instant::now() + CONSOLE_LAG;
        let killed = *exit == Exit::Signal(libc::SIGKILL);
        let tainted =
            splat::taint(self.taint).is_some_and(|(verdict, _)| verdict != Verdict::Taint);
        let lacks = |console: &Console| {
            console.splat().is_none() && (tainted || killed && console.out_of_memory().is_none())
        };
        while lacks(&self.console) && Instant::now() < deadline {
            self.listen_for(Duration::from_millis(10))?;
        }
        // The rest of a call trace.
        if self.console.splat().is_some() {
            self.listen_for(CONSOLE_LAG)?;
        }
        Ok(())
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
        let share = self.share_failure();
        // QEMU closes its sockets before it is gone, and the console may hold
        // more than was read.
        let deadline = Instant::now() + QEMU_END_LIMIT;
        let mut status = None;
        while share.is_none() && status.is_none() && Instant::now() < deadline {
            status = self.qemu.try_wait().ok().flatten();
            std::thread::sleep(Duration::from_millis(5));
        }
        // Its pipes end with it, so that what is left in them can be read out.
        self.qemu.kill();
        self.console.drain();
        self.complaints.drain();
        if let Some(splat) = self.console.splat().filter(|splat| splat.verdict == Verdict::Panic) {
            return loss(Verdict::Panic, splat.describe());
        }
        if let Some(reason) = share.or_else(|| self.share_failure()) {
            return Loss::blamed(Verdict::LostVm, reason, Blame::Host).into();
        }
        let how = match status {
            Some(status) => format!("QEMU ended ({status})"),
            None => "the guest or QEMU closed the event port".to_string(),
        };
        let why = match self.complaints.tail().last() {
            Some(line) => format!(": {line}"),
            None if status.is_some_and(|status| status.success()) => {
                ": it has rebooted, or reset its processor by a triple fault".to_string()
            }
            None => String::new(),
        };
        let reason = format!("{how} without the guest's last event{why}");
        // A guest cannot make QEMU fail; a reset of its machine is a success.
        let blame = match status {
            Some(status) if !status.success() => Blame::Qemu,
            _ => Blame::Guest,
        };
        self.with_splat(Loss::blamed(Verdict::LostVm, reason, blame)).into()
    }
}

/// What of a machine can be broken from outside.
#[derive(Debug)]
pub struct Parts {
    /// QEMU's number among processes.
    pub qemu: u32,
    /// The share daemons' numbers.
    pub shares: Vec<u32>,
    /// The way to the guest's PID 1.
    pub channel: UnixStream,
    /// The folder of the trial.
    pub dir: PathBuf,
}

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
