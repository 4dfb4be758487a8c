//! From what the workload reports to a prediction, and to a verdict.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use nlrig_guest::ports::{Formula, PortReport};
use nlrig_guest::protocol::Exit;
use serde::Deserialize;
use serde_json::Value;

use super::batch;
use super::formula::{Process, Tally, answers, port};
use super::layout::StackLayout;
use super::types::{
    BindCounts, FormulaResult, ListedThread, PortMeasurement, PortParams, PortPrediction,
    ProcessResult, WorstCounts,
};
use crate::experiment::{Judgement, Observed, Trial};

/// Processes that there can be at once.
const PROCESSES_MAX: usize = 2;
/// So many threads are listed in the report, one by one.
const LISTED_MAX: usize = 20;

/// A line that the workload has written.
pub(super) fn report(data: &Value) -> Result<PortReport> {
    PortReport::deserialize(data).context("the workload's report cannot be understood")
}

/// A prediction, once all threads have reported where they are.
pub fn predict(trial: &Trial<PortParams>, so_far: &[Value]) -> Result<Option<PortPrediction>> {
    let asked = processes(trial);
    // The last one decides; the others are read once a process.
    match so_far.last().map(report).transpose()? {
        Some(PortReport::Spawned { of, .. }) if asked <= PROCESSES_MAX => {
            ensure!(
                of as usize == asked,
                "{of} processes are reported, and {asked} were asked for"
            );
            let crowds = Crowds::read(so_far, asked)?;
            let all = crowds.gathered == asked;
            Ok(all.then(|| crowds.predicted(trial)))
        }
        Some(PortReport::Batch { processors, .. }) if asked > PROCESSES_MAX => {
            let probabilities = layout(trial, processors).probabilities(batch_threads(trial)?);
            let probability = batch::rounded(&probabilities);
            Ok(Some(PortPrediction::Batch { probability }))
        }
        _ => Ok(None),
    }
}

/// Judges a trial by its program, which ended.
pub fn evaluate(
    trial: &Trial<PortParams>,
    observed: &Observed<PortPrediction>,
) -> Result<Judgement<PortMeasurement>> {
    if observed.exit != Exit::Code(0) {
        bail!("the workload ended with {:?}", observed.exit);
    }
    let first = observed.data.first().map(report).transpose()?;
    let (measured, wrong) = match (processes(trial), first) {
        (0..=PROCESSES_MAX, _) => crowds(trial, observed)?,
        (_, Some(PortReport::Batch { processors, .. })) => {
            batch::judge(trial, observed, batch_threads(trial)?, processors)?
        }
        _ => bail!("the workload reported no batch of processes"),
    };
    Ok(Judgement::by(measured, wrong))
}

/// How many processes are asked for.
fn processes(trial: &Trial<PortParams>) -> usize {
    trial.params.processes as usize
}

/// How many threads each process of a batch has.
fn batch_threads(trial: &Trial<PortParams>) -> Result<usize> {
    let count = trial.params.threads.count().context("a batch has a number of threads")?;
    Ok(count as usize)
}

/// Where the threads of a process of this trial are, by the model.
pub(super) fn layout(trial: &Trial<PortParams>, processors: u32) -> StackLayout {
    let PortParams { stack_bytes, malloc, .. } = trial.params;
    StackLayout { program: trial.abi.program(), stack_bytes, malloc, processors }
}

/// Everything that one or two processes have reported.
#[derive(Debug, Default)]
struct Crowds {
    processes: Vec<Process>,
    /// How many of them have said that all of their threads are there.
    gathered: usize,
    /// Why there were no more threads: an errno.
    refused: Option<i32>,
    /// The ports of the threads of each process, by formula.
    ports: Vec<(Formula, Vec<Vec<Option<u32>>>)>,
    /// What each process came to, by formula.
    bound: Vec<BoundReport>,
}

/// See [`PortReport::Bound`].
#[derive(Debug)]
struct BoundReport {
    formula: Formula,
    echoes: u64,
    wrong: Option<String>,
}

impl Crowds {
    /// What was reported of so many processes.
    fn read(data: &[Value], asked: usize) -> Result<Crowds> {
        let mut crowds = Crowds::default();
        for value in data {
            match report(value)? {
                PortReport::Threads { process, addresses, ids } => {
                    ensure!(addresses.len() == ids.len(), "as many ids as threads are reported");
                    let threads = addresses.into_iter().zip(ids);
                    crowds.process(process, asked)?.threads.extend(threads);
                }
                PortReport::Spawned { process, pid, time_s, refused, threads, .. } => {
                    let it = crowds.process(process, asked)?;
                    let told = it.threads.len();
                    ensure!(told == threads as usize, "{threads} threads, and {told} are reported");
                    ensure!(it.pid == 0, "process {process} has gathered twice");
                    ensure!(pid != 0, "process {process} has no id");
                    (it.pid, it.time_s) = (pid, time_s);
                    crowds.gathered += 1;
                    crowds.refused = crowds.refused.or(refused);
                }
                PortReport::Ports { process, formula, ports } => {
                    let at = place(process, asked)?;
                    let known = crowds.ports.iter().position(|(known, _)| *known == formula);
                    let index = known.unwrap_or_else(|| {
                        crowds.ports.push((formula, vec![Vec::new(); PROCESSES_MAX]));
                        crowds.ports.len() - 1
                    });
                    crowds.ports[index].1[at].extend(ports);
                }
                PortReport::Bound { formula, echoes, unexpected, moved, failed, .. } => {
                    let wrong = match (failed, unexpected, moved) {
                        (Some(failed), ..) => {
                            Some(format!("{} failed with {}", failed.call, failed.name))
                        }
                        (None, 0, 0) => None,
                        (None, 0, moved) => {
                            Some(format!("{moved} threads were not where they were before"))
                        }
                        (None, unexpected, _) => {
                            Some(format!("{unexpected} sockets got what was not for them"))
                        }
                    };
                    crowds.bound.push(BoundReport { formula, echoes: echoes.into(), wrong });
                }
                PortReport::Progress { .. } => {}
                PortReport::Batch { .. } | PortReport::Process { .. } => {
                    bail!("a batch of processes is reported, and none was asked for");
                }
            }
        }
        Ok(crowds)
    }

    fn process(&mut self, number: u32, asked: usize) -> Result<&mut Process> {
        let at = place(number, asked)?;
        if self.processes.len() <= at {
            self.processes.resize(at + 1, Process::default());
        }
        Ok(&mut self.processes[at])
    }

    fn predicted(&self, trial: &Trial<PortParams>) -> PortPrediction {
        let counts =
            |formula| -> BindCounts { Tally::predicted(&answers(formula, &self.processes)).into() };
        if let Some(formula) = trial.params.formula.one() {
            return PortPrediction::One(counts(formula));
        }
        let by_formula: BTreeMap<_, _> =
            Formula::ALL.into_iter().map(|formula| (formula, counts(formula))).collect();
        let worst = WorstCounts::of(by_formula.values().copied());
        PortPrediction::Each { worst, by_formula }
    }

    /// Why a formula's ports are not those predicted, if they are not: the first
    /// thread that has another one.
    fn disagreement(&self, formula: Formula) -> Option<String> {
        let name = formula.name();
        let expected = answers(formula, &self.processes);
        let Some((_, seen)) = self.ports.iter().find(|(known, _)| *known == formula) else {
            return Some(format!("{name}: no ports were reported"));
        };
        for (process, (expected, seen)) in expected.iter().zip(seen).enumerate() {
            if expected.len() != seen.len() {
                let (threads, ports) = (expected.len(), seen.len());
                return Some(format!("{name}: {threads} threads, and {ports} of them bound"));
            }
            let wrong = expected.iter().zip(seen).position(|(answer, port)| !answer.is(*port));
            if let Some(at) = wrong {
                let (answer, port) = (expected[at], show(seen[at]));
                let thread = at + 1;
                return Some(format!(
                    "{name}: thread {thread} of process {process} has {port}; predicted {answer:?}"
                ));
            }
        }
        None
    }

    fn seen(&self, formula: Formula) -> impl Iterator<Item = Option<u32>> {
        let ports = self.ports.iter().filter(move |(known, _)| *known == formula);
        ports.flat_map(|(_, processes)| processes.iter().flatten().copied())
    }
}

fn place(process: u32, asked: usize) -> Result<usize> {
    let process = process as usize;
    ensure!(
        process < asked.min(PROCESSES_MAX),
        "process {process} is reported, and there is no such one"
    );
    Ok(process)
}

fn show(port: Option<u32>) -> String {
    port.map_or("none, it was in use".to_string(), |port| format!("{port:#x}"))
}

/// What was measured of one or two processes, and what is wrong with it.
fn crowds(
    trial: &Trial<PortParams>,
    observed: &Observed<PortPrediction>,
) -> Result<(PortMeasurement, Option<String>)> {
    let crowds = Crowds::read(&observed.data, processes(trial))?;
    let formulas = trial.params.formula.formulas();
    // As many as there can be are refused one more.
    let fewer = match trial.params.threads.count() {
        None => crowds.refused.is_none(),
        Some(asked) => {
            crowds.processes.iter().any(|process| process.threads.len() < asked as usize)
        }
    };
    let twice = formulas.iter().find(|formula| {
        let mut ports: Vec<_> = crowds.seen(**formula).flatten().collect();
        ports.sort_unstable();
        ports.windows(2).any(|pair| pair[0] == pair[1])
    });
    let wrong_bound = crowds.bound.iter().find_map(|bound| bound.wrong.clone());
    let wrong_echo = formulas.iter().find_map(|formula| {
        let of = |bound: &&BoundReport| bound.formula == *formula;
        let echoes: u64 = crowds.bound.iter().filter(of).map(|bound| bound.echoes).sum();
        let ports = crowds.seen(*formula).flatten().count() as u64;
        (echoes != ports).then(|| format!("{ports} threads with a port, {echoes} own echoes"))
    });
    let predicted = crowds.predicted(trial);
    let wrong = if let Some(wrong) = wrong_bound {
        Some(wrong)
    } else if crowds.gathered != processes(trial) {
        Some(format!("{} processes have gathered their threads", crowds.gathered))
    } else if fewer {
        Some(format!("not as many threads as were asked for: errno {:?}", crowds.refused))
    } else if let Some(formula) = twice {
        Some(format!("{}: two threads have the same port", formula.name()))
    } else if let Some(wrong) = formulas.iter().find_map(|formula| crowds.disagreement(*formula)) {
        Some(wrong)
    } else if observed.predicted.as_ref() != Some(&predicted) {
        Some("what was predicted before does not follow from where threads are".to_string())
    } else {
        wrong_echo
    };
    Ok((crowds.measured(trial), wrong))
}

impl Crowds {
    fn measured(&self, trial: &Trial<PortParams>) -> PortMeasurement {
        let threads: usize = self.processes.iter().map(|process| process.threads.len()).sum();
        let threads = threads as u64;
        let processes = ProcessResult {
            pids: self.processes.iter().map(|process| process.pid).collect(),
            errno: self.refused,
            address_step_bytes: self.processes.first().and_then(most_common_step),
        };
        if let Some(formula) = trial.params.formula.one() {
            let mut result = self.result(formula);
            result.counts.threads = threads;
            return PortMeasurement::One { result, processes };
        }
        let by_formula: BTreeMap<_, _> =
            Formula::ALL.into_iter().map(|formula| (formula, self.result(formula))).collect();
        let worst = WorstCounts::of(by_formula.values().map(|result| result.counts));
        PortMeasurement::Each { worst, by_formula, threads, processes }
    }

    /// What was seen of one formula.
    fn result(&self, formula: Formula) -> FormulaResult {
        let ports: Vec<_> = self.seen(formula).flatten().collect();
        let lowest = ports.iter().min().copied();
        let differ = |lowest| ports.iter().fold(0, |bits, port| bits | port ^ lowest);
        FormulaResult {
            counts: Tally::of(self.seen(formula).map(|port| port.is_some())).into(),
            lowest_port: lowest,
            highest_port: ports.iter().max().copied(),
            bits_that_differ: lowest.map(|lowest| format!("{:#010x}", differ(lowest))),
            listed: self.listed(formula),
        }
    }

    /// The threads one by one, if they are the few of one process.
    fn listed(&self, formula: Formula) -> Option<Vec<ListedThread>> {
        let [one] = &self.processes[..] else { return None };
        let threads = one.threads.iter().zip(self.seen(formula)).map(|(&(own, id), seen)| {
            let wanted = port(formula, own, id, one.pid);
            ListedThread {
                pthread_self: format!("{own:#x}"),
                port: wanted.or(seen).map(|port| format!("{port:#010x}")),
                bound: seen.is_some(),
            }
        });
        (one.threads.len() <= LISTED_MAX).then(|| threads.collect())
    }
}

/// How far threads are from the one before, mostly.
fn most_common_step(process: &Process) -> Option<u64> {
    let steps = process.threads.windows(2).map(|pair| pair[0].0.abs_diff(pair[1].0));
    let mut steps: Vec<_> = steps.collect();
    steps.sort_unstable();
    let runs = steps.chunk_by(|a, b| a == b);
    runs.max_by_key(|run| run.len()).and_then(|run| run.first().copied())
}
