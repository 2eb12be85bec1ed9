/* SPDX-License-Identifier: GPL-2.0
 *
 * FUSE: Filesystem in Userspace
 *
 * Buffer rings: header slots and payload pools of a queue.
 */

#ifndef _FS_FUSE_DEV_URING_BUFRING_H
#define _FS_FUSE_DEV_URING_BUFRING_H

#include "dev_uring_i.h"

struct io_uring_cmd;

int fuse_bufring_register(struct io_uring_cmd *cmd, struct fuse_ring *ring,
			  unsigned int qid, unsigned int issue_flags);
void fuse_bufring_free(struct fuse_bufring *br);

int fuse_bufring_claim_slot(struct fuse_ring_ent *ent, unsigned int slot);
void fuse_bufring_return_slot(struct fuse_ring_ent *ent);

#endif /* _FS_FUSE_DEV_URING_BUFRING_H */
