// SPDX-License-Identifier: GPL-2.0
/*
 * A connection ends while zero-copied requests are with the server: from then on
 * no I/O that it starts reaches the pages of the clients.
 */
#include <sys/mount.h>

#include "zero_copy_fixture.h"

ADD_ZERO_COPY_VARIANTS(zero_copy, .depth = 2);

static void check_out_of_reach(struct __test_metadata *_metadata,
			       FIXTURE_DATA(zero_copy) * self,
			       struct page_io *io,
			       struct server_request *request)
{
	int fd = self->fs.data_fd[NODE_OPTED_IN];

	EXPECT_EQ(-EFAULT, request_transfer(request, fd, 0, PAGE));
	EXPECT_TRUE(io->write ? page_is(self->fs.data[NODE_OPTED_IN], 0x22) :
				page_is(io->memory, 0x11));
}

enum end_kind { BY_ABORT, BY_FORCE };

static void check_end(struct __test_metadata *_metadata,
		      FIXTURE_DATA(zero_copy) * self, bool write,
		      enum end_kind kind)
{
	struct page_io io = { .write = write };
	struct server_request request;
	struct client client;

	memset(self->fs.data[NODE_OPTED_IN], 0x22, PAGE);
	ASSERT_EQ(0, mount_serve_in_steps(&self->mount, &self->mode));
	hold(_metadata, self, &io, &client, &request);
	switch (kind) {
	case BY_ABORT:
		ASSERT_EQ(0, mount_abort(&self->mount));
		break;
	case BY_FORCE:
		/* Busy it is, but the requests end. */
		umount2(self->mount.dir, MNT_FORCE);
		break;
	}
	EXPECT_EQ(-ECONNABORTED, client_wait(&client, WAIT_MS));
	check_out_of_reach(_metadata, self, &io, &request);
}

TEST_F(zero_copy, after_an_abort_no_read_begins)
{
	check_end(_metadata, self, false, BY_ABORT);
}

TEST_F(zero_copy, after_an_abort_no_write_begins)
{
	check_end(_metadata, self, true, BY_ABORT);
}

TEST_F(zero_copy, after_a_forced_umount_no_read_begins)
{
	check_end(_metadata, self, false, BY_FORCE);
}

TEST_F(zero_copy, after_an_abort_no_read_begins_through_a_clone)
{
	struct page_io io = {};
	struct server_queue second;
	struct server_request request;
	struct client client;

	ASSERT_EQ(0, mount_serve_in_steps(&self->mount, &self->mode));
	hold(_metadata, self, &io, &client, &request);
	ASSERT_EQ(0, queue_open_second(&second, request.queue, RING_FLAGS, 0));
	ASSERT_EQ(0, queue_table_clone(&second, request.queue));
	ASSERT_EQ(0, mount_abort(&self->mount));
	EXPECT_EQ(-ECONNABORTED, client_wait(&client, WAIT_MS));
	request.queue = &second;
	check_out_of_reach(_metadata, self, &io, &request);
	queue_close(&second);
}

TEST_F(zero_copy, every_request_with_the_server_is_out_of_reach)
{
	struct page_io io[2] = {};
	struct server_request request[2];
	struct client client[2];
	unsigned int n;

	ASSERT_EQ(0, mount_serve_in_steps(&self->mount, &self->mode));
	for (n = 0; n < 2; n++)
		hold(_metadata, self, &io[n], &client[n], &request[n]);
	ASSERT_EQ(0, mount_abort(&self->mount));
	for (n = 0; n < 2; n++) {
		EXPECT_EQ(-ECONNABORTED, client_wait(&client[n], WAIT_MS));
		check_out_of_reach(_metadata, self, &io[n], &request[n]);
	}
}

/* One that waits for a pipe starts again, and finds the buffer revoked. */
TEST_F(zero_copy, an_abort_stops_a_read_that_waits_for_data)
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
	ASSERT_EQ(0, mount_abort(&self->mount));
	EXPECT_EQ(-ECONNABORTED, client_wait(&client, WAIT_MS));
	memset(data, 0x33, PAGE);
	ASSERT_EQ(PAGE, write(pipe_fd[1], data, PAGE));
	EXPECT_EQ(-EFAULT, request_end_transfer(&request));
	EXPECT_TRUE(page_is(io.memory, 0x11));
}

/* The server that empties its slot, or its table, finds nothing amiss. */
TEST_F(zero_copy, the_table_can_be_emptied_after_an_abort)
{
	struct page_io io[2] = {};
	struct server_request request[2];
	struct client client[2];
	struct server_queue *queue;
	unsigned int n;

	ASSERT_EQ(0, mount_serve_in_steps(&self->mount, &self->mode));
	for (n = 0; n < 2; n++)
		hold(_metadata, self, &io[n], &client[n], &request[n]);
	queue = request[0].queue;
	ASSERT_EQ(0, queue_table_clear(queue, request[0].fixed_index));
	ASSERT_EQ(0, mount_abort(&self->mount));
	for (n = 0; n < 2; n++)
		EXPECT_EQ(-ECONNABORTED, client_wait(&client[n], WAIT_MS));
	EXPECT_EQ(0, queue_table_clear(queue, request[1].fixed_index));
	EXPECT_EQ(0, queue_table_remove(queue));
}

FUSE_TEST_MAIN(NEEDS_BUFPOOLS, NEEDS_BUFRINGS)
