// SPDX-License-Identifier: GPL-2.0-only
/*
 * NLRIG_MSG_ECHO: answer to the port that the kernel saw.
 */

#include "nlrig.h"

static_assert(sizeof(struct nlrig_echo) == NLRIG_ECHO_SIZE);

/**
 * nlrig_echo() - answer one NLRIG_MSG_ECHO
 * @skb: the datagram it came in
 * @nlh: the message in it, whose body is long enough
 * @tb: unused
 * @extack: unused
 *
 * Runs in the sender's context, inside its system call.
 *
 * Return: 0 once the answer is queued, -ENOMEM, or what nlmsg_unicast()
 * returned: -EAGAIN if the sender's receive buffer is full.
 */
int nlrig_echo(struct sk_buff *skb, struct nlmsghdr *nlh, struct nlattr **tb,
	       struct netlink_ext_ack *extack)
{
	u32 portid = NETLINK_CB(skb).portid;
	const struct nlrig_echo *request;
	struct nlrig_echo *answer;
	struct nlmsghdr *reply;
	struct sk_buff *out;

	request = nlmsg_data(nlh);

	out = nlmsg_new(sizeof(*answer), GFP_KERNEL);
	if (!out)
		return -ENOMEM;

	/* Cannot fail: the buffer was made for exactly this message. */
	reply = nlmsg_put(out, portid, nlh->nlmsg_seq, NLRIG_MSG_ECHO_REPLY,
			  sizeof(*answer), 0);
	if (WARN_ON_ONCE(!reply)) {
		nlmsg_free(out);
		return -EMSGSIZE;
	}

	answer = nlmsg_data(reply);
	answer->cookie = request->cookie;
	answer->portid = portid;
	answer->reserved = 0;
	nlmsg_end(out, reply);

	/* skb->sk is the kernel's own socket: netlink charged the request to it
	 * before it called us. The module's pointer to it may not be set yet:
	 * a message can come in before netlink_kernel_create() returns.
	 */
	return nlmsg_unicast(skb->sk, out, portid);
}
