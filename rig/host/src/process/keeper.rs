//! The keeper of a process group: a process that waits for nothing but the end
//! of the rig, and then kills the group.
//!
//! PR_SET_PDEATHSIG reaches the child alone; make's compilers, its
//! grandchildren, would work on for nobody. So each child forks a keeper before
//! it becomes its program. The keeper reads from a pipe, the lifeline, whose
//! other end only the rig holds: when the rig is done with the child, or is
//! gone in whatever way, the read ends.
//!
//! The keeper is no child of the child: a program that waits until all of its
//! children have ended, as flex does, would wait for it for ever.

use std::io;
use std::os::fd::RawFd;

/// Leaves a keeper behind in the caller's process group.
///
/// # Errors
/// No further process can be made.
///
/// # Safety
/// The caller is the only thread of its process, as between fork and exec.
pub unsafe fn fork(lifeline: RawFd) -> io::Result<()> {
    // SAFETY: with a single thread no lock is held by another one; the new
    // processes make system calls only.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: as above.
        0 => match unsafe { libc::fork() } {
            0 => keep(lifeline),
            // SAFETY: this process ends, and the keeper is nobody's child.
            pid => unsafe { libc::_exit(i32::from(pid < 0)) },
        },
        between => wait_for(between),
    }
}

/// Waits for the process between the child and its keeper.
fn wait_for(between: libc::pid_t) -> io::Result<()> {
    loop {
        let mut status = 0;
        // SAFETY: the pointer is that of `status`.
        if unsafe { libc::waitpid(between, &mut status, 0) } == between {
            return match status {
                0 => Ok(()),
                // Not one with words, which are allocated.
                _ => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
            };
        }
        let err = io::Error::last_os_error();
        if err.kind() != io::ErrorKind::Interrupted {
            return Err(err);
        }
    }
}

fn keep(lifeline: RawFd) -> ! {
    // SAFETY: system calls on descriptors and memory of this process alone; it
    // does not return to code that uses any other.
    unsafe {
        // What else is open is the child's: its output would not end before
        // this process does, and the lifeline's other end must be the rig's
        // alone.
        if libc::dup2(lifeline, 0) == 0
            && libc::syscall(libc::SYS_close_range, 1, libc::c_uint::MAX, 0) == 0
        {
            let mut byte = 0_u8;
            while libc::read(0, (&raw mut byte).cast(), 1) < 0
                && *libc::__errno_location() == libc::EINTR
            {}
            // As long as this process is in the group, its number cannot be
            // another group's.
            libc::kill(0, libc::SIGKILL);
        }
        // A kernel before 5.9: the child still dies with the rig.
        libc::_exit(0)
    }
}
