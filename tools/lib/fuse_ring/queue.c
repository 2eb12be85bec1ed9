// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * One queue: its memory and its commands, see queue.h.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "queue.h"

/* The bytes of SQE128 for the command, which liburing 2.3 has no name for */
#define COMMAND_AREA	80

/* For registered buffers; Linux 6.1 */
#ifndef IORING_URING_CMD_FIXED
#define IORING_URING_CMD_FIXED	(1U << 0)
#endif

unsigned int queue_count(void)
{
	FILE *file = fopen("/sys/devices/system/cpu/possible", "re");
	unsigned int first, last, cpus = 0;
	int n, c;

	while (file) {
		n = fscanf(file, "%u-%u", &first, &last);
		if (n < 1)
			break;
		cpus += (n == 2 ? last : first) - first + 1;
		c = fgetc(file);
		if (c != ',')
			break;
	}
	if (file)
		fclose(file);
	if (!cpus)
		cpus = sysconf(_SC_NPROCESSORS_CONF);
	return cpus;
}

size_t queue_page_align(size_t size)
{
	size_t page_size = getpagesize();

	return (size + page_size - 1) / page_size * page_size;
}

size_t queue_pool_bytes(const struct queue_pool *pool)
{
	return (size_t)pool->buf_size * pool->nr;
}

static size_t header_bytes(const struct queue_layout *layout)
{
	return layout->depth * sizeof(struct ring_header);
}

size_t queue_layout_payload_bytes(const struct queue_layout *layout,
				  unsigned int requests)
{
	unsigned int pool;
	size_t bytes = 0;

	if (layout->buffer_each)
		return (size_t)layout->pool[0].buf_size * requests;
	for (pool = 0; pool < layout->nr_pools; pool++)
		bytes += queue_pool_bytes(&layout->pool[pool]);
	return bytes;
}

size_t queue_layout_pinned_bytes(const struct queue_layout *layout)
{
	unsigned int pool;
	size_t bytes = 0;

	if (layout->pinned_headers)
		bytes += queue_page_align(header_bytes(layout));
	for (pool = 0; layout->pinned_buffers && pool < layout->nr_pools; pool++)
		bytes += queue_page_align(queue_pool_bytes(&layout->pool[pool]));
	return bytes;
}

/* @sharing: MAP_PRIVATE, or MAP_SHARED for memory to be mapped twice */
static int map_anonymous(struct iovec *region, size_t size, int sharing)
{
	void *address;

	address = mmap(NULL, queue_page_align(size), PROT_READ | PROT_WRITE,
		       sharing | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (address == MAP_FAILED)
		return -errno;
	region->iov_base = address;
	region->iov_len = queue_page_align(size);
	return 0;
}

static void unmap(struct iovec *region)
{
	if (region->iov_base)
		munmap(region->iov_base, region->iov_len);
	region->iov_base = NULL;
	region->iov_len = 0;
}

/* From one buffer of a view to the next */
static size_t view_stride(const struct queue_pool *pool, uint32_t headroom)
{
	return headroom + queue_page_align(pool->buf_size);
}

/*
 * The kernel wants the buffers of a pool one right after the other, the
 * server wants room of its own before each. The same memory is mapped twice,
 * by mremap() with an old size of 0: a file of that size would take a
 * descriptor, and be subject to RLIMIT_FSIZE.
 */
static int map_view(struct iovec *region, struct iovec *view,
		    const struct queue_pool *pool, uint32_t headroom)
{
	size_t stride = view_stride(pool, headroom);
	unsigned int n;
	void *address;
	int err;

	err = map_anonymous(view, stride * pool->nr, MAP_PRIVATE);
	if (!err)
		err = map_anonymous(region, queue_pool_bytes(pool), MAP_SHARED);
	for (n = 0; !err && n < pool->nr; n++) {
		address = mremap((char *)region->iov_base +
				 (size_t)n * pool->buf_size, 0, pool->buf_size,
				 MREMAP_MAYMOVE | MREMAP_FIXED,
				 (char *)view->iov_base + n * stride + headroom);
		if (address == MAP_FAILED)
			err = -errno;
	}
	return err;
}

static int map_pool(struct iovec *region, struct iovec *view,
		    const struct queue_pool *pool, uint32_t headroom)
{
	if (headroom && pool->buf_size % getpagesize() == 0)
		return map_view(region, view, pool, headroom);
	if (headroom)
		return -EINVAL;
	return map_anonymous(region, queue_pool_bytes(pool), MAP_PRIVATE);
}

int queue_memory_map(struct queue_memory *memory,
		     const struct queue_layout *layout)
{
	unsigned int pool;
	int err;

	memset(memory, 0, sizeof(*memory));
	err = map_anonymous(&memory->headers, header_bytes(layout), MAP_PRIVATE);
	for (pool = 0; !err && pool < layout->nr_pools; pool++)
		err = map_pool(&memory->pool[pool], &memory->view[pool],
			       &layout->pool[pool], layout->headroom);
	if (err)
		queue_memory_unmap(memory);
	return err;
}

void queue_memory_unmap(struct queue_memory *memory)
{
	unsigned int pool;

	unmap(&memory->headers);
	for (pool = 0; pool < FUSE_URING_MAX_POOLS; pool++) {
		unmap(&memory->view[pool]);
		unmap(&memory->pool[pool]);
	}
}

struct ring_header *queue_memory_header(const struct queue_memory *memory,
					unsigned int slot)
{
	return (struct ring_header *)memory->headers.iov_base + slot;
}

/* Where the server finds buffer @n of a pool */
static void *server_buffer(const struct queue_memory *memory, unsigned int at,
			   const struct queue_pool *pool, uint32_t headroom,
			   unsigned int n)
{
	if (!headroom)
		return (char *)memory->pool[at].iov_base +
		       (size_t)n * pool->buf_size;
	return (char *)memory->view[at].iov_base +
	       n * view_stride(pool, headroom) + headroom;
}

void *queue_memory_payload(const struct queue_memory *memory,
			   const struct queue_layout *layout, unsigned int n,
			   size_t *size)
{
	unsigned int pool = 0;

	while (n >= layout->pool[pool].nr)
		n -= layout->pool[pool++].nr;
	*size = layout->pool[pool].buf_size;
	return server_buffer(memory, pool, &layout->pool[pool],
			     layout->headroom, n);
}

void queue_register_header(struct queue_register *reg,
			   const struct queue_memory *memory)
{
	reg->nr_iov = 2;
	reg->iov[0].iov_base = queue_memory_header(memory, reg->slot);
	reg->iov[0].iov_len = sizeof(struct ring_header);
}

void *queue_prep_command(struct io_uring_sqe *sqe, int dev_fd, uint32_t command)
{
	char *area = (char *)sqe + 2 * sizeof(*sqe) - COMMAND_AREA;

	io_uring_prep_rw(IORING_OP_URING_CMD, sqe, dev_fd, NULL, 0, 0);
	sqe->cmd_op = command;
	sqe->__pad1 = 0;
	return memset(area, 0, COMMAND_AREA);
}

void queue_use_fixed_pool(struct io_uring_sqe *sqe,
			  const struct queue_layout *layout)
{
	if (!layout->fixed_pool)
		return;
	sqe->rw_flags = IORING_URING_CMD_FIXED;
	sqe->buf_index = layout->fixed_buffers - 1;
}

void queue_prep_register(struct io_uring_sqe *sqe, int dev_fd,
			 const struct queue_layout *layout,
			 const struct queue_register *reg)
{
	void *area = queue_prep_command(sqe, dev_fd, FUSE_IO_URING_CMD_REGISTER);

	memcpy(area, &reg->bufring, sizeof(reg->bufring));
	sqe->addr = (uintptr_t)reg->iov;
	sqe->len = reg->nr_iov;
	sqe->buf_index = reg->buf_index;
	queue_use_fixed_pool(sqe, layout);
}

void queue_prep_commit(struct io_uring_sqe *sqe, int dev_fd,
		       const struct queue_layout *layout, uint16_t qid,
		       uint64_t commit_id)
{
	struct ring_cmd_req *req;

	req = queue_prep_command(sqe, dev_fd,
				 FUSE_IO_URING_CMD_COMMIT_AND_FETCH);
	req->qid = qid;
	req->commit_id = commit_id;
	queue_use_fixed_pool(sqe, layout);
}

void queue_prep_transfer(struct io_uring_sqe *sqe, uint32_t opcode,
			 uint16_t slot, uint64_t from, int fd, uint64_t offset,
			 size_t len)
{
	if (opcode == FUSE_READ)
		io_uring_prep_read_fixed(sqe, fd, NULL, len, offset, slot);
	else
		io_uring_prep_write_fixed(sqe, fd, NULL, len, offset, slot);
	/* The client's pages start at address 0 of the fixed buffer. */
	sqe->addr = from;
}

void queue_fill_reply(struct ring_header *header, uint64_t unique, int error,
		      size_t payload_sz)
{
	struct fuse_out_header out = {
		.len = sizeof(out) + payload_sz,
		.error = error,
		.unique = unique,
	};

	memcpy(header->in_out, &out, sizeof(out));
	header->ent.payload_sz = payload_sz;
}
