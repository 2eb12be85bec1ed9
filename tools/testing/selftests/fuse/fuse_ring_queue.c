// SPDX-License-Identifier: GPL-2.0
/*
 * Fixture of the fuse io-uring tests: the queues, one io_uring each, and the
 * requests and replies that travel through them.
 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fuse_ring_internal.h"

/* What a CQE answers: the kind and the slot travel in user_data. */
enum cqe_kind {
	CQE_COMMAND = 1,	/* REGISTER or COMMIT_AND_FETCH */
	CQE_TRANSFER,		/* data of a zero-copied request */
	CQE_STOP,		/* the poll on a server's stop_fd */
};

static __u64 next_sequence;

static __u64 make_user_data(enum cqe_kind kind, unsigned int slot)
{
	__u64 sequence;

	/* Makes each command's own completion distinguishable. */
	sequence = __atomic_add_fetch(&next_sequence, 1, __ATOMIC_RELAXED);
	return (__u64)kind << 56 | (sequence & 0xffffffff) << 16 | slot;
}

static enum cqe_kind user_data_kind(__u64 user_data)
{
	return user_data >> 56;
}

static unsigned int user_data_slot(__u64 user_data)
{
	return user_data & 0xffff;
}

struct queue_layout mode_layout(const struct fuse_mount *mount,
				const struct ring_mode *mode)
{
	struct queue_layout layout = {
		.flags = mode->flags,
		.depth = mode->depth,
		.nr_pools = mode->nr_pools,
		.max_payload = mount->max_payload,
	};
	unsigned int pool;

	for (pool = 0; pool < mode->nr_pools; pool++) {
		layout.pool[pool].buf_size = mode->pool[pool].buf_size;
		layout.pool[pool].nr = mode->pool[pool].nr;
	}
	return layout;
}

int queue_open_with(struct ring_queue *queue, struct fuse_mount *mount,
		    unsigned int qid, const struct ring_mode *mode,
		    unsigned int ring_flags, int fixed_buffers)
{
	unsigned int entries = mode->depth < 128 ? mode->depth * 2 : 256;
	struct queue_layout layout;
	int err;

	memset(queue, 0, sizeof(*queue));
	queue->mount = mount;
	queue->qid = qid;
	queue->mode = *mode;
	queue->nr_slots = mode->depth;

	queue->slots = calloc(queue->nr_slots, sizeof(*queue->slots));
	queue->arrived = calloc(queue->nr_slots, sizeof(*queue->arrived));
	if (!queue->slots || !queue->arrived)
		return -ENOMEM;

	layout = mode_layout(mount, mode);
	err = queue_memory_map(&queue->memory, &layout);
	if (err) {
		complain("memory of queue %u: %s", qid, strerror(-err));
		return err;
	}
	err = io_uring_queue_init(entries, &queue->ring,
				  IORING_SETUP_SQE128 | ring_flags);
	if (err) {
		complain("io_uring_queue_init: %s", strerror(-err));
		return err;
	}
	queue->open = true;
	queue->owner = getpid();
	/* A client must not keep the server's ring alive. */
	io_uring_ring_dontfork(&queue->ring);

	if (fixed_buffers == FIXED_BUFFERS_AS_NEEDED)
		fixed_buffers = mode->flags & FUSE_URING_REGISTER_ZERO_COPY ?
				mode->depth : 0;
	if (fixed_buffers > 0) {
		err = io_uring_register_buffers_sparse(&queue->ring,
						       fixed_buffers);
		if (err)
			complain("registering %d sparse buffers: %s",
				 fixed_buffers, strerror(-err));
	}
	return err;
}

int queue_open(struct fuse_mount *mount, unsigned int qid,
	       const struct ring_mode *mode)
{
	return queue_open_with(&mount->queues[qid], mount, qid, mode,
			       RING_FLAGS, FIXED_BUFFERS_AS_NEEDED);
}

void queue_close(struct ring_queue *queue)
{
	/* Of a parent's ring a child has the descriptor, but no mapping. */
	if (queue->open && queue->owner == getpid())
		io_uring_queue_exit(&queue->ring);
	else if (queue->open)
		close(queue->ring.ring_fd);
	queue->open = false;
	queue_memory_unmap(&queue->memory);
	free(queue->slots);
	free(queue->arrived);
	queue->slots = NULL;
	queue->arrived = NULL;
	queue->nr_slots = 0;
	queue->nr_arrived = 0;
}

static struct fuse_uring_req_header *slot_header(struct ring_queue *queue,
						 unsigned int slot)
{
	return (void *)queue_memory_header(&queue->memory, slot);
}

void queue_fill_register(struct ring_queue *queue, unsigned int slot,
			 struct ring_register *reg)
{
	struct queue_layout layout = mode_layout(queue->mount, &queue->mode);
	struct queue_register said;

	queue_register_fill(&said, &layout, &queue->memory, queue->qid, slot);
	memset(reg, 0, sizeof(*reg));
	reg->slot = said.slot;
	reg->nr_iov = said.nr_iov;
	memcpy(&reg->cmd, &said.command, sizeof(reg->cmd));
	memcpy(reg->iov, said.iov, sizeof(said.iov));
}

static struct io_uring_sqe *get_sqe(struct ring_queue *queue)
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

/* Finds the buffer that the kernel names in the entry header. */
static void find_payload(struct ring_request *request)
{
	struct ring_queue *queue = request->queue;
	struct queue_layout layout = mode_layout(queue->mount, &queue->mode);

	request->payload = queue_memory_payload(&queue->memory, &layout,
						request->slot, request->buf_id,
						&request->room);
	if (request->payload || !request->room)
		return;
	request->room = 0;
	complain("queue %u slot %u: the kernel names buffer %u, which does not exist",
		 queue->qid, request->slot, request->buf_id);
}

static void request_arrived(struct ring_queue *queue, unsigned int slot)
{
	struct ring_request *request = &queue->slots[slot].request;
	struct fuse_uring_req_header *header = slot_header(queue, slot);
	unsigned int last;

	request->queue = queue;
	request->slot = slot;
	request->header = header;
	memcpy(&request->in, header->in_out, sizeof(request->in));
	request->commit_id = header->ring_ent_in_out.commit_id;
	request->flags = header->ring_ent_in_out.flags;
	request->payload_sz = header->ring_ent_in_out.payload_sz;
	request->buf_id = ((struct fuse_uring_bufring_ent *)
			   &header->ring_ent_in_out)->buf_id;
	request->zero_copy = request->flags & FUSE_URING_ENT_ZERO_COPY;
	find_payload(request);

	queue->slots[slot].state = SLOT_REQUEST;
	queue->slots[slot].linked = false;
	last = (queue->first_arrived + queue->nr_arrived++) % queue->nr_slots;
	queue->arrived[last] = slot;
}

static void handle_cqe(struct ring_queue *queue, __u64 user_data, int result)
{
	unsigned int index = user_data_slot(user_data);
	struct ring_slot *slot;

	if (user_data_kind(user_data) == CQE_STOP) {
		queue->stopped = true;
		return;
	}
	if (index >= queue->nr_slots) {
		complain("queue %u: completion %d for slot %u of %u",
			 queue->qid, result, index, queue->nr_slots);
		return;
	}
	slot = &queue->slots[index];
	if (user_data_kind(user_data) == CQE_TRANSFER) {
		slot->transferring = false;
		slot->transferred = result;
		/* Of a link that breaks only this completion is posted. */
		if (slot->linked) {
			slot->linked = false;
			queue->transfer_failed(&slot->request, result);
		}
	} else if (result < 0) {
		slot->state = SLOT_DEAD;
		slot->error = result;
	} else {
		request_arrived(queue, index);
	}
}

/*
 * Takes all completions. The result of the command @user_data is not
 * handled when it is an error, but returned: that is how it is refused.
 */
static int drain_cqes(struct ring_queue *queue, __u64 user_data)
{
	struct io_uring_cqe *cqe;
	unsigned int head, seen = 0;
	int refused = 0;

	io_uring_for_each_cqe(&queue->ring, head, cqe) {
		if (cqe->user_data == user_data && cqe->res < 0)
			refused = cqe->res;
		else
			handle_cqe(queue, cqe->user_data, cqe->res);
		seen++;
	}
	io_uring_cq_advance(&queue->ring, seen);
	return refused;
}

/*
 * Commands are executed during the submit; one that is refused has its
 * completion there when that returns. No completion: it is pending.
 */
static int send_command(struct ring_queue *queue, unsigned int slot,
			__u64 user_data)
{
	enum slot_state before = SLOT_FREE;
	int refused, n;

	n = io_uring_submit(&queue->ring);
	if (n < 1) {
		/* EAGAIN is what a lack of memory looks like here. */
		if (n != -EAGAIN)
			complain("queue %u: io_uring_submit: %d", queue->qid, n);
		return n < 0 ? n : -EIO;
	}
	if (slot < queue->nr_slots) {
		before = queue->slots[slot].state;
		queue->slots[slot].state = SLOT_AVAILABLE;
	}
	refused = drain_cqes(queue, user_data);
	/* A refused command changes nothing for an entry that is there. */
	if (refused && slot < queue->nr_slots &&
	    queue->slots[slot].state == SLOT_AVAILABLE)
		queue->slots[slot].state = before;
	return refused;
}

int queue_send_register(struct ring_queue *queue,
			const struct ring_register *reg)
{
	struct io_uring_sqe *sqe = get_sqe(queue);
	struct ring_command *command;

	command = queue_prep_command(sqe, queue->mount->dev_fd,
				     FUSE_IO_URING_CMD_REGISTER);
	memcpy(command, &reg->cmd, sizeof(reg->cmd));
	sqe->addr = (uintptr_t)(reg->iovec ?: reg->iov);
	sqe->len = reg->nr_iov;
	sqe->buf_index = reg->slot;
	sqe->uring_cmd_flags = reg->uring_cmd_flags;
	sqe->user_data = make_user_data(CQE_COMMAND, reg->slot);
	return send_command(queue, reg->slot, sqe->user_data);
}

int queue_register(struct ring_queue *queue, unsigned int slot)
{
	struct ring_register reg;

	queue_fill_register(queue, slot, &reg);
	return queue_send_register(queue, &reg);
}

int queue_register_all(struct ring_queue *queue)
{
	unsigned int slot;
	int err;

	for (slot = 0; slot < queue->mode.depth; slot++) {
		err = queue_register(queue, slot);
		if (err) {
			complain("queue %u slot %u: REGISTER with flags %#llx: %s",
				 queue->qid, slot,
				 (unsigned long long)queue->mode.flags,
				 strerror(-err));
			return err;
		}
	}
	return 0;
}

int mount_serve_in_steps(struct fuse_mount *mount, const struct ring_mode *mode)
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

void queue_describe(const struct ring_queue *queue)
{
	static const char * const names[] = {
		"free", "available", "with the server", "dead",
	};
	unsigned int count[4] = {};
	unsigned int slot;

	for (slot = 0; slot < queue->nr_slots; slot++)
		count[queue->slots[slot].state]++;
	for (slot = 0; slot < 4; slot++)
		if (count[slot])
			complain("queue %u: %u slots %s", queue->qid,
				 count[slot], names[slot]);
	for (slot = 0; slot < queue->nr_slots; slot++)
		if (queue->slots[slot].state == SLOT_REQUEST)
			complain("queue %u slot %u: opcode %u, commit id %llu, buffer %u",
				 queue->qid, slot,
				 queue->slots[slot].request.in.opcode,
				 (unsigned long long)
				 queue->slots[slot].request.commit_id,
				 queue->slots[slot].request.buf_id);
}

int queue_reap(struct ring_queue *queue, int ms)
{
	struct __kernel_timespec timeout = {
		.tv_sec = ms / 1000,
		.tv_nsec = ms % 1000 * 1000000LL,
	};
	struct io_uring_cqe *cqe;
	int n;

	if (ms < 0)
		n = io_uring_submit_and_wait(&queue->ring, 1);
	else if (ms == 0)
		n = io_uring_submit_and_get_events(&queue->ring);
	else
		n = io_uring_submit_and_wait_timeout(&queue->ring, &cqe, 1,
						     &timeout, NULL);
	drain_cqes(queue, 0);
	return n < 0 && n != -ETIME && n != -EINTR ? n : 0;
}

void queue_poll_stop(struct ring_queue *queue)
{
	struct io_uring_sqe *sqe = get_sqe(queue);

	io_uring_prep_poll_add(sqe, queue->mount->stop_fd, POLLIN);
	sqe->user_data = make_user_data(CQE_STOP, 0);
}

bool queue_take(struct ring_queue *queue, struct ring_request *request)
{
	unsigned int slot;

	if (!queue->nr_arrived)
		return false;
	slot = queue->arrived[queue->first_arrived];
	queue->first_arrived = (queue->first_arrived + 1) % queue->nr_slots;
	queue->nr_arrived--;
	*request = queue->slots[slot].request;
	return true;
}

/* Takes the oldest request of any queue; -EAGAIN if there is none. */
static int mount_take(struct fuse_mount *mount, struct ring_request *request)
{
	unsigned int qid;
	int err;

	for (qid = 0; qid < mount->nr_queues; qid++) {
		struct ring_queue *queue = &mount->queues[qid];

		if (!queue->open)
			continue;
		/* poll() on the ring itself does not see deferred task work. */
		if (!queue->signals) {
			err = io_uring_register_eventfd(&queue->ring,
							mount->ring_fd);
			if (err)
				return err;
			queue->signals = true;
		}
		err = queue_reap(queue, 0);
		if (err)
			return err;
		if (queue_take(queue, request))
			return 0;
	}
	return -EAGAIN;
}

int mount_wait_or(struct fuse_mount *mount, struct ring_request *request,
		  int ms, int other_fd)
{
	struct pollfd fds[] = {
		{ .fd = mount->ring_fd, .events = POLLIN },
		{ .fd = other_fd, .events = POLLIN },
	};
	__u64 deadline = now_ms() + ms;
	eventfd_t events;
	int left, err;

	for (;;) {
		/* Cleared first: what comes from here on sets it again. */
		eventfd_read(mount->ring_fd, &events);
		err = mount_take(mount, request);
		if (err != -EAGAIN)
			return err;
		left = ms_until(deadline);
		if (!left)
			return -ETIMEDOUT;
		if (poll(fds, 2, left) < 0 && errno != EINTR)
			return complain_errno("poll");
		if (fds[1].revents)
			return -ENODATA;
	}
}

int mount_wait(struct fuse_mount *mount, struct ring_request *request, int ms)
{
	return mount_wait_or(mount, request, ms, -1);
}

int mount_expect_silence(struct fuse_mount *mount)
{
	struct ring_request request;
	int err = mount_wait(mount, &request, SILENCE_MS);

	if (err == -ETIMEDOUT)
		return 0;
	if (!err)
		complain("queue %u slot %u: unexpected opcode %u, buffer %u",
			 request.queue->qid, request.slot, request.in.opcode,
			 request.buf_id);
	return err ?: -EEXIST;
}

int mount_wait_for(struct fuse_mount *mount, __u32 opcode,
		   struct ring_request *request)
{
	__u64 deadline = now_ms() + WAIT_MS;
	unsigned int qid;
	int err;

	for (;;) {
		err = mount_wait(mount, request, ms_until(deadline));
		if (err || request->in.opcode == opcode)
			break;
		err = request_answer(request);
		if (err)
			break;
	}
	if (err) {
		complain("waiting for opcode %u: %s", opcode, strerror(-err));
		for (qid = 0; qid < mount->nr_queues; qid++)
			queue_describe(&mount->queues[qid]);
	}
	return err;
}

int queue_wait_all_dead(struct ring_queue *queue)
{
	__u64 deadline = now_ms() + WAIT_MS;
	unsigned int slot = 0;
	int left, err;

	while (slot < queue->nr_slots) {
		if (queue->slots[slot].state != SLOT_AVAILABLE) {
			slot++;
			continue;
		}
		left = ms_until(deadline);
		if (!left) {
			complain("entries were not given back");
			queue_describe(queue);
			return -ETIMEDOUT;
		}
		err = queue_reap(queue, left);
		if (err)
			return err;
	}
	return 0;
}

/* Replies */

void request_fill_reply(struct ring_request *request, int error,
			const void *data, size_t len)
{
	if (data && len && data != request->payload)
		memcpy(request->payload, data, len);
	queue_fill_reply((void *)request->header, request->in.unique, error,
			 len);
}

/* -> user_data */
static __u64 prepare_commit(struct ring_queue *queue, unsigned int slot,
			    unsigned int qid, __u64 commit_id)
{
	struct io_uring_sqe *sqe = get_sqe(queue);

	queue_prep_commit(sqe, queue->mount->dev_fd, qid, commit_id);
	sqe->user_data = make_user_data(CQE_COMMAND, slot);
	return sqe->user_data;
}

void queue_prepare_commit(struct ring_queue *queue, unsigned int slot,
			  unsigned int qid, __u64 commit_id)
{
	prepare_commit(queue, slot, qid, commit_id);
	if (slot < queue->nr_slots)
		queue->slots[slot].state = SLOT_AVAILABLE;
}

int queue_send_commit(struct ring_queue *queue, unsigned int slot,
		      unsigned int qid, __u64 commit_id)
{
	return send_command(queue, slot,
			    prepare_commit(queue, slot, qid, commit_id));
}

int request_reply(struct ring_request *request, int error, const void *data,
		  size_t len)
{
	if (data && len > request->room) {
		complain("queue %u slot %u: a reply of %zu bytes for a buffer of %zu",
			 request->queue->qid, request->slot, len, request->room);
		return -EOVERFLOW;
	}
	request_fill_reply(request, error, data, len);
	return queue_send_commit(request->queue, request->slot,
				 request->queue->qid, request->commit_id);
}

static struct io_uring_sqe *
request_prepare_transfer(struct ring_request *request, __u64 from, int fd,
			 __u64 offset, size_t len)
{
	struct ring_slot *slot = &request->queue->slots[request->slot];
	struct io_uring_sqe *sqe = get_sqe(request->queue);

	queue_prep_transfer(sqe, request->in.opcode, request->slot, from, fd,
			    offset, len);
	sqe->user_data = make_user_data(CQE_TRANSFER, request->slot);
	slot->transferring = true;
	return sqe;
}

void request_prepare_transfer_and_commit(struct ring_request *request, int fd,
					 __u64 offset, size_t len)
{
	struct ring_queue *queue = request->queue;
	struct io_uring_sqe *sqe;

	/* Linked commands must be submitted together. */
	if (io_uring_sq_space_left(&queue->ring) < 2)
		io_uring_submit(&queue->ring);
	sqe = request_prepare_transfer(request, 0, fd, offset, len);
	sqe->flags |= IOSQE_IO_LINK | IOSQE_CQE_SKIP_SUCCESS;
	queue_prepare_commit(queue, request->slot, queue->qid,
			     request->commit_id);
	queue->slots[request->slot].linked = true;
}

int request_transfer(struct ring_request *request, int fd, __u64 offset,
		     size_t len)
{
	return request_transfer_at(request, 0, fd, offset, len);
}

int request_transfer_at(struct ring_request *request, __u64 from, int fd,
			__u64 offset, size_t len)
{
	request_prepare_transfer(request, from, fd, offset, len);
	return request_end_transfer(request);
}

int request_start_transfer(struct ring_request *request, int fd, size_t len)
{
	request_prepare_transfer(request, 0, fd, 0, len);
	return queue_reap(request->queue, 0);
}

int request_end_transfer(struct ring_request *request)
{
	struct ring_slot *slot = &request->queue->slots[request->slot];
	__u64 deadline = now_ms() + WAIT_MS;
	int left, err;

	while (slot->transferring) {
		left = ms_until(deadline);
		err = queue_reap(request->queue, left);
		if (err)
			return err;
		if (!left && slot->transferring) {
			complain("queue %u slot %u: the data transfer did not end",
				 request->queue->qid, request->slot);
			return -ETIMEDOUT;
		}
	}
	return slot->transferred;
}

void request_fill_call(struct ring_request *request, struct fuse_call *call)
{
	*call = (struct fuse_call) {
		.in = &request->in,
		.op = request->header->op_in,
		.data = request->payload,
		.data_len = request->payload_sz,
		.reply = request->payload,
		.room = request->room,
		.zero_copy = request->zero_copy,
		.transfer_fd = -1,
	};
}

void request_fill_transferred(struct ring_request *request, int result)
{
	struct fuse_write_out *out = request->payload;

	if (result < 0) {
		request_fill_reply(request, result, NULL, 0);
	} else if (request->in.opcode == FUSE_READ) {
		request_fill_reply(request, 0, NULL, result);
	} else {
		*out = (struct fuse_write_out) { .size = result };
		request_fill_reply(request, 0, out, sizeof(*out));
	}
}

int request_answer(struct ring_request *request)
{
	struct fuse_mount *mount = request->queue->mount;
	struct fuse_call call;
	int error, result;

	request_fill_call(request, &call);
	error = mount->answer(mount->fs, &call);
	if (!error && call.transfer_fd >= 0) {
		result = request_transfer(request, call.transfer_fd,
					  call.transfer_offset,
					  call.transfer_len);
		request_fill_transferred(request, result);
	} else {
		request_fill_reply(request, error, NULL,
				   error ? 0 : call.reply_len);
	}
	return queue_send_commit(request->queue, request->slot,
				 request->queue->qid, request->commit_id);
}
