/* SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause */
/*
 * One queue: its io_uring, its memory, and the commands that travel between
 * it and the kernel. No threads, no waiting, no policy: these are on top of it.
 *
 * All functions of one queue belong to one thread at a time.
 */
#ifndef FUSE_RING_QUEUE_H
#define FUSE_RING_QUEUE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>
#include <liburing.h>

#include "ring_uapi.h"

/* struct fuse_uring_req_header, as every door has it */
struct ring_header {
	/* struct fuse_in_header, or struct fuse_out_header */
	char in_out[FUSE_URING_IN_OUT_HEADER_SZ];
	/* the struct of the operation */
	char op_in[FUSE_URING_OP_IN_OUT_SZ];
	union {
		struct ring_ent ent;
		struct fuse_uring_bufring_ent bufring;
	};
};

struct queue_pool {
	uint32_t buf_size;
	uint32_t nr;
};

struct ring_door;

/* What a queue is like, before and after it is registered */
struct queue_layout {
	const struct ring_door *door;
	uint16_t depth;		/* slots there may be */
	uint16_t first;		/* of them those with an entry from the beginning */
	uint16_t keep;		/* entries kept for requests that do not wait */
	unsigned int nr_pools;
	struct queue_pool pool[FUSE_URING_MAX_POOLS];
	bool buffer_each;	/* for every entry; those to spare are not touched */
	uint32_t max_payload;	/* the connection's largest */
	/*
	 * Bytes before each payload buffer that are the server's own, a
	 * multiple of the page size: what is written there continues in the
	 * payload. 0 for none.
	 */
	uint32_t headroom;
	bool pinned_headers;
	bool pinned_buffers;
	/* in the table of the io_uring, of which slots have the first ones */
	unsigned int fixed_buffers;
	bool fixed_pool;	/* the pool is the last of them */
	bool zero_copy_slots;	/* REGISTER has to name them */
	uint64_t register_flags;
};

struct queue_memory {
	struct iovec headers;
	/* as the kernel sees them */
	struct iovec pool[FUSE_URING_MAX_POOLS];
	/* as the server sees them if there is headroom: each buffer after it */
	struct iovec view[FUSE_URING_MAX_POOLS];
};

/* Everything that one REGISTER says */
struct queue_register {
	union {
		struct ring_cmd_req command;
		struct fuse_uring_bufring_req bufring;
	};
	uint16_t slot;
	uint16_t buf_index;
	unsigned int nr_iov;
	struct iovec iov[1 + FUSE_URING_MAX_POOLS];
};

/*
 * How many queues a connection has: the kernel makes one for every CPU there
 * can be, and numbers them without gaps.
 */
unsigned int queue_count(void);

/* Rounded up to pages */
size_t queue_page_align(size_t size);

size_t queue_pool_bytes(const struct queue_pool *pool);
/* Bytes of payload buffers the queue has for so many requests */
size_t queue_layout_payload_bytes(const struct queue_layout *layout,
				  unsigned int requests);
/* Bytes that count against RLIMIT_MEMLOCK */
size_t queue_layout_pinned_bytes(const struct queue_layout *layout);

/* Maps it; -ENOMEM if there is none. */
int queue_memory_map(struct queue_memory *memory,
		     const struct queue_layout *layout);
void queue_memory_unmap(struct queue_memory *memory);

struct ring_header *queue_memory_header(const struct queue_memory *memory,
					unsigned int slot);
/* Payload buffer @n, counted through the pools -> @size */
void *queue_memory_payload(const struct queue_memory *memory,
			   const struct queue_layout *layout, unsigned int n,
			   size_t *size);

/* Of an entry with a header of its own: no payload buffer so far */
void queue_register_header(struct queue_register *reg,
			   const struct queue_memory *memory);

/*
 * The SQEs; the caller sets user_data. The command area has SQE128's 80 bytes.
 */
void *queue_prep_command(struct io_uring_sqe *sqe, int dev_fd,
			 uint32_t command);
void queue_prep_register(struct io_uring_sqe *sqe, int dev_fd,
			 const struct queue_layout *layout,
			 const struct queue_register *reg);
void queue_prep_commit(struct io_uring_sqe *sqe, int dev_fd,
		       const struct queue_layout *layout, uint16_t qid,
		       uint64_t commit_id);
/* A command that has to do with the pool, if that is a fixed buffer */
void queue_use_fixed_pool(struct io_uring_sqe *sqe,
			  const struct queue_layout *layout);
/* READ_FIXED or WRITE_FIXED, @from so many bytes into the client's data */
void queue_prep_transfer(struct io_uring_sqe *sqe, uint32_t opcode,
			 uint16_t slot, uint64_t from, int fd, uint64_t offset,
			 size_t len);

/* Fills the reply's headers in. */
void queue_fill_reply(struct ring_header *header, uint64_t unique, int error,
		      size_t payload_sz);

#endif
