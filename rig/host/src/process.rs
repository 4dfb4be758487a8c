//! Child processes that never outlive their owner.
//!
//! Dropping a [`Child`] kills its whole process group. If the thread that started
//! the child dies in another way, the kernel kills the child
//! (PR_SET_PDEATHSIG), so that thread must live until the child is done. The
//! child's own children are killed by its [`reaper`], even after a `kill -9` of
//! the rig.

mod reaper;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::{Context, Error, ErrorKind, Result, bail};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, getpid, getppid};

use crate::interrupt;

/// The length at which a line of build output is cut before it is parsed.
const LINE_MAX_BYTES: usize = 64 * 1024;

/// A running child in a process group of its own.
#[derive(Debug)]
pub struct Child {
    inner: std::process::Child,
    /// Closing the write end of the death pipe kills the rest of the group.
    _death_pipe: io::PipeWriter,
}

impl Child {
    /// Starts a child. The descriptors in `pass` keep their numbers in it; the
    /// rig's others are all closed on exec.
    ///
    /// # Errors
    /// The program cannot be started; the message names it.
    pub fn spawn(command: Command, pass: Vec<OwnedFd>) -> Result<Child> {
        Child::start(command, pass, false, || Ok(()))
    }

    /// Starts a child that gives up rights before it becomes its program. It has
    /// no descriptor but its standard streams and those in `pass`, even if the
    /// rig's own parent left some open.
    ///
    /// `confine` is called last, between fork and exec, so it must make system
    /// calls only: no locks, no allocations. It may exec by itself.
    ///
    /// # Errors
    /// The program cannot be started, or `confine` failed; the message names the
    /// program.
    pub fn spawn_confined(
        command: Command,
        pass: Vec<OwnedFd>,
        confine: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<Child> {
        Child::start(command, pass, true, confine)
    }

    fn start(
        mut command: Command,
        pass: Vec<OwnedFd>,
        close_others: bool,
        mut confine: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<Child> {
        let parent = getpid();
        let (death_pipe_reader, death_pipe) = io::pipe()?;
        let death_fd = death_pipe_reader.as_raw_fd();
        // SAFETY: the closure makes system calls only and allocates nothing.
        unsafe {
            command.pre_exec(move || {
                prctl::set_pdeathsig(Signal::SIGKILL)?;
                // The parent may have died before prctl().
                if getppid() != parent {
                    return Err(io::Error::from_raw_os_error(libc::ESRCH));
                }
                nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
                // SAFETY: this process was just forked and has one thread.
                reaper::fork(death_fd)?;
                if close_others {
                    close_all_on_exec();
                }
                for fd in &pass {
                    fcntl(fd.as_fd(), FcntlArg::F_SETFD(FdFlag::empty()))?;
                }
                confine()
            });
        }
        let program = command.get_program().to_owned();
        let inner = command.spawn().map_err(|err| {
            let program = Path::new(&program).display();
            match err.kind() {
                io::ErrorKind::NotFound => Error::new(format!(
                    "{program} not found; `cargo xtask rig --yes` installs missing packages"
                )),
                _ => Error::new(format!("cannot start {program}: {err}")),
            }
        })?;
        Ok(Child { inner, _death_pipe: death_pipe })
    }

    /// Returns the process id, which is valid until the child is reaped.
    pub fn id(&self) -> u32 {
        self.inner.id()
    }

    /// Takes the child's standard output, if it is a pipe that is not taken yet.
    pub fn take_stdout(&mut self) -> Option<OwnedFd> {
        self.inner.stdout.take().map(OwnedFd::from)
    }

    /// Takes the child's standard error, if it is a pipe that is not taken yet.
    pub fn take_stderr(&mut self) -> Option<OwnedFd> {
        self.inner.stderr.take().map(OwnedFd::from)
    }

    /// Returns the exit status if the child has ended.
    ///
    /// # Errors
    /// waitpid() failed.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.inner.try_wait()?)
    }

    /// Waits for the child up to `limit`; `None` if it still runs.
    ///
    /// # Errors
    /// [`Interrupted`](crate::interrupt::Interrupted), or waitpid() failed.
    pub fn wait_for(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(Some(status));
            }
            interrupt::check()?;
            if Instant::now() >= deadline {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills the child's process group and reaps the child.
    pub fn kill(&mut self) {
        // The group's id is the child's. It cannot be reused before the child is
        // reaped; after that there is nothing left to kill.
        if matches!(self.inner.try_wait(), Ok(None)) {
            let _ = killpg(Pid::from_raw(self.inner.id() as i32), Signal::SIGKILL);
            let _ = self.inner.wait();
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Marks all descriptors but the standard streams as closed on exec. A kernel
/// before 5.11 cannot; there only the rig's own are closed, which are all marked.
fn close_all_on_exec() {
    let first = libc::STDERR_FILENO as libc::c_uint + 1;
    // SAFETY: the flag only marks descriptors of this process; none is closed yet.
    unsafe {
        libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
}

/// Runs a command, appends its output to a log, and calls `each_line` per line.
///
/// # Errors
/// The command cannot be started, exceeds `limit`, or fails. The message names
/// the command, the log, and the first line that looks like an error.
/// [`ErrorKind::CommandFailed`] if the command failed and its output shows no
/// fault of the host; [`Interrupted`](crate::interrupt::Interrupted) after a
/// signal.
pub fn run_logged(
    mut command: Command,
    what: &str,
    log: &Path,
    limit: Duration,
    mut each_line: impl FnMut(&str),
) -> Result<()> {
    let (output, writer) = io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut file = File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("cannot write {}", log.display()))?;
    // Temporary files of a killed compiler are removed with the log's folder.
    if let Some(folder) = log.parent() {
        command.env("TMPDIR", folder);
    }
    let mut child = Child::spawn(command, Vec::new())?;
    let deadline = Instant::now() + limit;
    let mut first_error = None;
    let mut by_host = false;
    let mut output = File::from(OwnedFd::from(output));
    let mut line = Vec::new();
    loop {
        interrupt::check()?;
        if Instant::now() > deadline {
            bail!("{what} timed out after {} s; see {}", limit.as_secs(), log.display());
        }
        if !readable_soon(&[output.as_fd()])? {
            continue;
        }
        let mut chunk = [0; 16 * 1024];
        let length = output.read(&mut chunk)?;
        if length == 0 {
            break;
        }
        file.write_all(&chunk[..length])
            .with_context(|| format!("cannot write {}", log.display()))?;
        for &byte in &chunk[..length] {
            if byte != b'\n' {
                if line.len() < LINE_MAX_BYTES {
                    line.push(byte);
                }
                continue;
            }
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end();
            if first_error.is_none() && looks_like_error(text) {
                first_error = Some(text.to_string());
            }
            by_host |= blames_host(text);
            each_line(text);
            line.clear();
        }
    }
    let status = child.wait_for(deadline.saturating_duration_since(Instant::now()))?;
    match status {
        Some(status) if status.success() => Ok(()),
        Some(status) => {
            let error = first_error.map(|line| format!(": {line}")).unwrap_or_default();
            let log = log.display();
            let message = format!("{what} failed ({status}){error}; the full log is {log}");
            let kind = if by_host { ErrorKind::Host } else { ErrorKind::CommandFailed };
            Err(Error::new(message).with_kind(kind))
        }
        None => bail!("{what} closed its output but is still running; see {}", log.display()),
    }
}

/// Runs a short command and returns its standard output as text.
///
/// # Errors
/// The command cannot be started, exceeds `limit`, or fails; the message has the
/// last line of its standard error.
pub fn capture(command: Command, limit: Duration) -> Result<String> {
    capture_with(command, limit, |command| Child::spawn(command, Vec::new()))
}

/// [`capture`] with another way to start the command.
///
/// # Errors
/// As [`capture`].
pub fn capture_with(
    mut command: Command,
    limit: Duration,
    spawn: impl FnOnce(Command) -> Result<Child>,
) -> Result<String> {
    let program = Path::new(command.get_program()).display().to_string();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn(command)?;
    let mut pipes = [child.take_stdout(), child.take_stderr()].map(|fd| fd.map(File::from));
    let mut texts = [Vec::new(), Vec::new()];
    let deadline = Instant::now() + limit;
    while pipes.iter().any(Option::is_some) {
        interrupt::check()?;
        if Instant::now() > deadline {
            bail!("{program} timed out after {} s", limit.as_secs());
        }
        let open: Vec<_> = pipes.iter().flatten().map(AsFd::as_fd).collect();
        if !readable_soon(&open)? {
            continue;
        }
        for (pipe, text) in pipes.iter_mut().zip(&mut texts) {
            let Some(file) = pipe else { continue };
            if readable_now(file.as_fd())? {
                let mut chunk = [0; 8192];
                match file.read(&mut chunk)? {
                    0 => *pipe = None,
                    length => text.extend_from_slice(&chunk[..length]),
                }
            }
        }
    }
    let left = deadline.saturating_duration_since(Instant::now());
    let [stdout, stderr] = texts.map(|text| String::from_utf8_lossy(&text).into_owned());
    match child.wait_for(left)? {
        Some(status) if status.success() => Ok(stdout),
        Some(status) => {
            let reason = stderr.lines().last().unwrap_or("no error output");
            bail!("{program} failed ({status}): {reason}")
        }
        None => bail!("{program} closed its output but is still running"),
    }
}

/// Waits up to [`interrupt::POLL`] until one of the descriptors is readable.
///
/// # Errors
/// poll(2) failed.
pub fn readable_soon(fds: &[BorrowedFd<'_>]) -> Result<bool> {
    let wait = PollTimeout::try_from(interrupt::POLL).unwrap_or(PollTimeout::ZERO);
    readable_within(fds, wait)
}

fn readable_now(fd: BorrowedFd<'_>) -> Result<bool> {
    readable_within(&[fd], PollTimeout::ZERO)
}

fn readable_within(fds: &[BorrowedFd<'_>], wait: PollTimeout) -> Result<bool> {
    let mut fds: Vec<_> = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    match poll(&mut fds, wait) {
        Ok(ready) => Ok(ready > 0),
        Err(nix::errno::Errno::EINTR) => Ok(false),
        Err(err) => Err(err.into()),
    }
}

/// Whether a line of build output shows a fault of the host, not of the source.
fn blames_host(line: &str) -> bool {
    // sh or make does not find a program.
    let missing = line.starts_with("/bin/sh: ") && line.ends_with(": not found")
        || line.starts_with("make") && line.ends_with(": No such file or directory");
    // The C library's texts for ENOSPC and ENOMEM, and gcc's report of SIGKILL.
    const SIGNS: [&str; 3] =
        ["No space left on device", "Cannot allocate memory", "Killed signal terminated program"];
    missing || SIGNS.iter().any(|sign| line.contains(sign))
}

/// Whether a line has an error message of a compiler, linker, make, cargo, tar or
/// xz.
fn looks_like_error(line: &str) -> bool {
    const SIGNS: [&str; 9] = [
        "error:",
        "error[",
        "fatal:",
        "*** ",
        "undefined reference",
        "No such file or directory",
        "No space left on device",
        "Unexpected end of input",
        "does not look like a tar archive",
    ];
    SIGNS.iter().any(|sign| line.contains(sign))
}

/// Finds a program in PATH, as a shell does.
pub fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|candidate| {
        nix::unistd::access(candidate, nix::unistd::AccessFlags::X_OK).is_ok()
            && candidate.is_file()
    })
}

/// Formats a command line with shell quoting, for logs.
pub fn show(program: impl AsRef<OsStr>, arguments: &[std::ffi::OsString]) -> String {
    let mut text = program.as_ref().to_string_lossy().into_owned();
    for argument in arguments {
        let argument = argument.to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=,./:@+%".contains(c);
        if !argument.is_empty() && argument.chars().all(plain) {
            text.push_str(&format!(" {argument}"));
        } else {
            text.push_str(&format!(" '{}'", argument.replace('\'', "'\\''")));
        }
    }
    text
}

/// Makes a pair of connected sockets: one end for a child, one for the rig.
///
/// # Errors
/// The process or the host has no free descriptors.
pub fn socket_pair() -> Result<(OwnedFd, OwnedFd)> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    let flags = SockFlag::SOCK_CLOEXEC;
    Ok(socketpair(AddressFamily::Unix, SockType::Stream, None, flags)?)
}

/// Returns the number of a descriptor, which is the same in a child.
pub fn number(fd: &OwnedFd) -> i32 {
    fd.as_raw_fd()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_names_its_first_error_and_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut command = Command::new("sh");
        command.args(["-c", "echo fine; echo x.c:1: error: bad; echo y.c:2: error: too; exit 3"]);
        let err = run_logged(command, "the build", &log, Duration::from_secs(10), |_| {})
            .unwrap_err()
            .to_string();
        assert!(err.contains("the build failed") && err.contains("x.c:1: error: bad"), "{err}");
        assert!(!err.contains("y.c"), "{err}");
        assert_eq!(std::fs::read_to_string(log).unwrap().lines().count(), 3);
    }

    /// flex waits for all of its children before it ends, the reaper included.
    #[test]
    fn a_program_has_no_child_that_it_has_not_started() {
        let mut command = Command::new("sh");
        command.args(["-c", "read children < /proc/$$/task/$$/children; echo \"[$children]\""]);
        assert_eq!(capture(command, Duration::from_secs(10)).unwrap(), "[]\n");
    }

    #[test]
    fn a_command_that_does_not_end_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 77 & echo $!; wait"]);
        let mut grandchild = None;
        let start = Instant::now();
        let err = run_logged(
            command,
            "the sleeper",
            &dir.path().join("log"),
            Duration::from_millis(300),
            |line| grandchild = line.parse::<i32>().ok(),
        )
        .unwrap_err();
        assert!(err.to_string().contains("timed out after"), "{err}");
        assert!(start.elapsed() < Duration::from_secs(5));
        let grandchild = Pid::from_raw(grandchild.unwrap());
        let gone = || nix::sys::signal::kill(grandchild, None).is_err() || is_zombie(grandchild);
        let deadline = Instant::now() + Duration::from_secs(5);
        while !gone() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(gone());
    }

    fn is_zombie(pid: Pid) -> bool {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z"))
    }

    #[test]
    fn faults_of_the_host_are_told_from_faults_of_the_source() {
        for line in [
            "/bin/sh: 1: flex: not found",
            "make[2]: bison: No such file or directory",
            "ld: final link failed: No space left on device",
            "gcc: fatal error: Killed signal terminated program cc1",
        ] {
            assert!(blames_host(line), "{line}");
        }
        for line in [
            "net/netlink/af_netlink.c:7:1: error: expected ';'",
            "a.c:1:10: fatal error: linux/nosuch.h: No such file or directory",
            "make[1]: *** No rule to make target 'x.o'.  Stop.",
        ] {
            assert!(!blames_host(line), "{line}");
        }
    }

    #[test]
    fn a_command_line_can_be_pasted_into_a_shell() {
        let arguments = ["-append".into(), "a b'c".into(), "".into()];
        assert_eq!(show("qemu", &arguments), r"qemu -append 'a b'\''c' ''");
    }
}
