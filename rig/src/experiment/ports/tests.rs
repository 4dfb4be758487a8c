use super::*;
use crate::abi::Abi;
use crate::report::Verdict;
use nlrig_guest::protocol::Exit;
use serde_json::json;
use std::collections::BTreeSet;
use types::ThreadsAsked;

fn plan(set: &[(&str, &str)]) -> Result<Vec<Trial<PortParams>>> {
    let mut selection = Selection::new(&Abi::ALL, "6.1");
    selection.set = set.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    Ports.plan(&selection)
}

#[test]
fn the_default_plan_is_no_cross_product() {
    let trials = plan(&[]).unwrap();
    let names: BTreeSet<_> = trials.iter().map(|trial| &trial.name).collect();
    assert_eq!(names.len(), trials.len(), "names are unique");
    assert!(trials.len() <= 60, "{} trials", trials.len());
}

#[test]
fn a_formula_is_chosen_and_what_does_not_go_together_is_said() {
    let trials = plan(&[("formula", "paper")]).unwrap();
    assert!(trials.iter().all(|trial| trial.params.formula.name() == "paper"));
    let trials = plan(&[("formula", "kernel"), ("threads", "7")]).unwrap();
    assert_eq!(trials.len(), 3);
    for wrong in [
        vec![("formula", "nonsense")],
        vec![("threads", "none")],
        vec![("processes", "1000"), ("formula", "paper")],
        vec![("processes", "2"), ("formula", "each")],
        vec![("malloc", "yes")],
    ] {
        let err = plan(&wrong).unwrap_err();
        assert_eq!(crate::error::status(&err), crate::error::USAGE, "{wrong:?}");
    }
}

#[test]
fn threads_that_nobody_counted_fit_into_32_bits() {
    let mut selection = Selection::new(&Abi::ALL, "6.1");
    selection.set.insert("formula".into(), "paper".into());
    selection.stacks = vec![64 << 10, 8 << 20, 1 << 30];
    let trials = Ports.plan(&selection).unwrap();
    let of = |abi: Abi| -> Vec<_> {
        let own = trials.iter().filter(|trial| trial.abi == abi);
        own.map(|trial| trial.params.threads.count().unwrap()).collect()
    };
    assert_eq!(of(Abi::I386), [1000, 320, 2]);
    assert_eq!(of(Abi::X86_64), [1000, 1000, 1000]);
    selection.set.insert("threads".into(), "1000".into());
    let trials = Ports.plan(&selection).unwrap();
    assert!(
        trials.iter().all(|trial| trial.params.threads == ThreadsAsked::Count(1000)),
        "the user's word counts"
    );
}

fn observed(data: Vec<Value>, predicted: Option<PortPrediction>) -> Observed<PortPrediction> {
    Observed { predicted, ..Observed::new(data, Exit::Code(0)) }
}

/// Two threads of a process, whose ports by the paper's formula are these.
fn reported(ports: Value, echoes: u64) -> Vec<Value> {
    let (first, second) = (0xb7d0_0940_u32, 0xb74f_f940_u32);
    vec![
        json!({"threads": {"process": 0, "addresses": [first, second], "ids": [101, 102]}}),
        json!({"gathered": {"process": 0, "of": 1, "pid": 100, "threads": 2, "refused": null, "time_s": 1}}),
        json!({"ports": {"process": 0, "formula": "paper", "ports": ports}}),
        json!({"bound": {"process": 0, "formula": "paper", "echoes": echoes, "strays": 0, "moved": 0, "failed": null}}),
    ]
}

fn verdict(data: Vec<Value>) -> Judgement<PortMeasurement> {
    let trials = plan(&[("formula", "paper"), ("threads", "2")]).unwrap();
    let seen = |count: usize| Ports.predict(&trials[0], &data[..count]).unwrap();
    assert_eq!(seen(1), None, "not all threads are there");
    let predicted = seen(2);
    Ports.evaluate(&trials[0], &observed(data.clone(), predicted))
}

#[test]
fn a_port_that_was_not_predicted_fails_and_is_named() {
    let right = json!([0x64_b7d0, 0x64_b74f]);
    let passed = verdict(reported(right.clone(), 2));
    assert_eq!(passed.verdict, Verdict::Pass, "{passed:?}");
    let measured = json!(passed.measured.unwrap());
    assert_eq!((&measured["distinct"], &measured["first_collision"]), (&json!(2), &Value::Null));
    let failed = verdict(reported(json!([0x64_b7d0, 0x64_b74e]), 2));
    assert_eq!(failed.verdict, Verdict::Fail);
    assert!(failed.reason.unwrap().contains("thread 2 of process 0 has 0x64b74e"));
    assert_eq!(verdict(reported(json!([0x64_b7d0, null]), 1)).verdict, Verdict::Fail);
    // An echo that did not come back.
    assert_eq!(verdict(reported(right, 1)).verdict, Verdict::Fail);
}

#[test]
fn a_batch_is_held_against_the_model() {
    let trials = plan(&[("processes", "3"), ("threads", "2")]).unwrap();
    let trial = &trials[0];
    let begin = json!({"batch": {"processes": 3, "threads": 2, "processors": 2}});
    let each = (2 << 20) + 4096;
    let process = |pid: u32, first_failed: u32, each: u64| {
        let top = 0xb7d0_0940_u64;
        let in_use = u32::from(first_failed > 0);
        json!({"process": {
            "pid": pid, "addresses": [top, top - each], "first_failed": first_failed, "in_use": in_use,
        }})
    };
    let predicted = Ports.predict(trial, std::slice::from_ref(&begin)).unwrap();
    assert_eq!(json!(predicted)["probability"], json!([0.0, 0.0]));
    let judge = |last: Value| {
        let data = vec![begin.clone(), process(1, 0, each), process(2, 0, each), last];
        Ports.evaluate(trial, &observed(data, predicted.clone()))
    };
    let verdict = |last: Value| judge(last).verdict;
    let well = judge(process(3, 0, each));
    let measured = json!(well.measured.unwrap());
    assert_eq!((well.verdict, &measured["distinct"]), (Verdict::Pass, &json!(2)));
    assert_eq!((&measured["collisions"], &measured["first_collision"]), (&json!(0), &Value::Null));
    let mut more = process(3, 0, each);
    more["process"]["in_use"] = json!(u32::MAX);
    assert_eq!(verdict(more), Verdict::Fail, "nobody's port is in use");
    assert_eq!(verdict(process(3, 2, each)), Verdict::Fail, "the kernel refused a free port");
    assert_eq!(verdict(process(3, 0, each + 4096)), Verdict::Fail, "stacks are elsewhere");
    assert_eq!(verdict(json!({"progress": {"threads": 1}})), Verdict::Fail, "one is missing");
}
