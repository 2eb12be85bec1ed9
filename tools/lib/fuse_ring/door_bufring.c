// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * Buffer rings: one REGISTER sets a queue up, with header slots in one region
 * and payload buffers in pools of up to four sizes.
 */
#include <errno.h>
#include <unistd.h>

#include "door.h"

#define PINNED_FLAGS	(FUSE_URING_REGISTER_PINNED_HEADERS |	\
			 FUSE_URING_REGISTER_PINNED_BUFFERS)

/* Many small buffers and a few of the largest size, unless told otherwise */
static void default_pools(struct queue_layout *layout, unsigned int depth)
{
	unsigned int few = depth < 4 ? depth : 4;
	uint32_t page_size = getpagesize();

	layout->nr_pools = 0;
	if (depth > few)
		layout->pool[layout->nr_pools++] =
			(struct queue_pool) { page_size, depth };
	layout->pool[layout->nr_pools++] =
		(struct queue_pool) { queue_page_align(layout->max_payload), few };
}

static void pools(struct queue_layout *layout,
		  const struct fuse_ring_options *options)
{
	uint32_t largest = queue_page_align(layout->max_payload);
	unsigned int pool;

	layout->nr_pools = options->nr_pools;
	if (!options->nr_pools) {
		default_pools(layout, options->depth);
		return;
	}
	for (pool = 0; pool < options->nr_pools; pool++) {
		layout->pool[pool].buf_size =
			queue_page_align(options->pool[pool].buf_size);
		layout->pool[pool].nr = options->pool[pool].nr;
	}
	if (layout->pool[pool - 1].buf_size < largest)
		layout->pool[pool - 1].buf_size = largest;
}

static int lay_out(struct queue_layout *layout, const struct fuse_ring *ring,
		   enum fuse_ring_mode mode, bool in_place)
{
	(void)in_place;
	pools(layout, &ring->options);
	layout->register_flags = FUSE_URING_REGISTER_BUFRING;
	if (mode >= FUSE_RING_PINNED) {
		layout->pinned_headers = true;
		layout->pinned_buffers = true;
		layout->register_flags |= PINNED_FLAGS;
	}
	if (mode == FUSE_RING_ZERO_COPY) {
		layout->fixed_buffers = layout->depth;
		layout->register_flags |= FUSE_URING_REGISTER_ZERO_COPY;
		if (!ring->options.zero_copy_all)
			layout->register_flags |=
				FUSE_URING_REGISTER_ZERO_COPY_OPT_IN;
	}
	return 0;
}

static void fill(struct queue_register *reg, const struct queue_layout *layout,
		 const struct queue_memory *memory)
{
	struct fuse_uring_bufring_req *req = &reg->bufring;
	unsigned int pool;

	req->flags = layout->register_flags;
	req->max_queue_depth = layout->depth;
	req->nr_extra_pools = layout->nr_pools - 1;
	req->buf_size = layout->pool[0].buf_size;
	reg->buf_index = reg->slot;
	reg->nr_iov = 1 + layout->nr_pools;
	reg->iov[0] = memory->headers;
	for (pool = 0; pool < layout->nr_pools; pool++) {
		if (pool)
			req->extra_buf_size[pool - 1] =
				layout->pool[pool].buf_size;
		reg->iov[1 + pool].iov_base = memory->pool[pool].iov_base;
		reg->iov[1 + pool].iov_len =
			queue_pool_bytes(&layout->pool[pool]);
	}
}

static int buffer(const struct queue_layout *layout, unsigned int slot,
		  const struct ring_header *header)
{
	unsigned int id = header->bufring.buf_id, pool, nr = 0;

	(void)slot;
	if (id == FUSE_URING_BUF_NONE)
		return NO_BUFFER;
	for (pool = 0; pool < layout->nr_pools; pool++)
		nr += layout->pool[pool].nr;
	return id < nr ? (int)id : UNKNOWN_BUFFER;
}

/* After these errors the kernel lets a server try again with less. */
static enum fuse_ring_mode lower(struct ring_queue *queue, int err)
{
	if (err != -EPERM && err != -ENOMEM)
		return FUSE_RING_OFF;
	return queue->mode - 1;
}

const struct ring_door ring_door_bufring = {
	.interface = FUSE_RING_BUFRING,
	.what = "buffer rings",
	.kernel_flag = FUSE_HAS_IO_URING_BUFRING,
	.lowest = FUSE_RING_POOLED,
	.highest = FUSE_RING_ZERO_COPY,
	.lay_out = lay_out,
	.fill = fill,
	.buffer = buffer,
	.lower = lower,
};
