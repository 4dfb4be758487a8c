// SPDX-License-Identifier: GPL-2.0-only
/*
 * NLRIG_MSG_DUMP: an answer in parts, as netlink's dumps are.
 */

#include "nlrig.h"

/* Called with room for some messages, again and again as the reader reads,
 * until it adds none.
 */
static int nlrig_dump_part(struct sk_buff *skb, struct netlink_callback *cb)
{
	unsigned long count = (unsigned long)cb->data;
	struct nlmsghdr *nlh;

	for (; cb->args[0] < count; cb->args[0]++) {
		nlh = nlmsg_put(skb, NETLINK_CB(cb->skb).portid,
				cb->nlh->nlmsg_seq, NLRIG_MSG_DATA,
				sizeof(u32), NLM_F_MULTI);
		if (!nlh)
			break;
		*(u32 *)nlmsg_data(nlh) = cb->args[0];
		nlmsg_end(skb, nlh);
	}
	return skb->len;
}

/**
 * nlrig_dump() - begin to answer one NLRIG_MSG_DUMP
 * @skb: the datagram it came in
 * @nlh: the message in it
 * @tb: its attributes
 * @extack: where the reason of a refusal goes
 *
 * The module is held until the dump is over or the socket closed.
 *
 * Return: -EINTR once it has begun, which is how netlink is told that there is
 * nothing to acknowledge; -EINVAL; or another error of netlink_dump_start(),
 * -EBUSY if a dump to this socket is under way.
 */
int nlrig_dump(struct sk_buff *skb, struct nlmsghdr *nlh, struct nlattr **tb,
	       struct netlink_ext_ack *extack)
{
	struct netlink_dump_control control = {
		.dump = nlrig_dump_part,
	};

	if ((nlh->nlmsg_flags & NLM_F_DUMP) != NLM_F_DUMP) {
		NL_SET_ERR_MSG(extack, "a dump needs NLM_F_DUMP");
		return -EINVAL;
	}
	if (!tb[NLRIG_A_COUNT]) {
		NL_SET_ERR_MSG(extack, "NLRIG_A_COUNT is missing");
		return -EINVAL;
	}
	control.data = (void *)(unsigned long)nla_get_u32(tb[NLRIG_A_COUNT]);
	return netlink_dump_start(skb->sk, skb, nlh, &control);
}
