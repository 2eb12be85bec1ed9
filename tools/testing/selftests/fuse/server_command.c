// SPDX-License-Identifier: GPL-2.0
/*
 * Fixture of the fuse io-uring tests: the commands of a server, filled in as
 * the queue's mode has them, and sent.
 */
#include <stdlib.h>
#include <string.h>

#include "fixture_internal.h"

/* With a registered pool, what leads to a request says in which slot it is. */
static void name_pool(struct server_queue *queue, struct server_command *command)
{
	if (!(queue->mode.bufpool & BUFPOOL_REGISTERED))
		return;
	command->uring_cmd_flags = IORING_URING_CMD_FIXED;
	command->buf_index = queue->pool_index;
}

void queue_fill_add_queue(struct server_queue *queue,
			  struct server_command *command)
{
	memset(command, 0, sizeof(*command));
	command->op = FUSE_IO_URING_CMD_ADD_QUEUE;
	command->cmd.qid = queue->qid;
	if (queue->mode.bufpool & BUFPOOL_ZERO_COPY)
		command->cmd.flags = FUSE_URING_ZERO_COPY;
}

void queue_fill_add_sized_bufpool(struct server_queue *queue, unsigned int n,
				  struct server_command *command)
{
	struct pool_mode pool[FUSE_URING_MAX_POOLS];

	mode_pools(queue->mount, &queue->mode, pool);
	memset(command, 0, sizeof(*command));
	command->op = FUSE_IO_URING_CMD_ADD_BUFPOOL;
	command->cmd.qid = queue->qid;
	command->cmd.bufpool.uaddr = (uintptr_t)queue->memory.pool[n].iov_base;
	command->cmd.bufpool.len = pool[n].buf_size * pool[n].nr;
	if (queue->mode.bufpool & BUFPOOL_SIZES)
		command->cmd.bufpool.reserved = pool[n].buf_size;
	name_pool(queue, command);
}

void queue_fill_add_bufpool(struct server_queue *queue,
			    struct server_command *command)
{
	queue_fill_add_sized_bufpool(queue, 0, command);
}

static void fill_register_of_bufring(struct server_queue *queue,
				     struct server_command *command)
{
	struct pool_mode pool[FUSE_URING_MAX_POOLS];
	unsigned int n, nr = mode_pools(queue->mount, &queue->mode, pool);

	command->bufring.flags = queue->mode.flags;
	command->bufring.max_queue_depth = queue->mode.depth;
	command->bufring.nr_extra_pools = nr - 1;
	command->bufring.buf_size = pool[0].buf_size;
	command->nr_iov = 1 + nr;
	command->iov[0] = queue->memory.headers;
	for (n = 0; n < nr; n++) {
		if (n)
			command->bufring.extra_buf_size[n - 1] =
				pool[n].buf_size;
		command->iov[1 + n].iov_base = queue->memory.pool[n].iov_base;
		command->iov[1 + n].iov_len = (size_t)pool[n].buf_size *
					      pool[n].nr;
	}
}

void queue_fill_register(struct server_queue *queue, unsigned int slot,
			 struct server_command *command)
{
	const size_t payload = queue->mount->max_payload;

	memset(command, 0, sizeof(*command));
	command->op = FUSE_IO_URING_CMD_REGISTER;
	command->slot = slot;
	command->cmd.qid = queue->qid;
	if (queue->mode.flags) {
		fill_register_of_bufring(queue, command);
		return;
	}
	command->nr_iov = 2;
	command->iov[0].iov_base = server_memory_header(&queue->memory, slot);
	command->iov[0].iov_len = sizeof(struct fuse_uring_req_header);
	if (!queue->mode.bufpool) {
		command->iov[1].iov_base =
			(char *)queue->memory.pool[0].iov_base + slot * payload;
		command->iov[1].iov_len = payload;
		return;
	}
	if (queue->mode.bufpool & BUFPOOL_ZERO_COPY)
		command->cmd.zero_copy_index =
			queue->slots[slot].zero_copy_index;
	name_pool(queue, command);
}

void queue_fill_commit(struct server_queue *queue, unsigned int slot,
		       unsigned int qid, __u64 commit_id,
		       struct server_command *command)
{
	memset(command, 0, sizeof(*command));
	command->op = FUSE_IO_URING_CMD_COMMIT_AND_FETCH;
	command->slot = slot;
	command->cmd.qid = qid;
	command->cmd.commit_id = commit_id;
	name_pool(queue, command);
}

struct io_uring_sqe *queue_get_sqe(struct server_queue *queue)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&queue->ring);

	if (!sqe) {
		io_uring_submit(&queue->ring);
		sqe = io_uring_get_sqe(&queue->ring);
	}
	if (!sqe) {
		complain("queue %u: no free SQE", queue->qid);
		abort();
	}
	return sqe;
}

static bool concerns_entry(__u32 op)
{
	return op == FUSE_IO_URING_CMD_REGISTER ||
	       op == FUSE_IO_URING_CMD_COMMIT_AND_FETCH;
}

__u64 queue_prepare(struct server_queue *queue,
		    const struct server_command *command)
{
	struct io_uring_sqe *sqe = queue_get_sqe(queue);
	bool is_register = command->op == FUSE_IO_URING_CMD_REGISTER;

	io_uring_prep_rw(IORING_OP_URING_CMD, sqe, queue->mount->dev_fd, NULL,
			 0, 0);
	sqe->cmd_op = command->op;
	sqe->__pad1 = 0;
	if (is_register || command->nr_iov)
		sqe->addr = (uintptr_t)(command->iovec ?: command->iov);
	sqe->len = command->nr_iov;
	sqe->buf_index = is_register && queue->mode.flags ? command->slot :
							    command->buf_index;
	sqe->uring_cmd_flags = command->uring_cmd_flags;
	/* liburing 2.3 has no name for the command area of SQE128. */
	memcpy((char *)sqe + 2 * sizeof(*sqe) - sizeof(command->area),
	       command->area, sizeof(command->area));
	sqe->user_data = make_user_data(concerns_entry(command->op) ?
					CQE_ENTRY : CQE_RESULT, command->slot);
	return sqe->user_data;
}

static int submit(struct server_queue *queue)
{
	int n = io_uring_submit(&queue->ring);

	if (n > 0)
		return 0;
	/* EAGAIN is what a lack of memory looks like here. */
	if (n != -EAGAIN)
		complain("queue %u: io_uring_submit: %d", queue->qid, n);
	return n ?: -EIO;
}

/*
 * Commands are executed during the submit; one that is refused has its
 * completion there when that returns. No completion: it is pending.
 */
static int send_for_entry(struct server_queue *queue, unsigned int slot,
			  __u64 user_data)
{
	enum slot_state before = SLOT_FREE;
	int refused, err;

	err = submit(queue);
	if (err)
		return err;
	if (slot < queue->nr_slots) {
		before = queue->slots[slot].state;
		queue->slots[slot].state = SLOT_AVAILABLE;
	}
	refused = queue_drain(queue, user_data);
	/* A refused command changes nothing for an entry that is there. */
	if (refused && slot < queue->nr_slots &&
	    queue->slots[slot].state == SLOT_AVAILABLE)
		queue->slots[slot].state = before;
	return refused;
}

/* One that is tried again in another task completes a moment later. */
static int send_for_result(struct server_queue *queue, __u64 user_data)
{
	__u64 deadline = now_ms() + WAIT_MS;
	int left, err;

	err = submit(queue);
	queue_drain(queue, 0);
	while (!err && queue->result_of != user_data) {
		left = ms_until(deadline);
		if (!left) {
			complain("queue %u: a command did not complete",
				 queue->qid);
			return -ETIMEDOUT;
		}
		err = queue_reap(queue, left);
	}
	return err ?: queue->result;
}

int queue_send(struct server_queue *queue, const struct server_command *command)
{
	__u64 user_data = queue_prepare(queue, command);
	int result;

	if (concerns_entry(command->op))
		return send_for_entry(queue, command->slot, user_data);
	result = send_for_result(queue, user_data);
	if (!result && command->cmd.qid == queue->qid) {
		queue->queue_added |= command->op == FUSE_IO_URING_CMD_ADD_QUEUE;
		queue->pool_added |= command->op == FUSE_IO_URING_CMD_ADD_BUFPOOL;
	}
	return result;
}

void queue_prepare_commit(struct server_queue *queue, unsigned int slot,
			  unsigned int qid, __u64 commit_id)
{
	struct server_command command;

	queue_fill_commit(queue, slot, qid, commit_id, &command);
	queue_prepare(queue, &command);
	if (slot < queue->nr_slots)
		queue->slots[slot].state = SLOT_AVAILABLE;
}

int queue_send_commit(struct server_queue *queue, unsigned int slot,
		      unsigned int qid, __u64 commit_id)
{
	struct server_command command;

	queue_fill_commit(queue, slot, qid, commit_id, &command);
	return queue_send(queue, &command);
}

static int add_pools(struct server_queue *queue)
{
	struct pool_mode pool[FUSE_URING_MAX_POOLS];
	unsigned int n, nr = mode_pools(queue->mount, &queue->mode, pool);
	struct server_command command;
	int err = 0;

	for (n = 0; n < nr && !err; n++) {
		queue_fill_add_sized_bufpool(queue, n, &command);
		err = queue_send(queue, &command);
	}
	return err;
}

int queue_add(struct server_queue *queue)
{
	struct server_command command;
	int err = 0;

	if (!queue->mode.bufpool)
		return 0;
	if (!queue->queue_added) {
		queue_fill_add_queue(queue, &command);
		err = queue_send(queue, &command);
	}
	if (!err && !queue->pool_added)
		err = add_pools(queue);
	return err;
}

int queue_register(struct server_queue *queue, unsigned int slot)
{
	struct server_command command;
	int err = queue_add(queue);

	if (err)
		return err;
	queue_fill_register(queue, slot, &command);
	return queue_send(queue, &command);
}

int queue_register_all(struct server_queue *queue)
{
	unsigned int slot;
	int err;

	for (slot = 0; slot < queue->mode.depth; slot++) {
		err = queue_register(queue, slot);
		if (err) {
			complain("queue %u slot %u: REGISTER with flags %#llx, bufpool %#x: %s",
				 queue->qid, slot,
				 (unsigned long long)queue->mode.flags,
				 queue->mode.bufpool, strerror(-err));
			return err;
		}
	}
	return 0;
}

int mount_serve_in_steps(struct fuse_mount *mount, const struct queue_mode *mode)
{
	unsigned int qid;
	int err;

	for (qid = 0; qid < mount->nr_queues; qid++) {
		err = queue_open(mount, qid, mode);
		if (!err)
			err = queue_register_all(&mount->queues[qid]);
		if (err)
			return err;
	}
	return 0;
}
