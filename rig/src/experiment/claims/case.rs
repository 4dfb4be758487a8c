//! A row of the ledger: a claim, how it is tried, and what the evidence must be
//! for each finding. All of it is data, and what is shown as the condition of a
//! finding is the condition itself.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Evidence, Scalar};
use crate::abi::Arch;
use crate::static_check::StaticCheck;

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// `A9`, or `A9.2` for a part; A is the article, B the paper.
    pub id: &'static str,
    /// The claim, in one sentence of our own.
    pub claim: &'static str,
    /// What is done, for a person.
    pub tried: &'static str,
    /// Where it is done.
    pub method: Method,
    /// The one architecture that it is about, if it is not about both.
    pub only: Option<Arch>,
    /// The evidence that confirms the claim: all of it. Nothing if none could.
    pub confirms: &'static [Condition],
    /// The evidence that refutes it.
    pub refutes: &'static [Condition],
    /// The evidence that it depends,
    pub depends: &'static [Condition],
    /// and on what.
    pub depends_on: &'static str,
    /// What this kernel is expected to show.
    pub expect: Expect,
    /// Why it is so.
    pub because: &'static str,
    /// Where the kernel's source makes it so: a file and a text in one of its
    /// lines. The line's number is looked up in the source that was built.
    pub source: &'static [(&'static str, &'static str)],
}

impl Case {
    /// What most rows are: tried in a guest that they share.
    pub const SHARED: Case = Case {
        id: "",
        claim: "",
        tried: "",
        method: Method::Guest(Setting::SHARED),
        only: None,
        confirms: &[],
        refutes: &[],
        depends: &[],
        depends_on: "",
        expect: Expect::Always(Finding::Undecided),
        because: "",
        source: &[],
    };

    /// Tried in a guest of its own.
    pub const ALONE: Case = Case { method: Method::Guest(Setting::ALONE), ..Case::SHARED };

    /// Breaks the guest it is tried in.
    pub const BREAKS: Case = Case { method: Method::Guest(Setting::BREAKS), ..Case::SHARED };

    /// Which text says it.
    pub fn text(&self) -> &'static str {
        if self.id.starts_with('A') { "article" } else { "paper" }
    }

    /// How it is tried in a guest, if it is.
    pub fn setting(&self) -> Option<&Setting> {
        match &self.method {
            Method::Guest(setting) => Some(setting),
            Method::Static(_) => None,
        }
    }

    /// The evidence that a finding needs. Nothing makes a claim undecided.
    pub fn conditions(&self, finding: Finding) -> &'static [Condition] {
        match finding {
            Finding::Confirmed => self.confirms,
            Finding::Refuted => self.refutes,
            Finding::Depends => self.depends,
            Finding::Undecided => &[],
        }
    }

    /// What the evidence says. If it fits no finding or several, the claim is
    /// undecided.
    pub fn find(&self, evidence: &Evidence) -> Finding {
        let mut found = Finding::ALL.into_iter().filter(|finding| {
            let conditions = self.conditions(*finding);
            !conditions.is_empty() && conditions.iter().all(|condition| condition.holds(evidence))
        });
        match (found.next(), found.next()) {
            (Some(finding), None) => finding,
            _ => Finding::Undecided,
        }
    }
}

/// Where a claim is tried.
#[derive(Clone, Copy, Debug)]
pub enum Method {
    /// In a guest, by a program.
    Guest(Setting),
    /// At the desk: from the source of the kernel, or by a compiler; or not at
    /// all, and then `because` says why nobody can decide it here.
    Static(StaticCheck),
}

/// A guest and what runs in it.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The workload and its arguments; `claims` and the row's id if empty.
    pub program: &'static [&'static str],
    /// Whether it needs a guest that no other row has seen.
    pub alone: bool,
    /// Whether the guest may end as it should not: then that is evidence too,
    /// `machine` and `machine_says`.
    pub breaks: bool,
    /// Processors.
    pub cpus: u32,
    /// Memory.
    pub memory_bytes: u64,
    /// Further words for the kernel's command line.
    pub boot: &'static str,
    /// How long the program may take, before the accelerator's slowdown.
    pub limit: Duration,
    /// The user it runs as.
    pub user: Option<u32>,
    /// Kernel parameters,
    pub sysctls: &'static [(&'static str, &'static str)],
    /// and limits, in bytes or as a number.
    pub rlimits: &'static [(&'static str, u64)],
}

impl Setting {
    /// In a guest that other rows have seen and will see.
    pub const SHARED: Setting = Setting {
        program: &[],
        alone: false,
        breaks: false,
        cpus: 2,
        memory_bytes: 512 << 20,
        boot: "",
        limit: Duration::from_secs(20),
        user: None,
        sysctls: &[],
        rlimits: &[],
    };
    /// In a guest of its own.
    pub const ALONE: Setting = Setting { alone: true, ..Setting::SHARED };
    /// In a guest that will not be the same afterwards.
    pub const BREAKS: Setting = Setting { breaks: true, ..Setting::ALONE };
}

/// What the ledger expects of a kernel.
#[derive(Clone, Copy, Debug)]
pub enum Expect {
    /// The same of all.
    Always(Finding),
    /// One thing of a 32-bit kernel, another of one of 64 bits.
    ByWordSize {
        /// With 32 bits.
        i386: Finding,
        /// With 64 bits.
        x86_64: Finding,
    },
}

impl Expect {
    /// What is expected of this architecture.
    pub fn of(self, arch: Arch) -> Finding {
        match (self, arch) {
            (Expect::Always(finding), _) => finding,
            (Expect::ByWordSize { i386, .. }, Arch::I386) => i386,
            (Expect::ByWordSize { x86_64, .. }, Arch::X86_64) => x86_64,
        }
    }
}

/// Expected everywhere.
pub const CONFIRMED: Expect = Expect::Always(Finding::Confirmed);
/// Expected everywhere.
pub const REFUTED: Expect = Expect::Always(Finding::Refuted);
/// Expected everywhere.
pub const DEPENDS: Expect = Expect::Always(Finding::Depends);
/// Expected everywhere.
pub const UNDECIDED: Expect = Expect::Always(Finding::Undecided);

/// What came of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finding {
    /// It is so.
    Confirmed,
    /// It is not.
    Refuted,
    /// It is so under a condition.
    Depends,
    /// The evidence is not clear, or there is none.
    Undecided,
}

impl Finding {
    /// All of them.
    pub const ALL: [Finding; 4] =
        [Finding::Confirmed, Finding::Refuted, Finding::Depends, Finding::Undecided];

    /// Its name, as in the report.
    pub fn name(self) -> &'static str {
        match self {
            Finding::Confirmed => "confirmed",
            Finding::Refuted => "refuted",
            Finding::Depends => "depends",
            Finding::Undecided => "undecided",
        }
    }
}

/// A condition on one value of the evidence. A value that is not there fulfils
/// none.
#[derive(Clone, Copy, Debug)]
pub struct Condition {
    key: &'static str,
    test: Test,
}

#[derive(Clone, Copy, Debug)]
enum Test {
    Is(&'static str),
    IsNot(&'static str),
    Flag(bool),
    Equals(i64),
    AtLeast(f64),
    AtMost(f64),
    Says(&'static str),
}

/// The value is this text: mostly an error's name, or `ok`.
pub const fn is(key: &'static str, text: &'static str) -> Condition {
    Condition { key, test: Test::Is(text) }
}

/// The value is a text, and not this one.
pub const fn is_not(key: &'static str, text: &'static str) -> Condition {
    Condition { key, test: Test::IsNot(text) }
}

/// The value is true.
pub const fn yes(key: &'static str) -> Condition {
    Condition { key, test: Test::Flag(true) }
}

/// The value is false.
pub const fn no(key: &'static str) -> Condition {
    Condition { key, test: Test::Flag(false) }
}

/// The value is this number.
pub const fn equals(key: &'static str, number: i64) -> Condition {
    Condition { key, test: Test::Equals(number) }
}

/// The value is a number, and no less than this.
pub const fn at_least(key: &'static str, number: f64) -> Condition {
    Condition { key, test: Test::AtLeast(number) }
}

/// The value is a number, and no more than this.
pub const fn at_most(key: &'static str, number: f64) -> Condition {
    Condition { key, test: Test::AtMost(number) }
}

/// The value is a text that contains this.
pub const fn says(key: &'static str, text: &'static str) -> Condition {
    Condition { key, test: Test::Says(text) }
}

impl Condition {
    /// Whether the evidence fulfils it.
    pub fn holds(&self, evidence: &Evidence) -> bool {
        let Some(value) = evidence.get(self.key) else { return false };
        match (self.test, value) {
            (Test::Is(wanted), Scalar::Text(text)) => text == wanted,
            (Test::IsNot(unwanted), Scalar::Text(text)) => text != unwanted,
            (Test::Says(part), Scalar::Text(text)) => text.contains(part),
            (Test::Flag(wanted), Scalar::Flag(flag)) => *flag == wanted,
            (Test::Equals(wanted), Scalar::Number(number)) => number.as_i64() == Some(wanted),
            (Test::AtLeast(least), Scalar::Number(number)) => {
                number.as_f64().is_some_and(|number| number >= least)
            }
            (Test::AtMost(most), Scalar::Number(number)) => {
                number.as_f64().is_some_and(|number| number <= most)
            }
            _ => false,
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key;
        match self.test {
            Test::Is(text) => write!(f, "{key} is {text}"),
            Test::IsNot(text) => write!(f, "{key} is not {text}"),
            Test::Flag(true) => write!(f, "{key}"),
            Test::Flag(false) => write!(f, "not {key}"),
            Test::Equals(number) => write!(f, "{key} is {number}"),
            Test::AtLeast(number) => write!(f, "{key} ≥ {number}"),
            Test::AtMost(number) => write!(f, "{key} ≤ {number}"),
            Test::Says(text) => write!(f, "{key} says \"{text}\""),
        }
    }
}
