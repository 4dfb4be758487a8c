//! Formulas: ports that threads compute for themselves.

use crate::experiment::claims::case::*;

const AF_NETLINK: &str = "net/netlink/af_netlink.c";
/// What a port in use ends in.
const IN_USE: (&str, &str) = (AF_NETLINK, "err = -EADDRINUSE;");
/// The stacks that a plain program has by default.
const STACK: (&str, u64) = ("stack", 8 << 20);
const DEFAULT_STACKS: Setting = Setting { rlimits: &[STACK], ..Setting::SHARED };
/// A socket for each of some thousand threads.
const MANY_SOCKETS: Setting = Setting {
    rlimits: &[STACK, ("nofile", 4096)],
    limit: std::time::Duration::from_secs(60),
    ..Setting::SHARED
};

pub const CASES: &[Case] = &[
    Case {
        id: "B12.1",
        claim: "Threads of a process cannot all take the process id as their port.",
        tried: "Four threads bind the process id, each with a socket of its own.",
        confirms: &[equals("threads", 4), equals("first_failed", 2), equals("failed", 3)],
        refutes: &[equals("threads", 4), equals("failed", 0)],
        expect: CONFIRMED,
        because: "getpid() is the same in all threads, and a port is given once. gettid() differs, \
                  and port 0 leaves the choice to the kernel.",
        source: &[IN_USE],
        ..Case::SHARED
    },
    Case {
        id: "B12.2",
        claim: "If the port is in use already, creating the netlink socket fails.",
        tried: "Two threads each create a socket and bind the process id.",
        confirms: &[is_not("second_socket", "ok")],
        refutes: &[is("second_socket", "ok"), is("second_bind", "EADDRINUSE")],
        expect: REFUTED,
        because: "socket() knows no port yet. It is bind() that fails, and who does not look at \
                  what it returns has a socket with another port later on: sending gives it one.",
        source: &[IN_USE, (AF_NETLINK, "err = netlink_autobind(sock);")],
        ..Case::SHARED
    },
    Case {
        id: "B12.3",
        claim: "For processes without threads the process id is a unique port in the system.",
        tried: "Two processes that live at once bind their ids: in one pid namespace, and each as \
                the first of its own.",
        confirms: &[
            is("first_bind", "ok"),
            is("second_bind", "ok"),
            is("second_bind_in_own_namespace", "ok"),
        ],
        refutes: &[is("first_bind", "ok"), is("second_bind", "EADDRINUSE")],
        depends: &[
            is("first_bind", "ok"),
            is("second_bind", "ok"),
            is("first_bind_in_own_namespace", "ok"),
            is("second_bind_in_own_namespace", "EADDRINUSE"),
        ],
        depends_on: "whether all processes of the network namespace are in one pid namespace",
        expect: DEPENDS,
        because: "Ids are unique in a pid namespace, ports in a network namespace.",
        source: &[IN_USE],
        ..Case::SHARED
    },
    Case {
        id: "B13.1",
        claim: "pthread_self() << 16 | getpid() has duplicates among as few as 10 threads.",
        tried: "Ten threads bind it: such that live on; such that each end before the next; and, \
                with 32 layouts of the address space, such that live on and call malloc.",
        method: Method::Guest(DEFAULT_STACKS),
        confirms: &[at_least("failed_of_those_that_stay", 1.0)],
        refutes: &[
            equals("failed_of_those_that_stay", 0),
            equals("failed_of_those_that_end", 0),
            equals("of_32_layouts_with_malloc_have_duplicates", 0),
        ],
        depends: &[
            equals("failed_of_those_that_stay", 0),
            at_least("failed_of_those_that_end", 1.0),
            at_least("of_32_layouts_with_malloc_have_duplicates", 1.0),
        ],
        depends_on: "what lies between the stacks: threads that only hold a socket have none; \
                     malloc in threads, and stacks that are used again, bring them",
        expect: DEPENDS,
        because: "A stack and its guard take 8 MiB and 4 KiB, so the four bits that matter count \
                  down by one from thread to thread. The arena that a thread's first malloc maps \
                  starts them anew; a thread that takes over a stack has the same pthread_self().",
        source: &[IN_USE],
        ..Case::SHARED
    },
    Case {
        id: "B13.2",
        claim: "pthread_self() << 16 | getpid() is not unique among the threads of a process.",
        tried: "Seventeen threads that live on bind it.",
        method: Method::Guest(DEFAULT_STACKS),
        confirms: &[equals("threads", 17), at_least("first_failed", 2.0)],
        refutes: &[equals("threads", 17), equals("failed", 0)],
        expect: CONFIRMED,
        because: "Four bits have sixteen values. The seventeenth thread is the first that fails.",
        source: &[IN_USE],
        ..Case::SHARED
    },
    Case {
        id: "B13.3",
        claim: "Of pthread_self() << 16 only the highest four bits differ between threads.",
        tried: "The formula's values for 64 threads that live on.",
        method: Method::Guest(DEFAULT_STACKS),
        confirms: &[
            equals("threads", 64),
            equals("kinds_of_ports", 16),
            is("bits_that_differ", "0xf0000000"),
        ],
        refutes: &[equals("threads", 64), at_least("kinds_of_ports", 17.0)],
        expect: CONFIRMED,
        because: "The shift leaves bits 0 to 15 of the address. Threads differ by whole pages, so \
                  bits 0 to 11 are the same.",
        source: &[IN_USE],
        ..Case::SHARED
    },
    Case {
        id: "B13.4",
        claim: "Process ids are below 65536, so the upper half of the port is free.",
        tried: "kernel.pid_max is raised to 4194304, and a process started with id 77777.",
        confirms: &[is_not("raise_pid_max", "ok"), no("process_has_id_77777")],
        refutes: &[is("raise_pid_max", "ok"), yes("process_has_id_77777")],
        expect: Expect::ByWordSize { i386: Finding::Confirmed, x86_64: Finding::Refuted },
        because: "Kernels of 64 bits have ids up to 4194304 once pid_max is raised, as systemd \
                  does at boot; by default it is 32768, with up to 32 processors. Kernels of 32 \
                  bits allow no more than 32768.",
        source: &[
            ("include/linux/threads.h", "#define PID_MAX_LIMIT (CONFIG_BASE_SMALL ?"),
            ("kernel/pid.c", "int pid_max = PID_MAX_DEFAULT;"),
        ],
        ..Case::SHARED
    },
    Case {
        id: "B14.1",
        claim: "The lowest 12 bits of pthread_self() are the same in all threads.",
        tried: "pthread_self() of 16 threads with default attributes.",
        confirms: &[equals("threads", 16), equals("kinds_of_low_12_bits", 1)],
        refutes: &[equals("threads", 16), at_least("kinds_of_low_12_bits", 2.0)],
        expect: CONFIRMED,
        because: "The C library puts the thread's control block at the end of its stack, which is \
                  whole pages, always at the same distance.",
        source: &[("mm/mmap.c", "len = PAGE_ALIGN(len);")],
        ..Case::SHARED
    },
    Case {
        id: "B14.2",
        claim: "The main thread's pthread_self() has the same lowest 12 bits as the others'.",
        tried: "pthread_self() of the main thread and of four others.",
        confirms: &[yes("main_thread_has_the_same")],
        refutes: &[no("main_thread_has_the_same")],
        expect: REFUTED,
        because: "The main thread's control block does not lie on a stack of the C library's: a \
                  static program has it on its heap, any other where the loader allocates it.",
        source: &[("mm/mmap.c", "SYSCALL_DEFINE1(brk, unsigned long, brk)")],
        ..Case::SHARED
    },
    Case {
        id: "B15.1",
        claim: "pthread_self() is the control block's offset relative to the data segment.",
        tried: "pthread_self() of a thread is compared with where the kernel says its segment of \
                thread-local storage begins, and with the start of the program's data.",
        method: Method::Guest(DEFAULT_STACKS),
        confirms: &[no("is_the_address_of_the_control_block"), yes("is_its_offset_from_the_data")],
        refutes: &[
            yes("is_the_address_of_the_control_block"),
            no("is_its_offset_from_the_data"),
            yes("is_in_the_threads_own_stack"),
        ],
        expect: REFUTED,
        because: "It is the address itself of the control block, which is at the end of the \
                  thread's own stack and where the segment register's base points.",
        source: &[
            ("arch/x86/kernel/process_64.c", "case ARCH_GET_FS: {"),
            (
                "arch/x86/kernel/tls.c",
                "SYSCALL_DEFINE1(get_thread_area, struct user_desc __user *, u_info)",
            ),
        ],
        ..Case::SHARED
    },
    Case {
        id: "B15.2",
        claim: "The low bits agree because pthread_self() is relative to the data segment.",
        tried: "Four threads are created on stacks of our own, each of which ends 64 bytes further \
                below a page's end; the data segment is the same.",
        confirms: &[equals("threads", 4), equals("kinds_of_low_12_bits", 1)],
        refutes: &[equals("threads", 4), equals("kinds_of_low_12_bits", 4)],
        expect: REFUTED,
        because: "They agree because the ends of the stacks do: the C library maps whole pages. On \
                  stacks that end elsewhere they differ.",
        source: &[("mm/mmap.c", "len = PAGE_ALIGN(len);")],
        ..Case::SHARED
    },
    Case {
        id: "B16.1",
        claim: "By P = 1 - 15!/((16-n)! 16^(n-1)), 10 threads have duplicates in about 85 %.",
        tried: "The paper's formula is evaluated.",
        confirms: &[at_least("percent_at_10", 83.0), at_most("percent_at_10", 87.0)],
        refutes: &[at_least("percent_at_10", 97.0), at_most("percent_at_10", 98.0)],
        expect: REFUTED,
        because: "The formula gives 97.4 % at 10; no n gives 85 %: 7 threads 78.5 %, 8 threads \
                  87.9 %.",
        source: &[],
        ..Case::SHARED
    },
    Case {
        id: "B16.2",
        claim: "From 17 threads on, pthread_self() << 16 | getpid() certainly has duplicates.",
        tried: "Seventeen threads that live on bind it, in sixteen layouts of the address space \
                that differ by a page.",
        method: Method::Guest(DEFAULT_STACKS),
        confirms: &[equals("layouts", 16), equals("with_duplicates_among_17_threads", 16)],
        refutes: &[equals("layouts", 16), at_most("with_duplicates_among_17_threads", 15.0)],
        expect: CONFIRMED,
        because: "The formula has sixteen values in a process.",
        source: &[IN_USE],
        ..Case::SHARED
    },
    Case {
        id: "B16.3",
        claim: "The four bits that differ are as good as random, each value equally likely.",
        tried: "Sixteen threads that live on bind pthread_self() << 16 | getpid(), in sixteen \
                layouts of the address space that differ by a page.",
        method: Method::Guest(DEFAULT_STACKS),
        confirms: &[equals("layouts", 16), at_least("with_duplicates_among_the_first_16", 12.0)],
        refutes: &[equals("layouts", 16), equals("with_duplicates_among_the_first_16", 0)],
        expect: REFUTED,
        because: "If they were random, sixteen threads would have duplicates in all but one of a \
                  million cases. But stacks are laid side by side, and the bits count down.",
        source: &[IN_USE],
        ..Case::SHARED
    },
    Case {
        id: "B17.1",
        claim: "pthread_self() >> 16 | getpid() << 16 is unique among a process's threads.",
        tried: "As many threads as there can be, up to 2100, bind it, in a process whose id has \
                its lowest nine bits set.",
        method: Method::Guest(MANY_SOCKETS),
        confirms: &[at_least("threads", 300.0), equals("failed", 0)],
        refutes: &[at_least("threads", 300.0), at_least("failed", 1.0)],
        expect: Expect::ByWordSize { i386: Finding::Confirmed, x86_64: Finding::Refuted },
        because: "With 32 bits the shift leaves the 16 bits that tell stacks apart. With 64 bits \
                  it leaves 31, of which the upper ones are or-ed into the process id and lost \
                  there: threads whose addresses differ by 16 GiB get the same port. With stacks \
                  of 8 MiB that is the 2048th.",
        source: &[IN_USE],
        ..Case::SHARED
    },
    Case {
        id: "B17.2",
        claim: "pthread_self() >> 16 | getpid() << 16 is unique in the whole system.",
        tried: "Two processes forked from one, whose ids differ in bit 9, bind it from four \
                threads each.",
        method: Method::Guest(DEFAULT_STACKS),
        confirms: &[
            equals("first_threads", 4),
            equals("second_threads", 4),
            equals("second_failed", 0),
        ],
        refutes: &[
            equals("first_threads", 4),
            equals("first_failed", 0),
            equals("second_threads", 4),
            at_least("second_failed", 1.0),
        ],
        expect: Expect::ByWordSize { i386: Finding::Confirmed, x86_64: Finding::Refuted },
        because: "Mappings of 64-bit programs lie below 2^47 and begin within 2^40 of it, so six \
                  bits of the address that fall on the process id are always set, and ids that \
                  differ in them only are the same. With 32 bits the halves do not overlap.",
        source: &[
            ("arch/x86/mm/mmap.c", "static unsigned long mmap_base(unsigned long rnd"),
            IN_USE,
        ],
        ..Case::SHARED
    },
    Case {
        id: "B17.3",
        claim: "By the new formula, runs of a program without randomisation do not clash.",
        tried: "A program is run twice at once without address space randomisation, as a debugger \
                does it; four threads of each bind the formula's ports.",
        method: Method::Guest(DEFAULT_STACKS),
        confirms: &[
            equals("first_threads", 4),
            equals("second_threads", 4),
            equals("second_failed", 0),
        ],
        refutes: &[
            equals("first_failed", 0),
            equals("second_threads", 4),
            equals("second_failed", 4),
        ],
        expect: Expect::ByWordSize { i386: Finding::Confirmed, x86_64: Finding::Refuted },
        because: "Without randomisation mappings of 64-bit programs begin at 0x7fff..., so all 15 \
                  bits of a process id are lost, and both have their stacks at the same places.",
        source: &[
            ("arch/x86/mm/mmap.c", "static unsigned long mmap_base(unsigned long rnd"),
            IN_USE,
        ],
        ..Case::SHARED
    },
    Case {
        id: "B17.4",
        claim: "By the new formula threads have different ports whatever the size of their stacks.",
        tried: "Sixteen threads with stacks of 32 KiB, set as an attribute, bind the new formula.",
        confirms: &[equals("threads", 16), equals("failed", 0)],
        refutes: &[equals("threads", 16), at_least("failed", 1.0)],
        expect: REFUTED,
        because: "The shift drops the lowest 16 bits. Stacks that are less than 64 KiB apart, guard \
                  included, share what is left; the C library allows stacks from 16 KiB on.",
        source: &[IN_USE],
        ..Case::SHARED
    },
];
