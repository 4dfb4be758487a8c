// SPDX-License-Identifier: GPL-2.0-only
/*
 * The paper's asynchronous module, ported to this kernel.
 *
 * The input callback queues the datagram and wakes threads, which reply. As in
 * the original nothing bounds the queue: no socket is charged for a copy.
 */

#include <linux/kthread.h>
#include <linux/moduleparam.h>
#include <linux/wait.h>
#include <net/sock.h>

#include "nlrig.h"

/* Bytes of body of a reply. */
#define PAPER_REPLY_SIZE 32
#define PAPER_THREADS_MAX 8

module_param_cb(paper, &nlrig_toggle_ops, &nlrig_paper, 0600);
MODULE_PARM_DESC(paper, "netlink protocol of the paper's module, 23 to 31 (default: 0, disabled)");

static int paper_threads_set(const char *value, const struct kernel_param *kp)
{
	return param_set_uint_minmax(value, kp, 1, PAPER_THREADS_MAX);
}

static const struct kernel_param_ops paper_threads_ops = {
	.set = paper_threads_set,
	.get = param_get_uint,
};

/* Read by paper_start(), which runs with the parameter lock held. */
static unsigned int paper_threads = 1;
module_param_cb(paper_threads, &paper_threads_ops, &paper_threads, 0600);
MODULE_PARM_DESC(paper_threads, "threads that reply, 1 to 8 (default: 1)");

static unsigned int paper_delay_ms;
module_param(paper_delay_ms, uint, 0600);
MODULE_PARM_DESC(paper_delay_ms, "milliseconds of sleep before each reply (default: 0)");

static bool paper_takes_reference;
module_param(paper_takes_reference, bool, 0600);
MODULE_PARM_DESC(paper_takes_reference, "queue the datagram itself, not a copy (default: no)");

static struct task_struct *paper_tasks[PAPER_THREADS_MAX];
static atomic_t paper_received;
static atomic_t paper_dropped;
static atomic_t paper_done;

/* skb->sk is the kernel socket, as in nlrig_echo(). The pointer that the paper
 * uses is not set yet when the first message arrives.
 */
static void receive_us_msg(struct sk_buff *skb)
{
	struct sock *nl_sk = skb->sk;
	struct sk_buff *nl_skb;

	atomic_inc(&paper_received);
	nl_skb = READ_ONCE(paper_takes_reference) ? skb_get(skb) :
						    skb_copy(skb, GFP_ATOMIC);
	if (nl_skb)
		skb_queue_tail(&nl_sk->sk_receive_queue, nl_skb);
	else
		atomic_inc(&paper_dropped);
	wake_up_interruptible(sk_sleep(nl_sk));
}

/* Replies to the source port, which skb_copy() has copied too. */
static void paper_reply(struct sock *nl_sk, struct sk_buff *skb)
{
	u32 portid = NETLINK_CB(skb).portid;
	bool has_header = skb->len >= NLMSG_HDRLEN;
	struct nlmsghdr *nlh;
	struct sk_buff *out;

	out = nlmsg_new(PAPER_REPLY_SIZE, GFP_KERNEL);
	if (!out)
		return;
	nlh = nlmsg_put(out, portid, has_header ? nlmsg_hdr(skb)->nlmsg_seq : 0,
			NLRIG_MSG_DATA, PAPER_REPLY_SIZE, 0);
	if (WARN_ON_ONCE(!nlh)) {
		nlmsg_free(out);
		return;
	}
	memset(nlmsg_data(nlh), 0, PAPER_REPLY_SIZE);
	if (has_header)
		memcpy(nlmsg_data(nlh), nlmsg_data(nlmsg_hdr(skb)),
		       min_t(unsigned int, skb->len - NLMSG_HDRLEN,
			     PAPER_REPLY_SIZE));
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
		paper_reply(nl_sk, skb);
		consume_skb(skb);
		atomic_inc(&paper_done);
		cond_resched();
	}
	return 0;
}

/* Runs before the socket is released, because a datagram that was not copied
 * returns its charge to the socket when it is freed. netlink frees what is still
 * queued together with the socket.
 */
static void paper_stop(void)
{
	int i;

	for (i = 0; i < PAPER_THREADS_MAX && paper_tasks[i]; i++) {
		kthread_stop(paper_tasks[i]);
		paper_tasks[i] = NULL;
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
		paper_tasks[i] = thread;
	}
	return 0;
}

/* The paper's protocol. */
struct nlrig_toggle nlrig_paper = {
	.groups = 0,
	.input = receive_us_msg,
	.start = paper_start,
	.stop = paper_stop,
};

/**
 * nlrig_paper_put() - add the counters of the paper's module to a reply
 * @skb: reply under construction
 * @reset: whether to clear them; the length and the charge of the queue stay
 *
 * Return: 0, or -EMSGSIZE if @skb is full.
 */
int nlrig_paper_put(struct sk_buff *skb, bool reset)
{
	/* Pairs with nlrig_toggle_enable(). */
	struct sock *sk = smp_load_acquire(&nlrig_paper.sk);
	u32 queued = sk ? skb_queue_len_lockless(&sk->sk_receive_queue) : 0;
	u32 charged = sk ? sk_rmem_alloc_get(sk) : 0;
	struct nlattr *nest;

	nest = nla_nest_start(skb, NLRIG_A_STATE_PAPER);
	if (!nest ||
	    nla_put_u32(skb, NLRIG_A_PAPER_RECEIVED,
			nlrig_counter_read(&paper_received, reset)) ||
	    nla_put_u32(skb, NLRIG_A_PAPER_DROPPED,
			nlrig_counter_read(&paper_dropped, reset)) ||
	    nla_put_u32(skb, NLRIG_A_PAPER_DONE,
			nlrig_counter_read(&paper_done, reset)) ||
	    nla_put_u32(skb, NLRIG_A_PAPER_QUEUED, queued) ||
	    nla_put_u32(skb, NLRIG_A_PAPER_CHARGED, charged))
		return -EMSGSIZE;
	nla_nest_end(skb, nest);
	return 0;
}
