// SPDX-License-Identifier: GPL-2.0
/*
 * When a zero-copied request ends: with the last use of its pages, and by no
 * commit that cannot take them back.
 */
#include <poll.h>
#include <signal.h>

#include "zero_copy_fixture.h"

ADD_ZERO_COPY_VARIANTS(zero_copy, .depth = 2);

TEST_F(zero_copy, another_ring_cannot_commit)
{
	int fd = self->fs.data_fd[NODE_OPTED_IN];
	struct page_io io = {};
	struct server_queue second;
	struct server_request request;
	struct client client;

	memset(self->fs.data[NODE_OPTED_IN], 0x22, PAGE);
	ASSERT_EQ(0, mount_serve_in_steps(&self->mount, &self->mode));
	hold(_metadata, self, &io, &client, &request);
	ASSERT_EQ(0, queue_open_second(&second, request.queue, RING_FLAGS,
				       FIXED_BUFFERS_AS_NEEDED));
	request_fill_reply(&request, 0, NULL, PAGE);
	EXPECT_EQ(-EINVAL, queue_send_commit(&second, request.slot,
					     request.queue->qid,
					     request.commit_id));
	EXPECT_TRUE(still_waits(&io));

	/* The request is as it was. */
	EXPECT_EQ(PAGE, request_transfer(&request, fd, 0, PAGE));
	EXPECT_EQ(0, request_reply(&request, 0, NULL, PAGE));
	EXPECT_EQ(PAGE, client_wait_served(&self->mount, &client));
	EXPECT_TRUE(page_is(io.memory, 0x22));
	EXPECT_EQ(-EFAULT, request_transfer(&request, fd, 0, PAGE));
	queue_close(&second);
}

/* The next request on any ring of the mount, or on @second */
static int take(struct fuse_mount *mount, struct server_queue *second,
		struct server_request *request)
{
	int err = queue_reap(second, 0);

	if (!err && queue_take(second, request))
		return 0;
	return err ?: mount_wait(mount, request, 1);
}

static int take_read(struct fuse_mount *mount, struct server_queue *second,
		     struct server_request *request)
{
	__u64 deadline = now_ms() + WAIT_MS;
	int err;

	do {
		err = take(mount, second, request);
		if (!err && request->in.opcode == FUSE_READ)
			return 0;
		if (!err)
			err = request_answer(request);
	} while ((!err || err == -ETIMEDOUT) && ms_until(deadline));
	return err ?: -ETIMEDOUT;
}

/* The same as client_wait_served() */
static long wait_served(struct fuse_mount *mount, struct server_queue *second,
			struct client *client)
{
	__u64 deadline = now_ms() + WAIT_MS;
	struct server_request request;

	while (client_runs(client) && ms_until(deadline))
		if (!take(mount, second, &request))
			request_answer(&request);
	return client_wait(client, 0);
}

/*
 * Two rings, each with an entry whose pages go to slot 0 of its own table:
 * to commit one through the ring of the other takes out neither.
 */
TEST_F(zero_copy, another_ring_keeps_its_pages)
{
	struct server_queue *first, second;
	struct server_request a, b, swap;
	struct page_io io[2] = {};
	struct client client[2];
	int fd = self->fs.data_fd[NODE_OPTED_IN];
	unsigned int qid, n;

	if (self->mode.flags)
		SKIP(return, "a buffer ring numbers its slots itself");
	memset(self->fs.data[NODE_OPTED_IN], 0x22, PAGE);
	first = &self->mount.queues[first_usable_cpu()];
	for (qid = 0; qid < self->mount.nr_queues; qid++) {
		struct server_queue *queue = &self->mount.queues[qid];

		ASSERT_EQ(0, queue_open(&self->mount, qid, &self->mode));
		ASSERT_EQ(0, queue_register(queue, 0));
	}
	ASSERT_EQ(0, queue_open_second(&second, first, RING_FLAGS,
				       FIXED_BUFFERS_AS_NEEDED));
	second.slots[1].zero_copy_index = 0;
	ASSERT_EQ(0, queue_register(&second, 1));
	for (n = 0; n < 2; n++) {
		ASSERT_EQ(0, page_io_init(&io[n], mount_path(&self->mount,
							     "opted_in"),
					  0x11));
		ASSERT_EQ(0, client_start(&client[n], first_usable_cpu(),
					  do_page_io, &io[n]));
	}
	ASSERT_EQ(0, take_read(&self->mount, &second, &a));
	ASSERT_EQ(0, take_read(&self->mount, &second, &b));
	if (a.queue != first) {
		swap = a;
		a = b;
		b = swap;
	}
	ASSERT_EQ(first, a.queue);
	ASSERT_EQ(&second, b.queue);

	request_fill_reply(&a, 0, NULL, PAGE);
	EXPECT_EQ(-EINVAL, queue_send_commit(&second, a.slot, second.qid,
					     a.commit_id));
	EXPECT_EQ(PAGE, request_transfer(&b, fd, 0, PAGE));
	EXPECT_EQ(0, request_reply(&b, 0, NULL, PAGE));
	EXPECT_EQ(PAGE, request_transfer(&a, fd, 0, PAGE));
	EXPECT_EQ(0, request_reply(&a, 0, NULL, PAGE));
	for (n = 0; n < 2; n++) {
		EXPECT_EQ(PAGE, wait_served(&self->mount, &second, &client[n]));
		EXPECT_TRUE(page_is(io[n].memory, 0x22));
	}
	queue_close(&second);
}

/*
 * The server empties the slot itself and fills it again: the commit takes out
 * no buffer but the request's.
 */
TEST_F(zero_copy, a_commit_keeps_what_the_server_put_there)
{
	struct page_io io = {};
	struct server_queue *queue;
	struct server_request request;
	struct client client;
	int pipe_fd[2];

	ASSERT_EQ(0, mount_serve_in_steps(&self->mount, &self->mode));
	hold(_metadata, self, &io, &client, &request);
	queue = request.queue;
	ASSERT_EQ(0, queue_table_set(queue, request.fixed_index, io.memory,
				     PAGE));
	EXPECT_EQ(0, request_reply(&request, -EIO, NULL, 0));
	EXPECT_EQ(-EIO, client_wait_served(&self->mount, &client));

	/* Its own memory is still there, and can be written to a pipe. */
	ASSERT_EQ(0, pipe(pipe_fd));
	request.in.opcode = FUSE_WRITE;
	EXPECT_EQ(PAGE, request_transfer_at(&request, (uintptr_t)io.memory,
					    pipe_fd[1], -1, PAGE));
}

/*
 * An operation that is under way at the commit, and a clone of the table
 */

TEST_F(zero_copy, a_read_in_flight_holds_up_the_end)
{
	unsigned char data[PAGE];
	struct page_io io = {};
	struct server_request request;
	struct client client;
	int pipe_fd[2];

	ASSERT_EQ(0, pipe(pipe_fd));
	ASSERT_EQ(0, mount_serve_in_steps(&self->mount, &self->mode));
	hold(_metadata, self, &io, &client, &request);
	ASSERT_EQ(0, request_start_transfer(&request, pipe_fd[0], PAGE));
	EXPECT_EQ(0, request_reply(&request, 0, NULL, PAGE));
	EXPECT_TRUE(still_waits(&io));
	EXPECT_TRUE(page_is(io.memory, 0x11));

	memset(data, 0x33, PAGE);
	ASSERT_EQ(PAGE, write(pipe_fd[1], data, PAGE));
	EXPECT_EQ(PAGE, request_end_transfer(&request));
	EXPECT_EQ(PAGE, client_wait_served(&self->mount, &client));
	EXPECT_TRUE(page_is(io.memory, 0x33));
}

TEST_F(zero_copy, a_write_in_flight_holds_up_the_end)
{
	struct page_io io = { .write = true };
	struct fuse_write_out out = { .size = PAGE };
	struct server_request request;
	struct client client;
	unsigned char *data;
	int pipe_fd[2];
	int size;

	/* A pipe that has no room, so that the WRITE_FIXED waits */
	ASSERT_EQ(0, pipe(pipe_fd));
	size = fcntl(pipe_fd[1], F_SETPIPE_SZ, PAGE);
	ASSERT_EQ(getpagesize(), size);
	data = calloc(1, size);
	ASSERT_NE(NULL, data);
	ASSERT_EQ(size, write(pipe_fd[1], data, size));

	ASSERT_EQ(0, mount_serve_in_steps(&self->mount, &self->mode));
	hold(_metadata, self, &io, &client, &request);
	ASSERT_EQ(0, request_start_transfer(&request, pipe_fd[1], PAGE));
	EXPECT_EQ(0, request_reply(&request, 0, &out, sizeof(out)));
	EXPECT_TRUE(still_waits(&io));

	ASSERT_EQ(size, read(pipe_fd[0], data, size));
	EXPECT_EQ(PAGE, request_end_transfer(&request));
	EXPECT_EQ(PAGE, client_wait_served(&self->mount, &client));
	ASSERT_EQ(PAGE, read(pipe_fd[0], data, PAGE));
	EXPECT_TRUE(page_is(data, 0x11));
	free(data);
}

TEST_F(zero_copy, a_clone_of_the_table_holds_up_the_end)
{
	struct page_io io = {};
	struct server_queue second;
	struct server_request request, through_clone;
	struct client client;
	int fd = self->fs.data_fd[NODE_OPTED_IN], ms;

	memset(self->fs.data[NODE_OPTED_IN], 0x22, PAGE);
	ASSERT_EQ(0, mount_serve_in_steps(&self->mount, &self->mode));
	hold(_metadata, self, &io, &client, &request);
	ASSERT_EQ(0, queue_open_second(&second, request.queue, RING_FLAGS, 0));
	ASSERT_EQ(0, queue_table_clone(&second, request.queue));
	EXPECT_EQ(0, request_reply(&request, 0, NULL, PAGE));
	EXPECT_TRUE(still_waits(&io));

	/* It is out of the first table, and in use in the second. */
	EXPECT_EQ(-EFAULT, request_transfer(&request, fd, 0, PAGE));
	through_clone = request;
	through_clone.queue = &second;
	EXPECT_EQ(PAGE, request_transfer(&through_clone, fd, 0, PAGE));
	EXPECT_TRUE(still_waits(&io));
	ASSERT_EQ(0, queue_table_remove(&second));
	/*
	 * If io-wq did the READ_FIXED, it can be done with the operation after its
	 * CQE. What is left to do then is done when the io_uring is entered.
	 */
	for (ms = 0; ms < WAIT_MS && !call_returned(&io); ms += 10)
		queue_reap(&second, 10);
	EXPECT_EQ(PAGE, client_wait_served(&self->mount, &client));
	EXPECT_TRUE(page_is(io.memory, 0x22));
	queue_close(&second);
}

TEST_F(zero_copy, the_entry_takes_the_next_request_meanwhile)
{
	int fd = self->fs.data_fd[NODE_OPTED_IN];
	struct page_io slow = {}, next = {};
	struct server_queue second;
	struct server_request request;
	struct client client[2];
	unsigned int n;

	memset(self->fs.data[NODE_OPTED_IN], 0x22, PAGE);
	ASSERT_EQ(0, mount_serve_in_steps(&self->mount, &self->mode));
	hold(_metadata, self, &slow, &client[0], &request);
	ASSERT_EQ(0, queue_open_second(&second, request.queue, RING_FLAGS, 0));
	ASSERT_EQ(0, queue_table_clone(&second, request.queue));
	EXPECT_EQ(0, request_reply(&request, 0, NULL, PAGE));

	/* More than there are entries */
	for (n = 0; n < 5; n++) {
		memset(next.memory ?: slow.memory, 0x11, PAGE);
		hold(_metadata, self, &next, &client[1], &request);
		EXPECT_EQ(PAGE, request_transfer(&request, fd, 0, PAGE));
		EXPECT_EQ(0, request_reply(&request, 0, NULL, PAGE));
		EXPECT_EQ(PAGE, client_wait_served(&self->mount, &client[1]));
		EXPECT_TRUE(page_is(next.memory, 0x22));
	}
	EXPECT_TRUE(still_waits(&slow));
	ASSERT_EQ(0, queue_table_remove(&second));
	EXPECT_EQ(PAGE, client_wait_served(&self->mount, &client[0]));
	queue_close(&second);
}

/* Without anything in flight the commit is the end, linked or not. */
TEST_F(zero_copy, a_linked_commit_ends_the_request)
{
	struct page_io io = {};
	struct server_request request;
	struct client client;
	unsigned int n;

	memset(self->fs.data[NODE_OPTED_IN], 0x22, PAGE);
	ASSERT_EQ(0, mount_serve_in_steps(&self->mount, &self->mode));
	for (n = 0; n < 5; n++) {
		hold(_metadata, self, &io, &client, &request);
		request_fill_reply(&request, 0, NULL, PAGE);
		request_prepare_transfer_and_commit(&request,
						    self->fs.data_fd[NODE_OPTED_IN],
						    0, PAGE);
		EXPECT_EQ(PAGE, client_wait_served(&self->mount, &client));
		EXPECT_TRUE(page_is(io.memory, 0x22));
		memset(io.memory, 0x11, PAGE);
	}
}

/*
 * What ends the wait for the last use of the pages, or does not
 */

TEST_F(zero_copy, an_abort_ends_the_wait)
{
	unsigned char data[PAGE] = {};
	struct page_io io = {};
	struct server_request request;
	struct client client;
	int pipe_fd[2];

	ASSERT_EQ(0, pipe(pipe_fd));
	ASSERT_EQ(0, mount_serve_in_steps(&self->mount, &self->mode));
	hold(_metadata, self, &io, &client, &request);
	ASSERT_EQ(0, request_start_transfer(&request, pipe_fd[0], PAGE));
	EXPECT_EQ(0, request_reply(&request, 0, NULL, PAGE));
	EXPECT_TRUE(still_waits(&io));

	ASSERT_EQ(0, mount_abort(&self->mount));
	EXPECT_EQ(-ECONNABORTED, client_wait(&client, WAIT_MS));
	/* It waited for the pipe, and has to import the buffer once more. */
	ASSERT_EQ(PAGE, write(pipe_fd[1], data, PAGE));
	EXPECT_EQ(-EFAULT, request_end_transfer(&request));
	EXPECT_TRUE(page_is(io.memory, 0x11));
}

TEST_F(zero_copy, an_abort_ends_the_use_of_a_clone)
{
	int fd = self->fs.data_fd[NODE_OPTED_IN];
	struct page_io io = {};
	struct server_queue second;
	struct server_request request, through_clone;
	struct client client;

	ASSERT_EQ(0, mount_serve_in_steps(&self->mount, &self->mode));
	hold(_metadata, self, &io, &client, &request);
	ASSERT_EQ(0, queue_open_second(&second, request.queue, RING_FLAGS, 0));
	ASSERT_EQ(0, queue_table_clone(&second, request.queue));
	EXPECT_EQ(0, request_reply(&request, 0, NULL, PAGE));
	EXPECT_TRUE(still_waits(&io));

	ASSERT_EQ(0, mount_abort(&self->mount));
	EXPECT_EQ(-ECONNABORTED, client_wait(&client, WAIT_MS));
	through_clone = request;
	through_clone.queue = &second;
	EXPECT_EQ(-EFAULT, request_transfer(&through_clone, fd, 0, PAGE));
	EXPECT_TRUE(page_is(io.memory, 0x11));

	/* The last reference goes when all else is gone. */
	mount_close(&self->mount);
	EXPECT_EQ(0, queue_table_remove(&second));
	queue_close(&second);
}

/* Whether it is gone by then */
static bool client_gone_in(const struct client *client, int ms)
{
	struct pollfd pollfd = { .fd = client->pidfd, .events = POLLIN };

	return poll(&pollfd, 1, ms) == 1;
}

TEST_F(zero_copy, a_killed_client_waits_for_the_last_use)
{
	struct page_io io = {};
	struct server_queue second;
	struct server_request request;
	struct client client;

	ASSERT_EQ(0, mount_serve_in_steps(&self->mount, &self->mode));
	hold(_metadata, self, &io, &client, &request);
	ASSERT_EQ(0, queue_open_second(&second, request.queue, RING_FLAGS, 0));
	ASSERT_EQ(0, queue_table_clone(&second, request.queue));
	EXPECT_EQ(0, request_reply(&request, 0, NULL, PAGE));
	/* One whose read returns is held up by its FLUSH when it is killed. */
	EXPECT_TRUE(still_waits(&io));
	client_kill(&client, SIGKILL);
	EXPECT_FALSE(client_gone_in(&client, SILENCE_MS));
	ASSERT_EQ(0, queue_table_remove(&second));
	EXPECT_EQ(-EPIPE, client_wait_served(&self->mount, &client));
	queue_close(&second);
}

FUSE_TEST_MAIN(NEEDS_BUFPOOLS, NEEDS_BUFRINGS)
