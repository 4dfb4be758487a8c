//! The experiment `threads`: how many threads, each with a bound netlink
//! socket, can one process hold, by stack size?
//!
//! The claim under test is Tables 3 and 4 of Xiong, Ding and Luo (2017): on 32
//! bits the count is the address space over the stack size, with 1449 at 2M; on
//! 64 bits it is close to 32768 for every stack size.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nlrig_guest::look::{Look, Outcome, PROGRESS_EVERY, Report};
use nlrig_guest::protocol::{Aslr, Exit, Job, MmapLayout, Rlimit};
use serde_json::{Map, Value, json};

use super::{Experiment, Judgement, Observed, Selection, Trial, object, one_of, workload};
use crate::abi::{Abi, Arch};
use crate::guest::Limits;
use crate::limits::{Limit, Prediction, bound, predict};
use crate::report::{Section, TrialReport};
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

impl Experiment for Threads {
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

    fn plan(&self, selection: &Selection) -> Result<Vec<Trial>> {
        let legacy = one_of(selection, "layout", ["default", "legacy"])? == "legacy";
        let layout = if legacy { MmapLayout::Legacy } else { MmapLayout::Default };
        let variant = Variant {
            predict_only: one_of(selection, "predict_only", ["false", "true"])? == "true",
            aslr: if one_of(selection, "aslr", ["on", "off"])? == "off" {
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

    fn predict(&self, trial: &Trial, so_far: &[Value]) -> Result<Option<Map<String, Value>>> {
        let Some(Report::Look(look)) = so_far.first().map(report).transpose()? else {
            return Err(anyhow!("the first report is not a look"));
        };
        let prediction = predict(&look, trial.abi, stack_bytes(trial))?;
        Ok(Some(object(serde_json::to_value(prediction)?)))
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

/// What the user asked of all trials alike.
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
) -> Trial {
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

    let mut params = Map::new();
    params.insert("stack_bytes".into(), json!(stack));
    params.insert("setting".into(), json!(if variant.own { "own" } else { setting.name }));
    let by_name: Map<_, _> =
        sysctls.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    params.insert("sysctl".into(), Value::Object(by_name));
    let by_name: Map<_, _> =
        rlimits.iter().map(|limit| (limit.name.clone(), json!(limit.value))).collect();
    params.insert("rlimit".into(), Value::Object(by_name));
    if variant.predict_only {
        params.insert("predict_only".into(), json!(true));
    }
    params.insert("aslr".into(), json!(variant.aslr));
    params.insert("layout".into(), json!(variant.layout));
    let memory = if abi == Abi::X86_64 { MEMORY_64_BYTES } else { MEMORY_32_BYTES };
    Trial {
        name,
        abi,
        params,
        job: Job {
            argv,
            user: selection.user,
            sysctls,
            rlimits,
            aslr: variant.aslr,
            mmap_layout: variant.layout,
            ..Job::default()
        },
        static_check: None,
        cpus: selection.cpus.unwrap_or(2),
        memory_bytes: selection.memory_bytes.unwrap_or(memory),
        limits: LIMITS,
        timeout: selection.timeout,
        // Kernel parameters stay set, and 30 thousand threads leave traces in a
        // kernel: its ids are used up, its memory is in other hands.
        alone: abi == Abi::X86_64 || variant.own || selection.memory_bytes.is_some(),
        boot: "",
        flavour: None,
        fault: None,
        published: if variant.own { Vec::new() } else { published(abi, setting, stack) },
    }
}

/// What others have published of a cell.
fn published(abi: Abi, setting: &Setting, stack: u64) -> Vec<Value> {
    match (abi, setting.name, stack >> 20) {
        (Abi::I386, _, 2) => vec![json!({"source": "xiong2017", "threads": 1449})],
        (Abi::I386, _, 8) => vec![
            json!({"source": "xiong2017", "threads": 384, "as_printed": "as theory says"}),
            json!({"source": "besthub.dev", "threads": 380, "as_printed": "about 380"}),
        ],
        (Abi::I386, _, mib @ (4 | 16)) => {
            let threads = 3072 / mib;
            vec![json!({"source": "xiong2017", "threads": threads, "as_printed": "as theory says"})]
        }
        (Abi::X86_64, "threads-max", 2 | 4 | 8 | 16) => {
            vec![json!({"source": "xiong2017", "threads": 32768, "as_printed": "close to 32768"})]
        }
        _ => Vec::new(),
    }
}

fn report(data: &Value) -> Result<Report> {
    serde_json::from_value(data.clone()).context("the workload's report cannot be understood")
}

fn stack_bytes(trial: &Trial) -> u64 {
    trial.params.get("stack_bytes").and_then(Value::as_u64).unwrap_or(0)
}

fn judge(trial: &Trial, observed: &Observed) -> Result<Judgement> {
    if let (Exit::Signal(libc::SIGKILL), Some(words)) = (&observed.exit, &observed.out_of_memory) {
        return Ok(killed(observed, words));
    }
    if observed.exit != Exit::Code(0) {
        return Ok(Judgement::fail(None, format!("the workload ended with {:?}", observed.exit)));
    }
    let mut look: Option<Look> = None;
    let mut outcome: Option<Outcome> = None;
    for data in &observed.data {
        match report(data)? {
            Report::Look(seen) => look = Some(seen),
            Report::Outcome(seen) => outcome = Some(seen),
            Report::Progress { .. } => {}
        }
    }
    let look = look.ok_or_else(|| anyhow!("the workload reported no look"))?;
    if trial.params.contains_key("predict_only") {
        return Ok(Judgement::pass(None));
    }
    let outcome = outcome.ok_or_else(|| anyhow!("the workload reported no outcome"))?;
    let limit = bound(&look, &outcome, trial.abi, stack_bytes(trial));
    let mut measured = measured(&outcome, limit.name());
    measured.insert("threads_max".to_string(), json!(look.sysctls.threads_max));
    Ok(match disagreement(&outcome, limit, prediction(observed).as_ref()) {
        None => Judgement::pass(Some(measured)),
        Some(reason) => Judgement::fail(Some(measured), reason),
    })
}

fn prediction(observed: &Observed) -> Option<Prediction> {
    serde_json::from_value(Value::Object(observed.predicted.clone()?)).ok()
}

/// The kernel ran out of memory and killed the program, which is how memory
/// binds where nothing refuses first.
fn killed(observed: &Observed, words: &str) -> Judgement {
    let seen = || observed.last_sign.as_ref()?.get("progress")?.get("threads")?.as_u64();
    let threads: u64 = seen().unwrap_or(0);
    // So many may have come after the last sign.
    let at_most = threads.saturating_add(u64::from(PROGRESS_EVERY) - 1);
    let measured = Some(object(json!({
        "threads": threads,
        "sockets": threads,
        "echoes": threads,
        "binding_limit": Limit::Memory.name(),
        "killed": words,
        "threads_at_most": at_most,
    })));
    match prediction(observed) {
        Some(prediction) if prediction.agrees(threads..=at_most, Limit::Memory) => {
            Judgement::pass(measured)
        }
        Some(prediction) => Judgement::fail(
            measured,
            format!("killed after {threads} threads ({words}); predicted {prediction}"),
        ),
        None => Judgement::fail(measured, format!("killed after {threads} threads ({words})")),
    }
}

fn measured(outcome: &Outcome, limit: &str) -> Map<String, Value> {
    let seconds = outcome.elapsed_ns as f64 / 1e9;
    let rate = if seconds > 0.0 { (outcome.threads as f64 / seconds).round() } else { 0.0 };
    object(json!({
        "threads": outcome.threads,
        "sockets": outcome.sockets,
        "echoes": outcome.echoes,
        "binding_limit": limit,
        "failed_call": outcome.failed.call,
        "errno": outcome.failed.name,
        "threads_per_s": rate,
        "elapsed_s": (seconds * 1000.0).round() / 1000.0,
        "tasks": outcome.tasks,
        "map_areas": outcome.map_areas,
        "mapped_bytes": outcome.mapped_bytes,
        "open_files": outcome.open_files,
        "pid_room": outcome.pid_room,
        "memory_available_bytes": outcome.memory_available_bytes,
    }))
}

/// Why measurement and prediction do not agree, if they do not.
fn disagreement(outcome: &Outcome, limit: Limit, predicted: Option<&Prediction>) -> Option<String> {
    let Some(predicted) = predicted else { return Some("no prediction was made".to_string()) };
    let Outcome { threads, sockets, echoes, failed, .. } = outcome;
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
