//! What a program in a guest reports, as it comes: looked at for a prediction,
//! shown, and kept as far as it is not without end.

use anyhow::Result;
use serde_json::Value;

use crate::experiment::{AnyExperiment, AnyTrial, Object};
use crate::outcome::VmFailure;
use crate::report::Verdict;
use crate::ui;

/// What a workload may report in one trial, in objects and in bytes of memory.
const DATA_MAX: usize = 100_000;
const DATA_MAX_BYTES: usize = 32 << 20;
/// What an entry of an object takes beside key and value: its hash, its place.
const ENTRY_BYTES: usize = 48;

/// The reports of one trial.
pub struct Collected<'a> {
    experiment: &'a dyn AnyExperiment,
    trial: &'a AnyTrial,
    /// What was reported, in its order, but for signs of life.
    pub data: Vec<Value>,
    bytes: usize,
    /// What was predicted from the first of it.
    pub predicted: Option<Object>,
    /// Why nothing could be predicted.
    pub unpredictable: Option<String>,
    /// The last sign of life.
    pub last_sign: Option<Value>,
    progress: ui::Progress,
}

impl<'a> Collected<'a> {
    /// Nothing yet.
    pub fn new(experiment: &'a dyn AnyExperiment, trial: &'a AnyTrial) -> Collected<'a> {
        Collected {
            experiment,
            trial,
            data: Vec::new(),
            bytes: 0,
            predicted: None,
            unpredictable: None,
            last_sign: None,
            progress: ui::Progress::new(),
        }
    }

    /// Takes one object.
    ///
    /// # Errors
    /// A [`VmFailure`] if it is one too many.
    pub fn take(&mut self, value: Value) -> Result<()> {
        // Of signs of life only the last one is for the record.
        if let Some(sign) = value.get("progress") {
            self.progress.update(|| ui::truncate(format!("{}: {sign}", self.trial.name)));
            self.last_sign = Some(value);
            return Ok(());
        }
        self.bytes = self.bytes.saturating_add(weight(&value));
        if self.data.len() == DATA_MAX || self.bytes > DATA_MAX_BYTES {
            let reason = format!(
                "the guest reported without end: more than {DATA_MAX} objects or {} MiB",
                DATA_MAX_BYTES >> 20
            );
            return Err(VmFailure::new(Verdict::Fail, reason).into());
        }
        self.data.push(value);
        if self.predicted.is_none() && self.unpredictable.is_none() {
            match self.experiment.predict(self.trial, &self.data) {
                Ok(made) => self.predicted = made,
                Err(err) => self.unpredictable = Some(format!("{err:#}")),
            }
        }
        Ok(())
    }
}

/// What a value takes of memory, about: its text may be forty times smaller.
fn weight(value: &Value) -> usize {
    size_of::<Value>()
        + match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(weight).sum(),
            Value::Object(map) => {
                map.iter().map(|(key, value)| ENTRY_BYTES + key.len() + weight(value)).sum()
            }
            _ => 0,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::Abi;
    use crate::experiment::{self, Selection};
    use serde_json::json;

    #[test]
    fn small_values_are_not_taken_for_their_text() {
        let experiment = experiment::ALL[0];
        let trial = experiment.plan(&Selection::new(&[Abi::I386], "6.1")).unwrap().remove(0);
        let mut collected = Collected::new(experiment, &trial);
        // A line of 256 KiB at most, of two bytes each.
        let value = json!(vec![0; 128 << 10]);
        let taken = (0..DATA_MAX).take_while(|_| collected.take(value.clone()).is_ok()).count();
        let bytes = taken * (128 << 10) * size_of::<Value>();
        assert!(taken > 0 && bytes <= DATA_MAX_BYTES, "{bytes} bytes are kept");
    }
}
