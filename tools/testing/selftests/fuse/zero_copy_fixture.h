/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the tests of zero-copied pages share: a mount whose server holds the
 * requests of clients that read and write 4 KiB, and looks at their memory. A
 * program adds the variants that make sense for it.
 */
#ifndef FUSE_ZERO_COPY_FIXTURE_H
#define FUSE_ZERO_COPY_FIXTURE_H

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "test_fs.h"
#include "variants.h"

#define PAGE 4096
#define FILE_SIZE (64 * PAGE)

/* One pread() or pwrite() of a page; its memory is shared with the test. */
struct page_io {
	const char *path;
	bool write;
	bool xattr;		/* set one in place of that */
	off_t offset;
	unsigned char *memory;
	/* Set: say that the file is open, then wait for a word */
	bool in_steps;
	/* Behind the memory, shared as well */
	unsigned int *open;
	unsigned int *go;
	unsigned int *returned;	/* the call itself, if not yet the client */
};

static inline int page_io_init(struct page_io *io, const char *path,
			       unsigned char fill)
{
	io->path = path;
	io->memory = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (io->memory == MAP_FAILED)
		return -errno;
	memset(io->memory, fill, PAGE);
	io->open = (unsigned int *)(io->memory + PAGE);
	io->go = io->open + 1;
	io->returned = io->go + 1;
	return 0;
}

static inline long do_page_io(void *arg)
{
	struct page_io *io = arg;
	int fd = open(io->path, O_RDWR | O_DIRECT);
	ssize_t len;

	if (fd < 0)
		return -errno;
	if (io->in_steps) {
		__atomic_store_n(io->open, 1, __ATOMIC_RELEASE);
		if (wait_for_count(io->go, 1))
			return -ETIMEDOUT;
	}
	if (io->xattr)
		len = fsetxattr(fd, "user.test", io->memory, 64, 0);
	else if (io->write)
		len = pwrite(fd, io->memory, PAGE, io->offset);
	else
		len = pread(fd, io->memory, PAGE, io->offset);
	if (len < 0)
		len = -errno;
	__atomic_store_n(io->returned, 1, __ATOMIC_RELEASE);
	return len;
}

/* Whether all of a page has this value */
static inline bool page_is(const void *page, unsigned char value)
{
	const unsigned char *bytes = page;
	unsigned int n;

	for (n = 0; n < PAGE; n++)
		if (bytes[n] != value)
			return false;
	return true;
}

/* The client itself is no measure: to close the file takes a request, too. */
static inline bool call_returned(const struct page_io *io)
{
	return __atomic_load_n(io->returned, __ATOMIC_ACQUIRE);
}

/* Whether the call is still under way after a moment */
static inline bool still_waits(const struct page_io *io)
{
	__u64 deadline = now_ms() + SILENCE_MS;

	do {
		if (call_returned(io))
			return false;
		usleep(1000);
	} while (ms_until(deadline));
	return true;
}

FIXTURE(zero_copy)
{
	struct fuse_mount mount;
	struct test_fs fs;
	struct queue_mode mode;
};

FIXTURE_VARIANT(zero_copy)
{
	struct queue_mode mode;
};

FIXTURE_SETUP(zero_copy)
{
	const char *impossible;
	int err;

	self->mode = variant->mode;
	impossible = test_fs_begin(&self->fs, &self->mount, FILE_SIZE, NULL,
				   &self->mode, &err);
	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(0, err);
}

FIXTURE_TEARDOWN(zero_copy)
{
	EXPECT_EQ(0, test_fs_end(&self->fs, &self->mount));
}

/* Starts a client on the file that opts in, and takes its request. */
static inline void hold(struct __test_metadata *_metadata,
			FIXTURE_DATA(zero_copy) * self, struct page_io *io,
			struct client *client, struct server_request *request)
{
	if (!io->memory)
		ASSERT_EQ(0, page_io_init(io, mount_path(&self->mount,
							 "opted_in"), 0x11));
	*io->returned = 0;
	ASSERT_EQ(0, client_start(client, first_usable_cpu(), do_page_io, io));
	ASSERT_EQ(0, mount_wait_for(&self->mount,
				    io->write ? FUSE_WRITE : FUSE_READ,
				    request));
	ASSERT_TRUE(request->zero_copy);
}

/* Starts a client that has its file open when this returns. */
static inline int start_opened(struct fuse_mount *mount, struct page_io *io,
			       struct client *client)
{
	__u64 deadline = now_ms() + WAIT_MS;
	struct server_request request;
	int err;

	io->in_steps = true;
	err = client_start(client, first_usable_cpu(), do_page_io, io);
	while (!err && !__atomic_load_n(io->open, __ATOMIC_ACQUIRE)) {
		if (!ms_until(deadline))
			return -ETIMEDOUT;
		err = mount_wait(mount, &request, 1);
		if (!err)
			err = request_answer(&request);
		else if (err == -ETIMEDOUT)
			err = 0;
	}
	return err;
}

static inline void go(struct page_io *io)
{
	__atomic_store_n(io->go, 1, __ATOMIC_RELEASE);
}

#endif
