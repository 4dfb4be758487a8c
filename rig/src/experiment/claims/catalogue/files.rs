//! Files of /proc and sysfs: events, and how much goes through.

use crate::experiment::claims::case::*;

pub const CASES: &[Case] = &[
    Case {
        id: "B3.1",
        claim: "Files of /proc have no events.",
        tried: "A program waits in poll() for POLLPRI on a file of the module's in /proc; 100 ms \
                later another process writes to it.",
        confirms: &[no("woken")],
        refutes: &[no("event_before"), yes("woken"), at_least("waited_ms", 50.0)],
        expect: REFUTED,
        because: "A file of /proc may have a poll function, as a device may.",
        source: &[("fs/proc/inode.c", "poll = pde->proc_ops->proc_poll;")],
        ..Case::SHARED
    },
    Case {
        id: "B3.2",
        claim: "Files of sysfs have no events.",
        tried: "A program waits in poll() for POLLPRI on one file of the module's in sysfs; 100 ms \
                later another process writes to another file, and the module calls \
                sysfs_notify().",
        confirms: &[no("woken")],
        refutes: &[no("event_before"), yes("woken"), at_least("waited_ms", 50.0)],
        expect: REFUTED,
        because: "sysfs_notify() wakes who waits for a file in poll(). What has changed, the \
                  program reads.",
        source: &[
            ("fs/sysfs/file.c", "void sysfs_notify(struct kobject *kobj,"),
            ("fs/kernfs/file.c", "return DEFAULT_POLLMASK|EPOLLERR|EPOLLPRI;"),
        ],
        ..Case::SHARED
    },
    Case {
        id: "B3.3",
        claim: "The kernel's own files of /proc have no events.",
        tried: "A program with mounts of its own waits in poll() for POLLPRI on \
                /proc/self/mounts; 100 ms later something is mounted.",
        confirms: &[no("woken")],
        refutes: &[no("event_before"), yes("woken"), at_least("waited_ms", 50.0)],
        expect: REFUTED,
        because: "The list of mounts has signalled its changes for long; programs of every \
                  distribution wait for them. Few other files of /proc do.",
        source: &[("fs/proc_namespace.c", "static __poll_t mounts_poll(")],
        ..Case::SHARED
    },
    Case {
        id: "B4.1",
        claim: "A text file of sysfs takes and gives no more than a page.",
        tried: "A file of the module's that gives as much as it can is read into a large buffer; \
                two pages are written to another in one call.",
        confirms: &[
            equals("page", 4096),
            at_least("one_read", 1.0),
            at_most("read_in_all", 4096.0),
            at_most("one_write", 4096.0),
        ],
        refutes: &[equals("page", 4096), at_least("read_in_all", 4097.0)],
        expect: CONFIRMED,
        because: "An attribute's show function fills one page, of which it may use all but a \
                  byte: more is cut, and noted in the log. Of what is written, one call passes a \
                  page on; the rest would be another write.",
        source: &[
            ("fs/sysfs/file.c", "if (count >= (ssize_t)PAGE_SIZE) {"),
            ("fs/kernfs/file.c", "len = min_t(size_t, len, PAGE_SIZE);"),
        ],
        ..Case::SHARED
    },
    Case {
        id: "B4.2",
        claim: "A binary file of sysfs takes and gives no more than a page.",
        tried: "1 MiB is written to a file of the module's and read back; the first call of each \
                tries all at once.",
        confirms: &[equals("page", 4096), at_most("read_in_all", 4096.0)],
        refutes: &[equals("page", 4096), at_least("one_read", 4097.0), yes("as_written")],
        depends: &[
            equals("page", 4096),
            at_most("one_read", 4096.0),
            at_most("one_write", 4096.0),
            equals("read_in_all", 1 << 20),
            yes("as_written"),
        ],
        depends_on: "what is meant: a system call moves a page, the file has any size",
        expect: DEPENDS,
        because: "A binary attribute is told where to begin, so a program reads on page by page.",
        source: &[(
            "fs/kernfs/file.c",
            "ssize_t len = min_t(size_t, iov_iter_count(iter), PAGE_SIZE);",
        )],
        ..Case::SHARED
    },
    Case {
        id: "B4.3",
        claim: "A file of /proc gives no more than a page.",
        tried: "1 MiB is read from a file of the module's in one call.",
        confirms: &[equals("page", 4096), at_most("read_in_all", 4096.0)],
        refutes: &[equals("page", 4096), equals("one_read", 1 << 20), yes("whole")],
        expect: REFUTED,
        because: "A file of /proc has a read function as any file has, which gets the program's \
                  buffer whole. The limit of a page was that of another interface, read_proc, \
                  which is gone since Linux 3.10.",
        source: &[("fs/proc/inode.c", "static ssize_t pde_read(")],
        ..Case::SHARED
    },
    Case {
        id: "B4.4",
        claim: "The kernel's own tables in /proc give no more than a page.",
        tried: "/proc/kallsyms is read, at first in one call with a buffer of 2 MiB.",
        confirms: &[equals("page", 4096), at_most("read_in_all", 4096.0)],
        refutes: &[equals("page", 4096), at_least("one_read", 4097.0)],
        depends: &[
            equals("page", 4096),
            at_most("one_read", 4096.0),
            at_least("read_in_all", 40960.0),
        ],
        depends_on: "what is meant: a system call gives a page, the table has any size",
        expect: DEPENDS,
        because: "Tables are written by seq_file, which fills a buffer of a page with as many \
                  lines as fit, and goes on with the next call. A line that is longer gets a \
                  larger buffer.",
        source: &[("fs/seq_file.c", "m->buf = seq_buf_alloc(m->size = PAGE_SIZE);")],
        ..Case::SHARED
    },
    Case {
        id: "B4.5",
        claim: "A file of /proc takes no more than a page.",
        tried: "64 KiB are written in one call to /proc/self/mem, the process's own memory.",
        confirms: &[equals("page", 4096), at_most("one_write", 4096.0)],
        refutes: &[equals("page", 4096), equals("one_write", 65536), yes("arrived")],
        expect: REFUTED,
        because: "How much of a write a file takes is the matter of its write function. Many take \
                  a number or a line and refuse what is longer.",
        source: &[("fs/proc/base.c", "static ssize_t mem_rw(struct file *file, char __user *buf,")],
        ..Case::SHARED
    },
];
