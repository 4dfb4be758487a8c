// SPDX-License-Identifier: GPL-2.0-only
/*
 * /dev/nlrig: a character device that does both ways what netlink does, and
 * wakes a program from a timer of the kernel.
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

#include "nlrig.h"

#define NLRIG_IOC_EXCHANGE \
	_IOWR('N', NLRIG_IOC_EXCHANGE_NR, struct nlrig_exchange)
#define NLRIG_IOC_WAKE _IOW('N', NLRIG_IOC_WAKE_NR, __u32)

/* Programs of both word sizes use the same kernel. */
static_assert(sizeof(struct nlrig_exchange) == 16);

/**
 * struct nlrig_open - an open file
 * @page: what mmap() gives; a program may have written anything to it
 * @exchanging: one exchange at a time
 * @count: exchanges so far
 * @timer: makes the file readable
 * @lock: of the two numbers below
 * @expiries: of the timer, so far
 * @taken: of these, those that a read() was about
 * @wait: who waits for an expiry
 * @fasync: who wants SIGIO
 */
struct nlrig_open {
	struct nlrig_exchange *page;
	struct mutex exchanging;
	u64 count;
	struct timer_list timer;
	spinlock_t lock;
	u64 expiries;
	u64 taken;
	wait_queue_head_t wait;
	struct fasync_struct *fasync;
};

static void nlrig_expired(struct timer_list *timer)
{
	struct nlrig_open *open = from_timer(open, timer, timer);

	spin_lock(&open->lock);
	open->expiries++;
	spin_unlock(&open->lock);
	wake_up_interruptible(&open->wait);
	kill_fasync(&open->fasync, SIGIO, POLL_IN);
}

static int nlrig_chardev_open(struct inode *inode, struct file *file)
{
	struct nlrig_open *open;

	open = kzalloc(sizeof(*open), GFP_KERNEL);
	if (!open)
		return -ENOMEM;
	open->page = vmalloc_user(PAGE_SIZE);
	if (!open->page) {
		kfree(open);
		return -ENOMEM;
	}
	mutex_init(&open->exchanging);
	spin_lock_init(&open->lock);
	init_waitqueue_head(&open->wait);
	timer_setup(&open->timer, nlrig_expired, 0);
	file->private_data = open;
	return stream_open(inode, file);
}

static int nlrig_chardev_fasync(int fd, struct file *file, int on)
{
	struct nlrig_open *open = file->private_data;

	return fasync_helper(fd, file, on, &open->fasync);
}

/* A mapping holds the file, so there is none any more. */
static int nlrig_chardev_release(struct inode *inode, struct file *file)
{
	struct nlrig_open *open = file->private_data;

	timer_shutdown_sync(&open->timer);
	vfree(open->page);
	kfree(open);
	return 0;
}

static bool nlrig_readable(struct nlrig_open *open)
{
	bool readable;

	spin_lock_bh(&open->lock);
	readable = open->taken < open->expiries;
	spin_unlock_bh(&open->lock);
	return readable;
}

/* Return: whether there was an expiry to take. */
static bool nlrig_take(struct nlrig_open *open, u64 *expiries)
{
	bool taken = false;

	spin_lock_bh(&open->lock);
	*expiries = open->expiries;
	if (open->taken < open->expiries) {
		open->taken++;
		taken = true;
	}
	spin_unlock_bh(&open->lock);
	return taken;
}

static ssize_t nlrig_chardev_read(struct file *file, char __user *buffer,
				  size_t size, loff_t *unused)
{
	struct nlrig_open *open = file->private_data;
	u64 expiries;
	int err;

	if (size < sizeof(expiries))
		return -EINVAL;
	while (!nlrig_take(open, &expiries)) {
		if (file->f_flags & O_NONBLOCK)
			return -EAGAIN;
		err = wait_event_interruptible(open->wait, nlrig_readable(open));
		if (err)
			return err;
	}
	if (copy_to_user(buffer, &expiries, sizeof(expiries)))
		return -EFAULT;
	return sizeof(expiries);
}

static __poll_t nlrig_chardev_poll(struct file *file, poll_table *table)
{
	struct nlrig_open *open = file->private_data;

	poll_wait(file, &open->wait, table);
	return nlrig_readable(open) ? EPOLLIN | EPOLLRDNORM : 0;
}

static long nlrig_ioctl_exchange(struct nlrig_open *open,
				 struct nlrig_exchange __user *user)
{
	struct nlrig_exchange exchange;

	if (copy_from_user(&exchange, user, sizeof(exchange)))
		return -EFAULT;
	exchange.value++;
	mutex_lock(&open->exchanging);
	exchange.count = ++open->count;
	*open->page = exchange;
	mutex_unlock(&open->exchanging);
	return copy_to_user(user, &exchange, sizeof(exchange)) ? -EFAULT : 0;
}

static long nlrig_ioctl_wake(struct nlrig_open *open, u32 __user *user)
{
	u32 delay_ms;

	if (get_user(delay_ms, user))
		return -EFAULT;
	if (delay_ms > NLRIG_DELAY_MS_MAX)
		return -EINVAL;
	mod_timer(&open->timer, jiffies + msecs_to_jiffies(delay_ms));
	return 0;
}

static long nlrig_chardev_ioctl(struct file *file, unsigned int command,
				unsigned long argument)
{
	struct nlrig_open *open = file->private_data;
	void __user *user = (void __user *)argument;

	switch (command) {
	case NLRIG_IOC_EXCHANGE:
		return nlrig_ioctl_exchange(open, user);
	case NLRIG_IOC_WAKE:
		return nlrig_ioctl_wake(open, user);
	default:
		return -ENOTTY;
	}
}

/* remap_vmalloc_range() refuses what is not inside of the page. */
static int nlrig_chardev_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct nlrig_open *open = file->private_data;

	return remap_vmalloc_range(vma, open->page, vma->vm_pgoff);
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

/* On failure the device is absent. */
void nlrig_chardev_init(void)
{
	int err = misc_register(&nlrig_chardev);

	if (err)
		pr_err("cannot register /dev/nlrig: error %d\n", err);
	nlrig_chardev_registered = !err;
}

void nlrig_chardev_exit(void)
{
	if (nlrig_chardev_registered)
		misc_deregister(&nlrig_chardev);
}
