//! Address space of a process: parser for /proc/PID/maps.

use std::fmt;

/// The lowest kernel address. /proc/PID/maps lists the `[vsyscall]` page above
/// it, which does not count as a VMA.
pub const KERNEL: u64 = 1 << 63;

/// A VMA: one line of /proc/PID/maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Area {
    /// The first address.
    pub start: u64,
    /// The last address plus one.
    pub end: u64,
    /// Decides which neighbours the VMA can merge with.
    pub kind: Kind,
    /// Whether the VMA is the main thread's stack, which grows down and keeps a
    /// gap below.
    pub grows_down: bool,
    /// The name at the end of the line: a path, `[heap]`, `[vdso]`, or empty.
    pub name: String,
}

/// The properties that decide whether two neighbours merge (`vma_merge` in
/// mm/mmap.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Private anonymous memory, readable and writable: the heap, or a thread's
    /// stack.
    Writable,
    /// Private anonymous memory without access: a stack guard.
    NoAccess,
    /// A file mapping, a kernel mapping, or the main stack.
    Other,
}

/// An invalid line of /proc/PID/maps, or one that overlaps an earlier line.
#[derive(Debug, PartialEq, Eq)]
pub struct BadLine {
    /// The line number, from 1.
    pub line: usize,
    /// The defect.
    pub reason: &'static str,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} of the memory map {}", self.line, self.reason)
    }
}

impl std::error::Error for BadLine {}

/// Parses /proc/PID/maps.
///
/// # Errors
/// The first line without two hexadecimal addresses, with an end not above its
/// start, or with a start below the end of the line before.
pub fn parse(text: &str) -> Result<Vec<Area>, BadLine> {
    let mut areas: Vec<Area> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let bad = |reason| BadLine { line: index + 1, reason };
        let (start, end) = addresses(line).ok_or(bad("has no address range"))?;
        if end <= start {
            return Err(bad("ends before it starts"));
        }
        if areas.last().is_some_and(|last| start < last.end) {
            return Err(bad("overlaps the one before"));
        }
        // Fields: address, access, offset, device, inode, name. The name may
        // contain blanks.
        let mut fields = line.splitn(6, ' ').skip(1);
        let access = fields.next().unwrap_or("");
        let inode = fields.nth(2).unwrap_or("");
        let name = fields.next().unwrap_or("").trim_start().to_string();
        let anonymous = inode == "0" && (name.is_empty() || name == "[heap]");
        let kind = match access {
            "rw-p" if anonymous => Kind::Writable,
            "---p" if anonymous => Kind::NoAccess,
            _ => Kind::Other,
        };
        areas.push(Area { start, end, kind, grows_down: name == "[stack]", name });
    }
    Ok(areas)
}

/// The address range at the start of a line of /proc/PID/maps.
pub fn addresses(line: &str) -> Option<(u64, u64)> {
    let (start, rest) = line.split_once('-')?;
    let (end, _) = rest.split_once(' ')?;
    Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const I386: &str = "\
08048000-08049000 r--p 00000000 00:14 4          /run/nlrig/guest/bin/threads
09b9c000-09be0000 rw-p 00000000 00:00 0          [heap]
b7f83000-b7f87000 r--p 00000000 00:00 0          [vvar]
b7f87000-b7f89000 r-xp 00000000 00:00 0          [vdso]
bf871000-bf892000 rw-p 00000000 00:00 0          [stack]
";

    #[test]
    fn every_line_is_parsed() {
        let areas = parse(I386).unwrap();
        assert_eq!(areas.len(), 5);
        assert_eq!((areas[0].start, areas[0].end), (0x0804_8000, 0x0804_9000));
        assert_eq!(areas[0].name, "/run/nlrig/guest/bin/threads");
        assert!(areas[4].grows_down && !areas[3].grows_down);
        let kinds = [Kind::Other, Kind::Writable, Kind::Other, Kind::Other, Kind::Other];
        assert_eq!(areas.iter().map(|area| area.kind).collect::<Vec<_>>(), kinds);
    }

    #[test]
    fn malformed_lines_are_errors() {
        for (text, reason) in [
            ("hello\n", "has no address range"),
            ("2000-1000 r--p 00000000 00:00 0 \n", "ends before it starts"),
            ("1000-3000 r--p 0 0 0 \n2000-4000 r--p 0 0 0 \n", "overlaps the one before"),
        ] {
            assert_eq!(parse(text).unwrap_err().reason, reason, "{text}");
        }
    }
}
