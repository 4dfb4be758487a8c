//! From the types of an experiment to the JSON of a report, and back.
//!
//! Parameters, predictions and measurements are types of each experiment. Runs and
//! reports know them as JSON objects only. This is the one place that converts.

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Experiment, Judgement, RigModule, Selection, SourceRef, Trial, TrialOutcome};
use crate::abi::Abi;
use crate::report::{Section, TrialReport, Verdict};
use crate::ui::truncate;

/// A JSON object.
pub type Object = Map<String, Value>;

/// A trial of some experiment, with its parameters as in the report.
pub type AnyTrial = Trial<Object>;

/// An experiment whose types are hidden behind JSON. Every [`Experiment`] is one.
pub trait AnyExperiment: Sync {
    /// See [`Experiment::name`].
    fn name(&self) -> &'static str;
    /// See [`Experiment::summary`].
    fn summary(&self) -> &'static str;
    /// See [`Experiment::abis`].
    fn abis(&self) -> &'static [Abi];
    /// See [`Experiment::by_default`].
    fn by_default(&self) -> bool;
    /// See [`Experiment::rig_module`].
    fn rig_module(&self) -> RigModule;
    /// See [`Experiment::parameters`].
    fn parameters(&self) -> &'static [(&'static str, &'static str)];
    /// See [`Experiment::cases`].
    fn cases(&self) -> Vec<(&'static str, &'static str)>;

    /// See [`Experiment::plan`].
    ///
    /// # Errors
    /// A usage error: a parameter that does not fit.
    fn plan(&self, selection: &Selection) -> Result<Vec<AnyTrial>>;

    /// See [`Experiment::predict`].
    ///
    /// # Errors
    /// The last report is not what the workload should report.
    fn predict(&self, trial: &AnyTrial, so_far: &[Value]) -> Result<Option<Object>>;

    /// See [`Experiment::judge`].
    fn judge(&self, trial: &AnyTrial, outcome: TrialOutcome<Object>) -> Judgement<Object>;

    /// See [`Experiment::sources`].
    fn sources(&self, trial: &AnyTrial) -> &'static [SourceRef];

    /// The report of a trial, read with the experiment's types and written again. It
    /// is the same, unless it has keys that the types do not know.
    ///
    /// # Errors
    /// Parameters, prediction or measurement are not those of this experiment.
    fn rewrite(&self, report: &TrialReport) -> Result<TrialReport>;

    /// See [`Experiment::sections`]. Trials that cannot be read are listed in a
    /// section of their own.
    fn sections(&self, trials: &[&TrialReport]) -> Vec<Section>;
}

/// A trial of a report, with the experiment's types.
#[derive(Debug)]
pub struct TrialResult<'a, E: Experiment + ?Sized> {
    /// The report.
    pub report: &'a TrialReport,
    /// Its parameters.
    pub params: E::Params,
    /// What was predicted.
    pub predicted: Option<E::Prediction>,
    /// What was measured.
    pub measured: Option<E::Measured>,
}

impl<'a, E: Experiment + ?Sized> TrialResult<'a, E> {
    /// Reads the experiment's part of a trial's report.
    ///
    /// # Errors
    /// Parameters, prediction or measurement are not those of this experiment.
    pub fn read(report: &'a TrialReport) -> Result<TrialResult<'a, E>> {
        let optional = |object: &Option<Object>| object.clone().map(Value::Object);
        Ok(TrialResult {
            report,
            params: read(Value::Object(report.params.clone())).context("params")?,
            predicted: optional(&report.predicted).map(read).transpose().context("predicted")?,
            measured: optional(&report.measured).map(read).transpose().context("measured")?,
        })
    }
}

fn read<T: DeserializeOwned>(value: Value) -> Result<T> {
    Ok(serde_json::from_value(value)?)
}

fn write(value: &impl Serialize) -> Result<Object> {
    match serde_json::to_value(value)? {
        Value::Object(object) => Ok(object),
        other => anyhow::bail!("not a JSON object: {other}"),
    }
}

/// The trial with the experiment's own parameters.
fn typed<E: Experiment + ?Sized>(trial: &AnyTrial) -> Result<Trial<E::Params>> {
    let params = read(Value::Object(trial.params.clone()))
        .with_context(|| format!("{}: the parameters cannot be read", trial.name))?;
    Ok(trial.clone().params(params))
}

fn judge<E: Experiment>(
    experiment: &E,
    trial: &AnyTrial,
    outcome: TrialOutcome<Object>,
) -> Result<Judgement<Object>> {
    let trial = typed::<E>(trial)?;
    let outcome = outcome
        .try_map(|predicted| read(Value::Object(predicted)))
        .context("the prediction cannot be read")?;
    let Judgement { verdict, reason, measured } = experiment.judge(&trial, &outcome);
    Ok(Judgement { verdict, reason, measured: measured.as_ref().map(write).transpose()? })
}

impl<E: Experiment> AnyExperiment for E {
    fn name(&self) -> &'static str {
        Experiment::name(self)
    }

    fn summary(&self) -> &'static str {
        Experiment::summary(self)
    }

    fn abis(&self) -> &'static [Abi] {
        Experiment::abis(self)
    }

    fn by_default(&self) -> bool {
        Experiment::by_default(self)
    }

    fn rig_module(&self) -> RigModule {
        Experiment::rig_module(self)
    }

    fn parameters(&self) -> &'static [(&'static str, &'static str)] {
        Experiment::parameters(self)
    }

    fn cases(&self) -> Vec<(&'static str, &'static str)> {
        Experiment::cases(self)
    }

    fn plan(&self, selection: &Selection) -> Result<Vec<AnyTrial>> {
        Experiment::plan(self, selection)?
            .into_iter()
            .map(|trial| {
                let params = write(&trial.params).with_context(|| trial.name.clone())?;
                Ok(trial.params(params))
            })
            .collect()
    }

    fn predict(&self, trial: &AnyTrial, so_far: &[Value]) -> Result<Option<Object>> {
        let prediction = Experiment::predict(self, &typed::<E>(trial)?, so_far)?;
        prediction.as_ref().map(write).transpose()
    }

    fn judge(&self, trial: &AnyTrial, outcome: TrialOutcome<Object>) -> Judgement<Object> {
        judge(self, trial, outcome).unwrap_or_else(|err| {
            let reason = Some(truncate(format!("{err:#}")));
            Judgement { verdict: Verdict::Infra, reason, measured: None }
        })
    }

    fn sources(&self, trial: &AnyTrial) -> &'static [SourceRef] {
        typed::<E>(trial).map_or(&[], |trial| Experiment::sources(self, &trial))
    }

    fn rewrite(&self, report: &TrialReport) -> Result<TrialReport> {
        let TrialResult { params, predicted, measured, .. } = TrialResult::<E>::read(report)?;
        Ok(TrialReport {
            params: write(&params)?,
            predicted: predicted.as_ref().map(write).transpose()?,
            measured: measured.as_ref().map(write).transpose()?,
            ..report.clone()
        })
    }

    fn sections(&self, trials: &[&TrialReport]) -> Vec<Section> {
        let (mut readable, mut unreadable) = (Vec::new(), Vec::new());
        for report in trials {
            match TrialResult::<E>::read(report) {
                Ok(result) => readable.push(result),
                Err(err) => {
                    unreadable.push(vec![report.name.clone(), truncate(format!("{err:#}"))])
                }
            }
        }
        let mut sections = match readable.as_slice() {
            [] => Vec::new(),
            some => Experiment::sections(self, &some.iter().collect::<Vec<_>>()),
        };
        if !unreadable.is_empty() {
            sections.push(Section {
                title: format!("{}: trials that cannot be read", Experiment::name(self)),
                columns: ["trial", "reason"].map(str::to_string).to_vec(),
                rows: unreadable,
                words: "This version of the rig does not understand these trials of the report; \
                        no other table shows them."
                    .to_string(),
                ..Section::default()
            });
        }
        sections
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::ALL;
    use serde_json::json;

    #[test]
    fn the_parameters_of_every_trial_survive_the_report() {
        for experiment in ALL {
            let selection = Selection::new(&Abi::ALL, "6.1");
            for trial in experiment.plan(&selection).unwrap() {
                let name = &trial.name;
                let outcome = TrialOutcome::Failed(crate::experiment::FailedTrial::new(
                    crate::outcome::VmFailure::new(Verdict::Timeout, "too slow"),
                    Vec::new(),
                ));
                let judgement = experiment.judge(&trial, outcome);
                assert_ne!(judgement.verdict, Verdict::Infra, "{name}: {:?}", judgement.reason);
                let mut report = TrialReport::new(experiment.name(), name.clone(), trial.abi);
                report.params = trial.params.clone();
                report.measured = judgement.measured;
                let sections = experiment.sections(&[&report]);
                let unreadable = sections.iter().any(|section| section.title.contains("be read"));
                assert!(!unreadable, "{name}: {sections:?}");
            }
        }
    }

    #[test]
    fn a_trial_that_cannot_be_read_is_listed_and_judged_as_the_rigs_trouble() {
        for experiment in ALL.iter().filter(|experiment| experiment.name() != "smoke") {
            let mut trial = experiment.plan(&Selection::new(&Abi::ALL, "6.1")).unwrap().remove(0);
            trial.params = Object::from_iter([("nonsense".to_string(), json!(1))]);
            let observed =
                crate::experiment::Observed::new(Vec::new(), nlrig_guest::protocol::Exit::Code(0));
            let judgement = experiment.judge(&trial, TrialOutcome::Completed(observed));
            assert_eq!(judgement.verdict, Verdict::Infra, "{}", experiment.name());
            let mut report = TrialReport::new(experiment.name(), trial.name, trial.abi);
            report.params = trial.params;
            let sections = experiment.sections(&[&report]);
            assert!(sections[0].title.contains("cannot be read"), "{sections:?}");
            assert_eq!(sections[0].rows[0][0], report.name);
        }
    }
}
