// SPDX-License-Identifier: GPL-2.0
/*
 * A server that runs the tests' file system on all queues of a mount by itself
 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "test_fs.h"

static void commit(struct server_request *request)
{
	queue_prepare_commit(request->queue, request->slot,
			     request->queue->qid, request->commit_id);
}

static void transfer_failed(struct server_request *request, int result)
{
	request_fill_transferred(request, result);
	commit(request);
}

/* Prepares what answers the request; the next reap submits it. */
static void start_answer(struct test_fs *fs, struct server_request *request)
{
	struct fuse_call call;
	int error;

	request_fill_call(request, &call);
	error = test_fs_answer(fs, &call);
	if (!error && call.transfer_fd >= 0) {
		request_fill_transferred(request, call.transfer_len);
		request_prepare_transfer_and_commit(request, call.transfer_fd,
						    call.transfer_offset,
						    call.transfer_len);
		return;
	}
	request_fill_reply(request, error, NULL, error ? 0 : call.reply_len);
	commit(request);
}

static void report_start(struct test_fs *fs, int error)
{
	const __u64 one = 1;

	if (error)
		__atomic_store_n(&fs->start_error, -error, __ATOMIC_SEQ_CST);
	if (write(fs->started_fd, &one, sizeof(one)) < 0)
		complain("reporting a server's start: %s", strerror(errno));
}

static void *serve_queue(void *arg)
{
	struct server_queue *queue = arg;
	struct fuse_mount *mount = queue->mount;
	struct test_fs *fs = mount->fs;
	struct server_request request;
	int err;

	err = queue_open_with(queue, mount, queue->qid, &fs->mode,
			      fs->ring_flags, FIXED_BUFFERS_AS_NEEDED);
	if (!err) {
		queue->transfer_failed = transfer_failed;
		queue_poll_stop(queue);
		err = queue_register_all(queue);
	}
	report_start(fs, err);
	while (!err && !queue->stopped) {
		err = queue_reap(queue, -1);
		while (queue_take(queue, &request))
			start_answer(fs, &request);
	}
	return NULL;
}

int test_fs_serve(struct test_fs *fs, struct fuse_mount *mount,
		  const struct queue_mode *mode, unsigned int ring_flags)
{
	__u64 started = 0, n;
	unsigned int qid;
	int err;

	fs->mount = mount;
	fs->mode = *mode;
	fs->ring_flags = ring_flags;
	fs->started_fd = eventfd(0, EFD_CLOEXEC);
	fs->threads = calloc(mount->nr_queues, sizeof(*fs->threads));
	mount->fs = fs;
	mount->answer = test_fs_answer;
	if (fs->started_fd < 0 || !fs->threads)
		return -ENOMEM;

	for (qid = 0; qid < mount->nr_queues; qid++) {
		mount->queues[qid].mount = mount;
		mount->queues[qid].qid = qid;
		err = pthread_create(&fs->threads[qid], NULL, serve_queue,
				     &mount->queues[qid]);
		if (err)
			return -err;
		fs->nr_threads++;
	}
	while (started < mount->nr_queues) {
		struct pollfd pollfd = {
			.fd = fs->started_fd, .events = POLLIN,
		};

		if (poll(&pollfd, 1, WAIT_MS) < 1) {
			complain("%llu of %u servers started",
				 (unsigned long long)started, mount->nr_queues);
			return -ETIMEDOUT;
		}
		if (read(fs->started_fd, &n, sizeof(n)) == sizeof(n))
			started += n;
	}
	return -(int)fs->start_error;
}

int test_fs_stop(struct test_fs *fs)
{
	unsigned int n;
	int err = 0;

	if (!fs->threads)
		return 0;
	mount_stop_servers(fs->mount);
	for (n = 0; n < fs->nr_threads; n++)
		err = join_thread(fs->threads[n], "a server thread") ?: err;
	free(fs->threads);
	fs->threads = NULL;
	fs->nr_threads = 0;
	return err;
}
