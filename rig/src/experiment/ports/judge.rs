//! From what the workload reports to a prediction, and to a verdict.

use anyhow::{Context, Result, bail, ensure};
use nlrig_guest::ports::{Formula, Report};
use nlrig_guest::protocol::Exit;
use serde_json::{Map, Value, json};

use super::batch;
use super::formula::{Process, Tally, answers, port};
use super::layout::StackLayout;
use crate::experiment::{Judgement, Observed, Trial, object};

/// Processes that there can be at once.
const PROCESSES_MAX: usize = 2;
/// So many threads are listed in the report, one by one.
const LISTED_MAX: usize = 20;

/// A line that the workload has written.
pub(super) fn report(data: &Value) -> Result<Report> {
    serde_json::from_value(data.clone()).context("the workload's report cannot be understood")
}

/// A prediction, once all threads have said where they are.
pub fn predict(trial: &Trial, so_far: &[Value]) -> Result<Option<Map<String, Value>>> {
    let asked = processes(trial);
    // The last one decides; the others are looked at once a process.
    match so_far.last().map(report).transpose()? {
        Some(Report::Gathered { of, .. }) if asked <= PROCESSES_MAX => {
            ensure!(
                of as usize == asked,
                "{of} processes are reported, and {asked} were asked for"
            );
            let crowds = Crowds::read(so_far, asked)?;
            let all = crowds.gathered == asked;
            Ok(all.then(|| crowds.predicted(&formulas(trial))))
        }
        Some(Report::Batch { processors, .. }) if asked > PROCESSES_MAX => {
            let probabilities = layout(trial, processors).probabilities(threads(trial));
            Ok(Some(object(json!({ "probability": batch::rounded(&probabilities) }))))
        }
        _ => Ok(None),
    }
}

/// What came of a trial whose program ended.
pub fn judge(trial: &Trial, observed: &Observed) -> Result<Judgement> {
    if observed.exit != Exit::Code(0) {
        bail!("the workload ended with {:?}", observed.exit);
    }
    let first = observed.data.first().map(report).transpose()?;
    let (measured, wrong) = match (processes(trial), first) {
        (0..=PROCESSES_MAX, _) => crowds(trial, observed)?,
        (_, Some(Report::Batch { processors, .. })) => batch::judge(trial, observed, processors)?,
        _ => bail!("the workload reported no batch of processes"),
    };
    Ok(match wrong {
        None => Judgement::pass(Some(measured)),
        Some(reason) => Judgement::fail(Some(measured), reason),
    })
}

fn formulas(trial: &Trial) -> Vec<Formula> {
    let name = trial.params.get("formula").and_then(Value::as_str).unwrap_or_default();
    Formula::from_name(name).map_or(Formula::ALL.to_vec(), |formula| vec![formula])
}

/// How many processes are asked for.
fn processes(trial: &Trial) -> usize {
    trial.params.get("processes").and_then(Value::as_u64).unwrap_or(1) as usize
}

/// How many threads are asked for; 0 for as many as there can be.
pub(super) fn threads(trial: &Trial) -> usize {
    trial.params.get("threads").and_then(Value::as_u64).unwrap_or(0) as usize
}

/// Where the threads of a process of this trial are, by the model.
pub(super) fn layout(trial: &Trial, processors: u32) -> StackLayout {
    let param = |key: &str| trial.params.get(key);
    StackLayout {
        program: trial.abi.program(),
        stack_bytes: param("stack_bytes").and_then(Value::as_u64).unwrap_or(0),
        malloc: param("malloc").and_then(Value::as_bool).unwrap_or(false),
        processors,
    }
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
    bound: Vec<Bound>,
}

/// See [`Report::Bound`].
#[derive(Debug)]
struct Bound {
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
                Report::Threads { process, addresses, ids } => {
                    ensure!(addresses.len() == ids.len(), "as many ids as threads are reported");
                    let threads = addresses.into_iter().zip(ids);
                    crowds.process(process, asked)?.threads.extend(threads);
                }
                Report::Gathered { process, pid, time_s, refused, threads, .. } => {
                    let it = crowds.process(process, asked)?;
                    let told = it.threads.len();
                    ensure!(told == threads as usize, "{threads} threads, and {told} are reported");
                    ensure!(it.pid == 0, "process {process} has gathered twice");
                    ensure!(pid != 0, "process {process} has no id");
                    (it.pid, it.time_s) = (pid, time_s);
                    crowds.gathered += 1;
                    crowds.refused = crowds.refused.or(refused);
                }
                Report::Ports { process, formula, ports } => {
                    let at = place(process, asked)?;
                    let known = crowds.ports.iter().position(|(known, _)| *known == formula);
                    let index = known.unwrap_or_else(|| {
                        crowds.ports.push((formula, vec![Vec::new(); PROCESSES_MAX]));
                        crowds.ports.len() - 1
                    });
                    crowds.ports[index].1[at].extend(ports);
                }
                Report::Bound { formula, echoes, strays, moved, failed, .. } => {
                    let wrong = match (failed, strays, moved) {
                        (Some(failed), ..) => {
                            Some(format!("{} failed with {}", failed.call, failed.name))
                        }
                        (None, 0, 0) => None,
                        (None, 0, moved) => {
                            Some(format!("{moved} threads were not where they were before"))
                        }
                        (None, strays, _) => {
                            Some(format!("{strays} sockets got what was not for them"))
                        }
                    };
                    crowds.bound.push(Bound { formula, echoes: echoes.into(), wrong });
                }
                Report::Progress { .. } => {}
                Report::Batch { .. } | Report::Process { .. } => {
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

    fn predicted(&self, formulas: &[Formula]) -> Map<String, Value> {
        by_formula(formulas, |formula| {
            Tally::predicted(&answers(formula, &self.processes)).to_map()
        })
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

/// One formula's values by themselves; those of several by their names, behind
/// what the worst of them came to.
fn by_formula(
    formulas: &[Formula],
    value: impl Fn(Formula) -> Map<String, Value>,
) -> Map<String, Value> {
    if let [formula] = formulas {
        return value(*formula);
    }
    let all: Vec<_> = formulas.iter().map(|formula| (formula.name(), value(*formula))).collect();
    let values = |key: &'static str| all.iter().filter_map(move |(_, map)| map.get(key)?.as_u64());
    let mut map = object(json!({
        "first_collision": values("first_collision").min(),
        "collisions": values("collisions").max(),
        "distinct": values("distinct").min(),
    }));
    let all = all.into_iter().map(|(name, map)| (name.to_string(), map.into()));
    map.insert("by_formula".into(), Value::Object(all.collect()));
    map
}

fn crowds(trial: &Trial, observed: &Observed) -> Result<(Map<String, Value>, Option<String>)> {
    let crowds = Crowds::read(&observed.data, processes(trial))?;
    let formulas = formulas(trial);
    let measured = by_formula(&formulas, |formula| measured(&crowds, formula));
    let asked = threads(trial);
    // As many as there can be are refused one more.
    let fewer = match asked {
        0 => crowds.refused.is_none(),
        _ => crowds.processes.iter().any(|process| process.threads.len() < asked),
    };
    let twice = formulas.iter().find(|formula| {
        let mut ports: Vec<_> = crowds.seen(**formula).flatten().collect();
        ports.sort_unstable();
        ports.windows(2).any(|pair| pair[0] == pair[1])
    });
    let wrong_bound = crowds.bound.iter().find_map(|bound| bound.wrong.clone());
    let wrong_echo = formulas.iter().find_map(|formula| {
        let of = |bound: &&Bound| bound.formula == *formula;
        let echoes: u64 = crowds.bound.iter().filter(of).map(|bound| bound.echoes).sum();
        let ports = crowds.seen(*formula).flatten().count() as u64;
        (echoes != ports).then(|| format!("{ports} threads with a port, {echoes} own echoes"))
    });
    let predicted = crowds.predicted(&formulas);
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
    let mut measured = measured;
    let threads: usize = crowds.processes.iter().map(|process| process.threads.len()).sum();
    measured.insert("threads".into(), json!(threads));
    measured.insert("pids".into(), crowds.processes.iter().map(|process| process.pid).collect());
    if let Some(errno) = crowds.refused {
        measured.insert("errno".into(), json!(errno));
    }
    if let Some(step) = crowds.processes.first().and_then(most_common_step) {
        measured.insert("address_step_bytes".into(), json!(step));
    }
    Ok((measured, wrong))
}

/// What was seen of one formula.
fn measured(crowds: &Crowds, formula: Formula) -> Map<String, Value> {
    let mut map = Tally::of(crowds.seen(formula).map(|port| port.is_some())).to_map();
    let ports: Vec<_> = crowds.seen(formula).flatten().collect();
    if let (Some(low), Some(high)) = (ports.iter().min(), ports.iter().max()) {
        let differ = ports.iter().fold(0, |bits, port| bits | port ^ low);
        map.insert("lowest_port".into(), json!(low));
        map.insert("highest_port".into(), json!(high));
        map.insert("bits_that_differ".into(), json!(format!("{differ:#010x}")));
    }
    if let [one] = &crowds.processes[..]
        && one.threads.len() <= LISTED_MAX
    {
        let threads = one.threads.iter().zip(crowds.seen(formula)).map(|(&(own, id), seen)| {
            let wanted = port(formula, own, id, one.pid);
            json!({
                "pthread_self": format!("{own:#x}"),
                "port": wanted.or(seen).map(|port| format!("{port:#010x}")),
                "bound": seen.is_some(),
            })
        });
        map.insert("listed".into(), threads.collect());
    }
    map
}

/// How far threads are from the one before, mostly.
fn most_common_step(process: &Process) -> Option<u64> {
    let steps = process.threads.windows(2).map(|pair| pair[0].0.abs_diff(pair[1].0));
    let mut steps: Vec<_> = steps.collect();
    steps.sort_unstable();
    let runs = steps.chunk_by(|a, b| a == b);
    runs.max_by_key(|run| run.len()).and_then(|run| run.first().copied())
}
