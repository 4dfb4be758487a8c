//! Experiments: claims, trials, predictions, judgements and tables.
//!
//! An experiment is one file below this one and one line in the list below. It
//! knows neither QEMU nor shares: it plans [`Trial`]s, each a job for a guest, and
//! judges the [`TrialOutcome`] of each.

pub mod adapter;
mod outcome;
mod selection;
mod trial;

use std::fmt;

use anyhow::Result;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::abi::Abi;
use crate::report::Section;
use crate::usage;

pub use adapter::{AnyExperiment, AnyTrial, Object, TrialResult};
pub use outcome::{FailedTrial, Judgement, Observed, TrialOutcome, fault_domain};
pub use selection::{Selection, check_parameters};
pub use trial::{Fault, HostFault, Trial, workload};

/// Declares the module of each experiment, and lists the experiments.
macro_rules! experiments {
    ($($module:ident::$experiment:ident,)*) => {
        $(mod $module;)*

        /// Every experiment, in the order in which they run.
        pub const ALL: &[&dyn AnyExperiment] = &[$(&$module::$experiment,)*];
    };
}

experiments! {
    smoke::Smoke,
    threads::Threads,
    ports::Ports,
    claims::Claims,
    control::Control,
    module::ModuleStress,
    hunt::Hunt,
}

/// Values by name that keep their order in reports.
pub type OrderedMap<V> = indexmap::IndexMap<String, V>;

/// A place in the kernel's source: a file, and a text in one of its lines.
pub type SourceRef = (&'static str, &'static str);

/// One experiment. Its types are its own; reports have them as JSON, by serde (see
/// [`adapter`]).
pub trait Experiment: Sync {
    /// What distinguishes a trial from the others: `params` of the report.
    type Params: Clone + fmt::Debug + Serialize + DeserializeOwned;
    /// What is predicted of a trial: `predicted` of the report.
    type Prediction: fmt::Debug + Serialize + DeserializeOwned;
    /// What is measured by a trial: `measured` of the report.
    type Measured: fmt::Debug + Serialize + DeserializeOwned;

    /// The experiment's name on the command line.
    fn name(&self) -> &'static str;

    /// What the experiment shows, in one sentence.
    fn summary(&self) -> &'static str;

    /// The ABIs it can be run with.
    fn abis(&self) -> &'static [Abi] {
        &Abi::ALL
    }

    /// Whether a run that names no experiment runs it.
    fn by_default(&self) -> bool {
        true
    }

    /// What it needs of the rig's own kernel module.
    fn rig_module(&self) -> RigModule {
        RigModule::Required
    }

    /// The parameters it takes as `--set key=value`, each with its meaning.
    fn parameters(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// The cases that the user can select, each with its name and a sentence.
    fn cases(&self) -> Vec<(&'static str, &'static str)> {
        Vec::new()
    }

    /// The trials that the user has selected.
    ///
    /// # Errors
    /// A usage error: a parameter that does not fit.
    fn plan(&self, selection: &Selection) -> Result<Vec<Trial<Self::Params>>>;

    /// Predicts the measurement from the reports so far. It is called after each
    /// report until it makes a prediction, and never sees a later one.
    ///
    /// # Errors
    /// The last report is not what the workload should report.
    fn predict(
        &self,
        _trial: &Trial<Self::Params>,
        _so_far: &[Value],
    ) -> Result<Option<Self::Prediction>> {
        Ok(None)
    }

    /// Judges a trial by its program, which ended.
    fn evaluate(
        &self,
        trial: &Trial<Self::Params>,
        observed: &Observed<Self::Prediction>,
    ) -> Judgement<Self::Measured>;

    /// Judges a trial, however its VM ended. An experiment that expects VMs to fail
    /// overrides this; for all others a VM that failed is a trial that failed.
    fn judge(
        &self,
        trial: &Trial<Self::Params>,
        outcome: &TrialOutcome<Self::Prediction>,
    ) -> Judgement<Self::Measured> {
        outcome.judge_with(|observed| self.evaluate(trial, observed))
    }

    /// The lines of the kernel's source that explain the result.
    fn sources(&self, _trial: &Trial<Self::Params>) -> &'static [SourceRef] {
        &[]
    }

    /// Tables of all of this experiment's trials, with text.
    fn sections(&self, trials: &[&TrialResult<'_, Self>]) -> Vec<Section>;
}

/// What an experiment needs of the rig's own kernel module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RigModule {
    /// The module as the rig carries it.
    Required,
    /// The module, or a changed one of its name.
    Replaceable,
}

/// The type of parameters, predictions or measurements that there are none of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nothing {}

/// The experiments of these names, or those that run by default.
///
/// # Errors
/// A usage error: there is no experiment of this name.
pub fn find(names: &[String]) -> Result<Vec<&'static dyn AnyExperiment>> {
    if names.is_empty() {
        let by_default = |experiment: &&&dyn AnyExperiment| experiment.by_default();
        return Ok(ALL.iter().filter(by_default).copied().collect());
    }
    let all = || ALL.iter().map(|experiment| experiment.name()).collect::<Vec<_>>().join(", ");
    if let Some(name) = names.iter().find(|name| !ALL.iter().any(|known| known.name() == **name)) {
        return Err(usage!("no experiment \"{name}\": there is {}", all()));
    }
    // Each once, however often it is named.
    let named =
        |experiment: &&&dyn AnyExperiment| names.iter().any(|name| name == experiment.name());
    Ok(ALL.iter().filter(named).copied().collect())
}

/// The experiment that CONTRIBUTING.md shows, compiled from the page.
#[cfg(all(test, has_template))]
mod template {
    include!(concat!(env!("OUT_DIR"), "/template.rs"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn an_unknown_experiment_or_parameter_is_a_usage_error() {
        let err = find(&["nonsense".to_string()]).err().unwrap();
        assert!(err.to_string().contains("\"nonsense\""), "{err}");
        assert_eq!(crate::error::status(&err), crate::error::USAGE);
        let set = BTreeMap::from([("colour".to_string(), "red".to_string())]);
        let err = check_parameters(ALL, &set).unwrap_err();
        assert!(err.to_string().contains("colour"), "{err}");
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = ALL.iter().map(|experiment| experiment.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }

    #[cfg(has_template)]
    #[test]
    fn the_template_of_an_experiment_plans_judges_and_reports() {
        use crate::report::{TrialReport, Verdict};
        use nlrig_guest::protocol::Exit;
        use serde_json::json;

        let experiment: &dyn AnyExperiment = &template::Uptime;
        let trials = experiment.plan(&Selection::new(&Abi::ALL, "6.1")).unwrap();
        assert_eq!(trials.len(), Abi::ALL.len());
        let judge = |data| {
            let observed = Observed::new(vec![data], Exit::Code(0));
            experiment.judge(&trials[0], TrialOutcome::Completed(observed))
        };
        let judgement = judge(json!({"uptime_s": 1.5}));
        assert_eq!(judgement.verdict, Verdict::Pass, "{:?}", judgement.reason);
        assert_eq!(judge(json!({"uptime_s": 9})).verdict, Verdict::Fail);
        assert_eq!(judge(json!({"uptime": 1.5})).verdict, Verdict::Fail);
        let report = TrialReport {
            params: trials[0].params.clone(),
            measured: judgement.measured,
            ..TrialReport::new("uptime", trials[0].name.clone(), trials[0].abi)
        };
        assert_eq!(experiment.sections(&[&report])[0].rows[0], ["i386", "1.5"]);
    }
}
