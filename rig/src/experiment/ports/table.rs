//! The tables of `ports`, and what each says in plain words: from the claim to the
//! conclusion.

use std::collections::BTreeMap;

use nlrig_guest::ports::Formula;
use serde_json::{Map, Value};

use super::figure::{Curve, Curves, draw};
use super::layout::by_the_paper;
use crate::abi::Abi;
use crate::report::{Section, TrialReport};
use crate::units::show_size;

/// Threads of the paper's curve.
const CURVE_THREADS: usize = 20;

/// All tables that there are trials for.
pub fn sections(trials: &[&TrialReport]) -> Vec<Section> {
    let mut sections = Vec::new();
    for abi in Abi::ALL {
        sections.extend(figure_4(abi, trials));
    }
    for abi in Abi::ALL {
        sections.extend(curve(abi, trials));
    }
    sections.extend(formulas(trials));
    sections.extend(settings(trials));
    sections.extend(table_4(trials));
    sections.extend(advice(trials));
    sections
}

fn param<'a>(trial: &'a TrialReport, key: &str) -> Option<&'a Value> {
    trial.params.get(key)
}

fn text<'a>(trial: &'a TrialReport, key: &str) -> &'a str {
    param(trial, key).and_then(Value::as_str).unwrap_or_default()
}

fn is(trial: &TrialReport, key: &str, value: impl Into<Value>) -> bool {
    param(trial, key) == Some(&value.into())
}

fn formula(trial: &TrialReport) -> Option<Formula> {
    Formula::from_name(text(trial, "formula"))
}

fn columns(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| name.to_string()).collect()
}

/// What was measured of binding by one formula.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    threads: u64,
    first: Option<u64>,
    collisions: u64,
    distinct: u64,
}

impl Seen {
    fn of(measured: &Map<String, Value>) -> Option<Seen> {
        let number = |key: &str| measured.get(key).and_then(Value::as_u64);
        Some(Seen {
            threads: number("threads")?,
            first: number("first_collision"),
            collisions: number("collisions")?,
            distinct: number("distinct")?,
        })
    }

    fn trial(trial: &TrialReport) -> Option<Seen> {
        Seen::of(trial.measured.as_ref()?)
    }

    fn share(self) -> String {
        let percent = 100.0 * self.collisions as f64 / self.threads.max(1) as f64;
        format!("{percent:.1} %")
    }

    fn first(self) -> String {
        self.first.map_or("none".to_string(), |first| first.to_string())
    }
}

/// Ten threads, each with what it computed.
fn figure_4(abi: Abi, trials: &[&TrialReport]) -> Option<Section> {
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
fn curve(abi: Abi, trials: &[&TrialReport]) -> Option<Section> {
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
    let processes = |trials: &[&TrialReport]| {
        let of = |trial: &&TrialReport| trial.measured.as_ref()?.get("processes")?.as_u64();
        trials.first().and_then(of).unwrap_or(0)
    };
    let stack =
        without.first().or(with.first()).and_then(|trial| param(trial, "stack_bytes")?.as_u64());
    let ten = |curve: &Option<Curve>| percent(curve.as_ref().map(|curve| &curve.measured), 9);
    let words = format!(
        "The paper takes the four bits for random and gives 1 - 15!/((16-n)! 16^(n-1)), \"about 85 %\" \
         for ten threads; its own formula gives {} there. Measured in {} processes without malloc and \
         {} with it, stacks of {}: ten threads have duplicates in {} without malloc and {} with it. \
         The model has no free parameter: it is the kernel's search for holes and the C library's \
         arenas, counted over all places that randomisation can choose. In every single process all \
         threads were exactly where it has them. From the seventeenth thread on there are always \
         duplicates, because the formula has only sixteen values; so much of the paper is right.",
        percent(Some(&curves.paper), 9),
        processes(&without),
        processes(&with),
        stack.map_or("-".to_string(), show_size),
        ten(&curves.plain),
        ten(&curves.malloc),
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

/// All formulas by ABI, with a thousand threads.
fn formulas(trials: &[&TrialReport]) -> Option<Section> {
    let mut cells: BTreeMap<(Formula, usize), Seen> = BTreeMap::new();
    let mut threads = 0;
    for trial in trials.iter().filter(|trial| text(trial, "setting") == "n=1000") {
        if let (Some(formula), Some(seen)) = (formula(trial), Seen::trial(trial)) {
            let column = Abi::ALL.iter().position(|abi| *abi == trial.abi)?;
            cells.insert((formula, column), seen);
            threads = seen.threads;
        }
    }
    if cells.is_empty() {
        return None;
    }
    let row = |formula: Formula| -> Vec<String> {
        let seen = (0..Abi::ALL.len()).flat_map(|column| {
            let seen = cells.get(&(formula, column));
            [seen.map(|seen| seen.first()), seen.map(|seen| seen.share())]
        });
        let seen = seen.map(|cell| cell.unwrap_or("-".to_string()));
        let head = [formula.name().to_string(), formula.expression().to_string()];
        head.into_iter().chain(seen).collect()
    };
    let head = ["formula", "expression"].map(str::to_string).into_iter();
    let by_abi = Abi::ALL.iter().flat_map(|abi| [format!("{abi}: first"), format!("{abi}: share")]);
    Some(Section {
        title: format!("Formulas: {threads} threads of one process"),
        columns: head.chain(by_abi).collect(),
        rows: Formula::ALL.into_iter().map(row).collect(),
        words: "\"First\" is the first thread whose port was in use, \"share\" how many of all threads \
                had none. What takes the process id and the low bits of the address has sixteen values. \
                What takes the high bits tells the threads of a 32-bit process apart, because stacks \
                are further apart than 64 KiB; a 64-bit address has more bits than there is room for. \
                A thousand threads are too few to see that: the next tables show it."
            .to_string(),
        ..Section::default()
    })
}

/// The settings that matter, each by name.
fn settings(trials: &[&TrialReport]) -> Option<Section> {
    let in_tables = |trial: &TrialReport| {
        text(trial, "setting") == "n=1000"
            || text(trial, "formula") == "each"
            || trial.measured.as_ref().is_some_and(|map| map.contains_key("frequency"))
    };
    let row = |trial: &&TrialReport| {
        let seen = Seen::trial(trial)?;
        Some(vec![
            trial.abi.to_string(),
            text(trial, "setting").to_string(),
            text(trial, "formula").to_string(),
            seen.threads.to_string(),
            seen.first(),
            seen.share(),
            seen.distinct.to_string(),
            trial.verdict.name().to_string(),
        ])
    };
    let rows: Vec<_> = trials.iter().filter(|trial| !in_tables(trial)).filter_map(row).collect();
    if rows.is_empty() {
        return None;
    }
    Some(Section {
        title: "What decides it".to_string(),
        columns: columns(&[
            "ABI", "setting", "formula", "threads", "first", "share", "distinct", "verdict",
        ]),
        rows,
        words: [two_processes(trials), apart(trials)].concat(),
        ..Section::default()
    })
}

/// Whether two processes clash without randomisation, as it came out.
fn two_processes(trials: &[&TrialReport]) -> String {
    let mut words = String::from(
        "Threads are counted over both processes where there are two, in the order in which they \
         bind. ",
    );
    for &trial in trials {
        let two = text(trial, "setting") == "two-processes/aslr=off";
        let (Some(seen), true) =
            (Seen::trial(trial), two && formula(trial) == Some(Formula::Paper))
        else {
            continue;
        };
        let (abi, each) = (trial.abi, seen.threads / 2);
        words.push_str(&match seen.first {
            Some(first) if first == each + 1 => format!(
                "Without randomisation two {abi} processes under the paper's formula collide at the \
                 first thread of the second one, and {} of its {each} threads have no port. ",
                seen.collisions
            ),
            Some(first) => format!(
                "Without randomisation two {abi} processes under the paper's formula collide at \
                 thread {first}. "
            ),
            None => format!(
                "Without randomisation two {abi} processes under the paper's formula do not collide. "
            ),
        });
    }
    words
}

fn apart(trials: &[&TrialReport]) -> String {
    let any = |part: &str| trials.iter().any(|trial| text(trial, "setting").contains(part));
    let mut words = String::new();
    if any("stack-and-guard") {
        words.push_str(
            "Where stack and guard are a multiple of 64 KiB all threads have the same four bits, and \
             the second one already has no port by the Linux Journal's formula. ",
        );
    }
    if any("stack=32K") {
        words.push_str(
            "Where they are less than 64 KiB neighbours share what the paper's formula keeps. ",
        );
    }
    if any("started-again") {
        words.push_str(
            "A thread that starts where one has ended has its address, and so its port: whoever leaves \
             a socket open when a thread ends meets it again. ",
        );
    }
    if any("77777") {
        words.push_str(
            "A process id may have 22 bits; what shifts it by 16 keeps 16 of them, and two processes \
             whose ids differ above have the same ports. ",
        );
    }
    words
}

/// How many of as many threads as there can be have a port of their own.
fn table_4(trials: &[&TrialReport]) -> Option<Section> {
    let each: Vec<_> = trials.iter().filter(|trial| text(trial, "formula") == "each").collect();
    let by_name = |trial: &TrialReport, formula: Formula| {
        let measured = trial.measured.as_ref()?.get("by_formula")?.get(formula.name())?;
        Seen::of(measured.as_object()?)
    };
    let row = |trial: &&&TrialReport| {
        let stack =
            param(trial, "stack_bytes").and_then(Value::as_u64).map_or("-".into(), show_size);
        let threads = trial.measured.as_ref().and_then(|map| map.get("threads")?.as_u64())?;
        let cells = Formula::ALL.map(|formula| {
            by_name(trial, formula).map_or("-".to_string(), |seen| seen.distinct.to_string())
        });
        Some([trial.abi.to_string(), stack, threads.to_string()].into_iter().chain(cells).collect())
    };
    let rows: Vec<Vec<String>> = each.iter().filter_map(row).collect();
    if rows.is_empty() {
        return None;
    }
    let paper: Vec<_> = each.iter().filter_map(|trial| by_name(trial, Formula::Paper)).collect();
    let lost = paper.iter().filter(|seen| seen.collisions > 0).count();
    let firsts: Vec<_> = paper.iter().filter_map(|seen| seen.first).collect();
    let first = match (firsts.iter().min(), firsts.iter().max()) {
        (Some(low), Some(high)) if low == high => format!(" from thread {low} on"),
        (Some(low), Some(high)) => format!(" from thread {low} to {high} on, by the stack"),
        _ => String::new(),
    };
    let words = format!(
        "The paper's Table 4 says that a 64-bit process holds close to 32768 threads, each with a port \
         by its formula. So many threads there can be; but here the same threads bound by each formula \
         in turn, and the table shows how many had a port of their own. By the paper's formula threads \
         are without a port in {lost} of {} rows{first}: the bits of the address above 32 are or-ed \
         over the process id, and two stacks that differ only there and where the id has a bit set \
         get one port. Which ids and addresses a run has is chance; a table without duplicates for \
         every stack size is not what this formula gives. Only the kernel's choice and gettid() gave \
         every thread its own in each row, whatever the stack; libnl has 1024 ports a process.",
        paper.len()
    );
    let names = Formula::ALL.iter().map(|formula| formula.name().to_string());
    Some(Section {
        title: "Table 4 with distinct ports: threads that hold a port of their own".to_string(),
        columns: columns(&["ABI", "stack", "threads"]).into_iter().chain(names).collect(),
        rows,
        words,
        ..Section::default()
    })
}

/// Which formula failed where, over all trials, and what to do.
fn advice(trials: &[&TrialReport]) -> Option<Section> {
    let mut failed: BTreeMap<Formula, (u64, u64)> = BTreeMap::new();
    let mut count = |formula: Formula, seen: Seen| {
        let (tried, duplicates) = failed.entry(formula).or_default();
        *tried += 1;
        *duplicates += u64::from(seen.collisions > 0);
    };
    for trial in trials {
        let Some(measured) = trial.measured.as_ref() else { continue };
        match (formula(trial), Seen::of(measured)) {
            (Some(formula), Some(seen)) => count(formula, seen),
            _ => {
                for formula in Formula::ALL {
                    let of = |map: &Value| Seen::of(map.get(formula.name())?.as_object()?);
                    if let Some(seen) = measured.get("by_formula").and_then(of) {
                        count(formula, seen);
                    }
                }
            }
        }
    }
    let rows: Vec<Vec<String>> = failed
        .iter()
        .map(|(formula, (tried, duplicates))| {
            let why = why(*formula).to_string();
            vec![formula.name().to_string(), format!("{duplicates} of {tried}"), why]
        })
        .collect();
    if failed.len() < 2 {
        return None;
    }
    Some(Section {
        title: "What to bind".to_string(),
        columns: columns(&["formula", "trials with duplicates", "why, or where it ends"]),
        rows,
        words: "Bind port 0 and read back with getsockname() what the kernel chose; where a library \
                asks for a port of your own, give it gettid() if a thread has one socket and nothing \
                else in the network namespace binds process ids of another pid namespace. No formula of \
                an address can promise what the kernel's own table checks anyway, and none of those \
                here does on 64 bits."
            .to_string(),
        ..Section::default()
    })
}

fn why(formula: Formula) -> &'static str {
    match formula {
        Formula::LinuxJournal => "sixteen values in a process; ids above 65535 run into them",
        Formula::Paper => "64-bit addresses run over the process id; stacks closer than 64 KiB",
        Formula::PaperMasked => "16 bits of address repeat after 4 GiB of stacks; ids above 65535",
        Formula::PaperXor => "distinct more often than not, promised never",
        Formula::HighHalf => "as paper-masked, the other way round",
        Formula::Shift12 => "low bits of the address run over the process id",
        Formula::Gettid => "one socket a thread; ids of another pid namespace may clash",
        Formula::Libnl => "1024 sockets a process; ids of another pid namespace may clash",
        Formula::Kernel => "always another one: the kernel looks before it gives",
    }
}
