//! Call traces: the functions behind a fault, innermost first.

/// A trace keeps so many frames; further out they are the same for all faults.
pub const TRACE_MAX_FRAMES: usize = 16;

/// Reporting functions at the top of a call trace; skipped to find the faulting
/// function. A name stands for all functions that begin with it.
const REPORTING: &[&str] = &[
    "dump_stack",
    "dump_backtrace",
    "show_stack",
    "panic+",
    "vpanic+",
    "nmi_panic",
    "__warn",
    "warn_slowpath_",
    "report_bug",
    "print_report",
    "print_address_description",
    "kasan_report",
    "__kasan_report",
    "kasan_check_range",
    "__asan_",
    "kcsan_report",
    "kmsan_report",
    "__msan_",
    "ubsan_epilogue",
    "__ubsan_handle_",
    "bad_page",
    "warn_alloc",
    "__might_sleep",
    "__might_resched",
    "___might_sleep",
    "__schedule_bug",
    "check_preemption_disabled",
    "spin_bug",
    "spin_dump",
    "rwlock_bug",
    "print_circular_bug",
    "print_deadlock_bug",
    "print_usage_bug",
    "lockdep_rcu_suspicious",
    "slab_err",
    "object_err",
    "print_trailer",
    "slab_bug",
    // What a timer interrupt of i386 comes in by.
    "handle_exception+",
];

/// Entries of the interrupts that only report: an NMI, and for a stall the timer.
const NMI_ENTRIES: &[&str] = &["asm_exc_nmi", "end_repeat_nmi", "nmi+"];
const TIMER_ENTRIES: &[&str] = &[
    "asm_sysvec_apic_timer_interrupt",
    "sysvec_apic_timer_interrupt",
    "smp_apic_timer_interrupt",
    "apic_timer_interrupt",
];

/// Lines in front of a stack that is not the one of the fault.
const OTHER_STACKS: &[&str] = &[
    "Allocated by task",
    "Freed by task",
    "allocated by task",
    "freed by task",
    "page last allocated",
    "page last free",
    "page_owner tracks",
    "Last potentially related work",
    "Second to last potentially related work",
    "Uninit was",
    "Local variable",
    "INFO: Allocated in",
    "INFO: Freed in",
    "Allocated in",
    "Freed in",
    "the existing dependency chain",
    "Preemption disabled at",
];

/// Heading of a processor's state; a stall's report has one for each.
const PROCESSORS: &[&str] = &["NMI backtrace for cpu", "Sending NMI from CPU"];

/// Collects the frames that follow the line of a fault.
#[derive(Clone, Debug, Default)]
pub struct Tracer {
    /// The caller id of the fault's line: frames of other callers are others'.
    caller: Option<String>,
    /// The frames that come belong to another stack.
    other: bool,
    closed: bool,
    /// A timer interrupt found the fault and stands above it.
    by_timer: bool,
    /// A line of the instruction pointer came: what is above it is known.
    has_registers: bool,
}

impl Tracer {
    /// Begins behind the line of a fault.
    pub fn new(caller: Option<&str>, by_timer: bool) -> Tracer {
        Tracer { caller: caller.map(str::to_string), by_timer, ..Tracer::default() }
    }

    /// Takes no more frames.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Adds the frame of a later line, if it has one.
    pub fn follow(&mut self, text: &str, caller: Option<&str>, trace: &mut Vec<String>) {
        if self.closed
            || self.caller.is_some() && caller.is_some_and(|id| Some(id) != self.caller.as_deref())
        {
            return;
        }
        if text.starts_with("---[ end") {
            self.closed = true;
        } else if text.starts_with("Call Trace:") || text.starts_with("Call trace:") {
            self.other = false;
        } else if OTHER_STACKS.iter().any(|heading| text.starts_with(heading)) || is_owner(text) {
            self.other = true;
            self.closed = !trace.is_empty();
        } else if PROCESSORS.iter().any(|heading| text.starts_with(heading)) {
            // The first that has a trace counts.
            self.closed = !trace.is_empty();
        } else if !self.other
            && let Some(frame) = frame(text)
        {
            self.push(frame, trace);
            self.has_registers |= without_register(text) != text;
        }
    }

    fn push(&mut self, frame: &str, trace: &mut Vec<String>) {
        let begins = |names: &[&str]| names.iter().any(|name| frame.starts_with(name));
        let is_entry = begins(NMI_ENTRIES) || self.by_timer && begins(TIMER_ENTRIES);
        if is_entry && !self.has_registers {
            trace.clear();
        } else if trace.len() < TRACE_MAX_FRAMES
            && !(trace.is_empty() && begins(REPORTING))
            && trace.last().is_none_or(|last| last != frame)
        {
            trace.push(frame.to_string());
        }
    }
}

/// KFENCE's heading of an object: `kfence-#69: 0x… allocated by task 61 on cpu 0`.
fn is_owner(text: &str) -> bool {
    text.starts_with("kfence-#") && text.contains("allocated by task")
}

/// The function in a line of a call trace, with its module: `f+0x1/0x2 [m]`.
/// The kernel marks what it only guesses by a question mark; such frames are
/// left out. Understood are also an address in front (`[<c1234567>] f+0x1/0x2`),
/// the lines of the instruction pointer, and decode_stacktrace.sh's output.
pub fn frame(text: &str) -> Option<&str> {
    let text = without_register(text.trim());
    let text = without_address(without_address(text));
    let end = text.find(' ').unwrap_or(text.len());
    let (function, rest) = text.split_at(end);
    let rest = rest.trim_start();
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.$".contains(c);
    let name = match function.split_once("+0x") {
        Some((name, place)) if is_place(place) => name,
        None if is_source_place(rest) => function,
        _ => return None,
    };
    if name.is_empty() || !name.chars().all(plain) {
        return None;
    }
    let module = rest.split_once(']').map(|(module, _)| module).filter(|m| m.starts_with('['));
    match module {
        Some(module) => {
            let start = text.len() - rest.len();
            Some(&text[..start + module.len() + 1])
        }
        None => Some(function),
    }
}

/// `RIP: 0010:f+0x1/0x2`, `EIP is at f+0x1/0x2`, `IP: [<c1234567>] f+0x1/0x2`.
fn without_register(text: &str) -> &str {
    const REGISTERS: [&str; 8] =
        ["RIP is at ", "EIP is at ", "RIP: ", "EIP: ", "IP: ", "RIP ", "pc : ", "PC is at "];
    let Some(rest) = REGISTERS.iter().find_map(|register| text.strip_prefix(register)) else {
        return text;
    };
    let rest = rest.trim_start();
    match rest.split_once(':') {
        // The code segment.
        Some((segment, rest)) if segment.len() == 4 && is_place(segment) => rest,
        _ => rest,
    }
}

/// `[<c1234567>] f` of kernels before 4.9, and the pair that RIP: had.
fn without_address(text: &str) -> &str {
    match text.strip_prefix("[<").and_then(|rest| rest.split_once(">]")) {
        Some((address, rest)) if is_place(address) => rest.trim_start(),
        _ => text,
    }
}

fn is_place(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_hexdigit() || c == 'x' || c == '/')
}

/// `(net/core/dev.c:123 …`.
fn is_source_place(text: &str) -> bool {
    let place = text.strip_prefix('(').and_then(|rest| rest.split_once(':'));
    place.is_some_and(|(file, line)| {
        [".c", ".h", ".S", ".rs"].iter().any(|end| file.ends_with(end))
            && line.starts_with(|c: char| c.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_a_function_with_its_module() {
        for (line, function) in [
            (" demo_write+0x5/0x10 [demo]", Some("demo_write+0x5/0x10 [demo]")),
            ("vfs_write.part.0+0xb9/0x300", Some("vfs_write.part.0+0xb9/0x300")),
            ("demo+0x1/0x2 [demo 1f2e3d] (P)", Some("demo+0x1/0x2 [demo 1f2e3d]")),
            (" [<c12c2b82>] strlen+0x12/0x20", Some("strlen+0x12/0x20")),
            ("[<ffffffff812c2b82>] demo+0x12/0x20 [demo]", Some("demo+0x12/0x20 [demo]")),
            ("RIP: 0010:demo+0x5/0x10 [demo]", Some("demo+0x5/0x10 [demo]")),
            ("RIP: 0010:[<ffffffff81000001>]  [<ffffffff81000001>] f+0x1/0x2", Some("f+0x1/0x2")),
            ("EIP: demo+0x5/0x10", Some("demo+0x5/0x10")),
            ("EIP is at demo+0x5/0x10 [demo]", Some("demo+0x5/0x10 [demo]")),
            ("IP: [<c12c2b82>] strlen+0x12/0x20", Some("strlen+0x12/0x20")),
            ("demo_write (drivers/demo.c:123 (discriminator 4)) ", Some("demo_write")),
            ("? demo+0x1/0x2", None),
            (" [<c15c0b1f>] ? demo+0x8f/0xb0", None),
            ("EIP: 0060:[<c12c2b82>] EFLAGS: 00010246 CPU: 0", None),
            ("EIP: 0xb7f7f549", None),
            ("RIP: 0033:0x442d78", None),
            ("Hardware name: a+0xb", None),
            ("a b+0x1/0x2", None),
            ("+0x1/0x2", None),
            ("", None),
        ] {
            assert_eq!(frame(line), function, "{line}");
        }
    }

    fn trace_of(by_timer: bool, lines: &[&str]) -> Vec<String> {
        let (mut tracer, mut trace) = (Tracer::new(Some("T1"), by_timer), Vec::new());
        for line in lines {
            tracer.follow(line, Some("T1"), &mut trace);
        }
        trace
    }

    #[test]
    fn reporting_functions_stand_above_the_place_and_are_left_out() {
        let lines = ["dump_stack_lvl+0x1/0x2", "panic+0x1/0x2", "a+0x1/0x2", "panic+0x1/0x2"];
        assert_eq!(trace_of(false, &lines), ["a+0x1/0x2", "panic+0x1/0x2"]);
    }

    #[test]
    fn the_interrupt_that_found_a_stall_is_left_out() {
        let lines =
            ["tick+0x1/0x2", "asm_sysvec_apic_timer_interrupt+0x1/0x2", "RIP: 0010:spin+0x1/0x2"];
        assert_eq!(trace_of(true, &lines), ["spin+0x1/0x2"]);
        assert_eq!(trace_of(false, &lines).len(), 3);
        // A softirq that is stuck was itself entered from a timer interrupt.
        let lines = ["EIP: stuck+0x1/0x2", "sysvec_apic_timer_interrupt+0x1/0x2", "x+0x1/0x2"];
        assert_eq!(trace_of(true, &lines).len(), 3);
    }

    #[test]
    fn other_stacks_and_other_callers_are_left_out() {
        let lines = ["page last allocated via order 0", "x+0x1/0x2", "Call Trace:", "a+0x1/0x2"];
        assert_eq!(trace_of(false, &lines), ["a+0x1/0x2"]);
        let lines = ["Call Trace:", "a+0x1/0x2", "Freed by task 2:", "x+0x1/0x2"];
        assert_eq!(trace_of(false, &lines), ["a+0x1/0x2"]);
        let (mut tracer, mut trace) = (Tracer::new(Some("T1"), false), Vec::new());
        tracer.follow("x+0x1/0x2", Some("T2"), &mut trace);
        assert!(trace.is_empty());
    }

    #[test]
    fn a_trace_is_bounded() {
        let lines: Vec<_> = (0..99).map(|n| format!("f{n}+0x1/0x2")).collect();
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        assert_eq!(trace_of(false, &lines).len(), TRACE_MAX_FRAMES);
    }
}
