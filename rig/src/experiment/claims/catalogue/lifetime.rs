//! Loading and unloading the module, and who holds it.

use crate::experiment::claims::case::*;
use crate::static_check::StaticCheck;

/// How the article releases its socket.
const RELEASED_BY_SOCKET: &str = r#"#include <linux/module.h>
#include <linux/net.h>
#include <linux/netlink.h>
#include <net/net_namespace.h>
#include <net/sock.h>

static struct sock *nl_sk;

static int __init check_init(void)
{
	nl_sk = netlink_kernel_create(&init_net, 25, NULL);
	return nl_sk ? 0 : -ENOMEM;
}

static void __exit check_exit(void)
{
	if (nl_sk != NULL)
		sock_release(nl_sk->sk_socket);
}
module_init(check_init);
module_exit(check_exit);
MODULE_LICENSE("GPL");
"#;

const RELEASE: &[(&str, &str)] = &[
    ("net/netlink/af_netlink.c", "sock_release(sk->sk_socket);"),
    ("net/socket.c", "EXPORT_SYMBOL(sock_release);"),
];

/// A socket holds the module of its protocol.
const HELD: &[(&str, &str)] = &[
    ("net/netlink/af_netlink.c", "try_module_get(nl_table[protocol].module))"),
    ("net/netlink/af_netlink.c", "module_put(nlk->module);"),
];

pub const CASES: &[Case] = &[
    Case {
        id: "A28.1",
        claim: "A module can release the kernel's socket by sock_release(nl_sk->sk_socket).",
        tried: "A module with the article's exit function is compiled for this kernel.",
        method: Method::Static(StaticCheck::Compiles(RELEASED_BY_SOCKET)),
        confirms: &[yes("compiles")],
        refutes: &[no("compiles")],
        expect: CONFIRMED,
        because: "sock_release() is declared and exported to modules as ever. \
                  netlink_kernel_release(), which there is for it today, calls just that.",
        source: RELEASE,
        ..Case::SHARED
    },
    Case {
        id: "A28.2",
        claim: "Releasing the socket so when the module is unloaded leaves nothing behind.",
        tried: "The module, whose exit function releases its sockets, is unloaded after a client \
                was there, and loaded again.",
        confirms: &[
            is("unload", "ok"),
            is("socket_afterwards", "EPROTONOSUPPORT"),
            equals("complaints", 0),
            is("load", "ok"),
            is("socket_then", "ok"),
        ],
        refutes: &[is("unload", "ok"), at_least("complaints", 1.0)],
        expect: CONFIRMED,
        because: "With the last socket of the kernel the protocol goes from the table. The module \
                  that is tried calls netlink_kernel_release(), which is sock_release() and a check \
                  for NULL.",
        source: RELEASE,
        ..Case::ALONE
    },
    Case {
        id: "A29.1",
        claim: "The module can be unloaded while clients use it.",
        tried: "delete_module() while a program has a socket open; while the handler works for a \
                program that was killed; and when there is none.",
        confirms: &[is("with_an_open_socket", "ok")],
        refutes: &[
            is("with_an_open_socket", "EAGAIN"),
            is("while_the_handler_works", "EAGAIN"),
            is("without_clients", "ok"),
            no("is_loaded"),
            is("load", "ok"),
        ],
        expect: REFUTED,
        because: "Each socket of a program holds the module of its protocol, from socket() until \
                  the last call on it is over. delete_module() answers EWOULDBLOCK, which is \
                  EAGAIN. So no handler loses its code.",
        source: HELD,
        ..Case::ALONE
    },
    Case {
        id: "A29.2",
        claim: "The module's use count is the number of its clients' sockets.",
        tried: "Three sockets of one of the module's protocols and two of another are opened, and \
                closed again; the count is in /sys/module/nlrig/refcnt.",
        confirms: &[equals("sockets", 5), equals("count_rose_by", 5), yes("count_is_back")],
        refutes: &[equals("count_rose_by", 0)],
        expect: CONFIRMED,
        because: "socket() takes a reference and release gives it back. The kernel's own socket \
                  takes none: else the module could never go.",
        source: HELD,
        ..Case::SHARED
    },
    Case {
        id: "A40",
        claim: "By returning 1 the module's init says that it has failed, and is not loaded.",
        tried: "The module is loaded with an init that makes no article's socket and returns 1, as \
                the article's does then; and unloaded.",
        confirms: &[is_not("load", "ok"), no("is_loaded")],
        refutes: &[is("load", "ok"), yes("is_loaded"), equals("warnings", 1), is("unload", "ok")],
        expect: REFUTED,
        because: "Only a negative number is an error. Of a positive one the kernel says that it is \
                  suspicious, with a call trace, and goes on: the module stays, without a socket, \
                  and its exit function has to cope with that. The article's does.",
        source: &[("kernel/module/main.c", "'%s'->init suspiciously returned %d")],
        ..Case::ALONE
    },
];
