//! How a process comes to be, with an id or in namespaces of one's choice, and
//! where it runs.

use nix::unistd::{ForkResult, Pid, fork};

/// How a child comes to be, and how long it lives.
#[derive(Clone, Copy, Debug, Default)]
pub struct Birth {
    /// Its process id, of the kernel's choice if None.
    pub id: Option<u32>,
    /// CLONE_NEW*: the namespaces it is the first in.
    pub namespaces: i32,
    /// Whether it lives on when it is done, until it is killed.
    pub stays: bool,
}

impl Birth {
    /// fork(), by clone3() if there is something to choose. The process must have
    /// no other threads.
    ///
    /// # Errors
    /// EEXIST if the id is taken; EPERM without CAP_CHECKPOINT_RESTORE or
    /// CAP_SYS_ADMIN; EAGAIN, ENOMEM.
    pub fn fork(self) -> Result<ForkResult, nix::Error> {
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

/// Has this thread run on this processor only, and what it creates from now on.
///
/// # Errors
/// EINVAL if there is no such processor.
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
