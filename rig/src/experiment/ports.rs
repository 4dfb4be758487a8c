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
mod table;
mod types;

use anyhow::Result;
use serde_json::Value;

use super::{Experiment, Judgement, Observed, Selection, Trial, TrialResult};
use crate::report::Section;
use types::{PortMeasurement, PortParams, PortPrediction};

/// See the module's documentation.
pub struct Ports;

impl Experiment for Ports {
    type Params = PortParams;
    type Prediction = PortPrediction;
    type Measured = PortMeasurement;

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

    fn plan(&self, selection: &Selection) -> Result<Vec<Trial<PortParams>>> {
        plan::trials(selection)
    }

    fn predict(
        &self,
        trial: &Trial<PortParams>,
        so_far: &[Value],
    ) -> Result<Option<PortPrediction>> {
        judge::predict(trial, so_far)
    }

    fn evaluate(
        &self,
        trial: &Trial<PortParams>,
        observed: &Observed<PortPrediction>,
    ) -> Judgement<PortMeasurement> {
        judge::evaluate(trial, observed)
            .unwrap_or_else(|err| Judgement::fail(None, format!("{err:#}")))
    }

    fn sections(&self, trials: &[&TrialResult<'_, Self>]) -> Vec<Section> {
        table::sections(trials)
    }
}

#[cfg(test)]
mod tests;
