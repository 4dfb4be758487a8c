//! Other processes: as another user, in another namespace, or just another one.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Gid, Pid, Uid, setgid, setuid};
pub use nlrig_guest::birth::{Birth, stay_on};
use serde_json::Value;

use crate::evidence::Trouble;

/// How long a child may take; rows that know better say so.
pub const CHILD_LIMIT: Duration = Duration::from_secs(15);
/// What a child may report.
const REPORT_MAX_BYTES: u64 = 64 << 10;

/// A process that was forked, and what it will report. It is killed when this is
/// dropped.
pub struct Child {
    pid: Pid,
    report: std::io::PipeReader,
}

impl Child {
    /// Starts a child that does this and reports a value. This process must have
    /// no other threads.
    pub fn start(body: impl FnOnce() -> Result<Value, Trouble>) -> Result<Child, Trouble> {
        Child::start_as(Birth::default(), body)
    }

    /// As [`Child::start`], but born in a certain way.
    pub fn start_as(
        birth: Birth,
        body: impl FnOnce() -> Result<Value, Trouble>,
    ) -> Result<Child, Trouble> {
        let (report, mut writer) = std::io::pipe()?;
        match birth.fork()? {
            ForkResult::Parent { child } => Ok(Child { pid: child, report }),
            ForkResult::Child => {
                drop(report);
                let value =
                    body().unwrap_or_else(|err| serde_json::json!({"error": err.to_string()}));
                let _ = writer.write_all(value.to_string().as_bytes());
                drop(writer);
                if birth.stays {
                    wait_for_ever();
                }
                // SAFETY: ends this process at once, as a forked child should.
                unsafe { libc::_exit(0) }
            }
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// Waits until it has reported, and ends it.
    pub fn wait(mut self, limit: Duration) -> Result<Value, Trouble> {
        self.report(limit)
    }

    /// Waits until it has reported.
    pub fn report(&mut self, limit: Duration) -> Result<Value, Trouble> {
        let deadline = Instant::now() + limit;
        let mut text = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(self.report.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, timeout)? == 0 {
                return Err("a child process is late".into());
            }
            let mut chunk = [0; 4096];
            match self.report.read(&mut chunk)? {
                0 => break,
                length => text.extend_from_slice(&chunk[..length]),
            }
            if text.len() as u64 > REPORT_MAX_BYTES {
                return Err("a child process reports without end".into());
            }
        }
        let value: Value = serde_json::from_slice(&text)?;
        match value.get("error") {
            Some(error) => Err(format!("a child process: {error}").into()),
            None => Ok(value),
        }
    }
}

/// Sleeps until the process ends.
pub fn wait_for_ever() -> ! {
    loop {
        // SAFETY: takes nothing; ends with any signal that is handled.
        unsafe { libc::pause() };
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
    }
}

/// Does this in a child, and gives back what it reports.
pub fn in_child(body: impl FnOnce() -> Result<Value, Trouble>) -> Result<Value, Trouble> {
    Child::start(body)?.wait(CHILD_LIMIT)
}

/// Does this in a child of this user, without any capability.
pub fn as_user(uid: u32, body: impl FnOnce() -> Result<Value, Trouble>) -> Result<Value, Trouble> {
    in_child(|| {
        setgid(Gid::from_raw(uid))?;
        setuid(Uid::from_raw(uid))?;
        body()
    })
}
