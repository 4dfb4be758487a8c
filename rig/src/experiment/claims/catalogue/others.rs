//! What is said of the ways besides netlink: who speaks, and what is copied.

use crate::experiment::claims::case::*;

pub const CASES: &[Case] = &[
    Case {
        id: "A32.1",
        claim: "Files of /proc carry data in one direction only.",
        tried: "41 is written to a file of the module's in /proc, and read back from the same \
                descriptor; the module adds one.",
        confirms: &[is_not("read", "ok")],
        refutes: &[is("write", "ok"), is("read", "ok"), is("came_back", "42")],
        expect: REFUTED,
        because: "A file of /proc has a function of the module's for reading and another for \
                  writing. Which of them there are is the module's choice. That the kernel can \
                  begin as well is B3.1.",
        source: &[
            ("fs/proc/inode.c", "static ssize_t pde_read("),
            ("fs/proc/inode.c", "static ssize_t pde_write("),
        ],
        ..Case::SHARED
    },
    Case {
        id: "A32.2",
        claim: "An ioctl carries data in one direction only.",
        tried: "One ioctl of /dev/nlrig is called with 41; the module adds one.",
        confirms: &[is("ioctl", "ok"), equals("came_back", 41)],
        refutes: &[is("ioctl", "ok"), equals("came_back", 42)],
        expect: REFUTED,
        because: "The argument is a pointer, and the driver may both read and write what is \
                  there; a number made by _IOWR says so. This is one system call where netlink \
                  needs two. That the kernel can begin as well is B2.1.",
        source: &[("include/uapi/asm-generic/ioctl.h", "#define _IOWR(")],
        ..Case::SHARED
    },
    Case {
        id: "A32.3",
        claim: "Netlink carries data in both directions.",
        tried: "A socket sends an echo and gets its answer; then the kernel's timer sends it a \
                message that it has not asked for.",
        confirms: &[yes("answered"), yes("unasked")],
        refutes: &[yes("answered"), no("unasked")],
        expect: CONFIRMED,
        because: "The kernel has a socket of its own in each protocol and sends from it to any \
                  port when it likes.",
        source: &[("net/netlink/af_netlink.c", "int netlink_unicast(struct sock *ssk")],
        ..Case::SHARED
    },
    Case {
        id: "A32.4",
        claim: "Program and kernel have three ways: /proc, ioctl and netlink.",
        tried: "A number goes to the module and back through sysfs, and to a program through a \
                page that it maps.",
        confirms: &[is_not("read", "ok"), is_not("map", "ok")],
        refutes: &[is("came_back", "42"), is("map", "ok"), equals("in_mapping", 42)],
        expect: REFUTED,
        because: "There are more: sysfs, mapped memory, read() and write() on devices, module \
                  parameters, signals, and others that were not tried here.",
        source: &[
            ("fs/sysfs/file.c", "static int sysfs_kf_seq_show("),
            ("mm/vmalloc.c", "int remap_vmalloc_range(struct vm_area_struct *vma, void *addr,"),
        ],
        ..Case::SHARED
    },
    Case {
        id: "A33.1",
        claim: "Netlink, unlike a pipe or a socket, carries data without copying it.",
        tried: "One program sends to another (NETLINK_USERSOCK) and writes something else into \
                the memory it sent from, before the other one reads.",
        confirms: &[is("received", "new")],
        refutes: &[is("received", "old")],
        expect: REFUTED,
        because: "sendmsg() copies into a new buffer of the kernel, and recvmsg() copies out of \
                  it: two copies, as many as with a pipe or another local socket.",
        source: &[
            ("net/netlink/af_netlink.c", "if (memcpy_from_msg(skb_put(skb, len), msg, len)) {"),
            ("net/netlink/af_netlink.c", "err = skb_copy_datagram_msg(data_skb, 0, msg, copied);"),
        ],
        ..Case::SHARED
    },
    Case {
        id: "A33.2",
        claim: "Netlink, unlike a pipe or a socket, needs no additional buffer.",
        tried: "While a message of 4000 bytes waits to be read, /proc/net/netlink says how much \
                of the kernel's memory the receiver is charged for.",
        confirms: &[equals("rmem_before", 0), equals("rmem_while_it_waits", 0)],
        refutes: &[
            equals("rmem_before", 0),
            at_least("rmem_while_it_waits", 4000.0),
            equals("rmem_after", 0),
        ],
        expect: REFUTED,
        because: "A message to a program waits in a socket buffer in the receiver's queue, and \
                  the receiver is charged for it until it has been read. A message to the kernel \
                  is in such a buffer as well, but does not wait.",
        source: &[("net/netlink/af_netlink.c", "netlink_skb_set_owner_r(skb, sk);")],
        ..Case::SHARED
    },
    Case {
        id: "A33.3",
        claim: "A pipe needs an additional buffer and copies.",
        tried: "4000 bytes are put into a pipe, by write() and then by vmsplice(), and changed \
                before they are read.",
        confirms: &[is("written", "old"), is("lent", "old")],
        refutes: &[is("written", "new")],
        depends: &[equals("waiting_in_pipe", 4000), is("written", "old"), is("lent", "new")],
        depends_on: "the call: write() copies into the pipe's pages, vmsplice() puts the \
                     program's own pages there",
        expect: DEPENDS,
        because: "A pipe is a ring of references to pages. write() fills pages of the kernel's; \
                  vmsplice() and splice() add references to pages that are there, without a copy \
                  on the way in. Netlink has no such call.",
        source: &[
            ("fs/pipe.c", "copied = copy_page_from_iter(page, 0, PAGE_SIZE, from);"),
            ("fs/splice.c", "static int iter_to_pipe(struct iov_iter *from,"),
        ],
        ..Case::SHARED
    },
    Case {
        id: "A33.4",
        claim: "A socket needs an additional buffer and copies.",
        tried: "4000 bytes are sent through a local datagram socket (AF_UNIX), and changed before \
                they are read.",
        confirms: &[at_least("waiting_in_socket", 4000.0), is("received", "old")],
        refutes: &[is("received", "new")],
        expect: CONFIRMED,
        because: "What is sent is copied into a socket buffer in the receiver's queue: the same \
                  as with netlink, which is a socket too.",
        source: &[
            (
                "net/unix/af_unix.c",
                "err = skb_copy_datagram_from_iter(skb, 0, &msg->msg_iter, len);",
            ),
            ("net/unix/af_unix.c", "err = skb_copy_datagram_msg(skb, skip, msg, size);"),
        ],
        ..Case::SHARED
    },
    Case {
        id: "A33.5",
        claim: "Netlink can do without copies, by memory that kernel and program share.",
        tried: "A socket asks for a ring to receive from and for one to send from, for a mapping, \
                and for sending without copies (SO_ZEROCOPY).",
        confirms: &[is("rx_ring", "ok"), is("map", "ok")],
        refutes: &[
            is("rx_ring", "ENOPROTOOPT"),
            is("tx_ring", "ENOPROTOOPT"),
            is_not("map", "ok"),
            is_not("zerocopy", "ok"),
        ],
        expect: REFUTED,
        because: "There were mapped rings from Linux 3.10 to 4.5; they were removed, and only \
                  the numbers of their options are left.",
        source: &[
            ("include/uapi/linux/netlink.h", "#define NETLINK_RX_RING"),
            ("net/netlink/af_netlink.c", ".mmap =\t\tsock_no_mmap,"),
        ],
        ..Case::SHARED
    },
    Case {
        id: "A33.6",
        claim: "A signal carries only simple information.",
        tried: "A process sends itself a signal whose information is filled with one byte, and \
                counts how often that byte arrives.",
        confirms: &[yes("came"), at_least("bytes_came", 1.0), at_most("bytes_came", 64.0)],
        refutes: &[yes("came"), at_least("bytes_came", 65.0)],
        expect: CONFIRMED,
        because: "The kernel keeps a few words of a signal's 128 bytes of information, and the \
                  interface promises one of them to the sender.",
        source: &[("include/linux/signal_types.h", "typedef struct kernel_siginfo {")],
        ..Case::SHARED
    },
    Case {
        id: "A33.7",
        claim: "A system call can do no more than what the kernel has defined beforehand.",
        tried: "The same ioctl is called on a device of the kernel's own and on that of a module \
                that was loaded later.",
        confirms: &[is("on_dev_null", "ENOTTY"), is_not("on_dev_nlrig", "ok")],
        refutes: &[is("on_dev_null", "ENOTTY"), is("on_dev_nlrig", "ok"), equals("came_back", 42)],
        expect: REFUTED,
        because: "The calls are fixed, but what ioctl(), read(), write() or sendmsg() do is up to \
                  the driver or protocol behind the descriptor. Netlink is used by system calls \
                  too, and extended in the same way.",
        source: &[("fs/ioctl.c", "error = filp->f_op->unlocked_ioctl(filp, cmd, arg);")],
        ..Case::SHARED
    },
];
