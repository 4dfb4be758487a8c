/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * The netlink protocol of the nlrig module.
 *
 * This header documents the protocol and is the one source of its numbers: the
 * Rust side reads the constants below from this very file when it is built, so
 * each is a plain "#define NAME number".
 *
 * A program opens a socket of protocol NETLINK_NLRIG and sends messages, each a
 * struct nlmsghdr (see netlink(7)) with NLM_F_REQUEST set, to port 0, which is
 * the kernel. One datagram may carry several messages; each is answered.
 *
 * NLRIG_MSG_ECHO
 *	Body: struct nlrig_echo. The kernel answers with NLRIG_MSG_ECHO_REPLY
 *	and the same sequence number. The answer goes to the port that the
 *	kernel saw the message come from, whatever nlmsg_pid says; that port is
 *	in the answer's nlmsg_pid and in its body. The answer is queued before
 *	the sender's system call returns.
 *
 * NLRIG_MSG_FAULT
 *	Body: struct nlrig_fault. The kernel does the named wrong thing at once,
 *	in the sender's context, and mostly never answers: these are the rig's
 *	own demonstrations that it sees what goes wrong. Refused unless the
 *	module's parameter "faults" was switched on and the sender has
 *	CAP_SYS_ADMIN.
 *
 * NLRIG_MSG_SEND
 *	Attributes: NLRIG_A_COUNT and, if wanted, NLRIG_A_SIZE, NLRIG_A_DELAY_MS,
 *	NLRIG_A_PORTID, NLRIG_A_GROUP, NLRIG_A_CONTEXT, NLRIG_A_PROTOCOL and
 *	NLRIG_A_BLOCK. The kernel sends so many NLRIG_MSG_DATA. From process
 *	context it has sent them, and waited between them, before the sender's
 *	system call returns; from any other it has not. What became of it is
 *	read with NLRIG_MSG_STATE, because the asker's own receive buffer may
 *	be the one that is full: that messages failed is no error of the
 *	request, whose acknowledgement says that it was begun. A signal to the
 *	sender ends it if it is sent from process context, and unloading the
 *	module ends any; the message that was due then has failed with EINTR
 *	and is the last. One at a time: EBUSY. Needs CAP_NET_ADMIN.
 *
 *	A timer, a tasklet and an hrtimer send one message each time if there
 *	is a delay, and if not for a millisecond, then on the next occasion: the
 *	next tick, the next softirq, or 100 microseconds later. A delay before
 *	a tasklet is made by a timer that schedules it. What is sent to a group
 *	that nobody is in fails with ESRCH.
 *
 * NLRIG_MSG_DATA
 *	What the kernel sends for NLRIG_MSG_SEND and NLRIG_MSG_DUMP. nlmsg_seq
 *	counts from 0 in the one and is that of the request in the other; the
 *	body is NLRIG_A_SIZE bytes (in a dump: four), of which the first four
 *	are the number of the message from 0 on, as far as there are so many,
 *	and the others zero.
 *
 * NLRIG_MSG_DUMP
 *	With NLM_F_DUMP; attribute NLRIG_A_COUNT. The kernel answers with so
 *	many NLRIG_MSG_DATA in parts, and NLMSG_DONE.
 *
 * NLRIG_MSG_STATE
 *	Answered with NLRIG_MSG_STATE_REPLY: the attributes from
 *	NLRIG_A_SENT on, as they are before a reset. With the flag
 *	NLRIG_A_RESET, which needs CAP_NET_ADMIN, the counters are zero
 *	afterwards, but for those of what is there at the time (*_NOW,
 *	*_WAITING, *_CHARGED) and NLRIG_A_FIRST_FAILED; EBUSY while a
 *	NLRIG_MSG_SEND is under way.
 *
 * Two more protocols exist once they are switched on by a module parameter, at
 * load time or later, and then until the module is unloaded: they do what the
 * modules of the texts under test do, faults included, and validate nothing.
 * PROTOCOL is 23 to 31, a number that the kernel does not know itself. Writing
 * the parameter fails with EBUSY if the module is on, and with EADDRINUSE if
 * the protocol is taken.
 *
 * article=PROTOCOL	the module of the article, ported to this kernel: to any
 *	datagram it answers "article_replies" times (10), each after a wait of
 *	"article_delay_ms" (3000), to the port that nlmsg_pid says, or to the one
 *	the kernel saw if "article_reply_to_source" is set. With
 *	"article_writes_literal" it ends its text as the article prints it, by a
 *	write into a string literal. "article_init_fails" at load time makes the
 *	module's init return 1, as the article's does when it gets no socket:
 *	all but the article's socket is there then.
 * paper=PROTOCOL	the asynchronous module of the paper: its input callback
 *	queues a copy, or the datagram itself if "paper_takes_reference" is set,
 *	and "paper_threads" threads (1 to 8, as it is when the module is
 *	switched on) answer to the port the kernel saw, each message after
 *	"paper_delay_ms" of sleep. The answer is an NLRIG_MSG_DATA with the
 *	sequence number of the message and 32 bytes, the first of its body.
 *	NLRIG_A_PAPER_* count.
 *
 * Besides netlink, the same module offers what the texts compare it with:
 *	/dev/nlrig		ioctl, blocking read, poll, SIGIO, mmap of one
 *				page; all state is that of the open file
 *	/proc/nlrig/value	write a number, read it plus one; poll (POLLPRI:
 *				written since this open file was last read)
 *	/proc/nlrig/big		NLRIG_BIG_BYTES to read, in one call if wanted:
 *				lines of 64 bytes, each its number in decimal
 *	/sys/kernel/nlrig/value	write a number, read it plus one
 *	/sys/kernel/nlrig/event	poll (sysfs_notify): counts writes to "value"
 *	/sys/kernel/nlrig/page	as much text as one read of sysfs gives
 *	/sys/kernel/nlrig/blob	NLRIG_BIG_BYTES to read and write
 *
 * Errors, as struct nlmsgerr in an NLMSG_ERROR message, most with a text of the
 * extended acknowledgement:
 *	EINVAL		the body is shorter than its struct, an attribute is
 *			missing, too short, unknown or does not go with another
 *			one, or there is no such fault
 *	ERANGE		an attribute is out of its range, or too long
 *	EPERM		not switched on, or not for this sender
 *	EBUSY		a NLRIG_MSG_SEND, or a dump to the same socket, is under
 *			way
 *	EOPNOTSUPP	the message type is not one of the above
 *	ENOMEM		no memory for the answer
 * A message without NLM_F_REQUEST, or of a type below NLMSG_MIN_TYPE, is
 * skipped without an answer, as everywhere in netlink, but for the
 * acknowledgement that NLM_F_ACK asks for.
 */
#ifndef _UAPI_NLRIG_H
#define _UAPI_NLRIG_H

#include <linux/types.h>

/* The protocol number: the third argument of socket(2). The first free numbers
 * for private use lie above NETLINK_SMC (22); 25 is what the texts under test
 * use.
 */
#define NETLINK_NLRIG 25
/* Where the rig switches on the modules of the texts. */
#define NETLINK_NLRIG_ARTICLE 26
#define NETLINK_NLRIG_PAPER 27

/* Multicast groups of NETLINK_NLRIG: more than a mask of 32 bits has. */
#define NLRIG_GROUPS 64

/* Message types; those below 16 (NLMSG_MIN_TYPE) are netlink's own. */
#define NLRIG_MSG_ECHO 16
#define NLRIG_MSG_ECHO_REPLY 17
#define NLRIG_MSG_FAULT 18
#define NLRIG_MSG_SEND 19
#define NLRIG_MSG_DATA 20
#define NLRIG_MSG_DUMP 21
#define NLRIG_MSG_STATE 22
#define NLRIG_MSG_STATE_REPLY 23

/* Attributes, each a __u32 unless said. */
/* How many messages: 1 to NLRIG_COUNT_MAX. */
#define NLRIG_A_COUNT 1
/* Bytes of body of each: 0 to NLRIG_SIZE_MAX; 0 if absent. */
#define NLRIG_A_SIZE 2
/* Milliseconds before each: 0 to NLRIG_DELAY_MS_MAX; 0 if absent. */
#define NLRIG_A_DELAY_MS 3
/* To this port; the sender's if absent. With NLRIG_A_GROUP the port that does
 * not get it; none if absent. 0, the kernel itself, only through the article's
 * socket: the message goes into its input callback, from whatever context. That
 * waits and then answers the same way, deeper and deeper: the machine dies.
 */
#define NLRIG_A_PORTID 4
/* To this multicast group, by number: 1 to NLRIG_GROUPS. */
#define NLRIG_A_GROUP 5
/* Where the kernel sends from: NLRIG_CONTEXT_*; the sender's system call if
 * absent.
 */
#define NLRIG_A_CONTEXT 6
/* Through the kernel's socket of this protocol; NETLINK_NLRIG if absent. */
#define NLRIG_A_PROTOCOL 7
/* A flag, without a value: wait for room in the receiver's buffer. Only from
 * process context and from a thread, and not for a group. In process context a
 * receiver who is the sender waits for itself, until a signal comes.
 */
#define NLRIG_A_BLOCK 8
/* A flag: set the counters back. */
#define NLRIG_A_RESET 9
/* Of the last NLRIG_MSG_SEND: messages that were sent, */
#define NLRIG_A_SENT 10
/* that failed, */
#define NLRIG_A_FAILED 11
/* the number of the first that failed (0xffffffff: none), */
#define NLRIG_A_FIRST_FAILED 12
/* its error as a positive errno (0: none), */
#define NLRIG_A_ERRNO 13
/* whether it is over: 0 or 1, */
#define NLRIG_A_OVER 14
/* the microseconds in netlink, waits between messages not counted, */
#define NLRIG_A_ELAPSED_US 15
/* and where it was sent from, as the kernel itself says: NLRIG_IN_* or-ed. */
#define NLRIG_A_IN 16
/* Of NETLINK_NLRIG: calls of the input callback, those at once now (this one
 * among them) and at most.
 */
#define NLRIG_A_INPUTS 17
#define NLRIG_A_INPUTS_NOW 18
#define NLRIG_A_INPUTS_MAX 19
/* Of the article's module, the same; */
#define NLRIG_A_ARTICLE_INPUTS 20
#define NLRIG_A_ARTICLE_INPUTS_NOW 21
#define NLRIG_A_ARTICLE_INPUTS_MAX 22
/* how deep one task has been in it at most: 1 unless it calls itself, 0 if only
 * interrupts have been;
 */
#define NLRIG_A_ARTICLE_DEPTH 23
/* of the last datagram its length, the port the kernel saw and the one that
 * nlmsg_pid said (0 if it is shorter than a header);
 */
#define NLRIG_A_ARTICLE_LENGTH 24
#define NLRIG_A_ARTICLE_SEEN 25
#define NLRIG_A_ARTICLE_SAID 26
/* answers that netlink took and that it refused, with the last error as a
 * positive errno.
 */
#define NLRIG_A_ARTICLE_SENT 27
#define NLRIG_A_ARTICLE_REFUSED 28
#define NLRIG_A_ARTICLE_ERRNO 29
/* Of the paper's module: datagrams that came in, that could not be copied,
 * that a thread is through with (whether netlink took the answer or not), that
 * wait in the queue; the bytes that the kernel's socket is charged for them
 * (sk_rmem_alloc).
 */
#define NLRIG_A_PAPER_INPUTS 30
#define NLRIG_A_PAPER_LOST 31
#define NLRIG_A_PAPER_DONE 32
#define NLRIG_A_PAPER_WAITING 33
#define NLRIG_A_PAPER_CHARGED 34
/* The highest of them. */
#define NLRIG_A_MAX 34

#define NLRIG_COUNT_MAX 100000
#define NLRIG_SIZE_MAX 1048576
#define NLRIG_DELAY_MS_MAX 10000

/* NLRIG_A_CONTEXT */
/* The sender's system call. */
#define NLRIG_CONTEXT_PROCESS 0
/* A thread of the kernel. */
#define NLRIG_CONTEXT_THREAD 1
/* A timer_list timer: softirq. */
#define NLRIG_CONTEXT_TIMER 2
/* A tasklet: softirq. */
#define NLRIG_CONTEXT_TASKLET 3
/* An hrtimer that expires in its interrupt. */
#define NLRIG_CONTEXT_HARDIRQ 4

/* NLRIG_A_IN */
#define NLRIG_IN_TASK 1
#define NLRIG_IN_SOFTIRQ 2
#define NLRIG_IN_HARDIRQ 4

/* Bytes of /proc/nlrig/big and /sys/kernel/nlrig/blob. */
#define NLRIG_BIG_BYTES 1048576

/* What struct nlrig_fault may ask for. */
/* Nothing: the message is answered as any other. */
#define NLRIG_FAULT_NONE 0
/* panic(). */
#define NLRIG_FAULT_PANIC 1
/* A write through a null pointer: an oops that kills the sender. */
#define NLRIG_FAULT_NULL 2
/* WARN(); the sender lives. */
#define NLRIG_FAULT_WARN 3
/* A softirq that never ends, on the sender's CPU; the message is answered. */
#define NLRIG_FAULT_SOFTIRQ 4
/* The sender waits for ever and no signal wakes it: state D. */
#define NLRIG_FAULT_BLOCK 5
/* Every CPU spins with interrupts off. */
#define NLRIG_FAULT_LIVELOCK 6
/* An exception without a handler, twice over: the machine resets. */
#define NLRIG_FAULT_TRIPLE 7

/* The size of struct nlrig_echo in bytes, the same for every word size. */
#define NLRIG_ECHO_SIZE 16
/* The size of struct nlrig_fault in bytes. */
#define NLRIG_FAULT_SIZE 8

/**
 * struct nlrig_echo - body of NLRIG_MSG_ECHO and NLRIG_MSG_ECHO_REPLY
 * @cookie: chosen by the sender, comes back unchanged
 * @portid: ignored in a request; in an answer the port the kernel saw
 * @reserved: ignored in a request; zero in an answer
 */
struct nlrig_echo {
	__aligned_u64 cookie;
	__u32 portid;
	__u32 reserved;
};

/**
 * struct nlrig_fault - body of NLRIG_MSG_FAULT
 * @kind: one of NLRIG_FAULT_*
 * @reserved: ignored
 */
struct nlrig_fault {
	__u32 kind;
	__u32 reserved;
};

/**
 * struct nlrig_exchange - argument of NLRIG_IOC_EXCHANGE
 * @value: a number; comes back plus one
 * @count: ignored; comes back as the number of exchanges so far, this one
 *	   included
 *
 * The same two numbers stand at the start of the page that mmap() of
 * /dev/nlrig gives.
 */
struct nlrig_exchange {
	__aligned_u64 value;
	__aligned_u64 count;
};

/* Numbers of the ioctls of /dev/nlrig, type 'N'. */
/* _IOWR, struct nlrig_exchange. */
#define NLRIG_IOC_EXCHANGE_NR 1
/* _IOW, __u32: after so many milliseconds (at most NLRIG_DELAY_MS_MAX) a timer
 * of the kernel makes the device readable: poll, a blocked read, and SIGIO to
 * who asked for it. read gives the number of expiries so far, a __u64, once for
 * each.
 */
#define NLRIG_IOC_WAKE_NR 2

#endif /* _UAPI_NLRIG_H */
