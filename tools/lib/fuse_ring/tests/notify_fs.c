// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * notify_fs OPTIONS MOUNTPOINT: a file system one of whose threads sends the kernel
 * a notification while the library gets the rings ready, between INIT and its
 * answer. Prints what libfuse said to that.
 */
#define _GNU_SOURCE
#define FUSE_USE_VERSION 312

#include <errno.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "attributes.h"
#include "options.h"

/* For so long the library waits for the notification, which is to wait for it. */
#define WAIT_NS		500000000

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool ready, notified;
static struct fuse_session *se;

static void *notify(void *unused)
{
	int result;

	pthread_mutex_lock(&lock);
	while (!ready)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
	result = fuse_lowlevel_notify_inval_inode(se, FUSE_ROOT_ID, 0, 0);
	printf("notified: %d\n", result);
	fflush(stdout);
	pthread_mutex_lock(&lock);
	notified = true;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
	return unused;
}

/* In place of the one of libc: the first thing that the library does with INIT */
int eventfd(unsigned int count, int flags)
{
	struct timespec end;

	pthread_mutex_lock(&lock);
	if (!ready) {
		ready = true;
		pthread_cond_broadcast(&changed);
		clock_gettime(CLOCK_REALTIME, &end);
		end.tv_nsec += WAIT_NS;
		end.tv_sec += end.tv_nsec / 1000000000;
		end.tv_nsec %= 1000000000;
		while (!notified &&
		       !pthread_cond_timedwait(&changed, &lock, &end))
			;
	}
	pthread_mutex_unlock(&lock);
	return syscall(SYS_eventfd2, count, flags);
}

static const struct fuse_lowlevel_ops operations = {
	.getattr = reply_attributes,
};

int main(int argc, char **argv)
{
	struct fuse_ring_options options = { .size = sizeof(options) };
	struct fuse_args args = FUSE_ARGS_INIT(1, argv);
	pthread_t thread;
	int failed;

	if (argc != 3 || !read_options(&options, argv[1]))
		return 2;
	se = fuse_session_new(&args, &operations, sizeof(operations), NULL);
	if (!se || fuse_session_mount(se, argv[2]) ||
	    pthread_create(&thread, NULL, notify, NULL))
		return 1;
	failed = fuse_ring_session_loop(se, &options);
	pthread_join(thread, NULL);
	fuse_session_unmount(se);
	fuse_session_destroy(se);
	fuse_opt_free_args(&args);
	return failed != 0;
}
