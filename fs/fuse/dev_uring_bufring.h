/* SPDX-License-Identifier: GPL-2.0 */
/*
 * FUSE: Filesystem in Userspace
 *
 * Buffer ring of an io-uring queue: header slots and payload pools.
 */

#ifndef _FS_FUSE_DEV_URING_BUFRING_H
#define _FS_FUSE_DEV_URING_BUFRING_H

#include <linux/fuse.h>
#include <linux/types.h>
#include <linux/uio.h>

struct fuse_bufring;
struct fuse_chan;
struct fuse_req;

/**
 * struct fuse_bufring_config - what a REGISTER asks for
 * @flags: the flags of the command
 * @max_queue_depth: number of header slots
 * @nr_pools: number of payload pools
 * @buf_size: bytes in a buffer of each pool, 0 for those not used
 * @pinned_headers: pin and map the header slots
 * @pinned_buffers: pin and map the payload pools
 */
struct fuse_bufring_config {
	u64 flags;
	unsigned int max_queue_depth;
	unsigned int nr_pools;
	u32 buf_size[FUSE_URING_MAX_POOLS];
	bool pinned_headers;
	bool pinned_buffers;
};

/**
 * struct fuse_bufring_buf - a payload buffer that an entry holds
 * @id: as the server knows it, FUSE_URING_BUF_NONE if there is none
 * @pool: where it comes from
 */
struct fuse_bufring_buf {
	u16 id;
	u16 pool;
};

int fuse_bufring_check_config(const struct fuse_bufring_config *config,
			      size_t max_payload);
struct fuse_bufring *fuse_bufring_create(const struct fuse_bufring_config *config,
					 const struct iovec *iov);
void fuse_bufring_release_memory(struct fuse_bufring *br);
void fuse_bufring_free(struct fuse_bufring *br);
bool fuse_bufring_matches(const struct fuse_bufring *br,
			  const struct fuse_bufring_config *config);

int fuse_bufring_claim_slot(struct fuse_bufring *br, unsigned int slot);
void fuse_bufring_return_slot(struct fuse_bufring *br, unsigned int slot);

struct fuse_req *fuse_bufring_next_req(struct fuse_bufring *br,
				       struct list_head *pending,
				       struct fuse_bufring_buf *buf);
bool fuse_bufring_take_for(struct fuse_bufring *br, const struct fuse_req *req,
			   struct fuse_bufring_buf *buf);
bool fuse_bufring_can_wake(const struct fuse_bufring *br);
void fuse_bufring_return_buf(struct fuse_bufring *br,
			     struct fuse_bufring_buf *buf);
void fuse_bufring_splice_waiting(struct fuse_bufring *br,
				 struct list_head *list);
bool fuse_bufring_request_expired(struct fuse_chan *fch,
				  struct fuse_bufring *br);

struct fuse_uring_req_header __user *
fuse_bufring_slot_headers(const struct fuse_bufring *br, unsigned int slot,
			  struct fuse_uring_req_header **mapped);
size_t fuse_bufring_buf_size(const struct fuse_bufring *br,
			     const struct fuse_bufring_buf *buf);
int fuse_bufring_iter(const struct fuse_bufring *br,
		      const struct fuse_bufring_buf *buf, int ddir,
		      struct iov_iter *iter, struct kvec *kvec);

#endif /* _FS_FUSE_DEV_URING_BUFRING_H */
