// SPDX-License-Identifier: GPL-2.0
/*
 * A request never waits while there is an entry for it, and a payload buffer if
 * it needs one: whatever else waits on its queue, and however the entry or the
 * buffer became free.
 */
#include <fcntl.h>
#include <stdalign.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "test_fs.h"
#include "variants.h"

#define MIB (1024 * 1024)
#define READ_SIZE 4096
#define NR_CLIENTS 5
#define NR_ENTRIES 3

/* What a client does with a file that it has open */
enum step {
	STEP_READ,	/* a request with a payload */
	STEP_FSYNC,	/* one without, in either direction */
};

/* In memory that is shared with the client */
struct stepper {
	enum step step;
	char path[320];
	unsigned int opened;
	unsigned int go;
};

FIXTURE(progress)
{
	struct fuse_mount mount;
	struct test_fs fs;
	struct client clients[NR_CLIENTS];
	struct stepper *steppers;
};

FIXTURE_VARIANT(progress)
{
	struct queue_mode mode;
};

/* More entries than buffers, which a READ needs */
#define ADD_PROGRESS_VARIANT(name)					\
	ADD_VARIANT(progress, name, .depth = NR_ENTRIES,		\
		    .nr_pools = 1, .pool = { { MIB, 1 } })
ADD_PROGRESS_VARIANT(bufpool);
ADD_PROGRESS_VARIANT(bufpool_registered);
ADD_PROGRESS_VARIANT(bufpool_zero_copy);
ADD_PROGRESS_VARIANT(bufring);
ADD_PROGRESS_VARIANT(pinned);
ADD_PROGRESS_VARIANT(zero_copy_opt_in);

FIXTURE(progress_of_entries)
{
	struct fuse_mount mount;
	struct test_fs fs;
	struct client clients[NR_CLIENTS];
	struct stepper *steppers;
};

FIXTURE_VARIANT(progress_of_entries)
{
	struct queue_mode mode;
};

ADD_ALL_VARIANTS(progress_of_entries, .depth = 2, .nr_pools = 1,
		 .pool = { { MIB, 2 } });

static struct stepper *map_steppers(void)
{
	void *memory = mmap(NULL, NR_CLIENTS * sizeof(struct stepper),
			    PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			    -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

FIXTURE_SETUP(progress)
{
	const char *impossible;
	int err;

	impossible = test_fs_begin(&self->fs, &self->mount, 64 * 1024, NULL,
				   &variant->mode, &err);
	ASSERT_EQ(0, err);
	if (impossible)
		SKIP(return, "%s", impossible);
	self->steppers = map_steppers();
	ASSERT_NE(NULL, self->steppers);
	ASSERT_EQ(0, mount_serve_in_steps(&self->mount, &variant->mode));
}

FIXTURE_TEARDOWN(progress)
{
	mount_close(&self->mount);
	test_fs_close(&self->fs);
}

FIXTURE_SETUP(progress_of_entries)
{
	const char *impossible;
	unsigned int qid;
	int err;

	impossible = test_fs_begin(&self->fs, &self->mount, 64 * 1024, NULL,
				   &variant->mode, &err);
	ASSERT_EQ(0, err);
	if (impossible)
		SKIP(return, "%s", impossible);
	self->steppers = map_steppers();
	ASSERT_NE(NULL, self->steppers);
	/* Of each queue only the first entry */
	for (qid = 0; qid < self->mount.nr_queues; qid++) {
		ASSERT_EQ(0, queue_open(&self->mount, qid, &variant->mode));
		ASSERT_EQ(0, queue_register(&self->mount.queues[qid], 0));
	}
}

FIXTURE_TEARDOWN(progress_of_entries)
{
	mount_close(&self->mount);
	test_fs_close(&self->fs);
}

/* Opens its file, waits until it may, and takes its step. */
static long take_step(void *arg)
{
	static alignas(READ_SIZE) char data[READ_SIZE];
	struct stepper *stepper = arg;
	int fd = open(stepper->path, O_RDWR | O_DIRECT);
	ssize_t len;

	if (fd < 0)
		return -errno;
	__atomic_store_n(&stepper->opened, 1, __ATOMIC_SEQ_CST);
	if (wait_for_count(&stepper->go, 1))
		return -ETIMEDOUT;
	switch (stepper->step) {
	case STEP_READ:
		len = pread(fd, data, sizeof(data), 0);
		return len < 0 ? -errno : len;
	case STEP_FSYNC:
		return fsync(fd) ? -errno : 0;
	}
	return -EINVAL;
}

/* A client that has its file open and waits for its turn */
static int start_stepper_on(struct fuse_mount *mount, struct client *client,
			    struct stepper *stepper, enum step step,
			    const char *file)
{
	__u64 deadline = now_ms() + WAIT_MS;
	struct server_request request;
	int err;

	stepper->step = step;
	strcpy(stepper->path, mount_path(mount, file));
	err = client_start(client, first_usable_cpu(), take_step, stepper);
	while (!err && !__atomic_load_n(&stepper->opened, __ATOMIC_SEQ_CST)) {
		if (!ms_until(deadline))
			return -ETIMEDOUT;
		err = mount_wait(mount, &request, 10);
		if (!err)
			err = request_answer(&request);
		else if (err == -ETIMEDOUT)
			err = 0;
	}
	return err;
}

static int start_stepper(struct fuse_mount *mount, struct client *client,
			 struct stepper *stepper, enum step step)
{
	return start_stepper_on(mount, client, stepper, step, "data");
}

static void let_go(struct stepper *stepper)
{
	__atomic_store_n(&stepper->go, 1, __ATOMIC_SEQ_CST);
}

/* Lets it go, until its request waits beside so many others. */
static int let_wait(struct fuse_mount *mount, struct client *client,
		    struct stepper *stepper, unsigned int requests)
{
	int err;

	let_go(stepper);
	err = mount_wait_until_waiting(mount, requests);
	return err ?: client_wait_asleep(client);
}

/* Of three requests the second waits for the buffer, the third needs none. */
TEST_F(progress, a_request_without_a_payload_passes_those_that_need_a_buffer)
{
	struct stepper *steppers = self->steppers;
	struct client *clients = self->clients;
	struct fuse_mount *mount = &self->mount;
	struct server_request held, request;

	ASSERT_EQ(0, start_stepper(mount, &clients[0], &steppers[0],
				   STEP_READ));
	ASSERT_EQ(0, start_stepper(mount, &clients[1], &steppers[1],
				   STEP_READ));
	ASSERT_EQ(0, start_stepper(mount, &clients[2], &steppers[2],
				   STEP_FSYNC));

	let_go(&steppers[0]);
	ASSERT_EQ(0, mount_wait_for(mount, FUSE_READ, &held));
	ASSERT_EQ(0, let_wait(mount, &clients[1], &steppers[1], 2));
	ASSERT_EQ(0, mount_expect_silence(mount));

	let_go(&steppers[2]);
	ASSERT_EQ(0, mount_wait_for(mount, FUSE_FSYNC, &request));
	EXPECT_EQ(0, request_reply(&request, 0, NULL, 0));
	EXPECT_EQ(0, client_wait_served(mount, &clients[2]));

	EXPECT_EQ(0, request_answer(&held));
	EXPECT_EQ(READ_SIZE, client_wait_served(mount, &clients[0]));
	EXPECT_EQ(READ_SIZE, client_wait_served(mount, &clients[1]));
}

/*
 * When no entry is left the next READ waits for the buffer and an FSYNC for an
 * entry. The READ is older, but of no use to the entry that is free first.
 */
TEST_F(progress, an_entry_that_is_free_again_takes_what_needs_no_buffer)
{
	struct server_request held, sync[NR_ENTRIES], request;
	struct stepper *steppers = self->steppers;
	struct client *clients = self->clients;
	struct fuse_mount *mount = &self->mount;
	const int read_waits = NR_ENTRIES, sync_waits = NR_ENTRIES + 1;
	/* Of a file there is only one FSYNC at a time. */
	static const struct {
		enum step step;
		const char *file;
	} start[NR_CLIENTS] = {
		{ STEP_READ, "data" }, { STEP_FSYNC, "data" },
		{ STEP_FSYNC, "opted_in" }, { STEP_READ, "data" },
		{ STEP_FSYNC, "broken" },
	};
	int n;

	for (n = 0; n < NR_CLIENTS; n++)
		ASSERT_EQ(0, start_stepper_on(mount, &clients[n], &steppers[n],
					      start[n].step, start[n].file));
	let_go(&steppers[0]);
	ASSERT_EQ(0, mount_wait_for(mount, FUSE_READ, &held));
	for (n = 1; n < NR_ENTRIES; n++) {
		let_go(&steppers[n]);
		ASSERT_EQ(0, mount_wait_for(mount, FUSE_FSYNC, &sync[n]));
	}
	ASSERT_EQ(0, let_wait(mount, &clients[read_waits],
			      &steppers[read_waits], NR_ENTRIES + 1));
	ASSERT_EQ(0, let_wait(mount, &clients[sync_waits],
			      &steppers[sync_waits], NR_ENTRIES + 2));
	ASSERT_EQ(0, mount_expect_silence(mount));

	EXPECT_EQ(0, request_reply(&sync[1], 0, NULL, 0));
	ASSERT_EQ(0, mount_wait_for(mount, FUSE_FSYNC, &request));
	EXPECT_EQ(0, request_reply(&request, 0, NULL, 0));
	EXPECT_EQ(0, client_wait_served(mount, &clients[sync_waits]));
	EXPECT_EQ(0, client_wait_served(mount, &clients[1]));

	for (n = 2; n < NR_ENTRIES; n++) {
		EXPECT_EQ(0, request_reply(&sync[n], 0, NULL, 0));
		EXPECT_EQ(0, client_wait_served(mount, &clients[n]));
	}
	EXPECT_EQ(0, request_answer(&held));
	EXPECT_EQ(READ_SIZE, client_wait_served(mount, &clients[0]));
	EXPECT_EQ(READ_SIZE, client_wait_served(mount, &clients[read_waits]));
}

/*
 * The buffer goes to whoever waits for it, even if the entry that gave it back
 * has another request without a payload before that.
 */
TEST_F(progress, a_buffer_goes_to_the_request_that_waits_for_it)
{
	struct stepper *steppers = self->steppers;
	struct client *clients = self->clients;
	struct fuse_mount *mount = &self->mount;
	struct server_request held, request;

	ASSERT_EQ(0, start_stepper(mount, &clients[0], &steppers[0],
				   STEP_READ));
	ASSERT_EQ(0, start_stepper(mount, &clients[1], &steppers[1],
				   STEP_FSYNC));
	ASSERT_EQ(0, start_stepper(mount, &clients[2], &steppers[2],
				   STEP_READ));

	let_go(&steppers[0]);
	ASSERT_EQ(0, mount_wait_for(mount, FUSE_READ, &held));
	let_go(&steppers[1]);
	ASSERT_EQ(0, mount_wait_for(mount, FUSE_FSYNC, &request));
	ASSERT_EQ(0, let_wait(mount, &clients[2], &steppers[2], 3));
	ASSERT_EQ(0, mount_expect_silence(mount));

	/* The FSYNC stays with the server. */
	ASSERT_EQ(0, request_answer(&held));
	EXPECT_EQ(READ_SIZE, client_wait_served(mount, &clients[0]));
	EXPECT_EQ(READ_SIZE, client_wait_served(mount, &clients[2]));
	EXPECT_EQ(0, request_reply(&request, 0, NULL, 0));
	EXPECT_EQ(0, client_wait_served(mount, &clients[1]));
}

TEST_F(progress_of_entries, an_entry_that_is_added_takes_a_request_that_waits)
{
	struct stepper *steppers = self->steppers;
	struct client *clients = self->clients;
	struct fuse_mount *mount = &self->mount;
	struct server_request held, request;

	ASSERT_EQ(0, start_stepper(mount, &clients[0], &steppers[0],
				   STEP_READ));
	ASSERT_EQ(0, start_stepper(mount, &clients[1], &steppers[1],
				   STEP_READ));

	let_go(&steppers[0]);
	ASSERT_EQ(0, mount_wait_for(mount, FUSE_READ, &held));
	ASSERT_EQ(0, let_wait(mount, &clients[1], &steppers[1], 2));
	ASSERT_EQ(0, mount_expect_silence(mount));

	ASSERT_EQ(0, queue_register(held.queue, 1));
	ASSERT_EQ(0, mount_wait_for(mount, FUSE_READ, &request));
	EXPECT_EQ(1, request.slot);
	EXPECT_EQ(0, request_answer(&request));
	EXPECT_EQ(READ_SIZE, client_wait_served(mount, &clients[1]));
	EXPECT_EQ(0, request_answer(&held));
	EXPECT_EQ(READ_SIZE, client_wait_served(mount, &clients[0]));
}

FUSE_TEST_MAIN(NEEDS_RING)
