// SPDX-License-Identifier: GPL-2.0-only
/*
 * The parameters that enable the article's and the paper's protocol.
 *
 * A parameter can be written before the module's init, while the module is live,
 * and during its exit: an open sysfs file does not hold the module. The
 * parameter lock protects a phase that tells these times apart.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/module.h>
#include <linux/moduleparam.h>
#include <net/net_namespace.h>
#include <net/sock.h>

#include "nlrig.h"

/* Protected by the parameter lock of this module. */
static enum {
	NLRIG_PHASE_COMING,
	NLRIG_PHASE_LIVE,
	NLRIG_PHASE_GOING,
} nlrig_phase;

static struct nlrig_toggle *const nlrig_toggles[] = {
	&nlrig_article,
	&nlrig_paper,
};

static int nlrig_toggle_enable(struct nlrig_toggle *toggle,
			       unsigned int protocol)
{
	struct netlink_kernel_cfg cfg = {
		.groups = toggle->groups,
		.input = toggle->input,
	};
	struct sock *sk;
	int err;

	sk = netlink_kernel_create(&init_net, protocol, &cfg);
	if (!sk) {
		pr_err("cannot create the netlink socket: protocol %u is in use or memory is short\n",
		       protocol);
		return -EADDRINUSE;
	}
	err = toggle->start ? toggle->start(sk) : 0;
	if (err) {
		pr_err("cannot start protocol %u: error %d\n", protocol, err);
		netlink_kernel_release(sk);
		return err;
	}
	toggle->protocol = protocol;
	/* A reader that sees the socket sees all of its setup. */
	smp_store_release(&toggle->sk, sk);
	return 0;
}

static void nlrig_toggle_disable(struct nlrig_toggle *toggle)
{
	if (!toggle->sk)
		return;
	if (toggle->stop)
		toggle->stop();
	netlink_kernel_release(toggle->sk);
	toggle->sk = NULL;
}

/* Accepts only protocols that the kernel does not use itself. netlink keeps the
 * table entries of some of those for ever, without this module as their owner,
 * and open sockets would not hold the module.
 */
static int nlrig_toggle_set(const char *value, const struct kernel_param *kp)
{
	struct nlrig_toggle *toggle = kp->arg;
	unsigned int protocol;
	int err;

	err = kstrtouint(value, 0, &protocol);
	if (err)
		return err;
	if (protocol && (protocol <= NETLINK_SMC || protocol >= MAX_LINKS))
		return -EINVAL;

	switch (nlrig_phase) {
	case NLRIG_PHASE_COMING:
		toggle->protocol = protocol;
		return 0;
	case NLRIG_PHASE_LIVE:
		if (toggle->sk)
			return -EBUSY;
		return protocol ? nlrig_toggle_enable(toggle, protocol) : 0;
	default:
		return -ENODEV;
	}
}

static int nlrig_toggle_get(char *buffer, const struct kernel_param *kp)
{
	const struct nlrig_toggle *toggle = kp->arg;

	return sysfs_emit(buffer, "%u\n", toggle->sk ? toggle->protocol : 0);
}

/* Callbacks of a parameter whose argument is a struct nlrig_toggle. */
const struct kernel_param_ops nlrig_toggle_ops = {
	.set = nlrig_toggle_set,
	.get = nlrig_toggle_get,
};

/**
 * nlrig_toggle_sock() - find the kernel socket of an enabled protocol
 * @protocol: protocol number
 *
 * Return: the socket, which exists until the module is unloaded, or NULL if
 * @protocol is not enabled.
 */
struct sock *nlrig_toggle_sock(u32 protocol)
{
	struct sock *sk;
	int i;

	for (i = 0; i < ARRAY_SIZE(nlrig_toggles); i++) {
		/* Pairs with nlrig_toggle_enable(). */
		sk = smp_load_acquire(&nlrig_toggles[i]->sk);
		if (sk && sk->sk_protocol == protocol)
			return sk;
	}
	return NULL;
}

/**
 * nlrig_toggle_init() - enable the protocols that load-time parameters name
 *
 * A socket that cannot be created is logged and its parameter reads 0. The init
 * of the module does not fail, because its own socket has users by now.
 */
void nlrig_toggle_init(void)
{
	int i;

	kernel_param_lock(THIS_MODULE);
	if (nlrig_article_init_fails)
		nlrig_article.protocol = 0;
	for (i = 0; i < ARRAY_SIZE(nlrig_toggles); i++)
		if (nlrig_toggles[i]->protocol)
			nlrig_toggle_enable(nlrig_toggles[i],
					    nlrig_toggles[i]->protocol);
	nlrig_phase = NLRIG_PHASE_LIVE;
	kernel_param_unlock(THIS_MODULE);
}

/**
 * nlrig_toggle_exit() - disable all protocols
 *
 * No parameter enables a protocol afterwards.
 */
void nlrig_toggle_exit(void)
{
	int i;

	kernel_param_lock(THIS_MODULE);
	nlrig_phase = NLRIG_PHASE_GOING;
	kernel_param_unlock(THIS_MODULE);
	for (i = 0; i < ARRAY_SIZE(nlrig_toggles); i++)
		nlrig_toggle_disable(nlrig_toggles[i]);
}
