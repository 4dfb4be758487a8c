// SPDX-License-Identifier: GPL-2.0-only
/*
 * NLRIG_MSG_FAULT: inject a fault into this kernel.
 *
 * The rig's controls use it: each fault must lead to its own verdict. Faults are
 * refused until somebody with the right to load modules sets "faults".
 */

#include <linux/capability.h>
#include <linux/interrupt.h>
#include <linux/moduleparam.h>
#include <linux/panic.h>
#include <linux/sched.h>
#include <linux/smp.h>

#include "nlrig.h"

static_assert(sizeof(struct nlrig_fault) == 8);

static bool faults;
module_param(faults, bool, 0600);
MODULE_PARM_DESC(faults, "accept NLRIG_MSG_FAULT, which breaks this kernel (default: no)");

static void nlrig_spin(void *unused)
{
	for (;;)
		cpu_relax();
}

static void nlrig_stuck_softirq(struct tasklet_struct *unused)
{
	nlrig_spin(NULL);
}

/* Never killed: the kernel does not survive it. */
static DECLARE_TASKLET(nlrig_stuck, nlrig_stuck_softirq);

static noinline void nlrig_null_dereference(void)
{
	/* Volatile and not constant, so that the compiler neither removes the
	 * write nor replaces it by a trap.
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

#ifdef CONFIG_X86
static noinline int nlrig_triple_fault(struct netlink_ext_ack *extack)
{
	/* Without an interrupt descriptor table a breakpoint causes a double
	 * fault, and that causes a triple fault.
	 */
	static const struct {
		u16 size;
		unsigned long address;
	} __packed none;

	asm volatile("lidt %0; int3" : : "m"(none));
	return 0;
}
#else
static int nlrig_triple_fault(struct netlink_ext_ack *extack)
{
	NL_SET_ERR_MSG(extack, "only x86 has a triple fault");
	return -EOPNOTSUPP;
}
#endif

/**
 * nlrig_fault() - handle NLRIG_MSG_FAULT
 * @skb: datagram with the request
 * @nlh: header of the request, whose body has the right size
 * @tb: unused
 * @extack: receives the reason of a refusal
 *
 * Does not return after most faults.
 *
 * Return: 0 after a fault that the requester survives, -EINVAL, -EPERM or
 * -EOPNOTSUPP.
 */
int nlrig_fault(struct sk_buff *skb, struct nlmsghdr *nlh, struct nlattr **tb,
		struct netlink_ext_ack *extack)
{
	const struct nlrig_fault *request = nlmsg_data(nlh);

	if (!READ_ONCE(faults) || !netlink_capable(skb, CAP_SYS_ADMIN)) {
		NL_SET_ERR_MSG(extack, "NLRIG_MSG_FAULT needs the parameter faults and CAP_SYS_ADMIN");
		return -EPERM;
	}
	if (request->reserved) {
		NL_SET_ERR_MSG(extack, "reserved must be zero");
		return -EINVAL;
	}

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
		/* local_bh_enable() runs the tasklet in this task. In ksoftirqd
		 * it could run after the requester has ended, and the guest with
		 * it.
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
		return nlrig_triple_fault(extack);
	default:
		NL_SET_ERR_MSG(extack, "unknown fault");
		return -EINVAL;
	}
}
