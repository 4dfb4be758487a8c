//! Ports: who has which, and who gives them.

use crate::experiment::claims::case::*;

const AF_NETLINK: &str = "net/netlink/af_netlink.c";

pub const CASES: &[Case] = &[
    Case {
        id: "A8.1",
        claim: "Port 0 as the destination is the kernel.",
        tried: "A client sends to port 0 on the protocol of the article's module and takes the \
                answer.",
        confirms: &[is("send", "ok"), equals("kernel_called", 1), equals("answer_from", 0)],
        refutes: &[equals("kernel_called", 0)],
        expect: CONFIRMED,
        because: "A socket that the kernel makes is put into the protocol's table with port 0, \
                  where sending finds it like any other.",
        source: &[
            (AF_NETLINK, "if (netlink_insert(sk, 0))"),
            (AF_NETLINK, "return netlink_unicast_kernel(sk, skb, ssk);"),
        ],
        ..Case::SHARED
    },
    Case {
        id: "A8.2",
        claim: "Port 0 reaches the kernel from every network namespace.",
        tried: "A process in a new network namespace sends to port 0, on the module's protocol \
                and on NETLINK_ROUTE.",
        confirms: &[
            is("send_to_the_module", "ok"),
            is("send_to_rtnetlink", "ok"),
            at_least("answers_of_rtnetlink", 1.0),
        ],
        refutes: &[is("send_to_the_module", "ECONNREFUSED"), is_not("send_to_rtnetlink", "ok")],
        depends: &[
            is("socket_of_the_module", "ok"),
            is("send_to_the_module", "ECONNREFUSED"),
            is("send_to_rtnetlink", "ok"),
            at_least("answers_of_rtnetlink", 1.0),
        ],
        depends_on: "whether the kernel has made its socket of the protocol in the sender's \
                     network namespace",
        expect: DEPENDS,
        because: "Port 0 is looked up in the sender's network namespace. The module, as the \
                  article's, makes one socket, in init_net; rtnetlink makes one in each \
                  namespace. That the protocol exists is known everywhere, so socket() succeeds.",
        source: &[
            (AF_NETLINK, "sock_net(&nlk->sk)->net_cookie != x->net_cookie;"),
            (AF_NETLINK, "return ERR_PTR(-ECONNREFUSED);"),
        ],
        ..Case::SHARED
    },
    Case {
        id: "A10.1",
        claim: "A program can have port 0 as its own if it insists.",
        tried: "A socket binds port 0 and asks which port it has.",
        confirms: &[is("bind", "ok"), equals("port", 0)],
        refutes: &[is("bind", "ok"), at_least("port", 1.0)],
        expect: REFUTED,
        because: "To bind port 0 is to leave the choice to the kernel, which never gives 0.",
        source: &[(AF_NETLINK, "netlink_autobind(sock);")],
        ..Case::SHARED
    },
    Case {
        id: "A10.2",
        claim: "A program that binds port 0 gets into trouble.",
        tried: "Two sockets of a process bind port 0 and have one echo each; a third has three \
                answers of the article's module at the port that it asks for.",
        confirms: &[at_most("answered", 1.0)],
        refutes: &[
            is("first_bind", "ok"),
            is("second_bind", "ok"),
            no("same_port"),
            equals("answered", 2),
            equals("answers_of_the_articles_module", 3),
        ],
        expect: REFUTED,
        because: "Each socket gets a port that nobody has; netlink(7) advises it. The trouble of \
                  the article comes from nlmsg_pid 0, which its module takes for the address of \
                  the client.",
        source: &[(AF_NETLINK, "static int netlink_autobind(struct socket *sock)")],
        ..Case::SHARED
    },
    Case {
        id: "A10.3",
        claim: "A socket that binds port 0 gets the process id as its port.",
        tried: "Two sockets of a process bind port 0.",
        confirms: &[yes("first_is_process_id"), yes("second_is_process_id")],
        refutes: &[no("first_is_process_id"), no("second_is_process_id")],
        depends: &[
            yes("first_is_process_id"),
            no("second_is_process_id"),
            at_least("second", -2_147_483_648.0),
            at_most("second", -4097.0),
        ],
        depends_on: "whether the port of that number is free",
        expect: DEPENDS,
        because: "The process id is tried first. If another socket has it, the kernel begins at a \
                  random number from -2147483648 to -4097 and counts down until one is free.",
        source: &[
            (AF_NETLINK, "s32 portid = task_tgid_vnr(current);"),
            (AF_NETLINK, "/* rover will be in range [S32_MIN, -4097] */"),
        ],
        ..Case::SHARED
    },
    Case {
        id: "A11.1",
        claim: "A client has to call bind(), or it gets no answers.",
        tried: "A socket that was never bound sends to the article's module, with the process id \
                as nlmsg_pid, and takes the ten answers.",
        confirms: &[is("send", "ok"), equals("answers", 0)],
        refutes: &[equals("port_before", 0), is("send", "ok"), equals("answers", 10)],
        expect: REFUTED,
        because: "The first sendmsg() of a socket without a port gives it one: the process id if \
                  that is free.",
        source: &[(AF_NETLINK, "err = netlink_autobind(sock);")],
        ..Case::SHARED
    },
    Case {
        id: "A11.2",
        claim: "The kernel never gives a socket a port of its own accord, as it does with UDP.",
        tried: "A socket sends, another connects, neither calls bind(); then each is asked for \
                its port.",
        confirms: &[no("has_port_after_send"), no("has_port_after_connect")],
        refutes: &[equals("new", 0), yes("has_port_after_send"), yes("has_port_after_connect")],
        expect: REFUTED,
        because: "netlink_sendmsg() and netlink_connect() both choose a port for a socket that \
                  has none.",
        source: &[(AF_NETLINK, "err = netlink_autobind(sock);")],
        ..Case::SHARED
    },
    Case {
        id: "A12",
        claim: "A second socket that binds a port in use gets \"Address already in use\".",
        tried: "Two sockets of one protocol bind the same port, and one of another process.",
        confirms: &[
            is("first_bind", "ok"),
            is("second_bind", "EADDRINUSE"),
            is("other_process_bind", "EADDRINUSE"),
        ],
        refutes: &[is("first_bind", "ok"), is("second_bind", "ok")],
        expect: CONFIRMED,
        because: "The sockets of a protocol are in a hash table by network namespace and port, and \
                  what is in it twice is refused.",
        source: &[(AF_NETLINK, "err = -EADDRINUSE;")],
        ..Case::SHARED
    },
    Case {
        id: "A13",
        claim: "SO_REUSEADDR does not help to bind a netlink port twice.",
        tried: "Two sockets set SO_REUSEADDR, which they keep, and bind the same port.",
        confirms: &[
            equals("sockets_with_the_option", 2),
            is("first_bind", "ok"),
            is("second_bind", "EADDRINUSE"),
        ],
        refutes: &[
            equals("sockets_with_the_option", 2),
            is("first_bind", "ok"),
            is("second_bind", "ok"),
        ],
        expect: CONFIRMED,
        because: "Every socket has the option, and nothing in netlink reads it.",
        source: &[(AF_NETLINK, "static int netlink_insert(struct sock *sk, u32 portid)")],
        ..Case::SHARED
    },
    Case {
        id: "A14.1",
        claim: "The same port on two netlink protocols does not clash.",
        tried: "Port 100 is bound on the module's protocol, then on NETLINK_ROUTE, on \
                NETLINK_USERSOCK, and on the module's again.",
        confirms: &[
            is("bind_of_rtnetlink", "ok"),
            is("bind_of_usersock", "ok"),
            is("bind_of_the_same", "EADDRINUSE"),
        ],
        refutes: &[is("bind_of_rtnetlink", "EADDRINUSE"), is("bind_of_usersock", "EADDRINUSE")],
        expect: CONFIRMED,
        because: "Each protocol has a table of its own.",
        source: &[(AF_NETLINK, "struct netlink_table *table = &nl_table[sk->sk_protocol];")],
        ..Case::SHARED
    },
    Case {
        id: "A14.2",
        claim: "A port is one address for the whole system, for each protocol.",
        tried: "Another process binds a port in use, in the same network namespace and in a new \
                one.",
        confirms: &[is("bind_in_the_same", "EADDRINUSE"), is("bind_in_another", "EADDRINUSE")],
        refutes: &[is("bind_in_the_same", "EADDRINUSE"), is("bind_in_another", "ok")],
        expect: REFUTED,
        because: "The network namespace is part of the key of the table.",
        source: &[(AF_NETLINK, "sock_net(&nlk->sk)->net_cookie != x->net_cookie;")],
        ..Case::SHARED
    },
    Case {
        id: "A15.1",
        claim: "The port need not be a process id: any number will do.",
        tried: "A socket binds a number above all process ids and has an echo.",
        confirms: &[yes("is_above_pid_max"), is("bind", "ok"), yes("echo_to_that_port")],
        refutes: &[yes("is_above_pid_max"), is_not("bind", "ok")],
        expect: CONFIRMED,
        because: "What nl_pid says is the key in the table, and compared with nothing else.",
        source: &[(AF_NETLINK, "netlink_insert(sk, nladdr->nl_pid) :")],
        ..Case::SHARED
    },
    Case {
        id: "A15.2",
        claim: "The port has nothing to do with the process id.",
        tried: "A socket binds a number that is not the process id; another leaves the choice to \
                the kernel.",
        confirms: &[is("bind_of_another_number", "ok"), no("kernel_chooses_process_id")],
        refutes: &[is_not("bind_of_another_number", "ok"), yes("kernel_chooses_process_id")],
        depends: &[is("bind_of_another_number", "ok"), yes("kernel_chooses_process_id")],
        depends_on: "who chooses: a program takes any number, the kernel takes the process id \
                     first",
        expect: DEPENDS,
        because: "netlink_bind() takes what it is given; netlink_autobind() begins with the \
                  process id.",
        source: &[(AF_NETLINK, "s32 portid = task_tgid_vnr(current);")],
        ..Case::SHARED
    },
    Case {
        id: "A15.3",
        claim: "A process may well take its id as its port.",
        tried: "Two processes that live at once bind their ids: in one pid namespace, and each as \
                the first of its own.",
        confirms: &[
            is("first_bind", "ok"),
            is("second_bind", "ok"),
            is("second_bind_in_own_namespace", "ok"),
        ],
        refutes: &[is("first_bind", "ok"), is("second_bind", "EADDRINUSE")],
        depends: &[
            is("first_bind", "ok"),
            is("second_bind", "ok"),
            is("first_bind_in_own_namespace", "ok"),
            is("second_bind_in_own_namespace", "EADDRINUSE"),
        ],
        depends_on: "whether all processes of the network namespace are in one pid namespace",
        expect: DEPENDS,
        because: "Ids are unique in a pid namespace and ports in a network namespace. Containers \
                  that share the one but not the other have the same ids twice.",
        source: &[(AF_NETLINK, "if (err == -EEXIST)")],
        ..Case::SHARED
    },
    Case {
        id: "A15.4",
        claim: "Where ports are process ids, no two processes want the same one.",
        tried: "Two processes that live at once, each the first of a pid namespace, leave the \
                choice of a port to the kernel.",
        confirms: &[yes("first_got_its_id"), yes("second_got_its_id")],
        refutes: &[
            equals("first_id", 1),
            equals("second_id", 1),
            yes("first_got_its_id"),
            no("second_got_its_id"),
            is("second_bind", "ok"),
        ],
        expect: REFUTED,
        because: "The kernel begins with the id that the process has in its own pid namespace. \
                  Whoever comes second gets another port, and a number below 32768 does not say \
                  which process it is.",
        source: &[(AF_NETLINK, "s32 portid = task_tgid_vnr(current);")],
        ..Case::SHARED
    },
];
