// SPDX-License-Identifier: GPL-2.0
/*
 * The table of fixed buffers of a buffer ring with zero-copy, which numbers its
 * slots itself: what REGISTER takes, and what happens when no slot is free.
 */
#include "zero_copy_fixture.h"

#define KIB 1024
#define MIB (1024 * 1024)
#define DEPTH 4

ADD_VARIANT(zero_copy, zero_copy, .depth = DEPTH, .nr_pools = 1,
	    .pool = { { MIB, 4 } });

static int open_with_table(FIXTURE_DATA(zero_copy) * self, int fixed_buffers)
{
	return queue_open_with(&self->mount.queues[0], &self->mount, 0,
			       &self->mode, RING_FLAGS, fixed_buffers);
}

TEST_F(zero_copy, a_ring_without_a_table_is_refused)
{
	ASSERT_EQ(0, open_with_table(self, 0));
	EXPECT_EQ(-EINVAL, queue_register(&self->mount.queues[0], 0));
	EXPECT_EQ(0, pinned_kib(getpid()));
	EXPECT_EQ(0, mount_works(&self->mount));
}

TEST_F(zero_copy, a_slot_beyond_the_table_is_refused)
{
	ASSERT_EQ(0, open_with_table(self, 2));
	EXPECT_EQ(-EINVAL, queue_register(&self->mount.queues[0], 2));
	EXPECT_EQ(0, pinned_kib(getpid()));
	EXPECT_EQ(0, mount_works(&self->mount));
}

TEST_F(zero_copy, the_last_slot_of_the_table_is_accepted)
{
	ASSERT_EQ(0, open_with_table(self, 2));
	EXPECT_EQ(0, queue_register(&self->mount.queues[0], 1));
}

static int occupy(struct server_queue *queue, unsigned int index)
{
	return queue_table_set(queue, index, queue->memory.headers.iov_base,
			       queue->memory.headers.iov_len);
}

TEST_F(zero_copy, an_occupied_slot_of_the_table_is_refused)
{
	struct server_queue *queue = &self->mount.queues[0];

	ASSERT_EQ(0, open_with_table(self, DEPTH));
	ASSERT_EQ(0, occupy(queue, 1));
	EXPECT_EQ(-EBUSY, queue_register(queue, 1));
	EXPECT_EQ(0, mount_works(&self->mount));
}

TEST_F(zero_copy, other_slots_of_a_table_are_free_to_use)
{
	struct server_queue *queue = &self->mount.queues[0];

	ASSERT_EQ(0, open_with_table(self, DEPTH + 1));
	ASSERT_EQ(0, occupy(queue, DEPTH));
	EXPECT_EQ(0, queue_register_all(queue));
}

/*
 * What a zero-copied WRITE has a small buffer for is only the reply. If its
 * pages find no room in the table, they need a larger one.
 */
TEST_F(zero_copy, a_write_that_must_be_copied_gets_a_larger_buffer)
{
	static const struct queue_mode two_pools = {
		.flags = ZERO_COPY_FLAGS, .depth = DEPTH, .nr_pools = 2,
		.pool = { { 2 * KIB, 1 }, { MIB, 1 } },
	};
	struct page_io io = { .write = true };
	struct server_request request;
	struct client client;
	unsigned int qid, n, round, id;

	ASSERT_EQ(0, mount_serve_in_steps(&self->mount, &two_pools));
	for (qid = 0; qid < self->mount.nr_queues; qid++)
		for (n = 0; n < DEPTH; n++)
			ASSERT_EQ(0, occupy(&self->mount.queues[qid], n));
	ASSERT_EQ(0, page_io_init(&io, mount_path(&self->mount, "data"), 0x5a));
	for (round = 0; round < 3; round++) {
		ASSERT_EQ(0, client_start(&client, first_usable_cpu(),
					  do_page_io, &io));
		/* Both buffers are free again for its first request. */
		do {
			ASSERT_EQ(0, mount_wait(&self->mount, &request,
						WAIT_MS));
			id = request.buf_id;
			ASSERT_EQ(0, request_answer(&request));
		} while (id == FUSE_URING_BUF_NONE);
		EXPECT_EQ(0, id);
		ASSERT_EQ(0, mount_wait_for(&self->mount, FUSE_WRITE,
					    &request));
		EXPECT_EQ(0, request.flags);
		EXPECT_EQ(1, request.buf_id);
		EXPECT_EQ(PAGE, request.payload_sz);
		ASSERT_EQ(0, request_answer(&request));
		EXPECT_EQ(PAGE, client_wait_served(&self->mount, &client));
	}
	EXPECT_TRUE(page_is(self->fs.data[NODE_DATA], 0x5a));
}

FUSE_TEST_MAIN(NEEDS_BUFRINGS)
