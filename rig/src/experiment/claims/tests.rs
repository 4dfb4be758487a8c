use std::collections::BTreeSet;

use super::case::{CONFIRMED, Case, is, no, says, yes};
use super::*;
use crate::report::TrialReport;
use serde_json::{Map, json};

const CASE: Case = Case {
    id: "A0",
    confirms: &[is("bind", "ok"), yes("heard")],
    refutes: &[is("bind", "EPERM")],
    depends: &[is("bind", "ok"), no("heard"), says("why", "group")],
    expect: CONFIRMED,
    ..Case::SHARED
};

fn evidence_of(reported: Value) -> Evidence {
    evidence(&[reported])
}

fn found(evidence: Value) -> Finding {
    CASE.find(&evidence_of(evidence))
}

#[test]
fn evidence_that_fits_no_finding_is_undecided() {
    assert_eq!(found(json!({"bind": "ok", "heard": true})), Finding::Confirmed);
    assert_eq!(found(json!({"bind": "EPERM", "heard": true})), Finding::Refuted);
    let evidence = json!({"bind": "ok", "heard": false, "why": "no group"});
    assert_eq!(found(evidence), Finding::Depends);
    assert_eq!(found(json!({"bind": "ok"})), Finding::Undecided);
    assert_eq!(found(json!({"bind": "ok", "heard": "true"})), Finding::Undecided);
    assert_eq!(found(json!({})), Finding::Undecided);
}

#[test]
fn what_the_ledger_does_not_expect_fails_and_says_what_was_needed() {
    let judgement = judged(&CASE, Abi::I386, evidence_of(json!({"bind": "EPERM"})));
    assert_eq!(judgement.verdict, Verdict::Fail);
    let reason = judgement.reason.unwrap();
    for part in ["refuted, expected confirmed", "bind is ok", "heard", "got bind EPERM"] {
        assert!(reason.contains(part), "{reason}");
    }
}

#[test]
fn every_row_can_be_read_and_decided() {
    let mut ids = BTreeSet::new();
    for case in catalogue::cases() {
        assert!(ids.insert(case.id), "{} is there twice", case.id);
        assert!(
            case.claim.ends_with('.') && case.claim.len() <= 120,
            "{}: {}",
            case.id,
            case.claim
        );
        assert!(case.tried.len() > 10 && case.because.len() > 20, "{}", case.id);
        for arch in crate::abi::Arch::ALL {
            let expected = case.expect.of(arch);
            let untried =
                matches!(case.method, Method::Static(crate::static_check::StaticCheck::Nothing));
            assert_eq!(expected == Finding::Undecided, untried, "{}", case.id);
            assert_eq!(case.conditions(expected).is_empty(), untried, "{}", case.id);
        }
        if case.expect.of(crate::abi::Arch::I386) == Finding::Depends {
            assert!(!case.depends_on.is_empty(), "{} depends on nothing", case.id);
        }
        // What could only be confirmed would be no test.
        let findings = [case.confirms, case.refutes, case.depends];
        let possible = findings.iter().filter(|conditions| !conditions.is_empty()).count();
        let untried =
            matches!(case.method, Method::Static(crate::static_check::StaticCheck::Nothing));
        assert!(possible >= 2 || untried, "{} has one possible outcome", case.id);
    }
}

#[test]
fn a_row_is_found_with_its_parts_and_an_unknown_one_is_a_usage_error() {
    assert!(belongs("A9", "a9") && belongs("A9.2", "A9") && belongs("A9.2", "A9.2"));
    assert!(!belongs("A9", "A9.2") && !belongs("A19", "A9") && !belongs("A9", "A"));
    let mut selection = Selection::new(&[Abi::I386], "6.1");
    selection.set.insert("id".to_string(), "A99".to_string());
    let err = Claims.plan(&selection).unwrap_err();
    assert!(err.to_string().contains("A99"), "{err}");
    assert_eq!(crate::error::status(&err), crate::error::USAGE);
}

#[test]
fn evidence_is_bounded() {
    let many: Map<String, Value> = (0..1000).map(|n| (n.to_string(), json!(n))).collect();
    assert_eq!(evidence(&[Value::Object(many), json!("no object")]).len(), EVIDENCE_MAX);
}

/// A trial of a case as it was reported.
fn tried(abi: &str, finding: &str, answers: u64) -> TrialReport {
    let abi = serde_json::from_value(json!(abi)).unwrap();
    let mut report = TrialReport::new("claims", format!("claims/{abi}/6.1/A1"), abi);
    report.params = Map::from_iter([("id".to_string(), json!("A1"))]);
    let measured =
        json!({"finding": finding, "expected": "confirmed", "evidence": {"answers": answers}});
    report.measured = measured.as_object().cloned();
    report
}

#[test]
fn repetitions_are_counted_and_none_is_left_out() {
    let trials = [
        tried("i386", "confirmed", 10),
        tried("i386", "confirmed", 10),
        tried("i386", "refuted", 9),
        tried("x86_64", "confirmed", 10),
    ];
    let read: Vec<_> = trials.iter().map(|trial| TrialResult::read(trial).unwrap()).collect();
    let section = Claims.sections(&read.iter().collect::<Vec<_>>()).remove(0);
    assert_eq!(section.rows[0][2..4], ["depends", "confirmed"]);
    let evidence: Vec<_> = section.entries[0]
        .fields
        .iter()
        .filter(|(name, _)| *name == "evidence")
        .map(|(_, text)| text.as_str())
        .collect();
    assert_eq!(evidence, ["answers 10 (2 of i386, x86_64)", "answers 9 (i386)"]);
}
