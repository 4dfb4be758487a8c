//! Who waits for whom: the sender, the kernel's handler, and other clients.

use std::time::Duration;

use crate::experiment::claims::case::*;

/// netlink_unicast() to the kernel, and the call of its input function.
const CALLED_DIRECTLY: &[(&str, &str)] = &[
    ("net/netlink/af_netlink.c", "return netlink_unicast_kernel(sk, skb, ssk);"),
    ("net/netlink/af_netlink.c", "nlk->netlink_rcv(skb);"),
];

/// What the handler waits with.
const UNINTERRUPTIBLE: (&str, &str) =
    ("kernel/sched/completion.c", "return wait_for_common(x, timeout, TASK_UNINTERRUPTIBLE);");

/// Half a minute, and what a slow machine adds.
const DEMO: Method = Method::Guest(Setting { limit: Duration::from_secs(90), ..Setting::SHARED });

/// Of both of the article's clients.
const DEMO_CONFIRMED: &[Condition] = &[
    at_least("sendmsg_sending_s", 29.5),
    equals("sendmsg_answers", 10),
    is("sendmsg_text", "I am from kernel!"),
    equals("sendmsg_kernel_sent", 10),
    at_least("sendmsg_gap_min_ms", 2950.0),
    at_most("sendmsg_all_read_after_ms", 2000.0),
    at_least("sendto_sending_s", 29.5),
    equals("sendto_answers", 10),
    is("sendto_text", "I am from kernel!"),
    equals("sendto_kernel_sent", 10),
    at_least("sendto_gap_min_ms", 2950.0),
    at_most("sendto_all_read_after_ms", 2000.0),
    at_least("in_d_percent", 80.0),
];
const DEMO_REFUTED: &[Condition] =
    &[at_most("sendmsg_sending_s", 27.0), at_most("sendto_sending_s", 27.0)];

pub const CASES: &[Case] = &[
    Case {
        id: "A1",
        claim: "Sending to the kernel returns only when the kernel's handler has returned.",
        tried: "The module's handler waits 0 to 300 ms; the time of sendmsg() is measured for each, \
                the least of three, and a line laid through the points.",
        confirms: &[at_least("slope", 0.7), at_most("slope", 2.0)],
        refutes: &[at_most("slope", 0.3)],
        expect: CONFIRMED,
        because: "netlink_unicast() finds a socket of the kernel and calls its input function in \
                  the sender's own context; nothing is queued on the way in. So since 2.6.24 \
                  (cd40b7d3983c).",
        source: CALLED_DIRECTLY,
        ..Case::SHARED
    },
    Case {
        id: "A2.1",
        claim: "With ten answers, one every three seconds, the sender is stuck for thirty seconds.",
        tried: "The article's module and both of its clients at the same time, one with sendmsg \
                and recvmsg, one with sendto and recvfrom, with the article's own numbers: one \
                greeting, ten answers, 3 s before each. The kernel's log tells when each was sent.",
        method: DEMO,
        confirms: DEMO_CONFIRMED,
        refutes: DEMO_REFUTED,
        expect: CONFIRMED,
        because: "The handler waits ten times for three seconds in the sender's system call. Each \
                  wait is late by up to 64 ticks, because the timer wheel keeps timers that are so \
                  far ahead in groups: with 250 ticks a second it is 3.07 s, time after time. All \
                  ten answers are then in the client's buffer, and are read at once.",
        source: &[
            CALLED_DIRECTLY[0],
            CALLED_DIRECTLY[1],
            ("kernel/time/timer.c", "256 ms             2048 ms"),
            ("net/netlink/af_netlink.c", ".sendmsg =\tnetlink_sendmsg,"),
        ],
        ..Case::SHARED
    },
    Case {
        id: "A2.2",
        claim: "The client gets its answers at the interval at which the kernel sends them.",
        tried: "Ten answers, 100 ms before each. They are read first by the thread that sent, after \
                sending; then by a second thread. How long from the first answer to the last, as a \
                share of the handler's time?",
        confirms: &[at_least("by_the_sender_percent", 60.0), at_least("by_a_reader_percent", 60.0)],
        refutes: &[at_most("by_the_sender_percent", 40.0), at_most("by_a_reader_percent", 40.0)],
        depends: &[at_most("by_the_sender_percent", 40.0), at_least("by_a_reader_percent", 60.0)],
        depends_on: "who reads: a client of one thread sends and can read only after the handler \
                     is done, and finds all ten; a second thread gets each when it is sent",
        expect: DEPENDS,
        because: "Each answer is queued, and its reader woken, when it is sent. But the thread that \
                  sent the greeting is inside of the handler until the last one.",
        source: &[("net/netlink/af_netlink.c", "skb_queue_tail(&sk->sk_receive_queue, skb);")],
        ..Case::SHARED
    },
    Case {
        id: "A3.1",
        claim: "While sending the client is in state D.",
        tried: "Another process reads the client's state from /proc while the handler works for \
                it: ten waits of 60 ms.",
        confirms: &[at_least("in_d_percent", 60.0)],
        refutes: &[at_most("in_d_percent", 20.0)],
        expect: CONFIRMED,
        because: "The handler runs in the client's own context, and wait_for_completion_timeout() \
                  sleeps where no signal wakes.",
        source: &[UNINTERRUPTIBLE],
        ..Case::SHARED
    },
    Case {
        id: "A3.2",
        claim: "A client in that wait cannot be killed before the handler is done.",
        tried: "SIGKILL as soon as the handler has begun, which takes 2 s; when is the client dead?",
        confirms: &[at_least("dead_after_ms", 1000.0), equals("answers_before_its_death", 10)],
        refutes: &[at_most("dead_after_ms", 600.0)],
        expect: CONFIRMED,
        because: "A signal ends no sleep of TASK_UNINTERRUPTIBLE, and a process dies on its way \
                  back to user space, not inside of a system call.",
        source: &[UNINTERRUPTIBLE],
        ..Case::SHARED
    },
    Case {
        id: "A3.3",
        claim: "While one thread of the client is stuck the whole process is.",
        tried: "While a thread is in sendmsg(), a second one looks at its state, exchanges messages \
                with the kernel through another socket, and reads answers from the same one.",
        confirms: &[equals("exchanges_meanwhile", 0)],
        refutes: &[
            at_least("exchanges_meanwhile", 5.0),
            at_least("sender_in_d", 5.0),
            at_least("answers_read_meanwhile", 3.0),
        ],
        expect: REFUTED,
        because: "State D is a thread's, and sendmsg() holds no lock while the handler runs. \
                  /proc/PID/stat shows the first thread's state, as if it were the process's.",
        source: &[UNINTERRUPTIBLE, ("net/netlink/af_netlink.c", "nlk->netlink_rcv(skb);")],
        ..Case::SHARED
    },
    Case {
        id: "A3.4",
        claim: "The kernel's check for hung tasks overlooks the client, as it wakes for each answer.",
        tried: "The check's limit is set from 120 s to 1 s. The client is in state D for 3 s in \
                waits of 50 ms, then for 4 s in a single one.",
        method: Method::Guest(Setting {
            sysctls: &[("kernel.hung_task_timeout_secs", "1")],
            limit: Duration::from_secs(60),
            ..Setting::BREAKS
        }),
        confirms: &[equals("reports_of_short_waits", 0), at_least("reports_of_long_wait", 1.0)],
        refutes: &[at_least("reports_of_short_waits", 1.0)],
        expect: CONFIRMED,
        because: "The check counts how often a task was switched to: one that wakes for a moment \
                  every three seconds is not hung, however long its system call takes.",
        source: &[("kernel/hung_task.c", "if (switch_count != t->last_switch_count) {")],
        ..Case::SHARED
    },
    Case {
        id: "A4.1",
        claim: "The handler may wait for a completion: it runs where sleeping is allowed.",
        tried: "A program's message, and a handler that waits 200 ms. Does the kernel complain of \
                sleeping where nobody may?",
        confirms: &[at_least("handler_ms", 100.0), equals("answers", 1), equals("complaints", 0)],
        refutes: &[at_least("complaints", 1.0)],
        expect: CONFIRMED,
        because: "It is called in the system call of the sender, with no lock held.",
        source: CALLED_DIRECTLY,
        ..Case::SHARED
    },
    Case {
        id: "A4.2",
        claim: "The handler may also wait when the sender is a thread of the kernel.",
        tried: "A kernel thread sends to port 0 of the article's protocol, whose handler waits \
                200 ms.",
        confirms: &[yes("returned"), at_least("handler_ms", 100.0), equals("complaints", 0)],
        refutes: &[at_least("complaints", 1.0)],
        expect: CONFIRMED,
        because: "A thread of the kernel may sleep as a process may. What counts is the context, \
                  and not who it is.",
        source: CALLED_DIRECTLY,
        ..Case::SHARED
    },
    Case {
        id: "A4.3",
        claim: "The handler may wait, whoever the message comes from.",
        tried: "A timer of the kernel, so a softirq, sends to port 0 of the article's protocol, \
                whose handler waits 30 ms.",
        confirms: &[
            is("machine", "well"),
            yes("returned"),
            at_least("handler_ms", 20.0),
            equals("complaints", 0),
        ],
        refutes: &[is_not("machine", "well"), says("machine_says", "scheduling")],
        expect: REFUTED,
        because: "The handler runs in the context of its caller, which here must not sleep: the \
                  scheduler notices, and puts whatever the interrupt came upon to sleep with it. \
                  What becomes of that varies from a warning to a panic. A handler does not know \
                  its caller; it is safe only as long as nothing in the kernel sends to port 0.",
        source: &[
            ("kernel/sched/core.c", "BUG: scheduling while atomic"),
            ("net/netlink/af_netlink.c", "nlk->netlink_rcv(skb);"),
        ],
        ..Case::BREAKS
    },
    Case {
        id: "A5.1",
        claim: "A slow handler keeps other clients waiting: they are served one after the other.",
        tried: "One process greets the article's module, whose handler takes 600 ms; then eight do, \
                each from a port of its own.",
        confirms: &[at_least("ratio", 6.0), equals("handlers_at_once", 1)],
        refutes: &[at_most("ratio", 3.0), at_least("handlers_at_once", 4.0), equals("answers", 80)],
        expect: REFUTED,
        because: "Each sender calls the handler itself, in its own context, and netlink holds no \
                  lock meanwhile. A handler has to expect to run several times at once.",
        source: &[("net/netlink/af_netlink.c", "nlk->netlink_rcv(skb);")],
        ..Case::SHARED
    },
    Case {
        id: "A5.2",
        claim: "At least two messages from the same socket are handled one after the other.",
        tried: "Two threads greet the article's module at the same time through one socket; its \
                handler takes 500 ms.",
        confirms: &[at_least("two_ms", 1000.0), equals("handlers_at_once", 1)],
        refutes: &[equals("handlers_at_once", 2), equals("answers", 20)],
        expect: REFUTED,
        because: "netlink_sendmsg() takes no lock of the socket either.",
        source: &[("net/netlink/af_netlink.c", "static int netlink_sendmsg(struct socket *sock")],
        ..Case::SHARED
    },
    Case {
        id: "B18",
        claim: "Netlink is asynchronous: a sender need not wait until the kernel has handled it.",
        tried: "A handler that waits 300 ms, and sendmsg() to it without and with MSG_DONTWAIT.",
        confirms: &[at_most("sending_ms", 100.0), at_most("sending_nonblocking_ms", 100.0)],
        refutes: &[
            at_least("sending_ms", 200.0),
            at_least("sending_nonblocking_ms", 200.0),
            equals("answers_by_then", 1),
        ],
        expect: REFUTED,
        because: "From a program to the kernel nothing is queued since 2.6.24 (cd40b7d3983c): the \
                  handler is called in the sender's system call. MSG_DONTWAIT is about room in the \
                  receiver's buffer, which the kernel's socket does not use.",
        source: CALLED_DIRECTLY,
        ..Case::SHARED
    },
];
