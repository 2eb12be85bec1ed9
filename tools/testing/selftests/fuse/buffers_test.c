// SPDX-License-Identifier: GPL-2.0
/*
 * Which request gets which payload buffer, and that no request waits while
 * an entry is free and the buffer it needs, if it needs one, is free too.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "test_fs.h"

#define KIB 1024
#define MIB (1024 * 1024)
#define NONE FUSE_URING_BUF_NONE
#define MAX_CLIENTS 16

static const struct queue_mode one_buffer = {
	.depth = 4, .nr_pools = 1, .pool = { { MIB, 1 } },
};

static const struct queue_mode two_buffers = {
	.depth = 3, .nr_pools = 1, .pool = { { MIB, 2 } },
};

static const struct queue_mode three_buffers = {
	.depth = 4, .nr_pools = 1, .pool = { { MIB, 3 } },
};

static const struct queue_mode small_and_large = {
	.depth = 4, .nr_pools = 2, .pool = { { 128, 1 }, { MIB, 1 } },
};

/* Ids: 0 and 1, 2 and 3, 4 and 5 */
static const struct queue_mode three_pools = {
	.depth = 8, .nr_pools = 3,
	.pool = { { 128, 2 }, { 4 * KIB, 2 }, { MIB, 2 } },
};

FIXTURE(buffers)
{
	struct fuse_mount mount;
	struct test_fs fs;
	int cpu;
};

FIXTURE_VARIANT(buffers)
{
	__u64 flags;
};

FIXTURE_VARIANT_ADD(buffers, bufring) { .flags = FUSE_URING_REGISTER_BUFRING };
FIXTURE_VARIANT_ADD(buffers, pinned) { .flags = PINNED_FLAGS };
FIXTURE_VARIANT_ADD(buffers, zero_copy) { .flags = ZERO_COPY_FLAGS };

FIXTURE_SETUP(buffers)
{
	const char *impossible = ring_tests_impossible();
	/* Of all of them it has the most memory. */
	struct queue_mode mode = three_buffers;

	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(0, test_fs_open(&self->fs, 2 * MIB));
	self->mount.answer = test_fs_answer;
	self->mount.fs = &self->fs;
	self->cpu = first_usable_cpu();
	ASSERT_EQ(0, mount_open(&self->mount, NULL));
	mode.flags = variant->flags;
	impossible = mode_impossible(&self->mount, &mode);
	if (impossible)
		SKIP(return, "%s", impossible);
}

FIXTURE_TEARDOWN(buffers)
{
	EXPECT_EQ(0, test_fs_stop(&self->fs));
	mount_close(&self->mount);
	test_fs_close(&self->fs);
}

/*
 * A client's call that makes exactly one request, on the root directory: a
 * GETXATTR that needs a buffer of @size bytes, or for size 0 an ACCESS, which
 * needs none. The size also tells the server which client it is.
 */
struct call {
	struct client client;
	const char *path;
	size_t size;
};

static long make_request(void *arg)
{
	static char value[64 * KIB];
	struct call *call = arg;

	if (!call->size)
		return access(call->path, R_OK) ? -errno : 0;
	return getxattr(call->path, "u", value, call->size);
}

static void start(struct __test_metadata *_metadata,
		  FIXTURE_DATA(buffers) * self, struct call *call, size_t size)
{
	call->path = self->mount.dir;
	call->size = size;
	ASSERT_EQ(0, client_start(&call->client, self->cpu, make_request,
				  call));
}

/* Starts a client whose request cannot go out. */
static void start_waiting(struct __test_metadata *_metadata,
			  FIXTURE_DATA(buffers) * self, struct call *call,
			  size_t size, unsigned int waiting)
{
	start(_metadata, self, call, size);
	ASSERT_EQ(0, mount_wait_until_waiting(&self->mount, waiting));
	ASSERT_EQ(0, client_wait_asleep(&call->client));
}

static size_t size_of(const struct server_request *request)
{
	struct fuse_getxattr_in in;

	if (request->in.opcode != FUSE_GETXATTR)
		return 0;
	memcpy(&in, request->header->op_in, sizeof(in));
	return in.size;
}

/* The next request must be this one; returns its buffer. */
static unsigned int arrives(struct __test_metadata *_metadata,
			    FIXTURE_DATA(buffers) * self,
			    struct server_request *request, size_t size)
{
	ASSERT_EQ(0, mount_wait(&self->mount, request, WAIT_MS)) {
		TH_LOG("waiting for the request of %zu bytes", size);
		queue_describe(&self->mount.queues[self->cpu]);
	}
	EXPECT_EQ(size, size_of(request));
	return request->buf_id;
}

/* Answers with as many bytes as asked for, which checks the buffer's size. */
static void answer(struct __test_metadata *_metadata,
		   struct server_request *request)
{
	static char value[64 * KIB];
	size_t size = size_of(request);

	ASSERT_EQ(0, request_reply(request, 0, size ? value : NULL, size));
}

static void finish(struct __test_metadata *_metadata, struct call *call)
{
	EXPECT_EQ(call->size, client_wait(&call->client, WAIT_MS));
}

static void serve(struct __test_metadata *_metadata,
		  FIXTURE_DATA(buffers) * self,
		  const FIXTURE_VARIANT(buffers) * variant,
		  struct queue_mode mode)
{
	mode.flags = variant->flags;
	ASSERT_EQ(0, mount_serve_in_steps(&self->mount, &mode));
}

/* Of each queue only the first entry */
static void serve_one_entry(struct __test_metadata *_metadata,
			    FIXTURE_DATA(buffers) * self,
			    const struct queue_mode *mode)
{
	unsigned int qid;

	for (qid = 0; qid < self->mount.nr_queues; qid++) {
		ASSERT_EQ(0, queue_open(&self->mount, qid, mode));
		ASSERT_EQ(0, queue_register(&self->mount.queues[qid], 0));
	}
}

#define START(call, size) start(_metadata, self, call, size)
#define START_WAITING(call, size, waiting) \
	start_waiting(_metadata, self, call, size, waiting)
#define ARRIVES(request, size) arrives(_metadata, self, request, size)
#define ANSWER(request) answer(_metadata, request)
#define FINISH(call) finish(_metadata, call)
#define SERVE(mode) serve(_metadata, self, variant, mode)

TEST_F(buffers, a_request_gets_a_buffer_of_the_smallest_pool_that_fits)
{
	static const struct {
		size_t size;
		unsigned int first_id;
	} cases[] = {
		{ 1, 0 }, { 127, 0 }, { 128, 0 },
		{ 129, 2 }, { 4095, 2 }, { 4096, 2 },
		{ 4097, 4 }, { 64 * KIB, 4 },
	};
	struct server_request request;
	struct call call;
	unsigned int n;

	SERVE(three_pools);
	for (n = 0; n < ARRAY_SIZE(cases); n++) {
		START(&call, cases[n].size);
		EXPECT_EQ(cases[n].first_id,
			  ARRIVES(&request, cases[n].size) & ~1U);
		ANSWER(&request);
		FINISH(&call);
	}
}

static long set_xattr(void *arg)
{
	static char value[64 * KIB];
	struct call *call = arg;

	return setxattr(call->path, "u", value, call->size, 0) ? -errno : 0;
}

TEST_F(buffers, what_a_request_carries_counts_as_well_as_its_reply)
{
	/* The payload is the name, its end, and the value. */
	static const size_t sizes[] = { 126, 127, 4094, 4095 };
	static const unsigned int first_ids[] = { 0, 2, 2, 4 };
	struct call call = { .path = self->mount.dir };
	struct server_request request;
	unsigned int n;

	SERVE(three_pools);
	for (n = 0; n < ARRAY_SIZE(sizes); n++) {
		call.size = sizes[n];
		ASSERT_EQ(0, client_start(&call.client, self->cpu, set_xattr,
					  &call));
		ASSERT_EQ(0, mount_wait(&self->mount, &request, WAIT_MS));
		EXPECT_EQ(FUSE_SETXATTR, request.in.opcode);
		EXPECT_EQ(sizes[n] + 2, request.payload_sz);
		EXPECT_EQ(first_ids[n], request.buf_id & ~1U);
		ASSERT_EQ(0, request_reply(&request, 0, NULL, 0));
		EXPECT_EQ(0, client_wait(&call.client, WAIT_MS));
	}
}

TEST_F(buffers, a_request_without_data_gets_none)
{
	struct server_request request;
	struct call call;

	SERVE(three_buffers);
	START(&call, 0);
	EXPECT_EQ(NONE, ARRIVES(&request, 0));
	EXPECT_EQ(0, request.payload_sz);
	ANSWER(&request);
	FINISH(&call);
}

TEST_F(buffers, an_exhausted_pool_overflows_into_the_next_larger)
{
	static const unsigned int first_ids[] = { 0, 0, 2, 2, 4, 4 };
	struct server_request request[6];
	struct call call[6];
	unsigned int n, ids = 0;

	SERVE(three_pools);
	for (n = 0; n < 6; n++) {
		unsigned int id;

		START(&call[n], 100 + n);
		id = ARRIVES(&request[n], 100 + n);
		EXPECT_EQ(first_ids[n], id & ~1U);
		ids |= 1 << id;
	}
	EXPECT_EQ(0x3f, ids);
	for (n = 0; n < 6; n++) {
		ANSWER(&request[n]);
		FINISH(&call[n]);
	}
}

TEST_F(buffers, the_buffer_freed_last_is_used_first)
{
	struct server_request request[3], again[2];
	struct call call[3], next[2];
	unsigned int n, id[3];

	SERVE(three_buffers);
	for (n = 0; n < 3; n++) {
		START(&call[n], 10 + n);
		id[n] = ARRIVES(&request[n], 10 + n);
	}
	ANSWER(&request[1]);
	ANSWER(&request[0]);
	for (n = 0; n < 2; n++) {
		START(&next[n], 20 + n);
		EXPECT_EQ(id[n], ARRIVES(&again[n], 20 + n));
	}
	ANSWER(&request[2]);
	for (n = 0; n < 2; n++) {
		ANSWER(&again[n]);
		FINISH(&next[n]);
	}
	for (n = 0; n < 3; n++)
		FINISH(&call[n]);
}

TEST_F(buffers, a_request_without_data_overtakes_one_that_lacks_a_buffer)
{
	struct server_request holder, overtaker, waiter;
	struct call a, b, c;

	SERVE(one_buffer);
	START(&a, 10);
	EXPECT_EQ(0, ARRIVES(&holder, 10));
	START_WAITING(&b, 11, 2);
	START(&c, 0);
	EXPECT_EQ(NONE, ARRIVES(&overtaker, 0));
	EXPECT_EQ(0, mount_expect_silence(&self->mount));

	ANSWER(&overtaker);
	FINISH(&c);
	EXPECT_EQ(0, mount_expect_silence(&self->mount));
	ANSWER(&holder);
	FINISH(&a);
	EXPECT_EQ(0, ARRIVES(&waiter, 11));
	ANSWER(&waiter);
	FINISH(&b);
}

TEST_F(buffers, a_returned_buffer_reaches_a_waiting_request_on_an_idle_entry)
{
	struct server_request holder[2], other, waiter;
	struct call a, b, c, d, e;

	/* Entries: a and b hold two, c, without data, takes the third. */
	SERVE(two_buffers);
	START(&a, 10);
	ARRIVES(&holder[0], 10);
	START(&b, 11);
	ARRIVES(&holder[1], 11);
	START(&c, 0);
	ARRIVES(&other, 0);
	/* d lacks a buffer and an entry, e only an entry. */
	START_WAITING(&d, 12, 4);
	START_WAITING(&e, 0, 5);

	/* This entry takes e, while d still lacks a buffer. */
	ANSWER(&other);
	FINISH(&c);
	ARRIVES(&other, 0);
	EXPECT_EQ(0, mount_expect_silence(&self->mount));
	ANSWER(&holder[0]);
	FINISH(&a);
	ARRIVES(&waiter, 12);
	ANSWER(&waiter);
	FINISH(&d);
	ANSWER(&other);
	FINISH(&e);
	ANSWER(&holder[1]);
	FINISH(&b);
}

TEST_F(buffers, waiting_requests_are_served_in_order)
{
	struct server_request request;
	struct call call[5];
	unsigned int n;

	SERVE(one_buffer);
	START(&call[0], 10);
	ARRIVES(&request, 10);
	for (n = 1; n < 5; n++)
		START_WAITING(&call[n], 10 + n, n + 1);
	for (n = 1; n < 5; n++) {
		ANSWER(&request);
		FINISH(&call[n - 1]);
		EXPECT_EQ(0, ARRIVES(&request, 10 + n));
	}
	ANSWER(&request);
	FINISH(&call[4]);
}

TEST_F(buffers, a_small_request_takes_a_larger_buffer_that_comes_free)
{
	struct server_request small, large, waiter;
	struct call a, b, c;

	SERVE(small_and_large);
	START(&a, 100);
	EXPECT_EQ(0, ARRIVES(&small, 100));
	START(&b, 101);
	EXPECT_EQ(1, ARRIVES(&large, 101));
	START_WAITING(&c, 102, 3);
	ANSWER(&large);
	EXPECT_EQ(1, ARRIVES(&waiter, 102));
	ANSWER(&small);
	ANSWER(&waiter);
	FINISH(&a);
	FINISH(&b);
	FINISH(&c);
}

TEST_F(buffers, a_large_request_waits_for_a_buffer_that_holds_it)
{
	struct server_request small, large, waiter;
	struct call a, b, c, d;

	SERVE(small_and_large);
	START(&a, 100);
	EXPECT_EQ(0, ARRIVES(&small, 100));
	START(&b, 4096);
	EXPECT_EQ(1, ARRIVES(&large, 4096));
	START_WAITING(&c, 4097, 3);
	START_WAITING(&d, 101, 4);
	/* The small buffer is of no use for c, but d need not wait for c. */
	ANSWER(&small);
	FINISH(&a);
	EXPECT_EQ(0, ARRIVES(&small, 101));
	EXPECT_EQ(0, mount_expect_silence(&self->mount));
	/* Nor is it when both are free. */
	ANSWER(&small);
	FINISH(&d);
	EXPECT_EQ(0, mount_expect_silence(&self->mount));
	ANSWER(&large);
	FINISH(&b);
	EXPECT_EQ(1, ARRIVES(&waiter, 4097));
	ANSWER(&waiter);
	FINISH(&c);
}

TEST_F(buffers, an_entry_that_is_added_serves_what_waits_for_one)
{
	struct server_request request[2];
	struct queue_mode mode = three_buffers;
	struct call a, b;

	mode.flags = variant->flags;
	serve_one_entry(_metadata, self, &mode);
	START(&a, 10);
	ARRIVES(&request[0], 10);
	START_WAITING(&b, 11, 2);
	EXPECT_EQ(0, mount_expect_silence(&self->mount));
	ASSERT_EQ(0, queue_register(&self->mount.queues[self->cpu], 1));
	ARRIVES(&request[1], 11);
	ANSWER(&request[0]);
	ANSWER(&request[1]);
	FINISH(&a);
	FINISH(&b);
}

TEST_F(buffers, a_client_killed_while_it_waits_for_a_buffer_is_forgotten)
{
	struct server_request request;
	struct call a, b, c;

	SERVE(one_buffer);
	START(&a, 10);
	ARRIVES(&request, 10);
	START_WAITING(&b, 11, 2);
	START_WAITING(&c, 12, 3);
	client_kill(&b.client, SIGKILL);
	EXPECT_EQ(-EPIPE, client_wait(&b.client, WAIT_MS));
	EXPECT_EQ(0, mount_expect_silence(&self->mount));
	ANSWER(&request);
	FINISH(&a);
	EXPECT_EQ(0, ARRIVES(&request, 12));
	ANSWER(&request);
	FINISH(&c);
}

TEST_F(buffers, an_answer_to_an_interrupted_client_returns_its_buffer)
{
	struct server_request request;
	struct call a, b;

	SERVE(one_buffer);
	START(&a, 10);
	ARRIVES(&request, 10);
	client_kill(&a.client, SIGKILL);
	START_WAITING(&b, 11, 2);
	ANSWER(&request);
	EXPECT_EQ(-EPIPE, client_wait(&a.client, WAIT_MS));
	EXPECT_EQ(0, ARRIVES(&request, 11));
	ANSWER(&request);
	FINISH(&b);
}

static void do_nothing(int signal)
{
	(void)signal;
}

/* With a signal handler, after which no call is restarted */
static long make_request_with_handler(void *arg)
{
	const struct sigaction action = { .sa_handler = do_nothing };

	if (sigaction(SIGUSR1, &action, NULL))
		return -errno;
	return make_request(arg);
}

/* The server learns of it if it has the request, and decides what comes of it. */
TEST_F(buffers, a_signal_with_a_handler_takes_no_request_back)
{
	struct call a = { .path = self->mount.dir, .size = 10 };
	struct call b = { .path = self->mount.dir, .size = 11 };
	struct server_request request;

	SERVE(one_buffer);
	ASSERT_EQ(0, client_start(&a.client, self->cpu,
				  make_request_with_handler, &a));
	ARRIVES(&request, 10);
	ASSERT_EQ(0, client_start(&b.client, self->cpu,
				  make_request_with_handler, &b));
	ASSERT_EQ(0, mount_wait_until_waiting(&self->mount, 2));
	ASSERT_EQ(0, client_wait_asleep(&b.client));
	client_kill(&b.client, SIGUSR1);
	EXPECT_EQ(0, mount_expect_silence(&self->mount));
	EXPECT_EQ(0, self->mount.interrupts);
	client_kill(&a.client, SIGUSR1);
	EXPECT_EQ(0, wait_for_count(&self->mount.interrupts, 1));

	ANSWER(&request);
	FINISH(&a);
	/* Its INTERRUPT follows it. */
	ARRIVES(&request, 11);
	EXPECT_EQ(0, wait_for_count(&self->mount.interrupts, 2));
	ANSWER(&request);
	FINISH(&b);
}

TEST_F(buffers, an_abort_frees_those_who_wait_for_a_buffer)
{
	struct server_request request;
	struct call a, b, c;

	SERVE(one_buffer);
	START(&a, 10);
	ARRIVES(&request, 10);
	START_WAITING(&b, 11, 2);
	START_WAITING(&c, 12, 3);
	ASSERT_EQ(0, mount_abort(&self->mount));
	EXPECT_EQ(-1, client_wait(&a.client, WAIT_MS));
	EXPECT_EQ(-1, client_wait(&b.client, WAIT_MS));
	EXPECT_EQ(-1, client_wait(&c.client, WAIT_MS));
}

/*
 * A second task with entries on a queue. What the kernel has for it waits
 * until it looks, which it never does: it ends with a request on its way.
 */
struct second_server {
	struct server_queue queue;
	struct fuse_mount *mount;
	const struct queue_mode *mode;
	unsigned int qid;
	pthread_barrier_t barrier;
	pthread_t thread;
	int result;
};

static void *register_and_end(void *arg)
{
	struct second_server *second = arg;

	second->result = queue_open_with(&second->queue, second->mount,
					 second->qid, second->mode, RING_FLAGS,
					 FIXED_BUFFERS_AS_NEEDED);
	if (!second->result)
		second->result = queue_register(&second->queue, 1);
	pthread_barrier_wait(&second->barrier);
	pthread_barrier_wait(&second->barrier);
	return NULL;
}

static void start_second(struct __test_metadata *_metadata,
			 FIXTURE_DATA(buffers) * self,
			 struct second_server *second)
{
	second->mount = &self->mount;
	second->qid = self->cpu;
	pthread_barrier_init(&second->barrier, NULL, 2);
	ASSERT_EQ(0, pthread_create(&second->thread, NULL, register_and_end,
				    second));
	pthread_barrier_wait(&second->barrier);
	ASSERT_EQ(0, second->result);
}

static void end_second(struct __test_metadata *_metadata,
		       struct second_server *second)
{
	pthread_barrier_wait(&second->barrier);
	ASSERT_EQ(0, join_thread(second->thread, "the second server"));
	queue_close(&second->queue);
	pthread_barrier_destroy(&second->barrier);
}

TEST_F(buffers, a_buffer_of_an_entry_that_is_gone_reaches_one_who_waits)
{
	struct queue_mode mode = one_buffer;
	struct second_server second = { .mode = &mode };
	struct server_request request;
	struct call a, b;

	mode.flags = variant->flags;
	serve_one_entry(_metadata, self, &mode);
	/* The entry that came last is the first to get a request. */
	start_second(_metadata, self, &second);
	START_WAITING(&a, 10, 1);
	START_WAITING(&b, 11, 2);
	EXPECT_EQ(0, mount_expect_silence(&self->mount));

	end_second(_metadata, &second);
	EXPECT_EQ(-1, client_wait(&a.client, WAIT_MS));
	EXPECT_EQ(0, ARRIVES(&request, 11));
	ANSWER(&request);
	FINISH(&b);

	/* Its slot is free, too. */
	EXPECT_EQ(0, queue_register(&self->mount.queues[self->cpu], 1));
	EXPECT_EQ(0, mount_works(&self->mount));
}

/*
 * Request timeouts: the kernel looks every 15 seconds, counted from INIT, for
 * requests older than that.
 */
#define TIMEOUT_S 15
#define SLOW_TEST_S 90

static void wait_until(__u64 when)
{
	struct timespec left;
	int ms;

	for (ms = ms_until(when); ms; ms = ms_until(when)) {
		left.tv_sec = ms / 1000;
		left.tv_nsec = ms % 1000 * 1000000L;
		nanosleep(&left, NULL);
	}
}

static long open_and_close(void *arg)
{
	int fd = open(arg, O_RDONLY);

	return fd < 0 || close(fd) ? -errno : 0;
}

/* Has a page to write back, and does so when it gets the signal. */
static long write_back(void *arg)
{
	sigset_t go;
	char *map;
	int fd;

	sigemptyset(&go);
	sigaddset(&go, SIGUSR1);
	sigprocmask(SIG_BLOCK, &go, NULL);
	fd = open(arg, O_RDWR);
	if (fd < 0)
		return -errno;
	map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	map[0] = 1;
	if (sigwaitinfo(&go, NULL) < 0)
		return -errno;
	return msync(map, 4096, MS_SYNC) ? -errno : 0;
}

/*
 * A WRITE of the background is older than the request that has the only buffer:
 * it had to let a RELEASE, which needs none, go before it. So at the second
 * look it is too old, when the other one is not, and ends the connection.
 */
TEST_F_TIMEOUT(buffers, a_request_times_out_while_it_waits_for_a_buffer,
	       SLOW_TEST_S)
{
	const struct mount_options options = {
		.max_background = 1, .request_timeout = TIMEOUT_S,
	};
	struct server_request release, request;
	struct client closer, writer;
	struct call call;
	__u64 begin;

	if (!getenv("FUSE_SLOW_TESTS"))
		SKIP(return, "takes half a minute: FUSE_SLOW_TESTS=1 runs it");
	if (!(self->mount.init_flags & FUSE_REQUEST_TIMEOUT))
		SKIP(return, "kernel has no request timeouts (no FUSE_REQUEST_TIMEOUT)");
	mount_close(&self->mount);
	begin = now_ms();
	ASSERT_EQ(0, test_fs_mount(&self->fs, &self->mount, &options));
	SERVE(one_buffer);

	wait_until(begin + TIMEOUT_S / 2 * 1000);
	ASSERT_EQ(0, client_start(&writer, self->cpu, write_back,
				  mount_path(&self->mount, "data")));
	ASSERT_EQ(0, mount_wait_for(&self->mount, FUSE_READ, &request));
	ASSERT_EQ(0, request_answer(&request));
	ASSERT_EQ(0, client_start(&closer, self->cpu, open_and_close,
				  mount_path(&self->mount, "opted_in")));
	ASSERT_EQ(0, mount_wait_for(&self->mount, FUSE_RELEASE, &release));
	ASSERT_EQ(0, client_wait(&closer, WAIT_MS));
	client_kill(&writer, SIGUSR1);
	ASSERT_EQ(0, mount_wait_until_waiting(&self->mount, 2));
	ASSERT_EQ(0, client_wait_asleep(&writer));

	wait_until(begin + (TIMEOUT_S + 1) * 1000);
	START(&call, 4096);
	EXPECT_EQ(0, ARRIVES(&request, 4096));
	ASSERT_EQ(0, request_reply(&release, 0, NULL, 0));
	EXPECT_EQ(0, mount_expect_silence(&self->mount));

	/* At the third look the other one would be too old, too. */
	EXPECT_EQ(-ECONNABORTED,
		  client_wait(&writer, ms_until(begin + 37 * 1000)));
	EXPECT_EQ(-1, client_wait(&call.client, WAIT_MS));
}

/* Foreground and background requests of all sizes, from several clients */

#define FILE_SIZE (2 * MIB)

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

static void use_with_few_buffers(struct __test_metadata *_metadata,
				 FIXTURE_DATA(buffers) * self,
				 const struct queue_mode *mode)
{
	struct client client[4];
	unsigned int n;

	ASSERT_EQ(0, test_fs_fill(&self->fs, NODE_DATA));
	mount_set_readahead(&self->mount, FILE_SIZE / KIB);
	ASSERT_EQ(0, test_fs_serve(&self->fs, &self->mount, mode, RING_FLAGS));
	for (n = 0; n < 4; n++)
		ASSERT_EQ(0, client_start(&client[n], ANY_CPU, use_everything,
					  &self->mount));
	for (n = 0; n < 4; n++)
		EXPECT_EQ(0, client_wait(&client[n], SLOW_TEST_S * 1000));
}

TEST_F_TIMEOUT(buffers, one_buffer_serves_many_clients, SLOW_TEST_S)
{
	struct queue_mode mode = one_buffer;

	mode.flags = variant->flags;
	mode.depth = 8;
	use_with_few_buffers(_metadata, self, &mode);
}

TEST_F_TIMEOUT(buffers, one_buffer_per_pool_serves_many_clients,
	       SLOW_TEST_S)
{
	struct queue_mode mode = {
		.flags = variant->flags, .depth = 16, .nr_pools = 4,
		.pool = { { 128, 1 }, { 4 * KIB, 1 }, { 128 * KIB, 1 },
			  { MIB, 1 } },
	};

	use_with_few_buffers(_metadata, self, &mode);
}

TEST_HARNESS_MAIN
