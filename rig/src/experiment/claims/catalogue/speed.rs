//! How long an exchange takes, by netlink and by other ways.

use crate::experiment::claims::case::*;

pub const CASES: &[Case] = &[
    Case {
        id: "A33.8",
        claim: "Netlink is more efficient than a pipe or a socket.",
        tried: "32 bytes are sent and received in one process through netlink (NETLINK_USERSOCK), \
                a pipe and local datagram sockets, in turns; the medians are compared.",
        confirms: &[at_most("netlink_by_pipe", 0.8), at_most("netlink_by_socket", 0.8)],
        refutes: &[at_least("netlink_by_pipe", 1.0), at_least("netlink_by_socket", 0.5)],
        expect: REFUTED,
        because: "Netlink does what a local socket does, at the same price: a buffer for each \
                  message, and two copies. A pipe makes do without an address and without a \
                  buffer for each message.",
        source: &[
            ("net/netlink/af_netlink.c", "skb = netlink_alloc_large_skb(len, dst_group);"),
            ("net/unix/af_unix.c", "skb = sock_alloc_send_pskb(sk, len - data_len, data_len,"),
        ],
        ..Case::SHARED
    },
    Case {
        id: "B6",
        claim: "Mapped memory is the most efficient way between kernel and program.",
        tried: "Two numbers of the module's are read from a page of it that is mapped, taken by \
                ioctl, and taken by a netlink echo, in turns; the medians are compared.",
        confirms: &[
            yes("in_mapping"),
            at_least("ioctl_by_mapped", 3.0),
            at_least("netlink_by_mapped", 3.0),
        ],
        refutes: &[yes("in_mapping"), at_most("ioctl_by_mapped", 1.0)],
        expect: CONFIRMED,
        because: "Reading a mapping is no system call and no copy. But neither side hears of what \
                  the other one wrote: for that it takes a call again. These are ratios of an \
                  emulated machine unless there was KVM.",
        source: &[(
            "mm/vmalloc.c",
            "int remap_vmalloc_range(struct vm_area_struct *vma, void *addr,",
        )],
        ..Case::SHARED
    },
    Case {
        id: "B24.1",
        claim: "Communication by netlink takes very long.",
        tried: "A netlink echo, an ioctl, and a round trip through two pipes to another process \
                on the same processor are timed in turns; the medians are compared.",
        confirms: &[at_least("netlink_by_ioctl", 1.5), at_most("pipes_by_netlink", 1.0)],
        refutes: &[at_most("netlink_by_ioctl", 1.1)],
        depends: &[at_least("netlink_by_ioctl", 1.5), at_least("pipes_by_netlink", 1.5)],
        depends_on: "what it is compared with: slower than an ioctl, faster than what wakes \
                     another process",
        expect: DEPENDS,
        because: "An echo is two system calls, each with a buffer and a copy, where an ioctl is \
                  one call without a buffer. But the kernel answers within the sender's call: \
                  nobody is woken. These are ratios of an emulated machine unless there was KVM.",
        source: &[("net/netlink/af_netlink.c", "nlk->netlink_rcv(skb);")],
        ..Case::SHARED
    },
    Case {
        id: "B24.2",
        claim: "Netlink is slower than a file of /proc.",
        tried: "A netlink echo, a write and a read of a file of the module's in /proc, and the \
                same of one in sysfs are timed in turns, the files being open; the medians are \
                compared.",
        confirms: &[at_least("netlink_by_proc", 1.3)],
        refutes: &[at_most("netlink_by_proc", 0.9)],
        expect: CONFIRMED,
        because: "Both are two system calls with two copies, but netlink has a buffer to make and \
                  a receiver to find for each message, and checks what is in it. That goes for a \
                  number in a file that stays open; text has its own price when there is more \
                  to say.",
        source: &[
            ("net/netlink/af_netlink.c", "skb = netlink_alloc_large_skb(len, dst_group);"),
            ("fs/proc/inode.c", "static ssize_t pde_write("),
        ],
        ..Case::SHARED
    },
    Case {
        id: "B24.3",
        claim: "Netlink is slow because it is a kind of socket.",
        tried: "A datagram sent and received through local sockets in one process, an ioctl, and \
                a netlink echo are timed in turns; the medians are compared.",
        confirms: &[at_least("socket_by_ioctl", 1.5), at_least("netlink_by_ioctl", 1.5)],
        refutes: &[at_most("socket_by_ioctl", 1.1), at_least("netlink_by_ioctl", 1.5)],
        expect: CONFIRMED,
        because: "Sockets that have nothing to do with netlink pay most of the same price for one \
                  datagram: two calls, a message header to copy and check, a socket buffer to \
                  make and to free.",
        source: &[("net/core/skbuff.c", "struct sk_buff *__alloc_skb(unsigned int size,")],
        ..Case::SHARED
    },
    Case {
        id: "B24.4",
        claim: "Netlink transfers much data with little efficiency.",
        tried: "64 KiB come from the kernel in one message that is asked for, in one read() of a \
                file of /proc, and in pages from a file of sysfs, in turns; the medians are \
                compared.",
        confirms: &[at_least("netlink_by_proc", 1.5)],
        refutes: &[at_most("netlink_by_proc", 1.1)],
        expect: CONFIRMED,
        because: "Each message has a buffer of its own, which is made, filled and then copied to \
                  the program; a file is copied from where the data are. A file that gives a page \
                  at a time is about as slow as netlink.",
        source: &[
            ("net/netlink/af_netlink.c", "err = skb_copy_datagram_msg(data_skb, 0, msg, copied);"),
            ("fs/proc/inode.c", "static ssize_t pde_read("),
        ],
        ..Case::SHARED
    },
];
