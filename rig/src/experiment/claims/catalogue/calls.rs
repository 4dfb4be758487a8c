//! The calls that send and receive, and how they differ.

use crate::experiment::claims::case::*;

const NETLINK: &str = "net/netlink/af_netlink.c";
const SOCKET: &str = "net/socket.c";

pub const CASES: &[Case] = &[
    Case {
        id: "A25.1",
        claim: "sendto() and recvfrom() do on netlink what sendmsg() and recvmsg() do.",
        tried: "The article's second client: one greeting by sendto(), the module's two replies by \
                recvfrom(); then the same with the other pair.",
        confirms: &[
            is("sendto", "ok"),
            equals("answers", 2),
            is("text", "I am from kernel!"),
            yes("same_with_sendmsg_and_recvmsg"),
        ],
        refutes: &[is_not("sendto", "ok"), equals("answers", 0)],
        expect: CONFIRMED,
        because: "All calls that send end in the one function of the protocol family, \
                  netlink_sendmsg(), and all that receive in netlink_recvmsg().",
        source: &[(SOCKET, "err = __sock_sendmsg(sock, &msg);"), (NETLINK, ".sendmsg =")],
        ..Case::SHARED
    },
    Case {
        id: "A25.2",
        claim: "recvfrom() says who sent a message, as recvmsg() does.",
        tried: "Two messages from a socket whose port is known; each is received by one of the calls.",
        confirms: &[yes("recvfrom_says_who"), yes("recvmsg_says_who")],
        refutes: &[no("recvfrom_says_who"), yes("recvmsg_says_who")],
        expect: CONFIRMED,
        because: "The address is the port that the kernel saw, whatever nlmsg_pid says. (The \
                  article's client passes NULL and does not look.)",
        source: &[(NETLINK, "= NETLINK_CB(skb).portid;")],
        ..Case::SHARED
    },
    Case {
        id: "A37.1",
        claim: "SOCK_RAW and SOCK_DGRAM are the same on netlink.",
        tried: "One echo over a socket of each type, bound to the same port one after the other; the \
                answers are compared.",
        confirms: &[
            is("raw", "ok"),
            is("dgram", "ok"),
            yes("raw_answered"),
            yes("dgram_answered"),
            yes("same_answer"),
        ],
        refutes: &[no("same_answer")],
        expect: CONFIRMED,
        because: "socket() lets both pass, and nothing in netlink asks for the type afterwards.",
        source: &[(NETLINK, "if (sock->type != SOCK_RAW && sock->type != SOCK_DGRAM)")],
        ..Case::SHARED
    },
    Case {
        id: "A37.2",
        claim: "A netlink socket can have no other type than SOCK_RAW or SOCK_DGRAM.",
        tried: "socket() with SOCK_STREAM, SOCK_SEQPACKET, SOCK_RDM and SOCK_PACKET.",
        confirms: &[
            is("stream", "ESOCKTNOSUPPORT"),
            is("seqpacket", "ESOCKTNOSUPPORT"),
            is("rdm", "ESOCKTNOSUPPORT"),
            is("packet", "ESOCKTNOSUPPORT"),
        ],
        refutes: &[is("seqpacket", "ok")],
        expect: CONFIRMED,
        because: "netlink_create() refuses all other types before it looks at the protocol.",
        source: &[(NETLINK, "return -ESOCKTNOSUPPORT;")],
        ..Case::SHARED
    },
    Case {
        id: "A38.1",
        claim: "msg_flags of a msghdr does for sendmsg() what the argument flags does for send().",
        tried: "To a full peer, with a send timeout of 600 ms: sendmsg() with MSG_DONTWAIT in \
                msg_flags, and as the argument.",
        confirms: &[is("in_msg_flags", "EAGAIN"), at_most("in_msg_flags_ms", 300.0)],
        refutes: &[
            is("in_msg_flags", "EAGAIN"),
            at_least("in_msg_flags_ms", 450.0),
            is("as_argument", "EAGAIN"),
            at_most("as_argument_ms", 300.0),
        ],
        expect: REFUTED,
        because: "sendmsg() has an argument for flags itself, and writes it over msg_flags. (Only \
                  sendmmsg() takes MSG_EOR from there.)",
        source: &[(SOCKET, "msg_sys->msg_flags = flags;")],
        ..Case::SHARED
    },
    Case {
        id: "A38.2",
        claim: "msg_flags of a msghdr does for recvmsg() what the argument flags does for recv().",
        tried: "On an empty queue, with a receive timeout of 600 ms: recvmsg() with MSG_DONTWAIT in \
                msg_flags, and as the argument.",
        confirms: &[is("in_msg_flags", "EAGAIN"), at_most("in_msg_flags_ms", 300.0)],
        refutes: &[
            is("in_msg_flags", "EAGAIN"),
            at_least("in_msg_flags_ms", 450.0),
            is("as_argument", "EAGAIN"),
            at_most("as_argument_ms", 300.0),
        ],
        expect: REFUTED,
        because: "recvmsg() has an argument for flags too; what is in msg_flags before is not read.",
        source: &[(SOCKET, "msg_sys->msg_flags = flags & (MSG_CMSG_CLOEXEC|MSG_CMSG_COMPAT);")],
        ..Case::SHARED
    },
    Case {
        id: "A38.3",
        claim: "msg_flags is the caller's: what stands there before recvmsg() stands there after it.",
        tried: "A message of 100 bytes; recvmsg() with MSG_PEEK in msg_flags and room for 16; then \
                another receive.",
        confirms: &[yes("peek_is_left"), no("says_truncated")],
        refutes: &[no("peek_is_left"), yes("says_truncated"), is("second_recv", "EAGAIN")],
        expect: REFUTED,
        because: "It is for the kernel's answer: MSG_TRUNC says that the buffer was too small, \
                  MSG_CTRUNC that the room for control messages was. MSG_PEEK was not seen: the \
                  message was taken.",
        source: &[
            (NETLINK, "msg->msg_flags |= MSG_TRUNC;"),
            (SOCKET, "err = __put_user((msg_sys->msg_flags & ~MSG_CMSG_COMPAT),"),
        ],
        ..Case::SHARED
    },
    Case {
        id: "A39.1",
        claim: "send/recv, write/read, writev/readv, sendto/recvfrom and sendmsg/recvmsg all work.",
        tried: "An echo with the kernel by each pair, on one socket.",
        confirms: &[
            is("send_recv", "ok"),
            is("write_read", "ok"),
            is("writev_readv", "ok"),
            is("sendto_recvfrom", "ok"),
            is("sendmsg_recvmsg", "ok"),
        ],
        refutes: &[is("sendmsg_recvmsg", "ok"), is_not("writev_readv", "ok")],
        expect: CONFIRMED,
        because: "To the protocol family they are one call: read and write too make a msghdr, \
                  without an address.",
        source: &[(SOCKET, "res = __sock_sendmsg(sock, &msg);")],
        ..Case::SHARED
    },
    Case {
        id: "A39.2",
        claim: "sendmsg() and recvmsg() can do all that the other pairs of calls can.",
        tried: "Between two sockets, with sendmsg() and recvmsg() only: without an address, with \
                one that is not where it is connected, with two buffers, with a flag.",
        confirms: &[
            yes("as_send"),
            yes("as_sendto"),
            yes("as_writev"),
            yes("as_recv"),
            yes("as_recvfrom"),
            yes("as_readv"),
        ],
        refutes: &[no("as_sendto")],
        expect: CONFIRMED,
        because: "msg_name is the address, msg_iov the buffers, and the call's own argument the \
                  flags; to leave one out is to make the simpler call.",
        source: &[(NETLINK, "if (msg->msg_namelen) {")],
        ..Case::SHARED
    },
    Case {
        id: "A39.3",
        claim: "recvmsg() has a use of its own: msg_control tells what no other call does.",
        tried: "A socket with NETLINK_PKTINFO receives what the kernel sends to group 5.",
        confirms: &[equals("group_in_msg_control", 5)],
        refutes: &[equals("group_in_msg_control", -1)],
        expect: CONFIRMED,
        because: "Netlink puts the number of the group there, as the other families put what they \
                  know of a packet.",
        source: &[(NETLINK, "put_cmsg(msg, SOL_NETLINK, NETLINK_PKTINFO, sizeof(info), &info);")],
        ..Case::SHARED
    },
    Case {
        id: "A39.4",
        claim: "send() and writev() have no address, so they need a connect() first.",
        tried: "An echo request by send(), write() and writev(): on a socket that is not connected, \
                and after connect() to another socket's port.",
        confirms: &[is_not("send", "ok"), equals("answers_of_the_kernel", 0)],
        refutes: &[
            is("send", "ok"),
            is("write", "ok"),
            is("writev", "ok"),
            equals("answers_of_the_kernel", 3),
            equals("heard_where_it_is_connected", 3),
        ],
        expect: REFUTED,
        because: "A socket that is not connected sends to port 0, the kernel. One that is connected \
                  elsewhere gets messages from there only: even the kernel's answer is refused.",
        source: &[
            (NETLINK, "dst_portid = READ_ONCE(nlk->dst_portid);"),
            (NETLINK, "if (READ_ONCE(sock->sk_state) == NETLINK_CONNECTED &&"),
        ],
        ..Case::SHARED
    },
];
