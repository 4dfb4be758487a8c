//! Threads created in one guest, by the workload and by its yardstick in turn.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nlrig_guest::look::Report;
use nlrig_guest::protocol::{Exit, Job};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::abi::Abi;
use crate::accel::Accel;
use crate::experiment::{self, AnyTrial, Selection};
use crate::guest::{Guest, Limits};
use crate::options::GuestOptions;
use crate::{run, say, yardstick};

/// The two sizes: what kernel.threads-max is set to.
const SIZES: [u64; 2] = [16 << 10, 32 << 10];
/// Of so many, this part at least must come to be, in percent: the rest are
/// the system's own tasks.
const SIZE_LEAST_PERCENT: u64 = 99;
const STACK_BYTES: u64 = 2 << 20;

/// Where the guest sees the yardstick.
const YARDSTICK_IN_GUEST: &str = "/run/nlrig/yardstick";
/// How it is mounted, by the tag [`TAG`].
pub const MOUNT: &str = "yardstick /run/nlrig/yardstick virtiofs ro,nosuid,nodev";
/// The tag of the yardstick's share.
pub const TAG: &str = "yardstick";

/// Waits until the threads of the job before are gone (an idle guest has some
/// thirty tasks), and then a little for what the kernel frees later.
const SETTLE: &str = "while read -r _ _ _ tasks _ < /proc/loadavg; [ \"${tasks#*/}\" -ge 200 ]; \
                      do sleep 0.1; done; sleep 1";
const SETTLE_LIMIT: Duration = Duration::from_secs(120);

/// Threads created until it failed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Creation {
    /// How many there were.
    pub threads: u64,
    /// How long it took, in seconds of the guest's clock.
    pub elapsed_s: f64,
}

/// One round: each program at each size.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Round {
    /// The workload, 16 Ki threads.
    pub rust_16k: Creation,
    /// The yardstick, 16 Ki threads.
    pub c_16k: Creation,
    /// The workload, 32 Ki threads.
    pub rust_32k: Creation,
    /// The yardstick, 32 Ki threads.
    pub c_32k: Creation,
}

/// What the yardstick reports.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Yardstick {
    /// Workers alive at once, the main thread not among them.
    pub threads: u64,
    /// From just before the first thread to the failure.
    pub elapsed_ns: u64,
    /// What failed and ended it.
    pub failed_call: String,
    /// Its error number.
    pub errno: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    Rust,
    C,
}

impl Creation {
    /// Threads a second.
    pub fn rate(&self) -> f64 {
        self.threads as f64 / self.elapsed_s
    }
}

impl Default for Creation {
    /// Not measured.
    fn default() -> Creation {
        Creation { threads: 0, elapsed_s: f64::NAN }
    }
}

impl Yardstick {
    /// Understands the one object that it reports.
    ///
    /// # Errors
    /// It is another.
    pub fn parse(value: &Value) -> Result<Yardstick> {
        let report = value.get("yardstick").context("the yardstick did not report")?;
        Ok(Yardstick::deserialize(report)?)
    }
}

/// The trial of the experiment `threads` whose program, limits and machine a
/// bench has: its setting `threads-max` at 2M stacks.
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

/// The trial whose machine is large enough for all of them.
///
/// # Errors
/// See [`trial`].
pub fn largest() -> Result<AnyTrial> {
    trial(SIZES[1])
}

/// Runs so many rounds. One job before them warms up, and is not measured: it
/// is the first to touch the guest's memory, which the host has yet to find.
///
/// # Errors
/// See [`Guest::run`]; a program ended in any other way than by the limit.
pub fn rounds(guest: &mut Guest, rounds: u32) -> Result<Vec<Round>> {
    say::status("threads: warming up");
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
            say::status(&format!(
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

/// Who runs when in a round, with the number of the size. Each program is the
/// first at one size and the second at the other, and the other way round in
/// the next round: an order must not pass for a difference.
fn order(round: u32) -> [(Program, usize); 4] {
    use Program::{C, Rust};
    if round.is_multiple_of(2) {
        [(C, 0), (Rust, 0), (Rust, 1), (C, 1)]
    } else {
        [(Rust, 0), (C, 0), (C, 1), (Rust, 1)]
    }
}

/// Runs one job, once the one before is gone, and times its threads.
fn time(guest: &mut Guest, program: Program, threads_max: u64) -> Result<Creation> {
    settle(guest)?;
    let trial = trial(threads_max)?;
    let mut job = trial.job.clone();
    if program == Program::C {
        job.argv = vec![format!("{YARDSTICK_IN_GUEST}/{}", yardstick::PROGRAM)];
    }
    let mut progress = say::Progress::new();
    let mut ended = None;
    let exit = guest.run(&job, trial.deadlines(Accel::Tcg.slowdown()), |value| -> Result<()> {
        if let Some(sign) = value.get("progress") {
            progress.update(|| format!("{program:?}: {sign}"));
            return Ok(());
        }
        match program {
            Program::C => ended = Some(Yardstick::parse(&value)?),
            Program::Rust => match Report::deserialize(&value)? {
                Report::Look(_) | Report::Progress { .. } => {}
                Report::Outcome(outcome) => {
                    ended = Some(Yardstick {
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
    ensure!(exit == Exit::Code(0), "{program:?}: the program ended with {exit:?}");
    let ended = ended.with_context(|| format!("{program:?}: the program reported no outcome"))?;
    creation(&ended, threads_max).with_context(|| format!("{program:?} at {threads_max}"))
}

/// What a program that was ended by kernel.threads-max measured.
fn creation(ended: &Yardstick, threads_max: u64) -> Result<Creation> {
    let Yardstick { threads, elapsed_ns, failed_call, errno } = ended;
    let least = threads_max * SIZE_LEAST_PERCENT / 100;
    if failed_call != "pthread_create" || *errno != libc::EAGAIN || *elapsed_ns == 0 {
        bail!("not the limit ended it, but {failed_call}, errno {errno}, after {threads} threads");
    }
    ensure!(
        (least..=threads_max).contains(threads),
        "{threads} threads came, not {least} to {threads_max}"
    );
    Ok(Creation { threads: *threads, elapsed_s: *elapsed_ns as f64 / 1e9 })
}

fn settle(guest: &mut Guest) -> Result<()> {
    let job = Job { argv: ["sh", "-c", SETTLE].map(str::to_string).to_vec(), ..Job::default() };
    let limits = Limits::fixed(SETTLE_LIMIT, Accel::Tcg.slowdown());
    let exit = guest.run(&job, limits, |_| Ok::<_, anyhow::Error>(()))?;
    ensure!(exit == Exit::Code(0), "waiting for the threads of the job before: {exit:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_has_each_program_at_each_size_and_first_once() {
        for round in 1..=2 {
            let order = order(round);
            for program in [Program::Rust, Program::C] {
                for size in 0..SIZES.len() {
                    assert_eq!(order.iter().filter(|&&job| job == (program, size)).count(), 1);
                }
            }
            assert_ne!(order[0].0, order[2].0);
            assert!(order[0].1 == order[1].1, "a pair runs together");
        }
        assert_ne!(order(1)[0].0, order(2)[0].0);
    }

    #[test]
    fn only_the_limit_may_end_it() {
        let ended = |threads, failed_call: &str, errno| Yardstick {
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
    fn the_job_is_the_experiments_own() {
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
        assert!(MOUNT.starts_with(TAG) && MOUNT.contains(YARDSTICK_IN_GUEST));
    }
}
