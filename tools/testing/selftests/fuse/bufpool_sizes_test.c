// SPDX-License-Identifier: GPL-2.0
/*
 * Adding buffer pools of several sizes to a queue: in which order, how many, and
 * which do not go together. What is refused leaves the queue as it was.
 */
#include <errno.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "test_fs.h"
#include "variants.h"

/* With a page per request the largest payload is FUSE_MIN_READ_BUFFER. */
#define MAX_WRITE 4096
#define PAYLOAD smallest_payload()

/* In the order of their sizes, as the fixture adds them by itself */
#define POOLS { { 512, 4 }, { 1024, 2 }, { 4096, 2 }, { LARGEST_PAYLOAD, 2 } }

static const struct mount_options small_requests = { .max_write = MAX_WRITE };

FIXTURE(sizes)
{
	struct fuse_mount mount;
	struct test_fs fs;
	struct server_queue *queue;
};

FIXTURE_VARIANT(sizes)
{
	struct queue_mode mode;
};

ADD_VARIANT(sizes, bufpool_sizes, .depth = 2, .nr_pools = 4, .pool = POOLS);
ADD_VARIANT(sizes, bufpool_sizes_registered, .depth = 2, .nr_pools = 4,
	    .pool = POOLS);

FIXTURE_SETUP(sizes)
{
	struct server_command command;
	const char *impossible;
	unsigned int qid;
	int err;

	impossible = test_fs_begin(&self->fs, &self->mount, PAYLOAD,
				   &small_requests, &variant->mode, &err);
	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(0, err);
	ASSERT_EQ(PAYLOAD, self->mount.max_payload);
	self->queue = &self->mount.queues[0];
	for (qid = 0; qid < self->mount.nr_queues; qid++) {
		ASSERT_EQ(0, queue_open(&self->mount, qid, &variant->mode));
		queue_fill_add_queue(&self->queue[qid], &command);
		ASSERT_EQ(0, queue_send(&self->queue[qid], &command));
	}
}

FIXTURE_TEARDOWN(sizes)
{
	test_fs_end(&self->fs, &self->mount);
}

/* Pool @n as the mode has it, but with buffers of another size */
static int add_with_size(struct server_queue *queue, unsigned int n, __u32 size)
{
	struct server_command command;

	queue_fill_add_sized_bufpool(queue, n, &command);
	command.cmd.bufpool.reserved = size;
	return queue_send(queue, &command);
}

static int add(struct server_queue *queue, unsigned int n)
{
	struct server_command command;

	queue_fill_add_sized_bufpool(queue, n, &command);
	return queue_send(queue, &command);
}

static int register_entry(struct server_queue *queue)
{
	struct server_command command;

	queue_fill_register(queue, 0, &command);
	return queue_send(queue, &command);
}

/* All queues, for requests to go by the rings */
static void expect_served(struct __test_metadata *_metadata,
			  FIXTURE_DATA(sizes) * self)
{
	unsigned int qid;

	for (qid = 0; qid < self->mount.nr_queues; qid++)
		ASSERT_EQ(0, queue_register_all(&self->queue[qid]));
	EXPECT_EQ(0, mount_works(&self->mount));
	EXPECT_EQ(0, self->mount.device_requests);
}

TEST_F(sizes, four_are_taken_and_a_fifth_is_not)
{
	unsigned int n;

	for (n = 0; n < 4; n++)
		ASSERT_EQ(0, add(self->queue, n));
	EXPECT_EQ(-EINVAL, add_with_size(self->queue, 1, 768));
	expect_served(_metadata, self);
}

TEST_F(sizes, one_size_is_taken_once)
{
	ASSERT_EQ(0, add(self->queue, 2));
	EXPECT_EQ(-EINVAL, add_with_size(self->queue, 3, 4096));
	EXPECT_EQ(0, add(self->queue, 3));
	EXPECT_EQ(-EINVAL, add(self->queue, 3));
}

TEST_F(sizes, the_largest_may_come_without_a_size)
{
	ASSERT_EQ(0, add_with_size(self->queue, 3, 0));
	EXPECT_EQ(0, add(self->queue, 0));
	EXPECT_EQ(0, register_entry(self->queue));
}

TEST_F(sizes, only_the_first_comes_without_a_size)
{
	ASSERT_EQ(0, add(self->queue, 0));
	EXPECT_EQ(-EINVAL, add_with_size(self->queue, 3, 0));
	EXPECT_EQ(0, add(self->queue, 3));
	EXPECT_EQ(0, register_entry(self->queue));
}

TEST_F(sizes, none_is_larger_than_the_largest_payload)
{
	ASSERT_EQ(0, add(self->queue, 0));
	ASSERT_EQ(0, add(self->queue, 2));
	EXPECT_EQ(-EINVAL, add_with_size(self->queue, 3, PAYLOAD + 1));
	EXPECT_EQ(0, add(self->queue, 3));
	expect_served(_metadata, self);
}

TEST_F(sizes, an_entry_without_one_for_the_largest_payload_is_refused)
{
	ASSERT_EQ(0, add(self->queue, 0));
	ASSERT_EQ(0, add_with_size(self->queue, 3, PAYLOAD - 1));
	EXPECT_EQ(-EINVAL, register_entry(self->queue));
}

TEST_F(sizes, none_is_taken_after_an_entry)
{
	ASSERT_EQ(0, add(self->queue, 3));
	ASSERT_EQ(0, register_entry(self->queue));
	EXPECT_EQ(-EINVAL, add(self->queue, 0));
}

TEST_F(sizes, too_many_buffers_are_refused)
{
	struct server_command command;

	ASSERT_EQ(0, add(self->queue, 3));
	queue_fill_add_sized_bufpool(self->queue, 0, &command);
	command.cmd.bufpool.len = 65536;
	command.cmd.bufpool.reserved = 1;
	EXPECT_EQ(-EINVAL, queue_send(self->queue, &command));
	EXPECT_EQ(0, add(self->queue, 0));
}

TEST_F(sizes, those_in_place_do_not_go_with_registered_ones)
{
	ASSERT_EQ(0, add(self->queue, 3));
	self->queue->mode.bufpool ^= BUFPOOL_REGISTERED;
	EXPECT_NE(0, add(self->queue, 0));
	self->queue->mode.bufpool ^= BUFPOOL_REGISTERED;
	EXPECT_EQ(0, add(self->queue, 0));
	EXPECT_EQ(0, register_entry(self->queue));
}

static long look_up(void *arg)
{
	return access(arg, F_OK) ? -errno : 0;
}

/* Offsets count in the order in which the pools came, not in that of sizes. */
TEST_F(sizes, offsets_count_in_the_order_of_adding)
{
	static const unsigned int order[] = { 3, 1, 0, 2 };
	struct server_request request;
	struct client client;
	unsigned int qid, n;

	for (qid = 0; qid < self->mount.nr_queues; qid++) {
		for (n = 0; n < 4; n++)
			ASSERT_EQ(0, add(&self->queue[qid], order[n]));
		ASSERT_EQ(0, register_entry(&self->queue[qid]));
	}
	ASSERT_EQ(0, client_start(&client, ANY_CPU, look_up,
				  mount_path(&self->mount, "data")));
	ASSERT_EQ(0, mount_wait(&self->mount, &request, WAIT_MS));
	ASSERT_EQ(FUSE_LOOKUP, request.in.opcode);
	/* A buffer of 512 bytes, behind two of PAYLOAD and two of 1024: the first */
	EXPECT_EQ(2 * PAYLOAD + 2 * 1024, request.offset);
	mount_abort(&self->mount);
	EXPECT_NE(0, client_wait(&client, WAIT_MS));
}

FUSE_TEST_MAIN(NEEDS_BUFPOOL_SIZES)
