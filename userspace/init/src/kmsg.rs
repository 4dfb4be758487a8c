//! The kernel log: records that user programs wrote, and what was logged while a
//! module was loaded.
//!
//! The serial console does not show the origin of a record, but /dev/kmsg does.
//! Without this list, the host would take a program's line for a fault report of
//! the kernel.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

/// The maximum size of a record with its dictionary (CONSOLE_EXT_LOG_MAX,
/// include/linux/printk.h).
const RECORD_MAX_BYTES: usize = 8192;
/// The maximum number of records to read, more than the log buffer holds.
const RECORDS_MAX: usize = 100_000;
/// The maximum number of reported lines, because an event has a size limit.
const LINES_MAX: usize = 128;
/// The maximum length of a reported line. Longer ones are skipped.
const LINE_MAX_BYTES: usize = 512;
/// Words of fault reports. A line without any of them is not reported.
const WORDS: &[&str] = &[
    "BUG",
    "WARNING",
    "INFO: ",
    "UBSAN",
    "KASAN",
    "Oops",
    "PANIC",
    "LOCKUP",
    "VFS",
    "[#",
    "panic",
    "fault",
    "fail",
    "error",
    "corruption",
    "detected",
    "huh",
    "kmemleak",
    "unregister",
    "sysfs",
    "sysctl",
    "kobject",
    "alive",
    "tracker",
    "leaked",
    "nobody cared",
    "stack",
    "stalled",
    "Dead",
    "release",
    "scheduling",
    "active",
];

/// The kernel log, read from a given moment on.
pub struct KernelLog(Option<File>);

impl KernelLog {
    /// Starts after the newest record. Reads nothing if /dev/kmsg cannot be opened.
    pub fn from_now() -> KernelLog {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg");
        KernelLog(file.and_then(|mut file| file.seek(SeekFrom::End(0)).map(|_| file)).ok())
    }

    /// The lines since the start that user programs wrote and that resemble a
    /// fault report.
    pub fn user_lines(self) -> Vec<String> {
        let mut lines = Vec::new();
        self.each_record(|record| {
            lines.extend(user_lines_of(record));
            lines.len() < LINES_MAX
        });
        lines.truncate(LINES_MAX);
        lines
    }

    /// The newest lines since then, `most` at most.
    pub fn newest_lines(self, most: usize) -> Vec<String> {
        let mut lines = Vec::new();
        self.each_record(|record| {
            lines.extend(first_line(record));
            if lines.len() > most {
                lines.remove(0);
            }
            true
        });
        lines
    }

    /// Hands over each record since then, as long as `each` returns true.
    fn each_record(self, mut each: impl FnMut(&str) -> bool) {
        let Some(mut file) = self.0 else { return };
        let mut record = vec![0; RECORD_MAX_BYTES];
        for _ in 0..RECORDS_MAX {
            match file.read(&mut record) {
                Ok(0) => break,
                Ok(length) => {
                    if !each(&String::from_utf8_lossy(&record[..length])) {
                        break;
                    }
                }
                // Records were overwritten before they were read.
                Err(err) if err.raw_os_error() == Some(libc::EPIPE) => {}
                Err(_) => break,
            }
        }
    }
}

/// The first line of a record's text, cut to [`LINE_MAX_BYTES`] characters.
fn first_line(record: &str) -> Option<String> {
    let (_, text) = record.split_once(';')?;
    let line = text.lines().next()?.trim();
    (!line.is_empty()).then(|| line.chars().take(LINE_MAX_BYTES).collect())
}

/// The suspicious lines of a record, if a user program wrote it.
///
/// Bits 3 and up of the priority are the facility, which is 0 for the kernel
/// (Documentation/ABI/testing/dev-kmsg).
fn user_lines_of(record: &str) -> Vec<String> {
    let (head, text) = record.split_once(';').unwrap_or_default();
    let priority: u32 = head.split(',').next().and_then(|text| text.parse().ok()).unwrap_or(0);
    if priority >> 3 == 0 {
        return Vec::new();
    }
    // The dictionary follows the first newline; newlines in the text are escaped.
    let text = text.split('\n').next().unwrap_or_default();
    text.split("\\x0a")
        .map(str::trim)
        .filter(|line| line.len() <= LINE_MAX_BYTES && WORDS.iter().any(|word| line.contains(word)))
        .map(str::to_string)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_records_of_user_programs_are_reported() {
        assert_eq!(user_lines_of("12,340,5140910,-;BUG: x\n SUBSYSTEM=y\n"), ["BUG: x"]);
        assert_eq!(
            user_lines_of("12,340,5140910,-;WARNING: a\\x0aBUG: b\n"),
            ["WARNING: a", "BUG: b"]
        );
        assert!(user_lines_of("4,340,5140910,-;BUG: x\n").is_empty());
        assert!(user_lines_of("12,340,5140910,-;test 1 begins\n").is_empty());
        assert!(user_lines_of("").is_empty());
    }

    #[test]
    fn a_line_is_read_without_its_head_and_dictionary() {
        let record = "4,340,5140910,-;hello_nl: Unknown symbol other (err -2)\n SUBSYSTEM=x\n";
        let line = first_line(record);
        assert_eq!(line.as_deref(), Some("hello_nl: Unknown symbol other (err -2)"));
        assert_eq!(first_line("4,1,2,-;\n"), None);
        assert_eq!(first_line("nonsense"), None);
        let long = first_line(&format!("4,1,2,-;{}", "é".repeat(9999)));
        assert_eq!(long.unwrap().chars().count(), LINE_MAX_BYTES);
    }
}
