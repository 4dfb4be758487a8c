//! Objects that a workload reports, one a line, and all that is made of them:
//! predictions, judgements, tables, pages.
//!
//! An object with the key `observed` is not the workload's: it states how the
//! program ended and what else was seen of it (see [`observed`]).

use std::sync::LazyLock;
use std::time::Duration;

use nlrig::abi::Abi;
use nlrig::experiment::{
    ALL, AnyExperiment, AnyTrial, FailedTrial, Judgement, Object, Observed, Selection, TrialOutcome,
};
use nlrig::limits::Prediction;
use nlrig::outcome::VmFailure;
use nlrig::report::{self, Environment, Report, TrialReport, Verdict, markdown, terminal};
use nlrig_guest::protocol::Exit;
use serde_json::Value;

use crate::{assert_brief, assert_fit_for_terminal};

/// Trials of each experiment that see an input, chosen by its length.
const TRIALS: usize = 3;

/// An experiment and the trials of its default plan.
type Planned = (&'static dyn AnyExperiment, Vec<AnyTrial>);

static PLANS: LazyLock<Vec<Planned>> = LazyLock::new(|| {
    let selection = Selection::new(&Abi::ALL, "6.1");
    let plan = |experiment: &&'static dyn AnyExperiment| {
        (*experiment, experiment.plan(&selection).expect("an experiment has a default plan"))
    };
    ALL.iter().map(plan).collect()
});

/// Predicts, judges and reports with every experiment.
///
/// # Panics
/// The input breaks something.
pub fn check(input: &[u8]) {
    let lines = input.split(|&byte| byte == b'\n');
    let (told, data): (Vec<Value>, Vec<Value>) = lines
        .filter_map(|line| serde_json::from_slice(line).ok())
        .partition(|value: &Value| value.get("observed").is_some());
    let told = told.first().and_then(|told| told.get("observed"));
    let mut reports = Vec::new();
    for (experiment, trials) in &*PLANS {
        for at in 0..TRIALS {
            let trial = &trials[(input.len() + at * trials.len() / TRIALS) % trials.len()];
            reports.push(tried(*experiment, trial, &data, told));
        }
    }
    assert_fit_to_read(reports);
}

/// What comes of a trial whose program reported this.
fn tried(
    experiment: &dyn AnyExperiment,
    trial: &AnyTrial,
    data: &[Value],
    told: Option<&Value>,
) -> TrialReport {
    // As run::collect does it: until one is made, or none can be.
    let kept: Vec<_> =
        data.iter().filter(|value| value.get("progress").is_none()).cloned().collect();
    let made = (1..=kept.len()).map(|count| experiment.predict(trial, &kept[..count]));
    let made = made.take_while(Result::is_ok).flatten().flatten().next();
    if let Some(made) = &made {
        assert_sound(made);
    }
    let observed = observed(data, told, made);
    let predicted = observed.predicted.clone();
    let failure = VmFailure::new(Verdict::Panic, "a panic");
    let failed = FailedTrial {
        observed: Some(observed.clone()),
        ..FailedTrial::new(failure, data.to_vec())
    };
    assert_judgement(&experiment.judge(trial, TrialOutcome::Failed(failed)));
    let judgement = experiment.judge(trial, TrialOutcome::Completed(observed));
    assert_judgement(&judgement);
    let Judgement { verdict, reason, measured } = judgement;
    TrialReport {
        params: trial.params.clone(),
        verdict,
        reason,
        measured,
        predicted,
        published: trial.published.clone(),
        vm: "vm-1".to_string(),
        ..TrialReport::new(experiment.name(), trial.name.clone(), trial.abi)
    }
}

/// A prediction is a number, or a range with its ends in order.
fn assert_sound(made: &Object) {
    let Ok(made) = serde_json::from_value::<Prediction>(Value::Object(made.clone())) else {
        return;
    };
    assert!(made.threads_at_least.is_none_or(|least| least < made.threads), "{made}");
}

/// What was seen of a trial; of all but the data the object says what, as far as
/// it can be understood.
fn observed(data: &[Value], told: Option<&Value>, made: Option<Object>) -> Observed<Object> {
    let told = |key: &str| told.and_then(|told| told.get(key));
    let exit = told("exit").and_then(|exit| serde_json::from_value(exit.clone()).ok());
    let second = Duration::from_secs(1);
    let data_only = data.iter().filter(|value| value.get("progress").is_none()).cloned().collect();
    Observed {
        predicted: told("predicted").and_then(Value::as_object).cloned().or(made),
        // The console has made it printable.
        out_of_memory: told("out_of_memory").and_then(Value::as_str).map(nlrig::ui::sanitize),
        last_sign: data.iter().rfind(|value| value.get("progress").is_some()).cloned(),
        boot: second,
        total: second,
        ..Observed::new(data_only, exit.unwrap_or(Exit::Code(0)))
    }
}

fn assert_judgement(judgement: &Judgement<Object>) {
    if let Some(reason) = &judgement.reason {
        assert_brief("a judgement", reason);
    }
}

/// Renders a report in every way there is.
fn assert_fit_to_read(trials: Vec<TrialReport>) {
    let report = Report {
        schema: report::SCHEMA.to_string(),
        started_at: String::new(),
        duration_s: 1.0,
        first_vm_s: None,
        environment: Environment::default(),
        trials,
    };
    let sections = nlrig::run::sections(&report, ALL);
    for section in &sections {
        let columns = section.columns.len();
        assert!(section.rows.iter().all(|row| row.len() == columns), "{section:?}");
        assert_fit_for_terminal("a table", &terminal::section(section));
    }
    assert_fit_for_terminal("the page", &markdown::page(&report, &sections));
    let written = serde_json::to_string_pretty(&report).expect("a report is JSON");
    let read: Report = serde_json::from_str(&written).expect("a report can be read again");
    assert!(read.trials.iter().all(|trial| trial.verdict != Verdict::Skip));
}
