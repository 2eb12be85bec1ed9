// SPDX-License-Identifier: GPL-2.0
/*
 * Pinned memory counts: against RLIMIT_MEMLOCK of the user, to the page, and
 * in VmPin of the process; and it stops counting when the ring is gone.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "kselftest_harness.h"
#include "test_fs.h"

#define PAGE ((size_t)getpagesize())
#define HEADER 288	/* sizeof(struct fuse_uring_req_header) */
#define HEADER_PAGES 2
#define BUFFER_PAGES (1 + 4)
#define ALL_PAGES (HEADER_PAGES + BUFFER_PAGES)

/* So many header slots that they need two pages; two buffers in one page, two in four */
static struct queue_mode pinned_mode(void)
{
	struct queue_mode pinned = {
		.flags = PINNED_FLAGS,
		.depth = PAGE / HEADER + 6,
		.nr_pools = 2,
		.pool = { { PAGE / 2, 2 }, { 2 * PAGE, 2 } },
	};

	return pinned;
}

static long kib(unsigned int pages)
{
	return pages * PAGE / 1024;
}

static const struct mount_options small_requests = { .max_write = 4096 };

FIXTURE(memlock)
{
	struct fuse_mount mount;
	struct fuse_mount other;
};

FIXTURE_SETUP(memlock)
{
	const struct queue_mode pinned = pinned_mode();
	const char *impossible = ring_tests_impossible();

	if (impossible)
		SKIP(return, "%s", impossible);
	impossible = exact_memlock_impossible();
	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(0, mount_open(&self->mount, &small_requests));
	impossible = flags_impossible(&self->mount, PINNED_FLAGS);
	if (impossible)
		SKIP(return, "%s", impossible);
	/* An io_uring made by root does not count against a user's limit. */
	ASSERT_EQ(0, queue_open(&self->mount, 0, &pinned));
	ASSERT_EQ(0, mount_open(&self->other, &small_requests));
	ASSERT_EQ(0, queue_open(&self->other, 0, &pinned));
	ASSERT_EQ(0, pinned_kib(getpid()));
}

FIXTURE_TEARDOWN(memlock)
{
	mount_close(&self->mount);
	mount_close(&self->other);
}

static int register_with(struct fuse_mount *mount, __u64 flags)
{
	mount->queues[0].mode.flags = flags;
	return queue_register(&mount->queues[0], 0);
}

TEST_F(memlock, a_page_less_is_refused_and_the_exact_limit_accepted)
{
	unsigned int pages;

	ASSERT_EQ(0, become_user_with_memlock(0));
	for (pages = 0; pages < ALL_PAGES; pages++) {
		ASSERT_EQ(0, set_memlock(pages * PAGE));
		EXPECT_EQ(-ENOMEM, register_with(&self->mount, PINNED_FLAGS));
		EXPECT_EQ(0, pinned_kib(getpid()));
	}
	ASSERT_EQ(0, set_memlock(ALL_PAGES * PAGE));
	EXPECT_EQ(0, register_with(&self->mount, PINNED_FLAGS));
	EXPECT_EQ(kib(ALL_PAGES), pinned_kib(getpid()));
}

TEST_F(memlock, a_limit_within_a_page_holds_only_whole_ones)
{
	ASSERT_EQ(0, become_user_with_memlock(ALL_PAGES * PAGE - 1));
	EXPECT_EQ(-ENOMEM, register_with(&self->mount, PINNED_FLAGS));
	ASSERT_EQ(0, set_memlock(ALL_PAGES * PAGE + PAGE - 1));
	EXPECT_EQ(0, register_with(&self->mount, PINNED_FLAGS));
}

TEST_F(memlock, pinned_headers_count_alone)
{
	const __u64 flags = FUSE_URING_REGISTER_BUFRING | FUSE_URING_REGISTER_PINNED_HEADERS;

	ASSERT_EQ(0, become_user_with_memlock((HEADER_PAGES - 1) * PAGE));
	EXPECT_EQ(-ENOMEM, register_with(&self->mount, flags));
	ASSERT_EQ(0, set_memlock(HEADER_PAGES * PAGE));
	EXPECT_EQ(0, register_with(&self->mount, flags));
	EXPECT_EQ(kib(HEADER_PAGES), pinned_kib(getpid()));
}

TEST_F(memlock, pinned_buffers_count_alone)
{
	const __u64 flags = FUSE_URING_REGISTER_BUFRING | FUSE_URING_REGISTER_PINNED_BUFFERS;

	ASSERT_EQ(0, become_user_with_memlock((BUFFER_PAGES - 1) * PAGE));
	EXPECT_EQ(-ENOMEM, register_with(&self->mount, flags));
	ASSERT_EQ(0, set_memlock(BUFFER_PAGES * PAGE));
	EXPECT_EQ(0, register_with(&self->mount, flags));
	EXPECT_EQ(kib(BUFFER_PAGES), pinned_kib(getpid()));
}

TEST_F(memlock, a_buffer_ring_in_place_counts_nothing)
{
	ASSERT_EQ(0, become_user_with_memlock(0));
	EXPECT_EQ(0, register_with(&self->mount, FUSE_URING_REGISTER_BUFRING));
	EXPECT_EQ(0, pinned_kib(getpid()));
}

TEST_F(memlock, a_failed_half_leaves_nothing_accounted)
{
	/* Room for the headers and most of the buffers */
	ASSERT_EQ(0, become_user_with_memlock((ALL_PAGES - 1) * PAGE));
	EXPECT_EQ(-ENOMEM, register_with(&self->mount, PINNED_FLAGS));
	EXPECT_EQ(0, pinned_kib(getpid()));
	/* One page left behind would not leave enough for this. */
	ASSERT_EQ(0, set_memlock(BUFFER_PAGES * PAGE));
	EXPECT_EQ(0, register_with(&self->mount, FUSE_URING_REGISTER_BUFRING |
						 FUSE_URING_REGISTER_PINNED_BUFFERS));
}

TEST_F(memlock, queues_of_a_user_add_up)
{
	ASSERT_EQ(0, become_user_with_memlock((2 * ALL_PAGES - 1) * PAGE));
	EXPECT_EQ(0, register_with(&self->mount, PINNED_FLAGS));
	EXPECT_EQ(-ENOMEM, register_with(&self->other, PINNED_FLAGS));
	EXPECT_EQ(kib(ALL_PAGES), pinned_kib(getpid()));
	ASSERT_EQ(0, set_memlock(2 * ALL_PAGES * PAGE));
	EXPECT_EQ(0, register_with(&self->other, PINNED_FLAGS));
	EXPECT_EQ(kib(2 * ALL_PAGES), pinned_kib(getpid()));
}

TEST_F(memlock, more_entries_of_a_queue_pin_nothing_more)
{
	ASSERT_EQ(0, become_user_with_memlock(ALL_PAGES * PAGE));
	ASSERT_EQ(0, queue_register_all(&self->mount.queues[0]));
	EXPECT_EQ(kib(ALL_PAGES), pinned_kib(getpid()));
}

TEST_F(memlock, the_limit_does_not_bind_cap_ipc_lock)
{
	if (!has_privilege(CAP_IPC_LOCK))
		SKIP(return, "needs CAP_IPC_LOCK");
	ASSERT_EQ(0, set_memlock(0));
	EXPECT_EQ(0, register_with(&self->mount, PINNED_FLAGS));
	EXPECT_EQ(kib(ALL_PAGES), pinned_kib(getpid()));
}

TEST_F(memlock, only_what_the_ring_uses_is_pinned)
{
	struct server_command reg;

	/* Half a buffer more in each pool, and many more header slots */
	queue_fill_register(&self->mount.queues[0], 0, &reg);
	reg.bufring.max_queue_depth = 5;
	reg.iov[1].iov_len = PAGE / 2 + PAGE / 4;
	reg.iov[2].iov_len = 2 * PAGE + PAGE;
	ASSERT_EQ(0, become_user_with_memlock((1 + 1 + 2) * PAGE));
	EXPECT_EQ(0, queue_send(&self->mount.queues[0], &reg));
	EXPECT_EQ(kib(1 + 1 + 2), pinned_kib(getpid()));
}

/* A failure would show as one page still missing for the other mount. */
static void check_all_released(struct __test_metadata *_metadata,
			       FIXTURE_DATA(memlock) * self)
{
	__u64 deadline = now_ms() + WAIT_MS;
	int err;

	EXPECT_EQ(0, wait_until_pinned_is(0));
	do {
		err = register_with(&self->other, PINNED_FLAGS);
	} while (err == -ENOMEM && now_ms() < deadline);
	EXPECT_EQ(0, err);
	EXPECT_EQ(kib(ALL_PAGES), pinned_kib(getpid()));
}

TEST_F(memlock, closing_ring_and_device_releases_while_the_mount_stands)
{
	ASSERT_EQ(0, become_user_with_memlock(ALL_PAGES * PAGE));
	ASSERT_EQ(0, register_with(&self->mount, PINNED_FLAGS));
	EXPECT_EQ(-ENOMEM, register_with(&self->other, PINNED_FLAGS));
	queue_close(&self->mount.queues[0]);
	mount_close_device(&self->mount);
	check_all_released(_metadata, self);
}

TEST_F(memlock, an_abort_releases_while_the_server_lives)
{
	ASSERT_EQ(0, become_user_with_memlock(ALL_PAGES * PAGE));
	ASSERT_EQ(0, register_with(&self->mount, PINNED_FLAGS));
	EXPECT_EQ(-ENOMEM, register_with(&self->other, PINNED_FLAGS));
	ASSERT_EQ(0, mount_abort(&self->mount));
	check_all_released(_metadata, self);
}

TEST_F(memlock, an_unmount_releases_while_the_server_lives)
{
	ASSERT_EQ(0, register_with(&self->mount, PINNED_FLAGS));
	EXPECT_EQ(kib(ALL_PAGES), pinned_kib(getpid()));
	ASSERT_EQ(0, mount_detach(&self->mount));
	EXPECT_EQ(0, wait_until_pinned_is(0));
}

/* In a process of its own, with an io_uring that is all its own */
static long serve_pinned(void *arg)
{
	const struct queue_mode pinned = pinned_mode();
	struct fuse_mount *mount = arg;
	int err;

	queue_close(&mount->queues[0]);
	err = queue_open(mount, 0, &pinned);
	if (!err)
		err = become_user_with_memlock(ALL_PAGES * PAGE);
	if (!err)
		err = register_with(mount, PINNED_FLAGS);
	return err ?: pinned_kib(getpid());
}

TEST_F(memlock, a_killed_server_releases_while_the_mount_stands)
{
	struct client server;

	test_user();	/* the same one in both processes */
	ASSERT_EQ(0, server_start(&server, serve_pinned, &self->mount));
	EXPECT_EQ(kib(ALL_PAGES), server_result(&server));
	queue_close(&self->mount.queues[0]);
	mount_close_device(&self->mount);

	ASSERT_EQ(0, become_user_with_memlock(ALL_PAGES * PAGE));
	EXPECT_EQ(-ENOMEM, register_with(&self->other, PINNED_FLAGS));
	EXPECT_EQ(0, server_kill(&server));
	check_all_released(_metadata, self);
}

#define SHARED_PAGES 64
#define RING_PAGES 64	/* more than the memory of an io_uring itself */

TEST_F(memlock, the_limit_is_shared_with_io_uring)
{
	struct iovec buffer = { .iov_len = SHARED_PAGES * PAGE };
	struct io_uring ring;

	buffer.iov_base = mmap(NULL, buffer.iov_len, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, buffer.iov_base);

	ASSERT_EQ(0, become_user_with_memlock(RLIM_INFINITY));
	ASSERT_EQ(0, io_uring_queue_init(4, &ring, 0));
	ASSERT_EQ(0, io_uring_register_buffers(&ring, &buffer, 1));

	ASSERT_EQ(0, set_memlock((SHARED_PAGES + ALL_PAGES - 1) * PAGE));
	EXPECT_EQ(-ENOMEM, register_with(&self->mount, PINNED_FLAGS));
	ASSERT_EQ(0, set_memlock((SHARED_PAGES + ALL_PAGES + RING_PAGES) *
				 PAGE));
	EXPECT_EQ(0, register_with(&self->mount, PINNED_FLAGS));

	/* And the other way round */
	ASSERT_EQ(0, io_uring_unregister_buffers(&ring));
	ASSERT_EQ(0, set_memlock((SHARED_PAGES + ALL_PAGES - 1) * PAGE));
	EXPECT_EQ(-ENOMEM, io_uring_register_buffers(&ring, &buffer, 1));
	io_uring_queue_exit(&ring);
}

FUSE_TEST_MAIN(NEEDS_BUFRINGS)
