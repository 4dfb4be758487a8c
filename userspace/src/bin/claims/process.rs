//! Other processes: as another user, in another namespace, or just another one.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Gid, Pid, Uid, fork, setgid, setuid};
use serde_json::Value;

use crate::evidence::Trouble;

/// How long a child may take; rows that know better say so.
pub const CHILD_LIMIT: Duration = Duration::from_secs(15);
/// What a child may report.
const REPORT_MAX_BYTES: u64 = 64 << 10;

/// How a child comes to be, and how long it lives.
#[derive(Clone, Copy, Debug, Default)]
pub struct Birth {
    /// Its process id, of the kernel's choice if None.
    pub id: Option<u32>,
    /// CLONE_NEW*: the namespaces it is the first in.
    pub namespaces: i32,
    /// Whether it lives on after its report, until it is dropped.
    pub stays: bool,
}

impl Birth {
    /// fork(), by clone3() if there is something to choose. EEXIST if the id is
    /// taken.
    fn fork(self) -> Result<ForkResult, nix::Error> {
        if self.id.is_none() && self.namespaces == 0 {
            // SAFETY: there is one thread; the child calls what it likes.
            return unsafe { fork() };
        }
        let ids = [self.id.unwrap_or(0)];
        let mut arguments = CloneArguments {
            flags: self.namespaces as u64,
            exit_signal: libc::SIGCHLD as u64,
            ..CloneArguments::default()
        };
        if self.id.is_some() {
            arguments.set_tid = ids.as_ptr().expose_provenance() as u64;
            arguments.set_tid_size = ids.len() as u64;
        }
        let size = std::mem::size_of::<CloneArguments>();
        // SAFETY: as for fork(), which also copies what it is called with. The C
        // library is not told, and knows the id of the child's thread wrongly:
        // only locks of kinds that we do not use ask for that.
        let result = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size) };
        Ok(match nix::errno::Errno::result(result)? {
            0 => ForkResult::Child,
            child => ForkResult::Parent { child: Pid::from_raw(child as libc::pid_t) },
        })
    }
}

/// struct clone_args of linux/sched.h, which libc does not have for 32 bits.
#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

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

/// Has this thread run on this processor only.
pub fn stay_on(cpu: usize) -> Result<(), std::io::Error> {
    // SAFETY: a cpu_set_t is plain integers, for which zero is a value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: sets a bit, if there is that one.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the pointer and the length are those of `set`.
    match unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}
