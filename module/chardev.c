// SPDX-License-Identifier: GPL-2.0-only
/*
 * /dev/nlrig: a character device that exchanges data in both directions, as
 * netlink does, and wakes a program from a kernel timer.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/timer.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include <linux/wait.h>

#include "compat.h"
#include "nlrig.h"

/* 32-bit and 64-bit programs use the same kernel. */
static_assert(sizeof(struct nlrig_exchange) == 16);

/**
 * struct nlrig_chardev_file - state of an open file
 * @page: page that mmap() maps; a program may have written to it
 * @exchange_lock: protects @exchanges and the order of writes to @page
 * @exchanges: number of exchanges so far
 * @timer: makes the file readable
 * @lock: protects @expiries and @consumed
 * @expiries: number of expiries of @timer so far
 * @consumed: number of expiries that read() has reported
 * @wait: tasks that wait for an expiry
 * @fasync: files that get SIGIO
 */
struct nlrig_chardev_file {
	struct nlrig_exchange *page;
	struct mutex exchange_lock;
	u64 exchanges;
	struct timer_list timer;
	spinlock_t lock;
	u64 expiries;
	u64 consumed;
	wait_queue_head_t wait;
	struct fasync_struct *fasync;
};

static void nlrig_chardev_expired(struct timer_list *timer)
{
	struct nlrig_chardev_file *state =
		container_of(timer, struct nlrig_chardev_file, timer);

	spin_lock(&state->lock);
	state->expiries++;
	spin_unlock(&state->lock);
	wake_up_interruptible(&state->wait);
	kill_fasync(&state->fasync, SIGIO, POLL_IN);
}

static int nlrig_chardev_open(struct inode *inode, struct file *file)
{
	struct nlrig_chardev_file *state;

	state = kzalloc(sizeof(*state), GFP_KERNEL);
	if (!state)
		return -ENOMEM;
	state->page = vmalloc_user(PAGE_SIZE);
	if (!state->page) {
		kfree(state);
		return -ENOMEM;
	}
	mutex_init(&state->exchange_lock);
	spin_lock_init(&state->lock);
	init_waitqueue_head(&state->wait);
	timer_setup(&state->timer, nlrig_chardev_expired, 0);
	file->private_data = state;
	return stream_open(inode, file);
}

static int nlrig_chardev_fasync(int fd, struct file *file, int on)
{
	struct nlrig_chardev_file *state = file->private_data;

	return fasync_helper(fd, file, on, &state->fasync);
}

/* A mapping holds the file, so none is left. */
static int nlrig_chardev_release(struct inode *inode, struct file *file)
{
	struct nlrig_chardev_file *state = file->private_data;

	nlrig_timer_delete_sync(&state->timer);
	vfree(state->page);
	kfree(state);
	return 0;
}

static bool nlrig_chardev_readable(struct nlrig_chardev_file *state)
{
	bool readable;

	spin_lock_bh(&state->lock);
	readable = state->consumed < state->expiries;
	spin_unlock_bh(&state->lock);
	return readable;
}

/* Return: whether there was an expiry that no read() has reported. */
static bool nlrig_chardev_consume(struct nlrig_chardev_file *state,
				  u64 *expiries)
{
	bool consumed = false;

	spin_lock_bh(&state->lock);
	*expiries = state->expiries;
	if (state->consumed < state->expiries) {
		state->consumed++;
		consumed = true;
	}
	spin_unlock_bh(&state->lock);
	return consumed;
}

/* Makes an expiry readable again that could not be copied to the user. */
static void nlrig_chardev_restore(struct nlrig_chardev_file *state)
{
	spin_lock_bh(&state->lock);
	state->consumed--;
	spin_unlock_bh(&state->lock);
	wake_up_interruptible(&state->wait);
}

static ssize_t nlrig_chardev_read(struct file *file, char __user *buffer,
				  size_t size, loff_t *unused)
{
	struct nlrig_chardev_file *state = file->private_data;
	u64 expiries;
	int err;

	if (size < sizeof(expiries))
		return -EINVAL;
	while (!nlrig_chardev_consume(state, &expiries)) {
		if (file->f_flags & O_NONBLOCK)
			return -EAGAIN;
		err = wait_event_interruptible(state->wait,
					       nlrig_chardev_readable(state));
		if (err)
			return err;
	}
	if (copy_to_user(buffer, &expiries, sizeof(expiries))) {
		nlrig_chardev_restore(state);
		return -EFAULT;
	}
	return sizeof(expiries);
}

static __poll_t nlrig_chardev_poll(struct file *file, poll_table *table)
{
	struct nlrig_chardev_file *state = file->private_data;

	poll_wait(file, &state->wait, table);
	return nlrig_chardev_readable(state) ? EPOLLIN | EPOLLRDNORM : 0;
}

static long nlrig_ioctl_exchange(struct nlrig_chardev_file *state,
				 struct nlrig_exchange __user *user)
{
	struct nlrig_exchange exchange;

	if (copy_from_user(&exchange, user, sizeof(exchange)))
		return -EFAULT;
	exchange.value++;
	mutex_lock(&state->exchange_lock);
	exchange.count = ++state->exchanges;
	*state->page = exchange;
	mutex_unlock(&state->exchange_lock);
	return copy_to_user(user, &exchange, sizeof(exchange)) ? -EFAULT : 0;
}

static long nlrig_ioctl_wake(struct nlrig_chardev_file *state, u32 __user *user)
{
	u32 delay_ms;

	if (get_user(delay_ms, user))
		return -EFAULT;
	if (delay_ms > NLRIG_DELAY_MS_MAX)
		return -EINVAL;
	mod_timer(&state->timer, jiffies + msecs_to_jiffies(delay_ms));
	return 0;
}

static long nlrig_chardev_ioctl(struct file *file, unsigned int command,
				unsigned long argument)
{
	struct nlrig_chardev_file *state = file->private_data;
	void __user *user = (void __user *)argument;

	switch (command) {
	case NLRIG_IOC_EXCHANGE:
		return nlrig_ioctl_exchange(state, user);
	case NLRIG_IOC_WAKE:
		return nlrig_ioctl_wake(state, user);
	default:
		return -ENOTTY;
	}
}

/* remap_vmalloc_range() refuses a range outside the page. */
static int nlrig_chardev_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct nlrig_chardev_file *state = file->private_data;

	return remap_vmalloc_range(vma, state->page, vma->vm_pgoff);
}

static const struct file_operations nlrig_chardev_ops = {
	.owner = THIS_MODULE,
	.open = nlrig_chardev_open,
	.release = nlrig_chardev_release,
	.read = nlrig_chardev_read,
	.poll = nlrig_chardev_poll,
	.fasync = nlrig_chardev_fasync,
	.unlocked_ioctl = nlrig_chardev_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = nlrig_chardev_mmap,
};

static struct miscdevice nlrig_chardev = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "nlrig",
	.fops = &nlrig_chardev_ops,
	.mode = 0600,
};

static bool nlrig_chardev_registered;

/**
 * nlrig_chardev_init() - register /dev/nlrig
 *
 * On failure the device is absent.
 */
void nlrig_chardev_init(void)
{
	int err = misc_register(&nlrig_chardev);

	if (err)
		pr_err("cannot register /dev/nlrig: error %d\n", err);
	nlrig_chardev_registered = !err;
}

/**
 * nlrig_chardev_exit() - remove /dev/nlrig
 *
 * An open file holds the module, so none is left.
 */
void nlrig_chardev_exit(void)
{
	if (nlrig_chardev_registered)
		misc_deregister(&nlrig_chardev);
}
