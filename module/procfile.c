// SPDX-License-Identifier: GPL-2.0-only
/*
 * /proc/nlrig: files that take, give, signal an event, and are larger than a
 * page.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/fs.h>
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/poll.h>
#include <linux/proc_fs.h>
#include <linux/vmalloc.h>
#include <linux/wait.h>

#include "nlrig.h"

/* Of a line of "big", its end included. */
#define BIG_LINE 64

static struct proc_dir_entry *nlrig_dir;

static DEFINE_MUTEX(nlrig_value_lock);
static u64 nlrig_value;

static atomic_t nlrig_writes;
static DECLARE_WAIT_QUEUE_HEAD(nlrig_written);

static char *nlrig_big;

/* The module is held here, because an open file of /proc does not: who is in
 * poll() stays in the wait queue of this module while none of its code runs.
 * The private data are the writes that this file knows of.
 */
static int value_open(struct inode *inode, struct file *file)
{
	if (!try_module_get(THIS_MODULE))
		return -ENODEV;
	file->private_data = (void *)(long)atomic_read(&nlrig_writes);
	return 0;
}

/* The entry's removal waits until this has returned. */
static int value_release(struct inode *inode, struct file *file)
{
	module_put(THIS_MODULE);
	return 0;
}

static ssize_t value_read(struct file *file, char __user *buffer, size_t size,
			  loff_t *position)
{
	char text[24];
	int length;

	mutex_lock(&nlrig_value_lock);
	file->private_data = (void *)(long)atomic_read(&nlrig_writes);
	length = scnprintf(text, sizeof(text), "%llu\n", nlrig_value + 1);
	mutex_unlock(&nlrig_value_lock);
	return simple_read_from_buffer(buffer, size, position, text, length);
}

static ssize_t value_write(struct file *file, const char __user *buffer,
			   size_t size, loff_t *position)
{
	u64 value;
	int err;

	err = kstrtou64_from_user(buffer, size, 0, &value);
	if (err)
		return err;
	mutex_lock(&nlrig_value_lock);
	nlrig_value = value;
	atomic_inc(&nlrig_writes);
	mutex_unlock(&nlrig_value_lock);
	wake_up_interruptible(&nlrig_written);
	return size;
}

/* As in sysfs: always readable and writable, and an event in POLLPRI. */
static __poll_t value_poll(struct file *file, poll_table *table)
{
	long known = (long)file->private_data;
	__poll_t mask = DEFAULT_POLLMASK;

	poll_wait(file, &nlrig_written, table);
	if (known != atomic_read(&nlrig_writes))
		mask |= EPOLLERR | EPOLLPRI;
	return mask;
}

static const struct proc_ops value_ops = {
	.proc_open = value_open,
	.proc_release = value_release,
	.proc_read = value_read,
	.proc_write = value_write,
	.proc_poll = value_poll,
	.proc_lseek = default_llseek,
};

static ssize_t big_read(struct file *file, char __user *buffer, size_t size,
			loff_t *position)
{
	return simple_read_from_buffer(buffer, size, position, nlrig_big,
				       NLRIG_BIG_BYTES);
}

static const struct proc_ops big_ops = {
	.proc_read = big_read,
	.proc_lseek = default_llseek,
};

static_assert(NLRIG_BIG_BYTES % BIG_LINE == 0);

/* Each line is its number, so that a reader can tell what is missing. */
static void big_fill(char *big)
{
	char line[BIG_LINE + 1];
	unsigned int i;

	for (i = 0; i < NLRIG_BIG_BYTES / BIG_LINE; i++) {
		scnprintf(line, sizeof(line), "%0*u\n", BIG_LINE - 1, i);
		memcpy(big + i * BIG_LINE, line, BIG_LINE);
	}
}

/* On failure the files that could be created stay. "value" comes last, because
 * it must not be removed while a user is in poll(): see value_open().
 */
void nlrig_procfile_init(void)
{
	nlrig_big = vmalloc(NLRIG_BIG_BYTES);
	if (!nlrig_big)
		goto failed;
	big_fill(nlrig_big);

	nlrig_dir = proc_mkdir("nlrig", NULL);
	if (nlrig_dir && proc_create("big", 0400, nlrig_dir, &big_ops) &&
	    proc_create("value", 0600, nlrig_dir, &value_ops))
		return;
failed:
	pr_err("cannot create the files of /proc/nlrig: memory is short\n");
}

/* Waits for calls that are under way and releases what is open. */
void nlrig_procfile_exit(void)
{
	proc_remove(nlrig_dir);
	vfree(nlrig_big);
}
