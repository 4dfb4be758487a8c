//! Times thread creation in one guest, by the workload and the reference in turn.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nlrig_guest::protocol::{Exit, Job};
use nlrig_guest::snapshot::ThreadReport;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::abi::Abi;
use crate::accel::Accel;
use crate::experiment::{self, AnyTrial, Selection};
use crate::guest::{Guest, Limits};
use crate::options::GuestOptions;
use crate::{reference, run, ui};

/// The two thread counts: the values of kernel.threads-max.
const SIZES: [u64; 2] = [16 << 10, 32 << 10];
/// The least percentage of kernel.threads-max that must be created: the rest are
/// the system's own tasks.
const SIZE_LEAST_PERCENT: u64 = 99;
const STACK_BYTES: u64 = 2 << 20;

/// The folder of the reference program in the guest.
const REFERENCE_IN_GUEST: &str = "/run/nlrig/reference";
/// The guest's mount of the share [`TAG`], in the format of fstab(5).
pub const MOUNT: &str = "reference /run/nlrig/reference virtiofs ro,nosuid,nodev";
/// The virtiofs tag of the share with the reference program.
pub const TAG: &str = "reference";

/// Waits until the threads of the previous job are gone, and one second more for
/// memory that the kernel frees later. An idle guest has about thirty tasks.
const SETTLE: &str = "while read -r _ _ _ tasks _ < /proc/loadavg; [ \"${tasks#*/}\" -ge 200 ]; \
                      do sleep 0.1; done; sleep 1";
const SETTLE_LIMIT: Duration = Duration::from_secs(120);

/// The result of creating threads until the first failure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Creation {
    /// The number of threads created.
    pub threads: u64,
    /// The time taken, in seconds of the guest's clock.
    pub elapsed_s: f64,
}

/// One round: each program at each thread count.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Round {
    /// The workload, 16 Ki threads.
    pub rust_16k: Creation,
    /// The reference, 16 Ki threads.
    pub c_16k: Creation,
    /// The workload, 32 Ki threads.
    pub rust_32k: Creation,
    /// The reference, 32 Ki threads.
    pub c_32k: Creation,
}

/// The report of the reference program.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct ReferenceReport {
    /// Workers alive at once, the main thread not among them.
    pub threads: u64,
    /// The time from just before the first thread to the failure, in nanoseconds.
    pub elapsed_ns: u64,
    /// The call that failed.
    pub failed_call: String,
    /// The errno of the failed call.
    pub errno: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    Rust,
    C,
}

impl Creation {
    /// Returns the threads created per second.
    pub fn rate(&self) -> f64 {
        self.threads as f64 / self.elapsed_s
    }
}

impl Default for Creation {
    /// A result that was not measured.
    fn default() -> Creation {
        Creation { threads: 0, elapsed_s: f64::NAN }
    }
}

impl ReferenceReport {
    /// Parses the JSON object that the program prints.
    ///
    /// # Errors
    /// The object has another form.
    pub fn parse(value: &Value) -> Result<ReferenceReport> {
        let report = value.get("reference").context("the reference program did not report")?;
        Ok(ReferenceReport::deserialize(report)?)
    }
}

/// Returns the trial of the experiment `threads` with this kernel.threads-max and
/// 2M stacks. The bench uses its program, limits and VM.
///
/// # Errors
/// The experiment has no such trial.
pub fn trial(threads_max: u64) -> Result<AnyTrial> {
    let threads = experiment::find(&["threads".to_string()])?;
    let mut selection = Selection::new(&[Abi::X86_64], &GuestOptions::default().kernel);
    selection.stacks = vec![STACK_BYTES];
    selection.sysctls = vec![("kernel.threads-max".to_string(), threads_max.to_string())];
    let planned = run::plan(&threads, &selection, 1)?.into_iter().next();
    Ok(planned.context("threads plans no trial")?.trial)
}

/// Returns the trial whose VM is large enough for both thread counts.
///
/// # Errors
/// See [`trial`].
pub fn largest() -> Result<AnyTrial> {
    trial(SIZES[1])
}

/// Runs `rounds` rounds after a warm-up job that is not measured.
///
/// The first job touches the guest's memory, which the host then has to allocate.
///
/// # Errors
/// See [`Guest::run`]; or a program did not end by the limit.
pub fn rounds(guest: &mut Guest, rounds: u32) -> Result<Vec<Round>> {
    ui::status("threads: warming up");
    time(guest, Program::C, SIZES[1])?;
    let mut measured = Vec::new();
    for number in 1..=rounds {
        let mut round = Round::default();
        for (program, size) in order(number) {
            let creation = time(guest, program, SIZES[size])?;
            let place = match (program, size) {
                (Program::Rust, 0) => &mut round.rust_16k,
                (Program::C, 0) => &mut round.c_16k,
                (Program::Rust, _) => &mut round.rust_32k,
                (Program::C, _) => &mut round.c_32k,
            };
            *place = creation;
            ui::status(&format!(
                "threads: round {number}/{rounds}: {program:?}: {} in {:.2} s, {:.0}/s",
                creation.threads,
                creation.elapsed_s,
                creation.rate()
            ));
        }
        measured.push(round);
    }
    Ok(measured)
}

/// Returns the order of the jobs in a round: the program and the index in [`SIZES`].
///
/// Each program is first at one count and second at the other, and the reverse in
/// the next round, so an effect of the order is not taken for a difference.
fn order(round: u32) -> [(Program, usize); 4] {
    use Program::{C, Rust};
    if round.is_multiple_of(2) {
        [(C, 0), (Rust, 0), (Rust, 1), (C, 1)]
    } else {
        [(Rust, 0), (C, 0), (C, 1), (Rust, 1)]
    }
}

/// Runs one job after the previous one is gone, and times its threads.
fn time(guest: &mut Guest, program: Program, threads_max: u64) -> Result<Creation> {
    settle(guest)?;
    let trial = trial(threads_max)?;
    let mut job = trial.job.clone();
    if program == Program::C {
        job.argv = vec![format!("{REFERENCE_IN_GUEST}/{}", reference::PROGRAM)];
    }
    let mut progress = ui::Progress::new();
    let mut ended = None;
    let exit = guest.run(&job, trial.deadlines(Accel::Tcg.slowdown()), |value| -> Result<()> {
        if let Some(threads) = value.get("progress") {
            progress.update(|| format!("{program:?}: {threads}"));
            return Ok(());
        }
        match program {
            Program::C => ended = Some(ReferenceReport::parse(&value)?),
            Program::Rust => match ThreadReport::deserialize(&value)? {
                ThreadReport::Snapshot(_) | ThreadReport::Progress { .. } => {}
                ThreadReport::Outcome(outcome) => {
                    ended = Some(ReferenceReport {
                        threads: outcome.threads,
                        elapsed_ns: outcome.elapsed_ns,
                        failed_call: outcome.failed.call,
                        errno: outcome.failed.errno,
                    });
                }
            },
        }
        Ok(())
    })?;
    drop(progress);
    ensure!(exit == Exit::Code(0), "{program:?}: the program failed: {exit:?}");
    let ended = ended.with_context(|| format!("{program:?}: the program reported no outcome"))?;
    creation(&ended, threads_max).with_context(|| format!("{program:?} at {threads_max}"))
}

/// Returns the result of a program that kernel.threads-max ended.
fn creation(ended: &ReferenceReport, threads_max: u64) -> Result<Creation> {
    let ReferenceReport { threads, elapsed_ns, failed_call, errno } = ended;
    let least = threads_max * SIZE_LEAST_PERCENT / 100;
    if failed_call != "pthread_create" || *errno != libc::EAGAIN || *elapsed_ns == 0 {
        bail!(
            "{failed_call} failed with errno {errno} after {threads} threads; expected \
             pthread_create with EAGAIN at kernel.threads-max"
        );
    }
    ensure!(
        (least..=threads_max).contains(threads),
        "{threads} threads were created; expected {least} to {threads_max}"
    );
    Ok(Creation { threads: *threads, elapsed_s: *elapsed_ns as f64 / 1e9 })
}

fn settle(guest: &mut Guest) -> Result<()> {
    let job = Job { argv: ["sh", "-c", SETTLE].map(str::to_string).to_vec(), ..Job::default() };
    let limits = Limits::fixed(SETTLE_LIMIT, Accel::Tcg.slowdown());
    let exit = guest.run(&job, limits, |_| Ok::<_, anyhow::Error>(()))?;
    ensure!(exit == Exit::Code(0), "waiting for the threads of the previous job failed: {exit:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_program_runs_once_per_count_and_is_first_at_one_count() {
        for round in 1..=2 {
            let order = order(round);
            for program in [Program::Rust, Program::C] {
                for size in 0..SIZES.len() {
                    assert_eq!(order.iter().filter(|&&job| job == (program, size)).count(), 1);
                }
            }
            assert_ne!(order[0].0, order[2].0);
            assert!(order[0].1 == order[1].1, "both programs run at a count in sequence");
        }
        assert_ne!(order(1)[0].0, order(2)[0].0);
    }

    #[test]
    fn only_threads_max_may_end_a_program() {
        let ended = |threads, failed_call: &str, errno| ReferenceReport {
            threads,
            elapsed_ns: 2_000_000_000,
            failed_call: failed_call.to_string(),
            errno,
        };
        let found = creation(&ended(32738, "pthread_create", libc::EAGAIN), 32768).unwrap();
        assert_eq!((found.threads, found.elapsed_s, found.rate()), (32738, 2.0, 16369.0));
        for (ended, word) in [
            (ended(32738, "pthread_create", libc::ENOMEM), "errno 12"),
            (ended(1020, "socket", libc::EMFILE), "socket"),
            (ended(1020, "pthread_create", libc::EAGAIN), "1020"),
        ] {
            let err = creation(&ended, 32768).unwrap_err().to_string();
            assert!(err.contains(word), "{err}");
        }
    }

    #[test]
    fn the_job_has_the_limits_of_the_experiment() {
        let trial = trial(1000).unwrap();
        let set = |name: &str| {
            let found = trial.job.sysctls.iter().rev().find(|(key, _)| key == name);
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(set("kernel.threads-max"), Some("1000"));
        assert_eq!(set("kernel.pid_max"), Some("131072"));
        assert_eq!(set("vm.max_map_count"), Some("1000000"));
        let limit = |name: &str| trial.job.rlimits.iter().find(|limit| limit.name == name)?.value;
        assert_eq!(limit("nofile"), Some(1 << 20));
        assert_eq!(limit("stack"), Some(2 << 20));
        assert!(MOUNT.starts_with(TAG) && MOUNT.contains(REFERENCE_IN_GUEST));
    }
}
