// SPDX-License-Identifier: GPL-2.0-only
/*
 * Where NLRIG_MSG_SEND sends from: the sender's system call, a thread, a timer,
 * a tasklet, or an hrtimer in its interrupt.
 *
 * The last three do not send a long order at one go: the CPU has other things
 * to do. They go on for a millisecond, then at the next occasion.
 */

#include <linux/hrtimer.h>
#include <linux/interrupt.h>
#include <linux/kthread.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/timer.h>

#include "nlrig.h"

/* Between two turns of the hrtimer when no delay is asked for. */
#define NLRIG_TURN_NS (100 * NSEC_PER_USEC)

static u32 nlrig_context;
static u32 nlrig_delay_ms;
/* The module is leaving. */
static bool nlrig_stopping;
/* Of the last order that was sent from a thread, until the next one. */
static struct task_struct *nlrig_thread;

static void nlrig_timer_turn(struct timer_list *unused);
static void nlrig_tasklet_turn(struct tasklet_struct *unused);

static DEFINE_TIMER(nlrig_timer, nlrig_timer_turn);
static DECLARE_TASKLET(nlrig_tasklet, nlrig_tasklet_turn);
static struct hrtimer nlrig_hrtimer;

/* Return: false if a signal came first, or the module leaves: a signal to a
 * thread that does not take any yet is lost.
 */
static bool nlrig_wait(void)
{
	ktime_t until = ktime_add_ms(ktime_get(), nlrig_delay_ms);

	do {
		if (signal_pending(current) || READ_ONCE(nlrig_stopping))
			return false;
		if (!nlrig_delay_ms) {
			cond_resched();
			return true;
		}
		set_current_state(TASK_INTERRUPTIBLE);
	} while (schedule_hrtimeout(&until, HRTIMER_MODE_ABS));
	return true;
}

static void nlrig_send_from_task(void)
{
	do {
		if (!nlrig_wait()) {
			nlrig_send_interrupted();
			return;
		}
	} while (nlrig_send_next(GFP_KERNEL));
}

static int nlrig_thread_main(void *unused)
{
	/* The signal ends a wait for room inside of netlink, which
	 * kthread_stop() alone does not.
	 */
	allow_signal(SIGKILL);
	nlrig_send_from_task();
	return 0;
}

/* A thread that has ended is kept until somebody waits for it here: only so is
 * it known to have left this module's code.
 */
static void nlrig_thread_reap(void)
{
	if (!nlrig_thread)
		return;
	send_sig(SIGKILL, nlrig_thread, 1);
	kthread_stop(nlrig_thread);
	put_task_struct(nlrig_thread);
	nlrig_thread = NULL;
}

static int nlrig_thread_start(void)
{
	struct task_struct *thread;

	nlrig_thread_reap();
	thread = kthread_create(nlrig_thread_main, NULL, "nlrig/send");
	if (IS_ERR(thread))
		return PTR_ERR(thread);
	get_task_struct(thread);
	nlrig_thread = thread;
	wake_up_process(thread);
	return 0;
}

/* Return: whether there is more to send. */
static bool nlrig_turn(void)
{
	u64 until = ktime_get_ns() + NSEC_PER_MSEC;
	/* Once an order is over this may be the next one's. */
	u32 delay_ms = nlrig_delay_ms;

	do {
		if (READ_ONCE(nlrig_stopping) || !nlrig_send_next(GFP_ATOMIC))
			return false;
	} while (!delay_ms && ktime_get_ns() < until);
	return true;
}

/* When the next turn of a timer or a tasklet is due. */
static void nlrig_turn_next(void)
{
	if (nlrig_delay_ms || nlrig_context == NLRIG_CONTEXT_TIMER)
		mod_timer(&nlrig_timer,
			  jiffies + msecs_to_jiffies(nlrig_delay_ms));
	else
		tasklet_schedule(&nlrig_tasklet);
}

static void nlrig_timer_turn(struct timer_list *unused)
{
	if (nlrig_context == NLRIG_CONTEXT_TASKLET)
		tasklet_schedule(&nlrig_tasklet);
	else if (nlrig_turn())
		nlrig_turn_next();
}

static void nlrig_tasklet_turn(struct tasklet_struct *unused)
{
	if (nlrig_turn())
		nlrig_turn_next();
}

static enum hrtimer_restart nlrig_hrtimer_turn(struct hrtimer *timer)
{
	if (!nlrig_turn())
		return HRTIMER_NORESTART;
	hrtimer_forward_now(timer, nlrig_delay_ms ? ms_to_ktime(nlrig_delay_ms) :
			    ns_to_ktime(NLRIG_TURN_NS));
	return HRTIMER_RESTART;
}

/**
 * nlrig_context_start() - have the order of send.c executed
 * @context: NLRIG_CONTEXT_*
 * @delay_ms: before each message
 *
 * The caller has made the order and so is alone here. In process context the
 * order is over on return; else it may be.
 *
 * Return: 0, or a negative errno if nothing was begun.
 */
int nlrig_context_start(u32 context, u32 delay_ms)
{
	nlrig_context = context;
	nlrig_delay_ms = delay_ms;

	switch (context) {
	case NLRIG_CONTEXT_PROCESS:
		nlrig_send_from_task();
		return 0;
	case NLRIG_CONTEXT_THREAD:
		return nlrig_thread_start();
	case NLRIG_CONTEXT_TIMER:
	case NLRIG_CONTEXT_TASKLET:
		nlrig_turn_next();
		return 0;
	case NLRIG_CONTEXT_HARDIRQ:
		hrtimer_start(&nlrig_hrtimer, ms_to_ktime(delay_ms),
			      HRTIMER_MODE_REL_HARD);
		return 0;
	default:
		return -EINVAL;
	}
}

void nlrig_context_init(void)
{
	hrtimer_init(&nlrig_hrtimer, CLOCK_MONOTONIC, HRTIMER_MODE_REL_HARD);
	nlrig_hrtimer.function = nlrig_hrtimer_turn;
}

/* Called when nobody can give an order any more. */
void nlrig_context_exit(void)
{
	WRITE_ONCE(nlrig_stopping, true);
	nlrig_thread_reap();
	hrtimer_cancel(&nlrig_hrtimer);
	/* The timer and the tasklet start one another; after this only the
	 * timer can be started, and that no more.
	 */
	timer_shutdown_sync(&nlrig_timer);
	tasklet_kill(&nlrig_tasklet);
}
