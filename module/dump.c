// SPDX-License-Identifier: GPL-2.0-only
/*
 * NLRIG_MSG_DUMP: a reply of several parts.
 */

#include "nlrig.h"

/* netlink calls this with an empty buffer whenever the reader has room, until it
 * adds no message.
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
 * nlrig_dump() - handle NLRIG_MSG_DUMP
 * @skb: datagram with the request
 * @nlh: header of the request
 * @tb: parsed attributes of the request
 * @extack: receives the reason of a refusal
 *
 * netlink holds the module until the dump has ended or the socket is closed.
 *
 * Return: -EINTR once the dump has begun, by which netlink_dump_start() asks for
 * no acknowledgement; -EINVAL; or another error of netlink_dump_start(), which
 * is -EBUSY if a dump to this socket is running.
 */
int nlrig_dump(struct sk_buff *skb, struct nlmsghdr *nlh, struct nlattr **tb,
	       struct netlink_ext_ack *extack)
{
	struct netlink_dump_control control = {
		.dump = nlrig_dump_part,
	};

	if ((nlh->nlmsg_flags & NLM_F_DUMP) != NLM_F_DUMP) {
		NL_SET_ERR_MSG(extack, "NLRIG_MSG_DUMP needs NLM_F_DUMP");
		return -EINVAL;
	}
	if (!tb[NLRIG_A_DUMP_COUNT]) {
		NL_SET_ERR_MSG(extack, "NLRIG_A_DUMP_COUNT is missing");
		return -EINVAL;
	}
	control.data = (void *)(unsigned long)nla_get_u32(tb[NLRIG_A_DUMP_COUNT]);
	return netlink_dump_start(skb->sk, skb, nlh, &control);
}
