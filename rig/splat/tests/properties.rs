//! What holds for any bytes at all.

use std::time::Duration;

use nlrig_splat::{LINE_MAX_BYTES, Reader, Splat, TRACE_MAX_FRAMES, classify, text_of};
use proptest::prelude::*;

/// A byte that is not UTF-8 is shown as a character of three.
const SHOWN_MAX_BYTES: usize = 3 * LINE_MAX_BYTES;

/// Words of the kernel's and of others', so that lines nearly match.
fn word() -> impl Strategy<Value = Vec<u8>> {
    const WORDS: &[&str] = &[
        "\n",
        "\n",
        "\r",
        " ",
        "[    1.234567] ",
        "[   T61] ",
        "[",
        "]",
        "<4>",
        "BUG: ",
        "WARNING: ",
        "CPU: 1 PID: 61 at ",
        "CPU: 1 PID: 61 Comm: x",
        "Oops: 0002 [#1]",
        ": 0000 [#1]",
        "%s",
        "\u{1b}[0m",
        "Kernel panic - not syncing: ",
        "------------[ cut here ]------------",
        "Call Trace:",
        "f+0x1/0x2 [m]",
        "? g+0x1/0x2",
        "RIP: 0010:",
        "[<c1234567>] ",
        "---[ end trace 0 ]---",
        "Nov 26 03:49:29 host kernel: ",
        "4,1,2,-;",
        "kern.err: ",
        "# ",
        "BUG kmalloc-64 (Not tainted): ",
        "INFO: task x:1 blocked for more than 1 seconds",
        "Out of memory: Killed process 1",
    ];
    prop_oneof![
        8 => prop::sample::select(WORDS).prop_map(|word| word.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ]
}

fn log() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(word(), 0..120).prop_map(|words| words.concat())
}

fn assert_bounded(splat: &Splat) {
    for text in splat.trace.iter().chain([&splat.line]).chain(&splat.message) {
        assert!(text.len() <= SHOWN_MAX_BYTES, "{} bytes", text.len());
        assert!(!text.contains(|c: char| c.is_control() && c != '\t'), "{text:?}");
    }
    assert!(splat.trace.len() <= TRACE_MAX_FRAMES);
    if let Some(cause) = &splat.cause {
        assert!(cause.severity() < splat.severity());
        assert_bounded(cause);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_comes_of_any_bytes_is_bounded(log in log()) {
        if let Some(splat) = classify(&log) {
            assert_bounded(&splat);
            assert!(splat.describe().len() < 3 * 12 * SHOWN_MAX_BYTES);
        }
    }

    #[test]
    fn it_does_not_matter_where_the_bytes_are_cut(log in log(), size in 1_usize..40) {
        let mut reader = Reader::new();
        for piece in log.chunks(size) {
            reader.bytes(piece);
        }
        reader.end();
        prop_assert_eq!(reader.worst(), classify(&log));
    }

    #[test]
    fn more_of_a_log_never_makes_it_less_severe(log in log(), more in log()) {
        let before = classify(&log).map(|splat| splat.severity());
        let after = classify(&[log, b"\n".to_vec(), more].concat()).map(|splat| splat.severity());
        prop_assert!(after >= before);
    }

    #[test]
    fn a_lines_text_is_its_end(line in "\\PC{0,200}") {
        prop_assert!(line.ends_with(text_of(&line)));
    }
}

/// Processor time of this thread, which a busy host does not lengthen
/// (Documentation/scheduler/sched-stats.rst).
fn cpu_time() -> Duration {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(statistics.split(' ').next().unwrap().parse().unwrap())
}

/// Inputs that would be slow if the time were not linear.
#[test]
fn a_mebibyte_takes_less_than_a_second_whatever_it_is() {
    const MEBIBYTE: usize = 1 << 20;
    for piece in [
        "\n",
        "x",
        "a\n",
        "12345678\n",
        ":       \n",
        "[",
        "[[    1.234567]",
        "BUG: ",
        "BUG: \n",
        "%s: ",
        ": \n",
        "a: a: a: ",
        "\u{1b}[",
        "WARNING: x\n",
        "[    1.234567] BUG: x (Tainted: \n",
        "INFO: task \n",
        "INFO: task ",
        "\r",
        "\u{fffd}",
        "BUG: unable to handle kernel paging request\n",
        "f+0x1/0x2\n",
        "\0",
        "Nov 26 03:49:29 a b: \n",
        "kern.err: ",
        "Kernel panic - not syncing\n",
        "x Kernel panic - not syncing: \n",
        "[    1.2][    T1] BUG x\n",
    ] {
        let log = piece.repeat(MEBIBYTE / piece.len());
        let start = cpu_time();
        let splat = classify(log.as_bytes());
        let passed = cpu_time() - start;
        println!("{passed:?} for {piece:?}");
        splat.iter().for_each(assert_bounded);
        assert!(passed < Duration::from_secs(1), "{passed:?} for {piece:?}");
    }
}
