// SPDX-License-Identifier: GPL-2.0
/*
 * There is a queue for each CPU that there can be, and a request goes to that of
 * the CPU its client runs on. CPUs that go offline, and come back, lose nothing.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "test_fs.h"
#include "variants.h"

#define FILE_SIZE 65536
#define NR_WORKERS 3
#define NR_ROUNDS 6
#define NO_CPU (-1)
#define SLOW_TEST_S 120	/* for an emulated debug kernel */

FIXTURE(cpu)
{
	struct fuse_mount mount;
	struct test_fs fs;
	int cpu;	/* one that can go offline */
};

FIXTURE_VARIANT(cpu)
{
	struct queue_mode mode;
};

ADD_VARIANT(cpu, entries, .depth = 1);
ADD_VARIANT(cpu, bufpool, .depth = 1);
ADD_VARIANT(cpu, bufring, .depth = 1);

static char *online_file(char path[64], unsigned int cpu)
{
	snprintf(path, 64, "/sys/devices/system/cpu/cpu%u/online", cpu);
	return path;
}

static int set_online(int cpu, bool online)
{
	char path[64];

	return write_text(online_file(path, cpu), online ? "1" : "0");
}

/* The last one that this process may write to, if it is not the only CPU */
static int find_cpu(void)
{
	char path[64];
	int cpu;

	for (cpu = CPU_SETSIZE - 1; cpu > first_usable_cpu(); cpu--) {
		if (cpu_is_usable(cpu) && !access(online_file(path, cpu), W_OK))
			return cpu;
	}
	return NO_CPU;
}

FIXTURE_SETUP(cpu)
{
	const char *impossible = dangerous_impossible();
	int err;

	self->cpu = NO_CPU;
	if (impossible)
		SKIP(return, "takes a CPU offline: FUSE_DANGEROUS_TESTS=1 runs it");
	self->cpu = find_cpu();
	if (self->cpu == NO_CPU)
		SKIP(return, "no CPU can be taken offline here");
	impossible = test_fs_begin(&self->fs, &self->mount, FILE_SIZE, NULL,
				   &variant->mode, &err);
	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(0, err);
}

/* In the parent, so that the CPU comes back after a test that crashed */
FIXTURE_TEARDOWN_PARENT(cpu)
{
	if (self->cpu != NO_CPU)
		EXPECT_EQ(0, set_online(self->cpu, true));
}

/* What a teardown in the test's own process would do */
static void end(struct __test_metadata *_metadata, FIXTURE_DATA(cpu) * self)
{
	EXPECT_EQ(0, test_fs_end(&self->fs, &self->mount));
}

static long look(void *path)
{
	return access(path, R_OK) ? -errno : 0;
}

/* The numbers of CPUs can have gaps, those of queues cannot. */
static unsigned int queue_of(const struct fuse_mount *mount, int cpu)
{
	return cpu % mount->nr_queues;
}

static void expect_served_on_queue(struct __test_metadata *_metadata,
				   FIXTURE_DATA(cpu) * self, int cpu)
{
	struct server_request request;
	struct client client;

	ASSERT_EQ(0, client_start(&client, cpu, look, self->mount.dir));
	ASSERT_EQ(0, mount_wait(&self->mount, &request, WAIT_MS));
	EXPECT_EQ(FUSE_ACCESS, request.in.opcode);
	if (cpu != ANY_CPU)
		EXPECT_EQ(queue_of(&self->mount, cpu), request.queue->qid);
	EXPECT_EQ(0, request_reply(&request, 0, NULL, 0));
	EXPECT_EQ(0, client_wait(&client, WAIT_MS));
}

/*
 * The queue has one entry: of two requests the server has the first, and the other
 * waits.
 */
static void make_busy(struct __test_metadata *_metadata,
		      FIXTURE_DATA(cpu) * self,
		      const FIXTURE_VARIANT(cpu) * variant,
		      struct client client[2], struct server_request *request)
{
	unsigned int n;

	ASSERT_EQ(0, mount_serve_in_steps(&self->mount, &variant->mode));
	for (n = 0; n < 2; n++) {
		ASSERT_EQ(0, client_start(&client[n], self->cpu, look,
					  self->mount.dir));
		ASSERT_EQ(0, mount_wait_until_waiting(&self->mount, n + 1));
		ASSERT_EQ(0, client_wait_asleep(&client[n]));
	}
	ASSERT_EQ(0, mount_wait(&self->mount, request, WAIT_MS));
	EXPECT_EQ(queue_of(&self->mount, self->cpu), request->queue->qid);
}

TEST_F(cpu, a_queue_is_registered_while_its_cpu_is_offline)
{
	ASSERT_EQ(0, set_online(self->cpu, false));
	ASSERT_EQ(0, mount_serve_in_steps(&self->mount, &variant->mode));
	expect_served_on_queue(_metadata, self, ANY_CPU);
	ASSERT_EQ(0, set_online(self->cpu, true));
	expect_served_on_queue(_metadata, self, self->cpu);
	EXPECT_EQ(0, self->mount.device_requests);
	end(_metadata, self);
}

TEST_F(cpu, a_cpu_goes_offline_while_its_requests_are_under_way)
{
	struct server_request request;
	struct client client[2];
	unsigned int n;

	make_busy(_metadata, self, variant, client, &request);
	ASSERT_EQ(0, set_online(self->cpu, false));
	EXPECT_EQ(0, request_reply(&request, 0, NULL, 0));
	ASSERT_EQ(0, mount_wait(&self->mount, &request, WAIT_MS));
	EXPECT_EQ(queue_of(&self->mount, self->cpu), request.queue->qid);
	EXPECT_EQ(0, request_reply(&request, 0, NULL, 0));
	for (n = 0; n < 2; n++)
		EXPECT_EQ(0, client_wait(&client[n], WAIT_MS));
	ASSERT_EQ(0, set_online(self->cpu, true));
	expect_served_on_queue(_metadata, self, self->cpu);
	end(_metadata, self);
}

TEST_F(cpu, an_abort_ends_the_requests_of_a_cpu_that_is_offline)
{
	struct server_request request;
	struct client client[2];
	unsigned int n;

	make_busy(_metadata, self, variant, client, &request);
	ASSERT_EQ(0, set_online(self->cpu, false));
	ASSERT_EQ(0, mount_abort(&self->mount));
	for (n = 0; n < 2; n++)
		EXPECT_EQ(-ECONNABORTED, client_wait(&client[n], WAIT_MS));
	EXPECT_EQ(0, queue_wait_all_dead(&self->mount.queues[queue_of(&self->mount, self->cpu)]));
	end(_metadata, self);
}

/* In memory that is shared with the clients */
struct worker {
	const char *path;
	unsigned int stop;
	unsigned int reads[NR_WORKERS];
	unsigned int next;
};

/* Reads over the ring, and looks at the data, until it is told to stop. */
static long work(void *arg)
{
	char data[FILE_SIZE];
	struct worker *worker = arg;
	unsigned int *reads;
	ssize_t len;
	int fd = open(worker->path, O_RDONLY);

	if (fd < 0)
		return -errno;
	reads = &worker->reads[__atomic_fetch_add(&worker->next, 1,
						  __ATOMIC_SEQ_CST)];
	while (!__atomic_load_n(&worker->stop, __ATOMIC_SEQ_CST)) {
		/* What is cached would not be asked for again. */
		if (posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED))
			return -EINVAL;
		len = pread(fd, data, sizeof(data), 0);
		if (len != sizeof(data))
			return len < 0 ? -errno : -ENODATA;
		if (pattern_differs(data, sizeof(data), 0) >= 0)
			return -EBADMSG;
		__atomic_fetch_add(reads, 1, __ATOMIC_SEQ_CST);
	}
	return 0;
}

TEST_F_TIMEOUT(cpu, cpus_come_and_go_while_clients_work, SLOW_TEST_S)
{
	struct client client[NR_WORKERS];
	struct worker *worker;
	unsigned int n, round;

	ASSERT_EQ(0, test_fs_fill(&self->fs, NODE_DATA));
	ASSERT_EQ(0, test_fs_serve(&self->fs, &self->mount, &variant->mode,
				   RING_FLAGS));
	worker = mmap(NULL, sizeof(*worker), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, worker);
	worker->path = mount_path(&self->mount, "data");
	for (n = 0; n < NR_WORKERS; n++)
		ASSERT_EQ(0, client_start(&client[n], ANY_CPU, work, worker));
	for (round = 0; round < NR_ROUNDS; round++) {
		ASSERT_EQ(0, set_online(self->cpu, round % 2));
		for (n = 0; n < NR_WORKERS; n++)
			ASSERT_EQ(0, wait_for_count(&worker->reads[n],
						    worker->reads[n] + 2));
	}
	__atomic_store_n(&worker->stop, 1, __ATOMIC_SEQ_CST);
	for (n = 0; n < NR_WORKERS; n++)
		EXPECT_EQ(0, client_wait(&client[n], WAIT_MS));
	EXPECT_EQ(0, self->mount.device_requests);
	end(_metadata, self);
}

FUSE_TEST_MAIN(NEEDS_RING)
