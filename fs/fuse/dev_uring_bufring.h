/* SPDX-License-Identifier: GPL-2.0
 *
 * FUSE: Filesystem in Userspace
 *
 * Buffer rings: header slots and payload pools of a queue.
 */

#ifndef _FS_FUSE_DEV_URING_BUFRING_H
#define _FS_FUSE_DEV_URING_BUFRING_H

#include "dev_uring_i.h"

#include <linux/fuse_bufring.h>

struct io_uring_cmd;
struct io_uring_sqe;

/**
 * struct fuse_bufring_config - what a REGISTER asks for
 * @flags: its flags
 * @max_queue_depth: number of header slots
 * @nr_pools: number of payload pools
 * @buf_size: bytes of a buffer of each pool, 0 for those not used
 */
struct fuse_bufring_config {
	u64 flags;
	unsigned int max_queue_depth;
	unsigned int nr_pools;
	u32 buf_size[FUSE_URING_MAX_POOLS];
};

int fuse_bufring_parse(struct io_uring_cmd *cmd, const struct fuse_ring *ring,
		       struct fuse_bufring_config *config, unsigned int *slot);
int fuse_bufring_add(struct fuse_ring_queue *queue,
		     const struct fuse_bufring_config *config,
		     const struct io_uring_sqe *sqe, unsigned int issue_flags);
void fuse_bufring_release_memory(struct fuse_ring_queue *queue);
void fuse_bufring_free(struct fuse_bufring *br);
bool fuse_bufring_matches(const struct fuse_bufring *br,
			  const struct fuse_bufring_config *config);

int fuse_bufring_claim_slot(struct fuse_ring_ent *ent, unsigned int slot);
void fuse_bufring_return_slot(struct fuse_ring_ent *ent);

#endif /* _FS_FUSE_DEV_URING_BUFRING_H */
