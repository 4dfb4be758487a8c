use super::*;
use crate::limits::Limit;
use crate::report::{TrialReport, Verdict};
use serde_json::json;

fn selection(abis: &[Abi]) -> Selection {
    Selection::new(abis, "6.1")
}

#[test]
fn the_default_plan_is_the_papers_tables_and_more() {
    let trials = Threads.plan(&selection(&Abi::ALL)).unwrap();
    assert_eq!(trials.len(), 4 + 4 + 3 * 4);
    assert_eq!(trials[0].name, "threads/i386/6.1/stack=2M");
    assert!(trials.iter().any(|trial| trial.name == "threads/x86_64/6.1/stack=16M/defaults"));
    let mut names: Vec<_> = trials.iter().map(|trial| &trial.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), trials.len());
}

#[test]
fn a_limit_of_the_users_makes_one_table() {
    let mut selection = selection(&[Abi::X86_64]);
    selection.stacks = vec![2 << 20];
    selection.sysctls = vec![("kernel.pid_max".into(), "2000".into())];
    let trials = Threads.plan(&selection).unwrap();
    assert_eq!(trials.len(), 1);
    assert_eq!(trials[0].params.setting, "own");
    assert_eq!(trials[0].params.sysctl["kernel.pid_max"], "2000");
    assert_eq!(trials[0].job.sysctls.last().unwrap().1, "2000", "the user's comes last");
}

#[test]
fn small_stacks_are_set_by_attribute() {
    let mut selection = selection(&[Abi::I386]);
    selection.stacks = vec![64 << 10, 256 << 10];
    let trials = Threads.plan(&selection).unwrap();
    let has_stack_limit =
        |trial: &Trial<ThreadParams>| trial.job.rlimits.iter().any(|limit| limit.name == "stack");
    assert_eq!(trials[0].job.argv[1..], ["--stack", "65536"]);
    assert!(!has_stack_limit(&trials[0]) && has_stack_limit(&trials[1]));
}

#[test]
fn a_stack_limit_of_the_users_leaves_the_size_to_the_attribute() {
    let limited = |value| {
        let mut selection = selection(&[Abi::I386]);
        selection.stacks = vec![2 << 20];
        selection.rlimits = vec![Rlimit { name: "stack".into(), value }];
        Threads.plan(&selection)
    };
    let trial = &limited(None).unwrap()[0];
    assert_eq!(trial.job.argv[1..], ["--stack", "2097152"]);
    let limits: Vec<_> = trial.job.rlimits.iter().filter(|limit| limit.name == "stack").collect();
    assert_eq!(limits, [&Rlimit { name: "stack".into(), value: None }]);
    assert!(limited(Some(1 << 30)).is_ok());
    let err = limited(Some(64 << 10)).unwrap_err();
    assert!(err.to_string().contains("256K"), "{err}");
}

#[test]
fn the_legacy_layout_is_a_personality_and_no_table_of_the_papers() {
    let mut selection = selection(&[Abi::I386]);
    selection.set.insert("layout".into(), "legacy".into());
    for trial in Threads.plan(&selection).unwrap() {
        assert_eq!(trial.job.mmap_layout, MmapLayout::Legacy);
        assert_eq!(trial.params.setting, "own");
        assert_eq!(trial.params.layout, MmapLayout::Legacy);
        assert!(trial.published.is_empty());
    }
}

#[test]
fn what_glibc_would_refuse_is_refused_here() {
    for (bytes, word) in [(4096, "16K"), (20_000, "pages"), (4 << 30, "32 bits")] {
        let mut selection = selection(&[Abi::I386]);
        selection.stacks = vec![bytes];
        let err = Threads.plan(&selection).unwrap_err();
        assert_eq!(crate::error::status(&err), crate::error::USAGE);
        assert!(err.to_string().contains(word), "{err}");
    }
}

fn outcome(threads: u64) -> ThreadOutcome {
    ThreadOutcome {
        threads,
        sockets: threads,
        echoes: threads,
        failed: nlrig_guest::snapshot::Failed {
            call: "pthread_create".into(),
            errno: 11,
            name: "EAGAIN".into(),
        },
        elapsed_ns: 2_000_000_000,
        tasks: 100,
        pid_room: 0,
        map_areas: 10,
        mapped_bytes: 10,
        data_bytes: 10,
        holes: Vec::new(),
        mapped_end: 0,
        open_files: 10,
        memory_available_bytes: 10,
    }
}

fn prediction(threads: u64, threads_at_least: Option<u64>, binding_limit: Limit) -> Prediction {
    Prediction { threads, threads_at_least, binding_limit, searches: Vec::new() }
}

#[test]
fn a_count_that_is_off_by_one_fails_and_says_so() {
    let count = ThreadCount::of(&outcome(60), Limit::PidMax, 8000);
    assert_eq!(count.refusal().unwrap().threads_per_s, 30.0);
    let predicted = |threads| prediction(threads, None, Limit::PidMax);
    fn judge(outcome: &ThreadOutcome, predicted: Option<&Prediction>) -> Option<String> {
        disagreement(outcome, Limit::PidMax, predicted)
    }
    assert_eq!(judge(&outcome(60), Some(&predicted(60))), None);
    let reason = judge(&outcome(60), Some(&predicted(61))).unwrap();
    assert!(reason.contains("60 threads") && reason.contains("predicted 61"), "{reason}");
    assert!(judge(&outcome(60), None).is_some());
    let deaf = ThreadOutcome { echoes: 59, ..outcome(60) };
    assert!(judge(&deaf, Some(&predicted(60))).unwrap().contains("59 echoes"));
}

#[test]
fn a_program_that_was_killed_for_its_memory_is_held_to_the_bounds() {
    let trial = &Threads.plan(&selection(&[Abi::X86_64])).unwrap()[0];
    let verdict = |alive: u64, out_of_memory: Option<&str>| {
        let observed = Observed {
            last_sign: Some(json!({"progress": {"threads": alive}})),
            predicted: Some(prediction(9000, Some(7000), Limit::Memory)),
            out_of_memory: out_of_memory.map(str::to_string),
            ..Observed::new(vec![], Exit::Signal(libc::SIGKILL))
        };
        Threads.evaluate(trial, &observed).verdict
    };
    let words = Some("Out of memory: Killed process 61 (threads)");
    assert_eq!(verdict(7936, words), Verdict::Pass);
    assert_eq!(verdict(6912, words), Verdict::Pass, "up to 255 more were alive");
    assert_eq!(verdict(6656, words), Verdict::Fail);
    assert_eq!(verdict(9216, words), Verdict::Fail);
    assert_eq!(verdict(u64::MAX, words), Verdict::Fail, "a guest may claim anything");
    assert_eq!(verdict(7936, None), Verdict::Fail, "killed by what?");
}

#[test]
fn a_workload_that_failed_or_lied_fails_the_trial() {
    let trial = &Threads.plan(&selection(&[Abi::I386])).unwrap()[0];
    for observed in [
        Observed::new(vec![], Exit::Code(1)),
        Observed::new(vec![], Exit::Code(0)),
        Observed::new(vec![json!({"outcome": {"threads": -1}})], Exit::Code(0)),
    ] {
        let judgement = Threads.evaluate(trial, &observed);
        assert_eq!(judgement.verdict, Verdict::Fail);
        assert!(judgement.reason.is_some());
    }
}

/// A trial of a setting of one's own, as it is read from a report.
fn reported(report: &TrialReport, measured: ThreadCount, predicted: Prediction) -> Counted<'_> {
    let params = ThreadParams {
        stack_bytes: 2 << 20,
        setting: "own".to_string(),
        sysctl: OrderedMap::new(),
        rlimit: OrderedMap::new(),
        predict_only: false,
        aslr: Aslr::On,
        layout: MmapLayout::Default,
    };
    TrialResult { report, params, predicted: Some(predicted), measured: Some(measured) }
}

type Counted<'a> = TrialResult<'a, Threads>;

fn report_of(abi: Abi, verdict: Verdict) -> TrialReport {
    TrialReport { verdict, ..TrialReport::new("threads", "threads/i386/6.1/stack=2M", abi) }
}

fn count(threads: u64, limit: Limit) -> ThreadCount {
    ThreadCount::of(&outcome(threads), limit, 8000)
}

#[test]
fn a_table_of_ones_own_names_the_searches() {
    let words = |searches: Value| {
        let report = report_of(Abi::I386, Verdict::Pass);
        let searches = serde_json::from_value(searches).unwrap();
        let predicted = Prediction { searches, ..prediction(9, None, Limit::AddressSpace) };
        let trial = reported(&report, count(9, Limit::AddressSpace), predicted);
        table::sections(&[&trial]).remove(0).words
    };
    let bottom_up = json!({
        "direction": "bottom-up", "start": 0x4000_0000, "end": 0xc000_0000_u64, "stacks": 1022
    });
    let legacy = words(json!([bottom_up]));
    assert!(legacy.contains("is bottom-up"), "{legacy}");
    assert!(legacy.contains("1022 from TASK_UNMAPPED_BASE 0x40000000 up."), "{legacy}");
    let top_down =
        json!({"direction": "top-down", "start": 4096, "end": 0x2000_0000, "stacks": 250});
    let unlimited = words(json!([top_down, bottom_up]));
    assert!(unlimited.contains("250 below mmap_base 0x20000000, then 1022 from"), "{unlimited}");
}

#[test]
fn the_summary_counts_what_was_exact_and_what_lay_within_bounds() {
    let limit = Limit::AddressSpace;
    let [passed, failed] = [Verdict::Pass, Verdict::Fail].map(|it| report_of(Abi::I386, it));
    let wide = report_of(Abi::X86_64, Verdict::Pass);
    let killed = ThreadCount {
        end: CountEnd::Killed { killed: "Out of memory".to_string(), threads_at_most: 767 },
        ..count(512, Limit::Memory)
    };
    let trials = [
        reported(&passed, count(7, limit), prediction(7, None, limit)),
        reported(&failed, count(7, limit), prediction(9, None, limit)),
        reported(&passed, killed, prediction(900, Some(600), Limit::Memory)),
        reported(&wide, count(3, limit), prediction(3, None, limit)),
    ];
    let sections = table::sections(&trials.iter().collect::<Vec<_>>());
    assert_eq!(sections.len(), 3);
    assert!(sections[0].words.contains("1 of 2 counts are exactly as predicted"));
    assert!(sections[0].words.contains("1 of 1 counts lie within"));
    assert_eq!(sections[0].rows[2][3..5], ["600 to 900", "512 to 767"]);
    assert_eq!(sections[2].rows[0], ["i386", "own", "3", "1", "2", "1", "1"]);
    assert_eq!(sections[2].rows[2], ["all", "", "4", "2", "2", "1", "1"]);
}
