//! The article's module as it is printed, and its protocol number.

use crate::experiment::claims::case::*;
use crate::static_check::StaticCheck;

/// How the article makes its socket and addresses a message.
const AS_PRINTED: &str = r#"#include <linux/module.h>
#include <linux/netlink.h>
#include <net/net_namespace.h>
#include <net/sock.h>

static void input(struct sk_buff *skb)
{
	NETLINK_CB(skb).pid = 0;
}

static int __init check_init(void)
{
	struct sock *sk = netlink_kernel_create(&init_net, 25, 1, input, NULL, THIS_MODULE);

	return sk ? 0 : 1;
}
module_init(check_init);
MODULE_LICENSE("GPL");
"#;

/// As many protocols as there are.
const LARGE_NUMBER: &str = r#"#include <linux/module.h>
#include <linux/netlink.h>

static_assert(32 < MAX_LINKS);
MODULE_LICENSE("GPL");
"#;

const READ_ONLY: &[(&str, &str)] = &[
    ("kernel/module/strict_rwx.c", "frob_rodata(&mod->data_layout, set_memory_ro);"),
    ("arch/Kconfig", "config STRICT_MODULE_RWX"),
];

pub const CASES: &[Case] = &[
    Case {
        id: "A27.1",
        claim: "The module's code that answers works as it is printed.",
        tried: "The article's module with the article's own line that ends the text of an answer: a \
                write of a NUL to where the NUL of a string literal is.",
        confirms: &[is("machine", "well"), equals("answers", 10)],
        refutes: &[is("machine", "oops"), equals("answers", 0), equals("kernel_sent", 0)],
        expect: REFUTED,
        because: "A literal is in the module's read-only data, and the kernel maps that read-only: \
                  always on x86 since 4.11, before that if it was configured so. The first answer \
                  is an oops that kills the client inside of sendmsg(), after its first wait.",
        source: READ_ONLY,
        ..Case::BREAKS
    },
    Case {
        id: "A27.2",
        claim: "Where the kernel leaves a module's constants writable, that code works as printed.",
        tried: "As A27.1, on a kernel that was started with rodata=off.",
        method: Method::Guest(Setting { boot: "rodata=off", ..Setting::BREAKS }),
        confirms: &[is("machine", "well"), equals("answers", 10)],
        refutes: &[is("machine", "oops"), equals("answers", 0)],
        expect: CONFIRMED,
        because: "It writes what is there already. With rodata=off the kernel protects nothing, as \
                  most kernels did when the article was written.",
        source: &[("kernel/module/strict_rwx.c", "if (!rodata_enabled)"), READ_ONLY[0]],
        ..Case::SHARED
    },
    Case {
        id: "A27.3",
        claim: "The module compiles as it is printed.",
        tried: "Its call of netlink_kernel_create() with six arguments, and NETLINK_CB(skb).pid, \
                are compiled for this kernel.",
        method: Method::Static(StaticCheck::Compiles(AS_PRINTED)),
        confirms: &[yes("compiles")],
        refutes: &[no("compiles"), says("error", "no member named")],
        expect: REFUTED,
        because: "The six arguments are those of 2.6.24 to 3.5; 3.6 took four (a31f2d17b331), 3.7 \
                  and later take three (9f00d9776bc5). The field pid is called portid since 3.7 \
                  (15e473046cb6).",
        source: &[
            ("include/linux/netlink.h", "netlink_kernel_create(struct net *net, int unit"),
            ("include/linux/netlink.h", "__u32\t\t\tportid;"),
        ],
        ..Case::SHARED
    },
    Case {
        id: "A27.4",
        claim: "The module copes with any datagram that a program may send.",
        tried: "Not tried: the module that is tried here leaves these faults out.",
        method: Method::Static(StaticCheck::Nothing),
        expect: UNDECIDED,
        because: "Read, not measured: as printed it takes a reference to each datagram and gives \
                  that of a short one never back, copies 100 bytes to its stack from one that may \
                  have fewer, prints them as a text that may have no end, and goes on with a null \
                  pointer when there is no memory for an answer.",
        ..Case::SHARED
    },
    Case {
        id: "A30.1",
        claim: "A protocol number of one's own need not be in the kernel's netlink.h.",
        tried: "The article's module on number 26, which no header of the kernel knows: a client \
                opens a socket of it and is answered.",
        confirms: &[is("socket", "ok"), equals("answers", 1)],
        refutes: &[is("socket", "EPROTONOSUPPORT")],
        expect: CONFIRMED,
        because: "The number is an index to a table of 32 places. A module takes a place that is \
                  free.",
        source: &[("net/netlink/af_netlink.c", "if (!nl_table[protocol].registered) {")],
        ..Case::SHARED
    },
    Case {
        id: "A30.2",
        claim: "A program can use such a number without a module that serves it.",
        tried: "A socket of protocol 30, which nobody has registered.",
        confirms: &[is("socket", "ok")],
        refutes: &[is("socket", "EPROTONOSUPPORT")],
        expect: REFUTED,
        because: "The kernel asks for a module net-pf-16-proto-30 to be loaded, and gives up when \
                  the number is still without an owner.",
        source: &[
            ("net/netlink/af_netlink.c", "request_module(\"net-pf-%d-proto-%d\""),
            ("net/netlink/af_netlink.c", "err = -EPROTONOSUPPORT;"),
        ],
        ..Case::SHARED
    },
    Case {
        id: "A30.3",
        claim: "Any number that the kernel does not use can be taken.",
        tried: "Is 32 a number of a protocol, by the kernel's own header?",
        method: Method::Static(StaticCheck::Compiles(LARGE_NUMBER)),
        confirms: &[yes("compiles")],
        refutes: &[no("compiles"), says("error", "static assertion")],
        expect: REFUTED,
        because: "There are 32 numbers, 0 to 31, of which the kernel uses most. \
                  netlink_kernel_create() makes no socket with another one, nor does socket().",
        source: &[
            ("include/uapi/linux/netlink.h", "#define MAX_LINKS"),
            ("net/netlink/af_netlink.c", "if (unit < 0 || unit >= MAX_LINKS)"),
        ],
        ..Case::SHARED
    },
];
