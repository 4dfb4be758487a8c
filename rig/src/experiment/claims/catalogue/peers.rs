//! From one process to another: who may, and what happens to what is sent.

use crate::experiment::claims::case::*;

const NETLINK: &str = "net/netlink/af_netlink.c";

pub const CASES: &[Case] = &[
    Case {
        id: "A19.1",
        claim: "What is sent to another process's port goes to that process.",
        tried: "A process binds a port; another one, also of root, sends there. The calls of the \
                kernel's input callback are counted.",
        confirms: &[
            is("sendto", "ok"),
            yes("heard_as_sent"),
            yes("from_the_senders_port"),
            equals("inputs_of_the_kernel", 0),
        ],
        refutes: &[is_not("sendto", "ok")],
        expect: CONFIRMED,
        because: "netlink_unicast() looks the port up in the protocol's table, where sockets of \
                  programs are beside the kernel's own, and queues the message there.",
        source: &[(NETLINK, "sk = netlink_getsockbyportid(ssk, portid);")],
        ..Case::SHARED
    },
    Case {
        id: "A19.2",
        claim: "Any two processes can talk to each other over netlink.",
        tried: "User 1000, without capabilities, sends to a bound port of the private protocol, of \
                NETLINK_USERSOCK, and of the private protocol in namespaces of its own.",
        confirms: &[is("private_protocol", "ok"), is("usersock", "ok")],
        refutes: &[is("private_protocol", "EPERM"), is("usersock", "EPERM")],
        depends: &[
            is("private_protocol", "EPERM"),
            equals("private_protocol_heard", 0),
            is("usersock", "ok"),
            equals("usersock_heard", 1),
        ],
        depends_on: "the sender's having CAP_NET_ADMIN over its network namespace, or the \
                     protocol's allowing everyone to send (NL_CFG_F_NONROOT_SEND)",
        expect: DEPENDS,
        because: "A port other than 0 needs CAP_NET_ADMIN unless the protocol has the flag \
                  NL_CFG_F_NONROOT_SEND. NETLINK_USERSOCK is there for talk among programs and has \
                  it; a module that sets only groups and input, as both texts do, has not.",
        source: &[
            (NETLINK, "if ((dst_group || dst_portid) &&"),
            (NETLINK, "nl_table[NETLINK_USERSOCK].flags = NL_CFG_F_NONROOT_SEND;"),
        ],
        ..Case::SHARED
    },
    Case {
        id: "A19.3",
        claim: "What a process sends to another one waits in a queue until that one takes it.",
        tried: "Ten messages to a process that receives only when all of them were sent.",
        confirms: &[equals("sent_before_any_was_read", 10), equals("heard_afterwards", 10)],
        refutes: &[at_most("sent_before_any_was_read", 9.0)],
        expect: CONFIRMED,
        because: "Only a socket of the kernel is called at once; to any other the message is \
                  appended to the receive queue, and charged to the receiver's buffer.",
        source: &[(NETLINK, "skb_queue_tail(&sk->sk_receive_queue, skb);")],
        ..Case::SHARED
    },
    Case {
        id: "A19.4",
        claim: "To a process whose queue is full sending waits for room, unless told not to wait.",
        tried: "Messages to a socket that nobody reads, until one is refused; then with \
                MSG_DONTWAIT, with a send timeout of 600 ms, and with a reader that begins after \
                400 ms.",
        confirms: &[
            at_least("fitted", 1.0),
            is("dontwait", "EAGAIN"),
            at_most("dontwait_ms", 300.0),
            is("until_time_is_over", "EAGAIN"),
            at_least("until_time_is_over_ms", 450.0),
            is("until_it_reads", "ok"),
            at_least("until_it_reads_ms", 350.0),
        ],
        refutes: &[at_most("until_time_is_over_ms", 100.0)],
        expect: CONFIRMED,
        because: "netlink_attachskb() puts a sender that may wait on the receiver's wait queue, and \
                  each receive wakes it. What a program sends is never dropped for want of room, as \
                  what the kernel sends is.",
        source: &[(NETLINK, "*timeo = schedule_timeout(*timeo);")],
        ..Case::SHARED
    },
];
