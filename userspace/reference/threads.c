// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * The reference program: the workload `threads` in plain C.
 *
 * `nlrig bench` runs both in one guest, alternately, and compares their times.
 * This separates costs of the kernel from costs of the language and of the
 * workload. The comparison is valid only if both programs do the same work:
 * each call in src/bin/threads.rs and src/netlink.rs has its counterpart in
 * this file, in the same order, with the same bytes and checks.
 *
 * The program creates threads with default attributes until a call fails. Each
 * thread opens a netlink socket of the module's protocol, exchanges one echo
 * and sleeps forever. JSON lines on descriptor 3 report progress every 256
 * threads, and at the end the number of threads, the elapsed time and the
 * failed call. Snapshots of the address space are left out, because the time
 * per thread does not contain them. The main thread's heap grows before the
 * clock starts, as in the workload.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <linux/futex.h>
#include <linux/netlink.h>

#include "nlrig.h"

#define REPORT_FD		3
#define PROGRESS_EVERY		256
#define HEAP_BYTES		(32768 * 384 + (2 << 20))
#define PIECE_BYTES		(100 << 10)
#define WORKER_DEADLINE_NS	(60 * 1000000000LL)

struct message {
	struct nlmsghdr header;
	struct nlrig_echo echo;
};

_Static_assert(sizeof(struct message) == NLMSG_HDRLEN + sizeof(struct nlrig_echo), "no padding");

/* sockets, echoes and last_socket are written as in the workload, but not read. */
static atomic_uint sockets, echoes, done, forever;
static atomic_int last_socket = -1;
static atomic_int failed_errno;
static _Atomic(const char *) failed_call;

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* Return: the name of the failed call, with its errno in *error, or NULL. */
static const char *bound_socket(int *fd, uint32_t *portid, int *error)
{
	struct sockaddr_nl address = { .nl_family = AF_NETLINK };
	socklen_t length = sizeof(address);
	const char *call = NULL;

	*fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NLRIG);
	if (*fd < 0) {
		*error = errno;
		return "socket";
	}
	if (bind(*fd, (struct sockaddr *)&address, length) < 0)
		call = "bind";
	else if (getsockname(*fd, (struct sockaddr *)&address, &length) < 0)
		call = "getsockname";
	if (call) {
		*error = errno;
		close(*fd);
		return call;
	}
	*portid = address.nl_pid;
	return NULL;
}

static const char *echo(int fd, uint32_t portid, uint64_t cookie, int *error)
{
	struct message request = {
		.header = {
			.nlmsg_len = sizeof(request),
			.nlmsg_type = NLRIG_MSG_ECHO,
			.nlmsg_flags = NLM_F_REQUEST,
			.nlmsg_seq = 1,
		},
		.echo.cookie = cookie,
	};
	struct message answer = { 0 };
	ssize_t got;

	if (send(fd, &request, sizeof(request), 0) < 0) {
		*error = errno;
		return "send";
	}
	/* The module queues the answer before send() returns. */
	got = recv(fd, &answer, sizeof(answer), MSG_DONTWAIT);
	if (got < 0) {
		*error = errno;
		return "recv";
	}
	if (answer.header.nlmsg_type == NLMSG_ERROR) {
		/* struct nlmsgerr starts with the negated errno. */
		*error = -(int)(uint32_t)answer.echo.cookie;
		return "answer";
	}
	if (got != sizeof(answer) ||
	    answer.header.nlmsg_type != NLRIG_MSG_ECHO_REPLY ||
	    answer.header.nlmsg_seq != 1 ||
	    answer.echo.cookie != cookie ||
	    answer.echo.portid != portid) {
		*error = EBADMSG;
		return "answer";
	}
	return NULL;
}

static const char *socket_and_echo(int *error)
{
	const char *call;
	uint32_t portid;
	int fd;

	call = bound_socket(&fd, &portid, error);
	if (call)
		return call;
	atomic_fetch_add(&sockets, 1);
	atomic_store(&last_socket, fd);
	call = echo(fd, portid, (uint64_t)portid << 32 | 0x6e6c, error);
	if (call)
		return call;
	atomic_fetch_add(&echoes, 1);
	return NULL;
}

/* syscall(2), as in the workload: glibc has no wrapper for futex(2). */
static void futex_wait(atomic_uint *word, unsigned int value, const struct timespec *timeout)
{
	syscall(SYS_futex, word, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, value, timeout);
}

static void futex_wake(atomic_uint *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1);
}

static void *worker(void *unused)
{
	int error = 0;
	const char *call = socket_and_echo(&error);

	(void)unused;
	if (call) {
		atomic_store(&failed_errno, error);
		atomic_store(&failed_call, call);
	}
	atomic_fetch_add(&done, 1);
	futex_wake(&done);
	if (call)
		return NULL;
	for (;;)
		futex_wait(&forever, 0, NULL);
}

/* Waits until @workers workers are done. Return: 0 on timeout, else 1. */
static int wait_until_done(unsigned int workers)
{
	int64_t deadline = 0;

	for (;;) {
		unsigned int seen = atomic_load(&done);
		struct timespec timeout;
		int64_t left;

		if (seen >= workers)
			return 1;
		if (!deadline)
			deadline = now_ns() + WORKER_DEADLINE_NS;
		left = deadline - now_ns();
		if (left <= 0)
			return 0;
		timeout.tv_sec = left / 1000000000;
		timeout.tv_nsec = left % 1000000000;
		futex_wait(&done, seen, &timeout);
	}
}

static int write_progress(unsigned int threads)
{
	char line[64];
	int length = snprintf(line, sizeof(line), "{\"progress\":{\"threads\":%u}}\n", threads);

	return write(REPORT_FD, line, length) == length;
}

/* Return: the number of workers alive; the failure is in *call and *error. */
static unsigned int create_until_failure(const char **call, int *error)
{
	unsigned int created = 0;

	for (;;) {
		pthread_t thread;

		*error = pthread_create(&thread, NULL, worker, NULL);
		if (*error) {
			*call = "pthread_create";
			return created;
		}
		created++;
		if (!wait_until_done(created)) {
			*call = "wait";
			*error = ETIMEDOUT;
			return created;
		}
		*call = atomic_load(&failed_call);
		if (*call) {
			/* The failed worker has ended. */
			*error = atomic_load(&failed_errno);
			return created - 1;
		}
		if (created % PROGRESS_EVERY == 0 && !write_progress(created))
			_exit(1);
	}
}

/* As in the workload, for the number of threads that the bench creates. */
static void reserve_heap(void)
{
	void *volatile pieces[2];

	mallopt(M_TRIM_THRESHOLD, INT_MAX);
	mallopt(M_TOP_PAD, HEAP_BYTES);
	pieces[0] = malloc(PIECE_BYTES);
	pieces[1] = malloc(PIECE_BYTES);
	free(pieces[0]);
	free(pieces[1]);
	mallopt(M_TOP_PAD, 128 << 10);
}

int main(void)
{
	const char *call;
	char line[256];
	unsigned int threads;
	cpu_set_t first;
	int64_t start, elapsed;
	int error, length;

	reserve_heap();
	CPU_ZERO(&first);
	CPU_SET(0, &first);
	if (sched_setaffinity(0, sizeof(first), &first))
		_exit(1);
	start = now_ns();
	threads = create_until_failure(&call, &error);
	elapsed = now_ns() - start;
	length = snprintf(line, sizeof(line),
			  "{\"yardstick\":{\"threads\":%u,\"elapsed_ns\":%lld,"
			  "\"failed_call\":\"%s\",\"errno\":%d}}\n",
			  threads, (long long)elapsed, call, error);
	if (write(REPORT_FD, line, length) != length)
		_exit(1);
	_exit(0);
}
