//! The reader of a whole console.

use std::sync::LazyLock;

use crate::kinds::{KINDS, OTHER_REPORT, OUT_OF_MEMORY, Severity, SplatKind};
use crate::line::{self, ConsoleLine, Origin};
use crate::pattern::Pattern;
use crate::trace::Tracer;

/// The reader takes no more than so many bytes as one line; the rest of a longer
/// line is read as lines of its own.
pub const LINE_MAX_BYTES: usize = 1024;

/// No line of a report is shorter.
const LINE_MIN_BYTES: usize = 8;

/// [`Splat::describe`] names so many frames.
const DESCRIBED_FRAMES: usize = 8;
/// The reader remembers so many faults.
const REPORTS_MAX: usize = 32;
/// How many lines can be disowned before they come.
const DISOWNED_MAX: usize = 256;
/// A call trace has to follow the first line of an unknown report within so many
/// lines.
const CANDIDATE_LINES: u8 = 12;
/// WARN()'s own message is so many lines above its `WARNING:` at most.
const MESSAGE_LINES: u8 = 6;

/// A fault that the kernel reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Splat {
    /// What kind of fault.
    pub kind: &'static SplatKind,
    /// The line that reports it, without its prefixes.
    pub line: String,
    /// The message of WARN(), which the kernel prints above the line.
    pub message: Option<String>,
    /// The functions in which it happened, innermost first; at most
    /// [`crate::TRACE_MAX_FRAMES`].
    pub trace: Vec<String>,
    /// The first less severe fault before it.
    pub cause: Option<Box<Splat>>,
}

impl Splat {
    /// How severe the fault is.
    pub fn severity(&self) -> Severity {
        self.kind.severity
    }

    /// The line, its message, where it happened, and the fault before it, in one
    /// line.
    pub fn describe(&self) -> String {
        let mut text = self.line.clone();
        if let Some(message) = &self.message {
            text.push_str(&format!(": {message}"));
        }
        if !self.trace.is_empty() {
            let frames = &self.trace[..self.trace.len().min(DESCRIBED_FRAMES)];
            text.push_str(&format!(" (in {})", frames.join(" < ")));
        }
        if self.kind.timing {
            text.push_str("; a busy host can cause this, above all under TCG");
        }
        if let Some(cause) = &self.cause {
            text.push_str(&format!(", after {}", cause.describe()));
        }
        text
    }
}

/// Finds the most severe fault in a whole log.
pub fn classify(log: &[u8]) -> Option<Splat> {
    let mut reader = Reader::new();
    reader.bytes(log);
    reader.end();
    reader.worst()
}

/// The first line of a report of unknown kind, until its call trace follows.
#[derive(Debug)]
struct Candidate {
    kind: &'static SplatKind,
    line: String,
    caller: Option<String>,
    lines_left: u8,
}

/// Reads a console as it comes. Memory is bounded, time linear in the bytes.
#[derive(Debug, Default)]
pub struct Reader {
    partial: Vec<u8>,
    /// The partial line is the rest of a longer one.
    continued: bool,
    /// A record with a prefix of the kernel's was seen.
    has_prefixes: bool,
    /// The faults so far, without their causes.
    reports: Vec<Splat>,
    /// The report whose call trace is read, as an index.
    traced: Option<usize>,
    tracer: Tracer,
    /// Lines that the kernel did not write and that have not come yet.
    disowned: Vec<String>,
    candidate: Option<Candidate>,
    /// Lines since `------------[ cut here ]------------`, and the first of them.
    cut: Option<(u8, Option<String>)>,
    out_of_memory: Option<String>,
}

impl Reader {
    /// A reader that has seen nothing.
    pub fn new() -> Reader {
        Reader::default()
    }

    /// Takes more of the console, cut anywhere.
    pub fn bytes(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (mut text, ends) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            while self.partial.len() + text.len() > LINE_MAX_BYTES {
                let (head, rest) = text.split_at(LINE_MAX_BYTES - self.partial.len());
                self.partial.extend_from_slice(head);
                self.take_partial(true);
                text = rest;
            }
            self.partial.extend_from_slice(text);
            if ends && self.partial.is_empty() {
                self.continued = false;
            } else if ends {
                self.take_partial(false);
            }
        }
    }

    /// Takes what there is of a last line that has no newline.
    pub fn end(&mut self) {
        if !self.partial.is_empty() {
            self.take_partial(false);
        }
    }

    /// The most severe fault so far; of two that are equally severe the first,
    /// which is the cause.
    pub fn worst(&self) -> Option<Splat> {
        let mut worst: Option<Splat> = None;
        for report in &self.reports {
            if worst.as_ref().is_none_or(|worst| report.severity() > worst.severity()) {
                let cause = worst.take().map(Box::new);
                worst = Some(Splat { cause, ..report.clone() });
            }
        }
        worst
    }

    /// Takes back one report with this first line: a program wrote the line to
    /// /dev/kmsg, as the facility of its record shows. The line may come later.
    pub fn disown(&mut self, line: &str) {
        let line = line.trim();
        if let Some(at) = self.reports.iter().position(|report| report.line == line) {
            self.remove(at);
        } else if self.candidate.as_ref().is_some_and(|candidate| candidate.line == line) {
            self.candidate = None;
        } else if self.disowned.len() < DISOWNED_MAX && may_report(line) {
            self.disowned.push(line.to_string());
        }
    }

    /// Forgets a report. What seemed to be the rest of it is the next report.
    fn remove(&mut self, at: usize) {
        let removed = self.reports.remove(at);
        let next = self.reports.get_mut(at);
        let has_next = next.is_some();
        if let Some(next) = next.filter(|next| next.trace.is_empty()) {
            next.trace = removed.trace;
        }
        self.traced = match self.traced {
            Some(traced) if traced > at => Some(traced - 1),
            Some(traced) if traced == at && !has_next => None,
            traced => traced,
        };
    }

    /// The line in which the kernel reports that it killed a process for want of
    /// memory: the first since [`Reader::forget_out_of_memory`].
    pub fn out_of_memory(&self) -> Option<&str> {
        self.out_of_memory.as_deref()
    }

    /// Forgets that line.
    pub fn forget_out_of_memory(&mut self) {
        self.out_of_memory = None;
    }

    fn take_partial(&mut self, cut: bool) {
        let bytes = std::mem::take(&mut self.partial);
        let glued = std::mem::replace(&mut self.continued, cut);
        // A program that draws progress returns to the start of its line.
        for part in bytes.split(|&byte| byte == b'\r') {
            if part.len() >= LINE_MIN_BYTES {
                self.line(&readable(part), glued);
            }
        }
        self.partial = bytes;
        self.partial.clear();
    }

    fn line(&mut self, text: &str, glued: bool) {
        let line = line::parse(text);
        self.has_prefixes |= line.origin == Origin::Kernel;
        if line.origin == Origin::Program || glued && line.origin == Origin::Bare {
            return;
        }
        if self.out_of_memory.is_none()
            && OUT_OF_MEMORY.iter().any(|head| line.text.starts_with(head))
        {
            self.out_of_memory = Some(line.text.to_string());
        }
        match kind_of(line.text) {
            Some(kind) => self.found(kind, line.text, line.caller),
            None => self.other_line(&line),
        }
    }

    /// A line that decides nothing by itself.
    fn other_line(&mut self, line: &ConsoleLine<'_>) {
        // The traces that somebody asked for are not those of a fault.
        if line.text.starts_with("sysrq: ") {
            self.tracer.close();
        }
        if let Some(report) = self.traced.and_then(|at| self.reports.get_mut(at)) {
            self.tracer.follow(line.text, line.caller, &mut report.trace);
        }
        self.note_message(line.text);
        let Some(mut candidate) = self.candidate.take() else {
            self.consider(line);
            return;
        };
        let is_others = line.caller.is_some() && line.caller != candidate.caller.as_deref();
        if !is_others && is_dump(line.text) {
            self.found(candidate.kind, &candidate.line, candidate.caller.as_deref());
        } else if candidate.lines_left > 0 && !line.text.starts_with("sysrq: ") {
            candidate.lines_left -= 1;
            self.candidate = Some(candidate);
        }
    }

    /// Remembers what may be the first line of a report of unknown kind.
    fn consider(&mut self, line: &ConsoleLine<'_>) {
        let (kind, text) = if is_other_report(line.text) {
            // A program's words beside stamped records are not the kernel's.
            if self.has_prefixes && line.origin == Origin::Bare {
                return;
            }
            (&OTHER_REPORT, line.text)
        } else if line.origin == Origin::Bare
            && let Some(at) = line.text.find(PANIC)
        {
            // Glued to a program's words, in a log without time stamps.
            (&KINDS[0], &line.text[at..])
        } else {
            return;
        };
        if self.take_disowned(text) {
            return;
        }
        let (text, caller) = (text.to_string(), line.caller.map(str::to_string));
        self.candidate = Some(Candidate { kind, line: text, caller, lines_left: CANDIDATE_LINES });
    }

    /// Keeps the message that WARN() prints between `cut here` and `WARNING:`.
    fn note_message(&mut self, text: &str) {
        if text.starts_with("------------[ cut here ]") {
            self.cut = Some((0, None));
        } else if let Some((lines, message)) = &mut self.cut {
            *lines += 1;
            if *lines > MESSAGE_LINES {
                self.cut = None;
            } else if message.is_none() {
                *message = Some(text.to_string());
            }
        }
    }

    /// Whether a line was disowned before it came; once for each time.
    fn take_disowned(&mut self, line: &str) -> bool {
        let at = self.disowned.iter().position(|disowned| disowned == line.trim_end());
        at.map(|at| self.disowned.swap_remove(at)).is_some()
    }

    fn found(&mut self, kind: &'static SplatKind, line: &str, caller: Option<&str>) {
        self.candidate = None;
        let message = self.cut.take().and_then(|(_, message)| message);
        let message = message.filter(|_| kind.name == "warn");
        let line = line.trim_end().to_string();
        if self.take_disowned(&line) {
            return;
        }
        let is_worst = self.reports.iter().all(|report| report.severity() < kind.severity);
        if self.reports.len() == REPORTS_MAX {
            if !is_worst {
                self.tracer.close();
                return;
            }
            self.reports.pop();
        }
        // Without a frame yet the line before belongs to the same report.
        let goes_on = self
            .traced
            .and_then(|at| self.reports.get(at))
            .is_some_and(|report| report.trace.is_empty() && report.severity() >= kind.severity);
        self.reports.push(Splat { kind, line, message, trace: Vec::new(), cause: None });
        if !goes_on {
            self.traced = Some(self.reports.len() - 1);
            self.tracer = Tracer::new(caller, kind.timing);
        }
    }
}

const PANIC: &str = "Kernel panic - not syncing: ";

/// Patterns in the order of [`KINDS`], by the first byte of a line they match.
static BY_FIRST_BYTE: LazyLock<Vec<Vec<(&SplatKind, Pattern)>>> = LazyLock::new(|| {
    let of_kind = |kind: &'static SplatKind| {
        kind.patterns.iter().map(move |&format| (kind, Pattern::new(format)))
    };
    let all: Vec<_> = KINDS.iter().flat_map(of_kind).collect();
    let begins = |pattern: &Pattern, byte| pattern.first_byte().is_none_or(|first| first == byte);
    let of_byte = |byte| all.iter().filter(move |(_, pattern)| begins(pattern, byte)).cloned();
    (0..=u8::MAX).map(|byte| of_byte(byte).collect()).collect()
});

fn kind_of(text: &str) -> Option<&'static SplatKind> {
    let candidates = &BY_FIRST_BYTE[usize::from(*text.as_bytes().first()?)];
    candidates.iter().find(|(_, pattern)| pattern.matches(text)).map(|(kind, _)| *kind)
}

fn is_other_report(text: &str) -> bool {
    OTHER_REPORT.patterns.iter().any(|head| text.starts_with(head))
}

fn may_report(text: &str) -> bool {
    kind_of(text).is_some() || is_other_report(text)
}

/// The head of a call trace (lib/dump_stack.c).
fn is_dump(text: &str) -> bool {
    static HEADS: LazyLock<[Pattern; 4]> = LazyLock::new(|| {
        ["Call Trace:", "Call trace:", "CPU: %d PID: %d Comm: ", "CPU: %d UID: %d PID: %d Comm: "]
            .map(Pattern::new)
    });
    HEADS.iter().any(|head| head.matches(text))
}

/// The text of a line: control sequences of a terminal are left out, other
/// control characters and what is not UTF-8 become a replacement character.
fn readable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut readable = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        if c == '\u{1b}' && characters.peek() == Some(&'[') {
            characters.next();
            // Parameters, up to the letter that ends them.
            while characters.next_if(|c| (' '..='?').contains(c)).is_some() {}
            characters.next_if(|c| ('@'..='~').contains(c));
        } else if c.is_control() && c != '\t' {
            readable.push(char::REPLACEMENT_CHARACTER);
        } else {
            readable.push(c);
        }
    }
    readable
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader_of(log: &str) -> Reader {
        let mut reader = Reader::new();
        reader.bytes(log.as_bytes());
        reader
    }

    const FORGED: &str = "BUG: KASAN: use-after-free in f+0x1/0x2";

    #[test]
    fn a_line_that_a_program_wrote_is_taken_back() {
        let mut reader = reader_of(&format!("[    1.0] {FORGED}\n"));
        assert!(reader.worst().is_some());
        reader.disown(FORGED);
        assert_eq!(reader.worst(), None);
    }

    #[test]
    fn a_disowned_line_may_come_later_and_counts_once() {
        let mut reader = Reader::new();
        reader.disown(FORGED);
        reader.bytes(format!("[    1.0] {FORGED}\n").as_bytes());
        assert_eq!(reader.worst(), None);
        reader.bytes(format!("[    2.0] {FORGED}\n").as_bytes());
        assert!(reader.worst().is_some());
    }

    #[test]
    fn a_real_fault_beside_a_disowned_one_stays() {
        let warning = "WARNING: suspicious RCU usage";
        let frames = "[    1.2]  f+0x1/0x2\n";
        let mut reader = reader_of(&format!("[    1.0] {FORGED}\n[    1.1] {warning}\n{frames}"));
        reader.disown(FORGED);
        reader.bytes(b"[    1.3]  g+0x1/0x2\n");
        let worst = reader.worst().unwrap();
        assert_eq!((worst.line.as_str(), worst.trace.len()), (warning, 2));
    }

    #[test]
    fn the_worst_is_kept_however_many_there_are() {
        let mut log = format!("[    1.0] {FORGED}\n").repeat(2 * REPORTS_MAX);
        log.push_str("[    2.0] Kernel panic - not syncing: x\n");
        let worst = reader_of(&log).worst().unwrap();
        assert_eq!(
            (worst.severity(), worst.cause.unwrap().line.as_str()),
            (Severity::Panic, FORGED)
        );
    }

    #[test]
    fn a_process_killed_for_its_memory_is_no_fault() {
        let line = "Out of memory: Killed process 61 (demo) total-vm:15GB";
        let mut reader = reader_of(&format!("[    1.0] {line}\n"));
        assert_eq!((reader.out_of_memory(), reader.worst()), (Some(line), None));
        reader.forget_out_of_memory();
        assert_eq!(reader.out_of_memory(), None);
    }
}
