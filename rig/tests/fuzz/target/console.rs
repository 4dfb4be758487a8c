//! Bytes on the serial line, and on QEMU's standard error.

use std::fs::{self, File};
use std::path::Path;

use nlrig::guest::console::{Console, LINE_MAX_BYTES, TAIL_LINES, tail_of};
use nlrig_splat::text_of;

use super::assert_fit_for_terminal;

/// A byte that is no UTF-8 is shown as a character of three.
const SHOWN_MAX_BYTES: usize = 3 * LINE_MAX_BYTES;
/// A splat with its message and trace, after another one, after a third.
const SPLAT_MAX_BYTES: usize = 3 * 11 * SHOWN_MAX_BYTES;
/// How many lines of a file a report has.
const REPORTED_LINES: usize = 15;

/// Reads to the end, and says all that is said of it.
pub fn check(dir: &Path, input: &[u8]) {
    let (source, file) = (dir.join("source"), dir.join("console"));
    fs::write(&source, input).unwrap();
    let mut console = Console::new(File::open(source).unwrap().into(), &file).unwrap();
    console.drain();
    assert_eq!(console.bytes(), input.len() as u64);
    assert_eq!(fs::metadata(&file).unwrap().len(), input.len() as u64);

    let tail = console.tail();
    assert!(tail.len() <= TAIL_LINES + 1, "{} lines are remembered", tail.len());
    let reported = tail_of(&file, REPORTED_LINES);
    assert!(reported.len() <= REPORTED_LINES);
    for line in tail.iter().chain(&reported) {
        assert_line("a last line", line);
        assert!(line.ends_with(text_of(line)));
    }
    if let Some(line) = console.out_of_memory() {
        assert_line("what killed a process", line);
    }
    if let Some(splat) = console.splat() {
        assert_line("a splat", &splat.line);
        splat.trace.iter().for_each(|frame| assert_line("a frame", frame));
        let text = splat.describe();
        assert_fit_for_terminal("a description", &text);
        assert!(text.len() <= SPLAT_MAX_BYTES, "a description of {} bytes", text.len());
    }
}

fn assert_line(what: &str, line: &str) {
    assert_fit_for_terminal(what, line);
    assert!(!line.contains('\n'), "{what} is more than a line: {line:?}");
    assert!(line.len() <= SHOWN_MAX_BYTES, "{what} has {} bytes", line.len());
}
