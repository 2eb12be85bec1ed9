// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * unmount_fs OPTIONS FILE MOUNTPOINT: a file system that a thread unmounts while
 * the session's loop is at work, which fuse_session_unmount() closes the
 * descriptor for. FILE is opened then, so that it gets the same number.
 *
 * It happens when the kernel forgets the file "file": that is told on /dev/fuse
 * in every mode, and the loop calls the operation itself. Prints what the loop
 * returned and how much of FILE was read.
 */
#define FUSE_USE_VERSION 312

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "attributes.h"
#include "options.h"

#define FILE_INO	2

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool forgotten, unmounted;
static struct fuse_session *se;
static const char *path;
static int number, file;

static void wait_for(const bool *what)
{
	while (!*what)
		pthread_cond_wait(&changed, &lock);
}

static void *unmount(void *unused)
{
	pthread_mutex_lock(&lock);
	wait_for(&forgotten);
	fuse_session_unmount(se);
	file = open(path, O_RDONLY | O_CLOEXEC);
	unmounted = true;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
	return unused;
}

static void unmount_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param entry = {
		.ino = !strcmp(name, "file") ? FILE_INO : 0,
		.attr = attributes(FILE_INO),
	};

	(void)parent;
	if (entry.ino)
		fuse_reply_entry(req, &entry);
	else
		fuse_reply_err(req, ENOENT);
}

static void unmount_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
	(void)count;
	pthread_mutex_lock(&lock);
	if (ino == FILE_INO) {
		forgotten = true;
		pthread_cond_broadcast(&changed);
		wait_for(&unmounted);
	}
	pthread_mutex_unlock(&lock);
	fuse_reply_none(req);
}

static const struct fuse_lowlevel_ops operations = {
	.lookup = unmount_lookup,
	.forget = unmount_forget,
	.getattr = reply_attributes,
};

int main(int argc, char **argv)
{
	struct fuse_ring_options options = { .size = sizeof(options) };
	struct fuse_args args = FUSE_ARGS_INIT(1, argv);
	pthread_t thread;
	int result;

	if (argc != 4 || !read_options(&options, argv[1]))
		return 2;
	path = argv[2];
	se = fuse_session_new(&args, &operations, sizeof(operations), NULL);
	if (!se || fuse_session_mount(se, argv[3]) ||
	    pthread_create(&thread, NULL, unmount, NULL))
		return 1;
	number = fuse_session_fd(se);
	result = fuse_ring_session_loop(se, &options);
	pthread_join(thread, NULL);
	if (file != number) {
		printf("the file is %d, the session was %d\n", file, number);
		return 1;
	}
	printf("the loop returned %d, %lld bytes were read\n", result,
	       (long long)lseek(file, 0, SEEK_CUR));
	fuse_session_destroy(se);
	fuse_opt_free_args(&args);
	return 0;
}
