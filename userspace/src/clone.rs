//! Process creation with a chosen pid or in new namespaces, and CPU affinity.

use nix::unistd::{ForkResult, Pid, fork};

/// Options for creating a child process.
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneOptions {
    /// The child's process id; None lets the kernel choose.
    pub pid: Option<u32>,
    /// CLONE_NEW* flags for new namespaces.
    pub namespaces: i32,
    /// Whether the child stays alive after its work, until it is killed.
    pub keep_alive: bool,
}

impl CloneOptions {
    /// fork(), or clone3() if a pid or namespaces are set.
    ///
    /// # Safety
    /// The process must have a single thread. Otherwise the child may wait
    /// forever for a lock that another thread holds.
    ///
    /// # Errors
    /// EEXIST if the pid is in use; EPERM without CAP_CHECKPOINT_RESTORE or
    /// CAP_SYS_ADMIN; EAGAIN, ENOMEM.
    pub unsafe fn fork(self) -> Result<ForkResult, nix::Error> {
        if self.pid.is_none() && self.namespaces == 0 {
            // SAFETY: the caller guarantees a single thread.
            return unsafe { fork() };
        }
        let pids = [self.pid.unwrap_or(0)];
        let mut args = CloneArgs {
            flags: self.namespaces as u64,
            exit_signal: libc::SIGCHLD as u64,
            ..CloneArgs::default()
        };
        if self.pid.is_some() {
            args.set_tid = pids.as_ptr().expose_provenance() as u64;
            args.set_tid_size = pids.len() as u64;
        }
        let size = std::mem::size_of::<CloneArgs>();
        // SAFETY: without CLONE_VM, clone3() copies the address space like
        // fork(), and the caller guarantees a single thread. glibc still caches
        // the parent's thread id in the child, but only mutexes that record
        // their owner use it, and nlrig uses none.
        let result = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size) };
        Ok(match nix::errno::Errno::result(result)? {
            0 => ForkResult::Child,
            child => ForkResult::Parent { child: Pid::from_raw(child as libc::pid_t) },
        })
    }
}

/// struct clone_args of linux/sched.h, which the libc crate lacks on 32-bit
/// targets.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
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

/// Pins this thread, and the threads and processes it creates later, to one
/// CPU.
///
/// # Errors
/// EINVAL if the CPU does not exist.
pub fn pin_to_cpu(cpu: usize) -> Result<(), std::io::Error> {
    // SAFETY: cpu_set_t consists of integers, for which zero is valid.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: CPU_SET sets a bit of `set` and checks the bounds.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the pointer and the length are those of `set`.
    match unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}
