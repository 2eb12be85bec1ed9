// SPDX-License-Identifier: GPL-2.0
/*
 * Payload pools of several sizes, of a buffer ring or added one by one: which
 * request gets a buffer of which.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "buffers_fixture.h"

#define KIB 1024

static const struct queue_mode small_and_large = {
	.depth = 4, .nr_pools = 2, .pool = { { 128, 1 }, { MIB, 1 } },
};

/* Ids: 0 and 1, 2 and 3, 4 and 5 */
static const struct queue_mode three_pools = {
	.depth = 8, .nr_pools = 3,
	.pool = { { 128, 2 }, { 4 * KIB, 2 }, { MIB, 2 } },
};

ADD_BUFRING_VARIANTS(buffers);
ADD_VARIANT(buffers, bufpool_sizes);
ADD_VARIANT(buffers, bufpool_sizes_registered);

TEST_F(buffers, a_request_gets_a_buffer_of_the_smallest_pool_that_fits)
{
	static const struct {
		size_t size;
		unsigned int first_id;
	} cases[] = {
		{ 1, 0 }, { 127, 0 }, { 128, 0 },
		{ 129, 2 }, { 4095, 2 }, { 4096, 2 },
		{ 4097, 4 }, { 64 * KIB, 4 },
	};
	struct server_request request;
	struct call call;
	unsigned int n;

	ASSERT_EQ(0, serve(&self->mount, &variant->mode, &three_pools));
	for (n = 0; n < ARRAY_SIZE(cases); n++) {
		ASSERT_EQ(0, call_start(&call, &self->mount, self->cpu,
					cases[n].size));
		EXPECT_EQ(cases[n].first_id,
			  call_arrives(&self->mount, &request,
				       cases[n].size) & ~1);
		ASSERT_EQ(0, call_answer(&request));
		EXPECT_EQ(0, call_finish(&call));
	}
}

static long set_xattr(void *arg)
{
	static char value[64 * KIB];
	struct call *call = arg;

	return setxattr(call->path, "u", value, call->size, 0) ? -errno : 0;
}

TEST_F(buffers, what_a_request_carries_counts_as_well_as_its_reply)
{
	/* The payload is the name, its end, and the value. */
	static const size_t sizes[] = { 126, 127, 4094, 4095 };
	static const unsigned int first_ids[] = { 0, 2, 2, 4 };
	struct call call = { .path = self->mount.dir };
	struct server_request request;
	unsigned int n;

	ASSERT_EQ(0, serve(&self->mount, &variant->mode, &three_pools));
	for (n = 0; n < ARRAY_SIZE(sizes); n++) {
		call.size = sizes[n];
		ASSERT_EQ(0, client_start(&call.client, self->cpu, set_xattr,
					  &call));
		ASSERT_EQ(0, mount_wait(&self->mount, &request, WAIT_MS));
		EXPECT_EQ(FUSE_SETXATTR, request.in.opcode);
		EXPECT_EQ(sizes[n] + 2, request.payload_sz);
		EXPECT_EQ(first_ids[n], request.buf_id & ~1U);
		ASSERT_EQ(0, request_reply(&request, 0, NULL, 0));
		EXPECT_EQ(0, client_wait(&call.client, WAIT_MS));
	}
}

TEST_F(buffers, an_exhausted_pool_overflows_into_the_next_larger)
{
	static const unsigned int first_ids[] = { 0, 0, 2, 2, 4, 4 };
	struct server_request request[6];
	struct call call[6];
	unsigned int n, ids = 0;

	ASSERT_EQ(0, serve(&self->mount, &variant->mode, &three_pools));
	for (n = 0; n < 6; n++) {
		unsigned int id;

		ASSERT_EQ(0, call_start(&call[n], &self->mount, self->cpu,
					100 + n));
		id = call_arrives(&self->mount, &request[n], 100 + n);
		EXPECT_EQ(first_ids[n], id & ~1U);
		ids |= 1 << id;
	}
	EXPECT_EQ(0x3f, ids);
	for (n = 0; n < 6; n++) {
		ASSERT_EQ(0, call_answer(&request[n]));
		EXPECT_EQ(0, call_finish(&call[n]));
	}
}

TEST_F(buffers, a_small_request_takes_a_larger_buffer_that_comes_free)
{
	struct server_request small, large, waiter;
	struct call a, b, c;

	ASSERT_EQ(0, serve(&self->mount, &variant->mode, &small_and_large));
	ASSERT_EQ(0, call_start(&a, &self->mount, self->cpu, 100));
	EXPECT_EQ(0, call_arrives(&self->mount, &small, 100));
	ASSERT_EQ(0, call_start(&b, &self->mount, self->cpu, 101));
	EXPECT_EQ(1, call_arrives(&self->mount, &large, 101));
	ASSERT_EQ(0, call_start_waiting(&c, &self->mount, self->cpu, 102, 3));
	ASSERT_EQ(0, call_answer(&large));
	EXPECT_EQ(1, call_arrives(&self->mount, &waiter, 102));
	ASSERT_EQ(0, call_answer(&small));
	ASSERT_EQ(0, call_answer(&waiter));
	EXPECT_EQ(0, call_finish(&a));
	EXPECT_EQ(0, call_finish(&b));
	EXPECT_EQ(0, call_finish(&c));
}

TEST_F(buffers, a_large_request_waits_for_a_buffer_that_holds_it)
{
	struct server_request small, large, waiter;
	struct call a, b, c, d;

	ASSERT_EQ(0, serve(&self->mount, &variant->mode, &small_and_large));
	ASSERT_EQ(0, call_start(&a, &self->mount, self->cpu, 100));
	EXPECT_EQ(0, call_arrives(&self->mount, &small, 100));
	ASSERT_EQ(0, call_start(&b, &self->mount, self->cpu, 4096));
	EXPECT_EQ(1, call_arrives(&self->mount, &large, 4096));
	ASSERT_EQ(0, call_start_waiting(&c, &self->mount, self->cpu, 4097, 3));
	ASSERT_EQ(0, call_start_waiting(&d, &self->mount, self->cpu, 101, 4));
	/* The small buffer is of no use for c, but d need not wait for c. */
	ASSERT_EQ(0, call_answer(&small));
	EXPECT_EQ(0, call_finish(&a));
	EXPECT_EQ(0, call_arrives(&self->mount, &small, 101));
	EXPECT_EQ(0, mount_expect_silence(&self->mount));
	/* Nor is it when both are free. */
	ASSERT_EQ(0, call_answer(&small));
	EXPECT_EQ(0, call_finish(&d));
	EXPECT_EQ(0, mount_expect_silence(&self->mount));
	ASSERT_EQ(0, call_answer(&large));
	EXPECT_EQ(0, call_finish(&b));
	EXPECT_EQ(1, call_arrives(&self->mount, &waiter, 4097));
	ASSERT_EQ(0, call_answer(&waiter));
	EXPECT_EQ(0, call_finish(&c));
}

/* Two that wait for different sizes, and one buffer that both can use */
TEST_F(buffers, a_large_buffer_goes_to_the_oldest_that_waits)
{
	struct server_request small, large;
	struct call a, b, c, d;

	ASSERT_EQ(0, serve(&self->mount, &variant->mode, &small_and_large));
	ASSERT_EQ(0, call_start(&a, &self->mount, self->cpu, 100));
	EXPECT_EQ(0, call_arrives(&self->mount, &small, 100));
	ASSERT_EQ(0, call_start(&b, &self->mount, self->cpu, 4096));
	EXPECT_EQ(1, call_arrives(&self->mount, &large, 4096));

	/* The older one would be content with a small buffer. */
	ASSERT_EQ(0, call_start_waiting(&c, &self->mount, self->cpu, 101, 3));
	ASSERT_EQ(0, call_start_waiting(&d, &self->mount, self->cpu, 4097, 4));
	ASSERT_EQ(0, call_answer(&large));
	EXPECT_EQ(0, call_finish(&b));
	EXPECT_EQ(1, call_arrives(&self->mount, &large, 101));
	EXPECT_EQ(0, mount_expect_silence(&self->mount));
	ASSERT_EQ(0, call_answer(&large));
	EXPECT_EQ(0, call_finish(&c));
	EXPECT_EQ(1, call_arrives(&self->mount, &large, 4097));

	/* Now it is the younger one. */
	ASSERT_EQ(0, call_start_waiting(&b, &self->mount, self->cpu, 4098, 3));
	ASSERT_EQ(0, call_start_waiting(&c, &self->mount, self->cpu, 102, 4));
	ASSERT_EQ(0, call_answer(&large));
	EXPECT_EQ(0, call_finish(&d));
	EXPECT_EQ(1, call_arrives(&self->mount, &large, 4098));
	EXPECT_EQ(0, mount_expect_silence(&self->mount));
	ASSERT_EQ(0, call_answer(&small));
	EXPECT_EQ(0, call_finish(&a));
	EXPECT_EQ(0, call_arrives(&self->mount, &small, 102));

	ASSERT_EQ(0, call_answer(&large));
	EXPECT_EQ(0, call_finish(&b));
	ASSERT_EQ(0, call_answer(&small));
	EXPECT_EQ(0, call_finish(&c));
}

FUSE_TEST_MAIN(NEEDS_BUFPOOL_SIZES, NEEDS_BUFRINGS)
