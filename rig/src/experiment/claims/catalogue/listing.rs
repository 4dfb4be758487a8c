//! The client as the paper prints it.

use crate::experiment::claims::case::*;
use crate::static_check::StaticCheck;

const NETLINK: &str = "net/netlink/af_netlink.c";

pub const CASES: &[Case] = &[
    Case {
        id: "B21.1",
        claim: "The client as the paper prints it exchanges a message with the kernel.",
        tried: "Its msghdr, with zero for what it leaves out, sent to the paper's module; then with \
                msg_iovlen, iov_len and msg_namelen filled in one after the other.",
        confirms: &[is("as_printed", "ok"), yes("as_printed_answered")],
        refutes: &[no("as_printed_answered"), yes("with_namelen_answered")],
        expect: REFUTED,
        because: "Without msg_iovlen, or with an iov_len of 0, there is nothing to send: ENODATA \
                  since 5.16 (f123cffdd8fe), an empty message before. And nothing in the listing \
                  makes the rest zero: on a stack it is whatever was there.",
        source: &[(NETLINK, "return -ENODATA;")],
        ..Case::SHARED
    },
    Case {
        id: "B21.2",
        claim: "Setting msg_name of the msghdr addresses a message.",
        tried: "With msg_name the address of another socket: without msg_namelen, as the listing \
                has it, and with it.",
        confirms: &[equals("as_printed_heard_there", 1)],
        refutes: &[
            equals("as_printed_heard_there", 0),
            equals("as_printed_heard_of_the_kernel", 1),
            equals("with_namelen_heard_there", 1),
            equals("with_namelen_heard_of_the_kernel", 0),
        ],
        expect: REFUTED,
        because: "With msg_namelen 0 there is no address, and a socket that is not connected sends \
                  to the kernel. The paper's client wants just that, so nobody notices.",
        source: &[(NETLINK, "if (msg->msg_namelen) {")],
        ..Case::SHARED
    },
    Case {
        id: "B21.3",
        claim: "A message needs no nlmsg_len: the listing fills in the type and the port only.",
        tried: "A message with nlmsg_len 0 to the paper's module, which does not look at it, and to \
                one that reads with netlink_rcv_skb(), as most do.",
        confirms: &[yes("to_the_paper_answered"), yes("to_netlink_rcv_skb_answered")],
        refutes: &[no("to_the_paper_answered"), no("to_netlink_rcv_skb_answered")],
        depends: &[
            is("to_the_paper", "ok"),
            yes("to_the_paper_answered"),
            is("to_netlink_rcv_skb", "ok"),
            no("to_netlink_rcv_skb_answered"),
            yes("with_nlmsg_len_answered"),
        ],
        depends_on: "the module: whether it goes by the length of the datagram or of the message",
        expect: DEPENDS,
        because: "netlink_sendmsg() does not look into a datagram. netlink_rcv_skb() stops at a \
                  message that is shorter than its header, and sends no error: sendmsg() succeeds, \
                  and no answer ever comes.",
        source: &[(NETLINK, "if (nlh->nlmsg_len < NLMSG_HDRLEN || skb->len < nlh->nlmsg_len)")],
        ..Case::SHARED
    },
    Case {
        id: "B21.4",
        claim: "The msghdr of the listing receives the answer.",
        tried: "With an answer in the queue: recvmsg() with the listing's msghdr, and with its \
                lengths filled in.",
        confirms: &[at_least("as_printed_bytes", 17.0)],
        refutes: &[
            equals("as_printed_bytes", 0),
            is("as_printed_recv_after_it", "EAGAIN"),
            at_least("with_lengths_bytes", 17.0),
        ],
        expect: REFUTED,
        because: "There is no room in no buffers: 0 bytes are copied, and the answer is gone. What \
                  the program then reads in its buffer is its own request.",
        source: &[(NETLINK, "msg->msg_flags |= MSG_TRUNC;")],
        ..Case::SHARED
    },
    Case {
        id: "B21.5",
        claim: "The listing of the client compiles.",
        tried: "Nothing: the text that is handed down has lost characters.",
        method: Method::Static(StaticCheck::Nothing),
        expect: UNDECIDED,
        because: "The call of bind() lacks its last parenthesis and close() its semicolon, and both \
                  would be errors. But the shifts of the formula have lost their signs on the same \
                  way, so what the journal printed cannot be known from this text.",
        ..Case::SHARED
    },
];
