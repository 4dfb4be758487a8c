//! What the kernel sends waits in the receiver's buffer; what happens when that
//! is full.

use crate::experiment::claims::case::*;

const AF_NETLINK: &str = "net/netlink/af_netlink.c";

/// The one place where room is looked for.
const NO_ROOM: (&str, &str) = (AF_NETLINK, "int netlink_attachskb(struct sock *sk");
const OVERRUN: (&str, &str) = (AF_NETLINK, "static void netlink_overrun(struct sock *sk)");
const WAKE: (&str, &str) = (AF_NETLINK, "static void netlink_rcv_wake(struct sock *sk)");
const WAITS: (&str, &str) = (AF_NETLINK, "*timeo = schedule_timeout(*timeo);");

pub const CASES: &[Case] = &[
    Case {
        id: "A6.1",
        claim: "What the kernel sends to a program is queued; the kernel waits for nobody.",
        tried: "The module sends 20 messages of 1 KiB to a program that does not read. Then it \
                reads. /proc/net/netlink tells what is queued.",
        confirms: &[
            equals("sent", 20),
            equals("failed", 0),
            equals("queued_bytes_before", 0),
            at_least("queued_bytes", 20480.0),
            equals("received_afterwards", 20),
            equals("queued_bytes_afterwards", 0),
        ],
        refutes: &[at_most("queued_bytes", 0.0)],
        expect: CONFIRMED,
        because: "A message for a program goes to the end of its socket's queue, and the socket is \
                  charged for it.",
        source: &[(AF_NETLINK, "skb_queue_tail(&sk->sk_receive_queue, skb);")],
        ..Case::SHARED
    },
    Case {
        id: "A6.2",
        claim: "That queue takes whatever the kernel sends.",
        tried: "The module sends 400 messages of 1 KiB to a program that does not read.",
        confirms: &[equals("failed", 0)],
        refutes: &[at_least("sent", 10.0), at_least("failed", 1.0), is("error", "EAGAIN")],
        expect: REFUTED,
        because: "It takes as much as the receive buffer, net.core.rmem_default if the program has \
                  not set another. What counts is the memory of a message with all around it, \
                  which is more than its length.",
        source: &[NO_ROOM, (AF_NETLINK, "rmem <= READ_ONCE(sk->sk_rcvbuf)")],
        ..Case::SHARED
    },
    Case {
        id: "A7.1",
        claim: "netlink_unicast() with nonblock returns at once when there is no room.",
        tried: "A kernel thread sends 400 messages of 1 KiB with nonblock to a program that does \
                not read.",
        confirms: &[yes("returned"), at_least("failed", 1.0), is("error", "EAGAIN")],
        refutes: &[no("returned")],
        expect: CONFIRMED,
        because: "With no time to wait the message is released, and EAGAIN returned.",
        source: &[NO_ROOM, (AF_NETLINK, "return -EAGAIN;")],
        ..Case::SHARED
    },
    Case {
        id: "A7.2",
        claim: "A receiver that a message was dropped for is told, once: ENOBUFS.",
        tried: "As A7.1; then the program reads until there is no more.",
        confirms: &[
            at_least("failed", 2.0),
            is("first_receive", "ENOBUFS"),
            is("second_receive", "ok"),
            equals("enobufs_later", 0),
            equals("lost", 0),
        ],
        refutes: &[at_least("failed", 2.0), is("first_receive", "ok"), equals("enobufs_later", 0)],
        expect: CONFIRMED,
        because: "The first message that is dropped leaves an error on the socket, which the next \
                  call takes off again; further ones do so only when the socket is no longer \
                  marked as congested. What was queued before is still there.",
        source: &[OVERRUN],
        ..Case::SHARED
    },
    Case {
        id: "A7.3",
        claim: "As soon as there is room again the kernel can send again.",
        tried: "A full buffer, of which the program reads one half; the module sends one message. \
                Then the program reads the other half, and the module sends another.",
        confirms: &[is("with_room", "ok"), is("when_empty", "ok")],
        refutes: &[is("with_room", "EAGAIN"), is("when_empty", "ok")],
        expect: REFUTED,
        because: "A socket that a message was dropped for is congested until its queue is empty; \
                  until then all that is sent to it is dropped, whatever room there is.",
        source: &[(AF_NETLINK, "!test_bit(NETLINK_S_CONGESTED, &nlk->state)) {"), WAKE],
        ..Case::SHARED
    },
    Case {
        id: "A7.4",
        claim: "Each message that is dropped is counted in /proc/net/netlink.",
        tried: "As A7.1; the column Drops of the program's socket against what the module was \
                refused.",
        confirms: &[at_least("failed", 2.0), equals("difference", 0)],
        refutes: &[at_least("failed", 2.0), equals("drops", 0)],
        expect: CONFIRMED,
        because: "Every drop is counted, also those of a congested socket.",
        source: &[(AF_NETLINK, "atomic_inc(&sk->sk_drops);")],
        ..Case::SHARED
    },
    Case {
        id: "A7.5",
        claim: "With NETLINK_NO_ENOBUFS the receiver is not told, and gets more as soon as it fits.",
        tried: "As A7.2 and the first half of A7.3, by a program that has set this option.",
        confirms: &[
            at_least("failed", 2.0),
            at_least("drops", 2.0),
            is("first_receive", "ok"),
            equals("enobufs_later", 0),
            is("with_room", "ok"),
        ],
        refutes: &[is("first_receive", "ENOBUFS")],
        expect: CONFIRMED,
        because: "The option leaves out the error and the mark; only the counter is left.",
        source: &[(AF_NETLINK, "if (!nlk_test_bit(RECV_NO_ENOBUFS, sk)) {")],
        ..Case::SHARED
    },
    Case {
        id: "A7.6",
        claim: "Without nonblock netlink_unicast() sleeps until there is room.",
        tried: "A kernel thread sends 400 messages of 1 KiB without nonblock to a program that \
                reads only once nothing moves any more.",
        confirms: &[
            yes("waits"),
            is("thread_in_state", "S"),
            yes("returned_afterwards"),
            equals("failed", 0),
            equals("received", 400),
        ],
        refutes: &[no("waits"), at_least("failed", 1.0)],
        expect: CONFIRMED,
        because: "The sender waits in the receiver's own wait queue, without a limit, and each read \
                  wakes it. A kernel thread takes no signals by itself: it waits as long as the \
                  program likes, and whoever stops the thread waits with it.",
        source: &[WAITS, WAKE],
        ..Case::SHARED
    },
    Case {
        id: "A7.7",
        claim: "A handler that waits for room in its own caller's buffer gets it in time.",
        tried: "A program of one thread asks for 400 messages of 1 KiB to itself, which the handler \
                sends without nonblock in the program's own call. In the end it gets a signal.",
        confirms: &[no("waits"), is("error", "ok")],
        refutes: &[
            yes("waits"),
            is("client_in_state", "S"),
            yes("returned_by_signal"),
            is("error", "EINTR"),
        ],
        expect: REFUTED,
        because: "Only the program could make room, and it is inside of the handler: it waits for \
                  itself until a signal comes.",
        source: &[WAITS, (AF_NETLINK, "return sock_intr_errno(*timeo);")],
        ..Case::SHARED
    },
];
