// SPDX-License-Identifier: GPL-2.0-only
/*
 * nlrig: the kernel end of the rig's private netlink protocol.
 *
 * This file makes and releases the kernel's socket, checks each message and
 * hands it to the file of its concern. The protocol is documented in
 * uapi/nlrig.h.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/module.h>
#include <net/net_namespace.h>
#include <net/sock.h>

#include "nlrig.h"

static struct sock *nlrig_sock;

/* NLA_POLICY_RANGE() and NLA_POLICY_MAX() hold 16 bits with a sign. Not
 * constant, because 6.1 takes no pointer to a constant.
 */
static struct netlink_range_validation nlrig_count_range = {
	.min = 1,
	.max = NLRIG_COUNT_MAX,
};

static struct netlink_range_validation nlrig_size_range = {
	.max = NLRIG_SIZE_MAX,
};

static const struct nla_policy nlrig_send_policy[] = {
	[NLRIG_A_COUNT] = NLA_POLICY_FULL_RANGE(NLA_U32, &nlrig_count_range),
	[NLRIG_A_SIZE] = NLA_POLICY_FULL_RANGE(NLA_U32, &nlrig_size_range),
	[NLRIG_A_DELAY_MS] = NLA_POLICY_MAX(NLA_U32, NLRIG_DELAY_MS_MAX),
	[NLRIG_A_PORTID] = { .type = NLA_U32 },
	[NLRIG_A_GROUP] = NLA_POLICY_RANGE(NLA_U32, 1, NLRIG_GROUPS),
	[NLRIG_A_CONTEXT] = NLA_POLICY_MAX(NLA_U32, NLRIG_CONTEXT_HARDIRQ),
	[NLRIG_A_PROTOCOL] = NLA_POLICY_MAX(NLA_U32, MAX_LINKS - 1),
	[NLRIG_A_BLOCK] = { .type = NLA_FLAG },
};

static const struct nla_policy nlrig_dump_policy[] = {
	[NLRIG_A_COUNT] = NLA_POLICY_FULL_RANGE(NLA_U32, &nlrig_count_range),
};

static const struct nla_policy nlrig_state_policy[] = {
	[NLRIG_A_RESET] = { .type = NLA_FLAG },
};

/* The highest attribute that any request may have. */
#define NLRIG_A_MAX_REQUEST NLRIG_A_RESET

static_assert(ARRAY_SIZE(nlrig_send_policy) <= NLRIG_A_MAX_REQUEST + 1);
static_assert(ARRAY_SIZE(nlrig_dump_policy) <= NLRIG_A_MAX_REQUEST + 1);
static_assert(ARRAY_SIZE(nlrig_state_policy) <= NLRIG_A_MAX_REQUEST + 1);

/**
 * struct nlrig_message - what is known of a message type
 * @handle: called once the message has been checked; its error is answered
 * @body: bytes of a body of fixed layout, or 0: the body is attributes
 * @policy: what the attributes have to be like
 * @max: the highest of them
 */
struct nlrig_message {
	int (*handle)(struct sk_buff *skb, struct nlmsghdr *nlh,
		      struct nlattr **tb, struct netlink_ext_ack *extack);
	int body;
	const struct nla_policy *policy;
	int max;
};

static const struct nlrig_message nlrig_messages[] = {
	[NLRIG_MSG_ECHO] = {
		.handle = nlrig_echo,
		.body = sizeof(struct nlrig_echo),
	},
	[NLRIG_MSG_FAULT] = {
		.handle = nlrig_fault,
		.body = sizeof(struct nlrig_fault),
	},
	[NLRIG_MSG_SEND] = {
		.handle = nlrig_send,
		.policy = nlrig_send_policy,
		.max = ARRAY_SIZE(nlrig_send_policy) - 1,
	},
	[NLRIG_MSG_DUMP] = {
		.handle = nlrig_dump,
		.policy = nlrig_dump_policy,
		.max = ARRAY_SIZE(nlrig_dump_policy) - 1,
	},
	[NLRIG_MSG_STATE] = {
		.handle = nlrig_state,
		.policy = nlrig_state_policy,
		.max = ARRAY_SIZE(nlrig_state_policy) - 1,
	},
};

/* netlink_rcv_skb() has checked that the message lies inside of the datagram. */
static int nlrig_receive(struct sk_buff *skb, struct nlmsghdr *nlh,
			 struct netlink_ext_ack *extack)
{
	struct nlattr *tb[NLRIG_A_MAX_REQUEST + 1];
	const struct nlrig_message *message;
	int err;

	message = nlh->nlmsg_type < ARRAY_SIZE(nlrig_messages) ?
		  &nlrig_messages[nlh->nlmsg_type] : NULL;
	if (!message || !message->handle) {
		NL_SET_ERR_MSG(extack, "unknown nlrig message type");
		return -EOPNOTSUPP;
	}

	if (message->body) {
		if (nlmsg_len(nlh) < message->body) {
			NL_SET_ERR_MSG(extack, "the body is too short");
			return -EINVAL;
		}
		return message->handle(skb, nlh, NULL, extack);
	}

	err = nlmsg_parse(nlh, 0, tb, message->max, message->policy, extack);
	if (err)
		return err;
	return message->handle(skb, nlh, tb, extack);
}

/* Called in the sender's context, by several senders at once: netlink does not
 * serialise it, and nothing here needs it to.
 */
static void nlrig_input(struct sk_buff *skb)
{
	nlrig_calls_enter(&nlrig_inputs);
	netlink_rcv_skb(skb, nlrig_receive);
	nlrig_calls_leave(&nlrig_inputs);
}

/*
 * Once an interface is registered, users can be in this module's code, and the
 * kernel frees a module whose init fails without waiting for them. So the only
 * step that can fail the init is the first one that registers anything. What
 * comes after it and cannot be registered is logged and absent.
 */
static int __init nlrig_init(void)
{
	struct netlink_kernel_cfg cfg = {
		.groups = NLRIG_GROUPS,
		.input = nlrig_input,
	};

	nlrig_context_init();
	/* A message can come in before this returns. */
	nlrig_sock = netlink_kernel_create(&init_net, NETLINK_NLRIG, &cfg);
	if (!nlrig_sock) {
		pr_err("cannot create the netlink socket: protocol %d is in use or memory is short\n",
		       NETLINK_NLRIG);
		return -EADDRINUSE;
	}

	nlrig_chardev_init();
	nlrig_procfile_init();
	nlrig_sysfile_init();
	nlrig_switch_init();

	/* The article's mistake: this is not an error to the kernel, which
	 * warns and keeps the module.
	 */
	return nlrig_article_init_fails ? 1 : 0;
}

/* A socket of a protocol of this module holds the module, from socket() until
 * the last system call on it is over. So no input callback runs for a user any
 * more, and nobody can start sending.
 */
static void __exit nlrig_exit(void)
{
	/* First: it sends through the sockets that go below. */
	nlrig_context_exit();
	netlink_kernel_release(nlrig_sock);
	nlrig_switch_exit();
	nlrig_sysfile_exit();
	nlrig_procfile_exit();
	nlrig_chardev_exit();
}

module_init(nlrig_init);
module_exit(nlrig_exit);

MODULE_DESCRIPTION("The kernel end of the nlrig netlink test rig");
MODULE_AUTHOR("The nlrig developers");
MODULE_LICENSE("GPL v2");
