// SPDX-License-Identifier: GPL-2.0-only
/*
 * NLRIG_MSG_FAULT: go wrong on request.
 *
 * A rig is worth what its failures are worth: each of these must come out as
 * its own verdict. They are off until somebody with the right to load modules
 * switches them on.
 */

#include <linux/capability.h>
#include <linux/interrupt.h>
#include <linux/moduleparam.h>
#include <linux/panic.h>
#include <linux/sched.h>
#include <linux/smp.h>

#include "nlrig.h"

static_assert(sizeof(struct nlrig_fault) == NLRIG_FAULT_SIZE);

static bool faults;
module_param(faults, bool, 0600);
MODULE_PARM_DESC(faults, "obey NLRIG_MSG_FAULT, which breaks this kernel (default: no)");

static void nlrig_spin(void *unused)
{
	for (;;)
		cpu_relax();
}

static void nlrig_stuck_softirq(struct tasklet_struct *unused)
{
	nlrig_spin(NULL);
}

/* Never released: this kernel is not meant to go on. */
static DECLARE_TASKLET(nlrig_stuck, nlrig_stuck_softirq);

static noinline void nlrig_null_dereference(void)
{
	/* Volatile and not constant: the compiler must neither leave it out
	 * nor make a trap of it.
	 */
	static int *volatile nowhere;

	*nowhere = 1;
}

static noinline void nlrig_block(void)
{
	for (;;) {
		set_current_state(TASK_UNINTERRUPTIBLE);
		schedule();
	}
}

static noinline void nlrig_triple_fault(void)
{
	/* Without a table of handlers a breakpoint is a double fault, and that
	 * is a triple fault.
	 */
	static const struct {
		u16 size;
		unsigned long address;
	} __packed none;

	asm volatile("lidt %0; int3" : : "m"(none));
}

/**
 * nlrig_fault() - do what one NLRIG_MSG_FAULT asks for
 * @skb: the datagram it came in
 * @nlh: the message in it, whose body is long enough
 * @tb: unused
 * @extack: where the reason of a refusal goes
 *
 * Return: 0 for a fault after which the sender goes on, -EINVAL, -EPERM; does
 * not return after most faults.
 */
int nlrig_fault(struct sk_buff *skb, struct nlmsghdr *nlh, struct nlattr **tb,
		struct netlink_ext_ack *extack)
{
	const struct nlrig_fault *request;

	if (!READ_ONCE(faults) || !netlink_capable(skb, CAP_SYS_ADMIN)) {
		NL_SET_ERR_MSG(extack, "faults are switched off or not for you");
		return -EPERM;
	}
	request = nlmsg_data(nlh);

	switch (request->kind) {
	case NLRIG_FAULT_NONE:
		return 0;
	case NLRIG_FAULT_PANIC:
		panic("nlrig: a panic on request");
	case NLRIG_FAULT_NULL:
		nlrig_null_dereference();
		return 0;
	case NLRIG_FAULT_WARN:
		WARN(1, "nlrig: a warning on request");
		return 0;
	case NLRIG_FAULT_SOFTIRQ:
		/* It runs where bottom halves are let in again, in the sender:
		 * left to ksoftirqd, the sender might be gone, and the machine
		 * with it, before that has a turn.
		 */
		local_bh_disable();
		tasklet_schedule(&nlrig_stuck);
		local_bh_enable();
		return 0;
	case NLRIG_FAULT_BLOCK:
		nlrig_block();
		return 0;
	case NLRIG_FAULT_LIVELOCK:
		on_each_cpu(nlrig_spin, NULL, 1);
		return 0;
	case NLRIG_FAULT_TRIPLE:
		nlrig_triple_fault();
		return 0;
	default:
		NL_SET_ERR_MSG(extack, "no such fault");
		return -EINVAL;
	}
}
