/* SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause */
/*
 * The doors of the kernel: the interfaces by which a queue is set up, and by
 * which its requests name their payload buffers.
 *
 * A door knows how it is spoken to. What to try, and what to try after it
 * failed, is decided in modes.c, with what the door says about it.
 */
#ifndef FUSE_RING_DOOR_H
#define FUSE_RING_DOOR_H

#include "ring.h"

/* In place of the number of a payload buffer */
enum {
	NO_BUFFER = -1,
	UNKNOWN_BUFFER = -2,	/* the kernel names one that does not exist */
};

struct ring_door {
	const char *what;	/* has a kernel that has the door */
	uint64_t kernel_flag;	/* by which INIT offers it */
	enum fuse_ring_mode lowest, highest;

	/*
	 * What a queue of @ring is like in @mode. It comes with max_payload,
	 * headroom, and the number of slots that there may be at most.
	 */
	void (*lay_out)(struct queue_layout *layout, const struct fuse_ring *ring,
			enum fuse_ring_mode mode);
	/* What a REGISTER says, but for what queue it is about */
	void (*fill)(struct queue_register *reg, const struct queue_layout *layout,
		     const struct queue_memory *memory);
	/* The number of the payload buffer that the request in a slot has */
	int (*buffer)(const struct queue_layout *layout, unsigned int slot,
		      const struct ring_header *header);
	/* The mode to try after @err, FUSE_RING_OFF for none */
	enum fuse_ring_mode (*lower)(struct ring_queue *queue, int err);
};

extern const struct ring_door ring_door_bufring;
extern const struct ring_door ring_door_entries;

#endif
