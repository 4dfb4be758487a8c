//! The paper's asynchronous module, and its tables.

use std::time::Duration;

use crate::abi::Arch;
use crate::experiment::claims::case::*;

const QUEUE: (&str, &str) = ("net/netlink/af_netlink.c", "nlk->netlink_rcv(skb);");

/// A process that may have as many threads as its address space holds.
const MANY_THREADS: Setting = Setting {
    alone: true,
    memory_bytes: 1 << 30,
    limit: Duration::from_secs(90),
    rlimits: &[("stack", 2 << 20), ("nofile", 100_000)],
    ..Setting::SHARED
};

pub const CASES: &[Case] = &[
    Case {
        id: "B19.1",
        claim: "Handing the message over to a thread of the kernel lets the sender return at once.",
        tried: "A handler sleeps 200 ms over each message: inside of the input function (the \
                article's module), and in a kernel thread that the input function wakes (the \
                paper's). The time of sendto() is measured, the least of three.",
        // A timer of the kernel's may end early by what its clock is late.
        confirms: &[at_least("inside_ms", 150.0), at_most("handed_over_ms", 100.0)],
        refutes: &[at_least("inside_ms", 150.0), at_least("handed_over_ms", 150.0)],
        expect: CONFIRMED,
        because: "The sender waits for the input function only; that copies, queues and wakes.",
        source: &[QUEUE],
        ..Case::SHARED
    },
    Case {
        id: "B19.2",
        claim: "Handing over to a kernel thread raises the throughput.",
        tried: "Eight clients send one message each at the same time and wait for the answer; the \
                handler sleeps 200 ms over each. From the first sent to the last answered, the \
                least of three times: inside of the input function, and in the paper's one thread.",
        confirms: &[at_most("times_as_long", 0.8)],
        refutes: &[at_least("times_as_long", 3.0)],
        expect: REFUTED,
        because: "Netlink does not serialise input functions: eight senders run eight of them at \
                  once. One thread handles one message after another, so what is faster is only \
                  the sender, not the work. Counting what is sent in place of what is done hides it.",
        source: &[QUEUE],
        ..Case::SHARED
    },
    Case {
        id: "B19.3",
        claim: "Several kernel threads can process the messages concurrently.",
        tried: "The same with eight threads on the paper's queue.",
        confirms: &[at_most("times_as_long", 2.0)],
        refutes: &[at_least("times_as_long", 3.0)],
        expect: CONFIRMED,
        because: "With as many threads as clients the messages are handled at once again, as they \
                  were inside of the input function, and without its simplicity.",
        source: &[QUEUE],
        ..Case::ALONE
    },
    Case {
        id: "B20.1",
        claim: "skb_copy(), the kernel socket's receive queue and its wait queue make a handler.",
        tried: "The paper's input function, ported to this kernel: five messages are sent and \
                answered by its thread.",
        confirms: &[equals("answered", 5), equals("lost", 0)],
        refutes: &[at_most("answered", 4.0)],
        expect: CONFIRMED,
        because: "Netlink itself never touches the receive queue of a socket of the kernel, and \
                  such a socket has a wait queue, so both are free to be used. It works by leave \
                  of an implementation, not by an interface.",
        source: &[("net/netlink/af_netlink.c", "static void netlink_data_ready(struct sock *sk)")],
        ..Case::SHARED
    },
    Case {
        id: "B20.2",
        claim: "Netlink holds back senders that are faster than the handler's thread.",
        tried: "1500 messages of 1 KiB are sent without waiting while the thread sleeps 100 ms \
                over each; then what waits is counted, and what the kernel's socket is charged.",
        confirms: &[at_least("refused", 1.0)],
        refutes: &[equals("refused", 0), at_least("waiting", 1000.0), equals("charged_bytes", 0)],
        expect: REFUTED,
        because: "A copy made by skb_copy() belongs to no socket. Nothing is charged, so nothing is \
                  ever full: a sender that does not stop fills the memory.",
        source: &[(
            "net/core/skbuff.c",
            "struct sk_buff *skb_copy(const struct sk_buff *skb, gfp_t gfp_mask)",
        )],
        ..Case::SHARED
    },
    Case {
        id: "B20.3",
        claim: "Queueing the datagram itself, not a copy, limits what waits to the receive buffer.",
        tried: "The same with skb_get() in place of skb_copy().",
        confirms: &[at_least("refused", 1.0)],
        refutes: &[
            equals("refused", 0),
            at_least("waiting", 1000.0),
            at_least("charged_bytes", 1_500_000.0),
        ],
        expect: REFUTED,
        because: "The datagram is charged to the kernel's socket before the input function runs, \
                  and stays charged; but on the way to the kernel nobody compares that with a limit.",
        source: &[
            (
                "net/netlink/af_netlink.c",
                "static int netlink_unicast_kernel(struct sock *sk, struct sk_buff *skb,",
            ),
            QUEUE,
        ],
        ..Case::SHARED
    },
    Case {
        id: "B20.4",
        claim: "What sendmsg() has taken reaches the handler.",
        tried: "Messages of 1 MiB are sent to a thread that sleeps, in a guest with 128 MiB of \
                memory, until copies fail.",
        method: Method::Guest(Setting {
            memory_bytes: 128 << 20,
            limit: Duration::from_secs(60),
            ..Setting::ALONE
        }),
        confirms: &[equals("lost", 0), at_least("sent_without_error", 1000.0)],
        refutes: &[at_least("lost", 1.0), at_least("sent_without_error", 1.0)],
        expect: REFUTED,
        because: "skb_copy(skb, GFP_ATOMIC) gives NULL when memory is short or in pieces, and the \
                  listing says nothing then: the message is gone, and sendmsg() has returned its \
                  length. The input function has no way to tell the sender but an answer.",
        source: &[
            (
                "net/core/skbuff.c",
                "struct sk_buff *skb_copy(const struct sk_buff *skb, gfp_t gfp_mask)",
            ),
            QUEUE,
        ],
        ..Case::SHARED
    },
    Case {
        id: "B22.1",
        claim: "With stacks of 2 MiB a 32-bit process can have 1449 threads with a socket each.",
        tried: "Threads are created with default attributes under a stack limit of 2 MiB until \
                that fails; each holds a socket that is bound to a port of the kernel's choice.",
        method: Method::Guest(MANY_THREADS),
        only: Some(Arch::I386),
        confirms: &[at_least("threads", 1440.0), at_most("threads", 1458.0)],
        refutes: &[at_least("threads", 1500.0), is("failed_call", "pthread_create")],
        expect: REFUTED,
        because: "The address space binds: 3072 MiB less what the program itself takes, over 2 MiB \
                  and a guard page, is about 1528, some 79 more. The experiment `threads` predicts \
                  each count exactly and has the other sizes.",
        source: &[("mm/mmap.c", "generic_get_unmapped_area_topdown")],
        ..Case::SHARED
    },
    Case {
        id: "B22.2",
        claim: "What is missing of 3072 MiB over 2 MiB is code and data, about 1 KB.",
        tried: "What a static program has mapped before it makes a thread is added up, and held \
                against what 87 stacks of 2 MiB take, the difference of 1536 and 1449.",
        only: Some(Arch::I386),
        confirms: &[at_most("code_and_data_kib", 16.0)],
        refutes: &[at_least("code_and_data_kib", 256.0), at_least("missing_kib", 100_000.0)],
        expect: REFUTED,
        because: "Code and data of the smallest program that can have threads take a thousand times \
                  as much, and what would have to be missing is a hundred times as much again.",
        source: &[],
        ..Case::SHARED
    },
    Case {
        id: "B23",
        claim: "A 64-bit process can have about as many threads as the system's maximum, 32768.",
        tried: "As B22.1, with threads-max at 32768 and pid_max and max_map_count above it, and \
                stacks of 2 MiB.",
        method: Method::Guest(Setting {
            memory_bytes: 4 << 30,
            limit: Duration::from_secs(120),
            sysctls: &[
                ("kernel.threads-max", "32768"),
                ("kernel.pid_max", "131072"),
                ("vm.max_map_count", "1000000"),
            ],
            ..MANY_THREADS
        }),
        only: Some(Arch::X86_64),
        confirms: &[at_least("threads", 32_500.0), at_most("threads", 32_768.0)],
        refutes: &[at_most("threads", 32_000.0)],
        expect: CONFIRMED,
        because: "threads-max counts every task of the system, so 32768 less the tasks that were \
                  there before. The sockets are bound to ports of the kernel's choice; under the \
                  paper's own formula many of these threads would have no port of their own (B17).",
        source: &[("kernel/fork.c", "if (data_race(nr_threads >= max_threads))")],
        ..Case::SHARED
    },
];
