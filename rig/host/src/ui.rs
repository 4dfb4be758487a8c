//! Terminal output: messages, progress and errors on standard error, results on
//! standard output.

use std::cell::RefCell;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI8, Ordering};
use std::time::{Duration, Instant};

use crate::{Context, Result};

/// The verbosity: -1 is quiet, 0 is normal, 1 and more is verbose.
static LEVEL: AtomicI8 = AtomicI8::new(0);
thread_local! {
    /// The messages of a test's thread, while a [`Capture`] is active.
    static CAPTURED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Whether the terminal shows a progress line, which the next message must erase.
static PROGRESS_SHOWN: Mutex<bool> = Mutex::new(false);

/// Sets the verbosity: the number of `-v` options minus that of `-q` options.
pub fn set_level(level: i8) {
    LEVEL.store(level, Ordering::Relaxed);
}

/// Prints a message, unless the rig is quiet.
pub fn status(text: &str) {
    if LEVEL.load(Ordering::Relaxed) >= 0 {
        line(text);
    }
}

/// Prints a message if the rig is verbose.
pub fn detail(text: &str) {
    if LEVEL.load(Ordering::Relaxed) >= 1 {
        line(text);
    }
}

/// Prints a result to standard output, without control characters.
///
/// JSON is sanitized too: it has text of the guest, and JSON strings may contain
/// control characters beyond ASCII unescaped.
///
/// # Errors
/// Standard output is closed or full.
pub fn result(text: &str) -> Result<()> {
    writeln!(stdout(), "{}", sanitize(text)).context("cannot write to standard output")
}

/// Prints an error, even if the rig is quiet.
pub fn error(text: &str) {
    line(&format!("error: {text}"));
}

/// Collects the messages of this thread instead of printing them. Progress lines
/// are still printed.
///
/// A test prints the messages only if it fails.
#[derive(Debug)]
pub struct Capture(());

impl Capture {
    /// Starts to collect messages.
    pub fn start() -> Capture {
        CAPTURED.with_borrow_mut(|captured| *captured = Some(String::new()));
        Capture(())
    }

    /// Stops and returns the messages.
    pub fn end(self) -> String {
        CAPTURED.with_borrow_mut(Option::take).unwrap_or_default()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        CAPTURED.with_borrow_mut(|captured| *captured = None);
    }
}

/// Adds a message to this thread's capture; returns whether there is one.
fn is_captured(text: &str) -> bool {
    CAPTURED.with_borrow_mut(|captured| match captured {
        Some(captured) => {
            captured.push_str(&sanitize(text));
            captured.push('\n');
            true
        }
        None => false,
    })
}

fn line(text: &str) {
    if !is_captured(text) {
        print(text);
    }
}

fn print(text: &str) {
    let mut shown = PROGRESS_SHOWN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    erase(&mut shown);
    // There is no other place to report that standard error is closed.
    let _ = writeln!(stderr(), "nlrig: {}", sanitize(text));
}

/// Erases the progress line, if one is shown.
fn erase(shown: &mut bool) {
    if std::mem::take(shown) {
        let _ = write!(stderr(), "\r\x1b[K");
    }
}

/// Replaces control characters by U+FFFD, except line breaks and tabs.
///
/// Text of a guest or a build must not send escape sequences to the terminal.
pub fn sanitize(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c })
        .collect()
}

/// The length at which [`truncate`] cuts a text, in bytes.
pub const MESSAGE_MAX_BYTES: usize = 8 << 10;

/// Joins the lines of a text and cuts it at [`MESSAGE_MAX_BYTES`].
///
/// A guest's text may be as long as its whole output, and a line of it may look
/// like a message of the rig.
pub fn truncate(text: String) -> String {
    let mut text = text.replace('\n', " ");
    if text.len() > MESSAGE_MAX_BYTES {
        let bytes = text.len();
        let end = (0..=MESSAGE_MAX_BYTES).rev().find(|&end| text.is_char_boundary(end));
        text.truncate(end.unwrap_or(0));
        text.push_str(&format!("… ({bytes} bytes in all)"));
    }
    text
}

/// The progress of long work: one line that is updated in place on a terminal, a
/// line every 20 s elsewhere.
#[derive(Debug)]
pub struct Progress {
    every: Duration,
    last: Option<Instant>,
}

impl Progress {
    /// Makes a progress without a line.
    pub fn new() -> Progress {
        let every = if on_terminal() { 200 } else { 20_000 };
        Progress { every: Duration::from_millis(every), last: None }
    }

    /// Updates the line, unless the last update was too recent.
    pub fn update(&mut self, text: impl FnOnce() -> String) {
        let now = Instant::now();
        // The first update waits too: the start of the work is already reported.
        let last = *self.last.get_or_insert(now);
        if LEVEL.load(Ordering::Relaxed) < 0 || now - last < self.every {
            return;
        }
        self.last = Some(now);
        if on_terminal() {
            let mut shown = PROGRESS_SHOWN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            erase(&mut shown);
            let _ = write!(stderr(), "nlrig: {}", sanitize(&text()));
            *shown = true;
        } else {
            print(&text());
        }
    }
}

impl Default for Progress {
    fn default() -> Progress {
        Progress::new()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let mut shown = PROGRESS_SHOWN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        erase(&mut shown);
    }
}

fn on_terminal() -> bool {
    stderr().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captured_messages_are_not_printed() {
        let capture = Capture::start();
        status("one");
        error("two\x1b");
        assert_eq!(capture.end(), "one\nerror: two\u{fffd}\n");
        assert!(!is_captured("three"));
    }

    #[test]
    fn a_long_text_is_cut_and_has_one_line() {
        assert_eq!(truncate("one\nnlrig: two".to_string()), "one nlrig: two");
        let short = "é".repeat(MESSAGE_MAX_BYTES / 2);
        assert_eq!(truncate(short.clone()), short);
        let cut = truncate(format!("x{short}"));
        assert!(cut.ends_with("é… (8193 bytes in all)"), "{}", &cut[MESSAGE_MAX_BYTES - 8..]);
    }

    #[test]
    fn escape_codes_do_not_reach_the_terminal() {
        assert_eq!(sanitize("a\x1b[2Jb\r\tc\u{9b}"), "a\u{fffd}[2Jb\u{fffd}\tc\u{fffd}");
    }
}
