//! Bytes on the serial line, and on QEMU's standard error.

use std::cell::LazyCell;
use std::fs::{self, File};

use nlrig_splat::{Reader, Splat, classify, text_of};
use nlrig_vm::fuzzing::{Console, LINE_MAX_BYTES, TAIL_LINES};
use nlrig_vm::guest::tail_of;
use tempfile::TempDir;

use crate::assert_fit_for_terminal;

/// A byte that is not UTF-8 becomes a character of three bytes.
const SHOWN_MAX_BYTES: usize = 3 * LINE_MAX_BYTES;
/// A splat with its message and trace, after another one, after a third.
const SPLAT_MAX_BYTES: usize = 3 * 11 * SHOWN_MAX_BYTES;
/// Lines of a file that a report has.
const REPORTED_LINES: usize = 15;

thread_local! {
    static FOLDER: LazyCell<TempDir> =
        LazyCell::new(|| tempfile::tempdir().expect("a folder for temporary files"));
}

/// Reads the input as a console's, and checks all that is reported of it.
///
/// # Panics
/// The input breaks something.
pub fn check(input: &[u8]) {
    let splat = classify(input);
    disown(input);
    assert_eq!(in_pieces(input), splat, "the pieces in which a log comes make a difference");
    FOLDER.with(|folder| {
        let (source, file) = (folder.path().join("source"), folder.path().join("console"));
        fs::write(&source, input).expect("a file can be written");
        let source = File::open(source).expect("the file was written");
        let mut console = Console::new(source.into(), &file).expect("a file can be made");
        console.drain();
        let kept = fs::metadata(&file).expect("the console's file").len();
        assert_eq!(console.bytes(), input.len() as u64);
        assert_eq!(kept, input.len() as u64);
        assert_eq!(console.splat(), splat);
        assert_console(&console, &tail_of(&file, REPORTED_LINES));
    });
}

/// The splat of a log that comes in pieces, as large as the input's length wants.
fn in_pieces(input: &[u8]) -> Option<Splat> {
    let mut reader = Reader::new();
    input.chunks(1 + input.len() % 61).for_each(|piece| reader.bytes(piece));
    reader.end();
    reader.worst()
}

/// Takes reports back while the log comes: the worst so far, or lines that may
/// come yet.
fn disown(input: &[u8]) {
    let mut reader = Reader::new();
    for piece in input.chunks(1 + input.len() % 257) {
        reader.bytes(piece);
        match reader.worst() {
            Some(worst) if piece.len() % 2 == 0 => reader.disown(&worst.line),
            _ => reader.disown(text_of(&String::from_utf8_lossy(piece))),
        }
    }
    reader.end();
    if let Some(splat) = reader.worst() {
        assert_line("a splat that is left", &splat.line);
    }
}

fn assert_console(console: &Console, reported: &[String]) {
    let tail = console.tail();
    assert!(tail.len() <= TAIL_LINES + 1, "{} lines are remembered", tail.len());
    assert!(reported.len() <= REPORTED_LINES);
    for line in tail.iter().chain(reported) {
        assert_line("a last line", line);
        assert!(line.ends_with(text_of(line)));
    }
    if let Some(line) = console.out_of_memory() {
        assert_line("the line of a kill for memory", line);
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Consoles of real guests in which a fault was provoked.
    #[test]
    fn real_consoles_have_their_severity_and_their_place() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/console");
        for (name, severity, function) in [
            ("real-i386-mute", "panic", "amd_e400_idle+0x1b/0x50"),
            ("real-i386-null-dereference", "oops", "nlrig_null_dereference+0x5/0x10 [nlrig]"),
            ("real-i386-panic", "panic", "nlrig_fault.cold+0xc/0xcf3 [nlrig]"),
            ("real-i386-stuck-softirq", "warning", "nlrig_stuck_softirq+0x2/0x10 [nlrig]"),
            ("real-i386-warn", "warning", "nlrig_fault+0xbc/0x11e [nlrig]"),
            ("real-x86_64-null-dereference", "oops", "nlrig_null_dereference+0x7/0x10 [nlrig]"),
            ("real-x86_64-stuck-softirq", "warning", "nlrig_stuck_softirq"),
            ("real-x86_64-d-state", "warning", ""),
            ("real-x86_64-forged-end", "panic", ""),
        ] {
            let splat = classify(&fs::read(corpus.join(name)).unwrap());
            let found = splat.as_ref().map_or("none", |splat| splat.severity().name());
            assert_eq!(found, severity, "{name}: {splat:?}");
            let place = splat.and_then(|splat| splat.trace.into_iter().next()).unwrap_or_default();
            assert!(place.starts_with(function), "{name}: {place}");
        }
    }
}
