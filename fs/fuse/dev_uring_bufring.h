/* SPDX-License-Identifier: GPL-2.0
 *
 * FUSE: Filesystem in Userspace
 *
 * Buffer rings: header slots and payload pools of a queue.
 */

#ifndef _FS_FUSE_DEV_URING_BUFRING_H
#define _FS_FUSE_DEV_URING_BUFRING_H

#include "dev_uring_bufpool.h"

#include <linux/fuse.h>
#include <linux/fuse_bufring.h>

struct io_uring_cmd;

int fuse_bufring_register(struct io_uring_cmd *cmd, struct fuse_ring *ring,
			  unsigned int qid, struct fuse_ring_ent *ent,
			  unsigned int issue_flags);
void fuse_bufring_free(struct fuse_bufring *br);

int fuse_bufring_claim_slot(struct fuse_ring_ent *ent);
void fuse_bufring_return_slot(struct fuse_ring_ent *ent);

static_assert(sizeof(struct fuse_uring_bufring_ent) ==
	      sizeof(struct fuse_uring_ent_in_out));

/* A server on a buffer ring knows its buffers by their numbers. */
static inline void fuse_bufring_tell_buf(const struct fuse_bufpool_buf *buf,
					 struct fuse_uring_ent_in_out *out)
{
	struct fuse_uring_bufring_ent *ent =
		(struct fuse_uring_bufring_ent *)out;

	ent->buf_id = buf->pool ? buf->pool->first_id + buf->id :
				  FUSE_URING_BUF_NONE;
}

/* Can the server ask for less after this error of a REGISTER? */
static inline bool fuse_bufring_may_retry(u64 flags, int err)
{
	return (flags & FUSE_URING_REGISTER_BUFRING) &&
	       (err == -EPERM || err == -ENOMEM || err == -EINTR);
}

#endif /* _FS_FUSE_DEV_URING_BUFRING_H */
