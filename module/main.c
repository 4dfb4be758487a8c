// SPDX-License-Identifier: GPL-2.0-only
/*
 * nlrig: the kernel side of the rig's netlink protocol.
 *
 * This file creates and releases the kernel socket, validates each message and
 * calls its handler. uapi/nlrig.h documents the protocol.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/module.h>
#include <net/net_namespace.h>
#include <net/sock.h>

#include "nlrig.h"

static struct sock *nlrig_sock;

/* The bounds of NLA_POLICY_RANGE() and NLA_POLICY_MAX() are signed 16-bit
 * numbers. Not const, because the policy of 6.1 has a pointer to non-const.
 */
static struct netlink_range_validation nlrig_count_range = {
	.min = 1,
	.max = NLRIG_COUNT_MAX,
};

static struct netlink_range_validation nlrig_size_range = {
	.max = NLRIG_SIZE_MAX,
};

static const struct nla_policy nlrig_send_policy[] = {
	[NLRIG_A_SEND_COUNT] = NLA_POLICY_FULL_RANGE(NLA_U32,
						     &nlrig_count_range),
	[NLRIG_A_SEND_SIZE] = NLA_POLICY_FULL_RANGE(NLA_U32, &nlrig_size_range),
	[NLRIG_A_SEND_DELAY_MS] = NLA_POLICY_MAX(NLA_U32, NLRIG_DELAY_MS_MAX),
	[NLRIG_A_SEND_PORTID] = { .type = NLA_U32 },
	[NLRIG_A_SEND_GROUP] = NLA_POLICY_RANGE(NLA_U32, 1, NLRIG_GROUPS),
	[NLRIG_A_SEND_CONTEXT] = NLA_POLICY_MAX(NLA_U32, NLRIG_CONTEXT_MAX),
	[NLRIG_A_SEND_PROTOCOL] = NLA_POLICY_MAX(NLA_U32, MAX_LINKS - 1),
	[NLRIG_A_SEND_BLOCK] = { .type = NLA_FLAG },
};

static const struct nla_policy nlrig_dump_policy[] = {
	[NLRIG_A_DUMP_COUNT] = NLA_POLICY_FULL_RANGE(NLA_U32,
						     &nlrig_count_range),
};

static const struct nla_policy nlrig_state_policy[] = {
	[NLRIG_A_STATE_RESET] = { .type = NLA_FLAG },
};

/* The highest attribute of any request. */
#define NLRIG_A_REQUEST_MAX NLRIG_A_SEND_MAX

static_assert(ARRAY_SIZE(nlrig_send_policy) <= NLRIG_A_REQUEST_MAX + 1);
static_assert(ARRAY_SIZE(nlrig_dump_policy) <= NLRIG_A_REQUEST_MAX + 1);
static_assert(ARRAY_SIZE(nlrig_state_policy) <= NLRIG_A_REQUEST_MAX + 1);

/**
 * struct nlrig_op - a message type
 * @doit: handler of a validated message; netlink acknowledges with its error
 * @body_size: bytes of a body of fixed layout, or 0 if attributes follow the
 *	       header
 * @policy: policy of the attributes
 * @maxattr: highest attribute of @policy
 */
struct nlrig_op {
	int (*doit)(struct sk_buff *skb, struct nlmsghdr *nlh,
		      struct nlattr **tb, struct netlink_ext_ack *extack);
	int body_size;
	const struct nla_policy *policy;
	int maxattr;
};

static const struct nlrig_op nlrig_ops[] = {
	[NLRIG_MSG_ECHO] = {
		.doit = nlrig_echo,
		.body_size = sizeof(struct nlrig_echo),
	},
	[NLRIG_MSG_FAULT] = {
		.doit = nlrig_fault,
		.body_size = sizeof(struct nlrig_fault),
	},
	[NLRIG_MSG_SEND] = {
		.doit = nlrig_send,
		.policy = nlrig_send_policy,
		.maxattr = ARRAY_SIZE(nlrig_send_policy) - 1,
	},
	[NLRIG_MSG_DUMP] = {
		.doit = nlrig_dump,
		.policy = nlrig_dump_policy,
		.maxattr = ARRAY_SIZE(nlrig_dump_policy) - 1,
	},
	[NLRIG_MSG_STATE] = {
		.doit = nlrig_state,
		.policy = nlrig_state_policy,
		.maxattr = ARRAY_SIZE(nlrig_state_policy) - 1,
	},
};

/* netlink_rcv_skb() has checked that the message lies inside the datagram. */
static int nlrig_receive(struct sk_buff *skb, struct nlmsghdr *nlh,
			 struct netlink_ext_ack *extack)
{
	struct nlattr *tb[NLRIG_A_REQUEST_MAX + 1];
	const struct nlrig_op *op;
	int err;

	op = nlh->nlmsg_type < ARRAY_SIZE(nlrig_ops) ?
	     &nlrig_ops[nlh->nlmsg_type] : NULL;
	if (!op || !op->doit) {
		NL_SET_ERR_MSG(extack, "unknown nlrig message type");
		return -EOPNOTSUPP;
	}

	if (op->body_size) {
		if (nlmsg_len(nlh) != op->body_size) {
			NL_SET_ERR_MSG(extack, "the body has the wrong size");
			return -EINVAL;
		}
		return op->doit(skb, nlh, NULL, extack);
	}

	err = nlmsg_parse(nlh, 0, tb, op->maxattr, op->policy, extack);
	if (err)
		return err;
	return op->doit(skb, nlh, tb, extack);
}

/* Runs in the system call of the requester. netlink does not serialise these
 * calls, and the handlers do not need it to.
 */
static void nlrig_input(struct sk_buff *skb)
{
	nlrig_calls_enter(&nlrig_input_calls);
	netlink_rcv_skb(skb, nlrig_receive);
	nlrig_calls_leave(&nlrig_input_calls);
}

/* Users can run code of this module as soon as its first interface is
 * registered, and the kernel frees a module whose init fails without waiting for
 * them. So only the first registration can fail the init. If a later one fails,
 * that is logged and the interface is absent.
 */
static int __init nlrig_init(void)
{
	struct netlink_kernel_cfg cfg = {
		.groups = NLRIG_GROUPS,
		.input = nlrig_input,
	};

	nlrig_send_init();
	/* A message can arrive before this returns. */
	nlrig_sock = netlink_kernel_create(&init_net, NETLINK_NLRIG, &cfg);
	if (!nlrig_sock) {
		pr_err("cannot create the netlink socket: protocol %d is in use or memory is short\n",
		       NETLINK_NLRIG);
		return -EADDRINUSE;
	}

	nlrig_chardev_init();
	nlrig_procfile_init();
	nlrig_sysfile_init();
	nlrig_toggle_init();

	/* The article's module returns 1, which the kernel does not treat as an
	 * error: it warns and keeps the module.
	 */
	return nlrig_article_init_fails ? 1 : 0;
}

/* A user's socket of one of this module's protocols holds the module from
 * socket() until the last system call on it returns. So no input callback runs
 * for a user any more, and no request can start.
 */
static void __exit nlrig_exit(void)
{
	/* First, because it sends through the sockets. */
	nlrig_send_exit();
	netlink_kernel_release(nlrig_sock);
	nlrig_toggle_exit();
	nlrig_sysfile_exit();
	nlrig_procfile_exit();
	nlrig_chardev_exit();
}

module_init(nlrig_init);
module_exit(nlrig_exit);

MODULE_DESCRIPTION("Kernel side of the nlrig netlink test rig");
MODULE_AUTHOR("The nlrig developers");
MODULE_LICENSE("GPL v2");
