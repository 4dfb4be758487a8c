/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Declarations shared by the files of the nlrig module.
 */
#ifndef _NLRIG_H
#define _NLRIG_H

#include <linux/atomic.h>
#include <linux/hrtimer.h>
#include <linux/interrupt.h>
#include <linux/skbuff.h>
#include <linux/timer.h>
#include <net/netlink.h>

#include "uapi/nlrig.h"

/**
 * struct nlrig_calls - counters of the calls of one function
 * @total: number of calls so far
 * @active: number of calls that have not returned yet
 * @peak: highest value that @active has had
 */
struct nlrig_calls {
	atomic_t total;
	atomic_t active;
	atomic_t peak;
};

/**
 * struct nlrig_toggle - an additional netlink protocol that a parameter enables
 * @protocol: protocol number, 0 while disabled
 * @sk: kernel socket of @protocol; set last, read with nlrig_toggle_sock() or
 *	smp_load_acquire()
 * @groups: number of multicast groups, for netlink_kernel_create()
 * @input: input callback, for netlink_kernel_create()
 * @start: starts what serves the socket; may sleep; may be NULL
 * @stop: undoes @start before the socket is released; may be NULL
 */
struct nlrig_toggle {
	unsigned int protocol;
	struct sock *sk;
	unsigned int groups;
	void (*input)(struct sk_buff *skb);
	int (*start)(struct sock *sk);
	void (*stop)(void);
};

/**
 * struct nlrig_send_request - the parameters of one NLRIG_MSG_SEND
 * @sk: kernel socket that sends
 * @count: number of messages
 * @size: bytes of body per message
 * @delay_ms: milliseconds to wait before each message
 * @context: context to send from, NLRIG_CONTEXT_*
 * @portid: destination port; with @group, the port that is left out
 * @group: destination group, or 0 to send to @portid
 * @block: wait for room in the receiver's buffer
 */
struct nlrig_send_request {
	struct sock *sk;
	u32 count;
	u32 size;
	u32 delay_ms;
	u32 context;
	u32 portid;
	u32 group;
	bool block;
};

/**
 * struct nlrig_send_result - what has become of a request so far
 * @sent: number of messages that netlink accepted
 * @failed: number of messages that failed
 * @first_failed: number of the first message that failed, U32_MAX if none
 * @errno: positive errno of that message, 0 if none
 * @elapsed_ns: time spent in netlink
 * @elapsed_us: @elapsed_ns for readers, which could see half of a 64-bit write
 * @contexts: NLRIG_IN_* flags of the contexts that messages were sent from
 */
struct nlrig_send_result {
	u32 sent;
	u32 failed;
	u32 first_failed;
	u32 errno;
	u64 elapsed_ns;
	u32 elapsed_us;
	u32 contexts;
};

/**
 * struct nlrig_sender - state of the sender; the module has one
 * @busy: bit 0 is set while a request runs; only its holder uses the fields
 *	  below, except that others may read @result
 * @request: the running request
 * @number: number of the next message
 * @result: result of the running or the last request
 * @stopping: the module is being unloaded
 * @thread: thread of the last request sent from one, until it is reaped
 * @timer: sends, or schedules @tasklet after a delay
 * @tasklet: sends from softirq context
 * @hrtimer: sends from hard interrupt context
 */
struct nlrig_sender {
	unsigned long busy;
	struct nlrig_send_request request;
	u32 number;
	struct nlrig_send_result result;
	bool stopping;
	struct task_struct *thread;
	struct timer_list timer;
	struct tasklet_struct tasklet;
	struct hrtimer hrtimer;
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
bool nlrig_send_next(struct nlrig_sender *sender, gfp_t gfp);
void nlrig_send_interrupted(struct nlrig_sender *sender);
int nlrig_send_put(struct sk_buff *skb, bool reset);
void nlrig_send_init(void);
void nlrig_send_exit(void);

/* context.c */
int nlrig_context_start(struct nlrig_sender *sender);
void nlrig_context_init(struct nlrig_sender *sender);
void nlrig_context_exit(struct nlrig_sender *sender);

/* dump.c */
int nlrig_dump(struct sk_buff *skb, struct nlmsghdr *nlh, struct nlattr **tb,
	       struct netlink_ext_ack *extack);

/* state.c */
extern struct nlrig_calls nlrig_input_calls;
void nlrig_calls_enter(struct nlrig_calls *calls);
void nlrig_calls_leave(struct nlrig_calls *calls);
int nlrig_calls_put(struct sk_buff *skb, struct nlrig_calls *calls, int attr,
		    bool reset);
u32 nlrig_counter_read(atomic_t *counter, bool reset);
u32 nlrig_value_read(u32 *value, bool reset);
int nlrig_state(struct sk_buff *skb, struct nlmsghdr *nlh, struct nlattr **tb,
		struct netlink_ext_ack *extack);

/* toggle.c */
extern const struct kernel_param_ops nlrig_toggle_ops;
void nlrig_toggle_init(void);
void nlrig_toggle_exit(void);
struct sock *nlrig_toggle_sock(u32 protocol);

/* article.c */
extern struct nlrig_toggle nlrig_article;
extern bool nlrig_article_init_fails;
int nlrig_article_put(struct sk_buff *skb, bool reset);

/* paper.c */
extern struct nlrig_toggle nlrig_paper;
int nlrig_paper_put(struct sk_buff *skb, bool reset);

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
