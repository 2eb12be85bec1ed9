// SPDX-License-Identifier: GPL-2.0
/*
 * Memory that zero-copy must leave alone: direct I/O of the kernel itself can
 * pass what has no reference count of its own.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "loop.h"
#include "test_fs.h"
#include "variants.h"

#define KIB 1024
#define MIB (1024 * KIB)
#define IMAGE_SIZE (8 * MIB)
#define BLOCK KIB
#define NR_BLOCKS 64

/* Big endian, as the first word of a block of ext4's journal */
static const unsigned char jbd2_magic[] = { 0xc0, 0x3b, 0x39, 0x98 };

FIXTURE(kernel_memory)
{
	struct fuse_mount mount;
	struct test_fs fs;
};

FIXTURE_VARIANT(kernel_memory)
{
	struct queue_mode mode;
};

ADD_ZERO_COPY_VARIANTS(kernel_memory, .depth = 4);

static bool kernel_has_ext4(void)
{
	FILE *file = fopen("/proc/filesystems", "re");
	char line[64];
	bool has = false;

	while (file && !has && fgets(line, sizeof(line), file))
		has = strstr(line, "\text4\n");
	if (file)
		fclose(file);
	return has;
}

FIXTURE_SETUP(kernel_memory)
{
	const char *impossible;
	int err;

	impossible = test_fs_begin(&self->fs, &self->mount, IMAGE_SIZE, NULL,
				   &variant->mode, &err);
	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(0, err);
	impossible = loop_impossible();
	if (impossible)
		SKIP(return, "%s", impossible);
}

FIXTURE_TEARDOWN(kernel_memory)
{
	EXPECT_EQ(0, test_fs_end(&self->fs, &self->mount));
}

/* The descriptor is for reading: not every kernel mounts what is open for writing. */
static int open_loop(const char *path, char name[LOOP_NAME_SIZE])
{
	int fd = loop_open(path, 512, 0, name);
	int to_read;

	if (fd < 0)
		return fd;
	to_read = open(name, O_RDONLY | O_CLOEXEC);
	if (to_read < 0)
		to_read = -errno;
	close(fd);
	return to_read;
}

/* An empty ext4 with blocks of 1 KiB, in the memory of a file */
static int make_ext4(int data_fd)
{
	char path[64], command[160];

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", getpid(), data_fd);
	snprintf(command, sizeof(command),
		 "PATH=$PATH:/sbin:/usr/sbin mkfs.ext4 -q -F -b 1024 %s >/dev/null 2>&1",
		 path);
	return WEXITSTATUS(system(command));
}

static long write_through_journal(void *arg)
{
	char block[BLOCK], name[LOOP_NAME_SIZE], dir[80], file[96];
	int loop = open_loop(arg, name);
	int fd, n;

	if (loop < 0)
		return loop;
	snprintf(dir, sizeof(dir), "/tmp/fuse_selftest-ext4-%d", getpid());
	if (mkdir(dir, 0700) ||
	    mount(name, dir, "ext4", 0, "data=journal"))
		return -errno;
	snprintf(file, sizeof(file), "%s/file", dir);
	fd = open(file, O_RDWR | O_CREAT, 0600);
	if (fd < 0)
		return -errno;
	memset(block, 0x55, sizeof(block));
	memcpy(block, jbd2_magic, sizeof(jbd2_magic));
	for (n = 0; n < NR_BLOCKS; n++)
		if (pwrite(fd, block, BLOCK, n * BLOCK) != BLOCK)
			return -errno;
	if (fsync(fd) || close(fd))
		return -errno;
	if (umount2(dir, 0) || rmdir(dir))
		return -errno;
	return close(loop);
}

/*
 * jbd2 copies a block that begins with its magic number to memory from a slab
 * cache, and writes that to the journal.
 */
TEST_F_TIMEOUT(kernel_memory, slab_memory_is_copied, 120)
{
	const char *impossible = dangerous_impossible();

	if (impossible)
		SKIP(return, "%s", impossible);
	if (!kernel_has_ext4())
		SKIP(return, "kernel has no ext4");
	switch (make_ext4(self->fs.data_fd[NODE_OPTED_IN])) {
	case 0:
		break;
	case 127:
		SKIP(return, "no mkfs.ext4");
	default:
		ASSERT_TRUE(false);
	}
	ASSERT_EQ(0, test_fs_serve(&self->fs, &self->mount, &variant->mode,
				   RING_FLAGS));
	ASSERT_EQ(0, client_call(write_through_journal,
				 mount_path(&self->mount, "opted_in")));
	/* The blocks with the magic number; all else has references. */
	EXPECT_LT(0, self->fs.copied[NODE_OPTED_IN]);
	EXPECT_LT(0, self->fs.zero_copied[NODE_OPTED_IN]);
}

FUSE_TEST_MAIN(NEEDS_BUFPOOLS, NEEDS_BUFRINGS)
