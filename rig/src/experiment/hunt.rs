//! The experiment `hunt-1449`: which set-up of 2016 gives the 1449 threads that a
//! paper prints for stacks of 2M, and what theory says for larger ones?
//!
//! Every kernel here gives 1527 to 1531. The candidates are data
//! ([`candidates`]); each is counted for every stack size, several times at 2M,
//! because addresses are random. A trial passes when it was counted cleanly; how
//! well it fits is shown, not judged ([`fit`]).

mod candidates;
mod fit;
mod table;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nlrig_guest::hunt::{Count, Report};
use nlrig_guest::protocol::{Exit, Job, Rlimit};
use serde_json::{Map, Value, json};

use super::threads::{BY_RLIMIT_MIN_BYTES, NOFILE, STACKS};
use super::{Experiment, Judgement, Observed, Selection, Trial, object, workload};
use crate::abi::Abi;
use crate::guest::Limits;
use crate::limits::Limit;
use crate::report::{Section, TrialReport};
use crate::say::brief;
use crate::units::show_size;
use crate::usage;
use candidates::{CANDIDATES, Candidate, Fidelity};

/// See the module's documentation.
pub struct Hunt;

const LIMITS: Limits = Limits::new(Duration::from_secs(20), Duration::from_secs(3 * 60));
/// How often each is counted: what is random about addresses moves a count by one
/// or two threads.
const STARTS: u64 = 3;
const STARTS_MAX: u64 = 20;
const CPUS: u32 = 2;
const MEMORY_BYTES: u64 = 1 << 30;
const PAGE_BYTES: u64 = 4096;

impl Experiment for Hunt {
    fn name(&self) -> &'static str {
        "hunt-1449"
    }

    fn summary(&self) -> &'static str {
        "which set-up of 2016 gives the 1449 threads that a paper prints for stacks of 2M, and fits it at 4M, 8M and 16M"
    }

    fn abis(&self) -> &'static [Abi] {
        &[Abi::I386, Abi::Ia32]
    }

    fn by_default(&self) -> bool {
        false
    }

    fn parameters(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("candidate", "only this one, as `list` shows them, or a family of them: malloc"),
            ("starts", "how often each stack size is counted (3)"),
        ]
    }

    fn cases(&self) -> Vec<(&'static str, &'static str)> {
        CANDIDATES.iter().map(|candidate| (candidate.name, candidate.stands_for)).collect()
    }

    fn plan(&self, selection: &Selection) -> Result<Vec<Trial>> {
        let starts = match selection.set.get("starts") {
            None => STARTS,
            Some(text) => {
                text.parse().ok().filter(|starts| (1..=STARTS_MAX).contains(starts)).ok_or_else(
                    || usage!("--set starts={text}: not a number from 1 to {STARTS_MAX}"),
                )?
            }
        };
        let stacks = stacks(selection)?;
        let only = selection.set.get("candidate");
        let mut known = named(only.map(String::as_str));
        if known.is_empty() {
            let only = only.map_or("", String::as_str);
            return Err(usage!("--set candidate={only}: there is none; `list` shows them"));
        }
        known.retain(|candidate| selection.abis.contains(&candidate.abi));
        // Those that share a guest have to be neighbours.
        known.sort_by_key(|candidate| (candidate.abi, !candidate.machine.is_common()));
        if known.is_empty() {
            return Err(usage!("--abi: the hunt is for 32-bit programs; give i386, ia32 or both"));
        }
        Ok(known
            .into_iter()
            .map(|candidate| trial(selection, candidate, &stacks, starts))
            .collect())
    }

    fn judge(&self, trial: &Trial, observed: &Observed) -> Judgement {
        match judge(trial, observed) {
            Ok(judgement) => judgement,
            Err(err) => Judgement::fail(None, format!("{err:#}")),
        }
    }

    fn sections(&self, trials: &[&TrialReport]) -> Vec<Section> {
        table::sections(trials)
    }
}

/// The candidate of this name, those whose names begin with it if there is none,
/// or all.
fn named(name: Option<&str>) -> Vec<&'static Candidate> {
    let Some(name) = name else { return CANDIDATES.iter().collect() };
    let of_family = |candidate: &&Candidate| {
        candidate.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'))
    };
    match CANDIDATES.iter().find(|candidate| candidate.name == name) {
        Some(candidate) => vec![candidate],
        None => CANDIDATES.iter().filter(of_family).collect(),
    }
}

/// The stack sizes asked for, each once; the paper's if none is.
fn stacks(selection: &Selection) -> Result<Vec<u64>> {
    let mut stacks = Vec::new();
    for &bytes in if selection.stacks.is_empty() { &STACKS[..] } else { &selection.stacks } {
        // A main thread cannot live on less, and half of what a program can
        // address leaves room for one.
        if !(BY_RLIMIT_MIN_BYTES..=1 << 30).contains(&bytes) || !bytes.is_multiple_of(PAGE_BYTES) {
            return Err(usage!("--stack {}: give pages, from 256K to 1G", show_size(bytes)));
        }
        if !stacks.contains(&bytes) {
            stacks.push(bytes);
        }
    }
    Ok(stacks)
}

fn trial(selection: &Selection, candidate: &Candidate, stacks: &[u64], starts: u64) -> Trial {
    let Candidate { name, setup, abi, machine, .. } = candidate;
    let setup = json!(setup);
    let mut argv = vec![workload("hunt"), starts.to_string(), setup.to_string()];
    argv.extend(stacks.iter().map(u64::to_string));
    let mut rlimits = vec![Rlimit { name: "nofile".into(), value: Some(NOFILE) }];
    rlimits.extend(selection.rlimits.iter().cloned());
    let cpus = machine.cpus.or(selection.cpus).unwrap_or(CPUS);
    let memory_bytes = machine.memory_bytes.or(selection.memory_bytes).unwrap_or(MEMORY_BYTES);
    let mut params = object(setup);
    params.insert("candidate".into(), json!(name));
    params.insert("starts".into(), json!(starts));
    params.insert("cpus".into(), json!(cpus));
    params.insert("memory_bytes".into(), json!(memory_bytes));
    params.insert("stacks_bytes".into(), json!(stacks));
    if let Fidelity::Emulated(how) = candidate.how {
        params.insert("emulated".into(), json!(how));
    }
    Trial {
        name: format!("hunt-1449/{abi}/{}/{name}", selection.kernel),
        abi: *abi,
        params,
        job: Job {
            argv,
            user: machine.user.or(selection.user),
            sysctls: selection.sysctls.clone(),
            rlimits,
            ..Job::default()
        },
        static_check: None,
        cpus,
        memory_bytes,
        limits: LIMITS,
        timeout: selection.timeout,
        // What a candidate sets is its own process's, and gone with it.
        alone: !machine.is_common(),
        boot: "",
        flavour: machine.flavour,
        fault: None,
        published: vec![json!({"source": "xiong2017", "threads": {"2M": fit::PAPER}})],
    }
}

fn judge(trial: &Trial, observed: &Observed) -> Result<Judgement> {
    let mut counts: BTreeMap<u64, Vec<Count>> =
        asked(trial).map(|stack| (stack, Vec::new())).collect();
    for data in &observed.data {
        let report = serde_json::from_value(data.clone());
        match report.context("the workload's report cannot be understood")? {
            Report::Count(count) => counts
                .get_mut(&count.stack_bytes)
                .ok_or_else(|| anyhow!("a stack of {} was not asked for", count.stack_bytes))?
                .push(count),
            Report::Progress { .. } => {}
        }
    }
    let measured = Some(measured(trial, &counts));
    if observed.exit != Exit::Code(0) {
        let reason = format!("the workload ended with {:?}", observed.exit);
        return Ok(Judgement::fail(measured, reason));
    }
    Ok(match clean(trial, &counts) {
        Ok(()) => Judgement::pass(measured),
        Err(err) => Judgement::fail(measured, format!("{err:#}")),
    })
}

/// The stack sizes that a trial is to count.
fn asked(trial: &Trial) -> impl Iterator<Item = u64> {
    let stacks = trial.params.get("stacks_bytes").and_then(Value::as_array);
    stacks.into_iter().flatten().filter_map(Value::as_u64)
}

/// Whether every stack size was counted as often as it should be, and each count
/// ended for a reason that leaves no doubt.
fn clean(trial: &Trial, counts: &BTreeMap<u64, Vec<Count>>) -> Result<()> {
    let starts = trial.params.get("starts").and_then(Value::as_u64).unwrap_or(0);
    for (&stack, of_size) in counts {
        let size = show_size(stack);
        ensure!(of_size.len() as u64 == starts, "{} of {starts} counts at {size}", of_size.len());
        for count in of_size {
            let Count { threads, sockets, echoes, failed, .. } = count;
            if sockets != threads || echoes != threads {
                bail!("{size}: {threads} threads, {sockets} sockets, {echoes} echoes");
            }
            let limit = bound(trial, count);
            if limit == Limit::None {
                bail!("{size}: {} failed with {}, nobody knows why", failed.call, failed.name);
            }
        }
    }
    Ok(())
}

/// What ended a count.
fn bound(trial: &Trial, count: &Count) -> Limit {
    // This program, and the one that has started it.
    const OWN_TASKS: u64 = 2;
    let tasks = count.threads.saturating_add(OWN_TASKS);
    let as_bytes = trial.params.get("address_space_bytes").and_then(Value::as_u64);
    let next_bytes = count.mapped_bytes.saturating_add(count.stack_bytes);
    match count.failed.call.as_str() {
        "pthread_create" if count.room && count.tasks >= count.threads_max => Limit::ThreadsMax,
        "pthread_create" if count.room && count.nproc.is_some_and(|most| tasks >= most) => {
            Limit::Nproc
        }
        "pthread_create" if count.room => Limit::None,
        "pthread_create" | "malloc" if as_bytes.is_some_and(|most| next_bytes >= most) => {
            Limit::RlimitAs
        }
        "pthread_create" | "malloc" => Limit::AddressSpace,
        _ => Limit::None,
    }
}

/// What was measured, by stack size: the middle count, and how they spread.
fn measured(trial: &Trial, counts: &BTreeMap<u64, Vec<Count>>) -> Map<String, Value> {
    let mut measured = Map::new();
    let mut note = |key: &str, stack: u64, value: Value| {
        let by_size = measured.entry(key).or_insert_with(|| json!({}));
        if let Some(by_size) = by_size.as_object_mut() {
            by_size.insert(show_size(stack), value);
        }
    };
    for (&stack, counts) in counts {
        let mut threads: Vec<_> = counts.iter().map(|count| count.threads).collect();
        threads.sort_unstable();
        let (Some(least), Some(most), Some(last)) =
            (threads.first(), threads.last(), counts.last())
        else {
            continue;
        };
        note("threads", stack, json!(threads[threads.len() / 2]));
        note("threads_least", stack, json!(least));
        note("threads_most", stack, json!(most));
        note("sockets", stack, json!(last.sockets));
        note("echoes", stack, json!(last.echoes));
        note("binding_limit", stack, json!(bound(trial, last).name()));
        note("failed_call", stack, json!(brief(last.failed.call.clone())));
        note("errno", stack, json!(brief(last.failed.name.clone())));
        note("mapped_bytes", stack, json!(last.mapped_bytes));
        let stacks_bytes = last.threads.saturating_mul(stack.saturating_add(PAGE_BYTES));
        note("other_bytes", stack, json!(last.mapped_bytes.saturating_sub(stacks_bytes)));
        note("largest_hole_bytes", stack, json!(last.largest_hole_bytes));
        note("hole_above_bytes", stack, json!(last.hole_above_bytes));
    }
    measured
}

#[cfg(test)]
mod tests;
