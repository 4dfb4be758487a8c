//! Port 0 as the client's own: what the article's module does with an answer
//! that goes to the kernel.

use std::time::Duration;

use crate::experiment::claims::case::*;

/// Port 0 is looked up as any other, and is the kernel's.
const TO_THE_KERNEL: &[(&str, &str)] = &[
    ("net/netlink/af_netlink.c", "if (netlink_is_kernel(sk))"),
    ("net/netlink/af_netlink.c", "if (netlink_insert(sk, 0))"),
];

const LONGER: Duration = Duration::from_secs(40);

pub const CASES: &[Case] = &[
    Case {
        id: "A9.1",
        claim: "When source port and nlmsg_pid are 0 the kernel's answers go to the kernel itself.",
        tried: "A client binds port 0, names port 0 and greets once. After some calls the module \
                is told to answer no more.",
        confirms: &[
            at_least("handler_calls", 3.0),
            equals("last_sender", 0),
            equals("answers_the_client_got", 0),
        ],
        refutes: &[equals("handler_calls", 1)],
        expect: CONFIRMED,
        because: "The kernel's socket is in the table under port 0. What is sent there finds it, \
                  and calls its handler again.",
        source: TO_THE_KERNEL,
        ..Case::SHARED
    },
    Case {
        id: "A9.2",
        claim: "With port 0 the kernel is caught in a loop that never ends.",
        tried: "As A9.1, with 20 ms before each answer, and nobody ends it. Meanwhile the depth of \
                the handler's calls of itself is reported, and other clients greet.",
        method: Method::Guest(Setting { limit: LONGER, ..Setting::BREAKS }),
        confirms: &[at_most("depth", 2.0), is("client_in_state", "D")],
        refutes: &[
            at_least("depth", 8.0),
            at_least("answers_of_other_clients", 2.0),
            is_not("machine", "well"),
            says("machine_says", "stack"),
        ],
        expect: REFUTED,
        because: "It is no loop but recursion: the first answer calls the handler, whose first \
                  answer calls the handler. A level takes some 300 bytes of stack, and as long as \
                  its wait: with 3 s before each answer the machine lives for a minute or two. A \
                  stack of vmalloc's (x86_64) ends in a guard page, and who hits it brings the \
                  machine down; on i386 it runs into what is below, which the scheduler notices if \
                  it is told to look.",
        source: &[
            ("net/netlink/af_netlink.c", "nlk->netlink_rcv(skb);"),
            ("arch/x86/kernel/traps.c", "stack guard page was hit"),
            ("kernel/sched/core.c", "corrupted stack end detected inside scheduler"),
        ],
        ..Case::SHARED
    },
    Case {
        id: "A9.3",
        claim: "With port 0 the machine hangs at once.",
        tried: "As A9.1; while the handler calls itself another client, with a port of its own, \
                greets and is answered.",
        confirms: &[equals("answers_of_the_other_client", 0)],
        refutes: &[equals("answers_of_the_other_client", 1), at_least("depth", 3.0)],
        expect: REFUTED,
        because: "One thread recurses, and sleeps most of the time, without a lock. All others go \
                  on until its stack is gone.",
        source: TO_THE_KERNEL,
        ..Case::SHARED
    },
    Case {
        id: "A9.4",
        claim: "Meanwhile the client is in state D all the time.",
        tried: "As A9.1; another process reads the client's state from /proc.",
        confirms: &[at_least("depth", 3.0), at_least("in_d_percent", 60.0)],
        refutes: &[at_least("depth", 3.0), at_most("in_d_percent", 20.0)],
        expect: CONFIRMED,
        because: "Each level waits in wait_for_completion_timeout(), in the client's own context.",
        source: &[(
            "kernel/sched/completion.c",
            "return wait_for_common(x, timeout, TASK_UNINTERRUPTIBLE);",
        )],
        ..Case::SHARED
    },
    Case {
        id: "A9.5",
        claim: "It takes both to be 0: the source port (A) and nlmsg_pid (C).",
        tried: "All four pairs of 0 and 100 as the port that is bound and the one that is named, as \
                in A9.1: how deep is the handler in itself?",
        confirms: &[at_least("depth_0_0", 3.0), equals("depth_100_0", 1)],
        refutes: &[
            equals("depth_100_100", 1),
            equals("answers_100_100", 1),
            equals("depth_0_100", 1),
            equals("refused_0_100", 1),
            at_least("depth_0_0", 3.0),
            at_least("depth_100_0", 3.0),
        ],
        expect: REFUTED,
        because: "The module answers to nlmsg_pid, and to nothing else. The source port decides \
                  only whether there is anybody: bind() to 0 gives the process's id, so that an \
                  answer to 100 is refused (ECONNREFUSED).",
        source: TO_THE_KERNEL,
        ..Case::SHARED
    },
    Case {
        id: "A9.6",
        claim: "Port 0 as a program's own makes trouble, whatever the module does.",
        tried: "The four pairs of A9.5 with a module that answers to the port that the kernel saw: \
                does every client get its ten answers?",
        confirms: &[at_most("answers_at_least", 0.0)],
        refutes: &[equals("answers_at_least", 10), equals("depth", 1)],
        expect: REFUTED,
        because: "The kernel notes the sender's real port with each message, and bind() to 0 means \
                  that the kernel shall choose one. NETLINK_CB(skb).portid is never 0 for a \
                  program.",
        source: &[("net/netlink/af_netlink.c", "NETLINK_CB(skb).portid\t= nlk->portid;")],
        ..Case::SHARED
    },
];
