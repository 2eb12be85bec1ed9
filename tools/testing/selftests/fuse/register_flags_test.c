// SPDX-License-Identifier: GPL-2.0
/*
 * The flags of REGISTER: which combinations make a queue, what later entries
 * of a queue may say, and what a refused one does to the connection.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kselftest_harness.h"
#include "test_fs.h"

#define DEPTH 4
#define MIB (1024 * 1024)

#define BUFRING FUSE_URING_REGISTER_BUFRING
#define HEADERS FUSE_URING_REGISTER_PINNED_HEADERS
#define BUFFERS FUSE_URING_REGISTER_PINNED_BUFFERS
#define ZC FUSE_URING_REGISTER_ZERO_COPY
#define OPT_IN FUSE_URING_REGISTER_ZERO_COPY_OPT_IN

FIXTURE(flags)
{
	struct fuse_mount mount;
	struct test_fs fs;
};

static int open_mount(FIXTURE_DATA(flags) * self)
{
	int err;

	memset(&self->mount, 0, sizeof(self->mount));
	err = mount_open(&self->mount, NULL);
	self->mount.answer = test_fs_answer;
	self->mount.fs = &self->fs;
	return err;
}

/* What the queues of the one before had pinned goes a moment later. */
static int reopen_mount(FIXTURE_DATA(flags) * self)
{
	int err;

	mount_close(&self->mount);
	err = wait_until_pinned_is(0);
	return err ?: open_mount(self);
}

FIXTURE_SETUP(flags)
{
	const char *impossible = ring_tests_impossible();

	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(0, test_fs_open(&self->fs, 4096));
	ASSERT_EQ(0, open_mount(self));
	impossible = flags_impossible(&self->mount, FUSE_URING_REGISTER_BUFRING);
	if (impossible)
		SKIP(return, "%s", impossible);
}

FIXTURE_TEARDOWN(flags)
{
	mount_close(&self->mount);
	test_fs_close(&self->fs);
}

static struct queue_mode mode_of(__u64 flags)
{
	struct queue_mode mode = {
		.flags = flags,
		.depth = DEPTH,
		.nr_pools = 2,
		.pool = { { 4096, 4 }, { MIB, 2 } },
	};

	return mode;
}

/* A fixed-buffer table is always there, so that it is never what is missing. */
static int open_queue(struct fuse_mount *mount, unsigned int qid, __u64 flags)
{
	struct queue_mode mode = mode_of(flags);

	return queue_open_with(&mount->queues[qid], mount, qid, &mode,
			       RING_FLAGS, DEPTH);
}

static int serve_with(struct fuse_mount *mount, __u64 flags)
{
	struct queue_mode mode = mode_of(flags);

	return mount_serve_in_steps(mount, &mode);
}

/* All 32 combinations; what is not listed is -EINVAL. */
static const __u64 valid_flags[] = {
	0,
	BUFRING,
	BUFRING | HEADERS,
	BUFRING | BUFFERS,
	BUFRING | HEADERS | BUFFERS,
	BUFRING | HEADERS | BUFFERS | ZC,
	BUFRING | HEADERS | BUFFERS | ZC | OPT_IN,
};

static int expected_result(__u64 flags)
{
	unsigned int n;

	for (n = 0; n < ARRAY_SIZE(valid_flags); n++)
		if (valid_flags[n] == flags)
			return 0;
	return -EINVAL;
}

TEST_F(flags, exactly_seven_combinations_make_a_queue)
{
	const char *impossible = flags_impossible(&self->mount,
						  ZERO_COPY_FLAGS);
	unsigned int accepted = 0;
	__u64 flags;

	if (impossible)
		SKIP(return, "%s", impossible);
	for (flags = 0; flags < 32; flags++) {
		int result;

		ASSERT_EQ(0, reopen_mount(self));
		ASSERT_EQ(0, open_queue(&self->mount, 0, flags));
		result = queue_register(&self->mount.queues[0], 0);
		EXPECT_EQ(expected_result(flags), result) {
			TH_LOG("with flags %#llx", (unsigned long long)flags);
		}
		accepted += result == 0;
	}
	EXPECT_EQ(7, accepted);
}

TEST_F(flags, a_mount_works_with_every_valid_combination)
{
	const char *impossible = flags_impossible(&self->mount,
						  ZERO_COPY_FLAGS);
	unsigned int n;

	if (impossible)
		SKIP(return, "%s", impossible);
	for (n = 0; n < ARRAY_SIZE(valid_flags); n++) {
		ASSERT_EQ(0, reopen_mount(self));
		ASSERT_EQ(0, serve_with(&self->mount, valid_flags[n]));
		EXPECT_EQ(0, mount_works(&self->mount));
		EXPECT_EQ(0, self->mount.device_requests);
	}
}

TEST_F(flags, a_refused_combination_leaves_the_mount_to_the_device)
{
	ASSERT_EQ(0, open_queue(&self->mount, 0, HEADERS));
	EXPECT_EQ(-EINVAL, queue_register(&self->mount.queues[0], 0));
	EXPECT_EQ(-EOPNOTSUPP, queue_register(&self->mount.queues[0], 0));
	EXPECT_EQ(0, pinned_kib(getpid()));
	EXPECT_EQ(0, mount_works(&self->mount));
	EXPECT_LT(0, self->mount.device_requests);
}

/* In a command that is all right without them */
TEST_F(flags, those_of_a_buffer_ring_are_refused_for_an_entry)
{
	static const __u64 flags[] = {
		HEADERS, BUFFERS, ZC, OPT_IN, HEADERS | BUFFERS | ZC,
	};
	struct server_command reg;
	unsigned int n;

	for (n = 0; n < ARRAY_SIZE(flags); n++) {
		ASSERT_EQ(0, reopen_mount(self));
		ASSERT_EQ(0, open_queue(&self->mount, 0, 0));
		queue_fill_register(&self->mount.queues[0], 0, &reg);
		reg.cmd.flags = flags[n];
		EXPECT_EQ(-EINVAL, queue_send(&self->mount.queues[0], &reg)) {
			TH_LOG("with flags %#llx", (unsigned long long)flags[n]);
		}
	}
}

TEST_F(flags, unknown_bits_are_refused)
{
	unsigned int bit;

	for (bit = 5; bit < 64; bit++) {
		ASSERT_EQ(0, reopen_mount(self));
		ASSERT_EQ(0, open_queue(&self->mount, 0,
					BUFRING | 1ULL << bit));
		EXPECT_EQ(-EINVAL, queue_register(&self->mount.queues[0], 0)) {
			TH_LOG("with bit %u", bit);
		}
	}
}

TEST_F(flags, an_unknown_bit_alone_is_refused)
{
	ASSERT_EQ(0, open_queue(&self->mount, 0, 1ULL << 5));
	EXPECT_EQ(-EINVAL, queue_register(&self->mount.queues[0], 0));
}

/* The rest is about a second REGISTER on a ring that serves. */

static int send_bent(struct server_queue *queue, unsigned int slot,
		     void (*bend)(struct server_command *reg))
{
	struct server_command reg;

	queue_fill_register(queue, slot, &reg);
	bend(&reg);
	return queue_send(queue, &reg);
}

/* Registers slot 0 of every queue, so that the others are left to the test. */
static int serve_slot_0(struct fuse_mount *mount, __u64 flags)
{
	unsigned int qid;
	int err = 0;

	for (qid = 0; qid < mount->nr_queues && !err; qid++) {
		err = open_queue(mount, qid, flags);
		if (!err)
			err = queue_register(&mount->queues[qid], 0);
	}
	return err;
}

static void bend_nothing(struct server_command *reg)
{
	(void)reg;
}

static void forget_iovecs(struct server_command *reg)
{
	static const struct iovec nowhere[FUSE_URING_MAX_POOLS + 1];

	reg->iovec = nowhere;
}

static void point_at_no_iovecs(struct server_command *reg)
{
	reg->iovec = (const struct iovec *)16;
}

static void allow_fixed_flag(struct server_command *reg)
{
	reg->uring_cmd_flags = IORING_URING_CMD_FIXED;
}

static void change_buf_size(struct server_command *reg)
{
	reg->bufring.buf_size = 8192;
}

static void change_depth(struct server_command *reg)
{
	reg->bufring.max_queue_depth = DEPTH - 1;
}

static void change_last_pool(struct server_command *reg)
{
	reg->bufring.extra_buf_size[0] = 2 * MIB;
}

static void drop_last_pool(struct server_command *reg)
{
	reg->bufring.nr_extra_pools = 0;
	reg->bufring.extra_buf_size[0] = 0;
	reg->nr_iov = 2;
}

static void use_unused_pool(struct server_command *reg)
{
	reg->bufring.extra_buf_size[1] = 2 * MIB;
}

static void toggle_headers(struct server_command *reg)
{
	reg->bufring.flags ^= HEADERS;
}

static void toggle_buffers(struct server_command *reg)
{
	reg->bufring.flags ^= BUFFERS;
}

TEST_F(flags, later_entries_say_the_same_and_claim_other_slots)
{
	struct server_queue *queue = &self->mount.queues[0];

	ASSERT_EQ(0, serve_slot_0(&self->mount, BUFRING | HEADERS));
	EXPECT_EQ(0, send_bent(queue, 1, bend_nothing));
	EXPECT_EQ(0, send_bent(queue, 3, allow_fixed_flag));
	EXPECT_EQ(0, mount_works(&self->mount));
}

TEST_F(flags, later_entries_need_no_iovecs)
{
	struct server_queue *queue = &self->mount.queues[0];

	ASSERT_EQ(0, serve_slot_0(&self->mount, BUFRING));
	EXPECT_EQ(0, send_bent(queue, 1, forget_iovecs));
	EXPECT_EQ(0, send_bent(queue, 2, point_at_no_iovecs));
	EXPECT_EQ(0, mount_works(&self->mount));
}

TEST_F(flags, a_later_entry_with_another_init_is_refused_and_harms_nothing)
{
	struct server_queue *queue = &self->mount.queues[0];

	ASSERT_EQ(0, serve_slot_0(&self->mount, BUFRING));
	EXPECT_EQ(-EINVAL, send_bent(queue, 1, change_buf_size));
	EXPECT_EQ(-EINVAL, send_bent(queue, 1, change_depth));
	EXPECT_EQ(-EINVAL, send_bent(queue, 1, change_last_pool));
	EXPECT_EQ(-EINVAL, send_bent(queue, 1, drop_last_pool));
	EXPECT_EQ(-EINVAL, send_bent(queue, 1, use_unused_pool));
	EXPECT_EQ(0, mount_works(&self->mount));
	EXPECT_EQ(0, send_bent(queue, 1, bend_nothing));
	EXPECT_EQ(0, mount_works(&self->mount));
	EXPECT_EQ(0, self->mount.device_requests);
}

TEST_F(flags, a_later_entry_with_other_flags_is_refused_and_harms_nothing)
{
	const char *impossible = flags_impossible(&self->mount,
						  ZERO_COPY_FLAGS);
	struct server_queue *queue = &self->mount.queues[0];
	unsigned int n;

	if (impossible)
		SKIP(return, "%s", impossible);
	for (n = 1; n < ARRAY_SIZE(valid_flags); n++) {
		ASSERT_EQ(0, reopen_mount(self));
		ASSERT_EQ(0, serve_slot_0(&self->mount, valid_flags[n]));
		queue = &self->mount.queues[0];
		EXPECT_EQ(-EINVAL, send_bent(queue, 1, toggle_headers));
		EXPECT_EQ(-EINVAL, send_bent(queue, 1, toggle_buffers));
		EXPECT_EQ(0, send_bent(queue, 1, bend_nothing));
		EXPECT_EQ(0, mount_works(&self->mount));
		EXPECT_EQ(0, self->mount.device_requests);
	}
}

/* What the other kind of REGISTER would say for this slot */
static int send_as(struct server_queue *queue, unsigned int slot, __u64 flags)
{
	const struct queue_mode own = queue->mode;
	struct server_command reg;

	queue->mode.flags = flags;
	queue_fill_register(queue, slot, &reg);
	queue->mode = own;
	return queue_send(queue, &reg);
}

static void entry_is_refused(struct __test_metadata *_metadata,
			     FIXTURE_DATA(flags) * self, bool has_buffer)
{
	struct server_queue *queue = &self->mount.queues[0];
	struct server_command reg;

	ASSERT_EQ(0, serve_slot_0(&self->mount, BUFRING));
	queue_fill_register(queue, 1, &reg);
	memset(&reg.bufring, 0, sizeof(reg.bufring));
	reg.nr_iov = 2;
	reg.iov[1] = has_buffer ? queue->memory.pool[1] : (struct iovec) {};
	EXPECT_EQ(-EINVAL, queue_send(queue, &reg));
	EXPECT_EQ(0, mount_works(&self->mount));
	EXPECT_EQ(0, self->mount.device_requests);
}

TEST_F(flags, an_entry_with_a_buffer_is_refused_on_a_buffer_ring)
{
	entry_is_refused(_metadata, self, true);
}

/* As one on a buffer pool has none */
TEST_F(flags, an_entry_without_a_buffer_is_refused_on_a_buffer_ring)
{
	entry_is_refused(_metadata, self, false);
}

TEST_F(flags, a_buffer_ring_is_refused_on_a_queue_of_entries)
{
	struct server_queue *queue = &self->mount.queues[0];

	ASSERT_EQ(0, serve_slot_0(&self->mount, 0));
	EXPECT_EQ(-EINVAL, send_as(queue, 1, BUFRING));
	EXPECT_EQ(-EINVAL, send_as(queue, 1, PINNED_FLAGS));
	EXPECT_EQ(0, mount_works(&self->mount));
	EXPECT_EQ(0, self->mount.device_requests);
}

TEST_F(flags, a_buffer_ring_is_refused_on_a_queue_with_a_pool)
{
	const struct queue_mode mode = { .bufpool = BUFPOOL, .depth = DEPTH };
	struct server_queue *queue = &self->mount.queues[0];
	unsigned int qid;

	if (!kernel_has_bufpools(&self->mount))
		SKIP(return, NO_BUFPOOLS);
	for (qid = 0; qid < self->mount.nr_queues; qid++) {
		ASSERT_EQ(0, queue_open(&self->mount, qid, &mode));
		ASSERT_EQ(0, queue_register(&self->mount.queues[qid], 0));
	}
	EXPECT_EQ(-EINVAL, send_as(queue, 1, BUFRING));
	EXPECT_EQ(0, mount_works(&self->mount));
	EXPECT_EQ(0, self->mount.device_requests);
}

static long read_link_of(void *arg)
{
	char target[LINK_LENGTH + 1];

	return readlink(arg, target, sizeof(target));
}

TEST_F(flags, queues_of_one_mount_differ_as_they_like)
{
	char *path = mount_path(&self->mount, "link");
	unsigned int qid;

	if (self->mount.nr_queues < 2)
		SKIP(return, "one possible CPU makes only one queue");
	for (qid = 0; qid < self->mount.nr_queues; qid++) {
		__u64 flags = valid_flags[qid % ARRAY_SIZE(valid_flags)];
		const struct queue_mode mode = mode_of(flags);

		if (mode_impossible(&self->mount, &mode))
			flags &= BUFRING;
		ASSERT_EQ(0, open_queue(&self->mount, qid, flags));
		ASSERT_EQ(0, queue_register_all(&self->mount.queues[qid]));
	}
	for (qid = 0; qid < self->mount.nr_queues; qid++)
		if (cpu_is_usable(qid))
			EXPECT_EQ(LINK_LENGTH,
				  client_call_served(&self->mount, qid,
						     read_link_of, path));
	EXPECT_EQ(0, self->mount.device_requests);
}

/* Two threads, each with an io_uring of its own, make the same queue. */
struct racer {
	struct server_queue queue;
	struct fuse_mount *mount;
	unsigned int slot;
	__u64 flags;
	pthread_barrier_t *barrier;
	pthread_t thread;
	int opened;
	int result;
};

static void *race(void *arg)
{
	struct racer *racer = arg;
	struct queue_mode mode = mode_of(racer->flags);

	racer->opened = queue_open_with(&racer->queue, racer->mount, 0, &mode,
					RING_FLAGS, DEPTH);
	pthread_barrier_wait(racer->barrier);
	if (!racer->opened)
		racer->result = queue_register(&racer->queue, racer->slot);
	/* Entries go when the thread that registered them does. */
	pthread_barrier_wait(racer->barrier);
	pthread_barrier_wait(racer->barrier);
	return NULL;
}

/* Pinned KiB while both entries, or the winner's, are there */
static long run_race(struct fuse_mount *mount, struct racer racers[2],
		     const __u64 flags[2])
{
	pthread_barrier_t barrier;
	unsigned int n;
	long pinned;

	pthread_barrier_init(&barrier, NULL, 3);
	for (n = 0; n < 2; n++) {
		racers[n] = (struct racer) {
			.mount = mount, .slot = n, .flags = flags[n],
			.barrier = &barrier,
		};
		if (pthread_create(&racers[n].thread, NULL, race, &racers[n]))
			abort();
	}
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	pinned = pinned_kib(getpid());
	pthread_barrier_wait(&barrier);
	for (n = 0; n < 2; n++) {
		join_thread(racers[n].thread, "a racing thread");
		queue_close(&racers[n].queue);
	}
	pthread_barrier_destroy(&barrier);
	return pinned;
}

/* Headers of DEPTH slots, 4 buffers of 4 KiB, 2 of 1 MiB, in whole pages */
#define PINNED_HEADERS_KIB ((long)page_align(DEPTH * 288) / 1024)
#define PINNED_BUFFERS_KIB ((long)page_align(4 * 4096) / 1024 + 2048)

TEST_F(flags, two_threads_create_one_queue_together)
{
	const __u64 flags[2] = { PINNED_FLAGS, PINNED_FLAGS };
	struct racer racers[2];
	unsigned int round;

	for (round = 0; round < 20; round++) {
		ASSERT_EQ(0, reopen_mount(self));
		ASSERT_EQ(PINNED_HEADERS_KIB + PINNED_BUFFERS_KIB,
			  run_race(&self->mount, racers, flags));
		ASSERT_EQ(0, racers[0].result);
		ASSERT_EQ(0, racers[1].result);
	}
}

TEST_F(flags, of_two_threads_that_disagree_one_creates_the_queue)
{
	const __u64 flags[2] = { BUFRING | HEADERS, BUFRING | BUFFERS };
	struct racer racers[2];
	unsigned int round;

	for (round = 0; round < 20; round++) {
		long pinned;

		ASSERT_EQ(0, reopen_mount(self));
		pinned = run_race(&self->mount, racers, flags);
		if (racers[0].result) {
			ASSERT_EQ(-EINVAL, racers[0].result);
			ASSERT_EQ(0, racers[1].result);
			ASSERT_EQ(PINNED_BUFFERS_KIB, pinned);
		} else {
			ASSERT_EQ(-EINVAL, racers[1].result);
			ASSERT_EQ(PINNED_HEADERS_KIB, pinned);
		}
	}
}

FUSE_TEST_MAIN(NEEDS_BUFRINGS)
