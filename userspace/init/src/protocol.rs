//! The protocol between host and guest: JSON objects, one per line, over
//! virtio-serial ports.
//!
//! The guest sends [`Event::Ready`]. The host sends any number of
//! [`Request::Run`], and the guest answers each with `Started`, any number of
//! `Data`, and `Exited`. The host sends [`Request::End`]; the guest answers
//! [`Event::End`] and reboots. A session without this last event is a lost VM,
//! whatever QEMU's exit status.
//!
//! [`Request::Ping`] and [`Request::Tasks`] are answered at any time, also
//! during a job. A guest that does not answer them hangs.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

/// The port for requests and events.
pub const PORT_EVENTS: &str = "nlrig.events";
/// The port for a job's standard input.
pub const PORT_STDIN: &str = "nlrig.stdin";
/// The port for a job's standard output.
pub const PORT_STDOUT: &str = "nlrig.stdout";
/// The port for a job's standard error.
pub const PORT_STDERR: &str = "nlrig.stderr";

/// The descriptor to which a workload writes JSON objects, one per line. PID 1
/// sends each as [`Event::Data`].
pub const WORKLOAD_FD: i32 = 3;

/// PID 1 prints this on the console when the host closes the event port early.
pub const PORT_CLOSED: &str = "nlrig-init: the host closed the event port";

/// A kernel command line parameter, `NAME=1`, that makes PID 1 load no modules.
/// The kernel passes a parameter that it does not know to PID 1 as an environment
/// variable.
pub const SKIP_MODULES: &str = "nlrig_skip_modules";

/// The longest line that either side accepts, in bytes. A snapshot of a small
/// program's address space takes a few KiB.
pub const LINE_MAX_BYTES: usize = 256 * 1024;

/// Writes one object as a line in a single write, as workloads do on
/// [`WORKLOAD_FD`].
///
/// # Errors
/// The object cannot be written.
pub fn write_line(to: &mut impl Write, report: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// A request from host to guest.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Run a program and wait for it.
    Run(Job),
    /// Answer with [`Event::Pong`].
    Ping,
    /// Report the state of all tasks: [`Event::Tasks`].
    Tasks,
    /// Inject a fault into the next job, to test its detection on the host.
    #[serde(rename = "misbehave")]
    InjectFault(GuestFault),
    /// End the session and the virtual machine.
    End,
}

/// A fault that the guest injects on request. The host must detect each.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum GuestFault {
    /// The virtual machine ends in the middle of the job's last event.
    CutResult,
    /// Bytes that are not an event replace the job's last event.
    Garbage,
    /// Endless events replace the job's last event.
    Flood,
    /// The session's last event replaces the job's, and then the kernel panics.
    ForgedEnd,
    /// No further events after the start of the job, while the kernel keeps
    /// running.
    Mute,
    /// The virtual machine ends without the session's last event.
    NoLastEvent,
}

/// A program to run in the guest.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Program and arguments. A program name without a slash is looked up in
    /// PATH.
    pub argv: Vec<String>,
    /// Whether standard input comes from the host; it is empty otherwise.
    /// Standard output and error always go to the host.
    pub stdin: bool,
    /// The working directory; `/` if absent.
    pub cwd: Option<String>,
    /// Both the uid and the gid of the process; root if absent.
    pub user: Option<u32>,
    /// Sysctls to set before the start, by dotted name.
    pub sysctls: Vec<(String, String)>,
    /// Resource limits to set before the start, both soft and hard.
    pub rlimits: Vec<Rlimit>,
    /// Address space layout randomisation, on by default.
    pub aslr: Aslr,
    /// The direction in which mmap() searches for free address space.
    pub mmap_layout: MmapLayout,
    /// Environment variables. They override the defaults for `PATH`, `HOME` and
    /// `TERM`.
    #[serde(default)]
    pub env: Vec<(String, String)>,
}

/// Address space layout randomisation of a process.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Aslr {
    /// As set by the sysctl kernel.randomize_va_space.
    #[default]
    On,
    /// Off for this program: personality(2) with ADDR_NO_RANDOMIZE.
    Off,
}

/// The mmap layout of a process.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum MmapLayout {
    /// The kernel's default: top-down, unless vm.legacy_va_layout is set.
    #[default]
    Default,
    /// Bottom-up for this program: personality(2) with ADDR_COMPAT_LAYOUT.
    Legacy,
}

/// A resource limit of setrlimit(2).
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Rlimit {
    /// The kernel's name in lower case, without `RLIMIT_`: `stack`, `nofile`.
    pub name: String,
    /// The value; unlimited if absent.
    pub value: Option<u64>,
}

/// An event from guest to host.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The guest is up: file systems are mounted, modules are loaded.
    Ready {
        /// The kernel's release, from uname(2).
        kernel: String,
        /// The kernel's machine name.
        machine: String,
        /// Seconds since boot.
        uptime_s: f64,
        /// The clock source of the guest's time stamps.
        clocksource: String,
        /// The taint mask, from /proc/sys/kernel/tainted.
        taint: u64,
        /// Errors during boot; empty if there were none.
        faults: Vec<String>,
        /// The module that the kernel refused to load, if any. Modules after it in
        /// the list were not tried.
        #[serde(default)]
        refused: Vec<RefusedModule>,
    },
    /// The job's program has started.
    Started,
    /// A JSON object that the program wrote to [`WORKLOAD_FD`].
    Data {
        /// The object, unmodified.
        value: serde_json::Value,
    },
    /// The job has ended.
    Exited {
        /// The exit status.
        status: Exit,
        /// Bytes written to standard output.
        stdout_bytes: u64,
        /// Bytes written to standard error.
        stderr_bytes: u64,
        /// The taint mask after the job.
        taint: u64,
        /// Kernel log lines that resemble a fault report, but whose facility shows
        /// that a user program wrote them.
        #[serde(default)]
        program_reports: Vec<String>,
    },
    /// The answer to [`Request::Ping`].
    Pong,
    /// The answer to [`Request::Tasks`].
    Tasks {
        /// All user tasks, and the kernel threads in state R or D, up to a
        /// limit.
        tasks: Vec<Task>,
        /// Whether a limit cut the list short.
        cut: bool,
    },
    /// The last event: the guest reboots after it.
    End,
}

/// The state of a task.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Task {
    /// The process id.
    pub pid: u32,
    /// The thread id.
    pub tid: u32,
    /// The name, from the kernel's comm.
    pub comm: String,
    /// The state as in ps(1): `D` is uninterruptible sleep.
    pub state: char,
    /// The kernel stack, innermost frame first: function+offset/size.
    pub stack: Vec<String>,
}

/// A module that the kernel refused to load.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct RefusedModule {
    /// Its name.
    pub name: String,
    /// The error of init_module(2).
    pub errno: i32,
    /// The newest lines that were added to the kernel log meanwhile.
    pub log: Vec<String>,
}

/// The result of a program.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// The program exited with this status.
    Code(i32),
    /// A signal killed the program.
    Signal(i32),
    /// The program could not be started.
    NotStarted {
        /// The step that failed and its error.
        reason: String,
        /// The status that a shell would give: 127 if the program does not
        /// exist, 126 if it cannot be executed, 125 if the guest could not
        /// prepare it.
        code: i32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Host and guest programs are built separately, so the wire format is a
    /// contract.
    #[test]
    fn the_wire_format_is_stable() {
        let job = Request::Run(Job {
            argv: vec!["true".into()],
            rlimits: vec![Rlimit { name: "stack".into(), value: None }],
            ..Job::default()
        });
        assert_eq!(
            serde_json::to_string(&job).unwrap(),
            r#"{"request":"run","argv":["true"],"stdin":false,"cwd":null,"user":null,"sysctls":[],"rlimits":[{"name":"stack","value":null}],"aslr":"on","mmap_layout":"default","env":[]}"#
        );
        let end: Event = serde_json::from_str(r#"{"event":"end"}"#).unwrap();
        assert_eq!(end, Event::End);
        let exited: Event = serde_json::from_str(
            r#"{"event":"exited","status":{"code":42},"stdout_bytes":0,"stderr_bytes":7,"taint":4096}"#,
        )
        .unwrap();
        assert_eq!(
            exited,
            Event::Exited {
                status: Exit::Code(42),
                stdout_bytes: 0,
                stderr_bytes: 7,
                taint: 4096,
                program_reports: vec![],
            }
        );
    }

    #[test]
    fn an_unknown_event_is_an_error() {
        assert!(serde_json::from_str::<Event>(r#"{"event":"surprise"}"#).is_err());
    }
}
