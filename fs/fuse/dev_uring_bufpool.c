// SPDX-License-Identifier: GPL-2.0
/*
 * FUSE: Filesystem in Userspace
 * Copyright (c) 2023-2024 DataDirect Networks.
 *
 * Pools of payload buffers for the queues of fuse over io_uring.
 *
 * A request has a buffer of the pool only while it needs one, so that a queue
 * does not need as many buffers as it has entries. What finds no free buffer
 * waits, and nothing else waits for it: a lock that is granted only after
 * another request was answered may have the last buffer.
 */

#include "dev_uring_bufpool.h"
#include "fuse_dev_i.h"

#include <linux/err.h>
#include <linux/list.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

/*
 * The pool of a registered buffer has to lie within that buffer, which must
 * allow both directions.  The buffer is contiguous, so that it is enough to look
 * at the first and the last payload buffer; the whole can be longer than what
 * may be imported at once.
 */
static int fuse_bufpool_check_registered(const struct fuse_bufpool *pool,
					 struct io_uring_cmd *cmd,
					 unsigned int issue_flags)
{
	u64 first = pool->base_uaddr;
	u64 last = first + (u64)(pool->nr_bufs - 1) * pool->buf_size;
	struct iov_iter iter;
	int err;

	if (last < first)
		return -EFAULT;

	err = io_uring_cmd_import_fixed(first, pool->buf_size, ITER_DEST, &iter,
					cmd, issue_flags);
	if (!err)
		err = io_uring_cmd_import_fixed(last, pool->buf_size,
						ITER_SOURCE, &iter, cmd,
						issue_flags);
	return err;
}

static struct fuse_bufpool *fuse_bufpool_alloc(uintptr_t base_uaddr,
					       unsigned int nr_bufs,
					       size_t buf_size)
{
	struct fuse_bufpool *pool;
	unsigned int i;

	pool = kvzalloc_flex(*pool, free, nr_bufs, GFP_KERNEL_ACCOUNT);
	if (!pool)
		return NULL;

	pool->nr_bufs = nr_bufs;
	pool->base_uaddr = base_uaddr;
	pool->buf_size = buf_size;
	INIT_LIST_HEAD(&pool->waiting);
	/* all buffers are free, the first is the first to be used */
	pool->nr_free = nr_bufs;
	for (i = 0; i < nr_bufs; i++)
		pool->free[i] = nr_bufs - 1 - i;

	return pool;
}

/**
 * fuse_bufpool_free() - free a pool of payload buffers
 * @pool: the pool, which nobody uses, or %NULL
 *
 * Context: task or interrupt, without a spinlock
 */
void fuse_bufpool_free(struct fuse_bufpool *pool)
{
	kvfree(pool);
}

/**
 * fuse_bufpool_create() - make a pool of payload buffers
 * @cmd: command of the server that brings the memory. With
 *	 %IORING_URING_CMD_FIXED it is part of the fixed buffer sqe->buf_index,
 *	 else it is used in place
 * @uaddr: where the memory begins in the server's address space
 * @len: bytes that it has
 * @buf_size: bytes of a payload buffer
 * @issue_flags: those of @cmd, which is being issued
 *
 * Return: the pool, or -EINVAL if there is no room for a buffer, -ENOMEM, or
 *	   -EFAULT or another error of io_uring if the memory cannot be used
 */
struct fuse_bufpool *fuse_bufpool_create(struct io_uring_cmd *cmd, u64 uaddr,
					 unsigned int len, size_t buf_size,
					 unsigned int issue_flags)
{
	bool registered = cmd->flags & IORING_URING_CMD_FIXED;
	unsigned int nr_bufs = len / buf_size;
	struct fuse_bufpool *pool;
	int err;

	if (!nr_bufs)
		return ERR_PTR(-EINVAL);

	/* NULL is what a server passes that has set no address. */
	if (!uaddr || uaddr != (uintptr_t)uaddr)
		return ERR_PTR(-EFAULT);
	if (!registered && !access_ok(u64_to_user_ptr(uaddr), len))
		return ERR_PTR(-EFAULT);

	pool = fuse_bufpool_alloc(uaddr, nr_bufs, buf_size);
	if (!pool)
		return ERR_PTR(-ENOMEM);

	if (registered) {
		pool->registered = true;
		pool->registered_index = READ_ONCE(cmd->sqe->buf_index);

		err = fuse_bufpool_check_registered(pool, cmd, issue_flags);
		if (err) {
			fuse_bufpool_free(pool);
			return ERR_PTR(err);
		}
	}

	return pool;
}

/**
 * fuse_bufpool_take_buf() - take the free buffer that was in use last
 * @ent: gets the buffer, has none yet
 *
 * Return: false if no buffer is free
 */
bool fuse_bufpool_take_buf(struct fuse_ring_ent *ent)
{
	struct fuse_bufpool *pool = ent->queue->bufpool;

	lockdep_assert_held(&ent->queue->lock);

	if (!pool->nr_free)
		return false;

	ent->buf.pool = pool;
	ent->buf.id = pool->free[--pool->nr_free];
	return true;
}

/**
 * fuse_bufpool_next_req() - find the next request that an entry can take
 * @ent: the entry, which has no buffer; it gets one if the request needs it
 *
 * That is the oldest request for which a buffer is free, or which needs none.
 * Those passed over go to the pool's list, so that each is looked at in vain only
 * once.
 *
 * Return: the request, on the list where it was found, or %NULL
 */
struct fuse_req *fuse_bufpool_next_req(struct fuse_ring_ent *ent)
{
	struct fuse_ring_queue *queue = ent->queue;
	struct fuse_bufpool *pool = queue->bufpool;
	struct fuse_req *req;

	lockdep_assert_held(&queue->lock);

	req = list_first_entry_or_null(&pool->waiting, struct fuse_req, list);
	if (req && fuse_bufpool_take_buf(ent))
		return req;

	while ((req = list_first_entry_or_null(&queue->fuse_req_queue,
					       struct fuse_req, list))) {
		if (!req->ring_needs_buf || fuse_bufpool_take_buf(ent))
			return req;
		list_move_tail(&req->list, &pool->waiting);
	}

	return NULL;
}

/**
 * fuse_bufpool_wait_first() - put back a request for which no buffer is free
 * @queue: queue with a pool
 * @req: the request. It had an entry already, so it goes before all that wait.
 */
void fuse_bufpool_wait_first(struct fuse_ring_queue *queue,
			     struct fuse_req *req)
{
	lockdep_assert_held(&queue->lock);

	list_add(&req->list, &queue->bufpool->waiting);
}

/**
 * fuse_bufpool_splice_waiting() - let no request wait for a buffer any more
 * @queue: queue with or without a pool
 * @list: the requests are added to its end
 */
void fuse_bufpool_splice_waiting(struct fuse_ring_queue *queue,
				 struct list_head *list)
{
	lockdep_assert_held(&queue->lock);

	if (queue->bufpool)
		list_splice_tail_init(&queue->bufpool->waiting, list);
}

/**
 * fuse_bufpool_request_expired() - has a request waited for too long?
 * @fch: the channel, which knows how long that is
 * @queue: queue with or without a pool
 *
 * Return: true if the oldest that waits for a buffer has
 */
bool fuse_bufpool_request_expired(struct fuse_chan *fch,
				  struct fuse_ring_queue *queue)
{
	lockdep_assert_held(&queue->lock);

	return queue->bufpool &&
	       fuse_request_expired(fch, &queue->bufpool->waiting);
}

/**
 * fuse_bufpool_import() - point an iterator at a buffer
 * @buf: the buffer
 * @dir: %ITER_DEST to copy to the buffer, %ITER_SOURCE to copy from it
 * @iter: the iterator
 * @cmd: command of the entry that has the buffer, for a registered pool
 * @issue_flags: those of @cmd
 *
 * Return: 0 or an error, of io_uring if the pool is registered
 */
int fuse_bufpool_import(const struct fuse_bufpool_buf *buf, int dir,
			struct iov_iter *iter, struct io_uring_cmd *cmd,
			unsigned int issue_flags)
{
	const struct fuse_bufpool *pool = buf->pool;
	uintptr_t uaddr = pool->base_uaddr + fuse_bufpool_offset(buf);

	if (pool->registered)
		return io_uring_cmd_import_fixed(uaddr, pool->buf_size, dir,
						 iter, cmd, issue_flags);

	return import_ubuf(dir, (void __user *)uaddr, pool->buf_size, iter);
}
