// SPDX-License-Identifier: GPL-2.0
/*
 * FUSE: Filesystem in Userspace
 *
 * Zero-copy of requests over io-uring: the pages of a READ or WRITE are a fixed
 * buffer of the server's io_uring while the server has the request.
 */

#include "dev_uring_zero_copy.h"
#include "args.h"

#include <linux/array_size.h>
#include <linux/bvec.h>
#include <linux/io_uring/cmd.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/slab.h>

/* The pages of a request as a buffer in the table of an io_uring */
struct fuse_zero_copy {
	/* One for the entry, one for the buffer, dropped by its release */
	refcount_t ref;

	/* io_uring_cmd_ctx_handle() of the io_uring */
	const void *ctx;

	/* @buf can be revoked under @lock while it is not released */
	spinlock_t lock;
	bool released;
	struct io_mapped_ubuf *buf;

	/*
	 * A request that is committed and waits for the release of @buf. The one
	 * who clears this under @lock ends the request.
	 */
	struct fuse_req *req;

	unsigned int nr_bvs;
	struct bio_vec bvs[];
};

/**
 * fuse_zero_copy_wanted() - is this a request to be zero-copied?
 * @queue: the queue that it is for
 * @req: the request
 */
bool fuse_zero_copy_wanted(struct fuse_ring_queue *queue,
			   struct fuse_req *req)
{
	struct fuse_args *args = req->args;

	if (!queue->zero_copy || !args->zero_copy)
		return false;

	if (args->opcode != FUSE_READ && args->opcode != FUSE_WRITE)
		return false;

	return args->in_pages || args->out_pages;
}

/**
 * fuse_zero_copy_put() - drop the reference of an entry
 * @zc: what it had
 */
void fuse_zero_copy_put(struct fuse_zero_copy *zc)
{
	if (refcount_dec_and_test(&zc->ref))
		kvfree(zc);
}

/**
 * fuse_zero_copy_revoke() - let the server start no more I/O on the pages
 * @zc: the pages
 *
 * This is what an abort can do without uring_lock, whose holder may wait for
 * the request.
 */
void fuse_zero_copy_revoke(struct fuse_zero_copy *zc)
{
	spin_lock(&zc->lock);
	if (!zc->released)
		io_buffer_revoke(zc->buf);
	spin_unlock(&zc->lock);
}

/**
 * fuse_zero_copy_cmd_ok() - may the request be committed by this command?
 * @ent: the entry that has it, which is zero-copied
 * @cmd: the command
 */
bool fuse_zero_copy_cmd_ok(struct fuse_ring_ent *ent,
			   struct io_uring_cmd *cmd)
{
	struct fuse_zero_copy *zc = ent->zc;

	if (zc->ctx == io_uring_cmd_ctx_handle(cmd))
		return true;

	/* The io_uring may be closed, and the buffer gone with its table. */
	return refcount_read(&zc->ref) == 1;
}

/**
 * fuse_zero_copy_unregister() - take the pages out of the server's table
 * @cmd: command on the io_uring that has them
 * @ent: the entry, whose request is zero-copied
 * @issue_flags: those of @cmd
 */
void fuse_zero_copy_unregister(struct io_uring_cmd *cmd,
			       struct fuse_ring_ent *ent,
			       unsigned int issue_flags)
{
	/* Fails if the server has cleared the slot itself. */
	io_buffer_unregister_bvec(cmd, ent->zero_copy_index, ent->zc,
				  issue_flags);
}

/**
 * fuse_zero_copy_end() - take the pages of a request back
 * @ent: the entry that had it
 * @req: the request, which is committed and was zero-copied
 * @issue_flags: those of the entry's command
 *
 * Operations in flight, and clones of the table, can hold references on the
 * buffer when it is out of the table. The request then ends with the last of
 * them, or with an abort.
 *
 * Return: true if fuse_zero_copy_release() ends the request, false if the
 *	   caller has to
 */
bool fuse_zero_copy_end(struct fuse_ring_ent *ent, struct fuse_req *req,
			unsigned int issue_flags)
{
	struct fuse_ring_queue *queue = ent->queue;
	struct fuse_zero_copy *zc = ent->zc;
	bool wait = false;

	if (ent->cmd)
		fuse_zero_copy_unregister(ent->cmd, ent, issue_flags);
	ent->zc = NULL;

	/* pairs with smp_store_release() in fuse_zero_copy_release() */
	if (unlikely(!smp_load_acquire(&zc->released))) {
		spin_lock(&queue->lock);
		spin_lock(&zc->lock);
		if (!zc->released && queue->stopped) {
			io_buffer_revoke(zc->buf);
			req->out.h.error = -ECONNABORTED;
		} else if (!zc->released) {
			zc->req = req;
			/* Not in use any more, the entry takes the next one. */
			req->ring_entry = zc;
			list_add_tail(&req->list, &queue->fuse_req_zc_queue);
			wait = true;
		}
		spin_unlock(&zc->lock);
		spin_unlock(&queue->lock);
	}

	fuse_zero_copy_put(zc);
	return wait;
}

/**
 * fuse_zero_copy_abort_wait() - let a request not wait for its pages any more
 * @req: the request, on fuse_req_zc_queue
 *
 * Return: false if the pages are being released right now, which ends the
 *	   request
 */
bool fuse_zero_copy_abort_wait(struct fuse_req *req)
{
	struct fuse_zero_copy *zc = req->ring_entry;
	bool waiting;

	/* The release takes this lock before it drops its reference of zc. */
	lockdep_assert_held(&((struct fuse_ring_queue *)req->ring_queue)->lock);

	spin_lock(&zc->lock);
	waiting = zc->req;
	if (waiting) {
		zc->req = NULL;
		io_buffer_revoke(zc->buf);
	}
	spin_unlock(&zc->lock);

	return waiting;
}

/* End a request that waited for the release of its pages. */
static void fuse_zero_copy_end_req(struct fuse_req *req)
{
	struct fuse_ring_queue *queue = req->ring_queue;

	spin_lock(&queue->lock);
	list_del_init(&req->list);
	spin_unlock(&queue->lock);

	fuse_request_end_rcu(req);
}

/*
 * Called by io_uring when the last reference of the buffer is gone, in the
 * context of any task, with uring_lock held. If no request waits, queue, ring
 * and connection may be gone too.
 */
static void fuse_zero_copy_release(void *priv)
{
	struct fuse_zero_copy *zc = priv;
	struct fuse_req *req;
	unsigned int i;

	for (i = 0; i < zc->nr_bvs; i++)
		folio_put(page_folio(zc->bvs[i].bv_page));

	/* The buffer is freed when this returns. */
	spin_lock(&zc->lock);
	/* The pages are put: a commit may look without the lock. */
	smp_store_release(&zc->released, true);
	req = zc->req;
	zc->req = NULL;
	spin_unlock(&zc->lock);

	if (req)
		fuse_zero_copy_end_req(req);
	fuse_zero_copy_put(zc);
}

/**
 * fuse_zero_copy_set_up() - put the pages of a request in the server's table
 * @ent: the entry that has the request
 * @req: the request, for which fuse_zero_copy_wanted()
 * @issue_flags: those of the entry's command
 *
 * Return: 0, or the error of io_uring, after which the request can be copied
 */
int fuse_zero_copy_set_up(struct fuse_ring_ent *ent, struct fuse_req *req,
			  unsigned int issue_flags)
{
	struct fuse_args_pages *ap;
	struct io_mapped_ubuf *buf;
	int i, ddir = 0;
	struct fuse_zero_copy *zc;
	struct bio_vec *bvs;

	/* out_pages indicates a read, in_pages indicates a write */
	if (req->args->out_pages)
		ddir |= IO_BUF_DEST;
	if (req->args->in_pages)
		ddir |= IO_BUF_SOURCE;

	ap = container_of(req->args, typeof(*ap), args);

	zc = kvmalloc_flex(*zc, bvs, ap->num_folios, GFP_KERNEL_ACCOUNT);
	if (!zc)
		return -ENOMEM;

	refcount_set(&zc->ref, 2);
	zc->ctx = io_uring_cmd_ctx_handle(ent->cmd);
	spin_lock_init(&zc->lock);
	zc->released = false;
	zc->req = NULL;
	zc->nr_bvs = ap->num_folios;
	bvs = zc->bvs;
	for (i = 0; i < ap->num_folios; i++) {
		bvs[i].bv_page = folio_page(ap->folios[i], 0);
		bvs[i].bv_offset = ap->descs[i].offset;
		bvs[i].bv_len = ap->descs[i].length;
		folio_get(ap->folios[i]);
	}

	buf = io_buffer_register_bvec(ent->cmd, bvs, ap->num_folios,
				      fuse_zero_copy_release, zc,
				      ddir, ent->zero_copy_index,
				      issue_flags);
	if (IS_ERR(buf)) {
		fuse_zero_copy_release(zc);
		fuse_zero_copy_put(zc);
		return PTR_ERR(buf);
	}

	zc->buf = buf;
	ent->zc = zc;

	return 0;
}

static bool fuse_zero_copy_list_has_slot(const struct list_head *head,
					 const void *ctx, unsigned int index)
{
	struct fuse_ring_ent *ent;

	list_for_each_entry(ent, head, list)
		if (ent->ctx == ctx && ent->zero_copy_index == index)
			return true;

	return false;
}

static bool fuse_zero_copy_queue_has_slot(struct fuse_ring_queue *queue,
					  const void *ctx, unsigned int index)
{
	const struct list_head *lists[] = {
		&queue->ent_avail_queue, &queue->ent_w_req_queue,
		&queue->ent_commit_queue, &queue->ent_in_userspace,
	};
	bool has = false;
	unsigned int i;

	spin_lock(&queue->lock);
	for (i = 0; i < ARRAY_SIZE(lists) && !has; i++)
		has = fuse_zero_copy_list_has_slot(lists[i], ctx, index);
	spin_unlock(&queue->lock);

	return has;
}

/**
 * fuse_zero_copy_check_slot() - can pages be registered in this slot?
 * @cmd: the REGISTER of the entry that shall use the slot
 * @ring: the ring of its connection
 * @index: the slot
 * @issue_flags: those of @cmd
 *
 * The table may change later, so that is no promise, but a slot that is out of
 * range, in use, or another entry's now is a mistake of the server.
 *
 * Return: 0, -EINVAL if there is no such slot, or -EBUSY
 */
int fuse_zero_copy_check_slot(struct io_uring_cmd *cmd,
			      const struct fuse_ring *ring, unsigned int index,
			      unsigned int issue_flags)
{
	const void *ctx = io_uring_cmd_ctx_handle(cmd);
	bool taken = false;
	unsigned int qid;
	int err;

	err = io_buffer_check_slot(cmd, index, issue_flags);
	if (err)
		return err;

	/* One io_uring may serve several queues. */
	for (qid = 0; qid < ring->nr_queues && !taken; qid++) {
		struct fuse_ring_queue *queue = READ_ONCE(ring->queues[qid]);

		taken = queue && queue->zero_copy &&
			fuse_zero_copy_queue_has_slot(queue, ctx, index);
	}

	return taken ? -EBUSY : 0;
}

/**
 * fuse_zero_copy_check_folio_refs() - copy a request whose memory may go away
 * @req: the request
 *
 * Zero-copy needs memory that a folio reference keeps alive. Pinned pages and
 * the page cache are, but a kernel user of direct I/O, such as the loop device,
 * may pass slab or other memory that is not freed through the reference count.
 * Have the data of such a request copied.
 */
void fuse_zero_copy_check_folio_refs(struct fuse_req *req)
{
	struct fuse_args *args = req->args;
	struct fuse_args_pages *ap = container_of(args, typeof(*ap), args);
	unsigned int i;

	if (!args->user_pages || args->is_pinned)
		return;

	for (i = 0; i < ap->num_folios; i++) {
		struct folio *folio = ap->folios[i];

		if (folio_test_slab(folio) || !folio_ref_count(folio)) {
			args->zero_copy = false;
			return;
		}
	}
}
