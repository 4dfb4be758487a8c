//! A batch of processes: each held against the prediction, and all of them
//! against the model's probabilities.

use anyhow::Result;
use nlrig_guest::ports::{Formula, PortReport};

use super::formula::{Process, Tally, answers};
use super::judge::{layout, report};
use super::layout::StackLayout;
use super::types::{PortMeasurement, PortParams, PortPrediction};
use crate::experiment::{Observed, Trial};

/// A frequency that chance brings about more rarely than this is none of the
/// probability's: with twenty numbers of threads, one batch in a hundred thousand.
const CHANCE_MIN: f64 = 1e-7;

/// What was measured of a batch, and what is wrong with it.
pub fn judge(
    trial: &Trial<PortParams>,
    observed: &Observed<PortPrediction>,
    threads: usize,
    processors: u32,
) -> Result<(PortMeasurement, Option<String>)> {
    let layout = layout(trial, processors);
    let (mut processes, mut as_modelled) = (0_u64, 0_u64);
    let mut with = vec![0_u64; threads];
    let mut worst = Tally::of(std::iter::repeat_n(true, threads));
    let mut wrong = None;
    for value in &observed.data {
        let PortReport::Process { pid, addresses, first_failed, in_use } = report(value)? else {
            continue;
        };
        processes += 1;
        if addresses.len() != threads {
            wrong = wrong.or(Some(format!("a process had {} threads", addresses.len())));
            continue;
        }
        as_modelled += u64::from(is_as_modelled(layout, &addresses));
        let seen = Tally {
            threads: threads as u64,
            first_collision: Some(first_failed.into()).filter(|first| *first > 0),
            collisions: in_use.into(),
        };
        let expected = tally_of(pid, &addresses);
        if seen != expected {
            wrong = wrong.or(Some(format!("process {pid}: {seen:?}; predicted {expected:?}")));
        }
        // What a guest says may be more than there can be.
        if seen.collisions <= seen.threads {
            worst = worst.worse(seen);
        }
        let first = (first_failed as usize).checked_sub(1);
        if let Some(counts) = first.and_then(|first| with.get_mut(first..)) {
            counts.iter_mut().for_each(|count| *count += 1);
        }
    }
    let frequencies: Vec<_> =
        with.iter().map(|with| *with as f64 / processes.max(1) as f64).collect();
    let probabilities = layout.probabilities(threads);
    let asked = u64::from(trial.params.processes);
    let deviates = deviation(&frequencies, &probabilities, processes);
    let wrong = if processes != asked {
        Some(format!("{processes} of {asked} processes were reported"))
    } else if wrong.is_some() {
        wrong
    } else if as_modelled != processes {
        let other = processes - as_modelled;
        Some(format!(
            "in {other} of {processes} processes threads are not where the model has them"
        ))
    } else {
        deviates
    };
    let (worst, frequency) = (worst.into(), rounded(&frequencies));
    Ok((PortMeasurement::Batch { worst, processes, as_modelled, frequency }, wrong))
}

/// What is predicted of a process of a batch.
fn tally_of(pid: u32, addresses: &[u64]) -> Tally {
    let threads = addresses.iter().map(|own| (*own, 0)).collect();
    let process = Process { pid, time_s: 0, threads };
    Tally::predicted(&answers(Formula::LinuxJournal, &[process]))
}

/// Whether all threads are where the model has them if the first one is where it
/// is. The top of a stack is the end of the page that the control block is in.
fn is_as_modelled(layout: StackLayout, addresses: &[u64]) -> bool {
    const PAGE_BYTES: u64 = 4096;
    let Some(first) = addresses.first() else { return false };
    let Some(top) = first.checked_next_multiple_of(PAGE_BYTES) else { return false };
    let below = top - first;
    let tops = layout.tops(top, addresses.len());
    tops.len() == addresses.len()
        && tops.iter().zip(addresses).all(|(top, own)| top.checked_sub(below) == Some(*own))
}

/// Where a frequency is further from its probability than chance allows.
fn deviation(frequencies: &[f64], probabilities: &[f64], processes: u64) -> Option<String> {
    let wrong = frequencies.iter().zip(probabilities).position(|(frequency, p)| {
        let hits = (frequency * processes as f64).round() as u64;
        chance(hits, processes, *p) < CHANCE_MIN
    })?;
    let (seen, expected) = (frequencies[wrong], probabilities[wrong]);
    let threads = wrong + 1;
    Some(format!(
        "{threads} threads have duplicates in {seen:.3} of {processes} processes; predicted {expected:.3}"
    ))
}

/// How likely it is that of so many tries at least, or at most, so many hit: the
/// rarer of both, by the binomial distribution.
fn chance(hits: u64, tries: u64, p: f64) -> f64 {
    if p <= 0.0 || p >= 1.0 {
        let sure = if p <= 0.0 { 0 } else { tries };
        return if hits == sure { 1.0 } else { 0.0 };
    }
    let logarithms = |from: u64, to: u64| (from..=to).map(|n| (n as f64).ln()).sum::<f64>();
    // Of none, and then each from the one before.
    let mut logarithm = tries as f64 * (1.0 - p).ln();
    if hits > 0 {
        let choices = logarithms(tries - hits + 1, tries) - logarithms(1, hits);
        logarithm = choices + hits as f64 * p.ln() + (tries - hits) as f64 * (1.0 - p).ln();
    }
    let odds = p / (1.0 - p);
    let (mut below, mut above) = (0.0, 0.0);
    let (mut term, mut at) = (logarithm.exp(), hits);
    loop {
        below += term;
        if at == 0 {
            break;
        }
        term *= at as f64 / ((tries - at + 1) as f64 * odds);
        at -= 1;
    }
    (term, at) = (logarithm.exp(), hits);
    loop {
        above += term;
        if at == tries {
            break;
        }
        term *= (tries - at) as f64 * odds / (at + 1) as f64;
        at += 1;
    }
    f64::min(below, above)
}

/// As many digits as a thousand processes bear.
pub fn rounded(values: &[f64]) -> Vec<f64> {
    values.iter().map(|value| (value * 10_000.0).round() / 10_000.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_is_that_of_the_binomial_distribution() {
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        // 0 or 1 of 3 with one half, and all of them.
        assert!(near(chance(1, 3, 0.5), 0.5) && near(chance(3, 3, 0.5), 0.125));
        assert!(near(chance(0, 10, 0.1), 0.9_f64.powi(10)));
        assert_eq!((chance(0, 10, 0.0), chance(1, 10, 0.0), chance(10, 10, 1.0)), (1.0, 0.0, 1.0));
        // One duplicate among three processes is rare, not impossible.
        assert!(chance(1, 3, 0.0078) > CHANCE_MIN && chance(500, 1000, 0.0078) < CHANCE_MIN);
    }
}
