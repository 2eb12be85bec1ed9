// SPDX-License-Identifier: GPL-2.0
/*
 * The numbers in a REGISTER: each bound from both sides, alone. A variant
 * bends one valid command; it is sent in place and pinned.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kselftest_harness.h"
#include "test_fs.h"

/*
 * With one page per request the largest payload is FUSE_MIN_READ_BUFFER, so
 * that the largest numbers of buffers still fit into memory.
 */
#define MAX_WRITE 4096
#define PAYLOAD smallest_payload()
#define HEADER 288	/* sizeof(struct fuse_uring_req_header) */
#define DEPTH 4

FIXTURE(bounds)
{
	struct fuse_mount mount;
	struct test_fs fs;
};

FIXTURE_VARIANT(bounds)
{
	const struct queue_mode *mode;
	void (*bend)(struct server_command *reg);
	int expected;
};

static const struct queue_mode one_pool = {
	.depth = DEPTH, .nr_pools = 1, .pool = { { LARGEST_PAYLOAD, 4 } },
};

static const struct queue_mode two_pools = {
	.depth = DEPTH, .nr_pools = 2, .pool = { { 4096, 4 }, { LARGEST_PAYLOAD, 4 } },
};

/* A command whose one changed line makes it fail */
#define REFUSED(name, valid_mode, error, change)			\
static void bend_##name(struct server_command *reg)			\
{									\
	change;								\
}									\
									\
FIXTURE_VARIANT_ADD(bounds, name)					\
{									\
	.mode = &(valid_mode),						\
	.bend = bend_##name,						\
	.expected = -(error),						\
}

/* One that is just right */
#define ACCEPTED(name, valid_mode, change)				\
	REFUSED(name, valid_mode, 0, change)

/* Depth and slots */
REFUSED(depth_0, one_pool, EINVAL, reg->bufring.max_queue_depth = 0);
ACCEPTED(depth_1, one_pool, reg->bufring.max_queue_depth = 1);
REFUSED(slot_at_the_depth, one_pool, EINVAL, reg->slot = DEPTH);
REFUSED(slot_far_over_the_depth, one_pool, EINVAL, reg->slot = 65535);
ACCEPTED(slot_below_the_depth, one_pool, reg->slot = DEPTH - 1);

/* Headers */
ACCEPTED(headers_exact, one_pool, reg->iov[0].iov_len = DEPTH * HEADER);
REFUSED(headers_short_by_a_byte, one_pool, EINVAL,
	reg->iov[0].iov_len = DEPTH * HEADER - 1);
REFUSED(headers_empty, one_pool, EINVAL, reg->iov[0].iov_len = 0);
REFUSED(headers_short_for_the_largest_depth, one_pool, EINVAL,
	reg->bufring.max_queue_depth = 65535);

/* Buffer sizes */
REFUSED(buf_size_0, one_pool, EINVAL, reg->bufring.buf_size = 0);
REFUSED(buf_size_too_small, one_pool, EINVAL,
	reg->bufring.buf_size = PAYLOAD - 1);
ACCEPTED(buf_size_exact, one_pool, reg->bufring.buf_size = PAYLOAD);
ACCEPTED(buf_size_odd, one_pool, reg->bufring.buf_size = PAYLOAD + 1);
ACCEPTED(buf_size_of_the_whole_pool, one_pool,
	 reg->bufring.buf_size = 4 * PAYLOAD);
REFUSED(buf_size_over_the_pool, one_pool, EINVAL,
	reg->bufring.buf_size = 4 * PAYLOAD + 1);
REFUSED(buf_size_huge, one_pool, EINVAL, reg->bufring.buf_size = UINT32_MAX);

/* Pools */
ACCEPTED(pool_of_one_buffer, one_pool, reg->iov[1].iov_len = PAYLOAD);
ACCEPTED(pool_with_a_rest, one_pool, reg->iov[1].iov_len = 2 * PAYLOAD - 1);
REFUSED(pool_short_of_a_buffer, one_pool, EINVAL,
	reg->iov[1].iov_len = PAYLOAD - 1);
REFUSED(pool_empty, one_pool, EINVAL, reg->iov[1].iov_len = 0);
REFUSED(first_pool_short_of_a_buffer, two_pools, EINVAL,
	reg->iov[1].iov_len = 4095);
REFUSED(second_pool_short_of_a_buffer, two_pools, EINVAL,
	reg->iov[2].iov_len = PAYLOAD - 1);
ACCEPTED(pools_rising, two_pools, (void)reg);
REFUSED(pools_equal, two_pools, EINVAL, reg->bufring.buf_size = PAYLOAD);
REFUSED(pools_falling, two_pools, EINVAL,
	reg->bufring.buf_size = PAYLOAD + 4096);
REFUSED(first_pool_of_size_0, two_pools, EINVAL, reg->bufring.buf_size = 0);
REFUSED(second_pool_of_size_0, two_pools, EINVAL,
	reg->bufring.extra_buf_size[0] = 0);
REFUSED(last_pool_too_small, two_pools, EINVAL,
	reg->bufring.extra_buf_size[0] = PAYLOAD - 1);
REFUSED(unused_pool_has_a_size, two_pools, EINVAL,
	reg->bufring.extra_buf_size[1] = 2 * PAYLOAD);
REFUSED(last_unused_pool_has_a_size, one_pool, EINVAL,
	reg->bufring.extra_buf_size[2] = 1);

/* Four that would do, with a fifth one's memory after them */
static void claim_rising_pools(struct server_command *reg)
{
	unsigned int n;

	reg->bufring.buf_size = 1;
	for (n = 1; n < FUSE_URING_MAX_POOLS; n++) {
		reg->bufring.extra_buf_size[n - 1] = n * PAYLOAD;
		reg->iov[1 + n] = reg->iov[1];
	}
	reg->iov[1 + n] = reg->iov[1];
}

REFUSED(too_many_pools, one_pool, EINVAL, {
	reg->bufring.nr_extra_pools = 4;
	reg->nr_iov = 6;
	claim_rising_pools(reg);
});
REFUSED(absurdly_many_pools, one_pool, EINVAL, {
	reg->bufring.nr_extra_pools = 65535;
	reg->nr_iov = 65537;
	claim_rising_pools(reg);
});

/* The number of iovecs follows from the number of pools. */
REFUSED(no_iovecs, one_pool, EINVAL, reg->nr_iov = 0);
REFUSED(one_iovec_too_few, one_pool, EINVAL, reg->nr_iov = 1);
REFUSED(one_iovec_too_many, one_pool, EINVAL, reg->nr_iov = 3);
REFUSED(two_pools_one_iovec_too_few, two_pools, EINVAL, reg->nr_iov = 2);
REFUSED(two_pools_one_iovec_too_many, two_pools, EINVAL, reg->nr_iov = 4);
REFUSED(iovecs_from_nowhere, one_pool, EFAULT,
	reg->iovec = (const struct iovec *)16);

/* Addresses: a 32-bit program cannot name one outside a 64-bit kernel's. */
#if ULONG_MAX > UINT32_MAX
REFUSED(headers_outside_user_space, one_pool, EFAULT,
	reg->iov[0].iov_base = (void *)(ULONG_MAX - 0xffff));
REFUSED(pool_outside_user_space, one_pool, EFAULT,
	reg->iov[1].iov_base = (void *)(ULONG_MAX - 0xfffff));
REFUSED(pool_wraps_around, one_pool, EFAULT,
	reg->iov[1].iov_base = (void *)-(size_t)getpagesize());
#endif

/* The number of buffers, for which a large part of memory is reserved */
#define NUMBERS(name, error, ...)					\
static const struct queue_mode name##_mode = { __VA_ARGS__ };		\
									\
FIXTURE_VARIANT_ADD(bounds, name)					\
{									\
	.mode = &name##_mode,						\
	.expected = -(error),						\
}

NUMBERS(most_buffers, 0,
	.depth = DEPTH, .nr_pools = 1, .pool = { { LARGEST_PAYLOAD, 65535 } });
NUMBERS(one_buffer_too_many, EINVAL,
	.depth = DEPTH, .nr_pools = 1, .pool = { { LARGEST_PAYLOAD, 65536 } });
NUMBERS(most_buffers_in_two_pools, 0,
	.depth = DEPTH, .nr_pools = 2, .pool = { { 1, 65534 }, { LARGEST_PAYLOAD, 1 } });
NUMBERS(one_buffer_too_many_in_two_pools, EINVAL,
	.depth = DEPTH, .nr_pools = 2, .pool = { { 1, 65535 }, { LARGEST_PAYLOAD, 1 } });
NUMBERS(four_pools, 0,
	.depth = DEPTH, .nr_pools = 4,
	.pool = { { 1, 1 }, { 2, 1 }, { 4097, 3 }, { LARGEST_PAYLOAD, 1 } });

static const struct queue_mode deepest = {
	.depth = 65535, .nr_pools = 1, .pool = { { LARGEST_PAYLOAD, 4 } },
};

ACCEPTED(deepest_queue, deepest, reg->slot = 65534);

static int open_mount(FIXTURE_DATA(bounds) * self)
{
	const struct mount_options options = { .max_write = MAX_WRITE };

	return test_fs_mount(&self->fs, &self->mount, &options);
}

FIXTURE_SETUP(bounds)
{
	const char *impossible = ring_tests_impossible();

	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(0, test_fs_open(&self->fs, 4096));
	ASSERT_EQ(0, open_mount(self));
	impossible = flags_impossible(&self->mount, FUSE_URING_REGISTER_BUFRING);
	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(PAYLOAD, self->mount.max_payload);
}

FIXTURE_TEARDOWN(bounds)
{
	mount_close(&self->mount);
	test_fs_close(&self->fs);
}

/* Sends the variant's command to every queue. */
static int register_queues(FIXTURE_DATA(bounds) * self,
			   const FIXTURE_VARIANT(bounds) * variant, __u64 flags)
{
	struct queue_mode mode = *variant->mode;
	struct server_command reg;
	unsigned int qid;
	int result = 0;

	mode.flags = flags;
	for (qid = 0; qid < self->mount.nr_queues && !result; qid++) {
		result = queue_open(&self->mount, qid, &mode);
		if (result)
			return result;
		queue_fill_register(&self->mount.queues[qid], 0, &reg);
		if (variant->bend)
			variant->bend(&reg);
		result = queue_send(&self->mount.queues[qid], &reg);
	}
	return result;
}

static void check_result(struct __test_metadata *_metadata,
			 FIXTURE_DATA(bounds) * self, int expected, int result)
{
	ASSERT_EQ(expected, result);
	if (!result) {
		EXPECT_EQ(0, mount_works(&self->mount));
		EXPECT_EQ(0, self->mount.device_requests);
		return;
	}
	/* Nothing is left behind, and the device takes over. */
	EXPECT_EQ(0, pinned_kib(getpid()));
	EXPECT_EQ(0, mount_works(&self->mount));
	EXPECT_LT(0, self->mount.device_requests);
}

TEST_F(bounds, a_command_gets_its_answer_in_place)
{
	check_result(_metadata, self, variant->expected,
		     register_queues(self, variant, FUSE_URING_REGISTER_BUFRING));
}

/* Memory for pinning: what a quarter of it can hold */
static bool enough_memory(const struct fuse_mount *mount,
			  const struct queue_mode *mode)
{
	size_t pages = mode_pinned_bytes(mount, mode) / getpagesize();

	return pages * mount->nr_queues < (size_t)sysconf(_SC_AVPHYS_PAGES) / 4;
}

TEST_F(bounds, a_command_gets_its_answer_pinned)
{
	struct queue_mode mode = *variant->mode;
	const char *impossible = NULL;

	mode.flags = PINNED_FLAGS;
	if (!variant->expected && !enough_memory(&self->mount, &mode))
		SKIP(return, "not enough memory to pin this much");
	if (!variant->expected)
		impossible = mode_impossible(&self->mount, &mode);
	if (impossible)
		SKIP(return, "%s", impossible);
	check_result(_metadata, self, variant->expected,
		     register_queues(self, variant, PINNED_FLAGS));
}

/* Numbers of a command for a queue that serves */

FIXTURE(live)
{
	struct fuse_mount mount;
	struct test_fs fs;
};

FIXTURE_VARIANT(live)
{
	__u64 flags;
};

FIXTURE_VARIANT_ADD(live, bufring) { .flags = FUSE_URING_REGISTER_BUFRING };
FIXTURE_VARIANT_ADD(live, pinned) { .flags = PINNED_FLAGS };
FIXTURE_VARIANT_ADD(live, zero_copy) { .flags = ZERO_COPY_FLAGS };

FIXTURE_SETUP(live)
{
	const struct mount_options options = { .max_write = MAX_WRITE };
	const char *impossible = ring_tests_impossible();
	struct queue_mode mode = one_pool;

	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(0, test_fs_open(&self->fs, 4096));
	ASSERT_EQ(0, test_fs_mount(&self->fs, &self->mount, &options));
	mode.flags = variant->flags;
	impossible = mode_impossible(&self->mount, &mode);
	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(0, mount_serve_in_steps(&self->mount, &mode));
}

FIXTURE_TEARDOWN(live)
{
	mount_close(&self->mount);
	test_fs_close(&self->fs);
}

TEST_F(live, a_slot_is_registered_once)
{
	struct server_queue *queue = &self->mount.queues[0];
	unsigned int slot;

	for (slot = 0; slot < DEPTH; slot++)
		EXPECT_EQ(-EBUSY, queue_register(queue, slot));
	EXPECT_EQ(0, mount_works(&self->mount));
	EXPECT_EQ(0, self->mount.device_requests);
}

static long look(void *arg)
{
	return access(arg, F_OK) ? -errno : 0;
}

TEST_F(live, a_slot_stays_taken_while_the_server_has_its_request)
{
	struct server_request request;
	struct client client;

	ASSERT_EQ(0, client_start(&client, ANY_CPU, look, self->mount.dir));
	ASSERT_EQ(0, mount_wait(&self->mount, &request, WAIT_MS));
	EXPECT_EQ(-EBUSY, queue_register(request.queue, request.slot));
	ASSERT_EQ(0, request_answer(&request));
	EXPECT_EQ(-EBUSY, queue_register(request.queue, request.slot));
	EXPECT_EQ(0, client_wait_served(&self->mount, &client));
}

TEST_F(live, a_slot_over_the_depth_is_refused_and_harms_nothing)
{
	struct server_queue *queue = &self->mount.queues[0];

	EXPECT_EQ(-EINVAL, queue_register(queue, DEPTH));
	EXPECT_EQ(-EINVAL, queue_register(queue, 65535));
	EXPECT_EQ(0, mount_works(&self->mount));
	EXPECT_EQ(0, self->mount.device_requests);
}

TEST_F(live, a_queue_number_over_the_cpus_is_refused_and_harms_nothing)
{
	struct server_queue *queue = &self->mount.queues[0];
	struct server_command reg;

	queue_fill_register(queue, 0, &reg);
	reg.bufring.qid = self->mount.nr_queues;
	EXPECT_EQ(-EINVAL, queue_send(queue, &reg));
	reg.bufring.qid = 65535;
	EXPECT_EQ(-EINVAL, queue_send(queue, &reg));
	EXPECT_EQ(0, mount_works(&self->mount));
	EXPECT_EQ(0, self->mount.device_requests);
}

FUSE_TEST_MAIN(NEEDS_BUFRINGS)
