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
#include <linux/compat.h>
#include <linux/err.h>
#include <linux/fuse_bufring.h>
#include <linux/io_uring/cmd.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#define FUSE_BUFRING_FLAGS	FUSE_URING_REGISTER_BUFRING

/* The header slots come first, then each pool. */
#define FUSE_BUFRING_IOV_MAX	(1 + FUSE_URING_MAX_POOLS)

static_assert(FUSE_URING_MAX_POOLS == FUSE_BUFPOOL_MAX);

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
	return flags & ~FUSE_BUFRING_FLAGS ? -EINVAL : 0;
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

/* Read and check a REGISTER */
static int fuse_bufring_parse(struct io_uring_cmd *cmd,
			      const struct fuse_ring *ring,
			      struct fuse_bufring_config *config,
			      unsigned int *slot)
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

	for (i = 0; i < config->nr_pools; i++) {
		size_t nr = iov[1 + i].iov_len / config->buf_size[i];

		/* Every id must differ from FUSE_URING_BUF_NONE. */
		if (!nr || nr > FUSE_URING_BUF_NONE - nr_total)
			return -EINVAL;
		nr_total += nr;
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
					  false);
	if (err) {
		fuse_bufring_free(br);
		return ERR_PTR(err);
	}
	return br;
}

/**
 * fuse_bufring_free() - free the buffer ring of a queue
 * @br: the buffer ring, which nobody uses, or %NULL
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

/*
 * Give a new queue its memory. After an error it may have a part of it, and is to
 * be freed.
 */
static int fuse_bufring_add(struct fuse_ring_queue *queue,
			    const struct fuse_bufring_config *config,
			    const struct io_uring_sqe *sqe,
			    unsigned int issue_flags)
{
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
						  first_id);
		if (IS_ERR(pool))
			return PTR_ERR(pool);
		first_id += pool->nr_bufs;
		queue->bufpools[queue->nr_bufpools++] = pool;
	}
	queue->payload_mode = FUSE_PAYLOAD_BUFPOOL;
	queue->bufpools_final = true;

	return 0;
}

/* Was the queue created with the same parameters, and by this door? */
static bool fuse_bufring_matches(const struct fuse_bufring *br,
				 const struct fuse_bufring_config *config)
{
	return br && br->config.flags == config->flags &&
	       br->config.max_queue_depth == config->max_queue_depth &&
	       br->config.nr_pools == config->nr_pools &&
	       !memcmp(br->config.buf_size, config->buf_size,
		       sizeof(config->buf_size));
}

/**
 * fuse_bufring_claim_slot() - give its header slot to an entry
 * @ent: the entry of a buffer ring, which knows its slot
 *
 * Return: 0, or -EBUSY if another entry has it
 */
int fuse_bufring_claim_slot(struct fuse_ring_ent *ent)
{
	struct fuse_bufring *br = ent->queue->bufring;

	if (test_and_set_bit_lock(ent->slot, br->slots))
		return -EBUSY;

	ent->headers = (struct fuse_uring_req_header __user *)
		       br->headers.uaddr + ent->slot;
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

static struct fuse_ring_queue *
fuse_bufring_get_queue(struct fuse_ring *ring, unsigned int qid,
		       const struct fuse_bufring_config *config,
		       struct io_uring_cmd *cmd, unsigned int issue_flags)
{
	struct fuse_ring_queue *queue = fuse_uring_find_queue(ring, qid);
	int err;

	if (!queue) {
		queue = fuse_uring_alloc_queue(ring, qid, false);
		if (IS_ERR(queue))
			return queue;
		err = fuse_bufring_add(queue, config, cmd->sqe, issue_flags);
		if (err) {
			fuse_uring_free_queue(queue);
			return ERR_PTR(err);
		}
		err = fuse_uring_publish_queue(queue);
		if (err)
			queue = fuse_uring_find_queue(ring, qid);
	}

	return fuse_bufring_matches(queue->bufring, config) ? queue :
							      ERR_PTR(-EINVAL);
}

/**
 * fuse_bufring_register() - let a buffer ring have one entry more
 * @cmd: the REGISTER. The first one of a queue creates it.
 * @ring: the ring of its connection
 * @qid: number of the queue, which is one of the ring's
 * @ent: the entry, allocated and empty
 * @issue_flags: those of @cmd
 *
 * Context: the server's task, may sleep
 *
 * Return: 0; -EINVAL for parameters that make no sense, or are not the queue's;
 *	   -EBUSY if the slot is taken; or -EFAULT, -ENOMEM, -ECONNABORTED
 */
int fuse_bufring_register(struct io_uring_cmd *cmd, struct fuse_ring *ring,
			  unsigned int qid, struct fuse_ring_ent *ent,
			  unsigned int issue_flags)
{
	struct fuse_bufring_config config;
	struct fuse_ring_queue *queue;
	int err;

	err = fuse_bufring_parse(cmd, ring, &config, &ent->slot);
	if (err)
		return err;

	queue = fuse_bufring_get_queue(ring, qid, &config, cmd, issue_flags);
	if (IS_ERR(queue))
		return PTR_ERR(queue);

	return fuse_uring_attach_ent(queue, cmd, ent, issue_flags);
}
