//! Senders: who is said to have sent a message, and what the kernel makes of it.

use crate::experiment::claims::case::*;

const AF_NETLINK: &str = "net/netlink/af_netlink.c";
/// Where the kernel itself says who sent a datagram.
const SEEN: (&str, &str) = (AF_NETLINK, "NETLINK_CB(skb).portid\t= nlk->portid;");
/// Where a datagram is copied, whatever is in it.
const COPIED: (&str, &str) = (AF_NETLINK, "if (memcpy_from_msg(skb_put(skb, len), msg, len)) {");

pub const CASES: &[Case] = &[
    Case {
        id: "A16.1",
        claim: "The kernel does not build the message's header: what the sender wrote arrives.",
        tried: "A header whose length, type, flags and nlmsg_pid are all wrong is sent to the \
                article's module and to another program.",
        confirms: &[
            is("send_to_the_kernel", "ok"),
            yes("kernel_got_length_as_sent"),
            yes("kernel_got_nlmsg_pid_as_written"),
            yes("user_got_bytes_as_written"),
        ],
        refutes: &[is_not("send_to_the_kernel", "ok")],
        depends: &[is("send_to_the_kernel", "ok"), no("user_got_bytes_as_written")],
        depends_on: "to whom it is sent",
        expect: CONFIRMED,
        because: "netlink_sendmsg() copies the bytes and looks at none of them.",
        source: &[COPIED],
        ..Case::SHARED
    },
    Case {
        id: "A16.2",
        claim: "Without nlmsg_pid the kernel cannot know who sent a message.",
        tried: "A client with port 100 sends with nlmsg_pid 0; the module answers to the port \
                that netlink tells it.",
        confirms: &[equals("kernel_saw", 0), equals("answers", 0)],
        refutes: &[equals("kernel_saw", 100), equals("answers", 10)],
        expect: REFUTED,
        because: "netlink_sendmsg() puts the port of the sending socket beside the datagram, where \
                  NETLINK_CB(skb).portid reads it (.pid before 3.7, 15e473046cb6).",
        source: &[SEEN],
        ..Case::SHARED
    },
    Case {
        id: "A16.3",
        claim: "Who wants no answer may leave out nlmsg_pid.",
        tried: "A client sends with nlmsg_pid 0 to a module that does not answer.",
        confirms: &[is("send", "ok"), equals("kernel_called", 1)],
        refutes: &[equals("kernel_called", 0)],
        expect: CONFIRMED,
        because: "netlink itself never looks at nlmsg_pid. It may be left out just as well by who \
                  wants an answer, except with modules that take it for an address.",
        source: &[COPIED],
        ..Case::SHARED
    },
    Case {
        id: "A16.4",
        claim: "What is sent over netlink has to begin with a message's header.",
        tried: "Three bytes are sent to the article's module.",
        confirms: &[equals("kernel_called", 0)],
        refutes: &[is("send", "ok"), equals("kernel_called", 1), equals("kernel_got_bytes", 3)],
        expect: REFUTED,
        because: "Any datagram of at least one byte reaches the input callback. That it is a \
                  message is for the callback to check: netlink_rcv_skb() does, the article's \
                  looks at the length only.",
        source: &[COPIED, (AF_NETLINK, "while (skb->len >= nlmsg_total_size(0)) {")],
        ..Case::SHARED
    },
    Case {
        id: "A16.5",
        claim: "Type 0 and flags 0, as the clients send them, do for any netlink protocol.",
        tried: "Requests with and without NLM_F_REQUEST and a type of at least 16 are sent to the \
                article's module, to rtnetlink and to the module's echo.",
        confirms: &[
            at_least("article", 1.0),
            at_least("rtnetlink_type_0_flags_0", 1.0),
            at_least("echo_flags_0", 1.0),
        ],
        refutes: &[equals("article", 0)],
        depends: &[
            at_least("article", 1.0),
            equals("rtnetlink_type_0_flags_0", 0),
            equals("rtnetlink_type_0", 0),
            equals("rtnetlink_flags_0", 0),
            at_least("rtnetlink", 1.0),
            equals("echo_flags_0", 0),
            equals("echo", 1),
        ],
        depends_on: "the protocol: those that read their messages by netlink_rcv_skb() skip what \
                     is no request or has a type below 16",
        expect: DEPENDS,
        because: "Types below 16 are netlink's own, and netlink_rcv_skb() hands on requests only. \
                  The article's module reads its datagrams itself.",
        source: &[
            (AF_NETLINK, "if (!(nlh->nlmsg_flags & NLM_F_REQUEST))"),
            (AF_NETLINK, "if (nlh->nlmsg_type < NLMSG_MIN_TYPE)"),
        ],
        ..Case::SHARED
    },
    Case {
        id: "A17.1",
        claim: "With another's port in nlmsg_pid, the answers go to that other.",
        tried: "A program of user 1000, with port 100, sends port 101 as nlmsg_pid to the \
                article's module; another process has port 101.",
        confirms: &[equals("answers_to_the_sender", 0), equals("answers_to_the_other", 10)],
        refutes: &[equals("answers_to_the_sender", 10), equals("answers_to_the_other", 0)],
        expect: CONFIRMED,
        because: "The article's module answers to the port that the message names. No privilege is \
                  needed to write one into it.",
        source: &[COPIED],
        ..Case::SHARED
    },
    Case {
        id: "A17.2",
        claim: "A module cannot keep answers from going to a port that the sender made up.",
        tried: "As before, but the module answers to the port that netlink tells it.",
        confirms: &[equals("answers_to_the_sender", 0), equals("answers_to_the_other", 10)],
        refutes: &[
            equals("nlmsg_pid_said", 101),
            equals("kernel_saw", 100),
            equals("answers_to_the_sender", 10),
            equals("answers_to_the_other", 0),
        ],
        expect: REFUTED,
        because: "The port beside the datagram is that of the sending socket, and no sender can \
                  change it.",
        source: &[SEEN],
        ..Case::SHARED
    },
    Case {
        id: "A18.1",
        claim: "Whether anybody has the port in nlmsg_pid is nothing that the kernel cares about.",
        tried: "A client sends a port that nobody has as nlmsg_pid.",
        confirms: &[is("send", "ok"), equals("kernel_called", 1)],
        refutes: &[equals("kernel_called", 0)],
        expect: CONFIRMED,
        because: "nlmsg_pid is a part of the bytes that are copied, and is not looked up.",
        source: &[COPIED],
        ..Case::SHARED
    },
    Case {
        id: "A18.2",
        claim: "A module does not notice that nobody has the port it answers to.",
        tried: "The article's module answers ten times to a port that nobody has; then a client \
                asks it for ten answers more.",
        confirms: &[equals("answers_taken", 10), equals("answers_refused", 0)],
        refutes: &[
            equals("answers_taken", 0),
            equals("answers_refused", 10),
            is("refused_with", "ECONNREFUSED"),
            equals("answers_afterwards", 10),
        ],
        expect: REFUTED,
        because: "netlink_unicast() returns -ECONNREFUSED each time. As printed, the article's \
                  module does not look at what it returns, and goes on.",
        source: &[(AF_NETLINK, "return ERR_PTR(-ECONNREFUSED);")],
        ..Case::SHARED
    },
    Case {
        id: "A20.1",
        claim: "Two parts of the kernel can each have a kernel socket of one protocol.",
        tried: "The article's module is switched on with the protocol that the rig's own has, and \
                then with another one.",
        confirms: &[is("second_of_the_same_protocol", "ok")],
        refutes: &[
            is_not("second_of_the_same_protocol", "ok"),
            is("first_of_another_protocol", "ok"),
        ],
        expect: REFUTED,
        because: "netlink_kernel_create() gives its socket port 0, and a port is there once in a \
                  protocol and a network namespace. So the kernel's parts cannot talk to one \
                  another over such sockets, as the article says they could.",
        source: &[(AF_NETLINK, "if (netlink_insert(sk, 0))")],
        ..Case::ALONE
    },
    Case {
        id: "A20.2",
        claim: "What the kernel sends to port 0 reaches another part of the kernel.",
        tried: "The kernel sends three messages to port 0 through the socket of the article's \
                module, which answers nothing.",
        confirms: &[equals("sent", 3), equals("own_callback_called", 0)],
        refutes: &[equals("sent", 3), equals("own_callback_called", 3), equals("from_port", 0)],
        expect: REFUTED,
        because: "Port 0 of the protocol is the very socket that sends: its own input callback is \
                  called.",
        source: &[
            (AF_NETLINK, "sk = netlink_getsockbyportid(ssk, portid);"),
            (AF_NETLINK, "nlk->netlink_rcv(skb);"),
        ],
        ..Case::SHARED
    },
];
