// SPDX-License-Identifier: GPL-2.0
/*
 * Every allocation that the kernel makes for a server fails once, in REGISTER
 * and while requests travel: a clean error, nothing left behind, and all
 * works the next time.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "test_fs.h"
#include "variants.h"

#define KIB 1024
#define DEPTH 2
/* Further than any of the paths goes */
#define MAX_FAULTS 400
#define SLOW_TEST_S 170

#define DEBUGFS "/sys/kernel/debug"
#define FAIL_NTH "/proc/thread-self/fail-nth"

FIXTURE(fault)
{
	struct fuse_mount mount;
	struct test_fs fs;
};

FIXTURE_VARIANT(fault)
{
	struct queue_mode mode;
};

ADD_VARIANT(fault, entries, .depth = DEPTH);
ADD_BUFPOOL_VARIANTS(fault, .depth = DEPTH);
ADD_BUFRING_VARIANTS(fault, .depth = DEPTH, .nr_pools = 2,
		     .pool = { { 4 * KIB, 2 }, { 8 * KIB, 1 } });

/* What is pinned once so many queues are registered, beyond the tables */
static long pinned_by(const struct fuse_mount *mount,
		      const struct queue_mode *mode, unsigned int queues)
{
	long bytes = mode_pinned_bytes(mount, mode) -
		     mode_table_bytes(mount, mode);

	return mount_table_kib(mount) + queues * bytes / KIB;
}

/*
 * By default nothing fails that may sleep, and nothing of a single page. Each
 * fault counts down "times", which is put back like what is set here.
 */
static const char * const settings[][2] = {
	{ DEBUGFS "/failslab/ignore-gfp-wait", "N" },
	{ DEBUGFS "/failslab/verbose", "0" },
	{ DEBUGFS "/failslab/times", "1" },
	{ DEBUGFS "/fail_page_alloc/ignore-gfp-wait", "N" },
	{ DEBUGFS "/fail_page_alloc/ignore-gfp-highmem", "N" },
	{ DEBUGFS "/fail_page_alloc/min-order", "0" },
	{ DEBUGFS "/fail_page_alloc/verbose", "0" },
	{ DEBUGFS "/fail_page_alloc/times", "1" },
};

static char settings_before[ARRAY_SIZE(settings)][32];

static void restore_injection(void)
{
	unsigned int n;

	for (n = 0; n < ARRAY_SIZE(settings); n++)
		if (settings_before[n][0])
			write_text(settings[n][0], settings_before[n]);
}

static int set_up_injection(void)
{
	unsigned int n;
	int err = 0;

	if (access(DEBUGFS "/failslab", F_OK))
		mount("fault_test", DEBUGFS, "debugfs", 0, NULL);
	for (n = 0; n < ARRAY_SIZE(settings) && !err; n++) {
		err = read_text(settings[n][0], settings_before[n],
				sizeof(settings_before[n]));
		if (err > 0)
			err = write_text(settings[n][0], settings[n][1]);
	}
	if (err)
		restore_injection();
	return err;
}

static int open_mount(FIXTURE_DATA(fault) * self)
{
	/* Few pages to fault in, so that the sweep over them is short */
	const struct mount_options options = { .max_write = 4096 };

	return test_fs_mount(&self->fs, &self->mount, &options);
}

FIXTURE_SETUP(fault)
{
	const char *impossible = ring_tests_impossible();

	if (impossible)
		SKIP(return, "%s", impossible);
	if (!has_privilege(CAP_SYS_ADMIN))
		SKIP(return, "fault injection needs CAP_SYS_ADMIN");
	if (access(FAIL_NTH, W_OK))
		SKIP(return, "kernel has no fault injection (no " FAIL_NTH ")");
	ASSERT_EQ(0, test_fs_open(&self->fs, 64 * KIB));
	ASSERT_EQ(0, open_mount(self));
	impossible = mode_impossible(&self->mount, &variant->mode);
	if (impossible)
		SKIP(return, "%s", impossible);
	if (set_up_injection())
		SKIP(return, "kernel has no failslab or fail_page_alloc in debugfs");
}

FIXTURE_TEARDOWN(fault)
{
	restore_injection();
	mount_close(&self->mount);
	test_fs_close(&self->fs);
}

/* The nth allocation of this thread from now on fails. */
static int arm_fault(unsigned int nth)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", nth);
	return write_text(FAIL_NTH, text);
}

static bool fault_happened(void)
{
	int fd = open(FAIL_NTH, O_RDONLY | O_CLOEXEC);
	char text[16] = "";
	bool happened;

	happened = read(fd, text, sizeof(text) - 1) > 0 && text[0] == '0';
	close(fd);
	return happened;
}

/* Returns whether it had happened. */
static bool disarm_fault(void)
{
	bool happened = fault_happened();

	arm_fault(0);
	return happened;
}

static int open_queues(struct fuse_mount *mount, const struct queue_mode *mode)
{
	unsigned int qid;
	int err = 0;

	for (qid = 0; qid < mount->nr_queues && !err; qid++)
		err = queue_open(mount, qid, mode);
	return err;
}

/* What is not registered yet */
static int register_rest(struct fuse_mount *mount)
{
	unsigned int qid;
	int err = 0;

	for (qid = 0; qid < mount->nr_queues && !err; qid++)
		if (mount->queues[qid].slots[0].state == SLOT_FREE)
			err = queue_register(&mount->queues[qid], 0);
	return err;
}

TEST_F_TIMEOUT(fault, every_allocation_of_register_may_fail, SLOW_TEST_S)
{
	struct server_queue *queue;
	bool happened = true;
	unsigned int nth;
	int err, again;

	for (nth = 1; happened && nth < MAX_FAULTS; nth++) {
		ASSERT_EQ(0, open_queues(&self->mount, &variant->mode));
		queue = &self->mount.queues[0];
		ASSERT_EQ(0, arm_fault(nth));
		err = queue_register(queue, 0);
		happened = disarm_fault();
		if (!happened)
			ASSERT_EQ(0, err);
		if (err) {
			/* EAGAIN: io_uring had no memory for the command. */
			if (err != -EAGAIN && err != -EFAULT)
				ASSERT_EQ(-ENOMEM, err);
			ASSERT_EQ(pinned_by(&self->mount, &variant->mode, 0),
				  pinned_kib(getpid()));
		} else {
			ASSERT_EQ(pinned_by(&self->mount, &variant->mode, 1),
				  pinned_kib(getpid()));
		}
		/*
		 * Once more, without a fault. Other errors of REGISTER turn
		 * io-uring off, unless io_uring made them before fuse saw the
		 * command.
		 */
		if (err != -EAGAIN) {
			again = register_rest(&self->mount);
			if (!err || (err == -ENOMEM && variant->mode.flags) ||
			    again != -EOPNOTSUPP)
				ASSERT_EQ(0, again);
			ASSERT_EQ(0, mount_works(&self->mount));
		}
		mount_close(&self->mount);
		ASSERT_EQ(0, wait_until_pinned_is(0));
		ASSERT_EQ(0, open_mount(self));
	}
	EXPECT_FALSE(happened);
	/* A queue and an entry at least */
	EXPECT_LT(3, nth);
}

#define WRONG_DATA 1

/* Copies one half of the file to the other. */
static long use_file(void *arg)
{
	char *buffer = aligned_alloc(4096, 8 * KIB);
	int fd = open(arg, O_RDWR | O_DIRECT);

	if (fd < 0)
		return -errno;
	if (pread(fd, buffer, 8 * KIB, 0) < 0)
		return -errno;
	if (pattern_differs(buffer, 8 * KIB, 0) >= 0)
		return WRONG_DATA;
	if (pwrite(fd, buffer, 8 * KIB, 8 * KIB) < 0)
		return -errno;
	return 0;
}

/* Serves the client until a fault has happened, or it has finished. */
static bool serve_with_fault(FIXTURE_DATA(fault) * self,
			     const struct client *client, unsigned int nth)
{
	struct server_request request;

	arm_fault(nth);
	while (client_runs(client) && !fault_happened())
		if (!mount_wait(&self->mount, &request, SILENCE_MS))
			request_answer(&request);
	return disarm_fault();
}

TEST_F_TIMEOUT(fault, every_allocation_for_requests_may_fail, SLOW_TEST_S)
{
	const bool opt_in = variant->mode.bufpool & BUFPOOL_ZERO_COPY;
	char *path = mount_path(&self->mount, opt_in ? "opted_in" : "data");
	char *data = self->fs.data[opt_in ? NODE_OPTED_IN : NODE_DATA];
	char *copy = data + 8 * KIB;
	bool happened = true;
	struct client client;
	unsigned int nth, n;
	long pinned, result;

	pattern_fill(data, 8 * KIB, 0);
	ASSERT_EQ(0, mount_serve_in_steps(&self->mount, &variant->mode));
	pinned = pinned_by(&self->mount, &variant->mode, self->mount.nr_queues);
	for (nth = 1; happened && nth < MAX_FAULTS; nth++) {
		memset(copy, 0, 8 * KIB);
		ASSERT_EQ(0, client_start(&client, first_usable_cpu(), use_file,
					  path));
		happened = serve_with_fault(self, &client, nth);
		/* An error or all of the data, and an end */
		result = client_wait_served(&self->mount, &client);
		ASSERT_NE(-ETIMEDOUT, result);
		ASSERT_GE(0, result);
		if (!result)
			ASSERT_EQ(-1, pattern_differs(copy, 8 * KIB, 0));
		ASSERT_EQ(pinned, pinned_kib(getpid()));
		/* More often than there are entries or buffers: none is lost */
		for (n = 0; n < DEPTH + 1; n++)
			ASSERT_EQ(0, mount_works(&self->mount));
	}
	EXPECT_FALSE(happened);
	/* One at least failed: those of the system calls are many. */
	EXPECT_LT(2, nth);
	mount_close(&self->mount);
	EXPECT_EQ(0, wait_until_pinned_is(0));
}

FUSE_TEST_MAIN(NEEDS_RING)
