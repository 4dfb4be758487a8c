// SPDX-License-Identifier: GPL-2.0-only
/*
 * The module of the article, ported to this kernel.
 *
 * It is as wrong here as it is there: it waits in the input callback where
 * nothing wakes it, it answers to the port that the message names, which may be
 * its own, and it ends a constant text by a write. What differs: the arguments of
 * netlink's functions, the bounds of its copies, and that a short datagram is
 * released and no memory but what was written goes to the user.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": article: " fmt

#include <linux/completion.h>
#include <linux/moduleparam.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <net/sock.h>

#include "nlrig.h"

#define MAX_MSGSIZE 1024

module_param_cb(article, &nlrig_switch_ops, &nlrig_article, 0600);
MODULE_PARM_DESC(article, "be the article's module on this netlink protocol, 23 to 31 (default: 0, off)");

static unsigned int article_replies = 10;
module_param(article_replies, uint, 0600);
MODULE_PARM_DESC(article_replies, "answers to a datagram (default: 10)");

static unsigned int article_delay_ms = 3000;
module_param(article_delay_ms, uint, 0600);
MODULE_PARM_DESC(article_delay_ms, "milliseconds before each answer (default: 3000)");

static bool article_answers_seen;
module_param(article_answers_seen, bool, 0600);
MODULE_PARM_DESC(article_answers_seen, "answer to the port the kernel saw (default: no)");

static bool article_writes_literal;
module_param(article_writes_literal, bool, 0600);
MODULE_PARM_DESC(article_writes_literal, "write into a string literal (default: no)");

bool nlrig_article_init_fails;
module_param_named(article_init_fails, nlrig_article_init_fails, bool, 0400);
MODULE_PARM_DESC(article_init_fails, "make no article's socket and return 1 from init (default: no)");

/* A task that is in the input callback, and how often. */
struct nlrig_nesting {
	struct list_head node;
	struct task_struct *task;
	u32 depth;
};

static DEFINE_SPINLOCK(article_lock);
static LIST_HEAD(article_nestings);
static u32 article_depth;

static struct nlrig_calls article_inputs;
static u32 article_length;
static u32 article_seen;
static u32 article_said;
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

/* On the heap, and in functions of their own: what is under test is how much
 * stack the article's code takes. An interrupt has no depth.
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
			nesting->task = current;
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
	if (nesting && !--nesting->depth) {
		list_del(&nesting->node);
		kfree(nesting);
	}
	spin_unlock_irqrestore(&article_lock, flags);
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
	/* Volatile, or the compiler leaves out a write of what is there. */
	if (READ_ONCE(article_writes_literal))
		*(volatile char *)&message[slen] = '\0';
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

	nlrig_calls_enter(&article_inputs);
	nesting_enter();
	skb = skb_get(__skb);
	WRITE_ONCE(article_length, skb->len);
	WRITE_ONCE(article_seen, NETLINK_CB(skb).portid);
	WRITE_ONCE(article_said, 0);
	if (skb->len >= NLMSG_SPACE(0)) {
		nlh = nlmsg_hdr(skb);
		length = min_t(int, skb->len - NLMSG_HDRLEN, sizeof(str) - 1);
		memcpy(str, NLMSG_DATA(nlh), length);
		str[length] = '\0';
		/* Escaped: anybody may have written this. */
		pr_info("message received: %*pE\n", stringlength(str), str);
		pid = nlh->nlmsg_pid;
		WRITE_ONCE(article_said, pid);
		if (READ_ONCE(article_answers_seen))
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
	nlrig_calls_leave(&article_inputs);
}

/* Of tasks that died in the callback. */
static void article_stop(void)
{
	struct nlrig_nesting *nesting, *next;

	list_for_each_entry_safe(nesting, next, &article_nestings, node)
		kfree(nesting);
}

struct nlrig_switch nlrig_article = {
	.groups = 1,
	.input = nl_data_ready,
	.stop = article_stop,
};

int nlrig_article_put(struct sk_buff *skb)
{
	if (nlrig_calls_put(skb, &article_inputs, NLRIG_A_ARTICLE_INPUTS) ||
	    nla_put_u32(skb, NLRIG_A_ARTICLE_DEPTH, READ_ONCE(article_depth)) ||
	    nla_put_u32(skb, NLRIG_A_ARTICLE_LENGTH,
			READ_ONCE(article_length)) ||
	    nla_put_u32(skb, NLRIG_A_ARTICLE_SEEN, READ_ONCE(article_seen)) ||
	    nla_put_u32(skb, NLRIG_A_ARTICLE_SAID, READ_ONCE(article_said)) ||
	    nla_put_u32(skb, NLRIG_A_ARTICLE_SENT,
			atomic_read(&article_sent)) ||
	    nla_put_u32(skb, NLRIG_A_ARTICLE_REFUSED,
			atomic_read(&article_refused)) ||
	    nla_put_u32(skb, NLRIG_A_ARTICLE_ERRNO, READ_ONCE(article_errno)))
		return -EMSGSIZE;
	return 0;
}

void nlrig_article_reset(void)
{
	nlrig_calls_reset(&article_inputs);
	WRITE_ONCE(article_depth, 0);
	WRITE_ONCE(article_length, 0);
	WRITE_ONCE(article_seen, 0);
	WRITE_ONCE(article_said, 0);
	atomic_set(&article_sent, 0);
	atomic_set(&article_refused, 0);
	WRITE_ONCE(article_errno, 0);
}
