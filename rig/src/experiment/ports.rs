//! The experiment `ports`: what are ports worth that threads compute for
//! themselves?
//!
//! The claim under test is the paper's (Xiong, Ding and Luo, 2017):
//! `pthread_self() << 16 | getpid()` has duplicates, by chance, and
//! `pthread_self() >> 16 | getpid() << 16` has none. Every thread says where it is
//! before the first one binds; from that it is predicted, thread by thread, which
//! port it will have, and no disagreement is allowed.

mod batch;
mod chance;
mod figure;
mod formula;
mod judge;
mod layout;
mod plan;
mod read;
mod table;

use anyhow::Result;
use serde_json::{Map, Value};

use super::{Experiment, Judgement, Observed, Selection, Trial};
use crate::report::{Section, TrialReport};

/// See the module's documentation.
pub struct Ports;

impl Experiment for Ports {
    fn name(&self) -> &'static str {
        "ports"
    }

    fn summary(&self) -> &'static str {
        "which formulas for ports give each thread its own, which do not, and why"
    }

    fn parameters(&self) -> &'static [(&'static str, &'static str)] {
        &[
            (
                "formula",
                "linux-journal, paper, paper-masked, paper-xor, high-half, shift-12, gettid, libnl, kernel; each: all, one after the other",
            ),
            ("threads", "how many threads, or `most`"),
            ("malloc", "on: each thread calls malloc once (off)"),
            ("aslr", "off: the kernel places mappings at fixed addresses"),
            (
                "processes",
                "2: two processes at once; more: a batch of so many, for the chance of a duplicate",
            ),
        ]
    }

    fn plan(&self, selection: &Selection) -> Result<Vec<Trial>> {
        plan::trials(selection)
    }

    fn predict(&self, trial: &Trial, so_far: &[Value]) -> Result<Option<Map<String, Value>>> {
        judge::predict(trial, so_far)
    }

    fn judge(&self, trial: &Trial, observed: &Observed) -> Judgement {
        match judge::judge(trial, observed) {
            Ok(judgement) => judgement,
            Err(err) => Judgement::fail(None, format!("{err:#}")),
        }
    }

    fn sections(&self, trials: &[&TrialReport]) -> Vec<Section> {
        table::sections(trials)
    }
}

#[cfg(test)]
mod tests;
