// SPDX-License-Identifier: GPL-2.0
/*
 * Fewer payload buffers than entries: no request waits while an entry is free
 * and the buffer it needs, if it needs one, is free too. The buffer freed last is
 * used first.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "buffers_fixture.h"

#define NONE FUSE_URING_BUF_NONE

static const struct queue_mode one_buffer = {
	.depth = 4, .nr_pools = 1, .pool = { { MIB, 1 } },
};

static const struct queue_mode two_buffers = {
	.depth = 3, .nr_pools = 1, .pool = { { MIB, 2 } },
};

ADD_POOL_VARIANTS(buffers);

/* Of each queue only the first entry */
static int serve_one_entry(struct fuse_mount *mount,
			   const struct queue_mode *mode)
{
	unsigned int qid;
	int err = 0;

	for (qid = 0; qid < mount->nr_queues && !err; qid++) {
		err = queue_open(mount, qid, mode);
		if (!err)
			err = queue_register(&mount->queues[qid], 0);
	}
	return err;
}

TEST_F(buffers, a_request_without_data_gets_none)
{
	struct server_request request;
	struct call call;

	ASSERT_EQ(0, serve(&self->mount, &variant->mode, &three_buffers));
	ASSERT_EQ(0, call_start(&call, &self->mount, self->cpu, 0));
	EXPECT_EQ(NONE, call_arrives(&self->mount, &request, 0));
	EXPECT_EQ(0, request.payload_sz);
	ASSERT_EQ(0, call_answer(&request));
	EXPECT_EQ(0, call_finish(&call));
}

TEST_F(buffers, the_buffer_freed_last_is_used_first)
{
	static const int freed[] = { 2, 0, 1 };
	struct server_request request[3], again[3];
	struct call call[3], next[3];
	int n, id[3], lowest = 0;

	ASSERT_EQ(0, serve(&self->mount, &variant->mode, &three_buffers));
	for (n = 0; n < 3; n++) {
		ASSERT_EQ(0, call_start(&call[n], &self->mount, self->cpu,
					10 + n));
		EXPECT_EQ(n, call_arrives(&self->mount, &request[n], 10 + n));
	}
	for (n = 0; n < 3; n++) {
		ASSERT_EQ(0, call_answer(&request[freed[n]]));
		EXPECT_EQ(0, call_finish(&call[freed[n]]));
	}
	for (n = 0; n < 3; n++) {
		ASSERT_EQ(0, call_start(&next[n], &self->mount, self->cpu,
					20 + n));
		id[n] = call_arrives(&self->mount, &again[n], 20 + n);
		ASSERT_LE(0, id[n]);
		lowest += id[n] == n;
	}
	for (n = 0; n < 3; n++) {
		ASSERT_EQ(0, call_answer(&again[n]));
		EXPECT_EQ(0, call_finish(&next[n]));
	}
	if (variant->mode.bufpool && lowest == 3)
		SKIP(return, "kernel uses the lowest buffer of a pool first");
	for (n = 0; n < 3; n++)
		EXPECT_EQ(freed[2 - n], id[n]);
}

TEST_F(buffers, a_request_without_data_overtakes_one_that_lacks_a_buffer)
{
	struct server_request holder, overtaker, waiter;
	struct call a, b, c;

	ASSERT_EQ(0, serve(&self->mount, &variant->mode, &one_buffer));
	ASSERT_EQ(0, call_start(&a, &self->mount, self->cpu, 10));
	EXPECT_EQ(0, call_arrives(&self->mount, &holder, 10));
	ASSERT_EQ(0, call_start_waiting(&b, &self->mount, self->cpu, 11, 2));
	ASSERT_EQ(0, call_start(&c, &self->mount, self->cpu, 0));
	EXPECT_EQ(NONE, call_arrives(&self->mount, &overtaker, 0));
	EXPECT_EQ(0, mount_expect_silence(&self->mount));

	ASSERT_EQ(0, call_answer(&overtaker));
	EXPECT_EQ(0, call_finish(&c));
	EXPECT_EQ(0, mount_expect_silence(&self->mount));
	ASSERT_EQ(0, call_answer(&holder));
	EXPECT_EQ(0, call_finish(&a));
	EXPECT_EQ(0, call_arrives(&self->mount, &waiter, 11));
	ASSERT_EQ(0, call_answer(&waiter));
	EXPECT_EQ(0, call_finish(&b));
}

TEST_F(buffers, a_returned_buffer_reaches_a_waiting_request_on_an_idle_entry)
{
	struct server_request holder[2], other, waiter;
	struct call a, b, c, d, e;

	/* Entries: a and b hold two, c, without data, takes the third. */
	ASSERT_EQ(0, serve(&self->mount, &variant->mode, &two_buffers));
	ASSERT_EQ(0, call_start(&a, &self->mount, self->cpu, 10));
	ASSERT_LE(0, call_arrives(&self->mount, &holder[0], 10));
	ASSERT_EQ(0, call_start(&b, &self->mount, self->cpu, 11));
	ASSERT_LE(0, call_arrives(&self->mount, &holder[1], 11));
	ASSERT_EQ(0, call_start(&c, &self->mount, self->cpu, 0));
	ASSERT_LE(0, call_arrives(&self->mount, &other, 0));
	/* d lacks a buffer and an entry, e only an entry. */
	ASSERT_EQ(0, call_start_waiting(&d, &self->mount, self->cpu, 12, 4));
	ASSERT_EQ(0, call_start_waiting(&e, &self->mount, self->cpu, 0, 5));

	/* This entry takes e, while d still lacks a buffer. */
	ASSERT_EQ(0, call_answer(&other));
	EXPECT_EQ(0, call_finish(&c));
	ASSERT_LE(0, call_arrives(&self->mount, &other, 0));
	EXPECT_EQ(0, mount_expect_silence(&self->mount));
	ASSERT_EQ(0, call_answer(&holder[0]));
	EXPECT_EQ(0, call_finish(&a));
	ASSERT_LE(0, call_arrives(&self->mount, &waiter, 12));
	ASSERT_EQ(0, call_answer(&waiter));
	EXPECT_EQ(0, call_finish(&d));
	ASSERT_EQ(0, call_answer(&other));
	EXPECT_EQ(0, call_finish(&e));
	ASSERT_EQ(0, call_answer(&holder[1]));
	EXPECT_EQ(0, call_finish(&b));
}

TEST_F(buffers, waiting_requests_are_served_in_order)
{
	struct server_request request;
	struct call call[5];
	unsigned int n;

	ASSERT_EQ(0, serve(&self->mount, &variant->mode, &one_buffer));
	ASSERT_EQ(0, call_start(&call[0], &self->mount, self->cpu, 10));
	ASSERT_LE(0, call_arrives(&self->mount, &request, 10));
	for (n = 1; n < 5; n++)
		ASSERT_EQ(0, call_start_waiting(&call[n], &self->mount,
						self->cpu, 10 + n, n + 1));
	for (n = 1; n < 5; n++) {
		ASSERT_EQ(0, call_answer(&request));
		EXPECT_EQ(0, call_finish(&call[n - 1]));
		EXPECT_EQ(0, call_arrives(&self->mount, &request, 10 + n));
	}
	ASSERT_EQ(0, call_answer(&request));
	EXPECT_EQ(0, call_finish(&call[4]));
}

TEST_F(buffers, an_entry_that_is_added_serves_what_waits_for_one)
{
	struct server_request request[2];
	const struct queue_mode mode = mode_with(&variant->mode, &three_buffers);
	struct call a, b;

	ASSERT_EQ(0, serve_one_entry(&self->mount, &mode));
	ASSERT_EQ(0, call_start(&a, &self->mount, self->cpu, 10));
	ASSERT_LE(0, call_arrives(&self->mount, &request[0], 10));
	ASSERT_EQ(0, call_start_waiting(&b, &self->mount, self->cpu, 11, 2));
	EXPECT_EQ(0, mount_expect_silence(&self->mount));
	ASSERT_EQ(0, queue_register(&self->mount.queues[self->cpu], 1));
	ASSERT_LE(0, call_arrives(&self->mount, &request[1], 11));
	ASSERT_EQ(0, call_answer(&request[0]));
	ASSERT_EQ(0, call_answer(&request[1]));
	EXPECT_EQ(0, call_finish(&a));
	EXPECT_EQ(0, call_finish(&b));
}

TEST_F(buffers, a_client_killed_while_it_waits_for_a_buffer_is_forgotten)
{
	struct server_request request;
	struct call a, b, c;

	ASSERT_EQ(0, serve(&self->mount, &variant->mode, &one_buffer));
	ASSERT_EQ(0, call_start(&a, &self->mount, self->cpu, 10));
	ASSERT_LE(0, call_arrives(&self->mount, &request, 10));
	ASSERT_EQ(0, call_start_waiting(&b, &self->mount, self->cpu, 11, 2));
	ASSERT_EQ(0, call_start_waiting(&c, &self->mount, self->cpu, 12, 3));
	client_kill(&b.client, SIGKILL);
	EXPECT_EQ(-EPIPE, client_wait(&b.client, WAIT_MS));
	EXPECT_EQ(0, mount_expect_silence(&self->mount));
	ASSERT_EQ(0, call_answer(&request));
	EXPECT_EQ(0, call_finish(&a));
	EXPECT_EQ(0, call_arrives(&self->mount, &request, 12));
	ASSERT_EQ(0, call_answer(&request));
	EXPECT_EQ(0, call_finish(&c));
}

TEST_F(buffers, an_answer_to_an_interrupted_client_returns_its_buffer)
{
	struct server_request request;
	struct call a, b;

	ASSERT_EQ(0, serve(&self->mount, &variant->mode, &one_buffer));
	ASSERT_EQ(0, call_start(&a, &self->mount, self->cpu, 10));
	ASSERT_LE(0, call_arrives(&self->mount, &request, 10));
	client_kill(&a.client, SIGKILL);
	ASSERT_EQ(0, call_start_waiting(&b, &self->mount, self->cpu, 11, 2));
	ASSERT_EQ(0, call_answer(&request));
	EXPECT_EQ(-EPIPE, client_wait(&a.client, WAIT_MS));
	EXPECT_EQ(0, call_arrives(&self->mount, &request, 11));
	ASSERT_EQ(0, call_answer(&request));
	EXPECT_EQ(0, call_finish(&b));
}

static void do_nothing(int signal)
{
	(void)signal;
}

/* With a signal handler, after which no call is restarted */
static long make_call_with_handler(void *arg)
{
	const struct sigaction action = { .sa_handler = do_nothing };

	if (sigaction(SIGUSR1, &action, NULL))
		return -errno;
	return make_call(arg);
}

/* The server learns of it if it has the request, and decides what comes of it. */
TEST_F(buffers, a_signal_with_a_handler_takes_no_request_back)
{
	struct call a = { .path = self->mount.dir, .size = 10 };
	struct call b = { .path = self->mount.dir, .size = 11 };
	struct server_request request;

	ASSERT_EQ(0, serve(&self->mount, &variant->mode, &one_buffer));
	ASSERT_EQ(0, client_start(&a.client, self->cpu,
				  make_call_with_handler, &a));
	ASSERT_LE(0, call_arrives(&self->mount, &request, 10));
	ASSERT_EQ(0, client_start(&b.client, self->cpu,
				  make_call_with_handler, &b));
	ASSERT_EQ(0, mount_wait_until_waiting(&self->mount, 2));
	ASSERT_EQ(0, client_wait_asleep(&b.client));
	client_kill(&b.client, SIGUSR1);
	EXPECT_EQ(0, mount_expect_silence(&self->mount));
	EXPECT_EQ(0, self->mount.interrupts);
	client_kill(&a.client, SIGUSR1);
	EXPECT_EQ(0, wait_for_count(&self->mount.interrupts, 1));

	ASSERT_EQ(0, call_answer(&request));
	EXPECT_EQ(0, call_finish(&a));
	/* Its INTERRUPT follows it. */
	ASSERT_LE(0, call_arrives(&self->mount, &request, 11));
	EXPECT_EQ(0, wait_for_count(&self->mount.interrupts, 2));
	ASSERT_EQ(0, call_answer(&request));
	EXPECT_EQ(0, call_finish(&b));
}

TEST_F(buffers, an_abort_frees_those_who_wait_for_a_buffer)
{
	struct server_request request;
	struct call a, b, c;

	ASSERT_EQ(0, serve(&self->mount, &variant->mode, &one_buffer));
	ASSERT_EQ(0, call_start(&a, &self->mount, self->cpu, 10));
	ASSERT_LE(0, call_arrives(&self->mount, &request, 10));
	ASSERT_EQ(0, call_start_waiting(&b, &self->mount, self->cpu, 11, 2));
	ASSERT_EQ(0, call_start_waiting(&c, &self->mount, self->cpu, 12, 3));
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
	const struct server_queue *first;
	struct server_queue queue;
	pthread_barrier_t barrier;
	pthread_t thread;
	int result;
};

static void *register_and_end(void *arg)
{
	struct second_server *second = arg;

	second->result = queue_open_second(&second->queue, second->first,
					   RING_FLAGS, FIXED_BUFFERS_AS_NEEDED);
	if (!second->result)
		second->result = queue_register(&second->queue, 1);
	pthread_barrier_wait(&second->barrier);
	pthread_barrier_wait(&second->barrier);
	return NULL;
}

static int start_second(struct second_server *second)
{
	int err;

	pthread_barrier_init(&second->barrier, NULL, 2);
	err = pthread_create(&second->thread, NULL, register_and_end, second);
	if (err)
		return -err;
	pthread_barrier_wait(&second->barrier);
	return second->result;
}

static int end_second(struct second_server *second)
{
	int err;

	pthread_barrier_wait(&second->barrier);
	err = join_thread(second->thread, "the second server");
	queue_close(&second->queue);
	pthread_barrier_destroy(&second->barrier);
	return err;
}

TEST_F(buffers, a_buffer_of_an_entry_that_is_gone_reaches_one_who_waits)
{
	const struct queue_mode mode = mode_with(&variant->mode, &one_buffer);
	struct second_server second = {
		.first = &self->mount.queues[self->cpu],
	};
	struct server_request request;
	struct call a, b;

	ASSERT_EQ(0, serve_one_entry(&self->mount, &mode));
	/* The entry that came last is the first to get a request. */
	ASSERT_EQ(0, start_second(&second));
	ASSERT_EQ(0, call_start_waiting(&a, &self->mount, self->cpu, 10, 1));
	ASSERT_EQ(0, call_start_waiting(&b, &self->mount, self->cpu, 11, 2));
	EXPECT_EQ(0, mount_expect_silence(&self->mount));

	ASSERT_EQ(0, end_second(&second));
	EXPECT_EQ(-1, client_wait(&a.client, WAIT_MS));
	EXPECT_EQ(0, call_arrives(&self->mount, &request, 11));
	ASSERT_EQ(0, call_answer(&request));
	EXPECT_EQ(0, call_finish(&b));

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
	ASSERT_EQ(0, serve(&self->mount, &variant->mode, &one_buffer));

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
	ASSERT_EQ(0, call_start(&call, &self->mount, self->cpu, 4096));
	EXPECT_EQ(0, call_arrives(&self->mount, &request, 4096));
	ASSERT_EQ(0, request_reply(&release, 0, NULL, 0));
	EXPECT_EQ(0, mount_expect_silence(&self->mount));

	/* At the third look the other one would be too old, too. */
	EXPECT_EQ(-ECONNABORTED,
		  client_wait(&writer, ms_until(begin + 37 * 1000)));
	EXPECT_EQ(-1, client_wait(&call.client, WAIT_MS));
}

FUSE_TEST_MAIN(NEEDS_BUFPOOLS, NEEDS_BUFRINGS)
