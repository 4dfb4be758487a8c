//! What the rig says: progress and errors on standard error, results on
//! standard output, and never one on the other.

use std::cell::RefCell;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI8, Ordering};
use std::time::{Duration, Instant};

use crate::{Context, Result};

/// -1 is quiet, 0 is normal, 1 and more is verbose.
static LEVEL: AtomicI8 = AtomicI8::new(0);
thread_local! {
    /// What a test's thread has said, while it is captured.
    static CAPTURED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Whether a progress line stands on the terminal and must be wiped first.
static LINE_STANDS: Mutex<bool> = Mutex::new(false);

/// Sets how much is said: the number of `-v` less that of `-q`.
pub fn set_level(level: i8) {
    LEVEL.store(level, Ordering::Relaxed);
}

/// Something the user wants to know unless told otherwise.
pub fn status(text: &str) {
    if LEVEL.load(Ordering::Relaxed) >= 0 {
        line(text);
    }
}

/// A detail for those who asked.
pub fn detail(text: &str) {
    if LEVEL.load(Ordering::Relaxed) >= 1 {
        line(text);
    }
}

/// Lines of results, to standard output: JSON too has a guest's words in it, and
/// may have control characters beyond ASCII as they are.
///
/// # Errors
/// Standard output is closed or full.
pub fn result(text: &str) -> Result<()> {
    writeln!(stdout(), "{}", printable(text)).context("cannot write to standard output")
}

/// What ended the run; said however quiet the rig is.
pub fn error(text: &str) {
    line(&format!("error: {text}"));
}

/// Keeps what this thread says, in place of saying it, until it is asked for: a
/// test shows it only if it fails. Long work is said all the same.
#[derive(Debug)]
pub struct Capture(());

impl Capture {
    /// Begins.
    pub fn start() -> Capture {
        CAPTURED.with_borrow_mut(|captured| *captured = Some(String::new()));
        Capture(())
    }

    /// What was said since.
    pub fn end(self) -> String {
        CAPTURED.with_borrow_mut(Option::take).unwrap_or_default()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        CAPTURED.with_borrow_mut(|captured| *captured = None);
    }
}

/// Whether a text was kept by a capture of this thread.
fn is_captured(text: &str) -> bool {
    CAPTURED.with_borrow_mut(|captured| match captured {
        Some(captured) => {
            captured.push_str(&printable(text));
            captured.push('\n');
            true
        }
        None => false,
    })
}

fn line(text: &str) {
    if !is_captured(text) {
        say(text);
    }
}

fn say(text: &str) {
    let mut stands = LINE_STANDS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    wipe(&mut stands);
    // Nobody is left to be told of a standard error that is gone.
    let _ = writeln!(stderr(), "nlrig: {}", printable(text));
}

fn wipe(stands: &mut bool) {
    if std::mem::take(stands) {
        let _ = write!(stderr(), "\r\x1b[K");
    }
}

/// Text with control characters made visible: what came from a guest or from a
/// build must not drive the user's terminal.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c })
        .collect()
}

/// The longest text that [`brief`] leaves as it is, in bytes.
pub const BRIEF_MAX_BYTES: usize = 8 << 10;

/// A text that a person reads, on one line and cut where nobody reads on: a
/// guest may make it as long as all that it has reported, and begin a line with
/// words that look like the rig's.
pub fn brief(text: String) -> String {
    let mut text = text.replace('\n', " ");
    if text.len() > BRIEF_MAX_BYTES {
        let bytes = text.len();
        let end = (0..=BRIEF_MAX_BYTES).rev().find(|&end| text.is_char_boundary(end));
        text.truncate(end.unwrap_or(0));
        text.push_str(&format!("… ({bytes} bytes in all)"));
    }
    text
}

/// Long work: a line that changes in place on a terminal, and elsewhere a line
/// now and then.
#[derive(Debug)]
pub struct Progress {
    every: Duration,
    last: Option<Instant>,
}

impl Progress {
    /// Begins with nothing said.
    pub fn new() -> Progress {
        let every = if on_terminal() { 200 } else { 20_000 };
        Progress { every: Duration::from_millis(every), last: None }
    }

    /// Says how far the work is, if it is time to.
    pub fn update(&mut self, text: impl FnOnce() -> String) {
        let now = Instant::now();
        // The first line off a terminal waits its turn too: what has begun has
        // already been said.
        let last = *self.last.get_or_insert(now);
        if LEVEL.load(Ordering::Relaxed) < 0 || now - last < self.every {
            return;
        }
        self.last = Some(now);
        if on_terminal() {
            let mut stands = LINE_STANDS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            wipe(&mut stands);
            let _ = write!(stderr(), "nlrig: {}", printable(&text()));
            *stands = true;
        } else {
            say(&text());
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
        let mut stands = LINE_STANDS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        wipe(&mut stands);
    }
}

fn on_terminal() -> bool {
    stderr().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_captured_is_not_said() {
        let capture = Capture::start();
        status("one");
        error("two\x1b");
        assert_eq!(capture.end(), "one\nerror: two\u{fffd}\n");
        assert!(!is_captured("three"));
    }

    #[test]
    fn what_nobody_reads_is_cut() {
        assert_eq!(brief("one\nnlrig: two".to_string()), "one nlrig: two");
        let short = "é".repeat(BRIEF_MAX_BYTES / 2);
        assert_eq!(brief(short.clone()), short);
        let cut = brief(format!("x{short}"));
        assert!(cut.ends_with("é… (8193 bytes in all)"), "{}", &cut[BRIEF_MAX_BYTES - 8..]);
    }

    #[test]
    fn escape_codes_do_not_reach_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\r\tc\u{9b}"), "a\u{fffd}[2Jb\u{fffd}\tc\u{fffd}");
    }
}
