//! The schedule of a run: trials that may share a boot stay together, and groups
//! of them run in parallel as far as the host has room for their VMs.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::Result;

use super::worker::{RunContext, Worker};
use super::{Planned, say_result};
use crate::artifact::Built;
use crate::experiment::AnyTrial;
use crate::interrupt;
use crate::report::TrialReport;

/// What is to be run.
pub struct Schedule<'a> {
    /// The trials, in the order in which they are reported.
    pub planned: &'a [Planned],
    /// What each of them boots.
    pub built: &'a [Built],
    /// How many machines at once, if that is asked for.
    pub max_parallel: Option<usize>,
    /// What is not begun by then is not run.
    pub deadline: Instant,
}

impl Schedule<'_> {
    /// Runs everything. Returns the reports so far, and the error that stopped the
    /// run, if any.
    pub fn run(&self, context: &RunContext) -> (Vec<TrialReport>, Result<()>) {
        let groups = groups(self.planned);
        let workers = match self.max_parallel.map_or_else(|| self.host_max_parallel(context), Ok) {
            Ok(most) => most.min(groups.len()).max(1),
            Err(err) => return (Vec::new(), Err(err)),
        };
        let slots: Vec<_> = self.planned.iter().map(|_| Mutex::new(None)).collect();
        let next = AtomicUsize::new(0);
        let done = AtomicUsize::new(0);
        let stopped = AtomicBool::new(false);
        let work = || -> Result<()> {
            let mut worker = Worker::new(context);
            while let Some(group) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
                for index in group.clone() {
                    if stopped.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                    interrupt::check()?;
                    let trial = self.trial(&mut worker, index, index + 1 < group.end)?;
                    let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                    say_result(&trial, done, self.planned.len());
                    if let Ok(mut slot) = slots[index].lock() {
                        *slot = Some(trial);
                    }
                }
            }
            Ok(())
        };
        let work = || work().inspect_err(|_| stopped.store(true, Ordering::Relaxed));
        let ended = if workers == 1 { work() } else { in_parallel(workers, work) };
        let found = slots.into_iter().filter_map(|slot| slot.into_inner().ok().flatten());
        (found.collect(), ended)
    }

    fn trial(&self, worker: &mut Worker<'_>, index: usize, keep: bool) -> Result<TrialReport> {
        let (planned, built) = (&self.planned[index], &self.built[index]);
        if Instant::now() > self.deadline {
            return worker.leave_out(planned, built, "the time of the whole run was up before it");
        }
        worker.trial(planned, built, keep)
    }

    /// The number of VMs of the smallest kind that the host has room for. Each waits
    /// for its room anyway.
    fn host_max_parallel(&self, context: &RunContext) -> Result<usize> {
        let mut most = 1;
        for (planned, built) in self.planned.iter().zip(self.built) {
            let AnyTrial { cpus, memory_bytes, .. } = planned.trial;
            most = most.max(context.lab.at_once(built, cpus, memory_bytes)?);
        }
        Ok(most)
    }
}

/// Does the same work in several threads and waits for all of them. Returns the
/// first error.
fn in_parallel(threads: usize, work: impl Fn() -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(&work)).collect();
        let joined = threads.into_iter().map(|thread| match thread.join() {
            Ok(ended) => ended,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.fold(Ok(()), Result::and)
    })
}

/// The trials that share a boot, as ranges: neighbours that may share one, together;
/// the others each alone.
pub fn groups(planned: &[Planned]) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    for (index, one) in planned.iter().enumerate() {
        match groups.last_mut() {
            Some(group) if planned[group.start].trial.shares_a_boot_with(&one.trial) => {
                group.end = index + 1;
            }
            _ => groups.push(index..index + 1),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::Abi;
    use crate::experiment::{self, Selection};
    use crate::run::plan;

    #[test]
    fn tables_of_32_bits_share_a_boot_and_smoke_does_not() {
        let tables = experiment::find(&["smoke", "threads"].map(str::to_string)).unwrap();
        let planned = plan(&tables, &Selection::new(&Abi::ALL, "6.1"), 1).unwrap();
        let groups = groups(&planned);
        assert_eq!(groups.iter().map(Range::len).sum::<usize>(), planned.len());
        for group in &groups {
            let name = planned[group.start].trial.name.as_str();
            let shared = name.starts_with("threads/i");
            assert_eq!(group.len(), if shared { 4 } else { 1 }, "{name}");
        }
    }

    #[test]
    fn what_sets_kernel_parameters_shares_with_nobody() {
        let threads = experiment::find(&["threads".to_string()]).unwrap();
        let mut selection = Selection::new(&[Abi::I386], "6.1");
        selection.sysctls = vec![("kernel.pid_max".to_string(), "2000".to_string())];
        let planned = plan(&threads, &selection, 1).unwrap();
        assert_eq!(groups(&planned).len(), planned.len());
    }
}
