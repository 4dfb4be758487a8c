/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * The netlink protocol and the files of the nlrig module.
 *
 * The protocol is raw netlink, not a generic netlink family: the rig tests
 * af_netlink itself, and generic netlink would add its own dispatch, locks and
 * checks to what is measured. New protocols outside the rig should use generic
 * netlink.
 *
 * A program opens a socket of protocol NETLINK_NLRIG and sends messages, each a
 * struct nlmsghdr (see netlink(7)) with NLM_F_REQUEST set, to port 0, which is
 * the kernel. A datagram may contain several messages; each gets its own reply.
 * A body is either a structure, whose reserved fields must be zero and which
 * nothing may follow, or a list of attributes.
 *
 * Errors are acknowledged with NLMSG_ERROR, most with a text of the extended
 * acknowledgement:
 *	EINVAL		The body has not the size of its structure, a reserved
 *			field is not zero, or an attribute is missing, too
 *			short, unknown, or in conflict with another one.
 *	ERANGE		An attribute is out of range or too long.
 *	EPERM		The requester lacks the capability, or the module's
 *			parameter is not set.
 *	EBUSY		An NLRIG_MSG_SEND is running, or a dump to this socket.
 *	EOPNOTSUPP	The message type, or the request on this kernel, is not
 *			supported.
 *	ENOMEM		There is no memory for the reply.
 * netlink skips a message without NLM_F_REQUEST or of a type below
 * NLMSG_MIN_TYPE; it gets an acknowledgement only if it has NLM_F_ACK.
 *
 * Two more protocols exist once a parameter of the module enables them, at load
 * time or later, until the module is unloaded. They behave as the modules of the
 * two texts under test, faults included, and validate nothing. PROTOCOL is a
 * number from 23 to 31, which the kernel does not use itself. A write to the
 * parameter fails with EBUSY if the protocol is enabled already, and with
 * EADDRINUSE if the number is in use. At load time a number in use is logged,
 * and the parameter reads 0.
 *
 * article=PROTOCOL	The article's module, ported to this kernel. It replies
 *	to a datagram "article_replies" times (10), each time after
 *	"article_delay_ms" (3000). The destination is the port in nlmsg_pid, or
 *	the source port if "article_reply_to_source" is set. With
 *	"article_writes_literal" it terminates its text by a write into a string
 *	literal, as the article prints it. With "article_init_fails" at load time
 *	the module's init returns 1, as the article's does without a socket;
 *	everything exists then except the article's socket.
 * paper=PROTOCOL	The paper's asynchronous module, ported to this kernel.
 *	Its input callback queues a copy of the datagram, or the datagram itself
 *	if "paper_takes_reference" is set. "paper_threads" threads (1 to 8, read
 *	when the protocol is enabled) reply to the source port, each time after
 *	"paper_delay_ms" of sleep. A reply is an NLRIG_MSG_DATA with the sequence
 *	number of the request and the first 32 bytes of its body.
 *
 * The module also has the interfaces that the texts compare netlink with:
 *	/dev/nlrig		ioctl, blocking read, poll, SIGIO, and mmap of
 *				one page. All state belongs to the open file.
 *	/proc/nlrig/value	Write a number, read it plus one. poll reports
 *				POLLPRI after a write that this open file has
 *				not read.
 *	/proc/nlrig/big		NLRIG_BIG_BYTES to read, in one call if wanted:
 *				lines of 64 bytes, each its number in decimal.
 *	/sys/kernel/nlrig/value	Write a number, read it plus one.
 *	/sys/kernel/nlrig/event	The number of writes to "value"; poll reports
 *				each (sysfs_notify()).
 *	/sys/kernel/nlrig/page	As much text as one read of sysfs can return.
 *	/sys/kernel/nlrig/blob	NLRIG_BIG_BYTES to read and write.
 */
#ifndef _UAPI_NLRIG_H
#define _UAPI_NLRIG_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* The protocol number, the third argument of socket(2). Numbers above
 * NETLINK_SMC (22) are free; the texts under test use 25.
 */
#define NETLINK_NLRIG 25
/* The numbers that the rig gives to the article's and the paper's protocol. */
#define NETLINK_NLRIG_ARTICLE 26
#define NETLINK_NLRIG_PAPER 27

/* Multicast groups of NETLINK_NLRIG, more than a 32-bit mask can hold. */
#define NLRIG_GROUPS 64

/* Upper bounds of attributes and of NLRIG_IOC_WAKE. */
#define NLRIG_COUNT_MAX 100000
#define NLRIG_SIZE_MAX 1048576
#define NLRIG_DELAY_MS_MAX 10000

/* Bytes of /proc/nlrig/big and /sys/kernel/nlrig/blob. */
#define NLRIG_BIG_BYTES 1048576

/**
 * enum nlrig_msg - message types
 * @NLRIG_MSG_BASE: the first one; types below NLMSG_MIN_TYPE (16) are netlink's
 * @NLRIG_MSG_ECHO: request with struct nlrig_echo. The kernel queues the reply
 *	before the system call of the requester returns. It goes to the source
 *	port of the request, whatever nlmsg_pid is; nlmsg_pid and the body of the
 *	reply contain that port.
 * @NLRIG_MSG_ECHO_REPLY: reply with struct nlrig_echo and the sequence number of
 *	the request
 * @NLRIG_MSG_FAULT: request with struct nlrig_fault. The kernel injects the
 *	fault in the system call of the requester, and mostly never replies.
 *	Needs the module's parameter "faults" and CAP_SYS_ADMIN.
 * @NLRIG_MSG_SEND: request with attributes of &enum nlrig_send_attr. The kernel
 *	sends messages of type NLRIG_MSG_DATA; one request runs at a time. The
 *	acknowledgement means that it runs, or in process context that it has
 *	ended. Messages that fail are not an error of the request, because the
 *	receive buffer of the requester may be the one that is full:
 *	NLRIG_MSG_STATE reports the result. A signal to the requester ends a
 *	request in process context, and unloading the module ends any; the next
 *	message then fails with EINTR and is the last one. Needs CAP_NET_ADMIN.
 * @NLRIG_MSG_DATA: message of NLRIG_MSG_SEND and NLRIG_MSG_DUMP. For
 *	NLRIG_MSG_SEND, nlmsg_seq is the number of the message from 0 on, and the
 *	body has the requested size; for NLRIG_MSG_DUMP, nlmsg_seq is that of the
 *	request, and the body has four bytes. The body contains the number of the
 *	message, truncated to its size, then zeros.
 * @NLRIG_MSG_DUMP: request with NLM_F_DUMP and attributes of &enum
 *	nlrig_dump_attr. The kernel replies with messages of type NLRIG_MSG_DATA
 *	in parts, and NLMSG_DONE.
 * @NLRIG_MSG_STATE: request with attributes of &enum nlrig_state_attr
 * @NLRIG_MSG_STATE_REPLY: reply with attributes of &enum nlrig_state_attr
 * @__NLRIG_MSG_MAX: internal use
 */
enum nlrig_msg {
	NLRIG_MSG_BASE = 16,
	NLRIG_MSG_ECHO = NLRIG_MSG_BASE,
	NLRIG_MSG_ECHO_REPLY,
	NLRIG_MSG_FAULT,
	NLRIG_MSG_SEND,
	NLRIG_MSG_DATA,
	NLRIG_MSG_DUMP,
	NLRIG_MSG_STATE,
	NLRIG_MSG_STATE_REPLY,
	__NLRIG_MSG_MAX,
};
#define NLRIG_MSG_MAX (__NLRIG_MSG_MAX - 1)

/**
 * struct nlrig_echo - body of NLRIG_MSG_ECHO and NLRIG_MSG_ECHO_REPLY
 * @cookie: chosen by the requester, returned unchanged
 * @portid: must be zero in a request; source port of the request in a reply
 * @reserved: must be zero
 */
struct nlrig_echo {
	__aligned_u64 cookie;
	__u32 portid;
	__u32 reserved;
};

/**
 * enum nlrig_fault_kind - faults of NLRIG_MSG_FAULT
 * @NLRIG_FAULT_NONE: none; the message is acknowledged as any other
 * @NLRIG_FAULT_PANIC: panic()
 * @NLRIG_FAULT_NULL: write through a null pointer: an oops, which kills the
 *	requester
 * @NLRIG_FAULT_WARN: WARN(); the requester survives
 * @NLRIG_FAULT_SOFTIRQ: softirq that never ends, on the CPU of the requester
 * @NLRIG_FAULT_BLOCK: the requester sleeps for ever in state D
 * @NLRIG_FAULT_LIVELOCK: every CPU spins with interrupts disabled
 * @NLRIG_FAULT_TRIPLE: triple fault, which resets the machine; x86 only
 * @__NLRIG_FAULT_MAX: internal use
 */
enum nlrig_fault_kind {
	NLRIG_FAULT_NONE,
	NLRIG_FAULT_PANIC,
	NLRIG_FAULT_NULL,
	NLRIG_FAULT_WARN,
	NLRIG_FAULT_SOFTIRQ,
	NLRIG_FAULT_BLOCK,
	NLRIG_FAULT_LIVELOCK,
	NLRIG_FAULT_TRIPLE,
	__NLRIG_FAULT_MAX,
};
#define NLRIG_FAULT_MAX (__NLRIG_FAULT_MAX - 1)

/**
 * struct nlrig_fault - body of NLRIG_MSG_FAULT
 * @kind: one of &enum nlrig_fault_kind
 * @reserved: must be zero
 */
struct nlrig_fault {
	__u32 kind;
	__u32 reserved;
};

/**
 * enum nlrig_context - values of NLRIG_A_SEND_CONTEXT
 * @NLRIG_CONTEXT_PROCESS: system call of the requester
 * @NLRIG_CONTEXT_THREAD: kernel thread
 * @NLRIG_CONTEXT_TIMER: timer of struct timer_list, in softirq context
 * @NLRIG_CONTEXT_TASKLET: tasklet, in softirq context; a timer schedules it
 *	after a delay
 * @NLRIG_CONTEXT_HARDIRQ: hrtimer in hard interrupt context; EOPNOTSUPP on
 *	PREEMPT_RT, which cannot allocate there
 * @__NLRIG_CONTEXT_MAX: internal use
 *
 * A timer, a tasklet and an hrtimer send one message per expiry if the request
 * has a delay. Without one they send for a millisecond, and continue at the next
 * tick, in the next softirq, or after 100 microseconds.
 */
enum nlrig_context {
	NLRIG_CONTEXT_PROCESS,
	NLRIG_CONTEXT_THREAD,
	NLRIG_CONTEXT_TIMER,
	NLRIG_CONTEXT_TASKLET,
	NLRIG_CONTEXT_HARDIRQ,
	__NLRIG_CONTEXT_MAX,
};
#define NLRIG_CONTEXT_MAX (__NLRIG_CONTEXT_MAX - 1)

/**
 * enum nlrig_send_attr - attributes of NLRIG_MSG_SEND
 * @NLRIG_A_SEND_UNSPEC: unused
 * @NLRIG_A_SEND_COUNT: u32, number of messages, 1 to NLRIG_COUNT_MAX; required
 * @NLRIG_A_SEND_SIZE: u32, bytes of body per message, at most NLRIG_SIZE_MAX;
 *	default 0
 * @NLRIG_A_SEND_DELAY_MS: u32, milliseconds before each message, at most
 *	NLRIG_DELAY_MS_MAX; default 0
 * @NLRIG_A_SEND_PORTID: u32, destination port; default is the requester's. With
 *	a group, the port that is left out; default none. Port 0, the kernel
 *	itself, is accepted for the article's protocol only: its input callback
 *	then runs in the context of the request, and its replies reach it again,
 *	deeper each time, until the kernel dies.
 * @NLRIG_A_SEND_GROUP: u32, destination multicast group, 1 to NLRIG_GROUPS. A
 *	message to a group without members fails with ESRCH.
 * @NLRIG_A_SEND_CONTEXT: u32, &enum nlrig_context to send from; default
 *	NLRIG_CONTEXT_PROCESS
 * @NLRIG_A_SEND_PROTOCOL: u32, protocol whose kernel socket sends; default
 *	NETLINK_NLRIG
 * @NLRIG_A_SEND_BLOCK: flag, wait for room in the receiver's buffer. Process and
 *	thread context only, and not for a group. A requester that is the
 *	receiver in process context waits for itself, until a signal comes.
 * @__NLRIG_A_SEND_MAX: internal use
 */
enum nlrig_send_attr {
	NLRIG_A_SEND_UNSPEC,
	NLRIG_A_SEND_COUNT,
	NLRIG_A_SEND_SIZE,
	NLRIG_A_SEND_DELAY_MS,
	NLRIG_A_SEND_PORTID,
	NLRIG_A_SEND_GROUP,
	NLRIG_A_SEND_CONTEXT,
	NLRIG_A_SEND_PROTOCOL,
	NLRIG_A_SEND_BLOCK,
	__NLRIG_A_SEND_MAX,
};
#define NLRIG_A_SEND_MAX (__NLRIG_A_SEND_MAX - 1)

/**
 * enum nlrig_dump_attr - attributes of NLRIG_MSG_DUMP
 * @NLRIG_A_DUMP_UNSPEC: unused
 * @NLRIG_A_DUMP_COUNT: u32, number of messages, 1 to NLRIG_COUNT_MAX; required
 * @__NLRIG_A_DUMP_MAX: internal use
 */
enum nlrig_dump_attr {
	NLRIG_A_DUMP_UNSPEC,
	NLRIG_A_DUMP_COUNT,
	__NLRIG_A_DUMP_MAX,
};
#define NLRIG_A_DUMP_MAX (__NLRIG_A_DUMP_MAX - 1)

/**
 * enum nlrig_state_attr - attributes of NLRIG_MSG_STATE and its reply
 * @NLRIG_A_STATE_UNSPEC: unused
 * @NLRIG_A_STATE_RESET: flag of the request: clear the counters once they are
 *	read, even if the reply cannot be queued. What describes the present
 *	stays: active calls, the queue and its charge; a peak becomes the number
 *	of active calls. EBUSY while an NLRIG_MSG_SEND is running. Needs
 *	CAP_NET_ADMIN.
 * @NLRIG_A_STATE_SEND: nest of &enum nlrig_send_result_attr, the last
 *	NLRIG_MSG_SEND
 * @NLRIG_A_STATE_INPUT: nest of &enum nlrig_calls_attr, the input callback of
 *	NETLINK_NLRIG, this call included
 * @NLRIG_A_STATE_ARTICLE: nest of &enum nlrig_article_attr
 * @NLRIG_A_STATE_PAPER: nest of &enum nlrig_paper_attr
 * @__NLRIG_A_STATE_MAX: internal use
 *
 * Requests contain NLRIG_A_STATE_RESET only, replies all others.
 */
enum nlrig_state_attr {
	NLRIG_A_STATE_UNSPEC,
	NLRIG_A_STATE_RESET,
	NLRIG_A_STATE_SEND,
	NLRIG_A_STATE_INPUT,
	NLRIG_A_STATE_ARTICLE,
	NLRIG_A_STATE_PAPER,
	__NLRIG_A_STATE_MAX,
};
#define NLRIG_A_STATE_MAX (__NLRIG_A_STATE_MAX - 1)

/**
 * enum nlrig_send_result_attr - result of an NLRIG_MSG_SEND
 * @NLRIG_A_RESULT_UNSPEC: unused
 * @NLRIG_A_RESULT_SENT: u32, number of messages that netlink accepted
 * @NLRIG_A_RESULT_FAILED: u32, number of messages that failed
 * @NLRIG_A_RESULT_FIRST_FAILED: u32, number of the first message that failed,
 *	0xffffffff if none
 * @NLRIG_A_RESULT_ERRNO: u32, positive errno of that message, 0 if none
 * @NLRIG_A_RESULT_DONE: u32, 1 if no request is running, else 0
 * @NLRIG_A_RESULT_ELAPSED_US: u32, microseconds spent in netlink, without the
 *	delays between messages
 * @NLRIG_A_RESULT_CONTEXTS: u32, NLRIG_IN_* flags of the contexts that the
 *	kernel found itself in when it sent
 * @__NLRIG_A_RESULT_MAX: internal use
 */
enum nlrig_send_result_attr {
	NLRIG_A_RESULT_UNSPEC,
	NLRIG_A_RESULT_SENT,
	NLRIG_A_RESULT_FAILED,
	NLRIG_A_RESULT_FIRST_FAILED,
	NLRIG_A_RESULT_ERRNO,
	NLRIG_A_RESULT_DONE,
	NLRIG_A_RESULT_ELAPSED_US,
	NLRIG_A_RESULT_CONTEXTS,
	__NLRIG_A_RESULT_MAX,
};
#define NLRIG_A_RESULT_MAX (__NLRIG_A_RESULT_MAX - 1)

/* Flags of NLRIG_A_RESULT_CONTEXTS. */
#define NLRIG_IN_TASK (1 << 0)
#define NLRIG_IN_SOFTIRQ (1 << 1)
#define NLRIG_IN_HARDIRQ (1 << 2)

/**
 * enum nlrig_calls_attr - counters of the calls of an input callback
 * @NLRIG_A_CALLS_UNSPEC: unused
 * @NLRIG_A_CALLS_TOTAL: u32, number of calls
 * @NLRIG_A_CALLS_ACTIVE: u32, number of calls that have not returned
 * @NLRIG_A_CALLS_PEAK: u32, highest number of active calls
 * @__NLRIG_A_CALLS_MAX: internal use
 */
enum nlrig_calls_attr {
	NLRIG_A_CALLS_UNSPEC,
	NLRIG_A_CALLS_TOTAL,
	NLRIG_A_CALLS_ACTIVE,
	NLRIG_A_CALLS_PEAK,
	__NLRIG_A_CALLS_MAX,
};
#define NLRIG_A_CALLS_MAX (__NLRIG_A_CALLS_MAX - 1)

/**
 * enum nlrig_article_attr - counters of the article's protocol
 * @NLRIG_A_ARTICLE_UNSPEC: unused
 * @NLRIG_A_ARTICLE_CALLS: nest of &enum nlrig_calls_attr, the input callback
 * @NLRIG_A_ARTICLE_DEPTH: u32, highest number of active calls of one task: 1
 *	unless the callback calls itself, 0 if only interrupts have called it
 * @NLRIG_A_ARTICLE_LENGTH: u32, bytes of the last datagram
 * @NLRIG_A_ARTICLE_SRC_PORTID: u32, source port of the last datagram
 * @NLRIG_A_ARTICLE_NLMSG_PID: u32, nlmsg_pid of the last datagram, 0 if it is
 *	shorter than a header
 * @NLRIG_A_ARTICLE_SENT: u32, number of replies that netlink accepted
 * @NLRIG_A_ARTICLE_REFUSED: u32, number of replies that netlink refused
 * @NLRIG_A_ARTICLE_ERRNO: u32, positive errno of the last refusal, 0 if none
 * @__NLRIG_A_ARTICLE_MAX: internal use
 */
enum nlrig_article_attr {
	NLRIG_A_ARTICLE_UNSPEC,
	NLRIG_A_ARTICLE_CALLS,
	NLRIG_A_ARTICLE_DEPTH,
	NLRIG_A_ARTICLE_LENGTH,
	NLRIG_A_ARTICLE_SRC_PORTID,
	NLRIG_A_ARTICLE_NLMSG_PID,
	NLRIG_A_ARTICLE_SENT,
	NLRIG_A_ARTICLE_REFUSED,
	NLRIG_A_ARTICLE_ERRNO,
	__NLRIG_A_ARTICLE_MAX,
};
#define NLRIG_A_ARTICLE_MAX (__NLRIG_A_ARTICLE_MAX - 1)

/**
 * enum nlrig_paper_attr - counters of the paper's protocol
 * @NLRIG_A_PAPER_UNSPEC: unused
 * @NLRIG_A_PAPER_RECEIVED: u32, number of datagrams that arrived
 * @NLRIG_A_PAPER_DROPPED: u32, number of datagrams that could not be copied
 * @NLRIG_A_PAPER_DONE: u32, number of datagrams that a thread has finished,
 *	whether netlink accepted the reply or not
 * @NLRIG_A_PAPER_QUEUED: u32, number of datagrams in the queue
 * @NLRIG_A_PAPER_CHARGED: u32, bytes that the kernel socket is charged for the
 *	queue (sk_rmem_alloc)
 * @__NLRIG_A_PAPER_MAX: internal use
 */
enum nlrig_paper_attr {
	NLRIG_A_PAPER_UNSPEC,
	NLRIG_A_PAPER_RECEIVED,
	NLRIG_A_PAPER_DROPPED,
	NLRIG_A_PAPER_DONE,
	NLRIG_A_PAPER_QUEUED,
	NLRIG_A_PAPER_CHARGED,
	__NLRIG_A_PAPER_MAX,
};
#define NLRIG_A_PAPER_MAX (__NLRIG_A_PAPER_MAX - 1)

/**
 * struct nlrig_exchange - argument of NLRIG_IOC_EXCHANGE
 * @value: any number; returned plus one
 * @count: output only, the number of exchanges so far, this one included
 *
 * The kernel also writes what it returns to the start of the page that mmap()
 * of /dev/nlrig maps.
 */
struct nlrig_exchange {
	__aligned_u64 value;
	__aligned_u64 count;
};

#define NLRIG_IOC_MAGIC 'N'
/* Exchanges a struct nlrig_exchange. */
#define NLRIG_IOC_EXCHANGE _IOWR(NLRIG_IOC_MAGIC, 1, struct nlrig_exchange)
/* Starts a timer of so many milliseconds, at most NLRIG_DELAY_MS_MAX. Each
 * expiry makes the file readable and sends SIGIO to those who have asked for it.
 * A read returns the number of expiries so far as a __u64, once per expiry.
 */
#define NLRIG_IOC_WAKE _IOW(NLRIG_IOC_MAGIC, 2, __u32)

#endif /* _UAPI_NLRIG_H */
