// SPDX-License-Identifier: GPL-2.0
/*
 * What a server may not have, it may ask for, be refused, and ask for less
 * on the same connection; or give up and be served by the device.
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "kselftest_harness.h"
#include "test_fs.h"

static const struct queue_mode zero_copy = {
	.flags = ZERO_COPY_FLAGS,
	.depth = 2,
	.nr_pools = 1,
	.pool = { { DEFAULT_MAX_WRITE, 2 } },
};

static const struct queue_mode pinned = {
	.flags = PINNED_FLAGS,
	.depth = 2,
	.nr_pools = 1,
	.pool = { { DEFAULT_MAX_WRITE, 2 } },
};

FIXTURE(privilege)
{
	struct fuse_mount mount;
	struct test_fs fs;
};

FIXTURE_SETUP(privilege)
{
	const char *impossible = ring_tests_impossible();
	unsigned int qid;

	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(0, test_fs_open(&self->fs, 4096));
	self->mount.answer = test_fs_answer;
	self->mount.fs = &self->fs;
	ASSERT_EQ(0, mount_open(&self->mount, NULL));
	impossible = flags_impossible(&self->mount, FUSE_URING_REGISTER_BUFRING);
	if (impossible)
		SKIP(return, "%s", impossible);
	for (qid = 0; qid < self->mount.nr_queues; qid++)
		ASSERT_EQ(0, queue_open(&self->mount, qid, &zero_copy));
}

FIXTURE_TEARDOWN(privilege)
{
	mount_close(&self->mount);
	test_fs_close(&self->fs);
}

static int register_with(struct fuse_mount *mount, __u64 flags)
{
	mount->queues[0].mode.flags = flags;
	return queue_register(&mount->queues[0], 0);
}

/* Registers what is missing for the ring to serve. */
static int register_all_with(struct fuse_mount *mount, __u64 flags)
{
	unsigned int qid;
	int err = 0;

	for (qid = 0; qid < mount->nr_queues && !err; qid++) {
		mount->queues[qid].mode.flags = flags;
		err = queue_register(&mount->queues[qid], 0);
	}
	return err;
}

static void check_served_by_ring(struct __test_metadata *_metadata,
				 FIXTURE_DATA(privilege) * self)
{
	EXPECT_EQ(0, mount_works(&self->mount));
	EXPECT_EQ(0, self->mount.device_requests);
}

TEST_F(privilege, root_gets_zero_copy)
{
	const char *impossible = flags_impossible(&self->mount,
						  ZERO_COPY_FLAGS);

	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(0, register_all_with(&self->mount, ZERO_COPY_FLAGS));
	check_served_by_ring(_metadata, self);
}

TEST_F(privilege, zero_copy_is_refused_without_cap_sys_admin)
{
	ASSERT_EQ(0, drop_capability(CAP_SYS_ADMIN));
	EXPECT_EQ(-EPERM, register_with(&self->mount, ZERO_COPY_FLAGS));
	EXPECT_EQ(-EPERM, register_with(&self->mount, ZERO_COPY_FLAGS |
					FUSE_URING_REGISTER_ZERO_COPY_OPT_IN));
	EXPECT_EQ(0, pinned_kib(getpid()));
}

TEST_F(privilege, no_other_capability_is_needed_for_zero_copy)
{
	const char *impossible = flags_impossible(&self->mount,
						  ZERO_COPY_FLAGS);

	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(0, drop_capability(CAP_IPC_LOCK));
	ASSERT_EQ(0, set_memlock(RLIM_INFINITY));
	ASSERT_EQ(0, register_all_with(&self->mount, ZERO_COPY_FLAGS));
	check_served_by_ring(_metadata, self);
}

TEST_F(privilege, invalid_flags_are_told_before_missing_privilege)
{
	ASSERT_EQ(0, drop_capability(CAP_SYS_ADMIN));
	EXPECT_EQ(-EINVAL, register_with(&self->mount, FUSE_URING_REGISTER_BUFRING |
					 FUSE_URING_REGISTER_ZERO_COPY));
}

TEST_F(privilege, without_zero_copy_a_user_gets_pinned_memory)
{
	const char *impossible;

	ASSERT_EQ(0, become_user_with_memlock(RLIM_INFINITY));
	impossible = mode_impossible(&self->mount, &pinned);
	if (impossible)
		SKIP(return, "%s", impossible);
	EXPECT_EQ(-EPERM, register_with(&self->mount, ZERO_COPY_FLAGS));
	ASSERT_EQ(0, register_all_with(&self->mount, PINNED_FLAGS));
	check_served_by_ring(_metadata, self);
}

TEST_F(privilege, without_memory_to_lock_a_user_gets_a_buffer_ring)
{
	ASSERT_EQ(0, become_user_with_memlock(0));
	EXPECT_EQ(-EPERM, register_with(&self->mount, ZERO_COPY_FLAGS));
	EXPECT_EQ(-ENOMEM, register_with(&self->mount, PINNED_FLAGS));
	ASSERT_EQ(0, register_all_with(&self->mount, FUSE_URING_REGISTER_BUFRING));
	check_served_by_ring(_metadata, self);
}

TEST_F(privilege, after_every_refusal_entries_still_work)
{
	unsigned int qid;

	ASSERT_EQ(0, become_user_with_memlock(0));
	EXPECT_EQ(-EPERM, register_with(&self->mount, ZERO_COPY_FLAGS));
	EXPECT_EQ(-ENOMEM, register_with(&self->mount, PINNED_FLAGS));
	/* The pool holds as many payloads as there are entries. */
	for (qid = 0; qid < self->mount.nr_queues; qid++)
		ASSERT_LE(2 * self->mount.max_payload,
			  self->mount.queues[qid].memory.pool[0].iov_len);
	ASSERT_EQ(0, register_all_with(&self->mount, 0));
	check_served_by_ring(_metadata, self);
}

TEST_F(privilege, memory_that_comes_later_is_taken)
{
	const char *impossible;

	ASSERT_EQ(0, become_user_with_memlock(0));
	EXPECT_EQ(-ENOMEM, register_with(&self->mount, PINNED_FLAGS));
	ASSERT_EQ(0, set_memlock(RLIM_INFINITY));
	impossible = mode_impossible(&self->mount, &pinned);
	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(0, register_all_with(&self->mount, PINNED_FLAGS));
	check_served_by_ring(_metadata, self);
}

static long look(void *arg)
{
	return access(arg, F_OK) ? -errno : 0;
}

TEST_F(privilege, clients_wait_for_the_end_of_the_negotiation)
{
	struct client client;

	ASSERT_EQ(0, become_user_with_memlock(0));
	ASSERT_EQ(0, client_start(&client, ANY_CPU, look, self->mount.dir));
	EXPECT_EQ(-EPERM, register_with(&self->mount, ZERO_COPY_FLAGS));
	EXPECT_EQ(-ENOMEM, register_with(&self->mount, PINNED_FLAGS));
	EXPECT_TRUE(client_runs(&client));
	ASSERT_EQ(0, register_all_with(&self->mount, FUSE_URING_REGISTER_BUFRING));
	EXPECT_EQ(0, client_wait_served(&self->mount, &client));
	EXPECT_EQ(0, self->mount.device_requests);
}

/* What a server sends that has no use for io_uring any more */
static int give_up(struct fuse_mount *mount)
{
	struct server_command reg;

	mount->queues[0].mode.flags = 0;
	queue_fill_register(&mount->queues[0], 0, &reg);
	reg.nr_iov = 0;
	return queue_send(&mount->queues[0], &reg);
}

TEST_F(privilege, a_server_that_gives_up_is_served_by_the_device)
{
	ASSERT_EQ(0, become_user_with_memlock(0));
	EXPECT_EQ(-EPERM, register_with(&self->mount, ZERO_COPY_FLAGS));
	EXPECT_EQ(-ENOMEM, register_with(&self->mount, PINNED_FLAGS));
	EXPECT_EQ(-EINVAL, give_up(&self->mount));
	EXPECT_EQ(-EOPNOTSUPP, register_with(&self->mount, FUSE_URING_REGISTER_BUFRING));
	EXPECT_EQ(0, mount_works(&self->mount));
	EXPECT_LT(0, self->mount.device_requests);
}

TEST_F(privilege, giving_up_frees_a_client_that_waits)
{
	struct client client;

	ASSERT_EQ(0, drop_capability(CAP_SYS_ADMIN));
	ASSERT_EQ(0, client_start(&client, ANY_CPU, look, self->mount.dir));
	EXPECT_EQ(-EPERM, register_with(&self->mount, ZERO_COPY_FLAGS));
	EXPECT_TRUE(client_runs(&client));
	EXPECT_EQ(-EINVAL, give_up(&self->mount));
	EXPECT_EQ(0, client_wait(&client, WAIT_MS));
}

TEST_F(privilege, a_refusal_does_not_harm_a_ring_that_serves)
{
	ASSERT_EQ(0, register_all_with(&self->mount, FUSE_URING_REGISTER_BUFRING));
	ASSERT_EQ(0, drop_capability(CAP_SYS_ADMIN));
	self->mount.queues[0].mode.flags = ZERO_COPY_FLAGS;
	EXPECT_EQ(-EPERM, queue_register(&self->mount.queues[0], 1));
	self->mount.queues[0].mode.flags = FUSE_URING_REGISTER_BUFRING;
	EXPECT_EQ(0, queue_register(&self->mount.queues[0], 1));
	check_served_by_ring(_metadata, self);
}

/* Returned by the server below */
enum { NO_USER_NAMESPACE = 1 };

static long ask_in_user_namespace(void *arg)
{
	struct fuse_mount *mount = arg;
	int err;

	queue_close(&mount->queues[0]);
	if (unshare(CLONE_NEWUSER))
		return NO_USER_NAMESPACE;
	err = queue_open(mount, 0, &zero_copy);
	return err ?: register_with(mount, ZERO_COPY_FLAGS);
}

TEST_F(privilege, cap_sys_admin_of_a_user_namespace_is_not_enough)
{
	struct client server;
	long result;

	ASSERT_EQ(0, server_start(&server, ask_in_user_namespace,
				  &self->mount));
	result = server_result(&server);
	EXPECT_EQ(0, server_kill(&server));
	if (result == NO_USER_NAMESPACE)
		SKIP(return, "cannot make a user namespace");
	EXPECT_EQ(-EPERM, result);
}

FUSE_TEST_MAIN(NEEDS_BUFRINGS)
