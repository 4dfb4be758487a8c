//! Trials as tests: all trials of the default plans, and trials of `threads` for each
//! limit, address space layout and stack size.
//!
//! A test passes if the verdict is `pass` and the binding limit is the expected one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use nlrig::abi::Abi;
use nlrig::command;
use nlrig::experiment::{self, Selection};
use nlrig::options::GuestOptions;
use nlrig::report::{TrialReport, Verdict};
use nlrig::run::{self, Planned, Run, Worker};
use nlrig::ui;
use nlrig::units::show_size;
use nlrig_guest::protocol::Rlimit;

/// The number of run folders that are kept. With cargo-nextest each test is a run,
/// and the oldest one may still be active.
const RUNS_KEPT: usize = 1000;

/// The run that all tests of this process share, once the first has begun.
type Shared = Arc<Mutex<Option<Run>>>;

pub fn tests() -> Vec<Trial> {
    let shared = Shared::default();
    let selection = Selection::new(&Abi::ALL, &GuestOptions::default().kernel);
    let planned = run::plan(experiment::ALL, &selection, 1).expect("the default plans are sound");
    let mut tests = Vec::new();
    for group in run::groups(&planned) {
        tests.extend(group_tests(&planned[group], &shared));
    }
    for abi in Abi::ALL {
        for (limit, set) in LOW {
            tests.push(test(with_low(abi, limit, set), Some(limit), false, &shared));
        }
        for (layout, set) in LAYOUTS {
            let (few, many) = with_layout(abi, layout, set);
            // Fixed addresses differ from random ones in a constant only.
            let long = layout.starts_with("fixed");
            tests.push(test(few, Some("address-space"), long, &shared));
            tests.extend(many.into_iter().map(|planned| test(planned, None, true, &shared)));
        }
        for stack in STACKS {
            // A 32-bit program has ten thousand threads with small stacks. By default
            // only the smallest of these sizes runs.
            let long = abi != Abi::X86_64 && (32 << 10..512 << 10).contains(&stack);
            tests.extend(with_stack(abi, stack).map(|planned| test(planned, None, long, &shared)));
        }
    }
    tests
}

/// The tests of trials that may share a boot: one for those that are quick, and one,
/// ignored by default, for those that take long.
fn group_tests(group: &[Planned], shared: &Shared) -> Vec<Trial> {
    if let [alone] = group {
        return vec![test(alone.clone(), None, alone.trial.long, shared)];
    }
    let (long, quick): (Vec<_>, Vec<_>) = group.iter().cloned().partition(|one| one.trial.long);
    [(quick, "shared", false), (long, "shared-long", true)]
        .into_iter()
        .filter_map(|(trials, name, long)| {
            let first = trials.first()?;
            let name = format!("{}/{}/{name}", first.experiment.name(), first.trial.abi);
            Some(captured(name, move || in_one_boot(&trials)).with_ignored_flag(long))
        })
        .collect()
}

/// A limit, and a function that sets it low enough to bind first.
type Low = (&'static str, fn(&mut Selection));

const LOW: [Low; 8] = [
    ("threads-max", |selection| selection.sysctls = sysctl("kernel.threads-max", "500")),
    ("pid-max", |selection| selection.sysctls = sysctl("kernel.pid_max", "1000")),
    ("max-map-count", |selection| selection.sysctls = sysctl("vm.max_map_count", "400")),
    ("nofile", |selection| selection.rlimits = rlimit("nofile", 64)),
    ("rlimit-as", |selection| selection.rlimits = rlimit("as", 256 << 20)),
    ("rlimit-data", |selection| selection.rlimits = rlimit("data", 200 << 20)),
    ("memory", |selection| {
        selection.sysctls = sysctl("kernel.threads-max", "30000");
        selection.memory_bytes = Some(128 << 20);
        // Small stacks, so that the 32-bit address space does not bind first.
        selection.stacks = vec![64 << 10];
    }),
    ("nproc", |selection| {
        selection.rlimits = rlimit("nproc", 100);
        selection.user = Some(1000);
    }),
];

/// A layout of the address space other than the default, and a function that selects
/// it.
type LayoutCase = (&'static str, fn(&mut Selection));

const LAYOUTS: [LayoutCase; 5] = [
    ("bottom-up-by-sysctl", |selection| {
        selection.sysctls.extend(sysctl("vm.legacy_va_layout", "1"))
    }),
    ("bottom-up-by-personality", |selection| set(selection, "layout", "legacy")),
    ("unlimited-stack", |selection| selection.rlimits.push(unlimited_stack())),
    ("fixed", |selection| set(selection, "aslr", "off")),
    ("fixed-unlimited-stack", |selection| {
        set(selection, "aslr", "off");
        selection.rlimits.push(unlimited_stack());
    }),
];

fn set(selection: &mut Selection, key: &str, value: &str) {
    selection.set.insert(key.to_string(), value.to_string());
}

fn unlimited_stack() -> Rlimit {
    Rlimit { name: "stack".to_string(), value: None }
}

/// The stack sizes: from the smallest that glibc accepts to one of which three fit into
/// 32 bits.
const STACKS: [u64; 17] = {
    let mut stacks = [16 << 10; 17];
    let mut index = 1;
    while index < stacks.len() {
        stacks[index] = 2 * stacks[index - 1];
        index += 1;
    }
    stacks
};

fn sysctl(name: &str, value: &str) -> Vec<(String, String)> {
    vec![(name.to_string(), value.to_string())]
}

fn rlimit(name: &str, value: u64) -> Vec<Rlimit> {
    vec![Rlimit { name: name.to_string(), value: Some(value) }]
}

fn with_low(abi: Abi, limit: &str, set: fn(&mut Selection)) -> Planned {
    let mut selection = Selection::new(&[abi], &GuestOptions::default().kernel);
    selection.stacks = vec![2 << 20];
    set(&mut selection);
    let mut planned = plan(&selection);
    planned.trial.name = format!("limits/{abi}/{limit}");
    planned
}

/// Returns the trial of a layout in which the address space binds, and trials of the
/// other stack sizes.
fn with_layout(abi: Abi, layout: &str, set: fn(&mut Selection)) -> (Planned, Vec<Planned>) {
    let trial = |stack: u64, binds: bool| {
        let mut selection = Selection::new(&[abi], &GuestOptions::default().kernel);
        selection.stacks = vec![stack];
        if binds {
            // Without overcommit the kernel rejects a stack larger than all memory.
            selection.sysctls = sysctl("vm.overcommit_memory", "1");
        } else if abi == Abi::X86_64 {
            // No size binds there: a few threads show that all can be had.
            selection.sysctls = sysctl("kernel.threads-max", "1000");
        }
        set(&mut selection);
        let mut planned = plan(&selection);
        planned.trial.name = format!("layouts/{abi}/{layout}/{}", show_size(stack));
        planned
    };
    let binding = if abi == Abi::X86_64 { 1 << 40 } else { 2 << 20 };
    let all = [64 << 10, 256 << 10, 2 << 20, 8 << 20, 64 << 20, 1 << 30];
    let many = all.into_iter().filter(|&stack| stack != binding);
    (trial(binding, true), many.map(|stack| trial(stack, false)).collect())
}

/// Returns the trial of a stack size, unless it is in the default plan.
fn with_stack(abi: Abi, stack: u64) -> Option<Planned> {
    let mut selection = Selection::new(&[abi], &GuestOptions::default().kernel);
    if abi == Abi::X86_64 {
        // No size binds there: a few threads show that all can be had.
        selection.sysctls = sysctl("kernel.threads-max", "1000");
    } else if (2 << 20..=16 << 20).contains(&stack) {
        return None;
    }
    selection.stacks = vec![stack];
    let mut planned = plan(&selection);
    planned.trial.name = format!("stacks/{abi}/{}", show_size(stack));
    Some(planned)
}

/// Returns the first trial of `threads` in the selection.
fn plan(selection: &Selection) -> Planned {
    let threads = experiment::find(&["threads".to_string()]).expect("there is such an experiment");
    run::plan(&threads, selection, 1).expect("the plan is sound").remove(0)
}

fn test(planned: Planned, limit: Option<&'static str>, long: bool, shared: &Shared) -> Trial {
    let name = planned.trial.name.clone();
    let shared = shared.clone();
    captured(name, move || judge(&planned, limit, &shared)).with_ignored_flag(long)
}

/// Makes a test that prints its messages only if it fails.
fn captured(name: String, body: impl FnOnce() -> anyhow::Result<()> + Send + 'static) -> Trial {
    Trial::test(name, move || {
        let capture = ui::Capture::start();
        body().map_err(|err| Failed::from(format!("{err:#}\n{}", capture.end())))
    })
}

fn judge(planned: &Planned, limit: Option<&str>, shared: &Shared) -> anyhow::Result<()> {
    // One test builds at a time; the trials wait only for memory and cores.
    let (context, built) = {
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let run = match &mut *shared {
            Some(run) => run,
            None => shared.insert(begin()?),
        };
        (run.context.clone(), run.built(&planned.trial)?)
    };
    let trial = Worker::new(&context).trial(planned, &built, false)?;
    check(&trial, &context.folder(&planned.trial))?;
    let bound =
        trial.measured.as_ref().and_then(|measured| measured.get("binding_limit")?.as_str());
    anyhow::ensure!(
        limit.is_none() || bound == limit,
        "the binding limit is {bound:?}, expected {limit:?}"
    );
    Ok(())
}

fn check(trial: &TrialReport, folder: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(
        trial.verdict == Verdict::Pass,
        "{}: {}; see {}",
        trial.verdict.name(),
        trial.reason.as_deref().unwrap_or("no reason"),
        folder.display()
    );
    Ok(())
}

/// Runs trials that can share a VM, and asserts that they did.
fn in_one_boot(planned: &[Planned]) -> anyhow::Result<()> {
    let mut run = begin()?;
    run.all(planned, None, Duration::from_secs(1800))?;
    let context = run.context.clone();
    let (report, _) = run.finish(experiment::ALL)?;
    let mut wrong = Vec::new();
    for (trial, planned) in report.trials.iter().zip(planned) {
        if let Err(err) = check(trial, &context.folder(&planned.trial)) {
            wrong.push(format!("{}: {err:#}", trial.name));
        } else if trial.vm != "vm-1" && wrong.is_empty() {
            wrong.push(format!("{} ran in {}", trial.name, trial.vm));
        }
    }
    anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    anyhow::ensure!(report.trials.len() == planned.len(), "{} trials ran", report.trials.len());
    Ok(())
}

fn begin() -> anyhow::Result<Run> {
    let options = GuestOptions::default();
    let (context, launcher) = command::prepare_with_rig_module(&options)?;
    let results = Path::new(env!("CARGO_TARGET_TMPDIR")).join("vm");
    run::forget_old(&results, RUNS_KEPT);
    Run::begin(context, launcher, BTreeMap::new(), &options.flavour, &results)
}
