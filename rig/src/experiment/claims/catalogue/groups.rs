//! Multicast: groups, who may join them and how, and what is sent to them.

use crate::experiment::claims::case::*;

const NETLINK: &str = "net/netlink/af_netlink.c";

pub const CASES: &[Case] = &[
    Case {
        id: "A21.1",
        claim: "A protocol of netlink has at most 32 multicast groups.",
        tried: "A socket joins group 40 of a protocol that was made with 64 groups; the kernel \
                sends to that group.",
        confirms: &[is("join_40", "EINVAL"), equals("heard", 0)],
        refutes: &[is("join_40", "ok"), is("join_65", "EINVAL"), equals("heard", 1)],
        expect: REFUTED,
        because: "A protocol has as many groups as cfg.groups says, and 32 at least. So since \
                  2.6.14, which brought NETLINK_ADD_MEMBERSHIP, with a number for a mask \
                  (9a4595bc7e67). Routing has groups above 32 itself.",
        source: &[(NETLINK, "groups = cfg->groups;"), (NETLINK, "case NETLINK_ADD_MEMBERSHIP:")],
        ..Case::SHARED
    },
    Case {
        id: "A21.2",
        claim: "Each multicast group of a protocol is a bit of nl_groups.",
        tried: "A socket joins groups 6 and 40; the kernel sends to both. nl_groups from \
                getsockname() and of what comes in, and the number from NETLINK_PKTINFO.",
        confirms: &[equals("mask_from_6", 0x20), at_least("mask_from_40", 1.0)],
        refutes: &[
            equals("mask_of_the_socket", 0x20),
            equals("mask_from_6", 0x20),
            equals("packet_info_from_6", 6),
            equals("mask_from_40", 0),
            equals("packet_info_from_40", 40),
        ],
        expect: REFUTED,
        because: "nl_groups has 32 bits, for groups 1 to 32. What was sent to a higher group comes \
                  in with nl_groups 0; only NETLINK_PKTINFO says the number.",
        source: &[
            (NETLINK, "nladdr->nl_groups = nlk->groups ? nlk->groups[0] : 0;"),
            (NETLINK, "info.group = NETLINK_CB(skb).dst_group;"),
        ],
        ..Case::SHARED
    },
    Case {
        id: "A21.3",
        claim: "With bind() a socket can join every multicast group of its protocol.",
        tried: "A socket binds with all bits of nl_groups set, on a protocol with 64 groups.",
        confirms: &[at_least("joined", 64.0), equals("heard_of_40", 1)],
        refutes: &[equals("joined", 32), equals("heard_of_32", 1), equals("heard_of_40", 0)],
        expect: REFUTED,
        because: "bind() replaces the first 32 groups and leaves the others as they are.",
        source: &[(NETLINK, "nlk->groups[0] = (nlk->groups[0] & ~0xffffffffUL) | groups;")],
        ..Case::SHARED
    },
    Case {
        id: "A22.1",
        claim: "A process that wants to join a multicast group has to do so with bind().",
        tried: "Sockets join group 5: by bind(), by NETLINK_ADD_MEMBERSHIP after a bind() without \
                groups, by the option without any bind(); the kernel sends to the group.",
        confirms: &[equals("heard_by_bind", 1), equals("heard_by_option", 0)],
        refutes: &[
            equals("heard_by_bind", 1),
            equals("heard_by_option", 1),
            equals("heard_without_bind", 1),
        ],
        expect: REFUTED,
        because: "The option NETLINK_ADD_MEMBERSHIP joins by number, and needs no bind(). A socket \
                  without any port, though, hears no broadcast that leaves port 0 out, which is how \
                  the kernel says that it leaves nobody out.",
        source: &[
            (NETLINK, "case NETLINK_ADD_MEMBERSHIP:"),
            (NETLINK, "if (nlk->portid == p->portid || p->group - 1 >= nlk->ngroups ||"),
        ],
        ..Case::SHARED
    },
    Case {
        id: "A22.2",
        claim: "A process can join a multicast group.",
        tried: "User 1000, without capabilities, joins group 1 by bind() and by \
                NETLINK_ADD_MEMBERSHIP: of the private protocol, of NETLINK_ROUTE, and of \
                NETLINK_USERSOCK.",
        confirms: &[is("private_bind", "ok"), is("route_bind", "ok")],
        refutes: &[is("private_bind", "EPERM"), is("route_bind", "EPERM")],
        depends: &[
            is("private_bind", "EPERM"),
            is("private_option", "EPERM"),
            is("usersock_bind", "EPERM"),
            is("route_bind", "ok"),
            is("route_option", "ok"),
        ],
        depends_on: "its having CAP_NET_ADMIN over its network namespace, or the protocol's \
                     allowing everyone to listen (NL_CFG_F_NONROOT_RECV)",
        expect: DEPENDS,
        because: "Joining asks for CAP_NET_ADMIN unless the protocol has the flag \
                  NL_CFG_F_NONROOT_RECV. A module that sets only groups and input has not; routing \
                  has. NETLINK_USERSOCK lets everyone send, but not listen.",
        source: &[
            (NETLINK, "if (!netlink_allowed(sock, NL_CFG_F_NONROOT_RECV))"),
            ("net/core/rtnetlink.c", "= NL_CFG_F_NONROOT_RECV,"),
        ],
        ..Case::SHARED
    },
    Case {
        id: "A22.3",
        claim: "At bind() nl_groups is a mask of groups, not the number of one.",
        tried: "A socket binds with nl_groups 6; the kernel sends to groups 2, 3 and 6.",
        confirms: &[
            is("memberships", "2 3"),
            equals("heard_of_2", 1),
            equals("heard_of_3", 1),
            equals("heard_of_6", 0),
        ],
        refutes: &[is("memberships", "6"), equals("heard_of_6", 1)],
        expect: CONFIRMED,
        because: "bind() takes nl_groups as the first word of the socket's bitmap: bit n is group \
                  n + 1.",
        source: &[(NETLINK, "nlk->groups[0] = (nlk->groups[0] & ~0xffffffffUL) | groups;")],
        ..Case::SHARED
    },
    Case {
        id: "A22.4",
        claim: "A socket that binds with nl_groups 0 joins no multicast group.",
        tried: "A socket binds with nl_groups 0; the kernel sends to groups 1, 32 and 40, which \
                another socket has joined.",
        confirms: &[is("memberships", "none"), equals("heard", 0), equals("heard_by_a_member", 3)],
        refutes: &[at_least("heard", 1.0)],
        expect: CONFIRMED,
        because: "Without groups bind() only gives the port. A further bind() with 0 leaves the \
                  groups up to 32, and stays in the others.",
        source: &[(NETLINK, "if (!groups && (nlk->groups == NULL || !(u32)nlk->groups[0]))")],
        ..Case::SHARED
    },
    Case {
        id: "A23.1",
        claim: "netlink_broadcast() takes a mask of groups, so that one call sends to several.",
        tried: "The kernel sends to group 6, which as a mask is groups 2 and 3; sockets in groups \
                2, 3 and 6 listen.",
        confirms: &[equals("heard_in_2", 1), equals("heard_in_3", 1), equals("heard_in_6", 0)],
        refutes: &[equals("heard_in_2", 0), equals("heard_in_3", 0), equals("heard_in_6", 1)],
        expect: REFUTED,
        because: "The argument is a number since 2.6.14 (d629b836d151): one call, one group.",
        source: &[(NETLINK, "!test_bit(p->group - 1, nlk->groups))")],
        ..Case::SHARED
    },
    Case {
        id: "A23.2",
        claim: "The third argument of netlink_broadcast() is the receiver's port, as it is of \
                netlink_unicast().",
        tried: "The kernel sends to group 6, with the port of one of its two members as the third \
                argument.",
        confirms: &[equals("heard_at_the_port", 1), equals("heard_elsewhere", 0)],
        refutes: &[equals("heard_at_the_port", 0), equals("heard_elsewhere", 1)],
        expect: REFUTED,
        because: "It is the one port that does not get the message: that of the program whose \
                  request the message is about, and which is answered otherwise.",
        source: &[(NETLINK, "if (nlk->portid == p->portid || p->group - 1 >= nlk->ngroups ||")],
        ..Case::SHARED
    },
    Case {
        id: "A23.3",
        claim: "A program that sets several bits of nl_groups sends to all of these groups.",
        tried: "A program sends with nl_groups 6: groups 2 and 3; sockets in groups 2, 3 and 6 \
                listen.",
        confirms: &[equals("heard_in_2", 1), equals("heard_in_3", 1)],
        refutes: &[equals("heard_in_2", 1), equals("heard_in_3", 0), equals("heard_in_6", 0)],
        expect: REFUTED,
        because: "sendmsg() makes a number of the mask: that of its lowest bit. So one can neither \
                  send to several groups at once nor, from a program, to one above 32.",
        source: &[(NETLINK, "dst_group = ffs(addr->nl_groups);")],
        ..Case::SHARED
    },
    Case {
        id: "A24",
        claim: "A message that is sent to a group goes to the group alone.",
        tried: "A program sends to group 5 with nl_pid 0, with a port outside of the group, and with \
                a port that nobody has. The calls of the kernel's input callback are counted.",
        confirms: &[
            equals("heard_in_the_group", 1),
            equals("inputs_of_the_kernel", 0),
            equals("heard_at_a_port_outside", 0),
        ],
        refutes: &[
            equals("heard_in_the_group", 1),
            equals("inputs_of_the_kernel", 1),
            equals("heard_at_a_port_outside", 1),
            is("sendto_with_nobodys_port", "ECONNREFUSED"),
            equals("heard_in_the_group_all_the_same", 1),
        ],
        expect: REFUTED,
        because: "sendmsg() sends to the group first and then, always, to the port: with nl_pid 0 \
                  the kernel's handler is called too. The result is that of the second only, so \
                  ECONNREFUSED does not mean that nobody got it.",
        source: &[
            (NETLINK, "netlink_broadcast(sk, skb, dst_portid, dst_group, GFP_KERNEL);"),
            (NETLINK, "err = netlink_unicast(sk, skb, dst_portid, msg->msg_flags & MSG_DONTWAIT);"),
        ],
        ..Case::SHARED
    },
    Case {
        id: "B11.1",
        claim: "With cfg.groups = 0 a protocol has unicast only.",
        tried: "A socket joins groups of the paper's protocol, which has groups = 0; the kernel \
                sends to group 5.",
        confirms: &[is("join_5", "EINVAL"), equals("heard", 0)],
        refutes: &[is("join_5", "ok"), equals("sent_by_the_kernel", 1), equals("heard", 1)],
        expect: REFUTED,
        because: "cfg.groups is the number of groups, and fewer than 32 are made 32.",
        source: &[(NETLINK, "if (!cfg || cfg->groups < 32)")],
        ..Case::SHARED
    },
    Case {
        id: "B11.2",
        claim: "With cfg.groups other than 0 a protocol has multicast in place of unicast.",
        tried: "The kernel sends to a port of a protocol that has groups = 64; another socket \
                exchanges a message with the kernel.",
        confirms: &[equals("heard", 0)],
        refutes: &[is("echo", "ok"), equals("sent_by_the_kernel", 1), equals("heard", 1)],
        expect: REFUTED,
        because: "The groups are in addition to the ports; netlink_unicast() does not look at them.",
        source: &[(NETLINK, "sk = netlink_getsockbyportid(ssk, portid);")],
        ..Case::SHARED
    },
    Case {
        id: "B11.3",
        claim: "A message that is sent with nl_groups 0 is unicast.",
        tried: "A program sends to the port of one of two sockets that are in the same groups.",
        confirms: &[
            is("sendto", "ok"),
            equals("heard_at_the_port", 1),
            equals("heard_elsewhere", 0),
        ],
        refutes: &[at_least("heard_elsewhere", 1.0)],
        expect: CONFIRMED,
        because: "Only a destination with a group is broadcast.",
        source: &[(NETLINK, "if (dst_group) {")],
        ..Case::SHARED
    },
];
