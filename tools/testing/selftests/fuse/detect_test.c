// SPDX-License-Identifier: GPL-2.0
/*
 * How a server finds out what the kernel offers: the INIT request.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "test_fs.h"

#define PARAMETER "/sys/module/fuse/parameters/enable_uring"

FIXTURE(detect)
{
	struct fuse_mount mount;
	struct test_fs fs;
	char parameter[8];	/* as it was */
};

static int get_parameter(char value[8])
{
	int fd = open(PARAMETER, O_RDONLY);
	int err = fd < 0 || read(fd, value, 7) < 1 ? -errno : 0;

	if (fd >= 0)
		close(fd);
	return err;
}

/* Only root can, but nobody has to where it is right already. */
static int set_parameter(const char *value)
{
	char now[8] = "";
	int fd, err;

	if (!get_parameter(now) && now[0] == value[0])
		return 0;
	fd = open(PARAMETER, O_WRONLY);
	err = fd < 0 || write(fd, value, strlen(value)) < 0 ? -errno : 0;
	if (fd >= 0)
		close(fd);
	return err;
}

FIXTURE_SETUP(detect)
{
	const char *impossible = ring_tests_impossible();

	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(0, get_parameter(self->parameter));
	ASSERT_EQ(0, test_fs_open(&self->fs, 4096));
	self->mount.answer = test_fs_answer;
	self->mount.fs = &self->fs;
}

FIXTURE_TEARDOWN(detect)
{
	set_parameter(self->parameter);
	EXPECT_EQ(0, test_fs_stop(&self->fs));
	mount_close(&self->mount);
	test_fs_close(&self->fs);
}

static long read_symlink(void *arg)
{
	char target[LINK_LENGTH + 1];

	return readlink(arg, target, sizeof(target));
}

static long client_reads_symlink(struct fuse_mount *mount)
{
	return client_call(read_symlink, mount_path(mount, "link"));
}

static const struct queue_mode entries = { .depth = 1 };

TEST_F(detect, io_uring_is_offered_when_the_parameter_allows_it)
{
	ASSERT_EQ(0, set_parameter("Y"));
	ASSERT_EQ(0, mount_open(&self->mount, NULL));
	EXPECT_EQ(1ULL << 41, self->mount.init_flags & (1ULL << 41));
}

TEST_F(detect, io_uring_is_not_offered_when_the_parameter_forbids_it)
{
	const struct mount_options options = { .no_uring = true };

	if (set_parameter("N") == -EACCES)
		SKIP(return, PARAMETER " can only be set by root");
	ASSERT_EQ(0, mount_open(&self->mount, &options));
	EXPECT_EQ(0, self->mount.init_flags & (1ULL << 41));
	EXPECT_EQ(0, self->mount.init_flags & (1ULL << 43));
	EXPECT_EQ(0, self->mount.init_flags & (1ULL << 60));
	ASSERT_EQ(0, queue_open(&self->mount, 0, &entries));
	EXPECT_EQ(-EOPNOTSUPP, queue_register(&self->mount.queues[0], 0));
	EXPECT_EQ(LINK_LENGTH, client_reads_symlink(&self->mount));
}

TEST_F(detect, buffer_pools_are_offered_where_queues_can_be_added)
{
	struct server_command command;
	bool offered;

	ASSERT_EQ(0, set_parameter("Y"));
	ASSERT_EQ(0, mount_open(&self->mount, NULL));
	offered = self->mount.init_flags & (1ULL << 43);
	ASSERT_EQ(0, queue_open(&self->mount, 0, &entries));
	queue_fill_add_queue(&self->mount.queues[0], &command);
	EXPECT_EQ(offered ? 0 : -EINVAL,
		  queue_send(&self->mount.queues[0], &command));
}

TEST_F(detect, buffer_rings_are_offered)
{
	ASSERT_EQ(0, set_parameter("Y"));
	ASSERT_EQ(0, mount_open(&self->mount, NULL));
	if (!kernel_has_bufrings(&self->mount))
		SKIP(return, NO_BUFRINGS);
	EXPECT_EQ(1ULL << 60, self->mount.init_flags & (1ULL << 60));
}

TEST_F(detect, a_server_that_does_not_want_io_uring_is_served_by_the_device)
{
	const struct mount_options options = { .no_uring = true };

	ASSERT_EQ(0, mount_open(&self->mount, &options));
	ASSERT_EQ(0, queue_open(&self->mount, 0, &entries));
	EXPECT_EQ(-EOPNOTSUPP, queue_register(&self->mount.queues[0], 0));
	EXPECT_EQ(LINK_LENGTH, client_reads_symlink(&self->mount));
	EXPECT_LT(0, self->mount.device_requests);
}

TEST_F(detect, requests_wait_until_every_queue_has_an_entry)
{
	struct client client;

	ASSERT_EQ(0, mount_open(&self->mount, NULL));
	ASSERT_EQ(0, client_start(&client, ANY_CPU, read_symlink,
				  mount_path(&self->mount, "link")));
	ASSERT_EQ(0, test_fs_serve(&self->fs, &self->mount, &entries,
				   RING_FLAGS));
	EXPECT_EQ(LINK_LENGTH, client_wait(&client, WAIT_MS));
	EXPECT_EQ(0, self->mount.device_requests);
}

TEST_HARNESS_MAIN
