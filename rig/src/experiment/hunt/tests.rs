use super::*;
use crate::report::{TrialReport, Verdict};
use serde_json::{Map, Value};

fn selection(abis: &[Abi]) -> Selection {
    Selection::new(abis, "6.1")
}

fn only(name: &str) -> Trial<HuntParams> {
    let mut selection = selection(&[Abi::I386]);
    selection.set.insert("candidate".to_string(), name.to_string());
    Hunt.plan(&selection).unwrap().remove(0)
}

#[test]
fn every_candidate_is_a_trial_of_its_own_name() {
    let trials = Hunt.plan(&selection(&Abi::ALL)).unwrap();
    assert_eq!(trials.len(), CANDIDATES.len());
    assert_eq!(trials[0].name, "hunt-1449/i386/6.1/baseline");
    let mut names: Vec<_> = CANDIDATES.iter().map(|candidate| candidate.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), CANDIDATES.len());
}

#[test]
fn those_that_can_share_a_boot_are_neighbours() {
    let trials = Hunt.plan(&selection(&[Abi::I386])).unwrap();
    let shared = trials.iter().take_while(|trial| !trial.alone).count();
    assert!(shared > 20, "{shared}");
    assert!(trials[shared..].iter().all(|trial| trial.alone));
    assert!(trials[..shared].iter().all(|trial| trials[0].shares_a_boot_with(trial)));
    let split = only("split-2g");
    assert_eq!(split.flavour, Some("split-2g"));
    assert!(!split.shares_a_boot_with(&trials[0]));
}

#[test]
fn a_family_is_named_by_the_head_of_its_name() {
    let names = |name| named(Some(name)).iter().map(|one| one.name).collect::<Vec<_>>();
    assert_eq!(names("top-down-only"), ["top-down-only"]);
    assert_eq!(names("cpus"), ["cpus-8"]);
    assert!(names("malloc").len() > 9 && names("mal").is_empty());
}

#[test]
fn every_flavour_of_a_candidate_exists() {
    for candidate in CANDIDATES.iter() {
        let Some(flavour) = candidate.machine.flavour else { continue };
        let found = crate::kernel::flavour::find(flavour).unwrap();
        assert!(found.arches.contains(&candidate.abi.kernel()), "{}", candidate.name);
    }
}

#[test]
fn what_is_no_candidate_and_no_size_is_refused() {
    for (key, value, word) in
        [("candidate", "magic", "magic"), ("starts", "0", "1 to"), ("starts", "x", "1 to")]
    {
        let mut selection = selection(&[Abi::I386]);
        selection.set.insert(key.to_string(), value.to_string());
        let err = Hunt.plan(&selection).unwrap_err();
        assert_eq!(crate::error::status(&err), crate::error::USAGE);
        assert!(err.to_string().contains(word), "{err}");
    }
    let mut small = selection(&[Abi::I386]);
    small.stacks = vec![16 << 10];
    assert!(Hunt.plan(&small).is_err() && Hunt.plan(&selection(&[Abi::X86_64])).is_err());
}

fn count(stack_bytes: u64, threads: u64) -> Value {
    json!({"count": {
        "stack_bytes": stack_bytes, "threads": threads, "sockets": threads, "echoes": threads,
        "failed": {"call": "pthread_create", "errno": 11, "name": "EAGAIN"}, "room": false,
        "mapped_bytes": threads * (stack_bytes + 4096), "largest_hole_bytes": 0,
        "hole_above_bytes": 0, "tasks": 60, "threads_max": 8000, "nproc": null,
    }})
}

/// Three counts of each size, the middle one at 2M as given.
fn counts(at_2m: u64) -> Vec<Value> {
    let all = [(2_u64, at_2m), (4, 764), (8, 381), (16, 189)];
    let three =
        |(mib, threads): (u64, u64)| [0, 2, 1].map(|more| count(mib << 20, threads - 1 + more));
    all.into_iter().flat_map(three).collect()
}

#[test]
fn a_clean_count_passes_and_is_told_by_size() {
    let judgement = Hunt.evaluate(&only("baseline"), &Observed::new(counts(1529), Exit::Code(0)));
    assert_eq!(judgement.verdict, Verdict::Pass, "{:?}", judgement.reason);
    let measured = json!(judgement.measured.unwrap());
    assert_eq!(measured["threads"], json!({"2M": 1529, "4M": 764, "8M": 381, "16M": 189}));
    assert_eq!(measured["threads_least"]["2M"], 1528);
    assert_eq!(measured["threads_most"]["2M"], 1530);
    assert_eq!(measured["binding_limit"]["8M"], "address-space");
}

#[test]
fn what_was_not_counted_cleanly_fails_and_says_why() {
    let trial = only("baseline");
    let reason = |data: Vec<Value>, exit| {
        let judgement = Hunt.evaluate(&trial, &Observed::new(data, exit));
        assert_eq!(judgement.verdict, Verdict::Fail);
        judgement.reason.unwrap()
    };
    assert!(reason(counts(1529)[..11].to_vec(), Exit::Code(0)).contains("2 of 3 counts at 16M"));
    assert!(reason(counts(1529), Exit::Code(1)).contains("ended with"));
    assert!(reason(vec![json!({"count": {"threads": -1}})], Exit::Code(0)).contains("understood"));
    assert!(reason(vec![count(3 << 20, 1)], Exit::Code(0)).contains("not asked for"));
    let mut deaf = counts(1529);
    deaf[0]["count"]["echoes"] = json!(7);
    assert!(reason(deaf, Exit::Code(0)).contains("7 echoes"));
    let mut room = counts(1529);
    room[0]["count"]["room"] = json!(true);
    assert!(reason(room, Exit::Code(0)).contains("nobody knows why"));
}

#[test]
fn what_bound_is_told_apart() {
    let trial = only("as-3000000K");
    let judge = |change: Value| {
        let mut count = count(2 << 20, 1449);
        let fields = count["count"].as_object_mut().unwrap();
        fields.extend(change.as_object().unwrap().clone());
        let HuntReport::Count(count) = serde_json::from_value(count).unwrap() else { panic!() };
        bound(&trial.params, &count)
    };
    let most = 3_000_000_u64 << 10;
    assert_eq!(judge(json!({})), Limit::AddressSpace);
    assert_eq!(judge(json!({"mapped_bytes": most - 4096})), Limit::RlimitAs);
    assert_eq!(judge(json!({"room": true, "tasks": 8000})), Limit::ThreadsMax);
    assert_eq!(judge(json!({"room": true, "nproc": 1451})), Limit::Nproc);
    assert_eq!(judge(json!({"room": true, "nproc": 1452})), Limit::None);
    let most = json!({"threads": u64::MAX, "mapped_bytes": u64::MAX, "stack_bytes": u64::MAX});
    assert_eq!(judge(most), Limit::RlimitAs, "a guest may claim anything");
}

fn reported(name: &str, at_2m: u64) -> TrialReport {
    let trial = only(name);
    let judgement = Hunt.evaluate(&trial, &Observed::new(counts(at_2m), Exit::Code(0)));
    let object = |value: Value| value.as_object().cloned().unwrap_or_else(Map::new);
    TrialReport {
        params: object(json!(trial.params)),
        verdict: judgement.verdict,
        reason: judgement.reason,
        measured: judgement.measured.map(|counts| object(json!(counts))),
        ..TrialReport::new("hunt-1449", trial.name, trial.abi)
    }
}

/// The table, with the words of all sections.
fn section(trials: &[TrialReport]) -> Section {
    let read: Vec<_> = trials.iter().map(|trial| TrialResult::read(trial).unwrap()).collect();
    let mut sections = Hunt.sections(&read.iter().collect::<Vec<_>>());
    let words: Vec<_> = sections.iter().map(|section| section.words.clone()).collect();
    Section { words: words.join("\n\n"), ..sections.remove(1) }
}

#[test]
fn the_table_is_ranked_and_its_words_follow_from_the_counts() {
    let section = section(&[
        reported("baseline", 1529),
        reported("malloc-64K", 1449),
        reported("malloc-96K", 1400),
    ]);
    let names: Vec<_> = section.rows.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(names, ["malloc-64K", "malloc-96K", "baseline"]);
    assert_eq!(section.rows[0][1], "1448 to 1450");
    for words in [
        "counts 1528 to 1530 here",
        "Too many at 2M: baseline.",
        "Too few at 2M: malloc-96K.",
        "none that was tried explains 1449 by itself",
        "until it fitted: malloc-64K. Each is a possible explanation and no proof",
        "Untested",
    ] {
        assert!(section.words.contains(words), "{words}: {}", section.words);
    }
    assert!(section.rows.iter().all(|row| row.len() == section.columns.len()));
}

#[test]
fn without_a_fit_nothing_is_said_to_explain_it() {
    let mut lost = reported("malloc-64K", 1449);
    lost.verdict = Verdict::Timeout;
    let section = section(&[reported("baseline", 1529), lost]);
    assert!(section.words.contains("Not counted, so nothing is known of: malloc-64K."));
    assert!(!section.words.contains("until it fitted"));
}

#[test]
fn a_fit_that_is_emulated_says_what_speaks_against_it() {
    let section = section(&[
        reported("top-down-only-8-cpus", 1449),
        reported("malloc-64K", 1446),
        reported("baseline", 1529),
    ]);
    for words in [
        "Without anything searched for fits: top-down-only-8-cpus. top-down-only-8-cpus is emulated.",
        "Against top-down-only-8-cpus speaks that 3.12",
        "Of these, within 5 threads of it: malloc-64K.",
    ] {
        assert!(section.words.contains(words), "{words}: {}", section.words);
    }
    assert!(!section.words.contains("until it fitted"));
    assert!(!section.words.contains("More than one fits"));
}
