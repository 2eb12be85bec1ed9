// SPDX-License-Identifier: GPL-2.0
/*
 * The end of a connection while its entries are in every state there is, and
 * while other threads use them: clients get an error and do not hang, memory
 * is released, and the next mount works.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "test_fs.h"
#include "variants.h"

#define KIB 1024
#define MIB (1024 * 1024)
#define FILE_SIZE (2 * MIB)
#define ROUNDS 8
#define NR_BUSY 4
#define SLOW_TEST_S 120	/* for an emulated debug kernel */

FIXTURE(teardown)
{
	struct fuse_mount mount;
	struct test_fs fs;
	struct client client[NR_BUSY];
	struct server_request held[2];
	int cpu;
};

FIXTURE_VARIANT(teardown)
{
	struct queue_mode mode;
};

ADD_VARIANT(teardown, entries, .depth = 2);
ADD_BUFPOOL_VARIANTS(teardown, .depth = 2);
ADD_VARIANT_AS(teardown, bufpool_one_buffer, MODE_bufpool, .depth = 2,
	       .nr_pools = 1, .pool = { { MIB, 1 } });
ADD_VARIANT_AS(teardown, bufpool_registered_one_buffer, MODE_bufpool_registered,
	       .depth = 2, .nr_pools = 1, .pool = { { MIB, 1 } });
ADD_VARIANT_AS(teardown, bufpool_zero_copy_one_buffer, MODE_bufpool_zero_copy,
	       .depth = 2, .nr_pools = 1, .pool = { { MIB, 1 } });
ADD_VARIANT(teardown, bufring, .depth = 2, .nr_pools = 1,
	    .pool = { { MIB, 1 } });
ADD_VARIANT_AS(teardown, pinned_headers,
	       .flags = FUSE_URING_REGISTER_BUFRING | FUSE_URING_REGISTER_PINNED_HEADERS,
	       .depth = 2, .nr_pools = 1, .pool = { { MIB, 1 } });
ADD_VARIANT_AS(teardown, pinned_buffers,
	       .flags = FUSE_URING_REGISTER_BUFRING | FUSE_URING_REGISTER_PINNED_BUFFERS,
	       .depth = 2, .nr_pools = 1, .pool = { { MIB, 1 } });
ADD_VARIANT(teardown, pinned, .depth = 2, .nr_pools = 2,
	    .pool = { { 4 * KIB, 1 }, { MIB, 1 } });
ADD_VARIANT(teardown, zero_copy, .depth = 2, .nr_pools = 1,
	    .pool = { { MIB, 1 } });

static int open_mount(FIXTURE_DATA(teardown) * self)
{
	/* The server may be in another process: no thread here for the device. */
	const struct mount_options options = { .no_device_server = true };

	return test_fs_mount(&self->fs, &self->mount, &options);
}

FIXTURE_SETUP(teardown)
{
	const char *impossible = ring_tests_impossible();

	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(0, test_fs_open(&self->fs, FILE_SIZE));
	self->cpu = first_usable_cpu();
	ASSERT_EQ(0, open_mount(self));
	impossible = mode_impossible(&self->mount, &variant->mode);
	if (impossible)
		SKIP(return, "%s", impossible);
}

FIXTURE_TEARDOWN(teardown)
{
	EXPECT_EQ(0, test_fs_stop(&self->fs));
	mount_close(&self->mount);
	test_fs_close(&self->fs);
}

static long need_buffer(void *arg)
{
	static char value[64 * KIB];

	return getxattr(arg, "u", value, sizeof(value)) < 0 ? -errno : 0;
}

static long need_entry(void *arg)
{
	return access(arg, R_OK) ? -errno : 0;
}

/*
 * Of four requests the first has the only buffer that fits. The second finds an
 * idle entry, but lacks a buffer, so that the third, without data, gets that
 * entry; the fourth lacks an entry. (Where there is a buffer for each entry the
 * first two have both, and the others lack an entry.) On other queues entries
 * are idle.
 */
static void start_busy_clients(struct __test_metadata *_metadata,
			       FIXTURE_DATA(teardown) * self)
{
	static long (* const calls[NR_BUSY])(void *arg) = {
		need_buffer, need_buffer, need_entry, need_entry,
	};
	unsigned int n;

	for (n = 0; n < NR_BUSY; n++) {
		ASSERT_EQ(0, client_start(&self->client[n], self->cpu, calls[n],
					  self->mount.dir));
		ASSERT_EQ(0, mount_wait_until_waiting(&self->mount, n + 1));
		ASSERT_EQ(0, client_wait_asleep(&self->client[n]));
	}
}

static void make_busy(struct __test_metadata *_metadata,
		      FIXTURE_DATA(teardown) * self,
		      const FIXTURE_VARIANT(teardown) * variant)
{
	unsigned int n;

	ASSERT_EQ(0, mount_serve_in_steps(&self->mount, &variant->mode));
	start_busy_clients(_metadata, self);
	for (n = 0; n < 2; n++)
		ASSERT_EQ(0, mount_wait(&self->mount, &self->held[n], WAIT_MS));
	ASSERT_EQ(0, mount_expect_silence(&self->mount));
}

static void expect_clients_end(struct __test_metadata *_metadata,
			       FIXTURE_DATA(teardown) * self, long error)
{
	unsigned int n;

	for (n = 0; n < NR_BUSY; n++)
		EXPECT_EQ(error, client_wait(&self->client[n], WAIT_MS));
}

static void expect_all_released(struct __test_metadata *_metadata,
				FIXTURE_DATA(teardown) * self,
				const FIXTURE_VARIANT(teardown) * variant)
{
	EXPECT_EQ(0, wait_until_pinned_is(mount_table_kib(&self->mount)));
	mount_close(&self->mount);
	ASSERT_EQ(0, open_mount(self));
	ASSERT_EQ(0, mount_serve_in_steps(&self->mount, &variant->mode));
	EXPECT_EQ(0, mount_works(&self->mount));
}

TEST_F(teardown, an_abort_ends_idle_entries)
{
	unsigned int qid;

	ASSERT_EQ(0, mount_serve_in_steps(&self->mount, &variant->mode));
	ASSERT_EQ(0, mount_abort(&self->mount));
	for (qid = 0; qid < self->mount.nr_queues; qid++) {
		EXPECT_EQ(0, queue_wait_all_dead(&self->mount.queues[qid]));
		EXPECT_EQ(-ENOTCONN, self->mount.queues[qid].slots[0].error);
	}
	expect_all_released(_metadata, self, variant);
}

TEST_F(teardown, an_abort_ends_requests_in_every_state)
{
	make_busy(_metadata, self, variant);
	ASSERT_EQ(0, mount_abort(&self->mount));
	expect_clients_end(_metadata, self, -ECONNABORTED);
	EXPECT_EQ(-ENOTCONN, request_reply(&self->held[0], 0, NULL, 0));
	EXPECT_EQ(-ENOTCONN, request_reply(&self->held[1], 0, NULL, 0));
	expect_all_released(_metadata, self, variant);
}

TEST_F(teardown, closing_ring_and_device_ends_requests_in_every_state)
{
	unsigned int qid;

	make_busy(_metadata, self, variant);
	for (qid = 0; qid < self->mount.nr_queues; qid++)
		queue_close(&self->mount.queues[qid]);
	mount_close_device(&self->mount);
	expect_clients_end(_metadata, self, -ECONNABORTED);
	expect_all_released(_metadata, self, variant);
}

TEST_F(teardown, an_abort_after_the_ring_is_closed_ends_what_is_left)
{
	unsigned int qid;

	make_busy(_metadata, self, variant);
	for (qid = 0; qid < self->mount.nr_queues; qid++)
		queue_close(&self->mount.queues[qid]);
	ASSERT_EQ(0, mount_abort(&self->mount));
	expect_clients_end(_metadata, self, -ECONNABORTED);
	expect_all_released(_metadata, self, variant);
}

TEST_F(teardown, a_lazy_unmount_lets_requests_finish)
{
	unsigned int n, qid;

	make_busy(_metadata, self, variant);
	ASSERT_EQ(0, mount_detach(&self->mount));
	for (n = 0; n < 2; n++)
		ASSERT_EQ(0, request_reply(&self->held[n], 0, NULL, 0));
	for (n = 0; n < NR_BUSY; n++) {
		long result = client_wait_served(&self->mount, &self->client[n]);

		/* The file system has no such attribute. */
		if (result != -ENODATA)
			EXPECT_EQ(0, result);
	}
	/* The last client gone, so is the connection. */
	for (qid = 0; qid < self->mount.nr_queues; qid++)
		EXPECT_EQ(0, queue_wait_all_dead(&self->mount.queues[qid]));
	expect_all_released(_metadata, self, variant);
}

/* A server in a process of its own that stops with two requests in hand */
struct server {
	struct fuse_mount *mount;
	const struct queue_mode *mode;
	struct server_request held[2];
	int ready_fd;			/* closed when all entries are registered */
};

static long serve_and_hold(void *arg)
{
	struct server *server = arg;
	unsigned int n;
	int err;

	err = mount_serve_in_steps(server->mount, server->mode);
	close(server->ready_fd);
	for (n = 0; n < 2 && !err; n++)
		err = mount_wait(server->mount, &server->held[n], WAIT_MS);
	return err;
}

TEST_F(teardown, a_killed_server_ends_requests_in_every_state)
{
	struct server server = {
		.mount = &self->mount, .mode = &variant->mode,
	};
	struct client process;
	struct pollfd ready = { .events = POLLIN };
	int fds[2];

	ASSERT_EQ(0, pipe2(fds, O_CLOEXEC));
	ready.fd = fds[0];
	server.ready_fd = fds[1];
	ASSERT_EQ(0, server_start(&process, serve_and_hold, &server));
	close(fds[1]);
	mount_close_device(&self->mount);
	/* Clients wait for the server: this is not about late entries. */
	EXPECT_EQ(1, poll(&ready, 1, WAIT_MS));
	close(fds[0]);
	start_busy_clients(_metadata, self);
	ASSERT_EQ(0, server_result(&process));
	ASSERT_EQ(0, server_kill(&process));
	expect_clients_end(_metadata, self, -ECONNABORTED);
	expect_all_released(_metadata, self, variant);
}

/* A server in a process of its own that answers everything */
struct test_server {
	struct fuse_mount *mount;
	struct test_fs *fs;
	const struct queue_mode *mode;
};

static long serve_all(void *arg)
{
	struct test_server *server = arg;

	return test_fs_serve(server->fs, server->mount, server->mode,
			     RING_FLAGS);
}

/*
 * While everything is in motion
 */

struct shared {
	unsigned int opened;
	unsigned int operations;
	bool finish;
};

struct worker {
	const char *file;
	const char *dir;
	struct shared *shared;
};

/* Until an error, which is the end of the connection, or until told to finish */
static long use_until_the_end(void *arg)
{
	struct worker *worker = arg;
	char *buffer = aligned_alloc(4096, MIB);
	int fd = open(worker->file, O_RDWR | O_DIRECT);
	struct stat st;

	if (fd < 0 || !buffer)
		return -errno;
	__atomic_add_fetch(&worker->shared->opened, 1, __ATOMIC_SEQ_CST);
	while (!__atomic_load_n(&worker->shared->finish, __ATOMIC_SEQ_CST)) {
		if (pread(fd, buffer, 256 * KIB, 0) < 0)
			return -errno;
		if (pwrite(fd, buffer, 16 * KIB, MIB) < 0)
			return -errno;
		if (stat(worker->dir, &st) || access(worker->dir, R_OK))
			return -errno;
		__atomic_add_fetch(&worker->shared->operations, 1,
				   __ATOMIC_SEQ_CST);
	}
	return 0;
}

/* What happens to the server of a connection that ends */
enum server_fate {
	SERVER_LIVES,
	SERVER_EXITS,
	SERVER_KILLED,
	MOUNT_DETACHED,		/* and the server lives */
};

static bool may_end_with(long result, enum server_fate fate,
			 const struct queue_mode *mode)
{
	if (fate == MOUNT_DETACHED)
		return result == 0;
	switch (result) {
	case -ECONNABORTED:	/* under way */
	case -ENOTCONN:		/* not sent, or too late */
		return true;
	case -ECANCELED:	/* on its way to a task that is gone */
		return fate != SERVER_LIVES;
	case -EINTR:		/* while pages of the payload are looked up */
		return fate == SERVER_KILLED && !mode->flags &&
		       !(mode->bufpool & BUFPOOL_REGISTERED);
	default:
		return false;
	}
}

static void expect_worker_ends(struct __test_metadata *_metadata,
			       struct client *client, enum server_fate fate,
			       const struct queue_mode *mode)
{
	long result = client_wait(client, WAIT_MS);

	EXPECT_TRUE(may_end_with(result, fate, mode)) {
		TH_LOG("the client ended with %ld", result);
	}
}

/* A mount that serves, and clients that keep it busy; then @end. */
static void end_in_motion(struct __test_metadata *_metadata,
			  FIXTURE_DATA(teardown) * self,
			  const FIXTURE_VARIANT(teardown) * variant,
			  int (*end)(FIXTURE_DATA(teardown) * self),
			  enum server_fate fate)
{
	struct shared *shared = mmap(NULL, sizeof(*shared),
				     PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct worker worker = { .shared = shared };
	struct client client[3];
	unsigned int round, n;

	ASSERT_NE(MAP_FAILED, shared);
	for (round = 0; round < ROUNDS; round++) {
		worker.file = mount_path(&self->mount, "data");
		worker.dir = self->mount.dir;
		*shared = (struct shared) { };
		ASSERT_EQ(0, test_fs_serve(&self->fs, &self->mount,
					   &variant->mode,
					   round % 2 ? RING_FLAGS : 0));
		for (n = 0; n < 3; n++)
			ASSERT_EQ(0, client_start(&client[n], ANY_CPU,
						  use_until_the_end, &worker));
		ASSERT_EQ(0, wait_for_count(&shared->operations, 1 + 3 * round));
		if (fate == MOUNT_DETACHED)
			ASSERT_EQ(0, wait_for_count(&shared->opened, 3));
		ASSERT_EQ(0, end(self));
		if (fate == MOUNT_DETACHED) {
			/* What is open stays usable. */
			n = __atomic_load_n(&shared->operations, __ATOMIC_SEQ_CST);
			ASSERT_EQ(0, wait_for_count(&shared->operations, n + 6));
			__atomic_store_n(&shared->finish, true, __ATOMIC_SEQ_CST);
		}
		for (n = 0; n < 3; n++)
			expect_worker_ends(_metadata, &client[n], fate,
					   &variant->mode);
		ASSERT_EQ(0, test_fs_stop(&self->fs));
		ASSERT_EQ(0, wait_until_pinned_is(mount_table_kib(&self->mount)));
		mount_close(&self->mount);
		ASSERT_EQ(0, open_mount(self));
	}
	munmap(shared, sizeof(*shared));
}

static int end_by_abort(FIXTURE_DATA(teardown) * self)
{
	return mount_abort(&self->mount);
}

TEST_F_TIMEOUT(teardown, an_abort_in_motion_ends_all_requests, SLOW_TEST_S)
{
	end_in_motion(_metadata, self, variant, end_by_abort, SERVER_LIVES);
}

static int end_by_unmounting(FIXTURE_DATA(teardown) * self)
{
	return mount_detach(&self->mount);
}

TEST_F_TIMEOUT(teardown, a_lazy_unmount_in_motion_lets_clients_finish,
	       SLOW_TEST_S)
{
	end_in_motion(_metadata, self, variant, end_by_unmounting,
		      MOUNT_DETACHED);
}

static int end_by_stopping_the_server(FIXTURE_DATA(teardown) * self)
{
	unsigned int qid;
	int err;

	/* The threads end with requests in hand, then their rings close. */
	err = test_fs_stop(&self->fs);
	for (qid = 0; qid < self->mount.nr_queues; qid++)
		queue_close(&self->mount.queues[qid]);
	mount_close_device(&self->mount);
	return err;
}

TEST_F_TIMEOUT(teardown, a_server_may_end_in_motion, SLOW_TEST_S)
{
	end_in_motion(_metadata, self, variant, end_by_stopping_the_server,
		      SERVER_EXITS);
}

TEST_F_TIMEOUT(teardown, a_server_may_be_killed_in_motion, SLOW_TEST_S)
{
	struct test_server server = {
		.mount = &self->mount, .fs = &self->fs, .mode = &variant->mode,
	};
	struct shared *shared = mmap(NULL, sizeof(*shared),
				     PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct worker worker = { .shared = shared };
	struct client process, client[3];
	unsigned int round, n;

	ASSERT_NE(MAP_FAILED, shared);
	for (round = 0; round < ROUNDS; round++) {
		worker.file = mount_path(&self->mount, "data");
		worker.dir = self->mount.dir;
		shared->operations = 0;
		ASSERT_EQ(0, server_start(&process, serve_all, &server));
		ASSERT_EQ(0, server_result(&process));
		mount_close_device(&self->mount);
		for (n = 0; n < 3; n++)
			ASSERT_EQ(0, client_start(&client[n], ANY_CPU,
						  use_until_the_end, &worker));
		ASSERT_EQ(0, wait_for_count(&shared->operations, 1 + 3 * round));
		ASSERT_EQ(0, server_kill(&process));
		for (n = 0; n < 3; n++)
			expect_worker_ends(_metadata, &client[n], SERVER_KILLED,
					   &variant->mode);
		mount_close(&self->mount);
		ASSERT_EQ(0, open_mount(self));
	}
	munmap(shared, sizeof(*shared));
}

FUSE_TEST_MAIN(NEEDS_RING)
