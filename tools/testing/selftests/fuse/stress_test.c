// SPDX-License-Identifier: GPL-2.0
/*
 * Several clients do everything in a random order, on two files at once, and
 * check every byte against what they remember. Bounded by a number of
 * operations, not by time. FUSE_STRESS_SEED=N repeats a run's choices,
 * FUSE_STRESS_OPS=N makes it longer.
 */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "test_fs.h"
#include "variants.h"

#define KIB 1024
#define MIB (1024 * 1024)
#define NR_CLIENTS 4
#define NR_FILES 2
#define REGION (512 * KIB)	/* of each client, in each file */
#define FILE_SIZE (NR_CLIENTS * REGION)
#define DEFAULT_OPS 500
#define SLOW_TEST_S 170

FIXTURE(stress)
{
	struct fuse_mount mount;
	struct test_fs fs;
	unsigned int seed;
	unsigned int operations;
};

FIXTURE_VARIANT(stress)
{
	struct queue_mode mode;
};

ADD_VARIANT(stress, entries, .depth = 2);
ADD_BUFPOOL_VARIANTS(stress, .depth = 4);
ADD_VARIANT(stress, bufring, .depth = 4, .nr_pools = 1, .pool = { { MIB, 1 } });
ADD_VARIANT(stress, pinned, .depth = 8, .nr_pools = 4,
	    .pool = { { 128, 2 }, { 4 * KIB, 2 }, { 64 * KIB, 2 }, { MIB, 1 } });
ADD_VARIANT(stress, zero_copy, .depth = 4, .nr_pools = 2,
	    .pool = { { 4 * KIB, 2 }, { MIB, 1 } });
ADD_VARIANT(stress, zero_copy_opt_in, .depth = 4, .nr_pools = 2,
	    .pool = { { 4 * KIB, 2 }, { MIB, 1 } });

static unsigned int number_from(const char *variable, unsigned int otherwise)
{
	const char *text = getenv(variable);

	return text ? strtoul(text, NULL, 0) : otherwise;
}

FIXTURE_SETUP(stress)
{
	const char *impossible = ring_tests_impossible();

	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(0, mount_open(&self->mount, NULL));
	impossible = mode_impossible(&self->mount, &variant->mode);
	if (impossible)
		SKIP(return, "%s", impossible);
	self->seed = number_from("FUSE_STRESS_SEED", time(NULL));
	self->operations = number_from("FUSE_STRESS_OPS", DEFAULT_OPS);
	TH_LOG("FUSE_STRESS_SEED=%u FUSE_STRESS_OPS=%u", self->seed,
	       self->operations);
	ASSERT_EQ(0, test_fs_open(&self->fs, FILE_SIZE));
	ASSERT_EQ(0, test_fs_serve(&self->fs, &self->mount, &variant->mode,
				   RING_FLAGS));
}

FIXTURE_TEARDOWN(stress)
{
	EXPECT_EQ(0, test_fs_stop(&self->fs));
	mount_close(&self->mount);
	test_fs_close(&self->fs);
}

struct worker {
	pthread_barrier_t *all_opened;
	struct fuse_mount *mount;
	struct test_fs *fs;
	unsigned int operations;
	unsigned int number;
	unsigned int random;
	off_t start;			/* of the region */
	char *expected[NR_FILES];	/* what it should hold */
	int cached[NR_FILES];
	int direct[NR_FILES];
	char *map[NR_FILES];
	char *buffer;
};

static const unsigned int nodes[NR_FILES] = { NODE_DATA, NODE_OPTED_IN };
static const char * const names[NR_FILES] = { "data", "opted_in" };

static unsigned int pick(struct worker *worker, unsigned int limit)
{
	worker->random ^= worker->random << 13;
	worker->random ^= worker->random >> 17;
	worker->random ^= worker->random << 5;
	return worker->random % limit;
}

/* Mostly small ones, some that take the whole region */
static void pick_range(struct worker *worker, size_t *offset, size_t *len)
{
	static const size_t limits[] = { 16, 4096, 64 * KIB, REGION };

	*len = 1 + pick(worker, limits[pick(worker, ARRAY_SIZE(limits))]);
	*offset = pick(worker, REGION - *len + 1);
	if (pick(worker, 2)) {
		*offset &= ~4095UL;
		*len = *len > 4096 ? *len & ~4095UL : *len;
	}
}

static int check(struct worker *worker, const char *what, unsigned int file,
		 const char *seen, size_t offset, size_t len)
{
	const char *expected = worker->expected[file] + offset;
	size_t n;

	if (!memcmp(seen, expected, len))
		return 0;
	for (n = 0; seen[n] == expected[n]; n++)
		;
	complain("client %u: %s of %zu bytes at %zu of %s: byte %zu is wrong",
		 worker->number, what, len, offset, names[file], n);
	return -EILSEQ;
}

static int read_some(struct worker *worker, unsigned int file, int fd)
{
	size_t offset, len;

	pick_range(worker, &offset, &len);
	if (pread(fd, worker->buffer, len, worker->start + offset) !=
	    (ssize_t)len)
		return -errno ?: -EIO;
	return check(worker, "read", file, worker->buffer, offset, len);
}

static int write_some(struct worker *worker, unsigned int file, int fd)
{
	size_t offset, len;

	pick_range(worker, &offset, &len);
	pattern_fill(worker->expected[file] + offset, len,
		     pick(worker, 1 << 20));
	memcpy(worker->buffer, worker->expected[file] + offset, len);
	if (pwrite(fd, worker->buffer, len, worker->start + offset) !=
	    (ssize_t)len)
		return -errno ?: -EIO;
	return 0;
}

static int look_at_map(struct worker *worker, unsigned int file)
{
	size_t offset, len;

	pick_range(worker, &offset, &len);
	return check(worker, "mapping", file, worker->map[file] + offset,
		     offset, len);
}

static int drop_cache(struct worker *worker, unsigned int file)
{
	if (fsync(worker->cached[file]))
		return -errno;
	posix_fadvise(worker->cached[file], worker->start, REGION,
		      POSIX_FADV_DONTNEED);
	return 0;
}

static int use_xattr(struct worker *worker)
{
	char name[16], seen[8 * KIB];
	size_t len = 1 + pick(worker, sizeof(seen));
	__u64 position = pick(worker, 1 << 20);

	snprintf(name, sizeof(name), "user.%u", worker->number);
	pattern_fill(worker->buffer, len, position);
	if (fsetxattr(worker->cached[0], name, worker->buffer, len, 0))
		return -errno;
	if (fgetxattr(worker->cached[0], name, seen, sizeof(seen)) !=
	    (ssize_t)len)
		return -errno ?: -EIO;
	return pattern_differs(seen, len, position) < 0 ? 0 : -EILSEQ;
}

static int use_names(struct worker *worker)
{
	char target[LINK_LENGTH + 1];
	struct stat st;
	DIR *dir;
	int n = 0;

	if (stat(mount_path(worker->mount, "data"), &st) ||
	    st.st_size != FILE_SIZE)
		return -errno ?: -EIO;
	if (readlink(mount_path(worker->mount, "link"), target,
		     sizeof(target)) != LINK_LENGTH)
		return -errno ?: -EIO;
	if (pick(worker, 4))
		return 0;
	dir = opendir(mount_path(worker->mount, "dir"));
	if (!dir)
		return -errno;
	while (readdir(dir))
		n++;
	closedir(dir);
	return n == DIR_ENTRIES ? 0 : -EILSEQ;
}

static int do_something(struct worker *worker)
{
	unsigned int file = pick(worker, NR_FILES);

	switch (pick(worker, 12)) {
	case 0 ... 2:
		return read_some(worker, file, worker->cached[file]);
	case 3 ... 4:
		return read_some(worker, file, worker->direct[file]);
	case 5 ... 6:
		return write_some(worker, file, worker->cached[file]);
	case 7 ... 8:
		return write_some(worker, file, worker->direct[file]);
	case 9:
		return look_at_map(worker, file);
	case 10:
		return pick(worker, 2) ? use_xattr(worker) : use_names(worker);
	default:
		return drop_cache(worker, file);
	}
}

static int open_files(struct worker *worker)
{
	unsigned int file;

	worker->start = worker->number * REGION;
	worker->buffer = aligned_alloc(4096, REGION);
	for (file = 0; file < NR_FILES; file++) {
		const char *path = mount_path(worker->mount, names[file]);

		worker->expected[file] = calloc(1, REGION);
		worker->cached[file] = open(path, O_RDWR);
		worker->direct[file] = open(path, O_RDWR | O_DIRECT);
		if (worker->cached[file] < 0 || worker->direct[file] < 0)
			return -errno;
		worker->map[file] = mmap(NULL, REGION, PROT_READ, MAP_SHARED,
					 worker->cached[file], worker->start);
		if (worker->map[file] == MAP_FAILED)
			return -errno;
	}
	return 0;
}

static long work(void *arg)
{
	struct worker *worker = arg;
	unsigned int n, file;
	int err = open_files(worker);

	/*
	 * An open drops the file's cache. A page that a write(2) of another
	 * client has filled, but not sent yet, would then be read from the
	 * server as it was before.
	 */
	pthread_barrier_wait(worker->all_opened);
	for (n = 0; n < worker->operations && !err; n++) {
		err = do_something(worker);
		if (err)
			complain("client %u: operation %u: %s", worker->number,
				 n, strerror(-err));
	}
	/* At the end the server has it all. */
	for (file = 0; file < NR_FILES && !err; file++) {
		if (fsync(worker->cached[file]))
			return -errno;
		err = check(worker, "server's view", file,
			    worker->fs->data[nodes[file]] + worker->start, 0,
			    REGION);
	}
	return err;
}

TEST_F_TIMEOUT(stress, everything_at_once_does_no_harm, SLOW_TEST_S)
{
	struct worker worker[NR_CLIENTS] = {};
	struct client client[NR_CLIENTS];
	pthread_barrierattr_t shared;
	pthread_barrier_t *barrier;
	unsigned int n;

	barrier = mmap(NULL, sizeof(*barrier), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, barrier);
	pthread_barrierattr_init(&shared);
	pthread_barrierattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
	ASSERT_EQ(0, pthread_barrier_init(barrier, &shared, NR_CLIENTS));
	for (n = 0; n < NR_CLIENTS; n++) {
		worker[n].all_opened = barrier;
		worker[n].mount = &self->mount;
		worker[n].fs = &self->fs;
		worker[n].operations = self->operations;
		worker[n].number = n;
		/* Never 0, where the generator would stay */
		worker[n].random = (self->seed + n) * 2654435761U | 1;
		ASSERT_EQ(0, client_start(&client[n], ANY_CPU, work,
					  &worker[n]));
	}
	for (n = 0; n < NR_CLIENTS; n++)
		EXPECT_EQ(0, client_wait(&client[n], SLOW_TEST_S * 1000));
	EXPECT_EQ(0, self->mount.device_requests);
}

FUSE_TEST_MAIN(NEEDS_RING)
