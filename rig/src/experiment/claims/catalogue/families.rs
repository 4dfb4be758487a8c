//! The protocols of netlink that the article names, and what each is tied to.

use crate::experiment::claims::case::*;
use crate::static_check::StaticCheck;

pub const CASES: &[Case] = &[
    Case {
        id: "A41.1",
        claim: "NETLINK_ROUTE gets and sets the state of links.",
        tried: "All links are asked for; then lo is set down and up by a request, while another \
                socket is in the group RTNLGRP_LINK.",
        confirms: &[
            yes("finds_lo"),
            is("set", "ok"),
            yes("told_that_lo_is_down"),
            yes("told_that_lo_is_up"),
        ],
        refutes: &[no("finds_lo"), is_not("set", "ok")],
        expect: CONFIRMED,
        because: "rtnetlink answers RTM_GETLINK, acts on RTM_NEWLINK, and tells the group \
                  RTNLGRP_LINK of every change.",
        source: &[
            ("net/core/rtnetlink.c", "rtnl_register(PF_UNSPEC, RTM_GETLINK, rtnl_getlink,"),
            ("net/core/rtnetlink.c", "netlink_kernel_create(net, NETLINK_ROUTE, &cfg);"),
        ],
        ..Case::SHARED
    },
    Case {
        id: "A41.2",
        claim: "NETLINK_KOBJECT_UEVENT is how the kernel tells udev of events.",
        tried: "A socket joins group 1, as udev does; \"add\" is written to the file uevent of lo \
                in /sys.",
        confirms: &[
            is("event", "add@/devices/virtual/net/lo"),
            yes("says_subsystem_net"),
            equals("from_port", 0),
        ],
        refutes: &[is("event", "none")],
        expect: CONFIRMED,
        because: "kobject_uevent() broadcasts to group 1. What it sends has no netlink header: it \
                  is text, \"ACTION@PATH\" and then KEY=VALUE, with NULs between.",
        source: &[
            ("lib/kobject_uevent.c", "netlink_kernel_create(net, NETLINK_KOBJECT_UEVENT, &cfg);"),
            ("lib/kobject_uevent.c", "\"%s@%s\""),
        ],
        ..Case::SHARED
    },
    Case {
        id: "A41.3",
        claim: "NETLINK_GENERIC is a protocol of the kernel's that others may share.",
        tried: "Its families are listed; one is asked for by a name that nobody has, and a \
                message is sent with a number that nobody has.",
        confirms: &[
            equals("id_of_nlctrl", 16),
            is("unknown_name", "ENOENT"),
            is("unknown_number", "ENOENT"),
        ],
        refutes: &[is("list", "EPROTONOSUPPORT")],
        expect: CONFIRMED,
        because: "It hands messages to families by their type. Families have names, get their \
                  numbers when they register, and are looked up with nlctrl, which is one itself.",
        source: &[
            ("include/uapi/linux/genetlink.h", "#define GENL_ID_CTRL"),
            ("net/netlink/genetlink.c", "family = genl_family_find_byid(nlh->nlmsg_type);"),
        ],
        ..Case::SHARED
    },
    Case {
        id: "A41.4",
        claim: "A module of one's own may use NETLINK_GENERIC.",
        tried: "A module that registers a family with one operation is compiled for this kernel.",
        method: Method::Static(StaticCheck::Compiles(
            "#include <linux/module.h>\n\
             #include <net/genetlink.h>\n\
             static int hello(struct sk_buff *skb, struct genl_info *info) { return 0; }\n\
             static const struct genl_small_ops ops[] = { { .cmd = 1, .doit = hello } };\n\
             static struct genl_family family = {\n\
             \t.name = \"check\", .version = 1, .module = THIS_MODULE,\n\
             \t.small_ops = ops, .n_small_ops = ARRAY_SIZE(ops),\n};\n\
             static int __init check_init(void) { return genl_register_family(&family); }\n\
             module_init(check_init);\n\
             MODULE_LICENSE(\"GPL\");\n",
        )),
        confirms: &[yes("compiles")],
        refutes: &[no("compiles"), is_not("error", "")],
        expect: CONFIRMED,
        because: "genl_register_family() is exported. It spares a module the choice of a number \
                  that somebody else may have chosen.",
        source: &[("net/netlink/genetlink.c", "EXPORT_SYMBOL(genl_register_family);")],
        ..Case::SHARED
    },
];
