// SPDX-License-Identifier: GPL-2.0
/*
 * fuse as a module: it stays for as long as io_uring may call into it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/syscall.h>

#include "zero_copy_fixture.h"

ADD_ZERO_COPY_VARIANTS(zero_copy, .depth = 2);

#define REFERENCES "/sys/module/fuse/refcnt"
#define CONTROL "/sys/fs/fuse/connections"

static int references(void)
{
	FILE *file = fopen(REFERENCES, "re");
	int count = -ENOENT;

	if (!file)
		return -errno;
	if (fscanf(file, "%d", &count) != 1)
		count = -EIO;
	fclose(file);
	return count;
}

/* With the module loaded and fusectl mounted, but nothing else */
static int unused;

/*
 * Before the fixture looks for fuse: where the runner says that it has modules
 * for this kernel, they are loaded.
 */
__attribute__((constructor)) static void load_module(void)
{
	const char *dir = getenv("FUSE_MODULES");
	char path[4096];
	int fd;

	if (dir && access("/sys/module/fuse", F_OK)) {
		snprintf(path, sizeof(path), "%s/fuse.ko", dir);
		if (access(path, F_OK))
			snprintf(path, sizeof(path), "%s/fs/fuse/fuse.ko", dir);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 ||
		    syscall(__NR_finit_module, fd, "enable_uring=1", 0))
			complain("loading %s: %s", path, strerror(errno));
		if (fd >= 0)
			close(fd);
		mount("none", CONTROL, "fusectl", 0, NULL);
	}
	unused = references();
}

/* Waits until no more than @count are left. */
static int wait_for_references(int count)
{
	__u64 deadline = now_ms() + WAIT_MS;

	while (references() > count) {
		if (!ms_until(deadline))
			return -ETIMEDOUT;
		usleep(1000);
	}
	return 0;
}

/*
 * A server that was aborted with a request in its hands, unmounted, and keeps
 * nothing but a table of fixed buffers
 */
TEST_F(zero_copy, a_buffer_in_a_table_holds_the_module)
{
	struct page_io io = {};
	struct server_queue second;
	struct server_request request;
	struct client client;
	int n;

	if (unused < 0)
		SKIP(return, "fuse is built in, or cannot be unloaded");
	ASSERT_EQ(0, mount_serve_in_steps(&self->mount, &self->mode));
	hold(_metadata, self, &io, &client, &request);
	ASSERT_EQ(0, queue_open_second(&second, request.queue, RING_FLAGS, 0));
	ASSERT_EQ(0, queue_table_clone(&second, request.queue));
	ASSERT_EQ(0, mount_abort(&self->mount));
	EXPECT_EQ(-ECONNABORTED, client_wait(&client, WAIT_MS));
	mount_close(&self->mount);

	/* The mount and its device are gone, the buffer's reference stays. */
	EXPECT_EQ(0, wait_for_references(unused + 1));
	for (n = 0; n < 10 * SILENCE_MS; n++) {
		ASSERT_EQ(unused + 1, references());
		usleep(1000);
	}
	EXPECT_EQ(0, queue_table_remove(&second));
	EXPECT_EQ(0, wait_for_references(unused));
	queue_close(&second);
}

FUSE_TEST_MAIN(NEEDS_BUFPOOLS, NEEDS_BUFRINGS)
