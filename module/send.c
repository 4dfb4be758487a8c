// SPDX-License-Identifier: GPL-2.0-only
/*
 * NLRIG_MSG_SEND: send so many messages, and keep the result.
 *
 * What is sent, how, and what became of it is here; where from is in context.c.
 * There is one order at a time, and only its executor writes the result, so
 * that nothing here has to be locked in hard interrupt context.
 */

#include <linux/bitops.h>
#include <linux/capability.h>
#include <linux/ktime.h>
#include <linux/preempt.h>
#include <net/sock.h>

#include "nlrig.h"

/**
 * struct nlrig_order - what one NLRIG_MSG_SEND asks for
 * @sk: through this socket of the kernel
 * @count: messages
 * @size: bytes of body of each
 * @portid: to this port; with @group: not to this one
 * @group: to this group; 0: to @portid
 * @block: wait for room in the receiver's buffer
 */
struct nlrig_order {
	struct sock *sk;
	u32 count;
	u32 size;
	u32 portid;
	u32 group;
	bool block;
};

/**
 * struct nlrig_result - what became of it so far: NLRIG_A_SENT and so on
 * @sent: messages that were sent
 * @failed: messages that failed
 * @first_failed: the number of the first that failed
 * @errno: its error
 * @elapsed_ns: time in netlink
 * @elapsed_us: the same for readers, who could see half of a write of 64 bits
 * @in: NLRIG_IN_* or-ed
 */
struct nlrig_result {
	u32 sent;
	u32 failed;
	u32 first_failed;
	u32 errno;
	u64 elapsed_ns;
	u32 elapsed_us;
	u32 in;
};

static const struct nlrig_result nlrig_no_result = { .first_failed = U32_MAX };

static struct nlrig_order nlrig_order;
static struct nlrig_result nlrig_result = { .first_failed = U32_MAX };
/* The number of the next message. */
static u32 nlrig_number;
/* Bit 0: an order is under way. */
static unsigned long nlrig_busy;

static struct sk_buff *nlrig_data(gfp_t gfp)
{
	const struct nlrig_order *order = &nlrig_order;
	struct nlmsghdr *nlh;
	struct sk_buff *skb;
	u32 size = order->size;

	skb = nlmsg_new(size, gfp | __GFP_NOWARN);
	if (!skb)
		return NULL;
	/* Cannot fail: the buffer was made for exactly this message. */
	nlh = nlmsg_put(skb, order->group ? 0 : order->portid, nlrig_number,
			NLRIG_MSG_DATA, size, 0);
	if (WARN_ON_ONCE(!nlh)) {
		nlmsg_free(skb);
		return NULL;
	}
	memset(nlmsg_data(nlh), 0, size);
	memcpy(nlmsg_data(nlh), &nlrig_number,
	       min_t(size_t, size, sizeof(nlrig_number)));
	nlmsg_end(skb, nlh);
	return skb;
}

static u32 nlrig_whereabouts(void)
{
	if (in_hardirq())
		return NLRIG_IN_HARDIRQ;
	if (in_serving_softirq())
		return NLRIG_IN_SOFTIRQ;
	return NLRIG_IN_TASK;
}

static void nlrig_failed(int err)
{
	struct nlrig_result *result = &nlrig_result;

	if (!result->failed) {
		WRITE_ONCE(result->first_failed, nlrig_number);
		WRITE_ONCE(result->errno, -err);
	}
	WRITE_ONCE(result->failed, result->failed + 1);
}

static void nlrig_send_over(void)
{
	clear_bit_unlock(0, &nlrig_busy);
}

/**
 * nlrig_send_next() - send the next message of the order
 * @gfp: GFP_KERNEL where one may sleep, or GFP_ATOMIC
 *
 * Return: whether there is another one to send. If not, the order is over and
 * somebody else's may already be under way.
 */
bool nlrig_send_next(gfp_t gfp)
{
	const struct nlrig_order *order = &nlrig_order;
	struct nlrig_result *result = &nlrig_result;
	struct sk_buff *skb;
	int err = -ENOMEM;
	u64 began;

	WRITE_ONCE(result->in, result->in | nlrig_whereabouts());
	skb = nlrig_data(gfp);
	if (skb) {
		began = ktime_get_ns();
		if (order->group)
			err = nlmsg_multicast(order->sk, skb, order->portid,
					      order->group, gfp);
		else
			err = netlink_unicast(order->sk, skb, order->portid,
					      !order->block);
		result->elapsed_ns += ktime_get_ns() - began;
		WRITE_ONCE(result->elapsed_us,
			   min_t(u64, div_u64(result->elapsed_ns, NSEC_PER_USEC),
				 U32_MAX));
	}
	/* A signal while it waited for room. Nothing is restarted here. */
	if (err == -ERESTARTSYS)
		err = -EINTR;
	if (err < 0)
		nlrig_failed(err);
	else
		WRITE_ONCE(result->sent, result->sent + 1);
	nlrig_number++;
	if (err != -EINTR && nlrig_number < order->count)
		return true;
	nlrig_send_over();
	return false;
}

/* A signal before the next message: that one fails and is the last. */
void nlrig_send_interrupted(void)
{
	nlrig_failed(-EINTR);
	nlrig_send_over();
}

static u32 nlrig_get(struct nlattr *attr, u32 otherwise)
{
	return attr ? nla_get_u32(attr) : otherwise;
}

/* The rules that a policy cannot say. */
static int nlrig_send_check(const struct nlrig_order *order, u32 context,
			    struct netlink_ext_ack *extack)
{
	if (!order->sk) {
		NL_SET_ERR_MSG(extack, "no kernel socket of that protocol is on");
		return -EINVAL;
	}
	if (order->block && order->group) {
		NL_SET_ERR_MSG(extack, "a group is not waited for");
		return -EINVAL;
	}
	if (order->block && context != NLRIG_CONTEXT_PROCESS &&
	    context != NLRIG_CONTEXT_THREAD) {
		NL_SET_ERR_MSG(extack, "an interrupt cannot wait for room");
		return -EINVAL;
	}
	if (!order->group && !order->portid && order->sk != nlrig_article.sk) {
		NL_SET_ERR_MSG(extack, "port 0 is the kernel's own");
		return -EINVAL;
	}
	return 0;
}

/**
 * nlrig_send() - obey one NLRIG_MSG_SEND
 * @skb: the datagram it came in
 * @nlh: the message in it
 * @tb: its attributes
 * @extack: where the reason of a refusal goes
 *
 * Return: 0 once it has begun, or in process context is over, whatever became of
 * it; -EINVAL, -EPERM, -EBUSY, or what a thread could not be made for.
 */
int nlrig_send(struct sk_buff *skb, struct nlmsghdr *nlh, struct nlattr **tb,
	       struct netlink_ext_ack *extack)
{
	u32 protocol = nlrig_get(tb[NLRIG_A_PROTOCOL], NETLINK_NLRIG);
	u32 context = nlrig_get(tb[NLRIG_A_CONTEXT], NLRIG_CONTEXT_PROCESS);
	struct nlrig_order order = {
		.size = nlrig_get(tb[NLRIG_A_SIZE], 0),
		.group = nlrig_get(tb[NLRIG_A_GROUP], 0),
		.block = nla_get_flag(tb[NLRIG_A_BLOCK]),
	};
	int err;

	if (!netlink_capable(skb, CAP_NET_ADMIN)) {
		NL_SET_ERR_MSG(extack, "only CAP_NET_ADMIN makes the kernel send");
		return -EPERM;
	}
	if (!tb[NLRIG_A_COUNT]) {
		NL_SET_ERR_MSG(extack, "NLRIG_A_COUNT is missing");
		return -EINVAL;
	}
	order.count = nla_get_u32(tb[NLRIG_A_COUNT]);
	order.portid = nlrig_get(tb[NLRIG_A_PORTID],
				 order.group ? 0 : NETLINK_CB(skb).portid);
	/* skb->sk: see nlrig_echo(). */
	order.sk = protocol == NETLINK_NLRIG ? skb->sk :
		   nlrig_switch_sock(protocol);
	err = nlrig_send_check(&order, context, extack);
	if (err)
		return err;

	if (test_and_set_bit_lock(0, &nlrig_busy)) {
		NL_SET_ERR_MSG(extack, "the kernel is still sending");
		return -EBUSY;
	}
	nlrig_order = order;
	nlrig_result = nlrig_no_result;
	nlrig_number = 0;
	err = nlrig_context_start(context, nlrig_get(tb[NLRIG_A_DELAY_MS], 0));
	if (err)
		nlrig_send_over();
	return err;
}

/* A reader may see a result that is being written: each number on its own. */
int nlrig_send_put(struct sk_buff *skb)
{
	const struct nlrig_result *result = &nlrig_result;
	/* First: what is over does not change any more. */
	u32 over = !test_bit_acquire(0, &nlrig_busy);

	if (nla_put_u32(skb, NLRIG_A_SENT, READ_ONCE(result->sent)) ||
	    nla_put_u32(skb, NLRIG_A_FAILED, READ_ONCE(result->failed)) ||
	    nla_put_u32(skb, NLRIG_A_FIRST_FAILED,
			READ_ONCE(result->first_failed)) ||
	    nla_put_u32(skb, NLRIG_A_ERRNO, READ_ONCE(result->errno)) ||
	    nla_put_u32(skb, NLRIG_A_OVER, over) ||
	    nla_put_u32(skb, NLRIG_A_ELAPSED_US,
			READ_ONCE(result->elapsed_us)) ||
	    nla_put_u32(skb, NLRIG_A_IN, READ_ONCE(result->in)))
		return -EMSGSIZE;
	return 0;
}

int nlrig_send_reset(void)
{
	if (test_and_set_bit_lock(0, &nlrig_busy))
		return -EBUSY;
	nlrig_result = nlrig_no_result;
	nlrig_send_over();
	return 0;
}
