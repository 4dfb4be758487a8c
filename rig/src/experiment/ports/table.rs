//! The tables of `ports`, and what each says in plain words: from the claim to the
//! conclusion.

use std::collections::BTreeMap;

use nlrig_guest::ports::Formula;

use super::chance::{curve, figure_4};
use super::types::{BindCounts, Bound, PortMeasurement, PortTrial, columns, counts, each};
use crate::abi::Abi;
use crate::report::Section;
use crate::units::show_size;

/// All tables that there are trials for.
pub fn sections(trials: &[&PortTrial<'_>]) -> Vec<Section> {
    let mut sections = vec![claim()];
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

/// What is claimed, and how it is tried, for who has not read the paper.
fn claim() -> Section {
    Section {
        title: "Ports that threads compute: the claim".to_string(),
        words: "A netlink socket has an address, the port, a number of 32 bits that programs fill in as \
                nl_pid. In a network namespace each port of a protocol is there once: who binds one \
                that another socket has gets EADDRINUSE. Many programs bind their process id, which is \
                one port for a whole process; threads that want a socket each need more.\n\nA formula \
                printed in the Linux Journal in 2005, and widely copied, is pthread_self() << 16 | \
                getpid(). Xiong, Ding and Luo (2017) say that it has duplicates, with a probability \
                that grows with the number of threads by the birthday formula, and that \
                pthread_self() >> 16 | getpid() << 16 has none in the whole system; their proof is two \
                tables with 1449 threads in a 32-bit process and close to 32768 in a 64-bit one.\n\nHere \
                threads say where they are before the first one binds. From that it is predicted which \
                port each will have and which bind() the kernel will refuse, and a trial passes only \
                if the kernel agrees for every thread, and if every thread with a port gets its own \
                echo from the module and nobody else's."
            .to_string(),
        ..Section::default()
    }
}

/// All formulas by ABI, with a thousand threads.
fn formulas(trials: &[&PortTrial<'_>]) -> Option<Section> {
    let mut cells: BTreeMap<(Formula, usize), BindCounts> = BTreeMap::new();
    let mut threads = 0;
    for trial in trials.iter().filter(|trial| trial.params.setting == "n=1000") {
        if let (Some(formula), Some(seen)) = (trial.params.formula.one(), counts(trial)) {
            let column = Abi::ALL.iter().position(|abi| *abi == trial.report.abi)?;
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
                With few threads that does not show yet: see the next tables."
            .to_string(),
        ..Section::default()
    })
}

/// The settings that matter, each by name.
fn settings(trials: &[&PortTrial<'_>]) -> Option<Section> {
    let in_tables = |trial: &PortTrial<'_>| {
        trial.params.setting == "n=1000"
            || trial.params.formula == Bound::Each
            || matches!(trial.measured, Some(PortMeasurement::Batch { .. }))
    };
    let row = |trial: &&PortTrial<'_>| {
        let seen = counts(trial)?;
        Some(vec![
            trial.report.abi.to_string(),
            trial.params.setting.to_string(),
            trial.params.formula.name().to_string(),
            seen.threads.to_string(),
            seen.first(),
            seen.share(),
            seen.distinct.to_string(),
            trial.report.verdict.name().to_string(),
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
        words: [vec![two_processes(trials)], apart(trials)].concat().join("\n\n"),
        ..Section::default()
    })
}

/// Whether two processes clash without randomisation, as it came out.
fn two_processes(trials: &[&PortTrial<'_>]) -> String {
    let mut words = String::from(
        "Threads are counted over both processes where there are two, in the order in which they bind.",
    );
    for &trial in trials {
        let two = trial.params.setting == "two-processes/aslr=off";
        let (Some(seen), Some(formula), true) = (counts(trial), trial.params.formula.one(), two)
        else {
            continue;
        };
        let (abi, name, each) = (trial.report.abi, formula.name(), seen.threads / 2);
        words.push_str(&format!(" Without randomisation two {abi} processes under {name} "));
        words.push_str(&match seen.first_collision {
            Some(first) if first == each + 1 => format!(
                "collide at the first thread of the second one, and {} of its {each} threads have \
                 no port.",
                seen.collisions
            ),
            Some(first) => format!("collide at thread {first}."),
            None => "do not collide.".to_string(),
        });
    }
    words
}

/// What single settings have shown, as far as they have, a paragraph each.
fn apart(trials: &[&PortTrial<'_>]) -> Vec<String> {
    let of = |setting: &str, which: Formula| {
        let named = move |trial: &&PortTrial<'_>| {
            trial.params.setting.starts_with(setting) && trial.params.formula.one() == Some(which)
        };
        trials.iter().copied().filter(named).filter_map(counts).collect::<Vec<_>>()
    };
    let collide = |setting: &str, which: Formula| {
        let seen = of(setting, which);
        !seen.is_empty() && seen.iter().all(|seen| seen.collisions > 0)
    };
    let mut words = Vec::new();
    let aligned = of("stack-and-guard", Formula::LinuxJournal);
    if aligned.iter().any(|seen| seen.first_collision == Some(2)) {
        words.push(
            "Where stack and guard are a multiple of 64 KiB all threads have the same four bits, and \
             the second one already has no port by the Linux Journal's formula."
                .to_string(),
        );
    }
    if collide("stack=32K", Formula::Paper) {
        words.push(
            "Where stacks are less than 64 KiB apart neighbours share what the paper's formula keeps."
                .to_string(),
        );
    }
    let first = |setting: &str| {
        let seen = of(setting, Formula::Paper).first().copied()?;
        Some(match seen.first_collision {
            Some(first) => {
                format!("thread {first} of {} is the first without a port", seen.threads)
            }
            None => format!("all {} threads have a port", seen.threads),
        })
    };
    if let (Some(few), Some(many)) = (first("pid=1024"), first("pid=4095")) {
        words.push(format!(
            "On 64 bits the process id decides where the paper's formula fails, because the address is \
             or-ed over it: with an id of one bit (1024) {few}, with one of twelve bits (4095) {many}."
        ));
    }
    if collide("started-again", Formula::LinuxJournal) {
        words.push(
            "A thread that starts where one has ended has its address, and so its port: whoever leaves \
             a socket open when a thread ends meets it again."
                .to_string(),
        );
    }
    if collide("two-processes/pid=", Formula::PaperXor) {
        words.push(
            "A process id may have 22 bits; what shifts it by 16 keeps 16 of them, and two processes \
             whose ids differ above have the same ports."
                .to_string(),
        );
    }
    words
}

/// How many of as many threads as there can be have a port of their own.
fn table_4(trials: &[&PortTrial<'_>]) -> Option<Section> {
    let counted = |trial: &&&PortTrial<'_>| {
        trial.params.formula == Bound::Each
            && trial.params.threads.count().is_none()
            && trial.measured.is_some()
    };
    let many: Vec<_> = trials.iter().filter(counted).collect();
    let row = |trial: &&&PortTrial<'_>| {
        let stack = show_size(trial.params.stack_bytes);
        let threads = counts(trial)?.threads;
        let cells = Formula::ALL.map(|formula| {
            each(trial, formula).map_or("-".to_string(), |seen| seen.distinct.to_string())
        });
        Some(
            [trial.report.abi.to_string(), stack, threads.to_string()]
                .into_iter()
                .chain(cells)
                .collect(),
        )
    };
    let rows: Vec<Vec<String>> = many.iter().filter_map(row).collect();
    if rows.is_empty() {
        return None;
    }
    let paper: Vec<_> = many.iter().filter_map(|trial| each(trial, Formula::Paper)).collect();
    let lost = paper.iter().filter(|seen| seen.collisions > 0).count();
    let firsts: Vec<_> = paper.iter().filter_map(|seen| seen.first_collision).collect();
    let first = match (firsts.iter().min(), firsts.iter().max()) {
        (Some(low), Some(high)) if low == high => format!(" from thread {low} on"),
        (Some(low), Some(high)) => format!(" from thread {low} to {high} on, by the stack"),
        _ => String::new(),
    };
    let always = Formula::ALL.into_iter().filter(|formula| {
        let has_all = |trial: &&&PortTrial<'_>| {
            each(trial, *formula).is_some_and(|seen| seen.collisions == 0)
        };
        many.iter().all(has_all)
    });
    let always: Vec<_> = always.map(Formula::name).collect();
    let words = format!(
        "The paper's Table 4 says that a 64-bit process holds close to 32768 threads, each with a port \
         by its formula. So many threads there can be; but here the same threads bound by each formula \
         in turn, and the table shows how many had a port of their own. By the paper's formula threads \
         are without a port in {lost} of {} rows{first}: the bits of the address above 32 are or-ed \
         over the process id, and two stacks that differ only there and where the id has a bit set \
         get one port. Where that begins is chance, by the process id and the addresses of a run. \
         Every thread had its own port in every row by {}; libnl has 1024 ports a process.",
        paper.len(),
        if always.is_empty() { "none of them".to_string() } else { always.join(", ") }
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
fn advice(trials: &[&PortTrial<'_>]) -> Option<Section> {
    let mut failed: BTreeMap<Formula, (u64, u64)> = BTreeMap::new();
    let mut count = |formula: Formula, seen: BindCounts| {
        let (tried, duplicates) = failed.entry(formula).or_default();
        *tried += 1;
        *duplicates += u64::from(seen.collisions > 0);
    };
    for trial in trials {
        match (trial.params.formula.one(), counts(trial)) {
            (Some(formula), Some(seen)) => count(formula, seen),
            _ => {
                for formula in Formula::ALL {
                    if let Some(seen) = each(trial, formula) {
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
        words: conclusion(trials),
        ..Section::default()
    })
}

/// How the paper's formula fared, by word size, and what to do.
fn conclusion(trials: &[&PortTrial<'_>]) -> String {
    let count = |abi: Abi| {
        let of = trials.iter().filter(|trial| trial.report.abi == abi);
        let seen = of.filter_map(|trial| match trial.params.formula.one() {
            Some(Formula::Paper) => counts(trial),
            None => each(trial, Formula::Paper),
            _ => None,
        });
        let seen: Vec<_> = seen.collect();
        let failed = seen.iter().filter(|seen| seen.collisions > 0).count();
        (!seen.is_empty()).then(|| format!("in {failed} of {} trials on {abi}", seen.len()))
    };
    let counts: Vec<_> = Abi::ALL.into_iter().filter_map(count).collect();
    format!(
        "The thesis is half right. The Linux Journal's formula does have duplicates, but for another \
         reason than chance: it has sixteen values, and what decides is where the C library and the \
         kernel put stacks. The paper's formula had duplicates {}. On 32 bits it is a splice of two \
         halves that do not touch, as long as stacks are 64 KiB apart and process ids have 16 bits; \
         on 64 bits it is not.\n\nWhat to do: bind port 0, and ask getsockname() what the kernel chose. \
         The kernel looks into its table before it gives a port; whoever computes one can only hope. \
         Where an interface wants a number, gettid() is one that no other thread of the same pid \
         namespace has, for one socket a thread.",
        counts.join(", ")
    )
}

fn why(formula: Formula) -> &'static str {
    match formula {
        Formula::LinuxJournal => "sixteen values in a process; ids above 65535 run into them",
        Formula::Paper => "64-bit addresses run over the process id; stacks closer than 64 KiB",
        Formula::PaperMasked => "16 bits of address repeat after 4 GiB of stacks; ids above 65535",
        Formula::PaperXor => "process ids above 65535; nothing promises the rest",
        Formula::HighHalf => "as paper-masked, the other way round",
        Formula::Shift12 => {
            "64-bit addresses run over the process id: without randomisation it is lost"
        }
        Formula::Gettid => "one socket a thread; ids of another pid namespace may clash",
        Formula::Libnl => "1024 sockets a process; ids of another pid namespace may clash",
        Formula::Kernel => "always another one: the kernel looks before it gives",
    }
}
