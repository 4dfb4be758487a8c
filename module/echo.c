// SPDX-License-Identifier: GPL-2.0-only
/*
 * NLRIG_MSG_ECHO: reply to the port that the kernel saw.
 */

#include "nlrig.h"

/* 32-bit and 64-bit programs use the same kernel. */
static_assert(sizeof(struct nlrig_echo) == 16);

/**
 * nlrig_echo() - handle NLRIG_MSG_ECHO
 * @skb: datagram with the request
 * @nlh: header of the request, whose body has the right size
 * @tb: unused
 * @extack: receives the reason of a refusal
 *
 * Runs in the system call of the requester.
 *
 * Return: 0 once the reply is queued, -EINVAL, -ENOMEM, or the error of
 * nlmsg_unicast(), which is -EAGAIN if the receive buffer of the requester is
 * full.
 */
int nlrig_echo(struct sk_buff *skb, struct nlmsghdr *nlh, struct nlattr **tb,
	       struct netlink_ext_ack *extack)
{
	const struct nlrig_echo *request = nlmsg_data(nlh);
	u32 portid = NETLINK_CB(skb).portid;
	struct nlmsghdr *reply;
	struct nlrig_echo *echo;
	struct sk_buff *out;

	if (request->portid || request->reserved) {
		NL_SET_ERR_MSG(extack, "portid and reserved must be zero");
		return -EINVAL;
	}
	out = nlmsg_new(sizeof(*echo), GFP_KERNEL);
	if (!out)
		return -ENOMEM;

	/* Cannot fail: the buffer has the size of this message. */
	reply = nlmsg_put(out, portid, nlh->nlmsg_seq, NLRIG_MSG_ECHO_REPLY,
			  sizeof(*echo), 0);
	if (WARN_ON_ONCE(!reply)) {
		nlmsg_free(out);
		return -EMSGSIZE;
	}

	echo = nlmsg_data(reply);
	echo->cookie = request->cookie;
	echo->portid = portid;
	echo->reserved = 0;
	nlmsg_end(out, reply);

	/* skb->sk is the kernel socket: netlink charged the request to it
	 * before it called the input callback. nlrig_sock may not be set yet,
	 * because a message can arrive before netlink_kernel_create() returns.
	 */
	return nlmsg_unicast(skb->sk, out, portid);
}
