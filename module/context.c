// SPDX-License-Identifier: GPL-2.0-only
/*
 * The contexts that NLRIG_MSG_SEND sends from: the system call of the requester,
 * a thread, a timer, a tasklet, or an hrtimer in hard interrupt context.
 *
 * The last three send in batches of one millisecond, so that a long request
 * does not block the CPU.
 */

#include <linux/hrtimer.h>
#include <linux/interrupt.h>
#include <linux/kthread.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/timer.h>

#include "compat.h"
#include "nlrig.h"

/* Pause between two batches of the hrtimer if the request has no delay. */
#define NLRIG_HRTIMER_PAUSE_NS (100 * NSEC_PER_USEC)

/* @stopping is checked too, because a signal to a thread that has not called
 * allow_signal() yet is lost.
 */
static bool nlrig_interrupted(const struct nlrig_sender *sender)
{
	return signal_pending(current) || READ_ONCE(sender->stopping);
}

/* Return: false if a signal or the unloading of the module ended the wait. */
static bool nlrig_wait(const struct nlrig_sender *sender)
{
	u32 delay_ms = sender->request.delay_ms;
	ktime_t expiry = ktime_add_ms(ktime_get(), delay_ms);
	bool expired = false;

	if (!delay_ms) {
		cond_resched();
		return !nlrig_interrupted(sender);
	}
	while (!expired) {
		set_current_state(TASK_INTERRUPTIBLE);
		if (nlrig_interrupted(sender))
			break;
		expired = !schedule_hrtimeout(&expiry, HRTIMER_MODE_ABS);
	}
	__set_current_state(TASK_RUNNING);
	return expired;
}

static void nlrig_send_from_task(struct nlrig_sender *sender)
{
	do {
		if (!nlrig_wait(sender)) {
			nlrig_send_interrupted(sender);
			return;
		}
	} while (nlrig_send_next(sender, GFP_KERNEL));
}

static int nlrig_thread_main(void *sender)
{
	/* kthread_stop() does not end a wait for room inside netlink; a signal
	 * does.
	 */
	allow_signal(SIGKILL);
	nlrig_send_from_task(sender);
	return 0;
}

/* Waits for the end of the last thread. Only kthread_stop() shows that a thread
 * has left the code of this module, so its task is kept until then.
 */
static void nlrig_thread_reap(struct nlrig_sender *sender)
{
	if (!sender->thread)
		return;
	send_sig(SIGKILL, sender->thread, 1);
	kthread_stop(sender->thread);
	put_task_struct(sender->thread);
	sender->thread = NULL;
}

/* The thread ends with its request: a permanent one, as a kthread_worker has,
 * would be one more task in every guest, and experiments count tasks.
 */
static int nlrig_thread_start(struct nlrig_sender *sender)
{
	struct task_struct *thread;

	nlrig_thread_reap(sender);
	thread = kthread_create(nlrig_thread_main, sender, "nlrig/send");
	if (IS_ERR(thread))
		return PTR_ERR(thread);
	get_task_struct(thread);
	sender->thread = thread;
	wake_up_process(thread);
	return 0;
}

/* Sends one message, or without a delay as many as fit into a millisecond.
 *
 * Return: true if the request has more messages; only then may the caller use
 * @sender->request.
 */
static bool nlrig_send_batch(struct nlrig_sender *sender)
{
	u64 end = ktime_get_ns() + NSEC_PER_MSEC;
	u32 delay_ms = sender->request.delay_ms;

	do {
		if (READ_ONCE(sender->stopping) ||
		    !nlrig_send_next(sender, GFP_ATOMIC))
			return false;
	} while (!delay_ms && ktime_get_ns() < end);
	return true;
}

/* Schedules the next batch of a timer or a tasklet. */
static void nlrig_schedule_batch(struct nlrig_sender *sender)
{
	const struct nlrig_send_request *request = &sender->request;

	if (request->delay_ms || request->context == NLRIG_CONTEXT_TIMER)
		mod_timer(&sender->timer,
			  jiffies + msecs_to_jiffies(request->delay_ms));
	else
		tasklet_schedule(&sender->tasklet);
}

static void nlrig_timer_expired(struct timer_list *timer)
{
	struct nlrig_sender *sender =
		container_of(timer, struct nlrig_sender, timer);

	if (READ_ONCE(sender->stopping))
		return;
	if (sender->request.context == NLRIG_CONTEXT_TASKLET)
		tasklet_schedule(&sender->tasklet);
	else if (nlrig_send_batch(sender))
		nlrig_schedule_batch(sender);
}

static void nlrig_tasklet_run(struct tasklet_struct *tasklet)
{
	struct nlrig_sender *sender =
		container_of(tasklet, struct nlrig_sender, tasklet);

	if (nlrig_send_batch(sender))
		nlrig_schedule_batch(sender);
}

static enum hrtimer_restart nlrig_hrtimer_expired(struct hrtimer *hrtimer)
{
	struct nlrig_sender *sender =
		container_of(hrtimer, struct nlrig_sender, hrtimer);
	u32 delay_ms;

	if (!nlrig_send_batch(sender))
		return HRTIMER_NORESTART;
	delay_ms = sender->request.delay_ms;
	hrtimer_forward_now(hrtimer, delay_ms ? ms_to_ktime(delay_ms) :
			    ns_to_ktime(NLRIG_HRTIMER_PAUSE_NS));
	return HRTIMER_RESTART;
}

/**
 * nlrig_context_start() - run the request of a sender in its context
 * @sender: the sender, whose busy bit the caller holds
 *
 * On success the busy bit belongs to the context, which releases it with the
 * last message; in process context that has happened on return.
 *
 * Return: 0, or a negative errno if nothing was started.
 */
int nlrig_context_start(struct nlrig_sender *sender)
{
	switch (sender->request.context) {
	case NLRIG_CONTEXT_PROCESS:
		nlrig_send_from_task(sender);
		return 0;
	case NLRIG_CONTEXT_THREAD:
		return nlrig_thread_start(sender);
	case NLRIG_CONTEXT_TIMER:
	case NLRIG_CONTEXT_TASKLET:
		nlrig_schedule_batch(sender);
		return 0;
	case NLRIG_CONTEXT_HARDIRQ:
		hrtimer_start(&sender->hrtimer,
			      ms_to_ktime(sender->request.delay_ms),
			      HRTIMER_MODE_REL_HARD);
		return 0;
	default:
		return -EINVAL;
	}
}

/**
 * nlrig_context_init() - set up the timers and the tasklet of a sender
 * @sender: the sender
 */
void nlrig_context_init(struct nlrig_sender *sender)
{
	timer_setup(&sender->timer, nlrig_timer_expired, 0);
	tasklet_setup(&sender->tasklet, nlrig_tasklet_run);
	nlrig_hrtimer_setup(&sender->hrtimer, nlrig_hrtimer_expired,
			    CLOCK_MONOTONIC, HRTIMER_MODE_REL_HARD);
}

/**
 * nlrig_context_exit() - end the running request and stop its context
 * @sender: the sender, which no request can reach any more
 */
void nlrig_context_exit(struct nlrig_sender *sender)
{
	WRITE_ONCE(sender->stopping, true);
	nlrig_thread_reap(sender);
	hrtimer_cancel(&sender->hrtimer);
	/* The timer and the tasklet schedule each other. A timer that starts
	 * after the first deletion sees @stopping and does not schedule the
	 * tasklet; a tasklet that began before may arm the timer once more.
	 */
	nlrig_timer_delete_sync(&sender->timer);
	tasklet_kill(&sender->tasklet);
	nlrig_timer_delete_sync(&sender->timer);
}
