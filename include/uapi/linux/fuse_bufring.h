/* SPDX-License-Identifier: ((GPL-2.0 WITH Linux-syscall-note) OR BSD-2-Clause) */
/*
 * Buffer rings: an interface of fuse over io_uring in which the entries of a
 * queue have header slots in one region, and take payload buffers from pools.
 *
 * Only what <linux/fuse.h> does not have is defined here, so that this goes
 * with the <linux/fuse.h> of any release. FUSE_URING_ENT_ZERO_COPY and
 * FOPEN_IO_URING_ZERO_COPY mean the same on a buffer ring as they do there.
 */
#ifndef _LINUX_FUSE_BUFRING_H
#define _LINUX_FUSE_BUFRING_H

#include <linux/types.h>

/*
 * INIT request flag: this kernel has buffer rings. For information, a server
 * does not set it in its reply.
 */
#define FUSE_HAS_IO_URING_BUFRING		(1ULL << 60)

/*
 * Flags of FUSE_IO_URING_CMD_REGISTER, in struct fuse_uring_bufring_req.
 *
 * FUSE_URING_REGISTER_BUFRING: register an entry of a buffer ring
 * FUSE_URING_REGISTER_PINNED_HEADERS: pin and map the header slots
 * FUSE_URING_REGISTER_PINNED_BUFFERS: pin and map the payload buffers
 * FUSE_URING_REGISTER_ZERO_COPY: put the pages of READ and WRITE into the
 *	fixed buffer table of the io_uring; needs both PINNED flags
 * FUSE_URING_REGISTER_ZERO_COPY_OPT_IN: only for files that were opened with
 *	FOPEN_IO_URING_ZERO_COPY
 */
#define FUSE_URING_REGISTER_BUFRING		(1 << 0)
#define FUSE_URING_REGISTER_PINNED_HEADERS	(1 << 1)
#define FUSE_URING_REGISTER_PINNED_BUFFERS	(1 << 2)
#define FUSE_URING_REGISTER_ZERO_COPY		(1 << 3)
#define FUSE_URING_REGISTER_ZERO_COPY_OPT_IN	(1 << 4)

/* Payload pools of a queue */
#define FUSE_URING_MAX_POOLS			4

/* buf_id of a request that has no payload buffer */
#define FUSE_URING_BUF_NONE			0xffff

/*
 * In the 80 bytes of the SQE's command area, in place of struct
 * fuse_uring_cmd_req, for FUSE_IO_URING_CMD_REGISTER with
 * FUSE_URING_REGISTER_BUFRING. The entry's header slot is in sqe->buf_index.
 */
struct fuse_uring_bufring_req {
	__u64	flags;

	/* as in struct fuse_uring_cmd_req */
	__u64	commit_id;
	__u16	qid;

	/* must be zero */
	__u16	padding;

	/* bytes in each payload buffer of pool 0 */
	__u32	buf_size;

	/* header slots of the queue */
	__u16	max_queue_depth;

	/* pools beyond the first, and the sizes of their buffers */
	__u16	nr_extra_pools;
	__u32	extra_buf_size[FUSE_URING_MAX_POOLS - 1];
};

/*
 * What struct fuse_uring_ent_in_out is on a buffer ring: the buffer is told by
 * its number, not by its offset.
 */
struct fuse_uring_bufring_ent {
	__u64	flags;
	__u64	commit_id;
	__u32	payload_sz;
	__u16	buf_id;
	__u16	padding;
	__u64	reserved;
};

#endif /* _LINUX_FUSE_BUFRING_H */
