//! The parameters, predictions and measurements of `ports`, as reports have them.

use std::collections::BTreeMap;

use nlrig_guest::ports::Formula;
use nlrig_guest::protocol::Aslr;
use serde::{Deserialize, Serialize};

use super::Ports;
use super::formula::Tally;
use crate::experiment::{OrderedMap, TrialResult};

/// A trial of a report.
pub type PortTrial<'a> = TrialResult<'a, Ports>;

/// The set-up of a trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PortParams {
    /// What is bound.
    pub formula: Bound,
    /// How many threads are asked for.
    pub threads: ThreadsAsked,
    pub stack_bytes: u64,
    /// Whether each thread calls malloc once.
    pub malloc: bool,
    pub aslr: Aslr,
    /// One process, two at once, or a batch of so many.
    pub processes: u32,
    /// The process ids, if they are chosen.
    pub pids: Vec<u32>,
    /// Whether each thread ends before the next one is created.
    pub ends: bool,
    /// What is special about the trial: the last part of its name.
    pub setting: String,
    pub sysctl: OrderedMap<String>,
    /// Resource limits; none is unlimited.
    pub rlimit: OrderedMap<Option<u64>>,
}

/// The formulas that are bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Bound {
    /// One formula.
    One(Formula),
    /// All of them, one after the other, by the same threads.
    Each,
}

impl Bound {
    /// Its name in reports and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Bound::One(formula) => formula.name(),
            Bound::Each => "each",
        }
    }

    /// The formulas.
    pub fn formulas(self) -> Vec<Formula> {
        match self {
            Bound::One(formula) => vec![formula],
            Bound::Each => Formula::ALL.to_vec(),
        }
    }

    /// The formula, if it is one.
    pub fn one(self) -> Option<Formula> {
        match self {
            Bound::One(formula) => Some(formula),
            Bound::Each => None,
        }
    }
}

impl From<Bound> for String {
    fn from(bound: Bound) -> String {
        bound.name().to_string()
    }
}

impl TryFrom<String> for Bound {
    type Error = String;

    fn try_from(name: String) -> Result<Bound, String> {
        match Formula::from_name(&name) {
            Some(formula) => Ok(Bound::One(formula)),
            None if name == Bound::Each.name() => Ok(Bound::Each),
            None => Err(format!("no formula \"{name}\"")),
        }
    }
}

/// How many threads are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ThreadsAsked {
    /// This many.
    Count(u32),
    /// As many as there can be.
    Most(Most),
}

/// The word for as many threads as there can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Most {
    /// As many as there can be.
    Most,
}

impl ThreadsAsked {
    /// The number, unless it is as many as there can be.
    pub fn count(self) -> Option<u32> {
        match self {
            ThreadsAsked::Count(count) => Some(count),
            ThreadsAsked::Most(_) => None,
        }
    }
}

/// How many threads have a port of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindCounts {
    /// Threads that bound, or tried.
    pub threads: u64,
    /// The first of them, from 1, whose port was in use.
    pub first_collision: Option<u64>,
    /// How many found their port in use.
    pub collisions: u64,
    /// How many have a port of their own.
    pub distinct: u64,
}

impl From<Tally> for BindCounts {
    fn from(tally: Tally) -> BindCounts {
        let Tally { threads, first_collision, collisions } = tally;
        BindCounts { threads, first_collision, collisions, distinct: threads - collisions }
    }
}

impl BindCounts {
    /// The share of threads without a port.
    pub fn share(self) -> String {
        let percent = 100.0 * self.collisions as f64 / self.threads.max(1) as f64;
        format!("{percent:.1} %")
    }

    /// The first collision, for a table.
    pub fn first(self) -> String {
        self.first_collision.map_or("none".to_string(), |first| first.to_string())
    }
}

/// The worst of several formulas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorstCounts {
    /// The earliest first collision.
    pub first_collision: Option<u64>,
    /// The most collisions.
    pub collisions: u64,
    /// The fewest distinct ports.
    pub distinct: u64,
}

impl WorstCounts {
    /// The worst of these.
    pub fn of(all: impl Iterator<Item = BindCounts> + Clone) -> WorstCounts {
        WorstCounts {
            first_collision: all.clone().filter_map(|counts| counts.first_collision).min(),
            collisions: all.clone().map(|counts| counts.collisions).max().unwrap_or(0),
            distinct: all.map(|counts| counts.distinct).min().unwrap_or(0),
        }
    }
}

/// What is predicted of a trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PortPrediction {
    /// The probability of a duplicate in one process, by the number of threads.
    Batch {
        /// From one thread on.
        probability: Vec<f64>,
    },
    /// Several formulas.
    Each {
        /// The worst of them.
        #[serde(flatten)]
        worst: WorstCounts,
        /// Each by its name.
        by_formula: BTreeMap<Formula, BindCounts>,
    },
    /// One formula.
    One(BindCounts),
}

/// What is measured by a trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PortMeasurement {
    /// A batch of processes.
    Batch {
        /// The worst of them.
        #[serde(flatten)]
        worst: BindCounts,
        processes: u64,
        /// In how many of them all threads were where the model has them.
        as_modelled: u64,
        /// The share of processes with a duplicate, by the number of threads.
        frequency: Vec<f64>,
    },
    /// Several formulas.
    Each {
        /// The worst of them.
        #[serde(flatten)]
        worst: WorstCounts,
        /// Each by its name.
        by_formula: BTreeMap<Formula, FormulaResult>,
        /// Threads of all processes.
        threads: u64,
        #[serde(flatten)]
        processes: ProcessResult,
    },
    /// One formula.
    One {
        #[serde(flatten)]
        result: FormulaResult,
        #[serde(flatten)]
        processes: ProcessResult,
    },
}

/// What was seen of one formula.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FormulaResult {
    #[serde(flatten)]
    pub counts: BindCounts,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lowest_port: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub highest_port: Option<u32>,
    /// The bits in which ports differ, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bits_that_differ: Option<String>,
    /// The threads one by one, if they are few.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listed: Option<Vec<ListedThread>>,
}

/// One thread and its port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListedThread {
    /// In hexadecimal.
    pub pthread_self: String,
    /// The port that the formula gives, in hexadecimal; the kernel's if it gives
    /// none.
    pub port: Option<String>,
    /// Whether the thread has the port.
    pub bound: bool,
}

/// What was seen of the processes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessResult {
    pub pids: Vec<u32>,
    /// The error that ended the creation of threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<i32>,
    /// The most common distance between the addresses of neighbouring threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_step_bytes: Option<u64>,
}

impl PortMeasurement {
    /// The counts of the trial; the worst of several formulas.
    pub fn counts(&self) -> BindCounts {
        match self {
            PortMeasurement::Batch { worst, .. } => *worst,
            PortMeasurement::One { result, .. } => result.counts,
            PortMeasurement::Each { worst, threads, .. } => {
                let WorstCounts { first_collision, collisions, distinct } = *worst;
                BindCounts { threads: *threads, first_collision, collisions, distinct }
            }
        }
    }

    /// What was seen of the processes, unless they are a batch.
    pub fn processes(&self) -> Option<&ProcessResult> {
        match self {
            PortMeasurement::Batch { .. } => None,
            PortMeasurement::Each { processes, .. } | PortMeasurement::One { processes, .. } => {
                Some(processes)
            }
        }
    }

    /// The threads one by one, if they are few.
    pub fn listed(&self) -> Option<&[ListedThread]> {
        match self {
            PortMeasurement::One { result, .. } => result.listed.as_deref(),
            _ => None,
        }
    }
}

/// The counts of a trial, if it was measured.
pub fn counts(trial: &PortTrial<'_>) -> Option<BindCounts> {
    trial.measured.as_ref().map(PortMeasurement::counts)
}

/// What a trial of all formulas has measured of one.
pub fn each(trial: &PortTrial<'_>, formula: Formula) -> Option<BindCounts> {
    match trial.measured.as_ref()? {
        PortMeasurement::Each { by_formula, .. } => Some(by_formula.get(&formula)?.counts),
        _ => None,
    }
}

/// The head of a table.
pub fn columns(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| name.to_string()).collect()
}
