//! What a machine prints: kept in a file of limited size, its last lines in
//! memory, and the worst that its kernel says of itself.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::outcome::Result;

use super::log::Log;
use super::read_some;
use nlrig_host::ui::sanitize;
use nlrig_splat::{Reader, Splat};

/// A file takes no more than this; a guest may print for ever.
const FILE_MAX_BYTES: u64 = 16 << 20;
/// How many lines are remembered.
pub const TAIL_LINES: usize = 40;
/// The longest line that is remembered, in bytes.
pub const LINE_MAX_BYTES: usize = 1024;

/// One stream of text from a machine.
#[derive(Debug)]
pub struct Console {
    source: Option<File>,
    log: Log,
    /// How much has come.
    bytes: u64,
    line: Vec<u8>,
    tail: VecDeque<String>,
    reader: Reader,
}

impl Console {
    /// Keeps what comes from `source` in the file `path`.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn new(source: OwnedFd, path: &Path) -> Result<Console> {
        let log = Log::create(path, FILE_MAX_BYTES)?;
        Ok(Console {
            source: Some(File::from(source)),
            log,
            bytes: 0,
            line: Vec::new(),
            tail: VecDeque::new(),
            reader: Reader::new(),
        })
    }

    /// Keeps what comes from now on in another file, for another job: what was
    /// said of memory before is not this one's.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn redirect(&mut self, path: &Path) -> Result<()> {
        self.log = Log::create(path, FILE_MAX_BYTES)?;
        self.reader.forget_out_of_memory();
        Ok(())
    }

    /// Where to wait for more; none after its end.
    pub fn source(&self) -> Option<BorrowedFd<'_>> {
        self.source.as_ref().map(AsFd::as_fd)
    }

    /// Takes what is there.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn read(&mut self) -> Result<()> {
        let Some(source) = &mut self.source else { return Ok(()) };
        let mut bytes = Vec::new();
        if !read_some(source, &mut bytes)? {
            self.source = None;
        }
        self.keep(&bytes)?;
        if self.source.is_none() {
            self.reader.end();
        }
        Ok(())
    }

    /// Takes what is left, once the writer is gone.
    pub fn drain(&mut self) {
        while self.source.is_some() {
            if self.read().is_err() {
                self.source = None;
            }
        }
    }

    /// How many bytes have come.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The last lines, fit for a terminal.
    pub fn tail(&self) -> Vec<String> {
        let mut lines: Vec<_> = self.tail.iter().cloned().collect();
        if !self.line.is_empty() {
            lines.push(text(&self.line));
        }
        lines
    }

    /// The worst that the kernel said of itself; of two alike, the first, which
    /// is the cause.
    pub fn splat(&self) -> Option<Splat> {
        self.reader.worst()
    }

    /// Takes back what these lines report: programs wrote them to the kernel's
    /// log.
    pub fn disown(&mut self, lines: &[String]) {
        lines.iter().for_each(|line| self.reader.disown(line));
    }

    /// The line in which a kernel said that it killed a process for its memory.
    pub fn out_of_memory(&self) -> Option<&str> {
        self.reader.out_of_memory()
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<()> {
        self.log.append(bytes)?;
        self.bytes += bytes.len() as u64;
        self.reader.bytes(bytes);
        for &byte in bytes {
            if byte == b'\n' {
                self.end_line();
            } else if self.line.len() < LINE_MAX_BYTES {
                self.line.push(byte);
            }
        }
        Ok(())
    }

    fn end_line(&mut self) {
        let line = text(&self.line);
        self.line.clear();
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }
}

/// The last lines of a console's file that are not blank, fit for a terminal.
pub fn tail_of(file: &Path, lines: usize) -> Vec<String> {
    let bytes = std::fs::read(file).unwrap_or_default();
    let mut last: Vec<_> = bytes
        .rsplit(|&byte| byte == b'\n')
        .map(|line| text(&line[..line.len().min(LINE_MAX_BYTES)]))
        .filter(|line| !line.trim().is_empty())
        .take(lines)
        .collect();
    last.reverse();
    last
}

fn text(line: &[u8]) -> String {
    sanitize(String::from_utf8_lossy(line).trim_end_matches('\r'))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::io::Write;

    use super::*;
    use crate::outcome::Verdict;

    fn console_of(bytes: &[u8]) -> (Console, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        let mut console = Console::new(reader.into(), &dir.path().join("console")).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || writer.write_all(bytes).unwrap());
            console.drain();
        });
        (console, dir)
    }

    #[test]
    fn a_panic_is_seen_and_control_sequences_are_not() {
        let (console, _dir) =
            console_of(b"\x1b[2Jhello\r\n[1.0] Kernel panic - not syncing: oops\r\nmore");
        let splat = console.splat().unwrap();
        assert_eq!(Verdict::from(splat.severity()), Verdict::Panic);
        assert_eq!(splat.describe(), "Kernel panic - not syncing: oops");
        assert_eq!(console.tail().len(), 3);
        assert!(!console.tail().concat().contains('\x1b'));
    }

    #[test]
    fn the_worst_counts_and_its_cause_is_told() {
        let text = "[1.0] WARNING: CPU: 0 PID: 1 at one.c:1 one+0x1/0x2\n[1.0]  one+0x1/0x2\n\
                    [1.0] WARNING: CPU: 1 PID: 2 at two.c:1 two+0x1/0x2\n[2.0] Oops: 0002 [#1]\n\
                    [2.0]  two+0x1/0x2\n[3.0] BUG: soft lockup - CPU#0 stuck for 22s!\n";
        let (console, _dir) = console_of(text.as_bytes());
        let splat = console.splat().unwrap();
        assert_eq!(Verdict::from(splat.severity()), Verdict::Oops);
        assert_eq!(
            splat.describe(),
            "Oops: 0002 [#1] (in two+0x1/0x2), \
             after WARNING: CPU: 0 PID: 1 at one.c:1 one+0x1/0x2 (in one+0x1/0x2)"
        );
    }

    #[test]
    fn a_process_killed_for_its_memory_is_seen() {
        let line = "Out of memory: Killed process 61 (threads) total-vm:15GB";
        let (console, _dir) = console_of(format!("[9.1] {line}\r\n[9.2] more\r\n").as_bytes());
        assert_eq!(console.out_of_memory(), Some(line));
        assert_eq!(console.splat(), None);
    }

    #[test]
    fn an_endless_line_takes_no_more_than_its_share() {
        let (console, dir) = console_of(&vec![b'x'; 20 << 20]);
        assert_eq!(console.tail()[0].len(), LINE_MAX_BYTES);
        let size = std::fs::metadata(dir.path().join("console")).unwrap().len();
        assert_eq!(size, FILE_MAX_BYTES);
    }
}
