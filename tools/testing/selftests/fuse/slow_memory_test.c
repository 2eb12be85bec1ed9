// SPDX-License-Identifier: GPL-2.0
/*
 * A ring whose memory takes its time: it is a private mapping of a file on
 * another mount, so that a page arrives when the test answers a READ there.
 * While the kernel waits for it, in REGISTER, in a delivery or in a commit,
 * the ring's connection is aborted, or a second REGISTER comes.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "test_fs.h"
#include "variants.h"

#define MAX_WRITE 4096
#define PAYLOAD smallest_payload()
#define DEPTH 2
#define HEADERS_SIZE ((size_t)getpagesize())
#define FILE_SIZE (2 * PAYLOAD)

FIXTURE(slow)
{
	struct fuse_mount mount;	/* of the ring */
	struct fuse_mount other;	/* of the file */
	struct test_fs fs;
	struct queue_mode mode;
	struct client server;
};

FIXTURE_VARIANT(slow)
{
	struct queue_mode mode;
};

#define BUFFERS .depth = DEPTH, .nr_pools = 1, .pool = { { LARGEST_PAYLOAD, 2 } }

ADD_VARIANT(slow, entries, BUFFERS);
ADD_VARIANT(slow, bufpool, BUFFERS);
ADD_VARIANT(slow, bufring, BUFFERS);
ADD_VARIANT(slow, pinned, BUFFERS);
ADD_VARIANT_AS(slow, pinned_headers,
	       .flags = FUSE_URING_REGISTER_BUFRING |
			FUSE_URING_REGISTER_PINNED_HEADERS, BUFFERS);
ADD_VARIANT_AS(slow, pinned_buffers,
	       .flags = FUSE_URING_REGISTER_BUFRING |
			FUSE_URING_REGISTER_PINNED_BUFFERS, BUFFERS);

FIXTURE_SETUP(slow)
{
	const struct mount_options options = {
		.max_write = MAX_WRITE, .no_device_server = true,
	};
	const struct queue_mode entries = { .depth = 4 };
	const char *impossible = ring_tests_impossible();

	if (impossible)
		SKIP(return, "%s", impossible);
	self->mode = variant->mode;
	ASSERT_EQ(0, test_fs_open(&self->fs, FILE_SIZE));
	/* Exiting servers send no FLUSH, which they would wait for. */
	self->fs.open_flags = FOPEN_NOFLUSH;
	ASSERT_EQ(0, mount_open(&self->mount, &options));
	impossible = mode_impossible(&self->mount, &self->mode);
	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(0, mount_open(&self->other, NULL));
	self->mount.answer = test_fs_answer;
	self->mount.fs = &self->fs;
	self->other.answer = test_fs_answer;
	self->other.fs = &self->fs;
	ASSERT_EQ(0, mount_serve_in_steps(&self->other, &entries));
}

FIXTURE_TEARDOWN(slow)
{
	if (self->server.pid)
		EXPECT_EQ(0, server_kill(&self->server));
	mount_close(&self->mount);
	mount_close(&self->other);
	test_fs_close(&self->fs);
}

/*
 * The server, in a process of its own
 */

static int open_file(FIXTURE_DATA(slow) * self, const char *name)
{
	int fd = open(mount_path(&self->other, name), O_RDWR);

	return fd < 0 ? -errno : fd;
}

static int map_file_over(struct iovec *region, int fd)
{
	void *memory = mmap(region->iov_base, region->iov_len,
			    PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED,
			    fd, 0);

	return memory == MAP_FAILED ? -errno : 0;
}

/* Registers queues from the @first on, with headers or pools that are slow. */
static int register_slow_from(FIXTURE_DATA(slow) * self, unsigned int first,
			      int fd, bool headers)
{
	unsigned int qid;
	int err = 0;

	for (qid = first; qid < self->mount.nr_queues && !err; qid++) {
		struct server_queue *queue = &self->mount.queues[qid];

		err = queue_open(&self->mount, qid, &self->mode);
		if (!err)
			err = map_file_over(headers ? &queue->memory.headers :
						      &queue->memory.pool[0], fd);
		if (!err)
			err = queue_register(queue, 0);
	}
	return err;
}

static int register_slow(FIXTURE_DATA(slow) * self, int fd, bool headers)
{
	return register_slow_from(self, 0, fd, headers);
}

static long register_slow_headers(void *arg)
{
	int fd = open_file(arg, "data");

	return fd < 0 ? fd : register_slow(arg, fd, true);
}

static long register_slow_pool(void *arg)
{
	int fd = open_file(arg, "data");

	return fd < 0 ? fd : register_slow(arg, fd, false);
}

/* Until the kernel has given back all entries */
static int wait_for_the_end(FIXTURE_DATA(slow) * self)
{
	unsigned int qid;
	int err = 0;

	for (qid = 0; qid < self->mount.nr_queues && !err; qid++)
		err = queue_wait_all_dead(&self->mount.queues[qid]);
	return err;
}

static long deliver_to_slow_headers(void *arg)
{
	int fd = open_file(arg, "data");
	int err = fd < 0 ? fd : register_slow(arg, fd, true);

	return err ?: wait_for_the_end(arg);
}

static long deliver_to_slow_pool(void *arg)
{
	int fd = open_file(arg, "data");
	int err = fd < 0 ? fd : register_slow(arg, fd, false);

	return err ?: wait_for_the_end(arg);
}

/*
 * Takes a request, writes a good reply to another file, and puts that in the
 * place of the headers: the kernel finds it there, slowly.
 */
static long commit_from_slow_headers(void *arg)
{
	FIXTURE_DATA(slow) * self = arg;
	struct server_request request;
	struct server_queue *queue;
	struct fuse_call call;
	int fd = open_file(self, "data");
	int reply_fd = open_file(self, "opted_in");
	int err;

	if (fd < 0 || reply_fd < 0)
		return -EIO;
	err = register_slow(self, fd, true);
	if (!err)
		err = mount_wait(&self->mount, &request, WAIT_MS);
	if (err)
		return err;
	queue = request.queue;
	request_fill_call(&request, &call);
	err = test_fs_answer(&self->fs, &call);
	if (err)
		return err;
	request_fill_reply(&request, 0, NULL, call.reply_len);
	memcpy(self->fs.data[NODE_OPTED_IN], queue->memory.headers.iov_base,
	       HEADERS_SIZE);
	err = map_file_over(&queue->memory.headers, reply_fd);
	if (err)
		return err;
	/* Accepted or refused: only that it ends is of interest. */
	queue_send_commit(queue, request.slot, queue->qid, request.commit_id);
	return 0;
}

/*
 * The test
 */

static void start_server(struct __test_metadata *_metadata,
			 FIXTURE_DATA(slow) * self, long (*call)(void *arg))
{
	ASSERT_EQ(0, server_start(&self->server, call, self));
	/* From here on the server's is the only reference. */
	mount_close_device(&self->mount);
}

/* Holds the page that the kernel waits for while it aborts the connection. */
static void abort_during_fault(struct __test_metadata *_metadata,
			       FIXTURE_DATA(slow) * self)
{
	struct server_request read;

	ASSERT_EQ(0, mount_wait_for(&self->other, FUSE_READ, &read));
	ASSERT_EQ(0, mount_abort(&self->mount));
	ASSERT_EQ(0, request_answer(&read));
}

static void expect_nothing_pinned(struct __test_metadata *_metadata,
				  FIXTURE_DATA(slow) * self)
{
	EXPECT_EQ(0, wait_until_pinned_by_is(self->server.pid, 0));
}

static void abort_during_register(struct __test_metadata *_metadata,
				  FIXTURE_DATA(slow) * self,
				  long (*call)(void *arg))
{
	long result;

	start_server(_metadata, self, call);
	abort_during_fault(_metadata, self);
	result = server_result_served(&self->other, &self->server);
	if (result != -ENOTCONN)
		EXPECT_EQ(-ECONNABORTED, result);
	/* There and then: the server still has its io_uring and the device. */
	EXPECT_EQ(0, pinned_kib(self->server.pid));
}

TEST_F(slow, an_abort_while_headers_are_pinned_leaves_nothing_pinned)
{
	if (!(variant->mode.flags & FUSE_URING_REGISTER_PINNED_HEADERS))
		SKIP(return, "headers in place are not touched by REGISTER");
	abort_during_register(_metadata, self, register_slow_headers);
}

TEST_F(slow, an_abort_while_buffers_are_pinned_leaves_nothing_pinned)
{
	if (!(variant->mode.flags & FUSE_URING_REGISTER_PINNED_BUFFERS))
		SKIP(return, "buffers in place are not touched by REGISTER");
	abort_during_register(_metadata, self, register_slow_pool);
}

/* What ended is that server's attempt: another one may make the next. */
TEST_F(slow, a_server_killed_while_buffers_are_pinned_leaves_the_ring_on)
{
	struct server_request read;

	if (!(variant->mode.flags & FUSE_URING_REGISTER_PINNED_BUFFERS))
		SKIP(return, "buffers in place are not touched by REGISTER");
	ASSERT_EQ(0, server_start(&self->server, register_slow_pool, self));
	ASSERT_EQ(0, mount_wait_for(&self->other, FUSE_READ, &read));
	ASSERT_EQ(0, server_kill(&self->server));
	self->server.pid = 0;
	ASSERT_EQ(0, request_answer(&read));

	ASSERT_EQ(0, queue_open(&self->mount, 0, &self->mode));
	EXPECT_EQ(0, queue_register(&self->mount.queues[0], 0));
}

static long look(void *arg)
{
	return access(arg, F_OK) ? -errno : 0;
}

/* A LOOKUP, which has payload both ways, and then an ACCESS */
static int start_lookup(FIXTURE_DATA(slow) * self, struct client *client)
{
	return client_start(client, first_usable_cpu(), look,
			    mount_path(&self->mount, "broken"));
}

static long get_value(void *arg)
{
	char value[16];

	return getxattr(arg, "u", value, sizeof(value)) < 0 ? -errno : 0;
}

/* A GETXATTR: its per-op header goes first, and then the name as payload. */
static int start_getxattr(FIXTURE_DATA(slow) * self, struct client *client)
{
	return client_start(client, first_usable_cpu(), get_value,
			    self->mount.dir);
}

static void abort_during_delivery(struct __test_metadata *_metadata,
				  FIXTURE_DATA(slow) * self,
				  long (*call)(void *arg))
{
	struct client client;

	start_server(_metadata, self, call);
	ASSERT_EQ(0, start_getxattr(self, &client));
	abort_during_fault(_metadata, self);
	EXPECT_EQ(0, server_result_served(&self->other, &self->server));
	EXPECT_EQ(-ECONNABORTED, client_wait(&client, WAIT_MS));
	expect_nothing_pinned(_metadata, self);
}

TEST_F(slow, an_abort_while_a_delivery_waits_for_headers)
{
	if (variant->mode.flags & FUSE_URING_REGISTER_PINNED_HEADERS)
		SKIP(return, "pinned headers are always there");
	abort_during_delivery(_metadata, self, deliver_to_slow_headers);
}

TEST_F(slow, an_abort_while_a_delivery_waits_for_a_buffer_page)
{
	if (variant->mode.flags & FUSE_URING_REGISTER_PINNED_BUFFERS)
		SKIP(return, "pinned buffers are always there");
	abort_during_delivery(_metadata, self, deliver_to_slow_pool);
}

TEST_F(slow, an_abort_while_a_commit_waits_for_headers)
{
	struct server_request read;
	struct client client;
	long result;

	if (variant->mode.flags & FUSE_URING_REGISTER_PINNED_HEADERS)
		SKIP(return, "pinned headers are always there");
	start_server(_metadata, self, commit_from_slow_headers);
	ASSERT_EQ(0, start_lookup(self, &client));
	/* Once for the delivery, once for the commit */
	ASSERT_EQ(0, mount_wait_for(&self->other, FUSE_READ, &read));
	ASSERT_EQ(0, request_answer(&read));
	abort_during_fault(_metadata, self);
	EXPECT_EQ(0, server_result_served(&self->other, &self->server));
	/* The reply came through, or not: the next request has no way. */
	result = client_wait(&client, WAIT_MS);
	if (result != -ENOTCONN)
		EXPECT_EQ(-ECONNABORTED, result);
	expect_nothing_pinned(_metadata, self);
}

/*
 * The io_uring of the first queue is locked while memory is pinned for its
 * fixed buffers. An abort has to take back that queue's idle entries, and
 * waits; the request that the server has of another queue must not.
 */
static int lock_first_ring(FIXTURE_DATA(slow) * self, const char *name)
{
	struct iovec memory = { .iov_len = FILE_SIZE };
	int fd = open_file(self, name);

	if (fd < 0)
		return fd;
	memory.iov_base = mmap(NULL, memory.iov_len, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE, fd, 0);
	if (memory.iov_base == MAP_FAILED)
		return -errno;
	return io_uring_register_buffers(&self->mount.queues[0].ring, &memory,
					 1);
}

static long hold_request_and_lock(void *arg)
{
	FIXTURE_DATA(slow) * self = arg;
	struct server_request held;
	int err;

	err = mount_serve_in_steps(&self->mount, &self->mode);
	if (!err)
		err = mount_wait(&self->mount, &held, WAIT_MS);
	if (!err)
		err = lock_first_ring(self, "data");
	return err ?: wait_for_the_end(self);
}

static long abort_mount(void *arg)
{
	return mount_abort(arg);
}

static int last_usable_cpu(void)
{
	int cpu = possible_queues() - 1;

	while (cpu && !cpu_is_usable(cpu))
		cpu--;
	return cpu;
}

#define ONE_QUEUE "only the first processor, and so one queue, can be used"

TEST_F(slow, an_abort_that_waits_for_an_io_uring_ends_requests_of_others)
{
	struct client aborter, client;
	struct server_request read;
	int cpu = last_usable_cpu();

	if (!cpu)
		SKIP(return, ONE_QUEUE);
	start_server(_metadata, self, hold_request_and_lock);
	ASSERT_EQ(0, client_start(&client, cpu, look, self->mount.dir));
	ASSERT_EQ(0, mount_wait_for(&self->other, FUSE_READ, &read));
	ASSERT_EQ(0, server_start(&aborter, abort_mount, &self->mount));
	EXPECT_EQ(-ECONNABORTED, client_wait(&client, WAIT_MS));
	ASSERT_EQ(0, request_answer(&read));
	EXPECT_EQ(0, server_result_served(&self->other, &self->server));
	EXPECT_EQ(0, server_result(&aborter));
	EXPECT_EQ(0, server_kill(&aborter));
	expect_nothing_pinned(_metadata, self);
}

/*
 * The same, but the other request is still on its way when the abort looks for
 * it: its delivery waits for a page, too. Each ring has a process of its own.
 */
static long serve_first_queue_and_lock(void *arg)
{
	FIXTURE_DATA(slow) * self = arg;
	int err;

	err = queue_open(&self->mount, 0, &self->mode);
	if (!err)
		err = queue_register(&self->mount.queues[0], 0);
	if (!err)
		err = lock_first_ring(self, "opted_in");
	return err ?: wait_for_the_end(self);
}

static long deliver_slowly_on_other_queues(void *arg)
{
	FIXTURE_DATA(slow) * self = arg;
	int fd = open_file(self, "data");
	int err;

	if (fd < 0)
		return fd;
	err = register_slow_from(self, 1, fd,
				 !(self->mode.flags & FUSE_URING_REGISTER_PINNED_HEADERS));
	return err ?: wait_for_the_end(self);
}

TEST_F(slow, an_abort_that_waits_for_an_io_uring_ends_requests_being_sent)
{
	struct client aborter, client, locker;
	struct server_request lock_read, send_read;
	int cpu = last_usable_cpu();

	if (variant->mode.flags == PINNED_FLAGS)
		SKIP(return, "pinned memory is always there");
	if (!cpu)
		SKIP(return, ONE_QUEUE);
	ASSERT_EQ(0, server_start(&locker, serve_first_queue_and_lock, self));
	start_server(_metadata, self, deliver_slowly_on_other_queues);
	ASSERT_EQ(0, mount_wait_for(&self->other, FUSE_READ, &lock_read));
	ASSERT_EQ(0, client_start(&client, cpu, get_value, self->mount.dir));
	ASSERT_EQ(0, mount_wait_for(&self->other, FUSE_READ, &send_read));
	ASSERT_EQ(0, server_start(&aborter, abort_mount, &self->mount));
	ASSERT_EQ(0, client_wait_blocked(&aborter));
	ASSERT_EQ(0, request_answer(&send_read));
	EXPECT_EQ(-ECONNABORTED, client_wait(&client, WAIT_MS));
	ASSERT_EQ(0, request_answer(&lock_read));
	EXPECT_EQ(0, server_result_served(&self->other, &locker));
	EXPECT_EQ(0, server_result_served(&self->other, &self->server));
	EXPECT_EQ(0, server_result(&aborter));
	EXPECT_EQ(0, server_kill(&aborter));
	expect_nothing_pinned(_metadata, self);
	EXPECT_EQ(0, server_kill(&locker));
}

/*
 * Two threads of a server make the same queue. The first waits for a page of
 * its pool, so the second, whose own memory is there, has to wait for it.
 */
struct second_register {
	FIXTURE_DATA(slow) * self;
	struct server_queue queue;
	unsigned int tid;	/* 0 until it runs */
	unsigned int may_start;	/* a flag */
	unsigned int ended;	/* another */
	int result;
};

static void *register_second(void *arg)
{
	struct second_register *second = arg;

	__atomic_store_n(&second->tid, gettid(), __ATOMIC_SEQ_CST);
	second->result = queue_open_with(&second->queue, &second->self->mount,
					 0, &second->self->mode, RING_FLAGS,
					 FIXED_BUFFERS_AS_NEEDED);
	if (!second->result)
		second->result = wait_for_count(&second->may_start, 1);
	if (!second->result)
		second->result = queue_register(&second->queue, 1);
	__atomic_store_n(&second->ended, true, __ATOMIC_SEQ_CST);
	/* Its entry goes when it does. */
	for (;;)
		pause();
	return NULL;
}

static long register_twice(void *arg)
{
	struct second_register *second = arg;
	struct server_queue *queue = &second->self->mount.queues[0];
	int fd = open_file(second->self, "data");
	pthread_t thread;
	int err;

	if (fd < 0)
		return fd;
	err = -pthread_create(&thread, NULL, register_second, second);
	if (!err)
		err = queue_open(&second->self->mount, 0, &second->self->mode);
	if (!err)
		err = map_file_over(&queue->memory.pool[0], fd);
	if (!err)
		err = queue_register(queue, 0);
	if (!err)
		err = wait_for_count(&second->ended, 1);
	return err ?: second->result;
}

TEST_F(slow, a_second_register_waits_for_the_queue_of_the_first)
{
	struct second_register *second;
	struct client thread = { };
	struct server_request read;

	if (!(variant->mode.flags & FUSE_URING_REGISTER_PINNED_BUFFERS))
		SKIP(return, "buffers in place are not touched by REGISTER");
	second = mmap(NULL, sizeof(*second), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, second);
	second->self = self;
	ASSERT_EQ(0, server_start(&self->server, register_twice, second));
	mount_close_device(&self->mount);
	ASSERT_EQ(0, mount_wait_for(&self->other, FUSE_READ, &read));
	ASSERT_EQ(0, wait_for_count(&second->tid, 1));
	thread.pid = second->tid;
	__atomic_store_n(&second->may_start, true, __ATOMIC_SEQ_CST);
	EXPECT_EQ(0, client_wait_blocked(&thread));
	ASSERT_EQ(0, request_answer(&read));
	EXPECT_EQ(0, server_result_served(&self->other, &self->server));
	/* One queue: its pool, and a page of headers if those are pinned */
	EXPECT_EQ((DEPTH * PAYLOAD +
		   (variant->mode.flags & FUSE_URING_REGISTER_PINNED_HEADERS ?
		    HEADERS_SIZE : 0)) / 1024,
		  pinned_kib(self->server.pid));
	munmap(second, sizeof(*second));
}

FUSE_TEST_MAIN(NEEDS_RING)
