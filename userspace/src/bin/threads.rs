//! The workload `threads`: creates threads until a call fails. Each holds a
//! bound netlink socket and has exchanged one echo.
//!
//! RLIMIT_STACK takes effect at exec, so the parent sets it, and threads are
//! created with default attributes like those of a plain C program. `--stack
//! BYTES` sets the stack size by attribute instead, for stacks too small for a
//! main thread.

use std::fs::File;
use std::io;
use std::os::fd::FromRawFd;
use std::process::ExitCode;
use std::time::Instant;

use nlrig_guest::clone::pin_to_cpu;
use nlrig_guest::protocol::{WORKLOAD_FD, write_line};
use nlrig_guest::snapshot::{Failed, PROGRESS_EVERY, Snapshot, ThreadOutcome, ThreadReport};
use nlrig_guest::workers::{self, ThreadAttributes};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("threads: {err}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let options = Options::from_args(std::env::args().skip(1))?;
    // SAFETY: PID 1 opened this descriptor, and nothing else in this process
    // uses it.
    let mut report = unsafe { File::from_raw_fd(WORKLOAD_FD) };

    workers::reserve_heap(max_threads(&Snapshot::capture()?, options.stack_bytes));
    let snapshot = Snapshot::capture()?;
    write_line(&mut report, &ThreadReport::Snapshot(snapshot))?;
    if options.snapshot_only {
        return Ok(());
    }

    let attributes = options.stack_bytes.map(ThreadAttributes::with_stack).transpose()?;
    // Threads run one at a time, so a second CPU does not help, and under TCG
    // cross-CPU wakeups are slow.
    pin_to_cpu(0)?;
    let start = Instant::now();
    let (counts, failure) = workers::create_until_failure(attributes.as_ref(), 0, |threads| {
        if threads % PROGRESS_EVERY != 0 {
            return Ok(());
        }
        write_line(&mut report, &ThreadReport::Progress { threads: u64::from(threads) })
    })?;
    let elapsed_ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);

    let failed = Failed::from(failure);
    let closed = workers::free_descriptors();
    let mut outcome = ThreadOutcome::capture(counts, failed, elapsed_ns)?;
    outcome.open_files += closed;
    write_line(&mut report, &ThreadReport::Outcome(outcome))
}

struct Options {
    snapshot_only: bool,
    /// The stack size attribute; RLIMIT_STACK applies if absent.
    stack_bytes: Option<usize>,
}

impl Options {
    fn from_args(mut args: impl Iterator<Item = String>) -> io::Result<Options> {
        let mut options = Options { snapshot_only: false, stack_bytes: None };
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--look-only" => options.snapshot_only = true,
                "--stack" => options.stack_bytes = args.next().and_then(|n| n.parse().ok()),
                _ => return Err(io::Error::other(format!("unknown argument {arg}"))),
            }
        }
        Ok(options)
    }
}

/// An upper bound for the number of threads.
fn max_threads(snapshot: &Snapshot, by_attribute: Option<usize>) -> usize {
    let by_attribute = by_attribute.map(|bytes| bytes as u64);
    let stack_bytes = by_attribute.or(snapshot.limits.stack_bytes).unwrap_or(2 << 20).max(16 << 10);
    let by_space = if snapshot.word_bits == 32 { (4 << 30) / stack_bytes } else { u64::MAX };
    snapshot.sysctls.threads_max.min(snapshot.sysctls.pid_max).min(by_space).min(1 << 20) as usize
}
