//! The functions that a module calls: as the texts print them, and as this
//! kernel has them.

use crate::experiment::claims::case::*;
use crate::static_check::StaticCheck;

/// Whether a module with this in it can be built for this kernel.
macro_rules! compiles {
    ($text:literal $(,)?) => {
        Method::Static(StaticCheck::Compiles(concat!(
            "#include <linux/module.h>\n",
            "#include <linux/netlink.h>\n",
            "#include <net/net_namespace.h>\n",
            $text,
            "MODULE_LICENSE(\"GPL\");\n",
        )))
    };
}

/// For what can only be learnt from other kernels.
const OTHER_KERNELS: Case =
    Case { method: Method::Static(StaticCheck::Nothing), expect: UNDECIDED, ..Case::SHARED };

pub const CASES: &[Case] = &[
    Case {
        id: "A36.1",
        claim: "netlink_kernel_create() takes net, unit, groups, input, cb_mutex and module.",
        tried: "A module that assigns it to a pointer to the function of six arguments that the \
                article prints is compiled for this kernel.",
        method: compiles!(
            "struct sock *(*check)(struct net *net, int unit, unsigned int groups,\n\
             \tvoid (*input)(struct sk_buff *skb), struct mutex *cb_mutex,\n\
             \tstruct module *module) = netlink_kernel_create;\n",
        ),
        confirms: &[yes("compiles")],
        refutes: &[no("compiles"), says("error", "incompatible")],
        expect: REFUTED,
        because: "Six arguments are those of 2.6.24 to 3.5. In 3.6 groups, input and cb_mutex \
                  went into struct netlink_kernel_cfg (a31f2d17b331), in 3.7 the module became \
                  implicit (9f00d9776bc5).",
        source: &[(
            "include/linux/netlink.h",
            "netlink_kernel_create(struct net *net, int unit, struct netlink_kernel_cfg *cfg)",
        )],
        ..Case::SHARED
    },
    Case {
        id: "A36.2",
        claim: "netlink_unicast() takes ssk, skb, pid and nonblock, and returns int.",
        tried: "A module that declares it once more, as the article does, is compiled for this \
                kernel.",
        method: compiles!(
            "int netlink_unicast(struct sock *ssk, struct sk_buff *skb, u32 pid, int nonblock);\n",
        ),
        confirms: &[yes("compiles")],
        refutes: &[no("compiles"), says("error", "conflicting")],
        expect: CONFIRMED,
        because: "Its third parameter is called portid since 3.7; the types have stayed.",
        source: &[("include/linux/netlink.h", "int netlink_unicast(struct sock *ssk")],
        ..Case::SHARED
    },
    Case {
        id: "A36.3",
        claim: "netlink_broadcast() takes ssk, skb, pid, group and allocation, and returns int.",
        tried: "A module that declares it once more, as the article does, is compiled for this \
                kernel.",
        method: compiles!(
            "int netlink_broadcast(struct sock *ssk, struct sk_buff *skb, u32 pid, u32 group,\n\
             \tgfp_t allocation);\n",
        ),
        confirms: &[yes("compiles")],
        refutes: &[no("compiles"), says("error", "conflicting")],
        expect: CONFIRMED,
        because: "The types have stayed. What the article says of the meaning of group is \
                  another matter: A23.",
        source: &[("include/linux/netlink.h", "int netlink_broadcast(struct sock *ssk")],
        ..Case::SHARED
    },
    Case {
        id: "A36.4",
        claim: "NETLINK_CB(skb).pid is the port that a message comes from.",
        tried: "A module that sets it is compiled for this kernel.",
        method: compiles!(
            "void check(struct sk_buff *skb);\n\
             void check(struct sk_buff *skb)\n{\n\tNETLINK_CB(skb).pid = 0;\n}\n",
        ),
        confirms: &[yes("compiles")],
        refutes: &[no("compiles"), says("error", "pid")],
        expect: REFUTED,
        because: "It is called portid since 3.7 (15e473046cb6), so that nobody takes it for the \
                  id of a process.",
        source: &[("include/linux/netlink.h", "__u32\t\t\tportid;")],
        ..Case::SHARED
    },
    Case {
        id: "A36.5",
        claim: "NETLINK_CB(skb).dst_group is the group that a message goes to.",
        tried: "A module that sets it is compiled for this kernel.",
        method: compiles!(
            "void check(struct sk_buff *skb);\n\
             void check(struct sk_buff *skb)\n{\n\tNETLINK_CB(skb).dst_group = 0;\n}\n",
        ),
        confirms: &[yes("compiles")],
        refutes: &[no("compiles"), says("error", "dst_group")],
        expect: CONFIRMED,
        because: "The name has stayed since 2.6.14, when a group became a number.",
        source: &[("include/linux/netlink.h", "__u32\t\t\tdst_group;")],
        ..Case::SHARED
    },
    Case {
        id: "A36.6",
        claim: "The article's module compiles as it is printed.",
        tried: "The module, with the names of the headers that the print lost, is compiled for \
                this kernel. Its style of declarations is let pass.",
        method: Method::Static(StaticCheck::Compiles(include_str!("api/article.c"))),
        confirms: &[yes("compiles")],
        refutes: &[no("compiles"), says("error", "pid")],
        expect: REFUTED,
        because: "It is for 2.6.24 to 3.5: see the two functions above. Nothing else keeps it \
                  from being compiled: A36.7.",
        source: &[("include/linux/netlink.h", "__u32\t\t\tportid;")],
        ..Case::SHARED
    },
    Case {
        id: "A36.7",
        claim: "But for netlink_kernel_create() and .pid, the article's module fits.",
        tried: "The module of A36.6 with these two as this kernel has them.",
        method: Method::Static(StaticCheck::Compiles(concat!(
            "#define ARTICLE_PORTED\n",
            include_str!("api/article.c")
        ))),
        confirms: &[yes("compiles")],
        refutes: &[no("compiles"), is_not("error", "")],
        expect: CONFIRMED,
        because: "What else it calls is still there, sock_release() included. That it can be \
                  compiled does not make it right: A27.",
        source: &[("net/socket.c", "EXPORT_SYMBOL(sock_release);")],
        ..Case::SHARED
    },
    Case {
        id: "B9.1",
        claim: "netlink_kernel_create() takes three arguments: net, unit and cfg.",
        tried: "A module that assigns it to a pointer to the function that the paper prints is \
                compiled for this kernel.",
        method: compiles!(
            "struct sock *(*check)(struct net *net, int unit,\n\
             \tstruct netlink_kernel_cfg *cfg) = netlink_kernel_create;\n",
        ),
        confirms: &[yes("compiles")],
        refutes: &[no("compiles"), says("error", "incompatible")],
        expect: CONFIRMED,
        because: "So since 3.7 (9f00d9776bc5): an inline function that adds THIS_MODULE.",
        source: &[(
            "include/linux/netlink.h",
            "netlink_kernel_create(struct net *net, int unit, struct netlink_kernel_cfg *cfg)",
        )],
        ..Case::SHARED
    },
    Case {
        id: "B9.2",
        claim: "netlink_kernel_create() takes three arguments from version 3.0 on.",
        tried: "Not on this kernel, which is far beyond 3.0.",
        because: "This would need kernels 3.0 to 3.7. By the history of the kernel it is wrong: \
                  six arguments up to 3.5, four in 3.6 (a31f2d17b331), three since 3.7 \
                  (9f00d9776bc5).",
        source: &[(
            "include/linux/netlink.h",
            "netlink_kernel_create(struct net *net, int unit, struct netlink_kernel_cfg *cfg)",
        )],
        ..OTHER_KERNELS
    },
    Case {
        id: "B10.1",
        claim: "netlink_kernel_cfg has bind, which returns int, unbind and compare, as printed.",
        tried: "A module that fills in all seven members, with functions of the printed types, is \
                compiled for this kernel.",
        method: compiles!(
            "static void input(struct sk_buff *skb) { }\n\
             static int bind(struct net *net, int group) { return 0; }\n\
             static void unbind(struct net *net, int group) { }\n\
             static bool compare(struct net *net, struct sock *sk) { return true; }\n\
             static DEFINE_MUTEX(mutex);\n\
             struct netlink_kernel_cfg check = {\n\
             \t.groups = 1, .flags = 0, .input = input, .cb_mutex = &mutex,\n\
             \t.bind = bind, .unbind = unbind, .compare = compare,\n};\n",
        ),
        confirms: &[yes("compiles")],
        refutes: &[no("compiles"), is_not("error", "")],
        expect: CONFIRMED,
        because: "These are the members since 3.19 (023e2cfa36c3). In 6.11 cb_mutex went \
                  (5fbf57a937f4), and before 6.12 compare, so it is so on this kernel only by \
                  its age.",
        source: &[
            ("include/linux/netlink.h", "(*bind)(struct net *net, int group);"),
            ("include/linux/netlink.h", "(*compare)(struct net *net, struct sock *sk);"),
        ],
        ..Case::SHARED
    },
    Case {
        id: "B10.2",
        claim: "The printed netlink_kernel_cfg is the one of 3.12.11, the kernel of the tests.",
        tried: "Not on this kernel, which is another one.",
        because: "This would need kernel 3.12. By the history of the kernel it is wrong: there \
                  bind was void (*bind)(int group) and unbind did not exist; bind returns int \
                  since 3.16 and has a struct net since 3.19 (023e2cfa36c3).",
        source: &[("include/linux/netlink.h", "(*bind)(struct net *net, int group);")],
        ..OTHER_KERNELS
    },
    Case {
        id: "B10.3",
        claim: "Mostly only groups and input have to be set.",
        tried: "A module that sets these two only is loaded; it is sent a message.",
        confirms: &[is("created", "ok"), equals("answers", 1)],
        refutes: &[is_not("created", "ok")],
        expect: CONFIRMED,
        because: "All other members are options. Without cb_mutex dumps get a mutex of their own, \
                  without bind every group below the number of groups may be joined.",
        source: &[("net/netlink/af_netlink.c", "if (cfg && cfg->input)")],
        ..Case::SHARED
    },
];
