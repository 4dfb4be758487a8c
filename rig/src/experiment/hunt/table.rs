//! The candidates ranked by how well they fit, and what follows.

use super::candidates::{CANDIDATES, Candidate, Fidelity, UNTESTED};
use super::fit::{self, CountRange, Fit, FitFinding, PAPER, PAPER_STACK, fit};
use super::{BySize, Hunt, HuntCounts};
use crate::abi::Abi;
use crate::experiment::TrialResult;
use crate::limits::Limit;
use crate::report::{Detail, Section};
use crate::units::show_size;

type Hunted<'a> = TrialResult<'a, Hunt>;

/// A candidate that was counted, and how it fits.
struct Ranked<'a> {
    trial: &'a Hunted<'a>,
    candidate: &'a Candidate,
    seen: Vec<CountRange>,
    fit: Fit,
}

/// The question, a table with the best fit first, and what follows.
pub fn sections(trials: &[&Hunted<'_>]) -> Vec<Section> {
    let mut ranked: Vec<_> = trials.iter().filter_map(|trial| rank(trial)).collect();
    ranked.sort_by_key(|one| one.fit.rank());
    let mut stacks: Vec<u64> =
        ranked.iter().flat_map(|one| one.seen.iter().map(|seen| seen.stack_bytes)).collect();
    stacks.sort_unstable();
    stacks.dedup();
    let mut columns = vec!["candidate".to_string()];
    columns.extend(stacks.iter().map(|&stack| format!("threads at {}", show_size(stack))));
    let further = ["from 1449", "worst from theory", "searched for", "finding", "verdict"];
    columns.extend(further.map(str::to_string));
    vec![
        Section {
            title: "The hunt for 1449: the question".to_string(),
            words: question(&ranked),
            ..Section::default()
        },
        Section {
            title: "The hunt for 1449: which set-up gives it, and fits at 4M, 8M and 16M"
                .to_string(),
            columns,
            rows: ranked.iter().map(|one| row(one, &stacks)).collect(),
            words: comparison(&ranked),
            ..Section::default()
        },
        Section {
            title: "The hunt for 1449: does one explain it?".to_string(),
            words: conclusion(&ranked),
            entries: ranked.iter().map(entry).collect(),
            ..Section::default()
        },
    ]
}

fn rank<'a>(trial: &'a Hunted<'a>) -> Option<Ranked<'a>> {
    let name = &trial.params.candidate;
    let candidate = CANDIDATES.iter().find(|candidate| candidate.name == name)?;
    // What was not counted cleanly says nothing.
    let measured = trial.measured.as_ref().filter(|_| trial.report.verdict.is_well());
    let seen = measured.map_or(Vec::new(), ranges);
    Some(Ranked { trial, candidate, fit: fit(&seen), seen })
}

/// The smallest and the largest count of each stack size.
fn ranges(counts: &HuntCounts) -> Vec<CountRange> {
    let of_size = |(size, &least)| {
        let most = *counts.threads_most.get(size)?;
        Some(CountRange { stack_bytes: size.0, least, most })
    };
    counts.threads_least.iter().filter_map(of_size).collect()
}

fn row(one: &Ranked<'_>, stacks: &[u64]) -> Vec<String> {
    let count = |stack: &u64| {
        let seen = one.seen.iter().find(|seen| seen.stack_bytes == *stack);
        seen.map_or("-".to_string(), range)
    };
    let mut row = vec![name(one)];
    row.extend(stacks.iter().map(count));
    row.push(one.fit.distance.map_or("-".to_string(), signed));
    row.push(one.fit.worst_percent.map_or("-".to_string(), |percent| format!("{percent:+.1} %")));
    row.push(one.candidate.free.unwrap_or("nothing").to_string());
    row.push(one.fit.finding.to_string());
    row.push(one.trial.report.verdict.name().to_string());
    row
}

fn name(one: &Ranked<'_>) -> String {
    one.candidate.name.to_string()
}

fn range(seen: &CountRange) -> String {
    if seen.least == seen.most {
        seen.least.to_string()
    } else {
        format!("{} to {}", seen.least, seen.most)
    }
}

fn signed(distance: i64) -> String {
    if distance == 0 { "0".to_string() } else { format!("{distance:+}") }
}

fn entry(one: &Ranked<'_>) -> Detail {
    let mut fields = vec![("stands for", one.candidate.stands_for.to_string())];
    fields.push((
        "here",
        match one.candidate.how {
            Fidelity::Real => "the thing itself".to_string(),
            Fidelity::Emulated(how) => format!("emulated: {how}"),
        },
    ));
    fields.extend(one.candidate.doubt.map(|doubt| ("doubt", doubt.to_string())));
    fields
        .push(("kind", format!("{}, flavour {}", one.trial.report.abi, one.trial.report.flavour)));
    if let Some(counts) = &one.trial.measured {
        let mib = |bytes: &u64| format!("{:.1} MiB", *bytes as f64 / 1048576.0);
        let limit = |limit: &Limit| limit.name().to_string();
        fields.extend(shown(&counts.binding_limit, limit).map(|text| ("what bound", text)));
        fields.extend(shown(&counts.other_bytes, mib).map(|text| ("mapped beside stacks", text)));
        fields.extend(shown(&counts.hole_above_bytes, mib).map(|text| ("left free above", text)));
    }
    fields.push(("finding", one.fit.finding.to_string()));
    Detail { title: name(one), fields }
}

/// Values by stack size, if there are any.
fn shown<T>(by_size: &BySize<T>, show: impl Fn(&T) -> String) -> Option<String> {
    let shown =
        by_size.iter().map(|(size, value)| format!("{} at {}", show(value), show_size(size.0)));
    (!by_size.is_empty()).then(|| shown.collect::<Vec<_>>().join(", "))
}

/// What the paper says, for a reader who knows nothing of it, and what is here.
fn question(ranked: &[Ranked<'_>]) -> String {
    let mut words = format!(
        "A paper of 2017 says that a 32-bit program could create {PAPER} threads with stacks of 2M, \
         each with a netlink socket, that this agrees with theory (3 GiB over 2 MiB is {}), and that \
         4M, 8M and 16M agree too, without a number.",
        fit::theory(PAPER_STACK)
    );
    if let Some(baseline) = ranked.iter().find(|one| one.candidate.name == "baseline")
        && let Some(seen) = at_paper_stack(baseline)
    {
        words.push_str(&format!(
            " A plain program counts {} here. So something took the address space of the threads that \
             are missing in the paper, or stopped them before.",
            range(seen)
        ));
    }
    words.push_str(
        " The paper names Linux 3.12.11 and Ubuntu 14.04, and nothing else of its machine: what follows are \
         set-ups that somebody may have had in 2016, each counted.",
    );
    words
}

/// How the table is to be read, and what speaks against those that do not fit.
fn comparison(ranked: &[Ranked<'_>]) -> String {
    let mut words = vec![format!(
        "Each row is a set-up, counted {}. It fits if {PAPER} lies between its smallest and its largest \
         count at 2M, and the largest at each other size is as near to theory as the paper's own \
         {PAPER} is, that is at least {}.",
        starts(ranked),
        [4, 8, 16].map(|mib| format!("{} at {mib}M", fit::least_that_agrees(mib << 20))).join(", ")
    )];
    words.extend(refuted(ranked));
    words.join("\n\n")
}

/// Whether one explains it, and what nobody can try here.
fn conclusion(ranked: &[Ranked<'_>]) -> String {
    let untested = format!("Untested, because it cannot be had here: {}.", UNTESTED.join("; "));
    let mut words = verdict(ranked);
    words.push(untested);
    words.join("\n\n")
}

fn at_paper_stack<'a>(one: &'a Ranked<'_>) -> Option<&'a CountRange> {
    one.seen.iter().find(|seen| seen.stack_bytes == PAPER_STACK)
}

fn starts(ranked: &[Ranked<'_>]) -> String {
    let mut starts: Vec<u64> = ranked.iter().map(|one| one.trial.params.starts).collect();
    starts.sort_unstable();
    starts.dedup();
    match starts.as_slice() {
        [1] => "once for each stack size".to_string(),
        [times] => format!("{times} times for each stack size, because addresses are random"),
        _ => "several times for each stack size".to_string(),
    }
}

/// So few threads off, and a small thing more or less in the address space might
/// make a fit of it.
const NEAR: i64 = 5;

/// What speaks against those that do not fit.
fn refuted(ranked: &[Ranked<'_>]) -> Vec<String> {
    let names = |which: &dyn Fn(&Ranked<'_>) -> bool| {
        let names: Vec<_> = ranked.iter().filter(|one| which(one)).map(name).collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    let misses = |one: &Ranked<'_>, above: bool| {
        one.fit.distance.is_some_and(|distance| if above { distance > 0 } else { distance < 0 })
    };
    let only_elsewhere = |one: &Ranked<'_>| {
        one.fit.distance == Some(0) && matches!(one.fit.finding, FitFinding::Refuted(_))
    };
    let uncounted = |one: &Ranked<'_>| one.seen.is_empty();
    let incomplete =
        |one: &Ranked<'_>| one.fit.finding == FitFinding::Incomplete && !one.seen.is_empty();
    let near =
        |one: &Ranked<'_>| one.fit.distance.is_some_and(|far| (1..=NEAR).contains(&far.abs()));
    [
        names(&|one| misses(one, true)).map(|names| format!("Too many at 2M: {names}.")),
        names(&|one| misses(one, false)).map(|names| format!("Too few at 2M: {names}.")),
        names(&near).map(|names| format!("Of these, within {NEAR} threads of it: {names}.")),
        names(&only_elsewhere).map(|names| {
            format!(
                "{PAPER} at 2M, but farther from theory at another size than it may be: {names}."
            )
        }),
        names(&uncounted).map(|names| format!("Not counted, so nothing is known of: {names}.")),
        names(&incomplete).map(|names| format!("Not counted at all sizes: {names}.")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What speaks against those that fit, each by its name.
fn doubts(fitting: &[&Ranked<'_>]) -> String {
    let mut words = String::new();
    for one in fitting {
        if one.candidate.how != Fidelity::Real {
            words.push_str(&format!(" {} is emulated.", name(one)));
        }
        if let Some(doubt) = one.candidate.doubt {
            words.push_str(&format!(" Against {} speaks that {doubt}.", name(one)));
        }
    }
    words
}

/// What may be said of those that fit, a paragraph each.
fn verdict(ranked: &[Ranked<'_>]) -> Vec<String> {
    let fits = |one: &&Ranked<'_>| one.fit.finding == FitFinding::Fits;
    let (free, bound): (Vec<_>, Vec<_>) =
        ranked.iter().filter(fits).partition(|one| one.candidate.free.is_some());
    let names = |of: &[&Ranked<'_>]| of.iter().map(|one| name(one)).collect::<Vec<_>>().join(", ");
    let mut words = Vec::new();
    match bound.as_slice() {
        [] => words.push(
            "No set-up of which nothing was searched for gives it: none that was tried explains \
             1449 by itself."
                .to_string(),
        ),
        some => words.push(format!(
            "Without anything searched for fits: {}.{}",
            names(some),
            doubts(some)
        )),
    }
    if !free.is_empty() {
        words.push(format!(
            "With one thing searched for until it fitted: {}.{} Each is a possible explanation and no \
             proof: one free choice can always be made to give one count, so what tests it are the \
             other stack sizes, and they test little, because the paper prints no numbers for them and \
             calls a count that is 5.7 % off an agreement.",
            names(&free),
            doubts(&free)
        ));
    }
    if free.len() + bound.len() > 1 {
        words.push(
            "More than one fits, so which of them it was cannot be told from what is printed."
                .to_string(),
        );
    }
    if ranked
        .iter()
        .any(|one| one.candidate.abi == Abi::I386 && one.fit.finding == FitFinding::Fits)
    {
        words.push(
            "In none of them is it netlink that stops the threads: every thread here holds its socket."
                .to_string(),
        );
    }
    words
}
