// SPDX-License-Identifier: GPL-2.0
/*
 * The client's pages in the server's fixed buffers: what a server can do with
 * them and until when, and what a client sees of pages that were not filled.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "loop.h"
#include "test_fs.h"
#include "variants.h"

#define KIB 1024
#define MIB (1024 * 1024)
#define DEPTH 4
#define FILE_SIZE (4 * MIB)
#define SLOW_TEST_S 120	/* for an emulated debug kernel */

FIXTURE(zero_copy)
{
	struct fuse_mount mount;
	struct test_fs fs;
	struct queue_mode mode;
	/* A file whose pages are zero-copied: any, or one that opts in */
	unsigned int node;
	const char *name;
};

FIXTURE_VARIANT(zero_copy)
{
	struct queue_mode mode;
};

ADD_ZERO_COPY_VARIANTS(zero_copy, .depth = DEPTH, .nr_pools = 1,
		       .pool = { { MIB, 4 } });

FIXTURE_SETUP(zero_copy)
{
	const char *impossible;
	int err;

	self->mode = variant->mode;
	self->node = self->mode.bufpool ? NODE_OPTED_IN : NODE_DATA;
	self->name = self->mode.bufpool ? "opted_in" : "data";
	impossible = test_fs_begin(&self->fs, &self->mount, FILE_SIZE, NULL,
				   &self->mode, &err);
	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(0, err);
}

FIXTURE_TEARDOWN(zero_copy)
{
	EXPECT_EQ(0, test_fs_end(&self->fs, &self->mount));
}

/*
 * Requests that a test holds in its hands
 */

/* A client's pread() or pwrite() of a buffer filled with @fill */
struct transfer {
	const char *path;
	int flags;
	bool write;
	size_t size;
	off_t offset;
	size_t misaligned;	/* of the client's memory */
	bool huge;		/* memory of its own that may be a huge page */
	unsigned char fill;
	unsigned char *memory;	/* shared with the test */
	size_t memory_size;
};

static int share_memory(struct transfer *transfer, size_t size)
{
	transfer->memory_size = size;
	transfer->memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
				MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return transfer->memory == MAP_FAILED ? -errno : 0;
}

static long do_transfer(void *arg)
{
	struct transfer *transfer = arg;
	unsigned char *memory = transfer->memory + transfer->misaligned;
	int fd = open(transfer->path, O_RDWR | transfer->flags);
	ssize_t len;

	if (fd < 0)
		return -errno;
	if (transfer->huge) {
		/* 2 MiB aligned within twice as much */
		unsigned char *huge = aligned_alloc(2 * MIB, 4 * MIB);

		if (!huge)
			return -ENOMEM;
		madvise(huge, 4 * MIB, MADV_HUGEPAGE);
		memory = huge + transfer->misaligned;
		memcpy(memory, transfer->memory, transfer->size);
	}
	if (transfer->write)
		len = pwrite(fd, memory, transfer->size, transfer->offset);
	else
		len = pread(fd, memory, transfer->size, transfer->offset);
	if (len < 0)
		return -errno;
	if (transfer->huge)
		memcpy(transfer->memory, memory, transfer->size);
	return len;
}

/* Starts a client with that transfer, and takes its request. */
static void hold_request(struct __test_metadata *_metadata,
			 FIXTURE_DATA(zero_copy) * self,
			 struct transfer *transfer, struct client *client,
			 struct server_request *request)
{
	ASSERT_EQ(0, mount_serve_in_steps(&self->mount, &self->mode));
	transfer->path = mount_path(&self->mount, self->name);
	if (!transfer->memory)
		ASSERT_EQ(0, share_memory(transfer, 64 * KIB));
	memset(transfer->memory, transfer->fill, transfer->memory_size);
	ASSERT_EQ(0, client_start(client, first_usable_cpu(), do_transfer,
				  transfer));
	ASSERT_EQ(0, mount_wait_for(&self->mount,
				    transfer->write ? FUSE_WRITE : FUSE_READ,
				    request));
	ASSERT_TRUE(request->zero_copy);
}

TEST_F(zero_copy, a_read_holds_no_payload_buffer)
{
	struct transfer transfer = { .size = 8192, .flags = O_DIRECT };
	struct server_request request;
	struct client client;

	hold_request(_metadata, self, &transfer, &client, &request);
	EXPECT_EQ(FUSE_URING_BUF_NONE, request.buf_id);
	EXPECT_EQ(0, request.payload_sz);
	ASSERT_EQ(8192, request_transfer(&request, self->fs.data_fd[self->node],
					 0, 8192));
	ASSERT_EQ(0, request_reply(&request, 0, NULL, 8192));
	EXPECT_EQ(8192, client_wait_served(&self->mount, &client));
}

TEST_F(zero_copy, a_write_counts_its_pages_and_has_room_for_the_reply)
{
	struct transfer transfer = {
		.write = true, .size = 8192, .flags = O_DIRECT, .fill = 0x5a,
	};
	struct fuse_write_out out = { .size = 8192 };
	struct server_request request;
	struct client client;

	hold_request(_metadata, self, &transfer, &client, &request);
	EXPECT_EQ(8192, request.payload_sz);
	EXPECT_NE(FUSE_URING_BUF_NONE, request.buf_id);
	EXPECT_LE(sizeof(out), request.room);
	ASSERT_EQ(8192, request_transfer(&request, self->fs.data_fd[self->node],
					 4096, 8192));
	ASSERT_EQ(0, request_reply(&request, 0, &out, sizeof(out)));
	EXPECT_EQ(8192, client_wait_served(&self->mount, &client));
	EXPECT_EQ(0x5a, (unsigned char)self->fs.data[self->node][4096]);
	EXPECT_EQ(0x5a, (unsigned char)self->fs.data[self->node][12287]);
	EXPECT_EQ(0, self->fs.data[self->node][4095]);
	EXPECT_EQ(0, self->fs.data[self->node][12288]);
}

TEST_F(zero_copy, a_transfer_may_come_in_pieces)
{
	struct transfer transfer = { .size = 12288, .flags = O_DIRECT };
	int fd = self->fs.data_fd[self->node];
	struct server_request request;
	struct client client;

	ASSERT_EQ(0, test_fs_fill(&self->fs, self->node));
	hold_request(_metadata, self, &transfer, &client, &request);
	ASSERT_EQ(5000, request_transfer_at(&request, 7288, fd, 7288, 5000));
	ASSERT_EQ(7288, request_transfer_at(&request, 0, fd, 0, 7288));
	ASSERT_EQ(0, request_reply(&request, 0, NULL, 12288));
	EXPECT_EQ(12288, client_wait_served(&self->mount, &client));
	EXPECT_EQ(-1, pattern_differs(transfer.memory, 12288, 0));
}

TEST_F(zero_copy, a_transfer_cannot_leave_the_pages_of_the_request)
{
	struct transfer transfer = { .size = 8192, .flags = O_DIRECT };
	int fd = self->fs.data_fd[self->node];
	struct server_request request;
	struct client client;

	hold_request(_metadata, self, &transfer, &client, &request);
	EXPECT_EQ(-EFAULT, request_transfer_at(&request, 0, fd, 0, 8193));
	EXPECT_EQ(-EFAULT, request_transfer_at(&request, 8191, fd, 0, 2));
	EXPECT_EQ(-EFAULT, request_transfer_at(&request, -1ULL, fd, 0, 2));
	EXPECT_EQ(1, request_transfer_at(&request, 8191, fd, 0, 1));
	ASSERT_EQ(0, request_reply(&request, 0, NULL, 8192));
	EXPECT_EQ(8192, client_wait_served(&self->mount, &client));
}

static void check_wrong_way(struct __test_metadata *_metadata,
			    FIXTURE_DATA(zero_copy) * self, bool write)
{
	struct transfer transfer = {
		.write = write, .size = 4096, .flags = O_DIRECT, .fill = 0x77,
	};
	struct server_request request;
	struct client client;

	hold_request(_metadata, self, &transfer, &client, &request);
	request.in.opcode = write ? FUSE_READ : FUSE_WRITE;
	EXPECT_EQ(-EFAULT, request_transfer(&request,
					    self->fs.data_fd[self->node], 0,
					    4096));
	EXPECT_EQ(0x77, transfer.memory[0]);
	EXPECT_EQ(0, self->fs.data[self->node][0]);
	ASSERT_EQ(0, request_reply(&request, -EIO, NULL, 0));
	EXPECT_EQ(-EIO, client_wait_served(&self->mount, &client));
}

TEST_F(zero_copy, the_pages_of_a_write_cannot_be_written)
{
	check_wrong_way(_metadata, self, true);
}

TEST_F(zero_copy, the_pages_of_a_read_cannot_be_read)
{
	check_wrong_way(_metadata, self, false);
}

TEST_F(zero_copy, after_the_reply_the_pages_are_out_of_reach)
{
	struct transfer transfer = { .size = 4096, .flags = O_DIRECT };
	int fd = self->fs.data_fd[self->node];
	struct server_request request;
	struct client client;

	pattern_fill(self->fs.data[self->node], 4096, 0);
	hold_request(_metadata, self, &transfer, &client, &request);
	ASSERT_EQ(4096, request_transfer(&request, fd, 0, 4096));
	ASSERT_EQ(0, request_reply(&request, 0, NULL, 4096));
	EXPECT_EQ(-EFAULT, request_transfer(&request, fd, 4096, 4096));
	EXPECT_EQ(4096, client_wait_served(&self->mount, &client));
	EXPECT_EQ(-1, pattern_differs(transfer.memory, 4096, 0));
}

TEST_F(zero_copy, the_next_request_of_the_slot_has_its_own_pages)
{
	struct transfer transfer = { .size = 4096, .flags = O_DIRECT };
	int fd = self->fs.data_fd[self->node];
	struct server_request request;
	struct client client;
	unsigned int round;

	ASSERT_EQ(0, test_fs_fill(&self->fs, self->node));
	hold_request(_metadata, self, &transfer, &client, &request);
	for (round = 0; round < 20; round++) {
		off_t offset = round * 4096;

		ASSERT_EQ(4096, request_transfer(&request, fd, offset, 4096));
		ASSERT_EQ(0, request_reply(&request, 0, NULL, 4096));
		ASSERT_EQ(4096, client_wait_served(&self->mount, &client));
		ASSERT_EQ(-1, pattern_differs(transfer.memory, 4096, offset));
		ASSERT_EQ(0, client_start(&client, first_usable_cpu(),
					  do_transfer, &transfer));
		ASSERT_EQ(0, mount_wait_for(&self->mount, FUSE_READ, &request));
	}
	ASSERT_EQ(0, request_reply(&request, -EIO, NULL, 0));
	EXPECT_EQ(-EIO, client_wait_served(&self->mount, &client));
}

/*
 * A buffered read of a page that the server fills, but declares short. What
 * it wrote beyond must not be seen through a mapping.
 */
static long map_short_page(void *arg)
{
	struct transfer *transfer = arg;
	int fd = open(transfer->path, O_RDWR);
	unsigned char *map;
	unsigned int n;

	if (fd < 0)
		return -errno;
	map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	for (n = 0; n < 4096; n++)
		if (map[n] != (n < 100 ? 0xaa : 0))
			return n + 1;
	return 0;
}

TEST_F(zero_copy, a_short_read_is_zeroed)
{
	struct transfer transfer = {
		.path = mount_path(&self->mount, self->name),
	};
	int fd = self->fs.data_fd[self->node];
	struct server_request request;
	struct fuse_read_in in;
	struct client client;

	memset(self->fs.data[self->node], 0xaa, FILE_SIZE);
	ASSERT_EQ(0, mount_serve_in_steps(&self->mount, &self->mode));
	ASSERT_EQ(0, client_start(&client, first_usable_cpu(), map_short_page,
				  &transfer));
	ASSERT_EQ(0, mount_wait_for(&self->mount, FUSE_READ, &request));
	memcpy(&in, request.header->op_in, sizeof(in));
	ASSERT_EQ(0, in.offset);
	/* All of it, however large the readahead made it */
	ASSERT_EQ(in.size, request_transfer(&request, fd, 0, in.size));
	ASSERT_EQ(0, request_reply(&request, 0, NULL, 100));
	EXPECT_EQ(0, client_wait_served(&self->mount, &client));
}

TEST_F(zero_copy, a_read_of_nothing_is_zeroed)
{
	struct transfer transfer = { .size = 4096 };
	struct server_request request;
	struct client client;

	hold_request(_metadata, self, &transfer, &client, &request);
	ASSERT_EQ(0, request_reply(&request, 0, NULL, 0));
	EXPECT_EQ(0, client_wait_served(&self->mount, &client));
}

TEST_F(zero_copy, a_short_direct_read_returns_what_was_read)
{
	struct transfer transfer = { .size = 8192, .fill = 0x33 };
	struct server_request request;
	struct client client;

	/* With O_DIRECT alone the rest would be read through the cache. */
	self->fs.open_flags = FOPEN_DIRECT_IO;
	pattern_fill(self->fs.data[self->node], 8192, 0);
	hold_request(_metadata, self, &transfer, &client, &request);
	ASSERT_EQ(5000, request_transfer(&request, self->fs.data_fd[self->node],
					 0, 5000));
	ASSERT_EQ(0, request_reply(&request, 0, NULL, 5000));
	EXPECT_EQ(5000, client_wait_served(&self->mount, &client));
	EXPECT_EQ(-1, pattern_differs(transfer.memory, 5000, 0));
	EXPECT_EQ(0x33, transfer.memory[8191]);
}

TEST_F(zero_copy, a_reply_that_claims_too_much_fails_the_read)
{
	struct transfer transfer = { .size = 4096, .flags = O_DIRECT };
	struct server_request request;
	struct client client;

	hold_request(_metadata, self, &transfer, &client, &request);
	ASSERT_EQ(0, request_reply(&request, 0, NULL, 4097));
	EXPECT_GT(0, client_wait_served(&self->mount, &client));
}

TEST_F(zero_copy, a_server_that_empties_the_slot_itself_harms_nothing)
{
	struct transfer transfer = { .size = 4096, .flags = O_DIRECT };
	int fd = self->fs.data_fd[self->node];
	struct server_request request;
	struct client client;

	pattern_fill(self->fs.data[self->node], 4096, 0);
	hold_request(_metadata, self, &transfer, &client, &request);
	ASSERT_EQ(4096, request_transfer(&request, fd, 0, 4096));
	ASSERT_EQ(0, queue_table_clear(request.queue, request.slot));
	EXPECT_EQ(-EFAULT, request_transfer(&request, fd, 4096, 4096));
	ASSERT_EQ(0, request_reply(&request, 0, NULL, 4096));
	EXPECT_EQ(4096, client_wait_served(&self->mount, &client));
	EXPECT_EQ(-1, pattern_differs(transfer.memory, 4096, 0));
	EXPECT_EQ(0, mount_works(&self->mount));
}

TEST_F(zero_copy, an_abort_wakes_the_client_at_once)
{
	struct transfer transfer = { .size = 4096, .flags = O_DIRECT };
	struct server_request request;
	struct client client;

	hold_request(_metadata, self, &transfer, &client, &request);
	ASSERT_EQ(0, mount_abort(&self->mount));
	EXPECT_EQ(-ECONNABORTED, client_wait(&client, WAIT_MS));
	/* Late, for a client that is gone, into pages that still exist */
	request_transfer(&request, self->fs.data_fd[self->node], 0, 4096);
	EXPECT_EQ(-ENOTCONN, request_reply(&request, 0, NULL, 4096));
}

/* Memory of the client's own, which is free for others once it is gone */
TEST_F(zero_copy, pages_of_a_client_that_is_gone_are_out_of_reach)
{
	struct transfer transfer = {
		.write = true, .size = 64 * KIB, .flags = O_DIRECT,
		.huge = true, .fill = 0x5a,
	};
	int fd = self->fs.data_fd[self->node];
	const unsigned char *data = (void *)self->fs.data[self->node];
	struct server_request request;
	struct client client;

	memset(self->fs.data[self->node], 0x11, 64 * KIB);
	hold_request(_metadata, self, &transfer, &client, &request);
	ASSERT_EQ(0, mount_abort(&self->mount));
	EXPECT_EQ(-ECONNABORTED, client_wait(&client, WAIT_MS));
	EXPECT_EQ(-EFAULT, request_transfer(&request, fd, 0, 64 * KIB));
	EXPECT_EQ(0x11, data[0]);
	EXPECT_EQ(0x11, data[64 * KIB - 1]);
	/* The slot is taken until the server empties it. */
	EXPECT_EQ(0, queue_table_clear(request.queue, request.slot));
}

static void end_server(FIXTURE_DATA(zero_copy) * self)
{
	unsigned int qid;

	for (qid = 0; qid < self->mount.nr_queues; qid++)
		queue_close(&self->mount.queues[qid]);
	mount_close_device(&self->mount);
}

TEST_F(zero_copy, a_server_that_ends_with_a_request_fails_it)
{
	struct transfer transfer = { .size = 4096, .flags = O_DIRECT };
	struct server_request request;
	struct client client;

	hold_request(_metadata, self, &transfer, &client, &request);
	end_server(self);
	EXPECT_EQ(-ECONNABORTED, client_wait(&client, WAIT_MS));
	EXPECT_EQ(0, wait_until_pinned_is(0));
}

TEST_F(zero_copy, a_server_that_ends_with_io_in_flight_fails_the_request)
{
	struct transfer transfer = { .size = 4096, .flags = O_DIRECT };
	struct server_request request;
	struct client client;
	int fds[2];

	ASSERT_EQ(0, pipe2(fds, O_CLOEXEC));
	hold_request(_metadata, self, &transfer, &client, &request);
	ASSERT_EQ(0, request_start_transfer(&request, fds[0], 4096));
	ASSERT_TRUE(request.queue->slots[request.slot].transferring);
	end_server(self);
	EXPECT_EQ(-ECONNABORTED, client_wait(&client, WAIT_MS));
	EXPECT_EQ(0, wait_until_pinned_is(0));
	close(fds[0]);
	close(fds[1]);
}

/*
 * Memory of all kinds
 */

static void check_direct(struct __test_metadata *_metadata,
			 FIXTURE_DATA(zero_copy) * self, bool huge)
{
	static const size_t misaligned[] = { 0, 1, 511, 4095, 4097 };
	static const size_t sizes[] = { 1, 4096, 4097, 65536, MIB, 2 * MIB - 1 };
	struct transfer transfer = {
		.path = mount_path(&self->mount, self->name),
		.flags = O_DIRECT, .huge = huge, .offset = 3,
	};
	char *data = self->fs.data[self->node] + transfer.offset;
	unsigned int m, s;

	ASSERT_EQ(0, share_memory(&transfer, 4 * MIB));
	ASSERT_EQ(0, test_fs_serve(&self->fs, &self->mount, &self->mode,
				   RING_FLAGS));
	for (m = 0; m < ARRAY_SIZE(misaligned); m++) {
		for (s = 0; s < ARRAY_SIZE(sizes); s++) {
			unsigned char *memory = transfer.memory;

			transfer.misaligned = misaligned[m];
			transfer.size = sizes[s];
			memory += huge ? 0 : misaligned[m];

			pattern_fill(memory, sizes[s], m);
			transfer.write = true;
			ASSERT_EQ(sizes[s], client_call(do_transfer, &transfer));
			ASSERT_EQ(-1, pattern_differs(data, sizes[s], m));

			pattern_fill(data, sizes[s], m + 99);
			transfer.write = false;
			ASSERT_EQ(sizes[s], client_call(do_transfer, &transfer));
			ASSERT_EQ(-1, pattern_differs(memory, sizes[s], m + 99));
		}
	}
	EXPECT_EQ(0, self->fs.copied[self->node]);
}

TEST_F_TIMEOUT(zero_copy, direct_io_works_from_unaligned_memory, SLOW_TEST_S)
{
	check_direct(_metadata, self, false);
}

TEST_F_TIMEOUT(zero_copy, direct_io_works_from_huge_pages, SLOW_TEST_S)
{
	if (!kernel_has_huge_pages())
		SKIP(return, "kernel has no transparent huge pages");
	check_direct(_metadata, self, true);
}

/*
 * A loop device with direct I/O makes requests with memory of the kernel. Pages
 * of a page cache have a reference count, as the server's fixed buffer needs it;
 * zero_copy_pages_test has memory without one.
 */

static long use_loop(void *arg)
{
	char *buffer = aligned_alloc(4096, 64 * KIB);
	char name[LOOP_NAME_SIZE];
	int fd = loop_open(arg, 4096, O_DIRECT, name);

	if (fd < 0)
		return fd;
	if (pread(fd, buffer, 64 * KIB, 4096) != 64 * KIB)
		return -errno ?: -EIO;
	if (pattern_differs(buffer, 64 * KIB, 4096) >= 0)
		return 1;
	pattern_fill(buffer, 64 * KIB, 77);
	if (pwrite(fd, buffer, 64 * KIB, MIB) != 64 * KIB)
		return -errno ?: -EIO;
	return close(fd);
}

TEST_F(zero_copy, direct_io_of_the_kernel_is_zero_copied)
{
	const char *impossible = loop_impossible();
	char *data = self->fs.data[self->node];

	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(0, test_fs_fill(&self->fs, self->node));
	ASSERT_EQ(0, test_fs_serve(&self->fs, &self->mount, &self->mode,
				   RING_FLAGS));
	ASSERT_EQ(0, client_call(use_loop, mount_path(&self->mount, self->name)));
	EXPECT_EQ(-1, pattern_differs(data + MIB, 64 * KIB, 77));
	EXPECT_LT(0, self->fs.zero_copied[self->node]);
	EXPECT_EQ(0, self->fs.copied[self->node]);
}

static long read_link(void *arg)
{
	char target[LINK_LENGTH + 1];

	return readlink(arg, target, sizeof(target));
}

TEST_F(zero_copy, only_reads_and_writes_are_zero_copied)
{
	struct server_request request;
	struct client client;

	ASSERT_EQ(0, mount_serve_in_steps(&self->mount, &self->mode));
	ASSERT_EQ(0, client_start(&client, first_usable_cpu(), read_link,
				  mount_path(&self->mount, "link")));
	ASSERT_EQ(0, mount_wait_for(&self->mount, FUSE_READLINK, &request));
	EXPECT_EQ(0, request.flags);
	EXPECT_NE(FUSE_URING_BUF_NONE, request.buf_id);
	ASSERT_EQ(0, request_answer(&request));
	EXPECT_EQ(LINK_LENGTH, client_wait_served(&self->mount, &client));
}

FUSE_TEST_MAIN(NEEDS_BUFPOOLS, NEEDS_BUFRINGS)
