//! What a kernel prints when something is wrong with it: one table of patterns,
//! and the call trace behind a line that has one.
//!
//! The guest is not told to die of an oops (no `oops=panic`): it must live to
//! tell its state. So the console is read here.

use std::borrow::Cow;

use crate::outcome::Verdict;

/// A pattern is found anywhere in a line; the first that fits is taken, so the
/// special ones stand before the general. Sources: the kernel's own printk
/// calls, named at each group, as of 6.1 to 6.12.
const PATTERNS: &[(&str, Verdict)] = &[
    // kernel/panic.c: panic().
    ("Kernel panic - not syncing", Verdict::Panic),
    // mm/kasan/report.c, lib/ubsan.c, mm/kfence/report.c, mm/kmsan/report.c
    ("BUG: KASAN:", Verdict::Warning),
    ("BUG: KFENCE:", Verdict::Warning),
    ("BUG: KMSAN:", Verdict::Warning),
    ("UBSAN: ", Verdict::Warning),
    // kernel/watchdog.c, kernel/watchdog_hld.c, kernel/workqueue.c
    ("BUG: soft lockup", Verdict::Warning),
    ("Watchdog detected hard LOCKUP", Verdict::Warning),
    ("BUG: workqueue", Verdict::Warning),
    // kernel/sched/core.c, kernel/locking/spinlock_debug.c, lib/debugobjects.c
    ("BUG: sleeping function called", Verdict::Warning),
    ("BUG: scheduling while atomic", Verdict::Warning),
    ("BUG: spinlock", Verdict::Warning),
    ("BUG: using __this_cpu", Verdict::Warning),
    ("BUG: using smp_processor_id", Verdict::Warning),
    // mm/page_alloc.c, mm/memory.c, mm/slub.c, kernel/fork.c, kernel/softirq.c
    ("BUG: Bad page", Verdict::Warning),
    ("BUG: Bad rss-counter", Verdict::Warning),
    ("BUG: non-zero pgtables_bytes", Verdict::Warning),
    ("Objects remaining in", Verdict::Warning),
    // kernel/rcu/tree_stall.h
    ("detected stalls on CPUs", Verdict::Warning),
    ("self-detected stall on CPU", Verdict::Warning),
    ("detected expedited stalls", Verdict::Warning),
    // kernel/hung_task.c
    ("blocked for more than", Verdict::Warning),
    // kernel/locking/lockdep.c
    ("[ BUG: ", Verdict::Warning),
    ("BUG: MAX_", Verdict::Warning),
    ("INFO: trying to register non-static key", Verdict::Warning),
    ("INFO: lockdep is turned off", Verdict::Warning),
    // mm/kmemleak.c
    ("new suspected memory leaks", Verdict::Warning),
    // net/core/dev.c, lib/ref_tracker.c
    ("unregister_netdevice: waiting for", Verdict::Warning),
    ("ref_tracker: ", Verdict::Warning),
    // kernel/panic.c: __warn(); lockdep's reports begin alike.
    ("WARNING: ", Verdict::Warning),
    // arch/x86/mm/fault.c, arch/x86/kernel/{traps,dumpstack}.c, lib/bug.c
    ("BUG: ", Verdict::Oops),
    ("kernel BUG at", Verdict::Oops),
    ("Oops: ", Verdict::Oops),
    // Other traps are named before the number of the oops: "divide error: 0000".
    (" [#1]", Verdict::Oops),
    ("general protection fault", Verdict::Oops),
    ("stack guard page was hit", Verdict::Oops),
    ("double fault:", Verdict::Oops),
];

/// A userspace program's fault reads like the kernel's own, but for this
/// (arch/x86/kernel/traps.c: "traps: program[pid] general protection fault").
const OF_PROGRAMS: &str = "traps: ";

/// Functions that only print, give up, or interrupt: they stand above a place.
const NOISE: [&str; 9] = [
    "dump_stack",
    "panic+",
    "show_stack",
    "nmi_panic",
    "__warn",
    "default_do_nmi",
    "exc_nmi",
    "asm_exc_nmi",
    "end_repeat_nmi",
];

/// A call trace has some more frames, which are the same for all.
const FRAMES_MAX: usize = 8;

/// Something that the kernel said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Splat {
    /// What it is.
    pub verdict: Verdict,
    /// The line that says so, without its time stamp.
    pub line: String,
    /// Where it happened, innermost first.
    pub trace: Vec<String>,
    /// What was said before it, which is less than this.
    cause: Option<String>,
    /// Whether the lines of its trace may still come.
    open: bool,
}

impl Splat {
    /// What this line of a console begins, if anything.
    pub fn of(line: &str) -> Option<Splat> {
        let line = without_time(line);
        let (_, verdict) = PATTERNS.iter().find(|(pattern, _)| line.contains(pattern))?;
        if line.starts_with(OF_PROGRAMS) {
            return None;
        }
        let line = line.to_string();
        Some(Splat { verdict: *verdict, line, trace: Vec::new(), cause: None, open: true })
    }

    /// Looks for a frame of its trace in a later line.
    pub fn follow(&mut self, line: &str) {
        let line = without_time(line);
        if !self.open {
            return;
        }
        if line.starts_with("---[ end") || self.trace.len() == FRAMES_MAX {
            self.open = false;
        } else if let Some(frame) = frame(line)
            && self.trace.last().is_none_or(|last| last != frame)
        {
            self.trace.push(frame.to_string());
        }
    }

    /// Whether it is worse than another.
    pub fn outranks(&self, other: &Splat) -> bool {
        rank(self.verdict) > rank(other.verdict)
    }

    /// The same, after something less.
    pub fn after(mut self, cause: Splat) -> Splat {
        self.cause = Some(cause.describe());
        self
    }

    /// The line, where it happened, and what came before it.
    pub fn describe(&self) -> String {
        let mut text = self.line.clone();
        if !self.trace.is_empty() {
            text.push_str(&format!(" (in {})", self.trace.join(" < ")));
        }
        if let Some(cause) = &self.cause {
            text.push_str(&format!(", after {cause}"));
        }
        text
    }
}

/// A panic tells more than the oops before it, and that than a warning.
fn rank(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Panic => 3,
        Verdict::Oops => 2,
        Verdict::Warning => 1,
        _ => 0,
    }
}

/// The kernel's time stamp is not what a line says: `[    1.234567] `.
pub fn without_time(line: &str) -> &str {
    let rest = line.trim_start();
    match rest.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((time, rest)) if time.trim().parse::<f64>().is_ok() => rest,
        _ => rest,
    }
}

/// The function in a line of a call trace, with its module: `f+0x1/0x2 [m]`.
/// What the kernel only guesses begins with a question mark and is left out.
fn frame(line: &str) -> Option<&str> {
    let line = ["RIP: 0010:", "RIP: ", "EIP: "]
        .iter()
        .find_map(|prefix| line.strip_prefix(prefix))
        .unwrap_or(line)
        .trim();
    let function = line.split(' ').next()?;
    let (name, place) = function.split_once("+0x")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.".contains(c);
    let is_place = place.chars().all(|c| c.is_ascii_hexdigit() || c == 'x' || c == '/');
    if NOISE.iter().any(|noise| line.starts_with(noise)) {
        return None;
    }
    if name.is_empty() || !name.chars().all(plain) || !is_place {
        return None;
    }
    let of_module = line[function.len()..].trim_start().starts_with('[');
    Some(if of_module { line } else { function })
}

/// The bits of /proc/sys/kernel/tainted, from the lowest, as in the kernel's
/// Documentation/admin-guide/tainted-kernels.rst.
const TAINTS: [(char, &str); 19] = [
    ('P', "proprietary module"),
    ('F', "module loaded by force"),
    ('S', "processor out of specification"),
    ('R', "module unloaded by force"),
    ('M', "machine check"),
    ('B', "bad page"),
    ('U', "set by a program"),
    ('D', "oops"),
    ('A', "ACPI table overridden"),
    ('W', "warning"),
    ('C', "staging driver"),
    ('I', "firmware bug worked around"),
    ('O', "module from outside of the kernel's tree"),
    ('E', "unsigned module"),
    ('L', "soft lockup"),
    ('K', "live patch"),
    ('X', "auxiliary"),
    ('T', "structures laid out at random"),
    ('N', "in-kernel test"),
];

/// The rig's own module is out of the tree and not signed.
const OWN_TAINT: u64 = 1 << 12 | 1 << 13;

/// What a taint mask says beside what the rig's own module causes: the verdict
/// and the bits by name. None if nothing.
pub fn taint(mask: u64) -> Option<(Verdict, String)> {
    let mask = mask & !OWN_TAINT;
    if mask == 0 {
        return None;
    }
    let has = |letter| {
        TAINTS.iter().position(|(l, _)| *l == letter).is_some_and(|bit| mask >> bit & 1 == 1)
    };
    let verdict = match () {
        () if has('D') => Verdict::Oops,
        () if has('W') || has('L') || has('B') => Verdict::Warning,
        () => Verdict::Taint,
    };
    let names: Vec<Cow<'_, str>> = (0..64)
        .filter(|bit| mask >> bit & 1 == 1)
        .map(|bit| match TAINTS.get(bit) {
            Some((letter, meaning)) => format!("{letter}: {meaning}").into(),
            None => format!("bit {bit}").into(),
        })
        .collect();
    Some((verdict, names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_trouble_has_its_verdict() {
        for (line, verdict) in [
            ("[    5.1] Kernel panic - not syncing: sysrq triggered crash", Verdict::Panic),
            ("[   12.345678] BUG: kernel NULL pointer dereference, address: 0000", Verdict::Oops),
            ("[1.0] BUG: unable to handle page fault for address: ffff", Verdict::Oops),
            ("[1.0] Oops: 0002 [#1] PREEMPT SMP", Verdict::Oops),
            ("[1.0] divide error: 0000 [#1] PREEMPT SMP", Verdict::Oops),
            ("[1.0] [ BUG: Invalid wait context ]", Verdict::Warning),
            ("[1.0] kernel BUG at mm/slub.c:42!", Verdict::Oops),
            ("[1.0] general protection fault, probably for non-canonical address", Verdict::Oops),
            (
                "[1.0] WARNING: CPU: 1 PID: 61 at fault.c:99 nlrig_fault+0x1/0x2 [nlrig]",
                Verdict::Warning,
            ),
            ("[1.0] WARNING: possible circular locking dependency detected", Verdict::Warning),
            (
                "[1.0] watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [fault:61]",
                Verdict::Warning,
            ),
            ("[1.0] INFO: task fault:61 blocked for more than 120 seconds.", Verdict::Warning),
            ("[1.0] rcu: INFO: rcu_sched self-detected stall on CPU", Verdict::Warning),
            ("[1.0] BUG: KASAN: slab-out-of-bounds in nlrig_echo+0x1/0x2", Verdict::Warning),
            ("[1.0] kmemleak: 3 new suspected memory leaks (see /sys/...)", Verdict::Warning),
            ("[1.0] BUG: sleeping function called from invalid context", Verdict::Warning),
        ] {
            assert_eq!(Splat::of(line).map(|splat| splat.verdict), Some(verdict), "{line}");
        }
    }

    #[test]
    fn what_is_no_trouble_of_the_kernels_is_none() {
        for line in [
            "[0.1] Linux version 6.1.192",
            "[0.1] debug: no bug here, and no oops",
            "[9.1] Out of memory: Killed process 61 (threads)",
            "[9.1] traps: a.out[61] general protection fault ip:0 sp:0 error:0",
            "[9.1] a.out[61]: segfault at 0 ip 0 sp 0 error 4",
            "",
        ] {
            assert_eq!(Splat::of(line), None, "{line}");
        }
    }

    #[test]
    fn a_trace_is_functions_without_guesses() {
        let mut splat = Splat::of("[2.0] BUG: kernel NULL pointer dereference").unwrap();
        for line in [
            "[2.0] #PF: supervisor write access in kernel mode",
            "[2.0] RIP: 0010:nlrig_fault+0x5c/0x90 [nlrig]",
            "[2.0] Code: 1f 84 00",
            "[2.0] Call Trace:",
            "[2.0]  dump_stack_lvl+0x33/0x42",
            "[2.0]  panic+0xf9/0x267",
            "[2.0]  <TASK>",
            "[2.0]  ? __die_body.cold+0x1a/0x1f",
            "[2.0]  netlink_rcv_skb+0x4a/0xf0",
            "[2.0]  netlink_unicast+0x1d0/0x2c0",
            "[2.0] ---[ end trace 0000000000000000 ]---",
            "[2.0]  later+0x1/0x2",
        ] {
            splat.follow(line);
        }
        assert_eq!(
            splat.trace,
            [
                "nlrig_fault+0x5c/0x90 [nlrig]",
                "netlink_rcv_skb+0x4a/0xf0",
                "netlink_unicast+0x1d0/0x2c0"
            ]
        );
        assert!(splat.describe().contains("(in nlrig_fault+0x5c/0x90 [nlrig] < netlink_rcv"));
    }

    #[test]
    fn only_the_modules_own_taint_is_none() {
        assert_eq!(taint(0), None);
        assert_eq!(taint(1 << 12 | 1 << 13), None);
        assert_eq!(taint(1 << 12 | 1 << 7 | 1 << 9).unwrap().0, Verdict::Oops);
        assert_eq!(taint(1 << 9), Some((Verdict::Warning, "W: warning".to_string())));
        assert_eq!(taint(1 << 6), Some((Verdict::Taint, "U: set by a program".to_string())));
        assert_eq!(taint(1 << 63), Some((Verdict::Taint, "bit 63".to_string())));
    }
}
