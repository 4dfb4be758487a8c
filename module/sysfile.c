// SPDX-License-Identifier: GPL-2.0-only
/*
 * /sys/kernel/nlrig: the files of /proc/nlrig in sysfs, and a binary file.
 *
 * An open file need not hold the module: sysfs waits for calls in progress when
 * a file is removed, and a user in poll() sleeps in sysfs.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/kernel.h>
#include <linux/kobject.h>
#include <linux/mutex.h>
#include <linux/sysfs.h>
#include <linux/vmalloc.h>

#include "compat.h"
#include "nlrig.h"

static struct kobject *nlrig_kobject;

static DEFINE_MUTEX(nlrig_value_lock);
static u64 nlrig_value;

static atomic_t nlrig_value_writes;

static ssize_t value_show(struct kobject *kobject,
			  struct kobj_attribute *attribute, char *buffer)
{
	u64 value;

	mutex_lock(&nlrig_value_lock);
	value = nlrig_value;
	mutex_unlock(&nlrig_value_lock);
	return sysfs_emit(buffer, "%llu\n", value + 1);
}

static ssize_t value_store(struct kobject *kobject,
			   struct kobj_attribute *attribute,
			   const char *buffer, size_t size)
{
	u64 value;
	int err;

	err = kstrtou64(buffer, 0, &value);
	if (err)
		return err;
	mutex_lock(&nlrig_value_lock);
	nlrig_value = value;
	mutex_unlock(&nlrig_value_lock);
	atomic_inc(&nlrig_value_writes);
	sysfs_notify(kobject, NULL, "event");
	return size;
}

static ssize_t event_show(struct kobject *kobject,
			  struct kobj_attribute *attribute, char *buffer)
{
	return sysfs_emit(buffer, "%u\n", atomic_read(&nlrig_value_writes));
}

/* One byte less than a page: sysfs warns of a full page and truncates it. */
static ssize_t page_show(struct kobject *kobject,
			 struct kobj_attribute *attribute, char *buffer)
{
	memset(buffer, 'p', PAGE_SIZE - 1);
	return PAGE_SIZE - 1;
}

static struct kobj_attribute value_attribute =
	__ATTR(value, 0600, value_show, value_store);
static struct kobj_attribute event_attribute =
	__ATTR(event, 0400, event_show, NULL);
static struct kobj_attribute page_attribute =
	__ATTR(page, 0400, page_show, NULL);

static struct attribute *nlrig_attributes[] = {
	&value_attribute.attr,
	&event_attribute.attr,
	&page_attribute.attr,
	NULL,
};

/* sysfs has checked that the range lies inside the file. */
static ssize_t blob_read(struct file *file, struct kobject *kobject,
			 nlrig_bin_attr_const struct bin_attribute *attribute,
			 char *buffer, loff_t position, size_t size)
{
	memcpy(buffer, attribute->private + position, size);
	return size;
}

static ssize_t blob_write(struct file *file, struct kobject *kobject,
			  nlrig_bin_attr_const struct bin_attribute *attribute,
			  char *buffer, loff_t position, size_t size)
{
	memcpy(attribute->private + position, buffer, size);
	return size;
}

static struct bin_attribute blob_attribute = {
	.attr = { .name = "blob", .mode = 0600 },
	.size = NLRIG_BIG_BYTES,
	.read = blob_read,
	.write = blob_write,
};

static nlrig_bin_attr_const struct bin_attribute *
nlrig_bin_attr_const nlrig_bin_attributes[] = {
	&blob_attribute,
	NULL,
};

static const struct attribute_group nlrig_group = {
	.attrs = nlrig_attributes,
	.bin_attrs = nlrig_bin_attributes,
};

/**
 * nlrig_sysfile_init() - create the files of /sys/kernel/nlrig
 *
 * On failure the files are absent, and nlrig_kobject is NULL.
 */
void nlrig_sysfile_init(void)
{
	int err = -ENOMEM;

	blob_attribute.private = vzalloc(NLRIG_BIG_BYTES);
	if (!blob_attribute.private)
		goto failed;
	nlrig_kobject = kobject_create_and_add("nlrig", kernel_kobj);
	if (!nlrig_kobject)
		goto failed;
	err = sysfs_create_group(nlrig_kobject, &nlrig_group);
	if (!err)
		return;
	kobject_put(nlrig_kobject);
	nlrig_kobject = NULL;
failed:
	pr_err("cannot create the files of /sys/kernel/nlrig: error %d\n", err);
}

/**
 * nlrig_sysfile_exit() - remove the files of /sys/kernel/nlrig
 */
void nlrig_sysfile_exit(void)
{
	if (nlrig_kobject) {
		sysfs_remove_group(nlrig_kobject, &nlrig_group);
		kobject_put(nlrig_kobject);
	}
	vfree(blob_attribute.private);
}
