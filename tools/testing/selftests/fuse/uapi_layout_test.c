// SPDX-License-Identifier: GPL-2.0
/*
 * The uapi has the numbers of the contract: asserted when this is compiled,
 * as uapi_layout_32.c does for 32-bit servers, and shown when it runs.
 */
#include <stddef.h>
#include <linux/types.h>
#include <stdio.h>

#include "kselftest_harness.h"
#include "uapi_compat.h"

static void check_number(struct __test_metadata *_metadata, const char *name,
			 __u64 actual, __u64 expected)
{
	if (actual != expected)
		TH_LOG("%s is wrong", name);
	EXPECT_EQ(expected, actual);
}

TEST(every_number_is_the_one_of_the_contract)
{
	struct fuse_uring_bufring_ent ent;
	struct fuse_uring_bufring_req cmd;

	/* When this is compiled */
#define LAYOUT(actual, number) \
	((void)sizeof(char[(actual) == (number) ? 1 : -1]))
#include "uapi_layout.h"
#undef LAYOUT

	/* And when it runs */
#define LAYOUT(actual, number) \
	check_number(_metadata, #actual, actual, number)
#include "uapi_layout.h"
#undef LAYOUT
}

TEST(register_flags_are_distinct_bits)
{
	EXPECT_EQ(0x1f, FUSE_URING_REGISTER_BUFRING | FUSE_URING_REGISTER_PINNED_HEADERS |
			FUSE_URING_REGISTER_PINNED_BUFFERS | FUSE_URING_REGISTER_ZERO_COPY |
			FUSE_URING_REGISTER_ZERO_COPY_OPT_IN);
}

/* A queue's header slots lie one after the other. */
TEST(header_slots_are_an_array_without_gaps)
{
	struct fuse_uring_req_header slots[2];

	EXPECT_EQ(288, (char *)&slots[1] - (char *)&slots[0]);
	EXPECT_EQ(0, sizeof(slots[0]) % 8);
}

/* Fields keep their place when a command is written byte by byte. */
TEST(a_command_has_its_bytes_where_a_foreign_server_puts_them)
{
	union {
		struct fuse_uring_bufring_req command;
		unsigned char bytes[80];
	} sqe = {};
	const unsigned char one[2] = { 1, 0 };
	__u16 host_one;
	unsigned int n;

	for (n = 0; n < 40; n++)
		sqe.bytes[n] = n + 1;
	memcpy(&host_one, one, sizeof(host_one));
	if (host_one != 1)
		SKIP(return, "this test spells out little-endian numbers");
	EXPECT_EQ(0x0807060504030201, sqe.command.flags);
	EXPECT_EQ(0x100f0e0d0c0b0a09, sqe.command.commit_id);
	EXPECT_EQ(0x1211, sqe.command.qid);
	EXPECT_EQ(0x18171615, sqe.command.buf_size);
	EXPECT_EQ(0x1a19, sqe.command.max_queue_depth);
	EXPECT_EQ(0x1c1b, sqe.command.nr_extra_pools);
	EXPECT_EQ(0x201f1e1d, sqe.command.extra_buf_size[0]);
	EXPECT_EQ(0x28272625, sqe.command.extra_buf_size[2]);
}

TEST_HARNESS_MAIN
