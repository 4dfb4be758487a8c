// SPDX-License-Identifier: GPL-2.0-only
/*
 * /proc/nlrig: a file to write and read, with an event for poll(), and one that
 * is larger than a page.
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

/* Bytes of a line of "big", with its newline. */
#define BIG_LINE 64

static struct proc_dir_entry *nlrig_proc_dir;

static DEFINE_MUTEX(nlrig_value_lock);
static u64 nlrig_value;

static atomic_t nlrig_value_writes;
static DECLARE_WAIT_QUEUE_HEAD(nlrig_value_wait);

static char *nlrig_big;

/* Takes a reference to the module, because struct proc_ops has no owner. procfs
 * waits for calls in progress when the file is removed, but not for a user who
 * sleeps in poll(): that one runs no code of this module and is still in its
 * wait queue. file->private_data is the number of writes that the reader has
 * seen. Not a seq_file, because seq_open() takes pwrite() away.
 */
static int value_open(struct inode *inode, struct file *file)
{
	if (!try_module_get(THIS_MODULE))
		return -ENODEV;
	file->private_data = (void *)(long)atomic_read(&nlrig_value_writes);
	return 0;
}

/* The removal of the file waits until this has returned. */
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
	file->private_data = (void *)(long)atomic_read(&nlrig_value_writes);
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
	atomic_inc(&nlrig_value_writes);
	mutex_unlock(&nlrig_value_lock);
	wake_up_interruptible(&nlrig_value_wait);
	return size;
}

/* As in sysfs: always readable and writable, with the event in POLLPRI. */
static __poll_t value_poll(struct file *file, poll_table *table)
{
	long seen = (long)file->private_data;
	__poll_t mask = DEFAULT_POLLMASK;

	poll_wait(file, &nlrig_value_wait, table);
	if (seen != atomic_read(&nlrig_value_writes))
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

/* Not a seq_file, which would give a large read in several parts. */
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

/* Each line is its number, so that a reader can tell which are missing. */
static void big_fill(char *big)
{
	char line[BIG_LINE + 1];
	unsigned int i;

	for (i = 0; i < NLRIG_BIG_BYTES / BIG_LINE; i++) {
		scnprintf(line, sizeof(line), "%0*u\n", BIG_LINE - 1, i);
		memcpy(big + i * BIG_LINE, line, BIG_LINE);
	}
}

/**
 * nlrig_procfile_init() - create the files of /proc/nlrig
 *
 * On failure the files that were created stay. "value" is the last one, so that
 * it is never removed while a user sleeps in its poll(): see value_open().
 */
void nlrig_procfile_init(void)
{
	nlrig_big = vmalloc(NLRIG_BIG_BYTES);
	if (!nlrig_big)
		goto failed;
	big_fill(nlrig_big);

	nlrig_proc_dir = proc_mkdir("nlrig", NULL);
	if (nlrig_proc_dir &&
	    proc_create("big", 0400, nlrig_proc_dir, &big_ops) &&
	    proc_create("value", 0600, nlrig_proc_dir, &value_ops))
		return;
failed:
	pr_err("cannot create the files of /proc/nlrig: memory is short\n");
}

/**
 * nlrig_procfile_exit() - remove the files of /proc/nlrig
 *
 * Waits for calls in progress and releases open files.
 */
void nlrig_procfile_exit(void)
{
	proc_remove(nlrig_proc_dir);
	vfree(nlrig_big);
}
