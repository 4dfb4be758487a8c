// SPDX-License-Identifier: GPL-2.0-only
/*
 * NLRIG_MSG_STATE: report the module's counters.
 */

#include <linux/capability.h>

#include "nlrig.h"

/* Calls of the input callback of NETLINK_NLRIG. */
struct nlrig_calls nlrig_input_calls;

static void nlrig_calls_raise_peak(struct nlrig_calls *calls, int active)
{
	int peak = atomic_read(&calls->peak);

	while (active > peak &&
	       !atomic_try_cmpxchg(&calls->peak, &peak, active))
		;
}

/**
 * nlrig_calls_enter() - count the beginning of a call
 * @calls: counters of the function
 *
 * May be called from any context and from several CPUs at once.
 */
void nlrig_calls_enter(struct nlrig_calls *calls)
{
	int active = atomic_inc_return(&calls->active);

	atomic_inc(&calls->total);
	nlrig_calls_raise_peak(calls, active);
}

/**
 * nlrig_calls_leave() - count the end of a call
 * @calls: counters of the function
 */
void nlrig_calls_leave(struct nlrig_calls *calls)
{
	atomic_dec(&calls->active);
}

/**
 * nlrig_counter_read() - read a counter and clear it if asked to
 * @counter: the counter
 * @reset: whether to clear it
 *
 * Both happen in one step, so that no event between them is lost.
 *
 * Return: the value.
 */
u32 nlrig_counter_read(atomic_t *counter, bool reset)
{
	return reset ? atomic_xchg(counter, 0) : atomic_read(counter);
}

/**
 * nlrig_value_read() - read a recorded value and clear it if asked to
 * @value: the value, which others write with WRITE_ONCE()
 * @reset: whether to clear it
 *
 * Return: the value.
 */
u32 nlrig_value_read(u32 *value, bool reset)
{
	return reset ? xchg(value, 0) : READ_ONCE(*value);
}

/**
 * nlrig_calls_put() - add the counters of a function to a reply
 * @skb: reply under construction
 * @calls: counters of the function
 * @attr: attribute that becomes the nest of the counters
 * @reset: whether to clear the total, and set the peak to the active calls
 *
 * Return: 0, or -EMSGSIZE if @skb is full.
 */
int nlrig_calls_put(struct sk_buff *skb, struct nlrig_calls *calls, int attr,
		    bool reset)
{
	u32 total = nlrig_counter_read(&calls->total, reset);
	u32 peak = nlrig_counter_read(&calls->peak, reset);
	u32 active = atomic_read(&calls->active);
	struct nlattr *nest;

	if (reset)
		nlrig_calls_raise_peak(calls, active);
	nest = nla_nest_start(skb, attr);
	if (!nest ||
	    nla_put_u32(skb, NLRIG_A_CALLS_TOTAL, total) ||
	    nla_put_u32(skb, NLRIG_A_CALLS_ACTIVE, active) ||
	    nla_put_u32(skb, NLRIG_A_CALLS_PEAK, peak))
		return -EMSGSIZE;
	nla_nest_end(skb, nest);
	return 0;
}

/* nlrig_send_put() comes first: it refuses the reset if a request runs. */
static int nlrig_state_put(struct sk_buff *skb, bool reset)
{
	int err;

	err = nlrig_send_put(skb, reset);
	if (err)
		return err;
	err = nlrig_calls_put(skb, &nlrig_input_calls, NLRIG_A_STATE_INPUT,
			      reset);
	if (err)
		return err;
	err = nlrig_article_put(skb, reset);
	if (err)
		return err;
	return nlrig_paper_put(skb, reset);
}

/**
 * nlrig_state() - handle NLRIG_MSG_STATE
 * @skb: datagram with the request
 * @nlh: header of the request
 * @tb: parsed attributes of the request
 * @extack: receives the reason of a refusal
 *
 * Return: 0 once the reply is queued, -EPERM, -EBUSY, -ENOMEM, or the error of
 * nlmsg_unicast(), which is -EAGAIN if the receive buffer of the requester is
 * full. A reset has happened even then.
 */
int nlrig_state(struct sk_buff *skb, struct nlmsghdr *nlh, struct nlattr **tb,
		struct netlink_ext_ack *extack)
{
	bool reset = nla_get_flag(tb[NLRIG_A_STATE_RESET]);
	u32 portid = NETLINK_CB(skb).portid;
	struct nlmsghdr *reply;
	struct sk_buff *out;
	int err = -EMSGSIZE;

	if (reset && !netlink_capable(skb, CAP_NET_ADMIN)) {
		NL_SET_ERR_MSG(extack, "NLRIG_A_STATE_RESET needs CAP_NET_ADMIN");
		return -EPERM;
	}

	out = nlmsg_new(NLMSG_GOODSIZE, GFP_KERNEL);
	if (!out)
		return -ENOMEM;
	reply = nlmsg_put(out, portid, nlh->nlmsg_seq, NLRIG_MSG_STATE_REPLY,
			  0, 0);
	if (reply)
		err = nlrig_state_put(out, reset);
	if (err) {
		if (err == -EBUSY)
			NL_SET_ERR_MSG(extack, "an NLRIG_MSG_SEND is running");
		nlmsg_free(out);
		return err;
	}
	nlmsg_end(out, reply);
	return nlmsg_unicast(skb->sk, out, portid);
}
