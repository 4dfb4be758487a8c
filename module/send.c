// SPDX-License-Identifier: GPL-2.0-only
/*
 * NLRIG_MSG_SEND: send a number of messages and record the result.
 *
 * This file has what is sent, how, and the result; context.c has the contexts
 * to send from. One request runs at a time and holds the busy bit. Only its
 * holder writes the result, so that no lock is needed in hard interrupt context.
 */

#include <linux/bitops.h>
#include <linux/capability.h>
#include <linux/ktime.h>
#include <linux/preempt.h>
#include <net/sock.h>

#include "nlrig.h"

#define NLRIG_SEND_BUSY 0

static const struct nlrig_send_result nlrig_send_result_none = {
	.first_failed = U32_MAX,
};

static struct nlrig_sender nlrig_sender = {
	.result = { .first_failed = U32_MAX },
};

static bool nlrig_send_begin(struct nlrig_sender *sender)
{
	return !test_and_set_bit_lock(NLRIG_SEND_BUSY, &sender->busy);
}

static void nlrig_send_end(struct nlrig_sender *sender)
{
	clear_bit_unlock(NLRIG_SEND_BUSY, &sender->busy);
}

static struct sk_buff *nlrig_send_build(const struct nlrig_sender *sender,
					gfp_t gfp)
{
	const struct nlrig_send_request *request = &sender->request;
	struct nlmsghdr *nlh;
	struct sk_buff *skb;

	skb = nlmsg_new(request->size, gfp | __GFP_NOWARN);
	if (!skb)
		return NULL;
	/* Cannot fail: the buffer has the size of this message. */
	nlh = nlmsg_put(skb, request->group ? 0 : request->portid,
			sender->number, NLRIG_MSG_DATA, request->size, 0);
	if (WARN_ON_ONCE(!nlh)) {
		nlmsg_free(skb);
		return NULL;
	}
	memset(nlmsg_data(nlh), 0, request->size);
	memcpy(nlmsg_data(nlh), &sender->number,
	       min_t(size_t, request->size, sizeof(sender->number)));
	nlmsg_end(skb, nlh);
	return skb;
}

static u32 nlrig_send_context(void)
{
	if (in_hardirq())
		return NLRIG_IN_HARDIRQ;
	if (in_serving_softirq())
		return NLRIG_IN_SOFTIRQ;
	return NLRIG_IN_TASK;
}

/* Sends one message and adds the time in netlink to the result. */
static int nlrig_send_one(struct nlrig_sender *sender, gfp_t gfp)
{
	const struct nlrig_send_request *request = &sender->request;
	struct nlrig_send_result *result = &sender->result;
	struct sk_buff *skb;
	u64 start;
	int err;

	skb = nlrig_send_build(sender, gfp);
	if (!skb)
		return -ENOMEM;
	start = ktime_get_ns();
	if (request->group)
		err = nlmsg_multicast(request->sk, skb, request->portid,
				      request->group, gfp);
	else
		err = netlink_unicast(request->sk, skb, request->portid,
				      !request->block);
	result->elapsed_ns += ktime_get_ns() - start;
	WRITE_ONCE(result->elapsed_us,
		   min_t(u64, div_u64(result->elapsed_ns, NSEC_PER_USEC),
			 U32_MAX));
	return err;
}

static void nlrig_send_failed(struct nlrig_sender *sender, int err)
{
	struct nlrig_send_result *result = &sender->result;

	if (!result->failed) {
		WRITE_ONCE(result->first_failed, sender->number);
		WRITE_ONCE(result->errno, -err);
	}
	WRITE_ONCE(result->failed, result->failed + 1);
}

/**
 * nlrig_send_next() - send the next message of the running request
 * @sender: the sender, whose busy bit the caller holds
 * @gfp: GFP_KERNEL if the caller may sleep, else GFP_ATOMIC
 *
 * Return: true if the request has more messages. If false, the request has
 * ended and the busy bit is released: the caller must not use @sender->request
 * any more, because another request may have begun.
 */
bool nlrig_send_next(struct nlrig_sender *sender, gfp_t gfp)
{
	struct nlrig_send_result *result = &sender->result;
	int err;

	WRITE_ONCE(result->contexts, result->contexts | nlrig_send_context());
	err = nlrig_send_one(sender, gfp);
	/* A signal ended the wait for room. No system call is restarted. */
	if (err == -ERESTARTSYS)
		err = -EINTR;
	if (err < 0)
		nlrig_send_failed(sender, err);
	else
		WRITE_ONCE(result->sent, result->sent + 1);
	sender->number++;
	if (err != -EINTR && sender->number < sender->request.count)
		return true;
	nlrig_send_end(sender);
	return false;
}

/**
 * nlrig_send_interrupted() - end the running request before its next message
 * @sender: the sender, whose busy bit the caller holds
 *
 * The next message counts as failed with EINTR and is the last one. Releases the
 * busy bit.
 */
void nlrig_send_interrupted(struct nlrig_sender *sender)
{
	nlrig_send_failed(sender, -EINTR);
	nlrig_send_end(sender);
}

static u32 nlrig_attr_u32(struct nlattr *attr, u32 absent)
{
	return attr ? nla_get_u32(attr) : absent;
}

static bool nlrig_send_is_article(const struct sock *sk)
{
	/* Pairs with nlrig_toggle_enable(). */
	return sk == smp_load_acquire(&nlrig_article.sk);
}

/* Checks what a policy cannot express. */
static int nlrig_send_check(const struct nlrig_send_request *request,
			    struct netlink_ext_ack *extack)
{
	if (!request->sk) {
		NL_SET_ERR_MSG(extack, "this protocol is not enabled");
		return -EINVAL;
	}
	if (request->block && request->group) {
		NL_SET_ERR_MSG(extack, "a multicast never blocks");
		return -EINVAL;
	}
	if (request->block && request->context != NLRIG_CONTEXT_PROCESS &&
	    request->context != NLRIG_CONTEXT_THREAD) {
		NL_SET_ERR_MSG(extack, "only process and thread context can block");
		return -EINVAL;
	}
	if (!request->group && !request->portid &&
	    !nlrig_send_is_article(request->sk)) {
		NL_SET_ERR_MSG(extack, "port 0 is the kernel itself");
		return -EINVAL;
	}
	if (request->context == NLRIG_CONTEXT_HARDIRQ &&
	    IS_ENABLED(CONFIG_PREEMPT_RT)) {
		NL_SET_ERR_MSG(extack, "PREEMPT_RT cannot allocate in hard interrupt context");
		return -EOPNOTSUPP;
	}
	return 0;
}

/**
 * nlrig_send() - handle NLRIG_MSG_SEND
 * @skb: datagram with the request
 * @nlh: header of the request
 * @tb: parsed attributes of the request
 * @extack: receives the reason of a refusal
 *
 * Return: 0 once the request runs (in process context: has ended), even if
 * messages failed; -EINVAL, -EPERM, -EBUSY, -EOPNOTSUPP, or the error of
 * kthread_create().
 */
int nlrig_send(struct sk_buff *skb, struct nlmsghdr *nlh, struct nlattr **tb,
	       struct netlink_ext_ack *extack)
{
	u32 protocol = nlrig_attr_u32(tb[NLRIG_A_SEND_PROTOCOL], NETLINK_NLRIG);
	struct nlrig_sender *sender = &nlrig_sender;
	struct nlrig_send_request request = {
		.size = nlrig_attr_u32(tb[NLRIG_A_SEND_SIZE], 0),
		.delay_ms = nlrig_attr_u32(tb[NLRIG_A_SEND_DELAY_MS], 0),
		.context = nlrig_attr_u32(tb[NLRIG_A_SEND_CONTEXT],
					  NLRIG_CONTEXT_PROCESS),
		.group = nlrig_attr_u32(tb[NLRIG_A_SEND_GROUP], 0),
		.block = nla_get_flag(tb[NLRIG_A_SEND_BLOCK]),
	};
	int err;

	if (!netlink_capable(skb, CAP_NET_ADMIN)) {
		NL_SET_ERR_MSG(extack, "NLRIG_MSG_SEND needs CAP_NET_ADMIN");
		return -EPERM;
	}
	if (!tb[NLRIG_A_SEND_COUNT]) {
		NL_SET_ERR_MSG(extack, "NLRIG_A_SEND_COUNT is missing");
		return -EINVAL;
	}
	request.count = nla_get_u32(tb[NLRIG_A_SEND_COUNT]);
	request.portid = nlrig_attr_u32(tb[NLRIG_A_SEND_PORTID],
					request.group ? 0 :
					NETLINK_CB(skb).portid);
	/* skb->sk is the kernel socket: see nlrig_echo(). */
	request.sk = protocol == NETLINK_NLRIG ? skb->sk :
		     nlrig_toggle_sock(protocol);
	err = nlrig_send_check(&request, extack);
	if (err)
		return err;

	if (!nlrig_send_begin(sender)) {
		NL_SET_ERR_MSG(extack, "another NLRIG_MSG_SEND is running");
		return -EBUSY;
	}
	sender->request = request;
	sender->result = nlrig_send_result_none;
	sender->number = 0;
	err = nlrig_context_start(sender);
	if (err)
		nlrig_send_end(sender);
	return err;
}

/**
 * nlrig_send_put() - add the result of the last NLRIG_MSG_SEND to a reply
 * @skb: reply under construction
 * @reset: whether to clear the result
 *
 * The result of a running request can change meanwhile: each value is
 * consistent, not all of them together.
 *
 * Return: 0, -EMSGSIZE if @skb is full, -EBUSY if a request runs that @reset
 * would disturb.
 */
int nlrig_send_put(struct sk_buff *skb, bool reset)
{
	struct nlrig_sender *sender = &nlrig_sender;
	const struct nlrig_send_result *result = &sender->result;
	struct nlattr *nest;
	int err = 0;
	u32 done;

	if (reset && !nlrig_send_begin(sender))
		return -EBUSY;
	/* Read first: the result of a request that is done is final. */
	done = reset || !test_bit_acquire(NLRIG_SEND_BUSY, &sender->busy);

	nest = nla_nest_start(skb, NLRIG_A_STATE_SEND);
	if (!nest ||
	    nla_put_u32(skb, NLRIG_A_RESULT_SENT, READ_ONCE(result->sent)) ||
	    nla_put_u32(skb, NLRIG_A_RESULT_FAILED,
			READ_ONCE(result->failed)) ||
	    nla_put_u32(skb, NLRIG_A_RESULT_FIRST_FAILED,
			READ_ONCE(result->first_failed)) ||
	    nla_put_u32(skb, NLRIG_A_RESULT_ERRNO, READ_ONCE(result->errno)) ||
	    nla_put_u32(skb, NLRIG_A_RESULT_DONE, done) ||
	    nla_put_u32(skb, NLRIG_A_RESULT_ELAPSED_US,
			READ_ONCE(result->elapsed_us)) ||
	    nla_put_u32(skb, NLRIG_A_RESULT_CONTEXTS,
			READ_ONCE(result->contexts)))
		err = -EMSGSIZE;
	else
		nla_nest_end(skb, nest);

	if (reset) {
		sender->result = nlrig_send_result_none;
		nlrig_send_end(sender);
	}
	return err;
}

/**
 * nlrig_send_init() - prepare the sender
 *
 * Must be called before the netlink socket exists.
 */
void nlrig_send_init(void)
{
	nlrig_context_init(&nlrig_sender);
}

/**
 * nlrig_send_exit() - stop the sender
 *
 * Ends a request that is running. Must be called when no request can arrive any
 * more and before the kernel sockets are released, because it sends through
 * them.
 */
void nlrig_send_exit(void)
{
	nlrig_context_exit(&nlrig_sender);
}
