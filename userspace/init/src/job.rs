//! Runs one program for the host, and passes on what it writes.

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
use crate::kmsg::KernelLog;
use crate::misbehave;
use crate::pipes::{CHUNK_BYTES, Pump, Reports};

/// What a shell in the guest finds: busybox and the workloads.
const SEARCH_PATH: &str = "/run/nlrig/guest/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The kernel starts and ends threads of its own after boot. It is at rest when
/// none has come or gone for so long,
const AT_REST: Duration = Duration::from_millis(60);
/// or is not waited for any longer.
const AT_REST_LIMIT: Duration = Duration::from_secs(2);

/// A process that is killed is gone at once, unless the kernel holds it.
const OTHERS_LIMIT: Duration = Duration::from_secs(1);
const OTHERS_POLL: Duration = Duration::from_millis(1);

/// Runs the job and reports its start, its data and its end; wrongly, if that
/// was asked for.
///
/// # Errors
/// Only when the host cannot be told: what is wrong with the job itself is an
/// event.
pub fn run(
    job: &Job,
    child_signal: &SigSet,
    channel: &mut Channel,
    misbehaviour: Option<GuestFault>,
) -> io::Result<()> {
    let log = KernelLog::from_now_on();
    let mut exited = match Running::start(job) {
        Ok(running) => {
            channel.send(&Event::Started)?;
            if misbehaviour == Some(GuestFault::Mute) {
                misbehave::mute();
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
        *program_reports = log.lines_of_programs();
    }
    match misbehaviour {
        None => channel.send(&exited),
        Some(how) => misbehave::end_job(how, &exited, channel),
    }
}

/// Why a job could not be started, behind the status a shell would give.
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
        let (program, arguments) =
            job.argv.split_first().ok_or((125, "the job names no program".to_string()))?;
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
        wait_for_rest().map_err(rig)?;
        // SAFETY: the closure only makes system calls and allocates nothing.
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

    /// Passes on what the program writes until it has ended, then what is left
    /// in the pipes. A grandchild that keeps a pipe open is not waited for.
    /// Answers the host meanwhile. Gives back the job's last event.
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
            self.pass_on(channel, CHUNK_BYTES)?;
            if asked {
                let request = channel.receive()?;
                crate::answer(&request.unwrap_or(Request::End), channel)?;
            }
        };
        self.pass_on(channel, usize::MAX)?;
        self.reports.last_line(channel)?;
        end_others();
        Ok(Event::Exited {
            status,
            stdout_bytes: self.stdout.bytes,
            stderr_bytes: self.stderr.bytes,
            taint: crate::taint(),
            program_reports: Vec::new(),
        })
    }

    /// Passes on what each pipe holds now, at most so many bytes of each: who
    /// writes without end must not keep the others waiting.
    fn pass_on(&mut self, channel: &mut Channel, most: usize) -> io::Result<()> {
        self.stdout.pass_on(most)?;
        self.stderr.pass_on(most)?;
        self.reports.pass_on(channel, most)
    }
}

fn readable(source: &PipeReader) -> PollFd<'_> {
    PollFd::new(source.as_fd(), PollFlags::POLLIN)
}

/// Ends what the program has left running: the next one must not find it.
fn end_others() {
    let deadline = Instant::now() + OTHERS_LIMIT;
    // Minus one is every process but this one; kernel threads do not mind.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    // Orphans become this process's children: without children there are none.
    while Instant::now() < deadline {
        // SAFETY: without a place for the status nothing is written.
        match unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } {
            0 => sleep(OTHERS_POLL),
            pid if pid > 0 => {}
            _ => return,
        }
    }
}

/// Lets the kernel's threads settle, because programs count tasks.
fn wait_for_rest() -> io::Result<()> {
    let start = Instant::now();
    let mut seen = (loadavg()?, start);
    while seen.1.elapsed() < AT_REST && start.elapsed() < AT_REST_LIMIT {
        sleep(AT_REST / 4);
        let now = loadavg()?;
        if now != seen.0 {
            seen = (now, Instant::now());
        }
    }
    Ok(())
}

/// The personality that a job asks for, beside PID 1's own.
fn persona(job: &Job) -> Persona {
    let mut persona = Persona::empty();
    persona.set(Persona::ADDR_NO_RANDOMIZE, job.aslr == Aslr::Off);
    persona.set(Persona::ADDR_COMPAT_LAYOUT, job.mmap_layout == MmapLayout::Legacy);
    persona
}

/// In the child, between fork and exec.
fn enter_child(
    limits: &[(Resource, rlim_t)],
    user: Option<u32>,
    persona: Persona,
    reports_fd: RawFd,
) -> io::Result<()> {
    // PID 1 takes SIGCHLD from a descriptor; a shell must get its own.
    SigSet::empty().thread_set_mask()?;
    // SAFETY: both descriptors are open: PID 1 keeps this one taken.
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
    let folder_is_missing = job.cwd.as_ref().is_some_and(|cwd| !Path::new(cwd).is_dir());
    match err.kind() {
        _ if folder_is_missing => (125, format!("no folder {:?}", job.cwd)),
        io::ErrorKind::NotFound => (127, format!("{program}: not found in the guest")),
        io::ErrorKind::PermissionDenied => (126, format!("{program}: {err}")),
        _ if err.raw_os_error() == Some(libc::ENOEXEC) => {
            (126, format!("{program}: not a program for this guest ({err})"))
        }
        _ => (126, format!("{program}: {err}")),
    }
}

/// Collects every child that has ended, orphans too; the status of `child`.
///
/// Not nix's waitpid, which has no word for a real-time signal and fails on one.
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
        name => return Err(format!("no resource limit is called {name}")),
    };
    let value = match limit.value {
        None => RLIM_INFINITY,
        Some(value) => rlim_t::try_from(value).map_err(|_| {
            format!("limit {}={value} does not fit in {} bits", limit.name, usize::BITS)
        })?,
    };
    // setrlimit would say no more than EPERM, and that from inside the child.
    if resource == Resource::RLIMIT_NOFILE
        && let Some(most) = most_open_files()
        && limit.value.is_none_or(|value| value > most)
    {
        return Err(format!("limit nofile: this kernel allows {most} at most (fs.nr_open)"));
    }
    Ok((resource, value))
}

fn most_open_files() -> Option<u64> {
    fs::read_to_string("/proc/sys/fs/nr_open").ok()?.trim().parse().ok()
}
