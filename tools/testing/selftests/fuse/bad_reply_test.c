// SPDX-License-Identifier: GPL-2.0
/*
 * Replies that no server should send: each fails the request it is for, or
 * itself, and nothing else.
 */
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "test_fs.h"
#include "variants.h"

#define KIB 1024
#define MIB (1024 * 1024)
#define VALUE_SIZE 1000
#define SLOW_TEST_S 120	/* for an emulated debug kernel */

FIXTURE(bad_reply)
{
	struct fuse_mount mount;
	struct test_fs fs;
	struct client client;
	struct server_request request;
};

FIXTURE_VARIANT(bad_reply)
{
	struct queue_mode mode;
};

ADD_VARIANT(bad_reply, entries, .depth = 2);
ADD_BUFPOOL_VARIANTS(bad_reply, .depth = 2);
ADD_BUFRING_VARIANTS(bad_reply, .depth = 2, .nr_pools = 2,
		     .pool = { { 4 * KIB, 1 }, { MIB, 1 } });

/* A request whose reply may have up to VALUE_SIZE bytes */
static long get_value(void *arg)
{
	char value[VALUE_SIZE];
	ssize_t len = getxattr(arg, "u", value, sizeof(value));

	return len < 0 ? -errno : len;
}

FIXTURE_SETUP(bad_reply)
{
	const char *impossible = ring_tests_impossible();

	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(0, test_fs_open(&self->fs, 4096));
	self->mount.answer = test_fs_answer;
	self->mount.fs = &self->fs;
	ASSERT_EQ(0, mount_open(&self->mount, NULL));
	impossible = mode_impossible(&self->mount, &variant->mode);
	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(0, mount_serve_in_steps(&self->mount, &variant->mode));
	ASSERT_EQ(0, client_start(&self->client, first_usable_cpu(), get_value,
				  self->mount.dir));
	ASSERT_EQ(0, mount_wait_for(&self->mount, FUSE_GETXATTR,
				    &self->request));
}

FIXTURE_TEARDOWN(bad_reply)
{
	mount_close(&self->mount);
	test_fs_close(&self->fs);
}

/* The client got this, and the mount goes on working. */
static void check_client(struct __test_metadata *_metadata,
			 FIXTURE_DATA(bad_reply) * self, long expected)
{
	unsigned int round;

	EXPECT_EQ(expected, client_wait_served(&self->mount, &self->client));
	/* More often than there are entries or buffers */
	for (round = 0; round < 5; round++)
		EXPECT_EQ(0, mount_works(&self->mount));
}

static int commit_with_size(struct server_request *request, __u32 payload_sz)
{
	request_fill_reply(request, 0, NULL, 0);
	request->header->ring_ent_in_out.payload_sz = payload_sz;
	return queue_send_commit(request->queue, request->slot,
				 request->queue->qid, request->commit_id);
}

TEST_F(bad_reply, the_longest_payload_is_accepted)
{
	EXPECT_EQ(0, commit_with_size(&self->request, VALUE_SIZE));
	check_client(_metadata, self, VALUE_SIZE);
}

TEST_F(bad_reply, a_payload_longer_than_the_request_wants_fails_it)
{
	EXPECT_EQ(0, commit_with_size(&self->request, VALUE_SIZE + 1));
	check_client(_metadata, self, -EINVAL);
}

TEST_F(bad_reply, a_payload_longer_than_the_buffer_fails_the_request)
{
	EXPECT_EQ(0, commit_with_size(&self->request, 4 * KIB + 1));
	check_client(_metadata, self, -EINVAL);
}

TEST_F(bad_reply, a_payload_longer_than_everything_fails_the_request)
{
	EXPECT_EQ(0, commit_with_size(&self->request, 0xffffffff));
	check_client(_metadata, self, -EINVAL);
}

static long get_attributes(void *arg)
{
	struct stat st;

	return stat(arg, &st) ? -errno : 0;
}

TEST_F(bad_reply, a_payload_shorter_than_the_reply_must_be_fails_the_request)
{
	EXPECT_EQ(0, commit_with_size(&self->request, 0));
	EXPECT_EQ(0, client_wait_served(&self->mount, &self->client));
	ASSERT_EQ(0, client_start(&self->client, first_usable_cpu(),
				  get_attributes, self->mount.dir));
	ASSERT_EQ(0, mount_wait_for(&self->mount, FUSE_GETATTR,
				    &self->request));
	EXPECT_EQ(0, commit_with_size(&self->request,
				      sizeof(struct fuse_attr_out) - 1));
	check_client(_metadata, self, -EINVAL);
}

static int commit_with_header(struct server_request *request, int error,
			      __u64 unique)
{
	struct fuse_out_header out = {
		.len = sizeof(out), .error = error, .unique = unique,
	};

	request_fill_reply(request, 0, NULL, 0);
	memcpy(request->header->in_out, &out, sizeof(out));
	return queue_send_commit(request->queue, request->slot,
				 request->queue->qid, request->commit_id);
}

TEST_F(bad_reply, an_error_reaches_the_client)
{
	EXPECT_EQ(0, commit_with_header(&self->request, -EDOM,
					self->request.in.unique));
	check_client(_metadata, self, -EDOM);
}

TEST_F(bad_reply, a_positive_error_fails_the_request)
{
	EXPECT_EQ(0, commit_with_header(&self->request, 5,
					self->request.in.unique));
	check_client(_metadata, self, -EINVAL);
}

TEST_F(bad_reply, an_internal_error_of_the_kernel_fails_the_request)
{
	/* ERESTARTSYS */
	EXPECT_EQ(0, commit_with_header(&self->request, -512,
					self->request.in.unique));
	check_client(_metadata, self, -EINVAL);
}

TEST_F(bad_reply, another_unique_id_fails_the_request)
{
	EXPECT_EQ(0, commit_with_header(&self->request, 0,
					self->request.in.unique + 2));
	check_client(_metadata, self, -ENOENT);
}

TEST_F(bad_reply, the_unique_id_of_an_interrupt_fails_the_request)
{
	/* A kernel without the fix warns about it, and the result is the same. */
	EXPECT_EQ(0, commit_with_header(&self->request, 0,
					self->request.in.unique | 1));
	check_client(_metadata, self, -ENOENT);
}

/* Data that the server asks for comes as a request with the id it gave. */
TEST_F(bad_reply, a_retrieve_with_the_id_0_gets_no_answer)
{
	struct {
		struct fuse_out_header header;
		struct fuse_notify_retrieve_out retrieve;
	} note = {
		.header = { .len = sizeof(note), .error = FUSE_NOTIFY_RETRIEVE },
		.retrieve = { .nodeid = NODE_DATA, .size = 1 },
	};

	ASSERT_EQ(0, request_answer(&self->request));
	check_client(_metadata, self, -ENODATA);
	/* The kernel knows the file from now on. */
	ASSERT_EQ(-ENODATA,
		  client_call_served(&self->mount, ANY_CPU, get_value,
				     mount_path(&self->mount, "data")));
	ASSERT_EQ(sizeof(note), write(self->mount.dev_fd, &note, sizeof(note)));
	EXPECT_EQ(0, mount_expect_silence(&self->mount));
	EXPECT_EQ(0, mount_works(&self->mount));
}

TEST_F(bad_reply, a_notification_fails_the_request)
{
	EXPECT_EQ(0, commit_with_header(&self->request, 1, 0));
	check_client(_metadata, self, -EINVAL);
}

TEST_F(bad_reply, a_wrong_commit_id_is_refused_and_the_request_stays)
{
	struct server_request *request = &self->request;

	request_fill_reply(request, 0, NULL, 0);
	EXPECT_EQ(-ENOENT, queue_send_commit(request->queue, request->slot,
					     request->queue->qid,
					     request->commit_id + 2));
	EXPECT_TRUE(client_runs(&self->client));
	EXPECT_EQ(0, request_reply(request, 0, NULL, 7));
	check_client(_metadata, self, 7);
}

TEST_F(bad_reply, a_second_commit_is_refused)
{
	struct server_request *request = &self->request;

	EXPECT_EQ(0, request_reply(request, 0, NULL, 7));
	EXPECT_EQ(-ENOENT, queue_send_commit(request->queue, request->slot,
					     request->queue->qid,
					     request->commit_id));
	check_client(_metadata, self, 7);
}

TEST_F(bad_reply, a_queue_number_over_the_cpus_is_refused)
{
	struct server_request *request = &self->request;

	request_fill_reply(request, 0, NULL, 0);
	EXPECT_EQ(-EINVAL, queue_send_commit(request->queue, request->slot,
					     self->mount.nr_queues,
					     request->commit_id));
	EXPECT_EQ(-EINVAL, queue_send_commit(request->queue, request->slot,
					     65535, request->commit_id));
	EXPECT_EQ(0, request_reply(request, 0, NULL, 7));
	check_client(_metadata, self, 7);
}

TEST_F(bad_reply, another_queue_number_is_refused)
{
	struct server_request *request = &self->request;

	if (self->mount.nr_queues < 2)
		SKIP(return, "one possible CPU makes only one queue");
	request_fill_reply(request, 0, NULL, 0);
	EXPECT_EQ(-ENOENT, queue_send_commit(request->queue, request->slot,
					     !request->queue->qid,
					     request->commit_id));
	EXPECT_EQ(0, request_reply(request, 0, NULL, 7));
	check_client(_metadata, self, 7);
}

/*
 * A thread writes sizes, good and absurd, into the header while the kernel
 * reads it. Every reply is as long as some size that was valid, or fails.
 */
struct scribbler {
	struct fuse_uring_ent_in_out *header;
	bool stop;
};

static void *scribble(void *arg)
{
	static const __u32 sizes[] = { 7, 0xffffffff, 4 * KIB + 1, 0x80000000 };
	struct scribbler *scribbler = arg;
	unsigned int n = 0;

	/* On a single CPU the server and the client come first. */
	if (sched_setscheduler(0, SCHED_IDLE, &(struct sched_param){}))
		complain("SCHED_IDLE: %s", strerror(errno));
	while (!__atomic_load_n(&scribbler->stop, __ATOMIC_RELAXED))
		__atomic_store_n(&scribbler->header->payload_sz,
				 sizes[n++ % ARRAY_SIZE(sizes)],
				 __ATOMIC_RELAXED);
	return NULL;
}

TEST_F_TIMEOUT(bad_reply, a_header_that_changes_while_it_is_read_does_no_harm,
	       SLOW_TEST_S)
{
	struct scribbler scribbler = {
		.header = &self->request.header->ring_ent_in_out,
	};
	pthread_t thread;
	unsigned int round;
	long result;

	ASSERT_EQ(0, pthread_create(&thread, NULL, scribble, &scribbler));
	for (round = 0; round < 50; round++) {
		struct server_request *request = &self->request;
		struct fuse_out_header out = {
			.len = sizeof(out), .unique = request->in.unique,
		};

		memcpy(request->header->in_out, &out, sizeof(out));
		EXPECT_EQ(0, queue_send_commit(request->queue, request->slot,
					       request->queue->qid,
					       request->commit_id));
		result = client_wait(&self->client, WAIT_MS);
		/* 2 is what the kernel wrote: the length of the name. */
		if (result != 2 && result != -EINVAL)
			ASSERT_EQ(7, result);
		ASSERT_EQ(0, client_start(&self->client, first_usable_cpu(),
					  get_value, self->mount.dir));
		ASSERT_EQ(0, mount_wait_for(&self->mount, FUSE_GETXATTR,
					    &self->request));
	}
	__atomic_store_n(&scribbler.stop, true, __ATOMIC_RELAXED);
	ASSERT_EQ(0, join_thread(thread, "the scribbling thread"));
	EXPECT_EQ(0, request_reply(&self->request, 0, NULL, 7));
	check_client(_metadata, self, 7);
}

/*
 * A mount whose requests are small, except for extended attributes: those have
 * up to 64 KiB whatever was negotiated, and so exceed every payload buffer.
 */

#define SMALL_MAX_WRITE 4096
#define SMALL_PAYLOAD smallest_payload()
#define XATTR_SIZE (64 * KIB)

FIXTURE(small_payload)
{
	struct fuse_mount mount;
	struct test_fs fs;
};

FIXTURE_VARIANT(small_payload)
{
	struct queue_mode mode;
};

ADD_ALL_VARIANTS(small_payload, .depth = 2);

FIXTURE_SETUP(small_payload)
{
	const struct mount_options options = { .max_write = SMALL_MAX_WRITE };
	const char *impossible = ring_tests_impossible();

	/* Without the fix it is a BUG(). */
	if (!impossible)
		impossible = dangerous_impossible();
	if (!impossible && SMALL_PAYLOAD >= XATTR_SIZE)
		impossible = "a page holds the largest extended attribute";
	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(0, test_fs_open(&self->fs, 4096));
	ASSERT_EQ(0, test_fs_mount(&self->fs, &self->mount, &options));
	impossible = mode_impossible(&self->mount, &variant->mode);
	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(SMALL_PAYLOAD, self->mount.max_payload);
	ASSERT_EQ(0, mount_serve_in_steps(&self->mount, &variant->mode));
}

FIXTURE_TEARDOWN(small_payload)
{
	mount_close(&self->mount);
	test_fs_close(&self->fs);
}

static long get_large_value(void *arg)
{
	static char value[XATTR_SIZE];
	ssize_t len = getxattr(arg, "u", value, sizeof(value));

	return len < 0 ? -errno : len;
}

/* What the client gets when the server claims a reply of so many bytes */
static long result_of_claim(struct fuse_mount *mount, __u32 payload_sz)
{
	struct server_request request;
	struct client client;
	int err;

	err = client_start(&client, first_usable_cpu(), get_large_value,
			   mount->dir);
	if (!err)
		err = mount_wait_for(mount, FUSE_GETXATTR, &request);
	if (!err)
		err = commit_with_size(&request, payload_sz);
	return err ?: client_wait_served(mount, &client);
}

/* What the request allows and the payload does not have */
TEST_F(small_payload, a_reply_longer_than_any_payload_fails_the_request)
{
	const __u32 sizes[] = {
		SMALL_PAYLOAD + 1, XATTR_SIZE - 1, XATTR_SIZE,
	};
	unsigned int n;

	EXPECT_EQ(SMALL_PAYLOAD, result_of_claim(&self->mount, SMALL_PAYLOAD));
	for (n = 0; n < ARRAY_SIZE(sizes); n++)
		EXPECT_EQ(-EIO, result_of_claim(&self->mount, sizes[n]));
	EXPECT_EQ(-EINVAL, result_of_claim(&self->mount, XATTR_SIZE + 1));
	EXPECT_EQ(0, mount_works(&self->mount));
}

static long set_large_value(void *arg)
{
	static char value[XATTR_SIZE];

	return setxattr(arg, "u", value, sizeof(value), 0) ? -errno : 0;
}

TEST_F(small_payload, a_request_longer_than_any_payload_is_refused)
{
	unsigned int round;

	/* More often than there are entries or buffers */
	for (round = 0; round < 5; round++)
		EXPECT_EQ(-E2BIG, client_call_served(&self->mount, ANY_CPU,
						     set_large_value,
						     self->mount.dir));
	EXPECT_EQ(0, mount_works(&self->mount));
}

/* Entries whose payload buffer is nowhere: a request without a payload finds it. */
TEST(a_reply_to_a_payload_buffer_at_null_fails_the_request)
{
	const struct queue_mode mode = { .depth = 1 };
	const char *impossible = ring_tests_impossible();
	struct server_request request;
	struct server_command reg;
	struct fuse_mount mount;
	struct test_fs fs;
	struct client client;
	unsigned int qid;

	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(0, test_fs_open(&fs, 4096));
	ASSERT_EQ(0, test_fs_mount(&fs, &mount, NULL));
	for (qid = 0; qid < mount.nr_queues; qid++) {
		ASSERT_EQ(0, queue_open(&mount, qid, &mode));
		queue_fill_register(&mount.queues[qid], 0, &reg);
		reg.iov[1].iov_base = NULL;
		ASSERT_EQ(0, queue_send(&mount.queues[qid], &reg));
	}
	ASSERT_EQ(0, client_start(&client, first_usable_cpu(), get_attributes,
				  mount.dir));
	ASSERT_EQ(0, mount_wait_for(&mount, FUSE_GETATTR, &request));
	EXPECT_EQ(0, commit_with_size(&request, sizeof(struct fuse_attr_out)));
	/* Before 7.3 the client got the error of the copy. */
	EXPECT_EQ(kernel_has_bufpools(&mount) ? -EIO : -EFAULT,
		  client_wait(&client, WAIT_MS));
	mount_close(&mount);
	test_fs_close(&fs);
}

FUSE_TEST_MAIN(NEEDS_RING)
