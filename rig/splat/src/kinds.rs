//! The kinds of fault that a kernel reports, as data.

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
pub struct Kind {
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
) -> Kind {
    Kind { name, severity, what, source, patterns, timing: false }
}

const fn panic(
    name: &'static str,
    what: &'static str,
    source: &'static str,
    patterns: &'static [&'static str],
) -> Kind {
    kind(Severity::Panic, name, what, source, patterns)
}

const fn oops(
    name: &'static str,
    what: &'static str,
    source: &'static str,
    patterns: &'static [&'static str],
) -> Kind {
    kind(Severity::Oops, name, what, source, patterns)
}

const fn warning(
    name: &'static str,
    what: &'static str,
    source: &'static str,
    patterns: &'static [&'static str],
) -> Kind {
    kind(Severity::Warning, name, what, source, patterns)
}

const fn late(
    name: &'static str,
    what: &'static str,
    source: &'static str,
    patterns: &'static [&'static str],
) -> Kind {
    Kind { timing: true, ..warning(name, what, source, patterns) }
}

/// All kinds. The first that matches a line is taken, so special kinds stand
/// before general ones. Formats of Linux 3.10 to 6.18.
pub const KINDS: &[Kind] = &[
    panic(
        "panic",
        "panic()",
        "kernel/panic.c: panic()",
        &["Kernel panic - not syncing", "---[ end Kernel panic - not syncing"],
    ),
    panic(
        "double-fault",
        "a double fault, which the kernel does not survive",
        "arch/x86/kernel/traps.c: df_debug(); arch/x86/kernel/doublefault_32.c",
        &["PANIC: double fault", "traps: PANIC: double fault"],
    ),
    panic(
        "early-exception",
        "an exception before the kernel can handle one",
        "arch/x86/mm/extable.c: early_fixup_exception(); arch/x86/kernel/head_32.S",
        &["PANIC: early exception ", "BUG: Int %d: CR2 "],
    ),
    oops(
        "null-dereference",
        "an access through a null pointer",
        "arch/x86/mm/fault.c: show_fault_oops()",
        &[
            "BUG: kernel NULL pointer dereference",
            "BUG: unable to handle kernel NULL pointer dereference",
            "Unable to handle kernel NULL pointer dereference",
        ],
    ),
    oops(
        "page-fault",
        "an access to an address that is not mapped or not permitted",
        "arch/x86/mm/fault.c: show_fault_oops()",
        &[
            "BUG: unable to handle page fault for address",
            "BUG: unable to handle kernel paging request",
            "BUG: unable to handle kernel ",
            "Unable to handle kernel %s at virtual address",
        ],
    ),
    oops(
        "stack-overflow",
        "a kernel stack overflow",
        "arch/x86/kernel/traps.c: handle_stack_overflow()",
        &[
            "BUG: %sstack guard page was hit at",
            "BUG: stack guard page was hit at",
            "kernel stack overflow (%s): %x [#%d]",
            "Oops: kernel stack overflow (%s): %x [#%d]",
            "Insufficient stack space to handle exception!",
        ],
    ),
    oops(
        "bug",
        "BUG() or BUG_ON()",
        "lib/bug.c: __report_bug()",
        &["kernel BUG at ", "Kernel BUG at "],
    ),
    oops(
        "general-protection-fault",
        "a general protection fault, mostly a wild pointer",
        "arch/x86/kernel/traps.c: exc_general_protection()",
        &[
            "general protection fault%s: %x [#%d]",
            "Oops: general protection fault%s: %x [#%d]",
            "general protection fault, ",
            "KASAN: null-ptr-deref in range [",
            "KASAN: probably user-memory-access in range [",
            "KASAN: maybe wild-memory-access in range [",
        ],
    ),
    oops(
        "divide-error",
        "a division by zero",
        "arch/x86/kernel/traps.c: exc_divide_error()",
        &[
            "divide error: %x [#%d]",
            "divide_error: %x [#%d]",
            "Oops: divide error: %x [#%d]",
        ],
    ),
    oops(
        "oops",
        "an exception in the kernel",
        "arch/x86/kernel/dumpstack.c: __die_header()",
        &[
            "Oops: %s [#%d]",
            "Internal error: %s [#%d]",
            "%s: %x [#%d]",
            "Fixing recursive fault but reboot is needed!",
            "general protection fault: %x",
        ],
    ),
    warning("kasan", "KASAN: an invalid access to memory", "mm/kasan/report.c", &["BUG: KASAN: "]),
    warning("kfence", "KFENCE: an invalid access to memory", "mm/kfence/report.c", &["BUG: KFENCE: "]),
    warning("kmsan", "KMSAN: a use of uninitialized memory", "mm/kmsan/report.c", &["BUG: KMSAN: "]),
    warning("kcsan", "KCSAN: a data race", "kernel/kcsan/report.c", &["BUG: KCSAN: "]),
    warning(
        "ubsan",
        "UBSAN: undefined behaviour",
        "lib/ubsan.c: ubsan_prologue()",
        &["UBSAN: %s in "],
    ),
    warning(
        "slub",
        "SLUB: a slab object or its red zone is corrupt, freed twice, or left over",
        "mm/slub.c: slab_bug()",
        &["BUG %s (Not tainted): ", "BUG %s (Tainted: %s): "],
    ),
    warning(
        "slab",
        "SLAB: a slab object or its red zone is corrupt",
        "mm/slab.c; mm/slab_common.c: kmem_cache_destroy()",
        &[
            "Slab corruption (%s): ",
            "slab error in %s(): ",
            "kmem_cache_destroy %s: Slab cache still has objects",
            "list_add corruption",
            "list_add double add: ",
            "list_del corruption",
        ],
    ),
    warning(
        "kmemleak",
        "kmemleak: unreferenced objects",
        "mm/kmemleak.c",
        &[
            "kmemleak: %d new suspected memory leaks",
            "kmemleak: unreferenced object 0x",
            "kmemleak: Freeing unknown object at",
        ],
    ),
    warning(
        "odebug",
        "debugobjects: an object is freed or initialized while it is in use",
        "lib/debugobjects.c: debug_print_object()",
        &["ODEBUG: %s (active state %d) object"],
    ),
    warning(
        "bad-page",
        "the state of a page or a page table entry is invalid",
        "mm/page_alloc.c: bad_page(); mm/memory.c: print_bad_pte(); kernel/fork.c: check_mm()",
        &[
            "BUG: Bad page ",
            "BUG: Bad rss-counter state ",
            "BUG: non-zero pgtables_bytes on freeing mm",
            "BUG: non-zero nr_ptes on freeing mm",
            "BUG: non-zero nr_pmds on freeing mm",
            "BUG: mempool element poison mismatch",
        ],
    ),
    warning(
        "page-allocation-failure",
        "an allocation failed, and the caller did not expect that it could",
        "mm/page_alloc.c: warn_alloc()",
        &[
            "%s: page allocation failure: order:%d, mode:",
            "%s: page allocation failure. order:%d, mode:",
            "%s: vmalloc: allocation failure",
            "%s: vmalloc error: size %d",
        ],
    ),
    late(
        "soft-lockup",
        "a processor did not schedule",
        "kernel/watchdog.c: watchdog_timer_fn()",
        &[
            "watchdog: BUG: soft lockup - CPU#%d stuck for",
            "NMI watchdog: BUG: soft lockup - CPU#%d stuck for",
            "BUG: soft lockup - CPU#%d stuck for",
        ],
    ),
    late(
        "hard-lockup",
        "a processor took no interrupts",
        "kernel/watchdog_hld.c; kernel/watchdog.c",
        &[
            "NMI watchdog: Watchdog detected hard LOCKUP on cpu",
            "watchdog: Watchdog detected hard LOCKUP on cpu",
            "watchdog: CPU%d: Watchdog detected hard LOCKUP on cpu",
            "Watchdog detected hard LOCKUP on cpu",
            "CPU%d: Watchdog detected hard LOCKUP on cpu",
        ],
    ),
    late(
        "workqueue-lockup",
        "a worker pool made no progress",
        "kernel/workqueue.c: wq_watchdog_timer_fn()",
        &["BUG: workqueue lockup - pool"],
    ),
    late(
        "rcu-stall",
        "RCU: a grace period does not end",
        "kernel/rcu/tree_stall.h; kernel/rcu/tree_exp.h",
        &[
            "rcu: INFO: %s detected stalls on CPUs/tasks",
            "rcu: INFO: %s self-detected stall on CPU",
            "rcu: INFO: %s detected expedited stalls on CPUs/tasks",
            "INFO: rcu_%s detected stalls on CPUs/tasks",
            "INFO: rcu_%s self-detected stall on CPU",
            "INFO: rcu_%s detected expedited stalls on CPUs/tasks",
            "INFO: rcu_%s detected stall on CPU",
            "rcu: rcu_%s kthread starved for %d jiffies!",
            "rcu: rcu_%s kthread timer wakeup didn't happen for %d jiffies!",
            "rcu_%s kthread starved for %d jiffies!",
        ],
    ),
    late(
        "rcu-tasks-stall",
        "RCU-tasks: a grace period does not end",
        "kernel/rcu/tasks.h",
        &[
            "INFO: rcu_tasks%sdetected stalls",
            "rcu_tasks: INFO: rcu_tasks%sdetected stalls",
            "rcu: INFO: rcu_tasks%sdetected stalls",
        ],
    ),
    late(
        "hung-task",
        "a task is blocked and cannot be woken",
        "kernel/hung_task.c: check_hung_task()",
        &["INFO: task %s blocked for more than %d seconds", "INFO: task %s blocked in I/O wait for more than %d seconds"],
    ),
    warning(
        "sleep-in-atomic",
        "a function that may sleep is called where sleeping is not allowed",
        "kernel/sched/core.c: __might_resched()",
        &[
            "BUG: sleeping function called from invalid context at",
            "BUG: assuming atomic context at",
            "BUG: assuming non migratable context at",
        ],
    ),
    warning(
        "scheduling-while-atomic",
        "a task schedules where that is not allowed",
        "kernel/sched/core.c: __schedule_bug()",
        &[
            "BUG: scheduling while atomic: ",
            "BUG: scheduling in a non-blocking section: ",
            "bad: scheduling from the idle thread!",
        ],
    ),
    warning(
        "preemptible",
        "per-CPU data is used while preemption is on",
        "lib/smp_processor_id.c: check_preemption_disabled()",
        &["BUG: using %s in preemptible [%x] code: "],
    ),
    warning(
        "preempt-leak",
        "a softirq handler, timer or work item changes the preemption count",
        "kernel/softirq.c: handle_softirqs(); kernel/workqueue.c: process_one_work()",
        &[
            "softirq: huh, entered softirq %d ",
            "huh, entered softirq %d ",
            "BUG: workqueue leaked ",
        ],
    ),
    warning(
        "spinlock",
        "a spinlock or rwlock is corrupt or used wrongly",
        "kernel/locking/spinlock_debug.c",
        &[
            "BUG: spinlock %s on CPU#%d",
            "BUG: rwlock %s on CPU#%d",
            "BUG: rwlock-lockup on CPU#%d",
            "BUG: write-lock lockup on CPU#%d",
        ],
    ),
    warning(
        "rcu-usage",
        "lockdep: RCU-protected data is used outside of a read-side critical section",
        "kernel/locking/lockdep.c: lockdep_rcu_suspicious()",
        &["WARNING: suspicious RCU usage", "[ INFO: suspicious RCU usage"],
    ),
    warning(
        "lockdep",
        "lockdep: a lock is used so that it can deadlock, or wrongly",
        "kernel/locking/lockdep.c; kernel/locking/rtmutex.c",
        &[
            "WARNING: possible circular locking dependency detected",
            "WARNING: possible recursive locking detected",
            "WARNING: possible irq lock inversion dependency detected",
            "WARNING: %s-safe -> %s-unsafe lock order detected",
            "WARNING: inconsistent lock state",
            "WARNING: chain_key collision",
            "WARNING: Nested lock was not taken",
            "WARNING: bad unlock balance detected!",
            "WARNING: bad contention detected!",
            "WARNING: held lock freed!",
            "WARNING: %s/%d still has locks held!",
            "WARNING: lock held when returning to user space!",
            "WARNING: lock held at task exit time!",
            "WARNING: circular locking deadlock detected!",
            "[ INFO: possible circular locking dependency detected",
            "[ INFO: possible recursive locking detected",
            "[ INFO: possible irq lock inversion dependency detected",
            "[ INFO: %s-safe -> %s-unsafe lock order detected",
            "[ INFO: inconsistent lock state",
            "[ BUG: %s ]",
            "[ BUG: Invalid wait context",
            "BUG: MAX_%s too low!",
            "BUG: looking up invalid subclass: %d",
            "BUG: key %s not ",
            "INFO: trying to register non-static key.",
        ],
    ),
    warning(
        "warn",
        "WARN() or WARN_ON()",
        "kernel/panic.c: __warn()",
        &[
            "WARNING: CPU: %d PID: %d at ",
            // Linux 6.18.
            "WARNING: %s:%d at %s, CPU#%d: ",
            "WARNING: at %s, CPU#%d: ",
            // Before Linux 3.13.
            "WARNING: at %s:%d ",
        ],
    ),
    warning(
        "sysfs-duplicate",
        "a name in sysfs is taken twice",
        "fs/sysfs/dir.c: sysfs_warn_dup()",
        &["sysfs: cannot create duplicate filename '"],
    ),
    warning(
        "object-lifetime",
        "an object is used or initialized out of order",
        "lib/kobject.c; fs/proc/proc_sysctl.c",
        &[
            "kobject (%s): tried to init an initialized object",
            "kobject: '%s' (%s): is not initialized, yet kobject_",
            "sysctl duplicate entry: ",
        ],
    ),
    warning(
        "file-count",
        "a file is closed once too often",
        "fs/open.c: filp_close()",
        &["VFS: Close: file count is 0"],
    ),
    warning(
        "dentry-in-use",
        "a dentry or inode is in use after its file system was unmounted",
        "fs/dcache.c: umount_check(); fs/super.c: generic_shutdown_super()",
        &["BUG: Dentry %s still in use", "VFS: Busy inodes after unmount of "],
    ),
    warning(
        "netdevice-reference",
        "a network device is unregistered while references to it are left",
        "net/core/dev.c: netdev_wait_allrefs_any(); lib/ref_tracker.c",
        &[
            "unregister_netdevice: waiting for %s to become free",
            "ref_tracker: %s has %d/%d users at",
            "ref_tracker: leaked reference.",
            "leaked reference.",
            "ref_tracker: reference already released.",
            "page_pool_release_retry() stalled pool shutdown",
        ],
    ),
    warning(
        "alive-object",
        "a socket or network object is freed while it is in use",
        "net/netlink/af_netlink.c: netlink_sock_destruct(); net/ipv4/af_inet.c",
        &[
            "Freeing alive %s ",
            "%sAttempt to release alive %s socket",
            "%sAttempt to release TCP socket in state ",
            "Dead loop on virtual device ",
        ],
    ),
    warning(
        "irq-nobody-cared",
        "no handler took an interrupt",
        "kernel/irq/spurious.c: __report_bad_irq()",
        &["irq %d: nobody cared "],
    ),
];

/// Reports that [`KINDS`] has no pattern for: the kernel's continuation, a call
/// trace, must follow.
pub static OTHER_REPORT: Kind = warning(
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
