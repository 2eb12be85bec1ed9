// SPDX-License-Identifier: GPL-2.0
/*
 * ADD_BUFPOOL with memory that cannot be a buffer pool: refused at once, and
 * the queue takes another one afterwards.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "test_fs.h"
#include "variants.h"

FIXTURE(bufpool_memory)
{
	struct fuse_mount mount;
	struct test_fs fs;
	struct server_queue *queue;
	struct server_command command;
};

FIXTURE_VARIANT(bufpool_memory)
{
	struct queue_mode mode;
};

ADD_BUFPOOL_VARIANTS(bufpool_memory, .depth = 2);

FIXTURE_SETUP(bufpool_memory)
{
	const char *impossible = ring_tests_impossible();
	struct server_command add_queue;
	unsigned int qid;

	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(0, test_fs_open(&self->fs, 4096));
	ASSERT_EQ(0, test_fs_mount(&self->fs, &self->mount, NULL));
	impossible = mode_impossible(&self->mount, &variant->mode);
	if (impossible)
		SKIP(return, "%s", impossible);
	for (qid = 0; qid < self->mount.nr_queues; qid++)
		ASSERT_EQ(0, queue_open(&self->mount, qid, &variant->mode));
	self->queue = &self->mount.queues[0];
	queue_fill_add_queue(self->queue, &add_queue);
	ASSERT_EQ(0, queue_send(self->queue, &add_queue));
	queue_fill_add_bufpool(self->queue, &self->command);
}

FIXTURE_TEARDOWN(bufpool_memory)
{
	mount_close(&self->mount);
	test_fs_close(&self->fs);
}

/* It fails like this; a good pool can be added then, and requests use it. */
static void check_refused(struct __test_metadata *_metadata,
			  FIXTURE_DATA(bufpool_memory) * self, int error)
{
	struct server_command good;
	unsigned int qid;

	EXPECT_EQ(-error, queue_send(self->queue, &self->command));
	queue_fill_add_bufpool(self->queue, &good);
	ASSERT_EQ(0, queue_send(self->queue, &good));
	for (qid = 0; qid < self->mount.nr_queues; qid++)
		ASSERT_EQ(0, queue_register_all(&self->mount.queues[qid]));
	EXPECT_EQ(0, mount_works(&self->mount));
}

TEST_F(bufpool_memory, at_address_0_is_refused)
{
	self->command.cmd.bufpool.uaddr = 0;
	check_refused(_metadata, self, EFAULT);
}

TEST_F(bufpool_memory, at_a_kernel_address_is_refused)
{
	self->command.cmd.bufpool.uaddr = 1ULL << 63;
	check_refused(_metadata, self, EFAULT);
}

TEST_F(bufpool_memory, that_runs_out_of_the_address_space_is_refused)
{
	self->command.cmd.bufpool.uaddr = -(__u64)getpagesize();
	check_refused(_metadata, self, EFAULT);
}

TEST_F(bufpool_memory, before_the_registered_buffer_is_refused)
{
	if (!(variant->mode.bufpool & BUFPOOL_REGISTERED))
		SKIP(return, "memory in place has no bounds but the address space's");
	self->command.cmd.bufpool.uaddr -= getpagesize();
	check_refused(_metadata, self, EFAULT);
}

TEST_F(bufpool_memory, after_the_registered_buffer_is_refused)
{
	if (!(variant->mode.bufpool & BUFPOOL_REGISTERED))
		SKIP(return, "memory in place has no bounds but the address space's");
	self->command.cmd.bufpool.uaddr += getpagesize();
	check_refused(_metadata, self, EFAULT);
}

TEST_F(bufpool_memory, in_no_registered_buffer_is_refused)
{
	if (!(variant->mode.bufpool & BUFPOOL_REGISTERED))
		SKIP(return, "memory in place needs no registered buffer");
	self->command.buf_index = self->queue->pool_index + 1;
	check_refused(_metadata, self, EFAULT);
}

FUSE_TEST_MAIN(NEEDS_BUFPOOLS)
