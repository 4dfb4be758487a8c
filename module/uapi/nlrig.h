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
 * Errors, as struct nlmsgerr in an NLMSG_ERROR message:
 *	EINVAL		the body is shorter than its struct, or there is no such
 *			fault
 *	EPERM		faults are switched off, or not for this sender
 *	EOPNOTSUPP	the message type is not one of the above
 *	ENOMEM		no memory for the answer
 * A message without NLM_F_REQUEST, or of a type below NLMSG_MIN_TYPE, is
 * skipped without an answer, as everywhere in netlink.
 */
#ifndef _UAPI_NLRIG_H
#define _UAPI_NLRIG_H

#include <linux/types.h>

/* The protocol number: the third argument of socket(2). The first free numbers
 * for private use lie above NETLINK_SMC (22); 25 is what the texts under test
 * use.
 */
#define NETLINK_NLRIG 25

/* Message types; those below 16 (NLMSG_MIN_TYPE) are netlink's own. */
#define NLRIG_MSG_ECHO 16
#define NLRIG_MSG_ECHO_REPLY 17
#define NLRIG_MSG_FAULT 18

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

#endif /* _UAPI_NLRIG_H */
