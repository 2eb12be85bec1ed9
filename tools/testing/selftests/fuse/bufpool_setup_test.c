// SPDX-License-Identifier: GPL-2.0
/*
 * Setting up a queue with a buffer pool: ADD_QUEUE, ADD_BUFPOOL, REGISTER in
 * every order, each with every number that is wrong; and what a refused command
 * leaves, which is what was there before.
 */
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "call.h"
#include "test_fs.h"
#include "variants.h"

/* With a page per request the largest payload is FUSE_MIN_READ_BUFFER. */
#define MAX_WRITE 4096
#define PAYLOAD smallest_payload()
#define DEPTH 2
#define POOL_SIZE (DEPTH * PAYLOAD)

#define ADD_QUEUE FUSE_IO_URING_CMD_ADD_QUEUE
#define ADD_BUFPOOL FUSE_IO_URING_CMD_ADD_BUFPOOL
#define REGISTER FUSE_IO_URING_CMD_REGISTER

static const struct queue_mode plain = {
	MODE_bufpool, .depth = DEPTH
};

static const struct queue_mode registered = {
	MODE_bufpool_registered, .depth = DEPTH
};

static const struct queue_mode zero_copy = {
	MODE_bufpool_zero_copy, .depth = DEPTH
};

static const struct mount_options small_requests = { .max_write = MAX_WRITE };

static int open_queues(struct fuse_mount *mount, const struct queue_mode *mode)
{
	unsigned int qid;
	int err = 0;

	for (qid = 0; qid < mount->nr_queues && !err; qid++)
		err = queue_open(mount, qid, mode);
	return err;
}

/* What is not registered yet */
static int register_rest(struct fuse_mount *mount)
{
	unsigned int qid, slot;
	int err = 0;

	for (qid = 0; qid < mount->nr_queues; qid++)
		for (slot = 0; slot < DEPTH && !err; slot++)
			if (mount->queues[qid].slots[slot].state == SLOT_FREE)
				err = queue_register(&mount->queues[qid], slot);
	return err;
}

static void expect_served_by_ring(struct __test_metadata *_metadata,
				  struct fuse_mount *mount)
{
	unsigned int round;

	/* More often than there are entries or buffers */
	for (round = 0; round < DEPTH + 1; round++)
		EXPECT_EQ(0, mount_works(mount));
	EXPECT_EQ(0, mount->device_requests);
}

/*
 * One command with one number changed, and all others right
 */

FIXTURE(number)
{
	struct fuse_mount mount;
	struct test_fs fs;
};

FIXTURE_VARIANT(number)
{
	const struct queue_mode *mode;
	__u32 op;
	void (*bend)(struct server_command *command);
	int expected;
};

#define ANSWERED(name, valid_mode, command_op, error, change)		\
static void bend_##name(struct server_command *command)			\
{									\
	change;								\
}									\
									\
FIXTURE_VARIANT_ADD(number, name)					\
{									\
	.mode = &(valid_mode),						\
	.op = command_op,						\
	.bend = bend_##name,						\
	.expected = -(error),						\
}

/* ADD_QUEUE */
ANSWERED(queue_number_over_the_cpus, plain, ADD_QUEUE, EINVAL,
	 command->cmd.qid = possible_queues());
ANSWERED(queue_number_far_over_the_cpus, plain, ADD_QUEUE, EINVAL,
	 command->cmd.qid = 65535);
ANSWERED(queue_flag_unknown, plain, ADD_QUEUE, EINVAL,
	 command->cmd.flags = 2);
ANSWERED(queue_flag_unknown_beside_a_known_one, zero_copy, ADD_QUEUE, EINVAL,
	 command->cmd.flags = 3);
ANSWERED(queue_flag_unknown_at_the_top, plain, ADD_QUEUE, EINVAL,
	 command->cmd.flags = 1ULL << 63);

/* ADD_BUFPOOL */
ANSWERED(pool_for_a_queue_over_the_cpus, plain, ADD_BUFPOOL, EINVAL,
	 command->cmd.qid = possible_queues());
ANSWERED(pool_for_a_queue_far_over_the_cpus, plain, ADD_BUFPOOL, EINVAL,
	 command->cmd.qid = 65535);
ANSWERED(pool_flag, plain, ADD_BUFPOOL, EINVAL, command->cmd.flags = 1);
ANSWERED(pool_flag_at_the_top, plain, ADD_BUFPOOL, EINVAL,
	 command->cmd.flags = 1ULL << 63);
ANSWERED(pool_of_buffers_over_the_largest, plain, ADD_BUFPOOL, EINVAL,
	 command->cmd.bufpool.reserved = PAYLOAD + 1);
ANSWERED(pool_of_buffers_far_over_the_largest, plain, ADD_BUFPOOL, EINVAL,
	 command->cmd.bufpool.reserved = 1U << 31);
ANSWERED(pool_empty, plain, ADD_BUFPOOL, EINVAL,
	 command->cmd.bufpool.len = 0);
ANSWERED(pool_short_of_a_buffer, plain, ADD_BUFPOOL, EINVAL,
	 command->cmd.bufpool.len = PAYLOAD - 1);
ANSWERED(pool_of_one_buffer, plain, ADD_BUFPOOL, 0,
	 command->cmd.bufpool.len = PAYLOAD);
ANSWERED(pool_with_a_rest, plain, ADD_BUFPOOL, 0,
	 command->cmd.bufpool.len = 2 * PAYLOAD - 1);
ANSWERED(pool_at_address_0, plain, ADD_BUFPOOL, EFAULT,
	 command->cmd.bufpool.uaddr = 0);
ANSWERED(pool_in_the_kernel, plain, ADD_BUFPOOL, EFAULT,
	 command->cmd.bufpool.uaddr = 1ULL << 63);
ANSWERED(pool_over_the_end_of_all_addresses, plain, ADD_BUFPOOL, EFAULT,
	 command->cmd.bufpool.uaddr = -(__u64)PAYLOAD);
ANSWERED(registered_pool_short_of_a_buffer, registered, ADD_BUFPOOL, EINVAL,
	 command->cmd.bufpool.len = PAYLOAD - 1);
ANSWERED(registered_pool_at_address_0, registered, ADD_BUFPOOL, EFAULT,
	 command->cmd.bufpool.uaddr = 0);
ANSWERED(registered_pool_in_the_kernel, registered, ADD_BUFPOOL, EFAULT,
	 command->cmd.bufpool.uaddr = 1ULL << 63);
ANSWERED(registered_pool_over_the_end_of_all_addresses, registered,
	 ADD_BUFPOOL, EFAULT, command->cmd.bufpool.uaddr = -(__u64)PAYLOAD);
ANSWERED(registered_pool_before_its_buffer, registered, ADD_BUFPOOL, EFAULT,
	 command->cmd.bufpool.uaddr -= PAYLOAD);
ANSWERED(registered_pool_beyond_its_buffer, registered, ADD_BUFPOOL, EFAULT,
	 command->cmd.bufpool.uaddr += PAYLOAD);
ANSWERED(registered_pool_longer_than_its_buffer, registered, ADD_BUFPOOL,
	 EFAULT, command->cmd.bufpool.len += PAYLOAD);
ANSWERED(registered_pool_in_an_empty_slot, registered, ADD_BUFPOOL, EFAULT,
	 command->buf_index = 0);
ANSWERED(registered_pool_beyond_the_table, registered, ADD_BUFPOOL, EFAULT,
	 command->buf_index = DEPTH + 1);
ANSWERED(registered_pool_far_beyond_the_table, registered, ADD_BUFPOOL, EFAULT,
	 command->buf_index = 65535);

/* REGISTER, on a ring that serves */
ANSWERED(entry_with_a_buffer, plain, REGISTER, EINVAL,
	 command->iov[1] = command->iov[0]);
ANSWERED(entry_with_the_address_of_a_buffer, plain, REGISTER, EINVAL,
	 command->iov[1].iov_base = command->iov[0].iov_base);
ANSWERED(entry_with_a_buffer_on_a_registered_pool, registered, REGISTER, EINVAL,
	 command->iov[1] = command->iov[0]);
ANSWERED(entry_with_a_short_header, plain, REGISTER, EINVAL,
	 command->iov[0].iov_len = 287);
ANSWERED(entry_with_a_long_header, plain, REGISTER, 0,
	 command->iov[0].iov_len = 289);
ANSWERED(entry_without_iovecs, plain, REGISTER, EINVAL, command->nr_iov = 0);
ANSWERED(entry_with_one_iovec, plain, REGISTER, EINVAL, command->nr_iov = 1);
ANSWERED(entry_with_three_iovecs, plain, REGISTER, EINVAL,
	 command->nr_iov = 3);
ANSWERED(entry_of_a_queue_over_the_cpus, plain, REGISTER, EINVAL,
	 command->cmd.qid = possible_queues());
ANSWERED(entry_with_a_slot_on_a_queue_without_zero_copy, plain, REGISTER,
	 EINVAL, command->cmd.zero_copy_index = 1);
ANSWERED(entry_that_does_not_name_its_pool, registered, REGISTER, EINVAL,
	 command->uring_cmd_flags = 0);
ANSWERED(entry_that_names_another_pool, registered, REGISTER, EINVAL,
	 command->buf_index = 0);
ANSWERED(entry_that_names_a_pool_beyond_the_table, registered, REGISTER, EINVAL,
	 command->buf_index = DEPTH + 1);

FIXTURE_SETUP(number)
{
	const char *impossible;
	int err;

	impossible = test_fs_begin(&self->fs, &self->mount, PAYLOAD,
				   &small_requests, variant->mode, &err);
	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(0, err);
	ASSERT_EQ(PAYLOAD, self->mount.max_payload);
	ASSERT_EQ(0, open_queues(&self->mount, variant->mode));
}

FIXTURE_TEARDOWN(number)
{
	test_fs_end(&self->fs, &self->mount);
}

/* Everything up to the command */
static int prepare(struct fuse_mount *mount, __u32 op,
		   struct server_command *command)
{
	struct server_queue *queue = &mount->queues[0];
	unsigned int qid;
	int err = 0;

	switch (op) {
	case ADD_QUEUE:
		queue_fill_add_queue(queue, command);
		return 0;
	case ADD_BUFPOOL:
		queue_fill_add_queue(queue, command);
		err = queue_send(queue, command);
		queue_fill_add_bufpool(queue, command);
		return err;
	default:
		for (qid = 0; qid < mount->nr_queues && !err; qid++)
			err = queue_register(&mount->queues[qid], 0);
		queue_fill_register(queue, 1, command);
		return err;
	}
}

TEST_F(number, is_accepted_or_refused_and_the_ring_can_serve)
{
	struct server_command command;

	ASSERT_EQ(0, prepare(&self->mount, variant->op, &command));
	variant->bend(&command);
	ASSERT_EQ(variant->expected,
		  queue_send(&self->mount.queues[0], &command));
	/* The right command, if that was not it, and all that follows */
	ASSERT_EQ(0, register_rest(&self->mount));
	expect_served_by_ring(_metadata, &self->mount);
}

/*
 * The order of commands
 */

FIXTURE(order)
{
	struct fuse_mount mount;
	struct test_fs fs;
	struct server_queue *queue;
};

FIXTURE_VARIANT(order)
{
	struct queue_mode mode;
};

ADD_BUFPOOL_VARIANTS(order, .depth = DEPTH);

FIXTURE_SETUP(order)
{
	const char *impossible;
	int err;

	impossible = test_fs_begin(&self->fs, &self->mount, PAYLOAD,
				   &small_requests, &variant->mode, &err);
	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(0, err);
	ASSERT_EQ(PAYLOAD, self->mount.max_payload);
	ASSERT_EQ(0, open_queues(&self->mount, &variant->mode));
	self->queue = &self->mount.queues[0];
}

FIXTURE_TEARDOWN(order)
{
	test_fs_end(&self->fs, &self->mount);
}

static int add_queue(struct server_queue *queue)
{
	struct server_command command;

	queue_fill_add_queue(queue, &command);
	return queue_send(queue, &command);
}

static int add_bufpool(struct server_queue *queue)
{
	struct server_command command;

	queue_fill_add_bufpool(queue, &command);
	return queue_send(queue, &command);
}

/* An entry as the pool wants it, whether there is one or not */
static int register_only(struct server_queue *queue, unsigned int slot)
{
	struct server_command command;

	queue_fill_register(queue, slot, &command);
	return queue_send(queue, &command);
}

/* An entry with a payload buffer of its own */
static int register_with_buffer(struct server_queue *queue, unsigned int slot)
{
	struct server_command command;

	queue_fill_register(queue, slot, &command);
	command.uring_cmd_flags = 0;
	command.buf_index = 0;
	command.cmd.zero_copy_index = 0;
	command.iov[1].iov_base = (char *)queue->memory.pool[0].iov_base +
				  slot * PAYLOAD;
	command.iov[1].iov_len = PAYLOAD;
	return queue_send(queue, &command);
}

static void expect_left_to_device(struct __test_metadata *_metadata,
				  struct fuse_mount *mount)
{
	EXPECT_EQ(-EOPNOTSUPP, add_queue(&mount->queues[0]));
	EXPECT_EQ(-EOPNOTSUPP, add_bufpool(&mount->queues[0]));
	EXPECT_EQ(-EOPNOTSUPP, register_only(&mount->queues[0], 0));
	EXPECT_EQ(0, mount_works(mount));
	EXPECT_LT(0, mount->device_requests);
}

TEST_F(order, a_queue_then_a_pool_then_entries_serve)
{
	EXPECT_EQ(0, add_queue(self->queue));
	EXPECT_EQ(0, add_bufpool(self->queue));
	EXPECT_EQ(0, register_only(self->queue, 0));
	ASSERT_EQ(0, register_rest(&self->mount));
	expect_served_by_ring(_metadata, &self->mount);
}

TEST_F(order, a_pool_without_a_queue_is_refused)
{
	EXPECT_EQ(-EINVAL, add_bufpool(self->queue));
	ASSERT_EQ(0, register_rest(&self->mount));
	expect_served_by_ring(_metadata, &self->mount);
}

TEST_F(order, a_pool_of_another_queue_is_refused)
{
	struct server_command command;

	if (self->mount.nr_queues < 2)
		SKIP(return, "one possible CPU makes only one queue");
	ASSERT_EQ(0, add_queue(self->queue));
	queue_fill_add_bufpool(self->queue, &command);
	command.cmd.qid = 1;
	EXPECT_EQ(-EINVAL, queue_send(self->queue, &command));
	ASSERT_EQ(0, register_rest(&self->mount));
	expect_served_by_ring(_metadata, &self->mount);
}

TEST_F(order, a_second_queue_is_refused)
{
	struct server_command command;

	ASSERT_EQ(0, add_queue(self->queue));
	EXPECT_EQ(-EEXIST, add_queue(self->queue));
	/* Of the other kind, too */
	queue_fill_add_queue(self->queue, &command);
	command.cmd.flags ^= FUSE_URING_ZERO_COPY;
	EXPECT_EQ(has_privilege(CAP_SYS_ADMIN) ||
		  !command.cmd.flags ? -EEXIST : -EPERM,
		  queue_send(self->queue, &command));
	ASSERT_EQ(0, add_bufpool(self->queue));
	EXPECT_EQ(-EEXIST, add_queue(self->queue));
	ASSERT_EQ(0, register_rest(&self->mount));
	EXPECT_EQ(-EEXIST, add_queue(self->queue));
	expect_served_by_ring(_metadata, &self->mount);
}

TEST_F(order, a_second_pool_is_refused_and_the_first_serves)
{
	struct server_command command;

	ASSERT_EQ(0, queue_add(self->queue));
	EXPECT_EQ(-EINVAL, add_bufpool(self->queue));
	/* Elsewhere, too: the offsets of requests would not be the same. */
	queue_fill_add_bufpool(self->queue, &command);
	command.cmd.bufpool.uaddr += PAYLOAD;
	command.cmd.bufpool.len = PAYLOAD;
	EXPECT_EQ(-EINVAL, queue_send(self->queue, &command));
	ASSERT_EQ(0, register_rest(&self->mount));
	EXPECT_EQ(-EINVAL, queue_send(self->queue, &command));
	expect_served_by_ring(_metadata, &self->mount);
}

TEST_F(order, a_pool_after_entries_with_buffers_is_refused)
{
	unsigned int qid;

	for (qid = 0; qid < self->mount.nr_queues; qid++)
		ASSERT_EQ(0, register_with_buffer(&self->mount.queues[qid], 0));
	EXPECT_EQ(-EEXIST, add_queue(self->queue));
	EXPECT_EQ(-EINVAL, add_bufpool(self->queue));
	for (qid = 0; qid < self->mount.nr_queues; qid++)
		self->mount.queues[qid].mode.bufpool = 0;
	expect_served_by_ring(_metadata, &self->mount);
}

TEST_F(order, an_entry_of_a_queue_without_a_pool_is_refused)
{
	ASSERT_EQ(0, add_queue(self->queue));
	EXPECT_EQ(-EINVAL, register_only(self->queue, 0));
	expect_left_to_device(_metadata, &self->mount);
}

TEST_F(order, an_entry_with_a_buffer_is_refused_where_there_is_a_pool)
{
	ASSERT_EQ(0, queue_add(self->queue));
	EXPECT_EQ(-EINVAL, register_with_buffer(self->queue, 0));
	expect_left_to_device(_metadata, &self->mount);
}

/* ADD_QUEUE is for pools, but only zero-copy takes them for granted. */
TEST_F(order, an_added_queue_may_have_entries_with_buffers)
{
	bool is_zero_copy = variant->mode.bufpool & BUFPOOL_ZERO_COPY;
	unsigned int qid;

	for (qid = 0; qid < self->mount.nr_queues; qid++)
		ASSERT_EQ(0, add_queue(&self->mount.queues[qid]));
	if (is_zero_copy) {
		EXPECT_EQ(-EINVAL, register_with_buffer(self->queue, 0));
		expect_left_to_device(_metadata, &self->mount);
		return;
	}
	for (qid = 0; qid < self->mount.nr_queues; qid++) {
		ASSERT_EQ(0, register_with_buffer(&self->mount.queues[qid], 0));
		self->mount.queues[qid].mode.bufpool = 0;
	}
	expect_served_by_ring(_metadata, &self->mount);
}

static long look(void *arg)
{
	return access(arg, F_OK) ? -errno : 0;
}

TEST_F(order, clients_wait_until_every_queue_has_an_entry)
{
	struct client client;
	unsigned int qid;

	ASSERT_EQ(0, client_start(&client, ANY_CPU, look, self->mount.dir));
	for (qid = 0; qid < self->mount.nr_queues; qid++)
		ASSERT_EQ(0, queue_add(&self->mount.queues[qid]));
	ASSERT_EQ(0, client_wait_asleep(&client));
	EXPECT_EQ(0, mount_expect_silence(&self->mount));
	EXPECT_EQ(0, self->mount.device_requests);
	ASSERT_EQ(0, register_rest(&self->mount));
	EXPECT_EQ(0, client_wait_served(&self->mount, &client));
	EXPECT_EQ(0, self->mount.device_requests);
}

TEST_F(order, a_client_that_waits_for_entries_can_be_killed)
{
	struct client client;
	unsigned int qid;

	ASSERT_EQ(0, client_start(&client, ANY_CPU, look, self->mount.dir));
	for (qid = 0; qid < self->mount.nr_queues; qid++)
		ASSERT_EQ(0, queue_add(&self->mount.queues[qid]));
	ASSERT_EQ(0, client_wait_asleep(&client));
	client_kill(&client, SIGKILL);
	EXPECT_EQ(-EPIPE, client_wait(&client, WAIT_MS));
	ASSERT_EQ(0, register_rest(&self->mount));
	expect_served_by_ring(_metadata, &self->mount);
}

TEST_F(order, an_abort_leaves_nothing_of_a_queue_without_entries)
{
	ASSERT_EQ(0, queue_add(self->queue));
	ASSERT_EQ(0, mount_abort(&self->mount));
	EXPECT_EQ(-ENOTCONN, add_queue(self->queue));
	EXPECT_EQ(-ENOTCONN, add_bufpool(self->queue));
	EXPECT_EQ(-ENOTCONN, register_only(self->queue, 0));
}

TEST_F(order, what_is_left_of_a_pool_is_no_buffer)
{
	struct server_command command;
	struct server_request request;
	struct call a, b;
	unsigned int qid;

	for (qid = 0; qid < self->mount.nr_queues; qid++) {
		struct server_queue *queue = &self->mount.queues[qid];

		ASSERT_EQ(0, add_queue(queue));
		queue_fill_add_bufpool(queue, &command);
		command.cmd.bufpool.len = POOL_SIZE - 1;
		ASSERT_EQ(0, queue_send(queue, &command));
	}
	ASSERT_EQ(0, register_rest(&self->mount));
	ASSERT_EQ(0, call_start(&a, &self->mount, first_usable_cpu(), 10));
	ASSERT_EQ(0, call_arrives(&self->mount, &request, 10));
	ASSERT_EQ(0, call_start_waiting(&b, &self->mount, first_usable_cpu(),
					11, 2));
	EXPECT_EQ(0, mount_expect_silence(&self->mount));
	ASSERT_EQ(0, call_answer(&request));
	EXPECT_EQ(0, call_finish(&a));
	EXPECT_EQ(0, call_arrives(&self->mount, &request, 11));
	ASSERT_EQ(0, call_answer(&request));
	EXPECT_EQ(0, call_finish(&b));
}

TEST_F(order, a_server_that_does_not_want_io_uring_has_no_queues)
{
	const struct mount_options options = { .no_uring = true };

	mount_close(&self->mount);
	ASSERT_EQ(0, test_fs_mount(&self->fs, &self->mount, &options));
	ASSERT_EQ(0, open_queues(&self->mount, &variant->mode));
	expect_left_to_device(_metadata, &self->mount);
}

/*
 * A registered pool has a name, which is its slot in the table.
 */

FIXTURE(named)
{
	struct fuse_mount mount;
	struct test_fs fs;
	struct server_queue *queue;
};

FIXTURE_VARIANT(named)
{
	struct queue_mode mode;
};

ADD_VARIANT(named, bufpool_registered, .depth = DEPTH);
ADD_VARIANT(named, bufpool_zero_copy, .depth = DEPTH);

FIXTURE_SETUP(named)
{
	const char *impossible;
	int err;

	impossible = test_fs_begin(&self->fs, &self->mount, PAYLOAD,
				   &small_requests, &variant->mode, &err);
	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(0, err);
	ASSERT_EQ(PAYLOAD, self->mount.max_payload);
	ASSERT_EQ(0, open_queues(&self->mount, &variant->mode));
	self->queue = &self->mount.queues[0];
}

FIXTURE_TEARDOWN(named)
{
	test_fs_end(&self->fs, &self->mount);
}

TEST_F(named, a_commit_that_does_not_name_its_pool_is_refused)
{
	struct server_command command;
	struct server_request request;
	struct client client;

	ASSERT_EQ(0, register_rest(&self->mount));
	ASSERT_EQ(0, client_start(&client, ANY_CPU, look, self->mount.dir));
	ASSERT_EQ(0, mount_wait(&self->mount, &request, WAIT_MS));
	request_fill_reply(&request, 0, NULL, 0);
	queue_fill_commit(request.queue, request.slot, request.queue->qid,
			  request.commit_id, &command);
	command.uring_cmd_flags = 0;
	EXPECT_EQ(-EINVAL, queue_send(request.queue, &command));
	command.uring_cmd_flags = IORING_URING_CMD_FIXED;
	command.buf_index = 0;
	EXPECT_EQ(-EINVAL, queue_send(request.queue, &command));
	command.buf_index = DEPTH + 1;
	EXPECT_EQ(-EINVAL, queue_send(request.queue, &command));
	EXPECT_TRUE(client_runs(&client));
	command.buf_index = DEPTH;
	EXPECT_EQ(0, queue_send(request.queue, &command));
	EXPECT_EQ(0, client_wait_served(&self->mount, &client));
	expect_served_by_ring(_metadata, &self->mount);
}

TEST_F(named, a_registered_pool_needs_a_table)
{
	ASSERT_EQ(0, add_queue(self->queue));
	ASSERT_EQ(0, queue_table_remove(self->queue));
	EXPECT_EQ(-EFAULT, add_bufpool(self->queue));
	/* Without that name it is a pool in place. */
	self->queue->mode.bufpool &= ~BUFPOOL_REGISTERED;
	EXPECT_EQ(0, add_bufpool(self->queue));
}

/*
 * Zero-copy is refused without CAP_SYS_ADMIN, and nothing is lost by asking.
 */

FIXTURE(privilege)
{
	struct fuse_mount mount;
	struct test_fs fs;
	struct server_queue *queue;
};

FIXTURE_SETUP(privilege)
{
	const char *impossible;
	int err;

	impossible = test_fs_begin(&self->fs, &self->mount, PAYLOAD,
				   &small_requests, &registered, &err);
	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(0, err);
	ASSERT_EQ(PAYLOAD, self->mount.max_payload);
	ASSERT_EQ(0, open_queues(&self->mount, &zero_copy));
	self->queue = &self->mount.queues[0];
}

FIXTURE_TEARDOWN(privilege)
{
	test_fs_end(&self->fs, &self->mount);
}

TEST_F(privilege, zero_copy_is_refused_and_a_queue_without_it_serves)
{
	unsigned int qid;

	ASSERT_EQ(0, drop_capability(CAP_SYS_ADMIN));
	for (qid = 0; qid < self->mount.nr_queues; qid++) {
		struct server_queue *queue = &self->mount.queues[qid];

		EXPECT_EQ(-EPERM, add_queue(queue));
		/* There is no queue, so there can be no pool. */
		EXPECT_EQ(-EINVAL, add_bufpool(queue));
		queue->mode.bufpool &= ~BUFPOOL_ZERO_COPY;
	}
	ASSERT_EQ(0, register_rest(&self->mount));
	expect_served_by_ring(_metadata, &self->mount);
}

TEST_F(privilege, no_other_capability_is_needed)
{
	if (!has_privilege(CAP_SYS_ADMIN))
		SKIP(return, "zero-copy needs CAP_SYS_ADMIN");
	ASSERT_EQ(0, drop_capability(CAP_IPC_LOCK));
	ASSERT_EQ(0, register_rest(&self->mount));
	expect_served_by_ring(_metadata, &self->mount);
}

/* Returned by the server below */
enum { NO_USER_NAMESPACE = 1 };

static long ask_in_user_namespace(void *arg)
{
	struct fuse_mount *mount = arg;
	int err;

	queue_close(&mount->queues[0]);
	if (unshare(CLONE_NEWUSER))
		return NO_USER_NAMESPACE;
	err = queue_open_with(&mount->queues[0], mount, 0, &zero_copy,
			      RING_FLAGS, 0);
	return err ?: add_queue(&mount->queues[0]);
}

TEST_F(privilege, that_of_a_user_namespace_is_not_enough)
{
	struct client server;
	long result;

	ASSERT_EQ(0, server_start(&server, ask_in_user_namespace,
				  &self->mount));
	result = server_result(&server);
	EXPECT_EQ(0, server_kill(&server));
	if (result == NO_USER_NAMESPACE)
		SKIP(return, "cannot make a user namespace");
	EXPECT_EQ(-EPERM, result);
}

FUSE_TEST_MAIN(NEEDS_BUFPOOLS)
