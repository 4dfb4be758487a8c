// SPDX-License-Identifier: GPL-2.0-only
/*
 * The article's module, ported to this kernel.
 *
 * It keeps the faults of the original: it waits in the input callback although
 * nothing wakes it, it replies to nlmsg_pid, which may be its own port, and it
 * terminates a constant string by a write. The port changes the arguments of
 * netlink's functions and bounds the copies; it releases a datagram that is too
 * short, and it sends no uninitialised memory to the user.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": article: " fmt

#include <linux/completion.h>
#include <linux/moduleparam.h>
#include <linux/sched.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <net/sock.h>

#include "nlrig.h"

#define MAX_MSGSIZE 1024

module_param_cb(article, &nlrig_toggle_ops, &nlrig_article, 0600);
MODULE_PARM_DESC(article, "netlink protocol of the article's module, 23 to 31 (default: 0, disabled)");

static unsigned int article_replies = 10;
module_param(article_replies, uint, 0600);
MODULE_PARM_DESC(article_replies, "replies per datagram (default: 10)");

static unsigned int article_delay_ms = 3000;
module_param(article_delay_ms, uint, 0600);
MODULE_PARM_DESC(article_delay_ms, "milliseconds before each reply (default: 3000)");

static bool article_reply_to_source;
module_param(article_reply_to_source, bool, 0600);
MODULE_PARM_DESC(article_reply_to_source, "reply to the source port, not to nlmsg_pid (default: no)");

static bool article_writes_literal;
module_param(article_writes_literal, bool, 0600);
MODULE_PARM_DESC(article_writes_literal, "write into a string literal (default: no)");

/* nlrig_init() returns 1, and the article's socket is not created. */
bool nlrig_article_init_fails;
module_param_named(article_init_fails, nlrig_article_init_fails, bool, 0400);
MODULE_PARM_DESC(article_init_fails, "return 1 from init, without the article's socket (default: no)");

/**
 * struct nlrig_nesting - calls of the input callback that one task is in
 * @node: entry in article_nestings
 * @task: the task; holds a reference, because the task may die in the callback
 *	  and its address be used again
 * @depth: number of calls
 */
struct nlrig_nesting {
	struct list_head node;
	struct task_struct *task;
	u32 depth;
};

/* Protects article_nestings and article_depth. */
static DEFINE_SPINLOCK(article_lock);
static LIST_HEAD(article_nestings);
/* Highest depth that a task has reached. */
static u32 article_depth;

static struct nlrig_calls article_calls;
static u32 article_length;
static u32 article_src_portid;
static u32 article_nlmsg_pid;
static atomic_t article_sent;
static atomic_t article_refused;
static u32 article_errno;

static struct nlrig_nesting *nesting_find(void)
{
	struct nlrig_nesting *nesting;

	list_for_each_entry(nesting, &article_nestings, node)
		if (nesting->task == current)
			return nesting;
	return NULL;
}

static void nesting_free(struct nlrig_nesting *nesting)
{
	list_del(&nesting->node);
	put_task_struct(nesting->task);
	kfree(nesting);
}

/* The record is on the heap, and these two functions are not inlined, because
 * the stack that the article's code uses is under test. Interrupts are not
 * counted.
 */
static noinline void nesting_enter(void)
{
	struct nlrig_nesting *nesting;
	unsigned long flags;

	if (!in_task())
		return;
	spin_lock_irqsave(&article_lock, flags);
	nesting = nesting_find();
	if (!nesting) {
		nesting = kzalloc(sizeof(*nesting), GFP_ATOMIC);
		if (nesting) {
			nesting->task = get_task_struct(current);
			list_add(&nesting->node, &article_nestings);
		}
	}
	if (nesting && ++nesting->depth > article_depth)
		article_depth = nesting->depth;
	spin_unlock_irqrestore(&article_lock, flags);
}

static noinline void nesting_leave(void)
{
	struct nlrig_nesting *nesting;
	unsigned long flags;

	if (!in_task())
		return;
	spin_lock_irqsave(&article_lock, flags);
	nesting = nesting_find();
	if (nesting && !--nesting->depth)
		nesting_free(nesting);
	spin_unlock_irqrestore(&article_lock, flags);
}

/* A reset leaves the depth of the calls that are active. */
static u32 nesting_depth(bool reset)
{
	struct nlrig_nesting *nesting;
	unsigned long flags;
	u32 depth;

	spin_lock_irqsave(&article_lock, flags);
	depth = article_depth;
	if (reset) {
		article_depth = 0;
		list_for_each_entry(nesting, &article_nestings, node)
			article_depth = max(article_depth, nesting->depth);
	}
	spin_unlock_irqrestore(&article_lock, flags);
	return depth;
}

static int stringlength(const char *s)
{
	int slen = 0;

	for (; *s; s++)
		slen++;
	return slen;
}

static noinline void sendnlmsg(struct sock *nl_sk, char *message, u32 pid)
{
	int len = NLMSG_SPACE(MAX_MSGSIZE);
	struct sk_buff *skb_1;
	struct nlmsghdr *nlh;
	int slen;
	int err;

	skb_1 = alloc_skb(len, GFP_KERNEL);
	if (!skb_1) {
		pr_err("alloc_skb error\n");
		return;
	}
	slen = stringlength(message);
	nlh = nlmsg_put(skb_1, 0, 0, 0, MAX_MSGSIZE, 0);
	NETLINK_CB(skb_1).portid = 0;
	NETLINK_CB(skb_1).dst_group = 0;
	/* The compiler would remove a plain write of the value that is there. */
	if (READ_ONCE(article_writes_literal))
		WRITE_ONCE(message[slen], '\0');
	memset(NLMSG_DATA(nlh), 0, MAX_MSGSIZE);
	memcpy(NLMSG_DATA(nlh), message, slen + 1);
	pr_info("send message '%s' to pid %u\n", (char *)NLMSG_DATA(nlh), pid);

	err = netlink_unicast(nl_sk, skb_1, pid, MSG_DONTWAIT);
	if (err >= 0) {
		atomic_inc(&article_sent);
	} else {
		atomic_inc(&article_refused);
		WRITE_ONCE(article_errno, -err);
	}
}

static void nl_data_ready(struct sk_buff *__skb)
{
	struct completion cmpl;
	struct nlmsghdr *nlh;
	struct sk_buff *skb;
	char str[100];
	int length;
	u32 pid;
	int i;

	nlrig_calls_enter(&article_calls);
	nesting_enter();
	skb = skb_get(__skb);
	WRITE_ONCE(article_length, skb->len);
	WRITE_ONCE(article_src_portid, NETLINK_CB(skb).portid);
	WRITE_ONCE(article_nlmsg_pid, 0);
	if (skb->len >= NLMSG_SPACE(0)) {
		nlh = nlmsg_hdr(skb);
		length = min_t(int, skb->len - NLMSG_HDRLEN, sizeof(str) - 1);
		memcpy(str, NLMSG_DATA(nlh), length);
		str[length] = '\0';
		/* Escaped, because any user may have written this. */
		pr_info("message received: %*pE\n", stringlength(str), str);
		pid = nlh->nlmsg_pid;
		WRITE_ONCE(article_nlmsg_pid, pid);
		if (READ_ONCE(article_reply_to_source))
			pid = NETLINK_CB(skb).portid;
		i = READ_ONCE(article_replies);
		while (i--) {
			init_completion(&cmpl);
			wait_for_completion_timeout(&cmpl,
				msecs_to_jiffies(READ_ONCE(article_delay_ms)));
			sendnlmsg(__skb->sk, "I am from kernel!", pid);
		}
	}
	kfree_skb(skb);
	nesting_leave();
	nlrig_calls_leave(&article_calls);
}

/* Frees the records of tasks that died in the callback. */
static void article_stop(void)
{
	struct nlrig_nesting *nesting, *next;

	list_for_each_entry_safe(nesting, next, &article_nestings, node)
		nesting_free(nesting);
}

/* The article's protocol. */
struct nlrig_toggle nlrig_article = {
	.groups = 1,
	.input = nl_data_ready,
	.stop = article_stop,
};

/**
 * nlrig_article_put() - add the counters of the article's module to a reply
 * @skb: reply under construction
 * @reset: whether to clear them
 *
 * Return: 0, or -EMSGSIZE if @skb is full.
 */
int nlrig_article_put(struct sk_buff *skb, bool reset)
{
	struct nlattr *nest = nla_nest_start(skb, NLRIG_A_STATE_ARTICLE);

	if (!nest ||
	    nlrig_calls_put(skb, &article_calls, NLRIG_A_ARTICLE_CALLS,
			    reset) ||
	    nla_put_u32(skb, NLRIG_A_ARTICLE_DEPTH, nesting_depth(reset)) ||
	    nla_put_u32(skb, NLRIG_A_ARTICLE_LENGTH,
			nlrig_value_read(&article_length, reset)) ||
	    nla_put_u32(skb, NLRIG_A_ARTICLE_SRC_PORTID,
			nlrig_value_read(&article_src_portid, reset)) ||
	    nla_put_u32(skb, NLRIG_A_ARTICLE_NLMSG_PID,
			nlrig_value_read(&article_nlmsg_pid, reset)) ||
	    nla_put_u32(skb, NLRIG_A_ARTICLE_SENT,
			nlrig_counter_read(&article_sent, reset)) ||
	    nla_put_u32(skb, NLRIG_A_ARTICLE_REFUSED,
			nlrig_counter_read(&article_refused, reset)) ||
	    nla_put_u32(skb, NLRIG_A_ARTICLE_ERRNO,
			nlrig_value_read(&article_errno, reset)))
		return -EMSGSIZE;
	nla_nest_end(skb, nest);
	return 0;
}
