//! Runs one job and forwards its output to the host.

use std::fs;
use std::io::{self, PipeReader};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use libc::{RLIM_INFINITY, rlim_t};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::personality::{self, Persona};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Gid, Pid, Uid, setgid, setgroups, setuid};
use nlrig_init::proc::loadavg;
use nlrig_init::protocol::{
    Aslr, Event, Exit, GuestFault, Job, MmapLayout, PORT_STDERR, PORT_STDIN, PORT_STDOUT, Request,
    Rlimit, WORKLOAD_FD,
};

use crate::channel::{Channel, open_port};
use crate::guest_fault;
use crate::kmsg::KernelLog;
use crate::pipes::{CHUNK_BYTES, Pump, Reports};

/// PATH of a job: busybox and the workloads.
const SEARCH_PATH: &str = "/run/nlrig/guest/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Quiet period before a job starts: no task was created or ended for this
/// long. The kernel still creates and ends kernel threads after boot.
const QUIET_PERIOD: Duration = Duration::from_millis(60);
/// The longest wait for the quiet period.
const QUIET_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest wait for killed processes. They end immediately, unless blocked
/// in the kernel.
const KILL_TIMEOUT: Duration = Duration::from_secs(1);
const KILL_POLL: Duration = Duration::from_millis(1);

/// Runs the job and reports its start, its data and its end. `fault` breaks one
/// of these events on request.
///
/// # Errors
/// The event port fails. A failure of the job itself is an event.
pub fn run(
    job: &Job,
    child_signal: &SigSet,
    channel: &mut Channel,
    fault: Option<GuestFault>,
) -> io::Result<()> {
    let log = KernelLog::from_now();
    let mut exited = match Running::start(job) {
        Ok(running) => {
            channel.send(&Event::Started)?;
            if fault == Some(GuestFault::Mute) {
                guest_fault::mute();
            }
            running.finish(child_signal, channel)?
        }
        Err((code, reason)) => Event::Exited {
            status: Exit::NotStarted { reason, code },
            stdout_bytes: 0,
            stderr_bytes: 0,
            taint: crate::taint(),
            program_reports: Vec::new(),
        },
    };
    if let Event::Exited { program_reports, .. } = &mut exited {
        *program_reports = log.user_lines();
    }
    match fault {
        None => channel.send(&exited),
        Some(fault) => guest_fault::end_job(fault, &exited, channel),
    }
}

/// The exit status that a shell would give, and the reason.
type NotStarted = (i32, String);

struct Running {
    child: Pid,
    stdout: Pump,
    stderr: Pump,
    reports: Reports,
}

impl Running {
    fn start(job: &Job) -> Result<Running, NotStarted> {
        for (name, value) in &job.sysctls {
            set_sysctl(name, value).map_err(|reason| (125, reason))?;
        }
        let limits = job
            .rlimits
            .iter()
            .map(resource_limit)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|reason| (125, reason))?;
        let (program, arguments) = job
            .argv
            .split_first()
            .ok_or((125, "the job has no program: argv is empty".to_string()))?;
        let rig = |err: io::Error| (125, err.to_string());
        let stdin = match job.stdin {
            true => Stdio::from(open_port(PORT_STDIN).map_err(rig)?),
            false => Stdio::null(),
        };
        let to_stdout = open_port(PORT_STDOUT).map_err(rig)?;
        let to_stderr = open_port(PORT_STDERR).map_err(rig)?;
        let (stdout, child_stdout) = io::pipe().map_err(rig)?;
        let (stderr, child_stderr) = io::pipe().map_err(rig)?;
        let (reports, child_reports) = io::pipe().map_err(rig)?;

        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", SEARCH_PATH)
            .env("HOME", "/")
            .env("TERM", "dumb")
            .envs(job.env.iter().map(|(name, value)| (name, value)))
            .current_dir(job.cwd.as_deref().unwrap_or("/"))
            .stdin(stdin)
            .stdout(child_stdout)
            .stderr(child_stderr);
        let (user, persona) = (job.user, persona(job));
        let reports_fd = child_reports.as_raw_fd();
        wait_for_quiet().map_err(rig)?;
        // SAFETY: the closure makes system calls only and does not allocate.
        unsafe {
            command.pre_exec(move || enter_child(&limits, user, persona, reports_fd));
        }
        let child = command.spawn().map_err(|err| start_failure(program, job, &err))?;
        Ok(Running {
            child: Pid::from_raw(child.id() as i32),
            stdout: Pump::new(stdout, to_stdout).map_err(rig)?,
            stderr: Pump::new(stderr, to_stderr).map_err(rig)?,
            reports: Reports::new(reports).map_err(rig)?,
        })
    }

    /// Forwards the program's output until it ends, then the rest of the pipes.
    /// Returns the job's last event.
    ///
    /// Does not wait for grandchildren that keep a pipe open. Answers requests
    /// from the host meanwhile.
    fn finish(mut self, child_signal: &SigSet, channel: &mut Channel) -> io::Result<Event> {
        let signals =
            SignalFd::with_flags(child_signal, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let status = loop {
            if let Some(status) = reap(self.child)? {
                break status;
            }
            let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
            fds.extend(self.stdout.source.iter().map(readable));
            fds.extend(self.stderr.source.iter().map(readable));
            fds.extend(self.reports.source.iter().map(readable));
            fds.push(PollFd::new(channel.source().as_fd(), PollFlags::POLLIN));
            let held = channel.holds_request();
            poll(&mut fds, if held { PollTimeout::ZERO } else { PollTimeout::NONE })?;
            let asked = held || fds.last().is_some_and(|fd| fd.any() == Some(true));
            while signals.read_signal()?.is_some() {}
            self.forward(channel, CHUNK_BYTES)?;
            if asked {
                let request = channel.receive()?;
                crate::answer(&request.unwrap_or(Request::End), channel)?;
            }
        };
        self.forward(channel, usize::MAX)?;
        self.reports.send_last_line(channel)?;
        kill_others();
        Ok(Event::Exited {
            status,
            stdout_bytes: self.stdout.bytes,
            stderr_bytes: self.stderr.bytes,
            taint: crate::taint(),
            program_reports: Vec::new(),
        })
    }

    /// Forwards the contents of each pipe, at most `most` bytes per pipe: an
    /// endless writer must not starve the other pipes.
    fn forward(&mut self, channel: &mut Channel, most: usize) -> io::Result<()> {
        self.stdout.forward(most)?;
        self.stderr.forward(most)?;
        self.reports.forward(channel, most)
    }
}

fn readable(source: &PipeReader) -> PollFd<'_> {
    PollFd::new(source.as_fd(), PollFlags::POLLIN)
}

/// Kills the processes that the program left running, so that the next job does
/// not see them.
fn kill_others() {
    let deadline = Instant::now() + KILL_TIMEOUT;
    // -1 addresses every process except this one; kernel threads ignore
    // SIGKILL.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    // PID 1 adopts orphans, so ECHILD means that no process is left.
    while Instant::now() < deadline {
        // SAFETY: a null status pointer is allowed.
        match unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } {
            0 => sleep(KILL_POLL),
            pid if pid > 0 => {}
            _ => return,
        }
    }
}

/// Waits for the quiet period of the kernel's threads, because workloads count
/// tasks.
fn wait_for_quiet() -> io::Result<()> {
    let start = Instant::now();
    let mut seen = (loadavg()?, start);
    while seen.1.elapsed() < QUIET_PERIOD && start.elapsed() < QUIET_TIMEOUT {
        sleep(QUIET_PERIOD / 4);
        let now = loadavg()?;
        if now != seen.0 {
            seen = (now, Instant::now());
        }
    }
    Ok(())
}

/// The personality flags of the job, added to those of PID 1.
fn persona(job: &Job) -> Persona {
    let mut persona = Persona::empty();
    persona.set(Persona::ADDR_NO_RANDOMIZE, job.aslr == Aslr::Off);
    persona.set(Persona::ADDR_COMPAT_LAYOUT, job.mmap_layout == MmapLayout::Legacy);
    persona
}

/// Prepares the child between fork and exec.
fn enter_child(
    limits: &[(Resource, rlim_t)],
    user: Option<u32>,
    persona: Persona,
    reports_fd: RawFd,
) -> io::Result<()> {
    // PID 1 blocks SIGCHLD and reads it from a signalfd; the program must not
    // inherit the mask.
    SigSet::empty().thread_set_mask()?;
    // SAFETY: both descriptors are open: PID 1 reserves WORKLOAD_FD.
    if unsafe { libc::dup2(reports_fd, WORKLOAD_FD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    for &(resource, value) in limits {
        setrlimit(resource, value, value)?;
    }
    personality::set(personality::get()? | persona)?;
    if let Some(id) = user {
        setgroups(&[])?;
        setgid(Gid::from_raw(id))?;
        setuid(Uid::from_raw(id))?;
    }
    Ok(())
}

fn start_failure(program: &str, job: &Job, err: &io::Error) -> NotStarted {
    if let Some(cwd) = job.cwd.as_ref().filter(|cwd| !Path::new(cwd).is_dir()) {
        return (125, format!("working directory {cwd}: not a directory in the guest"));
    }
    match err.kind() {
        io::ErrorKind::NotFound => (127, format!("{program}: not found in the guest")),
        io::ErrorKind::PermissionDenied => (126, format!("{program}: {err}")),
        _ if err.raw_os_error() == Some(libc::ENOEXEC) => {
            (126, format!("{program}: not executable in this guest: {err}"))
        }
        _ => (126, format!("{program}: {err}")),
    }
}

/// Reaps all ended children, including orphans. Returns the status of `child`.
///
/// Not nix's waitpid(), which fails for a process killed by a real-time signal.
fn reap(child: Pid) -> io::Result<Option<Exit>> {
    let mut found = None;
    loop {
        let mut status = 0;
        // SAFETY: the pointer is that of `status`.
        let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
        if pid == 0 {
            return Ok(found);
        }
        if pid < 0 {
            let err = io::Error::last_os_error();
            return if err.raw_os_error() == Some(libc::ECHILD) { Ok(found) } else { Err(err) };
        }
        if pid == child.as_raw() && libc::WIFEXITED(status) {
            found = Some(Exit::Code(libc::WEXITSTATUS(status)));
        } else if pid == child.as_raw() && libc::WIFSIGNALED(status) {
            found = Some(Exit::Signal(libc::WTERMSIG(status)));
        }
    }
}

fn set_sysctl(name: &str, value: &str) -> Result<(), String> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    fs::write(&path, value).map_err(|err| format!("sysctl {name}={value}: {err}"))
}

fn resource_limit(limit: &Rlimit) -> Result<(Resource, rlim_t), String> {
    let resource = match limit.name.as_str() {
        "as" => Resource::RLIMIT_AS,
        "core" => Resource::RLIMIT_CORE,
        "cpu" => Resource::RLIMIT_CPU,
        "data" => Resource::RLIMIT_DATA,
        "fsize" => Resource::RLIMIT_FSIZE,
        "memlock" => Resource::RLIMIT_MEMLOCK,
        "nofile" => Resource::RLIMIT_NOFILE,
        "nproc" => Resource::RLIMIT_NPROC,
        "stack" => Resource::RLIMIT_STACK,
        name => {
            return Err(format!(
                "unknown resource limit {name}: use as, core, cpu, data, fsize, memlock, nofile, \
                 nproc or stack"
            ));
        }
    };
    let value = match limit.value {
        None => RLIM_INFINITY,
        Some(value) => rlim_t::try_from(value).map_err(|_| {
            format!("resource limit {}={value}: exceeds {} bits", limit.name, usize::BITS)
        })?,
    };
    // Checked here, because setrlimit() in the child would fail with a bare
    // EPERM.
    if resource == Resource::RLIMIT_NOFILE
        && let Some(most) = most_open_files()
        && limit.value.is_none_or(|value| value > most)
    {
        return Err(format!("resource limit nofile: exceeds {most}; raise the sysctl fs.nr_open"));
    }
    Ok((resource, value))
}

fn most_open_files() -> Option<u64> {
    fs::read_to_string("/proc/sys/fs/nr_open").ok()?.trim().parse().ok()
}
