// SPDX-License-Identifier: GPL-2.0
/*
 * FUSE: Filesystem in Userspace
 *
 * Buffer ring of an io-uring queue.
 *
 * The headers of a request live in the slot of the entry that carries it. Its
 * payload lives in a buffer of a pool, which the request holds only while it
 * needs one. So a queue has as many payload buffers as it has requests with
 * data under way, not as many as it has entries.
 */

#include "dev_uring_bufring.h"
#include "dev_uring_mem.h"
#include "fuse_dev_i.h"

#include <linux/bitmap.h>
#include <linux/err.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/overflow.h>
#include <linux/slab.h>

/**
 * struct fuse_bufring_pool - payload buffers of one size
 * @mem: where the buffers are, one after the other
 * @buf_size: bytes in each
 * @first_id: id of the first one
 * @nr_bufs: how many there are
 * @nr_free: how many are free
 * @free: their ids: the last one to come is the first one to go, as it is the
 *	  most likely to be in a cache
 * @waiting: requests that fit this pool but no smaller one, and that have
 *	     waited for a buffer since there was none; the oldest first
 *
 * @nr_free, @free and @waiting are protected by the lock of the queue.
 */
struct fuse_bufring_pool {
	struct fuse_uring_mem mem;
	u32 buf_size;
	u16 first_id;
	u16 nr_bufs;
	u16 nr_free;
	u16 *free;
	struct list_head waiting;
};

/**
 * struct fuse_bufring - buffer ring of a queue
 * @config: what the queue was created with
 * @headers: the header slots
 * @slots: which of them an entry has
 * @pools: the payload buffers, in the order of their size
 * @may_wait: false if no request waits for a buffer; protected by the lock of
 *	      the queue
 */
struct fuse_bufring {
	struct fuse_bufring_config config;
	struct fuse_uring_mem headers;
	unsigned long *slots;
	bool may_wait;
	struct fuse_bufring_pool pools[FUSE_URING_MAX_POOLS];
};

/**
 * fuse_bufring_check_config - can there be a buffer ring like this?
 * @config: what the server asks for
 * @max_payload: bytes of the largest payload of the connection
 *
 * Return: 0 or -EINVAL
 */
int fuse_bufring_check_config(const struct fuse_bufring_config *config,
			      size_t max_payload)
{
	unsigned int i;

	if (!config->max_queue_depth)
		return -EINVAL;

	for (i = 0; i < config->nr_pools; i++) {
		u32 smaller = i ? config->buf_size[i - 1] : 0;

		if (config->buf_size[i] <= smaller)
			return -EINVAL;
	}

	/* there must be a buffer for any request */
	return config->buf_size[config->nr_pools - 1] < max_payload ? -EINVAL : 0;
}

static int fuse_bufring_check_regions(const struct fuse_bufring_config *config,
				      const struct iovec *iov)
{
	size_t nr_total = 0;
	unsigned int i;

	if (iov[0].iov_len / sizeof(struct fuse_uring_req_header) <
	    config->max_queue_depth)
		return -EINVAL;
	if (config->pinned_headers && !PAGE_ALIGNED(iov[0].iov_base))
		return -EINVAL;

	for (i = 0; i < config->nr_pools; i++) {
		const struct iovec *pool = &iov[1 + i];
		size_t nr = pool->iov_len / config->buf_size[i];

		/* every id must differ from FUSE_URING_BUF_NONE */
		if (!nr || nr > FUSE_URING_BUF_NONE - nr_total)
			return -EINVAL;
		nr_total += nr;

		if (config->pinned_buffers && !PAGE_ALIGNED(pool->iov_base))
			return -EINVAL;
	}
	return 0;
}

static int fuse_bufring_init_pool(struct fuse_bufring_pool *pool,
				  const struct iovec *iov, u32 buf_size,
				  u16 first_id, bool pinned)
{
	unsigned int i;
	size_t size;

	pool->buf_size = buf_size;
	pool->first_id = first_id;
	pool->nr_bufs = iov->iov_len / buf_size;

	pool->free = kvmalloc_objs(u16, pool->nr_bufs, GFP_KERNEL_ACCOUNT);
	if (!pool->free)
		return -ENOMEM;

	/* start with the first one */
	for (i = 0; i < pool->nr_bufs; i++)
		pool->free[i] = first_id + pool->nr_bufs - 1 - i;
	pool->nr_free = pool->nr_bufs;

	if (check_mul_overflow((size_t)pool->nr_bufs, (size_t)buf_size, &size))
		return -EINVAL;

	return fuse_uring_mem_init(&pool->mem, iov->iov_base, size, pinned);
}

static int fuse_bufring_init(struct fuse_bufring *br, const struct iovec *iov)
{
	const struct fuse_bufring_config *config = &br->config;
	unsigned int i, first_id = 0;
	int err;

	br->slots = bitmap_zalloc(config->max_queue_depth, GFP_KERNEL_ACCOUNT);
	if (!br->slots)
		return -ENOMEM;

	err = fuse_uring_mem_init(&br->headers, iov[0].iov_base,
				  config->max_queue_depth *
				  sizeof(struct fuse_uring_req_header),
				  config->pinned_headers);
	if (err)
		return err;

	for (i = 0; i < config->nr_pools; i++) {
		err = fuse_bufring_init_pool(&br->pools[i], &iov[1 + i],
					     config->buf_size[i], first_id,
					     config->pinned_buffers);
		if (err)
			return err;
		first_id += br->pools[i].nr_bufs;
	}
	return 0;
}

/**
 * fuse_bufring_create - create the buffer ring of a queue
 * @config: what the server asks for, checked
 * @iov: its memory, the header slots first and then each pool
 *
 * Context: the server's task, may sleep
 *
 * Return: the buffer ring; -EINVAL for memory that does not go with @config, or
 *	   the error of fuse_uring_mem_init()
 */
struct fuse_bufring *fuse_bufring_create(const struct fuse_bufring_config *config,
					 const struct iovec *iov)
{
	struct fuse_bufring *br;
	unsigned int i;
	int err;

	err = fuse_bufring_check_regions(config, iov);
	if (err)
		return ERR_PTR(err);

	br = kzalloc_obj(*br, GFP_KERNEL_ACCOUNT);
	if (!br)
		return ERR_PTR(-ENOMEM);
	br->config = *config;
	for (i = 0; i < FUSE_URING_MAX_POOLS; i++)
		INIT_LIST_HEAD(&br->pools[i].waiting);

	err = fuse_bufring_init(br, iov);
	if (err) {
		fuse_bufring_release_memory(br);
		fuse_bufring_free(br);
		return ERR_PTR(err);
	}
	return br;
}

/**
 * fuse_bufring_release_memory - give the server's memory back
 * @br: the buffer ring; no entry is left that could copy
 *
 * May be called again, and for a buffer ring that is not complete.
 *
 * Context: process context, may sleep
 */
void fuse_bufring_release_memory(struct fuse_bufring *br)
{
	unsigned int i;

	fuse_uring_mem_release(&br->headers);
	for (i = 0; i < br->config.nr_pools; i++)
		fuse_uring_mem_release(&br->pools[i].mem);
}

/**
 * fuse_bufring_free - free a buffer ring
 * @br: the buffer ring, its memory is released
 *
 * Context: any
 */
void fuse_bufring_free(struct fuse_bufring *br)
{
	unsigned int i;

	for (i = 0; i < br->config.nr_pools; i++)
		kvfree(br->pools[i].free);
	bitmap_free(br->slots);
	kfree(br);
}

/**
 * fuse_bufring_matches - was the queue created with the same config?
 * @br: the buffer ring
 * @config: what a later REGISTER says
 */
bool fuse_bufring_matches(const struct fuse_bufring *br,
			  const struct fuse_bufring_config *config)
{
	return br->config.flags == config->flags &&
	       br->config.max_queue_depth == config->max_queue_depth &&
	       br->config.nr_pools == config->nr_pools &&
	       !memcmp(br->config.buf_size, config->buf_size,
		       sizeof(config->buf_size));
}

/**
 * fuse_bufring_claim_slot - take a header slot for an entry
 * @br: the buffer ring
 * @slot: the slot
 *
 * Two entries with one slot would share a header.
 *
 * Return: 0, -EINVAL if there is no such slot, -EBUSY if it is taken
 */
int fuse_bufring_claim_slot(struct fuse_bufring *br, unsigned int slot)
{
	if (slot >= br->config.max_queue_depth)
		return -EINVAL;

	return test_and_set_bit_lock(slot, br->slots) ? -EBUSY : 0;
}

/**
 * fuse_bufring_return_slot - give a header slot back
 * @br: the buffer ring
 * @slot: the slot, nobody uses it any more
 */
void fuse_bufring_return_slot(struct fuse_bufring *br, unsigned int slot)
{
	clear_bit_unlock(slot, br->slots);
}

/* The smallest pool whose buffers hold that much, or the last one */
static unsigned int fuse_bufring_fitting_pool(const struct fuse_bufring *br,
					      size_t size)
{
	unsigned int i = 0;

	while (i < br->config.nr_pools - 1 && br->pools[i].buf_size < size)
		i++;
	return i;
}

/* The first pool from @i on that has a buffer left, nr_pools if there is none */
static unsigned int fuse_bufring_pool_with_buf(const struct fuse_bufring *br,
					       unsigned int i)
{
	while (i < br->config.nr_pools && !br->pools[i].nr_free)
		i++;
	return i;
}

/* Take a buffer of pool @i or else of a larger one */
static bool fuse_bufring_take_buf(struct fuse_bufring *br, unsigned int i,
				  struct fuse_bufring_buf *buf)
{
	struct fuse_bufring_pool *pool;

	i = fuse_bufring_pool_with_buf(br, i);
	if (i == br->config.nr_pools)
		return false;

	pool = &br->pools[i];
	buf->id = pool->free[--pool->nr_free];
	buf->pool = i;
	return true;
}

/* The oldest of the waiting requests for which there is a buffer */
static struct fuse_req *fuse_bufring_next_waiting(struct fuse_bufring *br,
						  struct fuse_bufring_buf *buf)
{
	struct fuse_req *oldest = NULL;
	unsigned int i, fit = 0;
	bool waiting = false;

	if (!br->may_wait)
		return NULL;

	for (i = 0; i < br->config.nr_pools; i++) {
		struct fuse_req *req;

		req = list_first_entry_or_null(&br->pools[i].waiting,
					       struct fuse_req, list);
		if (!req)
			continue;
		waiting = true;
		if (oldest && oldest->in.h.unique < req->in.h.unique)
			continue;
		if (fuse_bufring_pool_with_buf(br, i) == br->config.nr_pools)
			break;
		oldest = req;
		fit = i;
	}

	/* those that were interrupted left without a word */
	br->may_wait = waiting;
	if (oldest)
		fuse_bufring_take_buf(br, fit, buf);
	return oldest;
}

/**
 * fuse_bufring_next_req - find the next request that can go out
 * @br: the buffer ring
 * @pending: requests that nobody has looked at yet
 * @buf: the payload buffer for the request, if it needs one
 *
 * A request can go out if it needs no buffer, or if one that fits is free. It
 * never waits behind one that cannot: a lock that waits for its unlock may
 * hold the last buffer. Requests that lack a buffer leave @pending for a list
 * of their own, so that each is looked at once there, and are served in order
 * as buffers come back.
 *
 * Context: under the lock of the queue
 *
 * Return: the request, on the list where it was found, or NULL
 */
struct fuse_req *fuse_bufring_next_req(struct fuse_bufring *br,
				       struct list_head *pending,
				       struct fuse_bufring_buf *buf)
{
	struct fuse_req *req, *next;

	req = fuse_bufring_next_waiting(br, buf);
	if (req)
		return req;

	list_for_each_entry_safe(req, next, pending, list) {
		unsigned int fit;

		if (!req->ring_payload) {
			buf->id = FUSE_URING_BUF_NONE;
			return req;
		}

		fit = fuse_bufring_fitting_pool(br, req->ring_payload);
		if (fuse_bufring_take_buf(br, fit, buf))
			return req;

		list_move_tail(&req->list, &br->pools[fit].waiting);
		br->may_wait = true;
	}
	return NULL;
}

/**
 * fuse_bufring_take_for - take the buffer that a new request needs
 * @br: the buffer ring
 * @req: the request, on no list yet
 * @buf: the payload buffer, none if it needs none
 *
 * Context: under the lock of the queue
 *
 * Return: false if the request needs a buffer and there is none, or if others
 *	   were there before
 */
bool fuse_bufring_take_for(struct fuse_bufring *br, const struct fuse_req *req,
			   struct fuse_bufring_buf *buf)
{
	if (!req->ring_payload) {
		buf->id = FUSE_URING_BUF_NONE;
		return true;
	}
	if (br->may_wait)
		return false;

	return fuse_bufring_take_buf(br, fuse_bufring_fitting_pool(br, req->ring_payload),
				     buf);
}

/**
 * fuse_bufring_can_wake - is there a buffer for a request that waits for one?
 * @br: the buffer ring
 *
 * Context: under the lock of the queue
 */
bool fuse_bufring_can_wake(const struct fuse_bufring *br)
{
	unsigned int i;

	if (!br->may_wait)
		return false;

	for (i = 0; i < br->config.nr_pools; i++) {
		if (!list_empty(&br->pools[i].waiting) &&
		    fuse_bufring_pool_with_buf(br, i) < br->config.nr_pools)
			return true;
	}
	return false;
}

/**
 * fuse_bufring_return_buf - give a payload buffer back, if there is one
 * @br: the buffer ring
 * @buf: the buffer, none after the call
 *
 * The caller has to see to it that a request that waits for it is sent.
 *
 * Context: under the lock of the queue
 */
void fuse_bufring_return_buf(struct fuse_bufring *br,
			     struct fuse_bufring_buf *buf)
{
	struct fuse_bufring_pool *pool;

	if (buf->id == FUSE_URING_BUF_NONE)
		return;

	pool = &br->pools[buf->pool];
	pool->free[pool->nr_free++] = buf->id;
	buf->id = FUSE_URING_BUF_NONE;
}

/**
 * fuse_bufring_splice_waiting - stop waiting for buffers
 * @br: the buffer ring
 * @list: gets the requests that were waiting
 *
 * Context: under the lock of the queue
 */
void fuse_bufring_splice_waiting(struct fuse_bufring *br,
				 struct list_head *list)
{
	unsigned int i;

	for (i = 0; i < br->config.nr_pools; i++)
		list_splice_tail_init(&br->pools[i].waiting, list);
}

/**
 * fuse_bufring_request_expired - has a request waited for too long?
 * @fch: the channel, which knows how long that is
 * @br: the buffer ring
 *
 * Context: under the lock of the queue
 */
bool fuse_bufring_request_expired(struct fuse_chan *fch,
				  struct fuse_bufring *br)
{
	unsigned int i;

	for (i = 0; i < br->config.nr_pools; i++) {
		if (fuse_request_expired(fch, &br->pools[i].waiting))
			return true;
	}
	return false;
}

/**
 * fuse_bufring_slot_headers - where the headers of a slot are
 * @br: the buffer ring
 * @slot: the slot, of an entry
 * @mapped: gets where the kernel has them, NULL if they are not pinned
 *
 * Good as long as the entry can copy, see fuse_bufring_release_memory().
 *
 * Return: where the server has them
 */
struct fuse_uring_req_header __user *
fuse_bufring_slot_headers(const struct fuse_bufring *br, unsigned int slot,
			  struct fuse_uring_req_header **mapped)
{
	const struct fuse_uring_mem *mem = &br->headers;
	size_t offset = slot * sizeof(struct fuse_uring_req_header);

	*mapped = mem->pinned ? mem->kaddr + offset : NULL;
	return mem->uaddr + offset;
}

/**
 * fuse_bufring_buf_size - bytes that fit a payload buffer
 * @br: the buffer ring
 * @buf: the buffer, nothing fits if there is none
 */
size_t fuse_bufring_buf_size(const struct fuse_bufring *br,
			     const struct fuse_bufring_buf *buf)
{
	if (buf->id == FUSE_URING_BUF_NONE)
		return 0;

	return br->pools[buf->pool].buf_size;
}

/**
 * fuse_bufring_iter - point an iterator at a payload buffer
 * @br: the buffer ring
 * @buf: the buffer, the iterator is empty if there is none
 * @ddir: ITER_DEST to copy to the buffer, ITER_SOURCE to copy from it
 * @iter: the iterator
 * @kvec: lives as long as @iter
 *
 * Return: 0 or -EFAULT
 */
int fuse_bufring_iter(const struct fuse_bufring *br,
		      const struct fuse_bufring_buf *buf, int ddir,
		      struct iov_iter *iter, struct kvec *kvec)
{
	const struct fuse_bufring_pool *pool;
	size_t offset;

	if (buf->id == FUSE_URING_BUF_NONE) {
		iov_iter_kvec(iter, ddir, NULL, 0, 0);
		return 0;
	}

	pool = &br->pools[buf->pool];
	offset = (size_t)(buf->id - pool->first_id) * pool->buf_size;
	return fuse_uring_mem_iter(&pool->mem, offset, pool->buf_size, ddir,
				   iter, kvec);
}
