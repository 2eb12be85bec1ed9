/* SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause */
/*
 * The kernel interface that the library speaks: <linux/fuse.h>, with what the
 * installed one may be too old for, and buffer rings.
 */
#ifndef FUSE_RING_UAPI_H
#define FUSE_RING_UAPI_H

#include <linux/fuse.h>
#include <linux/fuse_bufring.h>

/* Linux 6.14 */
#ifndef FUSE_OVER_IO_URING
#define FUSE_OVER_IO_URING		(1ULL << 41)

#define FUSE_URING_IN_OUT_HEADER_SZ	128
#define FUSE_URING_OP_IN_OUT_SZ		128

enum fuse_uring_cmd {
	FUSE_IO_URING_CMD_REGISTER = 1,
	FUSE_IO_URING_CMD_COMMIT_AND_FETCH = 2,
};
#endif

/* Linux 7.3 */
#ifndef FUSE_HAS_IO_URING_BUFPOOL
#define FUSE_HAS_IO_URING_BUFPOOL	(1ULL << 43)

enum {
	FUSE_IO_URING_CMD_ADD_QUEUE = 3,
	FUSE_IO_URING_CMD_ADD_BUFPOOL = 4,
};
#endif
#ifndef FUSE_URING_ZERO_COPY
#define FUSE_URING_ZERO_COPY		(1 << 0)
#endif
#ifndef FUSE_URING_ENT_ZERO_COPY
#define FUSE_URING_ENT_ZERO_COPY	(1 << 0)
#endif
#ifndef FOPEN_IO_URING_ZERO_COPY
#define FOPEN_IO_URING_ZERO_COPY	(1 << 8)
#endif

/*
 * struct fuse_uring_cmd_req as it is since Linux 7.3. Its name is taken by
 * older headers, in which the end is missing.
 */
struct ring_cmd_req {
	uint64_t flags;
	uint64_t commit_id;
	uint16_t qid;
	uint8_t padding[6];
	union {
		/* ADD_BUFPOOL */
		struct {
			uint64_t uaddr;
			uint32_t len;
			uint32_t reserved;
		} bufpool;
		/* REGISTER, in a queue with zero-copy */
		uint16_t zero_copy_index;
	};
};

/* The same of struct fuse_uring_ent_in_out */
struct ring_ent {
	uint64_t flags;
	uint64_t commit_id;
	uint32_t payload_sz;
	/* where the payload buffer is in its pool */
	uint32_t offset;
	uint64_t reserved;
};

#endif
