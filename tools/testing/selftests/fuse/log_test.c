// SPDX-License-Identifier: GPL-2.0
/*
 * What a server can make the kernel log say: nothing that warns of a fault of
 * the kernel, and no more lines than somebody can read.
 */
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "test_fs.h"
#include "variants.h"

#define KIB 1024
#define SLOW_TEST_S 120		/* for an emulated debug kernel */

/* The rate limit of printk: so many lines of a kind in so many milliseconds */
#define LIMIT_LINES 10
#define LIMIT_MS 5000

/* A descriptor from which only lines to come are read, or a negative errno */
static int open_log(void)
{
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	if (fd >= 0 && lseek(fd, 0, SEEK_END) < 0) {
		close(fd);
		fd = -1;
	}
	return fd < 0 ? -errno : fd;
}

/* Reads what has come: how many lines of it contain @text */
static unsigned int count_lines(int fd, const char *text)
{
	unsigned int lines = 0;
	char record[2048];
	ssize_t len;

	for (;;) {
		len = read(fd, record, sizeof(record) - 1);
		if (len < 0 && errno == EPIPE)
			continue;	/* some were overwritten */
		if (len <= 0)
			return lines;
		record[len] = '\0';
		if (strstr(record, text))
			lines++;
	}
}

/* Waits for such a line. -ETIMEDOUT if none comes */
static int wait_for_line(int fd, const char *text, int ms)
{
	struct pollfd pollfd = { .fd = fd, .events = POLLIN };
	__u64 deadline = now_ms() + ms;

	while (poll(&pollfd, 1, ms_until(deadline)) == 1)
		if (count_lines(fd, text))
			return 0;
	return -ETIMEDOUT;
}

FIXTURE(log)
{
	struct fuse_mount mount;
	struct test_fs fs;
	struct client client;
	struct server_request request;
	int log_fd;
};

FIXTURE_VARIANT(log)
{
	struct queue_mode mode;
};

ADD_ALL_VARIANTS(log, .depth = 2);

static long get_value(void *arg)
{
	char value[16];
	ssize_t len = getxattr(arg, "u", value, sizeof(value));

	return len < 0 ? -errno : len;
}

FIXTURE_SETUP(log)
{
	const char *impossible = ring_tests_impossible();

	if (impossible)
		SKIP(return, "%s", impossible);
	self->log_fd = open_log();
	if (self->log_fd < 0)
		SKIP(return, "/dev/kmsg: %s", strerror(-self->log_fd));
	ASSERT_EQ(0, test_fs_open(&self->fs, 4096));
	ASSERT_EQ(0, test_fs_mount(&self->fs, &self->mount, NULL));
	impossible = mode_impossible(&self->mount, &variant->mode);
	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(0, mount_serve_in_steps(&self->mount, &variant->mode));
	ASSERT_EQ(0, client_start(&self->client, first_usable_cpu(), get_value,
				  self->mount.dir));
	ASSERT_EQ(0, mount_wait_for(&self->mount, FUSE_GETXATTR,
				    &self->request));
}

FIXTURE_TEARDOWN(log)
{
	mount_close(&self->mount);
	test_fs_close(&self->fs);
	close(self->log_fd);
}

static int commit_unknown_id(const struct server_request *request)
{
	return queue_send_commit(request->queue, request->slot,
				 request->queue->qid, request->commit_id + 2);
}

TEST_F(log, unknown_commit_ids_do_not_flood_it)
{
	struct server_request *request = &self->request;
	unsigned int n, lines;
	__u64 begin;

	/* What a test before this one has left of what is allowed */
	for (n = 0; n < LIMIT_LINES; n++)
		ASSERT_EQ(-ENOENT, commit_unknown_id(request));
	count_lines(self->log_fd, "not found");

	begin = now_ms();
	for (n = 0; n < 200; n++)
		ASSERT_EQ(-ENOENT, commit_unknown_id(request));
	lines = count_lines(self->log_fd, "not found");
	EXPECT_GE(LIMIT_LINES * (1 + (now_ms() - begin) / LIMIT_MS), lines);
	/* It may be none now, but not in all of the log. */
	ASSERT_EQ(0, lseek(self->log_fd, 0, SEEK_SET));
	EXPECT_LE(1, count_lines(self->log_fd, "commit_id"));
	ASSERT_EQ(0, request_answer(request));
	EXPECT_EQ(-ENODATA, client_wait_served(&self->mount, &self->client));
}

TEST_F(log, a_reply_with_the_id_of_an_interrupt_is_no_fault_of_the_kernel)
{
	struct server_request *request = &self->request;
	const struct fuse_out_header out = {
		.len = sizeof(out), .unique = request->in.unique | 1,
	};

	request_fill_reply(request, 0, NULL, 0);
	memcpy(request->header->in_out, &out, sizeof(out));
	EXPECT_EQ(0, queue_send_commit(request->queue, request->slot,
				       request->queue->qid,
				       request->commit_id));
	EXPECT_EQ(-ENOENT, client_wait_served(&self->mount, &self->client));
	EXPECT_EQ(0, count_lines(self->log_fd, "WARNING:"));
	EXPECT_EQ(0, mount_works(&self->mount));
}

/* Data that the server asks for comes as a request with the id it chose. */
TEST_F(log, a_retrieve_with_the_id_0_is_no_fault_of_the_kernel)
{
	const struct {
		struct fuse_out_header header;
		struct fuse_notify_retrieve_out retrieve;
	} note = {
		.header = { .len = sizeof(note), .error = FUSE_NOTIFY_RETRIEVE },
		.retrieve = { .nodeid = NODE_DATA, .size = 1 },
	};

	ASSERT_EQ(0, request_answer(&self->request));
	EXPECT_EQ(-ENODATA, client_wait_served(&self->mount, &self->client));
	/* The kernel knows the file from now on. */
	ASSERT_EQ(-ENODATA,
		  client_call_served(&self->mount, ANY_CPU, get_value,
				     mount_path(&self->mount, "data")));
	ASSERT_EQ(sizeof(note), write(self->mount.dev_fd, &note, sizeof(note)));
	EXPECT_EQ(0, mount_expect_silence(&self->mount));
	EXPECT_EQ(0, count_lines(self->log_fd, "WARNING:"));
	EXPECT_EQ(0, mount_works(&self->mount));
}

/*
 * An abort while a request is copied to memory that does not come: the headers
 * of the ring are a mapping of a file on another mount.
 */

#define MAX_WRITE 4096
/* From when on the abort says which entries it waits for */
#define ABORT_IS_SLOW_MS 5000
/* How often it looks for them */
#define ABORT_LOOKS_MS 50

FIXTURE(slow_abort)
{
	struct fuse_mount mount;	/* of the ring */
	struct fuse_mount other;	/* of the file */
	struct test_fs fs;
	struct client server;
	int log_fd;
};

FIXTURE_VARIANT(slow_abort)
{
	struct queue_mode mode;
};

ADD_VARIANT(slow_abort, entries, .depth = 1);
ADD_VARIANT(slow_abort, bufpool, .depth = 1);

FIXTURE_SETUP(slow_abort)
{
	const struct mount_options options = {
		.max_write = MAX_WRITE, .no_device_server = true,
	};
	const struct queue_mode entries = { .depth = 4 };
	const char *impossible = ring_tests_impossible();

	if (impossible)
		SKIP(return, "%s", impossible);
	self->log_fd = open_log();
	if (self->log_fd < 0)
		SKIP(return, "/dev/kmsg: %s", strerror(-self->log_fd));
	ASSERT_EQ(0, test_fs_open(&self->fs, 16 * KIB));
	self->fs.open_flags = FOPEN_NOFLUSH;
	ASSERT_EQ(0, test_fs_mount(&self->fs, &self->mount, &options));
	impossible = mode_impossible(&self->mount, &variant->mode);
	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(0, test_fs_mount(&self->fs, &self->other, NULL));
	ASSERT_EQ(0, mount_serve_in_steps(&self->other, &entries));
}

FIXTURE_TEARDOWN(slow_abort)
{
	if (self->server.pid)
		EXPECT_EQ(0, server_kill(&self->server));
	mount_close(&self->mount);
	mount_close(&self->other);
	test_fs_close(&self->fs);
	close(self->log_fd);
}

struct slow_server {
	struct fuse_mount *mount;
	struct fuse_mount *other;
	const struct queue_mode *mode;
};

static int register_with_slow_headers(struct slow_server *server,
				      unsigned int qid, int fd)
{
	struct server_queue *queue = &server->mount->queues[qid];
	struct iovec *headers = &queue->memory.headers;
	int err = queue_open(server->mount, qid, server->mode);

	if (!err && mmap(headers->iov_base, headers->iov_len,
			 PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd,
			 0) == MAP_FAILED)
		err = -errno;
	return err ?: queue_register(queue, 0);
}

static long deliver_slowly(void *arg)
{
	struct slow_server *server = arg;
	int fd = open(mount_path(server->other, "data"), O_RDWR);
	int err = fd < 0 ? -errno : 0;
	unsigned int qid;

	for (qid = 0; qid < server->mount->nr_queues && !err; qid++)
		err = register_with_slow_headers(server, qid, fd);
	for (qid = 0; qid < server->mount->nr_queues && !err; qid++)
		err = queue_wait_all_dead(&server->mount->queues[qid]);
	return err;
}

TEST_F_TIMEOUT(slow_abort, lists_the_entries_it_waits_for_only_once,
	       SLOW_TEST_S)
{
	struct slow_server server = {
		.mount = &self->mount, .other = &self->other,
		.mode = &variant->mode,
	};
	struct server_request read;
	struct client client;

	ASSERT_EQ(0, server_start(&self->server, deliver_slowly, &server));
	mount_close_device(&self->mount);
	ASSERT_EQ(0, client_start(&client, first_usable_cpu(), get_value,
				  self->mount.dir));
	ASSERT_EQ(0, mount_wait_for(&self->other, FUSE_READ, &read));
	ASSERT_EQ(0, mount_abort(&self->mount));
	ASSERT_EQ(0, wait_for_line(self->log_fd, "ent-req-queue",
				   ABORT_IS_SLOW_MS + WAIT_MS));
	EXPECT_EQ(-ETIMEDOUT, wait_for_line(self->log_fd, "ent-req-queue",
					    20 * ABORT_LOOKS_MS));
	ASSERT_EQ(0, request_answer(&read));
	EXPECT_EQ(0, server_result_served(&self->other, &self->server));
	EXPECT_EQ(-ECONNABORTED, client_wait(&client, WAIT_MS));
}

FUSE_TEST_MAIN(NEEDS_RING)
