//! The tables of `threads`, and what each says in plain words.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::{ThreadCount, Threads};
use crate::abi::Abi;
use crate::experiment::TrialResult;
use crate::limits::{Direction, Limit, Prediction};
use crate::report::{PublishedThreads, Section};
use crate::units::show_size;

type Counted<'a> = TrialResult<'a, Threads>;

const COLUMNS: [&str; 9] = [
    "stack",
    "theory",
    "published",
    "predicted",
    "measured",
    "difference",
    "what bound",
    "threads/s",
    "verdict",
];

/// A table for each ABI and setting that there are trials of, in their order.
pub fn sections(trials: &[&Counted<'_>]) -> Vec<Section> {
    let mut groups: Vec<((Abi, String), Vec<&Counted<'_>>)> = Vec::new();
    for &trial in trials {
        let key = (trial.report.abi, trial.params.setting.clone());
        match groups.iter_mut().find(|(other, _)| *other == key) {
            Some((_, group)) => group.push(trial),
            None => groups.push((key, vec![trial])),
        }
    }
    let mut sections: Vec<_> =
        groups.iter().map(|((abi, setting), group)| section(*abi, setting, group)).collect();
    if groups.len() > 1 {
        sections.push(summary(&groups));
    }
    sections
}

/// How the predictions of all tables fared.
fn summary(groups: &[((Abi, String), Vec<&Counted<'_>>)]) -> Section {
    let row = |abi: String, setting: &str, trials: &[&Counted<'_>]| {
        let tally = Tally::of(trials);
        vec![
            abi,
            setting.to_string(),
            trials.len().to_string(),
            tally.exact.to_string(),
            tally.worst.map_or("-".to_string(), |difference| difference.to_string()),
            tally.bounds.to_string(),
            tally.within.to_string(),
        ]
    };
    let mut rows: Vec<_> =
        groups.iter().map(|((abi, setting), group)| row(abi.to_string(), setting, group)).collect();
    let all: Vec<_> = groups.iter().flat_map(|(_, group)| group.iter().copied()).collect();
    rows.push(row("all".to_string(), "", &all));
    Section {
        title: "Predictions against counts".to_string(),
        columns: ["ABI", "limits", "cells", "exact", "worst miss", "bounds", "within"]
            .map(str::to_string)
            .to_vec(),
        rows,
        words: format!(
            "{} A bound is predicted where memory may bind before any other limit.",
            counted(&all)
        ),
        ..Section::default()
    }
}

/// How the predictions of some trials fared.
struct Tally {
    /// Predictions to the last thread that were right.
    exact: usize,
    /// The largest difference among such predictions.
    worst: Option<u64>,
    /// Predictions that are a bound.
    bounds: usize,
    /// Those of them that held.
    within: usize,
}

impl Tally {
    fn of(trials: &[&Counted<'_>]) -> Tally {
        let (bounded, sharp): (Vec<&Counted<'_>>, Vec<&Counted<'_>>) = trials
            .iter()
            .partition(|trial| predicted(trial).is_some_and(|it| it.threads_at_least.is_some()));
        let differences: Vec<u64> = sharp
            .iter()
            .filter_map(|trial| {
                let measured = trial.measured.as_ref()?.threads;
                Some(measured.abs_diff(predicted(trial)?.threads))
            })
            .collect();
        Tally {
            exact: differences.iter().filter(|&&difference| difference == 0).count(),
            worst: differences.iter().copied().max(),
            bounds: bounded.len(),
            within: bounded.iter().filter(|trial| trial.report.verdict.is_well()).count(),
        }
    }
}

fn section(abi: Abi, setting: &str, trials: &[&Counted<'_>]) -> Section {
    Section {
        title: title(abi, setting),
        columns: COLUMNS.map(str::to_string).to_vec(),
        rows: trials.iter().map(|trial| row(abi, trial)).collect(),
        words: format!("{} {}", counted(trials), words(abi, setting, trials)),
        ..Section::default()
    }
}

fn title(abi: Abi, setting: &str) -> String {
    match (abi, setting) {
        (Abi::I386, "nofile-raised") => {
            "Table 3 again: a 32-bit program on a 32-bit kernel (i386)".to_string()
        }
        (Abi::Ia32, "nofile-raised") => {
            "The table nobody printed: a 32-bit program on a 64-bit kernel (ia32)".to_string()
        }
        (Abi::X86_64, "threads-max") => {
            "Table 4 again: a 64-bit program (x86_64), threads-max 32768, all else raised"
                .to_string()
        }
        (Abi::X86_64, "defaults") => "x86_64 with nothing set at all".to_string(),
        (Abi::X86_64, "nofile-raised") => {
            "x86_64 with the kernel's own sysctls and only RLIMIT_NOFILE raised".to_string()
        }
        (abi, _) => format!("{abi} with limits of your own"),
    }
}

fn row(abi: Abi, trial: &Counted<'_>) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or("-".to_string());
    let number = |number: Option<u64>| or_dash(number.map(|number| number.to_string()));
    let measured = trial.measured.as_ref();
    let threads = measured.map(|count| count.threads);
    let most = predicted(trial).map(|it| it.threads);
    let least = predicted(trial).and_then(|it| it.threads_at_least);
    let difference = threads.zip(most).filter(|_| least.is_none());
    let range = |least: Option<u64>, most: Option<u64>| match least {
        Some(least) => format!("{least} to {}", number(most)),
        None => number(most),
    };
    // A program that was killed could not be counted to the last thread.
    let at_most = measured.and_then(ThreadCount::threads_at_most);
    let rate = measured.and_then(ThreadCount::refusal).map(|refusal| refusal.threads_per_s);
    vec![
        show_size(trial.params.stack_bytes),
        number(theory(abi, trial)),
        published(trial),
        range(least, most),
        if at_most.is_some() { range(threads, at_most) } else { number(threads) },
        or_dash(difference.map(|(measured, predicted)| signed(measured, predicted))),
        binding_limit(trial).map_or("-", Limit::name).to_string(),
        or_dash(rate.map(|rate| format!("{rate:.0}"))),
        trial.report.verdict.name().to_string(),
    ]
}

/// By how much the first number is the larger one.
fn signed(measured: u64, predicted: u64) -> String {
    let difference = measured.abs_diff(predicted);
    let sign = match measured.cmp(&predicted) {
        Ordering::Less => "-",
        Ordering::Equal => "",
        Ordering::Greater => "+",
    };
    format!("{sign}{difference}")
}

fn predicted<'a>(trial: &'a Counted<'_>) -> Option<&'a Prediction> {
    trial.predicted.as_ref()
}

/// The paper's own arithmetic: the address space over the stack on 32 bits,
/// threads-max, as the guest has it, on 64.
fn theory(abi: Abi, trial: &Counted<'_>) -> Option<u64> {
    let space_bytes: u64 = match abi {
        Abi::I386 => 3072 << 20,
        Abi::Ia32 => 4096 << 20,
        Abi::X86_64 => {
            return Some(trial.measured.as_ref()?.refusal()?.threads_max);
        }
    };
    space_bytes.checked_div(trial.params.stack_bytes)
}

fn published(trial: &Counted<'_>) -> String {
    let of_stack = |numbers: &BTreeMap<String, u64>| {
        numbers.get(&show_size(trial.params.stack_bytes)).copied()
    };
    let all: Vec<_> = trial
        .report
        .published
        .iter()
        .filter_map(|one| {
            let number = match &one.threads {
                PublishedThreads::Count(number) => Some(*number),
                PublishedThreads::ByStack(numbers) => of_stack(numbers),
            };
            let number = number?.to_string();
            Some(match &one.as_printed {
                Some(wording) if wording.contains(&number) => wording.clone(),
                Some(wording) => format!("{number}, {wording}"),
                None => number,
            })
        })
        .collect();
    if all.is_empty() { "-".to_string() } else { all.join("; ") }
}

fn counted(trials: &[&Counted<'_>]) -> String {
    if trials.iter().all(|trial| trial.params.predict_only) {
        return "Predictions only: no thread was created.".to_string();
    }
    let tally = Tally::of(trials);
    let sharp = trials.len() - tally.bounds;
    let exact =
        (sharp > 0).then(|| format!("{} of {sharp} counts are exactly as predicted.", tally.exact));
    let within = (tally.bounds > 0).then(|| {
        format!(
            "Where memory may bind the prediction is a bound: {} of {} counts lie within.",
            tally.within, tally.bounds
        )
    });
    [exact, within].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// The explanation, if what it explains is what happened.
fn words(abi: Abi, setting: &str, trials: &[&Counted<'_>]) -> String {
    let expected = match (abi, setting) {
        (Abi::I386 | Abi::Ia32, "nofile-raised") => Limit::AddressSpace,
        (Abi::X86_64, "threads-max") => Limit::ThreadsMax,
        (Abi::X86_64, "defaults") => Limit::Nofile,
        (Abi::X86_64, "nofile-raised") => Limit::PidMax,
        _ => return layout_words(trials).unwrap_or_default(),
    };
    if trials.iter().all(|trial| binding_limit(trial) == Some(expected)) {
        explanation(abi, setting, trials)
    } else {
        "What bound is not the same for all, or not what this table is about: see the column \
         \"what bound\"; the model of each limit is in rig/src/limits.rs."
            .to_string()
    }
}

/// The layout of the address space, for the first of these trials that it binds.
fn layout_words(trials: &[&Counted<'_>]) -> Option<String> {
    let (trial, searches) = trials
        .iter()
        .filter(|trial| binding_limit(trial) == Some(Limit::AddressSpace))
        .find_map(|trial| Some((trial, &predicted(trial)?.searches)))?;
    let layout = match searches.first()?.search.direction {
        Direction::TopDown => {
            "The layout is top-down: mmap takes the highest free place below mmap_base and, when \
             there is none, the lowest from TASK_UNMAPPED_BASE up."
        }
        Direction::BottomUp => {
            "The layout is bottom-up: mmap takes the lowest free place from TASK_UNMAPPED_BASE up, \
             and what lies below is out of reach."
        }
    };
    let placed: Vec<_> = searches.iter().map(ToString::to_string).collect();
    let size = show_size(trial.params.stack_bytes);
    Some(format!("{layout} Stacks of {size} by search: {}.", placed.join(", then ")))
}

/// The limit that bound; the one that was predicted to if nothing was measured.
fn binding_limit(trial: &Counted<'_>) -> Option<Limit> {
    let measured = trial.measured.as_ref().map(|count| count.binding_limit);
    measured.or(predicted(trial).map(|it| it.binding_limit))
}

/// Why the numbers are what they are, and where they differ from the paper's.
fn explanation(abi: Abi, setting: &str, trials: &[&Counted<'_>]) -> String {
    let cell = |mib: u64| {
        let trial = trials.iter().find(|trial| trial.params.stack_bytes == mib << 20)?;
        Some(trial.measured.as_ref()?.threads)
    };
    let first = trials.first().and_then(|trial| Some(trial.measured.as_ref()?.threads));
    match (abi, setting) {
        (Abi::I386, "nofile-raised") => {
            let mut words = String::from(
                "The address space binds: each thread maps its stack and one guard page (stack + 4 KiB), \
                 and what the program, its heap, the vdso, the main stack with the 1 MiB gap below it, and \
                 the remainders of a few holes take is missing from 3072 MiB over the stack size.",
            );
            if let Some(threads) = cell(2) {
                words.push_str(&format!(
                    " The paper prints 1449 at 2M, {} below what came out here ({threads}). The kernel \
                     fills the hole above mmap_base too, by a second search from the bottom; a search \
                     from the top alone would give about 1466, so the paper's 1449 is not explained by \
                     stacks. It is not netlink either: every thread here holds a bound socket. The \
                     experiment hunt-1449 searches for what made it.",
                    threads.saturating_sub(1449)
                ));
            }
            if [4, 8, 16].iter().any(|&mib| cell(mib).is_some()) {
                words.push_str(
                    " \"As theory says\" holds within two percent for the larger stacks, where the fixed \
                     costs weigh one to three stacks; nobody can reach the quotient itself.",
                );
            }
            words
        }
        (Abi::Ia32, "nofile-raised") => "On a 64-bit kernel a 32-bit program has all of 4 GiB less two \
             pages, because the kernel needs none of it: a third more threads than on a 32-bit kernel \
             with the same binary. Who measured Table 3 on a 64-bit kernel would have printed these."
            .to_string(),
        (Abi::X86_64, "threads-max") => format!(
            "threads-max counts every task of the system, so the count is 32768 less the tasks that \
             were alive before ({} here, this program's main thread among them), whatever the stack \
             size: \"close to 32768\" is right, and the rest is other tasks, not a cost of netlink.",
            first.map_or("some".to_string(), |threads| 32768_u64.saturating_sub(threads).to_string())
        ),
        (Abi::X86_64, "defaults") => "With nothing set, threads are not what runs out: a process may \
             have 1024 file descriptors, each thread holds one socket, and socket() fails with EMFILE \
             long before any stack matters. A thread count near 32768 needs limits that the paper does \
             not mention having raised."
            .to_string(),
        (Abi::X86_64, "nofile-raised") => "With only the descriptors raised, the kernel's own limits \
             decide: pid_max is 32768, and ids run out first, since this guest has the memory for a \
             higher threads-max and 65530 areas would hold a few more stacks. This too is \"close to, \
             but below 32768\": on a machine of 2016 it may have been what the paper saw."
            .to_string(),
        _ => String::new(),
    }
}
