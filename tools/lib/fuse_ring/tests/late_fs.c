// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * late_fs: a server of the library whose last answer comes late, and is the data
 * of a file.
 *
 *	late_fs OPTIONS FILE MOUNTPOINT
 *
 * Reading /exit has it end. Reading /late takes until that was asked for and
 * some time more, of which it says that it begins, and gives what is in FILE.
 */
#define _GNU_SOURCE
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

#define EXIT_INO	2
#define LATE_INO	3
#define LATE_MS		500

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ended = PTHREAD_COND_INITIALIZER;
static struct fuse_session *se;
static bool ends;
static int file;

static void late_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param entry = {
		.ino = !strcmp(name, "exit") ? EXIT_INO :
		       !strcmp(name, "late") ? LATE_INO : 0,
	};

	(void)parent;
	entry.attr = attributes(entry.ino);
	if (entry.ino)
		fuse_reply_entry(req, &entry);
	else
		fuse_reply_err(req, ENOENT);
}

static void late_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		      struct fuse_file_info *fi)
{
	(void)fi;
	if (ino == LATE_INO)
		fprintf(stderr, "late\n");
	pthread_mutex_lock(&lock);
	if (ino == EXIT_INO) {
		fuse_session_exit(se);
		ends = true;
		pthread_cond_broadcast(&ended);
	}
	while (!ends)
		pthread_cond_wait(&ended, &lock);
	pthread_mutex_unlock(&lock);
	if (ino == EXIT_INO) {
		fuse_reply_buf(req, "", 0);
		return;
	}
	usleep(LATE_MS * 1000);
	fuse_ring_reply_fd(req, file, off, size, NULL);
}

static void late_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	/* Where it cannot be had for all files */
	if (ino == LATE_INO)
		fuse_ring_zero_copy_open(req);
	reply_open(req, ino, fi);
}

static const struct fuse_lowlevel_ops operations = {
	.lookup = late_lookup,
	.getattr = reply_attributes,
	.open = late_open,
	.read = late_read,
};

int main(int argc, char **argv)
{
	struct fuse_ring_options options = {
		.size = sizeof(options),
		.workers = 4,
		.zero_copy_all = true,
	};
	struct fuse_args args = FUSE_ARGS_INIT(1, argv);
	int failed = 1;

	if (argc != 4 || !read_options(&options, argv[1]))
		return 2;
	file = open(argv[2], O_RDONLY | O_CLOEXEC);
	se = fuse_session_new(&args, &operations, sizeof(operations), NULL);
	if (file >= 0 && se && !fuse_session_mount(se, argv[3])) {
		failed = fuse_ring_session_loop(se, &options);
		fuse_session_unmount(se);
	}
	if (se)
		fuse_session_destroy(se);
	fuse_opt_free_args(&args);
	return failed != 0;
}
