// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * Entries, of Linux 6.14: each has a header and a payload buffer of its own.
 */
#include "door.h"

static int lay_out(struct queue_layout *layout, const struct fuse_ring *ring,
		   enum fuse_ring_mode mode, bool in_place)
{
	(void)mode;
	(void)in_place;
	/*
	 * Where a REGISTER that fails turns io-uring off under the clients,
	 * none is risked once they are served. Buffers that nobody needs are
	 * not touched.
	 */
	if (!(ring->connection.kernel_flags & FUSE_HAS_IO_URING_BUFRING))
		layout->first = layout->depth;
	layout->buffer_each = true;
	layout->nr_pools = 1;
	layout->pool[0].buf_size = queue_page_align(layout->max_payload);
	layout->pool[0].nr = layout->depth;
	return 0;
}

static void fill(struct queue_register *reg, const struct queue_layout *layout,
		 const struct queue_memory *memory)
{
	queue_register_header(reg, memory);
	reg->iov[1].iov_len = layout->pool[0].buf_size;
	reg->iov[1].iov_base = (char *)memory->pool[0].iov_base +
			       reg->slot * reg->iov[1].iov_len;
}

static int buffer(const struct queue_layout *layout, unsigned int slot,
		  const struct ring_header *header)
{
	(void)layout;
	(void)header;
	return slot;
}

static enum fuse_ring_mode lower(struct ring_queue *queue, int err)
{
	(void)queue;
	(void)err;
	return FUSE_RING_OFF;
}

const struct ring_door ring_door_entries = {
	.interface = FUSE_RING_ENTRIES,
	.what = "fuse over io_uring",
	.kernel_flag = FUSE_OVER_IO_URING,
	.lowest = FUSE_RING_LEGACY,
	.highest = FUSE_RING_LEGACY,
	.lay_out = lay_out,
	.fill = fill,
	.buffer = buffer,
	.lower = lower,
};
