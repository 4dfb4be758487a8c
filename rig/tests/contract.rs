//! The contract of `report.json`: its keys keep their names and meaning, and
//! reports of today are read, rendered and written again without a difference.
//!
//! `NLRIG_BLESS=1` writes the rendered pages anew. The report itself is written by
//! hand and changes only when keys are added.

use std::fs;
use std::path::{Path, PathBuf};

use nlrig::experiment::{ALL, AnyExperiment};
use nlrig::report::{Report, markdown, terminal};
use serde_json::{Map, Value};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn text() -> String {
    fs::read_to_string(data("report.json")).expect("the report")
}

fn report() -> Report {
    serde_json::from_str(&text()).expect("a report")
}

fn experiment(name: &str) -> &'static dyn AnyExperiment {
    *ALL.iter().find(|known| known.name() == name).expect("an experiment of this name")
}

/// The public keys of an experiment: its name, `params`, and `measured`.
type Keys = (&'static str, &'static [&'static str], &'static [&'static str]);

/// The keys that others rely on.
const KEYS: [Keys; 5] = [
    ("smoke", &[], &["boot_s", "total_s"]),
    (
        "threads",
        &["stack_bytes", "sysctl", "rlimit"],
        &["threads", "sockets", "echoes", "binding_limit", "errno", "threads_per_s"],
    ),
    ("claims", &["id"], &["finding", "evidence"]),
    (
        "ports",
        &["formula", "threads", "stack_bytes", "malloc", "aslr"],
        &["first_collision", "collisions", "distinct"],
    ),
    ("hunt-1449", &["stacks_bytes"], &["threads"]),
];

/// The keys of the document and of each trial.
const DOCUMENT: [&str; 5] = ["schema", "started_at", "duration_s", "environment", "trials"];
const ENVIRONMENT: [&str; 5] = ["revision", "host", "qemu", "accel", "kernels"];
const TRIAL: [&str; 15] = [
    "experiment",
    "name",
    "abi",
    "kernel",
    "flavour",
    "accel",
    "params",
    "verdict",
    "reason",
    "attempts",
    "measured",
    "predicted",
    "published",
    "duration_s",
    "artifacts",
];

#[test]
fn a_report_is_written_as_it_was_read() {
    let written = serde_json::to_string_pretty(&report()).unwrap() + "\n";
    assert!(written == text(), "report.json is written differently:\n{written}");
}

#[test]
fn every_key_of_a_trial_is_known_to_the_types_of_its_experiment() {
    for trial in &report().trials {
        let rewritten = experiment(&trial.experiment).rewrite(trial);
        let rewritten = rewritten.unwrap_or_else(|err| panic!("{}: {err:#}", trial.name));
        let json = |trial| serde_json::to_string_pretty(trial).unwrap();
        assert_eq!(json(&rewritten), json(trial), "{}", trial.name);
    }
}

#[test]
fn every_experiment_has_a_trial_in_the_report() {
    let report = report();
    for experiment in ALL {
        let name = experiment.name();
        assert!(report.trials.iter().any(|trial| trial.experiment == name), "{name}");
    }
}

fn assert_keys(what: &str, object: &Map<String, Value>, keys: &[&str]) {
    for key in keys {
        assert!(object.contains_key(*key), "{what} has no key {key}");
    }
}

#[test]
fn the_public_keys_are_there() {
    let document: Map<String, Value> = serde_json::from_str(&text()).unwrap();
    assert_keys("the document", &document, &DOCUMENT);
    assert_keys("the environment", document["environment"].as_object().unwrap(), &ENVIRONMENT);
    for trial in document["trials"].as_array().unwrap() {
        assert_keys("a trial", trial.as_object().unwrap(), &TRIAL);
    }
    for (name, params, measured) in KEYS {
        let report = report();
        let all: Vec<_> = report.trials.iter().filter(|one| one.experiment == name).collect();
        all.iter().for_each(|trial| assert_keys(&trial.name, &trial.params, params));
        let complete = all.iter().filter_map(|trial| trial.measured.as_ref());
        let complete: Vec<_> = complete
            .filter(|object| measured.iter().all(|key| object.contains_key(*key)))
            .collect();
        assert!(!complete.is_empty(), "no trial of {name} has {measured:?}");
    }
}

#[test]
fn a_public_key_with_another_type_is_not_read() {
    for (name, params, measured) in KEYS {
        let report = report();
        let trial = report.trials.iter().find(|one| one.experiment == name).unwrap();
        for key in params {
            let mut wrong = trial.clone();
            wrong.params.insert(key.to_string(), Value::from(-1.5));
            assert!(experiment(name).rewrite(&wrong).is_err(), "{name}: params.{key}");
        }
        for key in measured {
            let mut wrong = trial.clone();
            let wrong_value = Value::Array(vec![Value::Null]);
            wrong.measured.as_mut().unwrap().insert(key.to_string(), wrong_value);
            assert!(experiment(name).rewrite(&wrong).is_err(), "{name}: measured.{key}");
        }
    }
}

#[test]
fn a_report_is_rendered_as_before() {
    let report = report();
    let sections = nlrig::run::sections(&report, ALL);
    let tables: Vec<_> = sections.iter().map(terminal::section).collect();
    let pages = [
        ("report.md", markdown::page(&report, &sections)),
        ("report.txt", tables.join("\n") + "\n"),
    ];
    for (name, page) in pages {
        if std::env::var_os("NLRIG_BLESS").is_some() {
            fs::write(data(name), &page).unwrap();
        }
        let before = fs::read_to_string(data(name)).unwrap_or_default();
        let changed = page.lines().zip(before.lines()).find(|(now, before)| now != before);
        assert!(page == before, "{name} is rendered differently, first here: {changed:?}");
    }
}
