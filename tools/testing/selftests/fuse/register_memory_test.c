// SPDX-License-Identifier: GPL-2.0
/*
 * The memory of a ring: what kind it may be, and what happens to requests
 * when the server changes its mappings afterwards, forks or executes.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "test_fs.h"

#define PAGE ((size_t)getpagesize())
#define HUGE_PAGE (2 * 1024 * 1024)
#define MAX_WRITE 4096
#define PAYLOAD smallest_payload()	/* whole pages */
#define DEPTH 2
#define POOL_SIZE (2 * PAYLOAD)

FIXTURE(memory)
{
	struct fuse_mount mount;
	struct test_fs fs;
	struct queue_mode mode;
};

FIXTURE_VARIANT(memory)
{
	__u64 flags;
	bool pinned;
};

FIXTURE_VARIANT_ADD(memory, in_place)
{
	.flags = FUSE_URING_REGISTER_BUFRING,
};

FIXTURE_VARIANT_ADD(memory, pinned)
{
	.flags = PINNED_FLAGS,
	.pinned = true,
};

static int open_mount(FIXTURE_DATA(memory) * self)
{
	const struct mount_options options = { .max_write = MAX_WRITE };

	return test_fs_mount(&self->fs, &self->mount, &options);
}

FIXTURE_SETUP(memory)
{
	const char *impossible = ring_tests_impossible();

	if (impossible)
		SKIP(return, "%s", impossible);
	self->mode = (struct queue_mode) {
		.flags = variant->flags, .depth = DEPTH, .nr_pools = 1,
		.pool = { { PAYLOAD, 2 } },
	};
	ASSERT_EQ(0, test_fs_open(&self->fs, PAYLOAD));
	ASSERT_EQ(0, open_mount(self));
	impossible = mode_impossible(&self->mount, &self->mode);
	if (impossible)
		SKIP(return, "%s", impossible);
}

FIXTURE_TEARDOWN(memory)
{
	mount_close(&self->mount);
	test_fs_close(&self->fs);
}

/*
 * Registers entries on all queues, on memory that @map makes for each. That
 * comes last, so that nothing is mapped where a test wants a hole.
 */
static int register_on(FIXTURE_DATA(memory) * self, void *(*map)(void))
{
	unsigned int qid;
	int err = 0;

	for (qid = 0; qid < self->mount.nr_queues && !err; qid++) {
		struct server_queue *queue = &self->mount.queues[qid];

		err = queue_open(&self->mount, qid, &self->mode);
		if (err)
			return err;
		munmap(queue->memory.pool[0].iov_base, queue->memory.pool[0].iov_len);
		queue->memory.pool[0].iov_base = map();
		if (queue->memory.pool[0].iov_base == MAP_FAILED) {
			queue->memory.pool[0].iov_base = NULL;
			return -ENXIO;
		}
		err = queue_register(queue, 0);
	}
	return err;
}

static void expect_served(struct __test_metadata *_metadata,
			  FIXTURE_DATA(memory) * self)
{
	EXPECT_EQ(0, mount_works(&self->mount));
	EXPECT_EQ(0, self->mount.device_requests);
}

static void expect_left_to_device(struct __test_metadata *_metadata,
				  FIXTURE_DATA(memory) * self)
{
	EXPECT_EQ(0, pinned_kib(getpid()));
	EXPECT_EQ(0, mount_works(&self->mount));
	EXPECT_LT(0, self->mount.device_requests);
}

static void *map_memory(int prot, int flags, int fd)
{
	return mmap(NULL, POOL_SIZE, prot, flags, fd, 0);
}

/*
 * Memory that will do
 */

static void *map_shared(void)
{
	return map_memory(PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			  -1);
}

TEST_F(memory, shared_memory_will_do)
{
	ASSERT_EQ(0, register_on(self, map_shared));
	expect_served(_metadata, self);
}

static int memory_file(void)
{
	int fd = memfd_create("pool", MFD_CLOEXEC);

	if (fd >= 0 && ftruncate(fd, POOL_SIZE)) {
		close(fd);
		return -1;
	}
	return fd;
}

static void *map_memfd(void)
{
	return map_memory(PROT_READ | PROT_WRITE, MAP_SHARED, memory_file());
}

TEST_F(memory, a_memory_file_will_do)
{
	ASSERT_EQ(0, register_on(self, map_memfd));
	expect_served(_metadata, self);
}

static void *map_private_file(void)
{
	return map_memory(PROT_READ | PROT_WRITE, MAP_PRIVATE, memory_file());
}

TEST_F(memory, a_private_mapping_of_a_file_will_do)
{
	ASSERT_EQ(0, register_on(self, map_private_file));
	expect_served(_metadata, self);
}

static void *map_locked(void)
{
	return map_memory(PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1);
}

TEST_F(memory, locked_memory_will_do)
{
	ASSERT_EQ(0, register_on(self, map_locked));
	expect_served(_metadata, self);
}

static void *map_huge(void)
{
	return mmap(NULL, HUGE_PAGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
}

TEST_F(memory, a_huge_page_will_do)
{
	int err = register_on(self, map_huge);

	if (err == -ENXIO)
		SKIP(return, "no huge pages reserved (vm.nr_hugepages)");
	ASSERT_EQ(0, err);
	expect_served(_metadata, self);
}

/*
 * Memory that will not do: a pinned ring finds out at once, one that works
 * in place when a request is delivered
 */

static void *map_nothing(void)
{
	void *memory = map_memory(PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1);

	if (memory != MAP_FAILED)
		munmap(memory, POOL_SIZE);
	return memory;
}

static void *map_half(void)
{
	char *memory = map_memory(PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1);

	if (memory != MAP_FAILED)
		munmap(memory + POOL_SIZE / 2, POOL_SIZE / 2);
	return memory;
}

static void *map_read_only(void)
{
	return map_memory(PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

static void *map_inaccessible(void)
{
	return map_memory(PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

static void *map_past_the_file(void)
{
	int fd = memfd_create("empty", MFD_CLOEXEC);

	return map_memory(PROT_READ | PROT_WRITE, MAP_SHARED, fd);
}

static void *(* const unusable[])(void) = {
	map_nothing, map_half, map_read_only, map_inaccessible,
	map_past_the_file,
};

TEST_F(memory, pinning_finds_memory_that_is_not_there_or_not_writable)
{
	unsigned int n;

	if (!variant->pinned)
		SKIP(return, "memory in place is looked at when it is used");
	for (n = 0; n < ARRAY_SIZE(unusable); n++) {
		EXPECT_EQ(-EFAULT, register_on(self, unusable[n])) {
			TH_LOG("kind %u", n);
		}
		expect_left_to_device(_metadata, self);
		mount_close(&self->mount);
		ASSERT_EQ(0, open_mount(self));
	}
}

static long look(void *arg)
{
	return access(arg, F_OK) ? -errno : 0;
}

/* A GETATTR, whose reply comes from the pool */
static long look_closely(void *arg)
{
	struct stat st;

	return stat(arg, &st) ? -errno : 0;
}

TEST_F(memory, pinning_needs_whole_pages)
{
	static const size_t offsets[] = { 1, 8, 288, 2048 };
	unsigned int n;

	if (!variant->pinned)
		SKIP(return, "memory in place may start anywhere");
	for (n = 0; n < ARRAY_SIZE(offsets); n++) {
		struct server_queue *queue = &self->mount.queues[0];
		struct server_command reg;

		ASSERT_EQ(0, queue_open(&self->mount, 0, &self->mode));
		queue_fill_register(queue, 0, &reg);
		reg.iov[1].iov_base = (char *)reg.iov[1].iov_base + offsets[n];
		reg.iov[1].iov_len = PAYLOAD;
		EXPECT_EQ(-EINVAL, queue_send(queue, &reg));
		expect_left_to_device(_metadata, self);
		mount_close(&self->mount);
		ASSERT_EQ(0, open_mount(self));

		queue = &self->mount.queues[0];
		ASSERT_EQ(0, queue_open(&self->mount, 0, &self->mode));
		queue_fill_register(queue, 0, &reg);
		reg.iov[0].iov_base = (char *)reg.iov[0].iov_base + offsets[n];
		reg.iov[0].iov_len = PAGE - offsets[n];
		EXPECT_EQ(-EINVAL, queue_send(queue, &reg));
		expect_left_to_device(_metadata, self);
		mount_close(&self->mount);
		ASSERT_EQ(0, open_mount(self));
	}
}

/*
 * What a server does to its memory while the ring serves. Pinned: harmless.
 * In place: the request fails, and nothing else.
 */

static int serve_on_queue_memory(FIXTURE_DATA(memory) * self)
{
	return mount_serve_in_steps(&self->mount, &self->mode);
}

static struct iovec *pool_of(FIXTURE_DATA(memory) * self)
{
	return &self->mount.queues[first_usable_cpu()].memory.pool[0];
}

TEST_F(memory, unmapping_the_pool_fails_requests_only_in_place)
{
	struct server_request request;
	struct client client;
	struct fuse_call call;
	struct iovec *pool;

	ASSERT_EQ(0, serve_on_queue_memory(self));
	pool = pool_of(self);
	ASSERT_EQ(0, client_start(&client, first_usable_cpu(), look_closely,
				  self->mount.dir));
	ASSERT_EQ(0, mount_wait_for(&self->mount, FUSE_GETATTR, &request));
	/* The reply is complete when its memory disappears. */
	request_fill_call(&request, &call);
	ASSERT_EQ(0, test_fs_answer(&self->fs, &call));
	request_fill_reply(&request, 0, NULL, call.reply_len);
	ASSERT_EQ(0, munmap(pool->iov_base, pool->iov_len));
	pool->iov_base = NULL;
	EXPECT_EQ(0, queue_send_commit(request.queue, request.slot,
				       request.queue->qid, request.commit_id));
	EXPECT_EQ(variant->pinned ? 0 : -EFAULT,
		  client_wait(&client, WAIT_MS));

	/* A request without payload is none the worse. */
	ASSERT_EQ(0, client_start(&client, first_usable_cpu(), look,
				  self->mount.dir));
	EXPECT_EQ(0, client_wait_served(&self->mount, &client));
}

static struct iovec *headers_of(FIXTURE_DATA(memory) * self)
{
	return &self->mount.queues[first_usable_cpu()].memory.headers;
}

static void check_read_only(struct __test_metadata *_metadata,
			    FIXTURE_DATA(memory) * self,
			    const FIXTURE_VARIANT(memory) * variant,
			    struct iovec *(*region_of)(FIXTURE_DATA(memory) * self))
{
	struct iovec *region;
	unsigned int round;
	long result;

	ASSERT_EQ(0, serve_on_queue_memory(self));
	region = region_of(self);
	ASSERT_EQ(0, mprotect(region->iov_base, region->iov_len, PROT_READ));
	/* More often than there are entries or buffers: none is lost. */
	for (round = 0; round < 5 && !variant->pinned; round++) {
		/* A LOOKUP carries its name in the payload. */
		result = client_call_served(&self->mount, first_usable_cpu(),
					    look,
					    mount_path(&self->mount, "absent"));
		EXPECT_EQ(-EFAULT, result);
	}
	if (variant->pinned) {
		struct server_request request;
		struct client client;

		/* The kernel delivers. The server itself cannot write. */
		ASSERT_EQ(0, client_start(&client, first_usable_cpu(), look,
					  mount_path(&self->mount, "absent")));
		ASSERT_EQ(0, mount_wait_for(&self->mount, FUSE_LOOKUP,
					    &request));
		EXPECT_EQ(0, memcmp(request.payload, "absent", 7));
		ASSERT_EQ(0, mprotect(region->iov_base, region->iov_len,
				      PROT_READ | PROT_WRITE));
		ASSERT_EQ(0, request_answer(&request));
		EXPECT_EQ(-ENOENT, client_wait_served(&self->mount, &client));
	}
	ASSERT_EQ(0, mprotect(region->iov_base, region->iov_len,
			      PROT_READ | PROT_WRITE));
	EXPECT_EQ(-ENOENT,
		  client_call_served(&self->mount, first_usable_cpu(), look,
				     mount_path(&self->mount, "absent")));
}

TEST_F(memory, a_pool_made_read_only_fails_deliveries_only_in_place)
{
	check_read_only(_metadata, self, variant, pool_of);
}

TEST_F(memory, headers_made_read_only_fail_deliveries_only_in_place)
{
	check_read_only(_metadata, self, variant, headers_of);
}

TEST_F(memory, other_memory_in_the_same_place_is_used_only_in_place)
{
	struct server_request request;
	struct client client;
	struct iovec *pool;
	void *memory;

	ASSERT_EQ(0, serve_on_queue_memory(self));
	EXPECT_EQ(0, mount_works(&self->mount));
	pool = pool_of(self);
	memory = mmap(pool->iov_base, pool->iov_len, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	ASSERT_EQ(pool->iov_base, memory);
	if (!variant->pinned) {
		EXPECT_EQ(0, mount_works(&self->mount));
		return;
	}
	/* The name goes to the memory that was pinned, not to what is there. */
	ASSERT_EQ(0, client_start(&client, first_usable_cpu(), look,
				  mount_path(&self->mount, "absent")));
	ASSERT_EQ(0, mount_wait_for(&self->mount, FUSE_LOOKUP, &request));
	EXPECT_LE(memory, request.payload);
	EXPECT_GT(memory + pool->iov_len, request.payload);
	EXPECT_STREQ("", request.payload);
	ASSERT_EQ(0, request_reply(&request, -ENOENT, NULL, 0));
	EXPECT_EQ(-ENOENT, client_wait(&client, WAIT_MS));
}

/*
 * Other processes with the server's memory or descriptors
 */

TEST_F(memory, a_fork_of_the_server_changes_nothing)
{
	int status;
	pid_t pid;

	ASSERT_EQ(0, serve_on_queue_memory(self));
	EXPECT_EQ(0, mount_works(&self->mount));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		/* Its copy of the pool is its own. */
		memset(pool_of(self)->iov_base, 0xff, POOL_SIZE);
		_exit(0);
	}
	/* This writes to the pages that the child shares, or would. */
	EXPECT_EQ(0, mount_works(&self->mount));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	expect_served(_metadata, self);
}

static long serve_then_exec(void *arg)
{
	struct fuse_mount *mount = arg;
	const struct queue_mode mode = {
		.flags = PINNED_FLAGS, .depth = DEPTH, .nr_pools = 1,
		.pool = { { PAYLOAD, 2 } },
	};
	int err = mount_serve_in_steps(mount, &mode);

	if (err)
		return err;
	execl("/bin/sleep", "sleep", "1000", NULL);
	return -errno;
}

TEST_F(memory, an_exec_of_the_server_ends_the_connection)
{
	struct client client, server;
	long result;

	if (!variant->pinned)
		SKIP(return, "the same as with pinned memory");
	ASSERT_EQ(0, client_start(&client, ANY_CPU, look_closely,
				  self->mount.dir));
	ASSERT_EQ(0, server_start(&server, serve_then_exec, &self->mount));
	mount_close_device(&self->mount);
	/* All descriptors are closed on exec: nobody is left to answer. */
	result = client_wait(&client, WAIT_MS);
	if (result != -ENOTCONN)
		EXPECT_EQ(-ECONNABORTED, result);
	EXPECT_EQ(0, server_kill(&server));
}

FUSE_TEST_MAIN(NEEDS_BUFRINGS)
