// SPDX-License-Identifier: GPL-2.0-only
/*
 * The parameters that switch on the modules of the texts.
 *
 * A parameter can be written before the module's init has run (those given at
 * load time, and by sysfs), while it is loaded, and while its exit runs: what is
 * in sysfs does not hold the module. The lock of its parameters tells these
 * times apart.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/module.h>
#include <linux/moduleparam.h>
#include <net/net_namespace.h>
#include <net/sock.h>

#include "nlrig.h"

/* Changed and read with the lock of the parameters held. */
static enum {
	NLRIG_LOADING,
	NLRIG_LIVE,
	NLRIG_LEAVING,
} nlrig_phase;

static struct nlrig_switch *const nlrig_switches[] = {
	&nlrig_article,
	&nlrig_paper,
};

static int nlrig_switch_on(struct nlrig_switch *it, unsigned int protocol)
{
	struct netlink_kernel_cfg cfg = {
		.groups = it->groups,
		.input = it->input,
	};
	struct sock *sk;
	int err;

	sk = netlink_kernel_create(&init_net, protocol, &cfg);
	if (!sk) {
		pr_err("netlink protocol %u is taken or memory is short\n",
		       protocol);
		return -EADDRINUSE;
	}
	err = it->start ? it->start(sk) : 0;
	if (err) {
		pr_err("cannot start protocol %u: error %d\n", protocol, err);
		netlink_kernel_release(sk);
		return err;
	}
	it->protocol = protocol;
	smp_store_release(&it->sk, sk);
	return 0;
}

static void nlrig_switch_off(struct nlrig_switch *it)
{
	if (!it->sk)
		return;
	if (it->stop)
		it->stop();
	netlink_kernel_release(it->sk);
	it->sk = NULL;
}

/* Only numbers that the kernel does not know. Of some of those that it does, it
 * has the table entry: sockets would not hold this module.
 */
static int nlrig_switch_set(const char *value, const struct kernel_param *kp)
{
	struct nlrig_switch *it = kp->arg;
	unsigned int protocol;
	int err;

	err = kstrtouint(value, 0, &protocol);
	if (err)
		return err;
	if (protocol && (protocol <= NETLINK_SMC || protocol >= MAX_LINKS))
		return -EINVAL;

	switch (nlrig_phase) {
	case NLRIG_LOADING:
		it->protocol = protocol;
		return 0;
	case NLRIG_LIVE:
		if (it->sk)
			return -EBUSY;
		return protocol ? nlrig_switch_on(it, protocol) : 0;
	default:
		return -ENODEV;
	}
}

static int nlrig_switch_get(char *buffer, const struct kernel_param *kp)
{
	const struct nlrig_switch *it = kp->arg;

	return sysfs_emit(buffer, "%u\n", it->sk ? it->protocol : 0);
}

const struct kernel_param_ops nlrig_switch_ops = {
	.set = nlrig_switch_set,
	.get = nlrig_switch_get,
};

/**
 * nlrig_switch_sock() - the kernel's socket of a protocol
 * @protocol: the protocol
 *
 * Return: the socket, which stays until the module is unloaded, or NULL if none
 * of the texts' modules has this protocol.
 */
struct sock *nlrig_switch_sock(u32 protocol)
{
	struct sock *sk;
	int i;

	for (i = 0; i < ARRAY_SIZE(nlrig_switches); i++) {
		sk = smp_load_acquire(&nlrig_switches[i]->sk);
		if (sk && sk->sk_protocol == protocol)
			return sk;
	}
	return NULL;
}

/**
 * nlrig_switch_init() - switch on what was asked for at load time
 *
 * A socket that cannot be created is logged, and its parameter reads 0. The init
 * does not fail: the module's own socket has users by now.
 */
void nlrig_switch_init(void)
{
	int i;

	kernel_param_lock(THIS_MODULE);
	if (nlrig_article_init_fails)
		nlrig_article.protocol = 0;
	for (i = 0; i < ARRAY_SIZE(nlrig_switches); i++)
		if (nlrig_switches[i]->protocol)
			nlrig_switch_on(nlrig_switches[i],
					nlrig_switches[i]->protocol);
	nlrig_phase = NLRIG_LIVE;
	kernel_param_unlock(THIS_MODULE);
}

/* Nobody can switch on anything afterwards. */
void nlrig_switch_exit(void)
{
	int i;

	kernel_param_lock(THIS_MODULE);
	nlrig_phase = NLRIG_LEAVING;
	kernel_param_unlock(THIS_MODULE);
	for (i = 0; i < ARRAY_SIZE(nlrig_switches); i++)
		nlrig_switch_off(nlrig_switches[i]);
}
