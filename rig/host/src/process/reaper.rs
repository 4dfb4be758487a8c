//! The reaper of a process group: a process that kills the group when the rig
//! ends.
//!
//! PR_SET_PDEATHSIG reaches the child only; its grandchildren, such as the
//! compilers that make starts, would go on. So each child forks a reaper before
//! it execs its program. The reaper reads from the death pipe, whose write end
//! only the rig has: the read ends when the rig drops the child or dies, for
//! whatever reason.
//!
//! The reaper is not a child of the program: a program that waits for all of its
//! children, as flex does, would never end.

use std::io;
use std::os::fd::RawFd;

/// Forks a reaper in the caller's process group.
///
/// # Errors
/// fork() failed.
///
/// # Safety
/// The calling process must have one thread, as between fork and exec.
pub unsafe fn fork(death_pipe: RawFd) -> io::Result<()> {
    // SAFETY: no other thread exists that could hold a lock; the new processes
    // make system calls only.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: as above.
        0 => match unsafe { libc::fork() } {
            0 => reap(death_pipe),
            // SAFETY: the process ends here, which orphans the reaper.
            pid => unsafe { libc::_exit(i32::from(pid < 0)) },
        },
        between => wait_for(between),
    }
}

/// Waits for the process between the child and its reaper.
fn wait_for(between: libc::pid_t) -> io::Result<()> {
    loop {
        let mut status = 0;
        // SAFETY: the pointer is that of `status`.
        if unsafe { libc::waitpid(between, &mut status, 0) } == between {
            return match status {
                0 => Ok(()),
                // An error with a message would allocate.
                _ => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
            };
        }
        let err = io::Error::last_os_error();
        if err.kind() != io::ErrorKind::Interrupted {
            return Err(err);
        }
    }
}

/// Waits for the end of the rig, then kills the process group.
fn reap(death_pipe: RawFd) -> ! {
    // SAFETY: the system calls use descriptors and memory of this process only,
    // and the function does not return.
    unsafe {
        // Close all other descriptors. An open copy of the child's output would
        // keep the rig reading, and an open write end of the death pipe would
        // keep the reaper waiting.
        if libc::dup2(death_pipe, 0) == 0
            && libc::syscall(libc::SYS_close_range, 1, libc::c_uint::MAX, 0) == 0
        {
            let mut byte = 0_u8;
            while libc::read(0, (&raw mut byte).cast(), 1) < 0
                && *libc::__errno_location() == libc::EINTR
            {}
            // The group's id cannot be reused while this process is in the group.
            libc::kill(0, libc::SIGKILL);
        }
        // Kernels before 5.9 have no close_range(): PR_SET_PDEATHSIG still works.
        libc::_exit(0)
    }
}
