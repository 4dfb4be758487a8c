//! The kinds of fault that a kernel reports, as data.

pub use crate::table::KINDS;

/// How severe a fault is. Ordered: a panic is the most severe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The kernel reports a fault and goes on.
    Warning,
    /// The kernel kills the task that hit the fault, and may be unusable.
    Oops,
    /// The kernel has stopped.
    Panic,
}

impl Severity {
    /// The severity in one lower-case word.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Warning => "warning",
            Severity::Oops => "oops",
            Severity::Panic => "panic",
        }
    }
}

impl std::fmt::Display for Severity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One kind of fault.
#[derive(Debug, PartialEq, Eq)]
pub struct SplatKind {
    /// Its name: unique, lower case, words joined by hyphens.
    pub name: &'static str,
    /// How severe it is.
    pub severity: Severity,
    /// The fault, for a person.
    pub what: &'static str,
    /// Where the kernel prints the report: the file, and the function where
    /// several are meant.
    pub source: &'static str,
    /// The report's first lines, as format strings (`%s`, `%d`, `%x`).
    pub patterns: &'static [&'static str],
    /// The fault is a deadline that was missed, as on a host that is busy.
    pub timing: bool,
}

const fn kind(
    severity: Severity,
    name: &'static str,
    what: &'static str,
    source: &'static str,
    patterns: &'static [&'static str],
) -> SplatKind {
    SplatKind { name, severity, what, source, patterns, timing: false }
}

pub(crate) const fn panic(
    name: &'static str,
    what: &'static str,
    source: &'static str,
    patterns: &'static [&'static str],
) -> SplatKind {
    kind(Severity::Panic, name, what, source, patterns)
}

pub(crate) const fn oops(
    name: &'static str,
    what: &'static str,
    source: &'static str,
    patterns: &'static [&'static str],
) -> SplatKind {
    kind(Severity::Oops, name, what, source, patterns)
}

pub(crate) const fn warning(
    name: &'static str,
    what: &'static str,
    source: &'static str,
    patterns: &'static [&'static str],
) -> SplatKind {
    kind(Severity::Warning, name, what, source, patterns)
}

pub(crate) const fn late(
    name: &'static str,
    what: &'static str,
    source: &'static str,
    patterns: &'static [&'static str],
) -> SplatKind {
    SplatKind { timing: true, ..warning(name, what, source, patterns) }
}

/// Reports that [`KINDS`] has no pattern for: the kernel's continuation, a call
/// trace, must follow.
pub static OTHER_REPORT: SplatKind = warning(
    "other-report",
    "a report of another kind, with a call trace",
    "any file: BUG: or WARNING: and dump_stack()",
    &["BUG: ", "WARNING: "],
);

/// How the kernel reports that it killed a process for want of memory
/// (mm/oom_kill.c: __oom_kill_process()). The process is at fault, not the kernel.
pub const OUT_OF_MEMORY: &[&str] = &[
    "Out of memory: Kill",
    "Out of memory (oom_kill_allocating_task): Kill",
    "Memory cgroup out of memory: Kill",
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_every_kind_has_its_source() {
        let mut names = HashSet::new();
        for kind in KINDS {
            assert!(names.insert(kind.name), "{}", kind.name);
            assert!(kind.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'));
            assert!(!kind.what.is_empty() && !kind.patterns.is_empty(), "{}", kind.name);
            assert!(kind.source.contains(['.', '/']), "{}", kind.name);
        }
    }

    #[test]
    fn severities_are_ordered() {
        assert!(Severity::Panic > Severity::Oops && Severity::Oops > Severity::Warning);
    }
}
