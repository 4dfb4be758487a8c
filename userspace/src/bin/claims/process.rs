//! Child processes: plain, as another user, or in other namespaces.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Gid, Pid, Uid, setgid, setuid};
pub use nlrig_guest::clone::{CloneOptions, pin_to_cpu};
use serde_json::Value;

use crate::evidence::BoxError;

/// The default time limit for a child.
pub const CHILD_TIMEOUT: Duration = Duration::from_secs(15);
/// The maximum size of a child's report.
const REPORT_MAX_BYTES: u64 = 64 << 10;

/// A forked process that reports a value. Killed on drop.
pub struct ForkedChild {
    pid: Pid,
    report: std::io::PipeReader,
}

impl ForkedChild {
    /// Starts a child that runs `body` and reports its value. Fails if this
    /// process has several threads.
    pub fn start(body: impl FnOnce() -> Result<Value, BoxError>) -> Result<ForkedChild, BoxError> {
        ForkedChild::start_with(CloneOptions::default(), body)
    }

    /// Like [`ForkedChild::start`], with clone options.
    pub fn start_with(
        options: CloneOptions,
        body: impl FnOnce() -> Result<Value, BoxError>,
    ) -> Result<ForkedChild, BoxError> {
        if !is_single_threaded()? {
            return Err("cannot fork: the process has several threads".into());
        }
        let (report, mut writer) = std::io::pipe()?;
        // SAFETY: the check at the start found a single thread.
        match unsafe { options.fork() }? {
            ForkResult::Parent { child } => Ok(ForkedChild { pid: child, report }),
            ForkResult::Child => {
                drop(report);
                let value =
                    body().unwrap_or_else(|err| serde_json::json!({"error": err.to_string()}));
                let _ = writer.write_all(value.to_string().as_bytes());
                drop(writer);
                if options.keep_alive {
                    sleep_forever();
                }
                // SAFETY: _exit() ends the forked child without running exit
                // handlers.
                unsafe { libc::_exit(0) }
            }
        }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// Waits for the report and kills the child.
    pub fn wait(mut self, limit: Duration) -> Result<Value, BoxError> {
        self.report(limit)
    }

    /// Waits for the report.
    pub fn report(&mut self, limit: Duration) -> Result<Value, BoxError> {
        let deadline = Instant::now() + limit;
        let mut text = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(self.report.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, timeout)? == 0 {
                return Err("timed out waiting for a child process".into());
            }
            let mut chunk = [0; 4096];
            match self.report.read(&mut chunk)? {
                0 => break,
                length => text.extend_from_slice(&chunk[..length]),
            }
            if text.len() as u64 > REPORT_MAX_BYTES {
                return Err("a child process: its report is too long".into());
            }
        }
        let value: Value = serde_json::from_slice(&text)?;
        match value.get("error") {
            Some(error) => Err(format!("a child process: {error}").into()),
            None => Ok(value),
        }
    }
}

fn is_single_threaded() -> std::io::Result<bool> {
    Ok(std::fs::read_dir("/proc/self/task")?.count() == 1)
}

/// Sleeps until the process ends.
pub fn sleep_forever() -> ! {
    loop {
        // SAFETY: pause() takes no arguments.
        unsafe { libc::pause() };
    }
}

impl Drop for ForkedChild {
    fn drop(&mut self) {
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
    }
}

/// Runs `body` in a child and returns its report.
pub fn run_in_child(body: impl FnOnce() -> Result<Value, BoxError>) -> Result<Value, BoxError> {
    ForkedChild::start(body)?.wait(CHILD_TIMEOUT)
}

/// Runs `body` in a child as an unprivileged user.
pub fn run_as_user(
    uid: u32,
    body: impl FnOnce() -> Result<Value, BoxError>,
) -> Result<Value, BoxError> {
    run_in_child(|| {
        setgid(Gid::from_raw(uid))?;
        setuid(Uid::from_raw(uid))?;
        body()
    })
}
