// SPDX-License-Identifier: GPL-2.0
/*
 * REGISTER commands that are refused: while the ring is being set up they leave
 * the mount to /dev/fuse, once it serves they change nothing but their result.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "test_fs.h"
#include "variants.h"

FIXTURE(late_register)
{
	struct fuse_mount mount;
	struct test_fs fs;
	struct server_queue *queue;	/* of the clients' CPU */
	int cpu;
};

FIXTURE_VARIANT(late_register)
{
	struct queue_mode mode;
};

ADD_VARIANT(late_register, entries, .depth = 2);
ADD_BUFPOOL_VARIANTS(late_register, .depth = 2);

FIXTURE_SETUP(late_register)
{
	const char *impossible = ring_tests_impossible();
	unsigned int qid;

	if (impossible)
		SKIP(return, "%s", impossible);
	self->cpu = first_usable_cpu();
	ASSERT_EQ(0, test_fs_open(&self->fs, 4096));
	ASSERT_EQ(0, test_fs_mount(&self->fs, &self->mount, NULL));
	impossible = mode_impossible(&self->mount, &variant->mode);
	if (impossible)
		SKIP(return, "%s", impossible);
	self->queue = &self->mount.queues[self->cpu];
	for (qid = 0; qid < self->mount.nr_queues; qid++)
		ASSERT_EQ(0, queue_open(&self->mount, qid, &variant->mode));
}

FIXTURE_TEARDOWN(late_register)
{
	mount_close(&self->mount);
	test_fs_close(&self->fs);
}

/* Entry 0 of every queue: the ring serves. */
static void go_live(struct __test_metadata *_metadata,
		    FIXTURE_DATA(late_register) * self)
{
	unsigned int qid;

	for (qid = 0; qid < self->mount.nr_queues; qid++)
		ASSERT_EQ(0, queue_register(&self->mount.queues[qid], 0));
}

static int register_with_short_header(struct server_queue *queue,
				      unsigned int slot)
{
	struct server_command command;

	queue_fill_register(queue, slot, &command);
	command.iov[0].iov_len--;
	return queue_send(queue, &command);
}

/* A byte too short, or a payload where there must be none */
static int register_with_bad_payload(struct server_queue *queue,
				     unsigned int slot)
{
	struct server_command command;

	queue_fill_register(queue, slot, &command);
	if (queue->mode.bufpool)
		command.iov[1] = queue->memory.pool[0];
	else
		command.iov[1].iov_len--;
	return queue_send(queue, &command);
}

static int register_with_bad_iovecs(struct server_queue *queue,
				    unsigned int slot)
{
	struct server_command command;

	queue_fill_register(queue, slot, &command);
	command.iovec = (const struct iovec *)8;
	return queue_send(queue, &command);
}

static long get_value(void *arg)
{
	char value[16];

	return getxattr(arg, "u", value, sizeof(value)) < 0 ? -errno : 0;
}

TEST_F(late_register, a_refused_one_leaves_a_live_ring_as_it_is)
{
	struct server_request held;
	struct client client;

	go_live(_metadata, self);
	ASSERT_EQ(0, client_start(&client, self->cpu, get_value,
				  self->mount.dir));
	ASSERT_EQ(0, mount_wait_for(&self->mount, FUSE_GETXATTR, &held));

	EXPECT_EQ(-EINVAL, register_with_short_header(self->queue, 1));
	EXPECT_EQ(-EINVAL, register_with_bad_payload(self->queue, 1));
	EXPECT_EQ(-EFAULT, register_with_bad_iovecs(self->queue, 1));

	/* The server goes on with what it has, */
	EXPECT_EQ(0, request_reply(&held, -ENODATA, NULL, 0));
	EXPECT_EQ(-ENODATA, client_wait(&client, WAIT_MS));
	EXPECT_EQ(0, mount_works(&self->mount));
	/* and adds the entry after all. */
	EXPECT_EQ(0, queue_register(self->queue, 1));
	EXPECT_EQ(0, mount_works(&self->mount));
}

TEST_F(late_register, a_refused_first_one_leaves_the_mount_to_the_device)
{
	ASSERT_EQ(0, queue_add(self->queue));
	EXPECT_EQ(-EINVAL, register_with_bad_payload(self->queue, 0));
	EXPECT_EQ(0, mount_works(&self->mount));
	EXPECT_LE(1, self->mount.device_requests);
	EXPECT_EQ(-EOPNOTSUPP, queue_register(self->queue, 0));
}

/* The last queue would complete the ring, but it is turned off. */
TEST_F(late_register, one_that_comes_after_a_refused_one_does_not_go_live)
{
	unsigned int qid, last = self->mount.nr_queues - 1;

	for (qid = 0; qid < last; qid++)
		ASSERT_EQ(0, queue_register(&self->mount.queues[qid], 0));
	ASSERT_EQ(0, queue_add(&self->mount.queues[last]));
	EXPECT_EQ(-EINVAL, register_with_bad_payload(&self->mount.queues[last],
						     0));
	EXPECT_EQ(-EOPNOTSUPP, queue_register(&self->mount.queues[last], 0));
	EXPECT_EQ(0, mount_works(&self->mount));
	EXPECT_LE(1, self->mount.device_requests);
}

FUSE_TEST_MAIN(NEEDS_RING)
