// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * pool_fs: a server of the library that answers everything from threads of its
 * own, in random order, whatever became of the client and of the session.
 *
 *	pool_fs OPTIONS FILE MOUNTPOINT
 *
 *	/copied		is FILE, read and written in memory
 *	/held		reading it is answered when the loop is over: too late
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

enum { COPIED = FUSE_ROOT_ID + 1, HELD, UNMOUNT, EXIT, NR_INODES };

static const char * const names[NR_INODES] = {
	[COPIED] = "copied",
	[HELD] = "held",
	[UNMOUNT] = "unmount",
	[EXIT] = "exit",
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
static struct fuse_session *se;
static int file;
static __thread unsigned int operation_seed;

static bool now_and_then(unsigned int *seed)
{
	return rand_r(seed) % ODD_ONES == 0;
}

/* Any of them, with the lock held */
static struct job take_job(unsigned int *seed)
{
	unsigned int n = rand_r(seed) % nr_jobs;
	struct job job = jobs[n];

	jobs[n] = jobs[--nr_jobs];
	return job;
}

static void answer_one(unsigned int *seed)
{
	struct job job;

	if (now_and_then(seed))
		usleep(rand_r(seed) % 1000);
	pthread_mutex_lock(&lock);
	if (!nr_jobs) {
		pthread_mutex_unlock(&lock);
		return;
	}
	job = take_job(seed);
	pthread_mutex_unlock(&lock);
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
		answer_one(&operation_seed);
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
		answer_one(&seed);
		pthread_mutex_lock(&lock);
	}
	pthread_mutex_unlock(&lock);
	return NULL;
}

/*
 * Operations
 */

static struct stat pool_attributes(fuse_ino_t ino)
{
	struct stat st = attributes(ino), of_file;

	if (ino == COPIED && !fstat(file, &of_file))
		st.st_size = of_file.st_size;
	return st;
}

static void answer_lookup(const struct job *job, unsigned int *seed)
{
	struct fuse_entry_param entry = {
		.ino = job->ino,
		.attr = pool_attributes(job->ino),
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
	struct stat st = pool_attributes(job->ino);

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
	reply_open(job->req, job->ino, &fi);
}

static void pool_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct job job = { .answer = answer_open, .req = req, .ino = ino, .fi = *fi };

	answer_later(&job);
}

/* In one of the ways that libfuse has */
static int reply_copied(const struct job *job, unsigned int *seed)
{
	struct fuse_bufvec whole = FUSE_BUFVEC_INIT(job->size);
	struct iovec iov[2];
	int result;
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
	switch (job->ino) {
	case HELD:
		put_job(held, &nr_held, job);
		fprintf(stderr, "held\n");
		break;
	case UNMOUNT:
		fuse_session_unmount(se);
		fuse_reply_buf(job->req, "unmounted\n", job->off ? 0 : 10);
		break;
	case EXIT:
		/* The loop looks for that when an operation returns. */
		fuse_session_exit(se);
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
	n = pwrite(file, job->data->buf[0].mem, job->size, job->off);
	if (n < 0)
		fuse_reply_err(job->req, errno);
	else
		fuse_reply_write(job->req, n);
	free(job->data);
}

/* As libfuse takes it back when the operation returns */
static struct fuse_bufvec *copy_of(struct fuse_bufvec *data)
{
	size_t size = fuse_buf_size(data);
	struct fuse_bufvec *copy = malloc(sizeof(*copy) + size);

	*copy = FUSE_BUFVEC_INIT(size);
	copy->buf[0].mem = copy + 1;
	fuse_buf_copy(copy, data, 0);
	copy->idx = 0;
	copy->off = 0;
	return copy;
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
		.data = copy_of(data),
	};

	(void)fi;
	answer_later(&job);
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

/* Until after the loop, as threads of a server do that know nothing of it */
static int serve(struct fuse_ring_options *options)
{
	pthread_t threads[NR_THREADS];
	unsigned int seed = 1, n;
	int failed;

	for (n = 0; n < NR_THREADS; n++)
		if (pthread_create(&threads[n], NULL, pool_thread,
				   (void *)(uintptr_t)(n + 1)))
			return 1;
	failed = fuse_ring_session_loop(se, options);
	pthread_mutex_lock(&lock);
	over = true;
	pthread_cond_broadcast(&arrived);
	pthread_mutex_unlock(&lock);
	for (n = 0; n < NR_THREADS; n++)
		pthread_join(threads[n], NULL);
	for (n = 0; n < nr_held; n++)
		printf("too late: %s\n", strerror(-reply_copied(&held[n], &seed)));
	return failed;
}

int main(int argc, char **argv)
{
	struct fuse_ring_options options = { .size = sizeof(options) };
	struct fuse_args args = FUSE_ARGS_INIT(1, argv);
	int failed = 1;

	if (argc != 4 || !read_options(&options, argv[1]))
		return 2;
	file = open(argv[2], O_RDWR | O_CLOEXEC);
	se = fuse_session_new(&args, &operations, sizeof(operations), NULL);
	if (file >= 0 && se && !fuse_set_signal_handlers(se) &&
	    !fuse_session_mount(se, argv[3])) {
		failed = serve(&options);
		fuse_session_unmount(se);
		fuse_remove_signal_handlers(se);
	}
	if (se)
		fuse_session_destroy(se);
	fuse_opt_free_args(&args);
	return failed != 0;
}
