// SPDX-License-Identifier: GPL-2.0-only
/*
 * The asynchronous module of the paper, ported to this kernel.
 *
 * The input callback queues and wakes, threads answer. Nothing bounds the
 * queue, as nothing does there: a copy is charged to nobody.
 */

#include <linux/kthread.h>
#include <linux/moduleparam.h>
#include <linux/wait.h>
#include <net/sock.h>

#include "nlrig.h"

/* Bytes of body of an answer. */
#define PAPER_ANSWER 32
#define PAPER_THREADS_MAX 8

module_param_cb(paper, &nlrig_switch_ops, &nlrig_paper, 0600);
MODULE_PARM_DESC(paper, "be the paper's module on this netlink protocol, 23 to 31 (default: 0, off)");

static int paper_threads_set(const char *value, const struct kernel_param *kp)
{
	return param_set_uint_minmax(value, kp, 1, PAPER_THREADS_MAX);
}

static const struct kernel_param_ops paper_threads_ops = {
	.set = paper_threads_set,
	.get = param_get_uint,
};

/* Read when the module is switched on, with the lock of the parameters held. */
static unsigned int paper_threads = 1;
module_param_cb(paper_threads, &paper_threads_ops, &paper_threads, 0600);
MODULE_PARM_DESC(paper_threads, "threads that answer, 1 to 8 (default: 1)");

static unsigned int paper_delay_ms;
module_param(paper_delay_ms, uint, 0600);
MODULE_PARM_DESC(paper_delay_ms, "milliseconds of sleep before each answer (default: 0)");

static bool paper_takes_reference;
module_param(paper_takes_reference, bool, 0600);
MODULE_PARM_DESC(paper_takes_reference, "queue the datagram itself, not a copy (default: no)");

static struct task_struct *paper_running[PAPER_THREADS_MAX];
static atomic_t paper_inputs;
static atomic_t paper_lost;
static atomic_t paper_done;

/* skb->sk is the kernel's socket, as in nlrig_echo(): the paper's pointer to it
 * is not set yet when the first message comes in.
 */
static void receive_us_msg(struct sk_buff *skb)
{
	struct sock *nl_sk = skb->sk;
	struct sk_buff *nl_skb;

	atomic_inc(&paper_inputs);
	nl_skb = READ_ONCE(paper_takes_reference) ? skb_get(skb) :
						    skb_copy(skb, GFP_ATOMIC);
	if (nl_skb)
		skb_queue_tail(&nl_sk->sk_receive_queue, nl_skb);
	else
		atomic_inc(&paper_lost);
	wake_up_interruptible(sk_sleep(nl_sk));
}

/* To the port that the kernel saw: the copy of a datagram has it too. */
static void paper_answer(struct sock *nl_sk, struct sk_buff *skb)
{
	u32 portid = NETLINK_CB(skb).portid;
	bool whole = skb->len >= NLMSG_HDRLEN;
	struct nlmsghdr *nlh;
	struct sk_buff *out;

	out = nlmsg_new(PAPER_ANSWER, GFP_KERNEL);
	if (!out)
		return;
	nlh = nlmsg_put(out, portid, whole ? nlmsg_hdr(skb)->nlmsg_seq : 0,
			NLRIG_MSG_DATA, PAPER_ANSWER, 0);
	if (WARN_ON_ONCE(!nlh)) {
		nlmsg_free(out);
		return;
	}
	memset(nlmsg_data(nlh), 0, PAPER_ANSWER);
	if (whole)
		memcpy(nlmsg_data(nlh), nlmsg_data(nlmsg_hdr(skb)),
		       min_t(unsigned int, skb->len - NLMSG_HDRLEN,
			     PAPER_ANSWER));
	nlmsg_end(out, nlh);
	nlmsg_unicast(nl_sk, out, portid);
}

static int nlmsg_process_thread(void *data)
{
	struct sock *nl_sk = data;
	struct sk_buff_head *queue = &nl_sk->sk_receive_queue;
	unsigned int delay_ms;
	struct sk_buff *skb;

	while (!kthread_should_stop()) {
		wait_event_interruptible(*sk_sleep(nl_sk),
					 !skb_queue_empty_lockless(queue) ||
					 kthread_should_stop());
		skb = skb_dequeue(queue);
		if (!skb)
			continue;
		delay_ms = READ_ONCE(paper_delay_ms);
		if (delay_ms)
			schedule_timeout_interruptible(msecs_to_jiffies(delay_ms));
		paper_answer(nl_sk, skb);
		consume_skb(skb);
		atomic_inc(&paper_done);
		cond_resched();
	}
	return 0;
}

/* Before the socket is released: a datagram that was not copied is charged to
 * it, and gives that back, to a socket that has to be there, when it is freed.
 * What is still queued netlink frees with the socket.
 */
static void paper_stop(void)
{
	int i;

	for (i = 0; i < PAPER_THREADS_MAX && paper_running[i]; i++) {
		kthread_stop(paper_running[i]);
		paper_running[i] = NULL;
	}
}

static int paper_start(struct sock *nl_sk)
{
	struct task_struct *thread;
	int i;

	for (i = 0; i < paper_threads; i++) {
		thread = kthread_run(nlmsg_process_thread, nl_sk,
				     "nlrig/paper%d", i);
		if (IS_ERR(thread)) {
			paper_stop();
			return PTR_ERR(thread);
		}
		paper_running[i] = thread;
	}
	return 0;
}

struct nlrig_switch nlrig_paper = {
	.groups = 0,
	.input = receive_us_msg,
	.start = paper_start,
	.stop = paper_stop,
};

int nlrig_paper_put(struct sk_buff *skb)
{
	struct sock *sk = smp_load_acquire(&nlrig_paper.sk);
	u32 waiting = sk ? skb_queue_len_lockless(&sk->sk_receive_queue) : 0;
	u32 charged = sk ? sk_rmem_alloc_get(sk) : 0;

	if (nla_put_u32(skb, NLRIG_A_PAPER_INPUTS,
			atomic_read(&paper_inputs)) ||
	    nla_put_u32(skb, NLRIG_A_PAPER_LOST, atomic_read(&paper_lost)) ||
	    nla_put_u32(skb, NLRIG_A_PAPER_DONE, atomic_read(&paper_done)) ||
	    nla_put_u32(skb, NLRIG_A_PAPER_WAITING, waiting) ||
	    nla_put_u32(skb, NLRIG_A_PAPER_CHARGED, charged))
		return -EMSGSIZE;
	return 0;
}

/* What waits and what is charged stays: it is there. */
void nlrig_paper_reset(void)
{
	atomic_set(&paper_inputs, 0);
	atomic_set(&paper_lost, 0);
	atomic_set(&paper_done, 0);
}
