//! Device nodes: what copies to and from a program, who begins, and /dev/mem.

use crate::experiment::claims::case::*;
use crate::static_check::StaticCheck;

/// What interrupts a task copies from and to whoever was interrupted.
const COPIES_IN_SOFTIRQ: &str = "\
#include <linux/interrupt.h>
#include <linux/module.h>
#include <linux/uaccess.h>

static void __user *place;
static long failed;

static void copy(struct tasklet_struct *unused)
{
	u32 word;

	failed = copy_from_user_nofault(&word, place, sizeof(word));
	failed |= copy_to_user_nofault(place, &word, sizeof(word));
}

DECLARE_TASKLET(check_tasklet, copy);

MODULE_LICENSE(\"GPL\");
";

pub const CASES: &[Case] = &[
    Case {
        id: "B1.1",
        claim: "copy_from_user() and copy_to_user() may block.",
        tried: "The argument of an ioctl is in a page of a mapped file that was dropped from \
                memory; what the thread has slept over is counted.",
        confirms: &[is("ioctl", "ok"), at_least("faults_with_io", 1.0), at_least("sleeps", 1.0)],
        refutes: &[is("ioctl", "EFAULT"), equals("faults_with_io", 0)],
        expect: CONFIRMED,
        because: "Memory of a program may be anywhere. What is not there is a page fault in the \
                  middle of the copy, which is served as any other: it may read from a file \
                  system and sleep until that has answered.",
        source: &[
            ("include/linux/uaccess.h", "might_fault();"),
            ("mm/memory.c", "void __might_fault(const char *file, int line)"),
        ],
        ..Case::SHARED
    },
    Case {
        id: "B1.2",
        claim: "copy_from_user() and copy_to_user() must not be called from an interrupt.",
        tried: "The source is searched for might_fault(), which says that its caller may sleep.",
        method: Method::Static(StaticCheck::Mentions {
            word: "might_fault",
            under: &["include/linux/uaccess.h"],
        }),
        confirms: &[equals("files", 1)],
        refutes: &[equals("files", 0)],
        expect: CONFIRMED,
        because: "Both say that they may fault, which is checked with CONFIG_PROVE_LOCKING or \
                  CONFIG_DEBUG_ATOMIC_SLEEP. An interrupt must not sleep, and has no program \
                  either: it comes while any process runs.",
        source: &[("mm/memory.c", "__might_sleep(file, line);")],
        ..Case::SHARED
    },
    Case {
        id: "B1.3",
        claim: "All that copies between kernel and program may block.",
        tried: "A tasklet that calls copy_from_user_nofault() and copy_to_user_nofault() is \
                compiled for this kernel.",
        method: Method::Static(StaticCheck::Compiles(COPIES_IN_SOFTIRQ)),
        confirms: &[no("compiles")],
        refutes: &[yes("compiles")],
        expect: REFUTED,
        because: "These two switch page faults off: what is in memory is copied, and what is not \
                  gives EFAULT. They are for tracers; that it is the right process whose memory \
                  is there, an interrupt still has to know.",
        source: &[
            ("mm/maccess.c", "EXPORT_SYMBOL_GPL(copy_from_user_nofault);"),
            ("mm/maccess.c", "EXPORT_SYMBOL_GPL(copy_to_user_nofault);"),
        ],
        ..Case::SHARED
    },
    Case {
        id: "B2.1",
        claim: "With a device node only the program begins: poll() hears nothing of the kernel.",
        tried: "A program waits in poll() on /dev/nlrig; 100 ms later a timer of the kernel has \
                something to say.",
        confirms: &[no("woken")],
        refutes: &[no("event_before"), yes("woken"), at_least("waited_ms", 50.0)],
        expect: REFUTED,
        because: "A driver may have a wait queue that its poll function names, and wake it from \
                  anywhere, a timer or an interrupt among them.",
        source: &[("include/linux/poll.h", "static inline void poll_wait(")],
        ..Case::SHARED
    },
    Case {
        id: "B2.2",
        claim: "With a device node only the program begins: a read cannot wait for the kernel.",
        tried: "A program waits in read() on /dev/nlrig until, 100 ms later, a timer of the \
                kernel has expired.",
        confirms: &[no("woken")],
        refutes: &[yes("woken"), equals("expiries", 1), at_least("waited_ms", 50.0)],
        expect: REFUTED,
        because: "A driver's read function may sleep until there is something to give, as \
                  recvmsg() does on a netlink socket.",
        source: &[("include/linux/wait.h", "#define wait_event_interruptible(wq_head, condition)")],
        ..Case::SHARED
    },
    Case {
        id: "B2.3",
        claim: "With a device node only the program begins: the kernel cannot interrupt it.",
        tried: "A program asks for signals (O_ASYNC) of /dev/nlrig; 100 ms later a timer of the \
                kernel expires.",
        confirms: &[no("woken")],
        refutes: &[yes("woken"), yes("by_kernel"), at_least("waited_ms", 50.0)],
        expect: REFUTED,
        because: "A driver that has a fasync function sends SIGIO to who asked for it.",
        source: &[("fs/fcntl.c", "void kill_fasync(struct fasync_struct **fp, int sig, int band)")],
        ..Case::SHARED
    },
    Case {
        id: "B2.4",
        claim: "A device node is simplex.",
        tried: "While one thread waits in read() on /dev/nlrig, another one gives and takes a \
                number through the same descriptor.",
        confirms: &[is("ioctl", "ok"), no("read_still_waits")],
        refutes: &[
            is("ioctl", "ok"),
            yes("read_still_waits"),
            equals("came_back", 42),
            equals("read", 1),
        ],
        expect: REFUTED,
        because: "The kernel calls a driver's functions for reading, writing and ioctl at once \
                  and does not order them, unless the file has a position that they share.",
        source: &[("fs/ioctl.c", "error = filp->f_op->unlocked_ioctl(filp, cmd, arg);")],
        ..Case::SHARED
    },
    Case {
        id: "B5.1",
        claim: "Through /dev/mem a program maps and reads the kernel's memory.",
        tried: "Root maps and reads the page where /proc/iomem has the kernel's code.",
        confirms: &[is("map", "ok")],
        refutes: &[is("map", "EPERM"), is("read", "EPERM")],
        expect: REFUTED,
        because: "With CONFIG_STRICT_DEVMEM, the default of x86, /dev/mem refuses what is system \
                  RAM. A kernel without that option gives it to root.",
        source: &[
            ("drivers/char/mem.c", "return devmem_is_allowed(pfn);"),
            ("arch/x86/mm/init.c", "int devmem_is_allowed(unsigned long pagenr)"),
        ],
        ..Case::SHARED
    },
    Case {
        id: "B5.2",
        claim: "What a program reads through /dev/mem is what is in memory.",
        tried: "Root reads the RAM below 1 MiB by read() and through a mapping, and counts the \
                bytes that are not zero.",
        confirms: &[is("read", "ok"), at_least("read_not_zero", 1.0)],
        refutes: &[is_not("read", "ok"), is_not("map", "ok")],
        depends: &[
            is("read", "ok"),
            equals("read_not_zero", 0),
            is("map", "ok"),
            at_least("mapped_not_zero", 1.0),
        ],
        depends_on: "the call: read() gives zeros, a mapping what is there",
        expect: DEPENDS,
        because: "The first MiB is open to old programs that look for the BIOS there. Where it is \
                  RAM read() shows zeros instead, but a mapping cannot and is let through.",
        source: &[
            ("arch/x86/mm/init.c", "return 2;"),
            ("drivers/char/mem.c", "if (allowed == 2) {"),
        ],
        ..Case::SHARED
    },
    Case {
        id: "B5.3",
        claim: "A program that by mistake writes to the kernel's addresses brings the system down.",
        tried: "Root writes zeros over all of the kernel's code through /dev/mem, by write() and \
                through a mapping.",
        confirms: &[is_not("machine", "well")],
        refutes: &[is("map", "EPERM"), is("write", "EPERM"), is("machine", "well")],
        expect: REFUTED,
        because: "CONFIG_STRICT_DEVMEM refuses both. Without it the code would be gone.",
        source: &[("drivers/char/mem.c", "return devmem_is_allowed(pfn);")],
        ..Case::BREAKS
    },
    Case {
        id: "B5.4",
        claim: "A wrong write through /dev/mem can bring the system down.",
        tried: "Through a mapping of the local interrupt controller, an interrupt with the number \
                of an exception is sent to the other processor.",
        confirms: &[is("map", "ok"), is_not("machine", "well")],
        refutes: &[is("machine", "well")],
        expect: CONFIRMED,
        because: "What is not RAM is open: registers of devices, that of the interrupt controller \
                  among them. The other processor, as a rule idle, takes the interrupt for an error \
                  of its floating point unit in the kernel, and nobody survives that.",
        source: &[(
            "arch/x86/kernel/traps.c",
            "static void math_error(struct pt_regs *regs, int trapnr)",
        )],
        ..Case::BREAKS
    },
];
