// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * Buffer pools, of Linux 7.3: ADD_QUEUE makes a queue, ADD_BUFPOOL gives it
 * payload buffers, and REGISTER an entry. A pool is memory of the server, used
 * in place, or one of the fixed buffers of the queue's io_uring.
 *
 * That kernel as it was released has faults that a server has to stay clear of:
 *
 * - A request that waits for a buffer holds up those that need none, and is
 *   forgotten when another takes its turn. So there is a buffer for each entry.
 * - A REGISTER that fails turns io-uring off, and once clients are served they
 *   wait for good then. So all entries are registered at the start, and all
 *   that can fail comes before them: ADD_QUEUE and ADD_BUFPOOL turn nothing off.
 * - Neither ADD_BUFPOOL nor REGISTER looks at numbers of fixed buffers. Entries
 *   have the first ones, each its own, and the pool has the one after them.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "door.h"

/* Of all queues together, unless that makes it less than LEAST_PINNED in each */
#define MOST_PINNED_BYTES	(256UL << 20)
#define LEAST_PINNED		4

/* What io_uring can have of them */
#define MAX_FIXED_BUFFERS	16384

/*
 * Memory that is pinned is in use from the beginning: only as many entries as
 * there can be requests in flight, and as many again where most of them may wait
 * for locks.
 */
static void limit_pinned(struct queue_layout *layout, const struct fuse_ring *ring)
{
	size_t most = MOST_PINNED_BYTES / ring->nr_queues /
		      layout->pool[0].buf_size;
	size_t depth = ring->options.depth;

	if (ring->connection.locks)
		depth *= 2;
	if (depth > most)
		depth = most;
	if (depth < LEAST_PINNED)
		depth = LEAST_PINNED;
	if (layout->depth > depth)
		layout->depth = depth;
	layout->keep = layout->depth / 4 ?: 1;
}

static int lay_out(struct queue_layout *layout, const struct fuse_ring *ring,
		   enum fuse_ring_mode mode, bool in_place)
{
	bool zero_copy = mode == FUSE_RING_ZERO_COPY;
	/* To the byte as the kernel has it, which offsets of buffers come from */
	uint32_t size = modes_largest_payload(ring, ring->most_pages);
	uint32_t most = zero_copy ? MAX_FIXED_BUFFERS - 1 : UINT16_MAX - 1;

	if (layout->headroom && size % getpagesize())
		return -EINVAL;
	layout->nr_pools = 1;
	layout->pool[0].buf_size = size;
	if (most > UINT32_MAX / size)
		most = UINT32_MAX / size;
	if (layout->depth > most)
		layout->depth = most;
	/* Zero-copied data needs no buffer, but who waits for a lock an entry. */
	layout->pinned_buffers = mode >= FUSE_RING_PINNED && !in_place &&
				 !(zero_copy && ring->connection.locks);
	if (layout->pinned_buffers)
		limit_pinned(layout, ring);
	layout->fixed_pool = layout->pinned_buffers;
	layout->zero_copy_slots = zero_copy;
	layout->fixed_buffers = layout->fixed_pool || zero_copy ?
				layout->depth + layout->fixed_pool : 0;
	layout->first = layout->depth;
	layout->buffer_each = true;
	layout->pool[0].nr = layout->depth;
	return 0;
}

static int add_queue(struct ring_queue *queue)
{
	struct io_uring_sqe *sqe = ring_get_sqe(queue);
	struct ring_cmd_req *req;

	req = queue_prep_command(sqe, queue->ring->connection.dev_fd,
				 FUSE_IO_URING_CMD_ADD_QUEUE);
	req->qid = queue->qid;
	if (queue->layout.zero_copy_slots)
		req->flags = FUSE_URING_ZERO_COPY;
	return ring_run_command(queue, sqe);
}

static int add_bufpool(struct ring_queue *queue)
{
	struct io_uring_sqe *sqe = ring_get_sqe(queue);
	const struct queue_layout *layout = &queue->layout;
	struct ring_cmd_req *req;

	req = queue_prep_command(sqe, queue->ring->connection.dev_fd,
				 FUSE_IO_URING_CMD_ADD_BUFPOOL);
	req->qid = queue->qid;
	req->bufpool.uaddr = (uintptr_t)queue->memory.pool[0].iov_base;
	req->bufpool.len = queue_pool_bytes(&layout->pool[0]);
	queue_use_fixed_pool(sqe, layout);
	return ring_run_command(queue, sqe);
}

static int open_queue(struct ring_queue *queue)
{
	int err;

	if (!queue->added) {
		err = add_queue(queue);
		if (err)
			return err;
		queue->added = true;
	}
	err = add_bufpool(queue);
	queue->opened = !err;
	return err;
}

static void fill(struct queue_register *reg, const struct queue_layout *layout,
		 const struct queue_memory *memory)
{
	queue_register_header(reg, memory);
	if (layout->zero_copy_slots)
		reg->command.zero_copy_index = reg->slot;
}

/*
 * Requests that neither bring data nor are answered with any: the kernel gives
 * them no buffer, and does not say so. It can be someone else's that is named.
 */
static bool has_no_data(const struct ring_header *header)
{
	struct fuse_in_header in;

	if (header->ent.payload_sz)
		return false;
	memcpy(&in, header->in_out, sizeof(in));
	switch (in.opcode) {
	case FUSE_READ:
		return header->ent.flags & FUSE_URING_ENT_ZERO_COPY;
	case FUSE_ACCESS:
	case FUSE_DESTROY:
	case FUSE_FALLOCATE:
	case FUSE_FLUSH:
	case FUSE_FSYNC:
	case FUSE_FSYNCDIR:
	case FUSE_RELEASE:
	case FUSE_RELEASEDIR:
	case FUSE_SETLK:
	case FUSE_SETLKW:
	case FUSE_SYNCFS:
		return true;
	default:
		return false;
	}
}

static int buffer(const struct queue_layout *layout, unsigned int slot,
		  const struct ring_header *header)
{
	uint32_t size = layout->pool[0].buf_size;
	uint32_t offset = header->ent.offset;

	(void)slot;
	if (has_no_data(header))
		return NO_BUFFER;
	if (offset % size || offset / size >= layout->pool[0].nr)
		return UNKNOWN_BUFFER;
	return offset / size;
}

static enum fuse_ring_mode lower(struct ring_queue *queue, int err)
{
	bool zero_copy = queue->mode == FUSE_RING_ZERO_COPY;
	bool pinned = queue->layout.pinned_buffers;

	if (queue->opened)
		return FUSE_RING_OFF;
	if (zero_copy && err == -EPERM && !queue->added)
		return pinned ? FUSE_RING_PINNED : FUSE_RING_POOLED;
	if (pinned) {
		queue->in_place = true;
		return zero_copy ? FUSE_RING_ZERO_COPY : FUSE_RING_POOLED;
	}
	if (!zero_copy)
		return FUSE_RING_LEGACY;
	/* A queue that was added with zero-copy stays so, and needs a pool. */
	return queue->added ? FUSE_RING_OFF : FUSE_RING_POOLED;
}

const struct ring_door ring_door_bufpool = {
	.interface = FUSE_RING_BUFPOOL,
	.what = "buffer pools",
	.kernel_flag = FUSE_HAS_IO_URING_BUFPOOL,
	.lowest = FUSE_RING_POOLED,
	.highest = FUSE_RING_ZERO_COPY,
	.lay_out = lay_out,
	.open = open_queue,
	.fill = fill,
	.buffer = buffer,
	.lower = lower,
};
