// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * Modes: which one a ring begins with, and the way down from there. Every step
 * down is taken before clients are served.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "door.h"

/*
 * Entries for requests that wait for a lock, beyond options.depth: so many can
 * wait in one queue, and the one that unlocks still gets through.
 */
#define SPARE_ENTRIES 112

/*
 * Of all queues together: where a slot has a buffer of its own this takes two
 * mappings, and a process has 65530 of them unless told otherwise.
 */
#define MAX_SPARE_ENTRIES 8192

#define NR_DOORS 3

/* The better ones first */
static const struct ring_door * const doors[NR_DOORS] = {
	&ring_door_bufring,
	&ring_door_bufpool,
	&ring_door_entries,
};

static bool is_offered(const struct fuse_ring *ring, const struct ring_door *door)
{
	return ring->connection.kernel_flags & door->kernel_flag;
}

static bool is_wanted(const struct fuse_ring *ring, const struct ring_door *door,
		      enum fuse_ring_mode mode)
{
	const struct fuse_ring_options *options = &ring->options;

	if (options->interface && options->interface != door->interface)
		return false;
	return mode >= door->lowest &&
	       (mode <= door->highest || options->mode == FUSE_RING_AUTO);
}

/*
 * The best that nobody has to ask for by name. Linux 7.3 as released corrupts its
 * memory when a loop device uses a zero-copied file, and cannot be told from one
 * that has the fix.
 */
static enum fuse_ring_mode auto_highest(struct fuse_ring *ring,
					const struct ring_door *door,
					enum fuse_ring_mode mode)
{
	if (door != &ring_door_bufpool || mode <= FUSE_RING_PINNED)
		return door->highest;
	snprintf(ring->why_not_more, sizeof(ring->why_not_more),
		 "zero-copy over buffer pools has to be asked for");
	return FUSE_RING_PINNED;
}

/* Of the doors that would do the last one is what most kernels have. */
static void note_missing(struct fuse_ring *ring, enum fuse_ring_mode mode)
{
	unsigned int n = NR_DOORS;

	while (n--) {
		if (is_wanted(ring, doors[n], mode)) {
			snprintf(ring->why_not_more, sizeof(ring->why_not_more),
				 "the kernel has no %s", doors[n]->what);
			return;
		}
	}
	snprintf(ring->why_not_more, sizeof(ring->why_not_more),
		 "ring_interface=%s has no mode %s",
		 fuse_ring_interface_name(ring->options.interface),
		 fuse_ring_mode_name(mode));
}

/* The kernel takes less than the server said where the administrator did. */
static uint32_t limit_pages(uint32_t max_pages)
{
	FILE *file = fopen("/proc/sys/fs/fuse/max_pages_limit", "re");
	unsigned int limit;

	if (!file)
		return max_pages;
	if (fscanf(file, "%u", &limit) == 1 && limit < max_pages)
		max_pages = limit;
	fclose(file);
	return max_pages;
}

int modes_choose(struct fuse_ring *ring)
{
	enum fuse_ring_mode mode = ring->options.mode, highest;
	unsigned int n;

	if (mode == FUSE_RING_OFF)
		return -EOPNOTSUPP;
	if (!is_offered(ring, &ring_door_entries)) {
		snprintf(ring->why_not_more, sizeof(ring->why_not_more),
			 RING_NOT_OFFERED);
		return -EOPNOTSUPP;
	}
	if (mode == FUSE_RING_AUTO)
		mode = ring->options.auto_best ?: FUSE_RING_ZERO_COPY;
	ring->refused = FUSE_RING_ZERO_COPY;
	ring->most_pages = limit_pages(ring->connection.max_pages);
	for (n = 0; n < NR_DOORS; n++) {
		if (!is_wanted(ring, doors[n], mode) ||
		    !is_offered(ring, doors[n]))
			continue;
		ring->door = doors[n];
		highest = doors[n]->highest;
		if (ring->options.mode == FUSE_RING_AUTO)
			highest = auto_highest(ring, doors[n], mode);
		ring->mode = mode < highest ? mode : highest;
		if (mode > doors[n]->highest && !ring->options.interface)
			snprintf(ring->why_not_more, sizeof(ring->why_not_more),
				 "the kernel has no %s", ring_door_bufpool.what);
		return 0;
	}
	note_missing(ring, mode);
	return -EOPNOTSUPP;
}

unsigned int modes_most_slots(const struct fuse_ring *ring)
{
	unsigned int spare = MAX_SPARE_ENTRIES / ring->nr_queues;

	if (spare > SPARE_ENTRIES)
		spare = SPARE_ENTRIES;
	if (ring->options.depth + spare > UINT16_MAX)
		return UINT16_MAX;
	return ring->options.depth + spare;
}

uint32_t modes_largest_payload(const struct fuse_ring *ring, uint32_t max_pages)
{
	uint32_t largest = FUSE_MIN_READ_BUFFER;

	if (largest < ring->connection.max_write)
		largest = ring->connection.max_write;
	if (largest < max_pages * getpagesize())
		largest = max_pages * getpagesize();
	return largest;
}

static int lay_out(struct queue_layout *layout, const struct ring_queue *queue)
{
	const struct fuse_ring *ring = queue->ring;

	memset(layout, 0, sizeof(*layout));
	layout->door = queue->mode == FUSE_RING_LEGACY ? &ring_door_entries :
							 ring->door;
	layout->depth = modes_most_slots(ring);
	layout->first = ring->options.depth;
	layout->keep = ring->options.depth;
	layout->max_payload =
		modes_largest_payload(ring, ring->connection.max_pages);
	layout->headroom = ring->headroom;
	return layout->door->lay_out(layout, ring, queue->mode, queue->in_place);
}

static int make_fixed_buffers(struct ring_queue *queue)
{
	unsigned int nr = queue->layout.fixed_buffers;
	struct iovec *buffers;
	int err;

	if (!nr)
		return 0;
	if (!queue->layout.fixed_pool) {
		err = io_uring_register_buffers_sparse(&queue->uring, nr);
	} else {
		buffers = calloc(nr, sizeof(*buffers));
		if (!buffers)
			return -ENOMEM;
		buffers[nr - 1].iov_base = queue->memory.pool[0].iov_base;
		buffers[nr - 1].iov_len =
			queue_pool_bytes(&queue->layout.pool[0]);
		err = io_uring_register_buffers(&queue->uring, buffers, nr);
		free(buffers);
	}
	queue->has_fixed_buffers = !err;
	return err;
}

static void drop_memory(struct ring_queue *queue)
{
	if (queue->has_fixed_buffers)
		io_uring_unregister_buffers(&queue->uring);
	queue->has_fixed_buffers = false;
	queue_memory_unmap(&queue->memory);
	memset(&queue->layout, 0, sizeof(queue->layout));
}

static void init_reqs(struct ring_queue *queue)
{
	unsigned int slot;

	for (slot = 0; slot < queue->layout.depth; slot++) {
		queue->reqs[slot].queue = queue;
		queue->reqs[slot].slot = slot;
		queue->reqs[slot].header =
			queue_memory_header(&queue->memory, slot);
	}
}

/* All that the mode takes in the server, and nothing of what another one took */
static int set_up(struct ring_queue *queue)
{
	struct queue_layout layout;
	int err;

	queue->call = NULL;
	/* The kernel has been told of the memory. */
	if (queue->opened)
		return 0;
	err = lay_out(&layout, queue);
	if (!err && !memcmp(&layout, &queue->layout, sizeof(layout)))
		return 0;
	drop_memory(queue);
	queue->layout = layout;
	if (!err) {
		queue->call = "mmap()";
		err = queue_memory_map(&queue->memory, &queue->layout);
	}
	if (!err) {
		queue->call = "io_uring_register()";
		err = make_fixed_buffers(queue);
	}
	if (err) {
		/* For another attempt, which is not to find this one made */
		queue->layout.first = 0;
		return err;
	}
	queue->call = NULL;
	init_reqs(queue);
	return 0;
}

/* -> what the kernel said, or 0 if the command is pending */
static int submit_and_look(struct ring_queue *queue)
{
	struct io_uring_cqe *cqe;
	int refused = 0, n;

	/* What is left for later would be taken for a command that is pending. */
	do {
		n = io_uring_submit_and_get_events(&queue->uring);
		if (n < 0 && !ring_try_again(n))
			return n;
	} while (io_uring_sq_ready(&queue->uring));
	while (!io_uring_peek_cqe(&queue->uring, &cqe)) {
		struct fuse_ring_req *req = (void *)(uintptr_t)cqe->user_data;

		if (cqe->res < 0) {
			refused = cqe->res;
		} else if (req) {
			req->next = queue->early;
			queue->early = req;
		}
		io_uring_cqe_seen(&queue->uring, cqe);
	}
	return refused;
}

/*
 * Says to the kernel that this server gives up on io-uring: a legacy REGISTER
 * without memory fails, and turns it off.
 */
static void give_up(struct ring_queue *queue)
{
	struct io_uring_sqe *sqe = ring_get_sqe(queue);
	struct ring_cmd_req *req;

	req = queue_prep_command(sqe, queue->ring->connection.dev_fd,
				 FUSE_IO_URING_CMD_REGISTER);
	req->qid = queue->qid;
	sqe->user_data = (uintptr_t)&queue->reqs[0];
	submit_and_look(queue);
}

/* All but the spare ones; the queue works as soon as it has one. */
static int register_slots(struct ring_queue *queue)
{
	unsigned int first = queue->layout.first, slot;
	int err;

	for (slot = 0; slot < first; slot++) {
		ring_prepare_register(queue, slot);
		err = submit_and_look(queue);
		queue->entries = slot + !err;
		if (!err)
			continue;
		if (!slot)
			return err;
		ring_log(&queue->ring->options,
			 "queue %u: only %u of %u entries: %s", queue->qid,
			 slot, first, strerror(-err));
		break;
	}
	return 0;
}

/* What it is that was refused: without pinned buffers zero-copy can still be had. */
static enum fuse_ring_mode refused_mode(const struct ring_queue *queue, int err)
{
	if (queue->mode == FUSE_RING_ZERO_COPY && err != -EPERM &&
	    queue->layout.fixed_pool)
		return FUSE_RING_PINNED;
	return queue->mode;
}

/* Memory was not to be had for being locked. -> how much may be */
static bool lacks_locked_memory(const struct ring_queue *queue, int err,
				unsigned long long *limit_kib)
{
	struct rlimit limit;

	if (err != -ENOMEM || !queue->memory.headers.iov_base ||
	    !queue_layout_pinned_bytes(&queue->layout))
		return false;
	if (getrlimit(RLIMIT_MEMLOCK, &limit) || limit.rlim_cur == RLIM_INFINITY)
		return false;
	*limit_kib = limit.rlim_cur / 1024;
	return true;
}

static void note_locked_memory(struct ring_queue *queue, const char *name,
			       unsigned long long limit_kib)
{
	struct fuse_ring *ring = queue->ring;
	size_t others = memlock_of_others();
	int len;

	len = snprintf(ring->why_not_more, sizeof(ring->why_not_more),
		       "%s needs %zu KiB of locked memory in each of %u queues, RLIMIT_MEMLOCK is %llu KiB",
		       name, queue_layout_pinned_bytes(&queue->layout) / 1024,
		       ring->nr_queues, limit_kib);
	if (others && len < (int)sizeof(ring->why_not_more))
		snprintf(ring->why_not_more + len, sizeof(ring->why_not_more) - len,
			 ", other processes of this user have %zu KiB", others);
}

static void note_why(struct ring_queue *queue, int err)
{
	enum fuse_ring_mode mode = refused_mode(queue, err);
	struct fuse_ring *ring = queue->ring;
	const char *name = fuse_ring_mode_name(mode);
	unsigned long long limit_kib;

	/* It says what the mode lacks that is just above the one they get. */
	if (mode > ring->refused)
		return;
	ring->refused = mode;
	if (lacks_locked_memory(queue, err, &limit_kib))
		note_locked_memory(queue, name, limit_kib);
	else if (queue->call)
		snprintf(ring->why_not_more, sizeof(ring->why_not_more),
			 "%s: %s: %s", name, queue->call, strerror(-err));
	else if (mode == FUSE_RING_ZERO_COPY && err == -EPERM)
		snprintf(ring->why_not_more, sizeof(ring->why_not_more),
			 "%s needs CAP_SYS_ADMIN in the initial user namespace", name);
	else
		snprintf(ring->why_not_more, sizeof(ring->why_not_more),
			 "%s: %s", name, strerror(-err));
}

/* Takes a queue a step down, where there is one and it was not told to stay. */
static bool go_down(struct ring_queue *queue, int err)
{
	const struct fuse_ring_options *options = &queue->ring->options;
	enum fuse_ring_mode before = queue->mode;

	/* The kernel does not know yet of what the server could not get. */
	if (queue->call)
		err = -ENOMEM;
	queue->mode = queue->layout.door->lower(queue, err);
	if (queue->mode == before)
		return true;
	if (options->mode != FUSE_RING_AUTO || queue->mode == FUSE_RING_OFF)
		return false;
	/* The legacy mode has another door. */
	return !options->interface || queue->mode >= queue->ring->door->lowest;
}

/* Takes a step in the best mode in which it works, from queue->mode down. */
static int in_some_mode(struct ring_queue *queue,
			int (*step)(struct ring_queue *queue))
{
	int err;

	do {
		err = set_up(queue);
		if (!err)
			err = step(queue);
		if (!err)
			return 0;
		pthread_mutex_lock(&queue->ring->lock);
		note_why(queue, err);
		pthread_mutex_unlock(&queue->ring->lock);
	} while (go_down(queue, err));
	give_up(queue);
	return err;
}

int modes_reserve(struct ring_queue *queue)
{
	return set_up(queue);
}

bool modes_lower_all(struct fuse_ring *ring, struct ring_queue *queue, int err)
{
	unsigned int n;

	note_why(queue, err);
	if (!go_down(queue, err))
		return false;
	ring->mode = queue->mode;
	ring->in_place = queue->in_place;
	for (n = 0; n < ring->nr_queues; n++) {
		ring->queues[n].mode = ring->mode;
		ring->queues[n].in_place = ring->in_place;
	}
	return true;
}

static int open_queue(struct ring_queue *queue)
{
	const struct ring_door *door = queue->layout.door;

	return door->open ? door->open(queue) : 0;
}

int modes_open(struct ring_queue *queue)
{
	return in_some_mode(queue, open_queue);
}

int modes_register(struct ring_queue *queue)
{
	return in_some_mode(queue, register_slots);
}
