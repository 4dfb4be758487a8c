/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Differences between the kernels that the module builds on.
 *
 * The range is 6.1 to 7.3; it was compiled for 6.1.192, 6.12.117 and 7.3.4. Each
 * entry names the version that changed the interface. Code that is the same on
 * all versions is preferred: container_of() instead of from_timer(), which is
 * timer_container_of() since 6.16, and timer_delete_sync() instead of
 * timer_shutdown_sync(), which early 6.1 releases lack.
 */
#ifndef _NLRIG_COMPAT_H
#define _NLRIG_COMPAT_H

#include <linux/hrtimer.h>
#include <linux/timer.h>
#include <linux/version.h>

/* 6.13 adds hrtimer_setup(); 6.15 removes hrtimer_init(). */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
static inline void
nlrig_hrtimer_setup(struct hrtimer *timer,
		    enum hrtimer_restart (*function)(struct hrtimer *),
		    clockid_t clock_id, enum hrtimer_mode mode)
{
	hrtimer_init(timer, clock_id, mode);
	timer->function = function;
}
#else
#define nlrig_hrtimer_setup hrtimer_setup
#endif

/* 6.2 renames del_timer_sync() and adds timer_shutdown_sync(), which late 6.1
 * releases have too; the old name is gone since 6.15.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)
#define nlrig_timer_delete_sync del_timer_sync
#else
#define nlrig_timer_delete_sync timer_delete_sync
#endif

/* 6.16 makes struct bin_attribute constant in its callbacks and in struct
 * attribute_group.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 16, 0)
#define nlrig_bin_attr_const
#else
#define nlrig_bin_attr_const const
#endif

#endif /* _NLRIG_COMPAT_H */
