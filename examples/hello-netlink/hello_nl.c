// SPDX-License-Identifier: GPL-2.0-only
/*
 * A generic netlink family that answers a text with a greeting.
 */
#include <linux/module.h>
#include <net/genetlink.h>

#include "hello_nl.h"

#define TEXT_MAX 64

static char *greeting = "hello";
module_param(greeting, charp, 0444);
MODULE_PARM_DESC(greeting, "The word before the text of each answer");

static const struct nla_policy hello_nl_policy[HELLO_NL_ATTR_MAX + 1] = {
	[HELLO_NL_ATTR_TEXT] = { .type = NLA_NUL_STRING, .len = TEXT_MAX },
};

static struct genl_family hello_nl_family;

static int hello_nl_greet(struct sk_buff *skb, struct genl_info *info)
{
	char answer[2 * TEXT_MAX];
	struct sk_buff *reply;
	void *header;
	int err;

	if (!info->attrs[HELLO_NL_ATTR_TEXT])
		return -EINVAL;
	scnprintf(answer, sizeof(answer), "%s, %s", greeting,
		  (char *)nla_data(info->attrs[HELLO_NL_ATTR_TEXT]));

	reply = genlmsg_new(nla_total_size(sizeof(answer)), GFP_KERNEL);
	if (!reply)
		return -ENOMEM;
	err = -EMSGSIZE;
	header = genlmsg_put_reply(reply, info, &hello_nl_family, 0,
				   HELLO_NL_CMD_GREET);
	if (!header)
		goto free;
	err = nla_put_string(reply, HELLO_NL_ATTR_TEXT, answer);
	if (err)
		goto free;
	genlmsg_end(reply, header);
	return genlmsg_reply(reply, info);

free:
	nlmsg_free(reply);
	return err;
}

static const struct genl_small_ops hello_nl_ops[] = {
	{ .cmd = HELLO_NL_CMD_GREET, .doit = hello_nl_greet },
};

static struct genl_family hello_nl_family = {
	.name = HELLO_NL_FAMILY,
	.version = HELLO_NL_VERSION,
	.maxattr = HELLO_NL_ATTR_MAX,
	.policy = hello_nl_policy,
	.module = THIS_MODULE,
	.small_ops = hello_nl_ops,
	.n_small_ops = ARRAY_SIZE(hello_nl_ops),
};

static int __init hello_nl_init(void)
{
	return genl_register_family(&hello_nl_family);
}
module_init(hello_nl_init);

static void __exit hello_nl_exit(void)
{
	genl_unregister_family(&hello_nl_family);
}
module_exit(hello_nl_exit);

MODULE_DESCRIPTION("A generic netlink family that greets");
MODULE_LICENSE("GPL");
