//! Ten threads, and how likely it is that ports repeat: the paper's Figure 4, and
//! its curve.

use super::figure::{Curve, Curves, draw};
use super::layout::by_the_paper;
use super::types::{
    ListedThread, PortMeasurement, PortPrediction, PortTrial, ThreadsAsked, columns, counts,
};
use crate::abi::Abi;
use crate::report::Section;
use crate::units::show_size;

/// Threads of the paper's curve.
const CURVE_THREADS: usize = 20;

/// Ten threads, each with what it computed.
pub fn figure_4(abi: Abi, trials: &[&PortTrial<'_>]) -> Option<Section> {
    let ten = |trial: &&&PortTrial<'_>| {
        trial.report.abi == abi
            && trial.params.setting.starts_with("n=10")
            && trial.params.threads == ThreadsAsked::Count(10)
    };
    let (with, without): (Vec<&PortTrial<'_>>, Vec<&PortTrial<'_>>) =
        trials.iter().filter(ten).copied().partition(|trial| trial.params.malloc);
    let (without, with) = (without.first()?, with.first()?);
    let (first, second) = (listed(without)?, listed(with)?);
    let cells = |thread: &ListedThread| {
        let answer = if thread.bound { "bound" } else { "DUPLICATE, in use" };
        let port = thread.port.clone().unwrap_or("-".to_string());
        [thread.pthread_self.clone(), port, answer.to_string()]
    };
    let rows = first.iter().zip(second).enumerate();
    let rows: Vec<Vec<String>> = rows
        .map(|(at, (plain, malloc))| {
            std::iter::once((at + 1).to_string()).chain(cells(plain)).chain(cells(malloc)).collect()
        })
        .collect();
    let failed = |trial: &PortTrial<'_>| counts(trial).map_or(0, |counts| counts.collisions);
    let pid = |trial: &PortTrial<'_>| {
        let pid = || trial.measured.as_ref()?.processes()?.pids.first().copied();
        pid().map_or("-".to_string(), |pid| pid.to_string())
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

/// The threads of a trial one by one, if it has few.
fn listed<'a>(trial: &'a PortTrial<'_>) -> Option<&'a [ListedThread]> {
    trial.measured.as_ref()?.listed()
}

/// How far stacks are apart, as the threads of a trial have it.
fn step(trial: &PortTrial<'_>) -> String {
    let step = || trial.measured.as_ref()?.processes()?.address_step_bytes;
    step().map_or("-".to_string(), |bytes| format!("{} KiB", bytes >> 10))
}

/// The chance of a duplicate by the number of threads.
pub fn curve(abi: Abi, trials: &[&PortTrial<'_>]) -> Option<Section> {
    let of_abi = trials.iter().filter(|trial| trial.report.abi == abi);
    let batches: Vec<_> = of_abi.filter_map(|trial| Batch::of(trial)).collect();
    let batch = |malloc| batches.iter().find(|batch| batch.malloc == malloc);
    let (with, without) = (batch(true), batch(false));
    if batches.is_empty() {
        return None;
    }
    let curves = Curves {
        paper: (1..=CURVE_THREADS).map(by_the_paper).collect(),
        plain: without.map(|batch| batch.curve.clone()),
        malloc: with.map(|batch| batch.curve.clone()),
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
    let total = |number: fn(&Batch) -> u64| batches.iter().map(number).fold(0, u64::saturating_add);
    let ten = |batch: Option<&Batch>, how: &str| {
        batch.map_or(String::new(), |batch| {
            let (processes, stack) = (batch.processes, show_size(batch.stack_bytes));
            let measured = percent(Some(&batch.curve.measured), 9);
            format!(
                "{how}, in {processes} processes with stacks of {stack}: {measured} have duplicates \
                 among ten threads. "
            )
        })
    };
    let words = format!(
        "The paper takes the four bits for random and gives 1 - 15!/((16-n)! 16^(n-1)), \"about 85 %\" \
         for ten threads; its own formula gives {} there. {}{}The model has no free parameter: it is \
         the kernel's search for holes and the C library's arenas, counted over all places that \
         randomisation can choose. In {} of {} processes all threads were exactly where it has them. \
         The formula has only sixteen values, so a seventeenth thread always finds its port in use; so \
         much of the paper is right.",
        percent(Some(&curves.paper), 9),
        ten(without, "Without malloc"),
        ten(with, "With one malloc in each thread"),
        total(|batch| batch.as_modelled),
        total(|batch| batch.processes),
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

/// A batch of processes that was measured.
struct Batch {
    malloc: bool,
    stack_bytes: u64,
    curve: Curve,
    processes: u64,
    as_modelled: u64,
}

impl Batch {
    fn of(trial: &PortTrial<'_>) -> Option<Batch> {
        let Some(PortMeasurement::Batch { processes, as_modelled, frequency, .. }) =
            &trial.measured
        else {
            return None;
        };
        let model = match &trial.predicted {
            Some(PortPrediction::Batch { probability }) => probability.clone(),
            _ => Vec::new(),
        };
        Some(Batch {
            malloc: trial.params.malloc,
            stack_bytes: trial.params.stack_bytes,
            curve: Curve { model, measured: frequency.clone() },
            processes: *processes,
            as_modelled: *as_modelled,
        })
    }
}
