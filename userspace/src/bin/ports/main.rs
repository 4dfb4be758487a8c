//! The workload `ports`: threads bind to netlink ports that they compute from
//! their addresses, by formulas in wide use.
//!
//! `ports --threads N --formula NAME...` creates N threads, which bind by each
//! formula in turn. With `--second`, a second process does the same at the same
//! time. `--batch P` starts P processes, in parallel on all CPUs, whose threads
//! bind immediately.

mod formula;
mod thread_group;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::FromRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::ForkResult;
use nlrig_guest::clone::CloneOptions;
use nlrig_guest::ports::{Formula, PortReport};
use nlrig_guest::protocol::{WORKLOAD_FD, write_line};

use thread_group::{BindOutcome, GroupOptions, ThreadGroup};

/// The path of this program.
const SELF: &str = "/proc/self/exe";
/// Threads per report, for lines of some tens of KiB.
const CHUNK: usize = 1024;
/// Processes of a batch between two heartbeats.
const HEARTBEAT_EVERY: u32 = 50;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("ports: {err}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let options = Options::from_args(std::env::args().skip(1))?;
    if let Some(pid) = options.pid.filter(|&pid| pid != std::process::id()) {
        return run_as_pid(pid, &mut self_command(&options.with_pid(None)));
    }
    // SAFETY: PID 1 opened this descriptor, and nothing else in this process
    // uses it.
    let report = unsafe { File::from_raw_fd(WORKLOAD_FD) };
    let mut report = Reporter { report, process: u32::from(options.is_second), options: &options };
    match (options.batch, options.one_of_batch) {
        (Some(processes), _) => report.run_batch(processes),
        (None, true) => report.run_batch_member(),
        (None, false) => report.run_group(),
    }
}

/// The command line.
#[derive(Clone, Debug)]
struct Options {
    group_options: GroupOptions,
    formulas: Vec<Formula>,
    /// The process id to run with.
    pid: Option<u32>,
    /// Whether to start a second process.
    second: bool,
    /// The process id of the second process, if it matters.
    second_pid: Option<u32>,
    /// Whether this is the second process.
    is_second: bool,
    /// The number of processes of a batch.
    batch: Option<u32>,
    /// Whether this is a process of a batch.
    one_of_batch: bool,
}

impl Options {
    fn from_args(mut args: impl Iterator<Item = String>) -> io::Result<Options> {
        let group_options = GroupOptions {
            threads: 0,
            stack_bytes: None,
            malloc_bytes: 0,
            threads_exit: false,
            bind_at_start: None,
        };
        let mut options = Options {
            group_options,
            formulas: Vec::new(),
            pid: None,
            second: false,
            second_pid: None,
            is_second: false,
            batch: None,
            one_of_batch: false,
        };
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| invalid(&arg));
            match arg.as_str() {
                "--threads" => options.group_options.threads = number(&arg, &value()?)?,
                "--stack" => options.group_options.stack_bytes = Some(number(&arg, &value()?)?),
                "--malloc" => options.group_options.malloc_bytes = number(&arg, &value()?)?,
                "--ends" => options.group_options.threads_exit = true,
                "--formula" => options
                    .formulas
                    .push(Formula::from_name(&value()?).ok_or_else(|| invalid(&arg))?),
                "--pid" => options.pid = Some(number(&arg, &value()?)?),
                "--second" => options.second = true,
                "--second-pid" => options.second_pid = Some(number(&arg, &value()?)?),
                "--is-second" => options.is_second = true,
                "--batch" => options.batch = Some(number(&arg, &value()?)?),
                "--one-of-batch" => options.one_of_batch = true,
                _ => return Err(invalid(&arg)),
            }
        }
        Ok(options)
    }

    fn with_pid(&self, pid: Option<u32>) -> Options {
        Options { pid, ..self.clone() }
    }

    /// The command line for these options.
    fn to_args(&self) -> Vec<String> {
        let mut args = vec!["--threads".to_string(), self.group_options.threads.to_string()];
        let mut add = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                args.extend([name.to_string(), value]);
            }
        };
        let malloc = Some(self.group_options.malloc_bytes).filter(|&bytes| bytes > 0);
        add("--stack", self.group_options.stack_bytes.map(|bytes| bytes.to_string()));
        add("--malloc", malloc.map(|bytes| bytes.to_string()));
        add("--pid", self.pid.map(|pid| pid.to_string()));
        add("--second-pid", self.second_pid.map(|pid| pid.to_string()));
        for formula in &self.formulas {
            add("--formula", Some(formula.name().to_string()));
        }
        let flags = [
            ("--ends", self.group_options.threads_exit),
            ("--second", self.second),
            ("--is-second", self.is_second),
            ("--one-of-batch", self.one_of_batch),
        ];
        args.extend(flags.iter().filter(|flag| flag.1).map(|flag| flag.0.to_string()));
        args
    }
}

fn invalid(arg: &str) -> io::Error {
    io::Error::other(format!("invalid argument {arg}"))
}

fn number<T: std::str::FromStr>(arg: &str, text: &str) -> io::Result<T> {
    text.parse().map_err(|_| invalid(arg))
}

/// A command that runs this program with `options`. It inherits the report
/// descriptor.
fn self_command(options: &Options) -> Command {
    let mut command = Command::new(SELF);
    command.args(options.to_args());
    command
}

/// Runs `command` in a child with process id `pid` and waits for it.
fn run_as_pid(pid: u32, command: &mut Command) -> io::Result<()> {
    let options = CloneOptions { pid: Some(pid), ..CloneOptions::default() };
    // SAFETY: run() calls this before it creates threads.
    match unsafe { options.fork() }? {
        ForkResult::Child => Err(command.exec()),
        ForkResult::Parent { child } => match waitpid(child, None)? {
            WaitStatus::Exited(_, 0) => Ok(()),
            status => Err(io::Error::other(format!("process {pid} ended with {status:?}"))),
        },
    }
}

/// Runs the threads and reports to the host.
struct Reporter<'a> {
    report: File,
    process: u32,
    options: &'a Options,
}

impl Reporter<'_> {
    /// Runs one thread group, and with `--second` another one in a second
    /// process.
    fn run_group(&mut self) -> io::Result<()> {
        // The second process starts before this one has threads.
        let mut second = match self.options.second {
            true => Some(self.start_second()?),
            false => None,
        };
        let time_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let mut group = self.spawn_all(self.options.group_options, time_s)?;
        self.report_threads(&group, time_s)?;
        if self.options.is_second {
            println!();
            io::stdin().read_line(&mut String::new())?;
        }
        for &formula in &self.options.formulas {
            let mut moved = 0;
            if self.options.group_options.threads_exit {
                let group_options =
                    GroupOptions { bind_at_start: Some(formula), ..self.options.group_options };
                let before: Vec<_> = group.identities().map(|(address, _)| address).collect();
                group = self.spawn_all(group_options, time_s)?;
                let now = group.identities().map(|(address, _)| address);
                moved = before.into_iter().zip(now).filter(|(before, now)| before != now).count();
            } else {
                let heartbeat = heartbeat(&mut self.report);
                group.bind(formula, heartbeat)?;
            }
            self.report_ports(&group, formula)?;
            // The second process binds while these sockets are open.
            if let Some(second) = second.take() {
                second.bind_and_end()?;
            }
            let sum = group.close();
            self.write(&PortReport::Bound {
                process: self.process,
                formula,
                echoes: sum.echoes,
                unexpected: sum.unexpected,
                moved: moved as u32,
                failed: sum.failed,
            })?;
        }
        Ok(())
    }

    fn start_second(&self) -> io::Result<SecondProcess> {
        let options = Options {
            second: false,
            is_second: true,
            pid: self.options.second_pid,
            second_pid: None,
            ..self.options.clone()
        };
        SecondProcess::start(&options)
    }

    fn spawn_all(&mut self, group_options: GroupOptions, time_s: u64) -> io::Result<ThreadGroup> {
        ThreadGroup::spawn_all(group_options, time_s, heartbeat(&mut self.report))
    }

    fn report_threads(&mut self, group: &ThreadGroup, time_s: u64) -> io::Result<()> {
        let process = self.process;
        let identities: Vec<_> = group.identities().collect();
        for chunk in identities.chunks(CHUNK) {
            let (addresses, ids) = chunk.iter().copied().unzip();
            self.write(&PortReport::Threads { process, addresses, ids })?;
        }
        let two = self.options.second || self.options.is_second;
        self.write(&PortReport::Spawned {
            process,
            of: if two { 2 } else { 1 },
            pid: std::process::id(),
            threads: group.threads(),
            refused: group.refused,
            time_s,
        })
    }

    fn report_ports(&mut self, group: &ThreadGroup, formula: Formula) -> io::Result<()> {
        let ports: Vec<_> = group
            .outcomes()
            .map(|outcome| match outcome {
                BindOutcome::Bound(port) => Some(port),
                BindOutcome::InUse | BindOutcome::Failed(_) => None,
            })
            .collect();
        for chunk in ports.chunks(CHUNK) {
            let (process, ports) = (self.process, chunk.to_vec());
            self.write(&PortReport::Ports { process, formula, ports })?;
        }
        Ok(())
    }

    /// Runs `processes` processes, in parallel on all CPUs.
    fn run_batch(&mut self, processes: u32) -> io::Result<()> {
        let processors = std::thread::available_parallelism()?.get();
        let threads = self.options.group_options.threads;
        self.write(&PortReport::Batch { processes, threads, processors: processors as u32 })?;
        let one = Options { batch: None, one_of_batch: true, ..self.options.clone() };
        let mut command = self_command(&one);
        let mut alive = VecDeque::new();
        for number in 1..=processes {
            alive.push_back((number, command.spawn()?));
            let last = number == processes;
            while !alive.is_empty() && (last || alive.len() >= processors) {
                let Some((number, mut process)) = alive.pop_front() else { break };
                let status = process.wait()?;
                if !status.success() {
                    return Err(io::Error::other(format!("process {number} ended with {status}")));
                }
                if number % HEARTBEAT_EVERY == 0 {
                    let threads = u64::from(number) * u64::from(threads);
                    self.write(&PortReport::Progress { threads })?;
                }
            }
        }
        Ok(())
    }

    fn run_batch_member(&mut self) -> io::Result<()> {
        let group_options = GroupOptions {
            bind_at_start: self.options.formulas.first().copied(),
            ..self.options.group_options
        };
        let group = ThreadGroup::spawn_all(group_options, 0, |_| ())?;
        let failed = |outcome| match outcome {
            BindOutcome::Failed(failure) => Some(failure),
            _ => None,
        };
        if let Some(failure) = group.outcomes().find_map(failed) {
            return Err(io::Error::other(format!("a thread failed: {failure:?}")));
        }
        self.write(&PortReport::Process {
            pid: std::process::id(),
            addresses: group.identities().map(|(address, _)| address).collect(),
            first_failed: group.first_in_use(),
            in_use: group.outcomes().filter(|outcome| *outcome == BindOutcome::InUse).count()
                as u32,
        })
    }

    fn write(&mut self, report: &PortReport) -> io::Result<()> {
        write_line(&mut self.report, report)
    }
}

/// A callback that reports heartbeats. Write errors are ignored: without the
/// host, nothing receives the report.
fn heartbeat(report: &mut File) -> impl FnMut(u32) {
    |threads| {
        let _ = write_line(report, &PortReport::Progress { threads: u64::from(threads) });
    }
}

/// A second process, which has created its threads and waits for its turn.
struct SecondProcess {
    program: Child,
}

impl SecondProcess {
    fn start(options: &Options) -> io::Result<SecondProcess> {
        let mut command = self_command(options);
        let mut program = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = program
            .stdout
            .take()
            .ok_or_else(|| io::Error::other("no pipe to the second process"))?;
        if BufReader::new(output).read_line(&mut String::new())? == 0 {
            return Err(io::Error::other(format!(
                "the second process ended with {}",
                program.wait()?
            )));
        }
        Ok(SecondProcess { program })
    }

    fn bind_and_end(mut self) -> io::Result<()> {
        // wait() closes the child's standard input, which starts the binds.
        match self.program.wait()? {
            status if status.success() => Ok(()),
            status => Err(io::Error::other(format!("the second process ended with {status}"))),
        }
    }
}
