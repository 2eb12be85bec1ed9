// SPDX-License-Identifier: GPL-2.0
/*
 * FUSE: Filesystem in Userspace
 *
 * Buffer rings: one REGISTER creates a queue with memory for all its entries.
 *
 * Each entry has a slot of the header region, and takes payload buffers from the
 * pools of the queue. Later REGISTERs have the same parameters and only claim
 * another slot.
 */

#include "dev_uring_bufring.h"
#include "dev_uring_bufpool.h"
#include "dev_uring_mem.h"

#include <linux/bitmap.h>
#include <linux/cacheinfo.h>
#include <linux/capability.h>
#include <linux/compat.h>
#include <linux/err.h>
#include <linux/io_uring/cmd.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#define FUSE_BUFRING_PINNED	(FUSE_URING_REGISTER_PINNED_HEADERS | \
				 FUSE_URING_REGISTER_PINNED_BUFFERS)
#define FUSE_BUFRING_FLAGS	(FUSE_URING_REGISTER_BUFRING | \
				 FUSE_BUFRING_PINNED | \
				 FUSE_URING_REGISTER_ZERO_COPY | \
				 FUSE_URING_REGISTER_ZERO_COPY_OPT_IN)

/* The header slots come first, then each pool. */
#define FUSE_BUFRING_IOV_MAX	(1 + FUSE_URING_MAX_POOLS)

static_assert(FUSE_URING_MAX_POOLS == FUSE_BUFPOOL_MAX);

/**
 * struct fuse_bufring - what a queue has besides its pools
 * @config: what it was created with
 * @headers: the header slots
 * @slots: those that an entry has
 */
struct fuse_bufring {
	struct fuse_bufring_config config;
	struct fuse_uring_mem headers;
	unsigned long *slots;
};

static int fuse_bufring_check_flags(u64 flags)
{
	bool zero_copy = flags & FUSE_URING_REGISTER_ZERO_COPY;

	if (flags & ~FUSE_BUFRING_FLAGS)
		return -EINVAL;
	if (zero_copy && (flags & FUSE_BUFRING_PINNED) != FUSE_BUFRING_PINNED)
		return -EINVAL;
	if ((flags & FUSE_URING_REGISTER_ZERO_COPY_OPT_IN) && !zero_copy)
		return -EINVAL;

	/* The server can read and change memory of its clients at any time. */
	if (zero_copy && !capable(CAP_SYS_ADMIN))
		return -EPERM;

	/* What the kernel writes by its mapping the server would not see. */
	if ((flags & FUSE_BUFRING_PINNED) && cpu_dcache_is_aliasing())
		return -EOPNOTSUPP;

	return 0;
}

static int fuse_bufring_check_sizes(const struct fuse_bufring_config *config,
				    size_t max_payload)
{
	unsigned int i;

	for (i = 0; i < FUSE_URING_MAX_POOLS; i++) {
		u32 smaller = i ? config->buf_size[i - 1] : 0;

		if (i < config->nr_pools ? config->buf_size[i] <= smaller :
					   config->buf_size[i])
			return -EINVAL;
	}

	/* There must be a buffer for any request. */
	return config->buf_size[config->nr_pools - 1] < max_payload ? -EINVAL : 0;
}

/**
 * fuse_bufring_parse() - read and check a REGISTER
 * @cmd: the command
 * @ring: the ring of its connection
 * @config: gets what the queue shall be like
 * @slot: gets the header slot that the entry shall have
 *
 * Return: 0, -EINVAL, or another error for what the server may not have
 */
int fuse_bufring_parse(struct io_uring_cmd *cmd, const struct fuse_ring *ring,
		       struct fuse_bufring_config *config, unsigned int *slot)
{
	const struct fuse_uring_bufring_req *req =
		io_uring_sqe128_cmd(cmd->sqe, struct fuse_uring_bufring_req);
	unsigned int nr_extra = READ_ONCE(req->nr_extra_pools);
	unsigned int i;
	int err;

	config->flags = READ_ONCE(req->flags);
	config->max_queue_depth = READ_ONCE(req->max_queue_depth);
	config->nr_pools = 1 + nr_extra;
	config->buf_size[0] = READ_ONCE(req->buf_size);
	for (i = 1; i < FUSE_URING_MAX_POOLS; i++)
		config->buf_size[i] = READ_ONCE(req->extra_buf_size[i - 1]);
	*slot = READ_ONCE(cmd->sqe->buf_index);

	err = fuse_bufring_check_flags(config->flags);
	if (err)
		return err;

	if (READ_ONCE(req->padding) || nr_extra >= FUSE_URING_MAX_POOLS ||
	    READ_ONCE(cmd->sqe->len) != 1 + config->nr_pools ||
	    *slot >= config->max_queue_depth)
		return -EINVAL;

	return fuse_bufring_check_sizes(config, ring->max_payload_sz);
}

/*
 * import_iovec() would cut the region of a large pool, and asks the task for what
 * io_uring knows: whether it is a compat one.
 */
static int fuse_bufring_read_iovecs(const struct io_uring_sqe *sqe,
				    struct iovec *iov, unsigned int nr,
				    unsigned int issue_flags)
{
	void __user *uiov = u64_to_user_ptr(READ_ONCE(sqe->addr));
	struct compat_iovec compat_iov[FUSE_BUFRING_IOV_MAX];
	unsigned int i;

	if (!(issue_flags & IO_URING_F_COMPAT))
		return copy_from_user(iov, uiov, nr * sizeof(*iov)) ?
			-EFAULT : 0;

	if (copy_from_user(compat_iov, uiov, nr * sizeof(*compat_iov)))
		return -EFAULT;
	for (i = 0; i < nr; i++) {
		iov[i].iov_base = compat_ptr(compat_iov[i].iov_base);
		iov[i].iov_len = compat_iov[i].iov_len;
	}
	return 0;
}

static int fuse_bufring_check_regions(const struct fuse_bufring_config *config,
				      const struct iovec *iov)
{
	size_t nr_total = 0;
	unsigned int i;

	if (iov[0].iov_len / sizeof(struct fuse_uring_req_header) <
	    config->max_queue_depth)
		return -EINVAL;
	if ((config->flags & FUSE_URING_REGISTER_PINNED_HEADERS) &&
	    !PAGE_ALIGNED(iov[0].iov_base))
		return -EINVAL;

	for (i = 0; i < config->nr_pools; i++) {
		size_t nr = iov[1 + i].iov_len / config->buf_size[i];

		/* Every id must differ from FUSE_URING_BUF_NONE. */
		if (!nr || nr > FUSE_URING_BUF_NONE - nr_total)
			return -EINVAL;
		nr_total += nr;

		if ((config->flags & FUSE_URING_REGISTER_PINNED_BUFFERS) &&
		    !PAGE_ALIGNED(iov[1 + i].iov_base))
			return -EINVAL;
	}
	return 0;
}

static struct fuse_bufring *
fuse_bufring_create(const struct fuse_bufring_config *config,
		    void __user *headers)
{
	struct fuse_bufring *br;
	int err = -ENOMEM;

	br = kzalloc_obj(*br, GFP_KERNEL_ACCOUNT);
	if (!br)
		return ERR_PTR(-ENOMEM);

	br->config = *config;
	br->slots = bitmap_zalloc(config->max_queue_depth, GFP_KERNEL_ACCOUNT);
	if (br->slots)
		err = fuse_uring_mem_init(&br->headers, headers,
					  config->max_queue_depth *
					  sizeof(struct fuse_uring_req_header),
					  config->flags &
					  FUSE_URING_REGISTER_PINNED_HEADERS);
	if (err) {
		fuse_bufring_free(br);
		return ERR_PTR(err);
	}
	return br;
}

/**
 * fuse_bufring_release_memory() - unpin what is pinned for a queue
 * @queue: a queue of any kind, which has no entry left that could copy and gets
 *	   none any more
 *
 * It may be called again.
 *
 * Context: process context, may sleep
 */
void fuse_bufring_release_memory(struct fuse_ring_queue *queue)
{
	unsigned int i;

	if (queue->bufring)
		fuse_uring_mem_release(&queue->bufring->headers);
	for (i = 0; i < queue->nr_bufpools; i++)
		fuse_uring_mem_release(&queue->bufpools[i]->mem);
}

/**
 * fuse_bufring_free() - free the buffer ring of a queue
 * @br: the buffer ring, whose memory is released, or %NULL
 *
 * The pools are the queue's.
 */
void fuse_bufring_free(struct fuse_bufring *br)
{
	if (!br)
		return;

	bitmap_free(br->slots);
	kfree(br);
}

/**
 * fuse_bufring_add() - give a new queue its memory
 * @queue: the queue, which nobody else knows yet
 * @config: what it shall be like, as fuse_bufring_parse() gave it
 * @sqe: the REGISTER, which has the iovecs
 * @issue_flags: those of its command
 *
 * Context: the server's task, may sleep
 *
 * Return: 0; -EINVAL for memory that does not go with @config, or an error of
 *	   fuse_uring_mem_init(). After an error the queue may have a part of it,
 *	   which is to be released and freed.
 */
int fuse_bufring_add(struct fuse_ring_queue *queue,
		     const struct fuse_bufring_config *config,
		     const struct io_uring_sqe *sqe, unsigned int issue_flags)
{
	bool pinned = config->flags & FUSE_URING_REGISTER_PINNED_BUFFERS;
	struct iovec iov[FUSE_BUFRING_IOV_MAX];
	unsigned int i, first_id = 0;
	struct fuse_bufring *br;
	int err;

	err = fuse_bufring_read_iovecs(sqe, iov, 1 + config->nr_pools,
				       issue_flags);
	if (err)
		return err;

	err = fuse_bufring_check_regions(config, iov);
	if (err)
		return err;

	br = fuse_bufring_create(config, iov[0].iov_base);
	if (IS_ERR(br))
		return PTR_ERR(br);
	queue->bufring = br;

	for (i = 0; i < config->nr_pools; i++) {
		struct fuse_bufpool *pool;

		pool = fuse_bufpool_create_shared(&iov[1 + i],
						  config->buf_size[i],
						  first_id, pinned);
		if (IS_ERR(pool))
			return PTR_ERR(pool);
		first_id += pool->nr_bufs;
		queue->bufpools[queue->nr_bufpools++] = pool;
	}
	queue->payload_mode = FUSE_PAYLOAD_BUFPOOL;
	queue->zero_copy = config->flags & FUSE_URING_REGISTER_ZERO_COPY;
	queue->zero_copy_all = queue->zero_copy &&
		!(config->flags & FUSE_URING_REGISTER_ZERO_COPY_OPT_IN);

	return 0;
}

/**
 * fuse_bufring_matches() - was the queue created with the same parameters?
 * @br: the buffer ring, %NULL for a queue that has none
 * @config: what a later REGISTER says
 */
bool fuse_bufring_matches(const struct fuse_bufring *br,
			  const struct fuse_bufring_config *config)
{
	return br && br->config.flags == config->flags &&
	       br->config.max_queue_depth == config->max_queue_depth &&
	       br->config.nr_pools == config->nr_pools &&
	       !memcmp(br->config.buf_size, config->buf_size,
		       sizeof(config->buf_size));
}

/**
 * fuse_bufring_claim_slot() - give a header slot to an entry
 * @ent: the entry of a buffer ring
 * @slot: the slot, which the queue has
 *
 * Return: 0, or -EBUSY if another entry has it
 */
int fuse_bufring_claim_slot(struct fuse_ring_ent *ent, unsigned int slot)
{
	struct fuse_bufring *br = ent->queue->bufring;

	if (test_and_set_bit_lock(slot, br->slots))
		return -EBUSY;

	ent->slot = slot;
	ent->headers = (struct fuse_uring_req_header __user *)
		       br->headers.uaddr + slot;
	if (br->headers.pinned)
		ent->mapped_headers =
			(struct fuse_uring_req_header *)br->headers.kaddr + slot;
	return 0;
}

/**
 * fuse_bufring_return_slot() - another entry may have the slot
 * @ent: the entry of a buffer ring, which does not use it any more
 */
void fuse_bufring_return_slot(struct fuse_ring_ent *ent)
{
	clear_bit_unlock(ent->slot, ent->queue->bufring->slots);
}
