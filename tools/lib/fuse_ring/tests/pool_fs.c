// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * pool_fs: a server of the library that answers everything from threads of its
 * own, in random order, whatever became of the client and of the session.
 *
 *	pool_fs OPTIONS FILE MOUNTPOINT [OPTIONS FILE MOUNTPOINT]...
 *
 * Each OPTIONS FILE MOUNTPOINT is a session, all with the same threads.
 *
 *	/copied		is FILE, read and written in memory
 *	/file		is FILE, moved by the library's means, by zero-copy if it can
 *	/blind		is FILE, read in memory, which is an error if it was to be
 *			moved by zero-copy
 *	/held		reading it is answered when the loop is over: too late
 *	/held_file	the same, by the library's means
 *	/unmount	reading it is answered when a thread has unmounted the
 *			session
 *	/exit		reading it has the loop end
 *
 * Now and then an operation answers what another one was to: replies are not
 * tied to the request that their thread has at the moment. At the end it prints
 * what became of the replies that came too late.
 */
#define _GNU_SOURCE
#define FUSE_USE_VERSION 312

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "attributes.h"
#include "options.h"

#define NR_THREADS	4
#define MAX_JOBS	4096
/* One request in so many is answered after a while, or by another operation. */
#define ODD_ONES	8

enum { COPIED = FUSE_ROOT_ID + 1, MOVED, BLIND, HELD, HELD_FILE, UNMOUNT, EXIT, NR_INODES };

static const char * const names[NR_INODES] = {
	[COPIED] = "copied",
	[MOVED] = "file",
	[BLIND] = "blind",
	[HELD] = "held",
	[HELD_FILE] = "held_file",
	[UNMOUNT] = "unmount",
	[EXIT] = "exit",
};

struct mount {
	struct fuse_session *se;
	struct fuse_ring_options options;
	int file;
	pthread_t thread;
	int failed;
};

/* An operation that has returned, and the rest of it */
struct job {
	void (*answer)(const struct job *job, unsigned int *seed);
	fuse_req_t req;
	fuse_ino_t ino;		/* 0: there is none of that name */
	size_t size;
	off_t off;
	struct fuse_file_info fi;
	struct fuse_bufvec *data;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t arrived = PTHREAD_COND_INITIALIZER;
static struct job jobs[MAX_JOBS], held[MAX_JOBS];
static unsigned int nr_jobs, nr_held;
static bool over;
static __thread unsigned int operation_seed;

static bool now_and_then(unsigned int *seed)
{
	return rand_r(seed) % ODD_ONES == 0;
}

static void answer_open(const struct job *job, unsigned int *seed);

/*
 * Any of them, with the lock held; false if it is one that @in_operation must not
 * be answered.
 */
static bool take_job(struct job *job, unsigned int *seed, bool in_operation)
{
	unsigned int n = rand_r(seed) % nr_jobs;

	*job = jobs[n];
	if (in_operation && job->answer == answer_open)
		return false;
	jobs[n] = jobs[--nr_jobs];
	return true;
}

static void answer_one(unsigned int *seed, bool in_operation)
{
	struct job job;
	bool taken;

	if (now_and_then(seed))
		usleep(rand_r(seed) % 1000);
	pthread_mutex_lock(&lock);
	taken = nr_jobs && take_job(&job, seed, in_operation);
	pthread_mutex_unlock(&lock);
	if (taken)
		job.answer(&job, seed);
}

static void put_job(struct job *in, unsigned int *nr, const struct job *job)
{
	pthread_mutex_lock(&lock);
	if (*nr == MAX_JOBS)
		abort();
	in[(*nr)++] = *job;
	pthread_cond_signal(&arrived);
	pthread_mutex_unlock(&lock);
}

/* What all operations come down to */
static void answer_later(const struct job *job)
{
	put_job(jobs, &nr_jobs, job);
	if (now_and_then(&operation_seed))
		answer_one(&operation_seed, true);
}

static void *pool_thread(void *number)
{
	unsigned int seed = (uintptr_t)number;

	pthread_mutex_lock(&lock);
	while (!over || nr_jobs) {
		if (!nr_jobs) {
			pthread_cond_wait(&arrived, &lock);
			continue;
		}
		pthread_mutex_unlock(&lock);
		answer_one(&seed, false);
		pthread_mutex_lock(&lock);
	}
	pthread_mutex_unlock(&lock);
	return NULL;
}

/*
 * Operations
 */

static int file_of(fuse_req_t req)
{
	return ((struct mount *)fuse_req_userdata(req))->file;
}

static struct stat pool_attributes(const struct job *job)
{
	struct stat st = attributes(job->ino), of_file;

	if (job->ino >= COPIED && job->ino <= BLIND &&
	    !fstat(file_of(job->req), &of_file))
		st.st_size = of_file.st_size;
	return st;
}

static void answer_lookup(const struct job *job, unsigned int *seed)
{
	struct fuse_entry_param entry = {
		.ino = job->ino,
		.attr = pool_attributes(job),
	};

	(void)seed;
	if (job->ino)
		fuse_reply_entry(job->req, &entry);
	else
		fuse_reply_err(job->req, ENOENT);
}

static void pool_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct job job = { .answer = answer_lookup, .req = req };
	fuse_ino_t ino;

	(void)parent;
	for (ino = COPIED; ino < NR_INODES; ino++)
		if (!strcmp(name, names[ino]))
			job.ino = ino;
	answer_later(&job);
}

static void answer_getattr(const struct job *job, unsigned int *seed)
{
	struct stat st = pool_attributes(job);

	(void)seed;
	fuse_reply_attr(job->req, &st, 0);
}

static void pool_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct job job = { .answer = answer_getattr, .req = req, .ino = ino };

	(void)fi;
	answer_later(&job);
}

static void answer_open(const struct job *job, unsigned int *seed)
{
	struct fuse_file_info fi = job->fi;

	(void)seed;
	if (job->ino == BLIND)
		fuse_ring_zero_copy_open(job->req);
	reply_open(job->req, job->ino, &fi);
}

/* One file is opted in here, the other one where the answer is given. */
static void pool_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct job job = { .answer = answer_open, .req = req, .ino = ino, .fi = *fi };

	if (ino == MOVED)
		fuse_ring_zero_copy_open(req);
	answer_later(&job);
}

/* In one of the ways that libfuse has */
static int reply_copied(const struct job *job, unsigned int *seed)
{
	struct fuse_bufvec whole = FUSE_BUFVEC_INIT(job->size);
	struct iovec iov[2];
	int file = file_of(job->req), result;
	char *data;
	ssize_t n;

	if (rand_r(seed) % 2) {
		whole.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
		whole.buf[0].fd = file;
		whole.buf[0].pos = job->off;
		return fuse_reply_data(job->req, &whole, FUSE_BUF_SPLICE_MOVE);
	}
	data = malloc(job->size);
	n = pread(file, data, job->size, job->off);
	if (n < 0)
		n = 0;
	iov[0].iov_base = data;
	iov[0].iov_len = n / 2;
	iov[1].iov_base = data + n / 2;
	iov[1].iov_len = n - n / 2;
	result = rand_r(seed) % 2 ? fuse_reply_iov(job->req, iov, 2) :
				    fuse_reply_buf(job->req, data, n);
	free(data);
	return result;
}

static void answer_read(const struct job *job, unsigned int *seed)
{
	struct mount *mount = fuse_req_userdata(job->req);

	switch (job->ino) {
	case HELD:
	case HELD_FILE:
		put_job(held, &nr_held, job);
		fprintf(stderr, "held\n");
		break;
	case MOVED:
		fuse_ring_reply_fd(job->req, file_of(job->req), job->off, job->size, NULL);
		break;
	case UNMOUNT:
		fuse_session_unmount(mount->se);
		fuse_reply_buf(job->req, "unmounted\n", job->off ? 0 : 10);
		break;
	case EXIT:
		/* The loop looks for that when an operation returns. */
		fuse_session_exit(mount->se);
		fuse_reply_buf(job->req, NULL, 0);
		break;
	default:
		reply_copied(job, seed);
	}
}

static void pool_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		      struct fuse_file_info *fi)
{
	struct job job = {
		.answer = answer_read,
		.req = req,
		.ino = ino,
		.size = size,
		.off = off,
	};

	(void)fi;
	if (ino == EXIT)
		answer_read(&job, NULL);
	else
		answer_later(&job);
}

static void answer_write(const struct job *job, unsigned int *seed)
{
	ssize_t n;

	(void)seed;
	if (job->ino == MOVED) {
		fuse_ring_reply_fd(job->req, file_of(job->req), job->off, job->size,
				   job->data);
		free(job->data);
		return;
	}
	n = pwrite(file_of(job->req), job->data->buf[0].mem, job->size, job->off);
	if (n < 0)
		fuse_reply_err(job->req, errno);
	else
		fuse_reply_write(job->req, n);
	free(job->data);
}

static void pool_write_buf(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *data,
			   off_t off, struct fuse_file_info *fi)
{
	struct job job = {
		.answer = answer_write,
		.req = req,
		.ino = ino,
		.size = fuse_buf_size(data),
		.off = off,
		.data = fuse_ring_keep_data(req, data),
	};

	(void)fi;
	if (job.data)
		answer_later(&job);
	else
		fuse_reply_err(req, errno);
}

static void pool_init(void *unused, struct fuse_conn_info *conn)
{
	(void)unused;
	conn->want |= conn->capable & (FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
}

static const struct fuse_lowlevel_ops operations = {
	.init = pool_init,
	.lookup = pool_lookup,
	.getattr = pool_getattr,
	.open = pool_open,
	.read = pool_read,
	.write_buf = pool_write_buf,
};

static int reply_late(const struct job *job, unsigned int *seed)
{
	if (job->ino == HELD)
		return reply_copied(job, seed);
	return fuse_ring_reply_fd(job->req, file_of(job->req), 0, job->size, NULL);
}

static void *mount_thread(void *arg)
{
	struct mount *mount = arg;

	mount->failed = fuse_ring_session_loop(mount->se, &mount->options);
	return NULL;
}

/* The first session is the main thread's, and that of the signals. */
static void run_loops(struct mount *mounts, int nr)
{
	int n;

	for (n = 1; n < nr; n++)
		if (pthread_create(&mounts[n].thread, NULL, mount_thread, &mounts[n]))
			abort();
	mount_thread(&mounts[0]);
	for (n = 1; n < nr; n++)
		pthread_join(mounts[n].thread, NULL);
}

/* Until after the loop, as threads of a server do that know nothing of it */
static void serve(struct mount *mounts, int nr)
{
	pthread_t threads[NR_THREADS];
	unsigned int seed = 1, n;

	for (n = 0; n < NR_THREADS; n++)
		if (pthread_create(&threads[n], NULL, pool_thread,
				   (void *)(uintptr_t)(n + 1)))
			abort();
	run_loops(mounts, nr);
	pthread_mutex_lock(&lock);
	over = true;
	pthread_cond_broadcast(&arrived);
	pthread_mutex_unlock(&lock);
	for (n = 0; n < NR_THREADS; n++)
		pthread_join(threads[n], NULL);
	for (n = 0; n < nr_held; n++)
		printf("too late: %s\n", strerror(-reply_late(&held[n], &seed)));
}

static int begin(struct mount *mount, struct fuse_args *args, char **argv)
{
	mount->options.size = sizeof(mount->options);
	mount->file = open(argv[1], O_RDWR | O_CLOEXEC);
	if (mount->file < 0 || !read_options(&mount->options, argv[0]))
		return -1;
	mount->se = fuse_session_new(args, &operations, sizeof(operations), mount);
	return mount->se ? fuse_session_mount(mount->se, argv[2]) : -1;
}

int main(int argc, char **argv)
{
	struct fuse_args args = FUSE_ARGS_INIT(1, argv);
	int nr = (argc - 1) / 3, n, failed = 0;
	struct mount *mounts = calloc(nr + 1, sizeof(*mounts));

	if (!nr || argc != 1 + 3 * nr)
		return 2;
	for (n = 0; n < nr; n++)
		if (begin(&mounts[n], &args, argv + 1 + 3 * n))
			return 1;
	if (fuse_set_signal_handlers(mounts[0].se))
		return 1;
	serve(mounts, nr);
	fuse_remove_signal_handlers(mounts[0].se);
	for (n = 0; n < nr; n++) {
		failed |= mounts[n].failed;
		fuse_session_unmount(mounts[n].se);
		fuse_session_destroy(mounts[n].se);
	}
	fuse_opt_free_args(&args);
	free(mounts);
	return failed != 0;
}
