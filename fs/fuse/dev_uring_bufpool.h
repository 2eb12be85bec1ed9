/* SPDX-License-Identifier: GPL-2.0
 *
 * FUSE: Filesystem in Userspace
 * Copyright (c) 2023-2024 DataDirect Networks.
 *
 * Pools of payload buffers for the queues of fuse over io_uring.
 */

#ifndef _FS_FUSE_DEV_URING_BUFPOOL_H
#define _FS_FUSE_DEV_URING_BUFPOOL_H

#include "dev_uring_i.h"

#include <linux/io_uring/cmd.h>

/**
 * struct fuse_bufpool - payload buffers of one size in the memory of a server
 * @registered: the memory is part of a fixed buffer of io_uring
 * @registered_index: which one, if it is
 * @base_uaddr: where the memory begins in the server's address space
 * @buf_size: bytes of a buffer
 * @waiting: requests that found no free buffer, the oldest first. They are older
 *	     than all on the queue's fuse_req_queue. Those whose client is
 *	     killed just leave the list.
 * @nr_bufs: number of buffers
 * @nr_free: number of free buffers
 * @free: stack of the ids of the free buffers: the one that was freed last, which
 *	  is most likely to be cached, is used first
 *
 * A queue gets its pool before its first entry and keeps it until the ring is
 * destroyed, when there are no entries any more: whoever has an entry may use
 * the pool without a reference. @waiting, @nr_free and @free are protected by
 * queue->lock, nothing else changes.
 *
 * The pool does not keep the memory alive. Memory in place is accessed by its
 * address, in a task of the server. A fixed buffer is looked up by each command,
 * which from then on holds a reference.
 */
struct fuse_bufpool {
	bool registered;
	u16 registered_index;
	uintptr_t base_uaddr;
	size_t buf_size;
	struct list_head waiting;
	unsigned int nr_bufs;
	unsigned int nr_free;
	unsigned int free[] __counted_by(nr_bufs);
};

struct fuse_bufpool *fuse_bufpool_create(struct io_uring_cmd *cmd, u64 uaddr,
					 unsigned int len, size_t buf_size,
					 unsigned int issue_flags);
void fuse_bufpool_free(struct fuse_bufpool *pool);

bool fuse_bufpool_take_buf(struct fuse_ring_ent *ent);
int fuse_bufpool_import(const struct fuse_bufpool_buf *buf, int dir,
			struct iov_iter *iter, struct io_uring_cmd *cmd,
			unsigned int issue_flags);

struct fuse_req *fuse_bufpool_next_req(struct fuse_ring_ent *ent);
void fuse_bufpool_wait_first(struct fuse_ring_queue *queue,
			     struct fuse_req *req);
void fuse_bufpool_splice_waiting(struct fuse_ring_queue *queue,
				 struct list_head *list);
bool fuse_bufpool_request_expired(struct fuse_chan *fch,
				  struct fuse_ring_queue *queue);

/*
 * For a registered bufpool, every sqe that drives a payload import (REGISTER,
 * COMMIT_AND_FETCH) must carry the registered buffer index of the pool.
 * This also must be called from the command's issue handler, where cmd->sqe is
 * still valid
 */
static inline bool fuse_bufpool_cmd_ok(const struct fuse_bufpool *pool,
				       struct io_uring_cmd *cmd)
{
	if (!pool || !pool->registered)
		return true;

	return (cmd->flags & IORING_URING_CMD_FIXED) &&
	       READ_ONCE(cmd->sqe->buf_index) == pool->registered_index;
}

/**
 * fuse_bufpool_return_buf() - the buffer of an entry is free again
 * @ent: the entry, which need not have one
 *
 * A request may wait for the buffer: the caller has to look for one before it
 * drops the lock, see fuse_uring_match_and_unlock().
 */
static inline void fuse_bufpool_return_buf(struct fuse_ring_ent *ent)
{
	struct fuse_bufpool *pool = ent->buf.pool;

	lockdep_assert_held(&ent->queue->lock);

	if (!pool)
		return;

	pool->free[pool->nr_free++] = ent->buf.id;
	ent->buf.pool = NULL;
}

/* Is there a request that waits for a buffer that has become free? */
static inline bool fuse_bufpool_can_serve(struct fuse_ring_queue *queue)
{
	struct fuse_bufpool *pool = queue->bufpool;

	lockdep_assert_held(&queue->lock);

	return pool && pool->nr_free && !list_empty(&pool->waiting);
}

/* Where the buffer begins, counted from the beginning of its pool */
static inline size_t fuse_bufpool_offset(const struct fuse_bufpool_buf *buf)
{
	return buf->id * buf->pool->buf_size;
}

#endif /* _FS_FUSE_DEV_URING_BUFPOOL_H */
