/* SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause */
/*
 * The kernel interface that the library speaks. Distributions install a
 * <linux/fuse.h> that is older than the kernels they run, so what it may lack
 * is here, under names of its own; where it is complete it is compared.
 */
#ifndef FUSE_RING_UAPI_H
#define FUSE_RING_UAPI_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <linux/fuse.h>

#define RING_INIT_EXT		(1U << 30)
#define RING_OVER_IO_URING	(1ULL << 41)
#define RING_HAS_BUFRING	(1ULL << 60)

/* REGISTER */
#define RING_BUFRING		(1ULL << 0)
#define RING_PINNED_HEADERS	(1ULL << 1)
#define RING_PINNED_BUFFERS	(1ULL << 2)
#define RING_ZERO_COPY		(1ULL << 3)
#define RING_ZERO_COPY_OPT_IN	(1ULL << 4)

#define RING_PINNED_FLAGS						\
	(RING_BUFRING | RING_PINNED_HEADERS | RING_PINNED_BUFFERS)

/* struct ring_entry_header.flags: the data is in the slot's fixed buffer */
#define RING_ENTRY_ZERO_COPY	(1ULL << 0)
#define RING_NO_BUFFER		0xffff

/* fuse_open_out.open_flags */
#define RING_OPEN_ZERO_COPY	(1U << 8)

#define RING_MAX_POOLS		4

enum {
	RING_COMMAND_REGISTER = 1,
	RING_COMMAND_COMMIT_AND_FETCH = 2,
};

struct ring_entry_header {
	uint64_t flags;
	uint64_t commit_id;
	uint32_t payload_sz;
	uint16_t buf_id;
	uint16_t padding;
	uint64_t reserved;
};

/* One header slot */
struct ring_header {
	char in_out[128];	/* fuse_in_header, or fuse_out_header */
	char op_in[128];	/* what the operation has for its own */
	struct ring_entry_header entry;
};

/* In the command area of the SQE */
struct ring_command {
	uint64_t flags;
	uint64_t commit_id;
	uint16_t qid;
	uint16_t padding;
	struct {
		uint32_t buf_size;
		uint16_t max_queue_depth;
		uint16_t nr_extra_pools;
		uint32_t extra_buf_size[RING_MAX_POOLS - 1];
	} init;
};

/* What a pre-6.14 <linux/fuse.h> does not know */
#define RING_COMMAND_AREA	80

#if __has_include(<linux/fuse_bufring.h>)
#include <linux/fuse_bufring.h>
#define RING_SAME(ours, theirs)						\
	static_assert((ours) == (theirs), #ours " is not " #theirs)

RING_SAME(RING_HAS_BUFRING, FUSE_HAS_IO_URING_BUFRING);
RING_SAME(RING_BUFRING, FUSE_URING_REGISTER_BUFRING);
RING_SAME(RING_PINNED_HEADERS, FUSE_URING_REGISTER_PINNED_HEADERS);
RING_SAME(RING_PINNED_BUFFERS, FUSE_URING_REGISTER_PINNED_BUFFERS);
RING_SAME(RING_ZERO_COPY, FUSE_URING_REGISTER_ZERO_COPY);
RING_SAME(RING_ZERO_COPY_OPT_IN, FUSE_URING_REGISTER_ZERO_COPY_OPT_IN);
RING_SAME(RING_NO_BUFFER, FUSE_URING_BUF_NONE);
RING_SAME(RING_MAX_POOLS, FUSE_URING_MAX_POOLS);
RING_SAME(sizeof(struct ring_entry_header), sizeof(struct fuse_uring_bufring_ent));
RING_SAME(sizeof(struct ring_command), sizeof(struct fuse_uring_bufring_req));
#endif

#endif
