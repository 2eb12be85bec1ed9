// SPDX-License-Identifier: GPL-2.0
/*
 * Fixture of the fuse io-uring tests: the memory of a queue, its header slots
 * and its payload buffers, and which of these a request has.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fixture_internal.h"

unsigned int possible_queues(void)
{
	FILE *file = fopen("/sys/devices/system/cpu/possible", "re");
	unsigned int first, last, cpus = 0;
	int numbers, separator = ',';

	while (file && separator == ',') {
		numbers = fscanf(file, "%u-%u", &first, &last);
		if (numbers < 1)
			break;
		cpus += numbers == 2 ? last - first + 1 : 1;
		separator = fgetc(file);
	}
	if (file)
		fclose(file);
	return cpus ?: sysconf(_SC_NPROCESSORS_CONF);
}

size_t smallest_payload(void)
{
	size_t page = sysconf(_SC_PAGESIZE);

	return page < FUSE_MIN_READ_BUFFER ? FUSE_MIN_READ_BUFFER : page;
}

size_t page_align(size_t size)
{
	size_t page = getpagesize();

	return (size + page - 1) & ~(page - 1);
}

struct queue_mode mode_with(const struct queue_mode *how,
			    const struct queue_mode *what)
{
	struct queue_mode mode = *what;

	mode.bufpool = how->bufpool;
	mode.flags = how->flags;
	return mode;
}

bool mode_is_entries(const struct queue_mode *mode)
{
	return !mode->bufpool && !mode->flags;
}

bool mode_zero_copies(const struct queue_mode *mode, bool opted_in)
{
	if (mode->bufpool)
		return mode->bufpool & BUFPOOL_ZERO_COPY && opted_in;
	if (mode->flags & FUSE_URING_REGISTER_ZERO_COPY_OPT_IN)
		return mode->flags & FUSE_URING_REGISTER_ZERO_COPY && opted_in;
	return mode->flags & FUSE_URING_REGISTER_ZERO_COPY;
}

unsigned int mode_pools(const struct fuse_mount *mount,
			const struct queue_mode *mode,
			struct pool_mode pool[FUSE_URING_MAX_POOLS])
{
	unsigned int n;

	memset(pool, 0, FUSE_URING_MAX_POOLS * sizeof(*pool));
	if ((mode->flags || mode->bufpool & BUFPOOL_SIZES) && mode->nr_pools) {
		memcpy(pool, mode->pool, mode->nr_pools * sizeof(*pool));
		for (n = 0; n < mode->nr_pools; n++)
			if (pool[n].buf_size == LARGEST_PAYLOAD)
				pool[n].buf_size = mount->max_payload;
		return mode->nr_pools;
	}
	/* An entry's own buffers are as if they were a pool by slot. */
	pool[0].buf_size = mount->max_payload;
	pool[0].nr = mode->bufpool && mode->nr_pools ? mode->pool[0].nr :
						       mode->depth;
	return 1;
}

static size_t pool_bytes(const struct pool_mode *pool)
{
	return (size_t)pool->buf_size * pool->nr;
}

static size_t all_pools_bytes(const struct pool_mode *pool, unsigned int nr)
{
	size_t bytes = 0;

	while (nr--)
		bytes += page_align(pool_bytes(&pool[nr]));
	return bytes;
}

static size_t header_bytes(const struct queue_mode *mode)
{
	return mode->depth * sizeof(struct fuse_uring_req_header);
}

size_t mode_table_bytes(const struct fuse_mount *mount,
			const struct queue_mode *mode)
{
	struct pool_mode pool[FUSE_URING_MAX_POOLS];

	if (!(mode->bufpool & BUFPOOL_REGISTERED))
		return 0;
	return all_pools_bytes(pool, mode_pools(mount, mode, pool));
}

size_t mode_pinned_bytes(const struct fuse_mount *mount,
			 const struct queue_mode *mode)
{
	struct pool_mode pool[FUSE_URING_MAX_POOLS];
	unsigned int n, nr = mode_pools(mount, mode, pool);
	size_t bytes = mode_table_bytes(mount, mode);

	if (mode->flags & FUSE_URING_REGISTER_PINNED_HEADERS)
		bytes += page_align(header_bytes(mode));
	for (n = 0; n < nr; n++)
		if (mode->flags & FUSE_URING_REGISTER_PINNED_BUFFERS)
			bytes += page_align(pool_bytes(&pool[n]));
	return bytes;
}

static int map(struct iovec *region, size_t size)
{
	void *address;

	size = page_align(size);
	address = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (address == MAP_FAILED)
		return -errno;
	region->iov_base = address;
	region->iov_len = size;
	return 0;
}

/* One behind the other, for all of them to be one fixed buffer */
static int map_pools(struct iovec *region, const struct pool_mode *pool,
		     unsigned int nr)
{
	unsigned int n;
	char *at;
	int err;

	err = map(&region[0], all_pools_bytes(pool, nr));
	at = region[0].iov_base;
	for (n = 0; n < nr && !err; n++) {
		region[n].iov_base = at;
		region[n].iov_len = page_align(pool_bytes(&pool[n]));
		at += region[n].iov_len;
	}
	return err;
}

int server_memory_map(struct server_memory *memory,
		      const struct fuse_mount *mount,
		      const struct queue_mode *mode)
{
	struct pool_mode pool[FUSE_URING_MAX_POOLS];
	unsigned int nr = mode_pools(mount, mode, pool);
	int err;

	memset(memory, 0, sizeof(*memory));
	err = map(&memory->headers, header_bytes(mode));
	if (!err)
		err = map_pools(memory->pool, pool, nr);
	if (err)
		server_memory_unmap(memory);
	return err;
}

static void unmap(struct iovec *region)
{
	if (region->iov_base)
		munmap(region->iov_base, region->iov_len);
}

void server_memory_unmap(struct server_memory *memory)
{
	unsigned int n;

	if (!memory->borrowed) {
		unmap(&memory->headers);
		for (n = 0; n < FUSE_URING_MAX_POOLS; n++)
			unmap(&memory->pool[n]);
	}
	memset(memory, 0, sizeof(*memory));
}

struct fuse_uring_req_header *
server_memory_header(const struct server_memory *memory, unsigned int slot)
{
	return (struct fuse_uring_req_header *)memory->headers.iov_base + slot;
}

/*
 * A buffer pool's offset is 0 for the first buffer, and for none. Of a request
 * that the pool has no buffer for, the server knows by what it asks for: these
 * have data neither way beyond their per-op headers.
 */
static bool has_payload(const struct server_request *request)
{
	switch (request->in.opcode) {
	case FUSE_READ:
		return !request->zero_copy;
	case FUSE_ACCESS:
	case FUSE_FLUSH:
	case FUSE_FSYNC:
	case FUSE_FSYNCDIR:
	case FUSE_RELEASE:
	case FUSE_RELEASEDIR:
	case FUSE_SETLK:
	case FUSE_SETLKW:
	case FUSE_FALLOCATE:
	case FUSE_SYNCFS:
		return false;
	default:
		return true;
	}
}

static unsigned int pool_buffer(const struct server_request *request,
				const struct pool_mode *pool, unsigned int nr)
{
	unsigned int n, id = 0, offset = request->offset;

	if (!has_payload(request) && !request->offset)
		return FUSE_URING_BUF_NONE;
	for (n = 0; n + 1 < nr && offset >= pool_bytes(&pool[n]); n++) {
		offset -= pool_bytes(&pool[n]);
		id += pool[n].nr;
	}
	if (offset % pool[n].buf_size)
		complain("queue %u slot %u: offset %u is not that of a buffer",
			 request->queue->qid, request->slot, request->offset);
	return id + offset / pool[n].buf_size;
}

void request_find_payload(struct server_request *request)
{
	struct server_queue *queue = request->queue;
	struct pool_mode pool[FUSE_URING_MAX_POOLS];
	unsigned int at, nr_pools, n = request->buf_id;

	nr_pools = mode_pools(queue->mount, &queue->mode, pool);
	if (mode_is_entries(&queue->mode)) {
		n = request->slot;
	} else if (queue->mode.bufpool) {
		n = pool_buffer(request, pool, nr_pools);
		request->buf_id = n;
	}
	request->payload = NULL;
	request->room = 0;
	if (n == FUSE_URING_BUF_NONE)
		return;
	for (at = 0; at < nr_pools && n >= pool[at].nr; at++)
		n -= pool[at].nr;
	if (at == nr_pools) {
		complain("queue %u slot %u: the kernel names buffer %u, which does not exist",
			 queue->qid, request->slot, request->buf_id);
		return;
	}
	request->room = pool[at].buf_size;
	request->payload = (char *)queue->memory.pool[at].iov_base +
			   (size_t)n * pool[at].buf_size;
}
