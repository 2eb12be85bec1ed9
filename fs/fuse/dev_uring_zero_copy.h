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
#include <linux/io_uring/cmd.h>
#include <linux/types.h>

struct fuse_req;

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
int fuse_uring_zc_register(struct fuse_uring_zc *zc, struct fuse_req *req,
			   struct io_uring_cmd *cmd, unsigned int issue_flags);

/**
 * fuse_uring_zc_same_ring - can the entry go on with this command?
 * @zc: zero-copy side of the entry
 * @cmd: the command
 *
 * Fixed buffers belong to an io_uring. The one of the entry cannot be taken
 * back through another. A server that closes it, and gets a new one at the same
 * address, can at worst lose a buffer of its own new table.
 */
static inline bool fuse_uring_zc_same_ring(const struct fuse_uring_zc *zc,
					   struct io_uring_cmd *cmd)
{
	return !zc->bvecs || zc->io_uring == io_uring_cmd_ctx_handle(cmd);
}

/**
 * fuse_uring_zc_unregister - take the pages back, if the server has them
 * @zc: zero-copy side of the entry
 * @cmd: a command on the io_uring of the entry
 * @issue_flags: flags to handle @cmd with
 *
 * No operation finds them there after this. Those in flight, and clones that
 * the server made of the buffer, keep the folios alive. It may also have
 * cleared the fixed buffer itself.
 */
static inline void fuse_uring_zc_unregister(struct fuse_uring_zc *zc,
					    struct io_uring_cmd *cmd,
					    unsigned int issue_flags)
{
	if (!zc->registered)
		return;

	zc->registered = false;
	io_buffer_unregister_bvec(cmd, zc->slot, issue_flags);
}

#endif /* _FS_FUSE_DEV_URING_ZERO_COPY_H */
