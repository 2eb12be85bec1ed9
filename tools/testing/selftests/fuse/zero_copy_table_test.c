// SPDX-License-Identifier: GPL-2.0
/*
 * The table of fixed buffers that zero-copy uses: which slots REGISTER takes,
 * and what happens when a slot cannot be used after all.
 */
#include "zero_copy_fixture.h"

/* A buffer ring numbers its slots itself, and has its pools in no table. */
ADD_VARIANT(zero_copy, bufpool_zero_copy, .depth = 2);

/* A queue whose pool is in the server's memory, and its table all its own */
static void open_queues(struct __test_metadata *_metadata,
			FIXTURE_DATA(zero_copy) * self, unsigned int buffers,
			int fixed_buffers)
{
	unsigned int qid;

	self->mode.bufpool &= ~BUFPOOL_REGISTERED;
	self->mode.nr_pools = 1;
	self->mode.pool[0].nr = buffers;
	for (qid = 0; qid < self->mount.nr_queues; qid++)
		ASSERT_EQ(0, queue_open_with(&self->mount.queues[qid],
					     &self->mount, qid, &self->mode,
					     RING_FLAGS, fixed_buffers));
}

/*
 * REGISTER
 */

TEST_F(zero_copy, a_ring_without_a_table_is_refused)
{
	open_queues(_metadata, self, 2, 0);
	EXPECT_EQ(-EINVAL, queue_register(&self->mount.queues[0], 0));
}

TEST_F(zero_copy, a_slot_beyond_the_table_is_refused)
{
	struct server_queue *queue = &self->mount.queues[0];

	open_queues(_metadata, self, 2, 2);
	queue->slots[0].zero_copy_index = 2;
	EXPECT_EQ(-EINVAL, queue_register(queue, 0));
}

TEST_F(zero_copy, the_last_slot_of_the_table_is_accepted)
{
	struct server_queue *queue = &self->mount.queues[0];

	open_queues(_metadata, self, 2, 4);
	queue->slots[0].zero_copy_index = 3;
	EXPECT_EQ(0, queue_register(queue, 0));
}

TEST_F(zero_copy, an_occupied_slot_is_refused)
{
	struct server_queue *queue = &self->mount.queues[0];

	open_queues(_metadata, self, 2, 4);
	ASSERT_EQ(0, queue_table_set(queue, 1, queue->memory.headers.iov_base,
				     queue->memory.headers.iov_len));
	EXPECT_EQ(-EBUSY, queue_register(queue, 1));
}

TEST_F(zero_copy, the_slot_of_another_entry_is_refused)
{
	struct server_queue *queue = &self->mount.queues[0];

	open_queues(_metadata, self, 2, 4);
	ASSERT_EQ(0, queue_register(queue, 0));
	queue->slots[1].zero_copy_index = 0;
	EXPECT_EQ(-EBUSY, queue_register(queue, 1));
}

TEST_F(zero_copy, another_ring_has_slots_of_its_own)
{
	struct server_queue *queue = &self->mount.queues[0];
	struct server_queue second;

	open_queues(_metadata, self, 2, 4);
	ASSERT_EQ(0, queue_register(queue, 0));
	ASSERT_EQ(0, queue_open_second(&second, queue, RING_FLAGS, 1));
	second.slots[1].zero_copy_index = 0;
	EXPECT_EQ(0, queue_register(&second, 1));
	queue_close(&second);
}

TEST_F(zero_copy, the_slot_of_the_pool_is_refused)
{
	struct server_queue *queue = &self->mount.queues[0];

	ASSERT_EQ(0, queue_open(&self->mount, 0, &self->mode));
	queue->slots[0].zero_copy_index = queue->pool_index;
	EXPECT_EQ(-EBUSY, queue_register(queue, 0));
}

/*
 * Slots that were all right at REGISTER: what cannot be zero-copied is copied.
 */

static void serve(struct __test_metadata *_metadata,
		  FIXTURE_DATA(zero_copy) * self)
{
	unsigned int qid;

	for (qid = 0; qid < self->mount.nr_queues; qid++)
		ASSERT_EQ(0, queue_register_all(&self->mount.queues[qid]));
}

/* Every slot but those of a pool, of every queue */
static void occupy_all(struct __test_metadata *_metadata,
		       FIXTURE_DATA(zero_copy) * self)
{
	unsigned int qid, n;

	for (qid = 0; qid < self->mount.nr_queues; qid++) {
		struct server_queue *queue = &self->mount.queues[qid];
		const struct iovec *memory = &queue->memory.headers;

		for (n = 0; n < self->mode.depth; n++)
			ASSERT_EQ(0, queue_table_set(queue, n, memory->iov_base,
						     memory->iov_len));
	}
}

static void expect_copied(struct __test_metadata *_metadata,
			  FIXTURE_DATA(zero_copy) * self, bool write)
{
	struct page_io io = { .write = write };
	struct server_request request;
	struct client client;

	memset(self->fs.data[NODE_OPTED_IN], 0x22, PAGE);
	ASSERT_EQ(0, page_io_init(&io, mount_path(&self->mount, "opted_in"),
				  0x11));
	ASSERT_EQ(0, client_start(&client, first_usable_cpu(), do_page_io,
				  &io));
	ASSERT_EQ(0, mount_wait_for(&self->mount,
				    write ? FUSE_WRITE : FUSE_READ, &request));
	EXPECT_FALSE(request.zero_copy);
	EXPECT_EQ(write ? PAGE : 0, request.payload_sz);
	EXPECT_EQ(0, request_answer(&request));
	EXPECT_EQ(PAGE, client_wait_served(&self->mount, &client));
	EXPECT_TRUE(page_is(self->fs.data[NODE_OPTED_IN], write ? 0x11 : 0x22));
	EXPECT_TRUE(page_is(io.memory, write ? 0x11 : 0x22));
}

TEST_F(zero_copy, with_an_occupied_slot_a_read_is_copied)
{
	ASSERT_EQ(0, mount_serve_in_steps(&self->mount, &self->mode));
	occupy_all(_metadata, self);
	expect_copied(_metadata, self, false);
}

TEST_F(zero_copy, with_an_occupied_slot_a_write_is_copied)
{
	ASSERT_EQ(0, mount_serve_in_steps(&self->mount, &self->mode));
	occupy_all(_metadata, self);
	expect_copied(_metadata, self, true);
}

TEST_F(zero_copy, without_a_table_a_read_is_copied)
{
	unsigned int qid;

	open_queues(_metadata, self, 2, 2);
	serve(_metadata, self);
	for (qid = 0; qid < self->mount.nr_queues; qid++)
		ASSERT_EQ(0, queue_table_remove(&self->mount.queues[qid]));
	expect_copied(_metadata, self, false);
	expect_copied(_metadata, self, true);
}

/* The server gives the slot back, and it is used again. */
TEST_F(zero_copy, an_empty_slot_is_used_again)
{
	struct page_io io = {};
	struct server_request request;
	struct client client;
	unsigned int qid, n;

	ASSERT_EQ(0, mount_serve_in_steps(&self->mount, &self->mode));
	occupy_all(_metadata, self);
	expect_copied(_metadata, self, false);
	for (qid = 0; qid < self->mount.nr_queues; qid++) {
		struct server_queue *queue = &self->mount.queues[qid];

		for (n = 0; n < self->mode.depth; n++)
			ASSERT_EQ(0, queue_table_clear(queue, n));
	}
	hold(_metadata, self, &io, &client, &request);
	EXPECT_EQ(0, request_answer(&request));
	EXPECT_EQ(PAGE, client_wait_served(&self->mount, &client));
}

/*
 * One buffer, in use, and a request that turns out to need one: it waits, and
 * the entry that it had serves requests that need none.
 */
TEST_F(zero_copy, a_request_that_must_be_copied_waits_for_a_buffer)
{
	struct page_io holds = {}, waits = {};
	struct server_request request, second;
	struct client client[2];

	open_queues(_metadata, self, 1, 2);
	serve(_metadata, self);
	memset(self->fs.data[NODE_OPTED_IN], 0x22, PAGE);
	ASSERT_EQ(0, page_io_init(&holds, mount_path(&self->mount, "data"), 0));
	ASSERT_EQ(0, page_io_init(&waits, mount_path(&self->mount, "opted_in"),
				  0x11));
	/* To open a file takes a buffer, too. */
	ASSERT_EQ(0, start_opened(&self->mount, &holds, &client[0]));
	ASSERT_EQ(0, start_opened(&self->mount, &waits, &client[1]));
	occupy_all(_metadata, self);
	go(&holds);
	ASSERT_EQ(0, mount_wait_for(&self->mount, FUSE_READ, &request));
	EXPECT_FALSE(request.zero_copy);
	go(&waits);
	ASSERT_EQ(0, mount_wait_until_waiting(&self->mount, 2));
	EXPECT_EQ(0, mount_expect_silence(&self->mount));
	EXPECT_EQ(0, request_answer(&request));
	ASSERT_EQ(0, mount_wait_for(&self->mount, FUSE_READ, &second));
	EXPECT_FALSE(second.zero_copy);
	EXPECT_EQ(0, request_answer(&second));
	EXPECT_EQ(PAGE, client_wait_served(&self->mount, &client[0]));
	EXPECT_EQ(PAGE, client_wait_served(&self->mount, &client[1]));
	EXPECT_TRUE(page_is(waits.memory, 0x22));
}

/*
 * A registered pool is the memory that was in its slot when the command came:
 * a command that waits keeps it, as every operation with a fixed buffer does.
 */
TEST_F(zero_copy, a_waiting_command_keeps_the_pool_that_it_came_with)
{
	struct page_io io = { .xattr = true };
	struct server_request request;
	struct server_queue *queue;
	struct client client;
	struct iovec *pool;
	void *other;

	ASSERT_EQ(0, mount_serve_in_steps(&self->mount, &self->mode));
	ASSERT_EQ(0, page_io_init(&io, mount_path(&self->mount, "data"), 0x11));
	/* The entry that replied to OPEN waits with the command that did so. */
	ASSERT_EQ(0, start_opened(&self->mount, &io, &client));

	queue = &self->mount.queues[first_usable_cpu()];
	pool = &queue->memory.pool[0];
	other = mmap(pool->iov_base, pool->iov_len, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	ASSERT_EQ(pool->iov_base, other);
	ASSERT_EQ(0, queue_table_set(queue, queue->pool_index, other,
				     pool->iov_len));
	go(&io);
	ASSERT_EQ(0, mount_wait_for(&self->mount, FUSE_SETXATTR, &request));
	/* Nothing of it has come to the memory that is there now. */
	EXPECT_TRUE(page_is(request.payload, 0));
	EXPECT_EQ(0, request_reply(&request, 0, NULL, 0));
	EXPECT_EQ(0, client_wait_served(&self->mount, &client));
}

FUSE_TEST_MAIN(NEEDS_BUFPOOLS)
