// SPDX-License-Identifier: GPL-2.0
/*
 * An abort while the owner of the mount changes its limits.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "test_fs.h"
#include "variants.h"

#define KIB 1024
#define MAX_WRITE (8 * KIB)
#define FILE_SIZE (1024 * KIB)
#define ROUNDS 25
#define NR_LISTENERS 400
#define SLOW_TEST_S 120		/* for an emulated debug kernel */

FIXTURE(abort)
{
	struct fuse_mount mount;
	struct test_fs fs;
	int cpu[2];
};

FIXTURE_VARIANT(abort)
{
	struct queue_mode mode;
};

ADD_VARIANT(abort, entries, .depth = 1);
ADD_VARIANT(abort, bufpool, .depth = 1);

static int open_mount(FIXTURE_DATA(abort) * self)
{
	const struct mount_options options = {
		.max_write = MAX_WRITE, .init_on = FUSE_WRITEBACK_CACHE,
	};

	return test_fs_mount(&self->fs, &self->mount, &options);
}

FIXTURE_SETUP(abort)
{
	const char *impossible = ring_tests_impossible();

	if (impossible)
		SKIP(return, "%s", impossible);
	impossible = dangerous_impossible();
	if (impossible)
		SKIP(return, "%s", impossible);
	self->cpu[0] = first_usable_cpu();
	self->cpu[1] = possible_queues() - 1;
	while (self->cpu[1] > self->cpu[0] && !cpu_is_usable(self->cpu[1]))
		self->cpu[1]--;
	if (self->cpu[0] == self->cpu[1])
		SKIP(return, "only one processor, and so one queue, can be used");
	ASSERT_EQ(0, test_fs_open(&self->fs, FILE_SIZE));
	self->fs.open_flags = FOPEN_NOFLUSH;
	ASSERT_EQ(0, open_mount(self));
	impossible = mode_impossible(&self->mount, &variant->mode);
	if (impossible)
		SKIP(return, "%s", impossible);
}

FIXTURE_TEARDOWN(abort)
{
	mount_close(&self->mount);
	test_fs_close(&self->fs);
}

/* More background requests than the limit allows: WRITEs of dirty pages */
static long write_and_sync(void *arg)
{
	static char data[FILE_SIZE];
	int fd = open(arg, O_RDWR);

	if (fd < 0)
		return -errno;
	if (write(fd, data, sizeof(data)) != sizeof(data))
		return -errno;
	return fsync(fd) ? -errno : 0;
}

struct setter {
	const struct fuse_mount *mount;
	unsigned int *times;	/* shared with the test */
};

/* Sets the limit until it is killed, as often as it can. */
static long set_limit_until_the_end(void *arg)
{
	struct setter *setter = arg;
	char path[128];
	int fd;

	snprintf(path, sizeof(path),
		 "/sys/fs/fuse/connections/%u/max_background",
		 setter->mount->connection);
	fd = open(path, O_WRONLY);
	if (fd < 0)
		return -errno;
	while (write(fd, "1", 1) == 1)
		__atomic_add_fetch(setter->times, 1, __ATOMIC_SEQ_CST);
	return -errno;
}

/* Dirty pages of another file for each queue; the server does not answer. */
static void start_writers(struct __test_metadata *_metadata,
			  FIXTURE_DATA(abort) * self, struct client writer[2])
{
	static const char * const name[] = { "data", "opted_in" };
	struct server_request request;
	unsigned int n;

	for (n = 0; n < 2; n++) {
		ASSERT_EQ(0, client_start(&writer[n], self->cpu[n],
					  write_and_sync,
					  mount_path(&self->mount, name[n])));
		ASSERT_EQ(0, mount_wait_for(&self->mount, FUSE_WRITE,
					    &request));
		ASSERT_EQ(0, client_wait_blocked(&writer[n]));
	}
}

/*
 * Clones of the device that want SIGIO. An abort signals each after it has lifted
 * the limit and before it looks at the queues, which gives the setter time.
 */
static int open_listeners(const struct fuse_mount *mount, int fds[])
{
	__u32 mount_fd = mount->dev_fd;
	unsigned int n;

	for (n = 0; n < NR_LISTENERS; n++) {
		fds[n] = open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);
		if (fds[n] < 0 ||
		    ioctl(fds[n], FUSE_DEV_IOC_CLONE, &mount_fd) ||
		    fcntl(fds[n], F_SETOWN, getpid()) ||
		    fcntl(fds[n], F_SETFL, O_NONBLOCK | O_ASYNC))
			return -errno;
	}
	return 0;
}

static void close_listeners(const int fds[])
{
	unsigned int n;

	for (n = 0; n < NR_LISTENERS; n++)
		close(fds[n]);
}

TEST_F_TIMEOUT(abort, ends_background_requests_whatever_their_limit_is,
	       SLOW_TEST_S)
{
	struct setter setter = { .mount = &self->mount };
	struct client writer[2], process;
	int listeners[NR_LISTENERS];
	unsigned int round, n;
	long result;

	signal(SIGIO, SIG_IGN);
	setter.times = mmap(NULL, sizeof(*setter.times), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, setter.times);
	for (round = 0; round < ROUNDS; round++) {
		ASSERT_EQ(0, mount_serve_in_steps(&self->mount, &variant->mode));
		start_writers(_metadata, self, writer);
		ASSERT_EQ(0, open_listeners(&self->mount, listeners));
		*setter.times = 0;
		ASSERT_EQ(0, server_start(&process, set_limit_until_the_end,
					  &setter));
		ASSERT_EQ(0, wait_for_count(setter.times, 1));
		ASSERT_EQ(0, mount_abort(&self->mount));
		for (n = 0; n < 2; n++) {
			result = client_wait(&writer[n], WAIT_MS);
			if (result != -ENOTCONN && result != -EIO)
				ASSERT_EQ(-ECONNABORTED, result);
		}
		close_listeners(listeners);
		mount_close(&self->mount);
		ASSERT_EQ(0, server_kill(&process));
		ASSERT_EQ(0, open_mount(self));
	}
}

FUSE_TEST_MAIN(NEEDS_RING)
