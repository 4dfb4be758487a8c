//! Ten threads, and how likely it is that ports repeat: the paper's Figure 4, and
//! its curve.

use serde_json::{Map, Value};

use super::figure::{Curve, Curves, draw};
use super::layout::by_the_paper;
use super::read::{Seen, columns, is, param, text};
use crate::abi::Abi;
use crate::report::{Section, TrialReport};
use crate::units::show_size;

/// Threads of the paper's curve.
const CURVE_THREADS: usize = 20;

/// Ten threads, each with what it computed.
pub fn figure_4(abi: Abi, trials: &[&TrialReport]) -> Option<Section> {
    let ten = |trial: &&&TrialReport| {
        trial.abi == abi && text(trial, "setting").starts_with("n=10") && is(trial, "threads", 10)
    };
    let (with, without): (Vec<&TrialReport>, Vec<&TrialReport>) =
        trials.iter().filter(ten).copied().partition(|trial| is(trial, "malloc", true));
    let (without, with) = (without.first()?, with.first()?);
    let listed = |trial: &TrialReport| {
        trial.measured.as_ref()?.get("listed")?.as_array().map(|list| list.to_vec())
    };
    let (first, second) = (listed(without)?, listed(with)?);
    let cells = |thread: &Value| {
        let text = |key: &str| thread.get(key).and_then(Value::as_str).unwrap_or("-").to_string();
        let bound = thread.get("bound").and_then(Value::as_bool).unwrap_or(false);
        let answer = if bound { "bound" } else { "DUPLICATE, in use" };
        [text("pthread_self"), text("port"), answer.to_string()]
    };
    let rows = first.iter().zip(&second).enumerate();
    let rows: Vec<Vec<String>> = rows
        .map(|(at, (plain, malloc))| {
            std::iter::once((at + 1).to_string()).chain(cells(plain)).chain(cells(malloc)).collect()
        })
        .collect();
    let failed = |trial: &TrialReport| Seen::trial(trial).map_or(0, |seen| seen.collisions);
    let pid = |trial: &TrialReport| {
        let pids =
            trial.measured.as_ref().and_then(|measured| measured.get("pids")?.get(0)?.as_u64());
        pids.map_or("-".to_string(), |pid| pid.to_string())
    };
    let words = format!(
        "The paper shows ten threads, pthread_self() and nl_pid of each, duplicates among them, and \
         concludes that the ports are random. Here are ten threads again: first of a process ({}) \
         whose threads only hold a socket, then of one ({}) whose threads each call malloc once. \
         Without malloc stacks lie side by side, {} apart, so the four bits that the shift leaves \
         count down: {} of ten had a port in use. With malloc the C library puts an arena between \
         stacks now and then, and the bits start again: {} of ten.",
        pid(without),
        pid(with),
        step(without),
        failed(without),
        failed(with)
    );
    Some(Section {
        title: format!("Figure 4 again: ten threads, pthread_self() << 16 | getpid() ({abi})"),
        columns: columns(&[
            "thread",
            "pthread_self",
            "nl_pid",
            "bind",
            "pthread_self, malloc",
            "nl_pid, malloc",
            "bind, malloc",
        ]),
        rows,
        words,
        ..Section::default()
    })
}

/// How far stacks are apart, as the threads of a trial have it.
fn step(trial: &TrialReport) -> String {
    let step = trial.measured.as_ref().and_then(|map| map.get("address_step_bytes")?.as_u64());
    step.map_or("-".to_string(), |bytes| format!("{} KiB", bytes >> 10))
}

/// The chance of a duplicate by the number of threads.
pub fn curve(abi: Abi, trials: &[&TrialReport]) -> Option<Section> {
    let batches = trials.iter().filter(|trial| trial.abi == abi);
    let batches = batches.filter(|trial| {
        trial.measured.as_ref().is_some_and(|measured| measured.contains_key("frequency"))
    });
    let (with, without): (Vec<&TrialReport>, Vec<&TrialReport>) =
        batches.copied().partition(|trial| is(trial, "malloc", true));
    if with.is_empty() && without.is_empty() {
        return None;
    }
    let values = |map: Option<&Map<String, Value>>, key: &str| -> Vec<f64> {
        let list = map.and_then(|map| map.get(key)?.as_array());
        list.map_or(Vec::new(), |list| list.iter().filter_map(Value::as_f64).collect())
    };
    let read = |trials: &[&TrialReport]| {
        trials.first().map(|trial| Curve {
            model: values(trial.predicted.as_ref(), "probability"),
            measured: values(trial.measured.as_ref(), "frequency"),
        })
    };
    let curves = Curves {
        paper: (1..=CURVE_THREADS).map(by_the_paper).collect(),
        plain: read(&without),
        malloc: read(&with),
    };
    let percent = |values: Option<&Vec<f64>>, at: usize| {
        let value = values.and_then(|values| values.get(at));
        value.map_or("-".to_string(), |value| format!("{:.1} %", value * 100.0))
    };
    let rows = (0..CURVE_THREADS).map(|at| {
        let of = |curve: &Option<Curve>| {
            let curve = curve.as_ref();
            [
                percent(curve.map(|curve| &curve.model), at),
                percent(curve.map(|curve| &curve.measured), at),
            ]
        };
        let head = [(at + 1).to_string(), percent(Some(&curves.paper), at)];
        head.into_iter().chain(of(&curves.plain)).chain(of(&curves.malloc)).collect()
    });
    let rows = rows.collect();
    let number = |key: &str| -> u64 {
        let of = |trial: &&TrialReport| trial.measured.as_ref()?.get(key)?.as_u64();
        with.iter().chain(&without).filter_map(of).fold(0, u64::saturating_add)
    };
    let ten = |curve: &Option<Curve>, trials: &[&TrialReport], how: &str| {
        let trial = trials.first()?;
        let processes = trial.measured.as_ref()?.get("processes")?.as_u64()?;
        let stack = show_size(param(trial, "stack_bytes")?.as_u64()?);
        let measured = percent(curve.as_ref().map(|curve| &curve.measured), 9);
        Some(format!(
            "{how}, in {processes} processes with stacks of {stack}: {measured} have duplicates \
             among ten threads. "
        ))
    };
    let words = format!(
        "The paper takes the four bits for random and gives 1 - 15!/((16-n)! 16^(n-1)), \"about 85 %\" \
         for ten threads; its own formula gives {} there. {}{}The model has no free parameter: it is \
         the kernel's search for holes and the C library's arenas, counted over all places that \
         randomisation can choose. In {} of {} processes all threads were exactly where it has them. \
         The formula has only sixteen values, so a seventeenth thread always finds its port in use; so \
         much of the paper is right.",
        percent(Some(&curves.paper), 9),
        ten(&curves.plain, &without, "Without malloc").unwrap_or_default(),
        ten(&curves.malloc, &with, "With one malloc in each thread").unwrap_or_default(),
        number("as_modelled"),
        number("processes"),
    );
    Some(Section {
        title: format!("How likely a duplicate is by pthread_self() << 16 | getpid() ({abi})"),
        columns: columns(&[
            "threads",
            "the paper's formula",
            "no malloc: model",
            "no malloc: measured",
            "malloc: model",
            "malloc: measured",
        ]),
        rows,
        words,
        figure: draw(&abi.to_string(), &curves).ok(),
        ..Section::default()
    })
}
