// SPDX-License-Identifier: GPL-2.0
/*
 * Fixture of the fuse io-uring tests: the queues, one io_uring each, their
 * tables of fixed buffers, and the requests that arrive.
 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fixture_internal.h"

static __u64 next_sequence;

__u64 make_user_data(enum cqe_kind kind, unsigned int slot)
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

static int open_ring(struct server_queue *queue, unsigned int ring_flags)
{
	unsigned int depth = queue->mode.depth;
	int err;

	err = io_uring_queue_init(depth < 128 ? depth * 2 : 256, &queue->ring,
				  IORING_SETUP_SQE128 | ring_flags);
	if (err) {
		complain("io_uring_queue_init: %s", strerror(-err));
		return err;
	}
	queue->open = true;
	queue->owner = getpid();
	/* A client must not keep the server's ring alive. */
	io_uring_ring_dontfork(&queue->ring);
	return 0;
}

int queue_table_set(struct server_queue *queue, unsigned int index,
		    void *memory, size_t len)
{
	struct iovec iov = { .iov_base = memory, .iov_len = len };
	__u64 tag = 0;
	int n;

	n = io_uring_register_buffers_update_tag(&queue->ring, index, &iov,
						 &tag, 1);
	return n == 1 ? 0 : n ?: -EIO;
}

int queue_table_clear(struct server_queue *queue, unsigned int index)
{
	return queue_table_set(queue, index, NULL, 0);
}

int queue_table_remove(struct server_queue *queue)
{
	return io_uring_unregister_buffers(&queue->ring);
}

/* Newer than the liburing of some distributions */
#define REGISTER_CLONE_BUFFERS 30	/* IORING_REGISTER_CLONE_BUFFERS */

struct clone_buffers {
	__u32 src_fd;
	__u32 flags;
	__u32 src_off;
	__u32 dst_off;
	__u32 nr;
	__u32 pad[3];
};

int queue_table_clone(struct server_queue *to, const struct server_queue *from)
{
	struct clone_buffers clone = { .src_fd = from->ring.ring_fd };

	return syscall(__NR_io_uring_register, to->ring.ring_fd,
		       REGISTER_CLONE_BUFFERS, &clone, 1) ? -errno : 0;
}

static int open_table(struct server_queue *queue, int slots)
{
	bool has_pool = queue->mode.bufpool & BUFPOOL_REGISTERED;
	const struct iovec *pool = &queue->memory.pool[0];
	size_t size;
	int err;

	if (slots == FIXED_BUFFERS_AS_NEEDED) {
		slots = 0;
		if (queue->mode.bufpool & BUFPOOL_ZERO_COPY ||
		    queue->mode.flags & FUSE_URING_REGISTER_ZERO_COPY)
			slots = queue->mode.depth;
		if (has_pool)
			slots = queue->mode.depth + 1;
	}
	if (!slots)
		return 0;
	err = io_uring_register_buffers_sparse(&queue->ring, slots);
	if (err) {
		complain("registering %d sparse buffers: %s", slots,
			 strerror(-err));
		return err;
	}
	if (!has_pool || queue->pool_index >= slots)
		return 0;
	size = mode_table_bytes(queue->mount, &queue->mode);
	err = queue_table_set(queue, queue->pool_index, pool->iov_base, size);
	if (err)
		complain("registering a pool of %zu bytes: %s", size,
			 strerror(-err));
	return err;
}

long mount_table_kib(const struct fuse_mount *mount)
{
	size_t bytes = 0;
	unsigned int qid;

	if (has_privilege(CAP_IPC_LOCK))
		return 0;
	for (qid = 0; mount->queues && qid < mount->nr_queues; qid++) {
		const struct server_queue *queue = &mount->queues[qid];

		if (queue->open && queue->owner == getpid())
			bytes += mode_table_bytes(mount, &queue->mode);
	}
	return bytes / 1024;
}

static int init_queue(struct server_queue *queue, struct fuse_mount *mount,
		      unsigned int qid, const struct queue_mode *mode)
{
	unsigned int slot;

	memset(queue, 0, sizeof(*queue));
	queue->mount = mount;
	queue->qid = qid;
	queue->mode = *mode;
	queue->nr_slots = mode->depth;
	queue->pool_index = mode->depth;
	queue->slots = calloc(queue->nr_slots, sizeof(*queue->slots));
	queue->arrived = calloc(queue->nr_slots, sizeof(*queue->arrived));
	if (!queue->slots || !queue->arrived)
		return -ENOMEM;
	for (slot = 0; slot < queue->nr_slots; slot++)
		queue->slots[slot].zero_copy_index = slot;
	return 0;
}

int queue_open_with(struct server_queue *queue, struct fuse_mount *mount,
		    unsigned int qid, const struct queue_mode *mode,
		    unsigned int ring_flags, int fixed_buffers)
{
	int err = init_queue(queue, mount, qid, mode);

	if (err)
		return err;
	err = server_memory_map(&queue->memory, mount, mode);
	if (err) {
		complain("memory of queue %u: %s", qid, strerror(-err));
		return err;
	}
	err = open_ring(queue, ring_flags);
	return err ?: open_table(queue, fixed_buffers);
}

int queue_open(struct fuse_mount *mount, unsigned int qid,
	       const struct queue_mode *mode)
{
	return queue_open_with(&mount->queues[qid], mount, qid, mode,
			       RING_FLAGS, FIXED_BUFFERS_AS_NEEDED);
}

int queue_open_second(struct server_queue *second,
		      const struct server_queue *first, unsigned int ring_flags,
		      int fixed_buffers)
{
	int err = init_queue(second, first->mount, first->qid, &first->mode);

	if (err)
		return err;
	second->memory = first->memory;
	second->memory.borrowed = true;
	second->queue_added = first->queue_added;
	second->pool_added = first->pool_added;
	err = open_ring(second, ring_flags);
	return err ?: open_table(second, fixed_buffers);
}

void queue_close(struct server_queue *queue)
{
	/* Of a parent's ring a child has the descriptor, but no mapping. */
	if (queue->open && queue->owner == getpid())
		io_uring_queue_exit(&queue->ring);
	else if (queue->open)
		close(queue->ring.ring_fd);
	queue->open = false;
	server_memory_unmap(&queue->memory);
	free(queue->slots);
	free(queue->arrived);
	queue->slots = NULL;
	queue->arrived = NULL;
	queue->nr_slots = 0;
	queue->nr_arrived = 0;
}

static void request_arrived(struct server_queue *queue, unsigned int slot)
{
	struct server_request *request = &queue->slots[slot].request;
	struct fuse_uring_req_header *header =
		server_memory_header(&queue->memory, slot);
	const struct fuse_uring_bufring_ent *bufring =
		(void *)&header->ring_ent_in_out;
	const struct bufpool_ent_in_out *bufpool =
		(void *)&header->ring_ent_in_out;
	unsigned int last;

	request->queue = queue;
	request->slot = slot;
	request->header = header;
	memcpy(&request->in, header->in_out, sizeof(request->in));
	request->commit_id = header->ring_ent_in_out.commit_id;
	request->flags = header->ring_ent_in_out.flags;
	request->payload_sz = header->ring_ent_in_out.payload_sz;
	request->buf_id = bufring->buf_id;
	request->offset = bufpool->offset;
	request->zero_copy = request->flags & FUSE_URING_ENT_ZERO_COPY;
	request->fixed_index = queue->mode.bufpool ?
			       queue->slots[slot].zero_copy_index : slot;
	request_find_payload(request);

	queue->slots[slot].state = SLOT_REQUEST;
	queue->slots[slot].linked = false;
	last = (queue->first_arrived + queue->nr_arrived++) % queue->nr_slots;
	queue->arrived[last] = slot;
}

static void handle_cqe(struct server_queue *queue, __u64 user_data, int result)
{
	unsigned int index = user_data_slot(user_data);
	struct server_slot *slot;

	if (user_data_kind(user_data) == CQE_STOP) {
		queue->stopped = true;
		return;
	}
	if (user_data_kind(user_data) == CQE_RESULT) {
		queue->result_of = user_data;
		queue->result = result;
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

int queue_drain(struct server_queue *queue, __u64 user_data)
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

void queue_describe(const struct server_queue *queue)
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
	for (slot = 0; slot < queue->nr_slots; slot++) {
		const struct server_request *last = &queue->slots[slot].request;

		if (last->queue)
			complain("queue %u slot %u: %s opcode %u, commit id %llu, buffer %u",
				 queue->qid, slot,
				 queue->slots[slot].state == SLOT_REQUEST ?
				 "has" : "had",
				 last->in.opcode,
				 (unsigned long long)last->commit_id,
				 last->buf_id);
	}
}

int queue_reap(struct server_queue *queue, int ms)
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
	queue_drain(queue, 0);
	return n < 0 && n != -ETIME && n != -EINTR ? n : 0;
}

void queue_poll_stop(struct server_queue *queue)
{
	struct io_uring_sqe *sqe = queue_get_sqe(queue);

	io_uring_prep_poll_add(sqe, queue->mount->stop_fd, POLLIN);
	sqe->user_data = make_user_data(CQE_STOP, 0);
}

bool queue_take(struct server_queue *queue, struct server_request *request)
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
static int mount_take(struct fuse_mount *mount, struct server_request *request)
{
	unsigned int qid;
	int err;

	for (qid = 0; qid < mount->nr_queues; qid++) {
		struct server_queue *queue = &mount->queues[qid];

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

/*
 * How long to rely on the eventfd. In 7.3 io_uring can use up its signal without
 * doing the work that it was for, when that comes from another processor at this
 * moment.
 */
#define LOOK_AGAIN_MS 100

int mount_wait_or(struct fuse_mount *mount, struct server_request *request,
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
		if (left > LOOK_AGAIN_MS)
			left = LOOK_AGAIN_MS;
		if (poll(fds, 2, left) < 0 && errno != EINTR)
			return complain_errno("poll");
		if (fds[1].revents)
			return -ENODATA;
	}
}

int mount_wait(struct fuse_mount *mount, struct server_request *request, int ms)
{
	return mount_wait_or(mount, request, ms, -1);
}

int mount_expect_silence(struct fuse_mount *mount)
{
	struct server_request request;
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
		   struct server_request *request)
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
		clients_describe();
	}
	return err;
}

int queue_wait_all_dead(struct server_queue *queue)
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
