/* SPDX-License-Identifier: GPL-2.0-only */
/* What the files of the nlrig module share. */
#ifndef _NLRIG_H
#define _NLRIG_H

#include <linux/skbuff.h>
#include <net/netlink.h>

#include "uapi/nlrig.h"

/* echo.c */
int nlrig_echo(struct sk_buff *skb, const struct nlmsghdr *nlh);

/* fault.c */
int nlrig_fault(struct sk_buff *skb, const struct nlmsghdr *nlh,
		struct netlink_ext_ack *extack);

#endif /* _NLRIG_H */
