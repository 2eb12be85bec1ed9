// SPDX-License-Identifier: GPL-2.0
/*
 * FUSE: Filesystem in Userspace
 *
 * Zero-copy of requests over io-uring.
 *
 * The pages of a READ or WRITE are registered as a fixed buffer of the
 * server's io_uring while the server has the request, so that it can read a
 * backing file into them, or write them to it, without a copy in between.
 */

#include "dev_uring_zero_copy.h"
#include "fuse_dev_i.h"

#include <linux/bvec.h>
#include <linux/io_uring/cmd.h>
#include <linux/slab.h>

/**
 * fuse_uring_zc_wanted - is it a request for zero-copy?
 * @args: the request
 * @opt_in: only files that were opened for it
 *
 * Direct I/O on behalf of the kernel, of a loop device for instance, can come
 * with memory that has no reference count of its own, as that of a slab. It is
 * copied. User memory is pinned, and the page cache always has one.
 */
bool fuse_uring_zc_wanted(const struct fuse_args *args, bool opt_in)
{
	if (opt_in && !args->zero_copy)
		return false;
	if (args->user_pages && !args->is_pinned)
		return false;

	return fuse_uring_zc_in_size(args) || fuse_uring_zc_out_size(args);
}

/**
 * fuse_uring_zc_init - prepare an entry for zero-copy
 * @zc: its zero-copy side, all zero
 * @cmd: the REGISTER, on the io_uring that all its commands will come from
 * @slot: index of the fixed buffer
 * @max_pages: pages of the largest request
 * @issue_flags: flags of @cmd
 *
 * A table of fixed buffers that cannot be used is found out here, as an error
 * of the server, rather than by a client.
 *
 * Return: 0, -EINVAL if there is no such fixed buffer, -EBUSY if it is in use,
 *	   -ENOMEM
 */
int fuse_uring_zc_init(struct fuse_uring_zc *zc, struct io_uring_cmd *cmd,
		       u16 slot, unsigned int max_pages,
		       unsigned int issue_flags)
{
	int err;

	err = io_buffer_slot_free(cmd, slot, issue_flags);
	if (err)
		return err;

	zc->bvecs = kvmalloc_objs(struct bio_vec, max_pages,
				  GFP_KERNEL_ACCOUNT);
	if (!zc->bvecs)
		return -ENOMEM;

	zc->max_bvecs = max_pages;
	zc->slot = slot;
	zc->io_uring = io_uring_cmd_ctx_handle(cmd);
	return 0;
}

/**
 * fuse_uring_zc_free - free what fuse_uring_zc_init() allocated
 * @zc: zero-copy side of the entry
 *
 * A fixed buffer that is registered stays, with its folios, until the server
 * or the end of its io_uring clears it. It is no business of this module.
 *
 * Context: any
 */
void fuse_uring_zc_free(struct fuse_uring_zc *zc)
{
	kvfree(zc->bvecs);
	zc->bvecs = NULL;
}

/*
 * Describe the first @size bytes of the request's folios. Pieces that follow
 * each other in a folio, as those of a huge page do, become one.
 */
static int fuse_uring_zc_fill(struct fuse_uring_zc *zc,
			      const struct fuse_args_pages *ap,
			      unsigned int size)
{
	struct folio *prev = NULL;
	unsigned int i, prev_end = 0, nr = 0;

	for (i = 0; i < ap->num_folios && size; i++) {
		struct folio *folio = ap->folios[i];
		unsigned int offset = ap->descs[i].offset;
		unsigned int len = min(ap->descs[i].length, size);

		if (folio == prev && offset == prev_end) {
			zc->bvecs[nr - 1].bv_len += len;
		} else {
			if (nr == zc->max_bvecs)
				return -EIO;
			bvec_set_folio(&zc->bvecs[nr++], folio, len, offset);
		}

		prev = folio;
		prev_end = offset + len;
		size -= len;
	}
	return size ? -EIO : nr;
}

/**
 * fuse_uring_zc_register - give the server the pages of a request
 * @zc: zero-copy side of the entry that carries it
 * @req: the request, for which fuse_uring_zc_wanted()
 * @cmd: the command that completes with it
 * @issue_flags: flags to handle @cmd with
 *
 * Return: 0 or an error for the request
 */
int fuse_uring_zc_register(struct fuse_uring_zc *zc, struct fuse_req *req,
			   struct io_uring_cmd *cmd, unsigned int issue_flags)
{
	const struct fuse_args *args = req->args;
	const struct fuse_args_pages *ap = container_of(args, typeof(*ap), args);
	bool write = args->opcode == FUSE_WRITE;
	int nr, err;

	nr = fuse_uring_zc_fill(zc, ap, write ? fuse_uring_zc_in_size(args) :
						fuse_uring_zc_out_size(args));
	if (nr < 0)
		return nr;

	err = io_buffer_register_bvec(cmd, zc->bvecs, nr,
				      write ? ITER_SOURCE : ITER_DEST,
				      zc->slot, issue_flags);
	if (err == -ENOMEM)
		return err;
	/* the server has tampered with its table, which is not an -EBUSY */
	if (err)
		return -EIO;

	zc->registered = true;
	return 0;
}
