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
use nlrig_guest::hunt::{Count, HuntReport, Setup};
use nlrig_guest::protocol::{Exit, Job, Rlimit};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::threads::{BY_RLIMIT_MIN_BYTES, NOFILE, STACKS};
use super::{Experiment, Judgement, Nothing, Observed, Selection, Trial, TrialResult, workload};
use crate::abi::Abi;
use crate::guest::Limits;
use crate::limits::Limit;
use crate::report::{Published, PublishedThreads, Section};
use crate::ui::truncate;
use crate::units::{show_size, size};
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
/// One candidate of each kind, which is enough for every change. The others take
/// minutes in all, or have a kernel of their own.
const QUICK: [&str; 4] = ["baseline", "malloc-64K", "top-down-only", "nproc-1451"];

/// The set-up of a trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HuntParams {
    /// What the program sets for itself.
    #[serde(flatten)]
    setup: Setup,
    /// The name of the candidate.
    candidate: String,
    /// How often each stack size is counted.
    starts: u64,
    cpus: u32,
    memory_bytes: u64,
    stacks_bytes: Vec<u64>,
    /// What the set-up is emulated by, if it is not the real one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    emulated: Option<String>,
}

/// A stack size in bytes; `2M` in reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct StackSize(u64);

impl From<StackSize> for String {
    fn from(stack: StackSize) -> String {
        show_size(stack.0)
    }
}

impl TryFrom<String> for StackSize {
    type Error = String;

    fn try_from(name: String) -> Result<StackSize, String> {
        size(&name).map(StackSize)
    }
}

type BySize<T> = BTreeMap<StackSize, T>;

/// What was counted, by stack size: the median, the spread, and the last count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HuntCounts {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    threads: BySize<u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    threads_least: BySize<u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    threads_most: BySize<u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    sockets: BySize<u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    echoes: BySize<u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    binding_limit: BySize<Limit>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    failed_call: BySize<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    errno: BySize<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    mapped_bytes: BySize<u64>,
    /// What is mapped beside the stacks.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    other_bytes: BySize<u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    largest_hole_bytes: BySize<u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    hole_above_bytes: BySize<u64>,
}

impl Experiment for Hunt {
    type Params = HuntParams;
    type Prediction = Nothing;
    type Measured = HuntCounts;

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

    fn plan(&self, selection: &Selection) -> Result<Vec<Trial<HuntParams>>> {
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

    fn evaluate(
        &self,
        trial: &Trial<HuntParams>,
        observed: &Observed<Nothing>,
    ) -> Judgement<HuntCounts> {
        evaluate(&trial.params, observed)
            .unwrap_or_else(|err| Judgement::fail(None, format!("{err:#}")))
    }

    fn sections(&self, trials: &[&TrialResult<'_, Self>]) -> Vec<Section> {
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

fn trial(
    selection: &Selection,
    candidate: &Candidate,
    stacks: &[u64],
    starts: u64,
) -> Trial<HuntParams> {
    let Candidate { name, setup, abi, machine, .. } = candidate;
    let mut argv = vec![workload("hunt"), starts.to_string(), json!(setup).to_string()];
    argv.extend(stacks.iter().map(u64::to_string));
    let mut rlimits = vec![Rlimit { name: "nofile".into(), value: Some(NOFILE) }];
    rlimits.extend(selection.rlimits.iter().cloned());
    let params = HuntParams {
        setup: *setup,
        candidate: (*name).to_string(),
        starts,
        cpus: machine.cpus.or(selection.cpus).unwrap_or(CPUS),
        memory_bytes: machine.memory_bytes.or(selection.memory_bytes).unwrap_or(MEMORY_BYTES),
        stacks_bytes: stacks.to_vec(),
        emulated: match candidate.how {
            Fidelity::Real => None,
            Fidelity::Emulated(how) => Some(how.to_string()),
        },
    };
    let job = Job {
        argv,
        user: machine.user.or(selection.user),
        sysctls: selection.sysctls.clone(),
        rlimits,
        ..Job::default()
    };
    let (cpus, memory_bytes) = (params.cpus, params.memory_bytes);
    Trial::new(format!("hunt-1449/{abi}/{}/{name}", selection.kernel), *abi, job)
        .params(params)
        .limits(LIMITS)
        .select(selection)
        // A candidate's own machine is part of it.
        .cpus(cpus)
        .memory(memory_bytes)
        // What a candidate sets is its own process's, and gone with it.
        .alone_if(!machine.is_common())
        .long_if(!QUICK.contains(name))
        .flavour(machine.flavour)
        .published(vec![paper()])
}

/// The paper's count.
fn paper() -> Published {
    Published {
        source: "xiong2017".to_string(),
        threads: PublishedThreads::ByStack([(show_size(fit::PAPER_STACK), fit::PAPER)].into()),
        as_printed: None,
    }
}

fn evaluate(params: &HuntParams, observed: &Observed<Nothing>) -> Result<Judgement<HuntCounts>> {
    let mut counts: BTreeMap<u64, Vec<Count>> =
        params.stacks_bytes.iter().map(|&stack| (stack, Vec::new())).collect();
    for data in &observed.data {
        let report = HuntReport::deserialize(data);
        match report.context("the workload's report cannot be understood")? {
            HuntReport::Count(count) => counts
                .get_mut(&count.stack_bytes)
                .ok_or_else(|| anyhow!("a stack of {} was not asked for", count.stack_bytes))?
                .push(count),
            HuntReport::Progress { .. } => {}
        }
    }
    let wrong = match &observed.exit {
        Exit::Code(0) => check(params, &counts).err().map(|err| format!("{err:#}")),
        exit => Some(format!("the workload ended with {exit:?}")),
    };
    Ok(Judgement::by(HuntCounts::of(params, &counts), wrong))
}

/// Checks that every stack size was counted as often as it should be, and that each
/// count ended for a reason that leaves no doubt.
fn check(params: &HuntParams, counts: &BTreeMap<u64, Vec<Count>>) -> Result<()> {
    let starts = params.starts;
    for (&stack, of_size) in counts {
        let size = show_size(stack);
        ensure!(of_size.len() as u64 == starts, "{} of {starts} counts at {size}", of_size.len());
        for count in of_size {
            let Count { threads, sockets, echoes, failed, .. } = count;
            if sockets != threads || echoes != threads {
                bail!(
                    "{size}: {threads} threads have {sockets} sockets and {echoes} echoes; each \
                     should have one of both"
                );
            }
            if bound(params, count) == Limit::None {
                bail!("{size}: {} failed with {}, nobody knows why", failed.call, failed.name);
            }
        }
    }
    Ok(())
}

/// The limit that ended a count.
fn bound(params: &HuntParams, count: &Count) -> Limit {
    // This program, and the one that has started it.
    const OWN_TASKS: u64 = 2;
    let tasks = count.threads.saturating_add(OWN_TASKS);
    let as_bytes = params.setup.address_space_bytes;
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

impl HuntCounts {
    fn of(params: &HuntParams, counts: &BTreeMap<u64, Vec<Count>>) -> HuntCounts {
        let mut all = HuntCounts::default();
        for (&stack, counts) in counts {
            let mut threads: Vec<_> = counts.iter().map(|count| count.threads).collect();
            threads.sort_unstable();
            let (Some(&least), Some(&most), Some(last)) =
                (threads.first(), threads.last(), counts.last())
            else {
                continue;
            };
            let size = StackSize(stack);
            let stacks_bytes = last.threads.saturating_mul(stack.saturating_add(PAGE_BYTES));
            all.threads.insert(size, threads[threads.len() / 2]);
            all.threads_least.insert(size, least);
            all.threads_most.insert(size, most);
            all.sockets.insert(size, last.sockets);
            all.echoes.insert(size, last.echoes);
            all.binding_limit.insert(size, bound(params, last));
            all.failed_call.insert(size, truncate(last.failed.call.clone()));
            all.errno.insert(size, truncate(last.failed.name.clone()));
            all.mapped_bytes.insert(size, last.mapped_bytes);
            all.other_bytes.insert(size, last.mapped_bytes.saturating_sub(stacks_bytes));
            all.largest_hole_bytes.insert(size, last.largest_hole_bytes);
            all.hole_above_bytes.insert(size, last.hole_above_bytes);
        }
        all
    }
}

#[cfg(test)]
mod tests;
