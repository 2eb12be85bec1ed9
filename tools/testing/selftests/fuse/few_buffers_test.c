// SPDX-License-Identifier: GPL-2.0
/*
 * Foreground and background requests of all sizes, from several clients, for a
 * queue that has one buffer of a size: all of them get their turn.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "test_fs.h"
#include "variants.h"

#define KIB 1024
#define MIB (1024 * 1024)
#define FILE_SIZE (2 * MIB)
#define NR_CLIENTS 4
#define SLOW_TEST_S 90

FIXTURE(few_buffers)
{
	struct fuse_mount mount;
	struct test_fs fs;
};

FIXTURE_VARIANT(few_buffers)
{
	struct queue_mode mode;
};

#define ONE_BUFFER .depth = 8, .nr_pools = 1, .pool = { { MIB, 1 } }
#define ONE_PER_POOL .depth = 16, .nr_pools = 4,			\
		     .pool = { { 128, 1 }, { 4 * KIB, 1 },		\
			       { 128 * KIB, 1 }, { MIB, 1 } }

ADD_POOL_VARIANTS(few_buffers, ONE_BUFFER);
ADD_VARIANT_AS(few_buffers, bufring_4_pools, MODE_bufring, ONE_PER_POOL);
ADD_VARIANT_AS(few_buffers, pinned_4_pools, MODE_pinned, ONE_PER_POOL);
ADD_VARIANT_AS(few_buffers, zero_copy_4_pools, MODE_zero_copy, ONE_PER_POOL);

FIXTURE_SETUP(few_buffers)
{
	const char *impossible;
	int err;

	impossible = test_fs_begin(&self->fs, &self->mount, FILE_SIZE, NULL,
				   &variant->mode, &err);
	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(0, err);
	ASSERT_EQ(0, test_fs_fill(&self->fs, NODE_DATA));
	mount_set_readahead(&self->mount, FILE_SIZE / KIB);
	ASSERT_EQ(0, test_fs_serve(&self->fs, &self->mount, &variant->mode,
				   RING_FLAGS));
}

FIXTURE_TEARDOWN(few_buffers)
{
	EXPECT_EQ(0, test_fs_end(&self->fs, &self->mount));
}

static long use_everything(void *arg)
{
	struct fuse_mount *mount = arg;
	char *buffer = aligned_alloc(4096, FILE_SIZE);
	unsigned int round;
	struct stat st;

	for (round = 0; round < 10; round++) {
		int fd = open(mount_path(mount, "data"), O_RDONLY);
		int direct = open(mount_path(mount, "data"),
				  O_RDONLY | O_DIRECT);
		ssize_t at;

		if (fd < 0 || direct < 0)
			return -errno;
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		if (read(fd, buffer, FILE_SIZE) != FILE_SIZE)
			return -errno;
		at = pattern_differs(buffer, FILE_SIZE, 0);
		if (at >= 0)
			return 1;
		if (stat(mount->dir, &st) || access(mount->dir, R_OK))
			return -errno;
		if (read(direct, buffer, MIB + 4096) != MIB + 4096)
			return -errno;
		at = pattern_differs(buffer, MIB + 4096, 0);
		if (at >= 0)
			return 2;
		close(direct);
		close(fd);
	}
	return 0;
}

TEST_F_TIMEOUT(few_buffers, serve_many_clients, SLOW_TEST_S)
{
	struct client client[NR_CLIENTS];
	unsigned int n;

	for (n = 0; n < NR_CLIENTS; n++)
		ASSERT_EQ(0, client_start(&client[n], ANY_CPU, use_everything,
					  &self->mount));
	for (n = 0; n < NR_CLIENTS; n++)
		EXPECT_EQ(0, client_wait(&client[n], SLOW_TEST_S * 1000));
}

FUSE_TEST_MAIN(NEEDS_BUFPOOLS, NEEDS_BUFRINGS)
