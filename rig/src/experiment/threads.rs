//! The experiment `threads`: how many threads, each with a bound netlink
//! socket, can one process hold, by stack size?
//!
//! The claim under test is Tables 3 and 4 of Xiong, Ding and Luo (2017): on 32
//! bits the count is the address space over the stack size, with 1449 at 2M; on
//! 64 bits it is close to 32768 for every stack size.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nlrig_guest::protocol::{Aslr, Exit, Job, MmapLayout, Rlimit};
use nlrig_guest::snapshot::{PROGRESS_EVERY, Snapshot, ThreadOutcome, ThreadReport};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Experiment, Judgement, Observed, OrderedMap, Selection, Trial, TrialResult, workload};
use crate::abi::{Abi, Arch};
use crate::guest::Limits;
use crate::limits::{Limit, Prediction, bound, predict};
use crate::report::{Published, Section};
use crate::units::show_size;
use crate::usage;

/// See the module's documentation.
pub struct Threads;

const LIMITS: Limits = Limits::new(Duration::from_secs(40), Duration::from_secs(15 * 60));
/// The stack sizes of the paper's tables.
pub(super) const STACKS: [u64; 4] = [2 << 20, 4 << 20, 8 << 20, 16 << 20];
/// A main thread cannot live on less; below this the size is set by attribute
/// and RLIMIT_STACK is left alone.
pub(super) const BY_RLIMIT_MIN_BYTES: u64 = 256 << 10;
/// pthread_attr_setstacksize refuses less (PTHREAD_STACK_MIN of glibc on x86).
const STACK_MIN_BYTES: u64 = 16 << 10;
/// As many descriptors as fs.nr_open allows: no socket is refused for want of
/// one.
pub(super) const NOFILE: u64 = 1 << 20;
/// Memory for 32 thousand threads at 36 to 45 KiB each, and enough for the
/// kernel's own threads-max (memory / 128 KiB) to lie above pid_max.
pub(super) const MEMORY_64_BYTES: u64 = 5 << 30;
/// Low memory is 896 MiB at most on i386.
const MEMORY_32_BYTES: u64 = 1 << 30;

/// A setting of the kernel's limits: what a table is about.
pub(super) struct Setting {
    name: &'static str,
    pub(super) sysctls: &'static [(&'static str, &'static str)],
    nofile: Option<u64>,
}

/// Nothing but the descriptors that the sockets need: on 32 bits the address
/// space binds, on 64 bits the kernel's own defaults do.
const NOFILE_RAISED: Setting =
    Setting { name: "nofile-raised", sysctls: &[], nofile: Some(NOFILE) };

/// threads-max binds, as the paper says it does.
pub(super) const THREADS_MAX: Setting = Setting {
    name: "threads-max",
    sysctls: &[
        ("kernel.threads-max", "32768"),
        ("kernel.pid_max", "131072"),
        ("vm.max_map_count", "1000000"),
    ],
    nofile: Some(NOFILE),
};

/// Nothing is set at all.
const DEFAULTS: Setting = Setting { name: "defaults", sysctls: &[], nofile: None };

/// What the tables of an ABI are about. The first is the paper's, and the one
/// that a user's own `--sysctl` and `--rlimit` are put on.
fn settings(abi: Abi) -> &'static [Setting] {
    match abi {
        Abi::I386 | Abi::Ia32 => &[NOFILE_RAISED],
        Abi::X86_64 => &[THREADS_MAX, DEFAULTS, NOFILE_RAISED],
    }
}

/// The stack size and the limits of a trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThreadParams {
    pub(super) stack_bytes: u64,
    /// The name of the table that the trial belongs to; `own` if the user sets
    /// limits.
    setting: String,
    sysctl: OrderedMap<String>,
    /// Resource limits; none is unlimited.
    rlimit: OrderedMap<Option<u64>>,
    /// Whether no thread is created.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    predict_only: bool,
    #[serde(default)]
    aslr: Aslr,
    #[serde(default)]
    layout: MmapLayout,
}

/// How many threads a process could hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThreadCount {
    /// Workers alive at once, the main thread not among them.
    threads: u64,
    /// Workers that hold a bound socket.
    sockets: u64,
    /// Workers that got their own echo.
    echoes: u64,
    /// The limit that stopped them.
    binding_limit: Limit,
    #[serde(flatten)]
    end: CountEnd,
}

/// How a count ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum CountEnd {
    /// A call failed.
    Refused(Refusal),
    /// The kernel killed the program for its memory.
    Killed {
        /// The kernel's message.
        killed: String,
        /// The threads that may have been alive: the last progress report is all
        /// that is known.
        threads_at_most: u64,
    },
}

/// The call that failed, and the process and its system at that moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Refusal {
    failed_call: String,
    errno: String,
    threads_per_s: f64,
    elapsed_s: f64,
    tasks: u64,
    map_areas: u64,
    mapped_bytes: u64,
    open_files: u64,
    pid_room: u64,
    memory_available_bytes: u64,
    threads_max: u64,
}

impl ThreadCount {
    fn of(outcome: &ThreadOutcome, binding_limit: Limit, threads_max: u64) -> ThreadCount {
        let seconds = outcome.elapsed_ns as f64 / 1e9;
        let rate = if seconds > 0.0 { (outcome.threads as f64 / seconds).round() } else { 0.0 };
        ThreadCount {
            threads: outcome.threads,
            sockets: outcome.sockets,
            echoes: outcome.echoes,
            binding_limit,
            end: CountEnd::Refused(Refusal {
                failed_call: outcome.failed.call.clone(),
                errno: outcome.failed.name.clone(),
                threads_per_s: rate,
                elapsed_s: (seconds * 1000.0).round() / 1000.0,
                tasks: outcome.tasks,
                map_areas: outcome.map_areas,
                mapped_bytes: outcome.mapped_bytes,
                open_files: outcome.open_files,
                pid_room: outcome.pid_room,
                memory_available_bytes: outcome.memory_available_bytes,
                threads_max,
            }),
        }
    }

    fn refusal(&self) -> Option<&Refusal> {
        match &self.end {
            CountEnd::Refused(refusal) => Some(refusal),
            CountEnd::Killed { .. } => None,
        }
    }

    fn threads_at_most(&self) -> Option<u64> {
        match self.end {
            CountEnd::Refused(_) => None,
            CountEnd::Killed { threads_at_most, .. } => Some(threads_at_most),
        }
    }
}

impl Experiment for Threads {
    type Params = ThreadParams;
    type Prediction = Prediction;
    type Measured = ThreadCount;

    fn name(&self) -> &'static str {
        "threads"
    }

    fn summary(&self) -> &'static str {
        "how many threads with a bound netlink socket each a process can hold, by stack size, and what stops it"
    }

    fn parameters(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("predict_only", "true: look and predict, create no thread"),
            ("aslr", "off: the kernel places mappings at fixed addresses"),
            (
                "layout",
                "legacy: the kernel places mappings from the bottom up (ADDR_COMPAT_LAYOUT)",
            ),
        ]
    }

    fn plan(&self, selection: &Selection) -> Result<Vec<Trial<ThreadParams>>> {
        let legacy = selection.one_of("layout", ["default", "legacy"])? == "legacy";
        let layout = if legacy { MmapLayout::Legacy } else { MmapLayout::Default };
        let variant = Variant {
            predict_only: selection.one_of("predict_only", ["false", "true"])? == "true",
            aslr: if selection.one_of("aslr", ["on", "off"])? == "off" {
                Aslr::Off
            } else {
                Aslr::On
            },
            layout,
            own: !selection.sysctls.is_empty()
                || !selection.rlimits.is_empty()
                || selection.user.is_some()
                || layout == MmapLayout::Legacy,
        };
        let stacks = stacks(selection)?;
        if let Some(bytes) = selection.rlimits.iter().find_map(stack_limit)
            && bytes < BY_RLIMIT_MIN_BYTES
        {
            let (size, least) = (show_size(bytes), show_size(BY_RLIMIT_MIN_BYTES));
            return Err(usage!(
                "--rlimit stack={size}: the main thread needs at least {least}; --stack sets the \
                 stack size of the other threads"
            ));
        }
        let mut trials = Vec::new();
        for &abi in &selection.abis {
            let settings = if variant.own { &settings(abi)[..1] } else { settings(abi) };
            for setting in settings {
                trials.extend(
                    stacks.iter().map(|&stack| trial(selection, abi, setting, stack, &variant)),
                );
            }
        }
        Ok(trials)
    }

    fn predict(&self, trial: &Trial<ThreadParams>, so_far: &[Value]) -> Result<Option<Prediction>> {
        let Some(ThreadReport::Snapshot(look)) = so_far.first().map(report).transpose()? else {
            return Err(anyhow!("the first report is not a look"));
        };
        Ok(Some(predict(&look, trial.abi, trial.params.stack_bytes)?))
    }

    fn evaluate(
        &self,
        trial: &Trial<ThreadParams>,
        observed: &Observed<Prediction>,
    ) -> Judgement<ThreadCount> {
        evaluate(trial, observed).unwrap_or_else(|err| Judgement::fail(None, format!("{err:#}")))
    }

    fn sections(&self, trials: &[&TrialResult<'_, Self>]) -> Vec<Section> {
        table::sections(trials)
    }
}

/// What the user selects for all trials alike.
struct Variant {
    /// Look and predict only.
    predict_only: bool,
    /// Whether mappings go to random addresses.
    aslr: Aslr,
    /// Whether mappings are placed from the top down or from the bottom up.
    layout: MmapLayout,
    /// The user has set limits: the paper's numbers do not compare.
    own: bool,
}

fn is_stack(limit: &Rlimit) -> bool {
    limit.name == "stack"
}

/// The value of RLIMIT_STACK, if this is one and not unlimited.
fn stack_limit(limit: &Rlimit) -> Option<u64> {
    limit.value.filter(|_| is_stack(limit))
}

/// The stack sizes asked for, each once; the paper's if none is.
pub(super) fn stacks(selection: &Selection) -> Result<Vec<u64>> {
    if selection.stacks.is_empty() {
        return Ok(STACKS.to_vec());
    }
    let narrow = selection.abis.iter().any(|abi| abi.program() == Arch::I386);
    let mut stacks = Vec::new();
    for &bytes in &selection.stacks {
        let size = show_size(bytes);
        if narrow && bytes >> 32 != 0 {
            return Err(usage!("--stack {size}: it does not fit in 32 bits; give --abi x86_64"));
        }
        if bytes < STACK_MIN_BYTES {
            let least = show_size(STACK_MIN_BYTES);
            return Err(usage!("--stack {size}: glibc takes no less than {least}"));
        }
        if !bytes.is_multiple_of(4096) {
            return Err(usage!("--stack {size}: it is not a number of pages of 4096 bytes"));
        }
        if !stacks.contains(&bytes) {
            stacks.push(bytes);
        }
    }
    Ok(stacks)
}

fn trial(
    selection: &Selection,
    abi: Abi,
    setting: &Setting,
    stack: u64,
    variant: &Variant,
) -> Trial<ThreadParams> {
    let size = show_size(stack);
    let mut name = format!("threads/{abi}/{}/stack={size}", selection.kernel);
    // The first setting of an ABI is the paper's table and needs no name.
    if setting.name != settings(abi)[0].name {
        name.push_str(&format!("/{}", setting.name));
    }
    let mut argv = vec![workload("threads")];
    let mut rlimits = Vec::new();
    rlimits
        .extend(setting.nofile.map(|value| Rlimit { name: "nofile".into(), value: Some(value) }));
    // A limit of the user's own is for the layout: the size needs another way then.
    if stack < BY_RLIMIT_MIN_BYTES || selection.rlimits.iter().any(is_stack) {
        argv.extend(["--stack".to_string(), stack.to_string()]);
    } else {
        rlimits.push(Rlimit { name: "stack".into(), value: Some(stack) });
    }
    if variant.predict_only {
        argv.push("--look-only".to_string());
    }
    rlimits.extend(selection.rlimits.iter().cloned());
    let sysctls: Vec<(String, String)> = setting
        .sysctls
        .iter()
        .map(|&(name, value)| (name.to_string(), value.to_string()))
        .chain(selection.sysctls.iter().cloned())
        .collect();

    let params = ThreadParams {
        stack_bytes: stack,
        setting: if variant.own { "own" } else { setting.name }.to_string(),
        sysctl: sysctls.iter().cloned().collect(),
        rlimit: rlimits.iter().map(|limit| (limit.name.clone(), limit.value)).collect(),
        predict_only: variant.predict_only,
        aslr: variant.aslr,
        layout: variant.layout,
    };
    let job = Job {
        argv,
        user: selection.user,
        sysctls,
        rlimits,
        aslr: variant.aslr,
        mmap_layout: variant.layout,
        ..Job::default()
    };
    let memory = if abi == Abi::X86_64 { MEMORY_64_BYTES } else { MEMORY_32_BYTES };
    Trial::new(name, abi, job)
        .params(params)
        .memory(memory)
        .limits(LIMITS)
        // Kernel parameters stay set, and 30 thousand threads leave traces in a
        // kernel: its ids are used up, its memory is in other hands.
        .alone_if(abi == Abi::X86_64 || variant.own || selection.memory_bytes.is_some())
        // 30 thousand threads take half a minute under TCG; one such trial for each
        // setting is enough for every change.
        .long_if(setting.nofile.is_some() && abi == Abi::X86_64 && stack != STACKS[0])
        .published(if variant.own { Vec::new() } else { published(abi, setting, stack) })
        .select(selection)
}

/// What others have published of a cell.
fn published(abi: Abi, setting: &Setting, stack: u64) -> Vec<Published> {
    let paper = |threads, wording| Published::count("xiong2017", threads).as_printed(wording);
    match (abi, setting.name, stack >> 20) {
        (Abi::I386, _, 2) => vec![Published::count("xiong2017", 1449)],
        (Abi::I386, _, 8) => vec![
            paper(384, "as theory says"),
            Published::count("besthub.dev", 380).as_printed("about 380"),
        ],
        (Abi::I386, _, mib @ (4 | 16)) => vec![paper(3072 / mib, "as theory says")],
        (Abi::X86_64, "threads-max", 2 | 4 | 8 | 16) => vec![paper(32768, "close to 32768")],
        _ => Vec::new(),
    }
}

fn report(data: &Value) -> Result<ThreadReport> {
    ThreadReport::deserialize(data).context("the workload's report cannot be understood")
}

fn evaluate(
    trial: &Trial<ThreadParams>,
    observed: &Observed<Prediction>,
) -> Result<Judgement<ThreadCount>> {
    if let (Exit::Signal(libc::SIGKILL), Some(message)) = (&observed.exit, &observed.out_of_memory)
    {
        return Ok(killed(observed, message));
    }
    if observed.exit != Exit::Code(0) {
        return Ok(Judgement::fail(None, format!("the workload ended with {:?}", observed.exit)));
    }
    let mut look: Option<Snapshot> = None;
    let mut outcome: Option<ThreadOutcome> = None;
    for data in &observed.data {
        match report(data)? {
            ThreadReport::Snapshot(seen) => look = Some(seen),
            ThreadReport::Outcome(seen) => outcome = Some(seen),
            ThreadReport::Progress { .. } => {}
        }
    }
    let look = look.ok_or_else(|| anyhow!("the workload reported no look"))?;
    if trial.params.predict_only {
        return Ok(Judgement::pass(None));
    }
    let outcome = outcome.ok_or_else(|| anyhow!("the workload reported no outcome"))?;
    let limit = bound(&look, &outcome, trial.abi, trial.params.stack_bytes);
    let count = ThreadCount::of(&outcome, limit, look.sysctls.threads_max);
    let wrong = disagreement(&outcome, limit, observed.predicted.as_ref());
    Ok(Judgement::by(count, wrong))
}

/// The kernel ran out of memory and killed the program, which is how memory
/// binds where nothing refuses first.
fn killed(observed: &Observed<Prediction>, message: &str) -> Judgement<ThreadCount> {
    let threads = match observed.last_sign.as_ref().map(report) {
        Some(Ok(ThreadReport::Progress { threads })) => threads,
        // No progress report: fewer than PROGRESS_EVERY threads were alive.
        None => 0,
        Some(_) => return Judgement::fail(None, "the last progress report cannot be understood"),
    };
    // This many may have come after the last progress report.
    let at_most = threads.saturating_add(u64::from(PROGRESS_EVERY) - 1);
    let count = ThreadCount {
        threads,
        sockets: threads,
        echoes: threads,
        binding_limit: Limit::Memory,
        end: CountEnd::Killed { killed: message.to_string(), threads_at_most: at_most },
    };
    let wrong = match &observed.predicted {
        Some(predicted) if predicted.agrees(threads..=at_most, Limit::Memory) => None,
        Some(predicted) => {
            Some(format!("killed after {threads} threads ({message}); predicted {predicted}"))
        }
        None => Some(format!("killed after {threads} threads ({message})")),
    };
    Judgement::by(count, wrong)
}

/// Why measurement and prediction do not agree, if they do not.
fn disagreement(
    outcome: &ThreadOutcome,
    limit: Limit,
    predicted: Option<&Prediction>,
) -> Option<String> {
    let Some(predicted) = predicted else { return Some("no prediction was made".to_string()) };
    let ThreadOutcome { threads, sockets, echoes, failed, .. } = outcome;
    if sockets != threads || echoes != threads {
        return Some(format!(
            "{threads} threads, {sockets} sockets, {echoes} echoes: they should be equal"
        ));
    }
    (!predicted.agrees(*threads..=*threads, limit)).then(|| {
        format!(
            "{threads} threads, bound by {} ({} failed with {}); predicted {predicted}",
            limit.name(),
            failed.call,
            failed.name
        )
    })
}

mod table;

#[cfg(test)]
mod tests;
