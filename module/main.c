// SPDX-License-Identifier: GPL-2.0-only
/*
 * nlrig: the kernel end of the rig's private netlink protocol.
 *
 * This file makes and releases the kernel's socket and hands each message to
 * the file of its concern. The protocol is documented in uapi/nlrig.h.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/module.h>
#include <net/net_namespace.h>
#include <net/sock.h>

#include "nlrig.h"

static struct sock *nlrig_sock;

static int nlrig_receive(struct sk_buff *skb, struct nlmsghdr *nlh,
			 struct netlink_ext_ack *extack)
{
	switch (nlh->nlmsg_type) {
	case NLRIG_MSG_ECHO:
		return nlrig_echo(skb, nlh);
	case NLRIG_MSG_FAULT:
		return nlrig_fault(skb, nlh, extack);
	default:
		NL_SET_ERR_MSG(extack, "unknown nlrig message type");
		return -EOPNOTSUPP;
	}
}

/* Called in the sender's context, by several senders at once: netlink does not
 * serialise it, and nothing here needs it to.
 */
static void nlrig_input(struct sk_buff *skb)
{
	netlink_rcv_skb(skb, nlrig_receive);
}

static int __init nlrig_init(void)
{
	struct netlink_kernel_cfg cfg = {
		.input = nlrig_input,
	};

	nlrig_sock = netlink_kernel_create(&init_net, NETLINK_NLRIG, &cfg);
	if (!nlrig_sock) {
		pr_err("netlink protocol %d is taken or memory is short\n",
		       NETLINK_NLRIG);
		return -EADDRINUSE;
	}
	return 0;
}

static void __exit nlrig_exit(void)
{
	netlink_kernel_release(nlrig_sock);
}

module_init(nlrig_init);
module_exit(nlrig_exit);

MODULE_DESCRIPTION("The kernel end of the nlrig netlink test rig");
MODULE_AUTHOR("The nlrig developers");
MODULE_LICENSE("GPL v2");
