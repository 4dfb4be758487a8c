//! Messages: their types, flags and numbers, what answers they get, how large
//! they may be.

use crate::experiment::claims::case::*;
use crate::static_check::StaticCheck;

const NETLINK: &str = "net/netlink/af_netlink.c";
/// All that is compiled into a kernel, or with it; `tools` is neither.
const KERNEL: &[&str] = &[
    "arch", "block", "certs", "crypto", "drivers", "fs", "include", "init", "io_uring", "ipc",
    "kernel", "lib", "mm", "net", "security", "sound", "virt",
];

pub const CASES: &[Case] = &[
    Case {
        id: "A34.1",
        claim: "Netlink has the control messages NLMSG_NOOP, _ERROR, _DONE and _OVERRUN.",
        tried: "A module that asserts that they have four numbers below NLMSG_MIN_TYPE is \
                compiled for this kernel.",
        method: Method::Static(StaticCheck::Compiles(
            "#include <linux/module.h>\n\
             #include <linux/netlink.h>\n\
             static_assert(NLMSG_NOOP == 1 && NLMSG_ERROR == 2);\n\
             static_assert(NLMSG_DONE == 3 && NLMSG_OVERRUN == 4);\n\
             static_assert(NLMSG_OVERRUN < NLMSG_MIN_TYPE);\n\
             MODULE_LICENSE(\"GPL\");\n",
        )),
        confirms: &[yes("compiles")],
        refutes: &[no("compiles"), says("error", "NLMSG_")],
        expect: CONFIRMED,
        because: "Types below 16 are reserved for control messages; these are the same four as in \
                  2.6.21, and no others have been added since.",
        source: &[
            ("include/uapi/linux/netlink.h", "#define NLMSG_NOOP"),
            ("include/uapi/linux/netlink.h", "#define NLMSG_MIN_TYPE"),
        ],
        ..Case::SHARED
    },
    Case {
        id: "A34.2",
        claim: "NLMSG_NOOP does nothing.",
        tried: "A request of type NLMSG_NOOP that asks for an acknowledgement is sent, and one of \
                a type that nobody knows.",
        confirms: &[is("noop", "ok"), equals("noop_answers", 1), is("unknown", "EOPNOTSUPP")],
        refutes: &[is("noop", "EOPNOTSUPP")],
        expect: CONFIRMED,
        because: "netlink_rcv_skb() skips all types below 16 before it asks the protocol, and \
                  acknowledges them if that is asked for.",
        source: &[(NETLINK, "if (nlh->nlmsg_type < NLMSG_MIN_TYPE)")],
        ..Case::SHARED
    },
    Case {
        id: "A34.3",
        claim: "NLMSG_ERROR says that there is an error in a message.",
        tried: "A right request and one of an unknown type are sent, both with NLM_F_ACK; what \
                comes back as NLMSG_ERROR is counted and read.",
        confirms: &[equals("errors_on_success", 0), is("failure", "EOPNOTSUPP")],
        refutes: &[is("failure", "none")],
        depends: &[
            equals("errors_on_success", 1),
            is("success", "ok"),
            is("failure", "EOPNOTSUPP"),
        ],
        depends_on: "the number in it: 0 is success, and the message an acknowledgement",
        expect: DEPENDS,
        because: "Acknowledgements are of type NLMSG_ERROR too, with error 0.",
        source: &[(NETLINK, "NLMSG_ERROR, sizeof(*errmsg), flags);")],
        ..Case::SHARED
    },
    Case {
        id: "A34.4",
        claim: "NLMSG_OVERRUN is not used yet.",
        tried: "The kernel's source, without its tools, is searched for the word.",
        method: Method::Static(StaticCheck::Mentions { word: "NLMSG_OVERRUN", under: KERNEL }),
        confirms: &[equals("files", 1), is("where", "include/uapi/linux/netlink.h")],
        refutes: &[at_least("files", 2.0)],
        expect: CONFIRMED,
        because: "Only the header that defines it has the word. A reader learns from recv() and \
                  ENOBUFS that messages were lost.",
        source: &[("include/uapi/linux/netlink.h", "#define NLMSG_OVERRUN")],
        ..Case::SHARED
    },
    Case {
        id: "A35.1",
        claim: "The last of several messages that answer together is NLMSG_DONE.",
        tried: "All links are asked for on NETLINK_ROUTE, and a thousand messages of the module \
                with NLRIG_MSG_DUMP; NLMSG_DONE is 3.",
        confirms: &[
            equals("route_last", 3),
            equals("module_last", 3),
            equals("module_messages", 1001),
            at_least("module_datagrams", 2.0),
        ],
        refutes: &[at_least("module_messages", 1000.0), is_not("module_end", "done")],
        expect: CONFIRMED,
        because: "netlink_dump() ends every dump with it; parts come in as many datagrams as they \
                  need.",
        source: &[(NETLINK, "nlh = nlmsg_put_answer(skb, cb, NLMSG_DONE,")],
        ..Case::SHARED
    },
    Case {
        id: "A35.2",
        claim: "All the other messages of such an answer carry NLM_F_MULTI.",
        tried: "As before; the messages without the flag are counted, NLMSG_DONE left out.",
        confirms: &[
            at_least("route_messages", 2.0),
            equals("route_without", 0),
            equals("module_messages", 1001),
            equals("module_without", 0),
        ],
        refutes: &[at_least("module_messages", 2.0), at_least("module_without", 1.0)],
        expect: CONFIRMED,
        because: "Whoever fills in a dump sets the flag on each message, as rtnetlink does. The core \
                  does not check it.",
        source: &[("net/core/rtnetlink.c", "unsigned int flags = NLM_F_MULTI;")],
        ..Case::SHARED
    },
    Case {
        id: "A35.3",
        claim: "NLM_F_MULTI is on the rest of the messages, and not on NLMSG_DONE.",
        tried: "As before; the flags of NLMSG_DONE are read.",
        confirms: &[no("route_done_has_it"), no("module_done_has_it")],
        refutes: &[yes("route_done_has_it"), yes("module_done_has_it")],
        expect: REFUTED,
        because: "The core puts NLM_F_MULTI on NLMSG_DONE as well: the flag does not say that \
                  more is to come.",
        source: &[(NETLINK, "NLM_F_MULTI | cb->answer_flags")],
        ..Case::SHARED
    },
    Case {
        id: "A35.4",
        claim: "Netlink has acknowledgements.",
        tried: "A request with NLM_F_ACK and one without are sent to the rig's protocol; one with \
                NLM_F_ACK to the article's own module.",
        confirms: &[
            equals("acks_if_asked", 1),
            equals("acks_if_not", 0),
            equals("acks_of_the_articles_module", 1),
        ],
        refutes: &[equals("acks_if_asked", 0)],
        depends: &[
            equals("acks_if_asked", 1),
            equals("acks_if_not", 0),
            equals("acks_of_the_articles_module", 0),
        ],
        depends_on: "the module: netlink_rcv_skb() acknowledges, a module that does without, as \
                     the article's, does not",
        expect: DEPENDS,
        because: "The core hands over datagrams and looks at no header. What reads the headers, \
                  and acknowledges what has NLM_F_ACK, is a function that the module may call.",
        source: &[(NETLINK, "if (nlh->nlmsg_flags & NLM_F_ACK || err)")],
        ..Case::SHARED
    },
    Case {
        id: "A35.5",
        claim: "Netlink has sequence numbers.",
        tried: "Requests with the numbers 7, 3000000000, 7 and 0 are sent; the numbers of answers \
                and acknowledgements are read, and those of a dump with the number 12.",
        confirms: &[
            is("answers", "7 3000000000 7 0"),
            is("acks", "7 3000000000 7 0"),
            equals("dump_with_another", 0),
        ],
        refutes: &[is_not("answers", "7 3000000000 7 0"), is_not("acks", "7 3000000000 7 0")],
        expect: CONFIRMED,
        because: "Answers repeat the request's number, so that a program can tell what they \
                  answer. Nobody checks the order, or that a number comes once only.",
        source: &[(NETLINK, "rep = nlmsg_put(skb, NETLINK_CB(in_skb).portid, nlh->nlmsg_seq,")],
        ..Case::SHARED
    },
    Case {
        id: "A35.6",
        claim: "An NLMSG_ERROR says which message has the error.",
        tried: "A request of an unknown type with a body is sent, and once more with \
                NETLINK_CAP_ACK; what comes back is compared with it.",
        confirms: &[yes("header_comes_back"), yes("body_comes_back"), no("capped_body_comes_back")],
        refutes: &[no("header_comes_back")],
        expect: CONFIRMED,
        because: "The header of the request follows the error's number, and on errors its body \
                  too unless the socket has NETLINK_CAP_ACK.",
        source: &[(NETLINK, "errmsg->msg = *nlh;")],
        ..Case::SHARED
    },
    Case {
        id: "A35.7",
        claim: "An NLMSG_ERROR says no more than that there is an error.",
        tried: "A wrong request is sent from a socket with NETLINK_EXT_ACK and from one without.",
        confirms: &[is("text_if_asked", "none")],
        refutes: &[is("text_if_asked", "unknown nlrig message type"), is("text_if_not", "none")],
        expect: REFUTED,
        because: "Since 4.12 a socket with NETLINK_EXT_ACK gets attributes with it: a text, and \
                  the place of the attribute that was wrong.",
        source: &[(NETLINK, "WARN_ON(nla_put_string(skb, NLMSGERR_ATTR_MSG, extack->_msg));")],
        ..Case::SHARED
    },
    Case {
        id: "B7.1",
        claim: "Netlink takes large data, where proc and sysfs take a page.",
        tried: "The largest message that the kernel takes from a program is searched for, with \
                the send buffer as it is and with one of 8 MiB.",
        confirms: &[at_least("largest_in_a_send_buffer_of_8_mib", 8_388_609.0)],
        refutes: &[at_most("largest", 4096.0)],
        depends: &[
            at_least("largest", 40_960.0),
            equals("send_buffer_less_largest", 32),
            equals("largest_in_a_send_buffer_of_8_mib", 8_388_576),
        ],
        depends_on: "the send buffer: a message may be as large, less 32 bytes; what is larger \
                     gets EMSGSIZE",
        expect: DEPENDS,
        because: "A message is sent in one piece. A large one is in memory that need not be \
                  contiguous, so its size does not matter to the core.",
        source: &[
            (NETLINK, "if (len > sk->sk_sndbuf - 32)"),
            (NETLINK, "static struct sk_buff *netlink_alloc_large_skb("),
        ],
        ..Case::SHARED
    },
    Case {
        id: "B7.2",
        claim: "Large data also goes from the kernel to a program.",
        tried: "The module sends messages of 4 KiB to 1 MiB, each to an empty queue.",
        confirms: &[at_least("largest", 40_960.0), at_least("times_the_receive_buffer", 1.0)],
        refutes: &[at_most("largest", 4096.0)],
        expect: CONFIRMED,
        because: "An empty queue takes one message of any size, even if it is larger than the \
                  receive buffer; the next one has to wait until it is read.",
        source: &[(NETLINK, "if ((rmem == skb->truesize || rmem <= READ_ONCE(sk->sk_rcvbuf)) &&")],
        ..Case::SHARED
    },
    Case {
        id: "B8.1",
        claim: "The type of a message can mostly be 0.",
        tried: "A request is sent to the rig's protocol with its type and with type 0; the \
                article's module is sent one of type 0.",
        confirms: &[equals("answers_to_0", 1), equals("answers_of_the_articles_module", 1)],
        refutes: &[equals("answers_to_0", 0), equals("answers_of_the_articles_module", 0)],
        depends: &[
            equals("answers_to_its_type", 1),
            equals("answers_to_0", 0),
            equals("answers_of_the_articles_module", 1),
        ],
        depends_on: "the module: netlink_rcv_skb(), which most protocols call, skips types below \
                     16; one that reads messages itself may take 0",
        expect: DEPENDS,
        because: "Types below NLMSG_MIN_TYPE are netlink's own.",
        source: &[(NETLINK, "if (nlh->nlmsg_type < NLMSG_MIN_TYPE)")],
        ..Case::SHARED
    },
    Case {
        id: "B8.2",
        claim: "The kernel reads and modifies the flags of a message.",
        tried: "A message with all flags set goes from one program's socket to another on \
                NETLINK_USERSOCK; a request with flags that nobody knows is sent to the module, \
                whose error repeats the header that it saw.",
        confirms: &[is_not("seen_by_a_program", "0xffff")],
        refutes: &[
            is("seen_by_a_program", "0xffff"),
            is("sent_to_the_module", "0xe0f5"),
            is("seen_by_the_module", "0xe0f5"),
        ],
        expect: REFUTED,
        because: "The header is data to the core, which hands it on as it came. netlink_rcv_skb() \
                  reads NLM_F_REQUEST and NLM_F_ACK. The flags in an answer are the answer's own.",
        source: &[(NETLINK, "if (memcpy_from_msg(skb_put(skb, len), msg, len)) {")],
        ..Case::SHARED
    },
    Case {
        id: "B8.3",
        claim: "The flags of a message are 0 by default and need not be set.",
        tried: "A request is sent to the rig's protocol with NLM_F_REQUEST and without; the \
                article's module is sent one without flags.",
        confirms: &[equals("answers_to_0", 1), equals("answers_of_the_articles_module", 1)],
        refutes: &[equals("answers_to_0", 0), equals("answers_of_the_articles_module", 0)],
        depends: &[
            equals("answers_to_a_request", 1),
            equals("answers_to_0", 0),
            equals("answers_of_the_articles_module", 1),
        ],
        depends_on: "the module: netlink_rcv_skb(), which most protocols call, skips what is not \
                     marked as a request; one that reads messages itself need not",
        expect: DEPENDS,
        because: "Only what has NLM_F_REQUEST is for the kernel to act on.",
        source: &[(NETLINK, "if (!(nlh->nlmsg_flags & NLM_F_REQUEST))")],
        ..Case::SHARED
    },
];
