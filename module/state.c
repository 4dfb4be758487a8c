// SPDX-License-Identifier: GPL-2.0-only
/*
 * NLRIG_MSG_STATE: what happened so far, in numbers.
 */

#include <linux/capability.h>

#include "nlrig.h"

struct nlrig_calls nlrig_inputs;

/* Calls come from any context and from all CPUs at once. */
void nlrig_calls_enter(struct nlrig_calls *calls)
{
	int now = atomic_inc_return(&calls->now);
	int most = atomic_read(&calls->most);

	atomic_inc(&calls->total);
	while (now > most && !atomic_try_cmpxchg(&calls->most, &most, now))
		;
}

void nlrig_calls_leave(struct nlrig_calls *calls)
{
	atomic_dec(&calls->now);
}

/* Those at once now stay: they are there. */
void nlrig_calls_reset(struct nlrig_calls *calls)
{
	atomic_set(&calls->total, 0);
	atomic_set(&calls->most, 0);
}

/* As three attributes, of which @first is the first. */
int nlrig_calls_put(struct sk_buff *skb, struct nlrig_calls *calls, int first)
{
	if (nla_put_u32(skb, first, atomic_read(&calls->total)) ||
	    nla_put_u32(skb, first + 1, atomic_read(&calls->now)) ||
	    nla_put_u32(skb, first + 2, atomic_read(&calls->most)))
		return -EMSGSIZE;
	return 0;
}

static int nlrig_state_put(struct sk_buff *skb)
{
	int err;

	err = nlrig_send_put(skb);
	if (err)
		return err;
	err = nlrig_calls_put(skb, &nlrig_inputs, NLRIG_A_INPUTS);
	if (err)
		return err;
	err = nlrig_article_put(skb);
	if (err)
		return err;
	return nlrig_paper_put(skb);
}

static int nlrig_state_reset(struct netlink_ext_ack *extack)
{
	if (nlrig_send_reset()) {
		NL_SET_ERR_MSG(extack, "what is being sent has a counter");
		return -EBUSY;
	}
	nlrig_calls_reset(&nlrig_inputs);
	nlrig_article_reset();
	nlrig_paper_reset();
	return 0;
}

/**
 * nlrig_state() - answer one NLRIG_MSG_STATE
 * @skb: the datagram it came in
 * @nlh: the message in it
 * @tb: its attributes
 * @extack: where the reason of a refusal goes
 *
 * Return: 0 once the answer is queued, -EPERM, -EBUSY, -ENOMEM, or what
 * nlmsg_unicast() returned: -EAGAIN if the sender's receive buffer is full.
 */
int nlrig_state(struct sk_buff *skb, struct nlmsghdr *nlh, struct nlattr **tb,
		struct netlink_ext_ack *extack)
{
	u32 portid = NETLINK_CB(skb).portid;
	struct nlmsghdr *reply;
	struct sk_buff *out;
	int err;

	if (tb[NLRIG_A_RESET] && !netlink_capable(skb, CAP_NET_ADMIN)) {
		NL_SET_ERR_MSG(extack, "only CAP_NET_ADMIN sets counters back");
		return -EPERM;
	}

	out = nlmsg_new(NLMSG_GOODSIZE, GFP_KERNEL);
	if (!out)
		return -ENOMEM;
	err = -EMSGSIZE;
	reply = nlmsg_put(out, portid, nlh->nlmsg_seq, NLRIG_MSG_STATE_REPLY,
			  0, 0);
	if (reply)
		err = nlrig_state_put(out);
	if (!err && tb[NLRIG_A_RESET])
		err = nlrig_state_reset(extack);
	if (err) {
		nlmsg_free(out);
		return err;
	}
	nlmsg_end(out, reply);
	return nlmsg_unicast(skb->sk, out, portid);
}
