/* SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause */
/*
 * The doors of the kernel: the interfaces by which a queue is set up, and by
 * which its requests name their payload buffers. What a server gets, the mode,
 * is another matter: two doors lead to the better ones.
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
	enum fuse_ring_interface interface;
	const char *what;	/* has a kernel that has the door */
	uint64_t kernel_flag;	/* by which INIT offers it */
	enum fuse_ring_mode lowest, highest;

	/*
	 * What a queue of @ring is like in @mode. It comes with max_payload,
	 * headroom, and the number of slots that there may be at most.
	 * @in_place: its payload buffers are not to be pinned
	 */
	int (*lay_out)(struct queue_layout *layout, const struct fuse_ring *ring,
		       enum fuse_ring_mode mode, bool in_place);
	/*
	 * Gets a queue ready for its first REGISTER; may be tried again. NULL
	 * where that REGISTER does it.
	 */
	int (*open)(struct ring_queue *queue);
	/* What a REGISTER says, but for what queue it is about */
	void (*fill)(struct queue_register *reg, const struct queue_layout *layout,
		     const struct queue_memory *memory);
	/* The number of the payload buffer that the request in a slot has */
	int (*buffer)(const struct queue_layout *layout, unsigned int slot,
		      const struct ring_header *header);
	/*
	 * The mode to try after @err, FUSE_RING_OFF for none. The same mode
	 * again where queue->in_place is set now and was not.
	 */
	enum fuse_ring_mode (*lower)(struct ring_queue *queue, int err);
};

extern const struct ring_door ring_door_bufring;
extern const struct ring_door ring_door_bufpool;
extern const struct ring_door ring_door_entries;

#endif
