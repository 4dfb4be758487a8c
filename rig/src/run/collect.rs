//! What a program in a guest reports, as it comes: looked at for a prediction,
//! shown, and kept as far as it is not without end.

use anyhow::Result;
use serde_json::{Map, Value};

use crate::experiment::{Experiment, Trial};
use crate::guest::Loss;
use crate::report::Verdict;
use crate::say;

/// What a workload may report in one trial, in objects and in bytes.
const DATA_MAX: usize = 100_000;
const DATA_MAX_BYTES: usize = 32 << 20;

/// The reports of one trial.
pub struct Collected<'a> {
    experiment: &'a dyn Experiment,
    trial: &'a Trial,
    /// What was reported, in its order, but for signs of life.
    pub data: Vec<Value>,
    bytes: usize,
    /// What was predicted from the first of it.
    pub predicted: Option<Map<String, Value>>,
    /// Why nothing could be predicted.
    pub unpredictable: Option<String>,
    /// The last sign of life.
    pub last_sign: Option<Value>,
    progress: say::Progress,
}

impl<'a> Collected<'a> {
    /// Nothing yet.
    pub fn new(experiment: &'a dyn Experiment, trial: &'a Trial) -> Collected<'a> {
        Collected {
            experiment,
            trial,
            data: Vec::new(),
            bytes: 0,
            predicted: None,
            unpredictable: None,
            last_sign: None,
            progress: say::Progress::new(),
        }
    }

    /// Takes one object.
    ///
    /// # Errors
    /// A [`Loss`] if it is one too many.
    pub fn take(&mut self, value: Value) -> Result<()> {
        if self.predicted.is_none() && self.unpredictable.is_none() {
            match self.experiment.predict(self.trial, &value) {
                Ok(made) => self.predicted = made,
                Err(err) => self.unpredictable = Some(format!("{err:#}")),
            }
        }
        // Of signs of life only the last one is for the record.
        if let Some(sign) = value.get("progress") {
            self.progress.update(|| format!("{}: {sign}", self.trial.name));
            self.last_sign = Some(value);
            return Ok(());
        }
        self.bytes += value.to_string().len();
        if self.data.len() == DATA_MAX || self.bytes > DATA_MAX_BYTES {
            let reason = format!(
                "the guest reported without end: more than {DATA_MAX} objects or {} MiB",
                DATA_MAX_BYTES >> 20
            );
            return Err(Loss::new(Verdict::Fail, reason).into());
        }
        self.data.push(value);
        Ok(())
    }
}
