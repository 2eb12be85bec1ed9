// SPDX-License-Identifier: GPL-2.0
/*
 * A command that is cancelled when its entry has another one already.
 *
 * io-wq runs the command that commits the first request and fetches the
 * second. It then has to wait for the lock of its io_uring, which somebody has
 * while memory is pinned for fixed buffers. Meanwhile the second request is
 * committed through another io_uring, where the entry waits from then on, and
 * the task of the first command ends, which cancels that command.
 *
 * Pages of memory come from files on another mount, so that the test decides
 * when they arrive.
 */
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "test_fs.h"
#include "variants.h"

#define MAX_WRITE 4096
#define FILE_SIZE 16384
#define HEADERS_SIZE 4096
#define SLOW_TEST_S 120	/* for an emulated debug kernel */

struct shared;

FIXTURE(cancel)
{
	struct fuse_mount mount;	/* of the entry */
	struct fuse_mount other;	/* of the slow files */
	struct test_fs fs;
	struct client server;
	unsigned int qid;
	struct shared *shared;
};

FIXTURE_VARIANT(cancel)
{
	struct queue_mode mode;
};

ADD_VARIANT(cancel, entries, .depth = 1);
ADD_VARIANT(cancel, bufpool, .depth = 1);

/* How far the server's threads are, and may go: flags, and ids of threads */
struct shared {
	unsigned int committed_first;	/* io-wq has the first commit */
	unsigned int may_lock;
	unsigned int may_exit;
	unsigned int may_commit_second;
	unsigned int committed_second;
	unsigned int committer;
	int committer_error;
};

struct server {
	struct fuse_mount *mount;
	struct fuse_mount *other;
	struct test_fs *fs;
	const struct queue_mode *mode;
	struct server_queue *first;	/* queue of the entry */
	struct server_queue second;	/* the same, another io_uring */
	struct shared *shared;
};

FIXTURE_SETUP(cancel)
{
	const struct mount_options options = {
		.max_write = MAX_WRITE, .no_device_server = true,
	};
	const struct queue_mode entries = { .depth = 4 };
	const char *impossible = ring_tests_impossible();

	if (impossible)
		SKIP(return, "%s", impossible);
	impossible = dangerous_impossible();
	if (impossible)
		SKIP(return, "%s", impossible);
	self->qid = first_usable_cpu();
	self->shared = mmap(NULL, sizeof(*self->shared), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->shared);
	ASSERT_EQ(0, test_fs_open(&self->fs, FILE_SIZE));
	self->fs.open_flags = FOPEN_NOFLUSH;
	ASSERT_EQ(0, test_fs_mount(&self->fs, &self->mount, &options));
	impossible = mode_impossible(&self->mount, &variant->mode);
	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(0, test_fs_mount(&self->fs, &self->other, NULL));
	ASSERT_EQ(0, mount_serve_in_steps(&self->other, &entries));
}

FIXTURE_TEARDOWN(cancel)
{
	if (self->server.pid)
		EXPECT_EQ(0, server_kill(&self->server));
	mount_close(&self->mount);
	mount_close(&self->other);
	test_fs_close(&self->fs);
}

static void set_flag(unsigned int *flag)
{
	__atomic_store_n(flag, 1, __ATOMIC_SEQ_CST);
}

/*
 * The server: a process with three threads
 */

static int open_slow_file(struct server *server, const char *name)
{
	int fd = open(mount_path(server->other, name), O_RDWR);

	return fd < 0 ? -errno : fd;
}

/* Holds the lock of the first io_uring until a page of "data" comes. */
static void *lock_first_ring(void *arg)
{
	struct server *server = arg;
	struct iovec memory = { .iov_len = FILE_SIZE };
	int fd = open_slow_file(server, "data");

	if (fd < 0 || wait_for_count(&server->shared->may_lock, 1))
		return NULL;
	memory.iov_base = mmap(NULL, memory.iov_len, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE, fd, 0);
	if (memory.iov_base != MAP_FAILED)
		io_uring_register_buffers(&server->first->ring, &memory, 1);
	return NULL;
}

/* The reply that is in the header comes from a file, slowly. */
static int make_header_slow(struct server *server)
{
	struct iovec *headers = &server->first->memory.headers;
	int fd = open_slow_file(server, "opted_in");

	if (fd < 0)
		return fd;
	memcpy(server->fs->data[NODE_OPTED_IN], headers->iov_base, HEADERS_SIZE);
	return mmap(headers->iov_base, headers->iov_len,
		    PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd,
		    0) == MAP_FAILED ? -errno : 0;
}

/* The command that was prepared last is run by io-wq. */
static void make_async(struct io_uring *ring)
{
	unsigned int last = (ring->sq.sqe_tail - 1) & *ring->sq.kring_mask;

	/* SQE128: each takes the place of two. */
	ring->sq.sqes[last << 1].flags |= IOSQE_ASYNC;
}

static int commit_by_io_wq(struct server *server)
{
	struct server_queue *queue = server->first;
	struct server_request first;
	int err;

	err = mount_wait(server->mount, &first, WAIT_MS);
	if (err)
		return err;
	request_fill_reply(&first, -ENODATA, NULL, 0);
	err = make_header_slow(server);
	if (err)
		return err;
	queue_prepare_commit(queue, first.slot, queue->qid, first.commit_id);
	make_async(&queue->ring);
	return io_uring_submit(&queue->ring) == 1 ? 0 : -EIO;
}

/*
 * The exit of a thread cancels its requests only if one of them is for an
 * io_uring: this one waits for what never happens to one.
 */
static int wait_for_another_ring(struct server *server)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&server->first->ring);

	if (!sqe)
		return -EBUSY;
	io_uring_prep_poll_add(sqe, server->second.ring.ring_fd, POLLPRI);
	sqe->user_data = -1;
	return io_uring_submit(&server->first->ring) == 1 ? 0 : -EIO;
}

/* Its end cancels the first command. */
static void *commit_first(void *arg)
{
	struct server *server = arg;
	struct shared *shared = server->shared;
	unsigned int qid;
	int err = 0;

	__atomic_store_n(&shared->committer, gettid(), __ATOMIC_SEQ_CST);
	for (qid = 0; qid < server->mount->nr_queues && !err; qid++)
		err = queue_register_all(&server->mount->queues[qid]);
	if (!err)
		err = wait_for_another_ring(server);
	shared->committer_error = err ?: commit_by_io_wq(server);
	set_flag(&shared->committed_first);
	wait_for_count(&shared->may_exit, 1);
	return NULL;
}

static void pause_a_moment(void)
{
	nanosleep(&(const struct timespec) { .tv_nsec = 1000000 }, NULL);
}

/* Waits until io-wq has written the second request to the headers. */
static int wait_for_second(struct server *server, __u64 *id)
{
	const struct fuse_uring_req_header *header =
		server->first->memory.headers.iov_base;
	const volatile struct fuse_in_header *in =
		(const volatile void *)header->in_out;
	const volatile struct fuse_uring_ent_in_out *entry =
		&header->ring_ent_in_out;
	__u64 deadline = now_ms() + WAIT_MS;

	/* First there is the header of the reply to the first one. */
	while (in->opcode != FUSE_GETXATTR || in->unique != entry->commit_id) {
		if (!ms_until(deadline))
			return -ETIMEDOUT;
		pause_a_moment();
	}
	*id = entry->commit_id;
	return 0;
}

/* It is there a moment before it can be committed. */
static int commit_second(struct server *server, __u64 id)
{
	struct server_queue *queue = &server->second;
	struct fuse_uring_req_header *header = queue->memory.headers.iov_base;
	const struct fuse_out_header out = {
		.len = sizeof(out), .error = -ENODATA, .unique = id,
	};
	__u64 deadline = now_ms() + WAIT_MS;
	int err;

	memcpy(header->in_out, &out, sizeof(out));
	for (;;) {
		err = queue_send_commit(queue, 0, queue->qid, id);
		if (err != -ENOENT || !ms_until(deadline))
			return err;
		pause_a_moment();
	}
}

/* The third one has to come to the second io_uring. */
static int answer_third(struct server *server)
{
	struct server_request third;
	int err = queue_reap(&server->second, WAIT_MS);

	if (err)
		return err;
	if (!queue_take(&server->second, &third))
		return -ETIMEDOUT;
	return request_reply(&third, -ENODATA, NULL, 0);
}

static int open_queues(struct server *server)
{
	struct fuse_mount *mount = server->mount;
	unsigned int qid;
	int err = 0;

	/* Several threads use them: no IORING_SETUP_SINGLE_ISSUER */
	for (qid = 0; qid < mount->nr_queues && !err; qid++)
		err = queue_open_with(&mount->queues[qid], mount, qid,
				      server->mode, 0, 0);
	return err ?: queue_open_second(&server->second, server->first, 0, 0);
}

static long serve(void *arg)
{
	struct server *server = arg;
	struct shared *shared = server->shared;
	pthread_t committer, locker;
	__u64 id;
	int err;

	err = open_queues(server);
	if (!err)
		err = -pthread_create(&committer, NULL, commit_first, server);
	if (!err)
		err = -pthread_create(&locker, NULL, lock_first_ring, server);
	if (!err)
		err = wait_for_count(&shared->committed_first, 1);
	err = err ?: shared->committer_error;
	if (!err)
		err = wait_for_count(&shared->may_commit_second, 1);
	if (!err)
		err = wait_for_second(server, &id);
	if (!err)
		err = commit_second(server, id);
	if (!err)
		set_flag(&shared->committed_second);
	return err ?: answer_third(server);
}

/*
 * The test
 */

static long get_value(void *arg)
{
	char value[16];

	return getxattr(arg, "u", value, sizeof(value)) < 0 ? -errno : 0;
}

static int start_getxattr(FIXTURE_DATA(cancel) * self, struct client *client)
{
	return client_start(client, self->qid, get_value, self->mount.dir);
}

/* Holds a READ of that file. */
static void wait_for_read(struct __test_metadata *_metadata,
			  FIXTURE_DATA(cancel) * self, __u64 node,
			  struct server_request *read)
{
	ASSERT_EQ(0, mount_wait_for(&self->other, FUSE_READ, read));
	ASSERT_EQ(node, read->in.nodeid);
}

static void wait_until_blocked(struct __test_metadata *_metadata,
			       unsigned int *tid)
{
	struct client thread = { };

	ASSERT_EQ(0, wait_for_count(tid, 1));
	thread.pid = *tid;
	ASSERT_EQ(0, client_wait_blocked(&thread));
}

TEST_F_TIMEOUT(cancel, a_command_whose_entry_has_another_one_is_not_cancelled,
	       SLOW_TEST_S)
{
	struct server server = {
		.mount = &self->mount, .other = &self->other, .fs = &self->fs,
		.mode = &variant->mode,
		.first = &self->mount.queues[self->qid],
		.shared = self->shared,
	};
	struct server_request header_read, buffers_read;
	struct shared *shared = self->shared;
	struct client client[3];
	unsigned int n;

	ASSERT_EQ(0, server_start(&self->server, serve, &server));
	mount_close_device(&self->mount);
	for (n = 0; n < 2; n++) {
		ASSERT_EQ(0, start_getxattr(self, &client[n]));
		ASSERT_EQ(0, mount_wait_until_waiting(&self->mount, n + 1));
		ASSERT_EQ(0, client_wait_asleep(&client[n]));
	}

	/* io-wq waits for the reply to the first one. */
	wait_for_read(_metadata, self, NODE_OPTED_IN, &header_read);
	set_flag(&shared->may_lock);
	wait_for_read(_metadata, self, NODE_DATA, &buffers_read);
	/* First in line for the lock is the thread whose exit cancels, */
	set_flag(&shared->may_exit);
	wait_until_blocked(_metadata, &shared->committer);
	/* the next one io-wq, when it completes the command. */
	ASSERT_EQ(0, request_answer(&header_read));
	set_flag(&shared->may_commit_second);
	ASSERT_EQ(0, wait_for_count(&shared->committed_second, 1));
	EXPECT_EQ(-ENODATA, client_wait(&client[0], WAIT_MS));
	EXPECT_EQ(-ENODATA, client_wait(&client[1], WAIT_MS));

	ASSERT_EQ(0, request_answer(&buffers_read));
	/* The entry is still there, and waits with the second io_uring. */
	ASSERT_EQ(0, start_getxattr(self, &client[2]));
	EXPECT_EQ(0, server_result_served(&self->other, &self->server));
	EXPECT_EQ(-ENODATA, client_wait(&client[2], WAIT_MS));
}

TEST_HARNESS_MAIN
