// SPDX-License-Identifier: GPL-2.0
/*
 * A reply to a READ that is shorter than what was asked for. What is missing
 * reads as zeroes, but only in the range of this READ: on a block device with
 * small blocks a page can be filled by several, and hold dirty data besides.
 */
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "test_fs.h"
#include "variants.h"

#define BLOCK 1024

FIXTURE(short_read)
{
	struct fuse_mount mount;
	struct test_fs fs;
	char device[32];
	int loop_fd;
};

FIXTURE_VARIANT(short_read)
{
	struct queue_mode mode;
	bool over_device;	/* no io_uring at all */
};

FIXTURE_VARIANT_ADD(short_read, device)
{
	.over_device = true,
};

ADD_ALL_VARIANTS(short_read, .depth = 2);

/*
 * Something for fuseblk to be on, which is never read. It goes when its
 * descriptor is closed, which must not be open for writing when it is mounted.
 */
static const char *open_loop_device(char device[32], int *loop_fd)
{
	struct loop_config config = { .info.lo_flags = LO_FLAGS_AUTOCLEAR };
	const char *impossible = NULL;
	int control, number, file, writable;

	*loop_fd = -1;
	control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	if (control < 0)
		return "no loop device can be had: /dev/loop-control does not open";
	file = memfd_create("short_read", MFD_CLOEXEC);
	if (file < 0 || ftruncate(file, 1024 * 1024))
		impossible = "no file in memory can be made";
	number = ioctl(control, LOOP_CTL_GET_FREE);
	if (!impossible && number < 0)
		impossible = "no loop device is free";
	if (!impossible) {
		snprintf(device, 32, "/dev/loop%d", number);
		config.fd = file;
		writable = open(device, O_RDWR | O_CLOEXEC);
		if (writable < 0 || ioctl(writable, LOOP_CONFIGURE, &config))
			impossible = "the loop device cannot be set up";
		else
			*loop_fd = open(device, O_RDONLY | O_CLOEXEC);
		if (writable >= 0)
			close(writable);
	}
	close(file);
	close(control);
	return impossible;
}

FIXTURE_SETUP(short_read)
{
	struct mount_options options = {
		.init_on = FUSE_WRITEBACK_CACHE,
		.no_uring = variant->over_device,
		.type = "fuseblk",
		.source = self->device,
		.data = "blksize=1024",
	};
	const char *impossible = ring_tests_impossible();

	self->loop_fd = -1;
	if (impossible)
		SKIP(return, "%s", impossible);
	if (!has_privilege(CAP_SYS_ADMIN))
		SKIP(return, "mounting a block device needs CAP_SYS_ADMIN");
	impossible = open_loop_device(self->device, &self->loop_fd);
	if (impossible)
		SKIP(return, "%s", impossible);
	/* The server's file is empty: no READ gets anything. */
	ASSERT_EQ(0, test_fs_open(&self->fs, 2 * BLOCK));
	ASSERT_EQ(0, ftruncate(self->fs.data_fd[NODE_OPTED_IN], 0));
	ASSERT_EQ(0, test_fs_mount(&self->fs, &self->mount, &options));
	if (variant->over_device)
		return;
	impossible = mode_impossible(&self->mount, &variant->mode);
	if (impossible) {
		/* A fuseblk mount must not outlive its server. */
		mount_close(&self->mount);
		SKIP(return, "%s", impossible);
	}
	ASSERT_EQ(0, test_fs_serve(&self->fs, &self->mount, &variant->mode,
				   RING_FLAGS));
}

FIXTURE_TEARDOWN(short_read)
{
	EXPECT_EQ(0, test_fs_stop(&self->fs));
	mount_close(&self->mount);
	test_fs_close(&self->fs);
	if (self->loop_fd >= 0)
		close(self->loop_fd);
}

struct block_io {
	char path[320];
	unsigned int block;	/* the one that is written */
};

/* Writes a block, and reads the page: -EBADMSG if the block is another then */
static long write_block_and_read_page(void *arg)
{
	const struct block_io *io = arg;
	char block[BLOCK], page[2 * BLOCK];
	int fd = open(io->path, O_RDWR);
	ssize_t len;

	if (fd < 0)
		return -errno;
	pattern_fill(block, BLOCK, io->block * BLOCK);
	len = pwrite(fd, block, BLOCK, io->block * BLOCK);
	if (len != BLOCK)
		return len < 0 ? -errno : -EIO;
	/* The file ends in the second block, whichever is written. */
	if (!io->block && ftruncate(fd, 2 * BLOCK))
		return -errno;
	len = pread(fd, page, sizeof(page), 0);
	if (len != sizeof(page))
		return len < 0 ? -errno : -ENODATA;
	if (memcmp(page + io->block * BLOCK, block, BLOCK))
		return -EBADMSG;
	memset(block, 0, BLOCK);
	if (memcmp(page + !io->block * BLOCK, block, BLOCK))
		return -EUCLEAN;
	return fsync(fd) ? -errno : 0;
}

static void check_block(struct __test_metadata *_metadata,
			FIXTURE_DATA(short_read) * self, unsigned int written)
{
	struct block_io io = { .block = written };
	char block[BLOCK];

	strcpy(io.path, mount_path(&self->mount, "opted_in"));
	EXPECT_EQ(0, client_call(write_block_and_read_page, &io));
	EXPECT_EQ(BLOCK, pread(self->fs.data_fd[NODE_OPTED_IN], block, BLOCK,
			       written * BLOCK));
	EXPECT_EQ(-1, pattern_differs(block, BLOCK, written * BLOCK));
	/* In 6.18 and before, the write makes the whole page uptodate. */
	if (!self->fs.calls[FUSE_READ])
		SKIP(return, "kernel does not read what a write left of a page");
	EXPECT_EQ(1, self->fs.calls[FUSE_READ]);
}

TEST_F(short_read, leaves_a_dirty_block_after_it_alone)
{
	check_block(_metadata, self, 1);
}

FUSE_TEST_MAIN(NEEDS_RING)
