//! Where the kernel sends from, when it sends on its own.

use crate::experiment::claims::case::*;

const NETLINK: &str = "net/netlink/af_netlink.c";

pub const CASES: &[Case] = &[
    Case {
        id: "A26.1",
        claim: "The kernel can begin: it sends to a program that has sent it nothing.",
        tried: "A socket binds a port and only receives. The kernel sends there from another \
                program's system call, a thread of its own, a timer and a tasklet; once more from a \
                timer, while the socket waits in recv().",
        confirms: &[
            equals("heard_from_call_of_another", 3),
            equals("heard_from_thread", 3),
            equals("heard_from_timer", 3),
            equals("heard_from_tasklet", 3),
            is("recv_that_waited", "ok"),
        ],
        refutes: &[equals("heard_from_thread", 0), equals("heard_from_timer", 0)],
        expect: CONFIRMED,
        because: "netlink_unicast() needs a port, and no request.",
        source: &[(NETLINK, "int netlink_unicast(struct sock *ssk, struct sk_buff *skb,")],
        ..Case::SHARED
    },
    Case {
        id: "A26.2",
        claim: "For the kernel to send first it is enough that both sides agree on a port.",
        tried: "The kernel sends to a port before anybody has bound it, and afterwards.",
        confirms: &[equals("heard_of_those", 3), equals("heard_of_these", 3)],
        refutes: &[equals("heard_of_these", 0)],
        depends: &[
            equals("sent_to_nobody", 0),
            is("error", "ECONNREFUSED"),
            equals("heard_of_those", 0),
            equals("sent_to_a_socket", 3),
            equals("heard_of_these", 3),
        ],
        depends_on: "a socket's having that port when the kernel sends",
        expect: DEPENDS,
        because: "A message for a port that nobody has is not kept: netlink_unicast() returns \
                  -ECONNREFUSED, and whoever comes later does not hear of it.",
        source: &[(NETLINK, "return ERR_PTR(-ECONNREFUSED);")],
        ..Case::SHARED
    },
    Case {
        id: "A31.1",
        claim: "The kernel's side of netlink can be used in process context.",
        tried: "The kernel sends to a port and to a group from a system call and from a thread, and \
                says where it was.",
        confirms: &[
            is("call_in", "task"),
            equals("call_heard", 3),
            equals("call_heard_in_group", 3),
            is("thread_in", "task"),
            equals("thread_heard", 3),
            equals("thread_heard_in_group", 3),
        ],
        refutes: &[is("call_in", "task"), equals("call_heard", 0)],
        expect: CONFIRMED,
        because: "This is where most of netlink's users in the kernel send: in the answer to a \
                  request.",
        source: &[(NETLINK, "int netlink_unicast(struct sock *ssk, struct sk_buff *skb,")],
        ..Case::SHARED
    },
    Case {
        id: "A31.2",
        claim: "The kernel's side of netlink can be used in software interrupts.",
        tried: "The kernel sends to a port and to a group from a timer and from a tasklet, without \
                waiting, and says where it was.",
        confirms: &[
            is("timer_in", "softirq"),
            equals("timer_heard", 3),
            equals("timer_heard_in_group", 3),
            is("tasklet_in", "softirq"),
            equals("tasklet_heard", 3),
            equals("tasklet_heard_in_group", 3),
        ],
        refutes: &[is("timer_in", "softirq"), equals("timer_heard", 0)],
        expect: CONFIRMED,
        because: "If it is told not to wait, sending takes only locks that interrupts may take; \
                  gfp_any() sees a softirq and allocates without sleeping.",
        source: &[
            ("include/net/sock.h", "return in_softirq() ? GFP_ATOMIC : GFP_KERNEL;"),
            (NETLINK, "skb = netlink_trim(skb, gfp_any());"),
        ],
        ..Case::SHARED
    },
    Case {
        id: "A31.3",
        claim: "The kernel's side of netlink can be used in hardware interrupts.",
        tried: "The kernel sends from an hrtimer in its interrupt, without waiting: to a port, to a \
                group, to a port that nobody has, and to a queue that is full.",
        confirms: &[
            is("hrtimer_in", "hardirq"),
            equals("hrtimer_heard", 3),
            equals("hrtimer_heard_in_group", 3),
            is("error_with_nobody_there", "ECONNREFUSED"),
            is("error_with_a_full_queue", "EAGAIN"),
            is("machine", "well"),
        ],
        refutes: &[is_not("machine", "well")],
        expect: CONFIRMED,
        because: "The queue's lock and (since 5.13, 1d482e666b8e) that of the table of protocols \
                  are taken with interrupts off, and the module allocates its message with \
                  GFP_ATOMIC. Nothing promises it: gfp_any() does not know hard interrupts.",
        source: &[
            (NETLINK, "read_lock_irqsave(&nl_table_lock, flags);"),
            ("include/net/sock.h", "return in_softirq() ? GFP_ATOMIC : GFP_KERNEL;"),
        ],
        ..Case::BREAKS
    },
    Case {
        id: "A31.4",
        claim: "In interrupt context the kernel's messages arrive as surely as in process context.",
        tried: "Fifty messages of 1000 bytes to the smallest queue, which is read later: from a \
                thread that waits for room, and from a timer, which must not.",
        confirms: &[equals("heard_from_thread", 50), equals("heard_from_timer", 50)],
        refutes: &[
            yes("thread_waits_for_room"),
            equals("heard_from_thread", 50),
            at_most("heard_from_timer", 25.0),
            is("error_from_timer", "EAGAIN"),
            at_least("losses_reported", 1.0),
        ],
        expect: REFUTED,
        because: "To wait for room netlink calls schedule(), which an interrupt cannot. So it has to \
                  pass nonblock, and what has no room is lost; the receiver learns that by ENOBUFS.",
        source: &[
            (NETLINK, "*timeo = schedule_timeout(*timeo);"),
            (NETLINK, "if (!ssk || netlink_is_kernel(ssk))"),
        ],
        ..Case::SHARED
    },
];
