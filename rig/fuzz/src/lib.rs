//! Fuzz targets for all that parses a guest's output.
//!
//! A target feeds one input to the parsers and asserts more than the absence of
//! a panic: bounds of the text, the files and the objects that result. Every
//! target is also held to a bound of CPU time and of memory, see [`Target::run`].
//!
//! - `corpus/TARGET/` has output of real guests, output that a hostile guest
//!   could send, and every input that has broken a parser. `tests/replay.rs`
//!   runs each of them as a plain test.
//! - `targets/TARGET.rs` is the same target for libFuzzer; `ci/fuzz` runs it,
//!   guided by coverage. An input that it finds is copied to the corpus under a
//!   name that states what it is.

pub mod console;
pub mod events;
pub mod monitor;
pub mod report;

use std::alloc::System;
use std::time::Duration;

use cap::Cap;
use nix::time::{ClockId, clock_gettime};
use nlrig_host::ui::MESSAGE_MAX_BYTES;

/// The allocator of every program that links this crate.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// CPU time that one input may take.
const CPU_MAX: Duration = Duration::from_secs(1);

/// A parser under test.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name of its corpus and of its binary.
    pub name: &'static str,
    /// Memory that one input may take beside what the process has.
    pub memory_max_bytes: usize,
    check: fn(&[u8]),
}

/// All targets.
pub const ALL: [Target; 4] = [CONSOLE, EVENTS, MONITOR, REPORT];

/// A machine's serial line and QEMU's standard error.
pub const CONSOLE: Target =
    Target { name: "console", memory_max_bytes: 8 << 20, check: console::check };

/// The port on which PID 1 sends its events.
pub const EVENTS: Target =
    Target { name: "events", memory_max_bytes: 64 << 20, check: events::check };

/// QEMU's answers on its monitor (QMP).
pub const MONITOR: Target =
    Target { name: "monitor", memory_max_bytes: 128 << 20, check: monitor::check };

/// The objects that a workload reports, and the reports made of them.
pub const REPORT: Target =
    Target { name: "report", memory_max_bytes: 256 << 20, check: report::check };

impl Target {
    /// Checks one input.
    ///
    /// Only one input may run at a time, because the limit of memory is the
    /// process's. An input beyond that limit aborts the process, because an
    /// allocation fails.
    ///
    /// # Panics
    /// The input breaks the target, or takes more than a second of CPU time. The
    /// time is the thread's own, so a busy machine makes no input slow.
    pub fn run(&self, input: &[u8]) {
        let limit = ALLOCATOR.allocated() + self.memory_max_bytes;
        ALLOCATOR.set_limit(limit).expect("the limit is above what is allocated");
        let start = cpu_time();
        (self.check)(input);
        let took = cpu_time() - start;
        ALLOCATOR.set_limit(usize::MAX).expect("there is no higher limit");
        assert!(took <= CPU_MAX, "{}: the input takes {took:?} of CPU time", self.name);
    }
}

fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a thread has a CPU clock").into()
}

/// Asserts that `text` has no control character but those of plain text.
fn assert_fit_for_terminal(what: &str, text: &str) {
    let control = |c: char| c.is_control() && c != '\n' && c != '\t';
    if let Some(at) = text.find(control) {
        let around: String = text[at..].chars().take(20).collect();
        panic!("{what} has a control character: {around:?}");
    }
}

/// Asserts that `reason` is short enough for a report and a page.
fn assert_brief(what: &str, reason: &str) {
    // The mark of a truncated text, and a few words of the rig's own around it.
    let most = MESSAGE_MAX_BYTES + 256;
    assert!(reason.len() <= most, "{what} has {} bytes", reason.len());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "of CPU time")]
    fn a_slow_input_fails() {
        let check = |_: &[u8]| {
            let start = cpu_time();
            while cpu_time() - start <= CPU_MAX {}
        };
        Target { name: "slow", memory_max_bytes: 1 << 20, check }.run(b"");
    }
}
