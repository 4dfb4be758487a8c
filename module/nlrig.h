/* SPDX-License-Identifier: GPL-2.0-only */
/* What the files of the nlrig module share. */
#ifndef _NLRIG_H
#define _NLRIG_H

#include <linux/atomic.h>
#include <linux/skbuff.h>
#include <net/netlink.h>

#include "uapi/nlrig.h"

/**
 * struct nlrig_calls - how often a function was called
 * @total: calls so far
 * @now: calls that have not returned yet
 * @most: the most that @now ever was
 */
struct nlrig_calls {
	atomic_t total;
	atomic_t now;
	atomic_t most;
};

/**
 * struct nlrig_switch - the module of a text, off until a parameter names its
 * protocol
 * @protocol: the protocol; 0: off
 * @sk: the kernel's socket of it, once all is set up
 * @groups: for netlink_kernel_create(), as the text has it
 * @input: for netlink_kernel_create()
 * @start: called with the socket, may sleep; may be NULL
 * @stop: undoes @start before the socket is released; may be NULL
 */
struct nlrig_switch {
	unsigned int protocol;
	struct sock *sk;
	unsigned int groups;
	void (*input)(struct sk_buff *skb);
	int (*start)(struct sock *sk);
	void (*stop)(void);
};

/* echo.c */
int nlrig_echo(struct sk_buff *skb, struct nlmsghdr *nlh, struct nlattr **tb,
	       struct netlink_ext_ack *extack);

/* fault.c */
int nlrig_fault(struct sk_buff *skb, struct nlmsghdr *nlh, struct nlattr **tb,
		struct netlink_ext_ack *extack);

/* send.c */
int nlrig_send(struct sk_buff *skb, struct nlmsghdr *nlh, struct nlattr **tb,
	       struct netlink_ext_ack *extack);
bool nlrig_send_next(gfp_t gfp);
void nlrig_send_interrupted(void);
int nlrig_send_put(struct sk_buff *skb);
int nlrig_send_reset(void);

/* context.c */
int nlrig_context_start(u32 context, u32 delay_ms);
void nlrig_context_init(void);
void nlrig_context_exit(void);

/* dump.c */
int nlrig_dump(struct sk_buff *skb, struct nlmsghdr *nlh, struct nlattr **tb,
	       struct netlink_ext_ack *extack);

/* state.c */
extern struct nlrig_calls nlrig_inputs;
void nlrig_calls_enter(struct nlrig_calls *calls);
void nlrig_calls_leave(struct nlrig_calls *calls);
void nlrig_calls_reset(struct nlrig_calls *calls);
int nlrig_calls_put(struct sk_buff *skb, struct nlrig_calls *calls, int first);
int nlrig_state(struct sk_buff *skb, struct nlmsghdr *nlh, struct nlattr **tb,
		struct netlink_ext_ack *extack);

/* switch.c */
extern const struct kernel_param_ops nlrig_switch_ops;
void nlrig_switch_init(void);
void nlrig_switch_exit(void);
struct sock *nlrig_switch_sock(u32 protocol);

/* article.c */
extern struct nlrig_switch nlrig_article;
extern bool nlrig_article_init_fails;
int nlrig_article_put(struct sk_buff *skb);
void nlrig_article_reset(void);

/* paper.c */
extern struct nlrig_switch nlrig_paper;
int nlrig_paper_put(struct sk_buff *skb);
void nlrig_paper_reset(void);

/* chardev.c */
void nlrig_chardev_init(void);
void nlrig_chardev_exit(void);

/* procfile.c */
void nlrig_procfile_init(void);
void nlrig_procfile_exit(void);

/* sysfile.c */
void nlrig_sysfile_init(void);
void nlrig_sysfile_exit(void);

#endif /* _NLRIG_H */
