//! The words that host and guest exchange: one JSON object a line, over
//! virtio-serial ports.
//!
//! A session is short. The guest says [`Event::Ready`]; the host sends
//! [`Request::Run`], as often as it likes, and the guest answers each with
//! `Started`, any number of `Data`, and `Exited`; the host sends
//! [`Request::End`] and the guest answers with [`Event::End`] and is gone. A
//! session without that last event is a lost VM, whatever QEMU's exit status
//! says. [`Request::Ping`] and [`Request::Tasks`] are answered at any time, in
//! the middle of a job too: who does not answer them hangs.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

/// The port that carries requests one way and events the other.
pub const PORT_EVENTS: &str = "nlrig.events";
/// The port that is a command's standard input.
pub const PORT_STDIN: &str = "nlrig.stdin";
/// The port that carries a command's standard output.
pub const PORT_STDOUT: &str = "nlrig.stdout";
/// The port that carries a command's standard error.
pub const PORT_STDERR: &str = "nlrig.stderr";

/// The descriptor on which a workload writes its JSON objects, one a line.
/// PID 1 passes each on as [`Event::Data`].
pub const WORKLOAD_FD: i32 = 3;

/// What PID 1 prints on the console when the event port is closed under it.
pub const PORT_CLOSED: &str = "nlrig-init: the host closed the event port";

/// The longest line either side accepts, in bytes. A look at the address space
/// of a small program is a few KiB.
pub const LINE_MAX_BYTES: usize = 256 * 1024;

/// Writes one object as a line, at once: what a workload does on [`WORKLOAD_FD`].
///
/// # Errors
/// It cannot be written.
pub fn write_line(to: &mut impl Write, report: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// What the host asks of the guest.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Run one program and wait for it.
    Run(Job),
    /// Say that you are there: [`Event::Pong`].
    Ping,
    /// Say what the tasks do: [`Event::Tasks`].
    Tasks,
    /// Do the next job wrongly: the rig's own tests of what it sees.
    Misbehave(GuestFault),
    /// End the virtual machine.
    End,
}

/// What a guest can do wrong, on request: each must be seen by the host.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum GuestFault {
    /// The machine ends in the middle of the job's last event.
    CutResult,
    /// Bytes that are no event come in the place of the job's last one.
    Garbage,
    /// Events come without end in the place of the job's last one.
    Flood,
    /// The session's last event comes in the place of the job's, and then the
    /// kernel panics.
    ForgedEnd,
    /// No word any more, from the start of the job; the kernel lives.
    Mute,
    /// The machine ends without the session's last event.
    NoLastEvent,
}

/// One program to run in the guest.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Program and arguments. A program without a slash is looked up in PATH.
    pub argv: Vec<String>,
    /// Whether its standard input comes from the host, through the port; it is
    /// empty otherwise. Output and error output always go to the host.
    pub stdin: bool,
    /// The folder to start in; `/` if absent.
    pub cwd: Option<String>,
    /// The user to run as: uid and gid are both set to it; root if absent.
    pub user: Option<u32>,
    /// Kernel parameters to set first, by dotted name.
    pub sysctls: Vec<(String, String)>,
    /// Limits to set first, soft and hard alike.
    pub rlimits: Vec<Rlimit>,
    /// Whether the kernel places its mappings at random, as it does by default.
    pub aslr: Aslr,
    /// The order in which the kernel searches for a place for its mappings.
    pub mmap_layout: MmapLayout,
    /// Variables of its environment, beside `PATH`, `HOME` and `TERM`, which they
    /// may override.
    #[serde(default)]
    pub env: Vec<(String, String)>,
}

/// Address space layout randomisation of a program.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Aslr {
    /// As the kernel does it.
    #[default]
    On,
    /// Off for this program: personality(2), ADDR_NO_RANDOMIZE.
    Off,
}

/// The layout of a program's address space.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum MmapLayout {
    /// The kernel's choice: top-down, unless vm.legacy_va_layout is set.
    #[default]
    Default,
    /// Bottom-up for this program: personality(2), ADDR_COMPAT_LAYOUT.
    Legacy,
}

/// One resource limit, as setrlimit(2) knows it.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Rlimit {
    /// The kernel's name in lower case, without `RLIMIT_`: `stack`, `nofile`.
    pub name: String,
    /// The value; none is unlimited.
    pub value: Option<u64>,
}

/// What the guest tells the host.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The guest is up: everything is mounted, the modules are loaded.
    Ready {
        /// The kernel's release, as uname(2) has it.
        kernel: String,
        /// The kernel's machine name.
        machine: String,
        /// Seconds since the kernel started.
        uptime_s: f64,
        /// The clock that the guest's times come from.
        clocksource: String,
        /// The kernel's taint mask, as in /proc/sys/kernel/tainted.
        taint: u64,
        /// What did not work while the guest came up; empty when all is well.
        faults: Vec<String>,
        /// Modules that the kernel refused to load, each with its error.
        #[serde(default)]
        refused: Vec<String>,
    },
    /// The program of the job runs.
    Started,
    /// A JSON object that the program wrote to [`WORKLOAD_FD`].
    Data {
        /// The object as it came.
        value: serde_json::Value,
    },
    /// The job is over.
    Exited {
        /// How the program ended.
        status: Exit,
        /// How many bytes it wrote to standard output.
        stdout_bytes: u64,
        /// How many bytes it wrote to standard error.
        stderr_bytes: u64,
        /// The kernel's taint mask after it.
        taint: u64,
        /// Lines of the kernel's log that read like a fault report and that a
        /// program wrote, as their facility shows.
        #[serde(default)]
        program_reports: Vec<String>,
    },
    /// The answer to [`Request::Ping`].
    Pong,
    /// The answer to [`Request::Tasks`].
    Tasks {
        /// Those that are running or cannot be woken, and all that are no
        /// kernel threads, as far as they were looked at.
        tasks: Vec<Task>,
        /// Whether there were more than could be looked at.
        cut: bool,
    },
    /// The last word: the guest ends itself after this.
    End,
}

/// What a task does.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Task {
    /// Its process.
    pub pid: u32,
    /// The task itself: the thread.
    pub tid: u32,
    /// Its name, as the kernel has it.
    pub comm: String,
    /// Its state, as ps(1) has it: `D` waits and cannot be woken by a signal.
    pub state: char,
    /// Where in the kernel it is, innermost first: function+offset/size.
    pub stack: Vec<String>,
}

/// How a program ended.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// It returned this exit status.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
    /// It never ran, and this is why.
    NotStarted {
        /// The step that failed and its error.
        reason: String,
        /// The status a shell would give: 127 if there is no such program, 126
        /// if it cannot be run, 125 if the guest could not make things ready.
        code: i32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The wire format is a contract between two programs that are built apart.
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
