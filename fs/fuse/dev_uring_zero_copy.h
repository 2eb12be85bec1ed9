/* SPDX-License-Identifier: GPL-2.0
 *
 * FUSE: Filesystem in Userspace
 *
 * Zero-copy of requests over io-uring.
 */

#ifndef _FS_FUSE_DEV_URING_ZERO_COPY_H
#define _FS_FUSE_DEV_URING_ZERO_COPY_H

#include "dev_uring_i.h"

struct io_uring_cmd;

bool fuse_zero_copy_wanted(struct fuse_ring_queue *queue,
			   struct fuse_req *req);
void fuse_zero_copy_check_folio_refs(struct fuse_req *req);
int fuse_zero_copy_check_slot(struct io_uring_cmd *cmd,
			      const struct fuse_ring *ring, unsigned int index,
			      unsigned int issue_flags);

int fuse_zero_copy_set_up(struct fuse_ring_ent *ent, struct fuse_req *req,
			  unsigned int issue_flags);
bool fuse_zero_copy_cmd_ok(struct fuse_ring_ent *ent,
			   struct io_uring_cmd *cmd);
void fuse_zero_copy_unregister(struct io_uring_cmd *cmd,
			       struct fuse_ring_ent *ent,
			       unsigned int issue_flags);
bool fuse_zero_copy_end(struct fuse_ring_ent *ent, struct fuse_req *req,
			unsigned int issue_flags);

bool fuse_zero_copy_abort_wait(struct fuse_req *req);
void fuse_zero_copy_revoke(struct fuse_zero_copy *zc);
void fuse_zero_copy_put(struct fuse_zero_copy *zc);

#endif /* _FS_FUSE_DEV_URING_ZERO_COPY_H */
