/* SPDX-License-Identifier: GPL-2.0 */
/*
 * FUSE: Filesystem in Userspace
 *
 * Zero-copy of requests over io-uring.
 */

#ifndef _FS_FUSE_DEV_URING_ZERO_COPY_H
#define _FS_FUSE_DEV_URING_ZERO_COPY_H

#include "args.h"

#include <linux/fuse.h>
#include <linux/types.h>

struct bio_vec;
struct fuse_req;
struct io_uring_cmd;

/**
 * struct fuse_uring_zc - zero-copy side of a ring entry
 * @bvecs: room for the memory of any request, NULL if the queue has no
 *	   zero-copy
 * @max_bvecs: number of elements of @bvecs
 * @slot: index of the fixed buffer
 * @registered: the memory of a request is in the fixed buffer
 * @io_uring: the instance that has the fixed buffer
 */
struct fuse_uring_zc {
	struct bio_vec *bvecs;
	unsigned int max_bvecs;
	u16 slot;
	bool registered;
	void *io_uring;
};

/* Bytes that a request would carry without a copy */
static inline unsigned int fuse_uring_zc_in_size(const struct fuse_args *args)
{
	if (args->opcode != FUSE_WRITE || !args->in_pages)
		return 0;

	return args->in_args[args->in_numargs - 1].size;
}

/* Bytes that its reply could have without a copy */
static inline unsigned int fuse_uring_zc_out_size(const struct fuse_args *args)
{
	if (args->opcode != FUSE_READ || !args->out_pages)
		return 0;

	return args->out_args[args->out_numargs - 1].size;
}

bool fuse_uring_zc_wanted(const struct fuse_args *args, bool opt_in);
int fuse_uring_zc_init(struct fuse_uring_zc *zc, struct io_uring_cmd *cmd,
		       u16 slot, unsigned int max_pages,
		       unsigned int issue_flags);
void fuse_uring_zc_free(struct fuse_uring_zc *zc);
bool fuse_uring_zc_same_ring(const struct fuse_uring_zc *zc,
			     struct io_uring_cmd *cmd);
int fuse_uring_zc_register(struct fuse_uring_zc *zc, struct fuse_req *req,
			   struct io_uring_cmd *cmd, unsigned int issue_flags);
void fuse_uring_zc_unregister(struct fuse_uring_zc *zc,
			      struct io_uring_cmd *cmd,
			      unsigned int issue_flags);

#endif /* _FS_FUSE_DEV_URING_ZERO_COPY_H */
