// SPDX-License-Identifier: GPL-2.0
/*
 * INTERRUPT requests, which travel through /dev/fuse, for requests that travel
 * through a ring: a signal at every stage of a request, and every answer that
 * a server may give.
 *
 * The test reads /dev/fuse itself, step by step.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "test_fs.h"
#include "variants.h"

#define INTERRUPT_BIT 1		/* of the id of an INTERRUPT */

FIXTURE(interrupt)
{
	struct fuse_mount mount;
	struct test_fs fs;
	struct client holder;	/* of the lock, or of the only entry */
	struct client waiter;	/* gets the signal */
	int cpu;
};

FIXTURE_VARIANT(interrupt)
{
	struct queue_mode mode;
};

/* One request at a time: the next one waits for the entry, or a buffer. */
ADD_VARIANT(interrupt, entries, .depth = 1);
ADD_VARIANT(interrupt, bufpool, .depth = 2, .nr_pools = 1,
	    .pool = { { .nr = 1 } });
ADD_VARIANT(interrupt, bufpool_registered, .depth = 2, .nr_pools = 1,
	    .pool = { { .nr = 1 } });

FIXTURE_SETUP(interrupt)
{
	const struct mount_options options = {
		.init_on = FUSE_POSIX_LOCKS, .no_device_server = true,
	};
	const char *impossible = ring_tests_impossible();

	if (impossible)
		SKIP(return, "%s", impossible);
	self->cpu = first_usable_cpu();
	ASSERT_EQ(0, test_fs_open(&self->fs, 4096));
	ASSERT_EQ(0, test_fs_mount(&self->fs, &self->mount, &options));
	impossible = mode_impossible(&self->mount, &variant->mode);
	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(0, mount_serve_in_steps(&self->mount, &variant->mode));
}

FIXTURE_TEARDOWN(interrupt)
{
	mount_close(&self->mount);
	test_fs_close(&self->fs);
}

static void do_nothing(int signal)
{
	(void)signal;
}

static int handle_sigusr1(void)
{
	/* No SA_RESTART: the call returns after the signal. */
	const struct sigaction action = { .sa_handler = do_nothing };

	return sigaction(SIGUSR1, &action, NULL) ? -errno : 0;
}

/* A READLINK, which needs an entry and a payload buffer */
static long read_link(void *arg)
{
	char target[LINK_LENGTH + 1];

	return readlink(arg, target, sizeof(target)) < 0 ? -errno : 0;
}

static long read_link_with_handler(void *arg)
{
	return handle_sigusr1() ?: read_link(arg);
}

/* Waits for a lock, as a SETLKW that the server does not answer. */
static long wait_for_lock(void *arg)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int err = handle_sigusr1();
	int fd;

	if (err)
		return err;
	fd = open(arg, O_RDWR);
	if (fd < 0)
		return -errno;
	return fcntl(fd, F_SETLKW, &lock) ? -errno : 0;
}

struct interrupt {
	__u64 id;		/* its own */
	__u64 unique;		/* of the request that it is for */
};

/* The next INTERRUPT on /dev/fuse; -ETIMEDOUT if there is none */
static int read_interrupt(struct fuse_mount *mount, struct interrupt *interrupt,
			  int ms)
{
	static char buffer[DEFAULT_MAX_WRITE + 2 * FUSE_MIN_READ_BUFFER];
	struct pollfd pollfd = { .fd = mount->dev_fd, .events = POLLIN };
	const struct fuse_in_header *in = (void *)buffer;
	__u64 deadline = now_ms() + ms;
	const struct fuse_interrupt_in *body = (void *)(in + 1);

	while (poll(&pollfd, 1, ms_until(deadline)) == 1) {
		if (read(mount->dev_fd, buffer, sizeof(buffer)) < 0)
			return -errno;
		if (in->opcode == FUSE_INTERRUPT) {
			interrupt->id = in->unique;
			interrupt->unique = body->unique;
			return 0;
		}
	}
	return -ETIMEDOUT;
}

/* What the kernel says to this answer: 0 or a negative errno */
static int answer_interrupt(struct fuse_mount *mount,
			    const struct interrupt *interrupt, int error)
{
	const struct fuse_out_header out = {
		.len = sizeof(out), .error = error, .unique = interrupt->id,
	};

	return write(mount->dev_fd, &out, sizeof(out)) < 0 ? -errno : 0;
}

/* A signal that has reached the client, which waits on */
static void interrupt_waiter(struct __test_metadata *_metadata,
			     FIXTURE_DATA(interrupt) * self)
{
	ASSERT_EQ(0, client_wait_asleep(&self->waiter));
	client_kill(&self->waiter, SIGUSR1);
	/* From here on only a fatal signal would end the wait. */
	ASSERT_EQ(0, client_wait_blocked(&self->waiter));
}

/* The client has a request with the server that can be interrupted. */
static void start_waiter(struct __test_metadata *_metadata,
			 FIXTURE_DATA(interrupt) * self,
			 struct server_request *request)
{
	ASSERT_EQ(0, client_start(&self->waiter, self->cpu, wait_for_lock,
				  mount_path(&self->mount, "data")));
	ASSERT_EQ(0, mount_wait_for(&self->mount, FUSE_SETLKW, request));
}

static void expect_interrupt(struct __test_metadata *_metadata,
			     FIXTURE_DATA(interrupt) * self,
			     const struct server_request *request,
			     struct interrupt *interrupt)
{
	ASSERT_EQ(0, read_interrupt(&self->mount, interrupt, WAIT_MS));
	EXPECT_EQ(request->in.unique, interrupt->unique);
	EXPECT_EQ(request->in.unique | INTERRUPT_BIT, interrupt->id);
}

TEST_F(interrupt, a_signal_reaches_a_server_that_has_the_request)
{
	struct interrupt interrupt;
	struct server_request lock;

	start_waiter(_metadata, self, &lock);
	interrupt_waiter(_metadata, self);
	expect_interrupt(_metadata, self, &lock, &interrupt);
	ASSERT_EQ(0, request_reply(&lock, -EINTR, NULL, 0));
	EXPECT_EQ(-EINTR, client_wait_served(&self->mount, &self->waiter));
	EXPECT_EQ(0, mount_works(&self->mount));
}

/* It waits for the entry or the buffer that the holder's request has. */
TEST_F(interrupt, a_signal_that_comes_before_it_is_sent_follows_the_request)
{
	struct server_request held, request;
	struct interrupt interrupt;

	ASSERT_EQ(0, client_start(&self->holder, self->cpu, read_link,
				  mount_path(&self->mount, "link")));
	ASSERT_EQ(0, mount_wait_for(&self->mount, FUSE_READLINK, &held));
	/* The LOOKUP of "link" has been done: this is a READLINK, too. */
	ASSERT_EQ(0, client_start(&self->waiter, self->cpu,
				  read_link_with_handler,
				  mount_path(&self->mount, "link")));
	ASSERT_EQ(0, mount_wait_until_waiting(&self->mount, 2));
	interrupt_waiter(_metadata, self);
	EXPECT_EQ(-ETIMEDOUT, read_interrupt(&self->mount, &interrupt,
					     SILENCE_MS));

	ASSERT_EQ(0, request_reply(&held, -EIO, NULL, 0));
	ASSERT_EQ(0, mount_wait_for(&self->mount, FUSE_READLINK, &request));
	expect_interrupt(_metadata, self, &request, &interrupt);
	ASSERT_EQ(0, request_reply(&request, -EINTR, NULL, 0));
	EXPECT_EQ(-EIO, client_wait(&self->holder, WAIT_MS));
	EXPECT_EQ(-EINTR, client_wait(&self->waiter, WAIT_MS));
	EXPECT_EQ(0, mount_works(&self->mount));
}

TEST_F(interrupt, one_that_is_answered_with_EAGAIN_comes_again)
{
	struct interrupt interrupt, nothing;
	struct server_request lock;
	unsigned int round;

	start_waiter(_metadata, self, &lock);
	interrupt_waiter(_metadata, self);
	for (round = 0; round < 3; round++) {
		expect_interrupt(_metadata, self, &lock, &interrupt);
		EXPECT_EQ(0, answer_interrupt(&self->mount, &interrupt,
					      -EAGAIN));
	}
	expect_interrupt(_metadata, self, &lock, &interrupt);
	EXPECT_EQ(-ETIMEDOUT, read_interrupt(&self->mount, &nothing,
					     SILENCE_MS));
	ASSERT_EQ(0, request_reply(&lock, -EINTR, NULL, 0));
	EXPECT_EQ(-EINTR, client_wait_served(&self->mount, &self->waiter));
	EXPECT_EQ(0, mount_works(&self->mount));
}

TEST_F(interrupt, one_that_was_answered_with_ENOSYS_was_the_last)
{
	struct interrupt interrupt;
	struct server_request lock;

	start_waiter(_metadata, self, &lock);
	interrupt_waiter(_metadata, self);
	expect_interrupt(_metadata, self, &lock, &interrupt);
	EXPECT_EQ(0, answer_interrupt(&self->mount, &interrupt, -ENOSYS));
	ASSERT_EQ(0, request_reply(&lock, 0, NULL, 0));
	EXPECT_EQ(0, client_wait_served(&self->mount, &self->waiter));

	start_waiter(_metadata, self, &lock);
	/* This client does not wait for a signal at all. */
	ASSERT_EQ(0, client_wait_blocked(&self->waiter));
	client_kill(&self->waiter, SIGUSR1);
	EXPECT_EQ(-ETIMEDOUT, read_interrupt(&self->mount, &interrupt,
					     SILENCE_MS));
	ASSERT_EQ(0, request_reply(&lock, 0, NULL, 0));
	EXPECT_EQ(0, client_wait_served(&self->mount, &self->waiter));
}

TEST_F(interrupt, one_that_is_answered_with_data_is_refused)
{
	struct {
		struct fuse_out_header header;
		__u64 data;
	} answer = { .header.len = sizeof(answer) };
	struct interrupt interrupt;
	struct server_request lock;

	start_waiter(_metadata, self, &lock);
	interrupt_waiter(_metadata, self);
	expect_interrupt(_metadata, self, &lock, &interrupt);
	answer.header.unique = interrupt.id;
	EXPECT_EQ(-1, write(self->mount.dev_fd, &answer, sizeof(answer)));
	EXPECT_EQ(EINVAL, errno);
	ASSERT_EQ(0, request_reply(&lock, -EINTR, NULL, 0));
	EXPECT_EQ(-EINTR, client_wait_served(&self->mount, &self->waiter));
}

TEST_F(interrupt, an_answer_for_a_request_that_was_not_interrupted_is_refused)
{
	struct interrupt interrupt;
	struct server_request lock;

	start_waiter(_metadata, self, &lock);
	interrupt.id = lock.in.unique | INTERRUPT_BIT;
	EXPECT_EQ(-EINVAL, answer_interrupt(&self->mount, &interrupt, -EAGAIN));
	EXPECT_EQ(-ETIMEDOUT, read_interrupt(&self->mount, &interrupt,
					     SILENCE_MS));
	ASSERT_EQ(0, request_reply(&lock, 0, NULL, 0));
	EXPECT_EQ(0, client_wait_served(&self->mount, &self->waiter));
}

TEST_F(interrupt, an_answer_for_a_request_that_has_ended_is_ignored)
{
	struct interrupt interrupt;
	struct server_request lock;

	start_waiter(_metadata, self, &lock);
	interrupt_waiter(_metadata, self);
	expect_interrupt(_metadata, self, &lock, &interrupt);
	ASSERT_EQ(0, request_reply(&lock, -EINTR, NULL, 0));
	EXPECT_EQ(-EINTR, client_wait_served(&self->mount, &self->waiter));
	EXPECT_EQ(-ENOENT, answer_interrupt(&self->mount, &interrupt, -EAGAIN));
	EXPECT_EQ(-ETIMEDOUT, read_interrupt(&self->mount, &interrupt,
					     SILENCE_MS));
	EXPECT_EQ(0, mount_works(&self->mount));
}

/* Nothing of it is left in the queues when the connection ends. */
TEST_F(interrupt, an_abort_ends_a_request_whose_INTERRUPT_waits)
{
	struct server_request lock;

	start_waiter(_metadata, self, &lock);
	interrupt_waiter(_metadata, self);
	ASSERT_EQ(0, mount_abort(&self->mount));
	EXPECT_EQ(-ECONNABORTED, client_wait(&self->waiter, WAIT_MS));
}

FUSE_TEST_MAIN(NEEDS_RING)
